package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"joinery"
)

// link is one owner of a device in the chain of its owners.
type link struct {
	device          joinery.DeviceID
	how             joinery.How
	epoch           uint32
	org             joinery.OrgID
	tokenGeneration uint32
	since           time.Time
	previous        [sha256.Size]byte // zeros for epoch 0
}

// hash is what the next link holds: SHA-256 over, big-endian, how 1 ‖ device 8 ‖
// epoch 4 ‖ organisation 8 ‖ token generation 4 ‖ since 8 ‖ hash of the link
// before 32. Epoch 0 is the maker, since the device was made, with token
// generation 0; its how is 1.
func (l link) hash() [sha256.Size]byte {
	b := append(make([]byte, 0, 65), byte(l.how))
	b = binary.BigEndian.AppendUint64(b, uint64(l.device))
	b = binary.BigEndian.AppendUint32(b, l.epoch)
	b = binary.BigEndian.AppendUint64(b, uint64(l.org))
	b = binary.BigEndian.AppendUint32(b, l.tokenGeneration)
	b = binary.BigEndian.AppendUint64(b, uint64(l.since.UnixMilli()))
	return sha256.Sum256(append(b, l.previous[:]...))
}

func firstLink(d joinery.Device) link {
	return link{device: d.ID, how: joinery.HowClaim, org: d.Maker, since: d.CreatedAt}
}

// links gives the owners after the maker, oldest first.
func (c conn) links(id joinery.DeviceID) (links []link, err error) {
	err = c.each("SELECT epoch, org, token_generation, since, how, previous FROM ownership WHERE device = ? ORDER BY epoch", func(r *row) error {
		l := link{device: id, epoch: uint32(r.int()), org: joinery.OrgID(r.int()), tokenGeneration: uint32(r.int()), since: r.time(), how: joinery.How(r.int())}
		r.into(l.previous[:])
		links = append(links, l)
		return nil
	}, id)
	return links, err
}

// Claim makes org the owner of a device: the epoch of its ownership becomes
// expectedEpoch+1; CodeConflict where it is not expectedEpoch any more, or where
// a new binding is given and the present one is locked by its network. The
// token generation stays. Without a new binding one that the former owner made
// ends, and one that a network made stays. Roaming rules of the former owner
// for this device end.
func (d *DB) Claim(ctx context.Context, id joinery.DeviceID, expectedEpoch uint32, org joinery.OrgID, binding *joinery.Binding, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		s, err := t.state(id)
		switch {
		case err != nil:
			return err
		case s.Device.Ownership.Epoch != expectedEpoch:
			return changedOwner()
		}
		return t.finish(t.claim(s, org, binding, a.At), a)
	})
}

// state reads a device that is there; CodeNotFound.
func (t *tx) state(id joinery.DeviceID) (s joinery.ActivationState, err error) {
	states, err := t.states(oneDevice+"AND d.id = ?", id)
	if err == nil && len(states) == 0 {
		err = notFound("device")
	}
	if err != nil {
		return s, err
	}
	return states[0], nil
}

func changedOwner() error {
	return joinery.Errorf(joinery.CodeConflict, "the device changed its owner meanwhile; read it again")
}

func (t *tx) claim(s joinery.ActivationState, org joinery.OrgID, binding *joinery.Binding, at time.Time) error {
	if err := t.claimBinding(s, binding, at); err != nil {
		return err
	}
	return t.addOwner(s.Device, joinery.OwnerLink{Org: org, How: joinery.HowClaim, TokenGeneration: s.Device.Ownership.TokenGeneration, Since: at})
}

// addOwner makes next the owner after the present one, with the epoch after its.
// What the present owner alone had of the device ends: its roaming rules, its offer,
// its order to rekey, what it wanted of its attestation and the challenges for that.
func (t *tx) addOwner(d joinery.Device, next joinery.OwnerLink) error {
	last := firstLink(d)
	links, err := t.links(d.ID)
	if err != nil {
		return err
	}
	if len(links) > 0 {
		last = links[len(links)-1]
	}
	epoch := d.Ownership.Epoch + 1
	nonce, err := t.linkOwner(d, epoch, next)
	if err != nil {
		return err
	}
	err = t.exec("INSERT INTO ownership (device, epoch, org, token_generation, since, how, previous, nonce) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		d.ID, epoch, next.Org, next.TokenGeneration, next.Since, next.How, last.hash(), nonce)
	if err := conflict(err, "the device changed its owner meanwhile; read it again"); err != nil {
		return err
	}
	if err := t.exec("DELETE FROM roaming_rule WHERE device = ? AND org <> ?", d.ID, next.Org); err != nil {
		return err
	}
	for _, end := range []string{"DELETE FROM transfer WHERE device = ?", "DELETE FROM attest_challenge WHERE device = ?", "DELETE FROM attest_fragment WHERE device = ?"} {
		if err := t.exec(end, d.ID); err != nil {
			return err
		}
	}
	// Who gave the order reads that entry: who has the device now is not named.
	cancelled, err := t.cancelRekeys(d.ID, "joinery", "change of hands", next.Since)
	if err := t.finish(err, cancelled...); err != nil {
		return err
	}
	return t.changeDevice(d.ID, "UPDATE device SET org = ?, owner_epoch = ?, owned_since = ?, token_generation = ?, released = ?, attest_rule = NULL, attest_basis = attest_basis % 64 WHERE id = ?",
		next.Org, epoch, next.Since, next.TokenGeneration, next.How == joinery.HowRelease, d.ID)
}

func (t *tx) claimBinding(s joinery.ActivationState, binding *joinery.Binding, at time.Time) error {
	switch old := s.Binding; {
	case binding != nil && lockedByNetwork(old):
		return lockStands()
	case binding != nil:
		return t.bindDevice(s.Device.ID, *binding, at)
	case old != nil && old.Source == "owner":
		return t.exec("DELETE FROM binding WHERE device = ?", s.Device.ID)
	}
	return nil
}

func lockedByNetwork(b *joinery.Binding) bool {
	return b != nil && b.Locked && b.Source == "network"
}

func lockStands() error {
	return joinery.Errorf(joinery.CodeConflict, "the binding is locked by its network, which has to let go first; "+
		"who has the device at hand can dispute the lock")
}

// SetBinding replaces a device's binding, or removes it where binding is nil.
// CodeConflict unless owner holds the device still, and the present binding has
// expectedEpoch; 0 means that there is none. The new one gets the epoch above the highest that the device ever had,
// so that a session made under an earlier binding is never taken for one of
// this: with a present binding that is expectedEpoch+1.
func (d *DB) SetBinding(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, expectedEpoch uint32, binding *joinery.Binding, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.heldBy(id, owner); err != nil {
			return err
		}
		return t.finish(t.rebind(id, expectedEpoch, binding, a.At), a)
	})
}

func (t *tx) rebind(id joinery.DeviceID, expectedEpoch uint32, binding *joinery.Binding, at time.Time) error {
	present, err := t.integer("SELECT epoch FROM binding WHERE device = ?", id)
	switch {
	case err != nil:
		return err
	case present != int64(expectedEpoch):
		return joinery.Errorf(joinery.CodeConflict, "the binding was changed meanwhile; read it again")
	}
	if err := t.replaceBinding(id, binding, at); err != nil {
		return err
	}
	return t.advance(id)
}

// replaceBinding puts binding in place of the present one; nil is none.
func (t *tx) replaceBinding(id joinery.DeviceID, binding *joinery.Binding, at time.Time) error {
	if binding == nil {
		return t.exec("DELETE FROM binding WHERE device = ?", id)
	}
	return t.bindDevice(id, *binding, at)
}

// bindDevice writes b in place of the present binding, with the next epoch of
// the device's bindings. at stands for a Since that is not given, "owner" for a
// Source.
func (t *tx) bindDevice(id joinery.DeviceID, b joinery.Binding, at time.Time) error {
	if b.Since.IsZero() {
		b.Since = at
	}
	if b.Source == "" {
		b.Source = "owner"
	}
	if err := t.exec("UPDATE device SET binding_epoch = binding_epoch + 1 WHERE id = ?", id); err != nil {
		return err
	}
	if err := t.exec("DELETE FROM binding WHERE device = ?", id); err != nil {
		return err
	}
	return t.exec(`INSERT INTO binding (device, epoch, net_id, ns_id, as_id, app_s_key, clear_nwk_keys, source, locked, since, kek)
		SELECT id, binding_epoch, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM device WHERE id = ?`,
		b.NetID, optional{b.NSID}, b.ASID, b.Policy, b.ClearNwkKeys, b.Source, b.Locked, b.Since, optional{b.KEK}, id)
}
