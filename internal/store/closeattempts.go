package store

import (
	"context"
	"strconv"
	"time"

	"joinery"
	"joinery/lorawan"
)

// Refused attempts come into the custody log as counts: the first of its kind at
// once, and what follows when its hour is over. Who else would tell of the last
// ones is the next refusal of that kind, which may never come.

// closeMost bounds what one transaction closes.
const closeMost = 64

// CloseAttempts puts into the custody log what was refused more than an hour
// before at and is not told yet: requests about devices, wrong owner tokens, and
// attempts at the management API. It tells whether there is more. Where there is
// nothing, it costs a look.
func (d *DB) CloseAttempts(ctx context.Context, at time.Time) (more bool, err error) {
	due := false
	err = d.read(ctx, func(c conn) error {
		n, err := c.integer(`SELECT CASE WHEN EXISTS (SELECT 1 FROM refusal_device WHERE `+untold+`)
			OR EXISTS (SELECT 1 FROM claim_failure WHERE at <= ?) OR EXISTS (SELECT 1 FROM attempt WHERE `+hourOver+`) THEN 1 ELSE 0 END`,
			at.Add(-tellEvery), at.Add(-tellEvery), at.Add(-tellEvery), at)
		due = n > 0
		return err
	})
	if err != nil || !due {
		return false, err
	}
	return write(ctx, d, func(t *tx) (more bool, err error) {
		moreAttempts := false
		err = inOrder(
			func() (err error) { more, err = t.closeRefusals(at); return err },
			func() (err error) { moreAttempts, err = t.closeAttempts(at); return err },
			func() error { return t.closeClaims(at, at.Add(-tellEvery)) },
		)
		return more || moreAttempts, err
	})
}

// untold is refusals of an hour that is over; its argument is when that began.
const untold = "count > told AND (told_at IS NULL OR told_at <= ?)"

func (t *tx) closeRefusals(at time.Time) (more bool, err error) {
	var due, none []joinery.RefusalCount
	err = t.each(`SELECT peer, reason, count, first_at, last_at, received, device, owner, decided FROM refusal_device WHERE `+untold+` LIMIT ?`, func(r *row) error {
		c, err := scanDeviceRefusal(r)
		if ours(c) {
			none = append(none, c)
		} else {
			due = append(due, c)
		}
		return err
	}, at.Add(-tellEvery), closeMost)
	if err != nil {
		return false, err
	}
	return len(due)+len(none) == closeMost, inOrder(
		func() error { return t.markTold(none, at) },
		func() error { return t.tell(due, at) },
	)
}

// tellDeleted tells of the refusals of a device before they go with it.
func (t *tx) tellDeleted(id joinery.DeviceID, at time.Time) error {
	var due []joinery.RefusalCount
	err := t.each(`SELECT peer, reason, count, first_at, last_at, received, device, owner, decided FROM refusal_device WHERE device = ? AND count > told`,
		func(r *row) error {
			c, err := scanDeviceRefusal(r)
			if !ours(c) {
				due = append(due, c)
			}
			return err
		}, id)
	if err != nil {
		return err
	}
	return inRuns(due, func(run []joinery.RefusalCount) error { return t.tell(run, at) })
}

// claimsAtLeast is for how long wrong owner tokens of a device are gathered while
// they go on, besides the time for which they are remembered.
const claimsAtLeast = 45 * time.Minute

// closeClaims forgets wrong owner tokens from before since, and puts their count
// into the custody log of the devices that they were about. While they go on
// that is done each hour or so.
func (t *tx) closeClaims(at, since time.Time) error {
	type tried struct {
		devEUI      lorawan.EUI64
		count       int64
		callers     int64
		first, last time.Time
	}
	var list []tried
	err := t.each(`SELECT f.dev_eui, CAST(sum(f.count) AS bigint), count(DISTINCT f.caller), min(f.at), max(f.at) FROM claim_failure f
		WHERE f.at < ? GROUP BY f.dev_eui HAVING min(f.at) < ? OR NOT EXISTS (SELECT 1 FROM claim_failure n WHERE n.dev_eui = f.dev_eui AND n.at >= ?) ORDER BY f.dev_eui LIMIT ?`, func(r *row) error {
		list = append(list, tried{r.eui(), r.int(), r.int(), r.time(), r.time()})
		return nil
	}, since, since.Add(-claimsAtLeast), since, closeMost)
	if err != nil {
		return err
	}
	for _, f := range list {
		var entries []joinery.AuditEntry
		err := t.each("SELECT id, org FROM device WHERE dev_eui = ? AND deleted_at IS NULL ORDER BY id", func(r *row) error {
			entries = append(entries, joinery.AuditEntry{
				At: at, Event: joinery.AuditClaimRefused, Actor: "joinery", Device: joinery.DeviceID(r.int()), Org: joinery.OrgID(r.int()),
				Detail: map[string]string{
					"count": strconv.FormatInt(f.count, 10), "callers": strconv.FormatInt(f.callers, 10),
					"first": f.first.Format(time.RFC3339), "last": f.last.Format(time.RFC3339),
				},
			})
			return nil
		}, f.devEUI)
		if err != nil {
			return err
		}
		if err := t.audit(entries...); err != nil {
			return err
		}
		if err := t.exec("DELETE FROM claim_failure WHERE dev_eui = ? AND at < ?", f.devEUI, since); err != nil {
			return err
		}
	}
	return nil
}
