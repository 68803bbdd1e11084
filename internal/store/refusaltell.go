package store

import (
	"encoding/json"
	"slices"
	"time"

	"joinery"
)

// How often an event tells of refusals of one device, owner, peer and reason,
// and how many events one transaction adds; the others wait for the next
// refusal of theirs.
const (
	tellEvery = time.Hour
	tellMost  = 16
)

// tellRefusals puts into the feed what owners were not told for a while. It
// costs one look where all was told.
func (t *tx) tellRefusals(counts []joinery.RefusalCount) error {
	at := now()
	due, err := t.dueRefusals(counts, at)
	if err != nil || len(due) == 0 {
		return err
	}
	v := valuesOf("device INTEGER, owner INTEGER, peer INTEGER, reason TEXT")
	pages := make([]eventPage, len(due))
	for i, c := range due {
		note, err := json.Marshal(c)
		if err != nil {
			return err
		}
		pages[i] = eventPage{kind: pageRefusal, org: c.Owner, note: string(note)}
		v.add(c.Device, c.Owner, c.Peer, c.Reason)
	}
	err = t.exec(v.with(`UPDATE refusal_device SET told_at = ?
		WHERE (device, owner, peer, reason) IN (SELECT v.device, v.owner, v.peer, v.reason FROM v)`), append(v.args, at)...)
	if err != nil {
		return err
	}
	return t.addPages(pages...)
}

// dueRefusals gives what is stored of those counts of which an event is due. A
// clock that went back makes all due.
func (t *tx) dueRefusals(counts []joinery.RefusalCount, at time.Time) (due []joinery.RefusalCount, err error) {
	counts = slices.DeleteFunc(slices.Clone(counts), func(c joinery.RefusalCount) bool {
		// Our own trouble is no news of the device.
		return c.Reason == joinery.RefusedUnavailable || c.Reason == joinery.RefusedInternal || c.Reason == joinery.RefusedFenced
	})
	err = inRuns(counts, func(run []joinery.RefusalCount) error {
		if len(due) >= tellMost {
			return nil
		}
		v := valuesOf("device INTEGER, owner INTEGER, peer INTEGER, reason TEXT")
		for _, c := range run {
			v.add(c.Device, c.Owner, c.Peer, c.Reason)
		}
		return t.each(v.with(`SELECT r.peer, r.reason, r.count, r.first_at, r.last_at, r.received, r.device, r.owner, r.decided
			FROM v JOIN refusal_device r ON r.device = v.device AND r.owner = v.owner AND r.peer = v.peer AND r.reason = v.reason
			WHERE r.told_at IS NULL OR r.told_at <= ? OR r.told_at > ? LIMIT ?`), func(r *row) error {
			c, err := scanDeviceRefusal(r)
			due = append(due, c)
			return err
		}, append(v.args, at.Add(-tellEvery), at, tellMost)...)
	})
	return due, err
}
