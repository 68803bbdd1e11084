package store

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store/storetest/pgtest"
)

// movedAndTakenUp moves the state of a database to o, as far as steps go, and then with
// the same call to its end.
func movedAndTakenUp(t *testing.T, o Options, steps func(*moving) error) {
	t.Helper()
	from := Options{Path: richDatabase(t), UnsafeNoSync: true}
	m := Move{From: from, To: o, FromName: "here", ToName: "there", Actor: "tester"}
	d, err := open(t.Context(), from, toMove)
	if err == nil {
		err = d.startMove(t.Context(), m, steps)
		err = firstError(err, d.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	rows, err := MoveState(t.Context(), m)
	if err != nil || rows == 0 {
		t.Fatalf("taken up again: %d rows, %v", rows, err)
	}
	to := mustOpen(t, o)
	if f := to.Fence(); f.Up() {
		t.Errorf("fence %+v", f)
	}
	if err := to.Record(t.Context(), joinery.AuditEntry{At: time.Now(), Event: joinery.AuditOrgAdded, Actor: "tester"}); err != nil {
		t.Errorf("nothing can be audited any more: %v", err)
	}
	joinSome(t, to, 1)
	clean(t, to)
}

// A move is cut off in its last steps, and finished.
func TestMoveCutOffAtItsEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("long under the race detector; it runs without, too")
	}
	cut := func(arrives bool) func(*moving) error {
		return func(m *moving) error {
			err := inOrder(m.takeUp, func() error { return m.copyAll(t.Context()) }, func() error { return m.leave(t.Context()) })
			if err == nil && arrives {
				err = m.arrive()
			}
			return err
		}
	}
	file := func() Options {
		return Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
	}
	t.Run("left, to PostgreSQL", func(t *testing.T) {
		movedAndTakenUp(t, Options{URL: pgtest.Shared(t).Database(t), UnsafeNoSync: true}, cut(false))
	})
	t.Run("left, to SQLite", func(t *testing.T) { movedAndTakenUp(t, file(), cut(false)) })
	t.Run("arrived, to SQLite", func(t *testing.T) { movedAndTakenUp(t, file(), cut(true)) })
}

// A source is not put out of service for a target that cannot be.
func TestMoveToWhereNothingCanBe(t *testing.T) {
	path := richDatabase(t)
	o := Options{Path: path, UnsafeNoSync: true}
	taken := newOptions(t)
	for name, to := range map[string]Options{
		path:           o,
		taken.Path:     taken,
		"no directory": {Path: filepath.Join(t.TempDir(), "none", "joinery.db"), UnsafeNoSync: true},
		"no server":    {URL: "postgres://joinery@127.0.0.1:1/joinery?sslmode=disable", UnsafeNoSync: true},
	} {
		if _, err := MoveState(t.Context(), Move{From: o, To: to, FromName: path, ToName: name}); err == nil {
			t.Fatalf("%s: moved", name)
		}
		d := mustOpen(t, o)
		if err := firstError(d.AnswersJoins(), d.Close()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(taken.Path); err != nil {
		t.Error(err)
	}
}

// A source of which only a copy is left can be taken back: fenced, whether its
// state went elsewhere or was on its way.
func TestUndoneFromACopy(t *testing.T) {
	for _, state := range []FenceState{FenceMoving, FenceMoved} {
		path := richDatabase(t)
		o := Options{Path: path, UnsafeNoSync: true}
		d := mustOpen(t, o)
		err := d.do(t.Context(), func(t *tx) error {
			return t.raiseFence(Fence{State: state, Since: now(), Note: "there"}, "tester")
		})
		if err = firstError(err, d.Close()); err != nil {
			t.Fatal(err)
		}
		copied := Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
		copyFiles(t, path, copied.Path)
		if _, err := UndoMove(t.Context(), copied, "tester"); err != nil {
			t.Fatalf("%s: %v", state, err)
		}
		d = mustOpen(t, copied)
		if f := d.Fence(); f.State != FenceForked {
			t.Errorf("%s: fence %+v", state, f)
		}
		if _, err := d.ConfirmFence(t.Context(), Confirmation{Earlier: new(0)}); err != nil {
			t.Fatal(err)
		}
		joinSome(t, d, 1)
	}
}
