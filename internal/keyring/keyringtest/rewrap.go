package keyringtest

import (
	"context"
	"testing"

	"joinery"
	"joinery/internal/keyring"
)

// testRewrap: root keys are sealed anew only for their own key set, and only where
// they are the ones that are stored.
func testRewrap(t *testing.T, f Fixture) {
	ctx := context.Background()
	d := Device{Nwk: random(), App: random()}
	d.Root10 = d.Nwk
	ks, other := f.SealedKeySet(t, d), f.SealedKeySet(t, Device{Nwk: random(), App: random()})
	s := f.sealer(t)
	row := sealedRow(t, s, d.Nwk[:], d.App[:])
	stored := func(id joinery.KeySetID, from joinery.KeySet) joinery.StoredRoots {
		return joinery.StoredRoots{KeySet: id, Nwk: from.Nwk, App: from.App}
	}
	crossed := stored(ks.ID, ks)
	crossed.Nwk.Custody = crossed.App.Custody
	short := stored(ks.ID, ks)
	short.App = joinery.SealedRoot{}
	swapped := random()
	out, err := f.Keyring.Rewrap(ctx, s.Header(), []keyring.RewrapIn{
		{Stored: stored(ks.ID, ks), Row: row},
		{Stored: stored(other.ID, other), Row: row}, // another device's keys
		{Stored: stored(other.ID, ks), Row: row},    // blobs from another row
		{Stored: crossed, Row: row},
		{Stored: short, Row: row},
		{Stored: stored(ks.ID, ks), Row: sealedRow(t, s, d.Nwk[:], swapped[:])},
		{Stored: stored(ks.ID, ks), Row: sealedRow(t, s, d.Nwk[:], nil)},
		{Stored: stored(ks.ID, ks)},
	})
	if err != nil {
		t.Fatal(err)
	}
	wants := []error{nil, keyring.ErrIntegrity, keyring.ErrIntegrity, keyring.ErrIntegrity, keyring.ErrIntegrity, keyring.ErrIntegrity, keyring.ErrIntegrity, keyring.ErrNoRoot}
	for i, want := range wants {
		expect(t, "row", out[i].Err, want)
		if want != nil && (out[i].Nwk.Use != nil || out[i].App.Use != nil) {
			t.Errorf("row %d failed, and was sealed", i)
		}
	}
	g := f.Keyring.Generations()
	if !g.Current(out[0].Nwk) || !g.Current(out[0].App) || g.Newest() == 0 || len(g.Transport) == 0 ||
		g.Transport[len(g.Transport)-1] != f.Keyring.TransportKey().KID() {
		t.Errorf("%+v", g)
	}
	ks.Nwk, ks.App = out[0].Nwk, out[0].App
	expect(t, "what was sealed anew", f.Keyring.CheckKeySet(ctx, ks), nil)
	h := s.Header()
	h.Key = flip(h.Key, 9)
	_, err = f.Keyring.Rewrap(ctx, h, []keyring.RewrapIn{{Stored: stored(ks.ID, ks), Row: row}})
	expect(t, "a damaged header", err, keyring.ErrTransport)
}
