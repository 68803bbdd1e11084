package store

import (
	"context"
	"encoding/hex"
	"maps"
	"strings"
	"time"

	"joinery"
	"joinery/lorawan"
)

// prefixRange gives the EUIs that begin with the hexadecimal digits of prefix.
func prefixRange(prefix string) (first, last lorawan.EUI64, err error) {
	const digits = 16
	if len(prefix) > digits {
		return first, last, joinery.Errorf(joinery.CodeInvalid, "DevEUI prefix: want at most 16 hexadecimal digits")
	}
	_, err = hex.Decode(first[:], []byte(prefix+strings.Repeat("0", digits-len(prefix))))
	if err == nil {
		_, err = hex.Decode(last[:], []byte(prefix+strings.Repeat("f", digits-len(prefix))))
	}
	if err != nil {
		return first, last, joinery.Errorf(joinery.CodeInvalid, "DevEUI prefix: want hexadecimal digits only")
	}
	return first, last, nil
}

func (c conn) states(query string, args ...any) (states []joinery.ActivationState, err error) {
	err = c.each(query, func(r *row) error {
		s, err := scanState(r)
		states = append(states, s)
		return err
	}, args...)
	return states, err
}

const oneDevice = stateColumns + withCustody + stateTables

// Device finds a device by its id; CodeNotFound.
func (d *DB) Device(ctx context.Context, id joinery.DeviceID) (s joinery.ActivationState, err error) {
	err = d.read(ctx, func(c conn) error {
		var found bool
		if s, found, err = c.oneState(c.states(oneDevice+"AND d.id = ?", id)); err == nil && !found {
			err = notFound("device")
		}
		return err
	})
	return s, err
}

// FindDevices finds every device with a DevEUI, whatever its JoinEUI, up to
// 1,000 of them.
func (d *DB) FindDevices(ctx context.Context, devEUI lorawan.EUI64) (states []joinery.ActivationState, err error) {
	err = d.read(ctx, func(c conn) error {
		states, err = c.states(oneDevice+"AND d.dev_eui = ? ORDER BY d.id LIMIT ?", devEUI, maxLimit)
		if err == nil {
			err = c.tellAll(states)
		}
		return err
	})
	return states, err
}

// ManifestEntry gives the signed manifest entry and the serial number with
// which a device was imported; nil and "" where there were none. CodeNotFound
// for an absent device.
func (d *DB) ManifestEntry(ctx context.Context, id joinery.DeviceID) (entry []byte, serial string, err error) {
	err = d.read(ctx, func(c conn) error {
		found, err := c.one(`SELECT m.entry, coalesce(m.serial, '') FROM device d LEFT JOIN manifest_entry m ON m.device = d.id
			WHERE d.id = ? AND d.deleted_at IS NULL`, func(r *row) error { entry, serial = r.blob(), r.text(); return nil }, id)
		if err == nil && !found {
			err = notFound("device")
		}
		return err
	})
	return entry, serial, err
}

// SetSuspended suspends a device or lets it go on. A join under way is judged
// again. CodeConflict unless owner holds the device still.
func (d *DB) SetSuspended(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, suspended bool, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.heldBy(id, owner); err != nil {
			return err
		}
		return t.finish(t.changeDevice(id, "UPDATE device SET suspended = ? WHERE id = ? AND deleted_at IS NULL", suspended, id), a)
	})
}

// heldBy sees to it that a device is there and that owner holds it: whether the
// caller may change it was decided before this transaction, and a claim by
// somebody else may have come between.
func (t *tx) heldBy(id joinery.DeviceID, owner joinery.OrgID) error {
	org, err := t.integer("SELECT org FROM device WHERE id = ? AND deleted_at IS NULL", id)
	switch {
	case err != nil:
		return err
	case org == 0:
		return notFound("device")
	case joinery.OrgID(org) != owner:
		return joinery.Errorf(joinery.CodeConflict, "the device changed its owner meanwhile; read it again")
	}
	return nil
}

// claimedBy is heldBy, and refuses a device that was released: it stands under an
// organisation, and yet nobody holds it.
func (t *tx) claimedBy(id joinery.DeviceID, owner joinery.OrgID) error {
	if err := t.heldBy(id, owner); err != nil {
		return err
	}
	n, err := t.integer("SELECT count(*) FROM device WHERE id = ? AND released = 1", id)
	if err == nil && n > 0 {
		err = joinery.Errorf(joinery.CodeConflict, "the device was released, and nobody holds it until somebody claims it")
	}
	return err
}

// changeDevice runs an UPDATE of one device's row and advances the version of
// its key set, so that every join under way has to think again.
func (t *tx) changeDevice(id joinery.DeviceID, update string, args ...any) error {
	n, err := t.changes(update, args...)
	switch {
	case err != nil:
		return err
	case n == 0:
		return notFound("device")
	}
	// The update may have given it to another owner.
	if err := t.exec("UPDATE last_join SET org = (SELECT org FROM device WHERE id = ?) WHERE device = ?", id, id); err != nil {
		return err
	}
	return t.advance(id)
}

// advance makes every join under way think again, and where other servers join
// devices meanwhile it holds the key set until the transaction ends. So whoever
// reads nonces in order to write them advances first.
func (t *tx) advance(id joinery.DeviceID) error {
	return t.exec("UPDATE key_set SET version = version + 1 WHERE id = (SELECT key_set FROM device WHERE id = ?)", id)
}

// DeleteDevice takes a device away: nobody finds it and nothing joins it. Its
// binding, its own roaming rule, its manifest entry, what was refused to it, what was
// shown of it and the ciphertext of its roots are erased. What stays, unseen, is its row, its
// owners, disputes about it, its activations and the nonces of its key set, so
// that a device that comes back cannot be fed what it said before:
//
//   - A device with derived roots has them for ever: (master, generation,
//     DevEUI) leads to the same key set. Importing it again, by the
//     organisation that held it, brings the same device back with its id, owner
//     and every nonce, unbound unless the import says otherwise. Everybody else
//     is told that it is taken. It cannot come back under a MAC version that
//     judges DevNonces otherwise than before, because one rule's memory means
//     nothing to the other.
//   - A device with sealed roots gets a new id and a new key set when its keys
//     are imported again, by whomever. Nobody can tell from ciphertext whether
//     the keys are the old ones, so its DevNonces start empty, unless the
//     import brings them; its JoinNonce goes on above the highest that the DevEUI
//     had with this organisation, under whatever JoinEUI, or under this JoinEUI.
//
// Finished imports of the owner are forgotten as finished: importing the same
// file again looks at every row anew.
//
// CodeConflict unless owner holds the device still.
func (d *DB) DeleteDevice(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.heldBy(id, owner); err != nil {
			return err
		}
		if err := t.changeDevice(id, "UPDATE device SET deleted_at = ? WHERE id = ? AND deleted_at IS NULL", a.At, id); err != nil {
			return err
		}
		// Before that goes.
		err := inOrder(func() error { return t.tellImported(id, &a) }, func() error { return t.tellDeleted(id, a.At) },
			func() error { return t.tellDeletedAttempts(id, a.At) })
		if err != nil {
			return err
		}
		for _, erase := range []string{
			"DELETE FROM binding WHERE device = ?",
			"DELETE FROM roaming_rule WHERE device = ?",
			"DELETE FROM transfer WHERE device = ?",
			"DELETE FROM manifest_entry WHERE device = ?",
			"DELETE FROM refusal_device WHERE device = ?",
			"DELETE FROM attest_challenge WHERE device = ?",
			"DELETE FROM attest_fragment WHERE device = ?",
			"DELETE FROM attest_component WHERE device = ?",
			"DELETE FROM attest_shown WHERE device = ?",
			"DELETE FROM attest_result WHERE device = ?",
			"UPDATE product_key SET removed_at = created_at WHERE device = ? AND removed_at IS NULL",
			"UPDATE device SET attested_at = NULL, attest_l1 = NULL, attest_l2 = NULL, attest_l3 = NULL, attest_rule = NULL, attest_basis = NULL, attest_falls_at = NULL WHERE id = ?",
			eraseRoots,
			"UPDATE import SET current = 0 WHERE done = 1 AND org = (SELECT org FROM device WHERE id = ?)",
		} {
			if err := t.exec(erase, id); err != nil {
				return err
			}
		}
		entries, err := t.cancelRekeys(id, a.Actor, "deletion of the device", a.At)
		return t.finish(err, append(entries, a)...)
	})
}

// tellImported has the entry of a deletion say what the import of a device is
// proved with; see importLeaf.
func (t *tx) tellImported(id joinery.DeviceID, a *joinery.AuditEntry) error {
	manifest, err := t.manifestHash(id)
	if err != nil {
		return err
	}
	detail := maps.Clone(a.Detail)
	if detail == nil {
		detail = map[string]string{}
	}
	detail["manifest"], a.Detail = manifest, detail
	_, err = t.one("SELECT join_eui FROM device WHERE id = ?", func(r *row) error { detail["joinEUI"] = r.eui().String(); return nil }, id)
	return err
}

// eraseRoots erases the ciphertext of a device's keys: of the key set that it has, of
// those from which that came and those that it may have instead, and of the rekeying
// keys that were handed over with them.
const eraseRoots = `DELETE FROM sealed_root WHERE key_set IN (
	WITH RECURSIVE up(id) AS (SELECT key_set FROM device WHERE id = ?1 UNION SELECT key_set FROM rekey_candidate WHERE device = ?1
		UNION SELECT p.parent FROM up JOIN key_set p ON p.id = up.id WHERE p.parent IS NOT NULL)
	SELECT id FROM up UNION SELECT r.held FROM rekeying_key r JOIN up ON up.id = r.key_set)`

// OpenReset opens the operator's reset of DevNonces at a time: one join within
// a day after it may set a new floor. The JoinNonce is raised to at least
// joinNonceAtLeast and never lowered. CodeConflict unless owner holds the device
// still.
func (d *DB) OpenReset(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, at time.Time, joinNonceAtLeast lorawan.JoinNonce, a joinery.AuditEntry) error {
	if joinNonceAtLeast > lorawan.MaxJoinNonce {
		return joinery.Errorf(joinery.CodeInvalid, "JoinNonce: want at most %d", lorawan.MaxJoinNonce)
	}
	return d.do(ctx, func(t *tx) error {
		if err := t.heldBy(id, owner); err != nil {
			return err
		}
		if err := t.advance(id); err != nil { // before the nonces are read
			return err
		}
		states, err := t.states(oneDevice+"AND d.id = ?", id)
		if err == nil && len(states) == 0 {
			err = notFound("device")
		}
		if err != nil {
			return err
		}
		k := states[0].KeySet
		k.Nonces.ResetAt = at
		var newest joinery.ActivationID
		if len(k.Nonces.Recent) > 0 {
			newest = k.Nonces.Recent[0].ID
		}
		err = t.exec("UPDATE key_set SET join_nonce = ?, nonces = ?, reset_after = ? WHERE id = ?",
			max(k.Nonces.JoinNonce, joinNonceAtLeast), k.Nonces.Encode(), optional{newest}, k.ID)
		return t.finish(err, a)
	})
}
