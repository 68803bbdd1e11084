package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"
	"time"

	"joinery"
	"joinery/auditlog"
	"joinery/internal/tlog"
	"joinery/lorawan"
)

// CustodyLog is the tree of the custody log and the rows in it.
type CustodyLog interface {
	BeginLog(ctx context.Context, origin string, empty [32]byte) error
	LogState(ctx context.Context) (joinery.LogState, error)
	LogPending(ctx context.Context, s joinery.LogState, limit int) (joinery.LogBatch, error)
	AppendLog(ctx context.Context, old joinery.LogState, b joinery.LogBatch, growth joinery.LogGrowth) error
	LogBundles(ctx context.Context, from, to int64, limit int) ([]joinery.LogBundle, error)
	LogTile(ctx context.Context, level int, index int64) ([]byte, error)
	LogCheckpoint(ctx context.Context) (joinery.LogCheckpoint, error)
	SaveCheckpoint(ctx context.Context, p joinery.LogCheckpoint) error
	LogLines(ctx context.Context) ([]joinery.LogLine, error)
	WitnessSize(ctx context.Context, name string, line int) (int64, error)
	SaveWitnessSize(ctx context.Context, name string, line int, size int64) error
	CustodyEntries(ctx context.Context, q joinery.CustodyQuery) ([]joinery.CustodyEntry, error)
	LogEntry(ctx context.Context, ref joinery.LogRef) (joinery.CustodyEntry, error)
	EraseEntry(ctx context.Context, ref joinery.LogRef, a joinery.AuditEntry) error
	DeviceSets(ctx context.Context, device joinery.DeviceID, subjects []int64) ([]auditlog.Set, error)
	LinkEntries(ctx context.Context, id joinery.DeviceID) ([]joinery.CustodyEntry, error)
	StateProvenance(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, at time.Time) error
}

// grow takes what waits into the tree, and tells how many rows came.
func (w *world) grow(limit int) (n int) {
	w.t.Helper()
	for more := true; more; {
		old, err := w.LogState(w.ctx)
		w.ok(err)
		b, err := w.LogPending(w.ctx, old, limit)
		w.ok(err)
		if b.Next == old {
			return n
		}
		w.ok(w.append(old, &b))
		n += len(b.Leaves)
		more = b.More
	}
	return n
}

func (w *world) append(old joinery.LogState, b *joinery.LogBatch) error {
	w.t.Helper()
	var last joinery.LogBundle
	if old.Size%tlog.Width != 0 {
		list, err := w.LogBundles(w.ctx, old.Size/tlog.Width, old.Size/tlog.Width, 1)
		w.ok(err)
		last = list[0]
	}
	builder, err := tlog.NewBuilder(old.Size, last, func(level int, index int64) ([]byte, error) { return w.LogTile(w.ctx, level, index) })
	w.ok(err)
	for _, l := range b.Leaves {
		builder.Add(l)
	}
	growth, size, root, err := builder.Finish()
	w.ok(err)
	b.Next.Size, b.Next.Root = size, root
	return w.AppendLog(w.ctx, old, *b, growth)
}

func (w *world) refs() (refs []joinery.LogRef) {
	w.t.Helper()
	list, err := w.LogBundles(w.ctx, 0, 1<<40, 1000)
	w.ok(err)
	for _, b := range list {
		refs = append(refs, b.Refs...)
	}
	return refs
}

// once fails unless the tree has n leaves of different rows.
func (w *world) once(n int) {
	w.t.Helper()
	seen := map[joinery.LogRef]bool{}
	for i, r := range w.refs() {
		if seen[r] {
			w.t.Errorf("row %d is leaf %d, and one before", r, i)
		}
		seen[r] = true
	}
	if len(seen) != n {
		w.t.Errorf("%d rows are in the tree, want %d", len(seen), n)
	}
}

func runCustodyLog(t *testing.T, open func(testing.TB) Backend) {
	t.Run("what was there comes first, then what is named", func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		for range 3 {
			w.join(s)
		}
		w.ok(w.BeginFeed(w.ctx))
		w.ok(w.BeginLog(w.ctx, "log.example", sha256.Sum256(nil)))
		w.ok(w.BeginLog(w.ctx, "another", sha256.Sum256(nil)))
		before := w.grow(2)
		w.join(s)
		w.ok(w.SetSuspended(w.ctx, s.Device.ID, w.org, true, w.about(joinery.AuditDeviceSuspended, s)))
		if n := w.grow(100); n != 0 {
			t.Errorf("%d rows came that are not named", n)
		}
		w.sequence()
		if n := w.grow(100); n != 2 {
			t.Errorf("%d rows came, want the join and the audit row", n)
		}
		w.once(before + 2)
		state, err := w.LogState(w.ctx)
		w.ok(err)
		if state.Origin != "log.example" || state.Line != 1 || state.Scanning || state.Size != int64(before)+2 {
			t.Errorf("state %+v", state)
		}
		w.CheckInvariants(t)
	})
	t.Run("custody of a device is told whole", func(t *testing.T) {
		w := newWorld(t, open)
		w.ok(w.BeginFeed(w.ctx))
		w.ok(w.BeginLog(w.ctx, "log.example", sha256.Sum256(nil)))
		s := w.add(derived(1))
		w.join(w.add(derived(2)))
		for range 3 {
			w.join(s)
		}
		for i := range 3 {
			w.ok(w.SetSuspended(w.ctx, s.Device.ID, w.org, i%2 == 0, w.about(joinery.AuditDeviceSuspended, s)))
		}
		w.sequence()
		w.grow(100)
		var all []joinery.CustodyEntry
		q := joinery.CustodyQuery{Device: s.Device.ID, Limit: 2}
		for {
			page, err := w.CustodyEntries(w.ctx, q)
			w.ok(err)
			if len(page) == 0 {
				break
			}
			all = append(all, page...)
			q.After = page[len(page)-1].Ref
		}
		refs := w.refs()
		joins := 0
		for i, e := range all {
			if e.Leaf < 0 || refs[e.Leaf] != e.Ref || e.Payload == nil {
				t.Errorf("entry %d: %+v", i, e)
			}
			if _, ok := e.Ref.Activation(); ok {
				joins++
			}
		}
		if len(all) != 6 || joins != 3 {
			t.Errorf("%d entries, %d of them joins", len(all), joins)
		}
		w.erases(all[1].Ref, all[4].Ref)
		w.CheckInvariants(t)
	})
	t.Run("custody has the orders for many devices", func(t *testing.T) { ordersInCustody(t, open) })
	t.Run("what a crash left out comes late, and once", func(t *testing.T) {
		w := newWorld(t, open)
		w.ok(w.BeginFeed(w.ctx))
		w.ok(w.BeginLog(w.ctx, "log.example", sha256.Sum256(nil)))
		s := w.add(derived(1))
		w.join(s)
		w.sequence()
		before := w.grow(100)
		lost := w.join(s)
		w.Backend = w.Reopen(t)
		w.ok(w.BeginFeed(w.ctx))
		w.join(s)
		w.sequence()
		before += w.grow(100)
		sources, err := w.Sources(w.ctx)
		w.ok(err)
		for _, source := range sources {
			_, err := w.RecoverFeed(w.ctx, source, 0)
			w.ok(err)
		}
		if n := w.grow(100); n != 1 {
			t.Errorf("%d rows came late, want 1", n)
		}
		w.once(before + 1)
		refs := w.refs()
		if last := refs[len(refs)-1]; last != joinery.ActivationRef(lost.ID) {
			t.Errorf("the last leaf is %d, want %d", last, lost.ID)
		}
		w.CheckInvariants(t)
	})
	t.Run("a batch is taken once", func(t *testing.T) {
		w := newWorld(t, open)
		w.ok(w.BeginFeed(w.ctx))
		w.ok(w.BeginLog(w.ctx, "log.example", sha256.Sum256(nil)))
		old, err := w.LogState(w.ctx)
		w.ok(err)
		b, err := w.LogPending(w.ctx, old, 100)
		w.ok(err)
		again := b
		w.ok(w.append(old, &b))
		w.refused(w.append(old, &again), joinery.CodeConflict)
		w.once(len(b.Leaves))
		state, err := w.LogState(w.ctx)
		w.ok(err)
		w.ok(w.SaveCheckpoint(w.ctx, joinery.LogCheckpoint{Line: 1, Size: state.Size, Note: "new"}))
		w.ok(w.SaveCheckpoint(w.ctx, joinery.LogCheckpoint{Line: 1, Size: state.Size - 1, Note: "old"}))
		w.ok(w.SaveCheckpoint(w.ctx, joinery.LogCheckpoint{Line: 2, Size: state.Size, Note: "other"}))
		p, err := w.LogCheckpoint(w.ctx)
		w.ok(err)
		w.equal(p, joinery.LogCheckpoint{Line: 1, Size: state.Size, Note: "new"})
		w.ok(w.SaveWitnessSize(w.ctx, "w", 1, 3))
		w.ok(w.SaveWitnessSize(w.ctx, "w", 1, 5))
		n, err := w.WitnessSize(w.ctx, "w", 1)
		w.ok(err)
		w.equal(n, int64(5))
		w.CheckInvariants(t)
	})
}

// erases checks that entries can be erased once, and are told as erased.
func (w *world) erases(refs ...joinery.LogRef) {
	w.t.Helper()
	for _, ref := range refs {
		a := w.audit(joinery.AuditEntryErased)
		a.Detail = map[string]string{"entry": fmt.Sprint(ref)}
		w.ok(w.EraseEntry(w.ctx, ref, a))
		w.refused(w.EraseEntry(w.ctx, ref, a), joinery.CodeConflict)
		e, err := w.LogEntry(w.ctx, ref)
		w.ok(err)
		number, ok := e.Erasure.Audit()
		if e.Payload != nil || e.Salt != nil || !ok || e.Leaf < 0 {
			w.t.Errorf("erased: %+v", e)
		}
		w.refused(w.EraseEntry(w.ctx, joinery.AuditRef(number), a), joinery.CodeConflict)
	}
	w.refused(w.EraseEntry(w.ctx, 12345, w.audit(joinery.AuditEntryErased)), joinery.CodeNotFound)
}

// ordersInCustody: what is ordered for many devices is in the custody of each of them,
// with proof, and of no other; what rests on an order names its entries.
func ordersInCustody(t *testing.T, open func(testing.TB) Backend) {
	w, s, j := rekeyWorld(t, open)
	w.ok(w.BeginFeed(w.ctx))
	w.ok(w.BeginLog(w.ctx, "log.example", sha256.Sum256(nil)))
	other, third := w.add(derived(2)), w.add(derived(3))
	e := w.export(w.recipient(w.org, "r"), joinery.ExportApproved, other, s)
	e, err := w.wrap(e, blob(other, 0), blob(s, 1))
	w.ok(err)
	w.export(w.recipient(w.org, "r2"), joinery.ExportApproved, third)

	b := joinery.RekeyBatch{
		ID: joinery.NewRekeyBatchID(), Org: w.org, JoinEUI: lorawan.EUI64{0xEC, 7: 1}, Server: j.ID, To: j.Name, Thumbprint: "key", Life: time.Hour,
		RequestedBy: "storetest", RequestedAt: epoch, ExpiresAt: epoch.Add(time.Hour),
	}
	w.ok(w.BeginRekeyBatch(w.ctx, b))
	b, err = w.AddRekeyBatchDevices(w.ctx, b.ID, []joinery.DeviceID{s.Device.ID})
	w.ok(err)
	set, err := w.FixRekeyBatchSet(w.ctx, b.ID)
	w.ok(err)
	b.State, b.Digest, b.Root = joinery.BatchApproved, set.Digest, set.Root
	about := w.audit(joinery.AuditRekeyBatchRequested)
	about.Detail = set.Detail(map[string]string{"batch": b.ID.String()})
	w.ok(w.MoveRekeyBatch(w.ctx, b, []joinery.RekeyBatchState{joinery.BatchCollecting}, about))
	read, err := w.RekeyBatch(w.ctx, b.ID)
	w.ok(err)
	w.equal(read, b)
	o := w.order(s, 1)
	o.Rekey.JoinEUI, o.Thumbprint = b.JoinEUI, b.Thumbprint
	armed := w.about(joinery.AuditRekeyArmed, s)
	armed.Detail = map[string]string{"batch": b.ID.String(), "order": o.ID.String(), "new_join_eui": b.JoinEUI.String(), "key": b.Thumbprint}
	about.Event = joinery.AuditRekeyBatchDone
	_, err = w.ArmRekeyBatch(w.ctx, b.ID, []joinery.RekeyBatchArm{{Order: o, Entry: armed}}, about)
	w.ok(err)
	w.sequence()
	w.grow(100)

	var all []joinery.CustodyEntry
	for q := (joinery.CustodyQuery{Device: s.Device.ID, Limit: 2}); ; q.After = all[len(all)-1].Ref {
		page, err := w.CustodyEntries(w.ctx, q)
		w.ok(err)
		if len(page) == 0 {
			break
		}
		all = append(all, page...)
	}
	records, subjects, events := map[string]joinery.AuditEvent{}, []int64{}, []string{}
	for _, c := range all {
		p, err := auditlog.ParseEvent(c.Payload)
		w.ok(err)
		records[hex.EncodeToString(c.Record[:])] = c.Event
		if c.Subject != 0 {
			w.equal(p.Device, "")
			subjects = append(subjects, c.Subject)
		}
		events = append(events, p.Event)
		for name, want := range map[string]joinery.AuditEvent{
			auditlog.DetailRequested: map[bool]joinery.AuditEvent{true: joinery.AuditExportRequested, false: joinery.AuditRekeyBatchRequested}[c.Event == joinery.AuditKeysExposed],
			auditlog.DetailApproved:  joinery.AuditExportApproved,
		} {
			if record := p.Detail[name]; record != "" || c.Event == joinery.AuditKeysExposed {
				w.equal(records[record], want)
			}
		}
	}
	w.equal(events, []string{"export.requested", "export.approved", "keys.exposed", "rekey.batch_requested", "rekey.armed", "rekey.batch_done"})
	w.equal(subjects, []int64{int64(e.ID), int64(e.ID), int64(b.ID), int64(b.ID)})

	of := slices.Concat([]int64{int64(e.ID)}, slices.Repeat([]int64{7}, 70), []int64{int64(b.ID)}) // most have no tree
	sets, err := w.DeviceSets(w.ctx, s.Device.ID, of)
	w.ok(err)
	w.equal([]any{len(sets), sets[0].Of, sets[0].Row, sets[1].Of, sets[1].Row}, []any{2, e.ID.String(), int64(1), b.ID.String(), int64(0)})
	first := auditlog.SetDevice{Nonce: sets[0].Nonce, Device: s.Device.ID.String(), JoinEUI: s.Device.JoinEUI.String(), DevEUI: s.Device.DevEUI.String()}.Leaf()
	below := sha256.Sum256(append([]byte{0}, first[:]...))
	w.equal(sha256.Sum256(slices.Concat([]byte{1}, sets[0].Proof[0], below[:])), e.Root)
	none, err := w.DeviceSets(w.ctx, third.Device.ID, []int64{int64(e.ID), int64(b.ID)})
	w.ok(err)
	w.equal(len(none), 0)
	theirs, err := w.CustodyEntries(w.ctx, joinery.CustodyQuery{Device: third.Device.ID})
	w.ok(err)
	w.equal(len(theirs), 2)
	w.erases(all[0].Ref, all[3].Ref)
	w.CheckInvariants(t)
}
