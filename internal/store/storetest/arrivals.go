package storetest

import (
	"context"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/auditlog"
	"joinery/internal/exposure"
	"joinery/lorawan"
)

// HandingOver is hand-overs from server to server.
type HandingOver interface {
	DuePassages(ctx context.Context, to joinery.JoinServerID, now, until time.Time, limit int) ([]joinery.RekeyOrder, error)
	NextPassage(ctx context.Context, to joinery.JoinServerID) (due time.Time, waits bool, err error)
	PassageCounts(ctx context.Context) (map[joinery.PassageState]int, error)
	NoteOffered(ctx context.Context, to joinery.JoinServer, now time.Time, list []joinery.PassageOffer) ([]joinery.RekeyID, error)
	NoteHandover(ctx context.Context, to joinery.JoinServer, now time.Time, list []joinery.PassageOffer) error
	MovePassage(ctx context.Context, id joinery.RekeyID, p joinery.Passage, a joinery.AuditEntry) error
	TakeReceipt(ctx context.Context, from joinery.JoinServerID, after, next joinery.ReceiptPlace, list []joinery.PassageChange) error
	ReadReceiptsAgain(ctx context.Context, from joinery.JoinServerID, epoch uint64, now time.Time) error
	Arrive(ctx context.Context, a joinery.Arrival, limit int, entry joinery.AuditEntry) (joinery.Arrival, error)
	RefuseArrival(ctx context.Context, id joinery.ArrivalID, reason string, news []byte, entry joinery.AuditEntry) (bool, error)
	ParkedArrivals(ctx context.Context, before time.Time, limit int) ([]joinery.Arrival, error)
	TakeArrival(ctx context.Context, in joinery.ArrivedDevice, entry joinery.AuditEntry) error
	TellArrival(ctx context.Context, id joinery.ArrivalID, told joinery.Told, at time.Time) error
	NoteArrivalJoined(ctx context.Context, id joinery.ArrivalID, news []byte, entry joinery.AuditEntry) error
	Arrival(ctx context.Context, id joinery.ArrivalID) (joinery.Arrival, error)
	Arrivals(ctx context.Context, org joinery.OrgID, after joinery.ArrivalID, limit int) ([]joinery.Arrival, error)
	ExpectedArrivals(ctx context.Context, from joinery.JoinServerID, now time.Time, limit int) ([]joinery.Arrival, error)
	JoinedArrivals(ctx context.Context, from joinery.JoinServerID, after joinery.ArrivalID, limit int) ([]joinery.Arrival, error)
	JoinedArrivalsOf(ctx context.Context, device joinery.DeviceID) ([]joinery.Arrival, error)
	CameBy(ctx context.Context, device joinery.DeviceID) (joinery.Arrival, error)
	ArrivalNews(ctx context.Context, from joinery.JoinServerID, after uint64, limit int) ([]joinery.ArrivalNews, joinery.ReceiptPlace, error)
	Expect(ctx context.Context, x joinery.Expectation, limit int, entry joinery.AuditEntry) error
	EndExpectation(ctx context.Context, id joinery.ExpectationID, org joinery.OrgID, entry joinery.AuditEntry) error
	Expectations(ctx context.Context, org joinery.OrgID) ([]joinery.Expectation, error)
}

// reached pins a Join Server that is reached, and may hand over.
func (w *world) reached() joinery.JoinServer {
	everywhere := []joinery.EUIRange{{Last: lorawan.EUI64{255, 255, 255, 255, 255, 255, 255, 255}}}
	j := joinery.JoinServer{
		ID: joinery.NewJoinServerID(), Name: "reached", TransportKey: randomBytes(400), ReceiptKey: randomBytes(91), URL: "https://there.example.com",
		Identity: joinery.Credential{Kind: joinery.CredentialSPKI, SPKI: [32]byte{1}}, Theirs: everywhere, Ours: everywhere, CreatedAt: epoch,
	}
	w.ok(w.AddJoinServer(w.ctx, j, w.audit(joinery.AuditJoinServerAdded)))
	return j
}

// passages: an order to a Join Server that is reached is due until it is settled,
// and what its receipts say is done once.
func passages(t *testing.T, open func(testing.TB) Backend) {
	w, s, _ := rekeyWorld(t, open)
	j := w.reached()
	o := w.order(s, 1)
	o.To, o.RekeyKey = j.Name, true
	w.ok(w.ArmRekey(w.ctx, o, j.ID, w.audit(joinery.AuditRekeyArmed)))
	if got := w.again(s).Rekeying.Order; !got.Held() || !got.RekeyKey {
		t.Errorf("armed: %+v", got)
	}
	due := func(at time.Time, want int) []joinery.RekeyOrder {
		t.Helper()
		list, err := w.DuePassages(w.ctx, j.ID, at, at.Add(time.Minute), 10)
		w.ok(err)
		if len(list) != want {
			t.Fatalf("%d are due, want %d", len(list), want)
		}
		return list
	}
	due(o.At.Add(-time.Second), 0)
	due(o.At, 1)
	due(o.At, 0) // somebody took it up
	again := due(o.At.Add(time.Minute), 1)
	offers := []joinery.PassageOffer{{Order: o.ID, Owner: w.org, Sum: []byte{7}, Entry: w.audit(joinery.AuditRekeyHandedOver)}}
	goes := func(to joinery.JoinServer, owner joinery.OrgID, at time.Time, want int) {
		t.Helper()
		l := []joinery.PassageOffer{{Order: o.ID, Owner: owner, Sum: []byte{7}, Entry: w.audit(joinery.AuditRekeyHandedOver)}}
		ids, err := w.NoteOffered(w.ctx, to, at, l)
		w.ok(err)
		w.equal(len(ids), want)
		if err := w.NoteHandover(w.ctx, to, at, l); want == 0 {
			w.refused(err, joinery.CodeConflict)
		}
	}
	before := w.entries()
	repinned := j
	repinned.TransportKey = randomBytes(400)
	goes(repinned, w.org, o.At, 0)
	goes(j, w.org, o.ExpiresAt, 0)
	goes(j, joinery.NewOrgID(), o.At, 0)
	goes(joinery.JoinServer{ID: joinery.NewJoinServerID(), TransportKey: j.TransportKey}, w.org, o.At, 0)
	w.equal(w.entries(), before)
	ids, err := w.NoteOffered(w.ctx, j, o.At, offers)
	w.ok(err)
	w.equal(ids, []joinery.RekeyID{o.ID})
	_, err = w.NoteOffered(w.ctx, j, o.At, offers) // the same again is no news
	w.ok(err)
	w.equal(w.entries(), before+1)
	move := func(state joinery.PassageState) {
		t.Helper()
		p := *again[0].Passage
		p.State, p.NextAt, p.ChangedAt = state, time.Time{}, epoch
		w.ok(w.MovePassage(w.ctx, o.ID, p, w.audit(joinery.AuditRekeyPassage)))
	}
	version := w.again(s).KeySet.Version
	move(joinery.PassageTaken)
	got := w.again(s)
	if got.Rekeying.Order.Held() || got.KeySet.Version == version || len(got.Rekeying.Order.Passage.Offered) != 1 {
		t.Errorf("taken: %+v", got.Rekeying.Order.Passage)
	}
	due(o.At.Add(time.Hour), 0)
	w.send(s, o)
	again = due(o.At.Add(time.Hour), 1) // with one key set more
	// What came while it was offered again stays due, whoever tells how it stands.
	w.ok(w.ProveKeySet(w.ctx, w.again(s), w.again(s).Rekeying.Candidates[0].ID, w.audit(joinery.AuditRekeyObeyed)))
	move(joinery.PassageTaken)
	again = due(o.At.Add(2*time.Hour), 1)
	move(joinery.PassageTaken)
	due(o.At.Add(3*time.Hour), 0)

	joined := joinery.PassageChange{
		Order: o.ID, Passage: joinery.Passage{State: joinery.PassageJoined, ChangedAt: epoch}, Entry: w.audit(joinery.AuditRekeyPassage),
		State: joinery.RekeyConfirmed, Ended: w.audit(joinery.AuditRekeyConfirmed),
	}
	at := func(epoch, n uint64) joinery.ReceiptPlace { return joinery.ReceiptPlace{Epoch: epoch, N: n} }
	w.refused(w.TakeReceipt(w.ctx, j.ID, at(0, 3), at(0, 4), []joinery.PassageChange{joined}), joinery.CodeConflict)
	w.ok(w.ReadReceiptsAgain(w.ctx, j.ID, 8, epoch))
	w.refused(w.TakeReceipt(w.ctx, j.ID, at(0, 0), at(0, 4), []joinery.PassageChange{joined}), joinery.CodeConflict)
	w.ok(w.TakeReceipt(w.ctx, j.ID, at(8, 0), at(8, 4), []joinery.PassageChange{joined}))
	w.refused(w.TakeReceipt(w.ctx, j.ID, at(8, 0), at(8, 4), []joinery.PassageChange{joined}), joinery.CodeConflict)
	w.refused(w.TakeReceipt(w.ctx, j.ID, at(7, 4), at(7, 5), []joinery.PassageChange{joined}), joinery.CodeConflict)
	w.ok(w.ReadReceiptsAgain(w.ctx, j.ID, 0, epoch))
	w.ok(w.TakeReceipt(w.ctx, j.ID, at(0, 0), at(0, 4), []joinery.PassageChange{joined}))
	move(joinery.PassageParked) // too late
	w.Backend = w.Reopen(t)
	end := w.again(s).Rekeying.Order
	if end.State != joinery.RekeyConfirmed || end.Passage.State != joinery.PassageJoined {
		t.Errorf("in the end: %+v, %+v", end, end.Passage)
	}
	counts, err := w.PassageCounts(w.ctx)
	w.ok(err)
	w.equal(counts, map[joinery.PassageState]int{joinery.PassageJoined: 1})
	w.CheckInvariants(t)
}

// arrivals: what came is parked, expected, taken once, told once, and nobody's who
// does not hold its JoinEUI.
func arrivals(t *testing.T, open func(testing.TB) Backend) {
	w, s, _ := rekeyWorld(t, open)
	j := w.reached()
	came := func(ref string, devEUI byte) joinery.Arrival {
		return joinery.Arrival{
			ID: joinery.NewArrivalID(), From: j.ID, Ref: ref, Org: w.org, JoinEUI: s.Device.JoinEUI, DevEUI: lorawan.EUI64{0xEE, 7: devEUI},
			Cookie: lorawan.Cookie{devEUI}, Reason: "seal", Content: []byte("sealed " + ref), OfferedAt: epoch, At: epoch, ChangedAt: epoch,
		}
	}
	entry := w.audit(joinery.AuditRekeyArrived)
	one := came("1", 1)
	told := entry
	told.Org, told.Detail = w.org, map[string]string{"arrival": one.ID.String(), "dev_eui": one.DevEUI.String()}
	first, err := w.Arrive(w.ctx, one, 2, told)
	w.ok(err)
	again, err := w.Arrive(w.ctx, came("1", 1), 2, entry)
	w.ok(err)
	w.equal(again, first)
	_, err = w.Arrive(w.ctx, came("1", 2), 2, entry)
	w.refused(err, joinery.CodeConflict)
	second, err := w.Arrive(w.ctx, came("2", 2), 2, entry)
	w.ok(err)
	_, err = w.Arrive(w.ctx, came("3", 3), 2, entry)
	w.refused(err, joinery.CodeExhausted)
	parkedElsewhere(w, j, s.Device.JoinEUI)

	x := joinery.Expectation{
		ID: joinery.NewExpectationID(), Org: w.org, From: j.ID, Server: j.Name, Devices: joinery.EUIRange{First: first.DevEUI, Last: first.DevEUI},
		Binding: &joinery.Binding{NetID: lorawan.NetID{0, 0, 0x13}, Source: "owner"}, By: "storetest", At: epoch, ExpiresAt: epoch.Add(time.Hour),
	}
	w.ok(w.Expect(w.ctx, x, 1, w.audit(joinery.AuditExpectation)))
	x2 := x
	x2.ID = joinery.NewExpectationID()
	w.refused(w.Expect(w.ctx, x2, 1, w.audit(joinery.AuditExpectation)), joinery.CodeExhausted)
	expectations, err := w.Expectations(w.ctx, w.org)
	w.ok(err)
	w.equal(expectations, []joinery.Expectation{x})
	expected, err := w.ExpectedArrivals(w.ctx, j.ID, epoch, 10)
	w.ok(err)
	w.equal(expected, []joinery.Arrival{first})
	expected, err = w.ExpectedArrivals(w.ctx, 0, epoch.Add(time.Hour), 10)
	w.ok(err)
	w.equal(len(expected), 0)

	in := arrivedDevice(first, 2)
	in.Told = fromElsewhere(true)
	w.ok(w.TakeArrival(w.ctx, in, w.audit(joinery.AuditRekeyTaken)))
	w.ok(w.TakeArrival(w.ctx, in, w.audit(joinery.AuditRekeyTaken)))
	w.refused(w.TakeArrival(w.ctx, arrivedDevice(joinery.Arrival{ID: joinery.NewArrivalID()}, 1), w.audit(joinery.AuditRekeyTaken)), joinery.CodeNotFound)
	for _, want := range []bool{true, false} {
		refused, err := w.RefuseArrival(w.ctx, second.ID, "seal", []byte("two"), w.audit(joinery.AuditRekeyRefused))
		w.ok(err)
		w.equal(refused, want)
	}
	better := came("2", 2)
	better.OfferedAt = epoch.Add(time.Second)
	second, err = w.Arrive(w.ctx, better, 2, entry) // offered anew, sealed as it should be
	w.ok(err)
	w.equal(second.State, joinery.ArrivalParked)

	state, err := w.LoadActivation(w.ctx, first.JoinEUI, first.DevEUI)
	w.ok(err)
	custody, err := w.CustodyEntries(w.ctx, joinery.CustodyQuery{Device: state.Device.ID}) // begins before it was a device here
	w.ok(err)
	w.equal([]any{custody[0].Event, custody[0].Subject}, []any{joinery.AuditRekeyArrived, int64(first.ID)})
	if len(state.Rekeying.Candidates) != 1 || !state.KeySet.CanRekey() || state.KeySet.Nonces.JoinNonce != 100 || state.Device.Rekey != joinery.RekeyS {
		t.Fatalf("taken: %+v", state)
	}
	w.equal([]bool{state.Device.Disclosed, state.KeySet.Disclosed}, []bool{true, false})
	w.ok(w.OpenReset(w.ctx, state.Device.ID, w.org, epoch, 5000, w.audit(joinery.AuditNoncesReset))) // a raised JoinNonce is no join
	state, err = w.RekeyingDevice(w.ctx, state.Device.ID)
	w.ok(err)
	none, err := w.JoinedArrivals(w.ctx, j.ID, 0, 10)
	w.ok(err)
	w.equal(len(none), 0)
	w.ok(w.ProveKeySet(w.ctx, state, in.Keys[1].KeySet.ID, w.audit(joinery.AuditRekeyObeyed)))
	state, err = w.RekeyingDevice(w.ctx, state.Device.ID)
	w.ok(err)
	w.equal(state.KeySet.Held.KeySet, in.Keys[1].Held.ID)
	w.equal([]bool{state.Device.Disclosed, state.KeySet.Disclosed, state.Device.Told.Server == in.Told.Server}, []bool{true, false, true})
	saying, err := w.LinkEntries(w.ctx, state.Device.ID)
	w.ok(err)
	w.equal(len(saying), 1) // told once, taken twice
	w.equal([]bool{state.Device.RekeyKeyCame, state.RekeyKeyOutside()}, []bool{true, false})

	// What comes with more key sets is told again: without times, too, it adds.
	more := arrivedDevice(first, 3)
	more.Keys[0].Label, more.Keys[1].Label = in.Keys[0].Label, in.Keys[1].Label
	more.Told = fromElsewhere(true)
	more.Told.Times, more.Told.Outside = nil, true
	w.ok(w.TakeArrival(w.ctx, more, w.audit(joinery.AuditRekeyTaken)))
	state, err = w.RekeyingDevice(w.ctx, state.Device.ID)
	w.ok(err)
	w.equal([]bool{state.Device.Told.Outside, state.RekeyKeyOutside(), state.KeySet.Disclosed}, []bool{true, true, true})
	saying, err = w.LinkEntries(w.ctx, state.Device.ID)
	w.ok(err)
	w.equal(len(saying), 2)
	w.ok(w.CommitActivation(w.ctx, NextCommit(state)))
	joined, err := w.JoinedArrivals(w.ctx, j.ID, 0, 10)
	w.ok(err)
	w.equal(len(joined), 1)
	further, err := w.JoinedArrivals(w.ctx, j.ID, joined[0].ID, 10)
	w.ok(err)
	w.equal(len(further), 0)
	ofDevice, err := w.JoinedArrivalsOf(w.ctx, state.Device.ID)
	w.ok(err)
	w.equal(ofDevice, joined)
	_, err = w.CameBy(w.ctx, state.Device.ID)
	w.refused(err, joinery.CodeNotFound) // nobody noted that it joined
	for range 2 {
		w.ok(w.NoteArrivalJoined(w.ctx, first.ID, []byte("three"), w.audit(joinery.AuditRekeyReceived)))
	}
	by, err := w.CameBy(w.ctx, state.Device.ID)
	w.ok(err)
	w.equal(by.ID, first.ID)

	// What is told of it later is kept once, also without a key set, and before it was
	// taken in there is nothing of which to tell.
	later := *fromElsewhere(true, exposure.Time{At: epoch, Recipient: strings.Repeat("l", 43), Kind: "file", Reference: "exp_later"})
	w.ok(w.TellArrival(w.ctx, first.ID, later, epoch))
	for _, a := range []joinery.Arrival{first, second} {
		w.writesNothing(func(ctx context.Context) error { return w.TellArrival(ctx, a.ID, later, epoch) })
	}
	known, err := w.Disclosures(w.ctx, state.Device.ID)
	w.ok(err)
	w.equal([]string{known[0].Reference, known[1].Reference}, []string{"exp_1", "exp_later"})
	saying, err = w.LinkEntries(w.ctx, state.Device.ID)
	w.ok(err)
	w.equal(len(saying), 3)
	w.Backend = w.Reopen(t)
	news, newest, err := w.ArrivalNews(w.ctx, j.ID, 1, 10)
	w.ok(err)
	w.equal(news, []joinery.ArrivalNews{{N: 2, Line: []byte("two")}, {N: 3, Line: []byte("three")}})
	w.equal(newest, joinery.ReceiptPlace{N: 3})

	stranger := w.addOrg("stranger")
	theirs, err := w.Arrivals(w.ctx, stranger, 0, 10)
	w.ok(err)
	w.equal(len(theirs), 0)
	w.refused(w.EndExpectation(w.ctx, x.ID, stranger, w.audit(joinery.AuditExpectationEnded)), joinery.CodeNotFound)
	w.ok(w.EndExpectation(w.ctx, x.ID, w.org, w.audit(joinery.AuditExpectationEnded)))

	// What it derives from a rekeying key that is from outside is so, too.
	set := w.send(state, w.arm(state, j.ID, 1))
	w.ok(w.ProveKeySet(w.ctx, w.again(state), set, w.audit(joinery.AuditRekeyObeyed)))
	state, err = w.RekeyingDevice(w.ctx, state.Device.ID)
	w.ok(err)
	w.equal(state.KeySet.Origin, joinery.OriginRekeyed)
	w.equal(state.Exposure(nil).Outside, true)
	w.ok(w.StateProvenance(w.ctx, state.Device.ID, w.org, epoch))
	saying, err = w.LinkEntries(w.ctx, state.Device.ID)
	w.ok(err)
	stated, err := auditlog.ParseEvent(saying[len(saying)-1].Payload)
	w.ok(err)
	w.equal(stated.Detail["outside"], "true")

	// What was disclosed where it came from are none of the root keys that it derived here.
	w.ok(w.TellArrival(w.ctx, first.ID, *fromElsewhere(false, exposure.Time{At: epoch, Recipient: strings.Repeat("m", 43), Kind: "file", Reference: "exp_last"}), epoch))
	state, err = w.RekeyingDevice(w.ctx, state.Device.ID)
	w.ok(err)
	w.equal(state.KeySet.Disclosed, false)
	saying, err = w.LinkEntries(w.ctx, state.Device.ID)
	w.ok(err)
	before := len(saying)
	w.ok(w.TellArrival(w.ctx, first.ID, *fromElsewhere(false), epoch))
	saying, err = w.LinkEntries(w.ctx, state.Device.ID)
	w.ok(err)
	w.equal(len(saying), before)

	w.ok(w.DeleteDevice(w.ctx, state.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
	left, err := w.RootsOf(w.ctx, []joinery.KeySetID{in.Keys[1].KeySet.ID, in.Keys[1].Held.ID})
	w.ok(err)
	w.equal(len(left), 0)
	w.ok(w.TakeArrival(w.ctx, in, w.audit(joinery.AuditRekeyTaken)))
	_, err = w.LoadActivation(w.ctx, first.JoinEUI, first.DevEUI)
	w.refused(err, joinery.CodeUnknownDevice)
	w.CheckInvariants(t)
}

// parkedElsewhere: another Join Server has a quota of its own, and what is parked of it
// ends with it.
func parkedElsewhere(w *world, one joinery.JoinServer, joinEUI lorawan.EUI64) {
	w.t.Helper()
	other := joinery.JoinServer{ID: joinery.NewJoinServerID(), Name: "other", TransportKey: randomBytes(400), CreatedAt: epoch}
	w.ok(w.AddJoinServer(w.ctx, other, w.audit(joinery.AuditJoinServerAdded)))
	a, err := w.Arrive(w.ctx, joinery.Arrival{
		ID: joinery.NewArrivalID(), From: other.ID, Ref: "1", Org: w.org, JoinEUI: joinEUI, DevEUI: lorawan.EUI64{0xEF}, Reason: "seal", Content: []byte("sealed"),
		OfferedAt: epoch, At: epoch, ChangedAt: epoch.Add(time.Minute),
	}, 1, w.audit(joinery.AuditRekeyArrived))
	w.ok(err)
	parked := func(before time.Time, want int) []joinery.Arrival {
		list, err := w.ParkedArrivals(w.ctx, before, 10)
		w.ok(err)
		w.equal(len(list), want)
		return list
	}
	parked(epoch, 0)
	parked(epoch.Add(time.Minute), 2)
	w.equal(parked(epoch.Add(time.Hour), 3)[2], a)
	w.ok(w.Expect(w.ctx, joinery.Expectation{
		ID: joinery.NewExpectationID(), Org: w.org, From: other.ID, Devices: joinery.EUIRange{First: a.DevEUI, Last: a.DevEUI}, By: "storetest", At: epoch, ExpiresAt: epoch.Add(time.Hour),
	}, 1, w.audit(joinery.AuditExpectation)))
	w.ok(w.RemoveJoinServer(w.ctx, other.ID, w.audit(joinery.AuditJoinServerRemoved)))
	a, err = w.Arrival(w.ctx, a.ID)
	w.ok(err)
	if a.State != joinery.ArrivalRefused || len(a.Content) != 0 {
		w.t.Errorf("of a Join Server that is pinned no more: %+v", a)
	}
	expected, err := w.Expectations(w.ctx, w.org)
	w.ok(err)
	w.equal(len(expected), 0)
}

// arrivedDevice makes a device with so many key sets of an arrival, each with its
// rekeying key.
func arrivedDevice(a joinery.Arrival, sets int) joinery.ArrivedDevice {
	in := joinery.ArrivedDevice{Arrival: a.ID, News: []byte("one"), Device: joinery.Device{
		ID: joinery.NewDeviceID(), JoinEUI: a.JoinEUI, DevEUI: a.DevEUI, MACVersion: lorawan.MAC1_1, Rekey: joinery.RekeyS, CreatedAt: epoch,
	}}
	sealed := func() joinery.KeySet {
		return joinery.KeySet{
			ID: joinery.NewKeySetID(), DevEUI: a.DevEUI, Origin: joinery.OriginSealed, Root10: joinery.NwkKey, Nonces: joinery.Nonces{JoinNonce: 100},
			Nwk: joinery.SealedRoot{Use: randomBytes(57), Custody: randomBytes(300)}, App: joinery.SealedRoot{Use: randomBytes(57), Custody: randomBytes(300)},
		}
	}
	for i := range sets {
		in.Keys = append(in.Keys, joinery.ArrivedKeys{Label: string(rune('a' + i)), KeySet: sealed(), Held: sealed()})
	}
	return in
}

// entries counts what is in the audit log.
func (w *world) entries() int {
	w.t.Helper()
	list, _ := w.audited(0)
	return len(list)
}
