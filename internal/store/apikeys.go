package store

import (
	"context"
	"time"

	"joinery"
)

// AddAPIKey stores a key's hash. Only an operator's key may have a
// zero Org; its row is one of the operator's organisation.
func (d *DB) AddAPIKey(ctx context.Context, k joinery.APIKey, a joinery.AuditEntry) error {
	if k.Org == 0 && !k.Operator {
		return joinery.Errorf(joinery.CodeInvalid, "an API key that is not the operator's needs an organisation")
	}
	return d.do(ctx, func(t *tx) error {
		err := t.exec(`INSERT INTO api_key (id, org, operator, name, hash, created_at, expires_at, revoked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			k.ID, t.orOperator(k.Org), k.Operator, k.Name, k.Hash, k.CreatedAt, optional{k.ExpiresAt}, optional{k.RevokedAt})
		return t.finish(conflict(err, "there is an API key of that id"), a)
	})
}

const apiKeyColumns = "SELECT id, org, operator, name, hash, created_at, expires_at, revoked_at FROM api_key "

// scanAPIKey reads a key. An operator's key of the operator's organisation acts
// for none; a plain key made for that organisation acts for it.
func (d *DB) scanAPIKey(r *row) (k joinery.APIKey) {
	k = joinery.APIKey{ID: joinery.APIKeyID(r.int()), Org: joinery.OrgID(r.int()), Operator: r.bool(), Name: r.text()}
	r.into(k.Hash[:])
	k.CreatedAt, k.ExpiresAt, k.RevokedAt = r.time(), r.time(), r.time()
	if k.Operator && k.Org == d.operator {
		k.Org = 0
	}
	return k
}

// APIKey finds a key, revoked and expired ones too.
func (d *DB) APIKey(ctx context.Context, id joinery.APIKeyID) (k joinery.APIKey, err error) {
	err = d.read(ctx, func(c conn) error {
		found, err := c.one(apiKeyColumns+"WHERE id = ?", func(r *row) error { k = d.scanAPIKey(r); return nil }, id)
		if err == nil && !found {
			err = notFound("API key")
		}
		return err
	})
	return k, err
}

// APIKeys gives the keys that act for an organisation, or all with a zero org.
func (d *DB) APIKeys(ctx context.Context, org joinery.OrgID) (keys []joinery.APIKey, err error) {
	query, args := apiKeyColumns+"ORDER BY id", []any(nil)
	if org != 0 {
		query, args = apiKeyColumns+"WHERE org = ? ORDER BY id", []any{org}
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

// RevokeAPIKey ends a key; revoking again changes nothing.
func (d *DB) RevokeAPIKey(ctx context.Context, id joinery.APIKeyID, at time.Time, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("UPDATE api_key SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", at, id)
		if err == nil && n == 0 {
			err = notFound("API key")
		}
		return t.finish(err, a)
	})
}
