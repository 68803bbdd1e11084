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

// pinEnds is what ends with a pin. find gives its ids above ?2, at most ?3 in their order,
// of the Join Server ?1 where that is pinned no more; of all such with 0. end ends one of
// them, unless it ended meanwhile.
var pinEnds = []struct {
	find string
	end  func(t *tx, id int64, actor string, at time.Time) error
}{
	{findPassages, (*tx).endPassage},
	{findParked, (*tx).endParked},
	{findExpectations, (*tx).endExpectation},
}

const (
	findPassages = `SELECT p.rekey FROM passage p JOIN rekey r ON r.id = p.rekey JOIN join_server s ON s.id = r.join_server
		WHERE p.state IN ('waiting', 'parked', 'taken') AND s.removed_at IS NOT NULL AND (s.id = ?1 OR ?1 = 0) AND p.rekey > ?2 ORDER BY p.rekey LIMIT ?3`
	findParked = `SELECT a.id FROM arrival a WHERE a.state = 'parked'
		AND a.join_server IN (SELECT id FROM join_server WHERE removed_at IS NOT NULL AND (id = ?1 OR ?1 = 0)) AND a.id > ?2 ORDER BY a.id LIMIT ?3`
	findExpectations = `SELECT x.id FROM expectation x JOIN join_server s ON s.id = x.join_server
		WHERE s.removed_at IS NOT NULL AND (s.id = ?1 OR ?1 = 0) AND x.id > ?2 ORDER BY x.id LIMIT ?3`
)

// EndUnpinned ends what RemoveJoinServer left: of all Join Servers that are pinned no
// more, hand-overs that are under way and devices that are parked are refused, and
// nothing is expected of them. Each has its entry, by actor, for the organisation whose
// it is. Of much it is many transactions; an error leaves the rest to the next time.
func (d *DB) EndUnpinned(ctx context.Context, actor string, at time.Time) error {
	for _, of := range pinEnds {
		err := d.inParts(ctx, func(c conn, after int64) ([]int64, error) {
			return c.found(of.find, 0, after, maxPinEnds)
		}, func(t *tx, id int64) error { return of.end(t, id, actor, at) })
		if err != nil {
			return err
		}
	}
	return nil
}

// endUnpinned ends what fits into one transaction of what a Join Server leaves, and
// tells whether there may be more.
func (t *tx) endUnpinned(server joinery.JoinServerID, actor string, at time.Time) (more bool, err error) {
	left := maxPinEnds
	for _, of := range pinEnds {
		if left == 0 {
			break
		}
		ids, err := t.found(of.find, server, 0, left)
		for _, id := range ids {
			if err == nil {
				err = of.end(t, id, actor, at)
			}
		}
		if err != nil {
			return false, err
		}
		left -= len(ids)
	}
	return left == 0, nil
}

// inParts ends each of what find gives, maxPinEnds in one transaction. What there is is
// looked for before it, from the last one on: so joins wait for no search, nothing is
// walked through twice, and where nothing is to be done nothing is written. end sees for
// itself that its one still stands as it was found.
func (d *DB) inParts(ctx context.Context, find func(c conn, after int64) ([]int64, error), end func(t *tx, id int64) error) error {
	for after := int64(0); ; {
		var ids []int64
		err := d.read(ctx, func(c conn) (err error) { ids, err = find(c, after); return err })
		if err != nil || len(ids) == 0 {
			return err
		}
		err = d.do(ctx, func(t *tx) error {
			for _, id := range ids {
				if err := end(t, id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || len(ids) < maxPinEnds {
			return err
		}
		after = ids[len(ids)-1]
	}
}

func (c conn) found(query string, args ...any) (ids []int64, err error) {
	err = c.each(query, func(r *row) error { ids = append(ids, r.int()); return nil }, args...)
	return ids, err
}

func (t *tx) endPassage(id int64, actor string, at time.Time) error {
	orders, err := t.rekeyOrders(`r.id = ? AND p.state IN ('waiting', 'parked', 'taken') AND s.removed_at IS NOT NULL`, id)
	if err != nil || len(orders) == 0 {
		return err
	}
	return t.refusePassage(orders[0], saidUnpinned, actor, at)
}

// refusePassage ends the hand-over of an order here, for who gave it.
func (t *tx) refusePassage(o joinery.RekeyOrder, said, actor string, at time.Time) error {
	return t.movePassage(o.ID, joinery.Passage{State: joinery.PassageRefused, Said: said, ChangedAt: at}, joinery.AuditEntry{
		At: at, Event: joinery.AuditRekeyPassage, Actor: actor, Org: o.Owner, Device: o.Device,
		Detail: map[string]string{"order": o.ID.String(), "to": o.To, "state": string(joinery.PassageRefused), "said": said},
	})
}

func (t *tx) endParked(id int64, actor string, at time.Time) error {
	list, err := t.arrivals("WHERE a.id = ? AND a.state = 'parked' AND s.removed_at IS NOT NULL", id)
	if err != nil || len(list) == 0 {
		return err
	}
	a := list[0]
	err = t.exec("UPDATE arrival SET state = 'refused', reason = ?, content = NULL, changed_at = ? WHERE id = ?", reasonNoRange, at, a.ID)
	return t.finish(err, joinery.AuditEntry{At: at, Event: joinery.AuditRekeyRefused, Actor: actor, Org: a.Org, Detail: map[string]string{
		"arrival": a.ID.String(), "from": a.Server, "order": a.Ref, "cookie": a.Cookie.String(), "join_eui": a.JoinEUI.String(), "dev_eui": a.DevEUI.String(),
		"reason": reasonNoRange, "by": byEndOfPin,
	}})
}

func (t *tx) endExpectation(id int64, actor string, at time.Time) error {
	entry := joinery.AuditEntry{At: at, Event: joinery.AuditExpectationEnded, Actor: actor}
	found, err := t.one("SELECT x.org, s.name FROM expectation x JOIN join_server s ON s.id = x.join_server WHERE x.id = ? AND s.removed_at IS NOT NULL", func(r *row) error {
		entry.Org = joinery.OrgID(r.int())
		entry.Detail = map[string]string{"expectation": joinery.ExpectationID(id).String(), "from": r.text(), "by": byEndOfPin}
		return nil
	}, id)
	if err != nil || !found {
		return err
	}
	return t.finish(t.exec("DELETE FROM expectation WHERE id = ?", id), entry)
}

// repinned is an open order that names another key of its Join Server than the one of a
// thumbprint, and of which nothing left: no root keys, as a file or by an offer, and no
// instruction. Its arguments are the time and that thumbprint.
const repinned = `r.ended_at IS NULL AND r.state IN ('armed', 'sent') AND r.expires_at > ? AND r.thumbprint <> '' AND r.thumbprint <> ?
	AND (p.state IS NULL AND r.sent = 0 OR p.state = 'waiting')`

const findRepinned = "SELECT r.id FROM rekey r LEFT JOIN passage p ON p.rekey = r.id WHERE r.join_server = ? AND r.id > ? AND " + repinned + " ORDER BY r.id LIMIT ?"

// RefuseRepinned refuses hand-overs of open orders that name another key of a Join
// Server than the one of this thumbprint, which is pinned now, each with its entry for
// who gave the order: their devices are not told of them any more. What went out stays
// out: where the keys were taken along as a file, or were offered, or where a device that
// is not waited for there was told already, it is told again, for it may have obeyed, and
// then has nothing else to go by. Of much it is many transactions; an error leaves the
// rest to the next time.
func (d *DB) RefuseRepinned(ctx context.Context, id joinery.JoinServerID, thumbprint, actor string, at time.Time) error {
	return d.inParts(ctx, func(c conn, after int64) ([]int64, error) {
		return c.found(findRepinned, id, after, at, thumbprint, maxPinEnds)
	}, func(t *tx, order int64) error {
		orders, err := t.rekeyOrders("r.id = ? AND r.join_server = ? AND "+repinned, order, id, at, thumbprint)
		if err != nil || len(orders) == 0 {
			return err
		}
		o := orders[0]
		if o.Passage == nil { // its owner would have carried it
			if err := t.exec("INSERT INTO passage (rekey, state, said, tries, next_at, changed_at) VALUES (?, 'waiting', '', 0, ?, ?)", o.ID, at, at); err != nil {
				return err
			}
		}
		return t.refusePassage(o, saidRepinned, actor, at)
	})
}
