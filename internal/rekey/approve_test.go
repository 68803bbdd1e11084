package rekey_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"testing"
	"time"

	"joinery"
	"joinery/internal/export"
	"joinery/internal/exportfile"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/rekey"
	"joinery/internal/rekeyfile"
	"joinery/lorawan"
)

// admin makes somebody of the organisation who is signed in and may approve.
func (s *server) admin(name string) joinery.Caller {
	s.t.Helper()
	entry := joinery.AuditEntry{At: s.now, Event: joinery.AuditRangeAssigned, Actor: "test"}
	p := joinery.Person{ID: joinery.NewPersonID(), Name: name, Email: name + "@example.com", CreatedAt: s.now}
	i := joinery.Invitation{ID: joinery.NewInvitationID(), Org: s.org, Role: joinery.RoleAdmin, Email: p.Email, Hash: sha256.Sum256([]byte(name)), CreatedAt: s.now, ExpiresAt: s.now.Add(time.Hour)}
	ok(s.t, s.store.Invite(s.t.Context(), i, entry))
	ok(s.t, s.store.Join(s.t.Context(), joinery.Joining{Invitation: i, Person: p, New: true, Identity: &joinery.Identity{Issuer: "https://id.example.com", Subject: name}}, s.now, entry))
	return joinery.Caller{Org: s.org, Name: "person " + p.ID.String(), Person: p.ID, Session: joinery.NewSessionID(), SessionKind: joinery.SessionBrowser, Rights: joinery.RoleAdmin.Rights()}
}

// Where an export needs another person, an order to rekey waits for one, who approves
// exactly devices, JoinEUI and key.
func TestApproval(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to := a.pin(b)
	ids := []joinery.DeviceID{a.derived(lorawan.EUI64{1}, ""), a.derived(lorawan.EUI64{2}, "")}
	ann := a.admin("ann")
	arm := func(id joinery.DeviceID) joinery.RekeyOrder {
		t.Helper()
		o, err := a.Arm(ctx, ann, rekey.Arm{Device: id, JoinEUI: there, To: to})
		ok(t, err)
		return o
	}
	for _, id := range ids {
		ok(t, a.SetProfile(ctx, ann, id, joinery.RekeyS))
	}
	if o := arm(ids[0]); o.State != joinery.RekeyArmed {
		t.Fatalf("the only admin waits for another: %+v", o)
	}
	ok(t, a.Cancel(ctx, ann, ids[0]))
	ben := a.admin("ben")
	for _, id := range ids {
		if o := arm(id); o.State != joinery.RekeyRequested || o.Thumbprint != b.keys.Keyring.TransportKey().KID() {
			t.Fatalf("%+v", o)
		}
	}
	list, _, err := a.Requests(ctx, ben, 0, 10)
	ok(t, err)
	if len(list) != 2 || list[0].By != ann.Name {
		t.Fatalf("%+v", list)
	}
	if _, _, err := a.Requests(ctx, joinery.Caller{Org: 77}, 0, 10); joinery.CodeOf(err) != joinery.CodeNotFound {
		t.Errorf("a stranger's: %v", err)
	}
	// Nothing is told to a device, or leaves, before.
	_, err = a.Ticket(ctx, ann, ids[:1])
	wantCode(t, err, joinery.CodeConflict)
	_, err = a.Handover(ctx, ann, to, ids[:1])
	wantCode(t, err, joinery.CodeConflict)

	approval := rekey.Approval{Devices: ids, JoinEUI: there, Thumbprint: list[0].Thumbprint}
	refused := func(caller joinery.Caller, want joinery.Code, change func(*rekey.Approval)) {
		t.Helper()
		x := approval
		change(&x)
		_, err := a.Approve(ctx, caller, x)
		wantCode(t, err, want)
	}
	same := func(*rekey.Approval) {}
	bensKey := ben
	bensKey.Session, bensKey.Key = 0, joinery.NewAPIKeyID()
	refused(ann, joinery.CodeForbidden, same) // asked for it
	refused(bensKey, joinery.CodeForbidden, same)
	refused(joinery.Caller{Operator: true, Socket: true}, joinery.CodeForbidden, same)
	refused(joinery.Caller{Org: 77, Person: 1, Session: 1}, joinery.CodeNotFound, same)
	refused(ben, joinery.CodeConflict, func(x *rekey.Approval) { x.JoinEUI = here })
	refused(ben, joinery.CodeConflict, func(x *rekey.Approval) { x.Thumbprint = list[0].By })
	refused(ben, joinery.CodeInvalid, func(x *rekey.Approval) { x.Devices = []joinery.DeviceID{ids[0], ids[0]} })

	// One of the set was taken back: nothing of it is armed.
	ok(t, a.Cancel(ctx, ann, ids[1]))
	refused(ben, joinery.CodeConflict, same)
	a.wantStatus(ids[0], joinery.RekeyRequested, 0)
	armed, err := a.Approve(ctx, ben, rekey.Approval{Devices: ids[:1], JoinEUI: there, Thumbprint: approval.Thumbprint})
	ok(t, err)
	if len(armed) != 1 || armed[0].State != joinery.RekeyArmed || armed[0].DecidedBy != ben.Name {
		t.Fatalf("%+v", armed)
	}
	_, err = a.Handover(ctx, ann, to, ids[:1])
	ok(t, err)

	arm(ids[1])
	n, err := a.Reject(ctx, ben, ids[1:])
	if n != 1 || err != nil {
		t.Fatal(n, err)
	}
	a.wantStatus(ids[1], joinery.RekeyRejected, 0)
	arm(ids[1])
	a.now = a.now.Add(joinery.RekeyWait)
	refused(ben, joinery.CodeConflict, func(x *rekey.Approval) { x.Devices = ids[1:] }) // its time is over
	a.wantStatus(ids[1], joinery.RekeyExpired, 0)
	arm(ids[1]) // and it makes room
	a.wantClean()
}

func (s *server) wantClean() {
	s.t.Helper()
	found, err := s.store.Fsck(s.t.Context(), nil)
	if err != nil || len(found) > 0 {
		s.t.Error(found, err)
	}
}

// What goes to a recipient of the owner's opens for the holder of its key, and is
// remembered for ever, before it leaves.
func TestRecipient(t *testing.T) {
	ctx := t.Context()
	a := newServer(t, here)
	holder := keyringtest.Recipient(t)
	register := func(name string, pem []byte) joinery.RecipientID {
		t.Helper()
		r, err := a.exports.AddRecipient(ctx, a.owner, export.NewRecipient{Name: name, Kind: joinery.RecipientFile, Key: string(pem)})
		ok(t, err)
		return r.ID
	}
	to := register("safe", holder.Recipient().MarshalPEM())
	id := a.derived(lorawan.EUI64{1}, "")
	ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyS))
	point, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	der, err := x509.MarshalPKIXPublicKey(&point.PublicKey)
	ok(t, err)
	other := register("curve", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	_, err = a.Arm(ctx, a.owner, rekey.Arm{Device: id, JoinEUI: there, Recipient: other})
	wantCode(t, err, joinery.CodeConflict)

	o, err := a.Arm(ctx, a.owner, rekey.Arm{Device: id, JoinEUI: there, Recipient: to})
	ok(t, err)
	_, err = a.Disclose(ctx, a.owner, other, []joinery.DeviceID{id})
	wantCode(t, err, joinery.CodeConflict)
	known, err := a.store.Disclosures(ctx, id)
	if err != nil || len(known) > 0 {
		t.Fatalf("disclosed before anything left: %+v, %v", known, err)
	}
	file, err := a.Disclose(ctx, a.owner, to, []joinery.DeviceID{id})
	ok(t, err)
	var h rekeyfile.Handover
	_, err = rekeyfile.Open(file, rekeyfile.FormatHandover, nil, &h)
	ok(t, err)
	if e := h.Devices[0].Exposure; e == nil || !e.Disclosed || !e.Reaches() || e.Times[0].Reference != o.ID.String() {
		t.Errorf("the file does not say that it is a disclosure: %+v", e)
	}
	want := a.newRoots(joinery.RekeyS, lorawan.EUI64{1}, o.Rekey)
	err = holder.OpenRow(h.Seal, h.Devices[0].Row, func(m exportfile.Metadata, keys []exportfile.OpenedKey) error {
		if len(keys) != 2 || string(keys[0].Key) != string(want["new NwkKey"]) || string(keys[1].Key) != string(want["new AppKey"]) || m.JoinEUI != there {
			t.Errorf("other keys than the element derives: %+v", m)
		}
		return nil
	})
	ok(t, err)
	changed := h.Devices[0].Row
	changed.DevEUI[0]++
	if err := holder.OpenRow(h.Seal, changed, func(exportfile.Metadata, []exportfile.OpenedKey) error { return nil }); err == nil {
		t.Error("it opens as another device's")
	}

	state, err := a.store.RekeyingDevice(ctx, id)
	ok(t, err)
	known, err = a.store.Disclosures(ctx, id)
	ok(t, err)
	if !state.Device.Disclosed || len(known) != 1 || known[0].Rekey != o.ID || known[0].Recipient != holder.Recipient().Thumbprint() {
		t.Errorf("%t, %+v", state.Device.Disclosed, known)
	}
	a.derived(lorawan.EUI64{2}, "")
	b, _, err := a.RequestBatch(ctx, a.owner, rekey.NewBatch{Arm: rekey.Arm{JoinEUI: there, Recipient: to}, Select: &joinery.DeviceQuery{}})
	if err != nil || b.To != "safe" {
		t.Fatalf("%+v, %v", b, err)
	}
	a.work()
	entries, err := a.store.AuditEntries(ctx, 0, 100)
	ok(t, err)
	if !slices.ContainsFunc(entries, func(e joinery.AuditEntry) bool { return e.Event == joinery.AuditRekeyBatchDone }) {
		t.Error("the batch is not done")
	}
	exposed := 0
	for _, e := range entries {
		if joinery.SharedWithLaterOwners(e.Event) && e.Detail["to"] != "" {
			t.Errorf("%s tells later owners what the recipient is called: %v", e.Event, e.Detail)
		}
		if e.Event == joinery.AuditKeysExposed && e.Device == id {
			exposed++
		}
	}
	if exposed != 1 {
		t.Errorf("%d entries of the exposure", exposed)
	}
	a.wantClean()
}
