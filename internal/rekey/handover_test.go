package rekey_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/internal/export"
	"joinery/internal/exposure"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/rekey"
	"joinery/internal/rekeyfile"
	"joinery/internal/seal"
	"joinery/internal/sim/element"
	"joinery/internal/store"
	"joinery/lorawan"
	"joinery/test/leak"
)

var farther = lorawan.EUI64{0xEC, 0x65, 0x6E, 0xFF, 0xFE, 0, 0, 2}

// direct is a rekey.Link to one server without a network between: as what the
// caller is pinned there, and with what goes both ways on record.
type direct struct {
	to   *server
	from string // what the caller is pinned as
	sent [][]byte

	offers int
}

func (d *direct) pinned(ctx context.Context) (joinery.JoinServer, error) {
	list, err := d.to.Servers(ctx)
	for _, j := range list {
		if j.Name == d.from {
			return j, nil
		}
	}
	return joinery.JoinServer{}, err
}

func (d *direct) Offer(ctx context.Context, _ joinery.JoinServer, file []byte) ([]byte, error) {
	from, err := d.pinned(ctx)
	if err != nil {
		return nil, err
	}
	d.offers++
	o, err := d.to.TakeOffer(ctx, from, file)
	if err != nil {
		return nil, err
	}
	answer, err := json.Marshal(o)
	d.sent = append(d.sent, file, answer)
	return answer, err
}

func (d *direct) Receipts(ctx context.Context, _ joinery.JoinServer, after joinery.ReceiptPlace) ([]byte, error) {
	from, err := d.pinned(ctx)
	if err != nil {
		return nil, err
	}
	file, err := d.to.Tell(ctx, from, after)
	d.sent = append(d.sent, file)
	return file, err
}

// know has a and b pin each other, a as who hands over to b.
func know(a, b *server, joinEUI lorawan.EUI64, name string) (to joinery.JoinServer, l *direct) {
	a.t.Helper()
	pin := func(s, other *server, j joinery.JoinServer) joinery.JoinServer {
		_, public, err := other.keys.Keyring.SignStatement(s.t.Context(), nil)
		ok(s.t, err)
		j.TransportKey, j.ReceiptKey = other.keys.Keyring.TransportKey().MarshalDER(), public
		j.Identity = joinery.Credential{Kind: joinery.CredentialSPKI, SPKI: sha256.Sum256([]byte(j.Name))}
		j, err = s.Pin(s.t.Context(), operator, j)
		ok(s.t, err)
		return j
	}
	only := []joinery.EUIRange{{First: joinEUI, Last: joinEUI}}
	to = pin(a, b, joinery.JoinServer{Name: "to " + name, URL: "https://" + name, Theirs: only})
	pin(b, a, joinery.JoinServer{Name: "from " + name, Ours: only})
	return to, &direct{to: b, from: "from " + name}
}

func (s *server) from(name string) joinery.JoinServer {
	s.t.Helper()
	j, err := (&direct{to: s, from: "from " + name}).pinned(s.t.Context())
	ok(s.t, err)
	return j
}

// pass has one turn with the other server.
func (s *server) pass(l rekey.Link, to joinery.JoinServer) {
	s.t.Helper()
	list, err := s.Servers(s.t.Context())
	ok(s.t, err)
	to = list[slices.IndexFunc(list, func(j joinery.JoinServer) bool { return j.ID == to.ID })]
	_, err = s.Pass(s.t.Context(), l, to)
	ok(s.t, err)
}

func (s *server) wantPassage(id joinery.DeviceID, state joinery.RekeyState, passage joinery.PassageState) joinery.RekeyOrder {
	s.t.Helper()
	st, err := s.Status(s.t.Context(), s.owner, id)
	ok(s.t, err)
	o := st.Orders[0]
	if o.State != state || o.Passage == nil || o.Passage.State != passage {
		s.t.Fatalf("got %+v with %+v, want %s and %s", o, o.Passage, state, passage)
	}
	return o
}

// expect has everything from another server accepted.
func (s *server) expect(name string) {
	s.t.Helper()
	_, err := s.Expect(s.t.Context(), s.owner, rekey.Expect{
		From: s.from(name).ID, Devices: joinery.EUIRange{Last: lorawan.EUI64{255, 255, 255, 255, 255, 255, 255, 255}},
		Binding: &joinery.Binding{NetID: lorawan.NetID{0, 0, 0x13}, ASID: "as.example.com", Policy: joinery.AppSKeyWrapped},
	})
	ok(s.t, err)
}

// arrivedAs finds the device that an element became here.
func (s *server) arrivedAs(joinEUI, devEUI lorawan.EUI64) joinery.DeviceID {
	s.t.Helper()
	state, err := s.store.LoadActivation(s.t.Context(), joinEUI, devEUI)
	ok(s.t, err)
	return state.Device.ID
}

// joins has an element join here as package activation does it: which key set it
// has is found out by its MIC.
func (s *server) joins(e *element.Element, joinEUI lorawan.EUI64) {
	s.t.Helper()
	ctx := s.t.Context()
	state, err := s.store.LoadActivation(ctx, joinEUI, e.DevEUI())
	ok(s.t, err)
	frame := joinRequest(s.t, e, joinEUI)
	if s.keys.Keyring.VerifyJoin(ctx, state.KeySet, frame) != nil {
		found := false
		if state.Rekeying != nil {
			for _, k := range state.Rekeying.Candidates {
				if !found && s.keys.Keyring.VerifyJoin(ctx, k, frame) == nil {
					found = true
					ok(s.t, s.store.ProveKeySet(ctx, state, k.ID, joinery.AuditEntry{At: s.now, Event: joinery.AuditRekeyObeyed, Actor: "test", Org: s.org, Device: state.Device.ID}))
				}
			}
		}
		if !found {
			s.t.Fatal("the device is not known here")
		}
		state, err = s.store.LoadActivation(ctx, joinEUI, e.DevEUI())
		ok(s.t, err)
	}
	n := state.KeySet.Nonces
	n.JoinNonce++
	n = n.With(joinery.JoinEUINonces{JoinEUI: joinEUI, Next: 2})
	a := joinery.Activation{ID: joinery.NewActivationID(), At: s.now, Device: state.Device.ID, KeySet: state.KeySet.ID, Owner: s.org, Peer: 1, Count: 1,
		Type: joinery.JoinTypeJoin, JoinEUI: joinEUI, DevEUI: e.DevEUI(), OptNeg: true, Root: joinery.NwkKey, JoinNonce: n.JoinNonce}
	n = n.WithActivation(joinery.RecentActivation{ID: a.ID}, 0)
	ok(s.t, s.store.CommitActivation(ctx, joinery.ActivationCommit{KeySet: a.KeySet, Version: state.KeySet.Version, Nonces: n, Activation: a}))
}

// ticket is the order of a device as the bench gets it.
func (s *server) ticket(id joinery.DeviceID) rekeyfile.Order {
	s.t.Helper()
	var ticket rekeyfile.Ticket
	file, err := s.Ticket(s.t.Context(), s.owner, []joinery.DeviceID{id})
	ok(s.t, err)
	_, err = rekeyfile.Open(file, rekeyfile.FormatTicket, nil, &ticket)
	ok(s.t, err)
	return ticket.Devices[0]
}

// tell has an element obey the order of its device, from a ticket; last is what it
// obeyed before.
func (s *server) tell(e *element.Element, id joinery.DeviceID, last ...lorawan.Rekey) {
	s.t.Helper()
	o := s.ticket(id)
	ok(s.t, o.Fits(o.JoinEUI, newest(last)))
	ok(s.t, e.Rekey(o.NewJoinEUI, o.Cookie, o.AuthMAC))
}

// newest is the last instruction of those that an element obeyed, nil for none.
func newest(obeyed []lorawan.Rekey) *lorawan.Rekey {
	if len(obeyed) == 0 {
		return nil
	}
	return &obeyed[len(obeyed)-1]
}

const chipSerial = "0123114e171b98b427"

// rekeys gives an element what it rekeys with.
func (s *server) rekeys(e *element.Element, p joinery.RekeyProfile) {
	s.t.Helper()
	if p == joinery.RekeyS {
		ok(s.t, e.SetRekeyKey(s.key(3, e.DevEUI())))
		return
	}
	ok(s.t, e.SetSlotKey(append(s.key(4, e.DevEUI()), s.key(5, e.DevEUI())...), []byte{1, 0x23, 0x11, 0x4e, 0x17, 0x1b, 0x98, 0xb4, 0x27}))
}

// disclosed has root keys of a device go to a recipient, by an order that it never
// hears of.
func (s *server) disclosed(id joinery.DeviceID) {
	s.t.Helper()
	ctx := s.t.Context()
	to, err := s.exports.AddRecipient(ctx, s.owner, export.NewRecipient{Name: "safe", Kind: joinery.RecipientFile, Key: string(keyringtest.Recipient(s.t).Recipient().MarshalPEM())})
	ok(s.t, err)
	_, err = s.Arm(ctx, s.owner, rekey.Arm{Device: id, JoinEUI: farther, Recipient: to.ID})
	ok(s.t, err)
	_, err = s.Disclose(ctx, s.owner, to.ID, []joinery.DeviceID{id})
	ok(s.t, err)
	ok(s.t, s.Cancel(ctx, s.owner, id))
}

// wantTold: what was disclosed of former root keys came with the device, by the word
// of who handed it over, and of those that it has now nothing is.
func (s *server) wantTold(id joinery.DeviceID, disclosed bool, by, first string) {
	s.t.Helper()
	state, err := s.store.RekeyingDevice(s.t.Context(), id)
	ok(s.t, err)
	known, err := s.store.Disclosures(s.t.Context(), id)
	ok(s.t, err)
	told := state.Device.Told
	if told == nil || told.Server != by || told.Signer == "" || told.Outside || state.Device.Disclosed != disclosed || state.KeySet.Disclosed || (len(known) > 0) != disclosed {
		s.t.Fatalf("%+v, %+v", state.Device, told)
	}
	if want := map[bool]joinery.Exposed{true: joinery.ExposedDisclosed, false: joinery.ExposedNone}[disclosed]; state.Exposed() != want {
		s.t.Errorf("exposed: %s", state.Exposed())
	}
	for _, x := range known {
		if !x.Former || x.ToldBy != by || x.By != first || !strings.HasPrefix(x.Reference, "rky_") {
			s.t.Errorf("%+v", x)
		}
	}
}

// A device goes from one server to the next and on to a third, which only the
// rekeying key makes possible. Nobody tells it before it would be answered, and no
// key is in what goes between.
func TestServersHandOver(t *testing.T) {
	ctx := t.Context()
	a, b, c := newServer(t, here), newServer(t, there), newServer(t, farther)
	toB, ab := know(a, b, there, "b")
	toC, bc := know(b, c, farther, "c")
	var keys leak.Secrets
	for _, profile := range []joinery.RekeyProfile{joinery.RekeyS, joinery.RekeyM} {
		devEUI := lorawan.EUI64{0, 4, 0xA3, 0x10, 0, 0, 1, byte(profile)}
		id, e := a.derived(devEUI, chipSerial), a.element(devEUI)
		a.rekeys(e, profile)
		ok(t, a.SetProfile(ctx, a.owner, id, profile))
		disclosed := profile == joinery.RekeyS
		if disclosed { // to somebody, who gets other keys than those that go on
			a.disclosed(id)
		}
		order, err := a.Arm(ctx, a.owner, rekey.Arm{Device: id, JoinEUI: there, To: toB.ID, RekeyKey: true})
		ok(t, err)
		for name, key := range a.newRoots(profile, devEUI, order.Rekey) {
			keys.PlantKey(name, key)
		}
		for purpose := range byte(5) {
			keys.PlantKey(fmt.Sprint("key ", purpose+1), a.key(purpose+1, devEUI))
		}
		_, err = a.Ticket(ctx, a.owner, []joinery.DeviceID{id})
		wantCode(t, err, joinery.CodeConflict) // nobody there would answer it

		a.pass(ab, toB)
		if profile == joinery.RekeyS {
			a.wantPassage(id, joinery.RekeyArmed, joinery.PassageParked)
			b.expect("b")
			a.pass(ab, toB)
		}
		a.wantPassage(id, joinery.RekeyArmed, joinery.PassageTaken)
		a.tell(e, id)
		b.joins(e, there)
		a.pass(ab, toB)
		a.wantPassage(id, joinery.RekeyConfirmed, joinery.PassageJoined)

		// On from there, with nothing but what came.
		next := b.arrivedAs(there, devEUI)
		b.wantTold(next, disclosed, "from b", "from b")
		st, err := b.Status(ctx, b.owner, next)
		ok(t, err)
		if st.Device.Rekey != profile {
			t.Fatalf("it arrived with profile %s", st.Device.Rekey)
		}
		_, err = b.Arm(ctx, b.owner, rekey.Arm{Device: next, JoinEUI: farther, To: toC.ID})
		ok(t, err)
		b.pass(bc, toC)
		if profile == joinery.RekeyS {
			c.expect("c")
		}
		b.pass(bc, toC)
		if err := b.ticket(next).Fits(there, nil); !errors.Is(err, rekeyfile.ErrMovedOn) {
			t.Errorf("it came by an instruction, and the ticket is for one that obeyed none: %v", err)
		}
		b.tell(e, next, order.Rekey)
		c.joins(e, farther)
		b.pass(bc, toC)
		b.wantPassage(next, joinery.RekeyConfirmed, joinery.PassageJoined)

		// No rekeying key went there, because nobody ordered it.
		last := c.arrivedAs(farther, devEUI)
		c.wantTold(last, disclosed, "from c", "from b")
		wantCode(t, c.SetProfile(ctx, c.owner, last, joinery.RekeyS), joinery.CodeInvalid)
	}
	hits := leak.Found{}
	for _, text := range slices.Concat(ab.sent, bc.sent) {
		keys.In(text, hits)
		var s rekeyfile.Signed
		if json.Unmarshal(text, &s) == nil {
			keys.In(s.Payload, hits)
		}
	}
	if len(ab.sent) == 0 || len(hits) > 0 {
		t.Errorf("in what went between: %v", hits)
	}
	for _, s := range []*server{a, b, c} {
		s.check()
	}
}

// check runs the database's own checks, the keyring's included.
func (s *server) check() {
	s.t.Helper()
	found, err := s.store.Fsck(s.t.Context(), s.keys.Keyring)
	ok(s.t, err)
	for _, v := range found {
		s.t.Errorf("fsck: %+v", v)
	}
}

// Whatever of all instructions that were ever sent a device obeyed, it joins.
func TestEveryGenerationArrives(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to, l := know(a, b, there, "b")
	b.expect("b")
	for obeyed := range 4 { // of the first order, the second, both; or the first after the second came
		devEUI := lorawan.EUI64{0, 4, 0xA3, 0x10, 0, 0, 2, byte(obeyed)}
		id, e := a.derived(devEUI, ""), a.element(devEUI)
		a.rekeys(e, joinery.RekeyS)
		ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyS))
		var orders []joinery.RekeyOrder
		var tickets []rekeyfile.Order
		for n := range 2 {
			o, err := a.Arm(ctx, a.owner, rekey.Arm{Device: id, JoinEUI: there, To: to.ID})
			ok(t, err)
			orders = append(orders, o)
			if obeyed != 3 || n == 1 {
				a.pass(l, to)
				tickets = append(tickets, a.ticket(id))
			}
			if n == 0 {
				ok(t, a.Cancel(ctx, a.owner, id))
			}
			a.now = a.now.Add(time.Second)
		}
		for n, o := range orders {
			if obeyed == n || obeyed == 2 || obeyed == 3 && n == 1 {
				ok(t, e.Rekey(o.Rekey.JoinEUI, o.Rekey.Cookie, nil))
			}
		}
		a.pass(l, to)
		b.joins(e, there)
		a.pass(l, to)
		if obeyed < 3 {
			fits(t, tickets[0], nil, nil)
			fits(t, tickets[0], rekeyfile.ErrMovedOn, orders[1:]) // the second, then the first: nobody would know those keys
			fits(t, tickets[1], rekeyfile.ErrMovedOn, orders[:1]) // that it obeyed the first was not seen
			fits(t, tickets[1], nil, orders)                      // it only stores the JoinEUI
		}
		st, err := a.Status(ctx, a.owner, id)
		ok(t, err)
		if obeyed != 0 && st.Orders[0].State != joinery.RekeyConfirmed {
			t.Errorf("obeyed %d: %+v", obeyed, st.Orders[0])
		}
		if obeyed == 0 && st.Orders[1].State != joinery.RekeyConfirmed {
			t.Errorf("obeyed the first: %+v", st.Orders)
		}
	}
	a.check()
	b.check()
}

// fits wants an order of a ticket to fit an element that obeyed some, or not, whether
// it stored its new JoinEUI or not.
func fits(t *testing.T, o rekeyfile.Order, want error, obeyed []joinery.RekeyOrder) {
	t.Helper()
	var last []lorawan.Rekey
	for _, before := range obeyed {
		last = append(last, before.Rekey)
	}
	at := []lorawan.EUI64{here}
	if len(last) > 0 {
		at = append(at, there)
	}
	for _, joinEUI := range at {
		if err := o.Fits(joinEUI, newest(last)); !errors.Is(err, want) {
			t.Errorf("at %s after %d orders: %v, want %v", joinEUI, len(last), err, want)
		}
	}
}

// A ticket that nobody used, of an order that was cancelled, outlives what the device
// did since: from what it obeyed meanwhile it leads nowhere, and the bench can tell. The
// next ticket is for the device as it is.
func TestTicketOutlivesItsOrder(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to := a.pin(b)
	devEUI := lorawan.EUI64{0, 4, 0xA3, 0x10, 0, 0, 4, 1}
	id, e := a.derived(devEUI, ""), a.element(devEUI)
	a.rekeys(e, joinery.RekeyS)
	ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyS))
	arm := func() joinery.RekeyOrder {
		o, err := a.Arm(ctx, a.owner, rekey.Arm{Device: id, JoinEUI: there, To: to})
		ok(t, err)
		a.now = a.now.Add(time.Second)
		return o
	}
	arm()
	old := a.ticket(id)
	ok(t, a.Cancel(ctx, a.owner, id))
	second := arm()
	a.tell(e, id)
	fits(t, old, rekeyfile.ErrMovedOn, []joinery.RekeyOrder{second})
	a.joins(e, here) // its JoinEUI was not stored: the old server sees what it obeyed
	fits(t, a.ticket(id), nil, []joinery.RekeyOrder{second})
	ok(t, a.Cancel(ctx, a.owner, id))
	arm()
	third := a.ticket(id)
	if err := third.Fits(here, &second.Rekey); err != nil {
		t.Errorf("a ticket of now: %v", err)
	}
	for _, bad := range []*lorawan.Rekey{nil, {JoinEUI: old.NewJoinEUI, Cookie: old.Cookie}} {
		if err := third.Fits(here, bad); !errors.Is(err, rekeyfile.ErrMovedOn) {
			t.Errorf("after %v: %v", bad, err)
		}
	}
}

var errKilled = errors.New("killed")

// faults counts the steps of both servers, and kills at one of them: before it, or
// once it is done and nobody heard.
type faults struct {
	steps, at int
	after     bool
}

func (f *faults) do(step func() error) error {
	f.steps++
	if f.steps != f.at {
		return step()
	}
	if f.after {
		if err := step(); err != nil {
			return err
		}
	}
	return errKilled
}

// mortal is a rekey.State whose writes can be the last thing that its server did.
type mortal struct {
	rekey.State
	f *faults
}

func (m mortal) DuePassages(ctx context.Context, to joinery.JoinServerID, now, until time.Time, n int) (list []joinery.RekeyOrder, err error) {
	err = m.f.do(func() error { list, err = m.State.DuePassages(ctx, to, now, until, n); return err })
	return list, err
}

func (m mortal) NoteOffered(ctx context.Context, to joinery.JoinServer, now time.Time, o []joinery.PassageOffer) (goes []joinery.RekeyID, err error) {
	err = m.f.do(func() error { goes, err = m.State.NoteOffered(ctx, to, now, o); return err })
	return goes, err
}

func (m mortal) MovePassage(ctx context.Context, id joinery.RekeyID, p joinery.Passage, e joinery.AuditEntry) error {
	return m.f.do(func() error { return m.State.MovePassage(ctx, id, p, e) })
}

func (m mortal) TakeReceipt(ctx context.Context, from joinery.JoinServerID, after, next joinery.ReceiptPlace, list []joinery.PassageChange) error {
	return m.f.do(func() error { return m.State.TakeReceipt(ctx, from, after, next, list) })
}

func (m mortal) Arrive(ctx context.Context, a joinery.Arrival, n int, e joinery.AuditEntry) (out joinery.Arrival, err error) {
	err = m.f.do(func() error { out, err = m.State.Arrive(ctx, a, n, e); return err })
	return out, err
}

func (m mortal) TakeArrival(ctx context.Context, in joinery.ArrivedDevice, e joinery.AuditEntry) error {
	return m.f.do(func() error { return m.State.TakeArrival(ctx, in, e) })
}

func (m mortal) NoteArrivalJoined(ctx context.Context, id joinery.ArrivalID, news []byte, e joinery.AuditEntry) error {
	return m.f.do(func() error { return m.State.NoteArrivalJoined(ctx, id, news, e) })
}

// dying is a link whose messages get lost, either way.
type dying struct {
	rekey.Link
	f *faults
}

func (d dying) Offer(ctx context.Context, to joinery.JoinServer, file []byte) (answer []byte, err error) {
	err = d.f.do(func() error { answer, err = d.Link.Offer(ctx, to, file); return err })
	return answer, err
}

func (d dying) Receipts(ctx context.Context, to joinery.JoinServer, after joinery.ReceiptPlace) (file []byte, err error) {
	err = d.f.do(func() error { file, err = d.Link.Receipts(ctx, to, after); return err })
	return file, err
}

// Whichever server dies at whichever step, before it or after: both go on where they
// were, the device is taken in once, is answered, and its order is confirmed.
func TestKilledAtEachStep(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to, l := know(a, b, there, "b")
	b.expect("b")
	live := map[*server]*rekey.Service{a: a.Service, b: b.Service}
	serves := func(joinEUI lorawan.EUI64) func(lorawan.EUI64) bool {
		return func(e lorawan.EUI64) bool { return e == joinEUI }
	}
	var n, most int
	run := func(f *faults) {
		t.Helper()
		n++
		devEUI := lorawan.EUI64{0, 4, 0xA3, 0x10, 0, 1, byte(n >> 8), byte(n)}
		id, e := a.derived(devEUI, ""), a.element(devEUI)
		a.rekeys(e, joinery.RekeyS)
		ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyS))
		_, err := a.Arm(ctx, a.owner, rekey.Arm{Device: id, JoinEUI: there, To: to.ID, RekeyKey: true})
		ok(t, err)
		a.Service = rekey.New(mortal{a.store, f}, a.keys.Keyring, a.exports, serves(here), slog.New(slog.DiscardHandler), func() time.Time { return a.now })
		b.Service = rekey.New(mortal{b.store, f}, b.keys.Keyring, b.exports, serves(there), slog.New(slog.DiscardHandler), func() time.Time { return b.now })
		turn := func() {
			for range 4 { // the worker's
				list, err := live[a].Servers(ctx)
				ok(t, err)
				j := list[slices.IndexFunc(list, func(j joinery.JoinServer) bool { return j.ID == to.ID })]
				if _, err := a.Pass(ctx, dying{l, f}, j); err != nil && !errors.Is(err, errKilled) {
					t.Fatal(err)
				}
				a.now = a.now.Add(3 * time.Minute) // what somebody took up, he gave up
			}
		}
		turn()
		a.wantPassage(id, joinery.RekeyArmed, joinery.PassageTaken)
		a.tell(e, id)
		b.joins(e, there)
		turn()
		a.wantPassage(id, joinery.RekeyConfirmed, joinery.PassageJoined)
		most = max(most, f.steps)
		a.Service, b.Service = live[a], live[b]
	}
	run(&faults{})
	for at := 1; at <= most && at < 30; at++ {
		for _, after := range []bool{false, true} {
			run(&faults{at: at, after: after})
		}
	}
	if most < 8 {
		t.Errorf("only %d steps were seen", most)
	}
	arrivals, err := b.Arrivals(ctx, b.owner, 0, 200)
	ok(t, err)
	if len(arrivals) != n {
		t.Errorf("%d arrivals of %d devices", len(arrivals), n)
	}
	entries, err := b.store.AuditEntries(ctx, 0, 2000)
	ok(t, err)
	seen := map[joinery.AuditEvent]int{}
	for _, e := range entries {
		seen[e.Event]++
	}
	for _, event := range []joinery.AuditEvent{joinery.AuditRekeyArrived, joinery.AuditRekeyTaken, joinery.AuditRekeyReceived} {
		if seen[event] != n {
			t.Errorf("%d entries of %s for %d devices", seen[event], event, n)
		}
	}
	a.check()
	b.check()
}

// resign changes what a signed file says, and has a server sign it.
func resign[T any](t *testing.T, s *server, format string, file []byte, change func(*T)) []byte {
	t.Helper()
	var payload T
	_, err := rekeyfile.Open(file, format, nil, &payload)
	ok(t, err)
	change(&payload)
	out, err := rekeyfile.Sign(format, payload, func(content []byte) (signature, public []byte, err error) {
		return s.keys.Keyring.SignStatement(t.Context(), content)
	})
	ok(t, err)
	return out
}

// capture keeps an offer back.
type capture struct{ file []byte }

func (c *capture) Offer(_ context.Context, _ joinery.JoinServer, file []byte) ([]byte, error) {
	c.file = file
	return nil, errKilled
}

func (c *capture) Receipts(context.Context, joinery.JoinServer, joinery.ReceiptPlace) ([]byte, error) {
	return nil, errKilled
}

// offer makes an offer of a new device and keeps it back.
func (s *server) offer(to joinery.JoinServer, n byte) (joinery.DeviceID, []byte) {
	s.t.Helper()
	devEUI := lorawan.EUI64{0, 4, 0xA3, 0x20, 7: n}
	id := s.derived(devEUI, "")
	ok(s.t, s.SetProfile(s.t.Context(), s.owner, id, joinery.RekeyS))
	_, err := s.Arm(s.t.Context(), s.owner, rekey.Arm{Device: id, JoinEUI: there, To: to.ID, RekeyKey: true})
	ok(s.t, err)
	var c capture
	if _, err := s.Pass(s.t.Context(), &c, to); !errors.Is(err, errKilled) {
		s.t.Fatal(err)
	}
	return id, c.file
}

// picky is a store that cannot keep one device.
type picky struct {
	*store.DB
	devEUI lorawan.EUI64
}

func (p picky) TakeArrival(ctx context.Context, in joinery.ArrivedDevice, entry joinery.AuditEntry) error {
	if in.Device.DevEUI == p.devEUI {
		return joinery.Errorf(joinery.CodeInvalid, "a text has a character that cannot be stored")
	}
	return p.DB.TakeArrival(ctx, in, entry)
}

// A device that the store cannot keep is refused by itself: others come in, and what
// is told goes on.
func TestOneUnstorableDevice(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to, _ := know(a, b, there, "b")
	_, file := a.offer(to, 1)
	var bad rekeyfile.Handover
	_, err := rekeyfile.Open(file, rekeyfile.FormatHandover, nil, &bad)
	ok(t, err)
	b.Service = rekey.New(picky{b.store, bad.Devices[0].Row.DevEUI}, b.keys.Keyring, b.exports, func(e lorawan.EUI64) bool { return e == there },
		slog.New(slog.DiscardHandler), func() time.Time { return b.now })
	_, err = b.TakeOffer(ctx, b.from("b"), file) // parked
	ok(t, err)
	b.expect("b") // takes what is parked, and fails for none
	_, file = a.offer(to, 2)
	o, err := b.TakeOffer(ctx, b.from("b"), file)
	ok(t, err)
	reasons := map[string]int{}
	for _, r := range o.Results {
		reasons[r.State+" "+r.Reason]++
	}
	if reasons["taken "] != 1 || reasons["refused malformed"] != len(o.Results)-1 {
		t.Errorf("%+v", o.Results)
	}
	page, err := b.Tell(ctx, b.from("b"), joinery.ReceiptPlace{})
	ok(t, err)
	var r rekeyfile.Receipt
	_, err = rekeyfile.Open(page, rekeyfile.FormatReceipt, nil, &r)
	ok(t, err)
	if len(r.Told) != 2 || r.Told[0].Reason != rekeyfile.ReasonMalformed || r.Told[1].State != rekeyfile.StateTaken {
		t.Errorf("%+v", r.Told)
	}
}

// A rekeying key that came without a word of who could read it makes no better root
// keys than it is itself: those that go on are from outside, too.
func TestOutsideGoesOn(t *testing.T) {
	ctx := t.Context()
	a, b, c := newServer(t, here), newServer(t, there), newServer(t, farther)
	toB, _ := know(a, b, there, "b")
	toC, _ := know(b, c, farther, "c")
	b.expect("b")
	for n, outside := range []bool{false, true} {
		_, file := a.offer(toB, byte(n))
		_, err := b.TakeOffer(ctx, b.from("b"), resign(t, a, rekeyfile.FormatHandover, file, func(h *rekeyfile.Handover) {
			h.Devices = h.Devices[len(h.Devices)-1:]
			if outside {
				h.Devices[0].Exposure = nil
			}
		}))
		ok(t, err)
		devEUI := lorawan.EUI64{0, 4, 0xA3, 0x20, 7: byte(n)}
		_, err = b.Arm(ctx, b.owner, rekey.Arm{Device: b.arrivedAs(there, devEUI), JoinEUI: farther, To: toC.ID})
		ok(t, err)
		var got capture
		if _, err := b.Pass(ctx, &got, toC); !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		var h rekeyfile.Handover
		_, err = rekeyfile.Open(got.file, rekeyfile.FormatHandover, nil, &h)
		ok(t, err)
		for _, d := range h.Devices {
			if d.Row.DevEUI == devEUI && d.Exposure.Outside != outside {
				t.Errorf("it came with outside %t and goes on as %+v", outside, d.Exposure)
			}
		}
		if !slices.ContainsFunc(h.Devices, func(d rekeyfile.HandedOver) bool { return d.Row.DevEUI == devEUI }) {
			t.Fatalf("it does not go on: %+v", h.Devices)
		}
	}
}

// What is forged, foreign, out of range, damaged or too much is refused, and what is
// repeated or late changes nothing.
func TestOffersThatAreRefused(t *testing.T) {
	ctx := t.Context()
	a, b, c := newServer(t, here), newServer(t, there), newServer(t, farther)
	to, _ := know(a, b, there, "b")
	know(c, b, farther, "c") // into a JoinEUI that b has not even
	from := b.from("b")
	_, file := a.offer(to, 1)

	whole := func(name string, from joinery.JoinServer, file []byte, want joinery.Code) {
		t.Helper()
		if _, err := b.TakeOffer(ctx, from, file); joinery.CodeOf(err) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	whole("another server's signature", from, resign(t, c, rekeyfile.FormatHandover, file, func(*rekeyfile.Handover) {}), joinery.CodeInvalid)
	whole("sent by another server", b.from("c"), file, joinery.CodeInvalid)
	whole("no statement key", joinery.JoinServer{ID: from.ID, Ours: from.Ours}, file, joinery.CodeForbidden)
	whole("another format", from, resign(t, a, rekeyfile.FormatHandover, file, func(*rekeyfile.Handover) {})[:200], joinery.CodeInvalid)
	var signed rekeyfile.Signed
	ok(t, json.Unmarshal(file, &signed))
	signed.Payload[len(signed.Payload)/2] ^= 1
	changed, err := json.Marshal(signed)
	ok(t, err)
	whole("changed on the way", from, changed, joinery.CodeInvalid)
	whole("too many devices", from, resign(t, a, rekeyfile.FormatHandover, file, func(h *rekeyfile.Handover) {
		for len(h.Devices) <= rekey.MaxBatch {
			h.Devices = append(h.Devices, h.Devices[0])
		}
	}), joinery.CodeTooLarge)
	ticket := resign(t, a, rekeyfile.FormatHandover, file, func(*rekeyfile.Handover) {})
	ok(t, json.Unmarshal(ticket, &signed))
	signed.Format = rekeyfile.FormatTicket
	ticket, err = json.Marshal(signed)
	ok(t, err)
	whole("signed as something else", from, ticket, joinery.CodeInvalid)

	b.expect("b")
	n := byte(10)
	one := func(name, want string, change func(h *rekeyfile.Handover, d *rekeyfile.HandedOver)) {
		t.Helper()
		n++
		_, file := a.offer(to, n)
		o, err := b.TakeOffer(ctx, from, resign(t, a, rekeyfile.FormatHandover, file, func(h *rekeyfile.Handover) { change(h, &h.Devices[len(h.Devices)-1]) }))
		ok(t, err)
		if got := o.Results[len(o.Results)-1]; got.State != rekeyfile.StateRefused || got.Reason != want {
			t.Errorf("%s: %+v, want %s", name, got, want)
		}
		if _, err := b.store.LoadActivation(ctx, there, lorawan.EUI64{0, 4, 0xA3, 0x20, 7: n}); err == nil {
			t.Errorf("%s: it is a device", name)
		}
	}
	type over = rekeyfile.HandedOver
	type batch = rekeyfile.Handover
	one("a JoinEUI that is not open to it", rekeyfile.ReasonRange, func(_ *batch, d *over) { d.Row.JoinEUI[7]++; d.RekeyKey.JoinEUI[7]++ })
	one("two devices in one", rekeyfile.ReasonMalformed, func(_ *batch, d *over) { d.RekeyKey.DevEUI[0]++ })
	one("root keys of the factory's form", rekeyfile.ReasonMalformed, func(_ *batch, d *over) { d.Row.Root10 = seal.RootAppKey })
	one("a rekeying key as a root key", rekeyfile.ReasonMalformed, func(_ *batch, d *over) { d.Row = *d.RekeyKey })
	one("a root key as a rekeying key", rekeyfile.ReasonMalformed, func(_ *batch, d *over) { k := d.Row; d.RekeyKey = &k })
	one("a root key named as a rekeying key", rekeyfile.ReasonSeal, func(_ *batch, d *over) {
		k := d.Row
		k.Root10, k.JoinNonceFloor, k.AppKey = seal.RootRekeyKey, 0, nil
		d.RekeyKey = &k
	})
	one("another DevEUI's keys", rekeyfile.ReasonSeal, func(_ *batch, d *over) { d.Row.DevEUI[6]++; d.RekeyKey.DevEUI[6]++ })
	one("another JoinNonce", rekeyfile.ReasonSeal, func(_ *batch, d *over) { d.Row.JoinNonceFloor = 1 })
	one("no JoinNonces left", rekeyfile.ReasonMalformed, func(_ *batch, d *over) { d.Row.JoinNonceFloor = lorawan.MaxJoinNonce })
	one("a label twice", rekeyfile.ReasonMalformed, func(_ *batch, d *over) { d.Others = []rekeyfile.Generation{d.Generation} })
	one("no name", rekeyfile.ReasonMalformed, func(_ *batch, d *over) { d.Order = "" })
	one("a long name", rekeyfile.ReasonMalformed, func(_ *batch, d *over) { d.Order = string(make([]byte, 65)) })
	one("a NUL in a name", rekeyfile.ReasonMalformed, func(_ *batch, d *over) { d.Order += "\x00" })
	one("a NUL in a label", rekeyfile.ReasonMalformed, func(_ *batch, d *over) { d.Label += "\x00" })
	one("a NUL in what is told", rekeyfile.ReasonMalformed, func(_ *batch, d *over) {
		d.Exposure = &exposure.Exposure{Disclosed: true, Times: []exposure.Time{{At: noon, Recipient: strings.Repeat("r", 43), Kind: "file", Reference: "x\x00"}}}
	})
	one("too many key sets", rekeyfile.ReasonExhausted, func(_ *batch, d *over) {
		for i := range joinery.MaxRekeyCandidates + 1 {
			g := d.Generation
			g.Label = fmt.Sprint(i)
			d.Others = append(d.Others, g)
		}
	})
	one("sealed to another", rekeyfile.ReasonSeal, func(h *batch, _ *over) { h.Seal.KID = c.keys.Keyring.TransportKey().KID() })
	one("a header of another file", rekeyfile.ReasonSeal, func(h *batch, _ *over) { h.Seal.Key = slices.Clone(h.Seal.Key); h.Seal.Key[9] ^= 1 })

	// A device that is there is nobody's to replace.
	taken := b.add(joinery.Device{JoinEUI: there, DevEUI: lorawan.EUI64{0, 4, 0xA3, 0x20, 7: 200}, MACVersion: lorawan.MAC1_1},
		joinery.KeySet{Origin: joinery.OriginSealed, Nwk: joinery.SealedRoot{Use: []byte{1}}}, "")
	_, file = a.offer(to, 200)
	o, err := b.TakeOffer(ctx, from, file)
	ok(t, err)
	state, err := b.store.RekeyingDevice(ctx, taken)
	ok(t, err)
	if got := o.Results[len(o.Results)-1]; got.Reason != rekeyfile.ReasonConflict || len(state.Rekeying.Candidates) != 0 {
		t.Errorf("in the place of a device that is there: %+v", got)
	}

	// The same again, and earlier ones late.
	id, file := a.offer(to, 201)
	first, err := b.TakeOffer(ctx, from, file)
	ok(t, err)
	order := a.wantPassage(id, joinery.RekeyArmed, joinery.PassageWaiting).ID.String()
	is := func(o rekeyfile.Offered) string {
		return o.Results[slices.IndexFunc(o.Results, func(r rekeyfile.Told) bool { return r.Order == order })].State
	}
	before := b.arrivedAs(there, lorawan.EUI64{0, 4, 0xA3, 0x20, 7: 201})
	again, err := b.TakeOffer(ctx, from, file)
	ok(t, err)
	if is(first) != rekeyfile.StateTaken || is(again) != rekeyfile.StateTaken || b.arrivedAs(there, lorawan.EUI64{0, 4, 0xA3, 0x20, 7: 201}) != before {
		t.Errorf("again: %s, then %s", is(first), is(again))
	}
	stolen := resign(t, a, rekeyfile.FormatHandover, file, func(h *rekeyfile.Handover) {
		for i := range h.Devices {
			h.Devices[i].Cookie[0]++
		}
	})
	other, err := b.TakeOffer(ctx, from, stolen)
	ok(t, err)
	if is(other) != rekeyfile.StateRefused {
		t.Errorf("another instruction under the same order: %s", is(other))
	}
	ok(t, b.store.DeleteDevice(ctx, before, b.org, joinery.AuditEntry{At: noon, Event: joinery.AuditDeviceDeleted, Actor: "test", Org: b.org, Device: before}))
	again, err = b.TakeOffer(ctx, from, file)
	ok(t, err)
	if _, err := b.store.LoadActivation(ctx, there, lorawan.EUI64{0, 4, 0xA3, 0x20, 7: 201}); err == nil {
		t.Errorf("a replay brought a deleted device back: %+v", again)
	}
	ok(t, b.store.DeleteDevice(ctx, taken, b.org, joinery.AuditEntry{At: noon, Event: joinery.AuditDeviceDeleted, Actor: "test", Org: b.org, Device: taken}))
	b.check()
}

// A file is accepted by who holds its JoinEUI, and nobody else.
func TestFilesAreAccepted(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to, _ := know(a, b, there, "b")
	stranger := joinery.NewOrgID()
	ok(t, b.store.AddOrg(ctx, joinery.Organisation{ID: stranger, Name: "stranger", CreatedAt: noon}, joinery.AuditEntry{At: noon, Event: joinery.AuditOrgAdded, Actor: "test"}))
	id := a.derived(lorawan.EUI64{5}, "")
	ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyS))
	_, err := a.Arm(ctx, a.owner, rekey.Arm{Device: id, JoinEUI: there, To: to.ID})
	ok(t, err)
	file, err := a.Handover(ctx, a.owner, to.ID, []joinery.DeviceID{id})
	ok(t, err)
	a.wantPassage(id, joinery.RekeyArmed, joinery.PassageFile)
	_, err = a.Ticket(ctx, a.owner, []joinery.DeviceID{id}) // its owner sees to it
	ok(t, err)

	o, err := b.TakeFile(ctx, joinery.Caller{Org: stranger}, file, nil)
	if err != nil || o.Results[0].Reason != rekeyfile.ReasonRange {
		t.Errorf("by another organisation: %+v, %v", o, err)
	}
	_, err = b.TakeFile(ctx, b.owner, resign(t, b, rekeyfile.FormatHandover, file, func(*rekeyfile.Handover) {}), nil)
	wantCode(t, err, joinery.CodeForbidden)
	for range 2 {
		o, err = b.TakeFile(ctx, b.owner, file, &joinery.Binding{NetID: lorawan.NetID{0, 0, 0x13}, ASID: "as.example.com", Policy: joinery.AppSKeyWrapped})
		if err != nil || o.Results[0].State != rekeyfile.StateTaken {
			t.Fatalf("%+v, %v", o, err)
		}
	}
	for _, call := range []error{
		func() error {
			_, err := b.Expect(ctx, joinery.Caller{Org: stranger}, rekey.Expect{From: 5})
			return err
		}(),
		b.EndExpectation(ctx, joinery.Caller{Org: stranger}, 5),
	} {
		wantCode(t, call, joinery.CodeNotFound)
	}
	list, err := b.Arrivals(ctx, joinery.Caller{Org: stranger}, 0, 100)
	if err != nil || len(list) != 0 {
		t.Errorf("another organisation sees %v, %v", list, err)
	}
	b.check()
}

// altered changes the receipts that a link gives.
type altered struct {
	rekey.Link
	change func(file []byte) []byte
}

func (l altered) Receipts(ctx context.Context, to joinery.JoinServer, after joinery.ReceiptPlace) ([]byte, error) {
	file, err := l.Link.Receipts(ctx, to, after)
	if err == nil {
		file = l.change(file)
	}
	return file, err
}

// Of receipts only the page that was asked for counts, whole, as the pinned server
// signed it, about orders that went there.
func TestReceiptsThatAreRefused(t *testing.T) {
	ctx := t.Context()
	a, b, c := newServer(t, here), newServer(t, there), newServer(t, farther)
	to, l := know(a, b, there, "b")
	b.expect("b")
	devEUI := lorawan.EUI64{0, 4, 0xA3, 0x30}
	id, e := a.derived(devEUI, ""), a.element(devEUI)
	a.rekeys(e, joinery.RekeyS)
	ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyS))
	_, err := a.Arm(ctx, a.owner, rekey.Arm{Device: id, JoinEUI: there, To: to.ID})
	ok(t, err)
	a.pass(l, to)
	a.tell(e, id)
	b.joins(e, there)

	type page = rekeyfile.Receipt
	by := func(s *server, change func(*page)) func([]byte) []byte {
		return func(file []byte) []byte { return resign(t, s, rekeyfile.FormatReceipt, file, change) }
	}
	refused := map[string]func([]byte) []byte{
		"by another server":       by(c, func(*page) {}),
		"for another server":      by(b, func(p *page) { p.For = make([]byte, 32) }),
		"for nobody":              by(b, func(p *page) { p.For = nil }),
		"of another place":        by(b, func(p *page) { p.After++; p.Next++ }),
		"of another epoch":        by(b, func(p *page) { p.Epoch = 1 << 60 }),
		"backwards":               by(b, func(p *page) { p.Next = p.After - 1 }),
		"with a gap":              by(b, func(p *page) { p.Next++ }),
		"with entries of no page": by(b, func(p *page) { p.Joins = append(p.Joins, p.Joins...) }),
		"without end":             by(b, func(p *page) { p.Joins, p.Told, p.Next, p.More = nil, nil, p.After, true }),
		"cut":                     func(file []byte) []byte { return file[:len(file)-9] },
		"a file in its place": func([]byte) []byte {
			file, err := b.Receipts(ctx, b.owner, nil)
			ok(t, err)
			return file
		},
	}
	server := func() joinery.JoinServer {
		list, err := a.Servers(ctx)
		ok(t, err)
		return list[slices.IndexFunc(list, func(j joinery.JoinServer) bool { return j.ID == to.ID })]
	}
	for _, name := range slices.Sorted(maps.Keys(refused)) {
		if _, err := a.Pass(ctx, altered{l, refused[name]}, server()); joinery.CodeOf(err) != joinery.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
		a.wantPassage(id, joinery.RekeySent, joinery.PassageTaken)
	}
	if cursor := server().Cursor.N; cursor != 0 && cursor != 1 {
		t.Errorf("cursor %d", cursor)
	}

	// What is signed and not true of the order confirms nothing.
	for name, change := range map[string]func(*rekeyfile.Joined){
		"another order":          func(j *rekeyfile.Joined) { j.Order = joinery.NewRekeyID().String() },
		"another JoinEUI":        func(j *rekeyfile.Joined) { j.JoinEUI[7]++; j.Transcript = j.TranscriptHash() },
		"another DevEUI":         func(j *rekeyfile.Joined) { j.DevEUI[7]++; j.Transcript = j.TranscriptHash() },
		"another cookie":         func(j *rekeyfile.Joined) { j.Cookie[0]++ },
		"another accept":         func(j *rekeyfile.Joined) { j.Accept[0]++ },
		"no hash of an accept":   func(j *rekeyfile.Joined) { j.Accept = nil; j.Transcript = j.TranscriptHash() },
		"a transcript of others": func(j *rekeyfile.Joined) { j.Transcript = make([]byte, 32) },
	} {
		_, err := a.Pass(ctx, altered{l, by(b, func(p *page) { change(&p.Joins[len(p.Joins)-1]) })}, server())
		ok(t, err)
		if o := a.wantPassage(id, joinery.RekeySent, joinery.PassageTaken); o.State == joinery.RekeyConfirmed {
			t.Errorf("%s confirmed the order", name)
		}
		ok(t, a.store.ReadReceiptsAgain(ctx, to.ID, 0, a.now))
		a.pass(altered{l, by(b, func(p *page) { change(&p.Joins[len(p.Joins)-1]) })}, to)
		ok(t, a.store.ReadReceiptsAgain(ctx, to.ID, 0, a.now))
		a.now = a.now.Add(time.Hour)
		_, err = a.Pass(ctx, &notReading{l}, server())
		if !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
	}

	// It came back from a backup: what it told is asked for again.
	ok(t, a.store.TakeReceipt(ctx, to.ID, server().Cursor, joinery.ReceiptPlace{N: 1000}, nil))
	a.pass(l, to)
	a.now = a.now.Add(time.Hour)
	a.pass(l, to)
	a.wantPassage(id, joinery.RekeyConfirmed, joinery.PassageJoined)
	a.check()
}

// notReading is a link whose receipts do not come.
type notReading struct{ rekey.Link }

func (notReading) Receipts(context.Context, joinery.JoinServer, joinery.ReceiptPlace) ([]byte, error) {
	return nil, errKilled
}

// ahead is a link to a Join Server that never has so many receipts as were read.
type ahead struct {
	rekey.Link
	asked *int
}

func (l ahead) Receipts(context.Context, joinery.JoinServer, joinery.ReceiptPlace) ([]byte, error) {
	*l.asked++
	return nil, rekey.ErrAhead
}

// A Join Server that says that it came back from a backup, over and over, holds
// nobody up.
func TestAlwaysAhead(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to, l := know(a, b, there, "b")
	b.expect("b")
	devEUI := lorawan.EUI64{0, 4, 0xA3, 0x31}
	id, e := a.derived(devEUI, ""), a.element(devEUI)
	a.rekeys(e, joinery.RekeyS)
	ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyS))
	_, err := a.Arm(ctx, a.owner, rekey.Arm{Device: id, JoinEUI: there, To: to.ID})
	ok(t, err)
	a.pass(l, to)
	server := func() joinery.JoinServer {
		list, err := a.Servers(ctx)
		ok(t, err)
		return list[slices.IndexFunc(list, func(j joinery.JoinServer) bool { return j.ID == to.ID })]
	}
	ok(t, a.store.TakeReceipt(ctx, to.ID, server().Cursor, joinery.ReceiptPlace{N: 1000}, nil))
	asked, j := 0, server()
	if _, err := a.Pass(ctx, ahead{l, &asked}, j); !errors.Is(err, rekey.ErrAhead) || asked != 2 {
		t.Errorf("asked %d times, %v", asked, err)
	}
}

// A Join Server that came back from a backup says so before it tells of the joins that
// it finds: their entries get numbers that were read already.
func TestAheadBeforeItNumbers(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to, l := know(a, b, there, "b")
	b.expect("b")
	devEUI := lorawan.EUI64{0, 4, 0xA3, 0x33}
	id, e := a.derived(devEUI, ""), a.element(devEUI)
	a.rekeys(e, joinery.RekeyS)
	ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyS))
	_, err := a.Arm(ctx, a.owner, rekey.Arm{Device: id, JoinEUI: there, To: to.ID})
	ok(t, err)
	a.pass(l, to)
	a.tell(e, id)
	b.joins(e, there)
	_, told, err := b.store.ArrivalNews(ctx, b.from("b").ID, 0, 1)
	ok(t, err)
	list, err := a.Servers(ctx)
	ok(t, err)
	told.N++
	ok(t, a.store.TakeReceipt(ctx, to.ID, list[0].Cursor, told, nil)) // one more was read, and lost there
	if _, err := b.Tell(ctx, b.from("b"), told); !errors.Is(err, rekey.ErrAhead) {
		t.Fatalf("behind what was lost: %v", err)
	}
	a.pass(l, to)
	a.wantPassage(id, joinery.RekeyConfirmed, joinery.PassageJoined)
}

// restored is what a server comes back as from a backup that is taken now.
func (s *server) restored() (comeBack func()) {
	s.t.Helper()
	ctx, o := s.t.Context(), store.Options{Path: filepath.Join(s.t.TempDir(), "joinery.db"), UnsafeNoSync: true}
	var draft *store.Draft
	ok(s.t, s.store.Copy(ctx, func(c *store.Copy) (err error) {
		if draft, err = store.NewDraft(ctx, o, c.Schema()); err != nil {
			return err
		}
		for _, table := range c.Tables() {
			err := c.Rows(table, func(row []any) error { return draft.Insert(ctx, table, [][]any{row}) })
			if err != nil {
				return err
			}
		}
		return nil
	}))
	return func() {
		s.t.Helper()
		ok(s.t, errors.Join(draft.Fence("restored from a test", "test"), draft.Publish(), draft.Discard()))
		db, err := store.Open(ctx, o)
		ok(s.t, err)
		s.t.Cleanup(func() { ok(s.t, db.Close()) })
		_, err = db.ConfirmFence(ctx, store.Confirmation{Actor: "test", Earlier: new(int)})
		ok(s.t, err)
		clock := func() time.Time { return s.now }
		s.store, s.exports = db, export.New(db, export.Options{Now: clock})
		s.Service = rekey.New(db, s.keys.Keyring, s.exports, func(e lorawan.EUI64) bool { return e == s.at }, slog.New(slog.DiscardHandler), clock)
	}
}

// A Join Server that came back from a backup gives numbers again that it lost, before
// anybody asks: who read the lost ones reads from the beginning, and misses nothing.
func TestReceiptsAfterARestore(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to, l := know(a, b, there, "b")
	b.expect("b")
	var ids [3]joinery.DeviceID
	var elements [3]*element.Element
	for n := range ids {
		devEUI := lorawan.EUI64{0, 4, 0xA3, 0x34, 7: byte(n)}
		ids[n], elements[n] = a.derived(devEUI, ""), a.element(devEUI)
		a.rekeys(elements[n], joinery.RekeyS)
		ok(t, a.SetProfile(ctx, a.owner, ids[n], joinery.RekeyS))
	}
	order := func(n int) {
		t.Helper()
		_, err := a.Arm(ctx, a.owner, rekey.Arm{Device: ids[n], JoinEUI: there, To: to.ID})
		ok(t, err)
	}
	pass := func() {
		t.Helper()
		for range 3 {
			a.now, b.now = a.now.Add(time.Hour), b.now.Add(time.Hour)
			a.pass(l, to)
		}
	}
	cursor := func() joinery.ReceiptPlace {
		t.Helper()
		list, err := a.Servers(ctx)
		ok(t, err)
		return list[0].Cursor
	}
	order(0)
	pass()
	comeBack := b.restored()
	order(1)
	pass()
	lost := cursor()
	a.wantPassage(ids[1], joinery.RekeyArmed, joinery.PassageTaken)

	// It numbers as many as it lost, of another device, before it is asked.
	comeBack()
	order(2)
	if _, err := a.Pass(ctx, &notReading{l}, to); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	_, newest, err := b.store.ArrivalNews(ctx, b.from("b").ID, 0, 1)
	ok(t, err)
	if newest.N != lost.N || newest.Epoch == lost.Epoch {
		t.Fatalf("the newest is %+v, and %+v was read before", newest, lost)
	}
	if _, err := b.Tell(ctx, b.from("b"), lost); !errors.Is(err, rekey.ErrAhead) {
		t.Fatalf("asked for what was lost: %v", err)
	}
	pass()
	if got := cursor(); got.Epoch != newest.Epoch {
		t.Errorf("read up to %+v", got)
	}
	for n, id := range ids {
		a.wantPassage(id, joinery.RekeyArmed, joinery.PassageTaken)
		a.tell(elements[n], id)
		b.joins(elements[n], there)
	}
	pass()
	for _, id := range ids {
		a.wantPassage(id, joinery.RekeyConfirmed, joinery.PassageJoined)
	}
}

// What the former owner of a device ordered hands no keys of it over, and nobody has
// them handed over who may not let keys leave.
func TestHandoverNeedsItsOwner(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to, l := know(a, b, there, "b")
	b.expect("b")
	devEUI := lorawan.EUI64{0, 4, 0xA3, 0x32}
	id, e := a.derived(devEUI, ""), a.element(devEUI)
	a.rekeys(e, joinery.RekeyS)
	ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyS))
	_, err := a.Arm(ctx, a.owner, rekey.Arm{Device: id, JoinEUI: there, To: to.ID})
	ok(t, err)
	a.pass(l, to)
	weak := a.owner
	weak.Rights = joinery.RightsOf(joinery.RightDevicesOwn)
	_, err = a.Handover(ctx, weak, to.ID, []joinery.DeviceID{id})
	wantCode(t, err, joinery.CodeForbidden)
	_, err = a.Ticket(ctx, weak, []joinery.DeviceID{id})
	wantCode(t, err, joinery.CodeForbidden)
	_, err = a.Ticket(ctx, a.owner, []joinery.DeviceID{id}) // from now on it may have obeyed
	ok(t, err)

	next := joinery.Caller{Org: joinery.NewOrgID(), Name: "next", Key: joinery.NewAPIKeyID(), Rights: joinery.AllRights()}
	a.moveTo(id, next.Org)
	_, err = a.Handover(ctx, next, to.ID, []joinery.DeviceID{id})
	wantCode(t, err, joinery.CodeConflict)
	_, err = a.Handover(ctx, a.owner, to.ID, []joinery.DeviceID{id})
	wantCode(t, err, joinery.CodeNotFound)
}

// moveTo has another organisation claim a device.
func (s *server) moveTo(id joinery.DeviceID, org joinery.OrgID) {
	s.t.Helper()
	ctx := s.t.Context()
	ok(s.t, s.store.AddOrg(ctx, joinery.Organisation{ID: org, Name: "next " + org.String(), CreatedAt: noon}, joinery.AuditEntry{At: noon, Event: joinery.AuditOrgAdded, Actor: "test"}))
	state, err := s.store.Device(ctx, id)
	ok(s.t, err)
	ok(s.t, s.store.Claim(ctx, id, state.Device.Ownership.Epoch, org, nil, joinery.AuditEntry{At: noon, Event: joinery.AuditDeviceClaimed, Actor: "test", Org: org, Device: id}))
}

// A device that joined has keys that its new Join Server chose to trust. Who handed
// it over adds none to them, though nobody has read yet that it joined.
func TestJoinedTakesNoMore(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to, _ := know(a, b, there, "b")
	b.expect("b")
	id, file := a.offer(to, 1)
	e := a.element(lorawan.EUI64{0, 4, 0xA3, 0x20, 7: 1})
	a.rekeys(e, joinery.RekeyS)
	more := func(label string) []byte {
		return resign(t, a, rekeyfile.FormatHandover, file, func(h *rekeyfile.Handover) {
			other := h.Devices[0].Generation
			other.Label = label
			h.Devices[0].Others = append(h.Devices[0].Others, other)
		})
	}
	candidates := func(label string) int {
		t.Helper()
		o, err := b.TakeOffer(ctx, b.from("b"), more(label))
		ok(t, err)
		if got := o.Results[0].State; got != rekeyfile.StateTaken {
			t.Fatalf("it is %s", got)
		}
		state, err := b.store.RekeyingDevice(ctx, b.arrivedAs(there, e.DevEUI()))
		ok(t, err)
		return len(state.Rekeying.Candidates)
	}
	if n := candidates("00000000000000000000000000000001"); n != 1 {
		t.Fatalf("%d candidates before it joined, want 1", n)
	}
	st, err := a.Status(ctx, a.owner, id)
	ok(t, err)
	ok(t, e.Rekey(there, st.Orders[0].Rekey.Cookie, nil))
	b.joins(e, there)
	before, err := b.store.RekeyingDevice(ctx, b.arrivedAs(there, e.DevEUI()))
	ok(t, err)
	if n := candidates("00000000000000000000000000000002"); n != len(before.Rekeying.Candidates) {
		t.Errorf("%d candidates after it joined, %d before the offer", n, len(before.Rekeying.Candidates))
	}
	b.check()
}
