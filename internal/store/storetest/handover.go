package storetest

import (
	"slices"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

// change is one that s allows now.
func (w *world) change(act joinery.OwnerAct, s joinery.ActivationState, to joinery.OrgID) joinery.OwnerChange {
	event := map[joinery.OwnerAct]joinery.AuditEvent{
		joinery.ActClaim: joinery.AuditDeviceClaimed, joinery.ActRelease: joinery.AuditDeviceReleased, joinery.ActOffer: joinery.AuditTransferOffered,
		joinery.ActCancel: joinery.AuditTransferCancelled, joinery.ActAccept: joinery.AuditDeviceTransferred,
		joinery.ActRegenerateToken: joinery.AuditOwnerTokenRegenerated, joinery.ActBind: joinery.AuditDeviceBound,
	}[act]
	a := w.audit(event)
	a.Device = s.Device.ID
	return joinery.OwnerChange{
		Act: act, Device: s.Device.ID, Seen: s.Device.Ownership, To: to, ExpiresAt: epoch.Add(time.Hour), Audit: []joinery.AuditEntry{a},
	}
}

// does makes one change and gives how it ended.
func (w *world) does(c joinery.OwnerChange) error {
	w.t.Helper()
	outcomes, err := w.ChangeOwners(w.ctx, []joinery.OwnerChange{c})
	w.ok(err)
	w.equal(len(outcomes), 1)
	return outcomes[0]
}

// lock has a network bind a device and lock it.
func (w *world) lock(s joinery.ActivationState) joinery.ActivationState {
	w.t.Helper()
	b := binding()
	b.Source, b.Locked = "network", true
	w.ok(w.SetBinding(w.ctx, s.Device.ID, s.Device.Ownership.Org, 0, b, w.audit(joinery.AuditDeviceBound)))
	return w.again(s)
}

// operator gives the operator's organisation.
func (w *world) operator() joinery.OrgID {
	w.t.Helper()
	orgs, err := w.Orgs(w.ctx)
	w.ok(err)
	i := slices.IndexFunc(orgs, func(o joinery.Organisation) bool { return o.Name == "operator" })
	return orgs[i].ID
}

func runHandOver(t *testing.T, open func(testing.TB) Backend) {
	t.Run("release", func(t *testing.T) {
		w := newWorld(t, open)
		owner := w.addOrg("owner")
		s := w.add(derived(1))
		w.refused(w.does(w.change(joinery.ActRelease, s, 0)), joinery.CodeConflict) // nobody claimed it
		w.ok(w.Claim(w.ctx, s.Device.ID, 0, owner, binding(), w.audit(joinery.AuditDeviceClaimed)))
		s = w.again(s)
		w.ok(w.SetRoaming(w.ctx, joinery.RoamingRule{Org: owner, Device: s.Device.ID, NetIDs: []lorawan.NetID{netID}}, w.audit(joinery.AuditRoamingChanged)))
		w.ok(w.does(w.change(joinery.ActOffer, s, w.org)))
		w.ok(w.does(w.change(joinery.ActRelease, s, 0)))
		after := w.again(s)
		w.equal(after.Device.Ownership, joinery.Ownership{Org: w.operator(), Epoch: 2, TokenGeneration: 1, Since: epoch, Released: true})
		w.equal(after.Binding, (*joinery.Binding)(nil))
		if after.KeySet.Version == s.KeySet.Version {
			t.Error("a join in flight would not think again")
		}
		_, err := w.Transfer(w.ctx, s.Device.ID)
		w.refused(err, joinery.CodeNotFound)
		w.refused(w.does(w.change(joinery.ActRelease, after, 0)), joinery.CodeConflict)
		w.refused(w.does(w.change(joinery.ActRelease, s, 0)), joinery.CodeConflict) // seen before

		w.ok(w.does(w.change(joinery.ActClaim, after, w.org)))
		w.equal(w.again(s).Device.Ownership, joinery.Ownership{Org: w.org, Epoch: 3, TokenGeneration: 1, Since: epoch})
		w.refused(w.does(w.change(joinery.ActClaim, w.again(s), owner)), joinery.CodeConflict)
		w.CheckInvariants(t)
	})
	t.Run("transfer", func(t *testing.T) {
		w := newWorld(t, open)
		buyer, other := w.addOrg("buyer"), w.addOrg("other")
		s := w.add(derived(1))
		w.ok(w.SetBinding(w.ctx, s.Device.ID, w.org, 0, binding(), w.audit(joinery.AuditDeviceBound)))
		s = w.again(s)
		w.refused(w.does(w.change(joinery.ActAccept, s, buyer)), joinery.CodeNotFound)
		w.ok(w.does(w.change(joinery.ActOffer, s, buyer)))
		w.equal(w.again(s), s) // an offer changes nothing
		w.refused(w.does(w.change(joinery.ActOffer, s, other)), joinery.CodeConflict)
		w.refused(w.does(w.change(joinery.ActAccept, s, other)), joinery.CodeNotFound)
		want := joinery.Transfer{
			Device: s.Device.ID, JoinEUI: s.Device.JoinEUI, DevEUI: s.Device.DevEUI, From: w.org, To: buyer, OfferedAt: epoch, ExpiresAt: epoch.Add(time.Hour),
		}
		got, err := w.Transfer(w.ctx, s.Device.ID)
		w.ok(err)
		w.equal(got, want)
		for org, n := range map[joinery.OrgID]int{w.org: 1, buyer: 1, other: 0, 0: 1} {
			list, err := w.Transfers(w.ctx, joinery.TransferQuery{Org: org})
			w.ok(err)
			w.equal(len(list), n)
		}

		w.ok(w.does(w.change(joinery.ActCancel, s, buyer)))
		w.refused(w.does(w.change(joinery.ActCancel, s, buyer)), joinery.CodeNotFound)
		w.equal(w.again(s), s)

		w.ok(w.does(w.change(joinery.ActOffer, s, buyer)))
		late := w.change(joinery.ActAccept, s, buyer)
		late.Audit[0].At = epoch.Add(time.Hour)
		w.refused(w.does(late), joinery.CodeNotFound)
		again := w.change(joinery.ActOffer, s, other) // in place of one that ended
		again.Audit[0].At, again.ExpiresAt = epoch.Add(time.Hour), epoch.Add(2*time.Hour)
		w.ok(w.does(again))
		accept := w.change(joinery.ActAccept, s, other)
		accept.Binding = &joinery.Binding{NetID: lorawan.NetID{7}, Policy: joinery.AppSKeyClear}
		w.ok(w.does(accept))
		after := w.again(s)
		w.equal(after.Device.Ownership, joinery.Ownership{Org: other, Epoch: 1, TokenGeneration: 1, Since: epoch})
		w.equal(after.Binding.NetID, lorawan.NetID{7})
		w.equal(after.Binding.Epoch, uint32(2))
		last, err := w.LastOwner(w.ctx, s.Device.ID)
		w.ok(err)
		w.equal(last, joinery.OwnerLink{Epoch: 1, Org: other, How: joinery.HowTransfer, TokenGeneration: 1, Since: epoch})
		w.refused(w.does(w.change(joinery.ActAccept, after, other)), joinery.CodeNotFound)
		w.CheckInvariants(t)
	})
	t.Run("what its network locked goes with the device", func(t *testing.T) {
		w := newWorld(t, open)
		buyer := w.addOrg("buyer")
		s := w.lock(w.add(derived(1)))
		w.ok(w.does(w.change(joinery.ActOffer, s, buyer)))
		accept := w.change(joinery.ActAccept, s, buyer)
		accept.Binding = binding()
		w.refused(w.does(accept), joinery.CodeConflict)
		w.equal(w.again(s), s)
		w.ok(w.does(w.change(joinery.ActAccept, s, buyer)))
		w.equal(w.again(s).Binding, s.Binding)
		w.ok(w.does(w.change(joinery.ActRelease, w.again(s), 0)))
		w.equal(w.again(s).Binding, s.Binding)
		w.CheckInvariants(t)
	})
	t.Run("a new token", func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		w.ok(w.does(w.change(joinery.ActRegenerateToken, s, 0)))
		w.refused(w.does(w.change(joinery.ActRegenerateToken, s, 0)), joinery.CodeConflict)
		w.equal(w.again(s).Device.Ownership.TokenGeneration, uint32(1))
		// A claim that was judged by the old token comes too late.
		w.refused(w.does(w.change(joinery.ActClaim, s, w.addOrg("late"))), joinery.CodeConflict)
		w.CheckInvariants(t)
	})
	t.Run("one that fails spoils no other", together(open))
	t.Run("a deleted device is offered no more", func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		w.ok(w.does(w.change(joinery.ActOffer, s, w.addOrg("buyer"))))
		w.ok(w.DeleteDevice(w.ctx, s.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
		list, err := w.Transfers(w.ctx, joinery.TransferQuery{})
		w.ok(err)
		w.equal(len(list), 0)
		w.refused(w.does(w.change(joinery.ActRegenerateToken, s, 0)), joinery.CodeNotFound)
		w.CheckInvariants(t)
	})
	t.Run("disputes", disputes(open))
	t.Run("challenges", challenges(open))
	t.Run("failed claims", failures(open))
}

func together(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		var changes []joinery.OwnerChange
		var states []joinery.ActivationState
		for n := range 6 {
			states = append(states, w.add(derived(n)))
			changes = append(changes, w.change(joinery.ActBind, states[n], 0))
			changes[n].Binding = binding()
		}
		changes[1].Seen.Epoch++                                          // judged by something else
		changes[2].Binding.Source = "nobody"                             // a CHECK of the schema
		changes[3].To, changes[3].Act = w.addOrg("x"), joinery.ActAccept // without an offer
		changes[4].Device = joinery.NewDeviceID()
		before, err := w.AuditEntries(w.ctx, 0, 1000)
		w.ok(err)
		outcomes, err := w.ChangeOwners(w.ctx, changes)
		w.ok(err)
		for n, code := range []joinery.Code{"", joinery.CodeConflict, joinery.CodeInternal, joinery.CodeNotFound, joinery.CodeNotFound, ""} {
			w.refused(outcomes[n], code)
			if bound := w.again(states[n]).Binding != nil; bound != (code == "") {
				t.Errorf("device %d: bound %v", n, bound)
			}
		}
		after, err := w.AuditEntries(w.ctx, 0, 1000)
		w.ok(err)
		w.equal(len(after)-len(before), 2)
		w.CheckInvariants(t)
	}
}

func disputes(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		claimant := w.addOrg("claimant")
		s := w.lock(w.add(derived(1)))
		p := joinery.Dispute{
			ID: joinery.NewDisputeID(), Device: s.Device.ID, JoinEUI: s.Device.JoinEUI, DevEUI: s.Device.DevEUI, Claimant: claimant, Holder: w.org,
			Evidence: joinery.EvidenceDeviceKey, Statement: "bought it", State: joinery.DisputeOpen, OpenedAt: epoch,
		}
		w.ok(w.OpenDispute(w.ctx, p, w.audit(joinery.AuditDisputeOpened)))
		got, err := w.Dispute(w.ctx, p.ID)
		w.ok(err)
		w.equal(got, p)
		twice := p
		twice.ID = joinery.NewDisputeID()
		w.refused(w.OpenDispute(w.ctx, twice, w.audit(joinery.AuditDisputeOpened)), joinery.CodeConflict)
		for org, n := range map[joinery.OrgID]int{w.org: 1, claimant: 1, w.addOrg("other"): 0, 0: 1} {
			list, err := w.Disputes(w.ctx, joinery.DisputeQuery{Org: org, OnlyOpen: true})
			w.ok(err)
			w.equal(len(list), n)
		}

		p.State, p.DecidedAt, p.Note = joinery.DisputeWithdrawn, epoch.Add(time.Minute), "settled"
		w.ok(w.CloseDispute(w.ctx, p, w.audit(joinery.AuditDisputeWithdrawn)))
		got, err = w.Dispute(w.ctx, p.ID)
		w.ok(err)
		w.equal(got, p)
		w.equal(w.again(s), s)
		w.refused(w.CloseDispute(w.ctx, p, w.audit(joinery.AuditDisputeWithdrawn)), joinery.CodeConflict)

		twice.ID = joinery.NewDisputeID()
		w.ok(w.OpenDispute(w.ctx, twice, w.audit(joinery.AuditDisputeOpened)))
		twice.State, twice.DecidedAt, twice.Holder = joinery.DisputeGranted, epoch.Add(time.Hour), claimant
		w.refused(w.CloseDispute(w.ctx, twice, w.audit(joinery.AuditDisputeDecided)), joinery.CodeConflict) // it is another's
		twice.Holder = w.org
		w.ok(w.CloseDispute(w.ctx, twice, w.audit(joinery.AuditDisputeDecided)))
		after := w.again(s)
		w.equal(after.Device.Ownership, joinery.Ownership{Org: claimant, Epoch: 1, TokenGeneration: 1, Since: twice.DecidedAt})
		w.equal(after.Binding, (*joinery.Binding)(nil))

		locked := w.lock(w.add(derived(2)))
		own := twice
		own.ID, own.Device, own.AboutLock, own.State = joinery.NewDisputeID(), locked.Device.ID, true, joinery.DisputeOpen
		own.Claimant, own.Holder = w.org, w.org
		w.ok(w.OpenDispute(w.ctx, own, w.audit(joinery.AuditDisputeOpened)))
		own.State = joinery.DisputeGranted
		w.ok(w.CloseDispute(w.ctx, own, w.audit(joinery.AuditDisputeDecided)))
		unlocked := w.again(locked)
		w.equal(unlocked.Binding, (*joinery.Binding)(nil))
		w.equal(unlocked.Device.Ownership, locked.Device.Ownership)
		if unlocked.KeySet.Version == locked.KeySet.Version {
			t.Error("a join in flight would not think again")
		}
		w.CheckInvariants(t)
	}
}

func challenges(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		other := w.addOrg("other")
		c := joinery.Challenge{Random: [32]byte(randomBytes(32)), Org: w.org, JoinEUI: joinEUI, DevEUI: devEUI(1), ExpiresAt: epoch.Add(time.Minute)}
		w.ok(w.AddChallenge(w.ctx, c, epoch))
		_, err := w.TakeChallenge(w.ctx, c.Random, other)
		w.refused(err, joinery.CodeNotFound)
		got, err := w.TakeChallenge(w.ctx, c.Random, w.org)
		w.ok(err)
		w.equal(got, c)
		_, err = w.TakeChallenge(w.ctx, c.Random, w.org)
		w.refused(err, joinery.CodeNotFound)
		for n := range 101 {
			c.Random = [32]byte(randomBytes(32))
			if err := w.AddChallenge(w.ctx, c, epoch); n < 100 {
				w.ok(err)
			} else {
				w.refused(err, joinery.CodeRateLimited)
			}
		}
		w.ok(w.AddChallenge(w.ctx, c, epoch.Add(time.Minute))) // the others ended
		w.CheckInvariants(t)
	}
}

func failures(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		one := joinery.ClaimFailure{DevEUI: devEUI(1), Caller: "a", At: epoch, Count: 1}
		two := joinery.ClaimFailure{DevEUI: devEUI(2), Caller: "a", At: epoch.Add(time.Minute), Count: 2}
		w.ok(w.NoteClaimFailures(w.ctx, []joinery.ClaimFailure{one, one, two}, epoch))
		all, err := w.ClaimFailures(w.ctx, epoch, 10)
		w.ok(err)
		one.Count = 2
		w.equal(all, []joinery.ClaimFailure{one, two})
		newest, err := w.ClaimFailures(w.ctx, epoch, 1)
		w.ok(err)
		w.equal(newest, []joinery.ClaimFailure{two})
		w.ok(w.NoteClaimFailures(w.ctx, nil, two.At))
		all, err = w.ClaimFailures(w.ctx, epoch, 10)
		w.ok(err)
		w.equal(all, []joinery.ClaimFailure{two})
	}
}
