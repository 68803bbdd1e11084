package keyringtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"strings"
	"testing"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
)

func hexUpper(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }

// testWrapping: which session key leaves under which KEK, and that none leaves
// in the clear without both consents.
func testWrapping(t *testing.T, f Fixture) {
	ctx := context.Background()
	p := f.peers(t)
	for _, optNeg := range []bool{false, true} {
		d := NewDevice(true)
		ks := f.SealedKeySet(t, d)
		base := keyring.AcceptRequest{KeySet: ks, Frame: d.JoinRequest(1), Activation: activation(ks, d, joinery.JoinTypeJoin, 1, 1, optNeg), NSKEK: p.ns, ASKEK: p.as}
		want := d.session(base.Activation.Accept(), 1)
		nwkKey := want.NwkSKey
		if optNeg {
			nwkKey = want.FNwkSIntKey
		}
		type change func(*keyring.AcceptRequest)
		policy := func(p joinery.AppSKeyPolicy) change {
			return func(r *keyring.AcceptRequest) { r.Activation.Policy = p }
		}
		noNS := func(r *keyring.AcceptRequest) { r.NSKEK = joinery.KEK{} }
		noAS := func(r *keyring.AcceptRequest) { r.ASKEK = joinery.KEK{} }
		clearNwk := func(r *keyring.AcceptRequest) { r.ClearNwk = true }
		clearApp := func(r *keyring.AcceptRequest) { r.ClearApp = true }
		for name, c := range map[string]struct {
			changes  []change
			err      error
			nwk, app string // "wrapped", "clear", "none"
		}{
			"both":                        {nil, nil, "wrapped", "wrapped"},
			"no NS KEK":                   {[]change{noNS}, keyring.ErrNoKEK, "", ""},
			"no AS KEK":                   {[]change{noAS}, keyring.ErrNoKEK, "", ""},
			"clear policy, no consent":    {[]change{policy(joinery.AppSKeyClear), noAS}, keyring.ErrNoKEK, "", ""},
			"consent, wrapped policy":     {[]change{noAS, clearApp}, keyring.ErrNoKEK, "", ""},
			"consent for the other":       {[]change{noNS, clearApp}, keyring.ErrNoKEK, "", ""},
			"clear AppSKey":               {[]change{policy(joinery.AppSKeyClear), noAS, clearApp}, nil, "wrapped", "clear"},
			"clear network keys":          {[]change{noNS, clearNwk}, nil, "clear", "wrapped"},
			"clear both":                  {[]change{policy(joinery.AppSKeyClear), noNS, noAS, clearNwk, clearApp}, nil, "clear", "clear"},
			"a KEK goes before a consent": {[]change{policy(joinery.AppSKeyClear), clearNwk, clearApp}, nil, "wrapped", "wrapped"},
			"by id":                       {[]change{policy(joinery.AppSKeyByID)}, nil, "wrapped", "none"},
			"by id, no AS KEK":            {[]change{policy(joinery.AppSKeyByID), noAS}, nil, "wrapped", "none"},
			"by id, consent":              {[]change{policy(joinery.AppSKeyByID), noAS, clearApp}, nil, "wrapped", "none"},
			"AS KEK for the NS":           {[]change{func(r *keyring.AcceptRequest) { r.NSKEK = p.as }}, keyring.ErrIntegrity, "", ""},
			"NS KEK for the AS":           {[]change{func(r *keyring.AcceptRequest) { r.ASKEK = p.ns }}, keyring.ErrIntegrity, "", ""},
			"NS KEK without label":        {[]change{func(r *keyring.AcceptRequest) { r.NSKEK.Label = "" }}, keyring.ErrRequest, "", ""},
			"retired KEK, repeated":       {[]change{func(r *keyring.AcceptRequest) { r.NSKEK.Retired = true }}, nil, "wrapped", "wrapped"},
		} {
			r := base
			for _, change := range c.changes {
				change(&r)
			}
			answer, err := f.Keyring.Accept(ctx, r)
			if c.err != nil {
				expect(t, name, err, c.err)
				if answer.PHYPayload != nil {
					t.Errorf("%s: refused, and answered", name)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			nwk := answer.NwkSKey
			if optNeg {
				nwk = answer.FNwkSIntKey
			}
			checkEnvelope(t, name+", network key", nwk, c.nwk, "ns-1", p.nsKey, nwkKey)
			checkEnvelope(t, name+", AppSKey", answer.AppSKey, c.app, "as-1", p.asKey, want.AppSKey)
		}
	}
}

func checkEnvelope(t *testing.T, name string, e keyring.Envelope, how, label string, kek []byte, want [16]byte) {
	t.Helper()
	switch how {
	case "wrapped":
		if key, err := Unwrap(kek, e.AESKey); err != nil || key != want || e.KEKLabel != label {
			t.Errorf("%s is not wrapped under %s: %v", name, label, err)
		}
	case "clear":
		if !bytes.Equal(e.AESKey, want[:]) || e.KEKLabel != "" {
			t.Errorf("%s is not in the clear", name)
		}
	case "none":
		if !e.IsZero() || e.KEKLabel != "" {
			t.Errorf("%s was given", name)
		}
	}
}

// testAppSKey: the AppSKey of an earlier activation, for its Application Server.
func testAppSKey(t *testing.T, f Fixture) {
	ctx := context.Background()
	p := f.peers(t)
	for _, two := range []bool{false, true} {
		for _, optNeg := range []bool{false, true} {
			if optNeg && !two {
				continue
			}
			d := NewDevice(two)
			ks := f.SealedKeySet(t, d)
			a := activation(ks, d, joinery.JoinTypeJoin, 3, 9, optNeg)
			e, err := f.Keyring.AppSKey(ctx, ks, a, p.as)
			if err != nil {
				t.Fatal(err)
			}
			checkEnvelope(t, "AppSKey", e, "wrapped", "as-1", p.asKey, d.session(a.Accept(), 3).AppSKey)

			_, err = f.Keyring.AppSKey(ctx, ks, a, joinery.KEK{})
			expect(t, "no KEK", err, keyring.ErrNoKEK)
			_, err = f.Keyring.AppSKey(ctx, ks, a, p.ns)
			expect(t, "an NS KEK", err, keyring.ErrIntegrity)
			a.KeySet = joinery.NewKeySetID()
			_, err = f.Keyring.AppSKey(ctx, ks, a, p.as)
			expect(t, "another key set's activation", err, keyring.ErrRequest)
		}
	}
	// KEKs of every length.
	d := NewDevice(true)
	ks := f.SealedKeySet(t, d)
	a := activation(ks, d, joinery.JoinTypeJoin, 3, 9, true)
	for _, n := range []int{16, 24, 32} {
		key := make([]byte, n)
		rand.Read(key)
		kek := f.KEK(t, key, joinery.KEKForAS, "as-long")
		if err := f.Keyring.CheckKEK(ctx, kek); err != nil {
			t.Errorf("KEK of %d bytes: %v", n, err)
		}
		e, err := f.Keyring.AppSKey(ctx, ks, a, kek)
		if err != nil {
			t.Fatal(err)
		}
		checkEnvelope(t, "AppSKey", e, "wrapped", "as-long", key, d.session(a.Accept(), 3).AppSKey)
	}
}

// testIntegrity: a blob opens only as what it was sealed as.
func testIntegrity(t *testing.T, f, other Fixture) {
	ctx := context.Background()
	one, two := NewDevice(true), NewDevice(true)
	ks, ks2 := f.SealedKeySet(t, one), f.SealedKeySet(t, two)
	foreign := other.SealedKeySet(t, one)
	check := func(name string, change func(*joinery.KeySet)) {
		t.Helper()
		c := ks
		change(&c)
		expect(t, name, f.Keyring.CheckKeySet(ctx, c), keyring.ErrIntegrity)
	}
	check("use of another device", func(k *joinery.KeySet) { k.Nwk.Use = ks2.Nwk.Use })
	check("both of another device", func(k *joinery.KeySet) { k.Nwk, k.App = ks2.Nwk, ks2.App })
	check("custody of another device", func(k *joinery.KeySet) { k.App.Custody = ks2.App.Custody })
	check("another id", func(k *joinery.KeySet) { k.ID = ks2.ID })
	check("Nwk and App swapped", func(k *joinery.KeySet) { k.Nwk, k.App = k.App, k.Nwk })
	check("App in place of Nwk", func(k *joinery.KeySet) { k.Nwk.Use = k.App.Use })
	check("custody of App in place of Nwk", func(k *joinery.KeySet) { k.Nwk.Custody = k.App.Custody })
	check("custody in place of use", func(k *joinery.KeySet) { k.Nwk.Use = k.Nwk.Custody })
	check("use in place of custody", func(k *joinery.KeySet) { k.Nwk.Custody = k.Nwk.Use })
	check("no custody", func(k *joinery.KeySet) { k.Nwk.Custody = nil })
	check("of another keyring", func(k *joinery.KeySet) { k.ID, k.Nwk, k.App = foreign.ID, foreign.Nwk, foreign.App })
	check("too short", func(k *joinery.KeySet) { k.Nwk.Use = k.Nwk.Use[:32] })
	for i := range ks.Nwk.Use {
		check("one bit of use", func(k *joinery.KeySet) { k.Nwk.Use = flip(k.Nwk.Use, i) })
	}
	for i := 0; i < len(ks.App.Custody); i += 13 {
		check("one bit of custody", func(k *joinery.KeySet) { k.App.Custody = flip(k.App.Custody, i) })
	}
	// The verbs see it, too.
	swapped := ks
	swapped.Nwk = ks2.Nwk
	expect(t, "VerifyJoin", f.Keyring.VerifyJoin(ctx, swapped, one.JoinRequest(1)), keyring.ErrIntegrity)
	if err := f.Keyring.CheckKeySet(ctx, ks); err != nil {
		t.Errorf("whole: %v", err)
	}
	testKEKIntegrity(t, f, other)
}

func testKEKIntegrity(t *testing.T, f, other Fixture) {
	ctx := context.Background()
	key := random()
	ns, as := f.KEK(t, key[:], joinery.KEKForNS, "ns"), f.KEK(t, key[:], joinery.KEKForAS, "as")
	foreign := other.KEK(t, key[:], joinery.KEKForAS, "as")
	d := NewDevice(false)
	ks := f.SealedKeySet(t, d)
	a := activation(ks, d, joinery.JoinTypeJoin, 3, 9, false)
	check := func(name string, change func(*joinery.KEK)) {
		t.Helper()
		k := as
		change(&k)
		expect(t, name, f.Keyring.CheckKEK(ctx, k), keyring.ErrIntegrity)
		_, err := f.Keyring.AppSKey(ctx, ks, a, k)
		expect(t, name+", used", err, keyring.ErrIntegrity)
		// And again, now that the true one is open.
		if _, err := f.Keyring.AppSKey(ctx, ks, a, as); err != nil {
			t.Errorf("%s: the true one: %v", name, err)
		}
		_, err = f.Keyring.AppSKey(ctx, ks, a, k)
		expect(t, name+", used again", err, keyring.ErrIntegrity)
	}
	check("the NS's for the AS", func(k *joinery.KEK) { k.Sealed = ns.Sealed })
	check("another peer's", func(k *joinery.KEK) { k.Peer = ns.Peer })
	check("another version", func(k *joinery.KEK) { k.Version++ })
	check("of another keyring", func(k *joinery.KEK) { k.Peer, k.Sealed = foreign.Peer, foreign.Sealed })
	check("a root in place of a KEK", func(k *joinery.KEK) { k.Sealed = ks.App.Use })
	check("nothing", func(k *joinery.KEK) { k.Sealed = nil })
	for i := range as.Sealed {
		check("one bit", func(k *joinery.KEK) { k.Sealed = flip(k.Sealed, i) })
	}
	role := ns
	role.Role = joinery.KEKForAS
	expect(t, "the role alone", f.Keyring.CheckKEK(ctx, role), keyring.ErrIntegrity)
	role.Role = "?"
	expect(t, "no role", f.Keyring.CheckKEK(ctx, role), keyring.ErrRequest)
}

// testImport: what may come in, and what a bad row or header does.
func testImport(t *testing.T, f, other Fixture) {
	ctx := context.Background()
	s := f.sealer(t)
	root := random()
	good := sealedRow(t, s, nil, root[:])
	out, err := f.Keyring.SealRoots(ctx, s.Header(), []keyring.RootsIn{
		{KeySet: 1, Row: sealedRow(t, s, root[:], root[:])},
		{KeySet: 2, Row: good},
		{KeySet: 3, Row: sealedRow(t, s, nil, nil)},
		{KeySet: 4, Row: sealedRow(t, s, append(root[:], root[:]...), nil)},
		{KeySet: 5, Row: sealedRow(t, s, root[:], nil)},
		{KeySet: 6},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, nil, keyring.ErrNoRoot, keyring.ErrTransport, nil, keyring.ErrNoRoot} {
		expect(t, "row", out[i].Err, want)
		if want != nil && (out[i].Nwk.Use != nil || out[i].App.Use != nil) {
			t.Errorf("row %d failed, and was sealed", i)
		}
	}
	if out[1].Nwk.Use != nil || out[4].App.Custody != nil {
		t.Error("a root that a row has not was sealed")
	}
	if bytes.Contains(out[0].Nwk.Use, root[:]) || bytes.Contains(out[0].Nwk.Custody, root[:]) {
		t.Error("a sealed root contains the root")
	}

	// Who has a token that knows OAEP with SHA-1 only seals so to every key.
	bySHA1, err := seal.NewSealer(f.Keyring.TransportKey().WithSHA1())
	if err != nil {
		t.Fatal(err)
	}
	out, err = f.Keyring.SealRoots(ctx, bySHA1.Header(), []keyring.RootsIn{{KeySet: 7, Row: sealedRow(t, bySHA1, root[:], nil)}})
	if err != nil || out[0].Err != nil || out[0].Nwk.Use == nil {
		t.Errorf("sealed by OAEP with SHA-1: %+v, %v", out, err)
	}

	kekHeader, kek, err := seal.SealKEK(f.Keyring.TransportKey(), "ns", "label", root[:])
	if err != nil {
		t.Fatal(err)
	}
	damaged := s.Header()
	damaged.Key = flip(damaged.Key, 9)
	renamed := other.sealer(t).Header()
	renamed.KID = s.Header().KID
	for name, h := range map[string]seal.Header{"another server's": other.sealer(t).Header(), "damaged": damaged, "renamed": renamed, "none": {}} {
		_, err := f.Keyring.SealRoots(ctx, h, []keyring.RootsIn{{KeySet: 1, Row: good}})
		expect(t, name, err, keyring.ErrTransport)
		_, err = f.Keyring.SealKEK(ctx, h, kek, 1, 1)
		expect(t, name+" KEK", err, keyring.ErrTransport)
	}
	_, err = f.Keyring.SealKEK(ctx, s.Header(), seal.SealedKEK{Role: "both"}, 1, 1)
	expect(t, "KEK of no role", err, keyring.ErrRequest)
	_, err = f.Keyring.SealKEK(ctx, kekHeader, kek, 1, 1)
	expect(t, "KEK", err, nil)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = f.Keyring.SealRoots(cancelled, s.Header(), nil)
	expect(t, "cancelled", err, context.Canceled)
}
