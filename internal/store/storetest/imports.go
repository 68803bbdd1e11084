package storetest

import (
	"crypto/sha256"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

func runImports(t *testing.T, open func(testing.TB) Backend) {
	t.Run("created as given", func(t *testing.T) {
		w := newWorld(t, open)
		d := sealed(1)
		d.KeySet.Nwk = joinery.SealedRoot{Use: randomBytes(57), Custody: randomBytes(400)}
		d.Device.MACVersion, d.KeySet.Root10 = lorawan.MAC1_1, joinery.NwkKey
		d.Binding = binding()
		d.KeySet.Nonces = joinery.Nonces{JoinNonce: 500}.With(joinery.JoinEUINonces{JoinEUI: joinEUI, Next: 12})
		d.Device.Ownership.TokenGeneration = 1
		w.add(d)
		s, err := w.Device(w.ctx, d.Device.ID)
		w.ok(err)
		want := d.Device
		want.Maker, want.Ownership = w.org, joinery.Ownership{Org: w.org, TokenGeneration: 1, Since: epoch}
		w.equal(s.Device, want)
		w.equal(s.KeySet, d.KeySet)
		wantBinding := *binding()
		wantBinding.Epoch = 1
		w.equal(s.Binding, &wantBinding)

		hot := w.load(joinEUI, d.Device.DevEUI)
		hot.KeySet.Nwk.Custody, hot.KeySet.App.Custody = s.KeySet.Nwk.Custody, s.KeySet.App.Custody
		w.equal(hot, s) // but for the custody blobs, which no join needs
		w.CheckInvariants(t)
	})
	t.Run("manifest entry", func(t *testing.T) {
		w := newWorld(t, open)
		d := derived(1)
		w.add(d)
		entry, serial, err := w.ManifestEntry(w.ctx, d.Device.ID)
		w.ok(err)
		w.equal([]string{string(entry), serial}, []string{string(d.Manifest), d.Serial})
	})
	t.Run("the same again is unchanged", func(t *testing.T) {
		w := newWorld(t, open)
		first, other := derived(1), sealed(2)
		w.importAs(w.org, first, other)
		w.join(w.load(joinEUI, devEUI(1)))
		before := w.load(joinEUI, devEUI(1))
		for i, r := range w.importAs(w.org, derived(1), sealed(2)) {
			w.equal(r.Status, joinery.RowUnchanged)
			w.equal(r.Device, []joinery.NewDevice{first, other}[i].Device.ID)
		}
		w.equal(w.load(joinEUI, devEUI(1)), before)
		w.CheckInvariants(t)
	})
	t.Run("rows that fail singly", failingRows(open))
	t.Run("begun once", func(t *testing.T) {
		w := newWorld(t, open)
		a := w.begin(w.org, "file")
		w.equal(w.begin(w.org, "file"), a)
		if b := w.begin(w.addOrg("another"), "file"); b.ID == a.ID {
			t.Fatal("two organisations share an import")
		}
		wish := binding()
		wish.Since = time.Time{} // when it is made is when a device gets it
		w.equal(a.Bind, wish)
		bare, err := w.BeginImport(w.ctx, joinery.Import{Org: w.org, Kind: joinery.ImportKeyList, SHA256: sha256.Sum256([]byte("file")), CreatedAt: epoch})
		w.ok(err)
		if bare.ID == a.ID || bare.Bind != nil || bare.MACVersion != 0 {
			t.Fatalf("a key list without binding became %+v", bare)
		}
	})
	t.Run("goes on where it stood", resume(open))
	t.Run("runs that do not fit", func(t *testing.T) {
		w := newWorld(t, open)
		i := w.begin(w.org, "file")
		d := derived(1)
		d.Index = 1
		for _, c := range []struct {
			rows joinery.ImportRows
			code joinery.Code
		}{
			{joinery.ImportRows{From: 1, Count: 0}, joinery.CodeConflict},
			{joinery.ImportRows{Count: joinery.MaxImportRows + 1}, joinery.CodeTooLarge},
			{joinery.ImportRows{Count: 1}, joinery.CodeInvalid},
			{joinery.ImportRows{Count: 1, Devices: []joinery.NewDevice{d}}, joinery.CodeInvalid},
			{joinery.ImportRows{Count: 2, Devices: []joinery.NewDevice{d, d}}, joinery.CodeInvalid},
		} {
			c.rows.Import = i.ID
			_, err := w.CommitRows(w.ctx, c.rows, w.audit(joinery.AuditDeviceImported))
			w.refused(err, c.code)
		}
		got, err := w.Import(w.ctx, i.ID)
		w.ok(err)
		w.equal(got, i)
	})
	t.Run("rows that no import makes", func(t *testing.T) {
		w := newWorld(t, open)
		i := w.begin(w.org, "file")
		for name, spoil := range map[string]func(*joinery.NewDevice){
			"no id":         func(d *joinery.NewDevice) { d.Device.ID = 0 },
			"other DevEUI":  func(d *joinery.NewDevice) { d.KeySet.DevEUI[7]++ },
			"no keys":       func(d *joinery.NewDevice) { d.KeySet.Origin = joinery.OriginSealed },
			"no origin":     func(d *joinery.NewDevice) { d.KeySet.Origin = 0 },
			"no MACVersion": func(d *joinery.NewDevice) { d.Device.MACVersion = 0 },
			"other maker":   func(d *joinery.NewDevice) { d.Device.Maker = joinery.NewOrgID() },
		} {
			d := derived(1)
			spoil(&d)
			_, err := w.CommitRows(w.ctx, joinery.ImportRows{Import: i.ID, Count: 1, Devices: []joinery.NewDevice{d}}, w.audit(joinery.AuditDeviceImported))
			if joinery.CodeOf(err) != joinery.CodeInvalid {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
}

func failingRows(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		rival := w.addOrg("rival")
		w.assign(rival, 0x10, 0x1F)
		w.add(derived(1))

		elsewhere := derived(2)
		elsewhere.Device.JoinEUI[7] = 0x11 // the rival's
		sameElement := derived(1)
		sameElement.Device.JoinEUI[7] = 2 // ours, another JoinEUI
		otherKeys := derived(1)
		otherKeys.KeySet.Generation = 1
		otherMAC := derived(1)
		otherMAC.Device.MACVersion = lorawan.MAC1_1
		for i, r := range w.importAs(w.org, elsewhere, sameElement, otherKeys, otherMAC, sealed(1), derived(3)) {
			if want := i == 5; (r.Status == joinery.RowCreated) != want || (r.Reason == "") != want {
				t.Errorf("row %d: %s %q", i, r.Status, r.Reason)
			}
		}
		stolen := derived(1) // somebody else's element, under a JoinEUI of the thief's
		stolen.Device.JoinEUI[7] = 0x11
		foreign := derived(1)
		for i, r := range w.importAs(rival, stolen, foreign) {
			w.equal(r.Status, []joinery.RowStatus{joinery.RowConflict, joinery.RowFailed}[i])
			if r.Device != 0 || r.Reason == "" {
				t.Errorf("a failed row names %v, %q", r.Device, r.Reason)
			}
		}
		w.CheckInvariants(t)
	}
}

// resume imports a file in runs, reopens after each, and finds the import where
// it stood.
func resume(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		i := w.begin(w.org, "file")
		const rows, run = 25, 10
		for i.Next < rows {
			part := joinery.ImportRows{Import: i.ID, From: i.Next, Count: min(run, rows-i.Next)}
			part.Last = part.From+part.Count == rows
			for n := part.From; n < part.From+part.Count; n++ {
				if n%5 == 0 {
					part.Failed = append(part.Failed, joinery.RowResult{Index: n, Line: n + 2, JoinEUI: joinEUI, DevEUI: devEUI(int(n)), Status: joinery.RowFailed, Reason: "DevEUI is not hexadecimal"})
					continue
				}
				d := derived(int(n))
				d.Index, d.Line = n, n+2
				part.Devices = append(part.Devices, d)
			}
			results, err := w.CommitRows(w.ctx, part, w.audit(joinery.AuditDeviceImported))
			w.ok(err)
			for k, r := range results {
				w.equal(r.Index, part.From+uint64(k))
			}
			_, err = w.CommitRows(w.ctx, part, w.audit(joinery.AuditDeviceImported)) // the answer was lost
			w.refused(err, joinery.CodeConflict)
			w.Backend = w.Reopen(t)
			i = w.begin(w.org, "file")
		}
		w.equal([]uint64{i.Next, i.Created, i.Unchanged, i.Failed}, []uint64{25, 20, 0, 5})
		w.equal(i.Done, true)
		var failed []uint64
		for after := uint64(0); ; {
			page, err := w.ImportErrors(w.ctx, i.ID, after, 2)
			w.ok(err)
			if len(page) == 0 {
				break
			}
			for _, r := range page {
				failed = append(failed, r.Index)
				w.equal(r, joinery.RowResult{Index: r.Index, Line: r.Index + 2, JoinEUI: joinEUI, DevEUI: devEUI(int(r.Index)), Status: joinery.RowFailed, Reason: "DevEUI is not hexadecimal"})
			}
			after = page[len(page)-1].Index
		}
		w.equal(failed, []uint64{0, 5, 10, 15, 20})
		w.CheckInvariants(t)
	}
}
