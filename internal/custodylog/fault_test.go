package custodylog

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"joinery"
	"joinery/internal/store"
)

var errFault = errors.New("fault")

// faulty is the store and the keyring, of which one call fails: before it did
// anything, or after.
type faulty struct {
	*store.DB
	calls, fail int
	persisted   bool
}

// step runs a call, or lets it fail.
func (f *faulty) step(do func() error) error {
	f.calls++
	if f.calls != f.fail {
		return do()
	}
	if f.persisted {
		if err := do(); err != nil {
			return err
		}
	}
	return errFault
}

func (f *faulty) LogState(ctx context.Context) (s joinery.LogState, err error) {
	return s, f.step(func() error { s, err = f.DB.LogState(ctx); return err })
}

func (f *faulty) LogPending(ctx context.Context, s joinery.LogState, limit int) (b joinery.LogBatch, err error) {
	return b, f.step(func() error { b, err = f.DB.LogPending(ctx, s, limit); return err })
}

func (f *faulty) AppendLog(ctx context.Context, old joinery.LogState, b joinery.LogBatch, growth joinery.LogGrowth) error {
	return f.step(func() error { return f.DB.AppendLog(ctx, old, b, growth) })
}

func (f *faulty) LogBundles(ctx context.Context, from, to int64, limit int) (list []joinery.LogBundle, err error) {
	return list, f.step(func() error { list, err = f.DB.LogBundles(ctx, from, to, limit); return err })
}

func (f *faulty) LogTile(ctx context.Context, level int, index int64) (hashes []byte, err error) {
	return hashes, f.step(func() error { hashes, err = f.DB.LogTile(ctx, level, index); return err })
}

func (f *faulty) LogCheckpoint(ctx context.Context) (p joinery.LogCheckpoint, err error) {
	return p, f.step(func() error { p, err = f.DB.LogCheckpoint(ctx); return err })
}

func (f *faulty) SaveCheckpoint(ctx context.Context, p joinery.LogCheckpoint) error {
	return f.step(func() error { return f.DB.SaveCheckpoint(ctx, p) })
}

// faultyKeys is the keyring behind the same count.
type faultyKeys struct{ f *faulty }

func (k faultyKeys) LogKey(ctx context.Context, generation uint32) (public []byte, err error) {
	return public, k.f.step(func() error { public, err = keys.LogKey(ctx, generation); return err })
}

func (k faultyKeys) SignCheckpoint(ctx context.Context, generation uint32, text []byte) (signature []byte, err error) {
	return signature, k.f.step(func() error { signature, err = keys.SignCheckpoint(ctx, generation, text); return err })
}

// Each call that grows the tree, or signs it, fails once, before it did anything
// or after: the next server goes on, no row is in the tree twice or missing, and
// no checkpoint that was signed is taken back (P4). fsck checks all of it when the
// database is closed.
func TestEveryStepFails(t *testing.T) {
	w := newWorld(t, Options{})
	d := w.devices[0]
	for range 270 { // across a bundle
		w.join(d)
	}
	_, err := w.db.Sequence(w.ctx, false)
	w.ok(err)
	most := 0
	for fail := 1; fail <= max(most, 1)+1; fail++ {
		for _, persisted := range []bool{false, true} {
			w.join(d)
			w.suspend(d)
			_, err := w.db.Sequence(w.ctx, false)
			w.ok(err)
			before, _ := w.db.LogCheckpoint(w.ctx)
			f := &faulty{DB: w.db, fail: fail, persisted: persisted}
			s, err := New(f, faultyKeys{f}, Options{Origin: "log.example"})
			w.ok(err)
			err = errors.Join(s.CatchUp(w.ctx), s.Publish(w.ctx))
			if (f.calls >= fail) != errors.Is(err, errFault) {
				t.Fatalf("call %d of %d: %v", fail, f.calls, err)
			}
			most = max(most, f.calls)
			after, _ := w.db.LogCheckpoint(w.ctx)
			if after.Size < before.Size {
				t.Fatalf("after call %d the checkpoint went back from %d to %d", fail, before.Size, after.Size)
			}
			trust := w.trust()
			trust.Old = before.Note
			w.publish()
			w.good(w.bundle(operator, d, before.Size), trust)
			w.onlyOnce(fmt.Sprint("call ", fail, persisted))
		}
	}
	if most < 8 {
		t.Errorf("only %d calls were seen", most)
	}
}

// onlyOnce fails where a row is in the tree twice, or not at all.
func (w *world) onlyOnce(when string) {
	w.Helper()
	list, err := w.db.LogBundles(w.ctx, 0, 1<<40, 1000)
	w.ok(err)
	seen := map[joinery.LogRef]bool{}
	for _, b := range list {
		for _, ref := range b.Refs {
			if seen[ref] {
				w.Fatalf("%s: row %d is in the tree twice", when, ref)
			}
			seen[ref] = true
		}
	}
	entries, err := w.db.CustodyEntries(w.ctx, joinery.CustodyQuery{Device: w.devices[0], Limit: 1000})
	w.ok(err)
	for _, e := range entries {
		if !seen[e.Ref] || e.Leaf < 0 {
			w.Fatalf("%s: row %d is not in the tree", when, e.Ref)
		}
	}
}

// Two servers that both think they lead make one tree.
func TestTwoAtOnce(t *testing.T) {
	w := newWorld(t, Options{})
	for range 40 {
		w.join(w.devices[0])
	}
	_, err := w.db.Sequence(w.ctx, false)
	w.ok(err)
	done := make(chan error, 2)
	for range 2 {
		go func() { done <- w.CatchUp(w.ctx) }()
	}
	for range 2 {
		if err := <-done; err != nil && joinery.CodeOf(err) != joinery.CodeConflict {
			t.Error(err)
		}
	}
	w.publish()
	w.onlyOnce("two at once")
}
