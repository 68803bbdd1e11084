package storetest

import (
	"testing"

	"joinery"
	"joinery/lorawan"
)

// runNetworkClaims: what networks ask for with claims of their own.
func runNetworkClaims(t *testing.T, open func(testing.TB) Backend) {
	t.Run("peer", func(t *testing.T) {
		w := newWorld(t, open)
		p := newPeer("app")
		p.HideExistence, p.ClaimKEKs = true, true
		p = w.addPeer(p)
		got, err := w.Peers(w.ctx)
		w.ok(err)
		w.equal(got, []joinery.Peer{p})
		p.HideExistence = false
		w.ok(w.ChangePeer(w.ctx, p, w.audit(joinery.AuditPeerChanged)))
		p.HideExistence, p.ClaimKEKs = true, false
		w.ok(w.ChangePeer(w.ctx, p, w.audit(joinery.AuditPeerChanged)))
		got, err = w.Peers(w.ctx)
		w.ok(err)
		w.equal(got, []joinery.Peer{p})
		w.CheckInvariants(t)
	})
	t.Run("labels", func(t *testing.T) {
		w := newWorld(t, open)
		a := w.audit(joinery.AuditKEKAdded)
		one, two := w.addPeer(newPeer("one")), w.addPeer(newPeer("two"))
		newKEK := func(peer joinery.PeerID, version uint32, claimed bool) joinery.KEK {
			return joinery.KEK{ID: joinery.NewKEKID(), Peer: peer, Role: joinery.KEKForAS, Label: "label", Version: version,
				Sealed: randomBytes(60), CreatedAt: epoch, Claimed: claimed}
		}
		plain, claimed, others := newKEK(one.ID, 1, false), newKEK(one.ID, 2, true), newKEK(two.ID, 1, true)
		for _, k := range []joinery.KEK{plain, claimed, others} {
			w.ok(w.AddKEK(w.ctx, k, a))
		}
		w.refused(w.AddKEK(w.ctx, newKEK(two.ID, 2, false), a), joinery.CodeConflict)
		w.refused(w.AddKEK(w.ctx, newKEK(two.ID, 2, true), a), joinery.CodeConflict)
		got, err := w.KEKs(w.ctx)
		w.ok(err)
		w.equal(got, []joinery.KEK{plain, claimed, others})
		w.CheckInvariants(t)
	})
	t.Run("binding", func(t *testing.T) {
		w := newWorld(t, open)
		p := w.addPeer(newPeer("app"))
		k := joinery.KEK{ID: joinery.NewKEKID(), Peer: p.ID, Role: joinery.KEKForAS, Label: "as", Version: 1, Sealed: randomBytes(60), CreatedAt: epoch, Claimed: true}
		w.ok(w.AddKEK(w.ctx, k, w.audit(joinery.AuditKEKAdded)))
		s := w.add(derived(1))
		b := &joinery.Binding{NetID: lorawan.NetID{0, 0, 0x13}, ASID: "as.example.com", Policy: joinery.AppSKeyWrapped,
			Source: "network", Locked: true, Since: epoch, KEK: k.ID}
		w.ok(w.SetBinding(w.ctx, s.Device.ID, w.org, 0, b, w.audit(joinery.AuditDeviceBound)))
		want := *b
		want.Epoch = 1
		w.equal(w.again(s).Binding, &want)
		w.Backend = w.Reopen(t)
		w.equal(w.again(s).Binding, &want)
		found, err := w.FindDevices(w.ctx, s.Device.DevEUI)
		w.ok(err)
		w.equal(found[0].Binding, &want)
		b.KEK = 0
		w.ok(w.SetBinding(w.ctx, s.Device.ID, w.org, 1, b, w.audit(joinery.AuditDeviceBound)))
		w.equal(w.again(s).Binding.KEK, joinery.KEKID(0))
		w.CheckInvariants(t)
	})
}
