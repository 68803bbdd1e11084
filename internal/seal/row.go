package seal

import (
	"errors"
	"fmt"
	"slices"

	"joinery/lorawan"
)

// KeyListFormat names the layout of a sealed key list.
const KeyListFormat = "joinery-keylist/1"

// Names of root keys in SealedRow.Root10.
const (
	RootNwkKey = "NwkKey"
	RootAppKey = "AppKey"
	// RootRekeyKey marks a row whose keys are no root keys: a rekeying key in the
	// place of NwkKey, or the halves of a slot key in both. It is of hand-overs; no
	// key list has one.
	RootRekeyKey = "RekeyKey"
)

// sealedRootLen is the length of a sealed root key: AES-128 and the overhead of
// key wrap.
const sealedRootLen = rootLen + WrapOverhead

const rootLen = 16

// SealedRow is one device of a key list, its root keys sealed.
type SealedRow struct {
	// Line is where a person finds the row: the line of the CSV, from 1.
	Line       uint64             `json:"line"`
	JoinEUI    lorawan.EUI64      `json:"joinEUI"`
	DevEUI     lorawan.EUI64      `json:"devEUI"`
	MACVersion lorawan.MACVersion `json:"macVersion"`
	// NwkKey and AppKey are AES-128 keys under AES key wrap with the file key:
	// 24 bytes, or none.
	NwkKey []byte `json:"nwkKey,omitzero"`
	AppKey []byte `json:"appKey,omitzero"`
	// Root10 is the root that serves 1.0.x sessions and the MIC of a
	// join-request: "NwkKey" or "AppKey". It is NwkKey for every 1.1 device
	// (TS001-1.1 §6.1.1.3).
	Root10 string `json:"root10"`
	// UsedDevNonces are those that a former Join Server accepted, in rising
	// order; JoinNonceFloor is the last JoinNonce that it issued.
	UsedDevNonces  []lorawan.DevNonce `json:"usedDevNonces,omitzero"`
	JoinNonceFloor lorawan.JoinNonce  `json:"joinNonceFloor,omitzero"`
	// NextRJCount1 is one above the last RJcount1 that it accepted, 65,536 when
	// none is left; Former is what it accepted under JoinEUIs that the device had
	// before, in their order.
	NextRJCount1 uint32         `json:"nextRJcount1,omitzero"`
	Former       []FormerNonces `json:"former,omitzero"`
	// MAC binds all of the above but Line together; see Item.
	MAC []byte `json:"mac"`
}

// FormerNonces is what a device used up under a JoinEUI that it had before; see
// SealedRow.
type FormerNonces struct {
	JoinEUI       lorawan.EUI64      `json:"joinEUI"`
	UsedDevNonces []lorawan.DevNonce `json:"usedDevNonces,omitzero"`
	NextRJCount1  uint32             `json:"nextRJcount1,omitzero"`
}

// Bounds of what a row says of nonces.
const (
	maxFormer  = 63
	maxRJCount = 1 << 16
)

// RowError tells what is wrong with one row. Its Reason names columns and what
// they should hold, and never repeats what they do hold: a key may stand in any
// column.
type RowError struct {
	Line   uint64
	Reason string
}

// Error implements error.
func (e *RowError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Reason) }

// Check tells whether r is a complete row of a key list; the error is for people
// and names no value.
func (r SealedRow) Check() error {
	if err := r.check(); err != nil {
		return err
	}
	return r.checkRoots()
}

// CheckRekeyKey tells whether r is a complete row of a rekeying key.
func (r SealedRow) CheckRekeyKey() error {
	if r.Root10 != RootRekeyKey || len(r.NwkKey) == 0 || len(r.UsedDevNonces) > 0 || r.JoinNonceFloor != 0 || r.NextRJCount1 != 0 || len(r.Former) > 0 {
		return errors.New("not a row of a rekeying key")
	}
	return r.check()
}

func (r SealedRow) check() error {
	for _, k := range [][]byte{r.NwkKey, r.AppKey} {
		if len(k) != 0 && len(k) != sealedRootLen {
			return fmt.Errorf("a sealed key has %d bytes; want %d", len(k), sealedRootLen)
		}
	}
	switch {
	case !r.MACVersion.Valid():
		return errors.New("MACVersion is missing")
	case r.DevEUI.IsZero():
		return errors.New("DevEUI is missing or zero")
	case len(r.MAC) != MACLen:
		return fmt.Errorf("the MAC has %d bytes; want %d", len(r.MAC), MACLen)
	case r.JoinNonceFloor > lorawan.MaxJoinNonce:
		return fmt.Errorf("JoinNonceFloor is above %d", lorawan.MaxJoinNonce)
	}
	return r.checkFormer()
}

func (r SealedRow) checkFormer() error {
	if r.NextRJCount1 > maxRJCount || len(r.Former) > maxFormer {
		return fmt.Errorf("nextRJcount1 is above %d, or there are more than %d former JoinEUIs", maxRJCount, maxFormer)
	}
	for i, f := range r.Former {
		switch {
		case f.NextRJCount1 > maxRJCount:
			return fmt.Errorf("nextRJcount1 of a former JoinEUI is above %d", maxRJCount)
		case f.JoinEUI == r.JoinEUI || i > 0 && slices.Compare(r.Former[i-1].JoinEUI[:], f.JoinEUI[:]) >= 0:
			return errors.New("former JoinEUIs are not in order, or one is the JoinEUI of now")
		}
	}
	return nil
}

func (r SealedRow) checkRoots() error {
	if r.MACVersion.HasTwoRootKeys() {
		if len(r.NwkKey) == 0 || len(r.AppKey) == 0 || r.Root10 != RootNwkKey {
			return errors.New("a 1.1 device has NwkKey and AppKey, and NwkKey serves its 1.0.x sessions")
		}
		return nil
	}
	root, other := r.AppKey, r.NwkKey
	switch r.Root10 {
	case RootAppKey:
	case RootNwkKey:
		root, other = other, root
	default:
		return fmt.Errorf("root10 is neither %s nor %s", RootNwkKey, RootAppKey)
	}
	if len(root) == 0 || len(other) != 0 {
		return errors.New("a 1.0.x device has one root key, the one that root10 names")
	}
	return nil
}
