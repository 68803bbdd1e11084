package storetest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

// Rekeying has devices derive new root keys.
type Rekeying interface {
	SetRekeyProfile(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, p joinery.RekeyProfile, a joinery.AuditEntry) error
	ArmRekey(ctx context.Context, o joinery.RekeyOrder, to joinery.JoinServerID, a ...joinery.AuditEntry) error
	EndRekey(ctx context.Context, id joinery.RekeyID, owner joinery.OrgID, state joinery.RekeyState, a ...joinery.AuditEntry) error
	ApproveRekeys(ctx context.Context, orders []joinery.RekeyOrder, keys map[joinery.JoinServerID][]byte, entries []joinery.AuditEntry) error
	RekeyRequests(ctx context.Context, org joinery.OrgID, after joinery.RekeyID, limit int) ([]joinery.RekeyOrder, error)
	DiscloseRekey(ctx context.Context, s joinery.ActivationState, o joinery.RekeyOrder, next joinery.KeySetID, handedOver, exposed joinery.AuditEntry) error
	NoteRekeySent(ctx context.Context, s joinery.ActivationState, o joinery.RekeyOrder, next joinery.KeySetID, at time.Time, a joinery.AuditEntry) error
	ProveKeySet(ctx context.Context, s joinery.ActivationState, proven joinery.KeySetID, a joinery.AuditEntry) error
	RekeyOrders(ctx context.Context, device joinery.DeviceID) ([]joinery.RekeyOrder, error)
	RekeyingDevice(ctx context.Context, id joinery.DeviceID) (joinery.ActivationState, error)
	AddJoinServer(ctx context.Context, j joinery.JoinServer, a joinery.AuditEntry) error
	ChangeJoinServer(ctx context.Context, j joinery.JoinServer, former string, a joinery.AuditEntry) error
	EndUnpinned(ctx context.Context, actor string, at time.Time) error
	RefuseRepinned(ctx context.Context, id joinery.JoinServerID, thumbprint, actor string, at time.Time) error
	FormerJoinServer(ctx context.Context, receiptKey []byte) (joinery.JoinServerID, error)
	RemoveJoinServer(ctx context.Context, id joinery.JoinServerID, a joinery.AuditEntry) error
	JoinServers(ctx context.Context) ([]joinery.JoinServer, error)
	RekeyBatches
}

// rekeyWorld has a device that rekeys, and a Join Server to go to.
func rekeyWorld(t *testing.T, open func(testing.TB) Backend) (*world, joinery.ActivationState, joinery.JoinServer) {
	w := newWorld(t, open)
	d := derived(1)
	d.KeySet.Generation = 4
	s := w.add(d)
	w.ok(w.SetRekeyProfile(w.ctx, s.Device.ID, w.org, joinery.RekeyS, w.audit(joinery.AuditRekeyProfile)))
	j := joinery.JoinServer{ID: joinery.NewJoinServerID(), Name: "there", TransportKey: randomBytes(400), CreatedAt: epoch}
	w.ok(w.AddJoinServer(w.ctx, j, w.audit(joinery.AuditJoinServerAdded)))
	return w, w.again(s), j
}

// order is one that n tells from others.
func (w *world) order(s joinery.ActivationState, n byte) joinery.RekeyOrder {
	return joinery.RekeyOrder{
		ID: joinery.NewRekeyID(), Device: s.Device.ID, State: joinery.RekeyArmed, To: "there", Owner: w.org, By: "storetest",
		Rekey: lorawan.Rekey{JoinEUI: lorawan.EUI64{0xEC, 7: n}, Cookie: lorawan.Cookie{n}},
		At:    epoch.Add(time.Duration(n) * time.Minute), ArmedAt: epoch.Add(time.Duration(n) * time.Minute), ExpiresAt: epoch.Add(time.Hour),
	}
}

func (w *world) arm(s joinery.ActivationState, to joinery.JoinServerID, n byte) joinery.RekeyOrder {
	w.t.Helper()
	o := w.order(s, n)
	o.Server = to
	w.ok(w.ArmRekey(w.ctx, o, to, w.audit(joinery.AuditRekeyArmed)))
	return o
}

// send notes an order as sent and gives the key set to which it leads.
func (w *world) send(s joinery.ActivationState, o joinery.RekeyOrder) joinery.KeySetID {
	w.t.Helper()
	id := joinery.NewKeySetID()
	w.ok(w.NoteRekeySent(w.ctx, w.again(s), o, id, epoch, w.audit(joinery.AuditRekeySent)))
	return id
}

func runRekeying(t *testing.T, open func(testing.TB) Backend) {
	t.Run("orders", func(t *testing.T) { rekeyOrders(t, open) })
	t.Run("candidates", func(t *testing.T) { rekeyCandidates(t, open) })
	t.Run("approval", func(t *testing.T) { rekeyApproval(t, open) })
	t.Run("approval that does not cover the order", func(t *testing.T) { rekeyUncovered(t, open) })
	t.Run("batches", func(t *testing.T) { rekeyBatches(t, open) })
	t.Run("recipients", func(t *testing.T) { rekeyRecipients(t, open) })
	t.Run("meanwhile", func(t *testing.T) { rekeyMeanwhile(t, open) })
	t.Run("released", func(t *testing.T) { rekeyReleased(t, open) })
	t.Run("servers", func(t *testing.T) {
		w, s, j := rekeyWorld(t, open)
		got, err := w.JoinServers(w.ctx)
		w.ok(err)
		w.equal(got, []joinery.JoinServer{j})
		again := j
		again.ID = joinery.NewJoinServerID()
		w.refused(w.AddJoinServer(w.ctx, again, w.audit(joinery.AuditJoinServerAdded)), joinery.CodeConflict)
		o := w.arm(s, j.ID, 1)
		w.refused(w.RemoveJoinServer(w.ctx, j.ID, w.audit(joinery.AuditJoinServerRemoved)), joinery.CodeConflict)
		w.ok(w.EndRekey(w.ctx, o.ID, w.org, joinery.RekeyCancelled, w.audit(joinery.AuditRekeyCancelled)))
		w.ok(w.RemoveJoinServer(w.ctx, j.ID, w.audit(joinery.AuditJoinServerRemoved)))
		w.refused(w.RemoveJoinServer(w.ctx, j.ID, w.audit(joinery.AuditJoinServerRemoved)), joinery.CodeNotFound)
		w.refused(w.ArmRekey(w.ctx, w.order(s, 2), j.ID, w.audit(joinery.AuditRekeyArmed)), joinery.CodeNotFound)
		again.TransportKey = randomBytes(400)
		w.ok(w.AddJoinServer(w.ctx, again, w.audit(joinery.AuditJoinServerAdded)))
		w.CheckInvariants(t)
	})
	t.Run("server identity", func(t *testing.T) { joinServerIdentity(t, open) })
	t.Run("unpinned", func(t *testing.T) { unpinned(t, open) })
	t.Run("repinned", func(t *testing.T) { repinned(t, open) })
}

// joinServerIdentity: a Join Server is its statement key, whatever else of it changes;
// no other one is taken for it.
func joinServerIdentity(t *testing.T, open func(testing.TB) Backend) {
	w, _, plain := rekeyWorld(t, open)
	j := w.reached()
	added, changed := w.audit(joinery.AuditJoinServerAdded), w.audit(joinery.AuditJoinServerChanged)
	other := func(change func(*joinery.JoinServer)) joinery.JoinServer {
		o := joinery.JoinServer{ID: joinery.NewJoinServerID(), Name: "other", TransportKey: randomBytes(400), ReceiptKey: randomBytes(91), CreatedAt: epoch}
		change(&o)
		return o
	}
	for _, o := range []joinery.JoinServer{
		other(func(o *joinery.JoinServer) { o.Name = j.Name }),
		other(func(o *joinery.JoinServer) { o.TransportKey = j.TransportKey }),
		other(func(o *joinery.JoinServer) { o.ReceiptKey = j.ReceiptKey }),
		other(func(o *joinery.JoinServer) { o.Identity = j.Identity }),
	} {
		w.refused(w.AddJoinServer(w.ctx, o, added), joinery.CodeConflict)
		o.ID, o.ReceiptKey = plain.ID, nil
		if o.Name == j.Name {
			w.refused(w.ChangeJoinServer(w.ctx, o, "former", changed), joinery.CodeConflict)
		}
	}
	w.ok(w.TakeReceipt(w.ctx, j.ID, joinery.ReceiptPlace{}, joinery.ReceiptPlace{N: 7}, nil))
	next := j
	next.Name, next.URL, next.Identity.SPKI, next.TransportKey, next.Ours = "renamed", "https://elsewhere.example.com", [32]byte{2}, randomBytes(400), nil
	w.ok(w.ChangeJoinServer(w.ctx, next, "former", changed))
	forged := next
	forged.ReceiptKey = randomBytes(91)
	w.refused(w.ChangeJoinServer(w.ctx, forged, "former", changed), joinery.CodeConflict)
	unknown := other(func(*joinery.JoinServer) {})
	w.refused(w.ChangeJoinServer(w.ctx, unknown, "former", changed), joinery.CodeNotFound)
	next.Cursor.N = 7
	w.pinned(next, plain)

	// Forgotten and pinned again, it is the same; in between its name is anybody's.
	w.ok(w.RemoveJoinServer(w.ctx, j.ID, w.audit(joinery.AuditJoinServerRemoved)))
	w.refused(w.ChangeJoinServer(w.ctx, next, "former", changed), joinery.CodeNotFound)
	id, err := w.FormerJoinServer(w.ctx, j.ReceiptKey)
	w.ok(err)
	w.equal(id, j.ID)
	named := other(func(o *joinery.JoinServer) { o.Name = next.Name })
	w.ok(w.AddJoinServer(w.ctx, named, added))
	w.refused(w.AddJoinServer(w.ctx, next, added), joinery.CodeConflict)
	next.Name = "back"
	w.ok(w.AddJoinServer(w.ctx, next, added))
	w.pinned(next, named, plain)
	id, err = w.FormerJoinServer(w.ctx, j.ReceiptKey)
	w.ok(err)
	w.equal(id, joinery.JoinServerID(0))
	w.CheckInvariants(t)
}

// pinned wants these Join Servers, in the order of their names.
func (w *world) pinned(want ...joinery.JoinServer) {
	w.t.Helper()
	got, err := w.JoinServers(w.ctx)
	w.ok(err)
	w.equal(got, want)
}

// rekeyOrders: one is open at most; what was sent can be confirmed at any time.
func rekeyOrders(t *testing.T, open func(testing.TB) Backend) {
	w, s, j := rekeyWorld(t, open)
	if s.Device.Rekey != joinery.RekeyS || s.Device.Rekeying || s.Rekeying != nil {
		t.Fatalf("a device that nobody armed: %+v", s.Device)
	}
	first := w.arm(s, j.ID, 1)
	w.refused(w.ArmRekey(w.ctx, w.order(s, 2), j.ID, w.audit(joinery.AuditRekeyArmed)), joinery.CodeConflict)
	w.refused(w.SetRekeyProfile(w.ctx, s.Device.ID, w.org, joinery.RekeyM, w.audit(joinery.AuditRekeyProfile)), joinery.CodeConflict)
	armed := w.again(s)
	if armed.KeySet.Version == s.KeySet.Version || !armed.Device.Rekeying {
		t.Error("a join under way does not think again")
	}
	w.equal(armed.Rekeying, &joinery.Rekeying{Order: &first})
	w.refused(w.EndRekey(w.ctx, first.ID, w.org, joinery.RekeyConfirmed, w.audit(joinery.AuditRekeyConfirmed)), joinery.CodeConflict)
	w.send(s, first)
	w.send(s, first)
	want := first
	want.State, want.Sent, want.FirstSentAt, want.LastSentAt = joinery.RekeySent, 2, epoch, epoch
	orders, err := w.RekeyOrders(w.ctx, s.Device.ID)
	w.ok(err)
	w.equal(orders, []joinery.RekeyOrder{want})
	if n := len(w.again(s).Rekeying.Candidates); n != 1 {
		t.Errorf("%d candidates of one instruction", n)
	}
	w.ok(w.EndRekey(w.ctx, first.ID, w.org, joinery.RekeyCancelled, w.audit(joinery.AuditRekeyCancelled)))
	w.refused(w.EndRekey(w.ctx, first.ID, w.org, joinery.RekeyCancelled, w.audit(joinery.AuditRekeyCancelled)), joinery.CodeConflict)
	// A later one may be opened; and an expired one makes room by itself.
	second := w.order(s, 2)
	second.ExpiresAt = second.At.Add(time.Second)
	w.ok(w.ArmRekey(w.ctx, second, j.ID, w.audit(joinery.AuditRekeyArmed)))
	third := w.arm(s, j.ID, 3)
	w.ok(w.EndRekey(w.ctx, first.ID, w.org, joinery.RekeyConfirmed, w.audit(joinery.AuditRekeyConfirmed)))
	w.refused(w.EndRekey(w.ctx, joinery.NewRekeyID(), w.org, joinery.RekeyCancelled, w.audit(joinery.AuditRekeyCancelled)), joinery.CodeNotFound)
	w.Backend = w.Reopen(t)
	orders, err = w.RekeyOrders(w.ctx, s.Device.ID)
	w.ok(err)
	states := []joinery.RekeyState{orders[0].State, orders[1].State, orders[2].State}
	w.equal(states, []joinery.RekeyState{joinery.RekeyArmed, joinery.RekeyExpired, joinery.RekeyConfirmed})
	w.CheckInvariants(t)
	_, last := w.audited(0)
	w.ok(w.DeleteDevice(w.ctx, s.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
	w.saysCancelled(last, third, "deletion of the device")
	w.CheckInvariants(t)
}

// rekeyCandidates: every instruction leads to a key set; the one that the device
// turns out to have goes on from the nonces of the former, and the next
// instruction from it.
func rekeyCandidates(t *testing.T, open func(testing.TB) Backend) {
	w, s, j := rekeyWorld(t, open)
	for range 3 {
		w.join(s)
	}
	before := w.again(s)
	var orders []joinery.RekeyOrder
	var sets []joinery.KeySetID
	for n := range byte(2) {
		o := w.arm(s, j.ID, n+1)
		sets, orders = append(sets, w.send(s, o)), append(orders, o)
		w.ok(w.EndRekey(w.ctx, o.ID, w.org, joinery.RekeyCancelled, w.audit(joinery.AuditRekeyCancelled)))
	}
	last := w.arm(s, j.ID, 9)
	c := w.again(s).Rekeying.Candidates
	w.equal([]joinery.KeySetID{c[0].ID, c[1].ID}, []joinery.KeySetID{sets[1], sets[0]})
	for i, k := range []joinery.KeySet{c[1], c[0]} {
		want := joinery.KeySet{
			ID: sets[i], DeviceID: s.Device.ID, DevEUI: s.Device.DevEUI, Origin: joinery.OriginRekeyed, Master: "maker-1", Generation: 4,
			Steps: []lorawan.Rekey{orders[i].Rekey}, Rekey: joinery.RekeyS, Root10: joinery.NwkKey,
		}
		w.equal(k, want)
	}
	w.ok(w.ProveKeySet(w.ctx, w.again(s), sets[0], w.audit(joinery.AuditRekeyObeyed)))
	proven := w.again(s)
	if proven.Device.RekeyWord != joinery.RekeyByDevice {
		t.Error("it showed that it rekeys, and nobody noted that")
	}
	nonces := before.KeySet.Nonces
	nonces.Recent = nil
	w.equal(proven.KeySet.Nonces, nonces)
	want := c[1]
	want.Version, want.Nonces, want.Generation = proven.KeySet.Version, nonces, 4
	w.equal(proven.KeySet, want)
	w.equal(proven.Rekeying, &joinery.Rekeying{Order: &last})

	// It joins with what it has, and what it had before stays to be seen.
	w.join(s)
	next := w.send(s, last)
	w.Backend = w.Reopen(t)
	again := w.again(s)
	w.equal(again.Rekeying.Candidates[0].Steps, []lorawan.Rekey{orders[0].Rekey, last.Rekey})
	w.ok(w.ProveKeySet(w.ctx, again, next, w.audit(joinery.AuditRekeyObeyed)))
	w.send(s, last) // obeyed, but its JoinEUI is the old one still: told again, and no candidate
	w.join(s)
	again = w.again(s)
	if len(again.Rekeying.Candidates) != 0 || again.Rekeying.Order.Sent != 2 {
		t.Errorf("told again: %+v", again.Rekeying)
	}
	all, err := w.Activations(w.ctx, s.Device.ID, 100)
	w.ok(err)
	if len(all) != 5 {
		t.Errorf("%d activations over all key sets, want 5", len(all))
	}
	full, err := w.RekeyingDevice(w.ctx, s.Device.ID)
	w.ok(err)
	w.equal(full.KeySet.Steps, again.KeySet.Steps)
	// The maker's file again changes nothing.
	d := derived(1)
	d.KeySet.Generation = 4
	if r := w.importAs(w.org, d)[0]; r.Status != joinery.RowUnchanged {
		t.Errorf("imported again: %s, %s", r.Status, r.Reason)
	}
	w.CheckInvariants(t)
}

// rekeyApproval: what waits for another person is nothing to joins; all of what that
// one looked at is armed, or none.
func rekeyApproval(t *testing.T, open func(testing.TB) Backend) {
	w, s, j := rekeyWorld(t, open)
	d := derived(2)
	other := w.add(d)
	request := func(s joinery.ActivationState, n byte) joinery.RekeyOrder {
		o := w.order(s, n)
		o.Server = j.ID
		o.State, o.ArmedAt, o.Person, o.Thumbprint = joinery.RekeyRequested, time.Time{}, joinery.NewPersonID(), "key"
		w.ok(w.ArmRekey(w.ctx, o, j.ID, w.audit(joinery.AuditRekeyRequested)))
		return o
	}
	first, second := request(s, 1), request(other, 2)
	w.refused(w.ArmRekey(w.ctx, w.order(s, 3), j.ID, w.audit(joinery.AuditRekeyArmed)), joinery.CodeConflict)
	w.refused(w.RemoveJoinServer(w.ctx, j.ID, w.audit(joinery.AuditJoinServerRemoved)), joinery.CodeConflict)
	if got := w.again(s); got.Device.Rekeying || got.KeySet.Version != s.KeySet.Version {
		t.Error("joins look at an order that nobody approved")
	}
	list, err := w.RekeyRequests(w.ctx, w.org, 0, 10)
	w.ok(err)
	w.equal(list, []joinery.RekeyOrder{first, second})
	if list, err = w.RekeyRequests(w.ctx, w.org, first.ID, 10); err != nil || len(list) != 1 {
		t.Error(list, err)
	}

	// One of the two was taken back: the other is not armed either.
	w.ok(w.EndRekey(w.ctx, second.ID, w.org, joinery.RekeyCancelled, w.audit(joinery.AuditRekeyCancelled)))
	entry := w.audit(joinery.AuditRekeyApproved)
	entry.Actor = "another"
	keys := map[joinery.JoinServerID][]byte{j.ID: j.TransportKey}
	w.refused(w.ApproveRekeys(w.ctx, []joinery.RekeyOrder{first, second}, keys, []joinery.AuditEntry{entry, entry}), joinery.CodeConflict)
	for _, other := range []map[joinery.JoinServerID][]byte{nil, {j.ID: randomBytes(400)}} { // pinned since the approver looked
		w.refused(w.ApproveRekeys(w.ctx, []joinery.RekeyOrder{first}, other, []joinery.AuditEntry{entry}), joinery.CodeConflict)
	}
	if w.again(s).Device.Rekeying {
		t.Error("half of what was approved is armed")
	}
	w.ok(w.ApproveRekeys(w.ctx, []joinery.RekeyOrder{first}, keys, []joinery.AuditEntry{entry}))
	want := first
	want.State, want.ArmedAt, want.DecidedBy = joinery.RekeyArmed, entry.At, entry.Actor
	w.equal(w.again(s).Rekeying, &joinery.Rekeying{Order: &want})
	w.refused(w.EndRekey(w.ctx, first.ID, w.org, joinery.RekeyRejected, w.audit(joinery.AuditRekeyRejected)), joinery.CodeConflict)

	// What was rejected, and what was taken back before, is nothing to joins.
	third := request(other, 4)
	w.ok(w.EndRekey(w.ctx, third.ID, w.org, joinery.RekeyRejected, w.audit(joinery.AuditRekeyRejected)))
	late := w.order(other, 5)
	late.At, late.Server = third.At.Add(time.Minute), j.ID
	w.ok(w.ArmRekey(w.ctx, late, j.ID, w.audit(joinery.AuditRekeyArmed)))
	w.equal(w.again(other).Rekeying, &joinery.Rekeying{Order: &late})
	orders, err := w.RekeyOrders(w.ctx, other.Device.ID)
	w.ok(err)
	if len(orders) != 3 || orders[1].State != joinery.RekeyRejected || orders[1].DecidedBy == "" {
		t.Errorf("%+v", orders)
	}
	w.CheckInvariants(t)
}

// rekeyUncovered: fsck finds orders that were armed otherwise than another person
// approved them.
func rekeyUncovered(t *testing.T, open func(testing.TB) Backend) {
	w, s, j := rekeyWorld(t, open)
	n := byte(0)
	plant := func(change func(requested, approved *joinery.AuditEntry), want string, alsoBy ...string) {
		t.Helper()
		n++
		o := w.order(s, n)
		o.Server, o.State, o.ArmedAt, o.Thumbprint, o.RekeyKey = j.ID, joinery.RekeyRequested, time.Time{}, "key", n%2 == 0
		said := func(event joinery.AuditEvent, actor string) joinery.AuditEntry {
			e := w.about(event, s)
			e.Actor, e.At = actor, o.At.Add(time.Second)
			e.Detail = map[string]string{"order": o.ID.String(), "new_join_eui": o.Rekey.JoinEUI.String(), "key": o.Thumbprint}
			if o.RekeyKey {
				e.Detail["rekeying_key"] = "goes with it"
			}
			return e
		}
		requested, approved := said(joinery.AuditRekeyRequested, o.By), said(joinery.AuditRekeyApproved, "another")
		before := len(w.Violations(t))
		change(&requested, &approved)
		entries := []joinery.AuditEntry{requested}
		for _, actor := range alsoBy {
			entries = append(entries, said(joinery.AuditRekeyApproved, actor))
		}
		w.ok(w.ArmRekey(w.ctx, o, j.ID, entries...))
		w.ok(w.ApproveRekeys(w.ctx, []joinery.RekeyOrder{o}, map[joinery.JoinServerID][]byte{j.ID: j.TransportKey}, []joinery.AuditEntry{approved}))
		found := w.Violations(t)
		if hit := slices.ContainsFunc(found, func(v string) bool { return strings.Contains(v, o.ID.String()) && strings.Contains(v, want) }); hit != (want != "") || !hit && len(found) != before {
			t.Errorf("fsck finds %q, want %q", found, want)
		}
		w.ok(w.EndRekey(w.ctx, o.ID, w.org, joinery.RekeyCancelled, w.about(joinery.AuditRekeyCancelled, s)))
	}
	const covers = "device, JoinEUI, key and whether the rekeying key goes"
	for range 2 {
		plant(func(_, _ *joinery.AuditEntry) {}, "")
	}
	plant(func(_, a *joinery.AuditEntry) { a.Detail["key"] = "another" }, covers)
	plant(func(_, a *joinery.AuditEntry) { a.Detail["new_join_eui"] = s.Device.DevEUI.String() }, covers)
	plant(func(_, a *joinery.AuditEntry) { a.Detail["rekeying_key"] = "goes with it" }, covers)
	plant(func(_, a *joinery.AuditEntry) { delete(a.Detail, "rekeying_key") }, covers)
	plant(func(r, _ *joinery.AuditEntry) { r.Detail["key"] = "another" }, covers)
	plant(func(_, a *joinery.AuditEntry) { a.Event = joinery.AuditRekeySent }, "has his approval")
	plant(func(_, a *joinery.AuditEntry) { a.Event = joinery.AuditRekeySent }, "who the log says", "nobody")
	plant(func(_, a *joinery.AuditEntry) { a.Actor = "storetest" }, "not approved by who asked")
}

// rekeyRecipients: what goes to a recipient of the owner's is disclosed for ever,
// also where the device turns out to have other keys.
func rekeyRecipients(t *testing.T, open func(testing.TB) Backend) {
	w, s, j := rekeyWorld(t, open)
	r := w.recipient(w.org, "a")
	arm := func(n byte) joinery.RekeyOrder {
		o := w.order(s, n)
		o.Recipient, o.Thumbprint, o.To = r.ID, r.Thumbprint, r.Name
		w.ok(w.ArmRekey(w.ctx, o, 0, w.audit(joinery.AuditRekeyArmed)))
		return o
	}
	o := arm(1)
	w.equal(w.again(s).Rekeying, &joinery.Rekeying{Order: &o})
	disclose := func(o joinery.RekeyOrder) {
		t.Helper()
		w.ok(w.DiscloseRekey(w.ctx, w.again(s), o, joinery.NewKeySetID(), w.audit(joinery.AuditRekeyHandedOver), w.audit(joinery.AuditKeysExposed)))
	}
	disclose(o)
	disclose(o) // as often as the file is lost
	after := w.again(s)
	if !after.Device.Disclosed || after.KeySet.Disclosed || len(after.Rekeying.Candidates) != 1 {
		t.Errorf("%+v", after)
	}
	err := w.DiscloseRekey(w.ctx, s, o, joinery.NewKeySetID(), w.audit(joinery.AuditRekeyHandedOver), w.audit(joinery.AuditKeysExposed))
	if err != joinery.ErrSwapLost { //nolint:errorlint // the store promises this very value
		t.Errorf("by an old state: %v", err)
	}
	w.send(s, o)
	if n := len(w.again(s).Rekeying.Candidates); n != 1 {
		t.Errorf("%d candidates of one order", n)
	}
	w.ok(w.EndRekey(w.ctx, o.ID, w.org, joinery.RekeyCancelled, w.audit(joinery.AuditRekeyCancelled)))
	later := w.arm(s, j.ID, 2)
	set := w.send(s, later)
	w.ok(w.ProveKeySet(w.ctx, w.again(s), set, w.audit(joinery.AuditRekeyObeyed)))
	known, err := w.Disclosures(w.ctx, s.Device.ID)
	w.ok(err)
	if len(known) != 2 || known[0].Rekey != o.ID || known[0].Recipient != r.Thumbprint || known[0].Kind != r.Kind || known[0].Export != 0 {
		t.Errorf("%+v", known)
	}
	if after = w.again(s); !after.Device.Disclosed || after.KeySet.Disclosed {
		t.Errorf("%+v", after)
	}
	w.CheckInvariants(t)

	// Who forgets a recipient ends what goes there.
	w.ok(w.EndRekey(w.ctx, later.ID, w.org, joinery.RekeyCancelled, w.audit(joinery.AuditRekeyCancelled)))
	last := arm(3)
	w.ok(w.RemoveRecipient(w.ctx, r.ID, w.audit(joinery.AuditRecipientRemoved)))
	orders, err := w.RekeyOrders(w.ctx, s.Device.ID)
	w.ok(err)
	if orders[0].ID != last.ID || orders[0].State != joinery.RekeyCancelled {
		t.Errorf("%+v", orders[0])
	}
	again := w.order(s, 4)
	again.Recipient = r.ID
	w.refused(w.ArmRekey(w.ctx, again, 0, w.audit(joinery.AuditRekeyArmed)), joinery.CodeNotFound)
	w.CheckInvariants(t)
}

// saysCancelled wants, since an entry, one that says why an order ended, for who gave
// it and with nobody else's name.
func (w *world) saysCancelled(since int64, o joinery.RekeyOrder, by string) {
	w.t.Helper()
	got, _ := w.audited(since)
	got = slices.DeleteFunc(got, func(e joinery.AuditEntry) bool { return e.Event != joinery.AuditRekeyCancelled })
	w.says(by, got, said{joinery.AuditRekeyCancelled, o.Owner, map[string]string{"order": o.ID.String(), "by": by, "to": "there"}})
	if got[0].Device != o.Device {
		w.t.Errorf("%s: about %s", by, got[0].Device)
	}
}

// rekeyMeanwhile: what was decided by a state that is gone writes nothing.
func rekeyMeanwhile(t *testing.T, open func(testing.TB) Backend) {
	w, s, j := rekeyWorld(t, open)
	o := w.arm(s, j.ID, 1)
	old := w.again(s)
	set := w.send(s, o)
	lost := func(what string, err error) {
		t.Helper()
		if err != joinery.ErrSwapLost { //nolint:errorlint // the store promises this very value
			t.Errorf("%s: %v", what, err)
		}
	}
	lost("sent by an old state", w.NoteRekeySent(w.ctx, old, o, joinery.NewKeySetID(), epoch, w.audit(joinery.AuditRekeySent)))
	lost("proven by an old state", w.ProveKeySet(w.ctx, old, set, w.audit(joinery.AuditRekeyObeyed)))
	lost("a join by an old state", w.CommitActivation(w.ctx, NextCommit(old)))
	lost("no candidate", w.ProveKeySet(w.ctx, w.again(s), joinery.NewKeySetID(), w.audit(joinery.AuditRekeyObeyed)))
	now := w.again(s)
	stranger := w.addOrg("stranger")
	_, last := w.audited(0)
	w.ok(w.Claim(w.ctx, s.Device.ID, 0, stranger, nil, w.audit(joinery.AuditDeviceClaimed)))
	w.saysCancelled(last, o, "change of hands")
	lost("sent after a change of hands", w.NoteRekeySent(w.ctx, now, o, joinery.NewKeySetID(), epoch, w.audit(joinery.AuditRekeySent)))
	lost("sent after its end", w.NoteRekeySent(w.ctx, w.again(s), o, joinery.NewKeySetID(), epoch, w.audit(joinery.AuditRekeySent)))
	w.refused(w.EndRekey(w.ctx, o.ID, w.org, joinery.RekeyConfirmed, w.audit(joinery.AuditRekeyConfirmed)), joinery.CodeConflict)
	w.refused(w.ArmRekey(w.ctx, w.order(s, 2), j.ID, w.audit(joinery.AuditRekeyArmed)), joinery.CodeConflict)
	if got := w.again(s).Rekeying; got.Order.State != joinery.RekeyCancelled || len(got.Candidates) != 1 {
		t.Errorf("after a change of hands: %+v", got)
	}
	w.ok(w.ProveKeySet(w.ctx, w.again(s), set, w.audit(joinery.AuditRekeyObeyed)))
	w.CheckInvariants(t)
}

// rekeyReleased: a device that was let go stands under the operator's organisation, and
// yet its keys are nobody's to send, also by an order that the device may have obeyed.
func rekeyReleased(t *testing.T, open func(testing.TB) Backend) {
	w, s, j := rekeyWorld(t, open)
	w.ok(w.Claim(w.ctx, s.Device.ID, 0, w.operator(), nil, w.audit(joinery.AuditDeviceClaimed)))
	s = w.again(s)
	o := w.order(s, 1)
	o.Owner, o.Server = w.operator(), j.ID
	w.ok(w.ArmRekey(w.ctx, o, j.ID, w.audit(joinery.AuditRekeyArmed)))
	w.send(s, o)
	offer := []joinery.PassageOffer{{Order: o.ID, Owner: o.Owner, Entry: w.audit(joinery.AuditRekeyHandedOver)}}
	w.ok(w.NoteHandover(w.ctx, j, o.At, offer))
	w.ok(w.does(w.change(joinery.ActRelease, w.again(s), 0)))

	w.refused(w.NoteHandover(w.ctx, j, o.At, offer), joinery.CodeConflict)
	again := w.order(s, 2)
	again.Owner, again.Server = o.Owner, j.ID
	w.refused(w.ArmRekey(w.ctx, again, j.ID, w.audit(joinery.AuditRekeyArmed)), joinery.CodeConflict)
	again.State = joinery.RekeyRequested
	w.refused(w.ArmRekey(w.ctx, again, j.ID, w.audit(joinery.AuditRekeyRequested)), joinery.CodeConflict)
	r := w.recipient(o.Owner, "a")
	o.Recipient = r.ID
	w.refused(w.DiscloseRekey(w.ctx, w.again(s), o, joinery.NewKeySetID(), w.audit(joinery.AuditRekeyHandedOver), w.audit(joinery.AuditKeysExposed)), joinery.CodeConflict)
	w.CheckInvariants(t)
}
