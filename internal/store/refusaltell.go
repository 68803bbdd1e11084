package store

import (
	"encoding/json"
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
// costs nothing but a look where all was told.
func (t *tx) tellRefusals(run []joinery.RefusalCount) error {
	at := now()
	v := valuesOf("device INTEGER, owner INTEGER, peer INTEGER, reason TEXT")
	for _, c := range run {
		switch c.Reason {
		case joinery.RefusedUnavailable, joinery.RefusedInternal, joinery.RefusedFenced: // ours, not the device's
		default:
			v.add(c.Device, c.Owner, c.Peer, c.Reason)
		}
	}
	if v.rows == 0 {
		return nil
	}
	type key struct {
		device joinery.DeviceID
		owner  joinery.OrgID
		peer   joinery.PeerID
		reason string
	}
	var due []key
	err := t.each(v.with(`SELECT r.device, r.owner, r.peer, r.reason FROM v JOIN refusal_device r
		ON r.device = v.device AND r.owner = v.owner AND r.peer = v.peer AND r.reason = v.reason
		WHERE r.told_at IS NULL OR r.told_at <= ? OR r.told_at > ? LIMIT ?`), func(r *row) error {
		due = append(due, key{joinery.DeviceID(r.int()), joinery.OrgID(r.int()), joinery.PeerID(r.int()), r.text()})
		return nil
	}, append(v.args, at.Add(-tellEvery), at, tellMost)...) // a clock that went back ends the wait
	if err != nil {
		return err
	}
	for _, k := range due {
		const where = "WHERE device = ? AND owner = ? AND peer = ? AND reason = ?"
		counts, err := t.deviceRefusals(where, k.device, k.owner, k.peer, k.reason)
		if err != nil || len(counts) == 0 {
			return err
		}
		note, err := json.Marshal(counts[0])
		if err != nil {
			return err
		}
		if err := t.exec("UPDATE refusal_device SET told_at = ? "+where, at, k.device, k.owner, k.peer, k.reason); err != nil {
			return err
		}
		if err := t.addPage(eventPage{kind: pageRefusal, org: k.owner, note: string(note)}); err != nil {
			return err
		}
	}
	return nil
}
