package soft_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/keyring/soft"
)

// The software backend passes the contract of every backend.
func TestContract(t *testing.T) {
	keyringtest.Run(t, func(tb testing.TB) keyringtest.Fixture {
		tb.Helper()
		dir := tb.TempDir()
		master, err := keyringtest.NewSoftFile(dir, "maker-1")
		if err != nil {
			tb.Fatal(err)
		}
		token, err := soft.Open(context.Background(), soft.Options{
			KeyFile: filepath.Join(dir, "keys"), Unlock: soft.Unlock{IdentityFile: filepath.Join(dir, "identity")},
		})
		if err != nil {
			tb.Fatal(err)
		}
		k := keyring.New(token)
		tb.Cleanup(func() {
			if err := k.Close(); err != nil {
				tb.Error(err)
			}
		})
		return keyringtest.Fixture{Keyring: k, Master: "maker-1", MasterKey: master}
	})
}

// Its generations keep what every backend promises of them.
func TestContractOfGenerations(t *testing.T) {
	dir := t.TempDir()
	master, err := keyringtest.NewSoftFile(dir, "maker-1")
	if err != nil {
		t.Fatal(err)
	}
	file, unlock := filepath.Join(dir, "keys"), soft.Unlock{IdentityFile: filepath.Join(dir, "identity")}
	open := func() *soft.Token {
		token, err := soft.Open(context.Background(), soft.Options{KeyFile: file, Unlock: unlock})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	k := keyring.New(open())
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	renew := func(steps ...error) {
		if err := errors.Join(append(steps, k.Renew(context.Background(), open()))...); err != nil {
			t.Fatal(err)
		}
	}
	keyringtest.RunGenerations(t, keyringtest.Rotating{
		Fixture: keyringtest.Fixture{Keyring: k, Master: "maker-1", MasterKey: master},
		Next: func(testing.TB) {
			_, one := soft.NewJoinKEK(file, unlock)
			_, two := soft.NewTransportKey(file, unlock)
			_, three := soft.NewCustodyKey(soft.InitOptions{
				KeyFile: file, Unlock: unlock, CustodyFile: filepath.Join(dir, "custody-2"), CustodyUnlock: soft.Unlock{IdentityFile: filepath.Join(dir, "custody-identity")},
			})
			renew(one, two, three)
		},
		Retire: func(testing.TB) {
			_, one := soft.RetireJoinKEKs(file, unlock)
			_, two := soft.RetireTransportKeys(file, unlock)
			renew(one, two)
		},
	})
}
