package activation_test

import (
	"errors"
	"testing"

	"joinery"
	"joinery/internal/activation"
	"joinery/internal/sim/device"
	"joinery/lorawan"
)

// Each refusal carries why, for the owner, beside the code that the network is
// told.
func TestRefusalsCarryTheirReason(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	bound := binding()
	bound.NSID = lorawan.EUI64{0x42}
	type attempt struct {
		name   string
		reason joinery.RefusalReason
		code   joinery.Code
		known  bool // the refusal names the device
		next   uint32
		try    func() error
	}
	join := func(b *joinery.Binding, change func(*activation.JoinRequest)) func() error {
		return func() error {
			d := h.add(lorawan.MAC1_0_4, b)
			frame, err := d.JoinRequest()
			ok(t, err)
			r := h.request(d, frame)
			change(&r)
			_, err = h.Join(ctx, r)
			return err
		}
	}
	for _, a := range []attempt{
		{"another network", joinery.RefusedOtherNetwork, joinery.CodeUnknownDevice, true, 0,
			join(binding(), func(r *activation.JoinRequest) { r.NetID = foreign })},
		{"unbound", joinery.RefusedNotBound, joinery.CodeUnknownDevice, true, 0, join(nil, func(*activation.JoinRequest) {})},
		{"no NSID", joinery.RefusedNSIDMissing, joinery.CodeUnknownDevice, true, 0, join(bound, func(*activation.JoinRequest) {})},
		{"another NSID", joinery.RefusedOtherNSID, joinery.CodeUnknownDevice, true, 0,
			join(bound, func(r *activation.JoinRequest) { r.NSID = lorawan.EUI64{9} })},
		{"disclosed", joinery.RefusedOtherNetwork, joinery.CodeForbidden, true, 0,
			join(binding(), func(r *activation.JoinRequest) { r.NetID = foreign; h.network.DiscloseDevices = true })},
		{"unknown", joinery.RefusedUnknownDevice, joinery.CodeUnknownDevice, false, 0, func() error {
			h.network.DiscloseDevices = false
			return join(binding(), func(r *activation.JoinRequest) { r.DevEUI[0] ^= 1; r.PHYPayload[16] ^= 1 })()
		}},
		{"as 1.1", joinery.RefusedMACVersion, joinery.CodeJoinRefused, true, 0,
			join(binding(), func(r *activation.JoinRequest) { r.MACVersion, r.DLSettings = lorawan.MAC1_1, 0x80 })},
		{"OptNeg", joinery.RefusedOptNeg, joinery.CodeInvalid, false, 0, join(binding(), func(r *activation.JoinRequest) { r.DLSettings = 0x80 })},
		{"another frame", joinery.RefusedFrame, joinery.CodeInvalid, false, 0, join(binding(), func(r *activation.JoinRequest) { r.PHYPayload = r.PHYPayload[:20] })},
		{"another DevEUI", joinery.RefusedEUIMismatch, joinery.CodeInvalid, false, 0, join(binding(), func(r *activation.JoinRequest) { r.DevEUI[0] ^= 1 })},
		{"MIC", joinery.RefusedMIC, joinery.CodeMIC, true, 0, join(binding(), func(r *activation.JoinRequest) { r.PHYPayload[22] ^= 1 })},
		{"counter back", joinery.RefusedDevNonceLow, joinery.CodeReplay, true, 1, func() error {
			d := h.add(lorawan.MAC1_0_4, binding())
			frame, err := d.JoinRequest()
			ok(t, err)
			_, err = h.Join(ctx, h.request(d, frame))
			ok(t, err)
			h.sleep(20 * 1e9)
			_, err = h.Join(ctx, h.request(d, frame))
			return err
		}},
		{"nonce again", joinery.RefusedDevNonceUsed, joinery.CodeReplay, true, 0, func() error {
			d := h.add(lorawan.MAC1_0_3, binding())
			frame, err := d.JoinRequest()
			ok(t, err)
			_, err = h.Join(ctx, h.request(d, frame))
			ok(t, err)
			h.sleep(20 * 1e9)
			_, err = h.Join(ctx, h.request(d, frame))
			return err
		}},
		{"no AS of that name", joinery.RefusedNoAS, joinery.CodeKEKMissing, true, 0, func() error {
			b := binding()
			b.ASID = "nobody.example.com"
			return join(b, func(*activation.JoinRequest) {})()
		}},
		{"no KEK of the AS", joinery.RefusedASKEK, joinery.CodeKEKMissing, true, 0, func() error {
			h.peers.drop(joinery.KEKForAS)
			return join(binding(), func(*activation.JoinRequest) {})()
		}},
		{"no KEK of the NS", joinery.RefusedNSKEK, joinery.CodeKEKMissing, true, 0, func() error {
			h.peers.drop(joinery.KEKForNS)
			return join(binding(), func(*activation.JoinRequest) {})()
		}},
		{"peer removed", joinery.RefusedPeerRemoved, joinery.CodeUnknownSender, false, 0,
			join(binding(), func(r *activation.JoinRequest) { r.Peer.ID = joinery.NewPeerID() })},
	} {
		err := a.try()
		r := joinery.RefusedOf(err)
		if r.Reason != a.reason || joinery.CodeOf(err) != a.code || (r.Device != 0) != a.known || r.Decided.Next != a.next {
			t.Errorf("%s: %v is %+v", a.name, err, r)
		}
		if a.known && (r.Owner != h.org || !r.Decided.MACVersion.Valid() || r.Decided.Bound == (a.reason == joinery.RefusedNotBound)) {
			t.Errorf("%s: %+v", a.name, r)
		}
	}
}

// Who is refused cannot tell by the error whether the device is here.
func TestUnknownAndUnboundReadAlike(t *testing.T) {
	h := newHouse(t)
	d := h.add(lorawan.MAC1_0_4, nil)
	frame, err := d.JoinRequest()
	ok(t, err)
	r := h.request(d, frame)
	_, unbound := h.Join(t.Context(), r)
	r.DevEUI[0] ^= 1
	r.PHYPayload = append([]byte(nil), r.PHYPayload...)
	r.PHYPayload[16] ^= 1
	_, unknown := h.Join(t.Context(), r)
	if unbound.Error() != unknown.Error() || joinery.CodeOf(unbound) != joinery.CodeOf(unknown) || joinery.MessageOf(unbound) != joinery.MessageOf(unknown) {
		t.Errorf("%v\n%v", unbound, unknown)
	}
	for _, err := range []error{unbound, unknown} {
		if _, ok := errors.AsType[*joinery.Refused](err); !ok {
			t.Errorf("%v has no reason", err)
		}
	}
}

// What is asked about a session is of its owner, not of who holds the device by
// now, and of its device, not of a later one with the same EUIs.
func TestRefusalsAboutASessionAreOfItsOwner(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	audit := joinery.AuditEntry{At: noon, Event: joinery.AuditDeviceClaimed, Actor: "test"}
	buyer := joinery.NewOrgID()
	ok(t, h.store.AddOrg(ctx, joinery.Organisation{ID: buyer, Name: "buyer", CreatedAt: noon}, audit))
	later := binding()
	later.NetID, later.ASID = foreign, "as.buyer.example.com"

	for name, change := range map[string]func(*device.Device, joinery.DeviceID){
		"transferred": func(_ *device.Device, id joinery.DeviceID) {
			ok(t, h.store.Claim(ctx, id, 0, buyer, later, audit))
		},
		"deleted": func(_ *device.Device, id joinery.DeviceID) {
			ok(t, h.store.DeleteDevice(ctx, id, h.org, audit))
		},
		"imported anew": func(d *device.Device, id joinery.DeviceID) {
			ok(t, h.store.DeleteDevice(ctx, id, h.org, audit))
			h.addAs(d.DevEUI(), lorawan.MAC1_0_4, later, joinery.Nonces{}, func(*device.State) {})
		},
	} {
		d := h.add(lorawan.MAC1_0_4, binding())
		ended := h.appSKeyRequest(d, h.joined(d).SessionKeyID)
		device := h.state(d).Device.ID
		change(d, device)
		other := ended
		other.ASID = "other.example.com"
		for want, req := range map[joinery.RefusalReason]activation.AppSKeyRequest{
			joinery.RefusedSessionEnded: ended, joinery.RefusedOtherAS: other,
		} {
			_, err := h.AppSKey(ctx, req)
			wantCode(t, err, joinery.CodeUnknownDevice)
			made := joinery.Decided{Bound: true, NetID: home, ASID: asID}
			if r := joinery.RefusedOf(err); r.Reason != want || r.Device != device || r.Owner != h.org || r.Decided != made {
				t.Errorf("%s: %+v", name, r)
			}
		}
	}
}
