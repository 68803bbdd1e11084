package store

import (
	"testing"

	"joinery"
)

// exportOne leaves an export that is ready, of the first of these devices that its
// organisation holds.
func exportOne(t *testing.T, d *DB, states []joinery.ActivationState, a joinery.AuditEntry) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	for _, s := range states[1:] {
		now, err := d.Device(ctx, s.Device.ID)
		if err != nil || now.Device.Ownership.Released {
			continue
		}
		r := joinery.Recipient{
			ID: joinery.NewRecipientID(), Org: now.Device.Ownership.Org, Name: "laptop", Kind: joinery.RecipientFile,
			Thumbprint: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", Key: "PEM", CreatedAt: testTime,
		}
		must(d.AddRecipient(ctx, r, 1, a))
		e := joinery.Export{ID: joinery.NewExportID(), Org: r.Org, Recipient: r.ID, RequestedAt: testTime, ExpiresAt: testTime}
		must(d.BeginExport(ctx, e))
		e, err = d.AddExportDevices(ctx, e.ID, []joinery.DeviceID{s.Device.ID})
		must(err)
		set, err := d.FixExportSet(ctx, e.ID)
		must(err)
		e.State, e.Digest, e.Root = joinery.ExportApproved, set.Digest, set.Root
		asked := joinery.AuditEntry{
			At: a.At, Event: joinery.AuditExportRequested, Actor: a.Actor, Org: e.Org,
			Detail: set.Detail(map[string]string{"export": e.ID.String(), "recipient": r.Thumbprint}),
		}
		must(d.MoveExport(ctx, e, []joinery.ExportState{joinery.ExportCollecting}, asked))
		_, err = d.StartExport(ctx, e.ID, []byte("head"))
		must(err)
		_, err = d.CommitExport(ctx, e.ID, []joinery.WrappedItem{{KeySet: s.KeySet.ID, Blob: []byte("keys")}}, testTime, a, a)
		must(err)
		return
	}
	t.Fatal("no device to export")
}
