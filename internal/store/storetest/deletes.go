package storetest

import (
	"errors"
	"testing"

	"joinery"
	"joinery/lorawan"
)

func runDeletes(t *testing.T, open func(testing.TB) Backend) {
	t.Run("gone", func(t *testing.T) {
		w := newWorld(t, open)
		d := derived(1)
		d.Binding = binding()
		s := w.add(d)
		w.join(s)
		pending := NextCommit(w.again(s))
		w.ok(w.SetRoaming(w.ctx, joinery.RoamingRule{Org: w.org, Device: s.Device.ID, NetIDs: []lorawan.NetID{{1}}}, w.audit(joinery.AuditRoamingChanged)))
		w.ok(w.DeleteDevice(w.ctx, s.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))

		_, err := w.LoadActivation(w.ctx, joinEUI, devEUI(1))
		w.refused(err, joinery.CodeUnknownDevice)
		_, err = w.Device(w.ctx, s.Device.ID)
		w.refused(err, joinery.CodeNotFound)
		w.refused(w.DeleteDevice(w.ctx, s.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)), joinery.CodeNotFound)
		found, err := w.FindDevices(w.ctx, devEUI(1))
		w.ok(err)
		w.equal(found, []joinery.ActivationState{})
		page, err := w.Devices(w.ctx, joinery.DeviceQuery{Org: w.org})
		listed := page.Items
		w.ok(err)
		w.equal(listed, []joinery.ActivationState{})
		if err := w.CommitActivation(w.ctx, pending); !errors.Is(err, joinery.ErrSwapLost) {
			t.Fatalf("a join that was under way: got %v", err)
		}
		w.CheckInvariants(t)
	})
	t.Run("derived roots come back with every nonce", func(t *testing.T) {
		w := newWorld(t, open)
		d := derived(1)
		d.Binding = binding()
		s := w.add(d)
		for range 5 {
			w.join(s)
		}
		before := w.again(s)
		w.ok(w.DeleteDevice(w.ctx, s.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
		d = derived(1)
		r := w.importAs(w.org, d)[0]
		w.equal([]any{r.Status, r.Device}, []any{joinery.RowCreated, s.Device.ID})
		after := w.again(s)
		w.equal(after.KeySet.Nonces, before.KeySet.Nonces)
		if after.KeySet.Version <= before.KeySet.Version || after.Binding != nil {
			t.Fatalf("revived with version %d after %d, binding %v", after.KeySet.Version, before.KeySet.Version, after.Binding)
		}
		w.equal(w.join(s).JoinNonce, lorawan.JoinNonce(6))
		history, err := w.Activations(w.ctx, s.Device.ID, 10)
		w.ok(err)
		w.equal(len(history), 6)

		w.ok(w.SetBinding(w.ctx, s.Device.ID, w.org, 0, binding(), w.audit(joinery.AuditDeviceBound)))
		w.equal(w.again(s).Binding.Epoch, uint32(2)) // not the first binding's
		w.CheckInvariants(t)
	})
	t.Run("under another JoinEUI", func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		w.join(s)
		w.ok(w.DeleteDevice(w.ctx, s.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
		moved := derived(1)
		moved.Device.JoinEUI[7] = 2
		s = w.add(moved)
		w.equal(s.KeySet.Nonces.For(joinEUI).Next, uint32(1))
		w.equal(w.join(s).JoinNonce, lorawan.JoinNonce(2)) // whatever JoinEUI reaches it
		w.CheckInvariants(t)
	})
	t.Run("not for somebody else, nor under another rule", func(t *testing.T) {
		w := newWorld(t, open)
		rival := w.addOrg("rival")
		w.assign(rival, 0x10, 0x1F)
		s := w.add(derived(1))
		w.join(s)
		w.ok(w.DeleteDevice(w.ctx, s.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
		theirs := derived(1)
		theirs.Device.JoinEUI[7] = 0x11
		w.equal(w.importAs(rival, theirs)[0].Status, joinery.RowConflict)
		older := derived(1)
		older.Device.MACVersion = lorawan.MAC1_0_3
		w.equal(w.importAs(w.org, older)[0].Status, joinery.RowFailed)
		newer := derived(1)
		newer.Device.MACVersion = lorawan.MAC1_1
		w.equal(w.add(newer).Device.MACVersion, lorawan.MAC1_1)
		w.CheckInvariants(t)
	})
	t.Run("what an import says of nonces is added", func(t *testing.T) {
		w := newWorld(t, open)
		d := derived(1)
		d.Device.MACVersion = lorawan.MAC1_0_3
		s := w.add(d)
		w.join(s) // 7
		w.ok(w.DeleteDevice(w.ctx, s.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
		d = derived(1)
		d.Device.MACVersion = lorawan.MAC1_0_3
		d.KeySet.Nonces = joinery.Nonces{JoinNonce: 90}.With(joinery.JoinEUINonces{JoinEUI: joinEUI, Used: joinery.DevNonceSet{}.With(8)})
		s = w.add(d)
		w.equal(s.KeySet.Nonces.JoinNonce, lorawan.JoinNonce(90))
		w.equal(members(s.KeySet.Nonces.For(joinEUI).Used), []lorawan.DevNonce{7, 8})
		w.CheckInvariants(t)
	})
	t.Run("sealed roots come back as a new device", func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(sealed(1))
		for range 3 {
			w.join(s)
		}
		w.ok(w.DeleteDevice(w.ctx, s.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
		fresh := w.add(sealed(1))
		if fresh.Device.ID == s.Device.ID || fresh.KeySet.ID == s.KeySet.ID {
			t.Fatal("a sealed key set was used again")
		}
		w.equal(fresh.KeySet.Nonces.For(joinEUI).Used.Len(), 0)
		w.equal(fresh.KeySet.Nonces.JoinNonce, lorawan.JoinNonce(3)) // the next is 4
		w.join(fresh)
		w.CheckInvariants(t)
	})
	t.Run("sealed roots under another JoinEUI", func(t *testing.T) {
		w := newWorld(t, open)
		under := func(last byte) joinery.NewDevice {
			d := sealed(1)
			d.Device.JoinEUI[7] = last
			return d
		}
		disclosed := under(1)
		disclosed.KeySet.Disclosed, disclosed.Device.Disclosed = true, true
		s := w.add(disclosed)
		for range 3 {
			w.join(s)
		}
		// Beside a living device, and after deleted ones.
		second := w.add(under(2))
		w.equal(second.KeySet.Nonces.JoinNonce, lorawan.JoinNonce(3))
		w.equal([]bool{second.KeySet.Disclosed, second.Device.Disclosed}, []bool{true, true})
		w.join(second)
		w.ok(w.DeleteDevice(w.ctx, s.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
		w.ok(w.DeleteDevice(w.ctx, second.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
		w.equal(w.add(under(1)).KeySet.Nonces.JoinNonce, lorawan.JoinNonce(4))
		w.equal(w.add(under(3)).KeySet.Nonces.JoinNonce, lorawan.JoinNonce(4))
		other := sealed(2)
		w.equal(w.add(other).KeySet.Nonces.JoinNonce, lorawan.JoinNonce(0))
		w.CheckInvariants(t)
	})
	t.Run("what another organisation says of a DevEUI counts for nothing", func(t *testing.T) {
		w := newWorld(t, open)
		rival := w.addOrg("rival")
		w.assign(rival, 0x10, 0x1F)
		theirs := sealed(1)
		theirs.Device.JoinEUI[7] = 0x11
		theirs.KeySet.Nonces.JoinNonce = lorawan.MaxJoinNonce
		theirs.KeySet.Disclosed, theirs.Device.Disclosed = true, true
		w.equal(w.importAs(rival, theirs)[0].Status, joinery.RowCreated)
		mine := w.add(sealed(1))
		w.equal(mine.KeySet.Nonces.JoinNonce, lorawan.JoinNonce(0))
		w.equal([]bool{mine.KeySet.Disclosed, mine.Device.Disclosed}, []bool{false, false})
		w.CheckInvariants(t)
	})
	t.Run("the same file again brings it back", func(t *testing.T) {
		w := newWorld(t, open)
		rows := func(i joinery.Import) joinery.ImportRows {
			return joinery.ImportRows{Import: i.ID, Count: 1, Devices: []joinery.NewDevice{derived(1)}, Last: true}
		}
		first := w.begin(w.org, "file")
		_, err := w.CommitRows(w.ctx, rows(first), w.audit(joinery.AuditDeviceImported))
		w.ok(err)
		w.equal(w.begin(w.org, "file").ID, first.ID)
		w.ok(w.DeleteDevice(w.ctx, w.load(joinEUI, devEUI(1)).Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
		second := w.begin(w.org, "file")
		if second.ID == first.ID || second.Done {
			t.Fatal("a finished import hides a deleted device")
		}
		results, err := w.CommitRows(w.ctx, rows(second), w.audit(joinery.AuditDeviceImported))
		w.ok(err)
		w.equal(results[0].Status, joinery.RowCreated)
		w.CheckInvariants(t)
	})
}
