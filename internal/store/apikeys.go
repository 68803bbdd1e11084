package store

import (
	"context"
	"strconv"
	"time"

	"joinery"
)

// AddAPIKey stores a key's hash. Only an operator's key may have a
// zero Org; its row is one of the operator's organisation. CodeConflict where the
// organisation has joinery.MaxAPIKeys already.
func (d *DB) AddAPIKey(ctx context.Context, k joinery.APIKey, a joinery.AuditEntry) error {
	if k.Org == 0 && !k.Operator {
		return joinery.Errorf(joinery.CodeInvalid, "an API key that is not the operator's needs an organisation")
	}
	return d.do(ctx, func(t *tx) error {
		if err := t.wantStandingKey(k.MadeBy); err != nil {
			return err
		}
		if err := t.roomForKey(t.orOperator(k.Org), k.CreatedAt); err != nil {
			return err
		}
		err := t.exec(`INSERT INTO api_key (id, org, operator, name, hash, created_at, expires_at, revoked_at, rights, person, made_by)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			k.ID, t.orOperator(k.Org), k.Operator, k.Name, k.Hash, k.CreatedAt, optional{k.ExpiresAt}, optional{k.RevokedAt},
			k.Rights.String(), optional{k.Person}, optional{k.MadeBy})
		return t.finish(conflict(err, "there is an API key of that id"), a)
	})
}

// keyChurn is how long a key counts after it was made, revoked or not: the rows of
// revoked keys stay.
const keyChurn = 24 * time.Hour

// roomForKey refuses one key more than an organisation may have.
func (t *tx) roomForKey(org joinery.OrgID, at time.Time) error {
	n, err := t.integer(`SELECT count(*) FROM api_key WHERE org = ?1
		AND (revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?2) OR created_at > ?3)`, org, at, at.Add(-keyChurn))
	if err == nil && n >= joinery.MaxAPIKeys {
		err = joinery.Errorf(joinery.CodeConflict, "the organisation has %d API keys that stand or were made within a day, the most that it may: "+
			"revoke those that nobody uses ('joinctl key list' shows when each was used last), or wait a day after many were made", n)
	}
	return err
}

// wantStandingKey refuses what a key asks for that was revoked since the request
// was let in; zero is no key.
func (t *tx) wantStandingKey(id joinery.APIKeyID) error {
	if revoked, err := t.integer("SELECT revoked_at FROM api_key WHERE id = ?", id); err != nil || revoked != 0 {
		return firstError(err, joinery.Errorf(joinery.CodeForbidden, "the key that asks for it was revoked"))
	}
	return nil
}

const (
	apiKeyFields  = "k.id, k.org, k.operator, k.name, k.hash, k.created_at, k.expires_at, k.revoked_at, k.rights, k.person, k.made_by, k.last_used_at"
	apiKeyColumns = "SELECT " + apiKeyFields + " FROM api_key k "
)

// scanAPIKey reads a key. An operator's key of the operator's organisation acts
// for none; a plain key made for that organisation acts for it.
func (d *DB) scanAPIKey(r *row) joinery.APIKey {
	k := scanKeyRow(r)
	if k.Operator && k.Org == d.operator {
		k.Org = 0
	}
	return k
}

// scanKeyRow reads a key with the organisation of its row.
func scanKeyRow(r *row) (k joinery.APIKey) {
	k = joinery.APIKey{ID: joinery.APIKeyID(r.int()), Org: joinery.OrgID(r.int()), Operator: r.bool(), Name: r.text()}
	r.into(k.Hash[:])
	k.CreatedAt, k.ExpiresAt, k.RevokedAt = r.time(), r.time(), r.time()
	k.Rights, k.Person, k.MadeBy, k.LastUsedAt = joinery.ParseRights(r.text()), joinery.PersonID(r.int()), joinery.APIKeyID(r.int()), r.time()
	return k
}

// APIKey finds a key, revoked and expired ones too.
func (d *DB) APIKey(ctx context.Context, id joinery.APIKeyID) (k joinery.APIKey, err error) {
	err = d.read(ctx, func(c conn) error {
		found, err := c.one(apiKeyColumns+"WHERE k.id = ?", func(r *row) error { k = d.scanAPIKey(r); return nil }, id)
		if err == nil && !found {
			err = notFound("API key")
		}
		return err
	})
	return k, err
}

// APIKeyStanding finds a key with what its organisation, and who made it, are at
// present. Of an operator's key that is the operator's organisation; who made a
// key for another organisation than their own did so by their role in that, too.
func (d *DB) APIKeyStanding(ctx context.Context, id joinery.APIKeyID) (k joinery.APIKey, s joinery.Standing, err error) {
	const query = "SELECT " + apiKeyFields + `, o.kinds, coalesce(m.role, b.role, '') FROM api_key k
		JOIN organisation o ON o.id = CASE WHEN k.operator = 1 THEN ?1 ELSE k.org END
		LEFT JOIN membership m ON m.org = o.id AND m.person = k.person
		LEFT JOIN membership b ON b.org = ?1 AND b.person = k.person WHERE k.id = ?2`
	err = d.read(ctx, func(c conn) error {
		found, err := c.one(query, func(r *row) error {
			k = d.scanAPIKey(r)
			s = joinery.Standing{Kinds: joinery.ParseOrgKinds(r.text()), Role: joinery.Role(r.text())}
			return nil
		}, d.operator, id)
		if err == nil && !found {
			err = notFound("API key")
		}
		return err
	})
	return k, s, err
}

// APIKeys gives the keys that act for an organisation, or all with a zero org.
func (d *DB) APIKeys(ctx context.Context, org joinery.OrgID) (keys []joinery.APIKey, err error) {
	query, args := apiKeyColumns+"ORDER BY k.id", []any(nil)
	if org != 0 {
		query, args = apiKeyColumns+"WHERE k.org = ? ORDER BY k.id", []any{org}
	}
	err = d.read(ctx, func(c conn) error {
		return c.each(query, func(r *row) error {
			if k := d.scanAPIKey(r); org == 0 || k.Org == org {
				keys = append(keys, k)
			}
			return nil
		}, args...)
	})
	return keys, err
}

// keysBelow gives a key, ?1, and all that were made by it, directly or not.
const keysBelow = `(WITH RECURSIVE below(id) AS (SELECT CAST(?1 AS BIGINT) UNION SELECT k.id FROM api_key k JOIN below b ON k.made_by = b.id)
	SELECT id FROM below)`

// keysWhere gives keys as their rows are, in order of their ids.
func (c conn) keysWhere(where string, args ...any) (keys []joinery.APIKey, err error) {
	err = c.each(apiKeyColumns+"WHERE "+where+" ORDER BY k.id", func(r *row) error {
		keys = append(keys, scanKeyRow(r))
		return nil
	}, args...)
	return keys, err
}

// keyEntry is the entry of a key that something else took along: what it was, and
// what took it.
func keyEntry(cause joinery.AuditEntry, event joinery.AuditEvent, k joinery.APIKey) joinery.AuditEntry {
	return joinery.AuditEntry{At: cause.At, Event: event, Actor: cause.Actor, Org: k.Org, Detail: map[string]string{
		"key": k.ID.String(), "name": k.Name, "operator": strconv.FormatBool(k.Operator), "scopes": k.Rights.String(), "because": string(cause.Event),
	}}
}

// RevokeAPIKey ends a key, and all that were made by it, directly or not, with
// the invitations that they made; each that stood has an entry. Revoking again
// changes nothing.
func (d *DB) RevokeAPIKey(ctx context.Context, id joinery.APIKeyID, at time.Time, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		below, err := t.keysWhere("k.id IN "+keysBelow+" AND k.id <> ?1 AND k.revoked_at IS NULL", id)
		if err != nil {
			return err
		}
		n, err := t.changes("UPDATE api_key SET revoked_at = coalesce(revoked_at, ?2) WHERE id IN "+keysBelow, id, at)
		if err == nil && n == 0 {
			err = notFound("API key")
		}
		if err != nil {
			return err
		}
		ended, err := t.changes("DELETE FROM invitation WHERE by_key IN "+keysBelow, id)
		entries := []joinery.AuditEntry{withCount(withCount(a, "endedInvitations", ended), "revokedKeys", len(below))}
		for _, k := range below {
			entries = append(entries, withDetail(keyEntry(a, joinery.AuditAPIKeyRevoked, k), "madeBy", k.MadeBy.String()))
		}
		return t.finish(err, entries...)
	})
}

// TouchAPIKey notes that a key was used at that time.
func (d *DB) TouchAPIKey(ctx context.Context, id joinery.APIKeyID, at time.Time) error {
	return d.do(ctx, func(t *tx) error {
		return t.exec("UPDATE api_key SET last_used_at = ?1 WHERE id = ?2 AND (last_used_at IS NULL OR last_used_at < ?1)", at, id)
	})
}
