package store

import (
	"context"
	"time"

	"joinery"
)

// maxOpenBatches bounds what one organisation can have under way.
const maxOpenBatches = 100

const batchColumns = `SELECT b.id, b.org, b.state, b.join_eui, coalesce(b.join_server, 0), coalesce(b.recipient, 0), coalesce(j.name, p.name), b.thumbprint, b.rekey_key, b.life,
	b.devices, b.armed, b.failed, b.digest, b.needs_approval, b.requested_by, coalesce(b.requested_person, 0), b.requested_at, coalesce(b.decided_by, ''), b.decided_at,
	b.note, b.ended_at, b.expires_at, s.root
	FROM rekey_batch b LEFT JOIN device_set s ON s.id = b.id LEFT JOIN join_server j ON j.id = b.join_server LEFT JOIN export_recipient p ON p.id = b.recipient `

func (c conn) rekeyBatches(where string, args ...any) (list []joinery.RekeyBatch, err error) {
	err = c.each(batchColumns+where, func(r *row) error {
		b := joinery.RekeyBatch{
			ID: joinery.RekeyBatchID(r.int()), Org: joinery.OrgID(r.int()), State: joinery.RekeyBatchState(r.text()), JoinEUI: r.eui(),
			Server: joinery.JoinServerID(r.int()), Recipient: joinery.RecipientID(r.int()), To: r.text(), Thumbprint: r.text(), RekeyKey: r.bool(),
			Life: time.Duration(r.int()) * time.Millisecond, Devices: r.int(), Armed: r.int(), Failed: r.int(),
		}
		r.into(b.Digest[:])
		b.NeedsApproval, b.RequestedBy, b.RequestedPerson, b.RequestedAt = r.bool(), r.text(), joinery.PersonID(r.int()), r.time()
		b.DecidedBy, b.DecidedAt, b.Note, b.EndedAt, b.ExpiresAt = r.text(), r.time(), r.text(), r.time(), r.time()
		r.into(b.Root[:])
		list = append(list, b)
		return nil
	}, args...)
	return list, err
}

func (c conn) rekeyBatch(id joinery.RekeyBatchID) (joinery.RekeyBatch, error) {
	list, err := c.rekeyBatches("WHERE b.id = CAST(? AS INTEGER)", id)
	if err == nil && len(list) == 0 {
		err = notFound("batch")
	}
	if err != nil {
		return joinery.RekeyBatch{}, err
	}
	return list[0], nil
}

// RekeyBatch finds an order to rekey many devices; CodeNotFound.
func (d *DB) RekeyBatch(ctx context.Context, id joinery.RekeyBatchID) (b joinery.RekeyBatch, err error) {
	err = d.read(ctx, func(c conn) error { b, err = c.rekeyBatch(id); return err })
	return b, err
}

// RekeyBatches gives the batches that q selects, newest first; the next page is
// Before the last of this one.
func (d *DB) RekeyBatches(ctx context.Context, q joinery.RekeyBatchQuery) (list []joinery.RekeyBatch, err error) {
	where, args := "WHERE b.id > 0", []any{}
	if q.Org != 0 {
		where, args = "WHERE b.org = ?", append(args, q.Org)
	}
	if q.Before != 0 {
		where, args = where+" AND b.id < ?", append(args, q.Before)
	}
	for i, s := range q.States {
		where, args = where+map[bool]string{true: " AND b.state IN (?", false: ", ?"}[i == 0], append(args, string(s))
	}
	if len(q.States) > 0 {
		where += ")"
	}
	args = append(args, pageLimit(q.Limit))
	err = d.read(ctx, func(c conn) error {
		list, err = c.rekeyBatches(where+" ORDER BY b.id DESC LIMIT ?", args...)
		return err
	})
	return list, err
}

// putRekeyBatch writes what can change of a batch.
func (t *tx) putRekeyBatch(b joinery.RekeyBatch) error {
	return t.exec(`UPDATE rekey_batch SET state = ?, devices = ?, armed = ?, failed = ?, digest = ?, needs_approval = ?, decided_by = ?, decided_at = ?,
		note = ?, ended_at = ?, expires_at = ? WHERE id = ?`,
		string(b.State), b.Devices, b.Armed, b.Failed, optional{b.Digest}, b.NeedsApproval, optional{b.DecidedBy}, optional{b.DecidedAt},
		b.Note, optional{b.EndedAt}, b.ExpiresAt, b.ID)
}

// BeginRekeyBatch makes a batch to which devices are added. CodeNotFound where its
// Join Server or recipient is gone, CodeRateLimited where its organisation has too
// many open.
func (d *DB) BeginRekeyBatch(ctx context.Context, b joinery.RekeyBatch) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.goesTo(b.Server, b.Recipient, b.Org); err != nil {
			return err
		}
		open, err := t.integer("SELECT count(*) FROM rekey_batch WHERE org = ? AND (state = 'approved' OR state IN ('collecting', 'requested') AND expires_at > ?)", b.Org, b.RequestedAt)
		switch {
		case err != nil:
			return err
		case open >= maxOpenBatches:
			return joinery.Errorf(joinery.CodeRateLimited, "%d batches of this organisation are under way; wait for them, or withdraw some", open)
		}
		err = t.exec(`INSERT INTO rekey_batch (id, org, state, join_eui, join_server, recipient, thumbprint, rekey_key, life, devices, armed, failed, needs_approval,
			requested_by, requested_person, requested_at, note, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, ?, ?, ?, '', ?)`,
			b.ID, b.Org, string(joinery.BatchCollecting), b.JoinEUI, optional{b.Server}, optional{b.Recipient}, b.Thumbprint, b.RekeyKey, b.Life.Milliseconds(),
			b.RequestedBy, optional{b.RequestedPerson}, b.RequestedAt, b.ExpiresAt)
		return conflict(err, "there is such a batch")
	})
}

// AddRekeyBatchDevices adds devices to a batch that is collecting, at most
// joinery.MaxRekeyRows; those that are in it already, and those that its
// organisation does not hold, are left out. CodeTooLarge above
// joinery.MaxRekeyDevices.
func (d *DB) AddRekeyBatchDevices(ctx context.Context, id joinery.RekeyBatchID, devices []joinery.DeviceID) (joinery.RekeyBatch, error) {
	if len(devices) > joinery.MaxRekeyRows {
		return joinery.RekeyBatch{}, joinery.Errorf(joinery.CodeTooLarge, "at most %d devices at once", joinery.MaxRekeyRows)
	}
	return write(ctx, d, func(t *tx) (b joinery.RekeyBatch, err error) {
		if b, err = t.rekeyBatchIn(id, joinery.BatchCollecting); err != nil {
			return b, err
		}
		for _, device := range devices {
			added, err := t.changes(`INSERT INTO rekey_batch_item (batch, idx, device, join_eui, dev_eui, epoch, state, code, reason)
				SELECT ?, ?, id, join_eui, dev_eui, owner_epoch, 0, '', '' FROM device
				WHERE id = ? AND org = ? AND released = 0 AND deleted_at IS NULL ON CONFLICT (batch, device) DO NOTHING`,
				id, b.Devices, device, b.Org)
			if err != nil {
				return b, err
			}
			b.Devices += int64(added)
		}
		if b.Devices > joinery.MaxRekeyDevices {
			return b, joinery.Errorf(joinery.CodeTooLarge, "a batch has at most %d devices", joinery.MaxRekeyDevices)
		}
		return b, t.putRekeyBatch(b)
	})
}

// rekeyBatchIn reads a batch, which must be in one of these states: CodeConflict.
func (t *tx) rekeyBatchIn(id joinery.RekeyBatchID, states ...joinery.RekeyBatchState) (joinery.RekeyBatch, error) {
	b, err := t.rekeyBatch(id)
	if err != nil {
		return b, err
	}
	for _, s := range states {
		if b.State == s {
			return b, nil
		}
	}
	return b, joinery.Errorf(joinery.CodeConflict, "the batch is %s by now", b.State)
}

// RekeyBatchDigest gives the digest of a batch's devices, and how many there are.
func (d *DB) RekeyBatchDigest(ctx context.Context, id joinery.RekeyBatchID) (digest [32]byte, devices int64, err error) {
	sum := joinery.NewExportDigest()
	err = d.read(ctx, func(c conn) error {
		return c.each("SELECT join_eui, dev_eui FROM rekey_batch_item WHERE batch = ? ORDER BY idx", func(r *row) error {
			sum.Add(r.eui(), r.eui())
			devices++
			return nil
		}, id)
	})
	return sum.Sum(), devices, err
}

// MoveRekeyBatch brings a batch from one of the states of from to what b says; what
// was asked for and the set stay as they are, but for the digest. CodeConflict where
// it is in another state, or has other numbers of devices or another root.
func (d *DB) MoveRekeyBatch(ctx context.Context, b joinery.RekeyBatch, from []joinery.RekeyBatchState, entries ...joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		now, err := t.rekeyBatchIn(b.ID, from...)
		if err != nil {
			return err
		}
		if now.Devices != b.Devices || now.Armed != b.Armed || now.Failed != b.Failed || now.Root != b.Root {
			return joinery.Errorf(joinery.CodeConflict, "the batch went on meanwhile; read it again")
		}
		return t.finish(t.putRekeyBatch(b), entries...)
	})
}

// RekeyBatchItems gives at most limit devices of a batch from index from on; with
// waiting only those that have neither an order nor a reason.
func (d *DB) RekeyBatchItems(ctx context.Context, id joinery.RekeyBatchID, from uint64, waiting bool, limit int) (items []joinery.RekeyBatchItem, err error) {
	where := "WHERE batch = ? AND idx >= ? ORDER BY idx LIMIT ?"
	if waiting {
		where = "WHERE batch = ? AND state = 0 AND idx >= ? ORDER BY idx LIMIT ?"
	}
	err = d.read(ctx, func(c conn) error {
		return c.each("SELECT idx, device, join_eui, dev_eui, epoch, state, coalesce(rekey, 0), code, reason FROM rekey_batch_item "+where, func(r *row) error {
			items = append(items, joinery.RekeyBatchItem{
				Index: uint64(r.int()), Device: joinery.DeviceID(r.int()), JoinEUI: r.eui(), DevEUI: r.eui(), Epoch: uint32(r.int()),
				State: joinery.RekeyItemState(r.int()), Order: joinery.RekeyID(r.int()), Code: joinery.Code(r.text()), Reason: r.text(),
			})
			return nil
		}, id, from, pageLimit(limit))
	})
	return items, err
}

// ArmRekeyBatch takes what becomes of waiting devices of a batch, at most
// joinery.MaxRekeyRows: each stands or falls alone. One that is not waiting any more
// is left as it is, so that two servers may work on one batch and the same may be
// given again. One whose open order ended meanwhile waits on. When none waits the
// batch is done, and done is written. What arms one says what it rests on. CodeConflict where the batch is not approved, or
// was withdrawn. What is no refusal becomes no device's reason: nothing is written then.
func (d *DB) ArmRekeyBatch(ctx context.Context, id joinery.RekeyBatchID, list []joinery.RekeyBatchArm, done joinery.AuditEntry) (joinery.RekeyBatch, error) {
	if len(list) > joinery.MaxRekeyRows {
		return joinery.RekeyBatch{}, joinery.Errorf(joinery.CodeTooLarge, "at most %d devices at once", joinery.MaxRekeyRows)
	}
	return write(ctx, d, func(t *tx) (b joinery.RekeyBatch, err error) {
		if b, err = t.rekeyBatchIn(id, joinery.BatchApproved); err != nil {
			return b, err
		}
		on, err := t.orderedBy(int64(id), joinery.AuditRekeyBatchRequested, joinery.AuditRekeyBatchApproved)
		if err != nil {
			return b, err
		}
		for _, a := range list {
			waits, err := t.integer("SELECT count(*) FROM rekey_batch_item WHERE batch = ? AND idx = ? AND state = 0", id, a.Index)
			if err != nil {
				return b, err
			}
			if waits == 0 {
				continue
			}
			a.Entry.Detail = withMoreDetail(a.Entry.Detail, on)
			if err := t.armItem(&b, a, done.At); err != nil {
				return b, err
			}
		}
		if b.Armed+b.Failed < b.Devices {
			return b, t.putRekeyBatch(b)
		}
		b.State, b.EndedAt = joinery.BatchDone, done.At
		return b, t.finish(t.putRekeyBatch(b), done)
	})
}

// armItem arms one device of a batch, or notes why not.
func (t *tx) armItem(b *joinery.RekeyBatch, a joinery.RekeyBatchArm, now time.Time) error {
	order := a.Had
	if order != 0 {
		if stands, err := t.hasOrder(*b, a, now); err != nil || !stands {
			return err
		}
	}
	if order == 0 && a.Reason == "" {
		refusal, err := t.alone(func() error {
			same, err := t.integer(`SELECT count(*) FROM rekey_batch_item i JOIN device d ON d.id = i.device
				WHERE i.batch = CAST(? AS INTEGER) AND i.idx = CAST(? AS INTEGER) AND i.device = CAST(? AS INTEGER) AND d.owner_epoch = i.epoch AND d.released = 0 AND d.deleted_at IS NULL`, b.ID, a.Index, a.Order.Device)
			if err == nil && same == 0 {
				err = joinery.Errorf(joinery.CodeConflict, "%s", joinery.RekeyFailedOwner)
			}
			if err != nil {
				return err
			}
			return t.armRekey(a.Order, b.Server, b.DecidedBy, a.Entry)
		})
		if err != nil {
			return err
		}
		order = a.Order.ID
		if refusal != nil {
			if joinery.CodeOf(refusal) == joinery.CodeInternal { // it says nothing of the device
				return refusal
			}
			order, a.Code, a.Reason = 0, joinery.CodeOf(refusal), joinery.MessageOf(refusal)
		}
	}
	if order != 0 {
		b.Armed++
		return t.exec("UPDATE rekey_batch_item SET state = 1, rekey = ? WHERE batch = ? AND idx = ?", order, b.ID, a.Index)
	}
	b.Failed++
	return t.exec("UPDATE rekey_batch_item SET state = 2, code = ?, reason = ? WHERE batch = ? AND idx = ?", string(a.Code), a.Reason, b.ID, a.Index)
}

// hasOrder tells whether a device of a batch has that open order to the same effect
// still: whoever said so looked before.
func (t *tx) hasOrder(b joinery.RekeyBatch, a joinery.RekeyBatchArm, now time.Time) (bool, error) {
	n, err := t.integer(`SELECT count(*) FROM rekey r JOIN rekey_batch_item i ON i.device = r.device JOIN device d ON d.id = r.device
		WHERE r.id = ? AND i.batch = ? AND i.idx = ? AND d.org = ? AND d.owner_epoch = i.epoch AND d.released = 0 AND d.deleted_at IS NULL
		AND r.state IN ('armed', 'sent') AND r.expires_at > ? AND r.org = d.org AND r.join_eui = ? AND coalesce(r.join_server, 0) = ? AND coalesce(r.recipient, 0) = ?
		AND r.thumbprint = ? AND r.rekey_key = ?`,
		a.Had, b.ID, a.Index, b.Org, now, b.JoinEUI, b.Server, b.Recipient, b.Thumbprint, b.RekeyKey)
	return n > 0, err
}
