package storetest

import (
	"context"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

// RekeyBatches keeps orders to rekey many devices.
type RekeyBatches interface {
	BeginRekeyBatch(ctx context.Context, b joinery.RekeyBatch) error
	AddRekeyBatchDevices(ctx context.Context, id joinery.RekeyBatchID, devices []joinery.DeviceID) (joinery.RekeyBatch, error)
	FixRekeyBatchSet(ctx context.Context, id joinery.RekeyBatchID) (joinery.DeviceSet, error)
	RekeyBatchDigest(ctx context.Context, id joinery.RekeyBatchID) (digest [32]byte, devices int64, err error)
	MoveRekeyBatch(ctx context.Context, b joinery.RekeyBatch, from []joinery.RekeyBatchState, entries ...joinery.AuditEntry) error
	ArmRekeyBatch(ctx context.Context, id joinery.RekeyBatchID, list []joinery.RekeyBatchArm, done joinery.AuditEntry) (joinery.RekeyBatch, error)
	RekeyBatch(ctx context.Context, id joinery.RekeyBatchID) (joinery.RekeyBatch, error)
	RekeyBatches(ctx context.Context, q joinery.RekeyBatchQuery) ([]joinery.RekeyBatch, error)
	RekeyBatchItems(ctx context.Context, id joinery.RekeyBatchID, from uint64, waiting bool, limit int) ([]joinery.RekeyBatchItem, error)
}

// rekeyBatches: each device stands or falls alone, once; what is stored comes back.
func rekeyBatches(t *testing.T, open func(testing.TB) Backend) {
	w, s, j := rekeyWorld(t, open)
	other, busy := w.add(derived(2)), w.add(derived(3))
	b := joinery.RekeyBatch{
		ID: joinery.NewRekeyBatchID(), Org: w.org, State: joinery.BatchCollecting, JoinEUI: lorawan.EUI64{0xEC, 7: 1}, Server: j.ID, To: j.Name,
		Thumbprint: "key", RekeyKey: true, Life: 30 * 24 * time.Hour, RequestedBy: "storetest", RequestedPerson: 7, RequestedAt: epoch, ExpiresAt: epoch.Add(time.Hour),
	}
	elsewhere := b
	elsewhere.Server = joinery.NewJoinServerID()
	w.refused(w.BeginRekeyBatch(w.ctx, elsewhere), joinery.CodeNotFound)
	w.ok(w.BeginRekeyBatch(w.ctx, b))
	ids := []joinery.DeviceID{s.Device.ID, other.Device.ID, joinery.NewDeviceID(), busy.Device.ID}
	for range 2 { // what is in it stays, who is nobody's is left out
		got, err := w.AddRekeyBatchDevices(w.ctx, b.ID, ids)
		w.ok(err)
		b.Devices = 3
		w.equal(got, b)
	}
	_, err := w.ArmRekeyBatch(w.ctx, b.ID, nil, w.audit(joinery.AuditRekeyBatchDone))
	w.refused(err, joinery.CodeConflict)
	b.Digest, b.Devices, err = w.RekeyBatchDigest(w.ctx, b.ID)
	w.ok(err)
	sum := joinery.NewExportDigest()
	for _, d := range []joinery.ActivationState{s, other, busy} {
		sum.Add(d.Device.JoinEUI, d.Device.DevEUI)
	}
	w.equal(b.Digest, sum.Sum())
	b.State, b.NeedsApproval, b.DecidedBy, b.DecidedAt = joinery.BatchApproved, true, "ben", epoch.Add(time.Minute)
	miscounted := b
	miscounted.Devices++
	w.refused(w.MoveRekeyBatch(w.ctx, miscounted, []joinery.RekeyBatchState{joinery.BatchCollecting}), joinery.CodeConflict)
	w.ok(w.MoveRekeyBatch(w.ctx, b, []joinery.RekeyBatchState{joinery.BatchCollecting}, w.audit(joinery.AuditRekeyBatchApproved)))
	w.refused(w.MoveRekeyBatch(w.ctx, b, []joinery.RekeyBatchState{joinery.BatchCollecting}), joinery.CodeConflict)
	_, err = w.AddRekeyBatchDevices(w.ctx, b.ID, ids)
	w.refused(err, joinery.CodeConflict)

	w.arm(busy, j.ID, 9)
	arm := func(index uint64, s joinery.ActivationState) joinery.RekeyBatchArm {
		o := w.order(s, byte(index+1))
		o.Rekey.JoinEUI, o.Thumbprint, o.RekeyKey = b.JoinEUI, b.Thumbprint, true
		return joinery.RekeyBatchArm{Index: index, Order: o, Entry: w.audit(joinery.AuditRekeyArmed)}
	}
	first, third := arm(0, s), arm(2, busy)
	for range 2 { // two servers at once
		got, err := w.ArmRekeyBatch(w.ctx, b.ID, []joinery.RekeyBatchArm{first, third}, w.audit(joinery.AuditRekeyBatchDone))
		w.ok(err)
		b.Armed, b.Failed = 1, 1
		w.equal(got, b)
	}
	waiting, err := w.RekeyBatchItems(w.ctx, b.ID, 0, true, 10)
	w.ok(err)
	if len(waiting) != 1 || waiting[0].Device != other.Device.ID || waiting[0].State != joinery.RekeyItemWaiting {
		t.Fatalf("%+v", waiting)
	}
	// What is wrong here, and not with the device, is no reason of its own.
	broken := arm(1, other)
	broken.Order.Recipient = w.recipient(w.org, "a").ID // besides a Join Server
	if _, err := w.ArmRekeyBatch(w.ctx, b.ID, []joinery.RekeyBatchArm{broken}, w.audit(joinery.AuditRekeyBatchDone)); joinery.CodeOf(err) != joinery.CodeInternal {
		t.Errorf("an order that cannot be stored: %v", err)
	}
	// Nor is an open order one that ended meanwhile, that is another device's, or that
	// leads elsewhere: the device waits on.
	ended := w.order(other, 2)
	ended.Server, ended.Rekey.JoinEUI, ended.Thumbprint, ended.RekeyKey = j.ID, b.JoinEUI, b.Thumbprint, true
	w.ok(w.ArmRekey(w.ctx, ended, j.ID, w.audit(joinery.AuditRekeyArmed)))
	w.ok(w.EndRekey(w.ctx, ended.ID, w.org, joinery.RekeyCancelled, w.audit(joinery.AuditRekeyCancelled)))
	astray := w.arm(other, j.ID, 3)
	for _, had := range []joinery.RekeyID{ended.ID, first.Order.ID, astray.ID, joinery.NewRekeyID()} {
		got, err := w.ArmRekeyBatch(w.ctx, b.ID, []joinery.RekeyBatchArm{{Index: 1, Had: had}}, w.audit(joinery.AuditRekeyBatchDone))
		w.ok(err)
		w.equal(got, b)
	}
	second := joinery.RekeyBatchArm{Index: 1, Code: joinery.CodeConflict, Reason: "it cannot"}
	done := w.audit(joinery.AuditRekeyBatchDone)
	got, err := w.ArmRekeyBatch(w.ctx, b.ID, []joinery.RekeyBatchArm{second}, done)
	w.ok(err)
	b.Failed, b.State, b.EndedAt = 2, joinery.BatchDone, done.At
	w.equal(got, b)
	read, err := w.RekeyBatch(w.ctx, b.ID)
	w.ok(err)
	w.equal(read, b)
	items, err := w.RekeyBatchItems(w.ctx, b.ID, 0, false, 10)
	w.ok(err)
	if len(items) != 3 || items[0].Order != first.Order.ID || items[0].State != joinery.RekeyItemArmed || items[1].Reason != "it cannot" ||
		items[2].State != joinery.RekeyItemFailed || items[2].Code != joinery.CodeConflict || items[2].Reason == "" {
		t.Errorf("%+v", items)
	}
	if o := w.again(s).Rekeying.Order; o == nil || o.ID != first.Order.ID || o.DecidedBy != "ben" || o.State != joinery.RekeyArmed {
		t.Errorf("%+v", o)
	}
	list, err := w.RekeyBatches(w.ctx, joinery.RekeyBatchQuery{Org: w.org, States: []joinery.RekeyBatchState{joinery.BatchDone}, Limit: 10})
	w.ok(err)
	w.equal(list, []joinery.RekeyBatch{b})
	if _, err := w.RekeyBatch(w.ctx, joinery.NewRekeyBatchID()); joinery.CodeOf(err) != joinery.CodeNotFound {
		t.Errorf("no such batch: %v", err)
	}
	w.CheckInvariants(t)
}
