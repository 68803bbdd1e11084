package activation_test

import (
	"testing"

	"joinery"
	"joinery/internal/activation"
	"joinery/lorawan"
)

// A KEK that came with a network's claim wraps the AppSKey of that binding, and of
// no other; where it is gone nothing stands in for it.
func TestKEKOfABinding(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	kek := h.addKEK(h.app.ID, joinery.KEKForAS, "claimed", 2)
	kek.Claimed = true
	ok(t, h.store.AddKEK(ctx, kek, joinery.AuditEntry{At: noon, Event: joinery.AuditKEKAdded}))
	h.peers.put(kek)
	claimed := binding()
	claimed.Source, claimed.KEK = "network", kek.ID

	d, other := h.add(lorawan.MAC1_0_4, claimed), h.add(lorawan.MAC1_0_4, binding())
	answer := h.joined(d)
	if answer.AppSKey.KEKLabel != "claimed" || answer.NwkSKey.KEKLabel != "ns-000013-v1" {
		t.Errorf("AppSKey under %q, NwkSKey under %q", answer.AppSKey.KEKLabel, answer.NwkSKey.KEKLabel)
	}
	if answer := h.joined(other); answer.AppSKey.KEKLabel != "as-v1" {
		t.Errorf("AppSKey of another binding under %q", answer.AppSKey.KEKLabel)
	}
	fetch := func() (activation.Envelope, error) {
		return h.AppSKey(ctx, activation.AppSKeyRequest{
			Peer: h.app, ASID: asID, JoinEUI: joinEUI, DevEUI: d.DevEUI(), SessionKeyID: answer.SessionKeyID,
		})
	}
	envelope, err := fetch()
	ok(t, err)
	if envelope.KEKLabel != "claimed" {
		t.Errorf("fetched under %q", envelope.KEKLabel)
	}

	// Of another Application Server's peer it is nobody's.
	h.peers.as.ID = joinery.NewPeerID()
	_, err = h.Join(ctx, h.joinRequest(d))
	wantCode(t, err, joinery.CodeKEKMissing)
	h.peers.as.ID = h.app.ID

	// Retired: refused, although the peer's own KEK is there.
	h.peers.mu.Lock()
	delete(h.peers.keks, kek.ID)
	h.peers.mu.Unlock()
	_, err = h.Join(ctx, h.joinRequest(d))
	wantCode(t, err, joinery.CodeKEKMissing)
	_, err = fetch()
	wantCode(t, err, joinery.CodeKEKMissing)
}

// A binding never makes a network's KEK wrap AppSKey.
func TestKEKOfABindingIsNoNetworks(t *testing.T) {
	h := newHouse(t)
	kek := h.addKEK(h.app.ID, joinery.KEKForNS, "ns-of-the-app", 2)
	ok(t, h.store.AddKEK(t.Context(), kek, joinery.AuditEntry{At: noon, Event: joinery.AuditKEKAdded}))
	b := binding()
	b.Source, b.KEK = "network", kek.ID
	_, err := h.Join(t.Context(), h.joinRequest(h.add(lorawan.MAC1_0_4, b)))
	wantCode(t, err, joinery.CodeKEKMissing)
}
