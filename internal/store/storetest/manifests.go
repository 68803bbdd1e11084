package storetest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
	"joinery/manifest"
)

func runManifests(t *testing.T, open func(testing.TB) Backend) {
	t.Run("device key", func(t *testing.T) {
		w := newWorld(t, open)
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		w.ok(err)
		with, without := derived(1), derived(2)
		with.Manifest = entryOf(w, with, manifest.DeviceKey{Slot: "1", Public: &key.PublicKey})
		without.Manifest = entryOf(w, without, manifest.DeviceKey{Slot: "2", Public: &key.PublicKey})
		list := sealed(3)
		for _, d := range []joinery.NewDevice{with, without, list} {
			w.add(d)
		}
		got, err := w.DeviceKey(w.ctx, with.Device.ID)
		w.ok(err)
		if !key.PublicKey.Equal(got) {
			t.Errorf("another key: %v", got)
		}
		for _, d := range []joinery.NewDevice{without, list} {
			got, err := w.DeviceKey(w.ctx, d.Device.ID)
			w.ok(err)
			if got != nil {
				t.Errorf("a device without device key has %v", got)
			}
		}
		_, err = w.DeviceKey(w.ctx, joinery.NewDeviceID())
		w.refused(err, joinery.CodeNotFound)
		w.ok(w.DeleteDevice(w.ctx, with.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
		_, err = w.DeviceKey(w.ctx, with.Device.ID)
		w.refused(err, joinery.CodeNotFound)
	})
	t.Run("shared signers", sharedSigners(open))
	t.Run("refused rows name their element", func(t *testing.T) {
		w := newWorld(t, open)
		rival := w.addOrg("rival")
		w.assign(rival, 0x10, 0x1F)
		w.add(derived(1))
		stolen, elsewhere := derived(1), derived(2)
		stolen.Device.JoinEUI[7] = 0x11
		results := w.importAs(rival, stolen, elsewhere)
		w.equal(results[0].Status, joinery.RowConflict)
		i := w.begin(rival, "another file")
		_, err := w.CommitRows(w.ctx, joinery.ImportRows{Import: i.ID, Count: 1, Failed: []joinery.RowResult{
			{Line: 1, Serial: "SN9", Status: joinery.RowFailed, Reason: "a reason"},
		}}, w.audit(joinery.AuditDeviceImported))
		w.ok(err)
		errs, err := w.ImportErrors(w.ctx, i.ID, 0, 10)
		w.ok(err)
		w.equal(errs, []joinery.RowResult{{Line: 1, Serial: "SN9", Status: joinery.RowFailed, Reason: "a reason"}})
	})
}

// sharedSigners: what a shared signer signed may be imported by organisations
// that have no range, into the range of the signer's, and by nothing else.
func sharedSigners(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		buyer := w.addOrg("buyer")
		first, last := joinEUI, joinEUI
		first[7], last[7] = 0x20, 0x2F
		w.ok(w.AssignRange(w.ctx, joinery.JoinEUIRange{
			EUIRange: joinery.EUIRange{First: first, Last: last}, Org: w.org, Elements: true,
		}, w.audit(joinery.AuditRangeAssigned)))
		pin := func(org joinery.OrgID, shared bool, first lorawan.EUI64) joinery.SignerID {
			s := joinery.Signer{
				ID: joinery.NewSignerID(), Org: org, Name: joinery.NewSignerID().String(), KID: "kid", X5TS256: "x5t", DER: randomBytes(300),
				JoinEUIs: joinery.EUIRange{First: first, Last: first}, DevEUIs: joinery.EUIRange{First: devEUI(0), Last: devEUI(100)},
				Master: "maker-1", CreatedAt: epoch, Shared: shared,
			}
			w.ok(w.AddSigner(w.ctx, s, w.audit(joinery.AuditSignerAdded)))
			return s.ID
		}
		shared, own, others, list := pin(w.org, true, first), pin(w.org, false, first), pin(buyer, true, first), pin(w.org, true, joinEUI)
		row := func(n int, signer joinery.SignerID) joinery.NewDevice {
			d := derived(n)
			d.Signer, d.Device.JoinEUI = signer, first
			return d
		}
		beyond := row(5, shared)
		beyond.Device.JoinEUI[7]++
		notElements := row(7, list)
		notElements.Device.JoinEUI = joinEUI
		for i, r := range w.importAs(buyer, row(1, shared), row(2, own), row(3, others), row(4, 0), beyond, row(101, shared), row(6, joinery.NewSignerID()), notElements) {
			want := joinery.RowFailed
			if i == 0 {
				want = joinery.RowCreated
			}
			w.equal(r.Status, want)
		}
		w.equal(w.load(first, devEUI(1)).Device.Maker, buyer)
		// Who holds the range has no better right to the element.
		w.equal(w.importAs(w.org, row(1, shared))[0].Status, joinery.RowConflict)
		w.equal(w.importAs(buyer, row(1, shared))[0].Status, joinery.RowUnchanged)
		w.CheckInvariants(t)
	}
}

// entryOf writes the manifest entry of a device, signed by nobody.
func entryOf(w *world, d joinery.NewDevice, key manifest.DeviceKey) []byte {
	w.t.Helper()
	var file bytes.Buffer
	m, err := manifest.NewWriter(&file, manifest.SignerID{KID: "kid", X5TS256: "x5t"}, func([]byte) ([]byte, error) { return make([]byte, 64), nil })
	w.ok(err)
	w.ok(m.Write(manifest.Element{
		Version: 1, UniqueID: "0123aabbccddeeff27", JoinEUI: d.Device.JoinEUI, DevEUI: d.Device.DevEUI, ProvisionedAt: time.Now(),
		Keys: []manifest.DeviceKey{key},
	}))
	w.ok(m.Close())
	entry, err := manifest.NewReader(&file).Next()
	w.ok(err)
	return entry
}
