package rekey_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/rekey"
	"joinery/internal/rekeyfile"
	"joinery/lorawan"
)

// meddled is a rekey.State in which something happens once, after a hand-over was
// judged and before it is noted.
type meddled struct {
	rekey.State
	before func()
}

func (m *meddled) happens() {
	if do := m.before; do != nil {
		m.before = nil
		do()
	}
}

func (m *meddled) NoteOffered(ctx context.Context, to joinery.JoinServer, now time.Time, list []joinery.PassageOffer) ([]joinery.RekeyID, error) {
	m.happens()
	return m.State.NoteOffered(ctx, to, now, list)
}

func (m *meddled) NoteHandover(ctx context.Context, to joinery.JoinServer, now time.Time, list []joinery.PassageOffer) error {
	m.happens()
	return m.State.NoteHandover(ctx, to, now, list)
}

// over has a server's rules work over another state and other keys.
func (s *server) over(state rekey.State, keys rekey.Keys) {
	s.Service = rekey.New(state, keys, s.exports, func(e lorawan.EUI64) bool { return e == s.at }, slog.New(slog.DiscardHandler), func() time.Time { return s.now })
}

func (s *server) count(event joinery.AuditEvent) (n int) {
	s.t.Helper()
	entries, err := s.store.AuditEntries(s.t.Context(), 0, 2000)
	ok(s.t, err)
	for _, e := range entries {
		if e.Event == event {
			n++
		}
	}
	return n
}

// armed makes a device with an order to go to another server.
func (s *server) armed(to joinery.JoinServer, devEUI lorawan.EUI64) (joinery.DeviceID, joinery.RekeyOrder) {
	s.t.Helper()
	id := s.derived(devEUI, "")
	ok(s.t, s.SetProfile(s.t.Context(), s.owner, id, joinery.RekeyS))
	o, err := s.Arm(s.t.Context(), s.owner, rekey.Arm{Device: id, JoinEUI: there, To: to.ID})
	ok(s.t, err)
	return id, o
}

// What was judged is judged again when it is noted: nothing leaves for whom it should
// not by then, nothing says that it did, and why is told.
func TestJudgedAgain(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to, l := know(a, b, there, "b")
	state := &meddled{State: a.store}
	a.over(state, a.keys.Keyring)
	n := byte(0)
	change := func(j joinery.JoinServer) { _, err := a.ChangePin(ctx, operator, j); ok(t, err) }
	elsewhere := to
	elsewhere.TransportKey = newServer(t, farther).keys.Keyring.TransportKey().MarshalDER()
	meanwhile := map[string]struct {
		do   func(joinery.DeviceID)
		want joinery.PassageState
		file joinery.Code
	}{
		"nothing":               {func(joinery.DeviceID) {}, joinery.PassageParked, ""},
		"it is cancelled":       {func(id joinery.DeviceID) { ok(t, a.Cancel(ctx, a.owner, id)) }, joinery.PassageRefused, joinery.CodeConflict},
		"the device is deleted": {func(id joinery.DeviceID) { a.delete(id) }, joinery.PassageRefused, joinery.CodeConflict},
		"another owner":         {func(id joinery.DeviceID) { a.moveTo(id, joinery.NewOrgID()) }, joinery.PassageRefused, joinery.CodeConflict},
		"another transport key": {func(joinery.DeviceID) { change(elsewhere) }, joinery.PassageRefused, joinery.CodeConflict},
		"it is pinned no more": {func(id joinery.DeviceID) {
			ok(t, a.Cancel(ctx, a.owner, id))
			a.now = a.now.Add(rekey.DefaultLife) // no order that is open names it
			ok(t, a.Unpin(ctx, operator, to.ID))
		}, joinery.PassageRefused, joinery.CodeConflict},
	}
	for name, x := range meanwhile {
		for _, byFile := range []bool{false, true} {
			n++
			id, o := a.armed(to, lorawan.EUI64{0, 4, 0xA3, 0x40, 7: n})
			left, sent := a.count(joinery.AuditRekeyHandedOver), l.offers
			state.before = func() { x.do(id) }
			if byFile {
				_, err := a.Handover(ctx, a.owner, to.ID, []joinery.DeviceID{id})
				if joinery.CodeOf(err) != x.file {
					t.Errorf("%s, by file: %v", name, err)
				}
			} else if _, err := a.Pass(ctx, l, a.serverNow(to)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			wantLeft := left
			if x.file == "" {
				wantLeft++
			}
			if got := a.count(joinery.AuditRekeyHandedOver); got != wantLeft || !byFile && x.file != "" && l.offers != sent {
				t.Errorf("%s, by file %v: %d entries say that keys left, want %d; %d offers", name, byFile, got, wantLeft, l.offers-sent)
			}
			got, err := a.store.RekeyOrder(ctx, o.ID)
			ok(t, err)
			if p := got.Passage; !byFile && (p.State != x.want || p.State == joinery.PassageRefused && p.Said == "") {
				t.Errorf("%s: %+v", name, p)
			}
			a.now = noon
			if list, err := a.Servers(ctx); err == nil && len(list) == 0 {
				back, err := a.Pin(ctx, operator, to)
				ok(t, err)
				if back.ID != to.ID {
					t.Errorf("pinned again it is another one: %s", back.ID)
				}
			}
			change(to)
			if err := a.Cancel(ctx, a.owner, id); err != nil && !slices.Contains([]joinery.Code{joinery.CodeConflict, joinery.CodeNotFound}, joinery.CodeOf(err)) {
				t.Fatal(err)
			}
		}
	}
	a.check()
}

// serverNow is a pinned Join Server as it is pinned now.
func (s *server) serverNow(j joinery.JoinServer) joinery.JoinServer {
	s.t.Helper()
	list, err := s.Servers(s.t.Context())
	ok(s.t, err)
	return list[slices.IndexFunc(list, func(o joinery.JoinServer) bool { return o.ID == j.ID })]
}

func (s *server) delete(id joinery.DeviceID) {
	s.t.Helper()
	ok(s.t, s.store.DeleteDevice(s.t.Context(), id, s.org, joinery.AuditEntry{At: noon, Event: joinery.AuditDeviceDeleted, Actor: "test", Org: s.org, Device: id}))
}

// onTheWay is a link on which something happens while a call is on its way.
type onTheWay struct {
	rekey.Link
	do func()
}

func (l onTheWay) Offer(ctx context.Context, to joinery.JoinServer, file []byte) ([]byte, error) {
	l.do()
	return l.Link.Offer(ctx, to, file)
}

// Who cancels while keys are on their way cancels what left: the log says so in this
// order, the answer is noted, and the device is not told.
func TestCancelledOnTheWay(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to, l := know(a, b, there, "b")
	b.expect("b")
	id, _ := a.armed(to, lorawan.EUI64{0, 4, 0xA3, 0x41})
	_, err := a.Pass(ctx, onTheWay{l, func() { ok(t, a.Cancel(ctx, a.owner, id)) }}, to)
	ok(t, err)
	a.wantPassage(id, joinery.RekeyCancelled, joinery.PassageTaken)
	_, err = a.Ticket(ctx, a.owner, []joinery.DeviceID{id})
	wantCode(t, err, joinery.CodeConflict)
	entries, err := a.store.AuditEntries(ctx, 0, 2000)
	ok(t, err)
	at := func(event joinery.AuditEvent) int {
		return slices.IndexFunc(entries, func(e joinery.AuditEntry) bool { return e.Event == event })
	}
	if left, cancelled := at(joinery.AuditRekeyHandedOver), at(joinery.AuditRekeyCancelled); left < 0 || cancelled < left {
		t.Errorf("keys left by entry %d, it was cancelled by %d", left, cancelled)
	}
	a.check()
}

// unsigning is keys with which the joins of some devices cannot be signed.
type unsigning struct {
	rekey.Keys
	fails func(lorawan.EUI64) bool
}

func (k unsigning) AcceptHash(ctx context.Context, ks joinery.KeySet, a joinery.Activation) (hash [32]byte, err error) {
	if k.fails(ks.DevEUI) {
		return hash, keyring.ErrToken
	}
	return k.Keys.AcceptHash(ctx, ks, a)
}

// Devices whose joins cannot be signed keep no other's receipt back, however many they
// are, and nothing of what is known already.
func TestUnsignedJoinsStarveNobody(t *testing.T) {
	a, b := newServer(t, here), newServer(t, there)
	to, l := know(a, b, there, "b")
	b.expect("b")
	const devices = 6 // of which the last can be signed
	broken := true
	b.over(b.store, unsigning{b.keys.Keyring, func(e lorawan.EUI64) bool { return broken && e[7] != devices-1 }})
	b.SetPage(2)
	var ids []joinery.DeviceID
	for n := range devices {
		devEUI := lorawan.EUI64{0, 4, 0xA3, 0x42, 7: byte(n)}
		id, _ := a.armed(to, devEUI)
		ids = append(ids, id)
		a.pass(l, to)
		e := a.element(devEUI)
		a.rekeys(e, joinery.RekeyS)
		a.tell(e, id)
		b.joins(e, there)
	}
	for range devices {
		a.pass(l, to)
	}
	a.wantPassage(ids[devices-1], joinery.RekeyConfirmed, joinery.PassageJoined)
	a.wantPassage(ids[0], joinery.RekeySent, joinery.PassageTaken)

	// It was the token: all of them once it is back.
	broken = false
	for range devices {
		a.pass(l, to)
	}
	for _, id := range ids {
		a.wantPassage(id, joinery.RekeyConfirmed, joinery.PassageJoined)
	}
	b.check()
}

// A Join Server is its keys. Renamed, moved, with another certificate, forgotten and
// pinned again it is the same; another one by its name is not.
func TestPinnedByItsKeys(t *testing.T) {
	ctx := t.Context()
	a, b, c := newServer(t, here), newServer(t, there), newServer(t, farther)
	to, l := know(a, b, there, "b")
	b.expect("b")
	devEUI := lorawan.EUI64{0, 4, 0xA3, 0x43}
	id, _ := a.armed(to, devEUI)
	e := a.element(devEUI)
	a.rekeys(e, joinery.RekeyS)
	a.pass(l, to)
	a.tell(e, id)

	renamed := a.serverNow(to)
	renamed.Name, renamed.URL, renamed.Identity.SPKI = "elsewhere", "https://elsewhere", [32]byte{9}
	_, err := a.ChangePin(ctx, a.owner, renamed)
	wantCode(t, err, joinery.CodeForbidden)
	_, err = a.ChangePin(ctx, operator, renamed)
	ok(t, err)
	other := renamed
	other.ReceiptKey = c.receiptKey()
	_, err = a.ChangePin(ctx, operator, other)
	wantCode(t, err, joinery.CodeConflict)
	posing := joinery.JoinServer{Name: "to b", TransportKey: c.keys.Keyring.TransportKey().MarshalDER(), ReceiptKey: c.receiptKey()}
	taken := posing
	taken.Name = renamed.Name
	_, err = a.Pin(ctx, operator, taken)
	wantCode(t, err, joinery.CodeConflict)
	posed, err := a.Pin(ctx, operator, posing) // by its former name
	ok(t, err)
	_, err = a.Handover(ctx, a.owner, posed.ID, []joinery.DeviceID{id})
	wantCode(t, err, joinery.CodeConflict)

	b.joins(e, there)
	file, err := b.Receipts(ctx, b.owner, []rekey.HandedOver{{Device: b.arrivedAs(there, devEUI), Order: a.orderOf(id).ID.String(), Cookie: a.orderOf(id).Rekey.Cookie}})
	ok(t, err)
	forged := resign(t, c, rekeyfile.FormatReceipt, file, func(*rekeyfile.Receipt) {})
	_, err = a.TakeReceipts(ctx, a.owner, forged)
	wantCode(t, err, joinery.CodeInvalid)
	_, err = a.TakeReceipts(ctx, a.owner, resign(t, a, rekeyfile.FormatReceipt, file, func(*rekeyfile.Receipt) {}))
	wantCode(t, err, joinery.CodeForbidden)
	a.wantPassage(id, joinery.RekeySent, joinery.PassageTaken)
	a.pass(l, renamed)
	a.wantPassage(id, joinery.RekeyConfirmed, joinery.PassageJoined)

	// What it handed over is known after it was pinned anew: nothing comes back.
	from := b.from("b")
	_, replay := a.offer(a.serverNow(to), 7)
	_, err = b.TakeOffer(ctx, from, replay)
	ok(t, err)
	came := b.arrivedAs(there, lorawan.EUI64{0, 4, 0xA3, 0x20, 7: 7})
	b.delete(came)
	ok(t, b.Unpin(ctx, operator, from.ID))
	back, err := b.Pin(ctx, operator, from)
	ok(t, err)
	b.expect("b")
	_, err = b.TakeOffer(ctx, back, replay)
	ok(t, err)
	if _, err := b.store.LoadActivation(ctx, there, lorawan.EUI64{0, 4, 0xA3, 0x20, 7: 7}); err == nil || back.ID != from.ID {
		t.Errorf("a replay brought a deleted device back; %s is now %s", from.ID, back.ID)
	}
	a.check()
	b.check()
}

func (s *server) receiptKey() []byte {
	s.t.Helper()
	public, err := s.StatementKey(s.t.Context())
	ok(s.t, err)
	return public
}

func (s *server) orderOf(id joinery.DeviceID) joinery.RekeyOrder {
	s.t.Helper()
	st, err := s.Status(s.t.Context(), s.owner, id)
	ok(s.t, err)
	return st.Orders[0]
}

// What nobody accepts ends: rejected by who could accept it and nobody else, or by time.
// Its keys are forgotten, and who handed it over is told.
func TestParkedEnds(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to, l := know(a, b, there, "b")
	var ids []joinery.DeviceID
	for n := range byte(3) {
		id, _ := a.armed(to, lorawan.EUI64{0, 4, 0xA3, 0x44, 7: n})
		ids = append(ids, id)
		a.pass(l, to)
	}
	parked, err := b.Arrivals(ctx, b.owner, 0, 10)
	ok(t, err)
	stranger := joinery.NewOrgID()
	ok(t, b.store.AddOrg(ctx, joinery.Organisation{ID: stranger, Name: "stranger", CreatedAt: noon}, joinery.AuditEntry{At: noon, Event: joinery.AuditOrgAdded, Actor: "test"}))
	_, err = b.RejectArrivals(ctx, joinery.Caller{Org: stranger}, []joinery.ArrivalID{parked[0].ID})
	wantCode(t, err, joinery.CodeNotFound)
	for range 2 { // once, however often it is said
		n, err := b.RejectArrivals(ctx, b.owner, []joinery.ArrivalID{parked[0].ID})
		if err != nil || n != 1 || b.count(joinery.AuditRekeyRefused) != 1 {
			t.Fatal(n, err)
		}
	}
	a.now = a.now.Add(time.Minute)
	a.pass(l, to)
	if o := a.orderOf(ids[0]); o.Passage.State != joinery.PassageRefused || o.Passage.Said != "its owner there rejected it" {
		t.Errorf("rejected there: %+v", o.Passage)
	}

	// The second is accepted in time, the third by nobody.
	_, err = b.Expect(ctx, b.owner, rekey.Expect{From: b.from("b").ID, Devices: joinery.EUIRange{First: parked[1].DevEUI, Last: parked[1].DevEUI}})
	ok(t, err)
	_, err = b.RejectArrivals(ctx, b.owner, []joinery.ArrivalID{parked[1].ID})
	wantCode(t, err, joinery.CodeConflict)
	turn := func() {
		run, stop := context.WithCancel(ctx)
		b.over(&stopping{State: b.store, stop: stop}, b.keys.Keyring)
		b.NewRunner(&capture{}, slog.New(slog.DiscardHandler), nil).Run(run)
	}
	turn()
	b.now = b.now.Add(91 * 24 * time.Hour)
	if got := b.states(); !slices.Equal(got, []joinery.ArrivalState{joinery.ArrivalRefused, joinery.ArrivalTaken, joinery.ArrivalParked}) {
		t.Errorf("before its time: %v", got)
	}
	turn()
	if got := b.states(); got[2] != joinery.ArrivalRefused {
		t.Errorf("after its time: %v", got)
	}
	a.pass(l, to)
	if o := a.orderOf(ids[2]); o.Passage.State != joinery.PassageRefused || o.Passage.Said != "nobody there accepted it in time" {
		t.Errorf("expired there: %+v", o.Passage)
	}
	b.check()
}

// stopping is a rekey.State that ends a runner with its first turn: it looks at who is
// pinned when it starts, and then in each turn.
type stopping struct {
	rekey.State
	stop  func()
	looks int
}

func (s *stopping) JoinServers(ctx context.Context) ([]joinery.JoinServer, error) {
	if s.looks++; s.looks > 1 {
		defer s.stop()
	}
	return s.State.JoinServers(ctx)
}

func (s *server) states() (list []joinery.ArrivalState) {
	s.t.Helper()
	arrivals, err := s.Arrivals(s.t.Context(), s.owner, 0, 100)
	ok(s.t, err)
	for _, a := range arrivals {
		list = append(list, a.State)
	}
	return list
}

// counted is a rekey.State that counts how often it is asked who is pinned.
type counted struct {
	rekey.State
	n    int
	fail error
}

func (c *counted) JoinServers(ctx context.Context) ([]joinery.JoinServer, error) {
	c.n++
	if c.fail != nil {
		return nil, c.fail
	}
	return c.State.JoinServers(ctx)
}

// Any number of strangers costs one look at the database in two seconds, also while it
// does not answer. Who is pinned or forgotten here is so at once.
func TestKnown(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	state := &counted{State: a.store}
	a.over(state, a.keys.Keyring)
	known := func(want int) {
		t.Helper()
		for range 50 {
			list, err := a.Known(ctx)
			if !errors.Is(err, state.fail) || err == nil && len(list) != want {
				t.Fatal(list, err)
			}
		}
	}
	known(0)
	if state.n != 1 {
		t.Errorf("%d looks", state.n)
	}
	to := a.pin(b)
	state.n = 0
	known(1)
	a.now = a.now.Add(2 * time.Second)
	known(1)
	if state.n != 2 {
		t.Errorf("%d looks in two seconds and a moment", state.n)
	}
	ok(t, a.Unpin(ctx, operator, to))
	known(0)
	state.n, state.fail = 0, errKilled
	a.now = a.now.Add(time.Minute)
	known(0)
	a.now = a.now.Add(-time.Hour) // a clock that is set back makes nothing fresh
	known(0)
	if state.n != 2 {
		t.Errorf("%d looks at a database that does not answer", state.n)
	}
}
