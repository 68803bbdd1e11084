package store

import (
	"context"

	"joinery"
)

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
	where, args := "AND d.id = ?", []any{ref.ID}
	if ref.ID == 0 {
		where, args = "AND d.dev_eui = ? AND d.join_eui = ?", []any{ref.DevEUI, ref.JoinEUI}
	}
	states, err := c.states(oneDevice+where, args...)
	if err != nil || len(states) == 0 {
		return l, err
	}
	d := states[0].Device
	if !ref.DevEUI.IsZero() && (d.DevEUI != ref.DevEUI || d.JoinEUI != ref.JoinEUI) {
		return l, nil
	}
	l.Device = d
	_, err = c.one("SELECT serial FROM manifest_entry WHERE device = ?", func(r *row) error { l.Serial = r.text(); return nil }, d.ID)
	return l, err
}
