package storetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"joinery"
)

// Services is the activation service: terms, plans, credits, facts.
type Services interface {
	Plans(ctx context.Context) ([]joinery.Plan, error)
	PutPlan(ctx context.Context, p joinery.Plan, replace bool, a joinery.AuditEntry) error
	RemovePlan(ctx context.Context, name string, a joinery.AuditEntry) error
	ExtendService(ctx context.Context, x joinery.ServiceExtension) ([]joinery.ServiceOutcome, error)
	GrantService(ctx context.Context, g joinery.ServiceGrant, a joinery.AuditEntry) (joinery.ServiceCredit, error)
	ServiceCredits(ctx context.Context, org joinery.OrgID) ([]joinery.ServiceCredit, error)
	ServiceDevices(ctx context.Context, q joinery.ServiceQuery) ([]joinery.ServiceDevice, error)
	CountLapsed(ctx context.Context, now time.Time) (int64, error)
	RemindServices(ctx context.Context, now time.Time, limit int) (int, error)
	Usage(ctx context.Context, month joinery.Month, maker joinery.OrgID, fn func(joinery.UsageRow) error) error
	ServiceClock(ctx context.Context) (joinery.ServiceClock, error)
	SeeClock(ctx context.Context, now time.Time, why string) (joinery.ServiceClock, error)
	ConfirmClock(ctx context.Context, a joinery.AuditEntry) (joinery.ServiceClock, error)
}

func runServices(t *testing.T, open func(testing.TB) Backend) {
	t.Run("service begins with the first activation", serviceBegins(open))
	t.Run("first activations beside changes", serviceBeside(open))
	t.Run("extensions", serviceExtends(open))
	t.Run("credits", serviceCredits(open))
	t.Run("plans", servicePlans(open))
	t.Run("reminders come once", serviceReminds(open))
	t.Run("usage", serviceUsage(open))
	t.Run("clock", serviceClock(open))
}

// gold is a plan with prices.
func gold() joinery.Plan {
	return joinery.Plan{
		Name: "gold", IncludedMonths: 12, GraceDays: 30, Currency: "EUR", ActivationPrice: 12_500, MonthPrice: 3_000, Share: 200_000, CreatedAt: epoch,
	}
}

// beginning is the next join of a device, whose service begins with it.
func beginning(s joinery.ActivationState, p joinery.Plan) joinery.ActivationCommit {
	c := NextCommit(s)
	c.Begin = &joinery.ServiceBegin{Plan: p, Term: s.Device.Service.Begin(p, c.Activation.At), Maker: s.Device.Maker}
	return c
}

func (w *world) begun(s joinery.ActivationState, p joinery.Plan) joinery.ServiceTerm {
	w.t.Helper()
	c := beginning(w.again(s), p)
	w.ok(w.CommitActivation(w.ctx, c))
	return c.Begin.Term
}

func serviceBegins(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		s, other := w.add(derived(1)), w.add(derived(2))
		w.equal(s.Device.Service, joinery.ServiceTerm{})
		w.again(other) // a reader keeps the snapshot that it has now
		term := w.begun(s, gold())
		w.equal(term.EndsAt, epoch.AddDate(1, 0, 0))
		w.equal(w.again(s).Device.Service, term)
		w.join(s) // which has nothing to begin
		w.equal(w.again(s).Device.Service, term)

		lost := beginning(s, gold()) // made from what was read before
		if err := w.CommitActivation(w.ctx, lost); !errors.Is(err, joinery.ErrSwapLost) {
			t.Fatalf("got %v, want ErrSwapLost", err)
		}
		late := beginning(w.again(s), gold()) // as of who had not heard of the first
		late.Begin.Term.EndsAt = late.Begin.Term.EndsAt.AddDate(1, 0, 0)
		w.ok(w.CommitActivation(w.ctx, late))
		w.ok(w.SetSuspended(w.ctx, s.Device.ID, w.org, false, w.audit(joinery.AuditDeviceResumed)))
		w.equal(w.again(s).Device.Service, term)
		w.equal(w.again(other).Device.Service, joinery.ServiceTerm{})
		w.CheckInvariants(t)
		w.Backend = w.Reopen(t)
		w.equal(w.again(s).Device.Service, term)
	}
}

// First activations write the device's row, too: whoever changes it at the same
// time must neither wait for them for ever nor lose what they write.
func serviceBeside(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		const n = 24
		states := make([]joinery.ActivationState, n)
		ids := make([]joinery.DeviceID, n)
		for i := range states {
			states[i] = w.add(derived(i))
			ids[i] = states[i].Device.ID
		}
		var running sync.WaitGroup
		for _, s := range states {
			running.Go(func() {
				for {
					again, err := w.LoadActivation(w.ctx, s.Device.JoinEUI, s.Device.DevEUI)
					if err == nil {
						err = w.CommitActivation(w.ctx, beginning(again, gold()))
					}
					if !errors.Is(err, joinery.ErrSwapLost) {
						if err != nil {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		running.Go(func() {
			for _, id := range ids {
				if err := w.SetSuspended(w.ctx, id, w.org, true, w.audit(joinery.AuditDeviceSuspended)); err != nil {
					t.Error(err)
				}
			}
		})
		running.Go(func() {
			out, err := w.ExtendService(w.ctx, w.extension(6, "beside", ids...))
			if err != nil || slices.ContainsFunc(out, func(o joinery.ServiceOutcome) bool { return o.Err != nil }) {
				t.Error(out, err)
			}
		})
		running.Wait()
		for _, s := range states {
			got := w.again(s).Device
			if !got.Suspended || got.Service.Prepaid != 0 || got.Service.EndsAt.Before(epoch.AddDate(0, 18, -1)) {
				t.Fatalf("%+v", got.Service)
			}
		}
		w.CheckInvariants(t)
	}
}

func (w *world) extension(months int, reference string, devices ...joinery.DeviceID) joinery.ServiceExtension {
	return joinery.ServiceExtension{
		Devices: devices, Months: months, Reference: reference, Org: w.org, At: epoch, Actor: "storetest", Plans: joinery.NewPlans([]joinery.Plan{gold()}),
	}
}

func (w *world) extend(x joinery.ServiceExtension) []joinery.ServiceOutcome {
	w.t.Helper()
	out, err := w.ExtendService(w.ctx, x)
	w.ok(err)
	if len(out) != len(x.Devices) {
		w.t.Fatalf("%d outcomes of %d", len(out), len(x.Devices))
	}
	return out
}

func serviceExtends(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		rival := w.addOrg("rival")
		a, b := w.add(derived(1)), w.add(derived(2))
		term := w.begun(a, gold())
		before := w.again(a).KeySet.Version

		out := w.extend(w.extension(3, "PO-1", a.Device.ID, b.Device.ID, joinery.NewDeviceID()))
		w.equal(out[0].Term.EndsAt, term.EndsAt.AddDate(0, 3, 0))
		w.equal(out[1].Term, joinery.ServiceTerm{Plan: joinery.StandardPlan, Prepaid: 3})
		w.refused(out[2].Err, joinery.CodeNotFound)
		w.equal(w.again(a).Device.Service, out[0].Term)
		if w.again(a).KeySet.Version == before {
			t.Fatal("a join in flight does not think again")
		}
		// The same order once more, and with devices that were not in it.
		out = w.extend(w.extension(3, "PO-1", a.Device.ID, a.Device.ID))
		if !out[0].Unchanged || !out[1].Unchanged {
			t.Fatalf("extended twice: %+v", out)
		}
		w.equal(w.again(a).Device.Service.EndsAt, term.EndsAt.AddDate(0, 3, 0))
		// What was bought before the first activation comes behind what is included.
		w.equal(w.begun(b, gold()).EndsAt, epoch.AddDate(0, 15, 0))
		w.equal(w.again(b).Device.Service.Prepaid, 0)
		// Another's devices are not there.
		x := w.extension(3, "PO-2", a.Device.ID)
		x.Org = rival
		w.refused(w.extend(x)[0].Err, joinery.CodeNotFound)
		w.equal(w.again(a).Device.Service.EndsAt, term.EndsAt.AddDate(0, 3, 0))

		list, err := w.ServiceDevices(w.ctx, joinery.ServiceQuery{Org: w.org, EndingBefore: epoch.AddDate(10, 0, 0), Limit: 1})
		w.ok(err)
		if len(list) != 1 {
			t.Fatalf("%d on a page of one", len(list))
		}
		next, err := w.ServiceDevices(w.ctx, joinery.ServiceQuery{
			EndingBefore: epoch.AddDate(10, 0, 0), After: joinery.ServicePlace{EndsAt: list[0].Term.EndsAt, Device: list[0].Device},
		})
		w.ok(err)
		if len(next) != 1 || next[0].Device == list[0].Device {
			t.Fatalf("second page: %+v", next)
		}
		for _, none := range []joinery.ServiceQuery{
			{Org: rival, EndingBefore: epoch.AddDate(10, 0, 0)}, {EndingBefore: epoch.AddDate(1, 0, 0)},
			{EndingBefore: epoch.AddDate(10, 0, 0), EndingAfter: epoch.AddDate(9, 0, 0)},
		} {
			list, err := w.ServiceDevices(w.ctx, none)
			w.ok(err)
			w.equal(list, []joinery.ServiceDevice{})
		}
		w.CheckInvariants(t)
	}
}

func serviceCredits(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		a, b := w.add(derived(1)), w.add(derived(2))
		grant := joinery.ServiceGrant{Org: w.org, Months: 20, Reference: "INV-7", At: epoch}
		for range 2 { // the second changes nothing
			c, err := w.GrantService(w.ctx, grant, w.audit(joinery.AuditServiceCredited))
			w.ok(err)
			w.equal(c, joinery.ServiceCredit{Org: w.org, Months: 20})
		}
		grant.Org = joinery.NewOrgID()
		_, err := w.GrantService(w.ctx, grant, w.audit(joinery.AuditServiceCredited))
		w.refused(err, joinery.CodeNotFound)

		x := w.extension(12, "A", a.Device.ID, b.Device.ID)
		x.Credit = true
		out := w.extend(x)
		w.ok(out[0].Err)
		w.refused(out[1].Err, joinery.CodeConflict) // 8 are left
		w.equal(w.again(b).Device.Service, joinery.ServiceTerm{})
		if !w.extend(x)[0].Unchanged { // and costs nothing
			t.Fatal("extended twice")
		}
		for _, org := range []joinery.OrgID{0, w.org} {
			list, err := w.ServiceCredits(w.ctx, org)
			w.ok(err)
			w.equal(list, []joinery.ServiceCredit{{Org: w.org, Months: 8}})
		}
		w.CheckInvariants(t)
	}
}

func servicePlans(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		p := gold()
		p.Default, p.Makers = true, []joinery.OrgID{w.org}
		p.JoinEUIs = []joinery.EUIRange{{First: joinEUI, Last: joinEUI}}
		w.ok(w.PutPlan(w.ctx, p, false, w.audit(joinery.AuditPlanChanged)))
		w.refused(w.PutPlan(w.ctx, p, false, w.audit(joinery.AuditPlanChanged)), joinery.CodeConflict)
		q := joinery.Plan{Name: "free", IncludedMonths: 1200, CreatedAt: epoch, Makers: p.Makers}
		w.refused(w.PutPlan(w.ctx, q, false, w.audit(joinery.AuditPlanChanged)), joinery.CodeConflict)
		q.Makers, q.JoinEUIs = nil, p.JoinEUIs
		w.refused(w.PutPlan(w.ctx, q, false, w.audit(joinery.AuditPlanChanged)), joinery.CodeConflict)
		q.JoinEUIs, q.Makers = nil, []joinery.OrgID{joinery.NewOrgID()}
		w.refused(w.PutPlan(w.ctx, q, false, w.audit(joinery.AuditPlanChanged)), joinery.CodeNotFound)
		q.Makers, q.Default = nil, true
		w.ok(w.PutPlan(w.ctx, q, false, w.audit(joinery.AuditPlanChanged)))
		p.Default, p.Makers, p.GraceDays = false, nil, 5
		w.ok(w.PutPlan(w.ctx, p, true, w.audit(joinery.AuditPlanChanged)))
		got, err := w.Plans(w.ctx)
		w.ok(err)
		w.equal(got, []joinery.Plan{q, p})

		s := w.add(derived(1))
		term := w.begun(s, p)
		w.ok(w.RemovePlan(w.ctx, "gold", w.audit(joinery.AuditPlanRemoved)))
		w.refused(w.RemovePlan(w.ctx, "gold", w.audit(joinery.AuditPlanRemoved)), joinery.CodeNotFound)
		w.equal(w.again(s).Device.Service, term)
		w.CheckInvariants(t)
	}
}

// notices gives what owners were told, in order.
func (w *world) notices() (list []string) {
	w.t.Helper()
	entries, err := w.AuditEntries(w.ctx, 0, 1000)
	w.ok(err)
	for _, e := range entries {
		switch e.Event {
		case joinery.AuditServiceEnding, joinery.AuditServiceEnded, joinery.AuditServiceLapsed:
			list = append(list, string(e.Event)+" "+e.Detail["daysLeft"])
			if e.Org != w.org || e.Device == 0 {
				w.t.Fatalf("%+v", e)
			}
		}
	}
	return list
}

func serviceReminds(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		end := w.begun(s, gold()).EndsAt
		remind := func(at time.Time) {
			t.Helper()
			var running sync.WaitGroup
			for range 3 { // servers
				running.Go(func() {
					if _, err := w.RemindServices(w.ctx, at, 100); err != nil {
						t.Error(err)
					}
				})
			}
			running.Wait()
		}
		remind(end.AddDate(0, 0, -31))
		w.equal(w.notices(), []string{})
		remind(end.AddDate(0, 0, -30))
		remind(end.AddDate(0, 0, -29))
		w.equal(w.notices(), []string{"service.ending 30"})
		w.Backend = w.Reopen(t)
		remind(end.AddDate(0, 0, -1)) // nobody looked for weeks
		w.equal(w.notices(), []string{"service.ending 30", "service.ending 1"})
		_, err := w.SeeClock(w.ctx, end, "a test doubts it")
		w.ok(err)
		remind(end)
		w.equal(len(w.notices()), 2)
		_, err = w.ConfirmClock(w.ctx, w.audit(joinery.AuditClockConfirmed))
		w.ok(err)
		remind(end)
		remind(end.AddDate(0, 0, 30))
		remind(end.AddDate(2, 0, 0))
		w.equal(w.notices()[2:], []string{"service.ended ", "service.lapsed "})
		n, err := w.CountLapsed(w.ctx, end.AddDate(0, 0, 30))
		w.ok(err)
		w.equal(n, int64(1))
		// An extension begins them anew.
		x := w.extension(2, "again", s.Device.ID)
		x.At = end.AddDate(2, 0, 0)
		end = w.extend(x)[0].Term.EndsAt
		w.equal(end, x.At.AddDate(0, 2, 0))
		remind(end.AddDate(0, 0, -7))
		w.equal(w.notices()[4:], []string{"service.ending 7"})
		w.CheckInvariants(t)
	}
}

func serviceUsage(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		a, b := w.add(derived(1)), w.add(derived(2))
		w.begun(a, gold())
		w.begun(b, gold())
		w.extend(w.extension(10, "PO", a.Device.ID))
		last := w.join(a)
		for more := true; more; {
			var err error
			more, err = w.NoteJoins(w.ctx, last.ID)
			w.ok(err)
		}
		// Who holds a device now changes nothing of what happened.
		rival := w.addOrg("rival")
		w.ok(w.Claim(w.ctx, a.Device.ID, 0, rival, nil, w.audit(joinery.AuditDeviceClaimed)))
		report := func(m joinery.Month, maker joinery.OrgID) (list []joinery.UsageRow) {
			t.Helper()
			w.ok(w.Usage(w.ctx, m, maker, func(u joinery.UsageRow) error { list = append(list, u); return nil }))
			return list
		}
		// Joins are counted in the month in which they were: now, by their ids.
		drawn := joinery.MonthOf(last.ID.Minute())
		facts := joinery.UsageRow{Maker: w.org, Plan: "gold", Currency: "EUR", Share: 200_000, Activations: 2, Amount: 25_000}
		standard := joinery.UsageRow{Maker: w.org, Plan: joinery.StandardPlan, Extensions: 1, Months: 10}
		active := joinery.UsageRow{Maker: w.org, Plan: "gold", Active: 1}
		// The extension moved a to the plan that its maker has.
		activeToo := joinery.UsageRow{Maker: w.org, Plan: joinery.StandardPlan, Active: 1}
		if drawn == joinery.MonthOf(epoch) {
			facts.Active, standard.Active = 1, 1
			w.equal(report(drawn, 0), []joinery.UsageRow{facts, standard})
		} else {
			w.equal(report(joinery.MonthOf(epoch), 0), []joinery.UsageRow{facts, standard})
			w.equal(report(drawn, w.org), []joinery.UsageRow{active, activeToo})
		}
		w.equal(report(joinery.MonthOf(epoch), rival), []joinery.UsageRow{})
		w.equal(report(joinery.MonthOf(epoch.AddDate(0, -1, 0)), 0), []joinery.UsageRow{})
		w.CheckInvariants(t)
	}
}

func serviceClock(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		see := func(at time.Time) joinery.ServiceClock {
			t.Helper()
			s, err := w.SeeClock(w.ctx, at, "")
			w.ok(err)
			return s
		}
		for _, at := range []time.Duration{0, 24 * time.Hour, 2 * time.Hour} { // within a day either way
			if s := see(epoch.Add(at)); !s.DoubtedAt.IsZero() || !s.SeenAt.Equal(epoch.Add(at)) {
				t.Fatalf("%+v", s)
			}
		}
		_, err := w.ConfirmClock(w.ctx, w.audit(joinery.AuditClockConfirmed))
		w.refused(err, joinery.CodeConflict)
		doubted := see(epoch.AddDate(10, 0, 0))
		if doubted.DoubtedAt.IsZero() || doubted.Why == "" {
			t.Fatalf("%+v", doubted)
		}
		w.equal(see(epoch), doubted) // back again is no proof
		w.Backend = w.Reopen(t)
		got, err := w.ServiceClock(w.ctx)
		w.ok(err)
		w.equal(got, doubted)
		s, err := w.ConfirmClock(w.ctx, w.audit(joinery.AuditClockConfirmed))
		w.ok(err)
		w.equal(s, joinery.ServiceClock{SeenAt: epoch, Confirmed: 1})
		if see(epoch.AddDate(-10, 0, 0)).DoubtedAt.IsZero() {
			t.Fatal("ten years back were believed")
		}
		w.CheckInvariants(t)
	}
}
