package joinery

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"joinery/lorawan"
)

// Decimal is an amount or a percentage with at most four decimals. Its text form
// is "12.5": no exponent, no trailing zeros. What it is an amount of stands
// beside it; nothing here pays.
type Decimal int64 // ten-thousandths

// decimalUnit is one; maxDecimal keeps sums of very many within bounds.
const (
	decimalUnit   = 10_000
	decimalPlaces = 4
	maxDecimal    = 1_000_000_000 * decimalUnit
)

// ParseDecimal reads digits with at most four decimals, up to 1,000,000,000.
func ParseDecimal(s string) (Decimal, error) {
	wrong := errors.New("want a number of at most 1000000000 with at most four decimals, such as 12.5")
	whole, fraction, dotted := strings.Cut(s, ".")
	if dotted && fraction == "" || len(fraction) > decimalPlaces || len(whole) == 0 || len(whole) > 10 {
		return 0, wrong
	}
	n, err := strconv.ParseUint(whole+fraction+strings.Repeat("0", decimalPlaces-len(fraction)), 10, 63)
	if err != nil || n > maxDecimal {
		return 0, wrong
	}
	return Decimal(n), nil
}

// String gives the one text form.
func (d Decimal) String() string {
	sign := ""
	if d < 0 {
		sign, d = "-", -d
	}
	text := strings.TrimRight(fmt.Sprintf("%04d", d%decimalUnit), "0")
	if text != "" {
		text = "." + text
	}
	return sign + strconv.FormatInt(int64(d/decimalUnit), 10) + text
}

// MarshalText implements encoding.TextMarshaler.
func (d Decimal) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Decimal) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDecimal(string(b))
	return err
}

// Percent gives share percent of d, rounded half up to four decimals.
func (d Decimal) Percent(share Decimal) Decimal {
	const hundred = 100 * decimalUnit
	p := new(big.Int).Mul(big.NewInt(int64(d)), big.NewInt(int64(share)))
	p.Add(p, big.NewInt(hundred/2))
	return Decimal(p.Div(p, big.NewInt(hundred)).Int64())
}

// Plan is on what terms the activation service is given: the operator's data.
// What was granted under a plan stays as it was when the plan changes.
type Plan struct {
	Name string
	// IncludedMonths begin with a device's first activation; GraceDays follow
	// every end, before joins are refused.
	IncludedMonths int
	GraceDays      int
	// Prices are for reports: of a first activation, and of each month of an
	// extension, in Currency (ISO 4217, or "" for none). Share is the maker's
	// part of both, in percent.
	Currency        string
	ActivationPrice Decimal
	MonthPrice      Decimal
	Share           Decimal
	// Default: for devices that no other plan is assigned to. JoinEUIs come
	// before Makers.
	Default  bool
	Makers   []OrgID
	JoinEUIs []EUIRange
	// CreatedAt is zero for the plan that is built in.
	CreatedAt time.Time
}

// StandardPlan is built in: it holds until a plan of its name is made, and is the
// default until another is.
const StandardPlan = "standard"

// BuiltInPlan is the terms of a server on which nobody made a plan.
func BuiltInPlan() Plan { return Plan{Name: StandardPlan, IncludedMonths: 12, GraceDays: 30} }

// Plans is every plan. Its first is never missing: see NewPlans.
type Plans []Plan

// NewPlans completes the stored plans with the one that is built in.
func NewPlans(stored []Plan) Plans {
	standard, chosen := false, false
	for _, p := range stored {
		standard, chosen = standard || p.Name == StandardPlan, chosen || p.Default
	}
	all := append(Plans{}, stored...)
	if !standard {
		all = append(all, BuiltInPlan())
	}
	for i := range all {
		if !chosen && all[i].Name == StandardPlan {
			all[i].Default = true
		}
	}
	return all
}

// For gives the plan of a device: that of its JoinEUI's range, else of its maker,
// else the default.
func (all Plans) For(maker OrgID, joinEUI lorawan.EUI64) (plan Plan) {
	var ofMaker, standing *Plan
	for i := range all {
		p := &all[i]
		for _, r := range p.JoinEUIs {
			if r.Contains(joinEUI) {
				return *p
			}
		}
		for _, m := range p.Makers {
			if m == maker {
				ofMaker = p
			}
		}
		if p.Default {
			standing = p
		}
	}
	switch {
	case ofMaker != nil:
		return *ofMaker
	case standing != nil:
		return *standing
	}
	return BuiltInPlan()
}

// ServiceTerm is how a device stands with the activation service. It is part of
// the row that every join reads.
type ServiceTerm struct {
	// Plan is the one of the first activation or of the last extension; "" before.
	Plan string
	// EndsAt is zero before the first activation. From RefuseAt on, which is the
	// end and the days of grace, joins are refused.
	EndsAt   time.Time
	RefuseAt time.Time
	// Prepaid is months that were bought before the first activation.
	Prepaid int
}

// ServiceState is a ServiceTerm in one word.
type ServiceState string

// The states.
const (
	ServiceNotBegun ServiceState = "not-begun" // it begins with the first activation
	ServiceActive   ServiceState = "active"
	ServiceGrace    ServiceState = "grace"  // over, and joins are still answered
	ServiceLapsed   ServiceState = "lapsed" // joins are refused
)

// State gives the state at a time.
func (t ServiceTerm) State(now time.Time) ServiceState {
	switch {
	case t.EndsAt.IsZero():
		return ServiceNotBegun
	case now.Before(t.EndsAt):
		return ServiceActive
	case now.Before(t.RefuseAt):
		return ServiceGrace
	}
	return ServiceLapsed
}

// Lapsed tells whether joins are refused at a time, if the clock is right.
func (t ServiceTerm) Lapsed(now time.Time) bool { return t.State(now) == ServiceLapsed }

// Begin gives the term after a first activation under p.
func (t ServiceTerm) Begin(p Plan, at time.Time) ServiceTerm {
	return ServiceTerm{}.until(p, addMonths(at, p.IncludedMonths+t.Prepaid))
}

// Extend gives the term after months were added under p: from its end on or,
// where joins are refused already, from now on; before the first activation they
// are kept for it. No extension shortens anything.
func (t ServiceTerm) Extend(p Plan, months int, now time.Time) ServiceTerm {
	if t.EndsAt.IsZero() {
		t.Plan, t.Prepaid = p.Name, t.Prepaid+months
		return t
	}
	from := t.EndsAt
	if t.Lapsed(now) {
		from = now
	}
	next := t.until(p, addMonths(from, months))
	if next.RefuseAt.Before(t.RefuseAt) {
		next.RefuseAt = t.RefuseAt
	}
	return next
}

func (ServiceTerm) until(p Plan, end time.Time) ServiceTerm {
	end = end.UTC().Truncate(time.Millisecond)
	return ServiceTerm{Plan: p.Name, EndsAt: end, RefuseAt: end.AddDate(0, 0, p.GraceDays)}
}

// addMonths keeps to the last day of a month that is too short.
func addMonths(t time.Time, months int) time.Time {
	t = t.UTC()
	out := t.AddDate(0, months, 0)
	if out.Day() != t.Day() {
		out = out.AddDate(0, 0, -out.Day())
	}
	return out
}

// ServiceNotice is a reminder about a term.
type ServiceNotice struct {
	At    time.Time
	Event AuditEvent // AuditServiceEnding, AuditServiceEnded or AuditServiceLapsed
	Days  int        // of AuditServiceEnding: that are left
}

// notices are all reminders about a term, in order.
func (t ServiceTerm) notices() []ServiceNotice {
	if t.EndsAt.IsZero() {
		return nil
	}
	var list []ServiceNotice
	for _, days := range []int{30, 7, 1} {
		list = append(list, ServiceNotice{t.EndsAt.AddDate(0, 0, -days), AuditServiceEnding, days})
	}
	return append(list, ServiceNotice{At: t.EndsAt, Event: AuditServiceEnded}, ServiceNotice{At: t.RefuseAt, Event: AuditServiceLapsed})
}

// NextNotice is when the next reminder behind a time is due; zero for none.
func (t ServiceTerm) NextNotice(behind time.Time) time.Time {
	for _, n := range t.notices() {
		if n.At.After(behind) {
			return n.At
		}
	}
	return time.Time{}
}

// Notice gives the last reminder that is due at a time: who was away for long is
// not told what is over.
func (t ServiceTerm) Notice(now time.Time) (n ServiceNotice, due bool) {
	for _, next := range t.notices() {
		if !next.At.After(now) {
			n, due = next, true
		}
	}
	return n, due
}

// ServiceBegin is what a first activation writes beside its two rows.
type ServiceBegin struct {
	Plan  Plan
	Term  ServiceTerm
	Maker OrgID
}

// ServiceExtension is a change that extends terms, each device by Months.
type ServiceExtension struct {
	Devices []DeviceID
	Months  int
	// Reference names the order: the same reference never extends a device twice
	// for one organisation.
	Reference string
	// Org is whose the devices must be, zero for anybody's; Credit takes the months
	// from its credit.
	Org    OrgID
	Credit bool
	At     time.Time
	Actor  string
	Plans  Plans
}

// ServiceOutcome is what became of one device. Err is nil where the term was
// extended, or had been under the same reference (Unchanged).
type ServiceOutcome struct {
	Device    DeviceID
	Term      ServiceTerm
	Unchanged bool
	Err       error
}

// ServiceCredit is the months that an organisation may still give its devices.
type ServiceCredit struct {
	Org    OrgID
	Months int64
}

// ServiceGrant adds to a credit. The same reference never adds twice.
type ServiceGrant struct {
	Org       OrgID
	Months    int
	Reference string
	At        time.Time
}

// ServicePlace is the place of a device in the order of ends; zero is before the
// first.
type ServicePlace struct {
	EndsAt time.Time
	Device DeviceID
}

// ServiceQuery selects devices whose term ends before a time, soonest first.
type ServiceQuery struct {
	Org          OrgID // zero: all (the operator)
	EndingBefore time.Time
	EndingAfter  time.Time // zero: whenever
	After        ServicePlace
	Limit        int
}

// ServiceDevice is a device as it stands with the service.
type ServiceDevice struct {
	Device  DeviceID
	JoinEUI lorawan.EUI64
	DevEUI  lorawan.EUI64
	Owner   OrgID
	Maker   OrgID
	Term    ServiceTerm
}

// Month is a month of the calendar, in UTC: "2026-10".
type Month struct {
	Year  int
	Month time.Month
}

// MonthOf gives the month of a time, in UTC.
func MonthOf(t time.Time) Month { t = t.UTC(); return Month{t.Year(), t.Month()} }

// ParseMonth reads "2026-10".
func ParseMonth(s string) (Month, error) {
	t, err := time.Parse("2006-01", s)
	if err != nil {
		return Month{}, errors.New("want a month such as 2026-10")
	}
	return MonthOf(t), nil
}

// String gives the one text form.
func (m Month) String() string { return m.First().Format("2006-01") }

// First is the month's first moment, Next that of the month behind it.
func (m Month) First() time.Time { return time.Date(m.Year, m.Month, 1, 0, 0, 0, 0, time.UTC) }

// Next is the first moment that is behind the month.
func (m Month) Next() time.Time { return m.First().AddDate(0, 1, 0) }

// Number is the stored form: 202610.
func (m Month) Number() int { return m.Year*100 + int(m.Month) }

// UsageRow is what happened in a month to devices of one maker under one plan.
// It is made of facts as they were written down, whoever holds the devices now.
type UsageRow struct {
	Maker    OrgID
	Plan     string
	Currency string
	Share    Decimal // percent

	Activations int64 // first ones
	Active      int64 // devices that joined
	Extensions  int64
	Months      int64 // of the extensions
	Lapsed      int64 // terms whose grace ended
	Amount      Decimal
}

// ShareAmount is the maker's part of the amount.
func (u UsageRow) ShareAmount() Decimal { return u.Amount.Percent(u.Share) }

// ServiceClock is what the servers wrote down of the clock.
type ServiceClock struct {
	// SeenAt is the last time that was written down; zero before the first.
	SeenAt time.Time
	// DoubtedAt is since when the clock is in doubt, and Why; zero for not. Then
	// nothing begins, lapses or is reminded of.
	DoubtedAt time.Time
	Why       string
	// Confirmed rises with each confirmation.
	Confirmed int64
}

// MaxClockStep is how far the clock may step before it is in doubt.
const MaxClockStep = 24 * time.Hour
