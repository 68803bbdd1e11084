package element

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"io"

	"joinery/lorawan"
)

// Factory makes elements for tests and for load: with random root keys, or with
// those that derive from a seed. The moment of making is the only one at which
// the keys can be written down, as a row of a key list such as a maker of
// ordinary devices has.
type Factory struct {
	keyList *csv.Writer
	started bool
	seed    []byte // nil: keys are random
}

// NewFactory makes a factory that writes each element's keys to keyList, as CSV
// with the columns JoinEUI, DevEUI, MACVersion, NwkKey, AppKey. With nil the
// keys are written nowhere.
func NewFactory(keyList io.Writer) *Factory {
	f := &Factory{}
	if keyList != nil {
		f.keyList = csv.NewWriter(keyList)
	}
	return f
}

// NewSeededFactory makes a factory whose elements are the same whenever seed is:
// a root key is the first half of HMAC-SHA256(seed, "joinery-sim-load/1" ‖ name ‖
// JoinEUI ‖ DevEUI), name being NwkKey or AppKey. Who knows the seed knows all
// keys: it is for fleets that exist in simulation only. keyList is as in
// NewFactory.
func NewSeededFactory(seed string, keyList io.Writer) *Factory {
	f := NewFactory(keyList)
	f.seed = []byte(seed)
	return f
}

// fill makes a root key.
func (f *Factory) fill(key []byte, id KeyID, joinEUI, devEUI lorawan.EUI64) {
	if f.seed == nil {
		rand.Read(key) // never fails (crypto/rand)
		return
	}
	h := hmac.New(sha256.New, f.seed)
	_, _ = io.WriteString(h, "joinery-sim-load/1"+id.String()) // a hash never fails
	_, _ = h.Write(joinEUI[:])
	_, _ = h.Write(devEUI[:])
	sum := h.Sum(nil)
	copy(key, sum)
	clear(sum)
}

// Make makes one element: with NwkKey and AppKey for LoRaWAN 1.1, with an
// AppKey alone before (TS001-1.1 §6.1.1.3, TS001-1.0.4 §6.1.1.3).
func (f *Factory) Make(joinEUI, devEUI lorawan.EUI64, version lorawan.MACVersion) (*Element, error) {
	if !version.Valid() {
		return nil, fmt.Errorf("element %v: no MACVersion given", devEUI)
	}
	var nwkKey []byte
	appKey := make([]byte, KeySize)
	f.fill(appKey, AppKey, joinEUI, devEUI)
	defer clear(appKey)
	if version.HasTwoRootKeys() {
		nwkKey = make([]byte, KeySize)
		f.fill(nwkKey, NwkKey, joinEUI, devEUI)
		defer clear(nwkKey)
	}
	e, err := Provision(joinEUI, devEUI, nwkKey, appKey)
	if err != nil {
		return nil, err
	}
	return e, f.writeRow(e, version, nwkKey, appKey)
}

func (f *Factory) writeRow(e *Element, version lorawan.MACVersion, nwkKey, appKey []byte) error {
	if f.keyList == nil {
		return nil
	}
	if !f.started {
		f.started = true
		if err := f.keyList.Write([]string{"JoinEUI", "DevEUI", "MACVersion", "NwkKey", "AppKey"}); err != nil {
			return fmt.Errorf("key list: %w", err)
		}
	}
	row := []string{e.joinEUI.String(), e.devEUI.String(), version.String(), hex.EncodeToString(nwkKey), hex.EncodeToString(appKey)}
	if err := f.keyList.Write(row); err != nil {
		return fmt.Errorf("key list: %w", err)
	}
	f.keyList.Flush()
	if err := f.keyList.Error(); err != nil {
		return fmt.Errorf("key list: %w", err)
	}
	return nil
}
