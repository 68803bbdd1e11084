package store

import (
	"fmt"
	"testing"
	"time"

	"joinery"
)

// Those who begin to sign in and go no further keep nobody else out.
func TestManySignIns(t *testing.T) {
	for name, c := range map[string]struct {
		options func(testing.TB) Options
		hash    string
	}{
		"SQLite":     {newOptions, "CAST(printf('%032d', i) AS BLOB)"},
		"PostgreSQL": {newPostgres, "CAST(lpad(CAST(i AS text), 32, '0') AS bytea)"},
	} {
		t.Run(name, func(t *testing.T) {
			d, now := mustOpen(t, c.options(t)), time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
			hash := func(i int) [32]byte { return [32]byte(fmt.Appendf(nil, "%032d", i)) }
			fill := func(kind joinery.SignInKind, person any, first, n int) {
				t.Helper()
				if err := d.do(t.Context(), func(tx *tx) error {
					return tx.exec("INSERT INTO sign_in (hash, kind, person, name, expires_at) WITH RECURSIVE n(i) AS (SELECT CAST(?1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1 + ?2) "+
						"SELECT "+c.hash+", ?3, CAST(?4 AS BIGINT), 'x', ?5 + i FROM n", first, n, kind, person, now.Add(time.Minute))
				}); err != nil {
					t.Fatal(err)
				}
			}
			waits := func(i int) bool {
				t.Helper()
				_, err := d.SignIn(t.Context(), hash(i))
				if code := joinery.CodeOf(err); code != "" && code != joinery.CodeNotFound {
					t.Fatal(err)
				}
				return err == nil
			}
			add := func(i int, kind joinery.SignInKind, person joinery.PersonID) error {
				return d.AddSignIn(t.Context(), joinery.SignIn{Hash: hash(i), Kind: kind, Person: person, Name: "x", ExpiresAt: now.Add(time.Hour)}, now)
			}
			// The oldest program has a person's word already, the next has none.
			fill(joinery.SignInProgram, joinery.NewPersonID(), 0, 1)
			fill(joinery.SignInProgram, nil, 1, maxSignIns-1)
			for i, kind := range []joinery.SignInKind{joinery.SignInPasskey, joinery.SignInNewPasskey, joinery.SignInProgram} {
				if err := add(100_000+i, kind, 0); err != nil {
					t.Errorf("%s: %v", kind, err)
				}
			}
			if !waits(0) || waits(1) || !waits(2) || !waits(maxSignIns-1) {
				t.Errorf("agreed %v, oldest %v, next %v, newest %v", waits(0), waits(1), waits(2), waits(maxSignIns-1))
			}
			// Where people stand behind all, there is no room.
			fill(joinery.SignInNewPasskey, joinery.NewPersonID(), 20_000, maxSignIns)
			if err := add(100_010, joinery.SignInNewPasskey, 0); err != nil { // the one of nobody goes
				t.Error(err)
			}
			if _, err := d.TakeSignIn(t.Context(), hash(100_010)); err != nil {
				t.Fatal(err)
			}
			if err := add(100_011, joinery.SignInNewPasskey, joinery.NewPersonID()); joinery.CodeOf(err) != joinery.CodeRateLimited {
				t.Errorf("one more passkey: %v", err)
			}
		})
	}
}
