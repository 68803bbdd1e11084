package store

import (
	"context"
	"time"

	"joinery"
)

// maxPinEnds bounds what one transaction ends because of a pin: joins wait for it.
const maxPinEnds = 100

// What becomes of a pin ends for its orders.
const (
	saidUnpinned  = "that Join Server is pinned no more"
	saidRepinned  = "that Join Server has another transport key than the order names: cancel the order and give it anew"
	byEndOfPin    = "the Join Server was removed"
	reasonNoRange = "range"
)

// EndUnpinned goes on with what RemoveJoinServer began, some of it a time: of all Join
// Servers that are pinned no more, hand-overs that are under way and devices that are
// parked are refused, and nothing is expected of them. Each has its entry, by actor, for
// the organisation whose it is. more tells whether there may be more.
func (d *DB) EndUnpinned(ctx context.Context, actor string, at time.Time) (more bool, err error) {
	return write(ctx, d, func(t *tx) (bool, error) { return t.endUnpinned(0, actor, at) })
}

// endUnpinned is EndUnpinned for one Join Server; for all with zero.
func (t *tx) endUnpinned(id joinery.JoinServerID, actor string, at time.Time) (more bool, err error) {
	left := maxPinEnds
	for _, end := range []func(joinery.JoinServerID, string, time.Time, int) (int, error){t.endPassages, t.endParked, t.endExpectations} {
		if left == 0 {
			break
		}
		n, err := end(id, actor, at, left)
		if err != nil {
			return false, err
		}
		left -= n
	}
	return left == 0, nil
}

func (t *tx) endPassages(id joinery.JoinServerID, actor string, at time.Time, most int) (int, error) {
	orders, err := t.rekeyOrders(`p.state IN ('waiting', 'parked', 'taken') AND s.removed_at IS NOT NULL AND (s.id = ?1 OR ?1 = 0) ORDER BY r.id LIMIT ?2`, id, most)
	for _, o := range orders {
		if err == nil {
			err = t.refusePassage(o, saidUnpinned, actor, at)
		}
	}
	return len(orders), err
}

// refusePassage ends the hand-over of an order here, for who gave it.
func (t *tx) refusePassage(o joinery.RekeyOrder, said, actor string, at time.Time) error {
	return t.movePassage(o.ID, joinery.Passage{State: joinery.PassageRefused, Said: said, ChangedAt: at}, joinery.AuditEntry{
		At: at, Event: joinery.AuditRekeyPassage, Actor: actor, Org: o.Owner, Device: o.Device,
		Detail: map[string]string{"order": o.ID.String(), "to": o.To, "state": string(joinery.PassageRefused), "said": said},
	})
}

func (t *tx) endParked(id joinery.JoinServerID, actor string, at time.Time, most int) (int, error) {
	list, err := t.arrivals("WHERE a.state = 'parked' AND s.removed_at IS NOT NULL AND (s.id = ?1 OR ?1 = 0) ORDER BY a.id LIMIT ?2", id, most)
	if err != nil {
		return 0, err
	}
	entries := make([]joinery.AuditEntry, len(list))
	for i, a := range list {
		if err := t.exec("UPDATE arrival SET state = 'refused', reason = ?, content = NULL, changed_at = ? WHERE id = ?", reasonNoRange, at, a.ID); err != nil {
			return 0, err
		}
		entries[i] = joinery.AuditEntry{At: at, Event: joinery.AuditRekeyRefused, Actor: actor, Org: a.Org, Detail: map[string]string{
			"arrival": a.ID.String(), "from": a.Server, "order": a.Ref, "cookie": a.Cookie.String(), "join_eui": a.JoinEUI.String(), "dev_eui": a.DevEUI.String(),
			"reason": reasonNoRange, "by": byEndOfPin,
		}}
	}
	return len(list), t.audit(entries...)
}

func (t *tx) endExpectations(id joinery.JoinServerID, actor string, at time.Time, most int) (int, error) {
	var ids []joinery.ExpectationID
	var entries []joinery.AuditEntry
	err := t.each(`SELECT x.id, x.org, s.name FROM expectation x JOIN join_server s ON s.id = x.join_server
		WHERE s.removed_at IS NOT NULL AND (s.id = ?1 OR ?1 = 0) ORDER BY x.id LIMIT ?2`, func(r *row) error {
		x, org := joinery.ExpectationID(r.int()), joinery.OrgID(r.int())
		ids = append(ids, x)
		entries = append(entries, joinery.AuditEntry{At: at, Event: joinery.AuditExpectationEnded, Actor: actor, Org: org,
			Detail: map[string]string{"expectation": x.String(), "from": r.text(), "by": byEndOfPin}})
		return nil
	}, id, most)
	for _, x := range ids {
		if err == nil {
			err = t.exec("DELETE FROM expectation WHERE id = ?", x)
		}
	}
	if err != nil {
		return 0, err
	}
	return len(ids), t.audit(entries...)
}

// RefuseRepinned refuses hand-overs of open orders that name another key of a Join
// Server than the one of this thumbprint, which is pinned now: nothing of theirs left
// yet, and their devices are not told of them any more. Some a time, each with its entry
// for who gave the order; more tells whether there may be more.
func (d *DB) RefuseRepinned(ctx context.Context, id joinery.JoinServerID, thumbprint, actor string, at time.Time) (more bool, err error) {
	return write(ctx, d, func(t *tx) (bool, error) {
		orders, err := t.rekeyOrders(`r.join_server = ? AND r.state IN ('armed', 'sent') AND r.expires_at > ? AND r.thumbprint <> '' AND r.thumbprint <> ?
			AND (p.state IS NULL OR p.state = 'waiting') ORDER BY r.id LIMIT ?`, id, at, thumbprint, maxPinEnds)
		for _, o := range orders {
			if err == nil && o.Passage == nil { // its owner would have carried it
				err = t.exec("INSERT INTO passage (rekey, state, said, tries, next_at, changed_at) VALUES (?, 'waiting', '', 0, ?, ?)", o.ID, at, at)
			}
			if err == nil {
				err = t.refusePassage(o, saidRepinned, actor, at)
			}
		}
		return len(orders) == maxPinEnds, err
	})
}
