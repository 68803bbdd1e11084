package store

import (
	"context"
	"encoding/binary"

	"joinery"
)

// A page of an import's devices ends with the run that fills it.
const (
	devicesInPage = 500
	runsInPage    = 100
)

// noteRun writes down which devices a run of rows is.
func (t *tx) noteRun(rows joinery.ImportRows, results []joinery.RowResult) error {
	devices := make([]byte, 0, 8*len(results))
	for _, r := range results {
		devices = binary.BigEndian.AppendUint64(devices, uint64(r.Device))
	}
	return t.exec("INSERT INTO import_run (import, first, devices) VALUES (?, ?, ?)", rows.Import, rows.From, devices)
}

// ImportedDevices gives the devices of an import's rows, new ones and those that
// were there already, in the file's order from row from on. next is the row at
// which the next page begins; 0 where there is none. A device may be deleted by
// now. CodeNotFound for an absent import.
func (d *DB) ImportedDevices(ctx context.Context, id joinery.ImportID, from uint64) (devices []joinery.ImportedDevice, next uint64, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		if _, err := c.findImport(id); err != nil {
			return err
		}
		runs := 0
		err := c.each("SELECT first, devices FROM import_run WHERE import = ? AND first + length(devices) / 8 > ? ORDER BY first LIMIT ?", func(r *row) error {
			first, ids := uint64(r.int()), r.blob()
			if runs++; runs > runsInPage || len(devices) >= devicesInPage {
				if next == 0 {
					next = first
				}
				return nil
			}
			for i := range uint64(len(ids) / 8) {
				device := joinery.DeviceID(binary.BigEndian.Uint64(ids[8*i:]))
				if device != 0 && first+i >= from {
					devices = append(devices, joinery.ImportedDevice{Index: first + i, Device: device})
				}
			}
			return nil
		}, id, from, runsInPage+1)
		return err
	})
	return devices, next, err
}
