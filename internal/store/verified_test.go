package store

import (
	"path/filepath"
	"testing"

	"joinery/internal/store/storetest/pgtest"
)

// Addresses of before that migration are verified where a provider gave them.
func TestAddressesOfBefore(t *testing.T) {
	for name, o := range map[string]Options{
		"SQLite":     {Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true},
		"PostgreSQL": {URL: pgtest.Shared(t).Database(t), UnsafeNoSync: true},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := NewDraft(t.Context(), o, 10)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = d.Discard() }()
			got := map[string]bool{}
			err = inOrder(
				func() error {
					return d.transaction(func(t *tx) error {
						return firstError(
							t.exec("INSERT INTO person (id, name, email, created_at) VALUES (1, 'ann', 'ann@example.com', 0), (2, 'ben', 'ben@example.com', 0), (3, 'eve', '', 0)"),
							t.exec("INSERT INTO identity (issuer, subject, person) VALUES ('https://id.example.com', 'ann', 1), ('https://id.example.com', 'eve', 3)"),
						)
					})
				},
				d.upgrade,
				func() error {
					return d.transaction(func(t *tx) error {
						return t.each("SELECT name, email_verified FROM person", func(r *row) error { got[r.text()] = r.bool(); return nil })
					})
				},
			)
			if err != nil || len(got) != 3 || !got["ann"] || got["ben"] || got["eve"] {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}
