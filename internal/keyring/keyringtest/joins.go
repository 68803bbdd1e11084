package keyringtest

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"joinery"
	"joinery/internal/keyring"
	"joinery/lorawan"
)

// testJoins joins devices of every kind: derived and sealed roots, one and two
// of them, on 1.0.x and 1.1 networks, with and without a list of channels.
func testJoins(t *testing.T, f Fixture) {
	ctx := context.Background()
	p := f.peers(t)
	for _, c := range []struct {
		name                 string
		derived, two, optNeg bool
		generation           uint32
	}{
		{"sealed, one root", false, false, false, 0},
		{"sealed, two roots, 1.0.x network", false, true, false, 0},
		{"sealed, two roots, 1.1 network", false, true, true, 0},
		{"derived, 1.0.x network", true, true, false, 0},
		{"derived, 1.1 network", true, true, true, 0},
		{"derived, later generation", true, true, true, 0x01020304},
	} {
		for _, list := range [][]byte{nil, bytes.Repeat([]byte{0x5A}, 16)} {
			d := NewDevice(c.two)
			var ks joinery.KeySet
			if c.derived {
				ks, d.Nwk, d.App = f.DerivedKeySet(t, d.DevEUI, c.generation)
				d.Root10 = d.Nwk
			} else {
				ks = f.SealedKeySet(t, d)
			}
			cfList, err := lorawan.ParseCFList(list)
			if err != nil {
				t.Fatal(err)
			}
			frame := d.JoinRequest(0xBEEF)
			a := activation(ks, d, joinery.JoinTypeJoin, 0xBEEF, 0x123456, c.optNeg)
			a.CFList = cfList
			if err := f.Keyring.VerifyJoin(ctx, ks, frame); err != nil {
				t.Errorf("%s: verify: %v", c.name, err)
			}
			if err := f.Keyring.CheckKeySet(ctx, ks); err != nil {
				t.Errorf("%s: check: %v", c.name, err)
			}
			r := keyring.AcceptRequest{KeySet: ks, Frame: frame, Activation: a, NSKEK: p.ns, ASKEK: p.as}
			first, _ := f.accept(t, d, p, r)
			again, _ := f.accept(t, d, p, r)
			if diff := cmp.Diff(first, again); diff != "" {
				t.Errorf("%s: the same request gives another answer", c.name)
			}
		}
	}
}

// testRejoins lets a 1.1 device join and rejoin by every type.
func testRejoins(t *testing.T, f Fixture) {
	ctx := context.Background()
	p := f.peers(t)
	d := NewDevice(true)
	ks := f.SealedKeySet(t, d)
	nonce := lorawan.JoinNonce(0)
	answer := func(typ joinery.JoinType, count uint16, frame []byte, from *joinery.Activation) (joinery.Activation, Session) {
		t.Helper()
		nonce++
		a := activation(ks, d, typ, count, nonce, true)
		_, s := f.accept(t, d, p, keyring.AcceptRequest{
			KeySet: ks, Frame: frame, Activation: a, Session: from, NSKEK: p.ns, ASKEK: p.as,
		})
		return a, s
	}
	joined, session := answer(joinery.JoinTypeJoin, 7, d.JoinRequest(7), nil)
	other, _ := answer(joinery.JoinTypeJoin, 8, d.JoinRequest(8), nil)
	old := activation(ks, d, joinery.JoinTypeJoin, 9, 99, false)
	foreign := joined
	foreign.KeySet = joinery.NewKeySetID()

	for _, typ := range []lorawan.RejoinType{lorawan.Rejoin0, lorawan.Rejoin2} {
		frame := d.Rejoin02(typ, joined.NetID, 3, session)
		sessions := []joinery.Activation{other, old, foreign, joined}
		if i, err := f.Keyring.VerifyRejoin(ctx, ks, frame, sessions); err != nil || i != 3 {
			t.Errorf("type %d: session %d, %v", typ, i, err)
		}
		_, err := f.Keyring.VerifyRejoin(ctx, ks, frame, sessions[:3])
		expect(t, "no session of that key", err, keyring.ErrMIC)
		_, err = f.Keyring.VerifyRejoin(ctx, ks, frame, nil)
		expect(t, "no session at all", err, keyring.ErrMIC)

		next, nextSession := answer(joinery.JoinType(typ), 3, frame, &joined)
		// A session that began with a rejoin-request signs the next one.
		frame = d.Rejoin02(typ, next.NetID, 0, nextSession)
		if i, err := f.Keyring.VerifyRejoin(ctx, ks, frame, []joinery.Activation{joined, next}); err != nil || i != 1 {
			t.Errorf("type %d after a rejoin: session %d, %v", typ, i, err)
		}
		answer(joinery.JoinType(typ), 0, frame, &next)

		// An answer needs the session that signed.
		a := activation(ks, d, joinery.JoinType(typ), 0, 1000, true)
		for _, wrong := range []*joinery.Activation{nil, &joined, &old} {
			_, err := f.Keyring.Accept(ctx, keyring.AcceptRequest{KeySet: ks, Frame: frame, Activation: a, Session: wrong, NSKEK: p.ns, ASKEK: p.as})
			expect(t, "answer for another session", err, keyring.ErrMIC)
		}
	}

	frame := d.Rejoin1(0xFFFF)
	if i, err := f.Keyring.VerifyRejoin(ctx, ks, frame, nil); err != nil || i != 0 {
		t.Errorf("type 1: %d, %v", i, err)
	}
	answer(joinery.JoinTypeRejoin1, 0xFFFF, frame, nil)
}

// testMIC: no frame with a bit changed passes, and none of another device.
func testMIC(t *testing.T, f Fixture) {
	ctx := context.Background()
	d := NewDevice(true)
	ks := f.SealedKeySet(t, d)
	join := d.JoinRequest(1)
	session := activation(ks, d, joinery.JoinTypeJoin, 1, 1, true)
	keys := d.session(session.Accept(), 1)
	rejoin0, rejoin1 := d.Rejoin02(lorawan.Rejoin0, session.NetID, 1, keys), d.Rejoin1(1)

	for i := 1; i < len(join); i++ {
		expect(t, "join-request", f.Keyring.VerifyJoin(ctx, ks, flip(join, i)), keyring.ErrMIC)
	}
	for i := 2; i < len(rejoin0); i++ {
		_, err := f.Keyring.VerifyRejoin(ctx, ks, flip(rejoin0, i), []joinery.Activation{session})
		expect(t, "rejoin-request 0", err, keyring.ErrMIC)
	}
	for i := 2; i < len(rejoin1); i++ {
		_, err := f.Keyring.VerifyRejoin(ctx, ks, flip(rejoin1, i), nil)
		expect(t, "rejoin-request 1", err, keyring.ErrMIC)
	}

	// Made with a key of another device, or with the other root key.
	stranger := d
	stranger.Root10 = random()
	expect(t, "another key", f.Keyring.VerifyJoin(ctx, ks, stranger.JoinRequest(1)), keyring.ErrMIC)
	stranger.Root10 = d.App
	expect(t, "AppKey of a 1.1 device", f.Keyring.VerifyJoin(ctx, ks, stranger.JoinRequest(1)), keyring.ErrMIC)
	a := activation(ks, d, joinery.JoinTypeJoin, 1, 1, true)
	p := f.peers(t)
	_, err := f.Keyring.Accept(ctx, keyring.AcceptRequest{KeySet: ks, Frame: stranger.JoinRequest(1), Activation: a, NSKEK: p.ns, ASKEK: p.as})
	expect(t, "Accept of another key's frame", err, keyring.ErrMIC)

	// What is no frame is no MIC failure.
	for _, frame := range [][]byte{nil, {}, join[:22], append(bytes.Clone(join), 0), flip(join, 0), rejoin0} {
		expect(t, "no join-request", f.Keyring.VerifyJoin(ctx, ks, frame), lorawan.ErrFrame)
		_, err := f.Keyring.Accept(ctx, keyring.AcceptRequest{KeySet: ks, Frame: frame, Activation: a, NSKEK: p.ns, ASKEK: p.as})
		expect(t, "Accept of no join-request", err, lorawan.ErrFrame)
	}
	for _, frame := range [][]byte{nil, rejoin0[:18], rejoin1[:23], join, flip(rejoin0, 0)} {
		_, err := f.Keyring.VerifyRejoin(ctx, ks, frame, nil)
		expect(t, "no rejoin-request", err, lorawan.ErrFrame)
	}
}

// flip changes one bit of byte i.
func flip(b []byte, i int) []byte {
	c := bytes.Clone(b)
	c[i] ^= 0x04
	return c
}

// testContradictions: an activation that was frozen for another frame or key set
// gets no answer.
func testContradictions(t *testing.T, f Fixture) {
	ctx := context.Background()
	p := f.peers(t)
	one, two := NewDevice(false), NewDevice(true)
	ksOne, ksTwo := f.SealedKeySet(t, one), f.SealedKeySet(t, two)
	session := activation(ksTwo, two, joinery.JoinTypeJoin, 1, 1, true)
	rejoin1 := two.Rejoin1(5)
	for name, c := range map[string]struct {
		ks     joinery.KeySet
		d      Device
		frame  []byte
		change func(*joinery.Activation)
	}{
		"DevNonce":           {ksOne, one, one.JoinRequest(5), func(a *joinery.Activation) { a.Count++ }},
		"key set":            {ksOne, one, one.JoinRequest(5), func(a *joinery.Activation) { a.KeySet = ksTwo.ID }},
		"JoinEUI":            {ksOne, one, one.JoinRequest(5), func(a *joinery.Activation) { a.JoinEUI[0]++ }},
		"JoinNonce 0":        {ksOne, one, one.JoinRequest(5), func(a *joinery.Activation) { a.JoinNonce = 0 }},
		"JoinNonce too high": {ksOne, one, one.JoinRequest(5), func(a *joinery.Activation) { a.JoinNonce = 1 << 24 }},
		"other root":         {ksOne, one, one.JoinRequest(5), func(a *joinery.Activation) { a.Root = joinery.NwkKey }},
		"no root":            {ksOne, one, one.JoinRequest(5), func(a *joinery.Activation) { a.Root = 0 }},
		"1.1 for one root":   {ksOne, one, one.JoinRequest(5), func(a *joinery.Activation) { a.OptNeg = true }},
		"rejoin to 1.0.x":    {ksTwo, two, rejoin1, func(a *joinery.Activation) { a.Type, a.OptNeg = joinery.JoinTypeRejoin1, false }},
		"rejoin type":        {ksTwo, two, rejoin1, func(a *joinery.Activation) { a.Type, a.OptNeg = joinery.JoinTypeRejoin2, true }},
		"RJcount":            {ksTwo, two, rejoin1, func(a *joinery.Activation) { a.Type, a.OptNeg, a.Count = joinery.JoinTypeRejoin1, true, 6 }},
	} {
		a := activation(c.ks, c.d, joinery.JoinTypeJoin, 5, 1, false)
		c.change(&a)
		_, err := f.Keyring.Accept(ctx, keyring.AcceptRequest{KeySet: c.ks, Frame: c.frame, Activation: a, Session: &session, NSKEK: p.ns, ASKEK: p.as})
		expect(t, name, err, keyring.ErrRequest)
	}

	// A frame of another device is not this key set's, whoever signed it.
	moved := one
	moved.DevEUI = two.DevEUI
	expect(t, "another DevEUI", f.Keyring.VerifyJoin(ctx, ksOne, moved.JoinRequest(1)), keyring.ErrMIC)

	// Key sets that cannot serve.
	noRoot := ksOne
	noRoot.App = joinery.SealedRoot{}
	expect(t, "no such root", f.Keyring.VerifyJoin(ctx, noRoot, one.JoinRequest(1)), keyring.ErrNoRoot)
	rekeyed := ksOne
	rekeyed.Origin = joinery.OriginRekeyed
	expect(t, "another origin", f.Keyring.VerifyJoin(ctx, rekeyed, one.JoinRequest(1)), keyring.ErrNoRoot)
	derived, _, _ := f.DerivedKeySet(t, one.DevEUI, 0)
	derived.Master = "nobody"
	expect(t, "no such master", f.Keyring.VerifyJoin(ctx, derived, one.JoinRequest(1)), keyring.ErrUnknownMaster)
	expect(t, "check without master", f.Keyring.CheckKeySet(ctx, derived), keyring.ErrUnknownMaster)
	nameless := ksOne
	nameless.Root10 = 0
	expect(t, "no root named", f.Keyring.VerifyJoin(ctx, nameless, one.JoinRequest(1)), keyring.ErrRequest)

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	expect(t, "cancelled", f.Keyring.VerifyJoin(cancelled, ksOne, one.JoinRequest(1)), context.Canceled)
}

// testConcurrency: many joins of many devices at once.
func testConcurrency(t *testing.T, f Fixture) {
	var wg sync.WaitGroup
	shared := f.peers(t)
	for i := range 8 {
		d := NewDevice(true)
		ks := f.SealedKeySet(t, d)
		p := f.peers(t)
		if i%2 == 0 {
			p = shared
		}
		wg.Go(func() {
			for n := range uint16(100) {
				a := activation(ks, d, joinery.JoinTypeJoin, n, lorawan.JoinNonce(n)+1, n%2 == 0)
				answer, err := f.Keyring.Accept(context.Background(), keyring.AcceptRequest{KeySet: ks, Frame: d.JoinRequest(n), Activation: a, NSKEK: p.ns, ASKEK: p.as})
				if err != nil {
					t.Error(err)
					return
				}
				_, want, err := d.Open(0xFF, n, answer.PHYPayload)
				if err != nil {
					t.Error(err)
					return
				}
				checkEnvelope(t, "AppSKey", answer.AppSKey, "wrapped", "as-1", p.asKey, want.AppSKey)
				if a.OptNeg {
					checkEnvelope(t, "SNwkSIntKey", answer.SNwkSIntKey, "wrapped", "ns-1", p.nsKey, want.SNwkSIntKey)
				} else {
					checkEnvelope(t, "NwkSKey", answer.NwkSKey, "wrapped", "ns-1", p.nsKey, want.NwkSKey)
				}
			}
		})
	}
	wg.Wait()
}
