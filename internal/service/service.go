package service

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"joinery"
	"joinery/lorawan"
)

// Bounds.
const (
	MaxDevices   = 10_000 // of one extension
	maxMonths    = 1200
	maxGraceDays = 3650
	maxAssigned  = 1000 // makers, and ranges, of a plan
)

// Store is the state behind this package.
type Store interface {
	Plans(ctx context.Context) ([]joinery.Plan, error)
	PutPlan(ctx context.Context, p joinery.Plan, replace bool, a joinery.AuditEntry) error
	RemovePlan(ctx context.Context, name string, a joinery.AuditEntry) error
	Terms
	Clock
}

// Terms is the state of devices, and what happened to it.
type Terms interface {
	Device(ctx context.Context, id joinery.DeviceID) (joinery.ActivationState, error)
	ServiceDevices(ctx context.Context, q joinery.ServiceQuery) ([]joinery.ServiceDevice, error)
	ExtendService(ctx context.Context, x joinery.ServiceExtension) ([]joinery.ServiceOutcome, error)
	GrantService(ctx context.Context, g joinery.ServiceGrant, a joinery.AuditEntry) (joinery.ServiceCredit, error)
	ServiceCredits(ctx context.Context, org joinery.OrgID) ([]joinery.ServiceCredit, error)
	Usage(ctx context.Context, month joinery.Month, maker joinery.OrgID, fn func(joinery.UsageRow) error) error
}

// Clock is what all servers of a database know of the clock, and what is due by
// it.
type Clock interface {
	ServiceClock(ctx context.Context) (joinery.ServiceClock, error)
	// SeeClock writes down a time, or a doubt, unless the clock is in doubt already.
	SeeClock(ctx context.Context, now time.Time, why string) (joinery.ServiceClock, error)
	ConfirmClock(ctx context.Context, a joinery.AuditEntry) (joinery.ServiceClock, error)
	CountLapsed(ctx context.Context, now time.Time) (int64, error)
	RemindServices(ctx context.Context, now time.Time, limit int) (int, error)
}

// Options are what a Service may be given besides its store.
type Options struct {
	// Now is the wall clock, nil the system's; Elapsed a clock that cannot be set,
	// nil the monotonic one.
	Now     func() time.Time
	Elapsed func() time.Duration
	Log     *slog.Logger
	// Hold is why nobody is reminded now, nil for no reason: a copy of a database
	// must not speak for the one that it was copied from.
	Hold func() error
}

// Service is the rules of this package. It is safe for concurrent use.
type Service struct {
	store Store
	now   func() time.Time
	log   *slog.Logger
	hold  func() error
	guard *guard

	plans     atomic.Pointer[joinery.Plans]
	confirmed atomic.Int64 // the confirmation that the guard stands on
}

// Start makes a Service that knows plans and clock. It comes before the first
// join.
func Start(ctx context.Context, store Store, opt Options) (*Service, error) {
	s := &Service{store: store, now: opt.Now, log: opt.Log, hold: opt.Hold}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.hold == nil {
		s.hold = func() error { return nil }
	}
	s.guard = newGuard(s.now, opt.Elapsed)
	if err := s.reload(ctx); err != nil {
		return nil, fmt.Errorf("read plans: %w", err)
	}
	if err := s.seeClock(ctx); err != nil {
		return nil, fmt.Errorf("look at the clock: %w", err)
	}
	return s, nil
}

func (s *Service) timestamp() time.Time { return s.now().UTC().Truncate(time.Millisecond) }

func (s *Service) reload(ctx context.Context) error {
	stored, err := s.store.Plans(ctx)
	if err != nil {
		return err
	}
	plans := joinery.NewPlans(stored)
	s.plans.Store(&plans)
	return nil
}

// Begins implements activation.Terms.
func (s *Service) Begins(maker joinery.OrgID, joinEUI lorawan.EUI64) (joinery.Plan, bool) {
	return s.plans.Load().For(maker, joinEUI), s.guard.look() == ""
}

// Lapses implements activation.Terms.
func (s *Service) Lapses() bool { return s.guard.look() == "" }

func notFound(what string) error { return joinery.Errorf(joinery.CodeNotFound, "no such %s", what) }

// Plans gives the operator every plan, the one that is built in included.
func (s *Service) Plans(ctx context.Context, caller joinery.Caller) (joinery.Plans, error) {
	if err := caller.RequireOperator(); err != nil {
		return nil, err
	}
	if err := s.reload(ctx); err != nil {
		return nil, err
	}
	return *s.plans.Load(), nil
}

// planName and currency are what names of plans and currencies look like.
var (
	planName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	currency = regexp.MustCompile(`^([A-Z]{3})?$`)
)

// PutPlan makes a plan, or replaces the one of its name. Terms that were granted
// stay as they are.
func (s *Service) PutPlan(ctx context.Context, caller joinery.Caller, p joinery.Plan) (joinery.Plan, error) {
	if err := caller.RequireOperator(); err != nil {
		return p, err
	}
	if err := checkPlan(p); err != nil {
		return p, err
	}
	stored, err := s.store.Plans(ctx)
	if err != nil {
		return p, err
	}
	p.CreatedAt = s.timestamp()
	i := slices.IndexFunc(stored, func(o joinery.Plan) bool { return o.Name == p.Name })
	if i >= 0 {
		p.CreatedAt = stored[i].CreatedAt
	}
	entry := s.entry(caller, joinery.AuditPlanChanged, 0, map[string]string{
		"plan": p.Name, "includedMonths": strconv.Itoa(p.IncludedMonths), "graceDays": strconv.Itoa(p.GraceDays), "currency": p.Currency,
		"activationPrice": p.ActivationPrice.String(), "monthPrice": p.MonthPrice.String(), "sharePercent": p.Share.String(), "default": strconv.FormatBool(p.Default),
		"makers": texts(p.Makers), "joinEUIs": texts(p.JoinEUIs),
	})
	if err := s.store.PutPlan(ctx, p, i >= 0, entry); err != nil {
		return p, err
	}
	return p, s.reload(context.WithoutCancel(ctx))
}

// maxTexts is how many assignments an audit entry names.
const maxTexts = 20

func texts[T any](list []T) string {
	names := make([]string, min(len(list), maxTexts))
	for i := range names {
		names[i] = strings.Trim(fmt.Sprint(list[i]), "{}")
	}
	if more := len(list) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

func checkPlan(p joinery.Plan) error {
	invalid := func(format string, args ...any) error { return joinery.Errorf(joinery.CodeInvalid, format, args...) }
	switch {
	case !planName.MatchString(p.Name):
		return invalid("name: want small letters, digits and dashes, at most 32")
	case p.IncludedMonths < 1 || p.IncludedMonths > maxMonths:
		return invalid("includedMonths: want 1 to %d", maxMonths)
	case p.GraceDays < 0 || p.GraceDays > maxGraceDays:
		return invalid("graceDays: want 0 to %d", maxGraceDays)
	case !currency.MatchString(p.Currency):
		return invalid("currency: want three capital letters, such as EUR")
	case p.Currency == "" && p.ActivationPrice+p.MonthPrice > 0:
		return invalid("currency: prices need one")
	case p.Share > 100*10_000:
		return invalid("sharePercent: want at most 100")
	case len(p.Makers) > maxAssigned || len(p.JoinEUIs) > maxAssigned:
		return invalid("a plan is assigned to at most %d makers and %d ranges", maxAssigned, maxAssigned)
	}
	for i, r := range p.JoinEUIs {
		if r.First.Uint64() > r.Last.Uint64() {
			return invalid("joinEUIs: the first is above the last")
		}
		if slices.ContainsFunc(p.JoinEUIs[:i], r.Overlaps) {
			return invalid("joinEUIs: two ranges overlap")
		}
	}
	for i, m := range p.Makers {
		if slices.Contains(p.Makers[:i], m) {
			return invalid("makers: one is there twice")
		}
	}
	return nil
}

// RemovePlan takes a plan away; its devices come under another with their next
// extension.
func (s *Service) RemovePlan(ctx context.Context, caller joinery.Caller, name string) error {
	if err := caller.RequireOperator(); err != nil {
		return err
	}
	if err := s.store.RemovePlan(ctx, name, s.entry(caller, joinery.AuditPlanRemoved, 0, map[string]string{"plan": name})); err != nil {
		return err
	}
	return s.reload(context.WithoutCancel(ctx))
}

func (s *Service) entry(caller joinery.Caller, event joinery.AuditEvent, org joinery.OrgID, detail map[string]string) joinery.AuditEntry {
	return joinery.AuditEntry{At: s.timestamp(), Event: event, Actor: caller.Name, Org: org, Detail: detail}
}

// Standing is a device as it stands with the service now.
type Standing struct {
	joinery.ServiceDevice
	State joinery.ServiceState
	// Plan is the one under which an extension would be made now.
	Plan joinery.Plan
	// Held: the clock is in doubt, so nothing lapses.
	Held bool
}

func (s *Service) standing(d joinery.ServiceDevice) Standing {
	return Standing{
		ServiceDevice: d, State: d.Term.State(s.now()), Plan: s.plans.Load().For(d.Maker, d.JoinEUI), Held: s.guard.look() != "",
	}
}

// Device tells the owner of a device, or the operator, how it stands.
func (s *Service) Device(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (Standing, error) {
	state, err := s.store.Device(ctx, id)
	d := state.Device
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && !caller.Owns(d.Ownership.Org) {
		return Standing{}, notFound("device")
	}
	if err != nil {
		return Standing{}, err
	}
	return s.standing(joinery.ServiceDevice{
		Device: d.ID, JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, Owner: d.Ownership.Org, Maker: d.Maker, Term: d.Service,
	}), nil
}

// Devices lists devices whose terms end within a time, soonest first: the
// caller's, to an operator who acts for nobody all.
func (s *Service) Devices(ctx context.Context, caller joinery.Caller, q joinery.ServiceQuery) ([]Standing, error) {
	if caller.Org == 0 && !caller.Operator {
		return nil, notFound("organisation")
	}
	q.Org = caller.Org
	if q.EndingBefore.IsZero() {
		q.EndingBefore = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	list, err := s.store.ServiceDevices(ctx, q)
	out := make([]Standing, len(list))
	for i, d := range list {
		out[i] = s.standing(d)
	}
	return out, err
}

// Extend extends the terms of devices, each by months. The operator may extend
// any; an organisation its own, and spends its credit. reference names the order:
// the same one never extends a device twice. There is one outcome for each
// device; with err those that were begun before it.
func (s *Service) Extend(ctx context.Context, caller joinery.Caller, devices []joinery.DeviceID, months int, reference string) ([]joinery.ServiceOutcome, error) {
	switch {
	case caller.Org == 0 && !caller.Operator:
		return nil, notFound("organisation")
	case len(devices) == 0 || len(devices) > MaxDevices:
		return nil, joinery.Errorf(joinery.CodeInvalid, "devices: want 1 to %d", MaxDevices)
	case months < 1 || months > maxMonths:
		return nil, joinery.Errorf(joinery.CodeInvalid, "months: want 1 to %d", maxMonths)
	case reference == "" || len(reference) > 64:
		return nil, joinery.Errorf(joinery.CodeInvalid, "reference: want a name of the order, at most 64 bytes")
	case s.guard.look() != "":
		return nil, joinery.Errorf(joinery.CodeUnavailable, "the server's clock is in doubt, so nobody knows from when to extend; nothing lapses until its operator confirms the clock")
	}
	return s.store.ExtendService(ctx, joinery.ServiceExtension{
		Devices: devices, Months: months, Reference: reference, Org: caller.Org, Credit: !caller.Operator,
		At: s.timestamp(), Actor: caller.Name, Plans: *s.plans.Load(),
	})
}

// Grant lets an organisation extend its devices by so many months more. It is the
// operator's.
func (s *Service) Grant(ctx context.Context, caller joinery.Caller, org joinery.OrgID, months int, reference string) (joinery.ServiceCredit, error) {
	const most = 100_000_000
	switch err := caller.RequireOperator(); {
	case err != nil:
		return joinery.ServiceCredit{}, err
	case months < 1 || months > most:
		return joinery.ServiceCredit{}, joinery.Errorf(joinery.CodeInvalid, "months: want 1 to %d", most)
	case reference == "" || len(reference) > 64:
		return joinery.ServiceCredit{}, joinery.Errorf(joinery.CodeInvalid, "reference: want a name of the order, at most 64 bytes")
	}
	entry := s.entry(caller, joinery.AuditServiceCredited, org, map[string]string{"months": strconv.Itoa(months), "reference": reference})
	return s.store.GrantService(ctx, joinery.ServiceGrant{Org: org, Months: months, Reference: reference, At: entry.At}, entry)
}

// Credits gives the credit of the caller's organisation, to an operator who acts
// for none all.
func (s *Service) Credits(ctx context.Context, caller joinery.Caller) ([]joinery.ServiceCredit, error) {
	if caller.Org == 0 && !caller.Operator {
		return nil, notFound("organisation")
	}
	list, err := s.store.ServiceCredits(ctx, caller.Org)
	if err == nil && len(list) == 0 && caller.Org != 0 {
		list = []joinery.ServiceCredit{{Org: caller.Org}}
	}
	return list, err
}

// Usage calls fn with each row of a month's report: of the devices that the
// caller's organisation made, or to the operator of any maker's, zero for all.
func (s *Service) Usage(ctx context.Context, caller joinery.Caller, month joinery.Month, maker joinery.OrgID, fn func(joinery.UsageRow) error) error {
	if caller.Org != 0 && maker == 0 {
		maker = caller.Org
	}
	if maker == 0 && !caller.Operator || maker != 0 && !caller.Owns(maker) {
		return notFound("organisation")
	}
	return s.store.Usage(ctx, month, maker, fn)
}
