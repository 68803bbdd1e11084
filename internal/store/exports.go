package store

import (
	"context"
	"slices"
	"time"

	"joinery"
)

// maxOpenExports bounds what one organisation can have under way, so that a
// script that fails does not fill the database with wrapped keys.
const maxOpenExports = 100

const exportColumns = `SELECT e.id, e.org, e.state, e.recipient, p.name, p.kind, p.thumbprint, e.devices, e.wrapped, e.dropped, e.digest, e.form, e.header, e.needs_approval,
	e.requested_by, e.requested_person, e.requested_at, e.decided_by, e.decided_at, e.note, e.ready_at, e.ended_at, e.expires_at, e.failed, s.root
	FROM export e JOIN export_recipient p ON p.id = e.recipient LEFT JOIN device_set s ON s.id = e.id `

func (c conn) exports(where string, args ...any) (list []joinery.Export, err error) {
	err = c.each(exportColumns+where, func(r *row) error {
		e := joinery.Export{
			ID: joinery.ExportID(r.int()), Org: joinery.OrgID(r.int()), State: joinery.ExportState(r.text()),
			Recipient: joinery.RecipientID(r.int()), RecipientName: r.text(), Kind: joinery.RecipientKind(r.text()), Thumbprint: r.text(),
			Devices: r.int(), Wrapped: r.int(), Dropped: r.int(),
		}
		r.into(e.Digest[:])
		e.Form, e.Header, e.NeedsApproval, e.RequestedBy, e.RequestedPerson, e.RequestedAt = r.text(), r.blob(), r.bool(), r.text(), joinery.PersonID(r.int()), r.time()
		e.DecidedBy, e.DecidedAt, e.Note, e.ReadyAt, e.EndedAt, e.ExpiresAt = r.text(), r.time(), r.text(), r.time(), r.time(), r.time()
		if r.bool() {
			e.State = joinery.ExportFailed
		}
		r.into(e.Root[:])
		list = append(list, e)
		return nil
	}, args...)
	return list, err
}

func (c conn) export(id joinery.ExportID) (joinery.Export, error) {
	list, err := c.exports("WHERE e.id = ?", id)
	if err == nil && len(list) == 0 {
		err = notFound("export")
	}
	if err != nil {
		return joinery.Export{}, err
	}
	return list[0], nil
}

// Export finds an export; CodeNotFound.
func (d *DB) Export(ctx context.Context, id joinery.ExportID) (e joinery.Export, err error) {
	err = d.read(ctx, func(c conn) error { e, err = c.export(id); return err })
	return e, err
}

// Exports gives the exports that q selects, newest first; the next page is Before
// the last of this one.
func (d *DB) Exports(ctx context.Context, q joinery.ExportQuery) (list []joinery.Export, err error) {
	where, args := "WHERE e.id > 0", []any{}
	if q.Org != 0 {
		where, args = "WHERE e.org = ?", append(args, q.Org)
	}
	if q.Before != 0 {
		where, args = where+" AND e.id < ?", append(args, q.Before)
	}
	for i, s := range q.States {
		where, args = where+map[bool]string{true: " AND e.state IN (?", false: ", ?"}[i == 0], append(args, s)
	}
	if len(q.States) > 0 {
		where += ")"
	}
	args = append(args, pageLimit(q.Limit))
	err = d.read(ctx, func(c conn) error { list, err = c.exports(where+" ORDER BY e.id DESC LIMIT ?", args...); return err })
	return list, err
}

// putExport writes what can change of an export. A failed one is stored as a rejected
// one with a mark.
func (t *tx) putExport(e joinery.Export) error {
	failed := e.State == joinery.ExportFailed
	if failed {
		e.State = joinery.ExportRejected
	}
	return t.exec(`UPDATE export SET state = ?, devices = ?, wrapped = ?, dropped = ?, digest = ?, header = ?, needs_approval = ?, decided_by = ?, decided_at = ?,
		note = ?, ready_at = ?, ended_at = ?, expires_at = ?, failed = ? WHERE id = ?`,
		e.State, e.Devices, e.Wrapped, e.Dropped, optional{e.Digest}, e.Header, e.NeedsApproval, optional{e.DecidedBy}, optional{e.DecidedAt},
		e.Note, optional{e.ReadyAt}, optional{e.EndedAt}, e.ExpiresAt, failed, e.ID)
}

// BeginExport makes an export to which devices are added. CodeNotFound where its
// recipient is gone, CodeRateLimited where its organisation has too many open.
func (d *DB) BeginExport(ctx context.Context, e joinery.Export) error {
	return d.do(ctx, func(t *tx) error {
		there, err := t.integer("SELECT count(*) FROM export_recipient WHERE id = ? AND org = ? AND removed_at IS NULL", e.Recipient, e.Org)
		switch {
		case err != nil:
			return err
		case there == 0:
			return notFound("recipient")
		}
		open, err := t.integer("SELECT count(*) FROM export WHERE org = ? AND ended_at IS NULL", e.Org)
		switch {
		case err != nil:
			return err
		case open >= maxOpenExports:
			return joinery.Errorf(joinery.CodeRateLimited, "%d exports of this organisation are under way; acknowledge or withdraw some first", open)
		}
		err = t.exec(`INSERT INTO export (id, org, recipient, form, state, devices, wrapped, dropped, needs_approval, requested_by, requested_person,
			requested_at, note, expires_at) VALUES (?, ?, ?, ?, ?, 0, 0, 0, 0, ?, ?, ?, '', ?)`,
			e.ID, e.Org, e.Recipient, e.Form, joinery.ExportCollecting, e.RequestedBy, optional{e.RequestedPerson}, e.RequestedAt, e.ExpiresAt)
		return conflict(err, "there is such an export")
	})
}

// AddExportDevices adds devices to an export that is collecting, at most
// joinery.MaxExportRows; those that are in it already are left as they are. All or
// nothing: CodeNotFound where a device is not the organisation's, CodeTooLarge
// above joinery.MaxExportDevices.
func (d *DB) AddExportDevices(ctx context.Context, id joinery.ExportID, devices []joinery.DeviceID) (joinery.Export, error) {
	if len(devices) > joinery.MaxExportRows {
		return joinery.Export{}, joinery.Errorf(joinery.CodeTooLarge, "at most %d devices at once", joinery.MaxExportRows)
	}
	return write(ctx, d, func(t *tx) (e joinery.Export, err error) {
		if e, err = t.exportIn(id, joinery.ExportCollecting); err != nil {
			return e, err
		}
		for _, device := range devices {
			added, err := t.changes(`INSERT INTO export_item (export, idx, device, key_set, join_eui, dev_eui, epoch, state, reason)
				SELECT ?, ?, id, key_set, join_eui, dev_eui, owner_epoch, 0, '' FROM device
				WHERE id = ? AND org = ? AND released = 0 AND deleted_at IS NULL ON CONFLICT (export, device) DO NOTHING`,
				id, e.Devices, device, e.Org)
			if err != nil {
				return e, err
			}
			e.Devices += int64(added)
			if added > 0 {
				continue
			}
			if in, err := t.integer("SELECT count(*) FROM export_item WHERE export = ? AND device = ?", id, device); err != nil || in == 0 {
				return e, firstError(err, notFound("device"))
			}
		}
		if e.Devices > joinery.MaxExportDevices {
			return e, joinery.Errorf(joinery.CodeTooLarge, "an export has at most %d devices", joinery.MaxExportDevices)
		}
		return e, t.putExport(e)
	})
}

// exportIn reads an export, which must be in one of these states: CodeConflict.
func (t *tx) exportIn(id joinery.ExportID, states ...joinery.ExportState) (joinery.Export, error) {
	e, err := t.export(id)
	if err != nil {
		return e, err
	}
	for _, s := range states {
		if e.State == s {
			return e, nil
		}
	}
	return e, joinery.Errorf(joinery.CodeConflict, "the export is %s by now", e.State)
}

// ExportDigest gives the digest of an export's devices, and how many there are.
func (d *DB) ExportDigest(ctx context.Context, id joinery.ExportID) (digest [32]byte, devices int64, err error) {
	sum := joinery.NewExportDigest()
	err = d.read(ctx, func(c conn) error {
		return c.each("SELECT join_eui, dev_eui FROM export_item WHERE export = ? ORDER BY idx", func(r *row) error {
			sum.Add(r.eui(), r.eui())
			devices++
			return nil
		}, id)
	})
	return sum.Sum(), devices, err
}

// MoveExport brings an export from one of the states of from to what e says;
// recipient, request and set stay as they are, but for the digest. CodeConflict
// where it is in another state, or has other numbers of devices or another root.
func (d *DB) MoveExport(ctx context.Context, e joinery.Export, from []joinery.ExportState, entries ...joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		now, err := t.exportIn(e.ID, from...)
		if err != nil {
			return err
		}
		if now.Devices != e.Devices || now.Wrapped != e.Wrapped || now.Dropped != e.Dropped || now.Root != e.Root {
			return joinery.Errorf(joinery.CodeConflict, "the export went on meanwhile; read it again")
		}
		return t.finish(t.putExport(e), entries...)
	})
}

const itemColumns = "SELECT idx, device, key_set, join_eui, dev_eui, epoch, state, reason FROM export_item "

func scanItem(r *row) joinery.ExportItem {
	return joinery.ExportItem{
		Index: uint64(r.int()), Device: joinery.DeviceID(r.int()), KeySet: joinery.KeySetID(r.int()), JoinEUI: r.eui(), DevEUI: r.eui(),
		Epoch: uint32(r.int()), State: joinery.ItemState(r.int()), Reason: r.text(),
	}
}

// ExportItems gives at most limit devices of an export from index from on.
func (d *DB) ExportItems(ctx context.Context, id joinery.ExportID, from uint64, limit int) (items []joinery.ExportItem, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each(itemColumns+"WHERE export = ? AND idx >= ? ORDER BY idx LIMIT ?", func(r *row) error {
			items = append(items, scanItem(r))
			return nil
		}, id, from, pageLimit(limit))
	})
	return items, err
}

// ExportWork gives at most limit devices of an export that wait to be wrapped,
// from index from on. The state of one that is gone is zero.
func (d *DB) ExportWork(ctx context.Context, id joinery.ExportID, from uint64, limit int) (items []joinery.ExportItem, states []joinery.ActivationState, err error) {
	limit = min(pageLimit(limit), joinery.MaxExportRows)
	err = d.snapshot(ctx, func(c conn) error {
		items, states = nil, nil
		if err := c.each(itemColumns+"WHERE export = ? AND state = 0 AND idx >= ? ORDER BY idx LIMIT ?", func(r *row) error {
			items = append(items, scanItem(r))
			return nil
		}, id, from, limit); err != nil {
			return err
		}
		for _, item := range items {
			state, _, err := c.oneState(c.states(oneDevice+"AND d.id = ?", item.Device))
			if err != nil {
				return err
			}
			if state.KeySet.Origin == joinery.OriginRekeyed {
				if err := c.lineage(&state.KeySet); err != nil {
					return err
				}
			}
			states = append(states, state)
		}
		return nil
	})
	return items, states, err
}

// StartExport fixes the first line of the file of an export that is approved, and
// gives it. Where it was fixed before, that one stands. CodeConflict where the
// export is in another state.
func (d *DB) StartExport(ctx context.Context, id joinery.ExportID, header []byte) (joinery.Export, error) {
	return write(ctx, d, func(t *tx) (e joinery.Export, err error) {
		if e, err = t.exportIn(id, joinery.ExportApproved, joinery.ExportWorking); err != nil || e.Header != nil {
			return e, err
		}
		e.State, e.Header = joinery.ExportWorking, header
		return e, t.putExport(e)
	})
}

// CommitExport takes what became of devices of an export, at most
// joinery.MaxExportRows. For each that is disclosed it writes the disclosure and its
// audit entry, a copy of exposed with the device and what it rests on, in the transaction that stores
// what its recipient opens: nobody can have that before. A device that is gone, or
// another's, is dropped; one that is not waiting is left as it is, so that the same
// may be handed in again. When no device waits any more the export is ready, until
// expires, and ready is written; where none was wrapped it has failed, and ready is
// written as that. CodeConflict unless it is approved or being worked on.
func (d *DB) CommitExport(ctx context.Context, id joinery.ExportID, items []joinery.WrappedItem, expires time.Time, exposed, ready joinery.AuditEntry) (joinery.Export, error) {
	if len(items) > joinery.MaxExportRows {
		return joinery.Export{}, joinery.Errorf(joinery.CodeTooLarge, "at most %d devices at once", joinery.MaxExportRows)
	}
	return write(ctx, d, func(t *tx) (e joinery.Export, err error) {
		if e, err = t.exportIn(id, joinery.ExportApproved, joinery.ExportWorking); err != nil {
			return e, err
		}
		on, err := t.orderedBy(int64(id), joinery.AuditExportRequested, joinery.AuditExportApproved)
		if err != nil {
			return e, err
		}
		disclosed := exposed
		disclosed.Detail = withMoreDetail(exposed.Detail, on)
		for _, w := range items {
			if err := t.commitItem(&e, w, disclosed); err != nil {
				return e, err
			}
		}
		e.State = joinery.ExportWorking
		if e.Wrapped+e.Dropped < e.Devices {
			return e, t.putExport(e)
		}
		ready.Org, e.Note = e.Org, ""
		if e.Wrapped > 0 {
			e.State, e.ReadyAt, e.ExpiresAt = joinery.ExportReady, ready.At, expires
		} else {
			e.State, e.EndedAt, e.Note = joinery.ExportFailed, ready.At, joinery.NoteNothing
			ready.Event = joinery.AuditExportFailed
		}
		return e, t.finish(t.putExport(e), ready)
	})
}

// commitItem takes one device and counts it in e.
func (t *tx) commitItem(e *joinery.Export, w joinery.WrappedItem, exposed joinery.AuditEntry) error {
	var item joinery.ExportItem
	found, err := t.one(itemColumns+"WHERE export = ? AND idx = ? AND state = 0", func(r *row) error { item = scanItem(r); return nil }, e.ID, w.Index)
	if err != nil || !found {
		return err
	}
	reason, err := t.refuseItem(*e, item)
	switch {
	case err != nil:
		return err
	case reason == "" && w.KeySet != item.KeySet:
		return joinery.Errorf(joinery.CodeInvalid, "device %d of the export has another key set", w.Index)
	case reason == "":
		reason = w.Reason
	}
	if reason != "" {
		e.Dropped++
		return t.exec("UPDATE export_item SET state = 2, reason = ? WHERE export = ? AND idx = ?", reason, e.ID, w.Index)
	}
	if len(w.Blob) == 0 {
		return joinery.Errorf(joinery.CodeInvalid, "device %d of the export has neither keys nor a reason", w.Index)
	}
	if err := t.disclose(*e, item, exposed); err != nil {
		return err
	}
	e.Wrapped++
	return t.exec("UPDATE export_item SET state = 1, blob = ? WHERE export = ? AND idx = ?", w.Blob, e.ID, w.Index)
}

// refuseItem tells why a device must not be disclosed; "" where it may. It takes
// the key set's row first, so that what is looked at stays until the end.
func (t *tx) refuseItem(e joinery.Export, item joinery.ExportItem) (reason string, err error) {
	if err := t.advance(item.Device); err != nil {
		return "", err
	}
	found, err := t.one("SELECT org, owner_epoch, key_set, released FROM device WHERE id = ? AND deleted_at IS NULL", func(r *row) error {
		switch org, epoch, keySet := joinery.OrgID(r.int()), uint32(r.int()), joinery.KeySetID(r.int()); {
		case org != e.Org || epoch != item.Epoch || r.bool():
			reason = joinery.DropOwner
		case keySet != item.KeySet:
			reason = joinery.DropKeySet
		}
		return nil
	}, item.Device)
	if err == nil && !found {
		reason = joinery.DropGone
	}
	return reason, err
}

// disclose remembers for ever that the root keys of a device were made readable to
// the recipient of e.
func (t *tx) disclose(e joinery.Export, item joinery.ExportItem, a joinery.AuditEntry) error {
	a.Org, a.Device = e.Org, item.Device
	return t.finish(inOrder(
		func() error {
			return t.exec("INSERT INTO disclosure (id, key_set, org, at, recipient, kind, export) VALUES (?, ?, ?, ?, ?, ?, ?)",
				joinery.NewDisclosureID(), item.KeySet, e.Org, a.At, e.Thumbprint, e.Kind, e.ID)
		},
		func() error { return t.exec("UPDATE key_set SET disclosed = 1 WHERE id = ?", item.KeySet) },
		func() error {
			return t.changeDevice(item.Device, "UPDATE device SET disclosed = 1 WHERE id = ?", item.Device)
		},
		func() error { return t.offerAnew(item.Device) }, // who has it offered hears of it
	), a)
}

// ExportBlobs gives what was wrapped of an export that is ready, from index from
// on but for the first skip, at most limit devices. CodeConflict where it is not
// ready.
func (d *DB) ExportBlobs(ctx context.Context, id joinery.ExportID, from uint64, skip, limit int) (items []joinery.WrappedItem, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		items = nil
		e, err := c.export(id)
		switch {
		case err != nil:
			return err
		case e.State != joinery.ExportReady:
			return joinery.Errorf(joinery.CodeConflict, "the export is %s; there is something to download only while it is ready", e.State)
		}
		return c.each("SELECT idx, key_set, blob FROM export_item WHERE export = ? AND idx >= ? AND blob IS NOT NULL ORDER BY idx LIMIT ? OFFSET ?", func(r *row) error {
			items = append(items, joinery.WrappedItem{Index: uint64(r.int()), KeySet: joinery.KeySetID(r.int()), Blob: r.blob()})
			return nil
		}, id, from, pageLimit(limit), skip)
	})
	return items, err
}

// DueExports gives exports that should have ended by a time.
func (d *DB) DueExports(ctx context.Context, by time.Time) (list []joinery.Export, err error) {
	err = d.read(ctx, func(c conn) error {
		list, err = c.exports("WHERE e.ended_at IS NULL AND e.expires_at <= ? ORDER BY e.id LIMIT ?", by, maxLimit)
		return err
	})
	return list, err
}

// ClearExports deletes what was wrapped in exports that ended, of at most
// joinery.MaxExportRows devices; more tells whether there is more of it.
func (d *DB) ClearExports(ctx context.Context) (more bool, err error) {
	const left = `SELECT i.export, i.idx FROM export_item i JOIN export e ON e.id = i.export WHERE i.blob IS NOT NULL AND e.ended_at IS NOT NULL
		ORDER BY i.export, i.idx LIMIT ?`
	none := true
	if err := d.read(ctx, func(c conn) error {
		return c.each(left, func(*row) error { none = false; return nil }, 1)
	}); err != nil || none {
		return false, err // an idle server writes nothing
	}
	n, err := write(ctx, d, func(t *tx) (int, error) {
		return t.changes("UPDATE export_item SET blob = NULL WHERE (export, idx) IN ("+left+")", joinery.MaxExportRows)
	})
	return n == joinery.MaxExportRows, err
}

// Disclosures gives every time that root keys of a device were disclosed, oldest
// first: of its key set, of all that it came from or may have by now, and of devices under the same
// EUIs that were deleted, since their keys may be the same; and what the Join Server
// told that gave the device. Of more than a thousand those of this server stay, which
// nobody's word drives out; then those of the present root keys, and the newest. Of a
// device whose keys were disclosed under another JoinEUI only the mark is left.
func (d *DB) Disclosures(ctx context.Context, id joinery.DeviceID) (list []joinery.Disclosure, err error) {
	// What a device derived inside its element is another key than all before.
	const query = `WITH RECURSIVE before(id) AS (
		SELECT k.parent FROM device d JOIN key_set k ON k.id = d.key_set WHERE d.id = ?1 AND k.parent IS NOT NULL
		UNION SELECT k.parent FROM before b JOIN key_set k ON k.id = b.id WHERE k.parent IS NOT NULL),
		mine(id) AS (
		SELECT d.key_set FROM device d WHERE d.id = ?1
		UNION SELECT x.key_set FROM rekey r JOIN disclosure x ON x.rekey = r.id WHERE r.device = ?1
		UNION SELECT o.key_set FROM device d JOIN device o ON o.dev_eui = d.dev_eui AND o.join_eui = d.join_eui AND o.deleted_at > 0 WHERE d.id = ?1
		UNION SELECT k.parent FROM mine m JOIN key_set k ON k.id = m.id WHERE k.parent IS NOT NULL)
		SELECT x.key_set, x.org, x.at, x.recipient, x.kind, x.export, x.rekey, CASE WHEN EXISTS (SELECT 1 FROM before b WHERE b.id = x.key_set) THEN 1 ELSE 0 END
		FROM disclosure x JOIN mine m ON m.id = x.key_set ORDER BY 8, x.at DESC, x.id DESC LIMIT ?2`
	err = d.snapshot(ctx, func(c conn) error {
		list = nil
		err := c.each(query, func(r *row) error {
			list = append(list, joinery.Disclosure{
				KeySet: joinery.KeySetID(r.int()), Org: joinery.OrgID(r.int()), At: r.time(), Recipient: r.text(),
				Kind: joinery.RecipientKind(r.text()), Export: joinery.ExportID(r.int()), Rekey: joinery.RekeyID(r.int()), Former: r.bool(),
			})
			return nil
		}, id, maxLimit)
		if err != nil {
			return err
		}
		told, err := c.toldDisclosures(id, maxLimit-len(list))
		list = append(list, told...)
		slices.Reverse(list)
		slices.SortStableFunc(list, func(a, b joinery.Disclosure) int { return a.At.Compare(b.At) })
		return err
	})
	return list, err
}
