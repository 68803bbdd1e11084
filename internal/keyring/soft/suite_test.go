package soft_test

import (
	"context"
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
