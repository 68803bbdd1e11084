package store

import (
	"context"
	"fmt"

	"joinery"
	"joinery/lorawan"
)

// The state of a device: device, key set, binding and sealed roots in one
// statement. Custody blobs are left out where a join reads, which has no use
// for them.
const (
	stateColumns     = "SELECT " + stateColumnNames
	stateColumnNames = `d.id, d.join_eui, d.dev_eui, d.mac_version, d.maker, d.suspended, d.disclosed, d.created_at,
	d.org, d.owner_epoch, d.token_generation, coalesce(d.owned_since, d.created_at), d.released,
	d.service_plan, d.service_ends_at, d.service_refuse_at, d.service_prepaid,
	d.attested_at, d.attest_l1, d.attest_l2, d.attest_l3, d.attest_rule, d.attest_basis,
	d.rekey_profile, d.rekey_word, d.rekeying,
	k.id, k.origin, k.master, k.generation, k.root10, k.version, k.join_nonce, k.nonces, k.last_join_at, k.disclosed,
	b.epoch, b.net_id, b.ns_id, b.as_id, b.app_s_key, b.clear_nwk_keys, b.source, b.locked, b.since, b.kek,
	s.nwk_use, s.app_use, `
	withoutCustody = "NULL, NULL"
	withCustody    = "s.nwk_custody, s.app_custody"
	// Only sealed key sets have a row in sealed_root: for others the key is NULL,
	// which needs no search.
	stateTables = `
	FROM device d ` + stateJoins + `
	WHERE d.deleted_at IS NULL `
	stateJoins = `JOIN key_set k ON k.id = d.key_set LEFT JOIN binding b ON b.device = d.id
	LEFT JOIN sealed_root s ON s.key_set = CASE WHEN k.origin = 2 THEN k.id END`

	// SQLite looks at what is bound to "column = ?" in a join, and so plans the
	// statement anew each time. It does not look into a CAST.
	loadQuery = stateColumns + withoutCustody + stateTables + "AND d.dev_eui = CAST(? AS BLOB) AND d.join_eui = CAST(? AS BLOB)"
)

// LoadActivation reads all that a join needs to know of a device. The custody
// blobs of its key set are left out. CodeUnknownDevice where there is none. A
// device that is being rekeyed, or was, costs a second read; what changed between
// the two makes the join's commit lose its swap.
func (d *DB) LoadActivation(ctx context.Context, joinEUI, devEUI lorawan.EUI64) (joinery.ActivationState, error) {
	s, err := d.engine.loadActivation(ctx, joinEUI, devEUI)
	if err == nil && s.Device.Rekeying {
		return d.loadRekeying(ctx, s)
	}
	return s, err
}

func (d *DB) loadRekeying(ctx context.Context, s joinery.ActivationState) (joinery.ActivationState, error) {
	err := d.readJoin(ctx, func(c conn) error { return c.rekeying(&s) })
	return s, err
}

func (c *sqliteConn) load(joinEUI, devEUI lorawan.EUI64) (s joinery.ActivationState, err error) {
	stmt, err := c.Prepare(loadQuery)
	if err != nil {
		return s, err
	}
	stmt.BindBytes(1, devEUI[:])
	stmt.BindBytes(2, joinEUI[:])
	found, err := stmt.Step()
	if err == nil && found {
		s, err = scanState(&row{stmt: stmt})
	}
	if err := firstError(err, stmt.Reset()); err != nil {
		return s, err
	}
	if !found {
		return s, errUnknownDevice
	}
	return s, nil
}

var errUnknownDevice = joinery.Errorf(joinery.CodeUnknownDevice, "no such device")

// scanState reads the columns of stateColumns.
func scanState(r *row) (s joinery.ActivationState, err error) {
	d, k := &s.Device, &s.KeySet
	d.ID, d.JoinEUI, d.DevEUI, d.MACVersion = joinery.DeviceID(r.int()), r.eui(), r.eui(), macVersion(r.int())
	d.Maker, d.Suspended, d.Disclosed, d.CreatedAt = joinery.OrgID(r.int()), r.bool(), r.bool(), r.time()
	d.Ownership = joinery.Ownership{Org: joinery.OrgID(r.int()), Epoch: uint32(r.int()), TokenGeneration: uint32(r.int()), Since: r.time(), Released: r.bool()}
	d.Service = scanTerm(r)
	d.Attested = scanAttested(r)
	d.Rekey, d.RekeyWord, d.Rekeying = joinery.RekeyProfile(r.int()), joinery.RekeyWord(r.int()), r.bool()

	k.ID, k.DeviceID, k.DevEUI = joinery.KeySetID(r.int()), d.ID, d.DevEUI
	k.Origin, k.Master, k.Generation = joinery.Origin(r.int()), r.text(), uint32(r.int())
	k.Root10, k.Version = joinery.RootKey(r.int()), uint64(r.int())
	joinNonce := lorawan.JoinNonce(r.int())
	if k.Nonces, err = joinery.DecodeNonces(joinNonce, r.blob()); err != nil {
		return s, fmt.Errorf("key set %s: %w", k.ID, err)
	}
	d.LastJoinAt, k.Disclosed = r.time(), r.bool()

	s.Binding = scanBinding(r)
	k.Nwk.Use, k.App.Use, k.Nwk.Custody, k.App.Custody = r.blob(), r.blob(), r.blob(), r.blob()
	return s, nil
}

// scanTerm reads plan, end, refusal and prepaid months.
func scanTerm(r *row) joinery.ServiceTerm {
	return joinery.ServiceTerm{Plan: r.text(), EndsAt: r.time(), RefuseAt: r.time(), Prepaid: int(r.int())}
}

// bindingColumns is how many columns scanBinding reads.
const bindingColumns = 10

func scanBinding(r *row) *joinery.Binding {
	if r.null() {
		r.col += bindingColumns
		return nil
	}
	return &joinery.Binding{
		Epoch: uint32(r.int()), NetID: r.netID(), NSID: r.eui(), ASID: r.text(), Policy: joinery.AppSKeyPolicy(r.int()),
		ClearNwkKeys: r.bool(), Source: r.text(), Locked: r.bool(), Since: r.time(),
		KEK: joinery.KEKID(r.int()),
	}
}

// Activation finds an activation; CodeNotFound for one that never was, or that
// was erased.
func (d *DB) Activation(ctx context.Context, id joinery.ActivationID) (a joinery.Activation, err error) {
	err = d.readJoin(ctx, func(c conn) error {
		found := false
		_, err := c.one("SELECT payload FROM activation WHERE id = ?", func(r *row) (err error) {
			if payload := r.blob(); payload != nil {
				found = true
				a, err = joinery.ParseActivation(payload)
			}
			return err
		}, id)
		if err == nil && !found {
			err = notFound("activation")
		}
		return err
	})
	return a, err
}

// Activations gives the newest activations of a device's key set and of those
// that it came from, newest first, without the erased ones; CodeNotFound for an
// absent device.
func (d *DB) Activations(ctx context.Context, device joinery.DeviceID, limit int) (all []joinery.Activation, err error) {
	limit = pageLimit(limit)
	err = d.snapshot(ctx, func(c conn) error {
		keySet, err := c.integer("SELECT key_set FROM device WHERE id = ? AND deleted_at IS NULL", device)
		if err == nil && keySet == 0 {
			err = notFound("device")
		}
		for err == nil && keySet != 0 && len(all) < limit {
			var parent int64
			var nonces joinery.Nonces
			_, err = c.one("SELECT coalesce(parent, 0), nonces FROM key_set WHERE id = ?", func(r *row) (err error) {
				parent = r.int()
				nonces, err = joinery.DecodeNonces(0, r.blob())
				return err
			}, keySet)
			if err == nil && len(nonces.Recent) > 0 {
				err = c.walk(int64(nonces.Recent[0].ID), func(_ int64, payload []byte) (bool, error) {
					if payload == nil {
						return true, nil
					}
					a, err := joinery.ParseActivation(payload)
					all = append(all, a)
					return len(all) < limit, err
				})
			}
			keySet = parent
		}
		return err
	})
	return all, err
}

// walk calls fn with each activation of a key set, from newest back to the
// first, until fn says no. payload is nil for an erased one.
func (c conn) walk(newest int64, fn func(id int64, payload []byte) (more bool, err error)) error {
	for id, more := newest, true; id != 0 && more; {
		var previous int64
		found, err := c.one("SELECT coalesce(previous, 0), payload FROM activation WHERE id = ?", func(r *row) (err error) {
			previous = r.int()
			more, err = fn(id, r.blob())
			return err
		}, id)
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("activation %s is missing from its chain; run joinery fsck", joinery.ActivationID(id))
		}
		id = previous
	}
	return nil
}
