package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"

	"joinery"
	"joinery/auditlog"
)

// runsInPage bounds the runs that are looked at for one page.
const runsInPage = 100

// importRun is a run of rows on its way: what the custody log will say of it.
type importRun struct {
	joinery.ImportRows
	org    joinery.OrgID
	number int64 // of the audit row that commits to it
	salt   [32]byte
	leaves [][32]byte // of all rows
	made   bool       // a device
	// revived are devices that were deleted and came back.
	revived []joinery.AuditEntry
	// told are what other Join Servers said of devices that came from them.
	told []joinery.AuditEntry
}

func (t *tx) newRun(i joinery.Import, rows joinery.ImportRows) (run importRun, err error) {
	run = importRun{ImportRows: rows, org: i.Org, leaves: make([][32]byte, rows.Count)}
	rand.Read(run.salt[:]) // never fails (crypto/rand)
	run.number, err = t.integer("SELECT coalesce(max(id), 0) + 1 FROM audit")
	return run, err
}

// take notes what a row made: a new device has a leaf of the run, and one that
// came back an entry of its own.
func (r *importRun) take(n joinery.NewDevice, result joinery.RowResult) {
	manifest := manifestHash(n.Manifest)
	switch {
	case result.Status != joinery.RowCreated:
	case result.Device != n.Device.ID:
		r.revived = append(r.revived, joinery.AuditEntry{Device: result.Device, Detail: map[string]string{"manifest": manifest, "joinEUI": n.Device.JoinEUI.String()}})
	default:
		row := int64(n.Index - r.From)
		r.leaves[row] = auditlog.ImportedDevice{
			Nonce: auditlog.ImportNonce(r.salt[:], row), Device: result.Device.String(),
			JoinEUI: n.Device.JoinEUI.String(), DevEUI: n.Device.DevEUI.String(), Manifest: manifest,
		}.Leaf()
		r.made = true
	}
}

// again is the entries of devices that came back with the run that a is about.
func (r *importRun) again(a joinery.AuditEntry) []joinery.AuditEntry {
	for i := range r.revived {
		e := &r.revived[i]
		e.At, e.Event, e.Actor, e.Org = a.At, joinery.AuditDeviceImported, a.Actor, r.org
		e.Detail["import"] = r.Import.String()
	}
	return r.revived
}

// commitRun writes the entry that commits to the devices of a run. Each device of
// it has the number that this entry gets, so no other may come before it.
func (t *tx) commitRun(r *importRun, a joinery.AuditEntry) error {
	if !r.made {
		return nil
	}
	root, err := auditlog.ImportRoot(r.leaves)
	if err != nil {
		return err
	}
	err = t.audit(joinery.AuditEntry{At: a.At, Event: joinery.AuditImportCommitted, Actor: "joinery", Org: r.org, Detail: map[string]string{
		"import": r.Import.String(), "from": strconv.FormatUint(r.From, 10), "rows": strconv.Itoa(len(r.leaves)), "root": hex.EncodeToString(root[:]),
	}})
	if err != nil {
		return err
	}
	number, err := t.integer("SELECT max(id) FROM audit")
	if err == nil && number != r.number {
		err = fmt.Errorf("audit row %d came where %d was to come: rows were deleted by hand; run joinery fsck", number, r.number)
	}
	return err
}

// manifestHash is SHA-256 of a signed entry, in hexadecimal digits; "" for none.
func manifestHash(entry []byte) string {
	if len(entry) == 0 {
		return ""
	}
	h := sha256.Sum256(entry)
	return hex.EncodeToString(h[:])
}

// noteRun writes down which devices a run of rows is, and the leaves of those that
// are new.
func (t *tx) noteRun(run importRun, results []joinery.RowResult) error {
	devices := make([]byte, 0, 8*len(results))
	for _, r := range results {
		devices = binary.BigEndian.AppendUint64(devices, uint64(r.Device))
	}
	if !run.made {
		return t.exec("INSERT INTO import_run (import, first, devices) VALUES (?, ?, ?)", run.Import, run.From, devices)
	}
	return t.exec("INSERT INTO import_run (import, first, devices, audit, salt, leaves) VALUES (?, ?, ?, ?, ?, ?)",
		run.Import, run.From, devices, run.number, run.salt[:], slices.Concat(hashSlices(run.leaves)...))
}

// importLeaf finds a device in the entry that commits to it, whose number it has.
// nil: there is none, or what it says cannot be told any more.
func (c conn) importLeaf(device joinery.DeviceID, number int64, now auditlog.ImportedDevice) (*joinery.CustodyImport, error) {
	if number == 0 {
		return nil, nil //nolint:nilnil // as said
	}
	e, err := c.auditEntry(number)
	if err != nil {
		return nil, err
	}
	var run joinery.ImportID
	from, err := strconv.ParseUint(e.Detail["from"], 10, 63)
	if err = firstError(err, run.UnmarshalText([]byte(e.Detail["import"]))); err != nil {
		return nil, fmt.Errorf("audit row %d is of no import; run joinery fsck", number)
	}
	var ids, salt, leaves []byte
	_, err = c.one("SELECT devices, salt, leaves FROM import_run WHERE import = ? AND first = ?", func(r *row) error {
		ids, salt, leaves = r.blob(), r.blob(), r.blob()
		return nil
	}, run, from)
	if err != nil {
		return nil, err
	}
	at := slices.Index(parseIDs(ids), device)
	if at < 0 || len(leaves) != 4*len(ids) {
		return nil, fmt.Errorf("device %s is not in the import of audit row %d; run joinery fsck", device, number)
	}
	then, known, err := c.asImported(device, now)
	if err != nil || !known {
		return nil, err
	}
	then.Nonce = auditlog.ImportNonce(salt, int64(at))
	i := &joinery.CustodyImport{Entry: joinery.AuditRef(number), Row: int64(at), Device: then}
	if i.Told, err = c.importTold(number+1, e); err != nil {
		return nil, err
	}
	for l := range slices.Chunk(leaves, 32) {
		i.Leaves = append(i.Leaves, [32]byte(l))
	}
	return i, nil
}

// importTold gives the entry that says who imported the run to which another commits: it
// comes behind that. 0 where the one of that number is another thing.
func (c conn) importTold(number int64, committed joinery.AuditEntry) (told joinery.LogRef, err error) {
	_, err = c.one("SELECT payload FROM audit WHERE id = ? AND event = ? AND device IS NULL", func(r *row) error {
		payload := r.blob()
		if payload != nil { // an erased one is shown as that
			e, err := decodeAudit(payload)
			if err != nil || e.Detail["import"] != committed.Detail["import"] || e.Detail["from"] != committed.Detail["from"] {
				return err
			}
		}
		told = joinery.AuditRef(number)
		return nil
	}, number, joinery.AuditDeviceImported)
	return told, err
}

// auditEntry reads one audit row.
func (c conn) auditEntry(number int64) (e joinery.AuditEntry, err error) {
	_, err = c.one("SELECT payload FROM audit WHERE id = ?", func(r *row) (err error) { e, err = decodeAudit(r.blob()); return err }, number)
	return e, err
}

func parseIDs(b []byte) (ids []joinery.DeviceID) {
	for id := range slices.Chunk(b, 8) {
		ids = append(ids, joinery.DeviceID(binary.BigEndian.Uint64(id)))
	}
	return ids
}

// asImported is what a device was when it was imported at first: as it is now, or
// was when it was first deleted. Where the record of that is erased it is not
// known.
func (c conn) asImported(device joinery.DeviceID, now auditlog.ImportedDevice) (then auditlog.ImportedDevice, known bool, err error) {
	then, known = now, true
	_, err = c.one("SELECT payload FROM audit WHERE device > 0 AND device = ? AND event = ? ORDER BY id LIMIT 1", func(r *row) error {
		payload := r.blob()
		if payload == nil {
			known = false
			return nil
		}
		e, err := decodeAudit(payload)
		then.JoinEUI, then.Manifest = e.Detail["joinEUI"], e.Detail["manifest"]
		return err
	}, device, joinery.AuditDeviceDeleted)
	return then, known, err
}

// ImportedDevices gives at most limit devices of an import's rows, new ones and
// those that were there already, in the file's order from row from on. next is
// the row at which the next page begins; 0 where there is none. A page may have
// fewer, and a next all the same. A device may be deleted by now. CodeNotFound
// for an absent import.
func (d *DB) ImportedDevices(ctx context.Context, id joinery.ImportID, from uint64, limit int) (devices []joinery.ImportedDevice, next uint64, err error) {
	limit = pageLimit(limit)
	err = d.snapshot(ctx, func(c conn) error {
		if _, err := c.findImport(id); err != nil {
			return err
		}
		runs := 0
		take := func(r *row) error {
			first, ids := uint64(r.int()), r.blob()
			if runs++; runs > runsInPage && next == 0 {
				next = first
			}
			for i := range uint64(len(ids) / 8) {
				device := joinery.DeviceID(binary.BigEndian.Uint64(ids[8*i:]))
				if next != 0 || device == 0 || first+i < from {
					continue
				}
				if len(devices) == limit {
					next = first + i
					continue
				}
				devices = append(devices, joinery.ImportedDevice{Index: first + i, Device: device})
			}
			return nil
		}
		return c.each("SELECT first, devices FROM import_run WHERE import = ? AND first + length(devices) / 8 > ? ORDER BY first LIMIT ?", take, id, from, runsInPage+1)
	})
	return devices, next, err
}
