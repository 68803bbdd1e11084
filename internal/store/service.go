package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"joinery"
)

// Plans gives the stored plans, by name.
func (d *DB) Plans(ctx context.Context) (plans []joinery.Plan, err error) {
	err = d.snapshot(ctx, func(c conn) error { plans, err = c.plans(); return err })
	return plans, err
}

func (c conn) plans() (plans []joinery.Plan, err error) {
	at := map[string]int{}
	err = c.each(`SELECT name, included_months, grace_days, currency, activation_price, month_price, share, is_default, created_at
		FROM service_plan ORDER BY name`, func(r *row) error {
		p := joinery.Plan{
			Name: r.text(), IncludedMonths: int(r.int()), GraceDays: int(r.int()), Currency: r.text(),
			ActivationPrice: joinery.Decimal(r.int()), MonthPrice: joinery.Decimal(r.int()), Share: joinery.Decimal(r.int()),
			Default: r.bool(), CreatedAt: r.time(),
		}
		at[p.Name] = len(plans)
		plans = append(plans, p)
		return nil
	})
	if err == nil {
		err = c.each("SELECT plan, maker FROM service_plan_maker ORDER BY maker", func(r *row) error {
			p := &plans[at[r.text()]]
			p.Makers = append(p.Makers, joinery.OrgID(r.int()))
			return nil
		})
	}
	if err == nil {
		err = c.each("SELECT plan, first, last FROM service_plan_range ORDER BY first", func(r *row) error {
			p := &plans[at[r.text()]]
			p.JoinEUIs = append(p.JoinEUIs, joinery.EUIRange{First: r.eui(), Last: r.eui()})
			return nil
		})
	}
	return plans, err
}

// PutPlan makes a plan, or with replace puts it in the place of the one of its
// name. What was granted under that stays. Where it is the default, no other is.
// CodeConflict where a plan of the name is there (or with replace is not), or
// another plan has one of its makers or a part of its JoinEUIs; CodeNotFound for
// a maker that is not there.
func (d *DB) PutPlan(ctx context.Context, p joinery.Plan, replace bool, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		plans, err := t.plans()
		if err != nil {
			return err
		}
		if there := slices.ContainsFunc(plans, func(o joinery.Plan) bool { return o.Name == p.Name }); there != replace {
			return joinery.Errorf(joinery.CodeConflict, "the plans changed meanwhile; look at them again")
		}
		for _, o := range plans {
			if err := apart(p, o); err != nil {
				return err
			}
		}
		return t.finish(t.putPlan(p), a)
	})
}

// apart refuses p where it is assigned to what o is assigned to.
func apart(p, o joinery.Plan) error {
	if o.Name == p.Name {
		return nil
	}
	for _, m := range p.Makers {
		if slices.Contains(o.Makers, m) {
			return joinery.Errorf(joinery.CodeConflict, "plan %q is assigned to %s already", o.Name, m)
		}
	}
	for _, r := range p.JoinEUIs {
		for _, or := range o.JoinEUIs {
			if r.Overlaps(or) {
				return joinery.Errorf(joinery.CodeConflict, "plan %q is assigned to JoinEUIs %s to %s already", o.Name, or.First, or.Last)
			}
		}
	}
	return nil
}

func (t *tx) putPlan(p joinery.Plan) error {
	for _, m := range p.Makers {
		n, err := t.integer("SELECT count(*) FROM organisation WHERE id = ?", m)
		if err == nil && n == 0 {
			err = notFound("organisation")
		}
		if err != nil {
			return err
		}
	}
	if err := t.unassign(p.Name); err != nil {
		return err
	}
	if p.Default {
		if err := t.exec("UPDATE service_plan SET is_default = 0 WHERE is_default = 1"); err != nil {
			return err
		}
	}
	err := t.exec(`INSERT INTO service_plan (name, included_months, grace_days, currency, activation_price, month_price, share, is_default, created_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET included_months = excluded.included_months, grace_days = excluded.grace_days,
		currency = excluded.currency, activation_price = excluded.activation_price, month_price = excluded.month_price, share = excluded.share,
		is_default = excluded.is_default`,
		p.Name, p.IncludedMonths, p.GraceDays, p.Currency, p.ActivationPrice, p.MonthPrice, p.Share, p.Default, p.CreatedAt)
	if err != nil {
		return err
	}
	for _, m := range p.Makers {
		if err := t.exec("INSERT INTO service_plan_maker (maker, plan) VALUES (?, ?)", m, p.Name); err != nil {
			return err
		}
	}
	for _, r := range p.JoinEUIs {
		if err := t.exec("INSERT INTO service_plan_range (first, last, plan) VALUES (?, ?, ?)", r.First, r.Last, p.Name); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) unassign(plan string) error {
	if err := t.exec("DELETE FROM service_plan_maker WHERE plan = ?", plan); err != nil {
		return err
	}
	return t.exec("DELETE FROM service_plan_range WHERE plan = ?", plan)
}

// RemovePlan takes a plan away; what was granted under it stays. CodeNotFound.
func (d *DB) RemovePlan(ctx context.Context, name string, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.unassign(name); err != nil {
			return err
		}
		n, err := t.changes("DELETE FROM service_plan WHERE name = ?", name)
		if err == nil && n == 0 {
			err = notFound("plan")
		}
		return t.finish(err, a)
	})
}

// extendAtOnce is how many devices one transaction extends: joins wait meanwhile.
const extendAtOnce = 200

// ExtendService extends the terms of devices, in transactions of some hundreds of
// them, each device with its fact and its audit entry. An outcome is CodeNotFound
// where the device is not there or not x.Org's, CodeConflict where the credit does
// not suffice any more. With err the outcomes so far are given; the same x again
// goes on.
func (d *DB) ExtendService(ctx context.Context, x joinery.ServiceExtension) (all []joinery.ServiceOutcome, err error) {
	for run := range slices.Chunk(x.Devices, extendAtOnce) {
		outcomes, err := write(ctx, d, func(t *tx) ([]joinery.ServiceOutcome, error) { return t.extend(x, run) })
		if err != nil {
			return all, err
		}
		all = append(all, outcomes...)
	}
	return all, nil
}

func (t *tx) extend(x joinery.ServiceExtension, devices []joinery.DeviceID) ([]joinery.ServiceOutcome, error) {
	payer := t.orOperator(x.Org)
	outcomes := make([]joinery.ServiceOutcome, len(devices))
	for i, id := range devices {
		refusal, err := t.alone(func() (err error) { outcomes[i], err = t.extendOne(x, payer, id); return err })
		if err != nil {
			return nil, err
		}
		outcomes[i].Device, outcomes[i].Err = id, refusal
	}
	return outcomes, nil
}

// extendOne extends one device's term. payer is whose order it is.
func (t *tx) extendOne(x joinery.ServiceExtension, payer joinery.OrgID, id joinery.DeviceID) (o joinery.ServiceOutcome, err error) {
	if err := t.advance(id); err != nil { // so that no first activation comes between
		return o, err
	}
	var owner, maker joinery.OrgID
	var plan joinery.Plan
	found, err := t.one(`SELECT org, maker, join_eui, service_plan, service_ends_at, service_refuse_at, service_prepaid
		FROM device WHERE id = ? AND deleted_at IS NULL`, func(r *row) error {
		owner, maker = joinery.OrgID(r.int()), joinery.OrgID(r.int())
		plan = x.Plans.For(maker, r.eui())
		o.Term = scanTerm(r)
		return nil
	}, id)
	if err != nil {
		return o, err
	}
	if !found || x.Org != 0 && owner != x.Org {
		return o, notFound("device")
	}
	done, err := t.integer("SELECT count(*) FROM service_fact WHERE device = ? AND kind = 'extension' AND org = ? AND reference = ?", id, payer, x.Reference)
	if o.Unchanged = done > 0; err != nil || o.Unchanged {
		return o, err
	}
	if o.Term.Prepaid+x.Months > maxPrepaid {
		return o, joinery.Errorf(joinery.CodeConflict, "so many months cannot be kept for a device before its first activation")
	}
	if x.Credit {
		n, err := t.changes("UPDATE service_credit SET months = months - ? WHERE org = ? AND months >= ?", x.Months, payer, x.Months)
		if err == nil && n == 0 {
			err = noCredit()
		}
		if err != nil {
			return o, err
		}
	}
	next := o.Term.Extend(plan, x.Months, x.At)
	if next.EndsAt.Year() > maxYear {
		return o, joinery.Errorf(joinery.CodeConflict, "the term would end after the year %d", maxYear)
	}
	o.Term = next
	ends := int64(0)
	if !next.EndsAt.IsZero() {
		ends = next.EndsAt.UnixMilli()
	}
	err = inOrder(
		func() error { return t.setTerm(id, next, x.At) },
		func() error {
			return t.exec(`INSERT INTO service_fact (device, kind, org, reference, maker, at, ends_at, months, plan, currency, amount, share, credit)
				VALUES (?, 'extension', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
				id, payer, x.Reference, maker, x.At, ends, x.Months, plan.Name, plan.Currency, int64(plan.MonthPrice)*int64(x.Months), plan.Share, x.Credit)
		},
	)
	return o, t.finish(err, joinery.AuditEntry{
		At: x.At, Event: joinery.AuditServiceExtended, Actor: x.Actor, Org: owner, Device: id,
		Detail: termDetail(next, map[string]string{"months": strconv.Itoa(x.Months), "reference": x.Reference}),
	})
}

// maxPrepaid and maxYear bound what sums of extensions come to.
const (
	maxPrepaid = 2400
	maxYear    = 9000
)

func noCredit() error {
	return joinery.Errorf(joinery.CodeConflict, "the credit of the organisation does not suffice; its operator grants more")
}

// termDetail adds to what an audit entry says what the term is.
func termDetail(s joinery.ServiceTerm, detail map[string]string) map[string]string {
	detail["plan"] = s.Plan
	if !s.EndsAt.IsZero() {
		detail["endsAt"], detail["joinsUntil"] = s.EndsAt.Format(time.RFC3339), s.RefuseAt.Format(time.RFC3339)
	}
	return detail
}

func (t *tx) setTerm(id joinery.DeviceID, s joinery.ServiceTerm, now time.Time) error {
	return t.exec("UPDATE device SET service_plan = ?, service_ends_at = ?, service_refuse_at = ?, service_remind_at = ?, service_prepaid = ? WHERE id = ?",
		s.Plan, whenSet(s.EndsAt), whenSet(s.RefuseAt), whenSet(s.NextNotice(now)), s.Prepaid, id)
}

// whenSet is an argument that is NULL for the zero time.
func whenSet(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

// GrantService adds to the credit of an organisation, once for each reference, and
// gives what it is then. CodeNotFound for an organisation that is not there.
func (d *DB) GrantService(ctx context.Context, g joinery.ServiceGrant, a joinery.AuditEntry) (joinery.ServiceCredit, error) {
	return write(ctx, d, func(t *tx) (c joinery.ServiceCredit, err error) {
		c.Org = g.Org
		known, err := t.integer("SELECT count(*) FROM organisation WHERE id = ?", g.Org)
		if err == nil && known == 0 {
			err = notFound("organisation")
		}
		if err != nil {
			return c, err
		}
		n, err := t.changes("INSERT INTO service_grant (org, reference, months, at) VALUES (?, ?, ?, ?) ON CONFLICT (org, reference) DO NOTHING",
			g.Org, g.Reference, g.Months, g.At)
		if err == nil && n > 0 {
			err = t.finish(t.exec(`INSERT INTO service_credit (org, months) VALUES (?, ?)
				ON CONFLICT (org) DO UPDATE SET months = service_credit.months + excluded.months`, g.Org, g.Months), a)
		}
		if err == nil {
			c.Months, err = t.integer("SELECT months FROM service_credit WHERE org = ?", g.Org)
		}
		return c, err
	})
}

// ServiceCredits gives what organisations may still spend; org zero is all.
func (d *DB) ServiceCredits(ctx context.Context, org joinery.OrgID) (list []joinery.ServiceCredit, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each("SELECT org, months FROM service_credit WHERE CAST(? AS INTEGER) IN (0, org) ORDER BY org", func(r *row) error {
			list = append(list, joinery.ServiceCredit{Org: joinery.OrgID(r.int()), Months: r.int()})
			return nil
		}, org)
	})
	return list, err
}

// ServiceDevices gives devices whose terms end, soonest first. It walks along an
// index, so that a page costs what it is long.
func (d *DB) ServiceDevices(ctx context.Context, q joinery.ServiceQuery) (list []joinery.ServiceDevice, err error) {
	where, args := "d.service_ends_at > 0 AND d.service_ends_at < ? AND d.service_ends_at > ? AND (d.service_ends_at, d.id) > (?, ?) AND d.deleted_at IS NULL",
		[]any{q.EndingBefore, int64(0), int64(0), q.After.Device}
	if !q.EndingAfter.IsZero() {
		args[1] = q.EndingAfter
	}
	if q.After.Device != 0 {
		args[2] = q.After.EndsAt
	}
	if q.Org != 0 {
		where, args = "d.org = ? AND "+where, append([]any{q.Org}, args...)
	}
	err = d.read(ctx, func(c conn) error {
		return c.each(`SELECT d.id, d.join_eui, d.dev_eui, d.org, d.maker, d.service_plan, d.service_ends_at, d.service_refuse_at, d.service_prepaid
			FROM device d WHERE `+where+" ORDER BY d.service_ends_at, d.id LIMIT ?", func(r *row) error {
			list = append(list, joinery.ServiceDevice{
				Device: joinery.DeviceID(r.int()), JoinEUI: r.eui(), DevEUI: r.eui(), Owner: joinery.OrgID(r.int()), Maker: joinery.OrgID(r.int()), Term: scanTerm(r),
			})
			return nil
		}, append(args, pageLimit(q.Limit))...)
	})
	return list, err
}

// CountLapsed counts devices whose joins are refused from a time on; for the
// operator, who is asked whether that time is right.
func (d *DB) CountLapsed(ctx context.Context, now time.Time) (n int64, err error) {
	err = d.read(ctx, func(c conn) error {
		n, err = c.integer("SELECT count(*) FROM device WHERE service_ends_at > 0 AND service_ends_at <= ? AND service_refuse_at <= ? AND deleted_at IS NULL", now, now)
		return err
	})
	return n, err
}

// RemindServices tells the owners of at most limit devices what is due at a time,
// each thing once, whichever server does it; it gives how many devices it looked at.
// Of a term that lapsed it notes the fact. Nothing is told while the clock is in
// doubt.
func (d *DB) RemindServices(ctx context.Context, now time.Time, limit int) (n int, err error) {
	var due int64
	err = d.read(ctx, func(c conn) error {
		due, err = c.integer("SELECT 1 FROM device WHERE service_remind_at > 0 AND service_remind_at <= ? LIMIT 1", now)
		return err
	})
	if err != nil || due == 0 {
		return 0, err
	}
	return write(ctx, d, func(t *tx) (int, error) {
		t.aside = true // no join looks at it
		clock, err := t.serviceClock()
		if err != nil || !clock.DoubtedAt.IsZero() {
			return 0, err
		}
		type one struct {
			id           joinery.DeviceID
			owner, maker joinery.OrgID
			term         joinery.ServiceTerm
			since        time.Time
			told         bool
		}
		var list []one
		err = t.each(`SELECT id, org, maker, service_plan, service_ends_at, service_refuse_at, service_prepaid, service_remind_at, deleted_at IS NULL AND released = 0
			FROM device WHERE service_remind_at > 0 AND service_remind_at <= ? ORDER BY service_remind_at LIMIT ?`, func(r *row) error {
			list = append(list, one{joinery.DeviceID(r.int()), joinery.OrgID(r.int()), joinery.OrgID(r.int()), scanTerm(r), r.time(), r.bool()})
			return nil
		}, now, limit)
		if err != nil {
			return 0, err
		}
		for _, o := range list {
			notice, _ := o.term.Notice(now)
			if err := t.exec("UPDATE device SET service_remind_at = ? WHERE id = ?", whenSet(o.term.NextNotice(now)), o.id); err != nil {
				return 0, err
			}
			if notice.Event == joinery.AuditServiceLapsed {
				if err := t.noteLapse(o.id, o.owner, o.maker, o.term, now); err != nil {
					return 0, err
				}
			}
			if !o.told { // deleted or released: there is nobody to tell
				continue
			}
			detail := map[string]string{}
			if notice.Days > 0 {
				detail["daysLeft"] = strconv.Itoa(notice.Days)
			}
			entry := joinery.AuditEntry{At: now, Event: notice.Event, Actor: "server", Org: o.owner, Device: o.id, Detail: termDetail(o.term, detail)}
			if err := t.audit(entry); err != nil {
				return 0, err
			}
		}
		return len(list), nil
	})
}

func (t *tx) noteLapse(id joinery.DeviceID, owner, maker joinery.OrgID, s joinery.ServiceTerm, now time.Time) error {
	return t.exec(`INSERT INTO service_fact (device, kind, org, reference, maker, at, ends_at, months, plan, currency, amount, share, credit)
		VALUES (?, 'lapsed', ?, ?, ?, ?, ?, 0, ?, '', 0, 0, 0) ON CONFLICT (device, kind, org, reference) DO NOTHING`,
		id, owner, strconv.FormatInt(s.RefuseAt.UnixMilli(), 10), maker, now, s.EndsAt, s.Plan)
}

// Usage calls fn with each row of a month's report, in the order of makers and
// plans; maker zero is all.
func (d *DB) Usage(ctx context.Context, month joinery.Month, maker joinery.OrgID, fn func(joinery.UsageRow) error) error {
	return d.snapshot(ctx, func(c conn) error {
		var pending *joinery.UsageRow
		flush := func() (err error) {
			if pending != nil {
				err, pending = fn(*pending), nil
			}
			return err
		}
		// Facts under one plan, currency and share are one row; active and lapsed
		// devices, which have no price, are in the plan's first.
		const query = `SELECT maker, plan, currency, share, CAST(sum(included) AS INTEGER), CAST(sum(active) AS INTEGER),
			CAST(sum(extensions) AS INTEGER), CAST(sum(months) AS INTEGER), CAST(sum(lapsed) AS INTEGER), CAST(sum(amount) AS INTEGER) FROM (
			SELECT maker, plan, currency, share, CASE kind WHEN 'included' THEN 1 ELSE 0 END AS included, 0 AS active,
				CASE kind WHEN 'extension' THEN 1 ELSE 0 END AS extensions, CASE kind WHEN 'extension' THEN months ELSE 0 END AS months, 0 AS lapsed, amount
				FROM service_fact WHERE at >= ?1 AND at < ?2 AND kind <> 'lapsed' AND CAST(?3 AS INTEGER) IN (0, maker)
			UNION ALL SELECT maker, plan, '', 0, 0, 0, 0, 0, 1, 0 FROM service_fact WHERE at >= ?1 AND at < ?2 AND kind = 'lapsed' AND CAST(?3 AS INTEGER) IN (0, maker)
			UNION ALL SELECT maker, plan, '', 0, 0, 1, 0, 0, 0, 0 FROM service_active WHERE month = ?4 AND CAST(?3 AS INTEGER) IN (0, maker)) AS facts
			GROUP BY maker, plan, currency, share ORDER BY maker, plan, currency, share`
		err := c.each(query, func(r *row) error {
			u := joinery.UsageRow{Maker: joinery.OrgID(r.int()), Plan: r.text(), Currency: r.text(), Share: joinery.Decimal(r.int())}
			u.Activations, u.Active, u.Extensions = r.int(), r.int(), r.int()
			u.Months, u.Lapsed, u.Amount = r.int(), r.int(), joinery.Decimal(r.int())
			if p := pending; p != nil && p.Maker == u.Maker && p.Plan == u.Plan && p.Currency == "" && p.Activations+p.Extensions == 0 {
				u.Active, u.Lapsed = u.Active+p.Active, u.Lapsed+p.Lapsed
				pending = nil
			}
			if err := flush(); err != nil {
				return err
			}
			pending = &u
			return nil
		}, month.First(), month.Next(), maker, month.Number())
		if err == nil {
			err = flush()
		}
		return err
	})
}

// serviceClock gives the row of the clock; zero where there is none.
func (c conn) serviceClock() (s joinery.ServiceClock, err error) {
	_, err = c.one("SELECT seen_at, doubted_at, why, confirmed FROM service_clock WHERE id = 1", func(r *row) error {
		s = joinery.ServiceClock{SeenAt: r.time(), DoubtedAt: r.time(), Why: r.text(), Confirmed: r.int()}
		return nil
	})
	return s, err
}

// ServiceClock gives what is written down of the clock.
func (d *DB) ServiceClock(ctx context.Context) (s joinery.ServiceClock, err error) {
	err = d.read(ctx, func(c conn) error { s, err = c.serviceClock(); return err })
	return s, err
}

// SeeClock writes down what time it is, and doubts the clock where why is not
// empty, or where the time is more than MaxClockStep from what was written down
// last. A clock in doubt stays so, and its last good time, until it is confirmed.
func (d *DB) SeeClock(ctx context.Context, now time.Time, why string) (joinery.ServiceClock, error) {
	return write(ctx, d, func(t *tx) (joinery.ServiceClock, error) {
		t.aside = true
		s, err := t.serviceClock()
		if err != nil || !s.DoubtedAt.IsZero() {
			return s, err
		}
		if step := now.Sub(s.SeenAt); why == "" && !s.SeenAt.IsZero() && step.Abs() > joinery.MaxClockStep {
			why = fmt.Sprintf("it says %s, and %s was written down last", now.UTC().Format(time.RFC3339), s.SeenAt.Format(time.RFC3339))
		}
		if why == "" {
			s.SeenAt = now.UTC().Truncate(time.Millisecond)
			return s, t.putClock(s)
		}
		s.DoubtedAt, s.Why = now.UTC().Truncate(time.Millisecond), why
		if s.SeenAt.IsZero() {
			s.SeenAt = s.DoubtedAt
		}
		return s, t.finish(t.putClock(s), joinery.AuditEntry{
			At: s.DoubtedAt, Event: joinery.AuditClockDoubted, Actor: "server", Org: t.operator, Detail: map[string]string{"why": why},
		})
	})
}

// ConfirmClock takes the operator's word that the clock is right now. CodeConflict
// where it is not in doubt.
func (d *DB) ConfirmClock(ctx context.Context, a joinery.AuditEntry) (joinery.ServiceClock, error) {
	return write(ctx, d, func(t *tx) (joinery.ServiceClock, error) {
		s, err := t.serviceClock()
		if err == nil && s.DoubtedAt.IsZero() {
			err = joinery.Errorf(joinery.CodeConflict, "the clock is not in doubt: there is nothing to confirm")
		}
		if err != nil {
			return s, err
		}
		a.Org = t.operator
		a.Detail = map[string]string{"why": s.Why, "since": s.DoubtedAt.Format(time.RFC3339)}
		s = joinery.ServiceClock{SeenAt: a.At, Confirmed: s.Confirmed + 1}
		return s, t.finish(t.putClock(s), a)
	})
}

func (t *tx) putClock(s joinery.ServiceClock) error {
	return t.exec(`INSERT INTO service_clock (id, seen_at, doubted_at, why, confirmed) VALUES (1, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, doubted_at = excluded.doubted_at, why = excluded.why, confirmed = excluded.confirmed`,
		s.SeenAt, whenSet(s.DoubtedAt), s.Why, s.Confirmed)
}
