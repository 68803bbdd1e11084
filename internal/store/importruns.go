package store

import (
	"context"
	"encoding/binary"

	"joinery"
)

// runsInPage bounds the runs that are looked at for one page.
const runsInPage = 100

// noteRun writes down which devices a run of rows is.
func (t *tx) noteRun(rows joinery.ImportRows, results []joinery.RowResult) error {
	devices := make([]byte, 0, 8*len(results))
	for _, r := range results {
		devices = binary.BigEndian.AppendUint64(devices, uint64(r.Device))
	}
	return t.exec("INSERT INTO import_run (import, first, devices) VALUES (?, ?, ?)", rows.Import, rows.From, devices)
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
