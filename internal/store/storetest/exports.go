package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/auditlog"
	"joinery/internal/exposure"
)

// recipient is a new one; its key opens nothing, since nothing here wraps.
func (w *world) recipient(org joinery.OrgID, name string) joinery.Recipient {
	w.t.Helper()
	r := joinery.Recipient{
		ID: joinery.NewRecipientID(), Org: org, Name: name, Kind: joinery.RecipientFile, Thumbprint: (name + strings.Repeat("x", 43))[:43],
		Key: "PEM of " + name, SHA1: true, AddedBy: "storetest", CreatedAt: epoch,
	}
	w.ok(w.AddRecipient(w.ctx, r, 3, w.audit(joinery.AuditRecipientAdded)))
	return r
}

// export makes an export of devices that is in a state.
func (w *world) export(r joinery.Recipient, to joinery.ExportState, devices ...joinery.ActivationState) joinery.Export {
	w.t.Helper()
	e := joinery.Export{ID: joinery.NewExportID(), Org: r.Org, Recipient: r.ID, RequestedBy: "storetest", RequestedPerson: 7, RequestedAt: epoch, ExpiresAt: epoch.Add(time.Hour)}
	w.ok(w.BeginExport(w.ctx, e))
	var ids []joinery.DeviceID
	for _, s := range devices {
		ids = append(ids, s.Device.ID)
	}
	e, err := w.AddExportDevices(w.ctx, e.ID, ids)
	w.ok(err)
	if to == joinery.ExportCollecting {
		return e
	}
	set, err := w.FixExportSet(w.ctx, e.ID)
	w.ok(err)
	e.Digest, e.Devices, e.Root = set.Digest, set.Devices, set.Root
	e.State = joinery.ExportRequested
	w.ok(w.MoveExport(w.ctx, e, []joinery.ExportState{joinery.ExportCollecting}, w.aboutExport(joinery.AuditExportRequested, e)))
	if to == joinery.ExportApproved {
		e.State, e.DecidedBy, e.DecidedAt, e.NeedsApproval = to, "somebody", epoch, true
		w.ok(w.MoveExport(w.ctx, e, []joinery.ExportState{joinery.ExportRequested}, w.aboutExport(joinery.AuditExportApproved, e)))
	}
	return e
}

// aboutExport is an audit entry about an export.
func (w *world) aboutExport(event joinery.AuditEvent, e joinery.Export) joinery.AuditEntry {
	a := w.audit(event)
	a.Org = e.Org
	a.Detail = joinery.DeviceSet{Devices: e.Devices, Digest: e.Digest, Root: e.Root}.Detail(map[string]string{"export": e.ID.String()})
	return a
}

// wrap hands in what stands for the keys of devices of an export.
func (w *world) wrap(e joinery.Export, items ...joinery.WrappedItem) (joinery.Export, error) {
	w.t.Helper()
	if _, err := w.StartExport(w.ctx, e.ID, []byte("head")); err != nil {
		return joinery.Export{}, err
	}
	exposed := w.audit(joinery.AuditKeysExposed)
	return w.CommitExport(w.ctx, e.ID, items, epoch.Add(2*time.Hour), exposed, w.audit(joinery.AuditExportReady))
}

func blob(s joinery.ActivationState, index uint64) joinery.WrappedItem {
	return joinery.WrappedItem{Index: index, KeySet: s.KeySet.ID, Blob: []byte("keys of " + s.Device.DevEUI.String())}
}

func runExports(t *testing.T, open func(testing.TB) Backend) {
	t.Run("recipients", func(t *testing.T) {
		w := newWorld(t, open)
		b := w.recipient(w.org, "b")
		a := w.recipient(w.org, "a")
		w.recipient(w.addOrg("other"), "a")
		same := a
		same.ID, same.Name = joinery.NewRecipientID(), "same key"
		w.refused(w.AddRecipient(w.ctx, same, 3, w.audit(joinery.AuditRecipientAdded)), joinery.CodeConflict)
		w.recipient(w.org, "c")
		same.Thumbprint = strings.Repeat("d", 43)
		w.refused(w.AddRecipient(w.ctx, same, 3, w.audit(joinery.AuditRecipientAdded)), joinery.CodeConflict) // most
		list, err := w.Recipients(w.ctx, w.org)
		w.ok(err)
		w.equal(list[:2], []joinery.Recipient{a, b})
		pending := w.export(a, joinery.ExportApproved, w.add(derived(1)))
		w.ok(w.RemoveRecipient(w.ctx, a.ID, w.audit(joinery.AuditRecipientRemoved)))
		w.refused(w.RemoveRecipient(w.ctx, a.ID, w.audit(joinery.AuditRecipientRemoved)), joinery.CodeNotFound)
		e, err := w.Export(w.ctx, pending.ID)
		w.ok(err)
		w.equal(e.State, joinery.ExportWithdrawn)
		got, err := w.Recipient(w.ctx, a.ID)
		w.ok(err)
		w.equal(got.RemovedAt, epoch)
		w.refused(w.BeginExport(w.ctx, joinery.Export{ID: joinery.NewExportID(), Org: w.org, Recipient: a.ID, RequestedAt: epoch, ExpiresAt: epoch}), joinery.CodeNotFound)
		w.recipient(w.org, "a") // its name and key are free again
		w.CheckInvariants(t)
	})
	t.Run("policy", func(t *testing.T) {
		w := newWorld(t, open)
		first, err := w.ExportPolicy(w.ctx, w.org)
		w.ok(err)
		w.equal(first, joinery.ExportPolicy{Org: w.org, Approval: joinery.ApprovalAuto})
		next := first
		next.Next, next.NextFrom, next.ProposedBy, next.ProposedPerson = joinery.ApprovalNever, epoch.Add(time.Hour), "ann", 7
		w.ok(w.SetExportPolicy(w.ctx, next, first, w.audit(joinery.AuditExportPolicy)))
		w.refused(w.SetExportPolicy(w.ctx, next, first, w.audit(joinery.AuditExportPolicy)), joinery.CodeConflict)
		got, err := w.ExportPolicy(w.ctx, w.org)
		w.ok(err)
		w.equal(got, next)

		ann := w.person(w.org, joinery.RoleAdmin, "ann").ID
		ben := w.person(w.org, joinery.RoleAdmin, "ben").ID
		left := w.audit(joinery.AuditPersonRemoved)
		left.At = epoch.Add(time.Minute)
		w.ok(w.RemoveMember(w.ctx, w.org, ben, false, left))
		next.AdminLeftAt = left.At
		got, err = w.ExportPolicy(w.ctx, w.org)
		w.ok(err)
		w.equal(got, next)
		// Nobody is left without an admin, and nothing is noted then.
		left.At = epoch.Add(time.Hour)
		w.person(w.org, joinery.RoleViewer, "vic")
		w.refused(w.RemoveMember(w.ctx, w.org, ann, false, left), joinery.CodeConflict)
		got, err = w.ExportPolicy(w.ctx, w.org)
		w.ok(err)
		w.equal(got, next)
		w.CheckInvariants(t)
	})
	t.Run("devices", func(t *testing.T) {
		w := newWorld(t, open)
		r := w.recipient(w.org, "r")
		a, b := w.add(derived(1)), w.add(sealed(2))
		e := w.export(r, joinery.ExportCollecting, b, a)
		w.equal(e.Devices, int64(2))
		e, err := w.AddExportDevices(w.ctx, e.ID, []joinery.DeviceID{a.Device.ID}) // is in it
		w.ok(err)
		w.equal(e.Devices, int64(2))
		foreign := w.add(derived(3))
		w.ok(w.Claim(w.ctx, foreign.Device.ID, 0, w.addOrg("other"), nil, w.audit(joinery.AuditDeviceClaimed)))
		c := w.add(derived(4))
		_, err = w.AddExportDevices(w.ctx, e.ID, []joinery.DeviceID{c.Device.ID, foreign.Device.ID})
		w.refused(err, joinery.CodeNotFound)
		_, err = w.AddExportDevices(w.ctx, e.ID, make([]joinery.DeviceID, joinery.MaxExportRows+1))
		w.refused(err, joinery.CodeTooLarge)
		items, err := w.ExportItems(w.ctx, e.ID, 0, 10)
		w.ok(err)
		w.equal(items, []joinery.ExportItem{
			{Index: 0, Device: b.Device.ID, KeySet: b.KeySet.ID, JoinEUI: b.Device.JoinEUI, DevEUI: b.Device.DevEUI},
			{Index: 1, Device: a.Device.ID, KeySet: a.KeySet.ID, JoinEUI: a.Device.JoinEUI, DevEUI: a.Device.DevEUI},
		})
		sum := joinery.NewExportDigest()
		sum.Add(b.Device.JoinEUI, b.Device.DevEUI)
		sum.Add(a.Device.JoinEUI, a.Device.DevEUI)
		digest, n, err := w.ExportDigest(w.ctx, e.ID)
		w.ok(err)
		w.equal(n, int64(2))
		w.equal(digest, sum.Sum())
		stale := e
		stale.Devices, stale.State, stale.Digest = 1, joinery.ExportRequested, digest
		w.refused(w.MoveExport(w.ctx, stale, []joinery.ExportState{joinery.ExportCollecting}), joinery.CodeConflict)
		set, err := w.FixExportSet(w.ctx, e.ID)
		w.ok(err)
		w.equal([]any{set.Devices, set.Digest}, []any{n, digest})
		stale.Devices, stale.Root = 2, set.Root
		again, err := w.FixExportSet(w.ctx, e.ID) // by another server: the last one counts
		w.ok(err)
		w.refused(w.MoveExport(w.ctx, stale, []joinery.ExportState{joinery.ExportCollecting}), joinery.CodeConflict)
		stale.Root = again.Root
		w.ok(w.MoveExport(w.ctx, stale, []joinery.ExportState{joinery.ExportCollecting}, w.aboutExport(joinery.AuditExportRequested, stale)))
		_, err = w.FixExportSet(w.ctx, e.ID)
		w.refused(err, joinery.CodeConflict)
		w.CheckInvariants(t)
	})
	t.Run("disclosure", func(t *testing.T) { disclosure(t, open) })
	t.Run("told", func(t *testing.T) { told(t, open) })
	t.Run("what changes meanwhile is left out", func(t *testing.T) {
		w := newWorld(t, open)
		r := w.recipient(w.org, "r")
		gone, moved, kept, broken := w.add(sealed(1)), w.add(derived(2)), w.add(derived(3)), w.add(derived(4))
		e := w.export(r, joinery.ExportApproved, gone, moved, kept, broken)
		w.ok(w.DeleteDevice(w.ctx, gone.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
		buyer := w.addOrg("buyer")
		w.ok(w.Claim(w.ctx, moved.Device.ID, 0, buyer, nil, w.audit(joinery.AuditDeviceClaimed)))
		w.ok(w.SetSuspended(w.ctx, kept.Device.ID, w.org, true, w.audit(joinery.AuditDeviceSuspended)))
		items, states, err := w.ExportWork(w.ctx, e.ID, 0, 10)
		w.ok(err)
		w.equal(len(items), 4)
		w.equal(states[0], joinery.ActivationState{})
		w.equal(states[1].Device.Ownership.Org, buyer)
		e, err = w.wrap(e, blob(gone, 0), blob(moved, 1), blob(kept, 2), joinery.WrappedItem{Index: 3, KeySet: broken.KeySet.ID, Reason: joinery.DropUnwrapped})
		w.ok(err)
		w.equal([]any{e.State, e.Wrapped, e.Dropped}, []any{joinery.ExportReady, int64(1), int64(3)})
		after, err := w.ExportItems(w.ctx, e.ID, 0, 10)
		w.ok(err)
		var reasons []string
		for _, i := range after {
			reasons = append(reasons, i.Reason)
		}
		w.equal(reasons, []string{joinery.DropGone, joinery.DropOwner, "", joinery.DropUnwrapped})
		w.equal(w.again(moved).Device.Disclosed, false)
		w.equal(w.again(kept).Device.Disclosed, true)
		w.CheckInvariants(t)
	})
	t.Run("fails", func(t *testing.T) {
		w := newWorld(t, open)
		r := w.recipient(w.org, "r")
		a, b := w.add(sealed(1)), w.add(derived(2))
		none, told := w.export(r, joinery.ExportApproved, a, b), w.export(r, joinery.ExportApproved, b)
		none, err := w.wrap(none, joinery.WrappedItem{Index: 0, KeySet: a.KeySet.ID, Reason: joinery.DropNoKey}, joinery.WrappedItem{Index: 1, KeySet: b.KeySet.ID, Reason: joinery.DropWrapping})
		w.ok(err)
		w.equal([]any{none.State, none.Note, none.EndedAt}, []any{joinery.ExportFailed, joinery.NoteNothing, epoch})
		w.equal(w.again(a).Device.Disclosed, false)
		told.State, told.Note, told.EndedAt = joinery.ExportFailed, "no such wrapping", epoch
		w.ok(w.MoveExport(w.ctx, told, []joinery.ExportState{joinery.ExportApproved}, w.audit(joinery.AuditExportFailed)))
		w.Backend = w.Reopen(t)
		for _, want := range []joinery.Export{none, told} {
			got, err := w.Export(w.ctx, want.ID)
			w.ok(err)
			w.equal([]any{got.State, got.Note, got.EndedAt}, []any{want.State, want.Note, want.EndedAt})
			_, err = w.wrap(want, blob(b, 0))
			w.refused(err, joinery.CodeConflict)
		}
		w.CheckInvariants(t)
	})
	t.Run("ends", func(t *testing.T) {
		w := newWorld(t, open)
		r := w.recipient(w.org, "r")
		s := w.add(derived(1))
		e := w.export(r, joinery.ExportApproved, s)
		due, err := w.DueExports(w.ctx, epoch.Add(time.Hour-time.Second))
		w.ok(err)
		w.equal(len(due), 0)
		due, err = w.DueExports(w.ctx, epoch.Add(time.Hour))
		w.ok(err)
		w.equal(len(due), 1)
		e, err = w.wrap(e, blob(s, 0))
		w.ok(err)
		w.equal(e.ExpiresAt, epoch.Add(2*time.Hour))
		more, err := w.ClearExports(w.ctx)
		w.ok(err)
		w.equal(more, false)
		blobs, err := w.ExportBlobs(w.ctx, e.ID, 0, 0, 10)
		w.ok(err)
		w.equal(len(blobs), 1)
		e.State, e.EndedAt = joinery.ExportDelivered, epoch.Add(time.Minute)
		w.ok(w.MoveExport(w.ctx, e, []joinery.ExportState{joinery.ExportReady}, w.audit(joinery.AuditExportDelivered)))
		_, err = w.ExportBlobs(w.ctx, e.ID, 0, 0, 10)
		w.refused(err, joinery.CodeConflict)
		w.refused(w.MoveExport(w.ctx, e, []joinery.ExportState{joinery.ExportReady}), joinery.CodeConflict)
		_, err = w.ClearExports(w.ctx)
		w.ok(err)
		w.CheckInvariants(t)
		// What was disclosed stays known after everything, to every later owner.
		w.ok(w.DeleteDevice(w.ctx, s.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
		s = w.add(derived(1))
		w.equal(s.Device.Disclosed, true)
		list, err := w.Disclosures(w.ctx, s.Device.ID)
		w.ok(err)
		w.equal(len(list), 1)
		w.CheckInvariants(t)
	})
}

// disclosure is remembered with the first blob, and the same handed in again does
// nothing.
func disclosure(t *testing.T, open func(testing.TB) Backend) {
	w := newWorld(t, open)
	r := w.recipient(w.org, "r")
	a, b := w.add(derived(1)), w.add(sealed(2))
	e := w.export(r, joinery.ExportRequested, a, b)
	_, err := w.wrap(e, blob(a, 0)) // nobody approved
	w.refused(err, joinery.CodeConflict)
	e.State = joinery.ExportApproved
	w.ok(w.MoveExport(w.ctx, e, []joinery.ExportState{joinery.ExportRequested}))
	_, err = w.wrap(e, blob(b, 0)) // another's key set
	w.refused(err, joinery.CodeInvalid)
	e, err = w.wrap(e, blob(a, 0))
	w.ok(err)
	w.equal([]any{e.State, e.Wrapped}, []any{joinery.ExportWorking, int64(1)})
	_, err = w.ExportBlobs(w.ctx, e.ID, 0, 0, 10)
	w.refused(err, joinery.CodeConflict)
	if again := w.again(a); again.KeySet.Version == a.KeySet.Version || !again.Device.Disclosed || !again.KeySet.Disclosed {
		t.Errorf("%+v", again.Device)
	}
	w.equal(w.again(b).Device.Disclosed, false)
	fixed, err := w.StartExport(w.ctx, e.ID, []byte("another head"))
	w.ok(err)
	w.equal(string(fixed.Header), "head")
	items, states, err := w.ExportWork(w.ctx, e.ID, 0, 10)
	w.ok(err)
	w.equal(len(items), 1)
	whole, err := w.Device(w.ctx, b.Device.ID)
	w.ok(err)
	w.equal(states[0], whole)
	if len(states[0].KeySet.App.Custody) == 0 {
		t.Error("the custody blob is missing")
	}
	again, err := w.wrap(e, blob(a, 0))
	w.ok(err)
	w.equal(again.Wrapped, int64(1))
	w.Backend = w.Reopen(t)
	e, err = w.wrap(e, blob(a, 0), blob(b, 1))
	w.ok(err)
	w.equal([]any{e.State, e.Wrapped, e.ReadyAt}, []any{joinery.ExportReady, int64(2), epoch})
	blobs, err := w.ExportBlobs(w.ctx, e.ID, 0, 1, 10)
	w.ok(err)
	w.equal(blobs, []joinery.WrappedItem{blob(b, 1)})
	list, err := w.Disclosures(w.ctx, a.Device.ID)
	w.ok(err)
	w.equal(list, []joinery.Disclosure{{KeySet: a.KeySet.ID, Org: w.org, At: epoch, Recipient: r.Thumbprint, Kind: r.Kind, Export: e.ID}})
	entries, err := w.AuditEntries(w.ctx, 0, 1000)
	w.ok(err)
	count := map[joinery.AuditEvent]int{}
	for _, entry := range entries {
		count[entry.Event]++
		if entry.Event == joinery.AuditKeysExposed && (entry.Org != w.org || entry.Device == 0) {
			t.Errorf("%+v", entry)
		}
	}
	w.equal([]int{count[joinery.AuditKeysExposed], count[joinery.AuditExportReady]}, []int{2, 1})
	all, err := w.Exports(w.ctx, joinery.ExportQuery{Org: w.org, States: []joinery.ExportState{joinery.ExportReady, joinery.ExportWorking}})
	w.ok(err)
	w.equal(all, []joinery.Export{e})
	w.CheckInvariants(t)
}

// fromElsewhere is what another Join Server says of a device: root keys of it were
// exported before to some file, those that it had by then, or former ones.
func fromElsewhere(former bool, times ...exposure.Time) *joinery.Told {
	times = append([]exposure.Time{{At: epoch.Add(-time.Hour), Recipient: strings.Repeat("f", 43), Kind: "file", Reference: "exp_1", Org: "org_1", Former: former}}, times...)
	return &joinery.Told{Way: joinery.ToldExport, Server: "old.example.com", Signer: "thumb", AsOf: epoch.Add(-time.Minute),
		Exposure: exposure.Exposure{Disclosed: true, Times: times}}
}

// told: what another Join Server said of a device stays with it for ever, by that
// one's word, and in the log; without a word, keys that came are from outside.
func told(t *testing.T, open func(testing.TB) Backend) {
	w := newWorld(t, open)
	third := exposure.Time{At: epoch.Add(-2 * time.Hour), Recipient: strings.Repeat("t", 43), Kind: "join-server", By: "older.example.com", Reference: "exp_0"}
	these, former, list := sealed(1), sealed(2), sealed(3)
	these.Told, former.Told = fromElsewhere(false, third), fromElsewhere(true)
	a, b, c, d := w.add(these), w.add(former), w.add(list), w.add(derived(4))
	w.equal([]bool{a.Device.Disclosed, a.KeySet.Disclosed, b.Device.Disclosed, b.KeySet.Disclosed, c.Device.Disclosed}, []bool{true, true, true, false, false})
	for want, s := range map[joinery.Exposed]joinery.ActivationState{joinery.ExposedOutside: c, joinery.ExposedNone: d} {
		whole, err := w.Device(w.ctx, s.Device.ID)
		w.ok(err)
		w.equal(whole.Exposed(), want)
		w.equal(whole.Device.Told, (*joinery.Told)(nil))
	}
	w.Backend = w.Reopen(t)
	whole, err := w.Device(w.ctx, a.Device.ID)
	w.ok(err)
	without := *these.Told
	without.Times = nil
	w.equal(whole.Device.Told, &without)
	w.equal(whole.Exposed(), joinery.ExposedDisclosed)
	page, err := w.Devices(w.ctx, joinery.DeviceQuery{Org: w.org})
	w.ok(err)
	w.equal(page.Items[0].Device.Told, &without)
	known, err := w.Disclosures(w.ctx, a.Device.ID)
	w.ok(err)
	w.equal(known, []joinery.Disclosure{
		{At: third.At, Recipient: third.Recipient, Kind: joinery.RecipientServer, ToldBy: "old.example.com", By: "older.example.com", Reference: "exp_0"},
		{At: epoch.Add(-time.Hour), Recipient: strings.Repeat("f", 43), Kind: joinery.RecipientFile, ToldBy: "old.example.com", By: "old.example.com", Reference: "exp_1", ToldOrg: "org_1"},
	})
	// The next server is told whose word that is, and what this one did.
	next := whole.Exposure(append(known, joinery.Disclosure{Org: w.org, At: epoch, Recipient: "r", Kind: joinery.RecipientFile, Export: 7}))
	w.equal([]string{next.Times[0].By, next.Times[1].By, next.Times[2].By, next.Times[2].Reference}, []string{"older.example.com", "old.example.com", "", joinery.ExportID(7).String()})
	w.equal([]bool{next.Outside, next.Disclosed, next.Reaches()}, []bool{false, true, true})

	// So much that it fills a page is not kept whole: what the teller did himself is, and
	// of his hearsay the newest.
	flood := sealed(5)
	var hearsay []exposure.Time
	for i := range exposure.MaxTimes {
		x := third
		x.At, x.Reference = epoch.Add(time.Duration(i)*time.Second), fmt.Sprint(i)
		hearsay = append(hearsay, x)
	}
	flood.Told = fromElsewhere(false, hearsay[1:]...)
	e := w.add(flood)
	known, err = w.Disclosures(w.ctx, e.Device.ID)
	w.ok(err)
	if n := len(known); n < 2 || n > exposure.MaxTimes/2 || known[0].Reference != "exp_1" || known[n-1].Reference != "999" {
		t.Fatalf("of 1000 told %d are kept: %+v", n, known)
	}

	// What this server did itself stays, however much is told, also of former devices.
	for range 4 {
		w.ok(w.DeleteDevice(w.ctx, e.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
		again := sealed(5)
		again.Told = flood.Told
		e = w.add(again)
	}
	own := w.export(w.recipient(w.org, "r"), joinery.ExportApproved, e)
	_, err = w.wrap(own, blob(e, 0))
	w.ok(err)
	known, err = w.Disclosures(w.ctx, e.Device.ID)
	w.ok(err)
	ours := slices.DeleteFunc(slices.Clone(known), func(x joinery.Disclosure) bool { return x.Export != own.ID })
	w.equal([]int{len(ours), len(known)}, []int{1, exposure.MaxTimes})

	// It is in the log, where nobody erases it, and in what a buyer is shown.
	w.ok(w.StateProvenance(w.ctx, a.Device.ID, w.org, epoch))
	links, err := w.LinkEntries(w.ctx, a.Device.ID)
	w.ok(err)
	w.equal(len(links), 2)
	said, err := auditlog.ParseEvent(links[0].Payload)
	w.ok(err)
	w.equal([]string{said.Event, said.Detail["server"], said.Detail["disclosed"]}, []string{auditlog.EventTold, "old.example.com", "true"})
	w.refused(w.EraseEntry(w.ctx, links[0].Ref, w.audit(joinery.AuditEntryErased)), joinery.CodeConflict)
	stated, err := auditlog.ParseEvent(links[1].Payload)
	w.ok(err)
	w.equal([]string{stated.Detail["disclosed"], stated.Detail["outside"], stated.Detail["told"], stated.Detail["exposed"]}, []string{"true", "false", "1", "0"})

	// A device of the same EUIs that comes back may have the same keys.
	w.ok(w.DeleteDevice(w.ctx, a.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
	back := w.add(sealed(1))
	w.equal(back.Device.Disclosed, true)
	known, err = w.Disclosures(w.ctx, back.Device.ID)
	w.ok(err)
	w.equal(len(known), 2)
	w.CheckInvariants(t)
}
