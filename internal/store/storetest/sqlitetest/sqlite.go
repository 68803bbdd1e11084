// Package sqlitetest gives tests of other packages a database of their own. It
// is no part of storetest, which the store's own tests link.
package sqlitetest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"joinery/internal/store"
)

// empty is a new database, as store.Create makes it: the schema's whole history takes
// longer than most tests.
var empty = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "joinery-sqlite-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "joinery.db")
	if err := store.Create(context.Background(), store.Options{Path: path, UnsafeNoSync: true}); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// Create puts a new database at path. All of one test binary are copies of one.
func Create(t testing.TB, path string) {
	t.Helper()
	db, err := empty()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, db, 0o600); err != nil {
		t.Fatal(err)
	}
}

// New makes a database of the test's own, in SQLite and without fsync. When the
// test ends, every invariant of it is checked.
func New(t testing.TB) *store.DB {
	t.Helper()
	opt := store.Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
	Create(t, opt.Path)
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
