package export_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/internal/export"
	"joinery/internal/exportfile"
)

// Whoever is alone has the export, and the file, once; who has another admin beside
// them waits for that one, who approves exactly what was asked for.
func TestApproval(t *testing.T) {
	f := newFixture(t)
	a, b := f.device(1), f.device(2)
	if e := f.ask(f.owner, a); e.NeedsApproval || e.State != joinery.ExportApproved {
		t.Fatalf("alone: %+v", e)
	}
	ann := f.person("ann", joinery.RoleAdmin)
	if e := f.ask(ann, a); e.NeedsApproval || e.State != joinery.ExportApproved {
		t.Fatalf("the only admin: %+v", e)
	}
	mel := f.person("mel", joinery.RoleMember)
	if e := f.ask(mel, a); !e.NeedsApproval {
		t.Fatalf("a member beside an admin: %+v", e)
	}
	if e := f.ask(f.owner, a); !e.NeedsApproval {
		t.Fatalf("an API key that nobody made, beside an admin: %+v", e)
	}
	ben := f.person("ben", joinery.RoleAdmin)
	e := f.ask(ann, a, b, a)
	if !e.NeedsApproval || e.State != joinery.ExportRequested || e.Devices != 2 {
		t.Fatalf("two admins: %+v", e)
	}
	bensKey := ben
	bensKey.Session, bensKey.Key = 0, joinery.NewAPIKeyID()
	annsKey := ann
	annsKey.Session, annsKey.Key = 0, joinery.NewAPIKeyID()
	for name, caller := range map[string]joinery.Caller{
		"who asked": ann, "a key of who asked": annsKey, "a key of the other": bensKey, "a member": mel, "the operator": {Org: f.org, Operator: true, Socket: true},
		"the operator's person": func() joinery.Caller {
			c := f.personOf(f.operatorOrg(), "ops", joinery.RoleAdmin)
			c.Operator = true
			return c
		}(),
	} {
		if _, err := f.Approve(f.ctx, caller, e.ID, e.Digest, e.Thumbprint); joinery.CodeOf(err) != joinery.CodeForbidden {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := f.Approve(f.ctx, ben, e.ID, [32]byte{1}, e.Thumbprint)
	f.refused(err, joinery.CodeConflict)
	_, err = f.Approve(f.ctx, ben, e.ID, e.Digest, strings.Repeat("x", 43))
	f.refused(err, joinery.CodeConflict)
	if jobs, err := f.Jobs(f.ctx, f.custody); err != nil || len(jobs) != 2 { // those from before
		t.Fatalf("%d jobs, %v", len(jobs), err)
	}
	e, err = f.Approve(f.ctx, ben, e.ID, e.Digest, e.Thumbprint)
	f.ok(err)
	if e = f.work(e.ID); e.State != joinery.ExportReady || e.Wrapped != 2 {
		t.Fatalf("%+v", e)
	}
	page, err := f.File(f.ctx, ann, e.ID, 0, 0, 0)
	f.ok(err)
	if len(page.Lines) != 2 || len(page.Header) == 0 {
		t.Fatalf("%+v", page)
	}
	_, err = f.File(f.ctx, joinery.Caller{Org: f.operatorOrg(), Operator: true}, e.ID, 0, 0, 0)
	f.refused(err, joinery.CodeNotFound) // the operator for another organisation
	_, err = f.Acknowledge(f.ctx, ann, e.ID)
	f.ok(err)
	_, err = f.File(f.ctx, ann, e.ID, 0, 0, 0)
	f.refused(err, joinery.CodeConflict)

	rejected := f.ask(ann, a)
	rejected, err = f.Reject(f.ctx, ben, rejected.ID, "we do not know that key")
	f.ok(err)
	_, err = f.Approve(f.ctx, ben, rejected.ID, rejected.Digest, rejected.Thumbprint)
	f.refused(err, joinery.CodeConflict)
	f.checked()
}

func (f *fixture) operatorOrg() joinery.OrgID {
	f.t.Helper()
	orgs, err := f.db.Orgs(f.ctx)
	f.ok(err)
	for _, o := range orgs {
		if o.Kinds.Is(joinery.KindServerOperator) {
			return o.ID
		}
	}
	f.t.Fatal("no operator")
	return 0
}

// checked finds nothing wrong in the store.
func (f *fixture) checked() {
	f.t.Helper()
	found, err := f.db.Fsck(f.ctx, nil)
	f.ok(err)
	for _, v := range found {
		f.t.Error(v)
	}
}

// A weaker policy needs the approval that an export needs, and a day; a stricter one
// holds at once. Whoever removes the other admins is not alone for a day.
func TestPolicy(t *testing.T) {
	f := newFixture(t)
	d := f.device(1)
	alone := func(want bool) {
		t.Helper()
		if needs, err := f.NeedsAnother(f.ctx, f.owner, f.org); err != nil || needs == want {
			t.Fatalf("needs another person: %t, %v", needs, err)
		}
	}
	alone(true)
	nobody := f.owner
	nobody.Rights = 0
	_, err := f.NeedsAnother(f.ctx, nobody, f.org)
	f.refused(err, joinery.CodeForbidden)
	p, err := f.SetPolicy(f.ctx, f.owner, joinery.ApprovalAlways)
	f.ok(err)
	if p.Holds != joinery.ApprovalAlways || !p.Needed {
		t.Fatalf("%+v", p)
	}
	alone(false)
	if e := f.ask(f.owner, d); e.State != joinery.ExportRequested { // and nobody is there to approve
		t.Fatalf("%+v", e)
	}
	ann, ben := f.person("ann", joinery.RoleAdmin), f.person("ben", joinery.RoleAdmin)
	p, err = f.SetPolicy(f.ctx, ann, joinery.ApprovalNever)
	f.ok(err)
	if p.Holds != joinery.ApprovalAlways || p.Next != joinery.ApprovalNever || !p.NextFrom.IsZero() {
		t.Fatalf("%+v", p)
	}
	_, err = f.ApprovePolicy(f.ctx, ann, joinery.ApprovalNever)
	f.refused(err, joinery.CodeForbidden)
	_, err = f.ApprovePolicy(f.ctx, ben, joinery.ApprovalAuto) // not what was proposed
	f.refused(err, joinery.CodeConflict)
	_, err = f.ApprovePolicy(f.ctx, ben, joinery.ApprovalNever)
	f.ok(err)
	f.now = f.now.Add(24*time.Hour - time.Millisecond)
	if e := f.ask(ann, d); e.State != joinery.ExportRequested {
		t.Fatalf("within the day: %+v", e)
	}
	f.now = f.now.Add(time.Millisecond)
	if e := f.ask(ann, d); e.State != joinery.ExportApproved {
		t.Fatalf("after the day: %+v", e)
	}
	outsider := joinery.Caller{Org: f.org, Operator: true, Socket: true, Name: "socket uid 0"}
	if e := f.ask(outsider, d); e.State != joinery.ExportRequested {
		t.Fatalf("the operator, for an organisation that has admins: %+v", e)
	}
	if p, err = f.SetPolicy(f.ctx, ann, joinery.ApprovalAuto); err != nil || p.Holds != joinery.ApprovalAuto || p.Next != 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	a := f.entry()
	f.ok(f.db.RemoveMember(f.ctx, f.org, ben.Person, false, a))
	if e := f.ask(ann, d); e.State != joinery.ExportRequested {
		t.Fatalf("alone for an instant: %+v", e)
	}
	f.now = f.now.Add(24 * time.Hour)
	if e := f.ask(ann, d); e.State != joinery.ExportApproved {
		t.Fatalf("alone for a day: %+v", e)
	}
	f.checked()
}

// What changes hands, or is deleted, between request and wrapping is left out, and
// what is suspended is not. Nobody else's device can be asked for.
func TestDevicesChange(t *testing.T) {
	f := newFixture(t)
	kept, gone, sold := f.device(1), f.device(2), f.device(3)
	f.ok(f.db.SetSuspended(f.ctx, kept.ID, f.org, true, f.entry()))
	e, err := f.Request(f.ctx, f.owner, export.Spec{Recipient: f.recipient.ID, Select: &joinery.DeviceQuery{}})
	f.ok(err)
	buyer := joinery.NewOrgID()
	f.ok(f.db.AddOrg(f.ctx, joinery.Organisation{ID: buyer, Name: "buyer", CreatedAt: f.now}, f.entry()))
	f.ok(f.db.Claim(f.ctx, sold.ID, 0, buyer, nil, f.entry()))
	f.ok(f.db.DeleteDevice(f.ctx, gone.ID, f.org, f.entry()))
	if e = f.work(e.ID); e.State != joinery.ExportReady || e.Wrapped != 1 || e.Dropped != 2 {
		t.Fatalf("%+v", e)
	}
	items, err := f.Items(f.ctx, f.owner, e.ID, 0, 10)
	f.ok(err)
	for i, reason := range []string{"", joinery.DropGone, joinery.DropOwner} {
		if items[i].Reason != reason {
			t.Errorf("%d: %q", i, items[i].Reason)
		}
	}
	known, err := f.Disclosures(f.ctx, f.owner, kept.ID)
	f.ok(err)
	if len(known) != 1 || known[0].Export != e.ID || known[0].Recipient != f.recipient.Thumbprint {
		t.Errorf("%+v", known)
	}
	_, err = f.Disclosures(f.ctx, f.owner, sold.ID)
	f.refused(err, joinery.CodeNotFound)
	_, err = f.Request(f.ctx, f.owner, export.Spec{Recipient: f.recipient.ID, Devices: []joinery.DeviceRef{kept, sold}})
	f.refused(err, joinery.CodeNotFound)
	if list, err := f.Exports(f.ctx, f.owner, 0, 10); err != nil || len(list) != 1 {
		t.Errorf("%d exports, %v", len(list), err)
	}
	f.checked()
}

// What cannot be done ends, or says why it waits, and the organisation is told once.
func TestFailed(t *testing.T) {
	f := newFixture(t)
	e := f.ask(f.owner, f.device(1), f.device(2))
	_, err := f.Stall(f.ctx, f.owner, e.ID, "no key")
	f.refused(err, joinery.CodeForbidden)
	_, err = f.Fail(f.ctx, f.custody, e.ID, "")
	f.refused(err, joinery.CodeInvalid)
	for _, why := range []string{"no key", "no key", "another key"} {
		got, err := f.Stall(f.ctx, f.custody, e.ID, why)
		f.ok(err)
		if got.State != joinery.ExportApproved || got.Note != why {
			t.Errorf("%+v", got)
		}
	}
	h := f.begin(e.ID)
	work, _, err := f.Work(f.ctx, f.custody, e.ID, 0, 0)
	f.ok(err)
	_, err = f.HandIn(f.ctx, f.custody, e.ID, []export.Done{f.wrapped(h, work[0])})
	f.ok(err)
	_, err = f.Fail(f.ctx, f.custody, e.ID, "no wrapping") // of one device the owner has the key
	f.refused(err, joinery.CodeConflict)
	e, err = f.HandIn(f.ctx, f.custody, e.ID, []export.Done{{Index: 1, KeySet: work[1].KeySet.ID, Reason: joinery.DropWrapping}})
	f.ok(err)
	if e.State != joinery.ExportReady || e.Wrapped != 1 || e.Dropped != 1 || e.Note != "" {
		t.Errorf("%+v", e)
	}

	e = f.ask(f.owner, f.device(3))
	e, err = f.Fail(f.ctx, f.custody, e.ID, "no wrapping")
	f.ok(err)
	if e.State != joinery.ExportFailed || !e.State.Ended() || e.Note != "no wrapping" {
		t.Errorf("%+v", e)
	}
	if jobs, err := f.Jobs(f.ctx, f.custody); err != nil || len(jobs) != 0 {
		t.Errorf("%d jobs, %v", len(jobs), err)
	}
	_, err = f.Withdraw(f.ctx, f.owner, e.ID)
	f.refused(err, joinery.CodeConflict)
	told := map[joinery.AuditEvent]int{}
	entries, err := f.db.AuditEntries(f.ctx, 0, 100)
	f.ok(err)
	for _, a := range entries {
		told[a.Event]++
	}
	if told[joinery.AuditExportStalled] != 2 || told[joinery.AuditExportFailed] != 1 {
		t.Errorf("%v", told)
	}
	f.checked()
}

// What is handed in must be what was asked for, under the first line that stands.
func TestHandIn(t *testing.T) {
	f := newFixture(t)
	e := f.ask(f.owner, f.device(1), f.device(2))
	stranger := joinery.Caller{Operator: true, Name: "key of an operator", Key: joinery.NewAPIKeyID()}
	_, err := f.Jobs(f.ctx, stranger)
	f.refused(err, joinery.CodeForbidden)
	h := f.begin(e.ID)
	other := h
	other.Devices++
	if again, err := f.Start(f.ctx, f.custody, e.ID, other); err != nil || again.Begin != h {
		t.Errorf("%+v, %v", again.Begin, err)
	}
	work, next, err := f.Work(f.ctx, f.custody, e.ID, 0, 1)
	f.ok(err)
	rest, _, err := f.Work(f.ctx, f.custody, e.ID, next, 5)
	f.ok(err)
	if len(work) != 1 || len(rest) != 1 || len(work[0].KeySet.App.Custody) == 0 {
		t.Fatalf("%d and %d devices", len(work), len(rest))
	}
	first, second := f.wrapped(h, work[0]), f.wrapped(h, rest[0])
	swapped, unsigned := second, second
	swapped.Line = first.Line
	unsigned.Line = []byte(strings.Replace(string(second.Line), `"joinNonce":0`, `"joinNonce":9`, 1))
	for name, done := range map[string][]export.Done{
		"another's keys": {swapped}, "changed after it was signed": {unsigned}, "not in order": {second, first}, "not in it": {{Index: 7, KeySet: first.KeySet, Line: first.Line}},
		"no reason of ours": {{Index: 0, KeySet: first.KeySet, Reason: "because"}}, "nothing": {{Index: 0, KeySet: first.KeySet}},
	} {
		if _, err := f.HandIn(f.ctx, f.custody, e.ID, done); joinery.CodeOf(err) != joinery.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range 2 { // the answer was lost
		e, err = f.HandIn(f.ctx, f.custody, e.ID, []export.Done{first})
		f.ok(err)
	}
	if e.State != joinery.ExportWorking || e.Wrapped != 1 {
		t.Fatalf("%+v", e)
	}
	_, err = f.File(f.ctx, f.owner, e.ID, 0, 0, 0)
	f.refused(err, joinery.CodeConflict)
	for range 2 {
		e, err = f.HandIn(f.ctx, f.custody, e.ID, []export.Done{second})
		f.ok(err)
	}
	if e.State != joinery.ExportReady {
		t.Fatalf("%+v", e)
	}
	f.checked()
}

// tampered is a store whose export has other devices than were approved.
type tampered struct{ export.Store }

func (s tampered) ExportDigest(ctx context.Context, id joinery.ExportID) (digest [32]byte, n int64, err error) {
	digest, n, err = s.Store.ExportDigest(ctx, id)
	digest[0]++
	return digest, n, err
}

// A copy of a database discloses nothing before somebody says that it is the newest
// state.
func TestHeld(t *testing.T) {
	f := newFixture(t)
	ready := f.work(f.ask(f.owner, f.device(1)).ID)
	held := export.New(f.db, export.Options{Hold: func() error { return errors.New("fenced") }})
	_, err := held.Jobs(f.ctx, f.custody)
	f.refused(err, joinery.CodeUnavailable)
	_, err = held.File(f.ctx, f.owner, ready.ID, 0, 0, 0)
	f.refused(err, joinery.CodeUnavailable)
	_, err = held.Export(f.ctx, f.owner, ready.ID)
	f.ok(err)
}

func TestApprovedIsWhatIsWrapped(t *testing.T) {
	f := newFixture(t)
	e := f.ask(f.owner, f.device(1))
	s := export.New(tampered{f.db}, export.Options{})
	jobs, err := s.Jobs(f.ctx, f.custody)
	f.ok(err)
	h := jobs[0].Begin
	h.Wrapping = exportfile.JWEECDHES
	h.Signer, err = exportfile.NewSigner(&f.signer.PublicKey)
	f.ok(err)
	_, err = s.Start(f.ctx, f.custody, e.ID, h)
	f.refused(err, joinery.CodeConflict)
}

// Exports end by themselves, and what was wrapped goes with them.
func TestSweep(t *testing.T) {
	f := newFixture(t)
	d := f.device(1)
	e := f.work(f.ask(f.owner, d).ID)
	open, err := f.Request(f.ctx, f.owner, export.Spec{Recipient: f.recipient.ID, More: true})
	f.ok(err)
	other := f.owner
	other.Name = "key other"
	_, err = f.Add(f.ctx, other, open.ID, []joinery.DeviceRef{d}, false)
	f.refused(err, joinery.CodeForbidden)
	f.now = f.now.Add(7*24*time.Hour - time.Millisecond)
	f.ok(f.Sweep(f.ctx))
	_, err = f.File(f.ctx, f.owner, e.ID, 0, 0, 0)
	f.ok(err)
	f.now = f.now.Add(time.Millisecond)
	_, err = f.File(f.ctx, f.owner, e.ID, 0, 0, 0) // before anybody swept
	f.refused(err, joinery.CodeConflict)
	f.ok(f.Sweep(f.ctx))
	for _, id := range []joinery.ExportID{e.ID, open.ID} {
		if e, err = f.Export(f.ctx, f.owner, id); err != nil || e.State != joinery.ExportExpired {
			t.Errorf("%+v, %v", e, err)
		}
	}
	if known, err := f.Disclosures(f.ctx, f.owner, d.ID); err != nil || len(known) != 1 {
		t.Errorf("%+v, %v", known, err)
	}
	f.checked()
}

func TestRecipientsAreChecked(t *testing.T) {
	f := newFixture(t)
	jwk := string(f.to.MarshalJWK())
	for name, n := range map[string]export.NewRecipient{
		"no name":             {Kind: joinery.RecipientFile, Key: jwk},
		"no key":              {Name: "a", Kind: joinery.RecipientFile, Key: "hello"},
		"no kind":             {Name: "a", Key: jwk},
		"P-256 for a server":  {Name: "a", Kind: joinery.RecipientServer, Key: jwk},
		"SHA-1 without RSA":   {Name: "a", Kind: joinery.RecipientFile, Key: jwk, SHA1: true},
		"a name of two lines": {Name: "a\nb", Kind: joinery.RecipientFile, Key: jwk},
	} {
		if _, err := f.AddRecipient(f.ctx, f.owner, n); joinery.CodeOf(err) != joinery.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := f.Request(f.ctx, f.owner, export.Spec{Recipient: f.recipient.ID, Devices: []joinery.DeviceRef{f.device(1)}, Form: exportfile.FormRaw})
	f.refused(err, joinery.CodeInvalid) // to P-256
	f.refused(f.RemoveRecipient(f.ctx, joinery.Caller{Org: f.operatorOrg(), Operator: true}, f.recipient.ID), joinery.CodeNotFound)
	f.ok(f.RemoveRecipient(f.ctx, f.owner, f.recipient.ID))
	_, err = f.Request(f.ctx, f.owner, export.Spec{Recipient: f.recipient.ID, Devices: []joinery.DeviceRef{f.device(2)}})
	f.refused(err, joinery.CodeNotFound)
}
