package store

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"joinery"
	"joinery/internal/store/storetest"
	"joinery/internal/store/storetest/pgtest"
)

// A PostgreSQL database that was copied, restored or failed over is fenced when
// a server opens it, and so are those that have it open.
func TestPostgresFence(t *testing.T) {
	o := newPostgres(t)
	d, _ := withDevices(t, o, 3)
	joinSome(t, d, 1)
	if f := d.Fence(); f.Up() {
		t.Fatalf("a database of our own: %+v", f)
	}
	sql := func(statement string) {
		t.Helper()
		if err := d.do(t.Context(), func(t *tx) error { return t.exec(statement) }); err != nil {
			t.Fatal(err)
		}
	}
	wantFence := func(d *DB, note string) {
		t.Helper()
		if f := d.Fence(); f.Up() != (note != "") || !strings.Contains(f.Note, note) {
			t.Errorf("fence %+v, want %q", f, note)
		}
	}
	confirm := func(d *DB) {
		t.Helper()
		if _, err := d.ConfirmFence(t.Context(), Confirmation{Jump: 1000}); err != nil {
			t.Fatal(err)
		}
	}
	const olderTimeline = "UPDATE store SET home = replace(home, 'timeline 0000', 'timeline FFFF')"

	// A failover, of which the other server hears within a moment.
	d.Follow(func() {}, func(time.Time) {}, func(err error) { t.Error(err) })
	sql(olderTimeline)
	second := mustOpen(t, o)
	wantFence(second, "from timeline FFFF")
	waitFor(t, func() bool { return d.Fence().Up() })
	_, err := joinOnce(t, d)
	wants(t, err, ErrFenced)
	confirm(second)
	waitFor(t, func() bool { return !d.Fence().Up() })
	joinSome(t, d, 1)

	// One that loses nothing, by the operator's word.
	sql(olderTimeline)
	trusting := o
	trusting.TrustFailover = true
	wantFence(mustOpen(t, trusting), "")

	// Another database, table or cluster is never the same.
	sql("UPDATE store SET home = 'cluster 1 database 2 schema 3 timeline 00000001'")
	third := mustOpen(t, trusting)
	wantFence(third, "a copy of the one that was open last")
	confirm(third)

	// A timeline that changes behind the connections of a running server.
	e := inPostgres(d)
	home, _ := e.home.Load().(string)
	was := strings.Replace(home, "timeline 0000", "timeline FFFF", 1)
	e.home.Store(was)
	sql("UPDATE store SET home = '" + was + "'")
	e.joins.Reset() // as when all connections break
	waitFor(t, func() bool { _, _ = d.LoadActivation(t.Context(), testJoinEUI, testDevEUI(1)); return d.Fence().Up() })
	wantFence(d, "from timeline FFFF")
	confirm(d)
	joinSome(t, d, 1)
	clean(t, d)
}

// What PostgreSQL does itself: a restart, a crash, and a recovery that begins a
// new timeline, under a server that runs.
func TestPostgresTimeline(t *testing.T) {
	pg := pgtest.Start(t, pgtest.Options{Sync: true})
	o := Options{URL: pg.Database(t), Witnesses: []string{t.TempDir()}}
	if err := Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	d, _ := withDevices(t, o, 3)
	d.Follow(func() {}, func(time.Time) {}, func(error) {})
	load := func() bool {
		_, err := d.LoadActivation(t.Context(), testJoinEUI, testDevEUI(1))
		return err == nil
	}
	pg.Crash(t)
	pg.Restart(t)
	waitFor(t, load)
	inPostgres(d).joins.Reset()
	if f := d.Fence(); f.Up() {
		t.Fatalf("a crash fences: %+v", f)
	}
	joinSome(t, d, 1)
	pg.Recover(t)
	waitFor(t, func() bool { load(); return d.Fence().Up() })
	if f := d.Fence(); f.State != FenceForked || !strings.Contains(f.Note, "from timeline 00000001 to 00000002") {
		t.Errorf("fence %+v", f)
	}
	other := mustOpen(t, o)
	if !other.Fence().Up() {
		t.Error("the next server is not fenced")
	}
	if _, err := other.ConfirmFence(t.Context(), Confirmation{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return !d.Fence().Up() })
	inPostgres(d).joins.Reset() // no connection from before the recovery is left
	inPostgres(d).others.Reset()
	joinSome(t, d, 1)
	clean(t, d)
}

func waitFor(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
	}
}

// Behind a fence that another process raised, no join is committed, even by a
// server that has not heard of it.
func TestPostgresCommitsNothingBehindAFence(t *testing.T) {
	o := newPostgres(t)
	d, _ := withDevices(t, o, 3)
	other := mustOpen(t, o)
	c := storetest.NextCommit(reload(t, d, 1))
	if err := other.RaiseFence(t.Context(), "by hand", "tester"); err != nil {
		t.Fatal(err)
	}
	wants(t, d.CommitActivation(t.Context(), c), ErrSwapLost)
	if _, err := d.Activation(t.Context(), c.Activation.ID); joinery.CodeOf(err) != joinery.CodeNotFound {
		t.Errorf("it was committed: %v", err)
	}
	if err := d.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	wants(t, d.CommitActivation(t.Context(), c), ErrFenced)
}

// A copy of a file becomes a PostgreSQL database, and back: all is the same.
func TestDraftsInBothEngines(t *testing.T) {
	from := mustOpen(t, Options{Path: richDatabase(t), UnsafeNoSync: true})
	places := []Options{
		{URL: pgtest.Shared(t).Database(t), UnsafeNoSync: true},
		{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true},
	}
	was := contents(t, from)
	delete(was, storeTable)
	for _, o := range places {
		draft, err := copyInto(t.Context(), from, o)
		if err != nil {
			t.Fatal(err)
		}
		_, err = NewDraft(t.Context(), Options{Path: o.Path, URL: o.URL}, 99)
		wants(t, err, ErrNewerSchema)
		if err := draft.Fence("restored from a test", "tester"); err != nil {
			t.Fatal(err)
		}
		if found, err := draft.Fsck(t.Context(), nil); err != nil || len(found) > 0 {
			t.Fatal(found, err)
		}
		if err := draft.Publish(); err != nil {
			t.Fatal(err)
		}
		_, err = NewDraft(t.Context(), o, 3)
		wants(t, err, ErrExists)
		to := mustOpen(t, o)
		if f := to.Fence(); f.State != FenceRestored {
			t.Errorf("fence %+v", f)
		}
		is := contents(t, to)
		is["audit"] = is["audit"][:len(was["audit"])]
		delete(is, storeTable)
		if diff := cmp.Diff(was, is); diff != "" {
			t.Error(diff)
		}
		if _, err := to.ConfirmFence(t.Context(), Confirmation{Earlier: new(0)}); err != nil { // which writes an audit row
			t.Fatal(err)
		}
		clean(t, to)
	}
}

// A draft that is given up leaves an empty schema.
func TestPostgresDraftIsDiscarded(t *testing.T) {
	o := Options{URL: pgtest.Shared(t).Database(t), UnsafeNoSync: true}
	draft, err := NewDraft(t.Context(), o, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := draft.Discard(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), o)
	wants(t, err, ErrMissing)
	if err := Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// A disk that fills up during a restore leaves nothing.
func TestDraftOnAFullDisk(t *testing.T) {
	from := mustOpen(t, Options{Path: richDatabase(t), UnsafeNoSync: true})
	o := Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
	draft, err := NewDraft(t.Context(), o, 3)
	if err != nil {
		t.Fatal(err)
	}
	f, _ := draft.draftEngine.(*fileDraft)
	if err := f.pragma("max_page_count = 110"); err != nil { // as a full disk: SQLITE_FULL
		t.Fatal(err)
	}
	err = from.Copy(t.Context(), func(s *Copy) error {
		for range 200 {
			err := s.Rows("activation", func(row []any) error {
				row[0] = int64(joinery.NewActivationID())
				return draft.Insert(t.Context(), "activation", [][]any{row})
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "full") {
		t.Fatalf("the disk never filled: %v", err)
	}
	if err := draft.Discard(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(o.Path + "*"); len(left) != 1 || left[0] != o.Path+".lock" {
		t.Errorf("left behind: %v", left)
	}
}
