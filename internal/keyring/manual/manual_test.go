package manual_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/keyring/manual"
	"joinery/internal/keyring/soft"
)

// sealedKeys gives keys that anything but nothing opens.
func sealedKeys(tb testing.TB) (*manual.Keys, keyringtest.Fixture) {
	tb.Helper()
	dir := tb.TempDir()
	master, err := keyringtest.NewSoftFile(dir, "maker-1")
	if err != nil {
		tb.Fatal(err)
	}
	k := manual.New(func(ctx context.Context, text []byte) (keyring.Token, error) {
		if len(text) == 0 {
			return nil, soft.ErrUnlock
		}
		token, err := soft.Open(ctx, soft.Options{
			KeyFile: filepath.Join(dir, "keys"), Unlock: soft.Unlock{IdentityFile: filepath.Join(dir, "identity")},
		})
		if err != nil {
			return nil, err
		}
		return token, nil
	})
	tb.Cleanup(func() {
		if err := k.Close(); err != nil {
			tb.Error(err)
		}
	})
	return k, keyringtest.Fixture{Keyring: k, Master: "maker-1", MasterKey: master}
}

// Once they are open the keys pass the contract of every keyring.
func TestContract(t *testing.T) {
	keyringtest.Run(t, func(tb testing.TB) keyringtest.Fixture {
		tb.Helper()
		k, f := sealedKeys(tb)
		if err := k.Unseal(context.Background(), []byte("x")); err != nil {
			tb.Fatal(err)
		}
		return f
	})
}

// While they are sealed every verb says so, in a way in which callers know that
// trying again may help.
func TestSealed(t *testing.T) {
	ctx := t.Context()
	k, _ := sealedKeys(t)
	verbs := map[string]func() error{
		"VerifyJoin": func() error { return k.VerifyJoin(ctx, joinery.KeySet{}, nil) },
		"VerifyRejoin": func() error {
			_, err := k.VerifyRejoin(ctx, joinery.KeySet{}, nil, nil)
			return err
		},
		"Accept": func() error { _, err := k.Accept(ctx, keyring.AcceptRequest{}); return err },
		"AppSKey": func() error {
			_, err := k.AppSKey(ctx, joinery.KeySet{}, joinery.Activation{}, joinery.KEK{})
			return err
		},
		"OwnerToken":      func() error { _, err := k.OwnerToken(ctx, 1, 1); return err },
		"CheckOwnerToken": func() error { _, err := k.CheckOwnerToken(ctx, 1, 1, ""); return err },
		"Ready":           func() error { return k.Ready(ctx) },
		"CheckKeySet":     func() error { return k.CheckKeySet(ctx, joinery.KeySet{}) },
		"CheckKEK":        func() error { return k.CheckKEK(ctx, joinery.KEK{}) },
	}
	for name, verb := range verbs {
		if err := verb(); !errors.Is(err, manual.ErrSealed) || !errors.Is(err, keyring.ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !k.Sealed() || k.Masters() != nil || !k.TransportKey().IsZero() || k.Custody() != nil {
		t.Error("sealed keys tell something")
	}
}

// Keys that a database does not admit stay sealed, and can be tried again.
func TestAdmitted(t *testing.T) {
	ctx := t.Context()
	k, _ := sealedKeys(t)
	refusal := errors.New("other master keys")
	refuse := true
	judge := func(_ context.Context, masters []keyring.Master) error {
		if len(masters) != 1 || masters[0].Name != "maker-1" {
			t.Errorf("judged %v", masters)
		}
		if refuse {
			return refusal
		}
		return nil
	}
	if err := k.Admit(ctx, judge); err != nil {
		t.Fatal(err)
	}
	if err := k.Unseal(ctx, nil); !errors.Is(err, soft.ErrUnlock) {
		t.Errorf("with nothing: %v", err)
	}
	if err := k.Unseal(ctx, []byte("x")); !errors.Is(err, refusal) || !k.Sealed() {
		t.Errorf("%v, sealed: %t", err, k.Sealed())
	}
	refuse = false
	if err := k.Unseal(ctx, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := k.Unseal(ctx, []byte("x")); err != nil || k.Sealed() {
		t.Errorf("opened anew: %v", err)
	}
	refuse = true
	for want, text := range map[error][]byte{refusal: []byte("x"), soft.ErrUnlock: nil} {
		if err := k.Unseal(ctx, text); !errors.Is(err, want) || k.Ready(ctx) != nil {
			t.Errorf("opened anew: %v, want %v, and the keys as they were", err, want)
		}
	}
	if err := k.Admit(ctx, judge); !errors.Is(err, refusal) {
		t.Errorf("another judge, later: %v", err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if err := k.Unseal(ctx, []byte("x")); !errors.Is(err, keyring.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
