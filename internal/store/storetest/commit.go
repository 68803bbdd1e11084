package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"joinery"
	"joinery/lorawan"
)

func runCommits(t *testing.T, open func(testing.TB) Backend) {
	t.Run("moves both or neither", func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		c := NextCommit(s)
		w.ok(w.CommitActivation(w.ctx, c))
		got := w.again(s)
		w.equal(got.KeySet.Nonces, c.Nonces)
		w.equal(got.KeySet.Version, s.KeySet.Version+1)
		w.equal(got.Device.LastJoinAt, c.Activation.At)
		a, err := w.Activation(w.ctx, c.Activation.ID)
		w.ok(err)
		w.equal(a, c.Activation)

		stale := NextCommit(s) // made from what was read before
		if err := w.CommitActivation(w.ctx, stale); !errors.Is(err, joinery.ErrSwapLost) {
			t.Fatalf("stale commit: got %v, want ErrSwapLost", err)
		}
		w.equal(w.again(s).KeySet, got.KeySet)
		_, err = w.Activation(w.ctx, stale.Activation.ID)
		w.refused(err, joinery.CodeNotFound)
		w.CheckInvariants(t)
	})
	t.Run("bitmap of DevNonces", func(t *testing.T) {
		w := newWorld(t, open)
		d := sealed(1)
		e := joinery.JoinEUINonces{JoinEUI: joinEUI}
		for v := range 4200 {
			e.Used = e.Used.With(lorawan.DevNonce(3 * v))
		}
		d.KeySet.Nonces = joinery.Nonces{JoinNonce: 77}.With(e)
		s := w.add(d)
		w.equal(s.KeySet.Nonces, d.KeySet.Nonces)
		e.Used = e.Used.With(1)
		c := NextCommit(s)
		c.Activation.Count, c.Nonces = 1, c.Nonces.With(e)
		w.ok(w.CommitActivation(w.ctx, c))
		w.equal(w.again(s).KeySet.Nonces, c.Nonces)
		w.CheckInvariants(t)
	})
	t.Run("two of one key set at once", twoAtOnce(open))
	t.Run("a loser harms no winner", losers(open))
	t.Run("64 writers", manyWriters(open))
	t.Run("newest first", func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(sealed(1))
		var want []joinery.Activation
		for range 7 {
			want = append([]joinery.Activation{w.join(s)}, want...)
		}
		for _, limit := range []int{1, 4, 6, 7, 100} {
			got, err := w.Activations(w.ctx, s.Device.ID, limit)
			w.ok(err)
			w.equal(got, want[:min(limit, 7)])
		}
	})
	t.Run("an ended context commits nothing", func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		ctx, cancel := context.WithCancel(w.ctx)
		cancel()
		if err := w.CommitActivation(ctx, NextCommit(s)); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		w.equal(w.again(s).KeySet.Version, s.KeySet.Version)
		w.join(s)
	})
	t.Run("a commit that does not fit together", func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		c := NextCommit(s)
		c.Nonces.Recent = nil
		if w.CommitActivation(w.ctx, c) == nil {
			t.Fatal("committed an activation that its nonces do not name")
		}
		w.join(s)
		w.CheckInvariants(t)
	})
	t.Run("an identifier twice", func(t *testing.T) {
		w := newWorld(t, open)
		a, b := w.add(derived(1)), w.add(derived(2))
		taken := w.join(a)
		c := NextCommit(b)
		c.Activation.ID, c.Nonces.Recent[0].ID = taken.ID, taken.ID
		if err := w.CommitActivation(w.ctx, c); err == nil || errors.Is(err, joinery.ErrSwapLost) {
			t.Fatalf("got %v, want an error", err)
		}
		w.equal(w.again(b).KeySet, b.KeySet)
		w.join(b)
		w.CheckInvariants(t)
	})
	t.Run("reopen", func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		a := w.join(s)
		before := w.again(s)
		w.Backend = w.Reopen(t)
		w.equal(w.again(s), before)
		got, err := w.Activation(w.ctx, a.ID)
		w.ok(err)
		w.equal(got, a)
		w.join(s)
		w.CheckInvariants(t)
	})
}

// twoAtOnce: of many commits from one reading exactly one wins.
func twoAtOnce(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		for range 20 {
			s = w.again(s)
			errs := parallel(8, func(int) error { return w.CommitActivation(w.ctx, NextCommit(s)) })
			won := 0
			for _, err := range errs {
				if err == nil {
					won++
				} else if !errors.Is(err, joinery.ErrSwapLost) {
					t.Fatal(err)
				}
			}
			w.equal(won, 1)
			w.equal(w.again(s).KeySet.Nonces.JoinNonce, s.KeySet.Nonces.JoinNonce+1)
		}
		w.CheckInvariants(t)
	}
}

// losers: in batches where some read stale state, the others go through.
func losers(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		var states []joinery.ActivationState
		for n := range 16 {
			states = append(states, w.add(derived(n)))
		}
		commits := make([]joinery.ActivationCommit, len(states))
		for n, s := range states {
			commits[n] = NextCommit(s)
			if n%3 == 0 {
				w.join(s) // moves on: the commit is stale now
			}
		}
		errs := parallel(len(commits), func(n int) error { return w.CommitActivation(w.ctx, commits[n]) })
		for n, err := range errs {
			if lost := errors.Is(err, joinery.ErrSwapLost); lost != (n%3 == 0) || !lost && err != nil {
				t.Errorf("commit %d: %v", n, err)
			}
			w.equal(w.again(states[n]).KeySet.Nonces.JoinNonce, lorawan.JoinNonce(1))
		}
		w.CheckInvariants(t)
	}
}

// manyWriters: 64 writers join 24 devices; no JoinNonce is issued twice and
// nothing that was acknowledged is missing.
func manyWriters(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		const devices, writers, each = 24, 64, 25
		states := make([]joinery.ActivationState, devices)
		for n := range states {
			states[n] = w.add(derived(n))
		}
		var mu sync.Mutex
		acknowledged := map[joinery.KeySetID][]lorawan.JoinNonce{}
		for _, err := range parallel(writers, func(writer int) error {
			for n := range each {
				a, err := joinUntilWon(w, states[(writer*7+n)%devices])
				if err != nil {
					return err
				}
				mu.Lock()
				acknowledged[a.KeySet] = append(acknowledged[a.KeySet], a.JoinNonce)
				mu.Unlock()
			}
			return nil
		}) {
			w.ok(err)
		}
		total := 0
		for _, s := range states {
			nonces := acknowledged[s.KeySet.ID]
			slices.Sort(nonces)
			for i, n := range nonces {
				w.equal(n, lorawan.JoinNonce(i+1))
			}
			w.equal(int(w.again(s).KeySet.Nonces.JoinNonce), len(nonces))
			total += len(nonces)
		}
		w.equal(total, writers*each)
		w.CheckInvariants(t)
	}
}

func joinUntilWon(w *world, s joinery.ActivationState) (joinery.Activation, error) {
	for range 10_000 {
		now, err := w.LoadActivation(w.ctx, s.Device.JoinEUI, s.Device.DevEUI)
		if err != nil {
			return joinery.Activation{}, err
		}
		c := NextCommit(now)
		if err = w.CommitActivation(w.ctx, c); !errors.Is(err, joinery.ErrSwapLost) {
			return c.Activation, err
		}
	}
	return joinery.Activation{}, fmt.Errorf("device %s never won its swap", s.Device.ID)
}

// parallel runs fn n times at once and gives the errors by number.
func parallel(n int, fn func(int) error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = fn(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}
