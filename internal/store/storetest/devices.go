package storetest

import (
	"errors"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

func runDevices(t *testing.T, open func(testing.TB) Backend) {
	runListing(t, open)
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
