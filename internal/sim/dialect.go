package sim

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"

	"joinery/lorawan"
)

// Dialect is how one make of Network Server spells its messages. All of them
// are legal; a Join Server has to take each as it comes.
type Dialect struct {
	Name string
	// prefix stands before every binary value; upper is their case.
	prefix string
	upper  bool
	// zeroTransaction sends TransactionID 0 with every message.
	zeroTransaction bool
	// maxTransaction sends the highest TransactionID with every message.
	maxTransaction bool
	// emptyVSExtension sends an empty VSExtension with every message.
	emptyVSExtension bool
	// only10 is set where the make speaks ProtocolVersion 1.0 only; needsNSID
	// where it sends no 1.1 message without SenderNSID.
	only10    bool
	needsNSID bool
	// shortKEK is set where it unwraps under 128-bit KEKs only.
	shortKEK    bool
	macVersions [lorawan.MAC1_1 + 1]string
}

// The dialects by name. They are spellings: which messages a make never sends
// is not part of them.
func dialects() []Dialect {
	long := [...]string{
		lorawan.MAC1_0_0: "1.0.0", lorawan.MAC1_0_1: "1.0.1", lorawan.MAC1_0_2: "1.0.2",
		lorawan.MAC1_0_3: "1.0.3", lorawan.MAC1_0_4: "1.0.4", lorawan.MAC1_1: "1.1.0",
	}
	short := long
	short[lorawan.MAC1_0_0], short[lorawan.MAC1_1] = "1.0", "1.1"
	odd := short
	odd[lorawan.MAC1_1] = "1.1.1"
	return []Dialect{
		// ChirpStack v4: lower case, a random TransactionID, long versions.
		{Name: "chirpstack", only10: true, shortKEK: true, macVersions: long},
		// The Things Stack: upper case, TransactionID 0, short versions, and an
		// NSID in every 1.1 message of a Network Server.
		{Name: "tts", upper: true, zeroTransaction: true, needsNSID: true, macVersions: short},
		// brocaar/lorawan (ChirpStack v3): an empty VSExtension everywhere.
		{Name: "brocaar", only10: true, emptyVSExtension: true, macVersions: long},
		// No known make, all that TS002-1.0 allows on top: 0x before every
		// binary value, and the highest TransactionID.
		{Name: "prefixed", prefix: "0x", maxTransaction: true, macVersions: odd},
	}
}

// DialectNames gives the names that ParseDialect knows; the first is the
// default.
func DialectNames() []string {
	var names []string
	for _, d := range dialects() {
		names = append(names, d.Name)
	}
	return names
}

// ParseDialect finds a dialect by its name; "" is ChirpStack's with either
// protocol version.
func ParseDialect(name string) (Dialect, error) {
	all := dialects()
	if name == "" {
		plain := all[0]
		plain.Name, plain.only10, plain.shortKEK = "plain", false, false
		return plain, nil
	}
	for _, d := range all {
		if d.Name == name {
			return d, nil
		}
	}
	return Dialect{}, fmt.Errorf("dialect: want one of %s", strings.Join(DialectNames(), ", "))
}

// macVersion spells a version; one that does not exist is sent as it is.
func (d *Dialect) macVersion(v lorawan.MACVersion) string {
	if !v.Valid() {
		return v.String()
	}
	return d.macVersions[v]
}

func (d *Dialect) transactionID() uint32 {
	switch {
	case d.zeroTransaction:
		return 0
	case d.maxTransaction:
		return 1<<32 - 1
	}
	return rand.Uint32()
}

// appendHex appends b as a JSON string.
func (d *Dialect) appendHex(dst, b []byte) []byte {
	dst = append(dst, '"')
	dst = append(dst, d.prefix...)
	start := len(dst)
	dst = hex.AppendEncode(dst, b)
	if d.upper {
		for i := start; i < len(dst); i++ {
			if dst[i] >= 'a' {
				dst[i] -= 'a' - 'A'
			}
		}
	}
	return append(dst, '"')
}
