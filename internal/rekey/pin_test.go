package rekey_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/internal/export"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/rekey"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// exported discloses the root keys of a device in an export.
func (s *server) exported(id joinery.DeviceID, to joinery.RecipientID) {
	s.t.Helper()
	ctx := s.t.Context()
	x, err := s.exports.Request(ctx, s.owner, export.Spec{Recipient: to, Devices: []joinery.DeviceRef{{ID: id}}})
	ok(s.t, err)
	state, err := s.store.Device(ctx, id)
	ok(s.t, err)
	_, err = s.store.StartExport(ctx, x.ID, []byte("head"))
	ok(s.t, err)
	exposed := joinery.AuditEntry{At: s.now, Event: joinery.AuditKeysExposed, Actor: "test"}
	ready := joinery.AuditEntry{At: s.now, Event: joinery.AuditExportReady, Actor: "test"}
	x, err = s.store.CommitExport(ctx, x.ID, []joinery.WrappedItem{{KeySet: state.KeySet.ID, Blob: []byte("blob")}}, x.ExpiresAt, exposed, ready)
	ok(s.t, err)
	if x.Wrapped != 1 {
		s.t.Fatalf("%+v", x)
	}
}

// What is disclosed of a device after it was offered is told in a further offer, whose
// only news it is: to a server that took it in, and to one where it joined. Once.
func TestDisclosedSinceOffered(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to, l := know(a, b, there, "b")
	b.expect("b")
	recipient, err := a.exports.AddRecipient(ctx, a.owner, export.NewRecipient{Name: "safe", Kind: joinery.RecipientFile, Key: string(keyringtest.Recipient(t).Recipient().MarshalPEM())})
	ok(t, err)
	devEUI := lorawan.EUI64{0, 4, 0xA3, 0x51}
	id, _ := a.armed(to, devEUI)
	a.pass(l, to)
	a.wantPassage(id, joinery.RekeyArmed, joinery.PassageTaken)
	came := b.arrivedAs(there, devEUI)
	known := func(disclosures, offers int) {
		t.Helper()
		for range 2 { // nothing is offered without news
			a.pass(l, to)
		}
		list, err := b.store.Disclosures(ctx, came)
		ok(t, err)
		if len(list) != disclosures || l.offers != offers || b.count(joinery.AuditKeysTold) != 1+disclosures || a.count(joinery.AuditRekeyHandedOver) != offers {
			t.Fatalf("%d offers, %d entries, %+v", l.offers, b.count(joinery.AuditKeysTold), list)
		}
		for _, x := range list {
			if x.ToldBy != "from b" || !x.Former {
				t.Errorf("%+v", x)
			}
		}
	}
	known(0, 1)
	a.exported(id, recipient.ID)
	known(1, 2)
	if state, err := b.store.Device(ctx, came); err != nil || state.Exposed() != joinery.ExposedDisclosed && !state.Device.Disclosed {
		t.Errorf("%+v, %v", state.Device, err)
	}

	e := a.element(devEUI)
	a.rekeys(e, joinery.RekeyS)
	a.tell(e, id)
	b.joins(e, there)
	_, err = b.Tell(ctx, b.from("b"), joinery.ReceiptPlace{}) // which notes that it joined, and nobody reads
	ok(t, err)
	offers := l.offers
	a.exported(id, recipient.ID)
	a.pass(l, to)
	a.wantPassage(id, joinery.RekeyConfirmed, joinery.PassageJoined)
	if l.offers == offers {
		t.Fatal("nothing was offered")
	}
	known(2, l.offers)
	a.check()
	b.check()
}

// The operator may pin a Join Server's key for OAEP with SHA-1, because his token knows no
// other: orders that name it as it was go nowhere, the log says so, and what is sealed so
// is taken in there, also where it waits until it is expected.
func TestPinnedForSHA1(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to, l := know(a, b, there, "b")
	before, _ := a.armed(to, lorawan.EUI64{0, 4, 0xA3, 0x54})
	key, err := seal.ParsePublicKeyDER(to.TransportKey)
	ok(t, err)
	to.TransportKey = key.WithSHA1().MarshalDER()
	_, err = a.ChangePin(ctx, operator, to)
	ok(t, err)
	a.wantPassage(before, joinery.RekeyArmed, joinery.PassageRefused)
	entries, err := a.store.AuditEntries(ctx, 0, 2000)
	ok(t, err)
	said := ""
	for _, e := range entries {
		if e.Event == joinery.AuditJoinServerAdded || e.Event == joinery.AuditJoinServerChanged {
			said += e.Detail["sha1"] + " " + e.Detail["transport_key"] + "\n"
		}
	}
	if want := " " + key.KID() + "\nyes " + key.WithSHA1().KID() + "\n"; said != want && said != "yes "+key.WithSHA1().KID()+"\n "+key.KID()+"\n" {
		t.Errorf("the log says %q, want %q", said, want)
	}

	devEUI := lorawan.EUI64{0, 4, 0xA3, 0x55}
	id, o := a.armed(to, devEUI)
	if o.Thumbprint != key.WithSHA1().KID() {
		t.Errorf("the order names %s", o.Thumbprint)
	}
	a.pass(l, to)
	a.wantPassage(id, joinery.RekeyArmed, joinery.PassageParked)
	b.expect("b")
	a.pass(l, to)
	a.wantPassage(id, joinery.RekeyArmed, joinery.PassageTaken)
	e := a.element(devEUI)
	a.rekeys(e, joinery.RekeyS)
	a.tell(e, id)
	b.joins(e, there)
	a.check()
	b.check()
}

// An order to a key of a Join Server that is pinned no more goes nowhere: not by a file,
// not from server to server, and nobody approves it. Its device is not told of it, its
// owner reads why and gives it anew. What went with a file before stays gone: that device
// is told, and no further file is made. So it is with one that names no key, of an earlier
// version: it was for the one that was pinned until then.
func TestRepinned(t *testing.T) {
	ctx := t.Context()
	a, b, c := newServer(t, here), newServer(t, there), newServer(t, farther)
	to := a.pin(b)
	var ids []joinery.DeviceID
	for n, earlier := range []bool{true, false} {
		id := a.derived(lorawan.EUI64{0, 4, 0xA3, 0x52, 7: byte(n)}, "")
		ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyS))
		if earlier {
			o := joinery.RekeyOrder{
				ID: joinery.NewRekeyID(), Device: id, State: joinery.RekeyArmed, Rekey: lorawan.Rekey{JoinEUI: there, Cookie: lorawan.Cookie{1}},
				Owner: a.org, By: "test", At: a.now, ArmedAt: a.now, ExpiresAt: a.now.Add(rekey.DefaultLife),
			}
			ok(t, a.store.ArmRekey(ctx, o, to, joinery.AuditEntry{At: a.now, Event: joinery.AuditRekeyArmed, Actor: "test", Org: a.org, Device: id}))
		} else {
			_, err := a.Arm(ctx, a.owner, rekey.Arm{Device: id, JoinEUI: there, To: to})
			ok(t, err)
		}
		ids = append(ids, id)
	}
	carried := a.derived(lorawan.EUI64{0, 4, 0xA3, 0x55}, "")
	ok(t, a.SetProfile(ctx, a.owner, carried, joinery.RekeyS))
	_, err := a.Arm(ctx, a.owner, rekey.Arm{Device: carried, JoinEUI: there, To: to})
	ok(t, err)
	for range 2 {
		_, err = a.Handover(ctx, a.owner, to, []joinery.DeviceID{carried})
		ok(t, err)
		a.wantPassage(carried, joinery.RekeyArmed, joinery.PassageFile)
	}
	// One waits for another person meanwhile.
	waits := a.derived(lorawan.EUI64{0, 4, 0xA3, 0x53}, "")
	ok(t, a.SetProfile(ctx, a.owner, waits, joinery.RekeyS))
	ann, ben := a.admin("ann"), a.admin("ben")
	asked, err := a.Arm(ctx, ann, rekey.Arm{Device: waits, JoinEUI: there, To: to})
	ok(t, err)

	list, err := a.Servers(ctx)
	ok(t, err)
	changed := list[0]
	changed.TransportKey = c.keys.Keyring.TransportKey().MarshalDER()
	_, err = a.ChangePin(ctx, operator, changed)
	ok(t, err)
	if n := a.count(joinery.AuditRekeyPassage); n != len(ids) {
		t.Errorf("%d entries say so, want %d", n, len(ids))
	}
	a.wantPassage(carried, joinery.RekeyArmed, joinery.PassageFile)
	for _, id := range ids {
		o := a.orderOf(id)
		if o.Passage == nil || o.Passage.State != joinery.PassageRefused || o.Passage.Said == "" || !o.Held() || o.Thumbprint == "" {
			t.Fatalf("%+v, %+v", o, o.Passage)
		}
		_, err := a.Handover(ctx, ann, to, []joinery.DeviceID{id})
		wantCode(t, err, joinery.CodeConflict)
		_, err = a.Ticket(ctx, ann, []joinery.DeviceID{id})
		wantCode(t, err, joinery.CodeConflict)
		ok(t, a.Cancel(ctx, ann, id))
	}
	_, err = a.Ticket(ctx, ann, []joinery.DeviceID{carried})
	ok(t, err)
	_, err = a.Handover(ctx, ann, to, []joinery.DeviceID{carried})
	wantCode(t, err, joinery.CodeConflict)
	_, err = a.Approve(ctx, ben, rekey.Approval{Devices: []joinery.DeviceID{waits}, JoinEUI: there, Thumbprint: asked.Thumbprint})
	wantCode(t, err, joinery.CodeConflict)
	_, err = a.Reject(ctx, ben, []joinery.DeviceID{waits})
	ok(t, err)
	again, err := a.Arm(ctx, ann, rekey.Arm{Device: waits, JoinEUI: there, To: to})
	ok(t, err)
	approval := rekey.Approval{Devices: []joinery.DeviceID{waits}, JoinEUI: there, Thumbprint: again.Thumbprint}
	// Another key is pinned between the look at it and the approval, and then this one again.
	meanwhile := changed
	meanwhile.TransportKey = list[0].TransportKey
	a.over(approving{a.store, func() {
		ok(t, a.store.ChangeJoinServer(ctx, meanwhile, again.Thumbprint, joinery.AuditEntry{At: a.now, Event: joinery.AuditJoinServerChanged, Actor: "test"}))
	}}, a.keys.Keyring)
	_, err = a.Approve(ctx, ben, approval)
	wantCode(t, err, joinery.CodeConflict)
	a.over(a.store, a.keys.Keyring)
	_, err = a.ChangePin(ctx, operator, changed)
	ok(t, err)
	_, err = a.Approve(ctx, ben, approval)
	ok(t, err)
	_, err = a.Handover(ctx, ann, to, []joinery.DeviceID{waits})
	ok(t, err)
	a.check()
}

// approving is a rekey.State in which something happens before an approval is written.
type approving struct {
	rekey.State
	before func()
}

func (s approving) ApproveRekeys(ctx context.Context, orders []joinery.RekeyOrder, keys map[joinery.JoinServerID][]byte, entries []joinery.AuditEntry) error {
	s.before()
	return s.State.ApproveRekeys(ctx, orders, keys, entries)
}

// cutShort is a rekey.State of a server that is killed, or loses its database, as it ends
// what a changed pin leaves.
type cutShort struct{ rekey.State }

func (cutShort) RefuseRepinned(context.Context, joinery.JoinServerID, string, string, time.Time) error {
	return errKilled
}

// mended is a cutShort whose database comes back.
type mended struct {
	rekey.State
	away, tries int
}

func (m *mended) RefuseRepinned(ctx context.Context, id joinery.JoinServerID, thumbprint, actor string, at time.Time) error {
	if m.tries++; m.tries <= m.away {
		return errKilled
	}
	return m.State.RefuseRepinned(ctx, id, thumbprint, actor, at)
}

// What a changed pin leaves, and the server that was told of it did not end, is ended
// when a server runs: once nothing holds it back and its database is there.
func TestRepinnedAndKilled(t *testing.T) {
	ctx := t.Context()
	a, b, c := newServer(t, here), newServer(t, there), newServer(t, farther)
	to := a.pin(b)
	id, _ := a.armed(joinery.JoinServer{ID: to}, lorawan.EUI64{0, 4, 0xA3, 0x54})
	list, err := a.Servers(ctx)
	ok(t, err)
	changed := list[0]
	changed.TransportKey = c.keys.Keyring.TransportKey().MarshalDER()
	a.over(cutShort{a.store}, a.keys.Keyring)
	if _, err := a.ChangePin(ctx, operator, changed); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	held, away := errors.New("held"), &mended{State: a.store, away: 2}
	a.over(away, a.keys.Keyring)
	var said bytes.Buffer
	r := a.NewRunner(&capture{}, slog.New(slog.NewTextHandler(&said, nil)), func() error { return held })
	r.Turn(ctx)
	if away.tries != 0 {
		t.Fatal("it was tried while that was held back")
	}
	held = nil
	for range away.away {
		r.Turn(ctx)
		if a.orderOf(id).Passage != nil {
			t.Fatal("it was ended already")
		}
	}
	for range 2 {
		r.Turn(ctx)
		a.wantPassage(id, joinery.RekeyArmed, joinery.PassageRefused)
	}
	if n := strings.Count(said.String(), "level=WARN"); n != 1 || away.tries != away.away+1 {
		t.Errorf("%d warnings, %d tries:\n%s", n, away.tries, said.String())
	}
	a.check()
}
