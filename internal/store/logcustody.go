package store

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"joinery"
	"joinery/auditlog"
)

// CustodyEntries gives entries about a device, and about every key set that it
// ever had, also those about orders for it and others, and its arrivals: audit rows, oldest first, then activations, newest first. None is left
// out, whoever may read it, also of a deleted device. CodeNotFound where there never
// was such a device, or where After names no entry of it.
func (d *DB) CustodyEntries(ctx context.Context, q joinery.CustodyQuery) (entries []joinery.CustodyEntry, err error) {
	limit := pageLimit(q.Limit)
	err = d.snapshot(ctx, func(c conn) error {
		keySet, err := c.integer("SELECT key_set FROM device WHERE id = ?", q.Device)
		if err == nil && keySet == 0 {
			err = notFound("device")
		}
		if err != nil {
			return err
		}
		if number, ok := q.After.Audit(); ok || q.After == 0 {
			if entries, err = c.auditCustody(q.Device, number, limit); err != nil {
				return err
			}
		}
		if len(entries) < limit {
			joins, err := c.joinCustody(q, joinery.KeySetID(keySet), limit-len(entries))
			if err != nil {
				return err
			}
			entries = append(entries, joins...)
		}
		return c.placeEntries(entries)
	})
	return entries, err
}

// auditCustody merges the entries about a device alone with those about more.
func (c conn) auditCustody(device joinery.DeviceID, after int64, limit int) (entries []joinery.CustodyEntry, err error) {
	own, err := c.ownCustody(device, after, limit)
	if err != nil {
		return nil, err
	}
	related, err := c.relatedCustody(device, after, limit)
	if err != nil {
		return nil, err
	}
	entries = append(own, related...)
	slices.SortFunc(entries, func(a, b joinery.CustodyEntry) int { return cmp.Compare(b.Ref, a.Ref) }) // references of audit rows fall
	return entries[:min(limit, len(entries))], nil
}

func (c conn) ownCustody(device joinery.DeviceID, after int64, limit int) (entries []joinery.CustodyEntry, err error) {
	err = c.each(`SELECT a.id, a.event, coalesce(a.org, 0), a.payload, a.salt, a.leaf, coalesce(e.audit, 0)
		FROM audit a LEFT JOIN log_erasure e ON e.ref = -a.id WHERE a.device > 0 AND a.device = ? AND a.id > ? ORDER BY a.id LIMIT ?`, func(r *row) error {
		e := joinery.CustodyEntry{Ref: joinery.AuditRef(r.int()), Event: joinery.AuditEvent(r.text()), Org: joinery.OrgID(r.int())}
		readEntry(r, &e)
		entries = append(entries, e)
		return nil
	}, device, after, limit)
	return entries, err
}

// subjectOf is what an entry about no device is about: the number of an export, a
// batch or an arrival; 0 for what is about another thing.
func subjectOf(e joinery.AuditEntry) int64 {
	if e.Device != 0 {
		return 0
	}
	var export joinery.ExportID
	if export.UnmarshalText([]byte(e.Detail["export"])) == nil {
		return int64(export)
	}
	var batch joinery.RekeyBatchID
	if batch.UnmarshalText([]byte(e.Detail["batch"])) == nil {
		return int64(batch)
	}
	var arrival joinery.ArrivalID
	if arrival.UnmarshalText([]byte(e.Detail["arrival"])) == nil {
		return int64(arrival)
	}
	return 0
}

// relatedSubjects is what entries about no device may be about that concern one.
const relatedSubjects = `SELECT export FROM export_item WHERE device = ? UNION SELECT batch FROM rekey_batch_item WHERE device = ?
	UNION SELECT id FROM arrival WHERE device = ?`

// relatedCustody gives the entries about orders for a device and others, and about its
// arrivals.
func (c conn) relatedCustody(device joinery.DeviceID, after int64, limit int) (entries []joinery.CustodyEntry, err error) {
	// Few entries are about them. The sums keep planners from walking the whole log in
	// the order of its numbers to find these.
	err = c.each(`SELECT a.id, a.event, coalesce(a.org, 0), a.subject, a.payload, a.salt, a.leaf, coalesce(e.audit, 0)
		FROM audit a LEFT JOIN log_erasure e ON e.ref = -a.id WHERE a.subject > 0 AND a.subject IN (`+relatedSubjects+`) AND a.id + 0 > ? ORDER BY a.id + 0 LIMIT ?`, func(r *row) error {
		e := joinery.CustodyEntry{Ref: joinery.AuditRef(r.int()), Event: joinery.AuditEvent(r.text()), Org: joinery.OrgID(r.int()), Subject: r.int()}
		readEntry(r, &e)
		entries = append(entries, e)
		return nil
	}, device, device, device, after, limit)
	return entries, err
}

// readEntry reads payload, salt, leaf and the audit row of an erasure.
func readEntry(r *row, e *joinery.CustodyEntry) {
	e.Payload, e.Salt = r.blob(), r.blob()
	r.into(e.Record[:])
	if erasure := r.int(); erasure > 0 {
		e.Erasure = joinery.AuditRef(erasure)
	}
}

// joinCustody walks the activations of a device's key sets, from the newest of
// the present one back to the first of that which all came from.
func (c conn) joinCustody(q joinery.CustodyQuery, keySet joinery.KeySetID, limit int) (entries []joinery.CustodyEntry, err error) {
	var next joinery.ActivationID
	if after, ok := q.After.Activation(); ok {
		if next, keySet, err = c.joinBefore(q.Device, after); err != nil {
			return nil, err
		}
	} else if next, err = c.newestJoin(keySet); err != nil {
		return nil, err
	}
	for len(entries) < limit {
		for next == 0 {
			if keySet, err = c.parentOf(keySet); err != nil || keySet == 0 {
				return entries, err
			}
			if next, err = c.newestJoin(keySet); err != nil {
				return nil, err
			}
		}
		e := joinery.CustodyEntry{Ref: joinery.ActivationRef(next)}
		found, err := c.one(`SELECT coalesce(a.previous, 0), a.payload, a.salt, a.leaf, coalesce(x.audit, 0)
			FROM activation a LEFT JOIN log_erasure x ON x.ref = a.id WHERE a.id = ?`, func(r *row) error {
			next = joinery.ActivationID(r.int())
			readEntry(r, &e)
			return nil
		}, next)
		if err == nil && !found {
			err = fmt.Errorf("activation %s is missing from its chain; run joinery fsck", next)
		}
		if err == nil && e.Payload != nil {
			var a joinery.Activation
			a, err = joinery.ParseActivation(e.Payload)
			e.Org = a.Owner
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// joinBefore gives the activation before one of a device, and the key set of both.
func (c conn) joinBefore(device joinery.DeviceID, id joinery.ActivationID) (before joinery.ActivationID, keySet joinery.KeySetID, err error) {
	found, err := c.one(`SELECT coalesce(a.previous, 0), a.key_set FROM activation a JOIN key_set k ON k.id = a.key_set
		WHERE a.id = ? AND k.device = ?`, func(r *row) error {
		before, keySet = joinery.ActivationID(r.int()), joinery.KeySetID(r.int())
		return nil
	}, id, device)
	if err == nil && !found {
		err = notFound("activation")
	}
	return before, keySet, err
}

func (c conn) newestJoin(keySet joinery.KeySetID) (id joinery.ActivationID, err error) {
	_, err = c.one("SELECT nonces FROM key_set WHERE id = ?", func(r *row) error {
		nonces, err := joinery.DecodeNonces(0, r.blob())
		if len(nonces.Recent) > 0 {
			id = nonces.Recent[0].ID
		}
		return err
	}, keySet)
	return id, err
}

func (c conn) parentOf(keySet joinery.KeySetID) (joinery.KeySetID, error) {
	parent, err := c.integer("SELECT coalesce(parent, 0) FROM key_set WHERE id = ?", keySet)
	return joinery.KeySetID(parent), err
}

// placeEntries finds the leaves of entries.
func (c conn) placeEntries(entries []joinery.CustodyEntry) error {
	s, _, err := c.logState()
	if err != nil {
		return err
	}
	var ids []joinery.ActivationID
	for i := range entries {
		e := &entries[i]
		if number, ok := e.Ref.Audit(); ok {
			if e.Leaf, err = c.auditPlace(number); err != nil {
				return err
			}
			continue
		}
		ids = append(ids, joinery.ActivationID(e.Ref))
	}
	places, err := c.activationPlaces(ids, s.Size)
	for i := range entries {
		e := &entries[i]
		if id, ok := e.Ref.Activation(); ok {
			e.Leaf = -1
			if at, in := places[id]; in {
				e.Leaf = at
			}
		}
	}
	return err
}

// LinkEntries gives the links in the chain of a device's owners, where it was
// imported again after it was deleted, and what is known of disclosures of its root
// keys, oldest first, and then the newest statement of how all that stands, unless
// it was made before its end.
func (d *DB) LinkEntries(ctx context.Context, id joinery.DeviceID) (entries []joinery.CustodyEntry, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		var stated []joinery.CustodyEntry // the newest
		err := c.each(`SELECT a.id, a.event, coalesce(a.org, 0), a.payload, a.salt, a.leaf, coalesce(e.audit, 0) FROM audit a LEFT JOIN log_erasure e ON e.ref = -a.id
			WHERE a.device > 0 AND a.device = ? AND a.event IN (?, ?, ?, ?, ?) ORDER BY a.id`, func(r *row) error {
			e := joinery.CustodyEntry{Ref: joinery.AuditRef(r.int()), Event: joinery.AuditEvent(r.text()), Org: joinery.OrgID(r.int())}
			readEntry(r, &e)
			if e.Event == joinery.AuditProvenanceStated {
				stated = []joinery.CustodyEntry{e}
			} else {
				entries = append(entries, e)
			}
			return nil
		}, id, joinery.AuditOwnerLinked, joinery.AuditDeviceImported, joinery.AuditKeysExposed, joinery.AuditKeysTold, joinery.AuditProvenanceStated)
		if err != nil {
			return err
		}
		if len(stated) > 0 && (len(entries) == 0 || stated[0].Ref < entries[len(entries)-1].Ref) { // references of audit rows fall
			entries = append(entries, stated...)
		}
		return c.placeEntries(entries)
	})
	return entries, err
}

// CustodyDevice gives who has and had a device, deleted or not; CodeNotFound.
func (d *DB) CustodyDevice(ctx context.Context, id joinery.DeviceID) (dev joinery.CustodyDevice, err error) {
	dev.ID = id
	err = d.snapshot(ctx, func(c conn) error {
		var imported int64
		found, err := c.one(`SELECT d.join_eui, d.dev_eui, CASE WHEN d.deleted_at IS NULL AND d.released = 0 THEN d.org ELSE 0 END, d.maker, o.name, m.entry,
			coalesce(d.imported, 0) FROM device d JOIN organisation o ON o.id = d.maker LEFT JOIN manifest_entry m ON m.device = d.id WHERE d.id = ?`, func(r *row) error {
			dev.JoinEUI, dev.DevEUI, dev.Owner = r.eui(), r.eui(), joinery.OrgID(r.int())
			dev.Owners = []joinery.PastOwner{{Org: joinery.OrgID(r.int()), Name: r.text()}}
			dev.Manifest, imported = r.blob(), r.int()
			return nil
		}, id)
		if err == nil && !found {
			err = notFound("device")
		}
		if err != nil {
			return err
		}
		now := auditlog.ImportedDevice{
			Device: id.String(), JoinEUI: dev.JoinEUI.String(), DevEUI: dev.DevEUI.String(), Manifest: manifestHash(dev.Manifest),
		}
		if dev.Import, err = c.importLeaf(id, imported, now); err != nil {
			return err
		}
		return c.each(`SELECT w.epoch, w.org, o.name, w.nonce FROM ownership w JOIN organisation o ON o.id = w.org WHERE w.device = ? ORDER BY w.epoch`, func(r *row) error {
			p := joinery.PastOwner{Epoch: uint32(r.int()), Org: joinery.OrgID(r.int()), Name: r.text(), Nonce: r.blob()}
			if p.Epoch == 1 && len(p.Nonce) > 0 {
				dev.Owners[0].Nonce = makerNonce(p.Nonce)
			}
			dev.Owners = append(dev.Owners, p)
			return nil
		}, id)
	})
	return dev, err
}

// LogEntry gives one entry of the log by its row; CodeNotFound.
func (d *DB) LogEntry(ctx context.Context, ref joinery.LogRef) (e joinery.CustodyEntry, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		e = joinery.CustodyEntry{Ref: ref}
		var found bool
		if number, ok := ref.Audit(); ok {
			found, err = c.one(`SELECT a.event, coalesce(a.org, 0), a.payload, a.salt, a.leaf, coalesce(e.audit, 0)
				FROM audit a LEFT JOIN log_erasure e ON e.ref = -a.id WHERE a.id = ?`, func(r *row) error {
				e.Event, e.Org = joinery.AuditEvent(r.text()), joinery.OrgID(r.int())
				readEntry(r, &e)
				return nil
			}, number)
		} else {
			found, err = c.one(`SELECT a.payload, a.salt, a.leaf, coalesce(e.audit, 0)
				FROM activation a LEFT JOIN log_erasure e ON e.ref = a.id WHERE a.id = ?`, func(r *row) error {
				readEntry(r, &e)
				return nil
			}, int64(ref))
		}
		if err == nil && !found {
			err = notFound("entry")
		}
		if err != nil {
			return err
		}
		one := []joinery.CustodyEntry{e}
		err = c.placeEntries(one)
		e = one[0]
		return err
	})
	return e, err
}

// lasting are events whose entries nobody erases: they name no person. Disclosures are
// remembered for ever.
var lasting = []joinery.AuditEvent{
	joinery.AuditEntryErased, joinery.AuditOwnerLinked, joinery.AuditLogRestarted, joinery.AuditImportCommitted, joinery.AuditKeysExposed, joinery.AuditKeysTold,
}

// EraseEntry erases payload and salt of an entry for ever, and records that: its
// record stays in the tree and says nothing any more. An erased activation is no
// session any longer; its nonces stay used. CodeNotFound where there is none,
// CodeConflict where it was erased before, or is one of those that last.
func (d *DB) EraseEntry(ctx context.Context, ref joinery.LogRef, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		var erased bool
		var event joinery.AuditEvent
		table, id := "activation", int64(ref)
		query := "SELECT CASE WHEN payload IS NULL THEN 1 ELSE 0 END, '' FROM activation WHERE id = ?"
		if number, ok := ref.Audit(); ok {
			table, id = "audit", number
			query = "SELECT CASE WHEN payload IS NULL THEN 1 ELSE 0 END, event FROM audit WHERE id = ?"
		}
		found, err := t.one(query, func(r *row) error { erased, event = r.bool(), joinery.AuditEvent(r.text()); return nil }, id)
		switch {
		case err != nil:
			return err
		case !found:
			return notFound("entry")
		case erased:
			return joinery.Errorf(joinery.CodeConflict, "the entry was erased before")
		case slices.Contains(lasting, event):
			return joinery.Errorf(joinery.CodeConflict, "an entry of %s names no person, and others depend on it: it stays", event)
		}
		if err := t.exec("UPDATE "+table+" SET payload = NULL, salt = NULL WHERE id = ?", id); err != nil {
			return err
		}
		if err := t.audit(a); err != nil {
			return err
		}
		row, err := t.integer("SELECT max(id) FROM audit")
		if err != nil {
			return err
		}
		return t.exec("INSERT INTO log_erasure (ref, audit) VALUES (?, ?)", ref, row)
	})
}

// orderedBy says for the details of what is done by an order on which entries that
// rests: those in which it was asked for, and approved.
func (t *tx) orderedBy(subject int64, requested, approved joinery.AuditEvent) (map[string]string, error) {
	on := map[string]string{}
	err := t.each("SELECT event, leaf FROM audit WHERE subject > 0 AND subject = ? AND event IN (?, ?) ORDER BY id", func(r *row) error {
		name := auditlog.DetailRequested
		if joinery.AuditEvent(r.text()) == approved {
			name = auditlog.DetailApproved
		}
		on[name] = hex.EncodeToString(r.blob())
		return nil
	}, subject, string(requested), string(approved))
	return on, err
}

// withMoreDetail gives a detail with more in it.
func withMoreDetail(detail, more map[string]string) map[string]string {
	all := make(map[string]string, len(detail)+len(more))
	maps.Copy(all, detail)
	maps.Copy(all, more)
	return all
}
