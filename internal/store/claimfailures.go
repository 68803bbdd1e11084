package store

import (
	"context"
	"time"

	"joinery"
)

// NoteClaimFailures adds failures. Those before since need not be remembered any
// longer, and go when the custody log has their count.
func (d *DB) NoteClaimFailures(ctx context.Context, failures []joinery.ClaimFailure, since time.Time) error {
	return d.do(ctx, func(t *tx) error {
		for _, f := range failures {
			err := t.exec(`INSERT INTO claim_failure (dev_eui, caller, at, count) VALUES (?, ?, ?, ?)
				ON CONFLICT (dev_eui, caller, at) DO UPDATE SET count = claim_failure.count + excluded.count`, f.DevEUI, f.Caller, f.At, f.Count)
			if err != nil {
				return err
			}
		}
		return t.closeClaims(now(), since)
	})
}

// ClaimFailures gives the newest failures since a time, at most limit, oldest
// first.
func (d *DB) ClaimFailures(ctx context.Context, since time.Time, limit int) (failures []joinery.ClaimFailure, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each(`SELECT dev_eui, caller, at, count FROM (SELECT * FROM claim_failure WHERE at >= ? ORDER BY at DESC LIMIT ?) AS newest ORDER BY at`,
			func(r *row) error {
				failures = append(failures, joinery.ClaimFailure{DevEUI: r.eui(), Caller: r.text(), At: r.time(), Count: int(r.int())})
				return nil
			}, since, limit)
	})
	return failures, err
}
