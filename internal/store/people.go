package store

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"joinery"
)

// Join makes a person a member, and gives CodeNotFound where the invitation was
// taken or withdrawn meanwhile. Who is a member already gets the role that they
// did not have, if it is the higher one; the entries say which they have then.
func (d *DB) Join(ctx context.Context, j joinery.Joining, at time.Time, entries ...joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("DELETE FROM invitation WHERE id = ?", j.Invitation.ID)
		switch {
		case err != nil:
			return err
		case n == 0:
			return notFound("invitation")
		}
		if j.New {
			if err := t.addPerson(j); err != nil {
				return err
			}
		}
		had, has, err := t.raiseMember(j, at)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := t.audit(withRoles(e, had, has)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *tx) addPerson(j joinery.Joining) error {
	p := j.Person
	err := t.exec("INSERT INTO person (id, name, email, email_verified, created_at) VALUES (?, ?, ?, ?, ?)", p.ID, p.Name, p.Email, p.EmailVerified, p.CreatedAt)
	if err := conflict(err, "there is such a person already"); err != nil {
		return err
	}
	if i := j.Identity; i != nil {
		err := t.exec("INSERT INTO identity (issuer, subject, person) VALUES (?, ?, ?)", i.Issuer, i.Subject, p.ID)
		if err := conflict(err, "that account belongs to a person already"); err != nil {
			return err
		}
	}
	if j.Passkey != nil {
		return t.addPasskey(*j.Passkey)
	}
	return nil
}

// raiseMember gives the role that somebody had, "" for none, and has now.
func (t *tx) raiseMember(j joinery.Joining, at time.Time) (had, has joinery.Role, err error) {
	had, err = t.roleOf(j.Invitation.Org, j.Person.ID)
	has = j.Invitation.Role
	switch {
	case err != nil:
	case had == "":
		err = t.exec("INSERT INTO membership (org, person, role, since) VALUES (?, ?, ?, ?)", j.Invitation.Org, j.Person.ID, has, at)
	case slices.Index(joinery.Roles(), had) < slices.Index(joinery.Roles(), has):
		err = t.exec("UPDATE membership SET role = ? WHERE org = ? AND person = ?", has, j.Invitation.Org, j.Person.ID)
	default:
		has = had
	}
	return had, has, err
}

// withDetail gives an entry that says more: what only the transaction knows.
func withDetail(a joinery.AuditEntry, name, value string) joinery.AuditEntry {
	a.Detail = maps.Clone(a.Detail)
	if a.Detail == nil {
		a.Detail = map[string]string{}
	}
	a.Detail[name] = value
	return a
}

// withRoles gives an entry that says which role somebody has now, and which they
// had, if that was another place of theirs.
func withRoles(a joinery.AuditEntry, had, has joinery.Role) joinery.AuditEntry {
	if had != "" {
		a = withDetail(a, "before", string(had))
	}
	return withDetail(a, "role", string(has))
}

// withCount gives an entry that says how many of something there were, if any.
func withCount(a joinery.AuditEntry, name string, n int) joinery.AuditEntry {
	if n == 0 {
		return a
	}
	return withDetail(a, name, strconv.Itoa(n))
}

// auditEverywhere writes an entry about a person into the log of every organisation
// for which they act: what changes how they come in concerns each.
func (t *tx) auditEverywhere(person joinery.PersonID, a joinery.AuditEntry) error {
	var entries []joinery.AuditEntry
	if err := t.each("SELECT org FROM membership WHERE person = ? ORDER BY org", func(r *row) error {
		a.Org = joinery.OrgID(r.int())
		entries = append(entries, a)
		return nil
	}, person); err != nil {
		return err
	}
	return t.audit(entries...)
}

// roleOf gives somebody's role; "" for none.
func (c conn) roleOf(org joinery.OrgID, person joinery.PersonID) (role joinery.Role, err error) {
	_, err = c.one("SELECT role FROM membership WHERE org = ? AND person = ?", func(r *row) error {
		role = joinery.Role(r.text())
		return nil
	}, org, person)
	return role, err
}

// memberRole gives the role of a member; CodeNotFound for who is none.
func (c conn) memberRole(org joinery.OrgID, person joinery.PersonID) (joinery.Role, error) {
	role, err := c.roleOf(org, person)
	if err == nil && role == "" {
		err = notFound("person")
	}
	return role, err
}

// SetRole gives a member another role. Who is an admin no more takes the
// invitations along that they made. CodeNotFound where they are none, CodeConflict
// where the organisation would be left without an admin.
func (d *DB) SetRole(ctx context.Context, org joinery.OrgID, person joinery.PersonID, role joinery.Role, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		had, err := t.memberRole(org, person)
		if err == nil {
			err = t.exec("UPDATE membership SET role = ? WHERE org = ? AND person = ?", role, org, person)
		}
		if err == nil && had == joinery.RoleAdmin && role != joinery.RoleAdmin {
			err = t.loseAdmin(org, a.At)
		}
		ended := 0
		if err == nil && role != joinery.RoleAdmin {
			ended, err = t.endInvitationsBy(org, person)
		}
		return t.finish(err, withCount(withRoles(a, had, role), "endedInvitations", ended))
	})
}

// loseAdmin settles that somebody is an admin no more.
func (t *tx) loseAdmin(org joinery.OrgID, at time.Time) error {
	if err := t.noteAdminLeft(org, at); err != nil {
		return err
	}
	return t.wantAdmin(org)
}

// wantAdmin refuses to leave people in an organisation of whom none is an admin.
func (t *tx) wantAdmin(org joinery.OrgID) error {
	orphaned, err := t.integer(`SELECT count(*) FROM membership WHERE org = ?1
		AND NOT EXISTS (SELECT 1 FROM membership WHERE org = ?1 AND role = 'admin')`, org)
	if err == nil && orphaned > 0 {
		err = joinery.Errorf(joinery.CodeConflict, "nobody would be left who can say who belongs to the organisation: make somebody else its admin first")
	}
	return err
}

// RemoveMember ends a membership, with the API keys that the person made there,
// or with keepKeys makes those the organisation's own, with no right that the
// person had not at the end, and with the invitations
// that they made, or that are to their address. A person who belongs to nothing
// any more is forgotten. CodeNotFound where they are no member,
// CodeConflict where people would be left without an admin.
func (d *DB) RemoveMember(ctx context.Context, org joinery.OrgID, person joinery.PersonID, keepKeys bool, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		had, err := t.memberRole(org, person)
		if err == nil {
			err = t.exec("DELETE FROM membership WHERE org = ? AND person = ?", org, person)
		}
		if err == nil && had == joinery.RoleAdmin {
			err = t.loseAdmin(org, a.At)
		}
		if err != nil {
			return err
		}
		return t.dissolve(org, person, had, keepKeys, withDetail(a, "role", string(had)))
	})
}

// dissolve settles what a membership that ended leaves behind.
func (t *tx) dissolve(org joinery.OrgID, person joinery.PersonID, had joinery.Role, keepKeys bool, a joinery.AuditEntry) error {
	by, err := t.endInvitationsBy(org, person)
	if err != nil {
		return err
	}
	to, err := t.endInvitationsTo(org, person)
	if err != nil {
		return err
	}
	keys, err := t.letKeysGo(org, person, had, keepKeys, a)
	if err != nil {
		return err
	}
	count := "revokedKeys"
	if keepKeys {
		count = "keptKeys"
	}
	a = withCount(withCount(a, "endedInvitations", by+to), count, len(keys))
	return t.finish(t.forget(person), append([]joinery.AuditEntry{a}, keys...)...)
}

// letKeysGo settles what becomes of the keys that somebody made as a member of an
// organisation: for that one, and as an operator for others. Keys that stay are
// bounded by their role no more, and keep no right that it did not give. It gives
// an entry for each that stood, in the log of the key's organisation.
func (t *tx) letKeysGo(org joinery.OrgID, person joinery.PersonID, role joinery.Role, keep bool, a joinery.AuditEntry) ([]joinery.AuditEntry, error) {
	const theirs = `k.person = ?2 AND (k.org = ?1 AND k.operator = 0 OR ?1 = (SELECT operator_org FROM store)
		AND (k.operator = 1 OR NOT EXISTS (SELECT 1 FROM membership m WHERE m.org = k.org AND m.person = ?2)))`
	keys, err := t.keysWhere(theirs, org, person)
	if err != nil {
		return nil, err
	}
	event := joinery.AuditAPIKeyRevoked
	if keep {
		event = joinery.AuditAPIKeyKept
	}
	var entries []joinery.AuditEntry
	for _, k := range keys {
		if keep {
			k.Rights &= role.Rights()
			err = t.exec("UPDATE api_key SET person = NULL, rights = ? WHERE id = ?", k.Rights.String(), k.ID)
		} else {
			err = t.exec("UPDATE api_key SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", a.At, k.ID)
		}
		if err != nil {
			return nil, err
		}
		if k.RevokedAt.IsZero() {
			entries = append(entries, withDetail(keyEntry(a, event, k), "person", person.String()))
		}
	}
	return entries, nil
}

// forget removes what is known of a person who belongs to nothing.
func (t *tx) forget(person joinery.PersonID) error {
	still, err := t.integer("SELECT count(*) FROM membership WHERE person = ?", person)
	if err != nil || still > 0 {
		return err
	}
	for _, query := range []string{
		"DELETE FROM session WHERE person = ?", "DELETE FROM passkey WHERE person = ?", "DELETE FROM identity WHERE person = ?",
		"DELETE FROM sign_in WHERE person = ?", "UPDATE person SET name = '', email = '', email_verified = 0 WHERE id = ?",
	} {
		if err := t.exec(query, person); err != nil {
			return err
		}
	}
	return nil
}

const personColumns = "SELECT p.id, p.name, p.email, p.email_verified, p.created_at "

func scanPerson(r *row) joinery.Person {
	return joinery.Person{ID: joinery.PersonID(r.int()), Name: r.text(), Email: r.text(), EmailVerified: r.bool(), CreatedAt: r.time()}
}

// Person finds a person; CodeNotFound also for one who is forgotten.
func (d *DB) Person(ctx context.Context, id joinery.PersonID) (p joinery.Person, err error) {
	err = d.read(ctx, func(c conn) error {
		found, err := c.one(personColumns+"FROM person p WHERE p.id = ? AND EXISTS (SELECT 1 FROM membership WHERE person = p.id)",
			func(r *row) error { p = scanPerson(r); return nil }, id)
		if err == nil && !found {
			err = notFound("person")
		}
		return err
	})
	return p, err
}

// PersonOf finds who has an account at an OpenID provider; CodeNotFound.
func (d *DB) PersonOf(ctx context.Context, i joinery.Identity) (p joinery.Person, err error) {
	err = d.read(ctx, func(c conn) error {
		found, err := c.one(personColumns+"FROM identity i JOIN person p ON p.id = i.person WHERE i.issuer = ? AND i.subject = ?",
			func(r *row) error { p = scanPerson(r); return nil }, i.Issuer, i.Subject)
		if err == nil && !found {
			err = notFound("person")
		}
		return err
	})
	return p, err
}

// NotePerson keeps name and address of a person, and whether it is verified, up to
// date.
func (d *DB) NotePerson(ctx context.Context, p joinery.Person) error {
	return d.do(ctx, func(t *tx) error {
		return t.exec("UPDATE person SET name = ?, email = ?, email_verified = ? WHERE id = ?", p.Name, p.Email, p.EmailVerified, p.ID)
	})
}

// Members gives who belongs to an organisation, in order of their ids.
func (d *DB) Members(ctx context.Context, org joinery.OrgID) (members []joinery.Member, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each(personColumns+", m.role, m.since FROM membership m JOIN person p ON p.id = m.person WHERE m.org = ? ORDER BY p.id", func(r *row) error {
			members = append(members, joinery.Member{Person: scanPerson(r), Role: joinery.Role(r.text()), Since: r.time()})
			return nil
		}, org)
	})
	return members, err
}

// Memberships gives where somebody belongs, longest first.
func (d *DB) Memberships(ctx context.Context, person joinery.PersonID) (list []joinery.Membership, err error) {
	err = d.read(ctx, func(c conn) error { list, err = c.memberships(d.operator, person); return err })
	return list, err
}

func (c conn) memberships(operator joinery.OrgID, person joinery.PersonID) (list []joinery.Membership, err error) {
	err = c.each(`SELECT m.org, m.role, m.since, o.name, o.kinds FROM membership m JOIN organisation o ON o.id = m.org
		WHERE m.person = ? ORDER BY m.since, m.org`, func(r *row) error {
		m := joinery.Membership{Person: person, Org: joinery.OrgID(r.int()), Role: joinery.Role(r.text()), Since: r.time(), OrgName: r.text(), Kinds: joinery.ParseOrgKinds(r.text())}
		m.Operator = m.Org == operator
		list = append(list, m)
		return nil
	}, person)
	return list, err
}
