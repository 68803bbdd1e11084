package calls

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"joinery"
	"joinery/internal/export"
	"joinery/internal/exportfile"
	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/rekey"
	"joinery/lorawan"
)

// leavingBase is a base with two organisations whose root keys leave. One has nobody
// but its API key, which needs nobody else; of the other an admin agrees. There are
// exports and orders to rekey in every state.
type leavingBase struct {
	*base
	custodian keyring.Custodian
	process   joinery.Caller // as which it works
	alone     joinery.Caller
	asks      joinery.Caller
	agrees    joinery.Caller

	to                       joinery.Recipient // of alone
	header                   exportfile.Header // of begun
	approved, begun, wrapped joinery.ExportID  // of alone
	asked                    joinery.Export    // of asks

	there, nowhere joinery.JoinServerID // nobody goes to nowhere
	// Devices of alone, but for waits: of no profile, without an order, with one to
	// there, the same and in a ticket, with one to the recipient, and with one that
	// waits for another person.
	plain, free, armed, told, disclosed, waits joinery.DeviceID

	// Batches of one device each: of alone one to which devices are added and one of
	// batched that the server is to arm; of asks one of many that waits for another
	// person.
	collecting, working joinery.RekeyBatchID
	pending             joinery.RekeyBatch
	batched, many       joinery.DeviceID
}

var (
	aloneEUI = lorawan.EUI64FromUint64(0x70B3D57ED0001000)
	awayEUI  = lorawan.EUI64FromUint64(0x70B3D57ED0008000)
)

func newLeavingBase(t *testing.T) *leavingBase {
	t.Helper()
	b := &leavingBase{base: newBase(t), custodian: keyringtest.SoftCustodian(t)}
	r, ctx := b.open(t), t.Context()
	b.process = joinery.Caller{Operator: true, Socket: true, Name: "socket", Rights: joinery.AllRights()}
	b.alone = joinery.Caller{Org: b.owner.Org, Name: "key of owner", Key: joinery.NewAPIKeyID(), Rights: joinery.AllRights()}
	b.asks = joinery.Caller{Org: b.maker.Org, Name: "key of maker", Key: joinery.NewAPIKeyID(), Rights: joinery.AllRights()}
	_, err := r.fleet.AssignRange(ctx, operator, joinery.JoinEUIRange{Org: b.alone.Org, EUIRange: joinery.EUIRange{First: aloneEUI, Last: aloneEUI}})
	ok(t, err)
	b.plain = r.derived(b.alone, aloneEUI, 1)
	for n, id := range []*joinery.DeviceID{&b.free, &b.armed, &b.told, &b.disclosed, &b.batched} {
		*id = r.derived(b.alone, aloneEUI, uint64(n)+2)
		ok(t, r.rekey.SetProfile(ctx, b.alone, *id, joinery.RekeyS))
	}
	for n, id := range []*joinery.DeviceID{&b.waits, &b.many} {
		*id = r.derived(b.asks, stepEUI, uint64(n)+9)
		ok(t, r.rekey.SetProfile(ctx, b.asks, *id, joinery.RekeyS))
	}

	b.to, err = r.export.AddRecipient(ctx, b.alone, recipientNamed(t, "laptop"))
	ok(t, err)
	for _, id := range []*joinery.ExportID{&b.approved, &b.begun, &b.wrapped} {
		*id = b.request(t, r, b.plain, b.free)
	}
	b.header = b.begin(t, r, b.begun)
	b.handIn(t, r, b.wrapped, b.begin(t, r, b.wrapped))

	key, err := keyringtest.Recipient(t).Recipient().TransportKey()
	ok(t, err)
	there, err := r.rekey.Pin(ctx, operator, joinery.JoinServer{Name: "there", TransportKey: key.MarshalDER()})
	ok(t, err)
	b.there = there.ID
	another, err := rsa.GenerateKey(rand.Reader, 3072)
	ok(t, err)
	der, err := x509.MarshalPKIXPublicKey(another.Public())
	ok(t, err)
	nowhere, err := r.rekey.Pin(ctx, operator, joinery.JoinServer{Name: "nowhere", TransportKey: der})
	ok(t, err)
	b.nowhere = nowhere.ID
	for _, id := range []joinery.DeviceID{b.armed, b.told} {
		_, err = r.rekey.Arm(ctx, b.alone, b.order(id))
		ok(t, err)
	}
	_, err = r.rekey.Ticket(ctx, b.alone, []joinery.DeviceID{b.told}, false)
	ok(t, err)
	_, err = r.rekey.Arm(ctx, b.alone, rekey.Arm{Device: b.disclosed, JoinEUI: awayEUI, Recipient: b.to.ID})
	ok(t, err)

	b.collecting = b.requestBatch(t, r, b.alone, b.free, true).ID
	b.working = b.requestBatch(t, r, b.alone, b.batched, false).ID

	b.agrees = r.admin(b.asks.Org)
	other, err := r.export.AddRecipient(ctx, b.asks, recipientNamed(t, "safe"))
	ok(t, err)
	b.asked, err = r.export.Request(ctx, b.asks, export.Spec{Recipient: other.ID, Devices: []joinery.DeviceRef{{ID: b.ids[lorawan.MAC1_0_3]}}})
	ok(t, err)
	_, err = r.rekey.Arm(ctx, b.asks, b.order(b.waits))
	ok(t, err)
	b.pending = b.requestBatch(t, r, b.asks, b.many, false)

	ok(t, r.db.BeginFeed(ctx))
	ok(t, r.log.Begin(ctx))
	b.keep(t, r)
	return b
}

// keep makes what there is now the base.
func (b *leavingBase) keep(t *testing.T, r *rooms) {
	t.Helper()
	for more := true; more; {
		var err error
		more, err = r.db.Sequence(t.Context(), false)
		ok(t, err)
	}
	r.fsck()
	ok(t, r.db.Close())
	r.db = nil
	var err error
	b.file, err = os.ReadFile(r.path)
	ok(t, err)
}

// derived imports a device whose root keys derive from the master key.
func (r *rooms) derived(owner joinery.Caller, joinEUI lorawan.EUI64, n uint64) joinery.DeviceID {
	r.t.Helper()
	ctx := r.t.Context()
	i := joinery.Import{Org: owner.Org, Kind: joinery.ImportKeyList, MACVersion: lorawan.MAC1_1, CreatedAt: time.Now()}
	rand.Read(i.SHA256[:])
	i, err := r.db.BeginImport(ctx, i)
	ok(r.t, err)
	d := joinery.Device{ID: joinery.NewDeviceID(), JoinEUI: joinEUI, DevEUI: lorawan.EUI64FromUint64(0x0400_0000_0000_0000 + n), MACVersion: lorawan.MAC1_1, CreatedAt: time.Now()}
	k := joinery.KeySet{ID: joinery.NewKeySetID(), DeviceID: d.ID, DevEUI: d.DevEUI, Origin: joinery.OriginDerived, Master: r.base.keys.Master, Generation: 1, Root10: joinery.NwkKey}
	rows, err := r.db.CommitRows(ctx, joinery.ImportRows{Import: i.ID, Count: 1, Last: true, Devices: []joinery.NewDevice{{Line: 1, Device: d, KeySet: k}}},
		joinery.AuditEntry{At: time.Now(), Event: joinery.AuditDeviceImported, Actor: "test", Org: owner.Org})
	ok(r.t, err)
	if rows[0].Status != joinery.RowCreated {
		r.t.Fatalf("%+v", rows[0])
	}
	return rows[0].Device
}

// admin makes a person who is signed in, and may agree to what others ask for.
func (r *rooms) admin(org joinery.OrgID) joinery.Caller {
	r.t.Helper()
	ctx, now := r.t.Context(), time.Now()
	entry := joinery.AuditEntry{At: now, Event: joinery.AuditPersonJoined, Actor: "test", Org: org}
	p := joinery.Person{ID: joinery.NewPersonID(), Name: "ann", Email: "ann@example.com", CreatedAt: now}
	i := joinery.Invitation{ID: joinery.NewInvitationID(), Org: org, Role: joinery.RoleAdmin, Email: p.Email, Hash: sha256.Sum256([]byte("ann")), CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
	ok(r.t, r.db.Invite(ctx, i, entry))
	ok(r.t, r.db.Join(ctx, joinery.Joining{Invitation: i, Person: p, New: true, Identity: &joinery.Identity{Issuer: "https://id.example.com", Subject: "ann"}}, now, entry))
	return joinery.Caller{Org: org, Name: "ann", Person: p.ID, Session: joinery.NewSessionID(), SessionKind: joinery.SessionBrowser, Rights: joinery.RoleAdmin.Rights()}
}

func recipientNamed(t *testing.T, name string) export.NewRecipient {
	t.Helper()
	return export.NewRecipient{Name: name, Kind: joinery.RecipientFile, Key: string(keyringtest.Recipient(t).Recipient().MarshalPEM())}
}

func (b *leavingBase) request(t *testing.T, r *rooms, devices ...joinery.DeviceID) joinery.ExportID {
	t.Helper()
	e, err := b.ask(t.Context(), r, devices...)
	ok(t, err)
	return e.ID
}

func (b *leavingBase) ask(ctx context.Context, r *rooms, devices ...joinery.DeviceID) (joinery.Export, error) {
	spec := export.Spec{Recipient: b.to.ID, Form: exportfile.FormRaw}
	for _, id := range devices {
		spec.Devices = append(spec.Devices, joinery.DeviceRef{ID: id})
	}
	return r.export.Request(ctx, b.alone, spec)
}

// firstLine is what the custody process makes of a job.
func (b *leavingBase) firstLine(t *testing.T, r *rooms, id joinery.ExportID) exportfile.Header {
	t.Helper()
	jobs, err := r.export.Jobs(t.Context(), b.process)
	ok(t, err)
	for _, j := range jobs {
		if j.ID == id {
			h := j.Begin
			h.Wrapping, h.Signer = exportfile.RawOAEP256, b.custodian.Signer()
			return h
		}
	}
	t.Fatalf("%s does not wait", id)
	return exportfile.Header{}
}

func (b *leavingBase) begin(t *testing.T, r *rooms, id joinery.ExportID) exportfile.Header {
	t.Helper()
	j, err := r.export.Start(t.Context(), b.process, id, b.firstLine(t, r, id))
	ok(t, err)
	return j.Begin
}

func (b *leavingBase) handIn(t *testing.T, r *rooms, id joinery.ExportID, h exportfile.Header) {
	t.Helper()
	ok(t, b.wrap(t.Context(), r, id, h))
}

// wrap is the second half of the custody process: it fetches, wraps and hands in.
func (b *leavingBase) wrap(ctx context.Context, r *rooms, id joinery.ExportID, h exportfile.Header) error {
	work, _, err := r.export.Work(ctx, b.process, id, 0, 0)
	if err != nil {
		return err
	}
	in := make([]keyring.ExportIn, len(work))
	for i, d := range work {
		in[i] = keyring.ExportIn{KeySet: d.KeySet, About: d.About}
	}
	out, err := b.custodian.Export(ctx, h, keyringtest.Recipient(r.t).Recipient(), in)
	ok(r.t, err)
	done := make([]export.Done, len(out))
	for i, made := range out {
		ok(r.t, made.Err)
		line, err := exportfile.MarshalDevice(made.Device)
		ok(r.t, err)
		done[i] = export.Done{Index: work[i].Index, KeySet: work[i].KeySet.ID, Line: line}
	}
	_, err = r.export.HandIn(ctx, b.process, id, done)
	return err
}

func (b *leavingBase) order(d joinery.DeviceID) rekey.Arm {
	return rekey.Arm{Device: d, JoinEUI: awayEUI, To: b.there, RekeyKey: true}
}

// batchOf asks to rekey one device as a batch.
func (b *leavingBase) batchOf(d joinery.DeviceID, more bool) rekey.NewBatch {
	return rekey.NewBatch{Arm: b.order(0), Devices: []joinery.DeviceRef{{ID: d}}, More: more}
}

func (b *leavingBase) requestBatch(t *testing.T, r *rooms, who joinery.Caller, d joinery.DeviceID, more bool) joinery.RekeyBatch {
	t.Helper()
	made, absent, err := r.rekey.RequestBatch(t.Context(), who, b.batchOf(d, more))
	ok(t, err)
	if len(absent) > 0 {
		t.Fatalf("%s is absent", d)
	}
	return made
}

// approval is what another person looks at in a batch.
func approval(b joinery.RekeyBatch) rekey.BatchApproval {
	return rekey.BatchApproval{Digest: b.Digest, JoinEUI: b.JoinEUI, Thumbprint: b.Thumbprint, RekeyKey: b.RekeyKey}
}

// asksForMore judges what is left of an export that was asked for in vain: where it
// is more than a list of devices that ends by itself, it was written down.
func (b *leavingBase) asksForMore(ctx context.Context, r *rooms) error {
	before := map[joinery.ExportID]bool{b.approved: true, b.begun: true, b.wrapped: true}
	list, err := r.db.Exports(ctx, joinery.ExportQuery{Org: b.alone.Org, Limit: 100})
	if err != nil {
		return err
	}
	entries, err := allEntries(ctx, r)
	if err != nil {
		return err
	}
	written := map[string]int{}
	for _, e := range entries {
		if e.Event == joinery.AuditExportRequested {
			written[e.Detail["export"]]++
		}
	}
	for _, e := range list {
		want := 1
		if e.State == joinery.ExportCollecting || e.State == joinery.ExportWithdrawn {
			want = 0
		}
		if !before[e.ID] && written[e.ID.String()] != want {
			return fmt.Errorf("export %s is %s, with %d entries that somebody asked for it", e.ID, e.State, written[e.ID.String()])
		}
	}
	return nil
}

// allEntries reads the audit log, but for joins.
func allEntries(ctx context.Context, r *rooms) (all []joinery.AuditEntry, err error) {
	for after := int64(0); ; {
		page, err := r.db.AuditEntries(ctx, after, 1000)
		if err != nil || len(page) == 0 {
			return all, err
		}
		all, after = append(all, page...), page[len(page)-1].ID
	}
}

// P4 where root keys leave: exports and orders to rekey, step by step from each state
// in which they can be, and the custody log's tree, which is written behind them.
func TestEveryCallFailsWhereKeysLeave(t *testing.T) {
	b := newLeavingBase(t)
	failEach(t, b.base, append(slices.Concat(exportFlows(b), rekeyFlows(b), batchFlows(b)), flow{
		name: "custody log grows", once: true, done: never, run: func(ctx context.Context, r *rooms) error {
			if err := r.log.CatchUp(ctx); err != nil {
				return err
			}
			return r.log.Publish(ctx)
		},
	}))
}

func exportFlows(b *leavingBase) []flow {
	conflict := isCode(joinery.CodeConflict)
	last := func(_ any, err error) error { return err }
	return []flow{
		{name: "recipient", once: true, done: conflict, run: func(ctx context.Context, r *rooms) error {
			n := recipientNamed(r.t, "another")
			n.Key = string(b.keys.Keyring.TransportKey().MarshalPEM())
			return last(r.export.AddRecipient(ctx, b.alone, n))
		}},
		{name: "recipient gone", once: true, done: isCode(joinery.CodeNotFound), run: func(ctx context.Context, r *rooms) error {
			return r.export.RemoveRecipient(ctx, b.alone, b.to.ID)
		}},
		{name: "policy", done: never, run: func(ctx context.Context, r *rooms) error {
			return last(r.export.SetPolicy(ctx, b.alone, joinery.ApprovalAlways))
		}},
		{name: "export asked for", left: b.asksForMore, run: func(ctx context.Context, r *rooms) error { return last(b.ask(ctx, r, b.plain, b.armed)) }},
		{name: "export approved", once: true, done: conflict, run: func(ctx context.Context, r *rooms) error {
			return last(r.export.Approve(ctx, b.agrees, b.asked.ID, b.asked.Digest, b.asked.Thumbprint))
		}},
		{name: "export rejected", once: true, done: conflict, run: func(ctx context.Context, r *rooms) error {
			return last(r.export.Reject(ctx, b.agrees, b.asked.ID, "no"))
		}},
		{name: "export begun", once: true, done: never, run: func(ctx context.Context, r *rooms) error {
			h := b.header // of another export, but for these
			h.ID = b.approved.String()
			h.Created = r.created(b.approved)
			return last(r.export.Start(ctx, b.process, b.approved, h))
		}},
		{name: "keys wrapped", once: true, done: conflict, run: func(ctx context.Context, r *rooms) error { return b.wrap(ctx, r, b.begun, b.header) }},
		{name: "export failed", once: true, done: conflict, run: func(ctx context.Context, r *rooms) error {
			return last(r.export.Fail(ctx, b.process, b.approved, "nothing suits"))
		}},
		{name: "export stalled", once: true, done: never, run: func(ctx context.Context, r *rooms) error {
			return last(r.export.Stall(ctx, b.process, b.begun, "no key"))
		}},
		{name: "export fetched", once: true, done: never, run: func(ctx context.Context, r *rooms) error {
			p, err := r.export.File(ctx, b.alone, b.wrapped, 0, 0, 0)
			if err != nil && !conflict(err) { // it is acknowledged already
				return err
			}
			e, again := r.export.Acknowledge(ctx, b.alone, b.wrapped)
			if err == nil && again == nil && (len(p.Lines) != 2 || e.State != joinery.ExportDelivered) {
				again = fmt.Errorf("%d lines of an export that is %s", len(p.Lines), e.State)
			}
			return swept(ctx, r, again)
		}},
		{name: "export withdrawn", once: true, done: never, run: func(ctx context.Context, r *rooms) error {
			_, err := r.export.Withdraw(ctx, b.alone, b.wrapped)
			if conflict(err) { // it is already
				err = nil
			}
			return swept(ctx, r, err)
		}},
	}
}

// swept is what the server does again and again: it deletes what was wrapped in exports
// that ended, where that did not go at once.
func swept(ctx context.Context, r *rooms, err error) error {
	if err != nil {
		return err
	}
	return r.export.Sweep(ctx)
}

// created is the time that stands in the first line of an export's file.
func (r *rooms) created(id joinery.ExportID) string {
	r.t.Helper()
	e, err := r.db.Export(r.t.Context(), id)
	ok(r.t, err)
	return exportfile.FormatCreated(e.RequestedAt)
}

// batchesEnd judges what is left of a batch that was asked for in vain: devices are in
// it that have no order yet only where nobody is to have one.
func (b *leavingBase) batchesEnd(ctx context.Context, r *rooms) error {
	for more := true; more; {
		var err error
		if more, err = r.rekey.WorkBatches(ctx); err != nil {
			return err
		}
	}
	list, err := r.rekey.Batches(ctx, b.alone, 0, 10)
	for _, batch := range list {
		switch {
		case batch.State == joinery.BatchCollecting || batch.State == joinery.BatchWithdrawn:
			if batch.Armed != 0 {
				return fmt.Errorf("batch %s is %s, and %d devices have orders", batch.ID, batch.State, batch.Armed)
			}
		case batch.State != joinery.BatchDone || batch.Armed != batch.Devices:
			return fmt.Errorf("batch %s is %s with %d of %d orders", batch.ID, batch.State, batch.Armed, batch.Devices)
		}
	}
	return err
}

func rekeyFlows(b *leavingBase) []flow {
	conflict := isCode(joinery.CodeConflict)
	one := func(d joinery.DeviceID) []joinery.DeviceID { return []joinery.DeviceID{d} }
	// file wants a file exactly where there is no error: nothing leaves that is not
	// written down.
	file := func(f rekey.File, err error) error {
		if (len(f.Content) > 0) != (err == nil) {
			return fmt.Errorf("a file of %d bytes with error %w", len(f.Content), err)
		}
		return err
	}
	return []flow{
		{name: "rekeying profile", once: true, done: never, run: func(ctx context.Context, r *rooms) error {
			return r.rekey.SetProfile(ctx, b.alone, b.plain, joinery.RekeyS)
		}},
		{name: "Join Server pinned", once: true, done: conflict, run: func(ctx context.Context, r *rooms) error {
			_, err := r.rekey.Pin(ctx, operator, joinery.JoinServer{Name: "elsewhere", TransportKey: b.keys.Keyring.TransportKey().MarshalDER()})
			return err
		}},
		{name: "Join Server unpinned", once: true, done: isCode(joinery.CodeNotFound), run: func(ctx context.Context, r *rooms) error {
			return r.rekey.Unpin(ctx, operator, b.nowhere)
		}},
		{name: "order to rekey", once: true, done: conflict, run: func(ctx context.Context, r *rooms) error {
			_, err := r.rekey.Arm(ctx, b.alone, b.order(b.free))
			return err
		}},
		{name: "orders in batch", left: b.batchesEnd, run: func(ctx context.Context, r *rooms) error {
			_, _, err := r.rekey.RequestBatch(ctx, b.alone, b.batchOf(b.free, false))
			for more := true; more && err == nil; {
				more, err = r.rekey.WorkBatches(ctx)
			}
			return err
		}},
		{name: "order approved", once: true, done: conflict, run: func(ctx context.Context, r *rooms) error {
			requests, _, err := r.rekey.Requests(ctx, b.agrees, 0, 10)
			if err != nil || len(requests) == 0 {
				return err
			}
			o := requests[0]
			_, err = r.rekey.Approve(ctx, b.agrees, rekey.Approval{Devices: one(b.waits), JoinEUI: awayEUI, Thumbprint: o.Thumbprint, RekeyKey: true})
			return err
		}},
		{name: "order rejected", once: true, done: conflict, run: func(ctx context.Context, r *rooms) error {
			_, err := r.rekey.Reject(ctx, b.agrees, one(b.waits))
			return err
		}},
		{name: "order cancelled", once: true, done: conflict, run: func(ctx context.Context, r *rooms) error { return r.rekey.Cancel(ctx, b.alone, b.armed) }},
		{name: "order confirmed", once: true, done: conflict, run: func(ctx context.Context, r *rooms) error { return r.rekey.Confirm(ctx, b.alone, b.told) }},
		{name: "ticket", done: never, run: func(ctx context.Context, r *rooms) error {
			return file(r.rekey.Ticket(ctx, b.alone, one(b.armed), false))
		}},
		{name: "hand-over", done: never, run: func(ctx context.Context, r *rooms) error {
			return file(r.rekey.Handover(ctx, b.alone, b.there, one(b.armed), false))
		}},
		{name: "disclosure", done: never, run: func(ctx context.Context, r *rooms) error {
			return file(r.rekey.Disclose(ctx, b.alone, b.to.ID, one(b.disclosed), false))
		}},
	}
}

// batchFlows goes on with batches from each state in which they can be.
func batchFlows(b *leavingBase) []flow {
	conflict := isCode(joinery.CodeConflict)
	add := func(more bool) func(context.Context, *rooms) error {
		return func(ctx context.Context, r *rooms) error {
			_, absent, err := r.rekey.AddToBatch(ctx, b.alone, b.collecting, []joinery.DeviceRef{{ID: b.plain}, {ID: b.waits}}, more)
			if err == nil && !slices.Equal(absent, []int{1}) { // which another organisation holds
				return fmt.Errorf("absent are %d", absent)
			}
			return err
		}
	}
	withdraw := func(name string, who joinery.Caller, id joinery.RekeyBatchID) flow {
		return flow{name: name, once: true, done: conflict, run: func(ctx context.Context, r *rooms) error {
			_, err := r.rekey.WithdrawBatch(ctx, who, id)
			return err
		}}
	}
	return []flow{
		{name: "devices added to a batch", once: true, done: never, run: add(true)},
		{name: "the last devices added to a batch", once: true, done: conflict, run: add(false)},
		{name: "batch approved", once: true, done: conflict, run: func(ctx context.Context, r *rooms) error {
			_, err := r.rekey.ApproveBatch(ctx, b.agrees, b.pending.ID, approval(b.pending))
			return err
		}},
		{name: "batch rejected", once: true, done: conflict, run: func(ctx context.Context, r *rooms) error {
			_, err := r.rekey.RejectBatch(ctx, b.agrees, b.pending.ID, "not yet")
			return err
		}},
		{name: "batch worked off", once: true, done: never, run: func(ctx context.Context, r *rooms) (err error) {
			for more := true; more && err == nil; {
				more, err = r.rekey.WorkBatches(ctx)
			}
			return err
		}},
		withdraw("batch withdrawn that is collected", b.alone, b.collecting),
		withdraw("batch withdrawn that waits for another person", b.asks, b.pending.ID),
		withdraw("batch withdrawn that is worked off", b.alone, b.working),
	}
}
