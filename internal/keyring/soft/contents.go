package soft

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"slices"

	"joinery/internal/keyring"
)

// Formats of key files, and what says so inside of them.
const (
	formatServer = "joinery-keys/1"
	// formatRotated is formatServer with storage keys of later generations, which
	// programs that do not know them must not take for all there is.
	formatRotated = "joinery-keys/2"
	formatFactory = "joinery-factory/1"
	formatCustody = "joinery-custody/1"
)

// contents is what a key file holds, as JSON inside the age file; binary values
// are base64 there. Which fields are set depends on the format.
type contents struct {
	Format string `json:"format"`

	// A server's storage keys: AES-256, AES-256 and two HMAC keys of 32 bytes.
	JoinKEK     []byte `json:"joinKEK"`
	StorageKEK  []byte `json:"storageKEK"`
	RowMAC      []byte `json:"rowMAC"`
	OwnerTokens []byte `json:"ownerTokens"`
	// Custody is the public half of the custody key, SubjectPublicKeyInfo; the
	// private half, PKCS #8, is all there is in a custody file.
	Custody        []byte `json:"custody"`
	CustodyPrivate []byte `json:"custodyPrivate"`

	// Transport is RSA-3072, PKCS #8, and its public half.
	Transport       []byte `json:"transport"`
	TransportPublic []byte `json:"transportPublic"`

	// Export is the key that signs exports, P-256, PKCS #8, and its public half. Files
	// of older versions have none.
	Export       []byte `json:"export"`
	ExportPublic []byte `json:"exportPublic"`

	// A factory's signer: P-256, PKCS #8, and its certificate.
	Signer      []byte `json:"signer"`
	Certificate []byte `json:"certificate"`
	// A factory's issuer of device certificates: P-256, PKCS #8, its certificate,
	// and that of the root which signed it.
	Issuer            []byte `json:"issuer"`
	IssuerCertificate []byte `json:"issuerCertificate"`
	RootCertificate   []byte `json:"rootCertificate"`

	Masters []storedMaster `json:"masters"`

	// JoinKEKs are the generations above the first, in rising order; JoinKEK is the
	// first, and absent once it was retired.
	JoinKEKs []storedKEK `json:"joinKEKs"`
	// OldTransports are the transport keys before Transport that still open what was
	// sealed to them, the oldest first.
	OldTransports []storedTransport `json:"oldTransports"`
	// OldExports are the keys that signed exports before Export, the oldest first. Once
	// one was retired only its public half is left, by which old files are verified.
	OldExports []storedTransport `json:"oldExports"`
	// CustodyGeneration is that of Custody or CustodyPrivate; 0 is the first.
	CustodyGeneration uint32 `json:"custodyGeneration"`
}

// storedKEK is one generation of the join KEK.
type storedKEK struct {
	Generation uint32 `json:"generation"`
	Key        []byte `json:"key"`
}

// storedTransport is both halves of a key, as Transport and TransportPublic are.
type storedTransport struct {
	Private []byte `json:"private"`
	Public  []byte `json:"public"`
}

type storedMaster struct {
	Name    string `json:"name"`
	Profile string `json:"profile"`
	Key     []byte `json:"key"`
}

func (m storedMaster) check() error {
	switch {
	case !masterName.MatchString(m.Name) || len(m.Key) != masterLen:
		return fmt.Errorf("%w: master key", ErrDamaged)
	case m.Profile != keyring.ProfileECBv1:
		return fmt.Errorf("%w: master key %s has a derivation profile that this version does not know", ErrFormat, m.Name)
	}
	return nil
}

// binaries names the binary values in the order in which they are written.
func (c *contents) binaries() []struct {
	name  string
	value *[]byte
} {
	return []struct {
		name  string
		value *[]byte
	}{
		{"joinKEK", &c.JoinKEK}, {"storageKEK", &c.StorageKEK}, {"rowMAC", &c.RowMAC}, {"ownerTokens", &c.OwnerTokens},
		{"custody", &c.Custody}, {"custodyPrivate", &c.CustodyPrivate},
		{"transport", &c.Transport}, {"transportPublic", &c.TransportPublic},
		{"export", &c.Export}, {"exportPublic", &c.ExportPublic},
		{"signer", &c.Signer}, {"certificate", &c.Certificate},
		{"issuer", &c.Issuer}, {"issuerCertificate", &c.IssuerCertificate}, {"rootCertificate", &c.RootCertificate},
	}
}

// wipe clears everything, so that nothing of it stays on the heap.
func (c *contents) wipe() {
	for _, b := range c.binaries() {
		clear(*b.value)
	}
	for _, m := range c.Masters {
		clear(m.Key)
	}
	for _, k := range c.JoinKEKs {
		clear(k.Key)
	}
	for _, k := range slices.Concat(c.OldTransports, c.OldExports) {
		clear(k.Private)
	}
}

// find gives the place of a master key, -1 if there is none of that name.
func (c *contents) find(name string) int {
	return slices.IndexFunc(c.Masters, func(m storedMaster) bool { return m.Name == name })
}

// encode gives the JSON form, in one piece of memory that the caller clears.
// encoding/json would leave a copy in a pool of its own. Names are letters and
// digits, so that nothing needs escaping.
func (c *contents) encode() []byte {
	size := 256
	for _, b := range c.binaries() {
		size += 32 + base64.StdEncoding.EncodedLen(len(*b.value))
	}
	size += 256*len(c.Masters) + 128*len(c.JoinKEKs)
	for _, k := range slices.Concat(c.OldTransports, c.OldExports) {
		size += 64 + base64.StdEncoding.EncodedLen(len(k.Private)) + base64.StdEncoding.EncodedLen(len(k.Public))
	}
	text := make([]byte, 0, size)
	text = append(text, `{"format":"`+c.Format+`"`...)
	for _, b := range c.binaries() {
		if len(*b.value) > 0 {
			text = append(text, `,"`+b.name+`":"`...)
			text = append(base64.StdEncoding.AppendEncode(text, *b.value), '"')
		}
	}
	if len(c.Masters) > 0 {
		text = append(text, `,"masters":[`...)
		for i, m := range c.Masters {
			if i > 0 {
				text = append(text, ',')
			}
			text = append(text, `{"name":"`+m.Name+`","profile":"`+m.Profile+`","key":"`...)
			text = append(base64.StdEncoding.AppendEncode(text, m.Key), `"}`...)
		}
		text = append(text, ']')
	}
	text = c.encodeGenerations(text)
	return append(text, '}')
}

// encodeGenerations is encode for what came in with rotation.
func (c *contents) encodeGenerations(text []byte) []byte {
	if c.CustodyGeneration > 0 {
		text = fmt.Appendf(text, `,"custodyGeneration":%d`, c.CustodyGeneration)
	}
	for i, k := range c.JoinKEKs {
		text = append(text, opening(i, `,"joinKEKs":[`)...)
		text = fmt.Appendf(text, `{"generation":%d,"key":"`, k.Generation)
		text = append(base64.StdEncoding.AppendEncode(text, k.Key), `"}`...)
	}
	text = closing(text, len(c.JoinKEKs))
	text = encodePairs(text, "oldTransports", c.OldTransports)
	return encodePairs(text, "oldExports", c.OldExports)
}

func encodePairs(text []byte, name string, list []storedTransport) []byte {
	for i, k := range list {
		text = append(text, opening(i, `,"`+name+`":[`)...)
		text = append(base64.StdEncoding.AppendEncode(append(text, `{"private":"`...), k.Private), `","public":"`...)
		text = append(base64.StdEncoding.AppendEncode(text, k.Public), `"}`...)
	}
	return closing(text, len(list))
}

// opening is what stands before the i-th member of a list.
func opening(i int, first string) string {
	if i == 0 {
		return first
	}
	return ","
}

// closing ends a list of n members, if there are any.
func closing(text []byte, n int) []byte {
	if n == 0 {
		return text
	}
	return append(text, ']')
}

// decodeContents reads the JSON form; the format must be one of those given.
func decodeContents(text []byte, formats ...string) (*contents, error) {
	c := &contents{}
	if err := json.Unmarshal(text, c); err != nil {
		c.wipe()
		return nil, ErrDamaged // the cause might repeat a value
	}
	if !slices.Contains(formats, c.Format) {
		have := c.Format
		c.wipe()
		if slices.Contains([]string{formatServer, formatRotated, formatFactory, formatCustody}, have) {
			return nil, fmt.Errorf("%w: this is %s; want %s", ErrFormat, have, formats[0])
		}
		return nil, fmt.Errorf("%w: it was written by a newer version of this program; use that", ErrFormat)
	}
	return c, nil
}

// scrub gives the heap's free memory back to the system: what libraries left
// in buffers of their own while a file was opened is gone with it.
func scrub() { debug.FreeOSMemory() }
