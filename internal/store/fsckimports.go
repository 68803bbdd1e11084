package store

import (
	"encoding/hex"
	"slices"
	"strconv"

	"joinery"
	"joinery/auditlog"
)

// importedRun is what is stored of one run of rows to which the log commits.
type importedRun struct {
	run, first, number int64
	devices            []joinery.DeviceID
	salt               []byte
	leaves             [][32]byte
}

// imported checks that the entries of imports commit to the devices that are
// there, with the EUIs and manifest entries that they have.
func (f *checkup) imported() error {
	committed := map[joinery.DeviceID]int64{}
	err := f.eachImportedRun(func(r importedRun) error {
		for i, d := range r.devices {
			if d != 0 && r.leaves[i] != [32]byte{} {
				committed[d] = r.number
			}
		}
		if err := f.importedRoot(r); err != nil {
			return err
		}
		return f.importedDevices(r)
	})
	if err != nil {
		return err
	}
	return f.c.each("SELECT id, imported FROM device WHERE imported IS NOT NULL ORDER BY id", func(r *row) error {
		id, number := r.int(), r.int()
		if committed[joinery.DeviceID(id)] != number {
			f.report("device", joinery.DeviceID(id), "the entry of its import commits to it", fixLog)
		}
		return nil
	})
}

// eachImportedRun reads the runs some at a time: others are read between them.
func (f *checkup) eachImportedRun(check func(importedRun) error) error {
	const some = 16
	var run, first int64
	first = -1
	for {
		var list []importedRun
		err := f.c.each(`SELECT import, first, audit, devices, salt, leaves FROM import_run
			WHERE leaves IS NOT NULL AND (import > ? OR import = ? AND first > ?) ORDER BY import, first LIMIT ?`, func(r *row) error {
			n := importedRun{run: r.int(), first: r.int(), number: r.int(), devices: parseIDs(r.blob()), salt: r.blob()}
			for leaf := range slices.Chunk(r.blob(), 32) {
				n.leaves = append(n.leaves, [32]byte(leaf))
			}
			list = append(list, n)
			return nil
		}, run, run, first, some)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, n := range list {
			run, first = n.run, n.first
			if err := check(n); err != nil {
				return err
			}
		}
	}
}

// importedRoot compares a run with the entry that commits to it.
func (f *checkup) importedRoot(r importedRun) error {
	root, err := auditlog.ImportRoot(r.leaves)
	if err != nil {
		return err
	}
	var payload []byte
	found, err := f.c.one("SELECT payload FROM audit WHERE id = ?", func(r *row) error { payload = r.blob(); return nil }, r.number)
	if err != nil || found && payload == nil { // an erased entry says nothing any more
		return err
	}
	e, err := decodeAudit(payload)
	if err != nil || e.Event != joinery.AuditImportCommitted || e.Detail["import"] != importID(r.run) ||
		e.Detail["from"] != strconv.FormatInt(r.first, 10) || e.Detail["root"] != hex.EncodeToString(root[:]) {
		f.report("import_run", importID(r.run), "an entry of the custody log commits to its devices", fixLog)
	}
	return nil
}

// importedDevices compares devices that were never deleted with their leaves.
func (f *checkup) importedDevices(r importedRun) error {
	rows := map[joinery.DeviceID]int{}
	for i, d := range r.devices {
		if d != 0 && r.leaves[i] != [32]byte{} {
			rows[d] = i
		}
	}
	return inRuns(inOrderOf(rows), func(run []joinery.DeviceID) error {
		v := valuesOf("id INTEGER")
		for _, d := range run {
			v.add(d)
		}
		return f.c.each(v.with(`SELECT d.id, d.join_eui, d.dev_eui, m.entry FROM v JOIN device d ON d.id = v.id LEFT JOIN manifest_entry m ON m.device = d.id
			WHERE d.deleted_at IS NULL AND NOT EXISTS (
			SELECT 1 FROM audit a WHERE a.device > 0 AND a.device = d.id AND a.event IN ('device.deleted', 'device.imported'))`), func(line *row) error {
			id := joinery.DeviceID(line.int())
			now := auditlog.ImportedDevice{
				Device: id.String(), JoinEUI: line.eui().String(), DevEUI: line.eui().String(), Manifest: manifestHash(line.blob()),
				Nonce: auditlog.ImportNonce(r.salt, int64(rows[id])),
			}
			if now.Leaf() != r.leaves[rows[id]] {
				f.report("device", id, "its EUIs and its manifest entry are those with which it was imported", fixLog)
			}
			return nil
		}, v.args...)
	})
}
