package element

import (
	"bytes"
	"errors"
	"testing"

	"joinery/internal/sim/simtest"
	"joinery/lorawan"
)

func root(e *Element, id KeyID) []byte { return e.slots[id].key[:] }

func TestRekeyVectors(t *testing.T) {
	for _, v := range simtest.Vectors(t, "derive_rekey_s") {
		e := withKeys(map[KeyID][]byte{NwkKey: make([]byte, KeySize), AppSKey: make([]byte, KeySize)})
		if err := e.SetRekeyKey(v.In(t, "RK")); err != nil {
			t.Fatal(err)
		}
		joinEUI, cookie := v.EUI(t, "NewJoinEUI"), lorawan.Cookie(v.In(t, "Cookie"))
		if err := e.Rekey(joinEUI, cookie, nil); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(root(e, NwkKey), v.Out(t, "NwkKey")) || !bytes.Equal(root(e, AppKey), v.Out(t, "AppKey")) || !bytes.Equal(e.rekey.s.key[:], v.Out(t, "NewRK")) {
			t.Errorf("%s: other keys", v.Name)
		}
		if e.Has(AppSKey) {
			t.Error("a session outlived its root keys")
		}
		// The rekeying key moved on: the same instruction again gives other keys.
		if err := e.Rekey(joinEUI, cookie, nil); err != nil || bytes.Equal(root(e, NwkKey), v.Out(t, "NwkKey")) {
			t.Errorf("%s: derived twice: %v", v.Name, err)
		}
	}
	for _, v := range simtest.Vectors(t, "derive_rekey_m") {
		e := withKeys(map[KeyID][]byte{NwkKey: make([]byte, KeySize)})
		e.SetDevEUI(v.EUI(t, "DevEUI"))
		if err := e.SetSlotKey(v.In(t, "K13"), v.In(t, "SN")); err != nil {
			t.Fatal(err)
		}
		joinEUI, cookie, mac := v.EUI(t, "NewJoinEUI"), lorawan.Cookie(v.In(t, "Cookie")), v.Out(t, "AuthMAC")
		before := bytes.Clone(root(e, NwkKey))
		for _, wrong := range [][]byte{nil, mac[:31], append([]byte{mac[0] ^ 1}, mac[1:]...)} {
			if err := e.Rekey(joinEUI, cookie, wrong); !errors.Is(err, ErrMIC) || !bytes.Equal(root(e, NwkKey), before) {
				t.Errorf("%s: wrong authorising MAC: %v", v.Name, err)
			}
		}
		for range 2 { // the key of slot 13 stays, so the same instruction gives the same keys
			if err := e.Rekey(joinEUI, cookie, mac); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(root(e, NwkKey), v.Out(t, "NwkKey")) || !bytes.Equal(root(e, AppKey), v.Out(t, "AppKey")) {
				t.Errorf("%s: other keys", v.Name)
			}
		}
	}
	if err := withKeys(map[KeyID][]byte{NwkKey: make([]byte, KeySize)}).Rekey(lorawan.EUI64{}, lorawan.Cookie{}, nil); !errors.Is(err, ErrNoKey) {
		t.Errorf("an element without a rekeying key: %v", err)
	}
}
