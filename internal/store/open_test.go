package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"zombiezen.com/go/sqlite"

	"joinery"
)

func newOptions(t testing.TB) Options {
	t.Helper()
	o := Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
	if err := Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return o
}

func mustOpen(t testing.TB, o Options) *DB {
	t.Helper()
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// inFile is what is SQLite's in d.
func inFile(d *DB) *sqliteDB { return d.engine.(*sqliteDB) }

// raw runs statements on the file as another program would.
func raw(t testing.TB, path string, statements ...string) {
	t.Helper()
	c, err := sqlite.OpenConn(path, sqlite.OpenReadWrite|sqlite.OpenCreate)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range statements {
		stmt, _, err := c.PrepareTransient(s)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		for more := true; more; {
			if more, err = stmt.Step(); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
		if err := stmt.Finalize(); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// wants checks the kind of an error and that its text helps.
func wants(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("got %v, want %v", err, kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func TestCreateNeverOverwrites(t *testing.T) {
	o := newOptions(t)
	before, err := os.ReadFile(o.Path)
	if err != nil {
		t.Fatal(err)
	}
	wants(t, Create(t.Context(), o), ErrExists, o.Path)
	after, err := os.ReadFile(o.Path)
	if err != nil {
		t.Fatal(err)
	}
	if string(before) != string(after) {
		t.Fatal("the file changed")
	}
	info, err := os.Stat(o.Path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v: others may read it", info.Mode())
	}
}

func TestCreateAfterACrash(t *testing.T) {
	o := Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
	// An unfinished database of an earlier try is none, and is replaced.
	if err := os.WriteFile(o.Path+".new", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), o)
	wants(t, err, ErrMissing)
	if err := Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(o.Path + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the unfinished file stays: %v", err)
	}
	mustOpen(t, o)
}

// A server that is too old leaves a newer database as it is: raising the epoch
// would put the server that may use it out of service.
func TestRefusedOpenWritesNothing(t *testing.T) {
	o := newOptions(t)
	d := mustOpen(t, o)
	before := d.Epoch()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	steps, err := schemaMigrations()
	if err != nil {
		t.Fatal(err)
	}
	raw(t, o.Path, "PRAGMA user_version = 9999")
	_, err = Open(t.Context(), o)
	wants(t, err, ErrNewerSchema)
	raw(t, o.Path, fmt.Sprintf("PRAGMA user_version = %d", len(steps)))
	if got := mustOpen(t, o).Epoch(); got != before+1 {
		t.Errorf("epoch %d after %d, a refusal and an open", got, before)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, content string) string {
		if err := os.WriteFile(in(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return in(name)
	}
	foreign := in("foreign.db")
	raw(t, foreign, "CREATE TABLE t (a)")
	older, newer, deleteMode, noStore := newOptions(t).Path, newOptions(t).Path, newOptions(t).Path, newOptions(t).Path
	raw(t, older, "PRAGMA user_version = 0")
	raw(t, newer, "PRAGMA user_version = 9999")
	raw(t, deleteMode, "PRAGMA journal_mode = DELETE")
	raw(t, noStore, "DELETE FROM store")
	damaged := newOptions(t).Path
	content, err := os.ReadFile(damaged)
	if err != nil {
		t.Fatal(err)
	}
	copy(content[16:], strings.Repeat("x", 84)) // the header after its magic
	if err := os.WriteFile(damaged, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		kind       error
		words      []string
	}{
		{"missing", in("none.db"), ErrMissing, []string{"none.db", "migrate --create"}},
		{"no directory", in("no/dir/x.db"), ErrMissing, []string{"no/dir", "make it"}},
		{"text", write("text.db", "dear database, this is a letter"), ErrNotDatabase, []string{"text.db"}},
		{"empty", write("empty.db", ""), ErrNotDatabase, []string{"empty.db"}},
		{"damaged header", damaged, ErrNotDatabase, []string{"restore a backup"}},
		{"foreign", foreign, ErrForeign, []string{"foreign.db", "configured path"}},
		{"older schema", older, ErrOlderSchema, []string{"run joinery migrate"}},
		{"newer schema", newer, ErrNewerSchema, []string{"older than the database", "9999"}},
		{"rollback journal", deleteMode, ErrNotDurable, []string{"journal_mode=delete"}},
		{"no store row", noStore, ErrNotDatabase, []string{"restore a backup"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, open := range []func(context.Context, Options) (*DB, error){Open, OpenReadOnly} {
				_, err := open(t.Context(), Options{Path: c.path})
				wants(t, err, c.kind, c.words...)
			}
			// Nothing holds on to the lock after a refusal.
			lock, err := lockFile(t.Context(), c.path, false)
			if err == nil {
				err = lock.release()
			}
			if err != nil && c.name != "no directory" {
				t.Fatal(err)
			}
		})
	}
	if _, err := os.Stat(in("none.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("Open made a database")
	}
}

// A directory that root may not write either is hard to come by, so this looks
// at the texts alone.
func TestLockErrors(t *testing.T) {
	wants(t, lockError("/var/lib/joinery/x.db", fs.ErrPermission), ErrUnwritable, "/var/lib/joinery", "user that runs joinery")
	wants(t, lockError("/var/lib/joinery/x.db", fs.ErrNotExist), ErrMissing, "/var/lib/joinery")
}

func TestDurableByDefault(t *testing.T) {
	o := newOptions(t)
	o.UnsafeNoSync = false
	d := mustOpen(t, o)
	sync, err := inFile(d).w.c.pragmaInt("synchronous")
	if err != nil || sync != 2 {
		t.Fatalf("synchronous = %d, %v; want 2 (FULL)", sync, err)
	}
	if err := inFile(d).w.c.pragma("synchronous = NORMAL"); err != nil {
		t.Fatal(err)
	}
	wants(t, inFile(d).w.c.checkDurable(o), ErrNotDurable, "synchronous=1")
}

// P27: the second server on one file refuses to start; a declared successor
// waits for the lock and finds the next epoch.
func TestOneServer(t *testing.T) {
	o := newOptions(t)
	first := mustOpen(t, o)
	for _, open := range []func(context.Context, Options) (*DB, error){Open, OpenReadOnly} {
		_, err := open(t.Context(), o)
		wants(t, err, ErrLocked, o.Path, fmt.Sprintf("process %d", os.Getpid()), "stop")
	}
	_, _, err := Migrate(t.Context(), o)
	wants(t, err, ErrLocked)
	wants(t, Create(t.Context(), o), ErrLocked)

	successor := o
	successor.Successor = true
	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err = Open(short, successor)
	wants(t, err, ErrLocked)
	wants(t, err, context.DeadlineExceeded)

	opened := make(chan *DB)
	go func() {
		d, err := Open(t.Context(), successor)
		if err != nil {
			t.Error(err)
		}
		opened <- d
	}()
	select {
	case <-opened:
		t.Fatal("the successor did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := <-opened
	if second.Epoch() != first.Epoch()+1 {
		t.Fatalf("epoch %d after %d", second.Epoch(), first.Epoch())
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}

// Whoever finds the epoch moved writes nothing more, even where somebody
// removed the lock file under it.
func TestSucceeded(t *testing.T) {
	o := newOptions(t)
	first := mustOpen(t, o)
	if err := os.Remove(o.Path + ".lock"); err != nil {
		t.Fatal(err)
	}
	second := mustOpen(t, o)
	org := joinery.Organisation{ID: joinery.NewOrgID(), Name: "late", CreatedAt: time.Now()}
	err := first.AddOrg(t.Context(), org, joinery.AuditEntry{})
	wants(t, err, ErrSucceeded)
	if joinery.CodeOf(err) != joinery.CodeUnavailable {
		t.Fatalf("code %s", joinery.CodeOf(err))
	}
	if err := second.AddOrg(t.Context(), org, joinery.AuditEntry{}); err != nil {
		t.Fatal(err)
	}
}

func TestReadOnlyChangesNothing(t *testing.T) {
	o := newOptions(t)
	epoch := mustOpenAndClose(t, o)
	d, err := OpenReadOnly(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	wants(t, d.AddOrg(t.Context(), joinery.Organisation{}, joinery.AuditEntry{}), ErrClosed)
	wants(t, d.CommitActivation(t.Context(), joinery.ActivationCommit{}), ErrClosed)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if next := mustOpenAndClose(t, o); next != epoch+1 {
		t.Fatalf("looking raised the epoch: %d after %d", next, epoch)
	}
}

func mustOpenAndClose(t *testing.T, o Options) int64 {
	t.Helper()
	d := mustOpen(t, o)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return d.Epoch()
}

func TestClosed(t *testing.T) {
	d := mustOpen(t, newOptions(t))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatalf("closing again: %v", err)
	}
	_, err := d.Orgs(t.Context())
	wants(t, err, ErrClosed)
	wants(t, d.AddOrg(t.Context(), joinery.Organisation{}, joinery.AuditEntry{}), ErrClosed)
	if joinery.CodeOf(d.Ping(t.Context())) != joinery.CodeUnavailable {
		t.Fatal("a closed database answers")
	}
}

func TestMigrate(t *testing.T) {
	all, err := schemaMigrations()
	if err != nil {
		t.Fatal(err)
	}
	o := newOptions(t)
	from, to, err := Migrate(t.Context(), o)
	if err != nil || from != len(all) || to != len(all) {
		t.Fatalf("a new database: from %d to %d, %v", from, to, err)
	}
	_, _, err = Migrate(t.Context(), Options{Path: o.Path + ".none"})
	wants(t, err, ErrMissing)

	n := len(all)
	next := migration{version: n + 1, name: "next", sql: "CREATE TABLE extra (a INTEGER) STRICT; INSERT INTO extra VALUES (1);"}
	broken := migration{version: n + 2, name: "broken", sql: "CREATE TABLE half (a INTEGER) STRICT; INSERT INTO nowhere VALUES (1);"}
	dangling := migration{version: n + 2, name: "dangling", sql: "PRAGMA defer_foreign_keys = ON; UPDATE store SET operator_org = 1;"}
	if from, to, err = migrateFile(t.Context(), o, append(all, next, broken)); err == nil || from != n || to != n+1 {
		t.Fatalf("a step that fails: from %d to %d, %v", from, to, err)
	}
	if _, _, err = migrateFile(t.Context(), o, append(all, next, dangling)); err == nil {
		t.Fatal("a step left a reference to nothing")
	}
	_, err = Open(t.Context(), o)
	wants(t, err, ErrNewerSchema) // whole steps only: the first was kept
	if from, to, err = migrateFile(t.Context(), o, append(all, next)); err != nil || from != n+1 || to != n+1 {
		t.Fatalf("again: from %d to %d, %v", from, to, err)
	}
	_, _, err = migrateFile(t.Context(), o, all)
	wants(t, err, ErrNewerSchema)
}

func TestMigrationsAreNumbered(t *testing.T) {
	for name, files := range map[string]fstest.MapFS{
		"gap":       {"m/0001_a.sql": {}, "m/0003_b.sql": {}},
		"no number": {"m/first.sql": {}},
		"twice":     {"m/0001_a.sql": {}, "m/0001_b.sql": {}},
	} {
		if _, err := migrations(files, "m"); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
