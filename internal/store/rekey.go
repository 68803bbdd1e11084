package store

import (
	"context"
	"encoding/hex"
	"slices"
	"time"

	"joinery"
	"joinery/lorawan"
)

// rekeying adds to s what its join has to know besides: the steps by which its
// key set came about, the newest order that was armed and the candidates.
func (c conn) rekeying(s *joinery.ActivationState) error {
	s.KeySet.Rekey = s.Device.Rekey
	if err := c.serial(&s.KeySet); err != nil {
		return err
	}
	if s.KeySet.Origin == joinery.OriginRekeyed {
		if err := c.lineage(&s.KeySet); err != nil {
			return err
		}
	} else if err := c.held(&s.KeySet, s.KeySet.ID); err != nil {
		return err
	}
	s.Rekeying = &joinery.Rekeying{}
	orders, err := c.rekeyOrders("r.device = CAST(? AS INTEGER) AND r.armed_at IS NOT NULL ORDER BY r.at DESC, r.id DESC LIMIT 1", s.Device.ID)
	if err != nil {
		return err
	}
	if len(orders) > 0 {
		s.Rekeying.Order = &orders[0]
	}
	s.Rekeying.Candidates, err = c.candidates(s.KeySet)
	return err
}

// serial gives a key set of profile M the serial number of its chip. One that is
// none of a chip's stays zero, and such a device cannot be rekeyed.
func (c conn) serial(k *joinery.KeySet) error {
	if k.Rekey != joinery.RekeyM {
		return nil
	}
	_, err := c.one("SELECT coalesce(serial, '') FROM manifest_entry WHERE device = ?", func(r *row) error {
		if b, err := hex.DecodeString(r.text()); err == nil && len(b) == joinery.SerialLen {
			copy(k.Serial[:], b)
		}
		return nil
	}, k.DeviceID)
	return err
}

// lineage fills in from what the root keys of a rekeyed key set derive.
func (c conn) lineage(k *joinery.KeySet) error {
	k.Steps = nil
	if _, err := c.one("SELECT rekey_profile FROM device WHERE id = ?", func(r *row) error {
		k.Rekey = joinery.RekeyProfile(r.int())
		return nil
	}, k.DeviceID); err != nil {
		return err
	}
	if err := c.serial(k); err != nil {
		return err
	}
	var root joinery.KeySetID
	for id := k.ID; id != 0; {
		var parent joinery.KeySetID
		_, err := c.one("SELECT origin, coalesce(master, ''), generation, coalesce(parent, 0), cookie, rekey_join_eui FROM key_set WHERE id = ?", func(r *row) error {
			origin, master, generation := joinery.Origin(r.int()), r.text(), uint32(r.int())
			parent = joinery.KeySetID(r.int())
			if origin != joinery.OriginRekeyed {
				k.Master, k.Generation, root = master, generation, id
				return nil
			}
			var step lorawan.Rekey
			r.into(step.Cookie[:])
			step.JoinEUI = r.eui()
			k.Steps = append(k.Steps, step)
			return nil
		}, id)
		if err != nil {
			return err
		}
		id = parent
	}
	slices.Reverse(k.Steps)
	return c.held(k, root)
}

// held gives a key set the rekeying key that came with the one where it begins.
func (c conn) held(k *joinery.KeySet, root joinery.KeySetID) error {
	k.Held = joinery.HeldKey{}
	if k.Master != "" {
		return nil
	}
	_, err := c.one("SELECT r.held, s.nwk_use, s.app_use FROM rekeying_key r JOIN sealed_root s ON s.key_set = r.held WHERE r.key_set = CAST(? AS INTEGER)", func(r *row) error {
		k.Held = joinery.HeldKey{KeySet: joinery.KeySetID(r.int()), First: r.blob(), Second: r.blob()}
		return nil
	}, root)
	return err
}

// candidates gives the key sets that a device may have instead of current, newest
// first.
func (c conn) candidates(current joinery.KeySet) (list []joinery.KeySet, err error) {
	err = c.each(`SELECT k.id, k.origin, k.generation, k.root10, k.cookie, k.rekey_join_eui, s.nwk_use, s.app_use
		FROM rekey_candidate c JOIN key_set k ON k.id = c.key_set LEFT JOIN sealed_root s ON s.key_set = k.id
		WHERE c.device = CAST(? AS INTEGER) ORDER BY k.id DESC`, func(r *row) error {
		k := joinery.KeySet{
			ID: joinery.KeySetID(r.int()), DeviceID: current.DeviceID, DevEUI: current.DevEUI, Origin: joinery.Origin(r.int()),
			Generation: uint32(r.int()), Root10: joinery.RootKey(r.int()), Rekey: current.Rekey, Serial: current.Serial,
		}
		if k.Origin == joinery.OriginRekeyed { // of current, or it were none
			var step lorawan.Rekey
			r.into(step.Cookie[:])
			step.JoinEUI = r.eui()
			k.Master, k.Generation, k.Held = current.Master, current.Generation, current.Held
			k.Steps = append(slices.Clone(current.Steps), step)
		} else {
			r.next()
			r.next()
		}
		k.Nwk.Use, k.App.Use = r.blob(), r.blob()
		list = append(list, k)
		return nil
	}, current.DeviceID)
	return list, err
}

// The name of where it goes is there for people. What a join of two tables is asked for
// is cast; see loadQuery.
const orderColumns = `SELECT r.id, r.device, r.state, r.join_eui, r.cookie, coalesce(r.join_server, 0), coalesce(s.name, k.name), r.recipient, r.thumbprint, r.org, r.actor, r.person,
	r.at, r.armed_at, r.decided_by, r.expires_at, r.sent, r.first_sent_at, r.last_sent_at, r.ended_at, r.rekey_key,
	p.state, p.said, p.offered, p.tries, p.next_at, p.changed_at
	FROM rekey r LEFT JOIN join_server s ON s.id = r.join_server LEFT JOIN export_recipient k ON k.id = r.recipient LEFT JOIN passage p ON p.rekey = r.id WHERE `

func (c conn) rekeyOrders(where string, args ...any) (list []joinery.RekeyOrder, err error) {
	err = c.each(orderColumns+where, func(r *row) error {
		o := joinery.RekeyOrder{ID: joinery.RekeyID(r.int()), Device: joinery.DeviceID(r.int()), State: joinery.RekeyState(r.text())}
		o.Rekey.JoinEUI = r.eui()
		r.into(o.Rekey.Cookie[:])
		o.Server, o.To, o.Recipient, o.Thumbprint = joinery.JoinServerID(r.int()), r.text(), joinery.RecipientID(r.int()), r.text()
		o.Owner, o.By, o.Person = joinery.OrgID(r.int()), r.text(), joinery.PersonID(r.int())
		o.At, o.ArmedAt, o.DecidedBy, o.ExpiresAt, o.Sent = r.time(), r.time(), r.text(), r.time(), uint32(r.int())
		o.FirstSentAt, o.LastSentAt, o.EndedAt = r.time(), r.time(), r.time()
		o.RekeyKey, o.Passage = r.bool(), scanPassage(r)
		list = append(list, o)
		return nil
	}, args...)
	return list, err
}

// RekeyOrders gives the orders of a device, newest first.
func (d *DB) RekeyOrders(ctx context.Context, device joinery.DeviceID) (list []joinery.RekeyOrder, err error) {
	err = d.read(ctx, func(c conn) error {
		list, err = c.rekeyOrders("r.device = CAST(? AS INTEGER) ORDER BY r.at DESC, r.id DESC LIMIT ?", device, maxLimit)
		return err
	})
	return list, err
}

// RekeyingDevice is Device with what is known of its rekeying, whether its joins
// look there or not.
func (d *DB) RekeyingDevice(ctx context.Context, id joinery.DeviceID) (s joinery.ActivationState, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		var found bool
		if s, found, err = c.oneState(c.states(oneDevice+"AND d.id = CAST(? AS INTEGER)", id)); err == nil && !found {
			err = notFound("device")
		}
		if err != nil {
			return err
		}
		return c.rekeying(&s)
	})
	return s, err
}

// RekeyRequests gives orders of an organisation that wait for another person, from
// above after on, in the order of their ids.
func (d *DB) RekeyRequests(ctx context.Context, org joinery.OrgID, after joinery.RekeyID, limit int) (list []joinery.RekeyOrder, err error) {
	err = d.read(ctx, func(c conn) error {
		list, err = c.rekeyOrders("r.org = ? AND r.state = 'requested' AND r.id > ? ORDER BY r.id LIMIT ?", org, after, pageLimit(limit))
		return err
	})
	return list, err
}

// SetRekeyProfile says by its owner's word how a device rekeys. CodeConflict unless
// owner holds it still, where a better word than the owner's was said, or where an
// instruction of the former profile was sent already.
func (d *DB) SetRekeyProfile(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, p joinery.RekeyProfile, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.heldBy(id, owner); err != nil {
			return err
		}
		used, err := t.integer("SELECT count(*) FROM rekey WHERE device = ? AND (sent > 0 OR ended_at IS NULL)", id)
		if err != nil {
			return err
		}
		word, err := t.integer("SELECT CASE WHEN rekey_profile = 0 THEN 0 ELSE rekey_word END FROM device WHERE id = ?", id)
		switch {
		case err != nil:
			return err
		case word > int64(joinery.RekeyByOwner):
			return joinery.Errorf(joinery.CodeConflict, "how this device rekeys stands by the word of its %s; its owner cannot say otherwise", joinery.RekeyWord(word))
		case used > 0:
			return joinery.Errorf(joinery.CodeConflict, "the device was told to rekey by the profile that it has: cancel that order, if none was sent yet")
		}
		return t.finish(t.changeDevice(id, "UPDATE device SET rekey_profile = ?, rekey_word = 0 WHERE id = ? AND deleted_at IS NULL", p, id), a)
	})
}

// ArmRekey opens an order, to be carried by the device's next join-accept, or to
// wait for another person where its state says so. to is a Join Server, zero where
// the order names a recipient. CodeConflict unless its owner holds the device still
// and did not release it, or where an order is open; CodeNotFound where there is no such Join Server or
// recipient.
func (d *DB) ArmRekey(ctx context.Context, o joinery.RekeyOrder, to joinery.JoinServerID, a ...joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error { return t.armRekey(o, to, "", a...) })
}

// goesTo tells whether new root keys may go to a Join Server or, where one is named,
// to a recipient of the owner's: CodeNotFound.
func (t *tx) goesTo(to joinery.JoinServerID, recipient joinery.RecipientID, owner joinery.OrgID) error {
	there, err := t.integer("SELECT count(*) FROM join_server WHERE id = ? AND removed_at IS NULL", to)
	if recipient != 0 {
		there, err = t.integer("SELECT count(*) FROM export_recipient WHERE id = ? AND org = ? AND removed_at IS NULL", recipient, owner)
	}
	if err == nil && there == 0 {
		err = notFound("Join Server or recipient")
	}
	return err
}

// armRekey is ArmRekey; decidedBy is who approved the order as one of many, "" for
// nobody.
func (t *tx) armRekey(o joinery.RekeyOrder, to joinery.JoinServerID, decidedBy string, a ...joinery.AuditEntry) error {
	if err := t.claimedBy(o.Device, o.Owner); err != nil {
		return err
	}
	if err := t.goesTo(to, o.Recipient, o.Owner); err != nil {
		return err
	}
	if err := t.exec("UPDATE rekey SET state = 'expired', ended_at = ? WHERE device = ? AND ended_at IS NULL AND (expires_at <= ? OR state = 'requested' AND at <= ?)",
		o.At, o.Device, o.At, o.At.Add(-joinery.RekeyWait)); err != nil {
		return err
	}
	candidates, err := t.integer("SELECT count(*) FROM rekey_candidate WHERE device = ?", o.Device)
	if err == nil && candidates >= joinery.MaxRekeyCandidates {
		err = joinery.Errorf(joinery.CodeConflict, "%d instructions were sent to this device and it may have obeyed any of them: wait until it is seen, or confirm the one that it obeyed", candidates)
	}
	if err != nil {
		return err
	}
	state, armed := joinery.RekeyArmed, any(o.At)
	if o.State == joinery.RekeyRequested {
		state, armed = o.State, nil
	}
	err = t.exec(`INSERT INTO rekey (id, device, state, join_eui, cookie, join_server, recipient, thumbprint, org, actor, person, at, armed_at, decided_by, expires_at, sent, rekey_key)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)`,
		o.ID, o.Device, string(state), o.Rekey.JoinEUI, o.Rekey.Cookie[:], optional{to}, optional{o.Recipient}, o.Thumbprint, o.Owner, o.By, optional{o.Person}, o.At, armed,
		optional{decidedBy}, o.ExpiresAt, o.RekeyKey)
	if err := conflict(err, "the device is being rekeyed already; cancel that order first"); err != nil || armed == nil {
		return t.finish(err, a...)
	}
	if err := t.beginPassage(o.ID, o.At); err != nil {
		return err
	}
	return t.finish(t.changeDevice(o.Device, "UPDATE device SET rekeying = 1 WHERE id = ? AND deleted_at IS NULL", o.Device), a...)
}

// ApproveRekeys arms orders that waited for another person, by the caller whom the
// entries name: each has its entry, in the same order. keys is the transport key of each
// Join Server to which one goes, DER, as the approver looked at it. All or none:
// CodeConflict where one does not wait any more, or where it would go is no more, or has
// another key.
func (d *DB) ApproveRekeys(ctx context.Context, orders []joinery.RekeyOrder, keys map[joinery.JoinServerID][]byte, entries []joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		for i, o := range orders {
			if err := t.claimedBy(o.Device, o.Owner); err != nil {
				return err
			}
			n, err := t.changes(`UPDATE rekey SET state = 'armed', armed_at = ?, decided_by = ? WHERE id = ? AND device = ? AND state = 'requested'
				AND (join_server IN (SELECT id FROM join_server WHERE removed_at IS NULL AND transport_key = CAST(? AS BLOB)) OR recipient IN (SELECT id FROM export_recipient WHERE removed_at IS NULL))`,
				entries[i].At, entries[i].Actor, o.ID, o.Device, blobOrNull(keys[o.Server]))
			if err == nil && n != 1 {
				err = joinery.Errorf(joinery.CodeConflict, "order %s waits for no approval, or its Join Server or recipient was removed, or has another key by now: look at the request again", o.ID)
			}
			if err == nil {
				err = t.changeDevice(o.Device, "UPDATE device SET rekeying = 1 WHERE id = ? AND deleted_at IS NULL", o.Device)
			}
			if err == nil {
				err = t.beginPassage(o.ID, entries[i].At)
			}
			if err != nil {
				return err
			}
		}
		return t.audit(entries...)
	})
}

// EndRekey ends an order: cancelled before it ended, rejected while it waits for
// another person, or confirmed once it was sent, also one that was cancelled or has
// expired. CodeConflict for any other.
func (d *DB) EndRekey(ctx context.Context, id joinery.RekeyID, owner joinery.OrgID, state joinery.RekeyState, a ...joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		orders, err := t.rekeyOrders("r.id = CAST(? AS INTEGER)", id)
		if err == nil && len(orders) == 0 {
			err = notFound("order to rekey")
		}
		if err != nil {
			return err
		}
		o := orders[0]
		if err := t.heldBy(o.Device, owner); err != nil {
			return err
		}
		switch {
		case state == joinery.RekeyCancelled && o.EndedAt.IsZero():
		case state == joinery.RekeyRejected && o.State == joinery.RekeyRequested:
		case state == joinery.RekeyConfirmed && o.Sent > 0 && o.State != joinery.RekeyConfirmed:
		case o.State == state:
			return joinery.Errorf(joinery.CodeConflict, "the order is %s already", state)
		case state == joinery.RekeyConfirmed && o.Sent == 0:
			return joinery.Errorf(joinery.CodeConflict, "the order was never sent, by a join-accept or a ticket: no device can have obeyed it")
		default:
			return joinery.Errorf(joinery.CodeConflict, "the order is %s: it cannot become %s", o.State, state)
		}
		if err := t.exec("UPDATE rekey SET state = ?, ended_at = ? WHERE id = ?", string(state), a[0].At, id); err != nil {
			return err
		}
		if state == joinery.RekeyRejected {
			err = t.exec("UPDATE rekey SET decided_by = ? WHERE id = ?", a[0].Actor, id)
		}
		if err != nil {
			return err
		}
		return t.finish(t.settleRekeying(o.Device), a...)
	})
}

// settleRekeying has joins of a device look at its rekeying as long as there is
// something to see, and makes those under way think again.
func (t *tx) settleRekeying(id joinery.DeviceID) error {
	err := t.exec(`UPDATE device SET rekeying = CASE WHEN EXISTS (SELECT 1 FROM rekey_candidate c WHERE c.device = device.id)
		OR EXISTS (SELECT 1 FROM key_set k WHERE k.id = device.key_set AND k.origin = 3)
		OR EXISTS (SELECT 1 FROM rekey r WHERE r.device = device.id AND r.state IN ('armed', 'sent', 'confirmed')) THEN 1 ELSE 0 END
		WHERE id = ?`, id)
	if err != nil {
		return err
	}
	return t.advance(id)
}

// cancelRekeys cancels the order of a device that is open because of something else,
// which by names, and gives its entry: that is for who gave the order. One whose
// time is over by then has expired, and has none.
func (t *tx) cancelRekeys(id joinery.DeviceID, actor, by string, at time.Time) (entries []joinery.AuditEntry, err error) {
	orders, err := t.rekeyOrders("r.device = CAST(? AS INTEGER) AND r.ended_at IS NULL ORDER BY r.id", id)
	if err != nil {
		return nil, err
	}
	for _, o := range orders {
		state := o.StateAt(at)
		if state != joinery.RekeyExpired {
			state = joinery.RekeyCancelled
			entries = append(entries, joinery.AuditEntry{
				At: at, Event: joinery.AuditRekeyCancelled, Actor: actor, Org: o.Owner, Device: id,
				Detail: map[string]string{"order": o.ID.String(), "to": o.To, "by": by},
			})
		}
		if err := t.exec("UPDATE rekey SET state = ?, ended_at = ? WHERE id = ?", string(state), at, o.ID); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// NoteRekeySent notes, before an accept with its instruction leaves, that an order
// is sent, and adds the key set to which it leads from the device's present one:
// next, unless it is there. From then on that one is a candidate for good. The entry
// is written the first time, and for every ticket: an accept has its activation.
// ErrSwapLost where the present key set moved, or the order ended, meanwhile.
func (d *DB) NoteRekeySent(ctx context.Context, s joinery.ActivationState, o joinery.RekeyOrder, next joinery.KeySetID, at time.Time, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.stands(s); err != nil {
			return err
		}
		n, err := t.changes(`UPDATE rekey SET state = 'sent', sent = sent + 1, first_sent_at = coalesce(first_sent_at, ?), last_sent_at = ?
			WHERE id = ? AND device = ? AND state IN ('armed', 'sent')`, at, at, o.ID, s.Device.ID)
		if err == nil && n != 1 {
			err = ErrSwapLost
		}
		if err != nil {
			return err
		}
		// It is the present one where the device obeyed and did not store its JoinEUI.
		_, known, err := t.leadsTo(s, o)
		if err != nil {
			return err
		}
		if !known {
			if err := t.addCandidate(s, o.Rekey, next); err != nil {
				return err
			}
		}
		if o.Sent > 0 && known && a.Event != joinery.AuditRekeyTicket {
			return nil
		}
		return t.audit(a)
	})
}

// leadsTo finds the key set to which an order leads from the present one of its
// device, where there is one already.
func (t *tx) leadsTo(s joinery.ActivationState, o joinery.RekeyOrder) (id joinery.KeySetID, known bool, err error) {
	known, err = t.one(`SELECT k.id FROM key_set k WHERE k.device = ? AND k.cookie = ? AND (k.id = ? OR k.parent = ?)`,
		func(r *row) error { id = joinery.KeySetID(r.int()); return nil }, s.Device.ID, o.Rekey.Cookie[:], s.KeySet.ID, s.KeySet.ID)
	return id, known, err
}

// DiscloseRekey writes, before the root keys to which an order leads go to its
// recipient, that they do: for ever, at the device and at that key set, which is a
// candidate from then on. handedOver is the entry that they went, exposed the one
// that every later owner reads. ErrSwapLost where the present key set moved
// meanwhile, the order ended, or its recipient was removed.
func (d *DB) DiscloseRekey(ctx context.Context, s joinery.ActivationState, o joinery.RekeyOrder, next joinery.KeySetID, handedOver, exposed joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.stands(s); err != nil {
			return err
		}
		if err := t.claimedBy(o.Device, o.Owner); err != nil {
			return err
		}
		there, err := t.integer("SELECT count(*) FROM export_recipient WHERE id = ? AND removed_at IS NULL", o.Recipient)
		if err != nil {
			return err
		}
		ok, err := t.standsStill(o.ID, o.Owner, exposed.At)
		if err == nil && (!ok || there == 0) {
			err = ErrSwapLost
		}
		if err != nil {
			return err
		}
		id, known, err := t.leadsTo(s, o)
		if err == nil && !known {
			id = next
			err = t.addCandidate(s, o.Rekey, next)
		}
		if err != nil {
			return err
		}
		return t.finish(inOrder(
			func() error {
				return t.exec(`INSERT INTO disclosure (id, key_set, org, at, recipient, kind, rekey)
					SELECT ?, ?, r.org, ?, r.thumbprint, p.kind, r.id FROM rekey r JOIN export_recipient p ON p.id = r.recipient WHERE r.id = ?`,
					joinery.NewDisclosureID(), id, exposed.At, o.ID)
			},
			func() error { return t.exec("UPDATE key_set SET disclosed = 1 WHERE id = ?", id) },
			func() error {
				return t.changeDevice(o.Device, "UPDATE device SET disclosed = 1, rekeying = 1 WHERE id = ?", o.Device)
			},
			func() error { return t.offerAnew(o.Device) },
		), handedOver, exposed)
	})
}

func (t *tx) addCandidate(s joinery.ActivationState, r lorawan.Rekey, id joinery.KeySetID) error {
	k := s.KeySet
	err := t.exec(`INSERT INTO key_set (id, device, dev_eui, origin, generation, parent, cookie, rekey_join_eui, root10, version, join_nonce, disclosed)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, (SELECT join_nonce FROM key_set WHERE id = ?), 0)`,
		id, s.Device.ID, k.DevEUI, joinery.OriginRekeyed, k.Generation+1, k.ID, r.Cookie[:], r.JoinEUI, joinery.NwkKey, k.ID)
	if err != nil {
		return err
	}
	if err := t.exec("INSERT INTO rekey_candidate (device, key_set) VALUES (?, ?)", s.Device.ID, id); err != nil {
		return err
	}
	return t.offerAnew(s.Device.ID)
}

// stands makes a key set move on, if it is as it was loaded, and holds it until
// the transaction ends.
func (t *tx) stands(s joinery.ActivationState) error {
	n, err := t.changes("UPDATE key_set SET version = version + 1 WHERE id = ? AND version = ? AND id = (SELECT key_set FROM device WHERE id = ? AND deleted_at IS NULL)",
		s.KeySet.ID, s.KeySet.Version, s.Device.ID)
	if err == nil && n != 1 {
		err = ErrSwapLost
	}
	return err
}

// ProveKeySet makes a candidate the key set of its device, once the device signed
// with it: JoinNonce and DevNonces go on from where the former one had them, and
// its sessions end. The other candidates of the former one cannot be any more and
// go: an accept of those is under the former root keys, and a ticket names the
// instruction after which alone an element obeys it. ErrSwapLost where the former one moved meanwhile.
func (d *DB) ProveKeySet(ctx context.Context, s joinery.ActivationState, proven joinery.KeySetID, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.stands(s); err != nil {
			return err
		}
		n, err := t.changes("DELETE FROM rekey_candidate WHERE device = ? AND key_set = ?", s.Device.ID, proven)
		if err == nil && n != 1 {
			err = ErrSwapLost
		}
		if err != nil {
			return err
		}
		nonces := s.KeySet.Nonces
		nonces.Recent = nil
		err = t.exec(`UPDATE key_set SET version = version + ?, nonces = ?, join_nonce = CASE WHEN join_nonce > ? THEN join_nonce ELSE ? END WHERE id = ?`,
			s.KeySet.Version+1, nonces.Encode(), nonces.JoinNonce, nonces.JoinNonce, proven)
		if err != nil {
			return err
		}
		if err := t.exec("UPDATE device SET key_set = ?, rekey_word = CASE WHEN rekey_profile = 0 THEN rekey_word ELSE ? END WHERE id = ?",
			proven, joinery.RekeyByDevice, s.Device.ID); err != nil {
			return err
		}
		if err := t.forgetCandidates(s.Device.ID); err != nil {
			return err
		}
		if err := t.offerAnew(s.Device.ID); err != nil {
			return err
		}
		return t.finish(t.settleRekeying(s.Device.ID), a)
	})
}

// forgetCandidates forgets what a device cannot have any more. No join was ever
// answered with these key sets. Of one that was disclosed the row stays, to say so.
func (t *tx) forgetCandidates(id joinery.DeviceID) error {
	var gone []joinery.KeySetID
	err := t.each("SELECT key_set FROM rekey_candidate WHERE device = ?", func(r *row) error {
		gone = append(gone, joinery.KeySetID(r.int()))
		return nil
	}, id)
	if err == nil {
		err = t.exec("DELETE FROM rekey_candidate WHERE device = ?", id)
	}
	for _, k := range gone {
		if err == nil {
			err = t.forgetHeld(k)
		}
		if err == nil {
			err = t.exec("DELETE FROM sealed_root WHERE key_set = ?", k)
		}
		if err == nil {
			err = t.exec("DELETE FROM key_set WHERE id = ? AND disclosed = 0", k)
		}
	}
	return err
}

// RekeyOrder finds an order; CodeNotFound.
func (d *DB) RekeyOrder(ctx context.Context, id joinery.RekeyID) (o joinery.RekeyOrder, err error) {
	err = d.read(ctx, func(c conn) error {
		list, err := c.rekeyOrders("r.id = CAST(? AS INTEGER)", id)
		if err == nil && len(list) == 0 {
			err = notFound("order to rekey")
		}
		if err == nil {
			o = list[0]
		}
		return err
	})
	return o, err
}
