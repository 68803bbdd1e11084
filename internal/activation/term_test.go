package activation_test

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"
	"time"

	"joinery"
	"joinery/internal/activation"
	"joinery/lorawan"
)

// terms are those of the service package, set by hand.
type terms struct {
	plan   joinery.Plan
	lapses bool // and terms begin
}

func (t *terms) Begins(joinery.OrgID, lorawan.EUI64) (joinery.Plan, bool) { return t.plan, t.lapses }
func (t *terms) Lapses() bool                                             { return t.lapses }

// withTerms is a house whose devices have terms of a month, and no grace.
func withTerms(t *testing.T) (*house, *terms) {
	t.Helper()
	h := newHouse(t)
	given := &terms{joinery.Plan{Name: "monthly", IncludedMonths: 1}, true}
	h.Service = activation.New(h.store, h.keys.Keyring, h.peers, activation.Options{Now: h.clock, Log: slog.New(slog.DiscardHandler), Terms: given})
	return h, given
}

func TestServiceBeginsAndLapses(t *testing.T) {
	h, given := withTerms(t)
	d := h.add(lorawan.MAC1_0_4, binding())
	first := h.joined(d)
	end := h.state(d).Device.Service.EndsAt
	if !end.Equal(noon.AddDate(0, 1, 0)) {
		t.Fatalf("it ends %v", end)
	}
	h.sleep(10 * 24 * time.Hour)
	h.joined(d)
	if got := h.state(d).Device.Service.EndsAt; !got.Equal(end) {
		t.Errorf("a second join moved the end to %v", got)
	}

	// A request that was accepted before the end is answered again behind it.
	h.sleep(end.Sub(h.clock()) - time.Second)
	last := h.joinRequest(d)
	answer, err := h.Join(t.Context(), last)
	ok(t, err)
	h.sleep(2 * time.Second)
	again, err := h.Join(t.Context(), last)
	ok(t, err)
	if !bytes.Equal(answer.PHYPayload, again.PHYPayload) {
		t.Error("another answer")
	}

	before := h.state(d).KeySet.Nonces.JoinNonce
	refused := h.joinRequest(d)
	_, err = h.Join(t.Context(), refused)
	wantCode(t, err, joinery.CodeLapsed)
	why, _ := errors.AsType[*joinery.Refused](err)
	if why == nil || why.Reason != joinery.RefusedLapsed || why.Device != h.state(d).Device.ID || why.Decided.ServiceEnd != end.Format(time.RFC3339) {
		t.Errorf("%+v", why)
	}
	if got := h.state(d).KeySet.Nonces.JoinNonce; got != before {
		t.Error("a refused join used a JoinNonce")
	}
	// Who has no binding learns nothing of it.
	stranger := refused
	stranger.NetID = foreign
	_, err = h.Join(t.Context(), stranger)
	wantCode(t, err, joinery.CodeUnknownDevice)

	// AppSKey of a session that was made can be fetched.
	_, err = h.AppSKey(t.Context(), h.appSKeyRequest(d, answer.SessionKeyID))
	ok(t, err)
	_, err = h.AppSKey(t.Context(), h.appSKeyRequest(d, first.SessionKeyID))
	ok(t, err)

	// With the clock in doubt nothing lapses; the same frame joins.
	given.lapses = false
	_, err = h.Join(t.Context(), refused)
	ok(t, err)
	given.lapses = true
	// Extended, it joins.
	out, err := h.store.ExtendService(t.Context(), joinery.ServiceExtension{
		Devices: []joinery.DeviceID{h.state(d).Device.ID}, Months: 1, Reference: "r", At: h.clock(), Plans: joinery.NewPlans(nil),
	})
	ok(t, errors.Join(err, out[0].Err))
	_, err = h.Join(t.Context(), h.joinRequest(d))
	ok(t, err)
}

// A running session goes on: rejoin-requests are answered behind the end.
func TestRejoinsOfALapsedService(t *testing.T) {
	h, _ := withTerms(t)
	d := h.add(lorawan.MAC1_1, binding())
	h.joined(d)
	h.sleep(100 * 24 * time.Hour)
	_, err := h.Join(t.Context(), h.joinRequest(d))
	wantCode(t, err, joinery.CodeLapsed)
	for _, typ := range []lorawan.RejoinType{lorawan.Rejoin0, lorawan.Rejoin1, lorawan.Rejoin2} {
		frame, err := d.RejoinRequest(typ)
		ok(t, err)
		answer, err := h.Rejoin(t.Context(), h.request(d, frame))
		ok(t, err)
		_, err = d.HandleAccept(answer.PHYPayload)
		ok(t, err)
	}
}

// While the clock is in doubt no term begins; the first join behind that begins it.
func TestNoServiceBeginsInDoubt(t *testing.T) {
	h, given := withTerms(t)
	given.lapses = false
	d := h.add(lorawan.MAC1_0_4, binding())
	h.joined(d)
	if got := h.state(d).Device.Service; got != (joinery.ServiceTerm{}) {
		t.Errorf("%+v", got)
	}
	given.lapses = true
	h.sleep(time.Hour)
	h.joined(d)
	if got := h.state(d).Device.Service.EndsAt; !got.Equal(h.clock().AddDate(0, 1, 0)) {
		t.Errorf("%v", got)
	}
}

// A device whose service has lapsed joins all the same while it is told to leave, and
// learns in that join where to go; not for ever by one order, nor without one.
func TestLapsedMayLeave(t *testing.T) {
	h, given := withTerms(t)
	options := activation.Options{Now: h.clock, Log: slog.New(slog.DiscardHandler), Terms: given, Rekeying: h.store}
	h.Service = activation.New(h.store, h.keys.Keyring, h.peers, options)
	d := h.addRekeying(lorawan.MAC1_0_4)
	if _, err := d.join(); err != nil {
		t.Fatal(err)
	}
	end := h.state(d.Device).Device.Service.RefuseAt
	h.sleep(end.Sub(h.clock()) + time.Hour)
	deaf := func() error { // the device hears none of it
		_, err := h.Join(t.Context(), h.joinRequest(d.Device))
		h.sleep(time.Minute)
		return err
	}
	wantCode(t, deaf(), joinery.CodeLapsed)
	long := func(n byte) joinery.RekeyOrder {
		t.Helper()
		o := h.order(d, n)
		o.ExpiresAt = h.clock().Add(24 * time.Hour)
		ok(t, h.store.ArmRekey(t.Context(), o, h.server(), h.audit(joinery.AuditRekeyArmed)))
		return o
	}
	first := long(1)
	for n := range joinery.RekeyTries { // by its owner's word alone; others see below
		if err := deaf(); err != nil {
			t.Fatalf("join %d of a device that is to leave: %v", n+1, err)
		}
	}
	wantCode(t, deaf(), joinery.CodeLapsed) // no subscription
	ok(t, h.store.EndRekey(t.Context(), first.ID, h.org, joinery.RekeyCancelled, h.audit(joinery.AuditRekeyCancelled)))
	wantCode(t, deaf(), joinery.CodeLapsed)
	second := long(2) // its owner orders anew
	a, err := d.join()
	ok(t, err)
	if got, is := a.CFList.Rekey(); !is || got != second.Rekey || !a.Rekeyed {
		t.Fatalf("got %+v", a)
	}
	d.wantAt(away)
	wantClean(t, h)
}

// One order has so many joins of a device answered whose service has lapsed; what was
// sent in vain before the lapse keeps nobody in.
func TestLetGo(t *testing.T) {
	lapse := noon.Add(time.Hour)
	for _, c := range []struct {
		sent uint32
		last time.Time
		want bool
	}{
		{0, time.Time{}, true}, {7, lapse.Add(time.Minute), true}, {8, lapse.Add(time.Minute), false},
		{300, lapse.Add(-time.Minute), true}, {301, lapse.Add(time.Minute), false},
	} {
		s := joinery.ActivationState{
			Device: joinery.Device{Rekey: joinery.RekeyS, RekeyWord: joinery.RekeyByManifest, Service: joinery.ServiceTerm{RefuseAt: lapse}},
			Rekeying: &joinery.Rekeying{Order: &joinery.RekeyOrder{
				State: joinery.RekeySent, Sent: c.sent, LastSentAt: c.last, ExpiresAt: lapse.Add(24 * time.Hour),
			}},
		}
		if got := activation.IsLetGo(s, lapse.Add(time.Hour)); got != c.want {
			t.Errorf("sent %d times, last %v: %v", c.sent, c.last, got)
		}
	}
}
