package store

import (
	"context"
	"crypto/rand"
	"fmt"
	"math"

	"joinery"
	"joinery/auditlog"
)

// setSource is where the devices of a set stand.
type setSource struct{ table, owner, of string }

var (
	exportSets = setSource{"export_item", "export", "export"}
	batchSets  = setSource{"rekey_batch_item", "batch", "rekey_batch"}
)

// name is the text form of a set's id.
func (s setSource) name(id int64) string {
	if s == exportSets {
		return exportID(id)
	}
	return rekeyBatchID(id)
}

// setLeaf is one device of a set.
type setLeaf struct {
	row int64
	auditlog.SetDevice
	joinEUI, devEUI [8]byte
}

// leaves gives the devices of a set in rows from to before, in their order.
func (s setSource) leaves(c conn, id int64, salt []byte, from, before int64, fn func(setLeaf)) error {
	return c.each("SELECT idx, device, join_eui, dev_eui FROM "+s.table+" WHERE "+s.owner+" = ? AND idx >= ? AND idx < ? ORDER BY idx", func(r *row) error {
		l := setLeaf{row: r.int()}
		l.Device = joinery.DeviceID(r.int()).String()
		joinEUI, devEUI := r.eui(), r.eui()
		l.joinEUI, l.devEUI = joinEUI, devEUI
		l.JoinEUI, l.DevEUI, l.Nonce = joinEUI.String(), devEUI.String(), auditlog.SetNonce(salt, l.row)
		fn(l)
		return nil
	}, id, from, before)
}

// builtSet is a set with its tree.
type builtSet struct {
	joinery.DeviceSet
	nodes []byte
}

// built makes the tree over a set.
func (s setSource) built(c conn, id int64, salt []byte) (b builtSet, err error) {
	sum := joinery.NewExportDigest()
	var tree auditlog.SetTree
	err = s.leaves(c, id, salt, 0, math.MaxInt64, func(l setLeaf) {
		sum.Add(l.joinEUI, l.devEUI)
		tree.Add(l.Leaf())
		b.Devices++
	})
	if err == nil {
		b.Digest = sum.Sum()
		b.Root, b.nodes, err = tree.Finish()
	}
	return b, err
}

// fix makes the tree over a set and keeps what later proofs need of it. Whoever goes on
// with the set says which root it had.
func (s setSource) fix(ctx context.Context, d *DB, id int64) (set joinery.DeviceSet, err error) {
	var salt [32]byte
	rand.Read(salt[:]) // never fails (crypto/rand)
	var b builtSet
	err = d.snapshot(ctx, func(c conn) error { b, err = s.built(c, id, salt[:]); return err })
	if err != nil || b.Devices == 0 {
		return b.DeviceSet, err
	}
	return b.DeviceSet, d.do(ctx, func(t *tx) error {
		open, err := t.integer("SELECT count(*) FROM "+s.of+" WHERE id = ? AND state = 'collecting'", id)
		if err == nil && open == 0 {
			err = joinery.Errorf(joinery.CodeConflict, "no devices are added any more")
		}
		if err != nil {
			return err
		}
		nodes := append([]byte{}, b.nodes...) // of a small set none, which is no NULL
		return t.exec(`INSERT INTO device_set (id, salt, root, nodes) VALUES (?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET salt = excluded.salt, root = excluded.root, nodes = excluded.nodes`, id, salt[:], b.Root[:], nodes)
	})
}

// FixExportSet says which devices an export has that is collecting, and keeps what
// proves it of each: MoveExport with its root ends the collecting. CodeConflict where
// it does not collect any more. An empty set has no root.
func (d *DB) FixExportSet(ctx context.Context, id joinery.ExportID) (joinery.DeviceSet, error) {
	return exportSets.fix(ctx, d, int64(id))
}

// FixRekeyBatchSet does so for a batch, and MoveRekeyBatch.
func (d *DB) FixRekeyBatchSet(ctx context.Context, id joinery.RekeyBatchID) (joinery.DeviceSet, error) {
	return batchSets.fix(ctx, d, int64(id))
}

// DeviceSets shows of a device that it is in sets: those of exports and batches of
// these numbers that it is in, where there is a tree over them.
func (d *DB) DeviceSets(ctx context.Context, device joinery.DeviceID, subjects []int64) (list []auditlog.Set, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		list = nil
		sets, err := c.deviceSets(subjects)
		if err != nil {
			return err
		}
		for _, id := range sets {
			for _, s := range []setSource{exportSets, batchSets} {
				set, found, err := s.proof(c, id, device)
				if err != nil {
					return err
				}
				if found {
					list = append(list, set)
				}
			}
		}
		return nil
	})
	return list, err
}

// deviceSets keeps of the numbers of exports and batches those that have a tree: of
// most there is none.
func (c conn) deviceSets(subjects []int64) (sets []int64, err error) {
	err = inRuns(subjects, func(run []int64) error {
		v := valuesOf("place INTEGER, id INTEGER")
		for place, id := range run {
			v.add(place, id)
		}
		return c.each(v.with("SELECT s.id FROM v JOIN device_set s ON s.id = v.id ORDER BY v.place"), func(r *row) error {
			sets = append(sets, r.int())
			return nil
		}, v.args...)
	})
	return sets, err
}

// proof shows that a device is in a set that somebody asked for: to one that is not
// complete devices may have come since.
func (s setSource) proof(c conn, id int64, device joinery.DeviceID) (set auditlog.Set, found bool, err error) {
	var size int64
	var salt, nodes []byte
	found, err = c.one("SELECT i.idx, o.devices, s.salt, s.nodes, i.join_eui FROM device_set s JOIN "+s.of+" o ON o.id = s.id JOIN "+s.table+" i ON i."+s.owner+
		" = s.id AND i.device = ? WHERE s.id = ? AND o.digest IS NOT NULL", func(r *row) error {
		set.Row, size, salt, nodes = r.int(), r.int(), r.blob(), r.blob()
		set.JoinEUI = r.eui().String()
		return nil
	}, device, id)
	if err != nil || !found {
		return set, false, err
	}
	set.Of, set.Nonce = s.name(id), auditlog.SetNonce(salt, set.Row)
	set.Proof, err = auditlog.SetProof(size, set.Row, nodes, func(index int64) (leaves [][32]byte, err error) {
		err = s.leaves(c, id, salt, index*auditlog.SetBlock, (index+1)*auditlog.SetBlock, func(l setLeaf) { leaves = append(leaves, l.Leaf()) })
		return leaves, err
	})
	if err != nil {
		err = fmt.Errorf("%s: %w; run joinery fsck", set.Of, err)
	}
	return set, true, err
}
