package store

import (
	"context"
	"crypto/sha256"
	"testing"

	"joinery"
)

// A join that another server named, for one that still lived, is named by its own
// later: it is in the log once. So is one that a scan took before it was named,
// and all of them where the feed is begun anew.
func TestNamedTwiceIsOneLeaf(t *testing.T) {
	d := mustOpen(t, newOptions(t))
	joins := leafRows(t, d, 300)
	ctx := t.Context()
	if err := d.BeginFeed(ctx); err != nil {
		t.Fatal(err)
	}
	if err := d.BeginLog(ctx, "log.example", sha256.Sum256(nil)); err != nil {
		t.Fatal(err)
	}
	name := func(recovered bool, joins ...sequenced) {
		t.Helper()
		if err := d.do(ctx, func(t *tx) error { return t.nameJoins(joins, recovered) }); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[joinery.LogRef]int{}
	take := func(want int) {
		t.Helper()
		n := 0
		for more := true; more; {
			old, err := d.LogState(ctx)
			if err != nil {
				t.Fatal(err)
			}
			b, err := d.LogPending(ctx, old, 64)
			if err != nil {
				t.Fatal(err)
			}
			bundles := fakeBundles(t, d, old.Size, b.Leaves)
			b.Next.Size = old.Size + int64(len(b.Leaves))
			if err := d.AppendLog(ctx, old, b, joinery.LogGrowth{Bundles: bundles}); err != nil {
				t.Fatal(err)
			}
			for _, l := range b.Leaves {
				if id, ok := l.Ref.Activation(); ok {
					n++
					if seen[joinery.ActivationRef(id)]++; seen[joinery.ActivationRef(id)] > 1 {
						t.Fatalf("activation %s is in the log twice", id)
					}
				}
			}
			more = b.More
		}
		if n != want {
			t.Fatalf("%d activations came, want %d", n, want)
		}
	}
	take(300) // the scan
	name(false, joins[:50]...)
	take(0)
	// A page of both: what the scan took, and what came after it.
	mixed := append(joins[50:60:60], leafRows(t, d, 10)...)
	name(false, mixed...)
	take(10)
	late := leafRows(t, d, 20)
	name(true, late[:10]...)
	take(10)
	unsettle(t, d)
	name(false, late...)
	take(10)
	name(true, late...)
	take(0)
	// The feed is begun anew.
	if err := d.do(ctx, func(t *tx) error {
		return inOrder(func() error { return t.exec("DELETE FROM event_page") }, func() error { return t.exec("DELETE FROM event_feed") })
	}); err != nil {
		t.Fatal(err)
	}
	more := leafRows(t, d, 5)
	name(false, more...)
	take(5)
}

// unsettle lets the time pass in which a scan is remembered.
func unsettle(t *testing.T, d *DB) {
	t.Helper()
	if err := d.do(t.Context(), func(t *tx) error { return t.exec("UPDATE log_state SET settled_at = 0") }); err != nil {
		t.Fatal(err)
	}
}

// leafRows writes activations that belong to nothing.
func leafRows(t testing.TB, d *DB, n int) (joins []sequenced) {
	t.Helper()
	err := d.do(context.Background(), func(t *tx) error {
		for range n {
			id := joinery.NewActivationID()
			joins = append(joins, sequenced{id: id})
			if err := t.exec("INSERT INTO activation (id, key_set, leaf) VALUES (?, 1, zeroblob(33))", id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return joins
}

// fakeBundles puts leaves into bundles; what they hash to is no matter here.
func fakeBundles(t *testing.T, d *DB, size int64, leaves []joinery.LogLeaf) (list []joinery.LogBundle) {
	t.Helper()
	if len(leaves) == 0 {
		return nil
	}
	var b joinery.LogBundle
	if size%bundleLeaves != 0 {
		old, err := d.LogBundles(t.Context(), size/bundleLeaves, size/bundleLeaves, 1)
		if err != nil || len(old) != 1 {
			t.Fatal(err, old)
		}
		b = old[0]
	}
	b.Index = size / bundleLeaves
	for _, l := range leaves {
		b.Refs, b.Records = append(b.Refs, l.Ref), append(b.Records, l.Record[:]...)
		if len(b.Refs) == bundleLeaves {
			list = append(list, b)
			b = joinery.LogBundle{Index: b.Index + 1}
		}
	}
	if len(b.Refs) > 0 {
		list = append(list, b)
	}
	return list
}
