package store

import (
	"context"

	"joinery"
)

const labelQuery = `SELECT d.id, d.join_eui, d.dev_eui, coalesce(m.serial, ''), d.org, d.owner_epoch, d.token_generation
	FROM device d LEFT JOIN manifest_entry m ON m.device = d.id WHERE d.deleted_at IS NULL AND `

// Labelled gives what stands on the labels of devices, one for each of refs and
// in their order. A device that is not there has no id.
func (d *DB) Labelled(ctx context.Context, refs []joinery.DeviceRef) (labels []joinery.Labelled, err error) {
	labels = make([]joinery.Labelled, len(refs))
	err = d.read(ctx, func(c conn) error {
		for i, ref := range refs {
			if labels[i], err = c.labelled(ref); err != nil {
				return err
			}
		}
		return nil
	})
	return labels, err
}

func (c conn) labelled(ref joinery.DeviceRef) (l joinery.Labelled, err error) {
	scan := func(r *row) error {
		l = joinery.Labelled{Device: joinery.DeviceID(r.int()), JoinEUI: r.eui(), DevEUI: r.eui(), Serial: r.text()}
		l.Ownership = joinery.Ownership{Org: joinery.OrgID(r.int()), Epoch: uint32(r.int()), TokenGeneration: uint32(r.int())}
		return nil
	}
	if ref.ID == 0 {
		_, err = c.one(labelQuery+"d.dev_eui = ? AND d.join_eui = ?", scan, ref.DevEUI, ref.JoinEUI)
		return l, err
	}
	_, err = c.one(labelQuery+"d.id = ?", scan, ref.ID)
	if !ref.DevEUI.IsZero() && (l.DevEUI != ref.DevEUI || l.JoinEUI != ref.JoinEUI) {
		return joinery.Labelled{}, err
	}
	return l, err
}
