package keyringtest

import (
	"context"
	"slices"
	"testing"

	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// testRedirect: whoever gets hold of what somebody else sealed cannot have it
// opened for another device, with other nonces or for another use.
func testRedirect(t *testing.T, f Fixture) {
	s := f.sealer(t)
	nwk, app := random(), random()
	good, other := sealedRow(t, s, nwk[:], app[:]), sealedRow(t, s, app[:], nwk[:])
	root := func(name string, h seal.Header, row seal.SealedRow, want error) {
		t.Helper()
		// A bad row costs itself alone.
		out, err := f.Keyring.SealRoots(context.Background(), h, []keyring.RootsIn{{KeySet: 1, Row: row}})
		expect(t, name, err, nil)
		if err == nil {
			expect(t, name, out[0].Err, want)
		}
	}
	root("untouched", s.Header(), good, nil)
	for name, change := range map[string]func(*seal.SealedRow){
		"JoinEUI":            func(r *seal.SealedRow) { r.JoinEUI[7]++ },
		"DevEUI":             func(r *seal.SealedRow) { r.DevEUI[7]++ },
		"EUIs exchanged":     func(r *seal.SealedRow) { r.JoinEUI, r.DevEUI = r.DevEUI, r.JoinEUI },
		"version":            func(r *seal.SealedRow) { r.MACVersion = lorawan.MAC1_0_4 },
		"root10":             func(r *seal.SealedRow) { r.Root10 = seal.RootNwkKey },
		"a DevNonce less":    func(r *seal.SealedRow) { r.UsedDevNonces = r.UsedDevNonces[:1] },
		"a DevNonce more":    func(r *seal.SealedRow) { r.UsedDevNonces = append(r.UsedDevNonces, 9) },
		"no DevNonces":       func(r *seal.SealedRow) { r.UsedDevNonces = nil },
		"JoinNonce floor":    func(r *seal.SealedRow) { r.JoinNonceFloor = 0 },
		"keys exchanged":     func(r *seal.SealedRow) { r.NwkKey, r.AppKey = r.AppKey, r.NwkKey },
		"another row's key":  func(r *seal.SealedRow) { r.AppKey = other.AppKey },
		"another row's keys": func(r *seal.SealedRow) { r.NwkKey, r.AppKey = other.NwkKey, other.AppKey },
		"another row's MAC":  func(r *seal.SealedRow) { r.MAC = other.MAC },
		"a key less":         func(r *seal.SealedRow) { r.NwkKey = nil },
		"a key damaged":      func(r *seal.SealedRow) { r.AppKey = flip(r.AppKey, 5) },
		"MAC damaged":        func(r *seal.SealedRow) { r.MAC = flip(r.MAC, 15) },
		"MAC cut":            func(r *seal.SealedRow) { r.MAC = r.MAC[:15] },
		"no MAC":             func(r *seal.SealedRow) { r.MAC = nil },
	} {
		row := good
		row.UsedDevNonces = slices.Clone(good.UsedDevNonces)
		change(&row)
		root(name, s.Header(), row, keyring.ErrTransport)
	}

	kek := func(name string, h seal.Header, in seal.SealedKEK, want error) {
		t.Helper()
		_, err := f.Keyring.SealKEK(context.Background(), h, in, 1, 1)
		expect(t, name, err, want)
	}
	kekHeader, sealedKEK, err := seal.SealKEK(f.Keyring.TransportKey(), "ns", "label", app[:])
	expect(t, "sealing a KEK", err, nil)
	kek("KEK untouched", kekHeader, sealedKEK, nil)
	for name, change := range map[string]func(*seal.SealedKEK){
		"role":       func(k *seal.SealedKEK) { k.Role = "as" },
		"label":      func(k *seal.SealedKEK) { k.Label = "other" },
		"label more": func(k *seal.SealedKEK) { k.Role, k.Label = "ns", "l"+k.Label },
		"key":        func(k *seal.SealedKEK) { k.Wrapped = flip(k.Wrapped, 1) },
		"MAC":        func(k *seal.SealedKEK) { k.MAC = flip(k.MAC, 1) },
		"no MAC":     func(k *seal.SealedKEK) { k.MAC = nil },
	} {
		in := sealedKEK
		change(&in)
		kek("KEK: "+name, kekHeader, in, keyring.ErrTransport)
	}

	// Nothing passes for what it is not.
	asRoot := func(wrapped, mac []byte) seal.SealedRow {
		row := good
		row.NwkKey, row.AppKey, row.MAC = nil, wrapped, mac
		return row
	}
	asKEK := func(wrapped, mac []byte) seal.SealedKEK {
		return seal.SealedKEK{Role: "ns", Label: "label", Wrapped: wrapped, MAC: mac}
	}
	master, wrapped, mac, err := seal.SealMaster(f.Keyring.TransportKey(), "ns", "label", nwk[:])
	expect(t, "sealing a master key", err, nil)
	element, err := s.MAC(seal.ElementItem("", good.JoinEUI, good.DevEUI, nil, nil, good.AppKey, nil, nil))
	expect(t, "sealing an element", err, nil)
	single := sealedRow(t, s, nil, app[:])
	root("KEK as root", kekHeader, asRoot(sealedKEK.Wrapped, sealedKEK.MAC), keyring.ErrTransport)
	root("master key as root", master, asRoot(wrapped, mac), keyring.ErrTransport)
	root("element's root as that of a key list", s.Header(), asRoot(good.AppKey, element), keyring.ErrTransport)
	kek("root as KEK", s.Header(), asKEK(single.AppKey, single.MAC), keyring.ErrTransport)
	kek("master key as KEK", master, asKEK(wrapped, mac), keyring.ErrTransport)
}
