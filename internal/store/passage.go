package store

import (
	"bytes"
	"context"
	"time"

	"joinery"
)

func scanPassage(r *row) *joinery.Passage {
	p := joinery.Passage{State: joinery.PassageState(r.text()), Said: r.text(), Offered: r.blob()}
	p.Tries, p.NextAt, p.ChangedAt = uint32(r.int()), r.time(), r.time()
	if p.State == "" {
		return nil
	}
	return &p
}

// beginPassage has an order handed over, where its Join Server is reached.
func (t *tx) beginPassage(id joinery.RekeyID, at time.Time) error {
	return t.exec(`INSERT INTO passage (rekey, state, said, tries, next_at, changed_at)
		SELECT r.id, 'waiting', '', 0, CAST(? AS INTEGER), CAST(? AS INTEGER) FROM rekey r JOIN join_server j ON j.id = r.join_server WHERE r.id = CAST(? AS INTEGER) AND j.url IS NOT NULL`, at, at, id)
}

// offerAnew has the orders of a device looked at again, because the key sets to
// which they lead are others by now, or more is known of who could read its root keys.
func (t *tx) offerAnew(id joinery.DeviceID) error {
	return t.exec("UPDATE passage SET next_at = 0 WHERE state IN ('waiting', 'parked', 'taken') AND rekey IN (SELECT id FROM rekey WHERE device = ?)", id)
}

// DuePassages gives the orders whose hand-over to a Join Server is due at a time,
// at most limit, the longest due first. None of them is due again before until, their
// Lease: so that two servers which share a database do not do the same.
func (d *DB) DuePassages(ctx context.Context, to joinery.JoinServerID, now, until time.Time, limit int) (list []joinery.RekeyOrder, err error) {
	return write(ctx, d, func(t *tx) ([]joinery.RekeyOrder, error) {
		list, err := t.rekeyOrders("p.next_at <= ? AND r.join_server = ? ORDER BY p.next_at, r.id LIMIT ?", now, to, pageLimit(limit))
		for i, o := range list {
			if err == nil {
				err = t.exec("UPDATE passage SET next_at = ? WHERE rekey = ?", until, o.ID)
			}
			list[i].Passage.Lease = until
		}
		return list, err
	})
}

// NextPassage tells when something is due to be handed over to a Join Server, and
// whether anything there waits to be accepted or to join; the zero time is never.
func (d *DB) NextPassage(ctx context.Context, to joinery.JoinServerID) (due time.Time, waits bool, err error) {
	err = d.read(ctx, func(c conn) error {
		_, err := c.one(`SELECT min(p.next_at), coalesce(max(CASE WHEN p.state IN ('parked', 'taken') THEN 1 ELSE 0 END), 0)
			FROM passage p JOIN rekey r ON r.id = p.rekey WHERE r.join_server = ? AND p.state IN ('waiting', 'parked', 'taken')`, func(r *row) error {
			due, waits = r.time(), r.bool()
			return nil
		}, to)
		return err
	})
	return due, waits, err
}

// PassageCounts counts orders by how far their hand-over has come.
func (d *DB) PassageCounts(ctx context.Context) (counts map[joinery.PassageState]int, err error) {
	counts = map[joinery.PassageState]int{}
	err = d.read(ctx, func(c conn) error {
		return c.each("SELECT state, count(*) FROM passage GROUP BY state", func(r *row) error {
			state := joinery.PassageState(r.text())
			counts[state] = int(r.int())
			return nil
		})
	})
	return counts, err
}

// MovePassage notes how far the hand-over of an order has come. One that has ended
// stays, and a state that it has already leaves no entry. What came between since it
// was taken up (p.Lease), such as a key set to be offered, stays due. CodeNotFound.
func (d *DB) MovePassage(ctx context.Context, id joinery.RekeyID, p joinery.Passage, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error { return t.movePassage(id, p, a) })
}

func (t *tx) movePassage(id joinery.RekeyID, p joinery.Passage, a joinery.AuditEntry) error {
	var former joinery.PassageState
	var due time.Time
	var pending bool
	found, err := t.one("SELECT state, CASE WHEN next_at IS NULL THEN 0 ELSE 1 END, next_at FROM passage WHERE rekey = ?", func(r *row) error {
		former, pending, due = joinery.PassageState(r.text()), r.bool(), r.time()
		return nil
	}, id)
	switch {
	case err != nil:
		return err
	case !found:
		return notFound("hand-over of that order")
	case former == joinery.PassageJoined, former == joinery.PassageFile && p.State != joinery.PassageJoined:
		return nil
	}
	changed := any(nil)
	if former != p.State {
		changed = p.ChangedAt
	}
	next := optionalTime(p.NextAt)
	if pending && !due.Equal(p.Lease) && (p.State == joinery.PassageWaiting || p.State == joinery.PassageParked || p.State == joinery.PassageTaken) {
		next = due
	}
	err = t.exec("UPDATE passage SET state = ?, said = ?, offered = coalesce(CAST(? AS BLOB), offered), tries = ?, next_at = ?, changed_at = coalesce(CAST(? AS INTEGER), changed_at) WHERE rekey = ?",
		string(p.State), p.Said, blobOrNull(p.Offered), int64(p.Tries), next, changed, id)
	if err != nil {
		return err
	}
	// A join that is under way thinks again: the device may be told now, or not.
	if err := t.exec("UPDATE key_set SET version = version + 1 WHERE id = (SELECT d.key_set FROM device d JOIN rekey r ON r.device = d.id WHERE r.id = ?)", id); err != nil {
		return err
	}
	if former == p.State || a.Event == "" {
		return nil
	}
	return t.audit(a)
}

func blobOrNull(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

func optionalTime(at time.Time) any {
	if at.IsZero() {
		return nil
	}
	return at
}

// TakeReceipt notes what a page of a Join Server's receipts says, whole or not at
// all: how far hand-overs have come, which orders are confirmed, which end unsent,
// and where the next page begins. CodeConflict where after is not how far the
// receipts were read.
func (d *DB) TakeReceipt(ctx context.Context, from joinery.JoinServerID, after, next joinery.ReceiptPlace, list []joinery.PassageChange) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("UPDATE join_server SET cursor_epoch = ?, cursor = ? WHERE id = ? AND cursor_epoch = ? AND cursor = ?",
			int64(next.Epoch), int64(next.N), from, int64(after.Epoch), int64(after.N))
		if err == nil && n != 1 {
			err = joinery.Errorf(joinery.CodeConflict, "these receipts were read already")
		}
		for _, c := range list {
			if err == nil {
				err = t.changePassage(from, c)
			}
		}
		return err
	})
}

func (t *tx) changePassage(from joinery.JoinServerID, c joinery.PassageChange) error {
	if err := t.movePassage(c.Order, c.Passage, c.Entry); err != nil || c.State == "" {
		return err
	}
	var device joinery.DeviceID
	n, err := t.one("SELECT device FROM rekey WHERE id = ? AND join_server = ? AND state <> 'confirmed' AND (CAST(? AS TEXT) <> 'cancelled' OR state IN ('armed', 'sent'))",
		func(r *row) error { device = joinery.DeviceID(r.int()); return nil }, c.Order, from, string(c.State))
	if err != nil || !n {
		return err
	}
	if err := t.exec("UPDATE rekey SET state = ?, ended_at = ? WHERE id = ?", string(c.State), c.Passage.ChangedAt, c.Order); err != nil {
		return err
	}
	return t.finish(t.settleRekeying(device), c.Ended)
}

// ReadReceiptsAgain begins with the first of a Join Server's receipts again, of an epoch,
// and has what went there offered again: it came back from a backup, and knows less than
// it told.
func (d *DB) ReadReceiptsAgain(ctx context.Context, from joinery.JoinServerID, epoch uint64, now time.Time) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.exec("UPDATE join_server SET cursor_epoch = ?, cursor = 0 WHERE id = ?", int64(epoch), from); err != nil {
			return err
		}
		return t.exec(`UPDATE passage SET state = 'waiting', said = 'it came back from a backup', next_at = ? WHERE state IN ('parked', 'taken')
			AND rekey IN (SELECT id FROM rekey WHERE join_server = ?)`, now, from)
	})
}

// NoteOffered writes, before root keys leave for a Join Server that is reached, that
// they do, and which; each order that it gives still goes there: nobody cancelled it,
// changed its owner, took it as a file, or changed the pin, since it was looked at. What
// happens after comes after they left. The others are left as they are.
func (d *DB) NoteOffered(ctx context.Context, to joinery.JoinServer, now time.Time, list []joinery.PassageOffer) (goes []joinery.RekeyID, err error) {
	return write(ctx, d, func(t *tx) (goes []joinery.RekeyID, err error) {
		for _, o := range list {
			ok, err := t.leaves(o, to, now)
			if err != nil {
				return nil, err
			}
			var offered []byte
			found, err := t.one("SELECT offered FROM passage WHERE rekey = ? AND state IN ('waiting', 'parked', 'taken')", func(r *row) error { offered = r.blob(); return nil }, o.Order)
			if err != nil {
				return nil, err
			}
			if !ok || !found {
				continue
			}
			goes = append(goes, o.Order)
			if bytes.Equal(offered, o.Sum) {
				continue
			}
			if err := t.exec("UPDATE passage SET offered = ? WHERE rekey = ?", o.Sum, o.Order); err != nil {
				return nil, err
			}
			if err := t.audit(o.Entry); err != nil {
				return nil, err
			}
		}
		return goes, nil
	})
}

// NoteHandover writes, before root keys leave for a Join Server as a file, that they
// do: all, or none. So their hand-over has begun also where no other way leads there: the
// pin may change, and what went with the owner is not called back then. CodeConflict where
// one order does not go there any more.
func (d *DB) NoteHandover(ctx context.Context, to joinery.JoinServer, now time.Time, list []joinery.PassageOffer) error {
	return d.do(ctx, func(t *tx) error {
		for _, o := range list {
			ok, err := t.leaves(o, to, now)
			if err == nil && !ok {
				err = joinery.Errorf(joinery.CodeConflict, "order %s ended meanwhile, or its device or Join Server changed; look at it again", o.Order)
			}
			if err == nil {
				err = t.audit(o.Entry)
			}
			if err == nil {
				err = t.exec("INSERT INTO passage (rekey, state, said, tries, changed_at) VALUES (?, 'file', 'by a file', 0, ?) ON CONFLICT DO NOTHING", o.Order, o.Entry.At)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// leaves tells whether root keys may leave by an order to a Join Server, as it is
// pinned in to.
func (t *tx) leaves(o joinery.PassageOffer, to joinery.JoinServer, now time.Time) (bool, error) {
	n, err := t.integer("SELECT count(*) FROM rekey r JOIN join_server j ON j.id = r.join_server WHERE r.id = ? AND j.id = ? AND j.removed_at IS NULL AND j.transport_key = ?",
		o.Order, to.ID, to.TransportKey)
	if err != nil || n == 0 {
		return false, err
	}
	return t.standsStill(o.Order, o.Owner, now)
}

// standsStill tells whether an order is owner's, who holds its device, and is open or
// may have been obeyed.
func (t *tx) standsStill(id joinery.RekeyID, owner joinery.OrgID, now time.Time) (bool, error) {
	n, err := t.integer(`SELECT count(*) FROM rekey r JOIN device d ON d.id = r.device WHERE r.id = ? AND r.org = ? AND d.org = r.org AND d.released = 0 AND d.deleted_at IS NULL
		AND (r.sent > 0 OR r.state = 'armed' AND r.expires_at > ?)`, id, owner, now)
	return n > 0, err
}
