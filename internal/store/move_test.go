package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"joinery"
	"joinery/internal/store"
	"joinery/internal/store/storetest"
	"joinery/internal/store/storetest/pgtest"
)

// moveMark in the path that TestMain's child gets stands between where a state
// is moved from and where to.
const moveMark = "|to|"

// childMove moves a state and says after each batch how many rows are done,
// until it is killed.
func childMove(path string) error {
	from, to, _ := strings.Cut(path, moveMark)
	_, err := store.MoveState(context.Background(), store.Move{
		From: place(from), To: place(to), FromName: from, ToName: to, Actor: "tester",
		Progress: func(done, _ int64) { fmt.Println("moved", done) },
	})
	return err
}

func place(name string) store.Options {
	if strings.HasPrefix(name, "postgres") {
		return store.Options{URL: name, UnsafeNoSync: true}
	}
	return store.Options{Path: name, UnsafeNoSync: true}
}

// state reads all that a database holds, but for its store row.
func state(t *testing.T, o store.Options) map[string][][]any {
	t.Helper()
	db, err := store.OpenLive(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	all := map[string][][]any{}
	err = db.Copy(t.Context(), func(s *store.Copy) error {
		for _, table := range s.Tables() {
			if table == "store" {
				continue
			}
			if err := s.Rows(table, func(row []any) error { all[table] = append(all[table], row); return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A state is moved, cut off after every batch and by kill -9, and is the same
// behind it; the old database is served no more, and the new one goes on with
// its JoinNonces where the old one stood.
func TestMoveState(t *testing.T) {
	if testing.Short() {
		t.Skip("long under the race detector; it runs without, too")
	}
	file := func(t *testing.T) string { t.Helper(); return filepath.Join(t.TempDir(), "joinery.db") }
	server := func(t *testing.T) string { t.Helper(); return pgtest.Shared(t).Database(t) }
	ways := map[string]struct{ from, to func(*testing.T) string }{
		"SQLite to PostgreSQL": {file, server},
	}
	if os.Getenv("JOINERY_LONG") != "" {
		ways["SQLite to SQLite"] = struct{ from, to func(*testing.T) string }{file, file}
		ways["PostgreSQL to SQLite"] = struct{ from, to func(*testing.T) string }{server, file}
	}
	for name, c := range ways {
		t.Run(name, func(t *testing.T) { moveState(t, c.from(t), c.to(t)) })
	}
}

func moveState(t *testing.T, from, to string) {
	ctx := t.Context()
	const devices = 2100 // more than a batch
	db := fill(t, place(from), devices, true)
	for n := range 50 {
		s, err := db.LoadActivation(ctx, benchJoinEUI, benchDevEUI(n%10))
		if err != nil {
			t.Fatal(err)
		}
		if err := db.CommitActivation(ctx, storetest.NextCommit(s)); err != nil {
			t.Fatal(err)
		}
	}
	heard := make(chan struct{}, 100)
	db.Follow(func() { heard <- struct{}{} }, func(time.Time) {}, func(err error) { t.Error(err) })
	if strings.HasPrefix(from, "postgres") {
		<-heard // from now on it is known to run
	}
	move := store.Move{From: place(from), To: place(to), FromName: from, ToName: to, Actor: "tester"}
	if _, err := store.MoveState(ctx, move); !errors.Is(err, store.ErrLocked) {
		t.Fatalf("moved under a running server: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	move.From.Patience = time.Minute // PostgreSQL ends what was closed a moment later

	for n := 1; n <= 3; n++ { // killed behind the first batch, and behind each that follows
		runAndKill(t, from+moveMark+to, 1)
	}
	cut, cancel := context.WithCancel(ctx)
	move.Progress = func(int64, int64) { cancel() }
	if _, err := store.MoveState(cut, move); err == nil {
		t.Fatal("a move whose context ended was finished")
	}
	move.Progress = nil
	for _, o := range []store.Options{place(from), place(to)} {
		if _, err := store.Open(ctx, o); err == nil {
			t.Fatal("a server opens a database of which half was moved")
		}
	}
	elsewhere := move
	elsewhere.ToName = "elsewhere"
	if _, err := store.MoveState(ctx, elsewhere); !errors.Is(err, store.ErrMoved) {
		t.Fatalf("half moved, and then to elsewhere: %v", err)
	}
	was := state(t, place(from))
	rows, err := store.MoveState(ctx, move)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(was, state(t, place(to))); diff != "" {
		t.Error(diff)
	}
	n := 1 // the store's row
	for _, list := range was {
		n += len(list)
	}
	if rows != int64(n) {
		t.Errorf("%d rows were moved, there are %d", rows, n)
	}
	if _, err := store.Open(ctx, place(from)); !errors.Is(err, store.ErrMoved) || !strings.Contains(err.Error(), to) {
		t.Errorf("the old database is opened: %v", err)
	}
	if _, err := store.MoveState(ctx, move); !errors.Is(err, store.ErrMoved) {
		t.Errorf("moved twice: %v", err)
	}
	moved, err := store.Open(ctx, place(to))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = moved.Close() }()
	if f := moved.Fence(); f.Up() {
		t.Errorf("fence %+v", f)
	}
	s, err := moved.LoadActivation(ctx, benchJoinEUI, benchDevEUI(0))
	if err != nil || s.KeySet.Nonces.JoinNonce != 5 {
		t.Fatalf("JoinNonce %d, want 5; %v", s.KeySet.Nonces.JoinNonce, err)
	}
	if err := moved.CommitActivation(ctx, storetest.NextCommit(s)); err != nil {
		t.Fatal(err)
	}
	if err := moved.Record(ctx, joinery.AuditEntry{At: time.Now(), Event: joinery.AuditOrgAdded, Actor: "tester"}); err != nil {
		t.Fatal(err)
	}
	if found, err := moved.Fsck(ctx, nil); err != nil || len(found) > 0 {
		t.Error(found, err)
	}
	undone(t, place(from))
}

// undone takes the old database up again: it is fenced.
func undone(t *testing.T, o store.Options) {
	t.Helper()
	if f, err := store.UndoMove(t.Context(), o, "tester"); err != nil || f.State != store.FenceForked {
		t.Fatalf("%+v, %v", f, err)
	}
	db, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.AnswersJoins(); !errors.Is(err, store.ErrFenced) {
		t.Fatalf("the old database answers joins: %v", err)
	}
	if _, err := db.ConfirmFence(t.Context(), store.Confirmation{Jump: 100, Earlier: new(0)}); err != nil {
		t.Fatal(err)
	}
	s, err := db.LoadActivation(t.Context(), benchJoinEUI, benchDevEUI(0))
	if err != nil || s.KeySet.Nonces.JoinNonce != 105 {
		t.Fatalf("JoinNonce %d, want 105; %v", s.KeySet.Nonces.JoinNonce, err)
	}
}

// A move that was not finished is given up without a loss.
func TestMoveIsGivenUp(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "a.db"), filepath.Join(dir, "b.db")
	if err := fill(t, place(from), 3, true).Close(); err != nil {
		t.Fatal(err)
	}
	stop, cancel := context.WithCancel(t.Context())
	_, err := store.MoveState(stop, store.Move{From: place(from), To: place(to), FromName: from, ToName: to, Progress: func(int64, int64) { cancel() }})
	if err == nil {
		t.Fatal("a move whose context ended was finished")
	}
	if f, err := store.UndoMove(t.Context(), place(from), "tester"); err != nil || f.Up() {
		t.Fatalf("%+v, %v", f, err)
	}
	if _, err := store.UndoMove(t.Context(), place(from), "tester"); joinery.CodeOf(err) != joinery.CodeConflict {
		t.Errorf("undone twice: %v", err)
	}
	db, err := store.Open(t.Context(), place(from))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.AnswersJoins(); err != nil {
		t.Error(err)
	}
}
