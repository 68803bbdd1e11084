package store

import (
	"context"

	"joinery"
)

// AddKEK stores one version of a peer's KEK under the peer's organisation.
// CodeConflict where the label is taken (that of a claimed KEK: by another
// claimed one of this peer) or (peer, role) has that version.
func (d *DB) AddKEK(ctx context.Context, k joinery.KEK, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error { return t.finish(t.addKEK(k), a) })
}

func (t *tx) addKEK(k joinery.KEK) error {
	org, err := t.integer("SELECT org FROM peer WHERE id = ? AND removed_at IS NULL", k.Peer)
	if err == nil && org == 0 {
		err = notFound("peer")
	}
	if err != nil {
		return err
	}
	err = t.exec("INSERT INTO kek (id, org, peer, role, label, version, sealed, created_at, claimed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
		k.ID, org, k.Peer, k.Role, k.Label, k.Version, k.Sealed, k.CreatedAt, k.Claimed)
	return conflict(err, "the KEK label is in use, or the peer has that version")
}

// RetireKEK takes a KEK out of use; retiring again changes nothing.
func (d *DB) RetireKEK(ctx context.Context, id joinery.KEKID, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("UPDATE kek SET retired_at = coalesce(retired_at, ?) WHERE id = ?", a.At, id)
		if err == nil && n == 0 {
			err = notFound("KEK")
		}
		return t.finish(err, a)
	})
}

// KEKs gives every KEK, retired ones and those of removed peers too.
func (d *DB) KEKs(ctx context.Context) (keks []joinery.KEK, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.eachKEK(func(k joinery.KEK) error { keks = append(keks, k); return nil })
	})
	return keks, err
}

func (c conn) eachKEK(fn func(joinery.KEK) error) error {
	return c.each("SELECT id, peer, role, label, version, sealed, created_at, retired_at IS NOT NULL, claimed FROM kek ORDER BY id", func(r *row) error {
		return fn(joinery.KEK{
			ID: joinery.KEKID(r.int()), Peer: joinery.PeerID(r.int()), Role: joinery.KEKRole(r.text()), Label: r.text(),
			Version: uint32(r.int()), Sealed: r.blob(), CreatedAt: r.time(), Retired: r.bool(), Claimed: r.bool(),
		})
	})
}
