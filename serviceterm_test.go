package joinery

import (
	"testing"
	"time"

	"joinery/lorawan"
)

func TestDecimals(t *testing.T) {
	for in, want := range map[string]string{"0": "0", "12": "12", "12.5": "12.5", "0.3000": "0.3", "007.0001": "7.0001", "1000000000": "1000000000"} {
		if d, err := ParseDecimal(in); err != nil || d.String() != want {
			t.Errorf("%s: %s, %v", in, d, err)
		}
	}
	for _, in := range []string{"", ".", "1.", ".5", "-1", "+1", "1e3", "1.23456", "1000000000.1", "99999999999", "1,5", " 1"} {
		if d, err := ParseDecimal(in); err == nil {
			t.Errorf("%q is %s", in, d)
		}
	}
	for _, tt := range []struct{ amount, share, want string }{{"12.5", "20", "2.5"}, {"0.0001", "50", "0.0001"}, {"0.0001", "49", "0"}, {"1000000000", "100", "1000000000"}} {
		a, _ := ParseDecimal(tt.amount)
		s, _ := ParseDecimal(tt.share)
		if got := a.Percent(s).String(); got != tt.want {
			t.Errorf("%s %% of %s is %s, want %s", tt.share, tt.amount, got, tt.want)
		}
	}
}

func TestServiceTerms(t *testing.T) {
	day := func(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 12, 0, 0, 0, time.UTC) }
	plan := Plan{Name: "p", IncludedMonths: 1, GraceDays: 10}
	for from, want := range map[time.Time]time.Time{
		day(2026, 1, 15): day(2026, 2, 15), day(2026, 1, 31): day(2026, 2, 28), day(2028, 1, 31): day(2028, 2, 29), day(2026, 12, 31): day(2027, 1, 31),
	} {
		if got := (ServiceTerm{}).Begin(plan, from).EndsAt; !got.Equal(want) {
			t.Errorf("a month from %v is %v", from, got)
		}
	}
	term := ServiceTerm{Prepaid: 2}.Begin(plan, day(2026, 1, 15))
	if !term.EndsAt.Equal(day(2026, 4, 15)) || !term.RefuseAt.Equal(day(2026, 4, 25)) || term.Prepaid != 0 || term.Plan != "p" {
		t.Fatalf("%+v", term)
	}
	for at, want := range map[time.Time]ServiceState{
		day(2026, 4, 14): ServiceActive, day(2026, 4, 15): ServiceGrace, day(2026, 4, 24): ServiceGrace, day(2026, 4, 25): ServiceLapsed,
	} {
		if got := term.State(at); got != want {
			t.Errorf("%v: %s", at, got)
		}
	}
	shorter := Plan{Name: "q", GraceDays: 0}
	for _, tt := range []struct{ now, end, refuse time.Time }{
		{day(2026, 2, 1), day(2026, 5, 15), day(2026, 5, 15)},
		{day(2026, 4, 20), day(2026, 5, 15), day(2026, 5, 15)}, // in grace: from its end on
		{day(2026, 8, 1), day(2026, 9, 1), day(2026, 9, 1)},    // lapsed: from now on
	} {
		if got := term.Extend(shorter, 1, tt.now); !got.EndsAt.Equal(tt.end) || !got.RefuseAt.Equal(tt.refuse) {
			t.Errorf("at %v: %+v", tt.now, got)
		}
	}
	// A plan with less grace takes none that was granted.
	long := ServiceTerm{}.Begin(Plan{IncludedMonths: 1, GraceDays: 300}, day(2026, 1, 15))
	if got := long.Extend(shorter, 1, day(2026, 1, 20)); !got.RefuseAt.Equal(long.RefuseAt) {
		t.Errorf("%+v", got)
	}
	if n, due := term.Notice(term.EndsAt.AddDate(0, 0, -31)); due {
		t.Errorf("%+v", n)
	}
	if n, due := term.Notice(term.EndsAt.AddDate(0, 0, -2)); !due || n.Days != 7 || !term.NextNotice(n.At).Equal(term.EndsAt.AddDate(0, 0, -1)) {
		t.Errorf("%+v", n)
	}
	if !term.NextNotice(term.RefuseAt).IsZero() {
		t.Error("something is due after the last")
	}
}

func TestPlansFor(t *testing.T) {
	maker, other := NewOrgID(), NewOrgID()
	joinEUI := lorawan.EUI64{1}
	all := NewPlans([]Plan{{Name: "m", Makers: []OrgID{maker}}, {Name: "r", JoinEUIs: []EUIRange{{First: joinEUI, Last: joinEUI}}}})
	for _, tt := range []struct {
		maker OrgID
		eui   lorawan.EUI64
		want  string
	}{{maker, joinEUI, "r"}, {maker, lorawan.EUI64{2}, "m"}, {other, joinEUI, "r"}, {other, lorawan.EUI64{2}, StandardPlan}} {
		if got := all.For(tt.maker, tt.eui).Name; got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
	if got := NewPlans([]Plan{{Name: "d", Default: true}}).For(other, joinEUI).Name; got != "d" {
		t.Error(got)
	}
}

func TestMonths(t *testing.T) {
	m, err := ParseMonth("2026-12")
	if err != nil || m.String() != "2026-12" || m.Number() != 202612 || !m.Next().Equal(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v %v", m, err)
	}
	east := time.FixedZone("east", 3600*9)
	if got := MonthOf(time.Date(2026, 11, 1, 8, 0, 0, 0, east)).String(); got != "2026-10" {
		t.Errorf("%s: months are those of UTC", got)
	}
	for _, in := range []string{"", "2026", "2026-13", "2026-1", "2026-10-01"} {
		if _, err := ParseMonth(in); err == nil {
			t.Errorf("%q is a month", in)
		}
	}
}
