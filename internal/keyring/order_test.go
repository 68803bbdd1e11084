package keyring_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// join gives what a join of d asks for.
func join(ks joinery.KeySet, d keyringtest.Device, ns, as joinery.KEK, optNeg bool) keyring.AcceptRequest {
	return keyring.AcceptRequest{
		KeySet: ks, Frame: d.JoinRequest(1), NSKEK: ns, ASKEK: as,
		Activation: joinery.Activation{
			ID: 1, KeySet: ks.ID, Type: joinery.JoinTypeJoin, JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, OptNeg: optNeg,
			Root: ks.Root10, Count: 1, JoinNonce: 1, NetID: lorawan.NetID{0, 0, 0x13}, Policy: joinery.AppSKeyWrapped,
		},
	}
}

// A frame whose MIC is wrong costs one root key and one CMAC, and nothing more
// is computed.
func TestMICComesFirst(t *testing.T) {
	f, r := newRecorder(t)
	d := keyringtest.NewDevice(true)
	ks := f.SealedKeySet(t, d)
	key := make([]byte, 16)
	ns, as := f.KEK(t, key, joinery.KEKForNS, "ns"), f.KEK(t, key, joinery.KEKForAS, "as")
	for _, optNeg := range []bool{false, true} {
		req := join(ks, d, ns, as, optNeg)
		req.Frame[22] ^= 1
		r.reset(0)
		if _, err := f.Keyring.Accept(context.Background(), req); !errors.Is(err, keyring.ErrMIC) {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"MAC 1", "open root", "CMAC"}, r.ops); diff != "" {
			t.Errorf("OptNeg %v: operations of a wrong frame (-want +got):\n%s", optNeg, diff)
		}
	}
	// Even where the rest of the request could not be met.
	req := join(ks, d, joinery.KEK{}, joinery.KEK{}, true)
	req.Frame[20] ^= 1
	if _, err := f.Keyring.Accept(context.Background(), req); !errors.Is(err, keyring.ErrMIC) {
		t.Errorf("without KEKs: %v", err)
	}
}

// The operations of whole answers, in their order; KEKs are opened once.
func TestOperationsOfAnswers(t *testing.T) {
	f, r := newRecorder(t)
	d := keyringtest.NewDevice(true)
	ks, nwk, app := f.DerivedKeySet(t, d.DevEUI, 1)
	d.Root10, d.Nwk, d.App = nwk, nwk, app
	key := make([]byte, 16)
	ns, as := f.KEK(t, key, joinery.KEKForNS, "ns"), f.KEK(t, key, joinery.KEKForAS, "as")
	for _, c := range []struct {
		name   string
		optNeg bool
		want   []string
	}{
		{"first", false, []string{
			"derive root", "CMAC",
			"MAC 1", "open KEK", "MAC 1", "open KEK",
			"derive session", "wrap", "derive session", "wrap",
			"CMAC", "decrypt",
		}},
		{"1.0.x", false, []string{
			"derive root", "CMAC",
			"derive session", "wrap", "derive session", "wrap",
			"CMAC", "decrypt",
		}},
		{"1.1", true, []string{
			"derive root", "CMAC",
			"derive root", "derive session", "wrap", "derive session", "wrap", "derive session", "wrap", "derive session", "wrap",
			"derive for MIC", "CMAC", "decrypt",
		}},
	} {
		r.reset(0)
		if _, err := f.Keyring.Accept(context.Background(), join(ks, d, ns, as, c.optNeg)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, r.ops); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if n := r.handles("key"); n != 0 {
			t.Errorf("%s: %d keys are still open", c.name, n)
		}
		if slices.Contains(r.ops, "reveal") {
			t.Errorf("%s: a key was revealed", c.name)
		}
	}
	if n := r.handles("KEK"); n != 2 {
		t.Errorf("%d KEKs are open, want 2", n)
	}
}

// Whichever operation of the token fails: the verb fails with its error, gives
// nothing out and leaves no handle open; the next try works.
func TestTokenFailures(t *testing.T) {
	f, r := newRecorder(t)
	ctx := context.Background()
	d := keyringtest.NewDevice(true)
	ks := f.SealedKeySet(t, d)
	key := make([]byte, 16)
	h, rows := f.Rows(t, d, 1)
	kekHeader, sealedKEK, err := seal.SealKEK(f.Keyring.TransportKey(), "ns", "label", key)
	if err != nil {
		t.Fatal(err)
	}
	session := join(ks, d, joinery.KEK{}, joinery.KEK{}, true).Activation
	answer, err := f.Keyring.Accept(ctx, keyring.AcceptRequest{
		KeySet: ks, Frame: d.JoinRequest(1), Activation: clearPolicy(session), ClearNwk: true, ClearApp: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	rejoin0 := d.Rejoin02(lorawan.Rejoin0, session.NetID, 1, keyringtest.Session{SNwkSIntKey: [16]byte(answer.SNwkSIntKey.AESKey)})

	type keks func() (ns, as joinery.KEK)
	joinUnder := func(k keks, optNeg bool) keyring.AcceptRequest {
		ns, as := k()
		return join(ks, d, ns, as, optNeg)
	}
	verbs := map[string]func(keks) error{
		"VerifyJoin": func(keks) error { return f.Keyring.VerifyJoin(ctx, ks, d.JoinRequest(1)) },
		"VerifyRejoin 0": func(keks) error {
			_, err := f.Keyring.VerifyRejoin(ctx, ks, rejoin0, []joinery.Activation{session})
			return err
		},
		"VerifyRejoin 1": func(keks) error {
			_, err := f.Keyring.VerifyRejoin(ctx, ks, d.Rejoin1(1), nil)
			return err
		},
		"Accept 1.0.x": func(k keks) error { return acceptOnly(t, f, joinUnder(k, false)) },
		"Accept 1.1":   func(k keks) error { return acceptOnly(t, f, joinUnder(k, true)) },
		"Accept in the clear": func(keks) error {
			req := join(ks, d, joinery.KEK{}, joinery.KEK{}, true)
			req.Activation, req.ClearNwk, req.ClearApp = clearPolicy(req.Activation), true, true
			return acceptOnly(t, f, req)
		},
		"Accept rejoin": func(k keks) error {
			req := joinUnder(k, true)
			req.Frame, req.Session, req.Activation.Type = rejoin0, &session, joinery.JoinTypeRejoin0
			return acceptOnly(t, f, req)
		},
		"AppSKey": func(k keks) error {
			_, as := k()
			e, err := f.Keyring.AppSKey(ctx, ks, session, as)
			if err != nil && !e.IsZero() {
				t.Error("AppSKey failed, and gave a key")
			}
			return err
		},
		"CheckKeySet": func(keks) error { return f.Keyring.CheckKeySet(ctx, ks) },
		"CheckKEK": func(k keks) error {
			ns, _ := k()
			return f.Keyring.CheckKEK(ctx, ns)
		},
		"OwnerToken": func(keks) error {
			token, err := f.Keyring.OwnerToken(ctx, 1, 1)
			if err != nil && token != "" {
				t.Error("OwnerToken failed, and gave a token")
			}
			return err
		},
		"CheckOwnerToken": func(keks) error {
			ok, err := f.Keyring.CheckOwnerToken(ctx, 1, 1, "AAAAAAAAAAAAA")
			if ok {
				t.Error("CheckOwnerToken takes anything")
			}
			return err
		},
		"SealRoots": func(keks) error {
			out, err := f.Keyring.SealRoots(ctx, h, rows)
			if err != nil {
				return err
			}
			if out[0].Err != nil && out[0].Nwk.Use != nil {
				t.Error("SealRoots failed, and gave half a row")
			}
			return out[0].Err
		},
		"SealKEK": func(keks) error {
			sealed, err := f.Keyring.SealKEK(ctx, kekHeader, sealedKEK, 1, 1)
			if err != nil && sealed != nil {
				t.Error("SealKEK failed, and gave a blob")
			}
			return err
		},
	}
	for name, verb := range verbs {
		for at := 1; ; at++ {
			// New KEKs each time, so that opening them is among the operations.
			fresh := sync.OnceValues(func() (ns, as joinery.KEK) {
				r.reset(0)
				defer r.reset(at)
				return f.KEK(t, key, joinery.KEKForNS, "ns"), f.KEK(t, key, joinery.KEKForAS, "as")
			})
			r.reset(at)
			err := verb(fresh)
			n := len(r.ops)
			if n < at {
				if err != nil {
					t.Errorf("%s: nothing failed, and it did: %v", name, err)
				}
				if at == 1 {
					t.Errorf("%s: no operation at all", name)
				}
				break
			}
			if !errors.Is(err, errToken) {
				t.Errorf("%s, failure at operation %d (%s): %v", name, at, r.ops[at-1], err)
			}
			if r.handles("key") != 0 || r.handles("batch") != 0 {
				t.Fatalf("%s, failure at operation %d (%s): handles are still open", name, at, r.ops[at-1])
			}
			r.reset(0)
			if err := verb(fresh); err != nil {
				t.Errorf("%s, again after failure %d: %v", name, at, err)
			}
		}
	}
}

func clearPolicy(a joinery.Activation) joinery.Activation {
	a.Policy = joinery.AppSKeyClear
	return a
}

func acceptOnly(t *testing.T, f keyringtest.Fixture, r keyring.AcceptRequest) error {
	t.Helper()
	answer, err := f.Keyring.Accept(context.Background(), r)
	if err != nil && !cmp.Equal(answer, keyring.Answer{}) {
		t.Error("Accept failed, and gave something out")
	}
	return err
}
