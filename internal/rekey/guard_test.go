package rekey_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"joinery"
	"joinery/internal/export"
	"joinery/internal/rekey"
	"joinery/internal/store"
	"joinery/lorawan"
)

// operatorOrg is the operator's organisation.
func (s *server) operatorOrg() joinery.OrgID {
	s.t.Helper()
	orgs, err := s.store.Orgs(s.t.Context())
	ok(s.t, err)
	return orgs[slices.IndexFunc(orgs, func(o joinery.Organisation) bool { return o.Name == "operator" })].ID
}

// release has the holder of a device let it go.
func (s *server) release(id joinery.DeviceID) {
	s.t.Helper()
	state, err := s.store.RekeyingDevice(s.t.Context(), id)
	ok(s.t, err)
	list, err := s.store.ChangeOwners(s.t.Context(), []joinery.OwnerChange{{
		Act: joinery.ActRelease, Device: id, Seen: state.Device.Ownership,
		Audit: []joinery.AuditEntry{{At: s.now, Event: joinery.AuditDeviceReleased, Actor: "test", Org: state.Device.Ownership.Org, Device: id}},
	}})
	ok(s.t, err)
	ok(s.t, list[0])
}

// A device that was let go stands under the operator's organisation until somebody
// claims it. Who acts for that one does not send its keys away: neither by a new order
// nor by one from before, which the device may have obeyed.
func TestReleased(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to, link := know(a, b, there, "b")
	org := a.operatorOrg()
	acting := joinery.Caller{Org: org, Operator: true, Name: "operator", Rights: joinery.AllRights()}
	var ids []joinery.DeviceID
	for n := range byte(3) {
		id := a.derived(lorawan.EUI64{1 + n}, "")
		ok(t, a.store.Claim(ctx, id, 0, org, nil, joinery.AuditEntry{At: noon, Event: joinery.AuditDeviceClaimed, Actor: "test", Org: org, Device: id}))
		ok(t, a.SetProfile(ctx, acting, id, joinery.RekeyS))
		ids = append(ids, id)
	}
	fresh, told, armed := ids[0], ids[1], ids[2]
	for _, id := range ids[1:] {
		_, err := a.Arm(ctx, acting, rekey.Arm{Device: id, JoinEUI: there, To: to.ID})
		ok(t, err)
	}
	_, err := a.Handover(ctx, acting, to.ID, []joinery.DeviceID{told})
	ok(t, err)
	_, err = a.Ticket(ctx, acting, []joinery.DeviceID{told})
	ok(t, err)
	for _, id := range ids {
		a.release(id)
	}

	_, err = a.Arm(ctx, acting, rekey.Arm{Device: fresh, JoinEUI: there, To: to.ID})
	wantCode(t, err, joinery.CodeConflict)
	_, err = a.Handover(ctx, acting, to.ID, []joinery.DeviceID{told})
	wantCode(t, err, joinery.CodeConflict)
	_, err = a.Ticket(ctx, acting, []joinery.DeviceID{armed})
	wantCode(t, err, joinery.CodeConflict)
	f, err := a.Service.Handover(ctx, acting, to.ID, []joinery.DeviceID{told}, true)
	ok(t, err)
	if f.Content != nil || len(f.LeftOut) != 1 {
		t.Fatalf("%+v", f)
	}
	a.pass(link, to)
	if link.offers != 0 {
		t.Errorf("%d offers of devices that nobody holds", link.offers)
	}
	a.wantClean()
}

// single is a database of which only one organisation is seen.
type single struct {
	*store.DB
	org joinery.OrgID
}

func (s single) Orgs(context.Context) ([]joinery.Organisation, error) {
	return []joinery.Organisation{{ID: s.org}}, nil
}

// The operator has no right of his own to root keys: he says for which organisation he
// acts, and only that one's go. Where there is but one, he need not.
func TestOperatorNamesTheOrganisation(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to := a.pin(b)
	id := a.derived(lorawan.EUI64{1}, "")
	ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyS))
	unnamed := joinery.Caller{Operator: true, Socket: true, Name: "socket", Rights: joinery.AllRights()}
	other, owners := unnamed, unnamed
	other.Org, owners.Org = a.operatorOrg(), a.org
	order := rekey.Arm{Device: id, JoinEUI: there, To: to}
	leave := map[string]func(joinery.Caller) error{
		"ticket": func(c joinery.Caller) error { _, err := a.Ticket(ctx, c, []joinery.DeviceID{id}); return err },
		"hand-over": func(c joinery.Caller) error {
			_, err := a.Service.Handover(ctx, c, to, []joinery.DeviceID{id}, c.Org == 0) // nor is anything left out instead
			return err
		},
		"disclosure": func(c joinery.Caller) error {
			_, err := a.Disclose(ctx, c, joinery.NewRecipientID(), []joinery.DeviceID{id})
			return err
		},
	}
	_, err := a.Arm(ctx, unnamed, order)
	wantCode(t, err, joinery.CodeInvalid)
	_, err = a.Arm(ctx, other, order)
	wantCode(t, err, joinery.CodeNotFound)
	_, err = a.Arm(ctx, owners, order)
	ok(t, err)
	for what, try := range leave {
		t.Run(what, func(t *testing.T) {
			wantCode(t, try(unnamed), joinery.CodeInvalid)
			wantCode(t, try(other), joinery.CodeNotFound)
			if what != "disclosure" { // to a recipient that there is not
				ok(t, try(owners))
			}
		})
	}

	exports := export.New(single{a.store, a.org}, export.Options{Now: func() time.Time { return a.now }})
	alone := rekey.New(a.store, a.keys.Keyring, exports, func(e lorawan.EUI64) bool { return e == here }, slog.New(slog.DiscardHandler), func() time.Time { return a.now })
	_, err = alone.Ticket(ctx, unnamed, []joinery.DeviceID{id}, false)
	ok(t, err)
	ok(t, alone.Cancel(ctx, unnamed, id))
	_, err = alone.Arm(ctx, unnamed, order)
	ok(t, err)
	a.wantClean()
}

// From a copy of a database no root keys leave by a file either, nor does a ticket,
// before somebody says that it is the newest state: its order may have been cancelled
// since. That is told of the whole file, and is no reason to leave a device out.
func TestHeld(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to := a.pin(b)
	id := a.derived(lorawan.EUI64{1}, "")
	ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyS))
	_, err := a.Arm(ctx, a.owner, rekey.Arm{Device: id, JoinEUI: there, To: to})
	ok(t, err)
	clock := func() time.Time { return a.now }
	fenced := errors.New("fenced")
	exports := export.New(a.store, export.Options{Now: clock, Hold: func() error { return fenced }})
	held := rekey.New(a.store, a.keys.Keyring, exports, func(e lorawan.EUI64) bool { return e == here }, slog.New(slog.DiscardHandler), clock)
	before, err := a.store.AuditEntries(ctx, 0, 1000)
	ok(t, err)
	all := []joinery.DeviceID{id}
	for _, leaveOut := range []bool{false, true} {
		_, err = held.Ticket(ctx, a.owner, all, leaveOut)
		wantCode(t, err, joinery.CodeUnavailable)
		_, err = held.Handover(ctx, a.owner, to, all, leaveOut)
		wantCode(t, err, joinery.CodeUnavailable)
		_, err = held.Disclose(ctx, a.owner, joinery.NewRecipientID(), all, leaveOut)
		wantCode(t, err, joinery.CodeUnavailable)
	}
	after, err := a.store.AuditEntries(ctx, 0, 1000)
	ok(t, err)
	if len(after) != len(before) {
		t.Errorf("%d entries of what did not leave", len(after)-len(before))
	}
	a.wantStatus(id, joinery.RekeyArmed, 0)
	fenced = nil
	_, err = held.Ticket(ctx, a.owner, all, false)
	ok(t, err)
	_, err = held.Handover(ctx, a.owner, to, all, false)
	ok(t, err)
}

// A batch is armed by what holds then: an open order to another Join Server is none to
// the same effect, though its key is said to be the same, and no device is sent to a
// JoinEUI that this server has come to answer for.
func TestBatchIsArmedByWhatHolds(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to := a.pin(b)
	id := a.derived(lorawan.EUI64{1}, "")
	ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyS))
	ask := func() joinery.RekeyBatch {
		t.Helper()
		batch, _, err := a.RequestBatch(ctx, a.owner, rekey.NewBatch{Arm: rekey.Arm{JoinEUI: there, To: to}, Devices: []joinery.DeviceRef{{ID: id}}})
		ok(t, err)
		return batch
	}
	serves := func(ours ...lorawan.EUI64) {
		a.Service = rekey.New(a.store, a.keys.Keyring, a.exports, func(e lorawan.EUI64) bool { return slices.Contains(ours, e) }, slog.New(slog.DiscardHandler), func() time.Time { return a.now })
	}
	batch := ask()
	serves(here, there)
	a.work()
	if i := a.items(batch.ID)[0]; i.State != joinery.RekeyItemFailed || i.Code != joinery.CodeInvalid {
		t.Errorf("sent to where it is: %+v", i)
	}

	serves(here)
	second := joinery.JoinServer{ID: joinery.NewJoinServerID(), Name: "former", TransportKey: []byte("x"), CreatedAt: noon}
	ok(t, a.store.AddJoinServer(ctx, second, joinery.AuditEntry{At: noon, Event: joinery.AuditJoinServerAdded, Actor: "test"}))
	batch = ask()
	order := joinery.RekeyOrder{
		ID: joinery.NewRekeyID(), Device: id, State: joinery.RekeyArmed, Rekey: lorawan.Rekey{JoinEUI: there, Cookie: lorawan.Cookie{1}},
		Thumbprint: batch.Thumbprint, Owner: a.org, By: "test", At: noon, ArmedAt: noon, ExpiresAt: noon.Add(time.Hour),
	}
	ok(t, a.store.ArmRekey(ctx, order, second.ID, joinery.AuditEntry{At: noon, Event: joinery.AuditRekeyArmed, Actor: "test", Org: a.org, Device: id}))
	a.work()
	if i := a.items(batch.ID)[0]; i.State != joinery.RekeyItemFailed || i.Code != joinery.CodeConflict {
		t.Errorf("an order to another Join Server was taken for it: %+v", i)
	}
	batch = ask()
	ok(t, a.Cancel(ctx, a.owner, id))
	a.work()
	if i := a.items(batch.ID)[0]; i.State != joinery.RekeyItemArmed || i.Order == order.ID {
		t.Errorf("%+v", i)
	}
	a.wantClean()
}
