package store

import (
	"context"
	"time"

	"joinery"
)

// Invite stores an invitation. One of the operator's bootstrap tokens (without an
// address) takes the place of those before. The zero organisation is the
// operator's. Invitations that have ended are removed with it. CodeForbidden where
// who makes it lost the right to meanwhile, CodeConflict where the organisation has
// joinery.MaxInvitations already; a bootstrap token is always to be had.
func (d *DB) Invite(ctx context.Context, i joinery.Invitation, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.mayInvite(i); err != nil {
			return err
		}
		if err := t.exec("DELETE FROM invitation WHERE expires_at <= ?", i.CreatedAt); err != nil {
			return err
		}
		if i.Email == "" {
			if err := t.exec("DELETE FROM invitation WHERE email = ''"); err != nil {
				return err
			}
		} else if err := t.roomForInvitation(t.orOperator(i.Org)); err != nil {
			return err
		}
		if a.Org == 0 {
			a.Org = t.orOperator(i.Org)
		}
		return t.finish(t.exec("INSERT INTO invitation (id, org, role, email, hash, created_at, expires_at, invited_by, by_person, by_key) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			i.ID, t.orOperator(i.Org), i.Role, i.Email, i.Hash, i.CreatedAt, i.ExpiresAt, i.InvitedBy, optional{i.ByPerson}, optional{i.ByKey}), a)
	})
}

// roomForInvitation refuses one invitation more than an organisation may have.
func (t *tx) roomForInvitation(org joinery.OrgID) error {
	n, err := t.integer("SELECT count(*) FROM invitation WHERE org = ?", org)
	if err == nil && n >= joinery.MaxInvitations {
		err = joinery.Errorf(joinery.CodeConflict, "%d invitations into the organisation stand, the most that may: withdraw those that nobody will take "+
			"('joinctl person invitations', 'joinctl person withdraw'), or wait until some have ended", n)
	}
	return err
}

// mayInvite refuses an invitation whose maker lost the right to make it after the
// request was let in: what took the right away could not remove it.
func (t *tx) mayInvite(i joinery.Invitation) error {
	if err := t.wantStandingKey(i.ByKey); err != nil || i.ByPerson == 0 {
		return err
	}
	admin, err := t.integer("SELECT count(*) FROM membership WHERE person = ? AND role = 'admin' AND (org = ? OR org = (SELECT operator_org FROM store))",
		i.ByPerson, t.orOperator(i.Org))
	if err == nil && admin == 0 {
		err = joinery.Errorf(joinery.CodeForbidden, "who invites is no admin of the organisation any more")
	}
	return err
}

// endInvitationsBy removes what somebody who is no admin of an organisation any
// more, or a key of theirs, made there, and as an operator anywhere: by it they
// would have their role back. It tells how many.
func (t *tx) endInvitationsBy(org joinery.OrgID, person joinery.PersonID) (int, error) {
	return t.changes("DELETE FROM invitation WHERE by_person = ?2 AND (org = ?1 OR ?1 = (SELECT operator_org FROM store))", org, person)
}

// endInvitationsTo removes what invites a person into an organisation, and tells
// how many.
func (t *tx) endInvitationsTo(org joinery.OrgID, person joinery.PersonID) (int, error) {
	return t.changes("DELETE FROM invitation WHERE org = ? AND email <> '' AND email = (SELECT email FROM person WHERE id = ?)", org, person)
}

const invitationColumns = "SELECT id, org, role, email, hash, created_at, expires_at, invited_by, by_person, by_key FROM invitation "

func scanInvitation(r *row) joinery.Invitation {
	i := joinery.Invitation{ID: joinery.InvitationID(r.int()), Org: joinery.OrgID(r.int()), Role: joinery.Role(r.text()), Email: r.text()}
	r.into(i.Hash[:])
	i.CreatedAt, i.ExpiresAt, i.InvitedBy = r.time(), r.time(), r.text()
	i.ByPerson, i.ByKey = joinery.PersonID(r.int()), joinery.APIKeyID(r.int())
	return i
}

// Invitation finds an invitation, one that has ended too; CodeNotFound.
func (d *DB) Invitation(ctx context.Context, id joinery.InvitationID) (i joinery.Invitation, err error) {
	err = d.read(ctx, func(c conn) error {
		found, err := c.one(invitationColumns+"WHERE id = ?", func(r *row) error { i = scanInvitation(r); return nil }, id)
		if err == nil && !found {
			err = notFound("invitation")
		}
		return err
	})
	return i, err
}

// Invitations gives the invitations into an organisation, in order of their ids.
func (d *DB) Invitations(ctx context.Context, org joinery.OrgID) ([]joinery.Invitation, error) {
	return d.invitations(ctx, "WHERE org = ? ORDER BY id", org)
}

// InvitationsOf gives the invitations of an address that stand at that time.
func (d *DB) InvitationsOf(ctx context.Context, email string, at time.Time) ([]joinery.Invitation, error) {
	return d.invitations(ctx, "WHERE email = ? AND email <> '' AND expires_at > ? ORDER BY id", email, at)
}

func (d *DB) invitations(ctx context.Context, where string, args ...any) (list []joinery.Invitation, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each(invitationColumns+where, func(r *row) error { list = append(list, scanInvitation(r)); return nil }, args...)
	})
	return list, err
}

// WithdrawInvitation removes an invitation; CodeNotFound.
func (d *DB) WithdrawInvitation(ctx context.Context, id joinery.InvitationID, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("DELETE FROM invitation WHERE id = ?", id)
		if err == nil && n == 0 {
			err = notFound("invitation")
		}
		return t.finish(err, a)
	})
}
