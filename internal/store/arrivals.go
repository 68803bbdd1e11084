package store

import (
	"context"
	"time"

	"joinery"
	"joinery/lorawan"
)

const arrivalColumns = `SELECT a.id, a.join_server, s.name, a.ref, a.org, a.join_eui, a.dev_eui, a.cookie, a.state, a.reason, coalesce(a.device, 0),
	a.content, a.offered_at, a.at, a.changed_at FROM arrival a JOIN join_server s ON s.id = a.join_server `

func (c conn) arrivals(where string, args ...any) (list []joinery.Arrival, err error) {
	err = c.each(arrivalColumns+where, func(r *row) error {
		a := joinery.Arrival{ID: joinery.ArrivalID(r.int()), From: joinery.JoinServerID(r.int()), Server: r.text(), Ref: r.text(), Org: joinery.OrgID(r.int())}
		a.JoinEUI, a.DevEUI = r.eui(), r.eui()
		r.into(a.Cookie[:])
		a.State, a.Reason, a.Device = joinery.ArrivalState(r.text()), r.text(), joinery.DeviceID(r.int())
		a.Content, a.OfferedAt, a.At, a.ChangedAt = r.blob(), r.time(), r.time(), r.time()
		list = append(list, a)
		return nil
	}, args...)
	for i := range list {
		if err == nil {
			err = c.labels(&list[i])
		}
	}
	return list, err
}

func (c conn) labels(a *joinery.Arrival) error {
	return c.each("SELECT label, key_set FROM arrival_key WHERE arrival = ?", func(r *row) error {
		if a.Labels == nil {
			a.Labels = map[string]joinery.KeySetID{}
		}
		label := r.text()
		a.Labels[label] = joinery.KeySetID(r.int())
		return nil
	}, a.ID)
}

// RangeOrg gives the organisation to whose range a JoinEUI belongs; zero where
// nobody has it.
func (d *DB) RangeOrg(ctx context.Context, joinEUI lorawan.EUI64) (org joinery.OrgID, err error) {
	err = d.read(ctx, func(c conn) error { org, err = c.rangeOrg(joinEUI); return err })
	return org, err
}

// Arrive finds the arrival of (From, Ref), or makes a. Of one that is parked the
// content becomes a's where that was offered later; so does that of one that was
// refused for a.Reason. At most limit are parked for an organisation of each Join
// Server: CodeExhausted above. CodeConflict where what is there is another device.
func (d *DB) Arrive(ctx context.Context, a joinery.Arrival, limit int, entry joinery.AuditEntry) (joinery.Arrival, error) {
	return write(ctx, d, func(t *tx) (joinery.Arrival, error) {
		find := func() (found joinery.Arrival, ok bool, err error) {
			list, err := t.arrivals("WHERE a.join_server = ? AND a.ref = ?", a.From, a.Ref)
			if err != nil || len(list) == 0 {
				return found, false, err
			}
			return list[0], true, nil
		}
		was, ok, err := find()
		switch {
		case err != nil:
			return was, err
		case ok && (was.JoinEUI != a.JoinEUI || was.DevEUI != a.DevEUI || was.Cookie != a.Cookie):
			return was, joinery.Errorf(joinery.CodeConflict, "that order was of another device")
		case ok && (was.State == joinery.ArrivalParked || was.State == joinery.ArrivalRefused && was.Reason == a.Reason) && a.OfferedAt.After(was.OfferedAt):
			if was.State != joinery.ArrivalParked {
				err = t.roomToPark(a, limit)
			}
			if err == nil {
				err = t.exec("UPDATE arrival SET state = 'parked', reason = '', content = ?, offered_at = ?, changed_at = ? WHERE id = ?", a.Content, a.OfferedAt, a.ChangedAt, was.ID)
			}
		case ok:
			return was, nil
		default:
			if err := t.roomToPark(a, limit); err != nil {
				return was, err
			}
			err = t.exec(`INSERT INTO arrival (id, join_server, ref, org, join_eui, dev_eui, cookie, state, reason, join_nonce, content, offered_at, at, changed_at)
				VALUES (?, ?, ?, ?, ?, ?, ?, 'parked', '', 0, ?, ?, ?, ?)`,
				a.ID, a.From, a.Ref, a.Org, a.JoinEUI, a.DevEUI, a.Cookie[:], a.Content, a.OfferedAt, a.At, a.ChangedAt)
			if err == nil {
				err = t.audit(entry)
			}
		}
		if err != nil {
			return was, err
		}
		was, _, err = find()
		return was, err
	})
}

// roomToPark refuses an arrival of a Join Server of which limit are parked for its
// organisation already.
func (t *tx) roomToPark(a joinery.Arrival, limit int) error {
	parked, err := t.integer("SELECT count(*) FROM arrival WHERE join_server = ? AND org = ? AND state = 'parked'", a.From, a.Org)
	if err == nil && parked >= int64(limit) {
		err = joinery.Errorf(joinery.CodeExhausted, "%d devices of this Join Server wait to be accepted already", parked)
	}
	return err
}

// RefuseArrival ends an arrival that is parked, for a reason of the protocol's, and
// tells its sender by news. One that is not parked stays as it is: refused is false.
func (d *DB) RefuseArrival(ctx context.Context, id joinery.ArrivalID, reason string, news []byte, entry joinery.AuditEntry) (refused bool, err error) {
	return write(ctx, d, func(t *tx) (bool, error) {
		n, err := t.changes("UPDATE arrival SET state = 'refused', reason = ?, content = NULL, changed_at = ? WHERE id = ? AND state = 'parked'", reason, entry.At, id)
		if err != nil || n == 0 {
			return false, err
		}
		return true, t.finish(t.addNews(id, news), entry)
	})
}

// ParkedArrivals gives at most limit arrivals that are parked as they are since before
// a time, the longest first.
func (d *DB) ParkedArrivals(ctx context.Context, before time.Time, limit int) (list []joinery.Arrival, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		list, err = c.arrivals("WHERE a.state = 'parked' AND a.changed_at < ? ORDER BY a.changed_at, a.id LIMIT ?", before, pageLimit(limit))
		return err
	})
	return list, err
}

// addNews numbers an entry of the receipts for the Join Server of an arrival.
func (t *tx) addNews(id joinery.ArrivalID, line []byte) error {
	return t.exec(`INSERT INTO arrival_news (join_server, n, line)
		SELECT a.join_server, 1 + (SELECT coalesce(max(n), 0) FROM arrival_news WHERE join_server = a.join_server), CAST(? AS BLOB) FROM arrival a WHERE a.id = ?`, line, id)
}

// TakeArrival makes a device of an arrival that is parked, or adds to the key sets
// that its device may have: to those of one that came by an arrival of the same
// Join Server and organisation, and did not join yet. All of it, or nothing.
// CodeConflict where (JoinEUI, DevEUI) is another device, or it joined already;
// CodeExhausted where it may have too many key sets. What is there already is
// done, without an entry.
func (d *DB) TakeArrival(ctx context.Context, in joinery.ArrivedDevice, entry joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		list, err := t.arrivals("WHERE a.id = ?", in.Arrival)
		if err != nil || len(list) == 0 {
			return orNotFound(err, "arrival")
		}
		a := list[0]
		if a.State != joinery.ArrivalParked && a.State != joinery.ArrivalTaken {
			return nil
		}
		if org, err := t.rangeOrg(a.JoinEUI); err != nil || org != a.Org {
			return orConflict(err, "its JoinEUI is of another organisation by now")
		}
		if pinned, err := t.integer("SELECT count(*) FROM join_server WHERE id = ? AND removed_at IS NULL", a.From); err != nil || pinned == 0 {
			return orConflict(err, "the Join Server that handed it over is pinned no more")
		}
		device, err := t.arrivedDevice(a, in)
		if err != nil {
			return err
		}
		added, err := t.addKeys(a, device, in.Keys)
		if err != nil || a.State == joinery.ArrivalTaken && added == 0 {
			return err
		}
		if err := t.settleRekeying(device); err != nil {
			return err
		}
		told, err := t.putTold(device, in.Told, a.Org, entry.At, "handover")
		if err != nil {
			return err
		}
		entry.Device = device
		if a.State == joinery.ArrivalParked {
			err = t.exec("UPDATE arrival SET state = 'taken', device = ?, content = NULL, changed_at = ?, join_nonce = (SELECT k.join_nonce FROM device d JOIN key_set k ON k.id = d.key_set WHERE d.id = ?) WHERE id = ?",
				device, entry.At, device, a.ID)
			if err == nil {
				err = t.addNews(a.ID, in.News)
			}
		}
		entries := []joinery.AuditEntry{entry}
		if told != nil {
			entries = append(entries, *told)
		}
		return t.finish(err, entries...)
	})
}

// TellArrival adds what the Join Server of an arrival that was taken says by now of who
// could read the device's root keys. What it said before stays, and the same again
// changes nothing. Whoever holds the device reads it.
func (d *DB) TellArrival(ctx context.Context, id joinery.ArrivalID, told joinery.Told, at time.Time) error {
	news := false // which an offer that comes again has none of
	err := d.snapshot(ctx, func(c conn) error {
		device, _, err := c.whoArrived(id)
		if err == nil && device != 0 {
			news, err = c.tellsNews(device, &told)
		}
		return err
	})
	if err != nil || !news {
		return err
	}
	return d.do(ctx, func(t *tx) error {
		device, org, err := t.whoArrived(id)
		if err != nil || device == 0 {
			return err
		}
		entry, err := t.putTold(device, &told, org, at, "handover")
		if err != nil || entry == nil {
			return err
		}
		return t.audit(*entry)
	})
}

// whoArrived gives the device of an arrival that was taken, and who holds it; zero where
// there is none any more.
func (c conn) whoArrived(id joinery.ArrivalID) (device joinery.DeviceID, org joinery.OrgID, err error) {
	_, err = c.one("SELECT d.id, d.org FROM arrival a JOIN device d ON d.id = a.device WHERE a.id = ? AND a.state IN ('taken', 'joined') AND d.deleted_at IS NULL", func(r *row) error {
		device, org = joinery.DeviceID(r.int()), joinery.OrgID(r.int())
		return nil
	}, id)
	return device, org, err
}

func orNotFound(err error, what string) error {
	if err == nil {
		err = notFound(what)
	}
	return err
}

func orConflict(err error, text string) error {
	if err == nil {
		err = joinery.Errorf(joinery.CodeConflict, "%s", text)
	}
	return err
}

// arrivedDevice finds the device of an arrival, or makes it with its first key set.
func (t *tx) arrivedDevice(a joinery.Arrival, in joinery.ArrivedDevice) (joinery.DeviceID, error) {
	s, found, err := t.standing("d.key_set = k.id WHERE d.dev_eui = CAST(? AS BLOB) AND d.join_eui = CAST(? AS BLOB) AND d.deleted_at IS NULL", a.DevEUI, a.JoinEUI)
	if err != nil {
		return 0, err
	}
	if found {
		came, err := t.integer(`SELECT count(*) FROM arrival WHERE device = ? AND join_server = ? AND org = ? AND state = 'taken'
			AND NOT EXISTS (SELECT 1 FROM arrival j WHERE j.device = arrival.device AND j.state = 'joined')
			AND EXISTS (SELECT 1 FROM device d JOIN key_set k ON k.id = d.key_set WHERE d.id = arrival.device AND coalesce(k.last_join_at, 0) = 0)`, s.device, a.From, a.Org)
		if err != nil || came == 0 || s.org != a.Org || s.mac != in.Device.MACVersion || a.Device != 0 && a.Device != s.device {
			return 0, orConflict(err, "there is such a device already")
		}
		return s.device, nil
	}
	if a.State != joinery.ArrivalParked {
		return 0, joinery.Errorf(joinery.CodeConflict, "the device was deleted")
	}
	if in.Device.Rekey != 0 { // its former Join Server says how it rekeys
		in.Device.RekeyWord = joinery.RekeyByImporter
	}
	n := joinery.NewDevice{Device: in.Device, KeySet: in.Keys[0].KeySet, Binding: in.Binding, Serial: in.Serial, Told: in.Told}
	i := joinery.Import{Org: a.Org}
	if err := checkNewDevice(i, n); err != nil {
		return 0, err
	}
	return in.Device.ID, t.insertDevice(i, n, 0) // no import commits to it: the entry of its arrival does
}

// addKeys adds what came with an arrival to the key sets that a device may have,
// and gives how many were new to the arrival. A label that another arrival of the
// device had is the same key set.
func (t *tx) addKeys(a joinery.Arrival, device joinery.DeviceID, keys []joinery.ArrivedKeys) (added int, err error) {
	for _, k := range keys {
		if _, known := a.Labels[k.Label]; known {
			continue
		}
		added++
		same, err := t.integer("SELECT k.key_set FROM arrival_key k JOIN arrival o ON o.id = k.arrival WHERE o.device = ? AND o.join_server = ? AND k.label = ?", device, a.From, k.Label)
		if err != nil {
			return added, err
		}
		id := joinery.KeySetID(same)
		if same == 0 {
			id = k.KeySet.ID
			if err := t.addSealed(device, k); err != nil {
				return added, err
			}
		}
		if err := t.exec("INSERT INTO arrival_key (arrival, label, key_set) VALUES (?, ?, ?)", a.ID, k.Label, id); err != nil {
			return added, err
		}
	}
	n, err := t.integer("SELECT count(*) FROM rekey_candidate WHERE device = ?", device)
	if err == nil && n > joinery.MaxRekeyCandidates {
		err = joinery.Errorf(joinery.CodeExhausted, "it would have more than %d key sets that the device may have", joinery.MaxRekeyCandidates)
	}
	return added, err
}

// addSealed adds a key set with its rekeying key, unless it is the device's own,
// which has none yet.
func (t *tx) addSealed(device joinery.DeviceID, k joinery.ArrivedKeys) error {
	own, err := t.integer("SELECT count(*) FROM device WHERE id = ? AND key_set = ?", device, k.KeySet.ID)
	if err == nil && own == 0 {
		err = t.insertSealed(device, k.KeySet)
		if err == nil {
			err = t.exec("INSERT INTO rekey_candidate (device, key_set) VALUES (?, ?)", device, k.KeySet.ID)
		}
	}
	if err != nil || k.Held.ID == 0 {
		return err
	}
	if err := t.insertSealed(device, k.Held); err != nil {
		return err
	}
	return t.exec("INSERT INTO rekeying_key (key_set, held) VALUES (?, ?)", k.KeySet.ID, k.Held.ID)
}

// insertSealed adds a sealed key set beside that of a device. Its JoinNonces go on
// above the device's.
func (t *tx) insertSealed(device joinery.DeviceID, k joinery.KeySet) error {
	err := t.exec(`INSERT INTO key_set (id, device, dev_eui, origin, generation, root10, version, join_nonce, disclosed)
		SELECT CAST(? AS INTEGER), d.id, d.dev_eui, 2, 0, CAST(? AS INTEGER), 0, own.join_nonce, own.disclosed FROM device d JOIN key_set own ON own.id = d.key_set WHERE d.id = ?`,
		k.ID, int64(max(k.Root10, joinery.NwkKey)), device)
	if err != nil {
		return err
	}
	return t.exec("INSERT INTO sealed_root (key_set, nwk_use, nwk_custody, app_use, app_custody) VALUES (?, ?, ?, ?, ?)",
		k.ID, k.Nwk.Use, k.Nwk.Custody, k.App.Use, k.App.Custody)
}

// forgetHeld forgets the rekeying key of a key set that goes.
func (t *tx) forgetHeld(k joinery.KeySetID) error {
	held, err := t.integer("SELECT held FROM rekeying_key WHERE key_set = ?", k)
	if err != nil || held == 0 {
		return err
	}
	return inOrder(
		func() error { return t.exec("DELETE FROM rekeying_key WHERE key_set = ?", k) },
		func() error { return t.exec("DELETE FROM sealed_root WHERE key_set = ?", held) },
		func() error { return t.exec("DELETE FROM key_set WHERE id = ?", held) },
	)
}

// ExpectedArrivals gives at most limit arrivals that are parked and expected by now:
// those of one Join Server, or of all for zero.
func (d *DB) ExpectedArrivals(ctx context.Context, from joinery.JoinServerID, now time.Time, limit int) (list []joinery.Arrival, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		list, err = c.arrivals(`WHERE a.state = 'parked' AND (a.join_server = ?1 OR ?1 = 0) AND EXISTS (SELECT 1 FROM expectation x WHERE x.org = a.org
			AND x.join_server = a.join_server AND x.expires_at > ?2 AND a.dev_eui BETWEEN x.first AND x.last) ORDER BY a.id LIMIT ?3`, from, now, pageLimit(limit))
		return err
	})
	return list, err
}

// Arrivals gives at most limit arrivals of an organisation above after; of all for
// zero.
func (d *DB) Arrivals(ctx context.Context, org joinery.OrgID, after joinery.ArrivalID, limit int) (list []joinery.Arrival, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		list, err = c.arrivals("WHERE (a.org = ?1 OR ?1 = 0) AND a.id > ?2 ORDER BY a.id LIMIT ?3", org, after, pageLimit(limit))
		return err
	})
	return list, err
}

// Arrival finds an arrival; CodeNotFound.
func (d *DB) Arrival(ctx context.Context, id joinery.ArrivalID) (a joinery.Arrival, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		list, err := c.arrivals("WHERE a.id = ?", id)
		if err != nil || len(list) == 0 {
			return orNotFound(err, "arrival")
		}
		a = list[0]
		return nil
	})
	return a, err
}

// joinedArrivals is those of devices that joined here with a key set that came with
// them, and which do not say so yet. A JoinNonce that was raised is no join.
const joinedArrivals = `JOIN device d ON d.id = a.device JOIN key_set k ON k.id = d.key_set
	WHERE a.state = 'taken' AND d.deleted_at IS NULL AND k.last_join_at IS NOT NULL AND k.join_nonce > a.join_nonce
	AND EXISTS (SELECT 1 FROM arrival_key o WHERE o.arrival = a.id AND o.key_set = k.id) `

// JoinedArrivals gives at most limit arrivals from a Join Server, from above after on,
// whose device joined here and which do not say so yet.
func (d *DB) JoinedArrivals(ctx context.Context, from joinery.JoinServerID, after joinery.ArrivalID, limit int) (list []joinery.Arrival, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		list, err = c.arrivals(joinedArrivals+"AND a.join_server = ? AND a.id > ? ORDER BY a.id LIMIT ?", from, after, pageLimit(limit))
		return err
	})
	return list, err
}

// JoinedArrivalsOf gives those of one device.
func (d *DB) JoinedArrivalsOf(ctx context.Context, device joinery.DeviceID) (list []joinery.Arrival, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		list, err = c.arrivals(joinedArrivals+"AND a.device = ? ORDER BY a.id", device)
		return err
	})
	return list, err
}

// CameBy finds the arrival with whose key set a device joined here; CodeNotFound where
// none is noted.
func (d *DB) CameBy(ctx context.Context, device joinery.DeviceID) (a joinery.Arrival, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		list, err := c.arrivals(`JOIN device d ON d.id = a.device JOIN arrival_key o ON o.arrival = a.id AND o.key_set = d.key_set
			WHERE a.state = 'joined' AND a.device = ? ORDER BY a.id DESC LIMIT 1`, device)
		if err != nil || len(list) == 0 {
			return orNotFound(err, "arrival")
		}
		a = list[0]
		return nil
	})
	return a, err
}

// NoteArrivalJoined notes that the device of an arrival joined here, once.
func (d *DB) NoteArrivalJoined(ctx context.Context, id joinery.ArrivalID, news []byte, entry joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("UPDATE arrival SET state = 'joined', changed_at = ? WHERE id = ? AND state = 'taken'", entry.At, id)
		if err != nil || n == 0 {
			return err
		}
		return t.finish(t.addNews(id, news), entry)
	})
}

// ArrivalNews gives at most limit entries of the receipts for a Join Server above
// after, and where the newest is.
func (d *DB) ArrivalNews(ctx context.Context, from joinery.JoinServerID, after uint64, limit int) (list []joinery.ArrivalNews, newest joinery.ReceiptPlace, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		if _, err := c.one("SELECT receipt_epoch, (SELECT coalesce(max(n), 0) FROM arrival_news WHERE join_server = ?) FROM store", func(r *row) error {
			newest = joinery.ReceiptPlace{Epoch: uint64(r.int()), N: uint64(r.int())}
			return nil
		}, from); err != nil {
			return err
		}
		return c.each("SELECT n, line FROM arrival_news WHERE join_server = ? AND n > ? ORDER BY n LIMIT ?", func(r *row) error {
			list = append(list, joinery.ArrivalNews{N: uint64(r.int()), Line: r.blob()})
			return nil
		}, from, int64(min(after, 1<<62)), pageLimit(limit))
	})
	return list, newest, err
}

// Expect adds what an organisation expects of a pinned Join Server; CodeNotFound
// where there is none such, CodeExhausted above limit.
func (d *DB) Expect(ctx context.Context, x joinery.Expectation, limit int, entry joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		there, err := t.integer("SELECT count(*) FROM join_server WHERE id = ? AND removed_at IS NULL", x.From)
		if err != nil || there == 0 {
			return orNotFound(err, "Join Server")
		}
		if err := t.exec("DELETE FROM expectation WHERE org = ? AND expires_at <= ?", x.Org, x.At); err != nil {
			return err
		}
		n, err := t.integer("SELECT count(*) FROM expectation WHERE org = ?", x.Org)
		if err == nil && n >= int64(limit) {
			err = joinery.Errorf(joinery.CodeExhausted, "%d expectations are there already; remove some", n)
		}
		if err != nil {
			return err
		}
		b, netID := x.Binding, any(nil)
		if b == nil {
			b = &joinery.Binding{}
		} else {
			netID = b.NetID
		}
		err = t.exec(`INSERT INTO expectation (id, org, join_server, first, last, net_id, ns_id, as_id, app_s_key, clear_nwk_keys, locked, actor, at, expires_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			x.ID, x.Org, x.From, x.Devices.First, x.Devices.Last, netID, optional{b.NSID}, b.ASID, b.Policy, b.ClearNwkKeys, b.Locked, x.By, x.At, x.ExpiresAt)
		return t.finish(err, entry)
	})
}

// EndExpectation removes an expectation of an organisation; CodeNotFound.
func (d *DB) EndExpectation(ctx context.Context, id joinery.ExpectationID, org joinery.OrgID, entry joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("DELETE FROM expectation WHERE id = ? AND org = ?", id, org)
		if err == nil && n == 0 {
			err = notFound("expectation")
		}
		return t.finish(err, entry)
	})
}

// Expectations gives those of an organisation, oldest first, expired ones included;
// of all for zero.
func (d *DB) Expectations(ctx context.Context, org joinery.OrgID) (list []joinery.Expectation, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each(`SELECT x.id, x.org, x.join_server, s.name, x.first, x.last, x.net_id, x.ns_id, x.as_id, x.app_s_key, x.clear_nwk_keys, x.locked,
			x.actor, x.at, x.expires_at FROM expectation x JOIN join_server s ON s.id = x.join_server WHERE x.org = ?1 OR ?1 = 0 ORDER BY x.id`, func(r *row) error {
			x := joinery.Expectation{ID: joinery.ExpectationID(r.int()), Org: joinery.OrgID(r.int()), From: joinery.JoinServerID(r.int()), Server: r.text()}
			x.Devices = joinery.EUIRange{First: r.eui(), Last: r.eui()}
			bound := !r.null()
			b := joinery.Binding{NetID: r.netID(), NSID: r.eui(), ASID: r.text(), Policy: joinery.AppSKeyPolicy(r.int())}
			b.ClearNwkKeys, b.Locked, b.Source = r.bool(), r.bool(), "owner"
			if bound {
				x.Binding = &b
			}
			x.By, x.At, x.ExpiresAt = r.text(), r.time(), r.time()
			list = append(list, x)
			return nil
		}, org)
	})
	return list, err
}
