package claim

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

// do does one act that must succeed.
func (f fixture) do(t testing.TB, caller joinery.Caller, a Act) Outcome {
	t.Helper()
	o := f.Do(t.Context(), caller, a)
	if o.Err != nil {
		t.Fatalf("%s: %v", a, o.Err)
	}
	return o
}

// refuses wants an act to fail with a code.
func (f fixture) refuses(t testing.TB, caller joinery.Caller, a Act, want joinery.Code) {
	t.Helper()
	o := f.Do(t.Context(), caller, a)
	if joinery.CodeOf(o.Err) != want || o.OwnerToken != "" {
		t.Errorf("%s by %s: %v, token %q; want code %q", a, caller.Name, o.Err, o.OwnerToken, want)
	}
}

// claimedBy gives a device that caller has claimed, with its token.
func (f fixture) claimedBy(t testing.TB, caller joinery.Caller, bind *joinery.Binding) (joinery.Device, string) {
	t.Helper()
	devices, tokens := f.devices(t, 1, nil)
	r := request(devices[0], tokens[0])
	r.Binding = bind
	d, err := f.Claim(t.Context(), caller, r)
	if err != nil {
		t.Fatal(err)
	}
	return d, tokens[0]
}

// nearly gives a token whose last letter alone is another.
func nearly(token string) string {
	last := len(token) - 1
	if token[last] == 'A' {
		return token[:last] + "B"
	}
	return token[:last] + "A"
}

// bare is a claim by what else than the JoinEUI stands on a label.
func bare(d joinery.Device, token string) Request {
	return Request{DevEUI: d.DevEUI, OwnerToken: token}
}

// TestTokenSelectsTheDevice: several devices have one DevEUI under several
// JoinEUIs; the label's token says which is meant.
func TestTokenSelectsTheDevice(t *testing.T) {
	f := newFixture(t, Options{})
	devices, tokens := f.sameDevEUI(t, 6)
	for _, i := range []int{4, 0, 5} {
		d, err := f.Claim(t.Context(), f.acme, bare(devices[i], tokens[i]))
		if err != nil || d.ID != devices[i].ID {
			t.Fatalf("claimed %s, want %s: %v", d.ID, devices[i].ID, err)
		}
	}
	if f.state(t, devices[1].ID).Device.Ownership.Claimed() {
		t.Error("another was claimed, too")
	}
	_, err := f.Claim(t.Context(), f.others, bare(devices[1], nearly(tokens[1])))
	wantCode(t, err, joinery.CodeForbidden)
	wrong := bare(devices[1], tokens[1])
	wrong.JoinEUI = devices[2].JoinEUI
	_, err = f.Claim(t.Context(), f.others, wrong)
	wantCode(t, err, joinery.CodeForbidden)
	_, err = f.Claim(t.Context(), f.others, bare(devices[4], tokens[4])) // has an owner
	wantCode(t, err, joinery.CodeConflict)

	// Without the JoinEUI other acts find it only where it is not ambiguous.
	f.refuses(t, f.acme, Act{Kind: Unbinding, DevEUI: devices[0].DevEUI}, joinery.CodeInvalid)
	f.do(t, f.acme, Act{Kind: Unbinding, DevEUI: devices[0].DevEUI, JoinEUI: devices[4].JoinEUI})
}

func TestRelease(t *testing.T) {
	f := newFixture(t, Options{})
	d, old := f.claimedBy(t, f.acme, &home)
	f.refuses(t, f.others, Act{Kind: Releasing, Device: d.ID}, joinery.CodeNotFound)
	f.refuses(t, f.maker, Act{Kind: Releasing, Device: d.ID}, joinery.CodeNotFound)
	o := f.do(t, f.acme, Act{Kind: Releasing, Device: d.ID})
	if len(o.OwnerToken) != 13 || o.OwnerToken == old {
		t.Errorf("token %q", o.OwnerToken)
	}
	s := f.state(t, d.ID)
	if s.Binding != nil || s.Device.Ownership.Claimed() || !s.Device.Ownership.Released {
		t.Errorf("%+v, bound to %+v", s.Device.Ownership, s.Binding)
	}
	// Nobody has it: neither who let it go nor its maker.
	for _, caller := range []joinery.Caller{f.acme, f.maker, f.others} {
		f.refuses(t, caller, Act{Kind: Releasing, Device: d.ID}, joinery.CodeNotFound)
		f.refuses(t, caller, Act{Kind: Binding, Device: d.ID, Binding: &home}, joinery.CodeNotFound)
		_, err := f.OwnerToken(t.Context(), caller, d.ID)
		wantCode(t, err, joinery.CodeNotFound)
	}
	operator := joinery.Caller{Operator: true, Name: "socket uid 0"}
	_, err := f.OwnerToken(t.Context(), operator, d.ID)
	wantCode(t, err, joinery.CodeForbidden) // it was in the one answer

	_, err = f.Claim(t.Context(), f.others, request(d, old))
	wantCode(t, err, joinery.CodeForbidden)
	got, err := f.Claim(t.Context(), f.others, request(d, o.OwnerToken))
	if err != nil || got.Ownership.Org != f.others.Org || got.Ownership.Epoch != 3 {
		t.Errorf("%+v, %v", got.Ownership, err)
	}
	if e := f.audited(t, joinery.AuditDeviceReleased); len(e) != 1 || e[0].Org != f.acme.Org || e[0].Device != d.ID {
		t.Errorf("audit %+v", e)
	}
	f.clean(t, old, o.OwnerToken)
}

// A release whose token was lost on its way is mended by the operator.
func TestLostTokenOfARelease(t *testing.T) {
	f := newFixture(t, Options{})
	d, _ := f.claimedBy(t, f.acme, nil)
	lost := f.do(t, f.acme, Act{Kind: Releasing, Device: d.ID}).OwnerToken
	operator := joinery.Caller{Operator: true, Name: "socket uid 0"}
	again := f.do(t, operator, Act{Kind: Regenerating, Device: d.ID}).OwnerToken
	_, err := f.Claim(t.Context(), f.acme, request(d, lost))
	wantCode(t, err, joinery.CodeForbidden)
	if _, err := f.Claim(t.Context(), f.acme, request(d, again)); err != nil {
		t.Error(err)
	}
}

func TestTransfer(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := t.Context()
	d, old := f.claimedBy(t, f.acme, &home)
	before := f.state(t, d.ID)
	offer := Act{Kind: Offering, Device: d.ID, To: f.others.Org}
	f.refuses(t, f.maker, offer, joinery.CodeNotFound)
	f.refuses(t, f.acme, Act{Kind: Offering, Device: d.ID}, joinery.CodeInvalid)
	f.refuses(t, f.acme, Act{Kind: Offering, Device: d.ID, To: f.acme.Org}, joinery.CodeInvalid)
	f.refuses(t, f.acme, Act{Kind: Offering, Device: d.ID, To: f.others.Org, ExpiresAt: f.clock.now()}, joinery.CodeInvalid)
	f.refuses(t, f.acme, Act{Kind: Offering, Device: d.ID, To: f.others.Org, ExpiresAt: f.clock.now().Add(91 * 24 * time.Hour)}, joinery.CodeInvalid)
	f.refuses(t, f.acme, Act{Kind: Cancelling, Device: d.ID}, joinery.CodeNotFound)

	f.do(t, f.acme, offer)
	if !f.do(t, f.acme, offer).Unchanged {
		t.Error("the same offer is another")
	}
	f.refuses(t, f.acme, Act{Kind: Offering, Device: d.ID, To: f.maker.Org}, joinery.CodeConflict)
	for caller, n := range map[*joinery.Caller]int{&f.acme: 1, &f.others: 1, &f.maker: 0} {
		list, err := f.Transfers(ctx, *caller, 0, 0)
		if err != nil || len(list) != n {
			t.Errorf("%s sees %d offers, %v", caller.Name, len(list), err)
		}
		_, err = f.Transfer(ctx, *caller, d.ID)
		wantCode(t, err, map[int]joinery.Code{0: joinery.CodeNotFound}[n])
	}
	f.refuses(t, f.maker, Act{Kind: Accepting, Device: d.ID}, joinery.CodeNotFound)
	f.refuses(t, f.acme, Act{Kind: Accepting, Device: d.ID}, joinery.CodeConflict) // its own

	// A cancelled offer changes nothing, whoever cancels it.
	for _, caller := range []joinery.Caller{f.acme, f.others} {
		f.refuses(t, f.maker, Act{Kind: Cancelling, Device: d.ID}, joinery.CodeNotFound)
		f.do(t, caller, Act{Kind: Cancelling, Device: d.ID})
		f.refuses(t, f.others, Act{Kind: Accepting, Device: d.ID}, joinery.CodeNotFound)
		f.do(t, f.acme, offer)
	}
	if after := f.state(t, d.ID); after.Device != before.Device || *after.Binding != *before.Binding || after.KeySet.Version != before.KeySet.Version {
		t.Errorf("changed from %+v to %+v", before, after)
	}

	o := f.do(t, f.others, Act{Kind: Accepting, DevEUI: d.DevEUI})
	s := f.state(t, d.ID)
	if s.Device.Ownership.Org != f.others.Org || s.Device.Ownership.Epoch != 2 || s.Binding != nil || o.OwnerToken == old {
		t.Errorf("%+v, bound to %+v", s.Device.Ownership, s.Binding)
	}
	if again := f.do(t, f.others, Act{Kind: Accepting, Device: d.ID}); !again.Unchanged || again.OwnerToken != "" {
		t.Errorf("accepted again: %+v", again)
	}
	// The old token is dead, and the new owner reads the new one.
	_, err := f.Claim(ctx, f.maker, request(d, old))
	wantCode(t, err, joinery.CodeForbidden)
	if token, err := f.OwnerToken(ctx, f.others, d.ID); err != nil || token != o.OwnerToken {
		t.Errorf("the new owner cannot read its token: %v", err)
	}
	_, err = f.OwnerToken(ctx, f.acme, d.ID)
	wantCode(t, err, joinery.CodeNotFound)
	entries := f.audited(t, joinery.AuditDeviceTransferred)
	if len(entries) != 2 || entries[0].Org != f.others.Org || entries[1].Org != f.acme.Org || strings.Contains(entries[1].Actor, f.others.Name) {
		t.Errorf("audit %+v", entries)
	}
	f.clean(t, old, o.OwnerToken)
}

// clean looks for tokens where none may be.
func (f fixture) clean(t testing.TB, tokens ...string) {
	t.Helper()
	list, err := f.db.AuditEntries(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range tokens {
		if strings.Contains(fmt.Sprint(list), token) {
			t.Error("an owner token is in the audit log")
		}
	}
	if found, err := f.db.Fsck(t.Context(), nil); err != nil || len(found) > 0 {
		t.Errorf("fsck: %v, %v", found, err)
	}
}

func TestOfferEnds(t *testing.T) {
	f := newFixture(t, Options{})
	d, _ := f.claimedBy(t, f.acme, nil)
	f.do(t, f.acme, Act{Kind: Offering, Device: d.ID, To: f.others.Org, ExpiresAt: f.clock.now().Add(time.Hour)})
	f.clock.add(time.Hour)
	f.refuses(t, f.others, Act{Kind: Accepting, Device: d.ID}, joinery.CodeNotFound)
	if offer, err := f.Transfer(t.Context(), f.others, d.ID); err != nil || offer.Open(f.clock.now()) {
		t.Errorf("%+v, %v", offer, err)
	}
	f.do(t, f.acme, Act{Kind: Offering, Device: d.ID, To: f.maker.Org}) // in its place
	f.refuses(t, f.others, Act{Kind: Accepting, Device: d.ID}, joinery.CodeNotFound)
	f.do(t, f.maker, Act{Kind: Accepting, Device: d.ID, Binding: &home})
	if s := f.state(t, d.ID); s.Binding == nil || s.Binding.NetID != home.NetID {
		t.Errorf("%+v", s.Binding)
	}
}

// TestNobodyLearnsOfOrganisations: an offer to one that is not there looks like
// every other.
func TestNobodyLearnsOfOrganisations(t *testing.T) {
	f := newFixture(t, Options{})
	devices, _ := f.devices(t, 2, nil)
	there := f.Do(t.Context(), f.maker, Act{Kind: Offering, Device: devices[0].ID, To: f.others.Org})
	nowhere := f.Do(t.Context(), f.maker, Act{Kind: Offering, Device: devices[1].ID, To: joinery.NewOrgID()})
	if there.Err != nil || nowhere.Err != nil {
		t.Errorf("%v, %v", there.Err, nowhere.Err)
	}
}

// TestOneAccepts: of a hundred acceptances and cancellations at once one wins.
func TestOneAccepts(t *testing.T) {
	f := newFixture(t, Options{})
	d, _ := f.claimedBy(t, f.acme, nil)
	f.do(t, f.acme, Act{Kind: Offering, Device: d.ID, To: f.others.Org})
	var accepts, cancels atomic.Int32
	codes := atOnce(30, func(i int) error {
		caller, act, done := f.others, Act{Kind: Accepting, Device: d.ID}, &accepts
		if i%2 == 1 {
			caller, act, done = f.acme, Act{Kind: Cancelling, Device: d.ID}, &cancels
		}
		err := f.Do(t.Context(), caller, act).Err
		if err == nil {
			done.Add(1)
		}
		return err
	})
	accepted := f.state(t, d.ID).Device.Ownership.Org == f.others.Org
	// Whoever looked before the winner was done is in conflict; who comes after it
	// with the same wish repeats it.
	if (accepts.Load() > 0) != accepted || (cancels.Load() > 0) == accepted || codes[joinery.CodeInternal] > 0 {
		t.Errorf("accepted %v: %d accepted, %d cancelled, %v", accepted, accepts.Load(), cancels.Load(), codes)
	}
	if n := len(f.audited(t, joinery.AuditDeviceTransferred)) + len(f.audited(t, joinery.AuditTransferCancelled)); n != 2 {
		t.Errorf("%d entries of the end of one offer, want one for each side", n)
	}
}

func TestRegenerateToken(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := t.Context()
	devices, tokens := f.devices(t, 1, nil)
	d := devices[0]
	f.refuses(t, f.acme, Act{Kind: Regenerating, Device: d.ID}, joinery.CodeNotFound)
	o := f.do(t, f.maker, Act{Kind: Regenerating, Device: d.ID}) // a label was seen by the wrong people
	_, err := f.Claim(ctx, f.acme, request(d, tokens[0]))
	wantCode(t, err, joinery.CodeForbidden)
	if _, err := f.Claim(ctx, f.acme, request(d, o.OwnerToken)); err != nil {
		t.Fatal(err)
	}
	_, err = f.OwnerToken(ctx, f.acme, d.ID)
	wantCode(t, err, joinery.CodeForbidden) // it knows the token
	third := f.do(t, f.acme, Act{Kind: Regenerating, Device: d.ID})
	if token, err := f.OwnerToken(ctx, f.acme, d.ID); err != nil || token != third.OwnerToken {
		t.Errorf("the owner cannot read what was issued to it: %v", err)
	}
	f.clean(t, tokens[0], o.OwnerToken, third.OwnerToken)
}

// TestLocks: an owner's own lock keeps nothing from the owner, nor from the next.
func TestLocks(t *testing.T) {
	f := newFixture(t, Options{})
	own := home
	own.Locked = true
	d, _ := f.claimedBy(t, f.acme, &own)
	if s := f.state(t, d.ID); !s.Binding.Locked || s.Binding.Source != "owner" {
		t.Errorf("%+v", s.Binding)
	}
	f.do(t, f.acme, Act{Kind: Binding, Device: d.ID, Binding: &home})
	f.do(t, f.acme, Act{Kind: Binding, Device: d.ID, Binding: &own})
	token := f.do(t, f.acme, Act{Kind: Releasing, Device: d.ID}).OwnerToken
	if f.state(t, d.ID).Binding != nil {
		t.Error("the former owner's lock outlives it")
	}
	r := request(d, token)
	r.Binding = &home
	if _, err := f.Claim(t.Context(), f.others, r); err != nil {
		t.Error(err)
	}
}

// TestNetworksClaimThenOwner: a network claimed the device for itself; who holds
// the token becomes the owner all the same, and overrides it unless it is locked.
func TestNetworksClaimThenOwner(t *testing.T) {
	for _, locked := range []bool{false, true} {
		f := newFixture(t, Options{})
		network := joinery.Binding{NetID: lorawan.NetID{0, 0, 0x13}, Source: "network", Locked: locked}
		devices, tokens := f.devices(t, 1, &network)
		r := request(devices[0], tokens[0])
		r.Binding = &joinery.Binding{NetID: lorawan.NetID{9}}
		_, err := f.Claim(t.Context(), f.acme, r)
		if !locked {
			if s := f.state(t, devices[0].ID); err != nil || s.Binding.NetID != (lorawan.NetID{9}) {
				t.Errorf("%v, %+v", err, s.Binding)
			}
			continue
		}
		wantCode(t, err, joinery.CodeConflict)
		r.Binding = nil
		d, err := f.Claim(t.Context(), f.acme, r)
		if err != nil {
			t.Fatal(err)
		}
		f.do(t, f.acme, Act{Kind: Offering, Device: d.ID, To: f.others.Org})
		f.refuses(t, f.others, Act{Kind: Accepting, Device: d.ID, Binding: &home}, joinery.CodeConflict)
		f.do(t, f.others, Act{Kind: Accepting, Device: d.ID})
		if s := f.state(t, d.ID); s.Binding == nil || s.Binding.NetID != network.NetID || s.Device.Ownership.Org != f.others.Org {
			t.Errorf("%+v", s)
		}
	}
}

// sameDevEUI imports devices that differ in their JoinEUIs only.
func (f fixture) sameDevEUI(t testing.TB, n int) (devices []joinery.Device, tokens []string) {
	t.Helper()
	return f.importAll(t, n, nil, func(k int, d *joinery.NewDevice) {
		d.Device.JoinEUI = lorawan.EUI64FromUint64(joinEUI + uint64(k))
		d.Device.DevEUI = lorawan.EUI64FromUint64(77)
		d.KeySet.DevEUI = d.Device.DevEUI
		d.KeySet.Generation = uint32(k)
	})
}

// TestGuessesOutliveARestart: failures are counted again by the next server.
func TestGuessesOutliveARestart(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := t.Context()
	devices, tokens := f.devices(t, 3, nil)
	for range 4 {
		_, err := f.Claim(ctx, f.others, request(devices[0], tokens[1]))
		wantCode(t, err, joinery.CodeForbidden)
	}
	if _, err := f.Claim(ctx, f.others, request(devices[2], tokens[2])); err != nil { // what succeeds does not count
		t.Fatal(err)
	}
	next := New(f.db, f.db, f.keys, Options{Now: f.clock.now, AnswerAfter: -1})
	if err := next.Recall(ctx); err != nil {
		t.Fatal(err)
	}
	if n := len(next.guard.devices.seen); n != 1 {
		t.Errorf("%d DevEUIs are remembered, want 1", n)
	}
	_, err := next.Claim(ctx, f.others, request(devices[0], tokens[1]))
	wantCode(t, err, joinery.CodeForbidden)
	_, err = next.Claim(ctx, f.others, request(devices[0], tokens[0]))
	wantCode(t, err, joinery.CodeRateLimited)
	f.clock.add(15 * time.Minute)
	if _, err := next.Claim(ctx, f.others, request(devices[0], tokens[0])); err != nil {
		t.Error(err)
	}
}

// forgetful cannot write failures down.
type forgetful struct{ Store }

func (forgetful) NoteClaimFailures(context.Context, []joinery.ClaimFailure, time.Time) error {
	return joinery.Errorf(joinery.CodeUnavailable, "disk is full")
}

// A guess that cannot be written down is not answered as one.
func TestGuessIsWrittenDownFirst(t *testing.T) {
	f := newFixture(t, Options{})
	devices, tokens := f.devices(t, 2, nil)
	s := New(forgetful{f.db}, f.db, f.keys, Options{AnswerAfter: -1})
	_, err := s.Claim(t.Context(), f.others, request(devices[0], tokens[1]))
	wantCode(t, err, joinery.CodeUnavailable)
	_, err = s.Dispute(t.Context(), f.others, Case{JoinEUI: devices[0].JoinEUI, DevEUI: devices[0].DevEUI, OwnerToken: tokens[1]})
	wantCode(t, err, joinery.CodeUnavailable)
}
