package store

import (
	"context"
	"time"

	"joinery"
)

// AddPasskey stores a passkey; CodeConflict where the authenticator's credential
// is registered already, or its person has most already.
func (d *DB) AddPasskey(ctx context.Context, p joinery.Passkey, most int, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.integer("SELECT count(*) FROM passkey WHERE person = ?", p.Person)
		if err == nil && n >= int64(most) {
			err = joinery.Errorf(joinery.CodeConflict, "you have %d passkeys, the most that one person may: remove one first", n)
		}
		if err != nil {
			return err
		}
		if err := t.addPasskey(p); err != nil {
			return err
		}
		return t.auditEverywhere(p.Person, a)
	})
}

func (t *tx) addPasskey(p joinery.Passkey) error {
	err := t.exec("INSERT INTO passkey (id, person, name, credential, record, created_at, last_used_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
		p.ID, p.Person, p.Name, p.Credential, p.Record, p.CreatedAt, optional{p.LastUsedAt})
	return conflict(err, "this passkey is registered already")
}

const passkeyColumns = "SELECT id, person, name, credential, record, created_at, last_used_at FROM passkey "

func scanPasskey(r *row) joinery.Passkey {
	return joinery.Passkey{
		ID: joinery.PasskeyID(r.int()), Person: joinery.PersonID(r.int()), Name: r.text(),
		Credential: r.blob(), Record: r.blob(), CreatedAt: r.time(), LastUsedAt: r.time(),
	}
}

// PasskeyOf finds a passkey by the authenticator's credential; CodeNotFound.
func (d *DB) PasskeyOf(ctx context.Context, credential []byte) (p joinery.Passkey, err error) {
	err = d.read(ctx, func(c conn) error {
		found, err := c.one(passkeyColumns+"WHERE credential = ?", func(r *row) error { p = scanPasskey(r); return nil }, credential)
		if err == nil && !found {
			err = notFound("passkey")
		}
		return err
	})
	return p, err
}

// Passkeys gives somebody's passkeys, in order of their ids.
func (d *DB) Passkeys(ctx context.Context, person joinery.PersonID) (list []joinery.Passkey, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each(passkeyColumns+"WHERE person = ? ORDER BY id", func(r *row) error { list = append(list, scanPasskey(r)); return nil }, person)
	})
	return list, err
}

// UsePasskey notes that a passkey signed somebody in, with its record after that.
func (d *DB) UsePasskey(ctx context.Context, id joinery.PasskeyID, record []byte, at time.Time) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("UPDATE passkey SET record = ?, last_used_at = ? WHERE id = ?", record, at, id)
		if err == nil && n == 0 {
			err = notFound("passkey")
		}
		return err
	})
}

// RemovePasskey removes a passkey of a person; CodeNotFound, and CodeConflict
// where they could not sign in any more.
func (d *DB) RemovePasskey(ctx context.Context, person joinery.PersonID, id joinery.PasskeyID, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("DELETE FROM passkey WHERE id = ? AND person = ?", id, person)
		if err == nil && n == 0 {
			err = notFound("passkey")
		}
		if err != nil {
			return err
		}
		ways, err := t.integer("SELECT (SELECT count(*) FROM passkey WHERE person = ?1) + (SELECT count(*) FROM identity WHERE person = ?1)", person)
		if err == nil && ways == 0 {
			err = joinery.Errorf(joinery.CodeConflict, "this is the only way in which you can sign in: add another passkey first")
		}
		if err != nil {
			return err
		}
		return t.auditEverywhere(person, a)
	})
}
