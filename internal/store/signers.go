package store

import (
	"context"

	"joinery"
	"joinery/manifest"
)

const signerColumns = `id, org, name, kid, x5t_s256, certificate, join_eui_first, join_eui_last, dev_eui_first, dev_eui_last,
	master, generation, created_at, family, roots, serial_suffix, shared`

// AddSigner pins a signer of manifests; CodeConflict where its organisation has
// one of that name. A zero Org is the operator's.
func (d *DB) AddSigner(ctx context.Context, s joinery.Signer, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		family := s.Family
		if family == "" {
			family = manifest.FamilyJoinery
		}
		err := t.exec("INSERT INTO signer ("+signerColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			s.ID, t.orOperator(s.Org), s.Name, s.KID, s.X5TS256, s.DER, s.JoinEUIs.First, s.JoinEUIs.Last,
			s.DevEUIs.First, s.DevEUIs.Last, s.Master, s.Generation, s.CreatedAt, string(family), s.Roots, s.SerialSuffix, s.Shared)
		if err := conflict(err, "the organisation has a signer of that name"); err != nil {
			return err
		}
		return t.finish(t.reopenImports(), a)
	})
}

// RemoveSigner forgets a signer; what it provisioned stays. What devices have shown with
// keys that it vouched for rests on that no more: see EndUnvouched.
func (d *DB) RemoveSigner(ctx context.Context, id joinery.SignerID, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("DELETE FROM signer WHERE id = ?", id)
		if err == nil && n == 0 {
			err = notFound("signer")
		}
		if err == nil {
			err = t.exec("INSERT INTO attest_unpinned (signer, at) SELECT signer, ? FROM attest_result WHERE signer = ? AND unpinned_at IS NULL LIMIT 1", a.At, id)
		}
		return t.finish(err, a)
	})
}

// Signers gives every pinned signer, in the order of their making.
func (d *DB) Signers(ctx context.Context) (signers []joinery.Signer, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each("SELECT "+signerColumns+" FROM signer ORDER BY id", func(r *row) error {
			signers = append(signers, joinery.Signer{
				ID: joinery.SignerID(r.int()), Org: joinery.OrgID(r.int()), Name: r.text(), KID: r.text(), X5TS256: r.text(), DER: r.blob(),
				JoinEUIs: joinery.EUIRange{First: r.eui(), Last: r.eui()}, DevEUIs: joinery.EUIRange{First: r.eui(), Last: r.eui()},
				Master: r.text(), Generation: uint32(r.int()), CreatedAt: r.time(),
				Family: manifest.Family(r.text()), Roots: r.blob(), SerialSuffix: r.text(), Shared: r.bool(),
			})
			return nil
		})
	})
	return signers, err
}
