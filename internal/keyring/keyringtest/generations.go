package keyringtest

import (
	"context"
	"testing"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
)

// Rotating is a keyring whose storage keys can be replaced.
type Rotating struct {
	Fixture
	// Next makes the next generation of join KEK, transport key and custody key, and
	// has the keyring take them in.
	Next func(tb testing.TB)
	// Retire takes out all generations but the newest, and has the keyring forget them.
	Retire func(tb testing.TB)
}

// RunGenerations runs what every backend promises of generations: the newest seals,
// all open, and what was retired opens nothing.
func RunGenerations(t *testing.T, f Rotating) {
	ctx := context.Background()
	d := NewDevice(true)
	old, p := f.SealedKeySet(t, d), f.peers(t)
	if keyring.GenerationOf(old.App.Use) != 1 || old.App.Use[0] != keyring.FormatKeyWrap {
		t.Error("blobs of the first generation have a head")
	}
	s := f.sealer(t) // to the old transport key
	before := f.Keyring.Generations()

	f.Next(t)
	g := f.Keyring.Generations()
	if n := len(before.JoinKEK); len(g.JoinKEK) != n+1 || g.Newest() != before.Newest()+1 || g.Custody != before.Custody+1 ||
		len(g.Transport) != len(before.Transport)+1 || g.Transport[len(g.Transport)-1] != f.Keyring.TransportKey().KID() ||
		f.Keyring.TransportKey().KID() == s.Header().KID {
		t.Errorf("%+v after %+v", g, before)
	}
	expect(t, "an old blob", f.Keyring.CheckKeySet(ctx, old), nil)
	late := f.sealTo(t, s, d)
	if !g.Current(late.Nwk) || !g.Current(late.App) || g.Current(old.App) {
		t.Error("what came in later, sealed to the old transport key, is under an old generation")
	}
	fresh := old
	s2 := f.sealer(t)
	out, err := f.Keyring.Rewrap(ctx, s2.Header(), []keyring.RewrapIn{{
		Stored: joinery.StoredRoots{KeySet: old.ID, Nwk: old.Nwk, App: old.App}, Row: sealedRow(t, s2, d.Nwk[:], d.App[:]),
	}})
	if err != nil || out[0].Err != nil {
		t.Fatal(err, out)
	}
	fresh.Nwk, fresh.App = out[0].Nwk, out[0].App
	headless := fresh
	headless.App.Use = fresh.App.Use[5:]
	expect(t, "a blob without its head", f.Keyring.CheckKeySet(ctx, headless), keyring.ErrIntegrity)

	f.Retire(t)
	if g := f.Keyring.Generations(); len(g.JoinKEK) != 1 || g.Newest() != before.Newest()+1 || len(g.Transport) != 1 {
		t.Errorf("%+v after retiring", g)
	}
	expect(t, "a blob under a retired key", f.Keyring.CheckKeySet(ctx, old), keyring.ErrIntegrity)
	_, err = f.Keyring.SealRoots(ctx, s.Header(), []keyring.RootsIn{{KeySet: joinery.NewKeySetID(), Row: sealedRow(t, s, nil, d.App[:])}})
	expect(t, "a file sealed to a retired key", err, keyring.ErrTransport)
	for _, ks := range []joinery.KeySet{fresh, late} {
		expect(t, "a blob under the new key", f.Keyring.CheckKeySet(ctx, ks), nil)
		f.accept(t, d, p, keyring.AcceptRequest{
			KeySet: ks, Frame: d.JoinRequest(1), Activation: activation(ks, d, joinery.JoinTypeJoin, 1, 1, true), NSKEK: p.ns, ASKEK: p.as,
		})
	}
}

// sealTo imports the root keys of d as a file does that was sealed before.
func (f Fixture) sealTo(tb testing.TB, s *seal.Sealer, d Device) joinery.KeySet {
	tb.Helper()
	ks := joinery.KeySet{
		ID: joinery.NewKeySetID(), DeviceID: joinery.NewDeviceID(), DevEUI: d.DevEUI, Origin: joinery.OriginSealed, Root10: joinery.NwkKey, Version: 1,
	}
	out, err := f.Keyring.SealRoots(context.Background(), s.Header(), []keyring.RootsIn{{KeySet: ks.ID, Row: sealedRow(tb, s, d.Nwk[:], d.App[:])}})
	if err != nil || out[0].Err != nil {
		tb.Fatal(err, out)
	}
	ks.Nwk, ks.App = out[0].Nwk, out[0].App
	return ks
}
