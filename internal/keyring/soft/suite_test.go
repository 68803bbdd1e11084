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

// The software backend passes the contract of every backend, that of generations as
// well.
func TestContract(t *testing.T) {
	var first keyringtest.Rotating
	keyringtest.Run(t, func(tb testing.TB) keyringtest.Fixture {
		tb.Helper()
		f := inFile{tb, tb.TempDir()}
		master, err := keyringtest.NewSoftFile(f.dir, "maker-1")
		f.ok(err)
		k := keyring.New(f.open())
		tb.Cleanup(func() {
			if err := k.Close(); err != nil {
				tb.Error(err)
			}
		})
		fixture := keyringtest.Fixture{Keyring: k, Master: "maker-1", MasterKey: master}
		if first.Next == nil {
			first = f.rotating(fixture, k)
		}
		return fixture
	})
	t.Run("Generations", func(t *testing.T) { keyringtest.RunGenerations(t, first) })
}

// inFile is a key file of keyringtest's in a directory.
type inFile struct {
	tb  testing.TB
	dir string
}

func (f inFile) ok(errs ...error) {
	f.tb.Helper()
	if err := errors.Join(errs...); err != nil {
		f.tb.Fatal(err)
	}
}

func (f inFile) path() string { return filepath.Join(f.dir, "keys") }

func (f inFile) by(name string) soft.Unlock {
	return soft.Unlock{IdentityFile: filepath.Join(f.dir, name)}
}

func (f inFile) open() *soft.Token {
	f.tb.Helper()
	token, err := soft.Open(context.Background(), soft.Options{KeyFile: f.path(), Unlock: f.by("identity")})
	f.ok(err)
	return token
}

// rotating replaces the storage keys in the file, and has k read it anew.
func (f inFile) rotating(fixture keyringtest.Fixture, k *keyring.Keyring) keyringtest.Rotating {
	return keyringtest.Rotating{
		Fixture: fixture,
		Next: func(testing.TB) {
			_, one := soft.NewJoinKEK(f.path(), f.by("identity"))
			_, two := soft.NewTransportKey(f.path(), f.by("identity"))
			_, three := soft.NewCustodyKey(soft.InitOptions{
				KeyFile: f.path(), Unlock: f.by("identity"), CustodyFile: filepath.Join(f.dir, "custody-2"), CustodyUnlock: f.by("custody-identity"),
			})
			f.ok(one, two, three, k.Renew(context.Background(), f.open()))
		},
		Retire: func(testing.TB) {
			_, one := soft.RetireJoinKEKs(f.path(), f.by("identity"))
			_, two := soft.RetireTransportKeys(f.path(), f.by("identity"))
			f.ok(one, two, k.Renew(context.Background(), f.open()))
		},
	}
}
