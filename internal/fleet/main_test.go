package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"

	"joinery/internal/keyring"
	"joinery/internal/keyring/soft"
	"joinery/internal/store"
)

// master is the name of the master key in the tests' keyring.
const master = "test-master"

// keys is the keyring that the tests of this package share: its RSA keys take a
// second to make.
var keys *keyring.Keyring

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "joinery-fleet")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if keys, err = makeKeyring(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = keys.Close() }()
	return m.Run()
}

func makeKeyring(dir string) (*keyring.Keyring, error) {
	opt := soft.InitOptions{KeyFile: filepath.Join(dir, "server.age"), CustodyFile: filepath.Join(dir, "custody.age")}
	for name, unlock := range map[string]*soft.Unlock{"server.id": &opt.Unlock, "custody.id": &opt.CustodyUnlock} {
		identity, err := age.GenerateX25519Identity()
		if err != nil {
			return nil, err
		}
		unlock.IdentityFile = filepath.Join(dir, name)
		if err := os.WriteFile(unlock.IdentityFile, []byte(identity.String()+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	if err := soft.Init(opt); err != nil {
		return nil, err
	}
	if _, err := soft.NewMaster(opt.KeyFile, opt.Unlock, master); err != nil {
		return nil, err
	}
	token, err := soft.Open(context.Background(), soft.Options{KeyFile: opt.KeyFile, Unlock: opt.Unlock})
	if err != nil {
		return nil, err
	}
	return keyring.New(token), nil
}

// newStore makes a database of the test's own.
func newStore(t testing.TB) *store.DB {
	t.Helper()
	opt := store.Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
	if err := store.Create(t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		found, err := db.Fsck(context.Background(), nil)
		if err != nil {
			t.Error(err)
		}
		for _, v := range found {
			t.Errorf("fsck: %v", v)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}
