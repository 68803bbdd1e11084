package store

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"joinery"
)

// RecordRefusals adds counts to those that are stored, all or none, and lets the
// oldest go where a bound is passed (see joinery.MaxDeviceRefusals and those
// beside it). What is about a device or a peer that was deleted meanwhile is
// left out. No audit entry: nothing of custody happened.
//
// All other transactions wait meanwhile, so a statement takes as many rows as
// there are, and bounds are looked at only where a row is new.
func (d *DB) RecordRefusals(ctx context.Context, b joinery.RefusalBatch) error {
	return d.do(ctx, func(t *tx) error {
		return inOrder(
			func() error { return t.countPeers(b.Peers) },
			func() error { return t.countUnknown(b.Unknown) },
			func() error { return t.countDevices(b.Devices) },
			func() error { return t.countAttempts(b.Attempts) },
		)
	})
}

// addCount is how a stored count and a new one become one. Clocks may go back,
// so the times are the extremes; the values are those that came last.
const addCount = ` DO UPDATE SET count = r.count + excluded.count, received = excluded.received,
	first_at = CASE WHEN excluded.first_at < r.first_at THEN excluded.first_at ELSE r.first_at END,
	last_at = CASE WHEN excluded.last_at > r.last_at THEN excluded.last_at ELSE r.last_at END`

func (t *tx) countPeers(counts []joinery.RefusalCount) error {
	return inRuns(counts, func(run []joinery.RefusalCount) error {
		v := valuesOf("peer INTEGER, reason TEXT, count INTEGER, first_at INTEGER, last_at INTEGER, received TEXT")
		for _, c := range run {
			received, err := json.Marshal(c.Received)
			if err != nil {
				return err
			}
			v.add(c.Peer, c.Reason, c.Count, c.First, c.At, string(received))
		}
		return t.exec(v.with(`INSERT INTO refusal_peer AS r (peer, reason, count, first_at, last_at, received)
			SELECT v.peer, v.reason, v.count, v.first_at, v.last_at, v.received
			FROM v JOIN peer p ON p.id = v.peer WHERE p.removed_at IS NULL ON CONFLICT (peer, reason)`+addCount), v.args...)
	})
}

func (t *tx) countUnknown(counts []joinery.RefusalCount) error {
	peers := map[joinery.PeerID]bool{}
	err := inRuns(counts, func(run []joinery.RefusalCount) error {
		v := valuesOf("peer INTEGER, join_eui BLOB, dev_eui BLOB, reason TEXT, count INTEGER, first_at INTEGER, last_at INTEGER, received TEXT")
		for _, c := range run {
			received, err := json.Marshal(c.Received)
			if err != nil {
				return err
			}
			peers[c.Peer] = true
			v.add(c.Peer, c.Received.JoinEUI, c.Received.DevEUI, c.Reason, c.Count, c.First, c.At, string(received))
		}
		return t.exec(v.with(`INSERT INTO refusal_unknown AS r (peer, join_eui, dev_eui, reason, count, first_at, last_at, received)
			SELECT v.peer, v.join_eui, v.dev_eui, v.reason, v.count, v.first_at, v.last_at, v.received
			FROM v JOIN peer p ON p.id = v.peer WHERE p.removed_at IS NULL ON CONFLICT (peer, join_eui, dev_eui)`+
			addCount+`, reason = excluded.reason`), v.args...)
	})
	if err != nil {
		return err
	}
	return inRuns(inOrderOf(peers), func(run []joinery.PeerID) error {
		v := valuesOf("peer INTEGER")
		for _, peer := range run {
			v.add(peer)
		}
		return t.exec(v.with(`DELETE FROM refusal_unknown WHERE (peer, join_eui, dev_eui) IN (SELECT peer, join_eui, dev_eui FROM (
			SELECT peer, join_eui, dev_eui, row_number() OVER (PARTITION BY peer ORDER BY last_at DESC, join_eui, dev_eui) AS place
			FROM refusal_unknown WHERE peer IN (SELECT v.peer FROM v)) AS placed WHERE place > ?)`), append(v.args, joinery.MaxUnknownDevices)...)
	})
}

// everything is the LIMIT of a query that has none: SQLite wants one before an
// OFFSET.
const everything = 1 << 40

func (t *tx) countDevices(counts []joinery.RefusalCount) error {
	var named, known []joinery.RefusalCount
	for _, c := range counts {
		if c.Device == 0 {
			named = append(named, c)
		} else {
			known = append(known, c)
		}
	}
	found, err := t.findRefused(named)
	if err != nil {
		return err
	}
	counts = oneOfEach(append(known, found...))
	devices, peers := map[joinery.DeviceID]bool{}, map[joinery.PeerID]bool{}
	err = inRuns(counts, func(run []joinery.RefusalCount) error {
		added, err := t.newRefusals(run)
		if err != nil {
			return err
		}
		for _, c := range added {
			devices[c.Device], peers[c.Peer] = true, true
		}
		return t.addRefusals(run)
	})
	if err != nil {
		return err
	}
	if err := t.tellRefusals(counts); err != nil {
		return err
	}
	if err := t.boundDevices(inOrderOf(devices)); err != nil {
		return err
	}
	return t.boundPeers(inOrderOf(peers))
}

// findRefused gives the counts whose device is here, with that device: they name
// none. Such a count is the present owner's only if all of it came since that
// one holds the device: it may have waited, and part of it was the former
// owner's to read.
func (t *tx) findRefused(counts []joinery.RefusalCount) (found []joinery.RefusalCount, err error) {
	err = inRuns(counts, func(run []joinery.RefusalCount) error {
		v := valuesOf("place INTEGER, join_eui BLOB, dev_eui BLOB, first_at INTEGER")
		for place, c := range run {
			v.add(place, c.Received.JoinEUI, c.Received.DevEUI, c.First)
		}
		return t.each(v.with(`SELECT v.place, d.id, d.org FROM v JOIN device d ON d.dev_eui = v.dev_eui AND d.join_eui = v.join_eui
			AND d.deleted_at IS NULL AND coalesce(d.owned_since, d.created_at) <= v.first_at ORDER BY v.place`), func(r *row) error {
			c := run[r.int()]
			c.Device, c.Owner = joinery.DeviceID(r.int()), joinery.OrgID(r.int())
			found = append(found, c)
			return nil
		}, v.args...)
	})
	return found, err
}

// oneOfEach makes one of counts that belong into the same row.
func oneOfEach(counts []joinery.RefusalCount) (list []joinery.RefusalCount) {
	places := map[refusalKey]int{}
	for _, c := range counts {
		k := keyOf(c)
		place, known := places[k]
		switch {
		case !known:
			places[k] = len(list)
			list = append(list, c)
		case c.At.Before(list[place].At):
			list[place] = c.With(list[place])
		default:
			list[place] = list[place].With(c)
		}
	}
	return list
}

// newRefusals gives those counts of which there is no row yet, and whose device
// is here.
func (t *tx) newRefusals(run []joinery.RefusalCount) (list []joinery.RefusalCount, err error) {
	v := valuesOf("place INTEGER, device INTEGER, owner INTEGER, peer INTEGER, reason TEXT")
	for place, c := range run {
		v.add(place, c.Device, c.Owner, c.Peer, c.Reason)
	}
	err = t.each(v.with(`SELECT v.place FROM v JOIN device d ON d.id = v.device AND d.deleted_at IS NULL
		LEFT JOIN refusal_device r ON r.device = v.device AND r.owner = v.owner AND r.peer = v.peer AND r.reason = v.reason
		WHERE r.device IS NULL`), func(r *row) error {
		list = append(list, run[r.int()])
		return nil
	}, v.args...)
	return list, err
}

func (t *tx) addRefusals(run []joinery.RefusalCount) error {
	v := valuesOf(`device INTEGER, owner INTEGER, peer INTEGER, reason TEXT, count INTEGER, first_at INTEGER, last_at INTEGER,
		received TEXT, decided TEXT`)
	for _, c := range run {
		received, err := json.Marshal(c.Received)
		if err != nil {
			return err
		}
		decided, err := json.Marshal(c.Decided)
		if err != nil {
			return err
		}
		v.add(c.Device, c.Owner, c.Peer, c.Reason, c.Count, c.First, c.At, string(received), string(decided))
	}
	return t.exec(v.with(`INSERT INTO refusal_device AS r (device, owner, peer, reason, count, first_at, last_at, received, decided)
		SELECT v.device, v.owner, v.peer, v.reason, v.count, v.first_at, v.last_at, v.received, v.decided
		FROM v JOIN device d ON d.id = v.device WHERE d.deleted_at IS NULL
		ON CONFLICT (device, owner, peer, reason)`+addCount+`, decided = excluded.decided`), v.args...)
}

// boundDevices lets the oldest rows of devices go that have too many.
func (t *tx) boundDevices(devices []joinery.DeviceID) error {
	return inRuns(devices, func(run []joinery.DeviceID) error {
		v := valuesOf("device INTEGER")
		for _, device := range run {
			v.add(device)
		}
		return t.exec(v.with(`DELETE FROM refusal_device WHERE (device, owner, peer, reason) IN (SELECT device, owner, peer, reason FROM (
			SELECT device, owner, peer, reason, row_number() OVER (PARTITION BY device ORDER BY last_at DESC, owner, peer, reason) AS place
			FROM refusal_device WHERE device IN (SELECT v.device FROM v)) AS placed WHERE place > ?)`), append(v.args, joinery.MaxDeviceRefusals)...)
	})
}

// peerRoom is how many rows of a peer go at a time when it has too many, so that
// not every batch looks for the oldest among all.
const peerRoom = joinery.MaxPeerRefusals / 16

// boundPeers lets the oldest rows of peers go that have too many.
func (t *tx) boundPeers(peers []joinery.PeerID) error {
	for _, peer := range peers {
		n, err := t.integer("SELECT count(*) FROM refusal_device WHERE peer = ?", peer)
		if err != nil {
			return err
		}
		if n <= joinery.MaxPeerRefusals {
			continue
		}
		err = t.exec(`DELETE FROM refusal_device WHERE peer = ? AND (device, owner, reason) IN (SELECT device, owner, reason
			FROM refusal_device WHERE peer = ? ORDER BY last_at DESC LIMIT ? OFFSET ?)`,
			peer, peer, everything, joinery.MaxPeerRefusals-peerRoom)
		if err != nil {
			return err
		}
	}
	return nil
}

// inOrderOf gives the keys of a set in order, so that equal batches are equal
// statements.
func inOrderOf[K ~int64, V any](set map[K]V) []K { return slices.Sorted(maps.Keys(set)) }

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
		count, err := scanDeviceRefusal(r)
		list = append(list, count)
		return err
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

// scanDeviceRefusal reads those, device, owner and decided.
func scanDeviceRefusal(r *row) (c joinery.RefusalCount, err error) {
	if c, err = scanRefusal(r); err != nil {
		return c, err
	}
	c.Device, c.Owner = joinery.DeviceID(r.int()), joinery.OrgID(r.int())
	return c, json.Unmarshal([]byte(r.text()), &c.Decided)
}

// scanRefusal reads the columns that all three tables have.
func scanRefusal(r *row) (c joinery.RefusalCount, err error) {
	c.Peer, c.Reason, c.Count, c.First, c.At = joinery.PeerID(r.int()), joinery.RefusalReason(r.text()), uint64(r.int()), r.time(), r.time()
	return c, json.Unmarshal([]byte(r.text()), &c.Received)
}
