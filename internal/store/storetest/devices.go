package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

func runDevices(t *testing.T, open func(testing.TB) Backend) {
	t.Run("listing", listing(open))
	t.Run("found by DevEUI", func(t *testing.T) {
		w := newWorld(t, open)
		other := sealed(1)
		other.Device.JoinEUI[7] = 2
		w.importAs(w.org, derived(1), derived(2), other)
		found, err := w.FindDevices(w.ctx, devEUI(1))
		w.ok(err)
		w.equal(len(found), 2)
		for _, s := range found {
			w.equal(s.Device.DevEUI, devEUI(1))
		}
	})
	// Whatever must make a join in flight think again makes it lose its swap.
	for name, change := range map[string]func(*world, joinery.ActivationState) error{
		"suspend": func(w *world, s joinery.ActivationState) error {
			return w.SetSuspended(w.ctx, s.Device.ID, w.org, true, w.audit(joinery.AuditDeviceSuspended))
		},
		"bind": func(w *world, s joinery.ActivationState) error {
			return w.SetBinding(w.ctx, s.Device.ID, w.org, 1, binding(), w.audit(joinery.AuditDeviceBound))
		},
		"unbind": func(w *world, s joinery.ActivationState) error {
			return w.SetBinding(w.ctx, s.Device.ID, w.org, 1, nil, w.audit(joinery.AuditDeviceBound))
		},
		"claim": func(w *world, s joinery.ActivationState) error {
			return w.Claim(w.ctx, s.Device.ID, 0, w.addOrg("owner"), nil, w.audit(joinery.AuditDeviceClaimed))
		},
		"reset": func(w *world, s joinery.ActivationState) error {
			return w.OpenReset(w.ctx, s.Device.ID, w.org, epoch, 0, w.audit(joinery.AuditNoncesReset))
		},
		"delete": func(w *world, s joinery.ActivationState) error {
			return w.DeleteDevice(w.ctx, s.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted))
		},
	} {
		t.Run(name+" makes a join think again", func(t *testing.T) {
			w := newWorld(t, open)
			d := derived(1)
			d.Binding = binding()
			s := w.add(d)
			c := NextCommit(s)
			w.ok(change(w, s))
			if err := w.CommitActivation(w.ctx, c); !errors.Is(err, joinery.ErrSwapLost) {
				t.Fatalf("got %v, want ErrSwapLost", err)
			}
			w.CheckInvariants(t)
		})
	}
	t.Run("suspended and resumed", func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		for _, suspended := range []bool{true, true, false} {
			w.ok(w.SetSuspended(w.ctx, s.Device.ID, w.org, suspended, w.audit(joinery.AuditDeviceSuspended)))
			w.equal(w.again(s).Device.Suspended, suspended)
		}
	})
	t.Run("reset", resets(open))
}

func listing(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		rival := w.addOrg("rival")
		w.assign(rival, 0x10, 0x1F)
		for n := range 25 {
			d := derived(n)
			if n%5 == 0 {
				d.Device.JoinEUI[7] = 2
			}
			s := w.add(d)
			if n%4 == 0 {
				w.ok(w.SetSuspended(w.ctx, s.Device.ID, w.org, true, w.audit(joinery.AuditDeviceSuspended)))
			}
		}
		theirs := derived(100)
		theirs.Device.JoinEUI[7] = 0x10
		w.importAs(rival, theirs)

		count := func(q joinery.DeviceQuery) int {
			states, err := w.Devices(w.ctx, q)
			w.ok(err)
			w.equal(slices.IsSortedFunc(states, func(a, b joinery.ActivationState) int { return int(a.Device.ID - b.Device.ID) }), true)
			return len(states)
		}
		two := joinEUI
		two[7] = 2
		for _, c := range []struct {
			q    joinery.DeviceQuery
			want int
		}{
			{joinery.DeviceQuery{}, 26},
			{joinery.DeviceQuery{Org: w.org}, 25},
			{joinery.DeviceQuery{Org: rival}, 1},
			{joinery.DeviceQuery{Limit: 7}, 7},
			{joinery.DeviceQuery{JoinEUI: two}, 5},
			{joinery.DeviceQuery{OnlySuspended: true}, 7},
			{joinery.DeviceQuery{DevEUIPrefix: devEUI(3).String()}, 1},
			{joinery.DeviceQuery{DevEUIPrefix: devEUI(3).String()[:15]}, 16},
			{joinery.DeviceQuery{DevEUIPrefix: "0004a30b"}, 26},
			{joinery.DeviceQuery{DevEUIPrefix: "FF"}, 0},
			{joinery.DeviceQuery{Org: w.org, JoinEUI: two, OnlySuspended: true}, 2},
		} {
			if got := count(c.q); got != c.want {
				t.Errorf("%+v: %d devices, want %d", c.q, got, c.want)
			}
		}
		pages, seen := 0, 0
		for q := (joinery.DeviceQuery{Org: w.org, Limit: 10}); ; pages++ {
			page, err := w.Devices(w.ctx, q)
			w.ok(err)
			if len(page) == 0 {
				break
			}
			seen += len(page)
			q.After = page[len(page)-1].Device.ID
		}
		w.equal([]int{pages, seen}, []int{3, 25})
		for _, prefix := range []string{"xyz", "0004A30B000000000"} {
			_, err := w.Devices(w.ctx, joinery.DeviceQuery{DevEUIPrefix: prefix})
			w.refused(err, joinery.CodeInvalid)
		}
	}
}

func resets(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		for range 6 {
			w.join(s)
		}
		at := epoch.Add(time.Hour)
		w.ok(w.OpenReset(w.ctx, s.Device.ID, w.org, at, 3, w.audit(joinery.AuditNoncesReset)))
		got := w.again(s).KeySet.Nonces
		w.equal(got.ResetAt, at)
		w.equal(got.JoinNonce, lorawan.JoinNonce(6)) // never lowered
		w.ok(w.OpenReset(w.ctx, s.Device.ID, w.org, at, 1000, w.audit(joinery.AuditNoncesReset)))
		w.equal(w.again(s).KeySet.Nonces.JoinNonce, lorawan.JoinNonce(1000))
		w.refused(w.OpenReset(w.ctx, s.Device.ID, w.org, at, lorawan.MaxJoinNonce+1, w.audit(joinery.AuditNoncesReset)), joinery.CodeInvalid)

		// A join that uses the reset: DevNonces begin anew, which is no violation.
		now := w.again(s)
		e := now.KeySet.Nonces.For(joinEUI)
		e.Next = 0
		now.KeySet.Nonces = now.KeySet.Nonces.With(e)
		now.KeySet.Nonces.ResetAt = time.Time{}
		c := NextCommit(now)
		w.equal(c.Activation.Count, uint16(0))
		w.ok(w.CommitActivation(w.ctx, c))
		w.CheckInvariants(t)
	}
}
