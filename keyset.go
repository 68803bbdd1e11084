package joinery

import (
	"errors"

	"joinery/lorawan"
)

// Sealed is ciphertext that only the keyring opens: a format byte, the wrapped
// key and a MAC that binds it to what it belongs to (architecture of custody:
// docs/custody.md). It is safe to store and to pass on; it is never shown.
type Sealed []byte

// String implements fmt.Stringer, also for %x: a Sealed never prints its bytes.
func (s Sealed) String() string {
	if len(s) == 0 {
		return "sealed(none)"
	}
	return "sealed(…)"
}

// GoString implements fmt.GoStringer, for %#v.
func (s Sealed) GoString() string { return s.String() }

// Origin tells where the root keys of a key set come from.
type Origin uint8

// Origins.
const (
	// OriginDerived: nothing is stored; roots are derived from a master key.
	OriginDerived Origin = iota + 1
	// OriginSealed: roots were imported and are stored as ciphertext.
	OriginSealed
	// OriginRekeyed: roots come from a parent key set and a cookie.
	OriginRekeyed
)

// RootKey names one of the two root keys of a device.
type RootKey uint8

// Root keys (TS001-1.1 §6.1.1.3).
const (
	NwkKey RootKey = iota + 1
	AppKey
	// RekeyKey stands where keys are stored and moved that are no root keys: a
	// rekeying key in the place of NwkKey, or the halves of a slot key in both. No
	// join is ever answered with it.
	RekeyKey
)

var (
	originText  = map[Origin]string{OriginDerived: "derived", OriginSealed: "sealed", OriginRekeyed: "rekeyed"}
	rootKeyText = map[RootKey]string{NwkKey: "NwkKey", AppKey: "AppKey", RekeyKey: "RekeyKey"}
)

func (o Origin) String() string  { return originText[o] }
func (k RootKey) String() string { return rootKeyText[k] }

// MarshalText implements encoding.TextMarshaler.
func (o Origin) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// MarshalText implements encoding.TextMarshaler.
func (k RootKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *RootKey) UnmarshalText(b []byte) error {
	for known, text := range rootKeyText {
		if text == string(b) {
			*k = known
			return nil
		}
	}
	return errors.New("root key: want NwkKey or AppKey")
}

// StoredRoots is the imported root keys of one key set, as they are stored, and
// what somebody needs who seals them anew.
type StoredRoots struct {
	KeySet     KeySetID
	JoinEUI    lorawan.EUI64
	DevEUI     lorawan.EUI64
	MACVersion lorawan.MACVersion
	Root10     RootKey
	Nwk, App   SealedRoot
}

// NewRoots puts root keys that were sealed anew in the place of the old ones, if
// those are still as they were.
type NewRoots struct {
	KeySet         KeySetID
	OldNwk, OldApp SealedRoot
	Nwk, App       SealedRoot
}

// SealedRoot is one imported root key in its two forms.
type SealedRoot struct {
	// Use is wrapped under the join KEK: a join can open it, and nothing that
	// a join may do can wrap it again.
	Use Sealed
	// Custody is wrapped to the custody key, whose private half only the
	// export and rotation role can use.
	Custody Sealed
}

// KeySet is the root keys of one device in one generation: where they come from
// and, for imported ones, their ciphertext. It never holds a key.
type KeySet struct {
	ID       KeySetID
	DeviceID DeviceID
	DevEUI   lorawan.EUI64
	Origin   Origin

	// Master and Generation are what derived roots are derived from: the name
	// of a master key in the keyring, and the generation in its derivation
	// profile. (Master, Generation, DevEUI) is unique.
	Master     string
	Generation uint32

	// Steps lead from what Master, Generation and DevEUI derive to the root keys
	// of OriginRekeyed, oldest first. Master is empty where they begin at imported
	// root keys.
	Steps []lorawan.Rekey
	// Rekey is the rekeying profile of the device, Serial what its profile M derives
	// with: the serial number of the chip.
	Rekey  RekeyProfile
	Serial [SerialLen]byte
	// Held is the rekeying key that was handed over with the key set where Steps
	// begin; zero where Master is set, or none came.
	Held HeldKey

	// Sealed roots of OriginSealed; a 1.0.x device may have one only.
	Nwk SealedRoot
	App SealedRoot

	// Root10 is the root that serves OptNeg = 0, and the MIC of a join-request:
	// NwkKey for elements and for every 1.1 device, else as imported.
	Root10 RootKey

	// Version advances with every write of the nonces and with everything that
	// must make a join in flight think again (binding, suspension, reset).
	Version uint64
	Nonces  Nonces

	// Disclosed is set for ever once a root key left the keyring readable to
	// somebody.
	Disclosed bool
}

// CanRekey tells whether there is something to derive the next root keys from.
func (k KeySet) CanRekey() bool { return k.Master != "" || len(k.Held.First) > 0 }

// HeldKey is a rekeying key that was handed over, sealed for use and bound to its
// own id: of profile S, or the halves of the slot key of profile M.
type HeldKey struct {
	KeySet        KeySetID
	First, Second Sealed
}

// SerialLen is the length of the serial number of a chip of rekeying profile M, in
// bytes.
const SerialLen = 9
