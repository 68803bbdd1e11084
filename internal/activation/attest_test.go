package activation_test

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"joinery"
	"joinery/internal/activation"
	"joinery/lorawan"
)

// wants is what every owner wants, set by hand.
type wants struct{ joinery.AttestPolicy }

func (w *wants) PolicyOf(joinery.OrgID) joinery.AttestPolicy { return w.AttestPolicy }

func withWants(t *testing.T) (*house, *wants) {
	t.Helper()
	h := newHouse(t)
	w := &wants{}
	h.Service = activation.New(h.store, h.keys.Keyring, h.peers, activation.Options{
		Now: h.clock, Log: slog.New(slog.DiscardHandler), Attested: w, Rekeying: h.store,
	})
	return h, w
}

// attested writes a result down as it is of a device.
func (h *house) attested(id joinery.DeviceID, owner joinery.OrgID, level joinery.AttestLevel, life time.Duration) {
	h.t.Helper()
	r := joinery.AttestResult{Owner: owner, Attestation: joinery.Attestation{
		Device: id, Level: level, Kind: joinery.EvidencePossession, Verifier: "test", At: h.clock(), Until: h.clock().Add(life), Digest: [32]byte{1},
	}}
	_, err := h.store.PutAttestation(h.t.Context(), r, joinery.AuditEntry{At: h.clock(), Event: joinery.AuditDeviceAttested, Device: id, Detail: map[string]string{}})
	ok(h.t, err)
}

// TestAttestationPolicy: below what its owner wants a device does not join, and the
// owner is told why; from the moment that it has shown enough it does, until that
// ends, or the clock is not to be believed. No nonce is used up by a refusal.
func TestAttestationPolicy(t *testing.T) {
	h, w := withWants(t)
	d := h.add(lorawan.MAC1_0_4, binding())
	id, owner := h.state(d).Device.ID, h.state(d).Device.Ownership.Org
	h.joined(d)
	refused := func(have string) {
		t.Helper()
		before := h.state(d).KeySet.Nonces.JoinNonce
		_, err := h.Join(t.Context(), h.joinRequest(d))
		wantCode(t, err, joinery.CodeAttestation)
		why, _ := errors.AsType[*joinery.Refused](err)
		if why == nil || why.Reason != joinery.RefusedAttestation || why.Device != id || why.Decided.AttestLevel != have || why.Decided.AttestWanted != "L1" {
			t.Errorf("%+v", why)
		}
		if h.state(d).KeySet.Nonces.JoinNonce != before {
			t.Error("a refused join used a JoinNonce")
		}
	}
	w.Level = joinery.AttestPossession
	for _, action := range []joinery.AttestAction{joinery.AttestIgnore, joinery.AttestWarn} {
		w.Activate = action
		h.joined(d)
	}
	w.Activate = joinery.AttestRefuse
	refused("L0")
	h.attested(id, owner, joinery.AttestPossession, 24*time.Hour)
	h.joined(d)
	h.sleep(24*time.Hour - time.Second)
	h.joined(d)
	h.sleep(time.Second)
	refused("L0")
	h.attested(id, owner, joinery.AttestPossession, 24*time.Hour)
	const decade = 10 * 365 * 24 * time.Hour
	h.sleep(decade)
	refused("L0")
	h.sleep(-2 * decade)
	refused("L0")
	h.sleep(decade)
	h.joined(d)

	// What is said of the one device comes first.
	rule := joinery.AttestRule{Level: joinery.AttestPossession, Activate: joinery.AttestRefuse}
	entry := joinery.AuditEntry{At: h.clock(), Event: joinery.AuditDeviceAttestRule, Device: id}
	h.sleep(24 * time.Hour)
	w.Activate = joinery.AttestIgnore
	h.joined(d)
	ok(t, h.store.SetAttestRule(t.Context(), id, owner, &rule, entry))
	refused("L0")
	ok(t, h.store.SetAttestRule(t.Context(), id, owner, &joinery.AttestRule{Level: joinery.AttestToken, Activate: joinery.AttestWarn}, entry))
	w.Activate = joinery.AttestRefuse
	h.joined(d)

	// A level counts as far as it rests on what is wanted; the owner is told that this is
	// what is wanting.
	h.attested(id, owner, joinery.AttestPossession, time.Hour)
	for _, basis := range []joinery.AttestBasis{joinery.AttestVouched, joinery.AttestChain} {
		rule := joinery.AttestRule{Level: joinery.AttestPossession, Activate: joinery.AttestRefuse, Basis: basis}
		ok(t, h.store.SetAttestRule(t.Context(), id, owner, &rule, entry))
		_, err := h.Join(t.Context(), h.joinRequest(d))
		wantCode(t, err, joinery.CodeAttestation)
		why, _ := errors.AsType[*joinery.Refused](err)
		if why == nil || why.Decided.AttestLevel != "L1 on basis any" || why.Decided.AttestWanted != "L1 on basis "+basis.String() {
			t.Errorf("%+v", why)
		}
	}
	ok(t, h.store.SetAttestRule(t.Context(), id, owner, &joinery.AttestRule{Level: joinery.AttestPossession, Activate: joinery.AttestRefuse}, entry))
	h.joined(d)

	// Whoever has no binding learns nothing of it.
	other := h.add(lorawan.MAC1_0_4, nil)
	_, err := h.Join(t.Context(), h.joinRequest(other))
	wantCode(t, err, joinery.CodeUnknownDevice)
}

// TestAttestationHoldsNobodyWhoLeaves: an instruction to rekey reaches a device that
// is refused otherwise. A rejoin carries none, and an order lets none pass.
func TestAttestationHoldsNobodyWhoLeaves(t *testing.T) {
	h, w := withWants(t)
	d := h.addRekeying(lorawan.MAC1_0_4)
	w.AttestRule = joinery.AttestRule{Level: joinery.AttestToken, Activate: joinery.AttestRefuse}
	_, err := d.join()
	wantCode(t, err, joinery.CodeAttestation)
	h.arm(d, 1)
	a, err := d.join()
	if err != nil || !a.Rekeyed {
		t.Fatalf("%+v, %v", a, err)
	}
	d.wantAt(away)

	d = h.addRekeying(lorawan.MAC1_1)
	w.Activate = joinery.AttestIgnore
	h.joined(d.Device)
	w.Activate = joinery.AttestRefuse
	o := h.arm(d, 2)
	for _, typ := range []lorawan.RejoinType{lorawan.Rejoin0, lorawan.Rejoin1, lorawan.Rejoin2} {
		frame, err := d.RejoinRequest(typ)
		ok(t, err)
		_, err = h.Rejoin(t.Context(), h.request(d.Device, frame))
		wantCode(t, err, joinery.CodeAttestation)
	}
	if now := h.state(d.Device).Rekeying.Order; now == nil || now.ID != o.ID || now.Sent != 0 {
		t.Errorf("the order after its rejoins: %+v", now)
	}
	a, err = d.join()
	if err != nil || !a.Rekeyed {
		t.Fatalf("%+v, %v", a, err)
	}
	d.wantAt(away)
}

// TestRejoinsAreActivations: a device does not stay for ever by rejoining.
func TestRejoinsAreActivations(t *testing.T) {
	h, w := withWants(t)
	d := h.add(lorawan.MAC1_1, binding())
	h.joined(d)
	w.AttestRule = joinery.AttestRule{Level: joinery.AttestBoot, Activate: joinery.AttestRefuse}
	for _, typ := range []lorawan.RejoinType{lorawan.Rejoin0, lorawan.Rejoin1, lorawan.Rejoin2} {
		frame, err := d.RejoinRequest(typ)
		ok(t, err)
		_, err = h.Rejoin(t.Context(), h.request(d, frame))
		wantCode(t, err, joinery.CodeAttestation)
	}
	s := h.state(d)
	h.attested(s.Device.ID, s.Device.Ownership.Org, joinery.AttestBoot, time.Hour)
	frame, err := d.RejoinRequest(lorawan.Rejoin0)
	ok(t, err)
	_, err = h.Rejoin(t.Context(), h.request(d, frame))
	ok(t, err)
}
