package store_test

import (
	"context"
	"testing"

	"joinery/internal/store"
	"joinery/internal/store/storetest"
	"joinery/internal/store/storetest/pgtest"
)

// postgres gives options for a new database in PostgreSQL.
func postgres(t testing.TB) store.Options {
	t.Helper()
	url := pgtest.Shared(t).Joinery(t, func(url string) error {
		return store.Create(context.Background(), store.Options{URL: url, UnsafeNoSync: true})
	})
	return store.Options{URL: url, UnsafeNoSync: true}
}

func TestPostgresContract(t *testing.T) {
	storetest.Run(t, func(t testing.TB) storetest.Backend {
		t.Helper()
		return backend{options: postgres(t)}.open(t)
	})
}
