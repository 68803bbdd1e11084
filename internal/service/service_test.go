package service_test

import (
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/internal/service"
	"joinery/internal/store"
	"joinery/internal/store/storetest"
	"joinery/lorawan"
)

var (
	noon     = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	joinEUI  = lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 1}
	operator = joinery.Caller{Operator: true, Name: "operator", Rights: joinery.AllRights()}
)

// clocks are a wall clock that can be set and one that cannot.
type clocks struct {
	mu      sync.Mutex
	wall    time.Time
	elapsed time.Duration
}

func (c *clocks) now() time.Time       { c.mu.Lock(); defer c.mu.Unlock(); return c.wall }
func (c *clocks) since() time.Duration { c.mu.Lock(); defer c.mu.Unlock(); return c.elapsed }

// pass lets time pass; step sets the wall clock.
func (c *clocks) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.elapsed = c.wall.Add(d), c.elapsed+d
}

func (c *clocks) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = c.wall.Add(d)
}

// house is a store with a maker, its devices and a service.
type house struct {
	*service.Service
	t     *testing.T
	db    *store.DB
	clock *clocks
	maker joinery.Caller
	next  int
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newHouse(t *testing.T) *house {
	t.Helper()
	opt := store.Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
	ok(t, store.Create(t.Context(), opt))
	db, err := store.Open(t.Context(), opt)
	ok(t, err)
	t.Cleanup(func() { ok(t, db.Close()) })
	org := joinery.NewOrgID()
	audit := joinery.AuditEntry{At: noon, Event: joinery.AuditOrgAdded, Actor: "test"}
	ok(t, db.AddOrg(t.Context(), joinery.Organisation{ID: org, Name: "maker", CreatedAt: noon}, audit))
	ok(t, db.AssignRange(t.Context(), joinery.JoinEUIRange{EUIRange: joinery.EUIRange{First: joinEUI, Last: joinEUI}, Org: org, Elements: true}, audit))
	h := &house{t: t, db: db, clock: &clocks{wall: noon}, maker: joinery.Caller{Org: org, Name: "maker"}}
	h.Service = h.start()
	return h
}

// start makes another server of the same database, with the same clocks.
func (h *house) start() *service.Service {
	h.t.Helper()
	return h.startAt(h.clock)
}

func (h *house) startAt(c *clocks) *service.Service {
	h.t.Helper()
	s, err := service.Start(h.t.Context(), h.db, service.Options{Now: c.now, Elapsed: c.since})
	ok(h.t, err)
	return s
}

// device imports a device; begun has it join, too.
func (h *house) device() joinery.ActivationState {
	h.t.Helper()
	h.next++
	id, devEUI := joinery.NewDeviceID(), lorawan.EUI64FromUint64(0x0004A30B_00000000+uint64(h.next))
	i, err := h.db.BeginImport(h.t.Context(), joinery.Import{Org: h.maker.Org, Kind: joinery.ImportManifest, SHA256: [32]byte{byte(h.next)}, MACVersion: lorawan.MAC1_0_4, CreatedAt: noon})
	ok(h.t, err)
	_, err = h.db.CommitRows(h.t.Context(), joinery.ImportRows{Import: i.ID, Count: 1, Last: true, Devices: []joinery.NewDevice{{
		Device: joinery.Device{ID: id, JoinEUI: joinEUI, DevEUI: devEUI, MACVersion: lorawan.MAC1_0_4, CreatedAt: noon},
		KeySet: joinery.KeySet{ID: joinery.NewKeySetID(), DeviceID: id, DevEUI: devEUI, Origin: joinery.OriginDerived, Master: "m", Root10: joinery.NwkKey},
	}}}, joinery.AuditEntry{At: noon, Event: joinery.AuditDeviceImported, Actor: "test"})
	ok(h.t, err)
	s, err := h.db.Device(h.t.Context(), id)
	ok(h.t, err)
	return s
}

func (h *house) begun() joinery.DeviceID {
	h.t.Helper()
	s := h.device()
	c := storetest.NextCommit(s)
	c.Activation.At = h.clock.now()
	plan, begins := h.Begins(s.Device.Maker, s.Device.JoinEUI)
	if !begins {
		h.t.Fatal("nothing begins")
	}
	c.Begin = &joinery.ServiceBegin{Plan: plan, Term: s.Device.Service.Begin(plan, c.Activation.At), Maker: s.Device.Maker}
	ok(h.t, h.db.CommitActivation(h.t.Context(), c))
	return s.Device.ID
}

func (h *house) events() (list []joinery.AuditEvent) {
	h.t.Helper()
	entries, err := h.db.AuditEntries(h.t.Context(), 0, 1000)
	ok(h.t, err)
	for _, e := range entries {
		switch e.Event {
		case joinery.AuditServiceEnding, joinery.AuditServiceEnded, joinery.AuditServiceLapsed, joinery.AuditClockDoubted, joinery.AuditClockConfirmed:
			list = append(list, e.Event)
		}
	}
	return list
}

// P9: whatever the clock does beyond a day, either way, at once or in small steps,
// while the server runs or while it is down: nothing lapses, begins or is reminded
// of, until the operator confirms. Then it goes by the clock as it is.
func TestAClockThatStepsLetsNothingLapse(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for name, tt := range map[string]struct {
		disturb func(h *house)
		lapsed  joinery.ServiceState // by the clock as it is then
	}{
		"ten years on":        {func(h *house) { h.clock.step(10 * year) }, joinery.ServiceLapsed},
		"ten years back":      {func(h *house) { h.clock.step(-10 * year) }, joinery.ServiceActive},
		"frozen":              {func(h *house) { h.clock.mu.Lock(); h.clock.elapsed += 25 * time.Hour; h.clock.mu.Unlock() }, joinery.ServiceActive},
		"in many small steps": {func(h *house) { h.slip(2*year, 23*time.Hour) }, joinery.ServiceLapsed},
		"while the server is down": {func(h *house) {
			h.clock.step(10 * year)
			h.clock = &clocks{wall: h.clock.now()} // a process knows nothing of the one before
			h.Service = h.start()
		}, joinery.ServiceLapsed},
		"at another server": {func(h *house) {
			h.startAt(&clocks{wall: h.clock.now().Add(-10 * year)})
			ok(h.t, h.Look(h.t.Context()))
		}, joinery.ServiceActive},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			id := h.begun()
			if !h.Lapses() {
				t.Fatal("in doubt from the beginning")
			}
			tt.disturb(h)
			if h.Lapses() { // before anybody looked
				t.Fatal("the clock is believed")
			}
			if _, begins := h.Begins(0, joinEUI); begins {
				t.Error("a term begins")
			}
			ok(t, h.Look(t.Context()))
			if got := h.events(); !slices.Equal(got, []joinery.AuditEvent{joinery.AuditClockDoubted}) {
				t.Errorf("%q", got)
			}
			_, err := h.Extend(t.Context(), operator, []joinery.DeviceID{id}, 1, "in doubt")
			if joinery.CodeOf(err) != joinery.CodeUnavailable {
				t.Errorf("extended by a clock in doubt: %v", err)
			}
			standing, err := h.Device(t.Context(), h.maker, id)
			ok(t, err)
			if !standing.Held || standing.State != tt.lapsed {
				t.Errorf("%+v", standing)
			}
			for range 2 { // a restart is no proof
				if h.Service = h.start(); h.Lapses() || h.Doubt() == "" {
					t.Fatal("the clock is believed after a restart")
				}
			}
			if _, err := h.ConfirmClock(t.Context(), h.maker); joinery.CodeOf(err) != joinery.CodeForbidden {
				t.Errorf("anybody may confirm: %v", err)
			}
			state, err := h.ConfirmClock(t.Context(), operator)
			ok(t, err)
			if !h.Lapses() || !state.DoubtedAt.IsZero() || (state.Lapsed == 1) != (tt.lapsed == joinery.ServiceLapsed) {
				t.Errorf("%+v", state)
			}
			ok(t, h.Look(t.Context()))
			if reminded := len(h.events()) > 2; reminded != (tt.lapsed == joinery.ServiceLapsed) {
				t.Errorf("%q", h.events())
			}
		})
	}
}

// slip lets the wall clock run ahead in steps that are small each.
func (h *house) slip(all, each time.Duration) {
	for done := time.Duration(0); done < all; done += each {
		h.clock.step(each)
	}
}

// A day and less is no step, and time that passes none at all.
func TestTimePasses(t *testing.T) {
	h := newHouse(t)
	id := h.begun()
	look := func() {
		t.Helper()
		ok(t, h.Look(t.Context()))
		if why := h.Doubt(); why != "" {
			t.Fatal(why)
		}
	}
	h.clock.step(23 * time.Hour)
	look()
	h.clock.step(-23 * time.Hour)
	look()
	for range 400 { // days
		h.clock.pass(24 * time.Hour)
		look()
	}
	want := []joinery.AuditEvent{joinery.AuditServiceEnding, joinery.AuditServiceEnding, joinery.AuditServiceEnding, joinery.AuditServiceEnded, joinery.AuditServiceLapsed}
	if got := h.events(); !slices.Equal(got, want) {
		t.Errorf("told %q", got)
	}
	if s, err := h.Device(t.Context(), h.maker, id); err != nil || s.State != joinery.ServiceLapsed || s.Held {
		t.Errorf("%+v %v", s, err)
	}
}

// A confirmation at one server counts at the others whose clocks agree, and at no
// other.
func TestConfirmationsTravel(t *testing.T) {
	h := newHouse(t)
	other := h.start()
	wrong := &clocks{wall: noon}
	astray := h.startAt(wrong)
	h.clock.step(48 * time.Hour)
	wrong.step(9000 * time.Hour)
	for _, s := range []*service.Service{h.Service, other, astray} {
		ok(t, s.Look(t.Context()))
		if s.Lapses() {
			t.Fatal("believed")
		}
	}
	_, err := h.ConfirmClock(t.Context(), operator)
	ok(t, err)
	ok(t, other.Look(t.Context()))
	if !other.Lapses() {
		t.Error(other.Doubt())
	}
	ok(t, astray.Look(t.Context()))
	if astray.Lapses() {
		t.Error("a clock that is a year ahead is believed")
	}
	ok(t, h.Look(t.Context())) // and who disagrees is heard by all
	if h.Lapses() {
		t.Error("two servers disagree, and the clock is believed")
	}
}

func TestPlansAndRights(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	good := joinery.Plan{Name: "pro", IncludedMonths: 24, GraceDays: 10, Currency: "EUR", MonthPrice: 3000, Makers: []joinery.OrgID{h.maker.Org}}
	for name, spoil := range map[string]func(*joinery.Plan){
		"name": func(p *joinery.Plan) { p.Name = "Pro!" }, "no months": func(p *joinery.Plan) { p.IncludedMonths = 0 },
		"grace": func(p *joinery.Plan) { p.GraceDays = -1 }, "currency": func(p *joinery.Plan) { p.Currency = "euro" },
		"price without one": func(p *joinery.Plan) { p.Currency = "" }, "share": func(p *joinery.Plan) { p.Share = 1_000_001 },
		"maker twice": func(p *joinery.Plan) { p.Makers = append(p.Makers, h.maker.Org) },
		"range": func(p *joinery.Plan) {
			p.JoinEUIs = []joinery.EUIRange{{First: lorawan.EUI64{2}, Last: lorawan.EUI64{1}}}
		},
	} {
		p := good
		p.Makers = slices.Clone(good.Makers)
		spoil(&p)
		if _, err := h.PutPlan(ctx, operator, p); joinery.CodeOf(err) != joinery.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := h.PutPlan(ctx, h.maker, good); joinery.CodeOf(err) != joinery.CodeForbidden {
		t.Errorf("a maker makes plans: %v", err)
	}
	old := h.begun()
	_, err := h.PutPlan(ctx, operator, good)
	ok(t, err)
	fresh := h.begun()
	if p, _ := h.Begins(h.maker.Org, joinEUI); p.Name != "pro" {
		t.Errorf("%+v", p)
	}
	ends := func(id joinery.DeviceID) time.Time {
		t.Helper()
		s, err := h.Device(ctx, h.maker, id)
		ok(t, err)
		return s.Term.EndsAt
	}
	if !ends(old).Equal(noon.AddDate(1, 0, 0)) || !ends(fresh).Equal(noon.AddDate(2, 0, 0)) {
		t.Errorf("%v %v", ends(old), ends(fresh))
	}

	// An organisation extends its own from its credit, and sees nothing of others.
	out, err := h.Extend(ctx, h.maker, []joinery.DeviceID{old}, 2, "PO")
	ok(t, err)
	if joinery.CodeOf(out[0].Err) != joinery.CodeConflict {
		t.Errorf("without credit: %+v", out[0])
	}
	_, err = h.Grant(ctx, operator, h.maker.Org, 2, "G")
	ok(t, err)
	out, err = h.Extend(ctx, h.maker, []joinery.DeviceID{old}, 2, "PO")
	ok(t, err)
	if out[0].Err != nil || !ends(old).Equal(noon.AddDate(1, 2, 0)) {
		t.Errorf("%+v", out[0])
	}
	stranger := joinery.Caller{Org: joinery.NewOrgID(), Name: "stranger"}
	_, shown := h.Device(ctx, stranger, old)
	_, granted := h.Grant(ctx, stranger, stranger.Org, 1, "G")
	report := func(caller joinery.Caller, maker joinery.OrgID) (rows []joinery.UsageRow, err error) {
		err = h.Usage(ctx, caller, joinery.MonthOf(noon), maker, func(u joinery.UsageRow) error { rows = append(rows, u); return nil })
		return rows, err
	}
	_, reported := report(stranger, h.maker.Org)
	for what, err := range map[string]error{"shown": shown, "granted": granted, "reported": reported} {
		if code := joinery.CodeOf(err); code != joinery.CodeNotFound && code != joinery.CodeForbidden {
			t.Errorf("%s to a stranger: %v", what, err)
		}
	}
	if rows, err := report(stranger, 0); err != nil || len(rows) != 0 {
		t.Errorf("%+v %v", rows, err)
	}
	if rows, err := report(h.maker, 0); err != nil || len(rows) != 2 {
		t.Errorf("%+v %v", rows, err)
	}
	if list, err := h.Devices(ctx, stranger, joinery.ServiceQuery{Limit: 10}); err != nil || len(list) != 0 {
		t.Errorf("%+v %v", list, err)
	}
}
