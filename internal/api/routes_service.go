package api

import (
	"bytes"
	"context"
	"encoding/csv"
	"net/http"
	"strconv"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/service"
)

// ActivationService is until when joins of devices are answered, and on what
// terms.
type ActivationService interface {
	Device(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (service.Standing, error)
	// Devices is those whose terms end, soonest first.
	Devices(ctx context.Context, caller joinery.Caller, q joinery.ServiceQuery) ([]service.Standing, error)
	// Extend gives one outcome for each device.
	Extend(ctx context.Context, caller joinery.Caller, devices []joinery.DeviceID, months int, reference string) ([]joinery.ServiceOutcome, error)
	Usage(ctx context.Context, caller joinery.Caller, month joinery.Month, maker joinery.OrgID, fn func(joinery.UsageRow) error) error
	ServicePlans
	ServiceCredits
	ServiceClock
}

// ServicePlans is the operator's plans.
type ServicePlans interface {
	Plans(ctx context.Context, caller joinery.Caller) (joinery.Plans, error)
	PutPlan(ctx context.Context, caller joinery.Caller, p joinery.Plan) (joinery.Plan, error)
	RemovePlan(ctx context.Context, caller joinery.Caller, name string) error
}

// ServiceCredits is what organisations may extend by themselves.
type ServiceCredits interface {
	Credits(ctx context.Context, caller joinery.Caller) ([]joinery.ServiceCredit, error)
	Grant(ctx context.Context, caller joinery.Caller, org joinery.OrgID, months int, reference string) (joinery.ServiceCredit, error)
}

// ServiceClock is whether the clock is believed by which terms end.
type ServiceClock interface {
	ClockState(ctx context.Context, caller joinery.Caller) (service.ClockState, error)
	ConfirmClock(ctx context.Context, caller joinery.Caller) (service.ClockState, error)
	// Doubt is why the clock is in doubt, "" for not.
	Doubt() string
}

func (s *Server) registerService() {
	s.registerPlans()
	s.registerTerms()
	s.registerUsage()
	route(s, spec{method: http.MethodGet, path: "/service/clock", id: "getClock", tag: "service",
		summary:     "Whether the clock is believed by which service terms end",
		description: "For the operator. After a step of more than a day nothing lapses, begins or is reminded of until the clock is confirmed."},
		func(ctx context.Context, caller joinery.Caller, _ *none) (*body[client.Clock], error) {
			c, err := s.Service.ClockState(ctx, caller)
			return ok(clock(c)), err
		})
	route(s, spec{method: http.MethodPost, path: "/service/clock/confirm", id: "confirmClock", tag: "service",
		summary: "Say that the server's clock is right", description: "For the operator. Terms that are over by it lapse from then on."},
		func(ctx context.Context, caller joinery.Caller, _ *none) (*body[client.Clock], error) {
			c, err := s.Service.ConfirmClock(ctx, caller)
			return ok(clock(c)), err
		})
}

func clock(c service.ClockState) client.Clock {
	return client.Clock{Now: utc(c.Now), SeenAt: utc(c.SeenAt), DoubtedAt: utc(c.DoubtedAt), Why: c.Why, Lapsed: c.Lapsed}
}

type planInput struct {
	Name string `query:"name" required:"true" pattern:"^[a-z0-9][a-z0-9-]{0,31}$" patternDescription:"small letters, digits and dashes" doc:"The plan's name"`
}

func (s *Server) registerPlans() {
	route(s, spec{method: http.MethodGet, path: "/service/plans", id: "listPlans", tag: "service",
		summary: "On what terms the activation service is given", description: "For the operator."},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.List[client.Plan]], error) {
			plans, err := s.Service.Plans(ctx, caller)
			if err != nil {
				return nil, err
			}
			return few(*in, "plans", plans, func(p joinery.Plan) string { return p.Name }, plan)
		})
	route(s, spec{method: http.MethodPut, path: "/service/plans", id: "putPlan", tag: "service",
		summary: "Make a plan, or replace the one of its name", description: "For the operator. Terms that were granted stay as they are."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.Plan]) (*body[client.Plan], error) {
			b := in.Body
			p, err := s.Service.PutPlan(ctx, caller, joinery.Plan{
				Name: b.Name, IncludedMonths: b.IncludedMonths, GraceDays: b.GraceDays, Currency: b.Currency,
				ActivationPrice: b.ActivationPrice, MonthPrice: b.MonthPrice, Share: b.SharePercent, Default: b.Default, Makers: b.Makers,
				JoinEUIs: each(b.JoinEUIs, func(r client.EUIRange) joinery.EUIRange { return joinery.EUIRange(r) }),
			})
			return ok(plan(p)), err
		})
	route(s, spec{method: http.MethodDelete, path: "/service/plans", id: "removePlan", tag: "service",
		summary: "Take a plan away", description: "For the operator. Terms that were granted under it stay as they are."},
		func(ctx context.Context, caller joinery.Caller, in *planInput) (*none, error) {
			return nil, s.Service.RemovePlan(ctx, caller, in.Name)
		})
}

func plan(p joinery.Plan) client.Plan {
	return client.Plan{
		Name: p.Name, IncludedMonths: p.IncludedMonths, GraceDays: p.GraceDays, Currency: p.Currency,
		ActivationPrice: p.ActivationPrice, MonthPrice: p.MonthPrice, SharePercent: p.Share, Default: p.Default, Makers: p.Makers,
		JoinEUIs: each(p.JoinEUIs, func(r joinery.EUIRange) client.EUIRange { return client.EUIRange(r) }),
	}
}

type serviceDevicesInput struct {
	Paging
	EndingBefore time.Time `query:"endingBefore" format:"date-time" doc:"Only devices whose term ends before this time"`
	EndingAfter  time.Time `query:"endingAfter" format:"date-time" doc:"Only devices whose term ends after this time"`
}

func (s *Server) registerTerms() {
	route(s, spec{method: http.MethodGet, path: "/devices/{id}/service", id: "getDeviceService", tag: "service",
		summary: "Until when joins of a device are answered"},
		func(ctx context.Context, caller joinery.Caller, in *DevicePath) (*body[client.DeviceService], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			d, err := s.Service.Device(ctx, caller, id)
			return ok(deviceService(d)), err
		})
	route(s, spec{method: http.MethodGet, path: "/service/devices", id: "listServiceDevices", tag: "service",
		summary:     "Devices whose service has begun, in the order in which it ends",
		description: "To the operator all, or those of the organisation for which it acts; else the caller's own."},
		s.listServiceDevices)
	route(s, spec{method: http.MethodPost, path: "/service/extensions", id: "extendService", tag: "service", maxBody: batchBody,
		summary: "Extend the service of devices, at most 10,000",
		description: "The operator extends any; an organisation extends its own, and spends its credit: months times devices. Each device has a result " +
			"of its own. The same reference extends no device twice. A term goes on from its end or, where joins are refused already, from now."},
		s.extendService)
	route(s, spec{method: http.MethodGet, path: "/service/credits", id: "listServiceCredits", tag: "service",
		summary: "By how many months organisations may extend their devices", description: "To the operator all, else the caller's own."},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.List[client.ServiceCredit]], error) {
			list, err := s.Service.Credits(ctx, caller)
			if err != nil {
				return nil, err
			}
			return few(*in, "service-credits", list, func(c joinery.ServiceCredit) string { return c.Org.String() }, credit)
		})
	route(s, spec{method: http.MethodPost, path: "/service/credits", id: "grantServiceCredit", tag: "service",
		summary: "Let an organisation extend its devices by so many months more", description: "For the operator. The same reference never adds twice."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.ServiceGrant]) (*body[client.ServiceCredit], error) {
			c, err := s.Service.Grant(ctx, caller, in.Body.Organisation, in.Body.Months, in.Body.Reference)
			return ok(credit(c)), err
		})
}

func credit(c joinery.ServiceCredit) client.ServiceCredit {
	return client.ServiceCredit{Organisation: c.Org, Months: c.Months}
}

func deviceService(d service.Standing) client.DeviceService {
	return client.DeviceService{
		Device: d.Device, JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, State: string(d.State), Held: d.Held,
		EndsAt: utc(d.Term.EndsAt), JoinsUntil: utc(d.Term.RefuseAt), PrepaidMonths: d.Term.Prepaid, GrantedUnder: d.Term.Plan,
		Plan: d.Plan.Name, Currency: d.Plan.Currency, MonthPrice: d.Plan.MonthPrice, IncludedMonths: d.Plan.IncludedMonths,
	}
}

func (s *Server) listServiceDevices(ctx context.Context, caller joinery.Caller, in *serviceDevicesInput) (*body[client.Page[client.DeviceService]], error) {
	const listing = "service-devices"
	q := joinery.ServiceQuery{EndingBefore: in.EndingBefore, EndingAfter: in.EndingAfter, Limit: in.Limit}
	place, err := in.place(listing, 2)
	if err != nil {
		return nil, err
	}
	if place != nil {
		ms, err := strconv.ParseInt(place[0], 10, 64)
		if err != nil || q.After.Device.UnmarshalText([]byte(place[1])) != nil {
			return nil, errCursor
		}
		q.After.EndsAt = time.UnixMilli(ms)
	}
	list, err := s.Service.Devices(ctx, caller, q)
	if err != nil {
		return nil, err
	}
	p := client.Page[client.DeviceService]{Items: each(list, deviceService)}
	if n := len(list); n > 0 && n == in.Limit {
		last := list[n-1]
		p.Next = cursor(listing, strconv.FormatInt(last.Term.EndsAt.UnixMilli(), 10), last.Device.String())
	}
	return ok(p), nil
}

func (s *Server) extendService(ctx context.Context, caller joinery.Caller, in *body[client.ServiceExtension]) (*body[client.ServiceResults], error) {
	outcomes, err := s.Service.Extend(ctx, caller, in.Body.Devices, in.Body.Months, in.Body.Reference)
	if err != nil {
		return nil, err
	}
	out := client.ServiceResults{Results: make([]client.ServiceResult, len(outcomes))}
	var tried []joinery.Attempt
	for i, o := range outcomes {
		r := client.ServiceResult{Device: o.Device, Status: "extended", EndsAt: utc(o.Term.EndsAt), PrepaidMonths: o.Term.Prepaid}
		switch {
		case o.Err != nil:
			s.logFailure(ctx, "extendService", o.Err)
			if joinery.CodeOf(o.Err) == joinery.CodeNotFound {
				tried = append(tried, attemptAt("extendService", caller, o.Err, joinery.DeviceRef{ID: o.Device})...)
			}
			r = client.ServiceResult{Device: o.Device, Status: "failed", Code: joinery.CodeOf(o.Err), Reason: joinery.MessageOf(o.Err)}
			out.Failed++
		case o.Unchanged:
			r.Status = "unchanged"
			out.Unchanged++
		default:
			out.Extended++
		}
		out.Results[i] = r
	}
	s.attemptedAll(tried)
	return ok(out), nil
}

// UsageInput selects a report. Its name is exported because huma looks past embedded
// types of other names.
type UsageInput struct {
	Month string `query:"month" pattern:"^[0-9]{4}-[0-9]{2}$" patternDescription:"a year and a month" example:"2026-10" doc:"The month, in UTC; absent: the present one"`
	Maker string `query:"maker" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Only devices that this organisation made; for others than the operator their own"`
}

const usageText = "First activations, active devices, extensions, lapses and amounts by maker, plan, currency and share. The figures are what was written down " +
	"when it happened, at the prices of that time: neither a new owner nor a changed plan changes them. Of a month that goes on they grow."

func (s *Server) registerUsage() {
	route(s, spec{method: http.MethodGet, path: "/service/usage", id: "getUsage", tag: "service",
		summary: "What happened in a month, for whoever writes bills", description: usageText},
		func(ctx context.Context, caller joinery.Caller, in *usagePage) (*body[client.List[client.Usage]], error) {
			rows, err := s.usage(ctx, caller, in.UsageInput)
			if err != nil {
				return nil, err
			}
			return few(in.Paging, "usage", rows, usageKey, same)
		})
	route(s, spec{method: http.MethodGet, path: "/service/usage.csv", id: "getUsageCSV", tag: "service", csv: true,
		summary: "What happened in a month, as a CSV", description: usageText},
		func(ctx context.Context, caller joinery.Caller, in *UsageInput) (*csvFile, error) {
			rows, err := s.usage(ctx, caller, *in)
			if err != nil {
				return nil, err
			}
			return &csvFile{ContentType: csvType, Body: usageCSV(rows)}, nil
		})
}

type usagePage struct {
	Paging
	UsageInput
}

// csvFile is an output that is a CSV.
type csvFile struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

const csvType = "text/csv; charset=utf-8; header=present"

func usageKey(u client.Usage) string {
	return u.Maker.String() + "/" + u.Plan + "/" + u.Currency + "/" + u.SharePercent.String()
}

func (s *Server) usage(ctx context.Context, caller joinery.Caller, in UsageInput) (rows []client.Usage, err error) {
	month := joinery.MonthOf(time.Now())
	if in.Month != "" {
		month, err = joinery.ParseMonth(in.Month)
	}
	if err != nil {
		return nil, joinery.WrapError(joinery.CodeInvalid, err, "month: want one such as 2026-10")
	}
	var maker joinery.OrgID
	if in.Maker != "" {
		if maker, err = parse[joinery.OrgID](in.Maker, "organisation"); err != nil {
			return nil, err
		}
	}
	err = s.Service.Usage(ctx, caller, month, maker, func(u joinery.UsageRow) error {
		rows = append(rows, client.Usage{
			Month: month.String(), Maker: u.Maker, Plan: u.Plan, Currency: u.Currency, FirstActivations: u.Activations, ActiveDevices: u.Active,
			Extensions: u.Extensions, ExtensionMonths: u.Months, Lapsed: u.Lapsed, Amount: u.Amount, SharePercent: u.Share, ShareAmount: u.ShareAmount(),
		})
		return nil
	})
	return rows, err
}

func usageCSV(rows []client.Usage) []byte {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	_ = w.Write([]string{
		"month", "maker", "plan", "currency", "firstActivations", "activeDevices", "extensions", "extensionMonths", "lapsed", "amount", "sharePercent", "shareAmount",
	})
	for _, u := range rows { // a buffer takes everything
		_ = w.Write([]string{
			u.Month, u.Maker.String(), u.Plan, u.Currency, n(u.FirstActivations), n(u.ActiveDevices), n(u.Extensions), n(u.ExtensionMonths), n(u.Lapsed),
			u.Amount.String(), u.SharePercent.String(), u.ShareAmount.String(),
		})
	}
	w.Flush()
	return b.Bytes()
}
