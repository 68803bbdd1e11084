package storetest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"joinery"
	"joinery/lorawan"
)

// runMeanwhile: joins go on while other things are done to the same devices, or
// beside them.
func runMeanwhile(t *testing.T, open func(testing.TB) Backend) {
	t.Run("the list of devices grows", growing(open))
	t.Run("resets forget no nonce", resetting(open))
	t.Run("a suspended device joins no more", suspended(open))
}

// joining joins devices until the function that it gives is called, which gives
// how many JoinNonces each device was acknowledged.
func joining(w *world, states []joinery.ActivationState) (stop func() map[joinery.KeySetID][]lorawan.JoinNonce) {
	ctx, cancel := context.WithCancel(w.ctx)
	acknowledged := map[joinery.KeySetID][]lorawan.JoinNonce{}
	var mu sync.Mutex
	var running sync.WaitGroup
	for _, s := range states {
		running.Go(func() {
			for ctx.Err() == nil {
				a, err := joinUntilWon(w, s)
				if err != nil {
					w.t.Errorf("device %s: %v", s.Device.DevEUI, err)
					return
				}
				mu.Lock()
				acknowledged[a.KeySet] = append(acknowledged[a.KeySet], a.JoinNonce)
				mu.Unlock()
			}
		})
	}
	return func() map[joinery.KeySetID][]lorawan.JoinNonce {
		cancel()
		running.Wait()
		return acknowledged
	}
}

// growing: imports and joins share the store; each listing is whole and in
// order, and nothing that was acknowledged is missing from it.
func growing(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		const first, runs, each = 6, 12, 10
		var states []joinery.ActivationState
		for n := range first {
			states = append(states, w.add(derived(n)))
		}
		stop := joining(w, states)
		known := first
		for run := range runs {
			devices := make([]joinery.NewDevice, each)
			for n := range devices {
				devices[n] = derived(first + run*each + n)
			}
			for _, r := range w.importAs(w.org, devices...) {
				w.equal(r.Status, joinery.RowCreated)
			}
			known += each
			w.equal(len(listAll(w)), known)
		}
		for key, nonces := range stop() {
			if len(nonces) == 0 {
				t.Errorf("key set %s joined never", key)
			}
		}
		w.CheckInvariants(t)
	}
}

// listAll pages through all devices.
func listAll(w *world) (all []joinery.ActivationState) {
	w.t.Helper()
	var last lorawan.EUI64
	for q := (joinery.DeviceQuery{Org: w.org, Limit: 7}); ; {
		page, err := w.Devices(w.ctx, q)
		w.ok(err)
		for _, s := range page.Items {
			if bytes.Compare(s.Device.DevEUI[:], last[:]) < 0 {
				w.t.Fatalf("device %s comes after %s", s.Device.DevEUI, last)
			}
			last = s.Device.DevEUI
		}
		all = append(all, page.Items...)
		if q.After = page.Next; q.After.Device == 0 {
			return all
		}
	}
}

// resetting: resets read nonces and write them: no join that commits meanwhile is undone.
func resetting(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		stop := joining(w, []joinery.ActivationState{s, s, s})
		for range 60 {
			w.ok(w.OpenReset(w.ctx, s.Device.ID, w.org, epoch, 0, w.audit(joinery.AuditNoncesReset)))
		}
		seen := map[lorawan.JoinNonce]bool{}
		for _, n := range stop()[s.KeySet.ID] {
			if seen[n] {
				t.Errorf("JoinNonce %d was issued twice", n)
			}
			seen[n] = true
		}
		w.CheckInvariants(t)
	}
}

// suspended: once SetSuspended has returned no join that was loaded before
// commits.
func suspended(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		for round := range 20 {
			off := round%2 == 0
			loaded := w.again(s)
			before := NextCommit(loaded)
			racing := make(chan error, 1)
			go func() { racing <- w.CommitActivation(w.ctx, NextCommit(loaded)) }()
			w.ok(w.SetSuspended(w.ctx, s.Device.ID, w.org, off, w.audit(joinery.AuditDeviceSuspended)))
			if err := w.CommitActivation(w.ctx, before); !errors.Is(err, joinery.ErrSwapLost) {
				t.Fatalf("a join from before: got %v, want ErrSwapLost", err)
			}
			if err := <-racing; err != nil && !errors.Is(err, joinery.ErrSwapLost) {
				t.Fatal(err)
			}
			w.equal(w.again(s).Device.Suspended, off)
		}
		w.CheckInvariants(t)
	}
}
