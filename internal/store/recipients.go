package store

import (
	"context"
	"time"

	"joinery"
)

// AddRecipient stores a recipient. CodeConflict where its organisation has one of
// that name or key, or most already.
func (d *DB) AddRecipient(ctx context.Context, r joinery.Recipient, most int, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.integer("SELECT count(*) FROM export_recipient WHERE org = ? AND removed_at IS NULL", r.Org)
		switch {
		case err != nil:
			return err
		case n >= int64(most):
			return joinery.Errorf(joinery.CodeConflict, "an organisation has at most %d recipients; remove one first", most)
		}
		err = t.exec(`INSERT INTO export_recipient (id, org, name, kind, thumbprint, public_key, sha1, added_by, created_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			r.ID, r.Org, r.Name, r.Kind, r.Thumbprint, r.Key, r.SHA1, r.AddedBy, r.CreatedAt)
		return t.finish(conflict(err, "this organisation has a recipient of that name, or with that key"), a)
	})
}

// RemoveRecipient takes a recipient away: what is being exported to it is
// withdrawn, and nothing more is. CodeNotFound.
func (d *DB) RemoveRecipient(ctx context.Context, id joinery.RecipientID, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("UPDATE export_recipient SET removed_at = ? WHERE id = ? AND removed_at IS NULL", a.At, id)
		if err == nil && n == 0 {
			err = notFound("recipient")
		}
		if err != nil {
			return err
		}
		open, err := t.exports("WHERE e.recipient = ? AND e.ended_at IS NULL ORDER BY e.id", id)
		if err != nil {
			return err
		}
		entries := []joinery.AuditEntry{a}
		for _, e := range open {
			e.State, e.EndedAt = joinery.ExportWithdrawn, a.At
			if err := t.putExport(e); err != nil {
				return err
			}
			w := a
			w.Event, w.Detail = joinery.AuditExportWithdrawn, map[string]string{"export": e.ID.String(), "recipient": e.Thumbprint}
			entries = append(entries, w)
		}
		orders, err := t.rekeyOrders("r.recipient = ? AND r.ended_at IS NULL ORDER BY r.id", id)
		if err != nil {
			return err
		}
		for _, o := range orders {
			if err := t.exec("UPDATE rekey SET state = 'cancelled', ended_at = ? WHERE id = ?", a.At, o.ID); err != nil {
				return err
			}
			if err := t.settleRekeying(o.Device); err != nil {
				return err
			}
			c := a
			c.Event, c.Device, c.Detail = joinery.AuditRekeyCancelled, o.Device, map[string]string{"order": o.ID.String(), "recipient": o.Thumbprint, "by": "removal of the recipient"}
			entries = append(entries, c)
		}
		return t.audit(entries...)
	})
}

const recipientColumns = "SELECT id, org, name, kind, thumbprint, public_key, sha1, added_by, created_at, removed_at FROM export_recipient "

func scanRecipient(r *row) joinery.Recipient {
	return joinery.Recipient{
		ID: joinery.RecipientID(r.int()), Org: joinery.OrgID(r.int()), Name: r.text(), Kind: joinery.RecipientKind(r.text()), Thumbprint: r.text(),
		Key: r.text(), SHA1: r.bool(), AddedBy: r.text(), CreatedAt: r.time(), RemovedAt: r.time(),
	}
}

// Recipient finds a recipient, a removed one, too; CodeNotFound.
func (d *DB) Recipient(ctx context.Context, id joinery.RecipientID) (found joinery.Recipient, err error) {
	err = d.read(ctx, func(c conn) error {
		ok, err := c.one(recipientColumns+"WHERE id = ?", func(r *row) error { found = scanRecipient(r); return nil }, id)
		if err == nil && !ok {
			err = notFound("recipient")
		}
		return err
	})
	return found, err
}

// Recipients gives the recipients of an organisation, without those removed, in
// order of their names.
func (d *DB) Recipients(ctx context.Context, org joinery.OrgID) (list []joinery.Recipient, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each(recipientColumns+"WHERE org = ? AND removed_at IS NULL ORDER BY name", func(r *row) error {
			list = append(list, scanRecipient(r))
			return nil
		}, org)
	})
	return list, err
}

// ExportPolicy gives an organisation's policy: auto where nobody said anything.
func (d *DB) ExportPolicy(ctx context.Context, org joinery.OrgID) (p joinery.ExportPolicy, err error) {
	err = d.read(ctx, func(c conn) error { p, err = c.exportPolicy(org); return err })
	return p, err
}

func (c conn) exportPolicy(org joinery.OrgID) (joinery.ExportPolicy, error) {
	p := joinery.ExportPolicy{Org: org, Approval: joinery.ApprovalAuto}
	_, err := c.one("SELECT approval, next, next_from, proposed_by, proposed_person, admin_left_at FROM export_policy WHERE org = ?", func(r *row) (err error) {
		if p.Approval, err = joinery.ParseApprovalRule(r.text()); err != nil {
			return err
		}
		if next := r.text(); next != "" {
			if p.Next, err = joinery.ParseApprovalRule(next); err != nil {
				return err
			}
		}
		p.NextFrom, p.ProposedBy, p.ProposedPerson, p.AdminLeftAt = r.time(), r.text(), joinery.PersonID(r.int()), r.time()
		return nil
	}, org)
	return p, err
}

// SetExportPolicy puts p in place of seen; when an admin last left is the store's
// to say. CodeConflict where the policy is another by now.
func (d *DB) SetExportPolicy(ctx context.Context, p, seen joinery.ExportPolicy, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		now, err := t.exportPolicy(p.Org)
		if err != nil {
			return err
		}
		if now.AdminLeftAt = seen.AdminLeftAt; now != seen {
			return joinery.Errorf(joinery.CodeConflict, "the policy was changed meanwhile; read it again")
		}
		next := ""
		if p.Next != 0 {
			next = p.Next.String()
		}
		err = t.exec(`INSERT INTO export_policy (org, approval, next, next_from, proposed_by, proposed_person) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (org) DO UPDATE SET approval = excluded.approval, next = excluded.next, next_from = excluded.next_from,
			proposed_by = excluded.proposed_by, proposed_person = excluded.proposed_person`,
			p.Org, p.Approval.String(), optional{next}, optional{p.NextFrom}, optional{p.ProposedBy}, optional{p.ProposedPerson})
		return t.finish(conflict(err, "there is such a policy"), a)
	})
}

// noteAdminLeft writes down that somebody is an admin no more; see
// joinery.ExportPolicy.
func (t *tx) noteAdminLeft(org joinery.OrgID, at time.Time) error {
	return t.exec(`INSERT INTO export_policy (org, approval, admin_left_at) VALUES (?, ?, ?)
		ON CONFLICT (org) DO UPDATE SET admin_left_at = excluded.admin_left_at`, org, joinery.ApprovalAuto.String(), at)
}
