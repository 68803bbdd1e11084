package lorawan

import "fmt"

// MACVersion is a published version of the LoRaWAN link layer. The zero value
// is no version. Rules ask its predicates and never compare versions.
type MACVersion uint8

// The versions that a Join Server meets.
const (
	MAC1_0_0 MACVersion = iota + 1
	MAC1_0_1
	MAC1_0_2
	MAC1_0_3
	MAC1_0_4
	MAC1_1
)

var macVersionText = [...]string{
	MAC1_0_0: "1.0.0", MAC1_0_1: "1.0.1", MAC1_0_2: "1.0.2",
	MAC1_0_3: "1.0.3", MAC1_0_4: "1.0.4", MAC1_1: "1.1.0",
}

// ParseMACVersion reads every spelling seen in the field: "1.0" and "1.0.0",
// "1.0.1" to "1.0.4", "1.1", "1.1.0" and the never published "1.1.1", which
// devices that speak 1.1 announce.
func ParseMACVersion(s string) (MACVersion, error) {
	switch s {
	case "1.0", "1.0.0":
		return MAC1_0_0, nil
	case "1.0.1":
		return MAC1_0_1, nil
	case "1.0.2":
		return MAC1_0_2, nil
	case "1.0.3":
		return MAC1_0_3, nil
	case "1.0.4":
		return MAC1_0_4, nil
	case "1.1", "1.1.0", "1.1.1":
		return MAC1_1, nil
	}
	return 0, fmt.Errorf("MACVersion: %w: want 1.0.0, 1.0.1, 1.0.2, 1.0.3, 1.0.4 or 1.1.0", ErrSyntax)
}

// Valid tells whether v is one of the published versions.
func (v MACVersion) Valid() bool { return v >= MAC1_0_0 && v <= MAC1_1 }

// String gives the one text form, three numbers: "1.0.3", "1.1.0".
func (v MACVersion) String() string {
	if !v.Valid() {
		return "unknown"
	}
	return macVersionText[v]
}

// MarshalText implements encoding.TextMarshaler.
func (v MACVersion) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; see ParseMACVersion.
func (v *MACVersion) UnmarshalText(b []byte) (err error) {
	*v, err = ParseMACVersion(string(b))
	return err
}

// CountsDevNonces tells whether a device of this version counts its DevNonces
// upwards from 0 (TS001-1.0.4 §6.2.5, TS001-1.1 §6.2.2); older devices draw
// them at random (TS001-1.0.3 §6.2.4).
func (v MACVersion) CountsDevNonces() bool { return v >= MAC1_0_4 }

// HasTwoRootKeys tells whether a device of this version has an NwkKey and an
// AppKey (TS001-1.1 §6.1.1.3); older devices have an AppKey only.
func (v MACVersion) HasTwoRootKeys() bool { return v >= MAC1_1 }

// NegotiatesOptions tells whether OptNeg in DLSettings has a meaning: set by a
// 1.1 network for a 1.1 device (TS001-1.1 §6.2.3), reserved before.
func (v MACVersion) NegotiatesOptions() bool { return v >= MAC1_1 }

// Rejoins tells whether a device of this version may send rejoin-requests
// (TS001-1.1 §6.2.4).
func (v MACVersion) Rejoins() bool { return v >= MAC1_1 }

// Serves tells whether a device provisioned as v can answer to a network that
// asks for other: a 1.0.x device to any 1.0.x, a 1.1 device to all
// (TS001-1.1 §6.1.1.3, fallback to a 1.0 Network Server).
func (v MACVersion) Serves(other MACVersion) bool {
	return other.Valid() && (v.NegotiatesOptions() || !other.NegotiatesOptions())
}
