package keyringtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"testing"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// Run tests a backend. fresh gives a keyring with keys of its own each time it
// is called; it is called twice, and closes what it gave when tb ends (closing
// twice does no harm).
func Run(t *testing.T, fresh func(tb testing.TB) Fixture) {
	f, other := fresh(t), fresh(t)
	t.Run("Vectors", func(t *testing.T) { testVectors(t, f) })
	t.Run("Joins", func(t *testing.T) { testJoins(t, f) })
	t.Run("Rejoins", func(t *testing.T) { testRejoins(t, f) })
	t.Run("Rekeyed", func(t *testing.T) { testRekeyed(t, f, other) })
	t.Run("MIC", func(t *testing.T) { testMIC(t, f) })
	t.Run("Contradictions", func(t *testing.T) { testContradictions(t, f) })
	t.Run("Wrapping", func(t *testing.T) { testWrapping(t, f) })
	t.Run("AppSKey", func(t *testing.T) { testAppSKey(t, f) })
	t.Run("Integrity", func(t *testing.T) { testIntegrity(t, f, other) })
	t.Run("Import", func(t *testing.T) { testImport(t, f, other) })
	t.Run("Rewrap", func(t *testing.T) { testRewrap(t, f) })
	t.Run("Redirect", func(t *testing.T) { testRedirect(t, f) })
	t.Run("OwnerTokens", func(t *testing.T) { testOwnerTokens(t, f, other) })
	t.Run("LogKey", func(t *testing.T) { testLogKey(t, f) })
	t.Run("Masters", func(t *testing.T) { testMasters(t, f, other) })
	t.Run("Concurrency", func(t *testing.T) { testConcurrency(t, f) })
	t.Run("Close", func(t *testing.T) { testClose(t, other) })
}

// random draws a key.
func random() (key [16]byte) {
	rand.Read(key[:])
	return key
}

// NewDevice draws a device: two is set for one with two root keys.
func NewDevice(two bool) Device {
	var euis [16]byte
	rand.Read(euis[:])
	d := Device{JoinEUI: lorawan.EUI64(euis[:8]), DevEUI: lorawan.EUI64(euis[8:]), Root10: random()}
	if two {
		d.Nwk, d.App = d.Root10, random()
	}
	return d
}

// sealer gives a Sealer to the fixture's transport key.
func (f Fixture) sealer(tb testing.TB) *seal.Sealer {
	tb.Helper()
	s, err := seal.NewSealer(f.Keyring.TransportKey())
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// sealedRow gives a row of a key list with the root keys given; nil for none.
func sealedRow(tb testing.TB, s *seal.Sealer, nwk, app []byte) seal.SealedRow {
	tb.Helper()
	row := seal.SealedRow{
		JoinEUI: lorawan.EUI64{1}, DevEUI: lorawan.EUI64{2}, MACVersion: lorawan.MAC1_0_3, Root10: seal.RootAppKey,
		UsedDevNonces: []lorawan.DevNonce{7, 8}, JoinNonceFloor: 9, NextRJCount1: 3,
		Former: []seal.FormerNonces{{JoinEUI: lorawan.EUI64{3}, UsedDevNonces: []lorawan.DevNonce{1}}, {JoinEUI: lorawan.EUI64{4}, NextRJCount1: 2}},
	}
	if err := s.SealRow(&row, nwk, app); err != nil {
		tb.Fatal(err)
	}
	return row
}

// SealedKeySet imports the root keys of d into the fixture's keyring, as a key
// list does: both of a device with two, else its only one as AppKey.
func (f Fixture) SealedKeySet(tb testing.TB, d Device) joinery.KeySet {
	tb.Helper()
	ks := joinery.KeySet{
		ID: joinery.NewKeySetID(), DeviceID: joinery.NewDeviceID(), DevEUI: d.DevEUI,
		Origin: joinery.OriginSealed, Root10: joinery.AppKey, Version: 1,
	}
	s := f.sealer(tb)
	in := keyring.RootsIn{KeySet: ks.ID, Row: sealedRow(tb, s, nil, d.Root10[:])}
	if d.Nwk != ([16]byte{}) {
		ks.Root10 = joinery.NwkKey
		in.Row = sealedRow(tb, s, d.Nwk[:], d.App[:])
	}
	out, err := f.Keyring.SealRoots(context.Background(), s.Header(), []keyring.RootsIn{in})
	if err != nil {
		tb.Fatal(err)
	}
	if out[0].Err != nil {
		tb.Fatal(out[0].Err)
	}
	ks.Nwk, ks.App = out[0].Nwk, out[0].App
	return ks
}

// KEK imports a KEK for a peer into the fixture's keyring.
func (f Fixture) KEK(tb testing.TB, key []byte, role joinery.KEKRole, label string) joinery.KEK {
	tb.Helper()
	k := joinery.KEK{ID: joinery.NewKEKID(), Peer: joinery.NewPeerID(), Role: role, Label: label, Version: 1}
	h, in, err := seal.SealKEK(f.Keyring.TransportKey(), string(role), label, key)
	if err != nil {
		tb.Fatal(err)
	}
	if k.Sealed, err = f.Keyring.SealKEK(context.Background(), h, in, k.Peer, k.Version); err != nil {
		tb.Fatal(err)
	}
	return k
}

// peers are the KEKs of one NS and one AS that a test knows.
type peers struct {
	nsKey, asKey []byte
	ns, as       joinery.KEK
}

func (f Fixture) peers(tb testing.TB) peers {
	tb.Helper()
	ns, as := random(), random()
	return peers{ns[:], as[:], f.KEK(tb, ns[:], joinery.KEKForNS, "ns-1"), f.KEK(tb, as[:], joinery.KEKForAS, "as-1")}
}

// activation freezes an answer to (typ, count) for ks.
func activation(ks joinery.KeySet, d Device, typ joinery.JoinType, count uint16, nonce lorawan.JoinNonce, optNeg bool) joinery.Activation {
	a := joinery.Activation{
		ID: joinery.NewActivationID(), KeySet: ks.ID, Type: typ, JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, OptNeg: optNeg,
		Root: ks.Root10, Count: count, JoinNonce: nonce, NetID: lorawan.NetID{0, 0, 0x13},
		DevAddr: lorawan.DevAddr{0x26, 1, 2, 3}, DLSettings: 0x03, RxDelay: 5, Policy: joinery.AppSKeyWrapped,
	}
	if optNeg {
		a.DLSettings |= 0x80
	}
	return a
}

// accept asks for an answer and opens everything of it as device, NS and AS.
func (f Fixture) accept(tb testing.TB, d Device, p peers, r keyring.AcceptRequest) (keyring.Answer, Session) {
	tb.Helper()
	answer, err := f.Keyring.Accept(context.Background(), r)
	if err != nil {
		tb.Fatal(err)
	}
	sent256 := sha256.Sum256(answer.PHYPayload)
	hash, err := f.Keyring.AcceptHash(context.Background(), r.KeySet, r.Activation)
	if isJoin := r.Activation.Type == joinery.JoinTypeJoin; isJoin != (err == nil) || isJoin && hash != sent256 {
		tb.Errorf("the hash of the accept is %x (%v), want %x", hash, err, sent256)
	}
	got, want, err := d.Open(byte(r.Activation.Type), r.Activation.Count, answer.PHYPayload)
	if err != nil {
		tb.Fatal(err)
	}
	if got != r.Activation.Accept() {
		tb.Errorf("the accept says %+v, want %+v", got, r.Activation.Accept())
	}
	type sent struct {
		name  string
		env   keyring.Envelope
		label string
		kek   []byte
		want  [16]byte
	}
	list := []sent{{"AppSKey", answer.AppSKey, "as-1", p.asKey, want.AppSKey}}
	absent := []keyring.Envelope{answer.NwkSKey}
	if r.Activation.OptNeg {
		list = append(list, sent{"FNwkSIntKey", answer.FNwkSIntKey, "ns-1", p.nsKey, want.FNwkSIntKey},
			sent{"SNwkSIntKey", answer.SNwkSIntKey, "ns-1", p.nsKey, want.SNwkSIntKey},
			sent{"NwkSEncKey", answer.NwkSEncKey, "ns-1", p.nsKey, want.NwkSEncKey})
	} else {
		list = append(list, sent{"NwkSKey", answer.NwkSKey, "ns-1", p.nsKey, want.NwkSKey})
		absent = []keyring.Envelope{answer.FNwkSIntKey, answer.SNwkSIntKey, answer.NwkSEncKey}
	}
	for _, s := range list {
		key, err := Unwrap(s.kek, s.env.AESKey)
		if err != nil || key != s.want || s.env.KEKLabel != s.label {
			tb.Errorf("%s under %q is not the device's: %v", s.name, s.env.KEKLabel, err)
		}
	}
	for _, e := range absent {
		if !e.IsZero() {
			tb.Error("a session key of the other layout was given as well")
		}
	}
	return answer, want
}

// expect fails unless err is want.
func expect(tb testing.TB, what string, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("%s: %v; want %v", what, err, want)
	}
}

func testMasters(t *testing.T, f, other Fixture) {
	found := false
	for _, m := range f.Keyring.Masters() {
		if m.Name == f.Master {
			found = true
			if kcv := cmac(f.MasterKey[:], make([]byte, 16)); m.Profile != "ecb-v1" || m.KCV != hexUpper(kcv[:3]) {
				t.Errorf("master %+v", m)
			}
		}
	}
	if !found {
		t.Errorf("no master %q", f.Master)
	}
	if f.Keyring.TransportKey().KID() == other.Keyring.TransportKey().KID() {
		t.Error("two keyrings have one transport key")
	}
	if err := f.Keyring.Ready(context.Background()); err != nil {
		t.Errorf("not ready: %v", err)
	}
}

func testClose(t *testing.T, f Fixture) {
	d := NewDevice(true)
	ks := f.SealedKeySet(t, d)
	p := f.peers(t)
	r := keyring.AcceptRequest{KeySet: ks, Frame: d.JoinRequest(1), Activation: activation(ks, d, joinery.JoinTypeJoin, 1, 1, true), NSKEK: p.ns, ASKEK: p.as}
	f.accept(t, d, p, r)
	if err := f.Keyring.Close(); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	_, err := f.Keyring.Accept(ctx, r)
	expect(t, "Accept after Close", err, keyring.ErrClosed)
	expect(t, "VerifyJoin after Close", f.Keyring.VerifyJoin(ctx, ks, r.Frame), keyring.ErrClosed)
	expect(t, "Ready after Close", f.Keyring.Ready(ctx), keyring.ErrClosed)
	_, err = f.Keyring.OwnerToken(ctx, 1, 1)
	expect(t, "OwnerToken after Close", err, keyring.ErrClosed)
	if err := f.Keyring.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func testOwnerTokens(t *testing.T, f, other Fixture) {
	ctx := context.Background()
	seen := map[string]bool{}
	for _, k := range []keyring.Verbs{f.Keyring, other.Keyring} {
		for _, d := range []joinery.DeviceID{1, 2, 1 << 62} {
			for _, g := range []uint32{1, 2, 1<<32 - 1} {
				token, err := k.OwnerToken(ctx, d, g)
				if err != nil {
					t.Fatal(err)
				}
				if again, err := k.OwnerToken(ctx, d, g); err != nil || again != token {
					t.Errorf("asked twice, the token of %d, %d changed: %v", d, g, err)
				}
				if len(token) != 13 || len(bytes.Trim([]byte(token), "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")) != 0 {
					t.Errorf("a token of another form: %d characters", len(token))
				}
				if seen[token] {
					t.Error("two devices, generations or keyrings have one token")
				}
				seen[token] = true
				checkOwnerToken(t, k, d, g, token)
			}
		}
	}
}

func checkOwnerToken(t *testing.T, k keyring.Verbs, d joinery.DeviceID, g uint32, token string) {
	t.Helper()
	flipped := []byte(token)
	flipped[12] ^= 1
	for _, c := range []struct {
		d         joinery.DeviceID
		g         uint32
		presented string
		want      bool
	}{
		{d, g, token, true},
		{d, g, string(bytes.ToLower([]byte(token))), true},
		{d, g, string(flipped), false},
		{d, g, token[:12], false},
		{d, g, token + "A", false},
		{d, g, "", false},
		{d + 3, g, token, false},
		{d, g + 3, token, false},
	} {
		ok, err := k.CheckOwnerToken(context.Background(), c.d, c.g, c.presented)
		if err != nil || ok != c.want {
			t.Errorf("token of %d, %d, presented for %d, %d: %v, %v", d, g, c.d, c.g, ok, err)
		}
	}
}

// Rows gives n rows of a key list, each with both root keys of d, and the header
// that opens them.
func (f Fixture) Rows(tb testing.TB, d Device, n int) (seal.Header, []keyring.RootsIn) {
	tb.Helper()
	s := f.sealer(tb)
	rows := make([]keyring.RootsIn, n)
	for i := range rows {
		rows[i] = keyring.RootsIn{KeySet: joinery.NewKeySetID(), Row: sealedRow(tb, s, d.Nwk[:], d.App[:])}
	}
	return s.Header(), rows
}
