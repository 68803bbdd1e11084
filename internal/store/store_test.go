package store_test

import (
	"path/filepath"
	"testing"

	"joinery/internal/store"
	"joinery/internal/store/storetest"
	"joinery/internal/store/storetest/sqlitetest"
)

// backend is a database file under the contract suite.
type backend struct {
	*store.DB
	options store.Options
}

func openBackend(t testing.TB) storetest.Backend {
	t.Helper()
	b := backend{options: store.Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}}
	sqlitetest.Create(t, b.options.Path)
	return b.open(t)
}

func (b backend) open(t testing.TB) backend {
	t.Helper()
	db, err := store.Open(t.Context(), b.options)
	if err != nil {
		t.Fatal(err)
	}
	b.DB = db
	t.Cleanup(func() { _ = db.Close() })
	return b
}

func (b backend) Reopen(t testing.TB) storetest.Backend {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return b.open(t)
}

func (b backend) CheckInvariants(t testing.TB) {
	t.Helper()
	for _, v := range b.Violations(t) {
		t.Errorf("fsck: %s", v)
	}
}

func (b backend) Violations(t testing.TB) (list []string) {
	t.Helper()
	found, err := b.Fsck(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		list = append(list, v.String())
	}
	return list
}

func TestContract(t *testing.T) { storetest.Run(t, openBackend) }
