package storetest

import (
	"testing"

	"joinery"
)

func runLabels(t *testing.T, open func(testing.TB) Backend) {
	t.Run("in the order asked for", func(t *testing.T) {
		w := newWorld(t, open)
		element, ordinary, gone := w.add(derived(1)), w.add(sealed(2)), w.add(derived(3))
		w.ok(w.DeleteDevice(w.ctx, gone.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
		owner := w.addOrg("owner")
		w.ok(w.Claim(w.ctx, ordinary.Device.ID, 0, owner, nil, w.audit(joinery.AuditDeviceClaimed)))

		of := func(s joinery.ActivationState, serial string) joinery.Labelled {
			now, err := w.Device(w.ctx, s.Device.ID)
			w.ok(err)
			return joinery.Labelled{Device: now.Device, Serial: serial}
		}
		chip, claimed := of(element, "SN1"), of(ordinary, "")
		w.equal(claimed.Device.Ownership.Org, owner)
		euis := func(s joinery.ActivationState) joinery.DeviceRef {
			return joinery.DeviceRef{JoinEUI: s.Device.JoinEUI, DevEUI: s.Device.DevEUI}
		}
		both := euis(element)
		both.ID = element.Device.ID
		differ := euis(ordinary)
		differ.ID = element.Device.ID
		otherJoinEUI := euis(element)
		otherJoinEUI.JoinEUI[7]++
		got, err := w.Labelled(w.ctx, []joinery.DeviceRef{
			{ID: ordinary.Device.ID}, euis(element), {ID: joinery.NewDeviceID()}, both, differ, {ID: gone.Device.ID}, euis(gone), otherJoinEUI, {}, euis(ordinary),
		})
		w.ok(err)
		w.equal(got, []joinery.Labelled{claimed, chip, {}, chip, {}, {}, {}, {}, {}, claimed})
	})
	t.Run("devices of an import", func(t *testing.T) { importedDevices(newWorld(t, open)) })
	t.Run("of none", func(t *testing.T) {
		w := newWorld(t, open)
		got, err := w.Labelled(w.ctx, nil)
		w.ok(err)
		w.equal(len(got), 0)
	})
}

// importedDevices imports 1,203 rows in runs of several lengths, with refused
// ones, one that was there and one of a run that is refused whole.
func importedDevices(w *world) {
	w.t.Helper()
	const rows = 1203
	there := w.add(derived(7))
	i := w.begin(w.org, "list")
	want := map[uint64]joinery.DeviceID{7: there.Device.ID}
	for from, n := 0, 1; from < rows; from, n = from+n, min(2*n+1, joinery.MaxImportRows, rows-from-n) {
		run := joinery.ImportRows{Import: i.ID, From: uint64(from), Count: uint64(n)}
		for k := from; k < from+n; k++ {
			if k%5 == 3 || n == 15 {
				run.Failed = append(run.Failed, joinery.RowResult{Index: uint64(k), Status: joinery.RowFailed, Reason: "no"})
				continue
			}
			d := derived(k)
			d.Index = uint64(k)
			if k != 7 {
				want[uint64(k)] = d.Device.ID
			}
			run.Devices = append(run.Devices, d)
		}
		_, err := w.CommitRows(w.ctx, run, w.audit(joinery.AuditDeviceImported))
		w.ok(err)
	}
	read := func(from uint64) (found map[uint64]joinery.DeviceID, pages int) {
		found = map[uint64]joinery.DeviceID{}
		for last := int64(-1); ; pages++ {
			devices, next, err := w.ImportedDevices(w.ctx, i.ID, from, 137)
			w.ok(err)
			if len(devices) > 137 {
				w.t.Fatalf("a page of %d", len(devices))
			}
			for _, d := range devices {
				if int64(d.Index) <= last {
					w.t.Fatalf("row %d comes after row %d", d.Index, last)
				}
				found[d.Index], last = d.Device, int64(d.Index)
			}
			if next == 0 {
				return found, pages + 1
			}
			if next <= from {
				w.t.Fatalf("page %d goes on at %d", pages, next)
			}
			from = next
		}
	}
	found, pages := read(0)
	w.equal(found, want)
	if pages < 2 {
		w.t.Errorf("%d pages", pages)
	}
	for k := range want {
		if k < 600 {
			delete(want, k)
		}
	}
	found, _ = read(600)
	w.equal(found, want)
	found, _ = read(rows)
	w.equal(len(found), 0)
	_, _, err := w.ImportedDevices(w.ctx, joinery.NewImportID(), 0, 10)
	w.refused(err, joinery.CodeNotFound)
	w.CheckInvariants(w.t)
}
