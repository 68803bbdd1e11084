package storetest

import (
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

func runOwnership(t *testing.T, open func(testing.TB) Backend) {
	t.Run("claim", func(t *testing.T) {
		w := newWorld(t, open)
		owner := w.addOrg("owner")
		s := w.add(derived(1))
		a := w.audit(joinery.AuditDeviceClaimed)
		a.At = epoch.Add(time.Hour)
		w.ok(w.Claim(w.ctx, s.Device.ID, 0, owner, binding(), a))
		got := w.again(s)
		w.equal(got.Device.Ownership, joinery.Ownership{Org: owner, Epoch: 1, Since: a.At})
		w.equal(got.Device.Maker, w.org)
		w.equal(got.Binding.Epoch, uint32(1))
		w.refused(w.Claim(w.ctx, s.Device.ID, 0, w.org, nil, a), joinery.CodeConflict)
		w.ok(w.Claim(w.ctx, s.Device.ID, 1, w.org, nil, a))
		got = w.again(s)
		w.equal(got.Device.Ownership.Epoch, uint32(2))
		w.equal(got.Binding, (*joinery.Binding)(nil)) // the former owner's
		w.equal(w.importAs(w.org, derived(1))[0].Status, joinery.RowUnchanged)
		w.CheckInvariants(t)
	})
	t.Run("50 claim at once", func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		orgs := make([]joinery.OrgID, 50)
		for i := range orgs {
			orgs[i] = w.addOrg("claimant " + string(rune('A'+i)))
		}
		winner := -1
		for i, err := range parallel(len(orgs), func(i int) error {
			return w.Claim(w.ctx, s.Device.ID, 0, orgs[i], binding(), w.audit(joinery.AuditDeviceClaimed))
		}) {
			if err == nil && winner < 0 {
				winner = i
			} else {
				w.refused(err, joinery.CodeConflict)
			}
		}
		w.equal(w.again(s).Device.Ownership.Org, orgs[winner])
		w.CheckInvariants(t)
	})
	t.Run("a maker still sees its claimed device as there", func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		w.ok(w.Claim(w.ctx, s.Device.ID, 0, w.addOrg("owner"), nil, w.audit(joinery.AuditDeviceClaimed)))
		w.equal(w.importAs(w.org, derived(1))[0].Status, joinery.RowUnchanged)
	})
	t.Run("a network's binding", func(t *testing.T) {
		w := newWorld(t, open)
		owner := w.addOrg("owner")
		network := binding()
		network.Source = "network"
		d := derived(1)
		d.Binding = network
		s := w.add(d)
		w.ok(w.Claim(w.ctx, s.Device.ID, 0, owner, nil, w.audit(joinery.AuditDeviceClaimed)))
		if w.again(s).Binding == nil {
			t.Fatal("a network's binding ended with a claim that named none")
		}
		network.Locked = true
		w.ok(w.SetBinding(w.ctx, s.Device.ID, owner, 1, network, w.audit(joinery.AuditDeviceBound)))
		w.refused(w.Claim(w.ctx, s.Device.ID, 1, w.org, binding(), w.audit(joinery.AuditDeviceClaimed)), joinery.CodeConflict)
		w.equal(w.again(s).Device.Ownership.Org, owner)
		w.CheckInvariants(t)
	})
	t.Run("bind", func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		a := w.audit(joinery.AuditDeviceBound)
		b := &joinery.Binding{NetID: lorawan.NetID{1, 2, 3}, NSID: lorawan.EUI64{9}, Policy: joinery.AppSKeyByID, ClearNwkKeys: true, Source: "network", Locked: true, Since: epoch}
		w.ok(w.SetBinding(w.ctx, s.Device.ID, w.org, 0, b, a))
		want := *b
		want.Epoch = 1
		w.equal(w.again(s).Binding, &want)
		w.refused(w.SetBinding(w.ctx, s.Device.ID, w.org, 0, b, a), joinery.CodeConflict)
		w.ok(w.SetBinding(w.ctx, s.Device.ID, w.org, 1, binding(), a))
		w.equal(w.again(s).Binding.Epoch, uint32(2))
		w.ok(w.SetBinding(w.ctx, s.Device.ID, w.org, 2, nil, a))
		w.equal(w.again(s).Binding, (*joinery.Binding)(nil))
		w.refused(w.SetBinding(w.ctx, s.Device.ID, w.org, 2, b, a), joinery.CodeConflict)
		w.ok(w.SetBinding(w.ctx, s.Device.ID, w.org, 0, b, a))
		w.equal(w.again(s).Binding.Epoch, uint32(3)) // no epoch is given twice
		w.CheckInvariants(t)
	})
	// Whether a caller holds a device is looked at before the change; a claim may
	// come between the two.
	for name, change := range map[string]func(*world, joinery.DeviceID, joinery.OrgID) error{
		"suspend": func(w *world, id joinery.DeviceID, owner joinery.OrgID) error {
			return w.SetSuspended(w.ctx, id, owner, true, w.audit(joinery.AuditDeviceSuspended))
		},
		"delete": func(w *world, id joinery.DeviceID, owner joinery.OrgID) error {
			return w.DeleteDevice(w.ctx, id, owner, w.audit(joinery.AuditDeviceDeleted))
		},
		"reset": func(w *world, id joinery.DeviceID, owner joinery.OrgID) error {
			return w.OpenReset(w.ctx, id, owner, epoch, 5, w.audit(joinery.AuditNoncesReset))
		},
		"bind": func(w *world, id joinery.DeviceID, owner joinery.OrgID) error {
			return w.SetBinding(w.ctx, id, owner, 0, binding(), w.audit(joinery.AuditDeviceBound))
		},
	} {
		t.Run("a former owner's "+name, func(t *testing.T) {
			w := newWorld(t, open)
			owner := w.addOrg("owner")
			s := w.add(derived(1))
			w.ok(w.Claim(w.ctx, s.Device.ID, 0, owner, nil, w.audit(joinery.AuditDeviceClaimed)))
			claimed := w.again(s)
			before, err := w.AuditEntries(w.ctx, 0, 1000)
			w.ok(err)
			w.refused(change(w, s.Device.ID, w.org), joinery.CodeConflict)
			w.equal(w.again(s), claimed)
			after, err := w.AuditEntries(w.ctx, 0, 1000)
			w.ok(err)
			w.equal(after, before)
			w.ok(change(w, s.Device.ID, owner))
			w.CheckInvariants(t)
		})
	}
	t.Run("roaming", roaming(open))
}

func roaming(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		owner := w.addOrg("owner")
		s, other := w.add(derived(1)), w.add(derived(2))
		home, away := lorawan.NetID{0, 0, 1}, lorawan.NetID{0, 0, 2}
		set := func(device joinery.DeviceID, ids ...lorawan.NetID) {
			t.Helper()
			w.ok(w.SetRoaming(w.ctx, joinery.RoamingRule{Org: w.org, Device: device, NetIDs: ids}, w.audit(joinery.AuditRoamingChanged)))
		}
		allowed := func(device joinery.DeviceID, want ...bool) {
			t.Helper()
			for i, id := range []lorawan.NetID{home, away} {
				got, err := w.RoamingAllowed(w.ctx, w.org, device, id)
				w.ok(err)
				w.equal(got, want[i])
			}
		}
		allowed(s.Device.ID, false, false)
		set(0, home)
		allowed(s.Device.ID, true, false)
		set(s.Device.ID, away)
		allowed(s.Device.ID, false, true) // overrides
		allowed(other.Device.ID, true, false)
		set(s.Device.ID) // nil: removed
		rules, err := w.Roaming(w.ctx, w.org)
		w.ok(err)
		w.equal(rules, []joinery.RoamingRule{{Org: w.org, NetIDs: []lorawan.NetID{home}}})
		w.ok(w.SetRoaming(w.ctx, joinery.RoamingRule{Org: w.org, Device: s.Device.ID, NetIDs: []lorawan.NetID{}}, w.audit(joinery.AuditRoamingChanged)))
		allowed(s.Device.ID, false, false) // an empty list allows none
		rules, err = w.Roaming(w.ctx, w.org)
		w.ok(err)
		w.equal(len(rules), 2)
		w.refused(w.SetRoaming(w.ctx, joinery.RoamingRule{Org: owner, Device: s.Device.ID, NetIDs: []lorawan.NetID{home}}, w.audit(joinery.AuditRoamingChanged)), joinery.CodeNotFound)

		w.ok(w.Claim(w.ctx, s.Device.ID, 0, owner, nil, w.audit(joinery.AuditDeviceClaimed)))
		if got, err := w.RoamingAllowed(w.ctx, owner, s.Device.ID, home); got || err != nil {
			t.Fatalf("the maker's rule serves the owner's device: %v, %v", got, err)
		}
		w.CheckInvariants(t)
	}
}
