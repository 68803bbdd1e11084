package store

import (
	"bytes"
	"context"

	"joinery"
)

// A rekeying key that was handed over has a row of its own, and is named as one.
const rootsQuery = `SELECT s.key_set, d.join_eui, k.dev_eui, d.mac_version,
	CASE WHEN EXISTS (SELECT 1 FROM rekeying_key r WHERE r.held = s.key_set) THEN 3 ELSE k.root10 END, s.nwk_use, s.nwk_custody, s.app_use, s.app_custody
	FROM sealed_root s JOIN key_set k ON k.id = s.key_set JOIN device d ON d.id = k.device `

func (c conn) storedRoots(where string, args ...any) (list []joinery.StoredRoots, err error) {
	err = c.each(rootsQuery+where, func(r *row) error {
		list = append(list, joinery.StoredRoots{
			KeySet: joinery.KeySetID(r.int()), JoinEUI: r.eui(), DevEUI: r.eui(), MACVersion: macVersion(r.int()), Root10: joinery.RootKey(r.int()),
			Nwk: joinery.SealedRoot{Use: r.blob(), Custody: r.blob()}, App: joinery.SealedRoot{Use: r.blob(), Custody: r.blob()},
		})
		return nil
	}, args...)
	return list, err
}

// StoredRoots gives the sealed root keys of at most limit key sets above after, in
// order of their ids.
func (d *DB) StoredRoots(ctx context.Context, after joinery.KeySetID, limit int) (list []joinery.StoredRoots, err error) {
	err = d.read(ctx, func(c conn) error {
		list, err = c.storedRoots("WHERE s.key_set > ? ORDER BY s.key_set LIMIT ?", after, limit)
		return err
	})
	return list, err
}

// RootsOf gives the sealed root keys of these key sets; those that have none are
// left out.
func (d *DB) RootsOf(ctx context.Context, ids []joinery.KeySetID) (list []joinery.StoredRoots, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		for _, id := range ids {
			found, err := c.storedRoots("WHERE s.key_set = ?", id)
			if err != nil {
				return err
			}
			list = append(list, found...)
		}
		return nil
	})
	return list, err
}

// EachRootHead calls fn with the first five bytes of every sealed root key: they
// say by which generation of storage keys it was made.
func (d *DB) EachRootHead(ctx context.Context, fn func(nwk, app joinery.SealedRoot)) error {
	const query = `SELECT substr(nwk_use, 1, 5), substr(nwk_custody, 1, 5), substr(app_use, 1, 5), substr(app_custody, 1, 5) FROM sealed_root`
	return d.engine.copying(ctx, func(c conn) error {
		return c.each(query, func(r *row) error {
			fn(joinery.SealedRoot{Use: r.blob(), Custody: r.blob()}, joinery.SealedRoot{Use: r.blob(), Custody: r.blob()})
			return nil
		})
	})
}

// ReplaceRoots puts root keys that were sealed anew in the place of the old ones,
// in one transaction with its audit entry, which is the operator's. Key sets whose roots are gone or are
// other ones by now are left as they are. It tells how many it changed; where that
// is none there is no entry.
func (d *DB) ReplaceRoots(ctx context.Context, list []joinery.NewRoots, entry func(changed int) joinery.AuditEntry) (changed int, err error) {
	return write(ctx, d, func(t *tx) (changed int, err error) {
		for _, n := range list {
			replaced, err := t.replaceRoots(n)
			if err != nil {
				return 0, err
			}
			if replaced {
				changed++
			}
		}
		if changed == 0 {
			return 0, nil
		}
		e := entry(changed)
		e.Org = t.operator
		return changed, t.audit(e)
	})
}

// replaceRoots compares and swaps. The update takes the row's lock where servers
// share a database, so that what is compared behind it stays.
func (t *tx) replaceRoots(n joinery.NewRoots) (bool, error) {
	locked, err := t.changes("UPDATE sealed_root SET key_set = key_set WHERE key_set = ?", n.KeySet)
	if err != nil || locked == 0 {
		return false, err
	}
	now, err := t.storedRoots("WHERE s.key_set = ?", n.KeySet)
	if err != nil || len(now) == 0 || !sameRoots(now[0].Nwk, n.OldNwk) || !sameRoots(now[0].App, n.OldApp) {
		return false, err
	}
	err = t.exec("UPDATE sealed_root SET nwk_use = ?, nwk_custody = ?, app_use = ?, app_custody = ? WHERE key_set = ?",
		n.Nwk.Use, n.Nwk.Custody, n.App.Use, n.App.Custody, n.KeySet)
	return err == nil, err
}

func sameRoots(a, b joinery.SealedRoot) bool {
	return bytes.Equal(a.Use, b.Use) && bytes.Equal(a.Custody, b.Custody)
}
