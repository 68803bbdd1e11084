package store

import (
	"context"
	"encoding/json"

	"joinery"
)

// RecordRefusals adds counts to those that are stored, all or none, and lets the
// oldest go where a bound is passed (see joinery.MaxDeviceRefusals and those
// beside it). What is about a device or a peer that was deleted meanwhile is
// left out. No audit entry: nothing of custody happened.
func (d *DB) RecordRefusals(ctx context.Context, b joinery.RefusalBatch) error {
	return d.do(ctx, func(t *tx) error {
		return inOrder(
			func() error { return t.countPeers(b.Peers) },
			func() error { return t.countUnknown(b.Unknown) },
			func() error { return t.countDevices(b.Devices) },
		)
	})
}

// addCount is how a stored count and a new one become one. Clocks may go back,
// so the times are the extremes; the values are those that came last.
const addCount = ` DO UPDATE SET count = r.count + excluded.count, received = excluded.received,
	first_at = CASE WHEN excluded.first_at < r.first_at THEN excluded.first_at ELSE r.first_at END,
	last_at = CASE WHEN excluded.last_at > r.last_at THEN excluded.last_at ELSE r.last_at END`

func (t *tx) countPeers(counts []joinery.RefusalCount) error {
	for _, c := range counts {
		received, err := json.Marshal(c.Received)
		if err != nil {
			return err
		}
		here, err := t.isPeer(c.Peer)
		if err == nil && here {
			err = t.exec(`INSERT INTO refusal_peer AS r (peer, reason, count, first_at, last_at, received) VALUES (?, ?, ?, ?, ?, ?)
				ON CONFLICT (peer, reason)`+addCount, c.Peer, c.Reason, c.Count, c.First, c.At, string(received))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) isPeer(id joinery.PeerID) (bool, error) {
	n, err := t.integer("SELECT count(*) FROM peer WHERE id = ? AND removed_at IS NULL", id)
	return n > 0, err
}

func (t *tx) countUnknown(counts []joinery.RefusalCount) error {
	peers := map[joinery.PeerID]bool{}
	for _, c := range counts {
		received, err := json.Marshal(c.Received)
		if err != nil {
			return err
		}
		here, err := t.isPeer(c.Peer)
		if err == nil && here {
			peers[c.Peer] = true
			err = t.exec(`INSERT INTO refusal_unknown AS r (peer, join_eui, dev_eui, reason, count, first_at, last_at, received)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (peer, join_eui, dev_eui)`+addCount+`, reason = excluded.reason`,
				c.Peer, c.Received.JoinEUI, c.Received.DevEUI, c.Reason, c.Count, c.First, c.At, string(received))
		}
		if err != nil {
			return err
		}
	}
	for peer := range peers {
		err := t.exec(`DELETE FROM refusal_unknown WHERE peer = ? AND (join_eui, dev_eui) IN (SELECT join_eui, dev_eui
			FROM refusal_unknown WHERE peer = ? ORDER BY last_at DESC, join_eui, dev_eui LIMIT ? OFFSET ?)`,
			peer, peer, everything, joinery.MaxUnknownDevices)
		if err != nil {
			return err
		}
	}
	return nil
}

// everything is the LIMIT of a query that has none: SQLite wants one before an
// OFFSET.
const everything = 1 << 40

func (t *tx) countDevices(counts []joinery.RefusalCount) error {
	devices, peers := map[joinery.DeviceID]bool{}, map[joinery.PeerID]bool{}
	for _, c := range counts {
		here, err := t.findRefused(&c)
		if err == nil && here {
			devices[c.Device], peers[c.Peer] = true, true
			err = t.countDevice(c)
		}
		if err != nil {
			return err
		}
	}
	for device := range devices {
		err := t.exec(`DELETE FROM refusal_device WHERE device = ? AND (owner, peer, reason) IN (SELECT owner, peer, reason
			FROM refusal_device WHERE device = ? ORDER BY last_at DESC, owner, peer, reason LIMIT ? OFFSET ?)`,
			device, device, everything, joinery.MaxDeviceRefusals)
		if err != nil {
			return err
		}
	}
	for peer := range peers {
		err := t.exec(`DELETE FROM refusal_device WHERE peer = ? AND (device, owner, reason) IN (SELECT device, owner, reason
			FROM refusal_device WHERE peer = ? ORDER BY last_at DESC LIMIT ? OFFSET ?)`,
			peer, peer, everything, joinery.MaxPeerRefusals)
		if err != nil {
			return err
		}
	}
	return nil
}

// findRefused tells whether the device of c is here, and finds it where c names
// none.
func (t *tx) findRefused(c *joinery.RefusalCount) (bool, error) {
	if c.Device != 0 {
		n, err := t.integer("SELECT count(*) FROM device WHERE id = ? AND deleted_at IS NULL", c.Device)
		return n > 0, err
	}
	return t.one("SELECT id, org FROM device WHERE dev_eui = ? AND join_eui = ? AND deleted_at IS NULL", func(r *row) error {
		c.Device, c.Owner = joinery.DeviceID(r.int()), joinery.OrgID(r.int())
		return nil
	}, c.Received.DevEUI, c.Received.JoinEUI)
}

func (t *tx) countDevice(c joinery.RefusalCount) error {
	received, err := json.Marshal(c.Received)
	if err != nil {
		return err
	}
	decided, err := json.Marshal(c.Decided)
	if err != nil {
		return err
	}
	return t.exec(`INSERT INTO refusal_device AS r (device, owner, peer, reason, count, first_at, last_at, received, decided)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (device, owner, peer, reason)`+addCount+`, decided = excluded.decided`,
		c.Device, c.Owner, c.Peer, c.Reason, c.Count, c.First, c.At, string(received), string(decided))
}

// DeviceRefusals gives what was refused about a device, of all of its owners,
// newest first.
func (d *DB) DeviceRefusals(ctx context.Context, device joinery.DeviceID) (list []joinery.RefusalCount, err error) {
	err = d.read(ctx, func(c conn) error {
		list, err = c.deviceRefusals("WHERE device = ? ORDER BY last_at DESC, peer, reason", device)
		return err
	})
	return list, err
}

// PeerRefusals gives what a peer was refused: all totals, all unknown devices
// that are kept, and the newest rows of devices, at most limit of them.
func (d *DB) PeerRefusals(ctx context.Context, peer joinery.PeerID, limit int) (p joinery.PeerRefusals, err error) {
	limit = pageLimit(limit)
	err = d.snapshot(ctx, func(c conn) (err error) {
		p.Totals, err = c.refusals(`SELECT peer, reason, count, first_at, last_at, received FROM refusal_peer
			WHERE peer = ? ORDER BY last_at DESC, reason`, peer)
		if err != nil {
			return err
		}
		p.Unknown, err = c.refusals(`SELECT peer, reason, count, first_at, last_at, received FROM refusal_unknown
			WHERE peer = ? ORDER BY last_at DESC, join_eui, dev_eui`, peer)
		if err != nil {
			return err
		}
		p.Devices, err = c.deviceRefusals("WHERE peer = ? ORDER BY last_at DESC, device, reason LIMIT ?", peer, limit)
		return err
	})
	return p, err
}

func (c conn) deviceRefusals(where string, args ...any) (list []joinery.RefusalCount, err error) {
	err = c.each("SELECT peer, reason, count, first_at, last_at, received, device, owner, decided FROM refusal_device "+where, func(r *row) error {
		count, err := scanRefusal(r)
		if err != nil {
			return err
		}
		count.Device, count.Owner = joinery.DeviceID(r.int()), joinery.OrgID(r.int())
		list = append(list, count)
		return json.Unmarshal([]byte(r.text()), &list[len(list)-1].Decided)
	}, args...)
	return list, err
}

func (c conn) refusals(query string, args ...any) (list []joinery.RefusalCount, err error) {
	err = c.each(query, func(r *row) error {
		count, err := scanRefusal(r)
		list = append(list, count)
		return err
	}, args...)
	return list, err
}

// scanRefusal reads the columns that all three tables have.
func scanRefusal(r *row) (c joinery.RefusalCount, err error) {
	c.Peer, c.Reason, c.Count, c.First, c.At = joinery.PeerID(r.int()), joinery.RefusalReason(r.text()), uint64(r.int()), r.time(), r.time()
	return c, json.Unmarshal([]byte(r.text()), &c.Received)
}
