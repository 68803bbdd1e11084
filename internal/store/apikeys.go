package store

import (
	"context"
	"time"

	"joinery"
)

// AddAPIKey stores a key's hash. A zero Org is the operator's organisation.
func (d *DB) AddAPIKey(ctx context.Context, k joinery.APIKey, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		err := t.exec(`INSERT INTO api_key (id, org, operator, name, hash, created_at, expires_at, revoked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			k.ID, t.orOperator(k.Org), k.Operator, k.Name, k.Hash, k.CreatedAt, optional{k.ExpiresAt}, optional{k.RevokedAt})
		return firstError(conflict(err, "there is an API key of that id"), t.audit(a))
	})
}

const apiKeyColumns = "SELECT id, org, operator, name, hash, created_at, expires_at, revoked_at FROM api_key "

// scanAPIKey reads a key; the operator's organisation becomes the zero OrgID.
func (d *DB) scanAPIKey(r *row) (k joinery.APIKey) {
	k = joinery.APIKey{ID: joinery.APIKeyID(r.int()), Org: joinery.OrgID(r.int()), Operator: r.bool(), Name: r.text()}
	r.into(k.Hash[:])
	k.CreatedAt, k.ExpiresAt, k.RevokedAt = r.time(), r.time(), r.time()
	if k.Org == d.operator {
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

// APIKeys gives the keys of an organisation, or of all with a zero org.
func (d *DB) APIKeys(ctx context.Context, org joinery.OrgID) (keys []joinery.APIKey, err error) {
	query, args := apiKeyColumns+"ORDER BY id", []any(nil)
	if org != 0 {
		query, args = apiKeyColumns+"WHERE org = ? ORDER BY id", []any{org}
	}
	err = d.read(ctx, func(c conn) error {
		return c.each(query, func(r *row) error { keys = append(keys, d.scanAPIKey(r)); return nil }, args...)
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
		return firstError(err, t.audit(a))
	})
}
