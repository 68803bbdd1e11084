package fault

import (
	"crypto/x509"
	"math/rand/v2"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/lorawan"
	"joinery/test/rig"
)

// P1 for batches: a server is killed again and again while it arms one. In the end
// each device has exactly one order or exactly one reason, what was told before a kill
// stands after it, and the log says each thing once.
func TestBatchKilled(t *testing.T) {
	devices, kills := 600, 3
	if long() {
		devices, kills = 20_000, 40
	}
	m := newMover(t, "a", devices)
	m.ctl("import", "manifest", m.server.Path("sim", "manifest.json"), "--mac-version", "1.0.4", "--bind-net-id", "000013", "--bind-as-id", "as.example.com")
	b := newBatches(t, m.api, 7)
	batch := b.request(away)
	cut := 0
	for range kills {
		told := b.goesOn(batch)
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		ok(t, m.kill())
		ok(t, m.server.Start(t.Context()))
		if after := b.standing(batch); after.Armed < told.Armed || after.Failed < told.Failed {
			t.Errorf("before a kill %d were armed and %d failed, after it %d and %d", told.Armed, told.Failed, after.Armed, after.Failed)
		}
		if told.State == string(joinery.BatchApproved) {
			cut++
		}
	}
	b.check(batch)
	ok(t, m.server.Stop())
	_, err := m.server.Run(t.Context(), "", "joinery", "fsck", "--config", m.server.Path("joinery.yaml"))
	ok(t, err)
	t.Logf("%d devices, %d kills, of which %d in the middle", devices, kills, cut)
}

// elementsInBatches is how many devices two servers order away.
func elementsInBatches() int {
	if long() {
		return 5_000
	}
	return 600
}

// Two servers on one database work on the same batches at once, one of which is killed in
// the middle: no device gets a second order, and each batch ends once.
func (f *fleet) batchesByTwo(other *rig.Server) {
	t := f.t
	_, err := f.server.Ctl(t.Context(), "", "import", "manifest", f.server.Path("sim", "manifest.json"), "--mac-version", "1.0.4", "--bind-net-id", "000013", "--bind-as-id", "as.example.com")
	ok(t, err)
	var org joinery.OrgID
	for d, err := range f.api.Devices(t.Context(), client.DevicesQuery{Limit: 1}) {
		ok(t, err)
		org = d.Owner
		break
	}
	open := func(s *rig.Server) *client.Client {
		c, err := client.New(client.Options{Socket: s.Path("joinery.sock"), Organisation: org})
		ok(t, err)
		t.Cleanup(c.Close)
		return c
	}
	b := newBatches(t, open(f.server), 7)
	b.never = b.all - elementsInBatches()
	there := *b
	there.api = open(other)
	// Each server is woken by a batch of its own, and works on both.
	first, second := b.request(away), there.request(away)
	b.goesOn(first)
	ok(t, other.Kill())
	b.check(first, second)
	ok(t, other.Start(t.Context()))
	f.fsck()
}

// batches orders all devices of a server away, and looks at what becomes of them.
type batches struct {
	t     *testing.T
	api   *client.Client
	there joinery.JoinServerID
	busy  map[joinery.DeviceID]joinery.RekeyID // with an order to elsewhere, which stands
	all   int
	never int // of them cannot be rekeyed
}

// newBatches pins a Join Server, and gives the first devices orders to elsewhere.
func newBatches(t *testing.T, api *client.Client, busy int) *batches {
	t.Helper()
	b := &batches{t: t, api: api, busy: map[joinery.DeviceID]joinery.RekeyID{}}
	public, err := recipients()
	ok(t, err)
	der, err := x509.MarshalPKIXPublicKey(public[0])
	ok(t, err)
	j, err := api.PinJoinServer(t.Context(), client.NewJoinServer{Name: "there", TransportKey: der})
	ok(t, err)
	b.there = j.ID
	for d, err := range api.Devices(t.Context(), client.DevicesQuery{Limit: 500}) {
		ok(t, err)
		elsewhere := away
		elsewhere[7] = 9
		if b.all++; len(b.busy) < busy && d.RekeyProfile != "" {
			o, err := api.ArmRekey(t.Context(), d.ID, client.NewRekeyOrder{NewJoinEUI: elsewhere, To: b.there})
			ok(t, err)
			b.busy[d.ID] = o.ID
		}
	}
	return b
}

func (b *batches) request(joinEUI lorawan.EUI64) joinery.RekeyBatchID {
	b.t.Helper()
	x, err := b.api.RequestRekeyBatch(b.t.Context(), client.NewRekeyBatch{NewJoinEUI: joinEUI, To: b.there, Select: &client.ExportSelection{}})
	ok(b.t, err)
	if x.State != string(joinery.BatchApproved) || x.Devices != int64(b.all) {
		b.t.Fatalf("%+v, of %d devices", x, b.all)
	}
	return x.ID
}

func (b *batches) standing(id joinery.RekeyBatchID) client.RekeyBatch {
	b.t.Helper()
	x, err := b.api.RekeyBatch(b.t.Context(), id)
	ok(b.t, err)
	return x
}

// goesOn waits until more devices are armed, or the batch is done.
func (b *batches) goesOn(id joinery.RekeyBatchID) client.RekeyBatch {
	b.t.Helper()
	was := b.standing(id)
	for now := was; ; now = b.standing(id) {
		if now.State == string(joinery.BatchDone) || now.Armed+now.Failed > was.Armed+was.Failed {
			return now
		}
		time.Sleep(time.Millisecond)
	}
}

// check waits until batches are done. Each device has then one order or one reason in
// each of them, and one order in all, for which the log has one entry; and one that
// each batch is done.
func (b *batches) check(list ...joinery.RekeyBatchID) {
	t := b.t
	t.Helper()
	orders := map[joinery.DeviceID]joinery.RekeyID{}
	refused := 0
	for _, id := range list {
		x := b.goesOn(id)
		for x.State != string(joinery.BatchDone) && !t.Failed() {
			x = b.goesOn(id)
		}
		armed, failed := int64(0), int64(0)
		for i, err := range b.api.RekeyBatchDevices(t.Context(), id, client.RekeyBatchDevicesQuery{Limit: 500}) {
			ok(t, err)
			switch {
			case i.State == "armed" && i.Order != 0 && i.Reason == "":
				armed++
				if was, there := orders[i.Device]; there && was != i.Order {
					t.Errorf("device %s has two orders", i.DevEUI)
				}
				orders[i.Device] = i.Order
			case i.State == "failed" && i.Order == 0 && i.Reason != "" && i.Code == joinery.CodeConflict:
				failed++
			default:
				t.Errorf("%+v", i)
			}
		}
		if armed != x.Armed || failed != x.Failed || armed+failed != int64(b.all) {
			t.Errorf("%d armed, %d failed of %d, and the batch says %+v", armed, failed, b.all, x)
		}
		refused += int(failed)
	}
	if len(orders) != b.all-b.never-len(b.busy) || refused < b.never+len(b.busy) {
		t.Errorf("%d of %d devices have orders, %d refused", len(orders), b.all, refused)
	}
	for device, order := range b.busy {
		orders[device] = order
	}
	said, done := map[joinery.DeviceID]int{}, 0
	for e, err := range b.api.Audit(t.Context(), client.AuditQuery{Limit: 500}) {
		ok(t, err)
		switch joinery.AuditEvent(e.Event) {
		case joinery.AuditRekeyArmed:
			said[e.Device]++
			if e.Detail["order"] != orders[e.Device].String() {
				t.Errorf("the log has order %s of device %s, which has %s", e.Detail["order"], e.Device, orders[e.Device])
			}
		case joinery.AuditRekeyBatchDone:
			done++
		}
	}
	for device := range orders {
		if said[device] != 1 {
			t.Errorf("the log has %d orders of device %s", said[device], device)
		}
		delete(said, device)
	}
	if len(said) > 0 || done != len(list) {
		t.Errorf("entries without orders: %v; %d entries of %d batches", said, done, len(list))
	}
}
