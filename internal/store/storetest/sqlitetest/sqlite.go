// Package sqlitetest gives tests of other packages a database of their own. It
// is no part of storetest, which the store's own tests link.
package sqlitetest

import (
	"context"
	"path/filepath"
	"testing"

	"joinery/internal/store"
)

// New makes a database of the test's own, in SQLite and without fsync. When the
// test ends, every invariant of it is checked.
func New(t testing.TB) *store.DB {
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
