package calls

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"joinery"
	"joinery/internal/activation"
	"joinery/internal/claim"
	"joinery/internal/rekey"
	"joinery/internal/sim/device"
	"joinery/lorawan"
)

// counted names entries of the log that are counted together; joins have no event.
type counted struct {
	event  joinery.AuditEvent
	device joinery.DeviceID
}

// tally is what callers were told: done so often, and failed, which may be either.
type tally map[counted]*struct{ done, failed int }

func (y tally) add(err error, list ...counted) {
	for _, c := range list {
		if y[c] == nil {
			y[c] = &struct{ done, failed int }{}
		}
		if err == nil {
			y[c].done++
		} else {
			y[c].failed++
		}
	}
}

// hand is somebody who does things that must be written down, one after the other:
// each tells what its success is.
type hand struct {
	r       *rooms
	b       *leavingBase
	device  *device.Device // joins
	session []byte
	export  joinery.ExportID // on its way
	began   bool
}

// P8: nothing is told to anybody that is not in the log. Thousands of acts of all kinds,
// among them joins, claims' tokens, exports and orders to rekey, alone, in batches and by
// another person's approval, while a call on store or keyring fails in one of five, before
// or after it took effect. Each that succeeded has its entry, there are no more entries
// than were tried, nothing left that is not written down, and all of it is in the tree.
func TestNothingIsUnaudited(t *testing.T) {
	const want = 10_000
	acts := want / 20
	if os.Getenv("JOINERY_LONG") != "" {
		acts = want
	}
	b := newLeavingBase(t)
	r := b.open(t)
	h := &hand{r: r, b: b, device: b.devices[lorawan.MAC1_1], session: b.session}
	before := countEntries(t, r)
	seen, faults, told := tally{}, 0, 0
	for n := 0; told < acts; n++ {
		do := h.acts()[n%len(h.acts())]
		r.steps = steps{failAt: -1}
		if rand.IntN(5) == 0 {
			r.steps = steps{failAt: rand.IntN(8), after: rand.IntN(2) == 0}
		}
		what, err := do(t.Context())
		if err != nil && r.failAt < 0 && !isCode(joinery.CodeConflict, joinery.CodeNotFound)(err) { // what went before failed
			t.Fatalf("act %d: %v", n%len(h.acts()), err)
		}
		if err != nil {
			faults++
		}
		seen.add(err, what...)
		if err == nil {
			told += len(what)
		}
	}
	r.steps = steps{failAt: -1}
	h.inTree()
	after := countEntries(t, r)
	for c, n := range seen {
		if got := after[c] - before[c]; got < n.done || got > n.done+n.failed {
			t.Errorf("%s of %s: %d entries; %d were told of, %d more may be", c.event, c.device, got, n.done, n.failed)
		}
	}
	for _, c := range []counted{
		{joinery.AuditRekeyBatchRequested, 0}, {joinery.AuditRekeyBatchApproved, 0}, {joinery.AuditRekeyBatchDone, 0},
		{joinery.AuditRekeyArmed, b.batched}, {joinery.AuditRekeyArmed, b.many},
	} {
		if seen[c] == nil || seen[c].done == 0 {
			t.Errorf("nobody was told of %s of %s", c.event, c.device)
		}
	}
	h.nothingElse(after)
	if !t.Failed() {
		t.Logf("%d effects that callers were told of, %d acts that failed: 0 unaudited", told, faults)
	}
}

// acts are what it can do. Each gives what is in the log if it succeeds.
func (h *hand) acts() []func(context.Context) ([]counted, error) {
	r, b := h.r, h.b
	about := func(event joinery.AuditEvent, d joinery.DeviceID) []counted { return []counted{{event, d}} }
	old, claimed := b.ids[lorawan.MAC1_0_3], b.ids[lorawan.MAC1_0_4]
	owns := func(kind claim.Kind, event joinery.AuditEvent) func(context.Context) ([]counted, error) {
		return func(ctx context.Context) ([]counted, error) {
			a := claim.Act{Kind: kind, Device: old}
			if kind == claim.Offering {
				a.To = b.owner.Org
			}
			if _, err := r.db.Transfer(ctx, old); (err == nil) == (kind == claim.Offering) {
				return nil, nil // it would change nothing
			}
			both := append(about(event, old), counted{event, old}) // one for each side
			return both, r.claim.Do(ctx, b.maker, a).Err
		}
	}
	return []func(context.Context) ([]counted, error){
		h.join, h.appSKey, h.join, h.suspend,
		func(ctx context.Context) ([]counted, error) {
			now, err := r.db.Device(ctx, claimed)
			ok(r.t, err)
			to := joinery.Binding{NetID: stepNetID, ASID: stepASID, Policy: joinery.AppSKeyByID}
			if now.Binding != nil && now.Binding.Policy == to.Policy {
				to.Policy = joinery.AppSKeyWrapped // so that it changes something
			}
			return about(joinery.AuditDeviceBound, claimed), r.claim.Bind(ctx, b.maker, claimed, to)
		},
		func(ctx context.Context) ([]counted, error) {
			_, err := r.claim.LabelTokens(ctx, b.maker, []joinery.DeviceRef{{ID: claimed}})
			return about(joinery.AuditOwnerTokenRead, claimed), err
		},
		owns(claim.Offering, joinery.AuditTransferOffered),
		owns(claim.Cancelling, joinery.AuditTransferCancelled),
		func(ctx context.Context) ([]counted, error) {
			return about(joinery.AuditRoamingChanged, 0), r.fleet.SetRoaming(ctx, b.maker, joinery.RoamingRule{Org: b.maker.Org, NetIDs: []lorawan.NetID{{0, 0, 0x42}}})
		},
		h.request, h.join, h.begin, h.wrap, h.fetch,
		func(ctx context.Context) ([]counted, error) {
			_, err := r.rekey.Arm(ctx, b.alone, rekey.Arm{Device: b.free, JoinEUI: awayEUI, To: b.there})
			return about(joinery.AuditRekeyArmed, b.free), err
		},
		func(ctx context.Context) ([]counted, error) {
			_, err := r.rekey.Handover(ctx, b.alone, b.there, []joinery.DeviceID{b.free}, false)
			return about(joinery.AuditRekeyHandedOver, b.free), err
		},
		func(ctx context.Context) ([]counted, error) {
			return about(joinery.AuditRekeyCancelled, b.free), r.rekey.Cancel(ctx, b.alone, b.free)
		},
		func(ctx context.Context) ([]counted, error) {
			_, err := r.rekey.Ticket(ctx, b.alone, []joinery.DeviceID{b.armed}, false)
			return about(joinery.AuditRekeyTicket, b.armed), err
		},
		h.batch(b.alone, b.batched), h.batch(b.asks, b.many), h.approve, h.work, h.uncover(b.alone, b.batched), h.uncover(b.asks, b.many),
		func(ctx context.Context) ([]counted, error) {
			_, err := r.rekey.Disclose(ctx, b.alone, b.to.ID, []joinery.DeviceID{b.disclosed}, false)
			return append(about(joinery.AuditRekeyHandedOver, b.disclosed), counted{joinery.AuditKeysExposed, b.disclosed}), err
		},
	}
}

func (h *hand) join(ctx context.Context) ([]counted, error) {
	frame, err := h.device.JoinRequest()
	ok(h.r.t, err)
	a, err := h.r.activation.Join(ctx, h.b.join(lorawan.MAC1_1, frame))
	if err == nil {
		h.session = a.SessionKeyID
	}
	return []counted{{"", h.b.ids[lorawan.MAC1_1]}}, err
}

func (h *hand) appSKey(ctx context.Context) ([]counted, error) {
	_, err := h.r.activation.AppSKey(ctx, activation.AppSKeyRequest{
		Peer: h.b.network, ASID: stepASID, JoinEUI: stepEUI, DevEUI: h.device.DevEUI(), SessionKeyID: h.session,
	})
	return []counted{{joinery.AuditAppSKeyFetched, h.b.ids[lorawan.MAC1_1]}}, err
}

// suspend suspends a device, or lets it go on: whichever changes something.
func (h *hand) suspend(ctx context.Context) ([]counted, error) {
	id := h.b.ids[lorawan.MAC1_0_3]
	now, err := h.r.db.Device(ctx, id)
	ok(h.r.t, err)
	event := joinery.AuditDeviceSuspended
	if now.Device.Suspended {
		event = joinery.AuditDeviceResumed
	}
	return []counted{{event, id}}, h.r.fleet.Suspend(ctx, h.b.maker, id, !now.Device.Suspended)
}

func (h *hand) request(ctx context.Context) ([]counted, error) {
	h.export, h.began = 0, false
	h.withdraw()
	e, err := h.b.ask(ctx, h.r, h.b.plain, h.b.told)
	if err == nil {
		h.export = e.ID
	}
	return []counted{{joinery.AuditExportRequested, 0}}, err
}

// withdraw ends exports that came no further: an organisation has 100 at a time.
func (h *hand) withdraw() {
	r, b := h.r, h.b
	next := r.steps
	defer func() { r.steps = next }()
	r.steps = steps{failAt: -1}
	open, err := r.db.Exports(r.t.Context(), joinery.ExportQuery{
		Org: b.alone.Org, States: []joinery.ExportState{joinery.ExportCollecting, joinery.ExportApproved, joinery.ExportWorking, joinery.ExportReady}, Limit: 100,
	})
	ok(r.t, err)
	for _, e := range open {
		if e.ID != b.approved && e.ID != b.begun && e.ID != b.wrapped {
			_, err := r.export.Withdraw(r.t.Context(), b.alone, e.ID)
			ok(r.t, err)
		}
	}
}

func (h *hand) begin(ctx context.Context) ([]counted, error) {
	if h.export == 0 {
		return nil, nil
	}
	head := h.b.header
	head.ID, head.Created = h.export.String(), h.r.created(h.export)
	_, err := h.r.export.Start(ctx, h.b.process, h.export, head)
	h.began = err == nil
	return nil, err // nothing is disclosed by it
}

func (h *hand) wrap(ctx context.Context) ([]counted, error) {
	if !h.began {
		return nil, nil
	}
	head := h.b.header
	head.ID, head.Created = h.export.String(), h.r.created(h.export)
	err := h.b.wrap(ctx, h.r, h.export, head)
	if err != nil {
		h.began = false
	}
	return []counted{{joinery.AuditKeysExposed, h.b.plain}, {joinery.AuditKeysExposed, h.b.told}, {joinery.AuditExportReady, 0}}, err
}

func (h *hand) fetch(ctx context.Context) ([]counted, error) {
	if !h.began {
		return nil, nil
	}
	_, err := h.r.export.Acknowledge(ctx, h.b.alone, h.export)
	return []counted{{joinery.AuditExportDelivered, 0}}, err
}

// batch asks to rekey one device as a batch, where the same does not wait for another
// person already.
func (h *hand) batch(who joinery.Caller, d joinery.DeviceID) func(context.Context) ([]counted, error) {
	return func(ctx context.Context) ([]counted, error) {
		h.far()
		for _, open := range h.batches(joinery.BatchRequested) {
			if open.Org == who.Org {
				return nil, nil
			}
		}
		_, _, err := h.r.rekey.RequestBatch(ctx, who, h.b.batchOf(d, false))
		return []counted{{joinery.AuditRekeyBatchRequested, 0}}, err
	}
}

// approve approves a batch as another person.
func (h *hand) approve(ctx context.Context) ([]counted, error) {
	for _, open := range h.batches(joinery.BatchRequested) {
		_, err := h.r.rekey.ApproveBatch(ctx, h.b.agrees, open.ID, approval(open))
		return []counted{{joinery.AuditRekeyBatchApproved, 0}}, err
	}
	return nil, nil
}

// work has the server arm the devices of all batches that are approved.
func (h *hand) work(ctx context.Context) (what []counted, err error) {
	h.far()
	going := map[joinery.DeviceID]bool{}
	for _, open := range h.batches(joinery.BatchApproved) {
		what = append(what, counted{joinery.AuditRekeyBatchDone, 0})
		going[map[joinery.OrgID]joinery.DeviceID{h.b.alone.Org: h.b.batched, h.b.asks.Org: h.b.many}[open.Org]] = true
	}
	for id := range going { // one that has such an order keeps it
		if state, err := h.r.db.RekeyingDevice(ctx, id); err != nil || state.Rekeying.Order == nil || !state.Rekeying.Order.StateAt(time.Now()).Open() {
			ok(h.r.t, err)
			what = append(what, counted{joinery.AuditRekeyArmed, id})
		}
	}
	for more := true; more && err == nil; {
		more, err = h.r.rekey.WorkBatches(ctx)
	}
	return what, err
}

// uncover cancels the order of a device, so that the next batch gives it another.
func (h *hand) uncover(who joinery.Caller, d joinery.DeviceID) func(context.Context) ([]counted, error) {
	return func(ctx context.Context) ([]counted, error) {
		return []counted{{joinery.AuditRekeyCancelled, d}}, h.r.rekey.Cancel(ctx, who, d)
	}
}

// far has a call fail that comes late, too: a batch takes twice as many.
func (h *hand) far() {
	if h.r.failAt >= 0 {
		h.r.failAt = 2*h.r.failAt + rand.IntN(2)
	}
}

func (h *hand) batches(state joinery.RekeyBatchState) []joinery.RekeyBatch {
	h.r.t.Helper()
	list, err := h.r.db.RekeyBatches(h.r.t.Context(), joinery.RekeyBatchQuery{States: []joinery.RekeyBatchState{state}, Limit: 100})
	ok(h.r.t, err)
	return list
}

// inTree lets the log take everything in, and looks for every entry there.
func (h *hand) inTree() {
	t, r := h.r.t, h.r
	t.Helper()
	for more := true; more; {
		var err error
		more, err = r.db.Sequence(t.Context(), false)
		ok(t, err)
	}
	ok(t, r.log.CatchUp(t.Context()))
	ok(t, r.log.Publish(t.Context()))
	lag, err := r.db.LogLag(t.Context())
	ok(t, err)
	state, err := r.db.LogState(t.Context())
	ok(t, err)
	rows := int64(number(t, r, "SELECT count(*) FROM audit") + number(t, r, "SELECT count(*) FROM activation"))
	if state.Size != rows {
		t.Errorf("%d of %d rows are in the tree: %+v", state.Size, rows, lag)
	}
	r.fsck()
}

// nothingElse compares what there is with the entries of it.
func (h *hand) nothingElse(entries map[counted]int) {
	t := h.r.t
	t.Helper()
	sum := func(event joinery.AuditEvent) (n int) {
		for c, of := range entries {
			if c.event == event {
				n += of
			}
		}
		return n
	}
	for query, want := range map[string]int{
		"SELECT count(*) FROM disclosure": sum(joinery.AuditKeysExposed),
		"SELECT count(*) FROM rekey":      sum(joinery.AuditRekeyArmed) + sum(joinery.AuditRekeyRequested),
		"SELECT count(*) FROM activation": sum(""),
		"SELECT count(*) FROM rekey_batch WHERE devices > 0 AND state NOT IN ('collecting', 'withdrawn')": sum(joinery.AuditRekeyBatchRequested),
		"SELECT count(*) FROM rekey_batch WHERE needs_approval AND state IN ('approved', 'done')":         sum(joinery.AuditRekeyBatchApproved),
		"SELECT count(*) FROM rekey_batch WHERE state = 'done'":                                           sum(joinery.AuditRekeyBatchDone),
		"SELECT count(*) FROM export WHERE state = " + fmt.Sprintf("'%s'", joinery.ExportDelivered):       sum(joinery.AuditExportDelivered),
	} {
		if got := number(t, h.r, query); got != want {
			t.Errorf("%s: %d, with %d entries", query, got, want)
		}
	}
}

func number(t *testing.T, r *rooms, query string) (n int) {
	t.Helper()
	c, err := sqlite.OpenConn(r.path, sqlite.OpenReadOnly)
	ok(t, err)
	defer func() { _ = c.Close() }()
	ok(t, sqlitex.ExecuteTransient(c, query, &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
		n = s.ColumnInt(0)
		return nil
	}}))
	return n
}

// countEntries counts entries of the log, joins among them.
func countEntries(t *testing.T, r *rooms) map[counted]int {
	t.Helper()
	entries, err := allEntries(t.Context(), r)
	ok(t, err)
	found := map[counted]int{}
	for _, e := range entries {
		found[counted{e.Event, e.Device}]++
	}
	for _, id := range r.base.ids {
		for before := joinery.ActivationID(0); ; {
			page, err := r.db.ActivationsBefore(t.Context(), id, before, 500)
			ok(t, err)
			if len(page) == 0 {
				break
			}
			found[counted{"", id}] += len(page)
			before = page[len(page)-1].ID
		}
	}
	return found
}
