package custodylog

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/auditlog"
	"joinery/internal/store"
	"joinery/internal/store/storetest/sqlitetest"
	"joinery/lorawan"
)

// thumbprint is of a recipient's key.
var thumbprint = strings.Repeat("k", 43)

// beginExport begins an export to the one recipient of an organisation.
func (w *world) beginExport(org joinery.OrgID) joinery.Export {
	w.Helper()
	list, err := w.db.Recipients(w.ctx, org)
	w.ok(err)
	if len(list) == 0 {
		list = []joinery.Recipient{{
			ID: joinery.NewRecipientID(), Org: org, Name: "recipient", Kind: joinery.RecipientFile, Thumbprint: thumbprint, Key: "PEM", AddedBy: "ann", CreatedAt: epoch,
		}}
		w.ok(w.db.AddRecipient(w.ctx, list[0], 100, w.about(joinery.AuditRecipientAdded, org, 0)))
	}
	e := joinery.Export{ID: joinery.NewExportID(), Org: org, Recipient: list[0].ID, RequestedBy: "ann", RequestedAt: epoch, ExpiresAt: epoch.Add(time.Hour)}
	w.ok(w.db.BeginExport(w.ctx, e))
	return e
}

// export has root keys of devices of an organisation exported: asked for by ann,
// approved by ben.
func (w *world) export(org joinery.OrgID, devices ...joinery.DeviceID) joinery.Export {
	w.Helper()
	e := w.beginExport(org)
	for run := range slices.Chunk(devices, joinery.MaxExportRows) {
		_, err := w.db.AddExportDevices(w.ctx, e.ID, run)
		w.ok(err)
	}
	set, err := w.db.FixExportSet(w.ctx, e.ID)
	w.ok(err)
	e.Digest, e.Devices, e.Root, e.NeedsApproval = set.Digest, set.Devices, set.Root, true
	step := func(event joinery.AuditEvent, by string, more map[string]string) joinery.AuditEntry {
		a := w.about(event, org, 0)
		a.Actor, a.Detail = by, set.Detail(map[string]string{"export": e.ID.String(), "recipient": thumbprint})
		maps.Copy(a.Detail, more)
		w.lie(&a)
		return a
	}
	e.State = joinery.ExportRequested
	w.ok(w.db.MoveExport(w.ctx, e, []joinery.ExportState{joinery.ExportCollecting}, step(joinery.AuditExportRequested, "ann", map[string]string{"approval": "needed"})))
	e.State, e.DecidedBy, e.DecidedAt = joinery.ExportApproved, "ben", epoch
	w.ok(w.db.MoveExport(w.ctx, e, []joinery.ExportState{joinery.ExportRequested}, step(joinery.AuditExportApproved, "ben", nil)))
	_, err = w.db.StartExport(w.ctx, e.ID, []byte("head"))
	w.ok(err)
	exposed := w.entry(joinery.AuditKeysExposed)
	exposed.Detail = map[string]string{"export": e.ID.String(), "recipient": thumbprint, "kind": "file"}
	w.lie(&exposed)
	for from := 0; from < len(devices); from += joinery.MaxExportRows {
		items, err := w.db.ExportItems(w.ctx, e.ID, uint64(from), joinery.MaxExportRows)
		w.ok(err)
		var done []joinery.WrappedItem
		for _, i := range items {
			done = append(done, joinery.WrappedItem{Index: i.Index, KeySet: i.KeySet, Blob: []byte("wrapped")})
		}
		e, err = w.db.CommitExport(w.ctx, e.ID, done, epoch.Add(time.Hour), exposed, step(joinery.AuditExportReady, "joinery", nil))
		w.ok(err)
	}
	e.State, e.EndedAt = joinery.ExportDelivered, epoch
	w.ok(w.db.MoveExport(w.ctx, e, []joinery.ExportState{joinery.ExportReady}, step(joinery.AuditExportDelivered, "ann", nil)))
	return e
}

// stepsOf is what was done with an order, by whom.
func stepsOf(o auditlog.Order) (steps string) {
	for _, s := range o.Steps {
		steps += s.What + " by " + s.By + "; "
	}
	return steps
}

const exportSteps = "requested by ann; approved by ben; ready by joinery; delivered by ann; "

// Whoever holds a device sees, with proof, who asked for an export of its keys and who
// approved it, among however many devices; and nothing of the others.
func TestOrdersForManyDevices(t *testing.T) {
	w := newWorld(t, Options{})
	var euis []uint64
	for n := range uint64(300) { // more than a block of the tree
		euis = append(euis, someEUI+n)
	}
	devices := w.importRun("first", euis...)
	left, exported := devices[0], devices[1:]
	of := exported[280]
	e := w.export(w.maker, exported...)
	w.claim(of, w.buyer)
	w.join(of)
	w.publish()

	want := func(who string, r auditlog.Report) {
		t.Helper()
		if len(r.Orders) != 1 || len(r.Notes) > 0 {
			t.Fatalf("%s: %+v", who, r)
		}
		o := r.Orders[0]
		if !o.Member || o.Reference != e.ID.String() || o.Devices != 299 || o.Key != thumbprint ||
			o.Org != w.maker.String() || stepsOf(o) != exportSteps {
			t.Errorf("%s: %+v", who, o)
		}
	}
	good := w.bundle(as(w.buyer), of, 0)
	for who, b := range map[string]auditlog.Bundle{"later owner": good, "former owner": w.bundle(as(w.maker), of, 0), "operator": w.bundle(operator, of, 0)} {
		want(who, w.good(b, w.trust()))
	}
	for _, d := range []joinery.DeviceID{exported[0], exported[255], exported[298]} {
		want("maker", w.good(w.bundle(as(w.maker), d, 0), w.trust()))
	}
	if r := w.good(w.bundle(as(w.maker), left, 0), w.trust()); len(r.Orders) != 0 {
		t.Errorf("a device that was not exported: %+v", r.Orders)
	}
	if len(good.Sets) != 1 || good.Sets[0].Row != 280 {
		t.Errorf("%+v", good.Sets)
	}
	for i, entry := range good.Entries {
		for _, d := range devices {
			if d != of && bytes.Contains(entry.Payload, []byte(d.String())) {
				t.Errorf("entry %d tells a later owner of another device", i)
			}
		}
	}
	if _, err := w.Custody(w.ctx, as(w.stranger), Query{Device: of}); joinery.CodeOf(err) != joinery.CodeNotFound {
		t.Errorf("a stranger: %v", err)
	}
	w.guessed(good, e, exported, of)
	w.attackedOrders(good, w.bundle(as(w.maker), exported[0], 0), w.bundle(as(w.maker), left, 0))

	// What names people can be erased: the log is whole, and the names are gone.
	for _, entry := range good.Entries {
		if event, err := auditlog.ParseEvent(entry.Payload); err == nil && strings.HasPrefix(event.Event, "export.") && event.Event != "export.ready" {
			ref, err := ParseEntryName(entry.ID)
			w.ok(err)
			w.ok(w.Erase(w.ctx, operator, ref, "asked for"))
		}
	}
	w.publish()
	after := w.bundle(as(w.buyer), of, 0)
	r := w.good(after, w.trust())
	if r.Erased != 3 || len(r.Orders) != 1 || !r.Orders[0].Member || stepsOf(r.Orders[0]) != "ready by joinery; " {
		t.Errorf("%+v", r)
	}
	for _, entry := range after.Entries {
		if bytes.Contains(entry.Payload, []byte(`"ann"`)) || bytes.Contains(entry.Payload, []byte(`"ben"`)) {
			t.Errorf("%s names who was erased", entry.ID)
		}
	}
}

// attackedOrders shows that a lie about who ordered what is found (P26). other is the
// bundle of another device of the order, stranger of one that is not in it.
func (w *world) attackedOrders(good, other, stranger auditlog.Bundle) {
	w.Helper()
	says := func(b auditlog.Bundle, event string) int {
		w.Helper()
		i := slices.IndexFunc(b.Entries, func(e auditlog.Entry) bool { return bytes.Contains(e.Payload, []byte(`"event":"`+event+`"`)) })
		if i < 0 {
			w.Fatalf("no %s", event)
		}
		return i
	}
	leaveOut := func(event string) func(b *auditlog.Bundle) {
		return func(b *auditlog.Bundle) { b.Entries = slices.Delete(b.Entries, says(*b, event), says(*b, event)+1) }
	}
	old := good
	for name, c := range map[string]struct {
		fault auditlog.Fault
		do    func(b *auditlog.Bundle)
	}{
		"who asked is left out":      {auditlog.FaultOmitted, leaveOut("export.requested")},
		"who approved is left out":   {auditlog.FaultOmitted, leaveOut("export.approved")},
		"the delivery, seen before":  {auditlog.FaultOmitted, leaveOut("export.delivered")},
		"another device's place":     {auditlog.FaultSet, func(b *auditlog.Bundle) { b.Sets = other.Sets }},
		"no place":                   {auditlog.FaultSet, func(b *auditlog.Bundle) { b.Sets = nil }},
		"another row":                {auditlog.FaultSet, func(b *auditlog.Bundle) { b.Sets[0].Row++ }},
		"a proof altered":            {auditlog.FaultSet, func(b *auditlog.Bundle) { b.Sets[0].Proof[3][0] ^= 1 }},
		"another approver":           {auditlog.FaultAltered, func(b *auditlog.Bundle) { swap(b, says(*b, "export.approved"), `"ben"`, `"eve"`) }},
		"another device's events":    {auditlog.FaultOther, func(b *auditlog.Bundle) { b.Entries[says(*b, "export.requested")].Kind = auditlog.KindEvent }},
		"an event as an order's":     {auditlog.FaultOther, func(b *auditlog.Bundle) { b.Entries[says(*b, "keys.exposed")].Kind = auditlog.KindRelated }},
		"what is about a third":      {auditlog.FaultOther, func(b *auditlog.Bundle) { b.Entries[says(*b, "import.committed")].Kind = auditlog.KindRelated }},
		"an approval not in the log": {auditlog.FaultSet, func(b *auditlog.Bundle) { b.Entries[says(*b, "export.approved")].Leaf = -1 }},
	} {
		b := clone(w.T, good)
		c.do(&b)
		trust := w.trust()
		trust.OldBundle = &old
		if r := auditlog.Verify(b, trust); !slices.ContainsFunc(r.Findings, func(f auditlog.Finding) bool { return f.Fault == c.fault }) {
			w.Errorf("%s: want %s, found %v", name, c.fault, r.Findings)
		}
	}
	// An order for others is none for this device.
	b := clone(w.T, stranger)
	b.Entries = append(b.Entries, good.Entries[says(good, "export.requested")])
	b.Sets = good.Sets
	if r := auditlog.Verify(b, w.trust()); r.OK() || r.Orders[0].Member {
		w.Errorf("an order for others passes: %+v", r)
	}
}

// guessed shows that a later owner who guesses all the devices of an order, a run of
// EUIs, finds nothing that confirms it.
func (w *world) guessed(b auditlog.Bundle, e joinery.Export, devices []joinery.DeviceID, mine joinery.DeviceID) {
	w.Helper()
	digest := joinery.NewExportDigest()
	var tree, bare auditlog.SetTree
	for i, d := range devices {
		eui := lorawan.EUI64FromUint64(someEUI + 1 + uint64(i))
		digest.Add(testJoinEUI, eui)
		guess := auditlog.SetDevice{Nonce: b.Sets[0].Nonce, Device: d.String(), JoinEUI: testJoinEUI.String(), DevEUI: eui.String()}
		tree.Add(guess.Leaf())
		guess.Nonce = nil
		bare.Add(guess.Leaf())
	}
	if digest.Sum() != e.Digest {
		w.Fatal("the guess is not the order's set")
	}
	root, _, err := tree.Finish()
	w.ok(err)
	plain, _, err := bare.Finish()
	w.ok(err)
	all, err := json.Marshal(b)
	w.ok(err)
	for _, entry := range b.Entries {
		all = append(all, entry.Payload...)
	}
	for name, sum := range map[string][32]byte{"the digest": digest.Sum(), "the root with its own nonce": root, "the root without nonces": plain} {
		for _, text := range []string{hex.EncodeToString(sum[:]), base64.StdEncoding.EncodeToString(sum[:])} {
			if bytes.Contains(all, []byte(text)) {
				w.Errorf("%s confirms to the owner of %s which devices else were exported", name, mine)
			}
		}
	}
}

// lie changes an entry as the test says, before it is written.
func (w *world) lie(a *joinery.AuditEntry) {
	if w.forge != nil {
		w.forge(a)
	}
}

// A server that leaves out of its own log, which is whole, what shows who asked for an
// order, for what devices, and who approved it, is found.
func TestOrdersThatDoNotSay(t *testing.T) {
	// Of a database of its own, which fsck would find wrong.
	path := filepath.Join(t.TempDir(), "lies.db")
	sqlitetest.Create(t, path)
	db, err := store.Open(t.Context(), store.Options{Path: path, UnsafeNoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	w := newWorldIn(t, db, Options{})
	without := func(event joinery.AuditEvent, names ...string) func(a *joinery.AuditEntry) {
		return func(a *joinery.AuditEntry) {
			if event == "" || a.Event == event {
				maps.DeleteFunc(a.Detail, func(name, _ string) bool { return slices.Contains(names, name) })
			}
		}
	}
	cases := []struct {
		name  string
		fault auditlog.Fault
		says  string
		forge func(a *joinery.AuditEntry)
	}{
		{"who asked is not named", auditlog.FaultOmitted, "asked for", without(joinery.AuditExportRequested, "export")},
		{"who approved is not named", auditlog.FaultSet, "none is named", without(joinery.AuditExportApproved, "export")},
		{"no order is named", auditlog.FaultOmitted, "does not name the order", without(joinery.AuditKeysExposed, "export")},
		{"an order is named that is none", auditlog.FaultOmitted, "who ordered", func(a *joinery.AuditEntry) {
			if a.Event == joinery.AuditKeysExposed {
				delete(a.Detail, "export")
				a.Detail["rekey"] = joinery.NewRekeyID().String()
			}
		}},
		{"no set", auditlog.FaultSet, "not one of those", without("", "set")},
		{"no set where it was asked for", auditlog.FaultSet, "not one of those", without(joinery.AuditExportRequested, "set", "devices")},
		{"who asked approved", auditlog.FaultSet, "somebody else's", func(a *joinery.AuditEntry) {
			if a.Event == joinery.AuditExportApproved {
				a.Actor = "ann"
			}
		}},
		{"more devices were approved", auditlog.FaultSet, "other devices", func(a *joinery.AuditEntry) {
			if a.Event == joinery.AuditExportApproved {
				a.Detail["devices"] = "2"
			}
		}},
	}
	var devices []joinery.DeviceID
	for i, c := range cases {
		d := w.importRun(c.name, someEUI+uint64(i))[0]
		w.forge = c.forge
		w.export(w.maker, d)
		devices = append(devices, d)
	}
	w.publish()
	for i, c := range cases {
		r := auditlog.Verify(w.bundle(as(w.maker), devices[i], 0), w.trust())
		if !slices.ContainsFunc(r.Findings, func(f auditlog.Finding) bool { return f.Fault == c.fault && strings.Contains(f.What, c.says) }) || len(r.Notes) > 0 {
			t.Errorf("%s: found %+v, noted %q", c.name, r.Findings, r.Notes)
		}
	}
}

// What was begun, and withdrawn before anybody asked for it, is no order for a device,
// also where devices came in after a set was made of those before.
func TestOrderThatNobodyAskedFor(t *testing.T) {
	w := newWorld(t, Options{})
	devices := w.importRun("first", someEUI, someEUI+1)
	e := w.beginExport(w.maker)
	for _, d := range devices {
		_, err := w.db.AddExportDevices(w.ctx, e.ID, []joinery.DeviceID{d})
		w.ok(err)
		if d == devices[0] {
			_, err = w.db.FixExportSet(w.ctx, e.ID)
			w.ok(err)
		}
	}
	e, err := w.db.Export(w.ctx, e.ID)
	w.ok(err)
	a := w.about(joinery.AuditExportWithdrawn, w.maker, 0)
	a.Detail = joinery.DeviceSet{Devices: e.Devices, Digest: e.Digest, Root: e.Root}.Detail(map[string]string{"export": e.ID.String(), "recipient": thumbprint})
	e.State, e.EndedAt = joinery.ExportWithdrawn, epoch
	w.ok(w.db.MoveExport(w.ctx, e, []joinery.ExportState{joinery.ExportCollecting}, a))
	w.publish()
	for _, d := range devices {
		if r := w.good(w.bundle(as(w.maker), d, 0), w.trust()); len(r.Orders) != 0 {
			t.Errorf("%+v", r)
		}
	}
}

// swap changes a word of an entry.
func swap(b *auditlog.Bundle, i int, from, to string) {
	b.Entries[i].Payload = bytes.Replace(b.Entries[i].Payload, []byte(from), []byte(to), 1)
}

// Of an export of a later owner a former one learns nothing but that something is
// there.
func TestOrdersOfALaterOwner(t *testing.T) {
	w := newWorld(t, Options{})
	d := w.importRun("first", someEUI)[0]
	w.claim(d, w.buyer)
	e := w.export(w.buyer, d)
	w.publish()
	b := w.bundle(as(w.maker), d, 0)
	r := w.good(b, w.trust())
	if len(r.Orders) != 0 || len(b.Sets) != 0 || r.Withheld < 4 {
		t.Errorf("%+v", r)
	}
	for _, entry := range b.Entries {
		if bytes.Contains(entry.Payload, []byte(e.ID.String())) {
			t.Error("the export of a later owner is told")
		}
	}
	if r := w.good(w.bundle(as(w.buyer), d, 0), w.trust()); len(r.Orders) != 1 || stepsOf(r.Orders[0]) != exportSteps {
		t.Errorf("%+v", r)
	}
}

// A batch of orders to rekey is in the log of each device that it is for, and the order
// that a device got rests on it.
func TestBatchOfOrders(t *testing.T) {
	w := newWorld(t, Options{})
	devices := w.importRun("first", someEUI, someEUI+1)
	j := joinery.JoinServer{ID: joinery.NewJoinServerID(), Name: "there", TransportKey: []byte("key"), CreatedAt: epoch}
	w.ok(w.db.AddJoinServer(w.ctx, j, w.entry(joinery.AuditJoinServerAdded)))
	b := joinery.RekeyBatch{
		ID: joinery.NewRekeyBatchID(), Org: w.maker, JoinEUI: testJoinEUI, Server: j.ID, To: j.Name, Thumbprint: thumbprint, Life: time.Hour,
		RequestedBy: "ann", RequestedAt: epoch, ExpiresAt: epoch.Add(time.Hour),
	}
	w.ok(w.db.BeginRekeyBatch(w.ctx, b))
	_, err := w.db.AddRekeyBatchDevices(w.ctx, b.ID, devices)
	w.ok(err)
	set, err := w.db.FixRekeyBatchSet(w.ctx, b.ID)
	w.ok(err)
	b.Digest, b.Devices, b.Root, b.NeedsApproval = set.Digest, set.Devices, set.Root, true
	step := func(event joinery.AuditEvent, by string, more map[string]string) joinery.AuditEntry {
		a := w.about(event, w.maker, 0)
		a.Actor, a.Detail = by, set.Detail(map[string]string{"batch": b.ID.String(), "key": thumbprint})
		maps.Copy(a.Detail, more)
		return a
	}
	b.State = joinery.BatchRequested
	w.ok(w.db.MoveRekeyBatch(w.ctx, b, []joinery.RekeyBatchState{joinery.BatchCollecting}, step(joinery.AuditRekeyBatchRequested, "ann", map[string]string{"approval": "needed"})))
	b.State, b.DecidedBy, b.DecidedAt = joinery.BatchApproved, "ben", epoch
	w.ok(w.db.MoveRekeyBatch(w.ctx, b, []joinery.RekeyBatchState{joinery.BatchRequested}, step(joinery.AuditRekeyBatchApproved, "ben", nil)))
	o := joinery.RekeyOrder{
		ID: joinery.NewRekeyID(), Device: devices[1], State: joinery.RekeyArmed, Rekey: lorawan.Rekey{JoinEUI: testJoinEUI}, To: j.Name, Thumbprint: thumbprint,
		Owner: w.maker, By: "ann", At: epoch, ArmedAt: epoch, ExpiresAt: epoch.Add(time.Hour),
	}
	armed := w.about(joinery.AuditRekeyArmed, w.maker, devices[1])
	armed.Actor, armed.Detail = "ann", map[string]string{
		"order": o.ID.String(), "batch": b.ID.String(), "new_join_eui": testJoinEUI.String(), "key": thumbprint, "approved_by": "ben",
	}
	_, err = w.db.ArmRekeyBatch(w.ctx, b.ID, []joinery.RekeyBatchArm{
		{Index: 0, Code: joinery.CodeConflict, Reason: "it cannot"}, {Index: 1, Order: o, Entry: armed},
	}, step(joinery.AuditRekeyBatchDone, "ann", nil))
	w.ok(err)
	w.claim(devices[0], w.buyer)
	w.publish()
	for i, c := range []struct {
		as    joinery.OrgID
		steps string
	}{{w.buyer, "requested by ann; approved by ben; done by ann; "}, {w.maker, "requested by ann; approved by ben; armed by ann; done by ann; "}} {
		r := w.good(w.bundle(as(c.as), devices[i], 0), w.trust())
		if len(r.Orders) != 1 || !r.Orders[0].Member || r.Orders[0].Devices != 2 || r.Orders[0].Reference != b.ID.String() || stepsOf(r.Orders[0]) != c.steps || len(r.Notes) > 0 {
			t.Errorf("device %d: %+v", i, r)
		}
	}
	// An order that somebody armed without the approval that it needed.
	forged := w.bundle(as(w.maker), devices[1], 0)
	forged.Entries = slices.DeleteFunc(forged.Entries, func(e auditlog.Entry) bool { return bytes.Contains(e.Payload, []byte("batch_approved")) })
	if r := auditlog.Verify(forged, w.trust()); r.OK() {
		t.Error("an approval that is left out is not found")
	}
}
