package custodylog

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"joinery"
	"joinery/auditlog"
	"joinery/lorawan"
)

// importRun imports devices in one run of rows.
func (w *world) importRun(name string, devEUIs ...uint64) (ids []joinery.DeviceID) {
	w.Helper()
	i, err := w.db.BeginImport(w.ctx, joinery.Import{
		Org: w.maker, Kind: joinery.ImportManifest, SHA256: [32]byte([]byte(fmt.Sprintf("%-32s", name))), MACVersion: lorawan.MAC1_0_4, CreatedAt: epoch,
	})
	w.ok(err)
	rows := joinery.ImportRows{Import: i.ID, Count: uint64(len(devEUIs)), Last: true}
	for n, eui := range devEUIs {
		id, devEUI := joinery.NewDeviceID(), lorawan.EUI64FromUint64(eui)
		rows.Devices = append(rows.Devices, joinery.NewDevice{
			Index: uint64(n), Device: joinery.Device{ID: id, JoinEUI: testJoinEUI, DevEUI: devEUI, MACVersion: lorawan.MAC1_0_4, CreatedAt: epoch},
			KeySet:   joinery.KeySet{ID: joinery.NewKeySetID(), DeviceID: id, DevEUI: devEUI, Origin: joinery.OriginDerived, Master: "test-master", Root10: joinery.NwkKey},
			Manifest: fmt.Appendf(nil, "%s: signed entry of %x", name, eui),
		})
	}
	told := w.about(joinery.AuditDeviceImported, w.maker, 0)
	told.Actor, told.Detail = "importer", map[string]string{"import": i.ID.String(), "from": "0"}
	results, err := w.db.CommitRows(w.ctx, rows, told)
	w.ok(err)
	for _, r := range results {
		if r.Device == 0 {
			w.Fatalf("%+v", r)
		}
		ids = append(ids, r.Device)
	}
	return ids
}

const someEUI = 0x0004A30C_00000000

// The history of each device begins at its import and its manifest entry, and
// that is proved: to who has it, who had it, and a buyer.
func TestHistoryBeginsAtTheImport(t *testing.T) {
	w := newWorld(t, Options{})
	devices := w.importRun("first", someEUI, someEUI+1, someEUI+2, someEUI+3, someEUI+4)
	second := w.importRun("second", someEUI+5)
	w.claim(devices[1], w.buyer)
	w.join(devices[1])
	w.publish()
	for n, d := range devices {
		r := w.good(w.bundle(as(w.maker), d, 0), w.trust())
		if r.Began == nil || r.Began.Manifest != digest(fmt.Sprintf("first: signed entry of %x", someEUI+n)) || r.Began.By != "importer" || len(r.Notes) > 0 {
			t.Errorf("device %d: %+v", n, r)
		}
	}
	p, err := w.Provenance(w.ctx, as(w.buyer), Query{Device: devices[1]})
	w.ok(err)
	if r := w.good(p.Bundle, w.trust()); r.Began == nil || len(r.Links) != 1 || r.Links[0].Manifest != r.Began.Manifest {
		t.Errorf("%+v", r)
	}
	good := w.bundle(as(w.buyer), devices[1], 0)
	w.good(good, w.trust())
	other, strange := w.bundle(as(w.maker), devices[2], 0), w.bundle(as(w.maker), second[0], 0)
	for name, do := range map[string]func(b *auditlog.Bundle){
		"another manifest entry": func(b *auditlog.Bundle) { b.Manifest = []byte("forged") },
		"another hash of it":     func(b *auditlog.Bundle) { b.Import.Manifest = strings.Repeat("0", 64) },
		"another device's place": func(b *auditlog.Bundle) { b.Import = other.Import },
		"another JoinEUI":        func(b *auditlog.Bundle) { b.Import.JoinEUI = "0000000000000001" },
		"another nonce":          func(b *auditlog.Bundle) { b.Import.Nonce[0] ^= 1 },
		"a row beyond":           func(b *auditlog.Bundle) { b.Import.Row = 5 },
		"a proof cut short":      func(b *auditlog.Bundle) { b.Import.Proof = b.Import.Proof[1:] },
		"no such entry":          func(b *auditlog.Bundle) { b.Import.Entry = "audit_1" },
		"who imported another": func(b *auditlog.Bundle) {
			b.Entries = append(b.Entries, strange.Entries[slices.IndexFunc(strange.Entries, func(e auditlog.Entry) bool { return e.Kind == auditlog.KindRelated })])
		},
		"its entry left out": func(b *auditlog.Bundle) {
			b.Entries = slices.DeleteFunc(b.Entries, func(e auditlog.Entry) bool { return e.Kind == auditlog.KindImport })
		},
	} {
		b := clone(t, good)
		do(&b)
		r := auditlog.Verify(b, w.trust())
		if !slices.ContainsFunc(r.Findings, func(f auditlog.Finding) bool { return f.Fault == auditlog.FaultImport }) || r.Began != nil && name != "another manifest entry" && name != "who imported another" {
			t.Errorf("%s: %v", name, r.Findings)
		}
	}
	for _, e := range good.Entries {
		for n := range devices {
			if n != 1 && strings.Contains(string(e.Payload), devices[n].String()) {
				t.Error("the buyer of one device reads the id of another")
			}
		}
	}
	ref, err := ParseEntryName(good.Import.Entry)
	w.ok(err)
	if err := w.Erase(w.ctx, operator, ref, "no"); joinery.CodeOf(err) != joinery.CodeConflict {
		t.Errorf("an import is erased: %v", err)
	}
}

// A device that was deleted and imported again has one history, which begins at
// its first import; so does that of a device that is gone.
func TestHistoryOfDeletedDevices(t *testing.T) {
	w := newWorld(t, Options{})
	devices := w.importRun("first", someEUI, someEUI+1)
	for _, d := range devices {
		w.join(d)
		w.ok(w.db.DeleteDevice(w.ctx, d, w.maker, w.about(joinery.AuditDeviceDeleted, w.maker, d)))
	}
	if again := w.importRun("second", someEUI, someEUI+9); again[0] != devices[0] {
		t.Fatal("the device came back as another")
	}
	w.join(devices[0])
	w.claim(devices[0], w.buyer)
	w.join(devices[0])
	w.publish()
	for _, c := range []struct {
		org joinery.OrgID
		of  joinery.DeviceID
	}{{w.maker, devices[0]}, {w.buyer, devices[0]}, {w.maker, devices[1]}} {
		b := w.bundle(as(c.org), c.of, 0)
		r := w.good(b, w.trust())
		if r.Began == nil || r.Began.Manifest != digest(fmt.Sprintf("first: signed entry of %x", someEUI+slices.Index(devices, c.of))) {
			t.Errorf("%+v", r)
		}
		p, err := w.Provenance(w.ctx, as(c.org), Query{Device: c.of})
		w.ok(err)
		w.good(p.Bundle, w.trust())
	}
	// Erased is what says how the device was when it was deleted.
	b := w.bundle(operator, devices[1], 0)
	ref, err := ParseEntryName(b.Entries[0].ID)
	w.ok(err)
	w.ok(w.Erase(w.ctx, operator, ref, "asked for"))
	w.publish()
	if r := w.good(w.bundle(as(w.maker), devices[1], 0), w.trust()); r.Began != nil || r.Erased != 1 {
		t.Errorf("%+v", r)
	}
}
