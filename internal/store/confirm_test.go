package store

import (
	"os"
	"path/filepath"
	"testing"

	"joinery"
	"joinery/lorawan"
)

// restored makes a database of a copy, fenced, where o says, and opens it.
func restored(t *testing.T, from *DB, o Options) *DB {
	t.Helper()
	draft, err := copyInto(t.Context(), from, o)
	if err == nil {
		err = firstError(draft.Fence("restored from a test", "tester"), draft.Publish())
	}
	if err != nil {
		t.Fatal(err)
	}
	return mustOpen(t, o)
}

// One state is restored again and again, and confirmed each time: the second one
// gives out no JoinNonce that the first one gave out.
func TestTheSameStateRestoredTwice(t *testing.T) {
	keys := t.TempDir()
	path := richDatabase(t)
	backup := mustOpen(t, Options{Path: path, UnsafeNoSync: true, Witnesses: []string{keys}})
	ctx := t.Context()
	was := reload(t, backup, 1).KeySet.Nonces.JoinNonce
	var last lorawan.JoinNonce
	confirmed := func(dirs []string, o Confirmation) *DB {
		t.Helper()
		to := Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true, Witnesses: dirs}
		d := restored(t, backup, to)
		done, err := d.ConfirmFence(ctx, o)
		if err != nil || !done.Witnessed {
			t.Fatalf("%+v, %v", done, err)
		}
		now := reload(t, d, 1).KeySet.Nonces.JoinNonce
		if now < last+DefaultJump {
			t.Errorf("JoinNonces go on at %d, and another state went on at %d", now, last)
		}
		last = now
		joinSome(t, d, 2)
		return d
	}
	for range 3 {
		confirmed([]string{keys}, Confirmation{})
	}
	if last != was+3*DefaultJump {
		t.Errorf("JoinNonce %d behind three confirmations of %d", last, was)
	}

	// A new machine knows nothing of that, and must be told.
	d := restored(t, backup, Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true})
	if _, err := d.ConfirmFence(ctx, Confirmation{}); joinery.CodeOf(err) != joinery.CodeInvalid || !d.Fence().Up() {
		t.Fatalf("confirmed without knowing what was before: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = confirmed(nil, Confirmation{Earlier: new(3)})
	if found, err := d.Fsck(ctx, nil); err != nil || len(found) > 0 {
		t.Fatal(found, err)
	}

	// What the witness says and cannot be read is not taken for nothing.
	if err := os.WriteFile(filepath.Join(keys, witnessName(backup.operator)), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	d = restored(t, backup, Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true, Witnesses: []string{keys}})
	if _, err := d.ConfirmFence(ctx, Confirmation{Earlier: new(4)}); err == nil {
		t.Error("confirmed beside a damaged witness")
	}
}

// Of two confirmations at once, each key set rises once, and what one of them
// still does when the other has ended is nothing.
func TestTwoConfirmationsAtOnce(t *testing.T) {
	d := mustOpen(t, Options{Path: richDatabase(t), UnsafeNoSync: true})
	ctx := t.Context()
	if err := d.RaiseFence(ctx, "a test", "tester"); err != nil {
		t.Fatal(err)
	}
	before := joinNonces(t, d)
	slow, err := d.beginJump(ctx, Confirmation{}) // the slow one
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.ConfirmFence(ctx, Confirmation{}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.jumpBatch(ctx, slow.jump); joinery.CodeOf(err) != joinery.CodeConflict {
		t.Errorf("raised behind the end: %v", err)
	}
	if err := d.endJump(ctx, Confirmed{Jump: slow.jump}, "tester"); joinery.CodeOf(err) != joinery.CodeConflict {
		t.Errorf("ended twice: %v", err)
	}
	for id, now := range joinNonces(t, d) {
		if now != before[id]+slow.jump {
			t.Errorf("key set %d: JoinNonce %d after %d", id, now, before[id])
		}
	}
}
