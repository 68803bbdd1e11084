package claim

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
	"joinery/manifest"
)

// element is a device whose manifest names its device key, and that key.
type element struct {
	joinery.Device
	token string
	key   *ecdsa.PrivateKey
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rs signs a digest and gives r ‖ s, as elements do.
func rs(t testing.TB, key *ecdsa.PrivateKey, digest [32]byte) []byte {
	t.Helper()
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
}

// elements imports n devices whose manifest entries are as a factory makes them.
func (f fixture) elements(t testing.TB, n int, bind *joinery.Binding) (list []element) {
	t.Helper()
	signer := newKey(t)
	keys := make([]*ecdsa.PrivateKey, n)
	devices, tokens := f.importAll(t, n, bind, func(k int, d *joinery.NewDevice) {
		keys[k] = newKey(t)
		d.Serial = "0123c0ffee000001ee"
		d.Manifest = manifestEntry(t, signer, manifest.Element{
			Version: 1, UniqueID: d.Serial, JoinEUI: d.Device.JoinEUI, DevEUI: d.Device.DevEUI, ProvisionedAt: f.clock.now(),
			Keys: []manifest.DeviceKey{{Slot: "1", Public: &keys[k].PublicKey}},
		})
	})
	for k := range n {
		list = append(list, element{devices[k], tokens[k], keys[k]})
	}
	return list
}

func manifestEntry(t testing.TB, signer *ecdsa.PrivateKey, e manifest.Element) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := manifest.NewWriter(&b, manifest.SignerID{KID: "kid", X5TS256: "x5t"}, func(in []byte) ([]byte, error) {
		return rs(t, signer, sha256.Sum256(in)), nil
	})
	if err == nil {
		err = w.Write(e)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	entry, err := manifest.NewReader(&b).Next()
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

// signedBy asks for a challenge and has a key sign it.
func (f fixture) signedBy(t testing.TB, caller joinery.Caller, d joinery.Device, key *ecdsa.PrivateKey) Case {
	t.Helper()
	c, err := f.Challenge(t.Context(), caller, d.JoinEUI, d.DevEUI)
	if err != nil {
		t.Fatal(err)
	}
	return Case{
		JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, Challenge: c.Random[:], Signature: rs(t, key, ChallengeDigest(c)), Statement: "it is on my desk",
	}
}

var lockedBy = joinery.Binding{NetID: lorawan.NetID{0, 0, 0x13}, ASID: "as.example.com", Policy: joinery.AppSKeyWrapped, Source: "network", Locked: true}

// TestPossessionUnlocks: the owner shows the device, and the network's lock is
// gone.
func TestPossessionUnlocks(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := t.Context()
	e := f.elements(t, 1, &lockedBy)[0]
	if _, err := f.Claim(ctx, f.acme, request(e.Device, e.token)); err != nil {
		t.Fatal(err)
	}
	f.refuses(t, f.acme, Act{Kind: Unbinding, Device: e.ID}, joinery.CodeConflict)
	version := f.state(t, e.ID).KeySet.Version

	_, err := f.Dispute(ctx, f.acme, f.signedBy(t, f.acme, e.Device, newKey(t)))
	wantCode(t, err, joinery.CodeForbidden)
	if f.state(t, e.ID).Binding == nil {
		t.Fatal("unlocked by another key")
	}
	d, err := f.Dispute(ctx, f.acme, f.signedBy(t, f.acme, e.Device, e.key))
	if err != nil || !d.Unlocked || d.Device != e.ID || d.Dispute.ID != 0 {
		t.Fatalf("%+v, %v", d, err)
	}
	s := f.state(t, e.ID)
	if s.Binding != nil || s.KeySet.Version == version {
		t.Errorf("%+v", s)
	}
	f.do(t, f.acme, Act{Kind: Binding, Device: e.ID, Binding: &home})
	entries := f.audited(t, joinery.AuditDeviceBound)
	if len(entries) != 2 || entries[0].Detail["overridden"] != "true" || entries[0].Detail["evidence"] != "device-key" || entries[0].Detail["netID"] != "000013" {
		t.Errorf("audit %+v", entries)
	}
	_, err = f.Dispute(ctx, f.acme, f.signedBy(t, f.acme, e.Device, e.key))
	wantCode(t, err, joinery.CodeConflict) // nothing is locked any more
	f.clean(t, e.token)
}

// TestChallenge: it is good for one try, of who asked for it, about that device,
// in time.
func TestChallenge(t *testing.T) {
	f := newFixture(t, Options{PerDevice: 100})
	ctx := t.Context()
	list := f.elements(t, 2, &lockedBy)
	for _, e := range list {
		if _, err := f.Claim(ctx, f.acme, request(e.Device, e.token)); err != nil {
			t.Fatal(err)
		}
	}
	e := list[0]
	used := f.signedBy(t, f.acme, e.Device, newKey(t))
	_, err := f.Dispute(ctx, f.acme, used)
	wantCode(t, err, joinery.CodeForbidden)
	_, err = f.Dispute(ctx, f.acme, used)
	wantCode(t, err, joinery.CodeConflict)

	_, err = f.Dispute(ctx, f.acme, f.signedBy(t, f.others, e.Device, e.key)) // asked for by others
	wantCode(t, err, joinery.CodeConflict)
	other := f.signedBy(t, f.acme, list[1].Device, e.key)
	other.DevEUI = e.DevEUI
	_, err = f.Dispute(ctx, f.acme, other)
	wantCode(t, err, joinery.CodeConflict)
	late := f.signedBy(t, f.acme, e.Device, e.key)
	f.clock.add(challengeFor)
	_, err = f.Dispute(ctx, f.acme, late)
	wantCode(t, err, joinery.CodeConflict)
	for _, bad := range []Case{
		{JoinEUI: e.JoinEUI, DevEUI: e.DevEUI, Challenge: make([]byte, 31), Signature: make([]byte, 64)},
		{JoinEUI: e.JoinEUI, DevEUI: e.DevEUI, Challenge: make([]byte, 32), Signature: make([]byte, 65)},
		{JoinEUI: e.JoinEUI, DevEUI: e.DevEUI, Signature: make([]byte, 64), OwnerToken: e.token},
		{JoinEUI: e.JoinEUI, DevEUI: e.DevEUI, Statement: strings.Repeat("x", maxWords+1)},
	} {
		_, err := f.Dispute(ctx, f.acme, bad)
		wantCode(t, err, joinery.CodeInvalid)
	}
	// Signatures of zeros are none, of the element's own key over something else
	// neither.
	zeros := f.signedBy(t, f.acme, e.Device, e.key)
	zeros.Signature = make([]byte, 64)
	_, err = f.Dispute(ctx, f.acme, zeros)
	wantCode(t, err, joinery.CodeForbidden)
	else1 := f.signedBy(t, f.acme, e.Device, e.key)
	else1.Signature = rs(t, e.key, sha256.Sum256(else1.Challenge))
	_, err = f.Dispute(ctx, f.acme, else1)
	wantCode(t, err, joinery.CodeForbidden)
	if f.state(t, e.ID).Binding == nil {
		t.Error("unlocked")
	}
}

// TestDigestOfChallenge: what elements sign does not change by accident.
func TestDigestOfChallenge(t *testing.T) {
	c := joinery.Challenge{Org: 0x0102030405060708, JoinEUI: lorawan.EUI64{0x70}, DevEUI: lorawan.EUI64{0, 4}, Random: [32]byte{0xAA}}
	message := append([]byte("joinery possession of device key 1\x00"), 1, 2, 3, 4, 5, 6, 7, 8)
	message = append(message, 0x70, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0)
	message = append(append(message, 0xAA), make([]byte, 31)...)
	if ChallengeDigest(c) != sha256.Sum256(message) {
		t.Error("the message is another")
	}
}

// TestDispute: who shows a device that another holds brings it before the
// operator, and becomes its owner if the operator says so.
func TestDispute(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := t.Context()
	operator := joinery.Caller{Operator: true, Name: "socket uid 0"}
	e := f.elements(t, 1, &lockedBy)[0]
	if _, err := f.Claim(ctx, f.acme, request(e.Device, e.token)); err != nil {
		t.Fatal(err)
	}
	open := func() joinery.Dispute {
		t.Helper()
		d, err := f.Dispute(ctx, f.others, f.signedBy(t, f.others, e.Device, e.key))
		if err != nil || d.Unlocked || d.Dispute.State != joinery.DisputeOpen || d.Dispute.Evidence != joinery.EvidenceDeviceKey || d.Dispute.Holder != 0 {
			t.Fatalf("%+v, %v", d, err)
		}
		return d.Dispute
	}
	first := open()
	if s := f.state(t, e.ID); s.Device.Ownership.Org != f.acme.Org || s.Binding == nil {
		t.Fatal("to have it is to own it")
	}
	_, err := f.Dispute(ctx, f.others, f.signedBy(t, f.others, e.Device, e.key))
	wantCode(t, err, joinery.CodeConflict) // it is disputed already

	// Each side sees it, and not who the other is.
	for caller, want := range map[*joinery.Caller]joinery.Dispute{&f.others: {Claimant: f.others.Org, Statement: "it is on my desk"}, &f.acme: {Holder: f.acme.Org}} {
		p, err := f.OneDispute(ctx, *caller, first.ID)
		if err != nil || p.Claimant != want.Claimant || p.Holder != want.Holder || p.Statement != want.Statement {
			t.Errorf("%s: %+v, %v", caller.Name, p, err)
		}
		list, err := f.Disputes(ctx, *caller, true, 0, 0)
		if err != nil || len(list) != 1 || list[0] != p {
			t.Errorf("%s: %+v, %v", caller.Name, list, err)
		}
	}
	_, err = f.OneDispute(ctx, f.maker, first.ID)
	wantCode(t, err, joinery.CodeNotFound)
	wantCode(t, f.WithdrawDispute(ctx, f.maker, first.ID), joinery.CodeNotFound)
	wantCode(t, f.WithdrawDispute(ctx, f.acme, first.ID), joinery.CodeNotFound)
	_, err = f.DecideDispute(ctx, f.others, first.ID, true, "")
	wantCode(t, err, joinery.CodeForbidden)

	if err := f.WithdrawDispute(ctx, f.others, first.ID); err != nil {
		t.Fatal(err)
	}
	rejected := open()
	p, err := f.DecideDispute(ctx, operator, rejected.ID, false, "the invoice is Acme's")
	if err != nil || p.State != joinery.DisputeRejected || f.state(t, e.ID).Device.Ownership.Org != f.acme.Org {
		t.Fatalf("%+v, %v", p, err)
	}
	_, err = f.DecideDispute(ctx, operator, rejected.ID, true, "")
	wantCode(t, err, joinery.CodeConflict)

	granted := open()
	if _, err := f.DecideDispute(ctx, operator, granted.ID, true, "sold on"); err != nil {
		t.Fatal(err)
	}
	s := f.state(t, e.ID)
	if s.Device.Ownership.Org != f.others.Org || s.Binding != nil {
		t.Errorf("%+v, bound to %+v", s.Device.Ownership, s.Binding)
	}
	_, err = f.Claim(ctx, f.acme, request(e.Device, e.token))
	wantCode(t, err, joinery.CodeForbidden) // the label's token is dead
	if token, err := f.OwnerToken(ctx, f.others, e.ID); err != nil || token == e.token {
		t.Errorf("the new owner cannot read its token: %v", err)
	}
	for _, entry := range f.audited(t, joinery.AuditDisputeOpened) {
		if entry.Org == f.acme.Org && (strings.Contains(entry.Actor, f.others.Name) || entry.Detail["claimant"] != "") {
			t.Errorf("the holder is told who disputes: %+v", entry)
		}
	}
	if n := len(f.audited(t, joinery.AuditDeviceTransferred)); n != 2 {
		t.Errorf("%d entries of the transfer, want one for each side", n)
	}
	f.clean(t, e.token)
}

// TestDisputeWithoutDeviceKey: the token speaks for the claimant, and for the lock
// of one's own binding nothing has to.
func TestDisputeWithoutDeviceKey(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := t.Context()
	operator := joinery.Caller{Operator: true, Name: "socket uid 0"}
	devices, tokens := f.devices(t, 2, &lockedBy)
	d := devices[0]
	by := func(token string) Case { return Case{JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, OwnerToken: token} }
	_, err := f.Dispute(ctx, f.others, by(tokens[0]))
	wantCode(t, err, joinery.CodeConflict) // it can be claimed
	if _, err := f.Claim(ctx, f.acme, request(d, tokens[0])); err != nil {
		t.Fatal(err)
	}
	_, err = f.Dispute(ctx, f.others, by(tokens[1]))
	wantCode(t, err, joinery.CodeForbidden)
	_, err = f.Dispute(ctx, f.others, by(""))
	wantCode(t, err, joinery.CodeNotFound)
	disputed, err := f.Dispute(ctx, f.others, by(tokens[0]))
	if err != nil || disputed.Dispute.Evidence != joinery.EvidenceOwnerToken || disputed.Dispute.AboutLock {
		t.Errorf("%+v, %v", disputed, err)
	}
	// A signature never speaks for a device without a device key.
	_, err = f.Dispute(ctx, f.others, f.signedBy(t, f.others, d, newKey(t)))
	wantCode(t, err, joinery.CodeForbidden)

	own, err := f.Dispute(ctx, f.acme, by(""))
	if err != nil || !own.Dispute.AboutLock || own.Unlocked || own.Dispute.Evidence != joinery.EvidenceNone {
		t.Fatalf("%+v, %v", own, err)
	}
	if _, err := f.DecideDispute(ctx, operator, own.Dispute.ID, true, ""); err != nil {
		t.Fatal(err)
	}
	if s := f.state(t, d.ID); s.Binding != nil || s.Device.Ownership.Org != f.acme.Org {
		t.Errorf("%+v", s)
	}
	told := f.audited(t, joinery.AuditDeviceBound)
	if last := told[len(told)-1]; last.Org != f.acme.Org || last.Device != d.ID || last.Detail["removed"] != "true" ||
		last.Detail["overridden"] != "true" || last.Detail["netID"] != lockedBy.NetID.String() || last.Detail["dispute"] != own.Dispute.ID.String() {
		t.Errorf("the owner is told of the unbinding: %+v", last)
	}
	f.clean(t, tokens...)
}

// TestDisputesLookAlike: neither answer nor audit log tells an unknown device
// from one without a key, or a wrong signature.
func TestDisputesLookAlike(t *testing.T) {
	f := newFixture(t, Options{})
	e := f.elements(t, 1, nil)[0]
	unknown := joinery.Device{JoinEUI: e.JoinEUI, DevEUI: lorawan.EUI64{9}}
	_, wrong := f.Dispute(t.Context(), f.others, f.signedBy(t, f.others, e.Device, newKey(t)))
	_, absent := f.Dispute(t.Context(), f.others, f.signedBy(t, f.others, unknown, newKey(t)))
	wantCode(t, wrong, joinery.CodeForbidden)
	if absent.Error() != wrong.Error() {
		t.Errorf("%v, %v", wrong, absent)
	}
	_, wrong = f.Dispute(t.Context(), f.others, Case{JoinEUI: e.JoinEUI, DevEUI: e.DevEUI})
	_, absent = f.Dispute(t.Context(), f.others, Case{JoinEUI: e.JoinEUI, DevEUI: unknown.DevEUI})
	if absent.Error() != wrong.Error() {
		t.Errorf("%v, %v", wrong, absent)
	}
	if n := len(f.audited(t, joinery.AuditDisputeOpened)); n != 0 {
		t.Errorf("%d disputes were opened", n)
	}
	f.clock.add(time.Hour)
}
