package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

// unpinned: each thing that ends with a pin stands in the log of whose it is, however
// many there are, and what of it is left ends before the same is pinned again.
func unpinned(t *testing.T, open func(testing.TB) Backend) {
	w, s, _ := rekeyWorld(t, open)
	j := w.reached()
	other := w.addOrg("other")
	o := w.order(s, 1)
	w.ok(w.ArmRekey(w.ctx, o, j.ID, w.audit(joinery.AuditRekeyArmed)))
	w.ok(w.MovePassage(w.ctx, o.ID, joinery.Passage{State: joinery.PassageParked, ChangedAt: epoch}, w.audit(joinery.AuditRekeyPassage)))
	w.ok(w.EndRekey(w.ctx, o.ID, w.org, joinery.RekeyCancelled, w.audit(joinery.AuditRekeyCancelled)))
	arrives := func(org joinery.OrgID, n int) joinery.Arrival {
		t.Helper()
		a, err := w.Arrive(w.ctx, joinery.Arrival{
			ID: joinery.NewArrivalID(), From: j.ID, Ref: fmt.Sprint(n), Org: org, JoinEUI: s.Device.JoinEUI, DevEUI: lorawan.EUI64{0xEE, 6: byte(n >> 8), 7: byte(n)},
			Reason: "seal", Content: []byte("sealed"), OfferedAt: epoch, At: epoch, ChangedAt: epoch,
		}, 1000, w.audit(joinery.AuditRekeyArrived))
		w.ok(err)
		return a
	}
	const many = 110
	arrives(other, many)
	for n := range many {
		arrives(w.org, n)
	}
	x := joinery.Expectation{ID: joinery.NewExpectationID(), Org: other, From: j.ID, By: "storetest", At: epoch, ExpiresAt: epoch.Add(time.Hour)}
	w.ok(w.Expect(w.ctx, x, 1, w.audit(joinery.AuditExpectation)))

	_, last := w.audited(0)
	version := w.again(s).KeySet.Version
	w.ok(w.RemoveJoinServer(w.ctx, j.ID, w.audit(joinery.AuditJoinServerRemoved)))
	first, _ := w.audited(last)
	if len(first) < 2 || len(first) > 102 {
		t.Fatalf("%d entries in one transaction", len(first))
	}
	w.says("first", first[:2], said{event: joinery.AuditJoinServerRemoved}, said{joinery.AuditRekeyPassage, w.org, details("order", o.ID.String(), "state", "refused")})
	w.equal(first[1].Device, s.Device.ID)
	if w.again(s).KeySet.Version == version {
		t.Error("a join that is under way does not think again")
	}
	w.ok(w.EndUnpinned(w.ctx, "server", epoch))
	w.writesNothing(func(ctx context.Context) error { return w.EndUnpinned(ctx, "server", epoch) })
	type told struct {
		event joinery.AuditEvent
		org   joinery.OrgID
	}
	count := map[told]int{}
	list, last := w.audited(last)
	for _, e := range list {
		count[told{e.Event, e.Org}]++
	}
	w.equal(count, map[told]int{
		{joinery.AuditJoinServerRemoved, 0}: 1, {joinery.AuditRekeyPassage, w.org}: 1, {joinery.AuditRekeyRefused, w.org}: many,
		{joinery.AuditRekeyRefused, other}: 1, {joinery.AuditExpectationEnded, other}: 1,
	})
	parked, err := w.ParkedArrivals(w.ctx, epoch.Add(time.Hour), 10)
	w.ok(err)
	expected, err := w.Expectations(w.ctx, 0)
	w.ok(err)
	w.equal([]int{len(parked), len(expected)}, []int{0, 0})

	// Nothing of a Join Server is accepted between its removal and the end of what it left,
	// and nothing of that is there when it is pinned again.
	w.ok(w.AddJoinServer(w.ctx, j, w.audit(joinery.AuditJoinServerAdded)))
	var left []joinery.Arrival
	for n := range many {
		left = append(left, arrives(w.org, 1000+n))
	}
	w.ok(w.RemoveJoinServer(w.ctx, j.ID, w.audit(joinery.AuditJoinServerRemoved)))
	late := left[0]
	for _, a := range left {
		if now, err := w.Arrival(w.ctx, a.ID); err == nil && now.State == joinery.ArrivalParked {
			late = now
		}
	}
	w.equal(late.State, joinery.ArrivalParked)
	w.refused(w.TakeArrival(w.ctx, arrivedDevice(late, 1), w.audit(joinery.AuditRekeyTaken)), joinery.CodeConflict)
	back := w.audit(joinery.AuditJoinServerAdded)
	w.ok(w.AddJoinServer(w.ctx, j, back))
	late, err = w.Arrival(w.ctx, late.ID)
	w.ok(err)
	w.equal(late.State, joinery.ArrivalRefused)
	list, _ = w.audited(last)
	w.equal(len(list), 3+2*many) // it was added twice and removed, they came and were refused

	// What is more than one transaction ends keeps it from being pinned again.
	for n := range 2 * many {
		arrives(w.org, 2000+n)
	}
	w.ok(w.RemoveJoinServer(w.ctx, j.ID, w.audit(joinery.AuditJoinServerRemoved)))
	w.refused(w.AddJoinServer(w.ctx, j, back), joinery.CodeConflict)
	w.ok(w.EndUnpinned(w.ctx, "server", epoch))
	w.ok(w.AddJoinServer(w.ctx, j, back))
	w.CheckInvariants(t)
}

// writesNothing runs fn, which finds that nothing is to be done.
func (w *world) writesNothing(fn func(context.Context) error) {
	w.t.Helper()
	var terms joinery.Terms // which a transaction meets
	w.ok(fn(joinery.WithTerms(w.ctx, &terms)))
	if terms.Met() {
		w.t.Error("nothing was to be done, and it was written")
	}
}

// repinned: orders to the key that was pinned before go nowhere, their devices are not
// told of them, and who gave them reads why, once; those that were made when orders named
// no key were for that one.
func repinned(t *testing.T, open func(testing.TB) Backend) {
	w, s, j := rekeyWorld(t, open)
	old, sent, other := w.order(s, 1), w.add(derived(2)), w.add(derived(3))
	w.ok(w.ArmRekey(w.ctx, old, j.ID, w.audit(joinery.AuditRekeyArmed))) // of an earlier version
	named := w.order(sent, 2)
	named.Thumbprint = "former"
	w.ok(w.ArmRekey(w.ctx, named, j.ID, w.audit(joinery.AuditRekeyArmed)))
	w.send(sent, named)
	carried, ended := w.add(derived(4)), w.add(derived(5))
	taken := w.order(carried, 4)
	taken.Thumbprint = "former"
	w.ok(w.ArmRekey(w.ctx, taken, j.ID, w.audit(joinery.AuditRekeyArmed)))
	w.ok(w.NoteHandover(w.ctx, j, epoch, []joinery.PassageOffer{{Order: taken.ID, Owner: w.org, Sum: []byte("sum"), Entry: w.audit(joinery.AuditRekeyHandedOver)}}))
	past := w.order(ended, 5) // of an earlier version, and confirmed
	w.ok(w.ArmRekey(w.ctx, past, j.ID, w.audit(joinery.AuditRekeyArmed)))
	w.send(ended, past)
	w.ok(w.EndRekey(w.ctx, past.ID, w.org, joinery.RekeyConfirmed, w.audit(joinery.AuditRekeyConfirmed)))
	fresh := w.order(other, 3)
	fresh.Thumbprint = "next"
	w.ok(w.ArmRekey(w.ctx, fresh, j.ID, w.audit(joinery.AuditRekeyArmed)))

	renamed := j
	renamed.Name = "renamed"
	w.ok(w.ChangeJoinServer(w.ctx, renamed, "former", w.audit(joinery.AuditJoinServerChanged)))
	w.equal(w.again(s).Rekeying.Order.Thumbprint, "")
	renamed.TransportKey = randomBytes(400)
	w.ok(w.ChangeJoinServer(w.ctx, renamed, "former", w.audit(joinery.AuditJoinServerChanged)))
	_, last := w.audited(0)
	refuse := func(ctx context.Context) error { return w.RefuseRepinned(ctx, j.ID, "next", "operator", epoch) }
	w.ok(refuse(w.ctx))
	w.writesNothing(refuse)
	got := w.again(s).Rekeying.Order
	if got.ID != old.ID || got.Thumbprint != "former" || !got.Held() || got.Passage.State != joinery.PassageRefused || got.Passage.Said == "" {
		t.Errorf("%+v, %+v", got, got.Passage)
	}
	// What was sent may have been obeyed: who obeyed is told again.
	got = w.again(sent).Rekeying.Order
	if got.ID != named.ID || got.Held() || got.Passage != nil {
		t.Errorf("an order that was sent: %+v, %+v", got, got.Passage)
	}
	// So it is where the root keys were taken along as a file.
	got = w.again(carried).Rekeying.Order
	if got.ID != taken.ID || got.Held() || got.Passage == nil || got.Passage.State != joinery.PassageFile {
		t.Errorf("an order whose keys went as a file: %+v, %+v", got, got.Passage)
	}
	if got = w.again(ended).Rekeying.Order; got.Thumbprint != "" {
		t.Errorf("an order that ended names another key: %+v", got)
	}
	if got := w.again(other).Rekeying.Order; got.Held() || got.Passage != nil {
		t.Errorf("an order to the new key: %+v", got.Passage)
	}
	list, _ := w.audited(last)
	if len(list) != 1 {
		t.Fatalf("%+v", list)
	}
	for _, e := range list {
		if e.Event != joinery.AuditRekeyPassage || e.Org != w.org || e.Actor != "operator" || e.Detail["said"] == "" {
			t.Errorf("%+v", e)
		}
	}
	w.CheckInvariants(t)
}
