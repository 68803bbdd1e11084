package rotation_test

import (
	"context"
	"crypto/sha256"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store"
	"joinery/lorawan"
)

type contextType = context.Context

// importDevice brings a device with these keys into the store.
func importDevice(t *testing.T, db *store.DB, ks joinery.KeySet) joinery.KeySetID {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Millisecond)
	entry := joinery.AuditEntry{At: now, Event: joinery.AuditRangeAssigned, Actor: "test"}
	orgs, err := db.Orgs(t.Context())
	ok(t, err)
	org := orgs[0].ID
	if ranges, err := db.Ranges(t.Context()); err != nil || len(ranges) == 0 {
		ok(t, err)
		ok(t, db.AssignRange(t.Context(), joinery.JoinEUIRange{EUIRange: joinery.EUIRange{First: lorawan.EUI64{1}, Last: lorawan.EUI64{1}}, Org: org}, entry))
	}
	i, err := db.BeginImport(t.Context(), joinery.Import{
		ID: joinery.NewImportID(), Org: org, Kind: joinery.ImportKeyList, SHA256: sha256.Sum256(ks.DevEUI[:]), CreatedAt: now,
	})
	ok(t, err)
	d := joinery.NewDevice{Device: joinery.Device{
		ID: ks.DeviceID, JoinEUI: lorawan.EUI64{1}, DevEUI: ks.DevEUI, MACVersion: lorawan.MAC1_0_3, Maker: org,
		Ownership: joinery.Ownership{Org: org, Since: now}, CreatedAt: now,
	}, KeySet: ks}
	entry.Event = joinery.AuditDeviceImported
	results, err := db.CommitRows(t.Context(), joinery.ImportRows{Import: i.ID, Count: 1, Last: true, Devices: []joinery.NewDevice{d}}, entry)
	ok(t, err)
	if results[0].Status != joinery.RowCreated {
		t.Fatalf("%+v", results[0])
	}
	return ks.ID
}
