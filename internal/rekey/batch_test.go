package rekey_test

import (
	"context"
	"encoding/binary"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/internal/rekey"
	"joinery/internal/rekeyfile"
	"joinery/lorawan"
)

// Ticket, Handover and Disclose make a file of all devices, or none.
func (s *server) Ticket(ctx context.Context, caller joinery.Caller, devices []joinery.DeviceID) ([]byte, error) {
	f, err := s.Service.Ticket(ctx, caller, devices, false)
	return f.Content, err
}

func (s *server) Handover(ctx context.Context, caller joinery.Caller, to joinery.JoinServerID, devices []joinery.DeviceID) ([]byte, error) {
	f, err := s.Service.Handover(ctx, caller, to, devices, false)
	return f.Content, err
}

func (s *server) Disclose(ctx context.Context, caller joinery.Caller, to joinery.RecipientID, devices []joinery.DeviceID) ([]byte, error) {
	f, err := s.Service.Disclose(ctx, caller, to, devices, false)
	return f.Content, err
}

// numbered is the DevEUI of the n-th device of many.
func numbered(n int) (e lorawan.EUI64) {
	binary.BigEndian.PutUint64(e[:], 0x0004A31000000000+uint64(n))
	return e
}

// manyDerived imports n devices whose root keys derive from the master key, and that
// rekey.
func (s *server) manyDerived(n int, profile joinery.RekeyProfile) {
	s.t.Helper()
	ctx := s.t.Context()
	i := joinery.Import{Org: s.org, Kind: joinery.ImportKeyList, MACVersion: lorawan.MAC1_1, CreatedAt: noon, Rekey: profile}
	binary.BigEndian.PutUint64(i.SHA256[:], uint64(n))
	i, err := s.store.BeginImport(ctx, i)
	ok(s.t, err)
	const run = 500
	for from := 0; from < n; from += run {
		rows := joinery.ImportRows{Import: i.ID, From: uint64(from), Count: uint64(min(run, n-from)), Last: from+run >= n}
		for line := from; line < min(from+run, n); line++ {
			d := joinery.Device{ID: joinery.NewDeviceID(), JoinEUI: here, DevEUI: numbered(line), MACVersion: lorawan.MAC1_1, CreatedAt: noon, Rekey: profile, RekeyWord: joinery.RekeyByImporter}
			k := joinery.KeySet{ID: joinery.NewKeySetID(), DeviceID: d.ID, DevEUI: d.DevEUI, Origin: joinery.OriginDerived, Root10: joinery.NwkKey, Master: s.keys.Master, Generation: 1}
			rows.Devices = append(rows.Devices, joinery.NewDevice{Index: uint64(line), Line: uint64(line + 1), Device: d, KeySet: k})
		}
		done, err := s.store.CommitRows(ctx, rows, joinery.AuditEntry{At: noon, Event: joinery.AuditDeviceImported, Actor: "test", Org: s.org})
		ok(s.t, err)
		if len(done) > 0 && done[0].Status != joinery.RowCreated {
			s.t.Fatalf("import: %+v", done[0])
		}
	}
}

// work has the server arm what is approved.
func (s *server) work() {
	s.t.Helper()
	for more := true; more; {
		var err error
		more, err = s.WorkBatches(s.t.Context())
		ok(s.t, err)
	}
}

// items gives all devices of a batch by page.
func (s *server) items(id joinery.RekeyBatchID) (all []joinery.RekeyBatchItem) {
	s.t.Helper()
	for {
		page, err := s.BatchItems(s.t.Context(), s.owner, id, uint64(len(all)), 500)
		ok(s.t, err)
		if all = append(all, page...); len(page) < 500 {
			return all
		}
	}
}

// Many devices are ordered away at once: each gets its order or a reason, no
// one keeps another out, a server that ends in the middle goes on, and the same again
// changes nothing. Tickets and hand-overs are made of as many.
func TestBatch(t *testing.T) {
	ctx := t.Context()
	n := 500
	if os.Getenv("JOINERY_LONG") != "" {
		n = joinery.MaxRekeyDevices
	}
	a, b := newServer(t, here), newServer(t, there)
	to := a.pin(b)
	began := time.Now()
	phase := func(name string) {
		t.Logf("%d devices %s in %s", n, name, time.Since(began).Round(time.Millisecond))
		began = time.Now()
	}
	a.manyDerived(n, joinery.RekeyS)
	phase("imported")
	// Three that cannot, each for a reason of its own; the first is the set's last.
	never := a.derived(lorawan.EUI64{1}, "") // nobody said that it rekeys
	busy := a.derived(lorawan.EUI64{2}, "")
	had := a.derived(lorawan.EUI64{3}, "")
	for _, id := range []joinery.DeviceID{busy, had} {
		ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyS))
	}
	_, err := a.Arm(ctx, a.owner, rekey.Arm{Device: busy, JoinEUI: farther, To: to})
	ok(t, err)
	before, err := a.Arm(ctx, a.owner, rekey.Arm{Device: had, JoinEUI: there, To: to})
	ok(t, err)

	order := rekey.Arm{JoinEUI: there, To: to, Life: 30 * 24 * time.Hour}
	batch, absent, err := a.RequestBatch(ctx, a.owner, rekey.NewBatch{Arm: order, More: true, Devices: []joinery.DeviceRef{
		{ID: never}, {ID: joinery.NewDeviceID()}, {DevEUI: numbered(5), JoinEUI: here}, {ID: busy}, {ID: never},
	}})
	ok(t, err)
	if batch.State != joinery.BatchCollecting || batch.Devices != 3 || len(absent) != 1 || absent[0] != 1 {
		t.Fatalf("%+v, absent %v", batch, absent)
	}
	const call = rekey.MaxRefs
	for from := 0; from < n; from += call {
		refs := []joinery.DeviceRef{}
		for i := from; i < min(from+call, n-3); i++ {
			refs = append(refs, joinery.DeviceRef{DevEUI: numbered(i), JoinEUI: here})
		}
		if from+call >= n {
			refs = append(refs, joinery.DeviceRef{ID: had})
		}
		batch, absent, err = a.AddToBatch(ctx, a.owner, batch.ID, refs, from+call < n)
		ok(t, err)
		if len(absent) > 0 {
			t.Fatalf("absent: %v", absent)
		}
	}
	if batch.State != joinery.BatchApproved || batch.Devices != int64(n) {
		t.Fatalf("%+v", batch)
	}
	phase("collected")
	if _, err := a.WorkBatches(ctx); err != nil { // one turn, and the server ends
		t.Fatal(err)
	}
	if some, err := a.Batch(ctx, a.owner, batch.ID); err != nil || some.State != joinery.BatchApproved || some.Armed == 0 || some.Armed+some.Failed > joinery.MaxRekeyRows {
		t.Fatalf("after a turn: %+v, %v", some, err)
	}
	a.Service = rekey.New(a.store, a.keys.Keyring, a.exports, func(e lorawan.EUI64) bool { return e == here }, slog.New(slog.DiscardHandler), func() time.Time { return a.now })
	a.work()
	done, err := a.Batch(ctx, a.owner, batch.ID)
	ok(t, err)
	if done.State != joinery.BatchDone || done.Armed != int64(n-2) || done.Failed != 2 {
		t.Fatalf("%+v", done)
	}
	phase("armed")
	var ids []joinery.DeviceID
	for _, i := range a.items(batch.ID) {
		switch i.Device {
		case never, busy:
			if i.State != joinery.RekeyItemFailed || i.Code != joinery.CodeConflict || i.Reason == "" {
				t.Errorf("%+v", i)
			}
		case had:
			if i.Order != before.ID {
				t.Errorf("an order to the same effect was not kept: %+v", i)
			}
		default:
			if i.State != joinery.RekeyItemArmed || i.Order == 0 || i.Reason != "" {
				t.Fatalf("%+v", i)
			}
		}
		ids = append(ids, i.Device)
	}
	o, err := a.store.RekeyOrder(ctx, a.items(batch.ID)[1].Order)
	ok(t, err)
	if o.State != joinery.RekeyArmed && o.State != "" || !o.ExpiresAt.Equal(a.now.Add(order.Life)) {
		t.Errorf("%+v", o)
	}

	// The same again: nobody gets a second order.
	again, _, err := a.RequestBatch(ctx, a.owner, rekey.NewBatch{Arm: order, Select: &joinery.DeviceQuery{DevEUIPrefix: "0004A310000000"}})
	ok(t, err)
	a.work()
	for _, i := range a.items(again.ID)[:20] {
		was, err := a.store.RekeyOrders(ctx, i.Device)
		ok(t, err)
		if i.State != joinery.RekeyItemArmed || len(was) != 1 || was[0].ID != i.Order {
			t.Fatalf("%+v, orders %+v", i, was)
		}
	}

	// Files of all of them, in parts; who has no order keeps nobody out.
	phase("read")
	tickets, handed := 0, 0
	for from := 0; from < len(ids); from += rekey.MaxBatch {
		part := ids[from:min(from+rekey.MaxBatch, len(ids))]
		f, err := a.Service.Ticket(ctx, a.owner, part, true)
		ok(t, err)
		var ticket rekeyfile.Ticket
		_, err = rekeyfile.Open(f.Content, rekeyfile.FormatTicket, nil, &ticket)
		ok(t, err)
		h, err := a.Service.Handover(ctx, a.owner, to, part, true)
		ok(t, err)
		if len(ticket.Devices)+len(f.LeftOut) != len(part) || h.Devices+len(h.LeftOut) != len(part) {
			t.Fatalf("a device is neither in the file nor left out: %+v, %+v", f.LeftOut, h.LeftOut)
		}
		tickets, handed = tickets+len(ticket.Devices), handed+h.Devices
		if from == 0 && (len(f.LeftOut) != 1 || f.LeftOut[0].Device != never || len(h.LeftOut) != 1) {
			t.Errorf("left out of the first part: %+v, %+v", f.LeftOut, h.LeftOut)
		}
	}
	phase("written into tickets and hand-overs")
	if tickets != n-1 || handed != n-1 { // busy has an order of its own
		t.Errorf("%d in tickets, %d handed over of %d", tickets, handed, n)
	}
	a.wantClean()
}

// Two servers on one database work on the same batches at once: each device gets one
// order and each batch its end once, whoever comes first, and the log has each once.
func TestBatchByTwo(t *testing.T) {
	ctx := t.Context()
	const n = 300
	a, b := newServer(t, here), newServer(t, there)
	to := a.pin(b)
	a.manyDerived(n, joinery.RekeyS)
	other := rekey.New(a.store, a.keys.Keyring, a.exports, func(e lorawan.EUI64) bool { return e == here }, slog.New(slog.DiscardHandler), func() time.Time { return a.now })
	var ids []joinery.RekeyBatchID
	for range 2 {
		batch, _, err := a.RequestBatch(ctx, a.owner, rekey.NewBatch{Arm: rekey.Arm{JoinEUI: there, To: to}, Select: &joinery.DeviceQuery{}})
		ok(t, err)
		ids = append(ids, batch.ID)
	}
	var busy sync.WaitGroup
	for _, s := range []*rekey.Service{a.Service, other} {
		busy.Go(func() {
			for more := true; more; {
				var err error
				if more, err = s.WorkBatches(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	busy.Wait()
	orders := map[joinery.DeviceID]joinery.RekeyID{}
	for _, id := range ids {
		batch, err := a.Batch(ctx, a.owner, id)
		ok(t, err)
		if batch.State != joinery.BatchDone || batch.Armed+batch.Failed != n {
			t.Errorf("%+v", batch)
		}
		for _, i := range a.items(id) {
			switch was, there := orders[i.Device]; {
			case (i.State == joinery.RekeyItemArmed) != (i.Order != 0 && i.Reason == ""):
				t.Errorf("%+v", i)
			case i.State == joinery.RekeyItemArmed && there && was != i.Order:
				t.Errorf("two orders of %s", i.DevEUI)
			case i.State == joinery.RekeyItemArmed:
				orders[i.Device] = i.Order
			}
		}
	}
	if len(orders) != n || a.count(joinery.AuditRekeyArmed) != n || a.count(joinery.AuditRekeyBatchDone) != len(ids) {
		t.Errorf("%d orders of %d devices, %d entries of orders, %d of batches", len(orders), n, a.count(joinery.AuditRekeyArmed), a.count(joinery.AuditRekeyBatchDone))
	}
	a.wantClean()
}

// Where an export needs another person, a batch waits for one, who approves exactly
// its devices, JoinEUI and key. What is withdrawn, or whose devices change hands,
// arms nobody.
func TestBatchApproval(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to := a.pin(b)
	a.manyDerived(4, joinery.RekeyS)
	ann, ben := a.admin("ann"), a.admin("ben")
	all := rekey.NewBatch{Arm: rekey.Arm{JoinEUI: there, To: to}, Select: &joinery.DeviceQuery{}}
	batch, _, err := a.RequestBatch(ctx, ann, all)
	ok(t, err)
	a.work()
	if batch.State != joinery.BatchRequested || !batch.NeedsApproval || batch.Devices != 4 || a.items(batch.ID)[0].State != joinery.RekeyItemWaiting {
		t.Fatalf("%+v", batch)
	}
	seen := rekey.BatchApproval{Digest: batch.Digest, JoinEUI: there, Thumbprint: batch.Thumbprint}
	refused := func(caller joinery.Caller, want joinery.Code, change func(*rekey.BatchApproval)) {
		t.Helper()
		x := seen
		change(&x)
		_, err := a.ApproveBatch(ctx, caller, batch.ID, x)
		wantCode(t, err, want)
	}
	same := func(*rekey.BatchApproval) {}
	bensKey := ben
	bensKey.Session, bensKey.Key = 0, joinery.NewAPIKeyID()
	refused(ann, joinery.CodeForbidden, same)
	refused(bensKey, joinery.CodeForbidden, same)
	refused(ben, joinery.CodeConflict, func(x *rekey.BatchApproval) { x.Digest[0]++ })
	refused(ben, joinery.CodeConflict, func(x *rekey.BatchApproval) { x.JoinEUI = farther })
	refused(ben, joinery.CodeConflict, func(x *rekey.BatchApproval) { x.Thumbprint = "" })
	refused(ben, joinery.CodeConflict, func(x *rekey.BatchApproval) { x.RekeyKey = true })
	_, err = a.ApproveBatch(ctx, ben, batch.ID, seen)
	ok(t, err)
	a.work()
	for _, i := range a.items(batch.ID) {
		o, err := a.store.RekeyOrder(ctx, i.Order)
		ok(t, err)
		if o.State != joinery.RekeyArmed || o.By != ann.Name || o.DecidedBy != ben.Name {
			t.Errorf("%+v", o)
		}
		ok(t, a.Cancel(ctx, ann, i.Device))
	}

	next, _, err := a.RequestBatch(ctx, ann, all)
	ok(t, err)
	_, err = a.RejectBatch(ctx, ben, next.ID, "not these")
	ok(t, err)
	next, _, err = a.RequestBatch(ctx, ann, all)
	ok(t, err)
	seen.Digest = next.Digest
	_, err = a.ApproveBatch(ctx, ben, next.ID, seen)
	ok(t, err)
	_, err = a.WithdrawBatch(ctx, ann, next.ID)
	ok(t, err)
	a.work()
	for _, i := range a.items(next.ID) {
		if i.State != joinery.RekeyItemWaiting {
			t.Errorf("a batch that was withdrawn went on: %+v", i)
		}
	}
	next, _, err = a.RequestBatch(ctx, ann, all)
	ok(t, err)
	a.now = a.now.Add(joinery.RekeyWait)
	batch = next
	seen.Digest = next.Digest
	refused(ben, joinery.CodeConflict, same) // its time is over
	if late, err := a.Batch(ctx, ann, next.ID); err != nil || late.State != joinery.BatchExpired {
		t.Errorf("%+v, %v", late, err)
	}
	_, err = a.Batch(ctx, joinery.Caller{Org: joinery.NewOrgID(), Rights: joinery.AllRights()}, next.ID)
	wantCode(t, err, joinery.CodeNotFound)
	weak := ann
	weak.Rights = 0
	_, _, err = a.RequestBatch(ctx, weak, all)
	wantCode(t, err, joinery.CodeForbidden)
	a.wantClean()
}
