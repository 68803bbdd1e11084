package refusal

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

// brittle is a Writer that fails as long as err is set.
type brittle struct {
	Writer
	mu    sync.Mutex
	err   error
	calls int
}

func (b *brittle) RecordRefusals(ctx context.Context, batch joinery.RefusalBatch) error {
	b.mu.Lock()
	b.calls++
	err := b.err
	b.mu.Unlock()
	if err != nil {
		return err
	}
	return b.Writer.RecordRefusals(ctx, batch)
}

func (b *brittle) set(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func TestRecordedIsCounted(t *testing.T) {
	f := newFixture(t, 1)
	for n := range 5 {
		x := about(f.peer, f.devices[0], joinery.RefusedOtherNetwork, n)
		x.Received.TransactionID = uint32(n)
		f.Record(&x)
	}
	x := unknown(f.peer, 1, 7)
	f.Record(&x)
	f.Sync(t.Context())
	got, err := f.db.DeviceRefusals(t.Context(), f.devices[0].Device.ID)
	ok(t, err)
	if len(got) != 1 || got[0].Count != 5 || !got[0].First.Equal(noon) || !got[0].At.Equal(noon.Add(4*time.Second)) || got[0].Received.TransactionID != 4 {
		t.Errorf("device: %+v", got)
	}
	of, err := f.db.PeerRefusals(t.Context(), f.peer.ID, 10)
	ok(t, err)
	if len(of.Totals) != 2 || len(of.Unknown) != 1 || of.Unknown[0].Received.DevEUI != x.Received.DevEUI || len(of.Devices) != 1 {
		t.Errorf("peer: %+v", of)
	}
	if s := f.Stats(); s.Recorded[joinery.RefusedOtherNetwork] != 5 || s.Recorded[joinery.RefusedUnknownDevice] != 1 || s.Hurried+s.Crowded+s.FailedWrites != 0 {
		t.Errorf("%+v", s)
	}
}

// A server that stops in order writes what it has.
func TestCloseWrites(t *testing.T) {
	f := newFixture(t, 1)
	x := about(f.peer, f.devices[0], joinery.RefusedMIC, 1)
	f.Record(&x)
	f.Close()
	f.Close()
	f.Sync(t.Context()) // returns
	got, err := f.db.DeviceRefusals(t.Context(), f.devices[0].Device.ID)
	ok(t, err)
	if len(got) != 1 || got[0].Count != 1 {
		t.Errorf("%+v", got)
	}
}

// While the database is away counts wait, once each; what it refuses to take is
// given up and said.
func TestFailingStore(t *testing.T) {
	f := newFixture(t, 2)
	store := &brittle{Writer: f.db}
	r := NewRecorder(store, nil)
	t.Cleanup(r.Close)
	record := func(device int) {
		x := about(f.peer, f.devices[device], joinery.RefusedMIC, 1)
		r.Record(&x)
		r.Sync(t.Context())
	}
	count := func(device int) uint64 {
		t.Helper()
		got, err := f.db.DeviceRefusals(t.Context(), f.devices[device].Device.ID)
		ok(t, err)
		if len(got) == 0 {
			return 0
		}
		return got[0].Count
	}
	store.set(joinery.Errorf(joinery.CodeUnavailable, "away"))
	record(0)
	record(0)
	store.set(nil)
	record(0)
	if n := count(0); n != 3 {
		t.Errorf("after the database was away: %d, want 3", n)
	}
	store.set(errors.New("a defect"))
	record(1)
	store.set(nil)
	record(0)
	if a, b := count(0), count(1); a != 4 || b != 0 {
		t.Errorf("after a batch that could not be taken: %d and %d", a, b)
	}
	if s := r.Stats(); s.FailedWrites < 3 || s.Crowded != 2 {
		t.Errorf("%+v", s)
	}
}

// stalled is a Writer that waits, like a database that does not answer.
type stalled struct {
	Writer
	asked  chan struct{} // told at each call
	resume chan struct{} // closed when it answers again
}

func (s stalled) RecordRefusals(ctx context.Context, b joinery.RefusalBatch) error {
	select {
	case s.asked <- struct{}{}:
	default:
	}
	<-s.resume
	return s.Writer.RecordRefusals(ctx, b)
}

// While the database does not answer, what comes is counted all the same.
func TestStalledStore(t *testing.T) {
	f := newFixture(t, 1)
	store := stalled{f.db, make(chan struct{}, 1), make(chan struct{})}
	r := NewRecorder(store, nil)
	t.Cleanup(r.Close)
	x := about(f.peer, f.devices[0], joinery.RefusedMIC, 1)
	r.Record(&x)
	go r.Sync(context.Background())
	<-store.asked
	const more = 5 * maxPending
	for n := range more {
		r.Record(&x)
		if n%1000 == 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	r.Sync(ctx) // gives up
	close(store.resume)
	r.Sync(t.Context())
	got, err := f.db.DeviceRefusals(t.Context(), x.Device)
	ok(t, err)
	if lost := r.Stats().Hurried; len(got) != 1 || got[0].Count+lost != more+1 || got[0].Count < 2*maxPending {
		t.Errorf("%+v, %d were not counted", got, lost)
	}
}

// counting is a Writer that counts rows.
type counting struct{ rows atomic.Int64 }

func (c *counting) RecordRefusals(_ context.Context, b joinery.RefusalBatch) error {
	c.rows.Add(int64(len(b.Devices) + len(b.Unknown) + len(b.Peers)))
	return nil
}

// CloseAttempts implements Writer.
func (c *counting) CloseAttempts(context.Context, time.Time) (bool, error) { return false, nil }

// However often somebody asks for what was refused, no more is written than one
// second may.
func TestReadersDoNotHurryTheStore(t *testing.T) {
	store := &counting{}
	r := NewRecorder(store, nil)
	t.Cleanup(r.Close)
	started := time.Now()
	for n := range maxPending {
		x := unknown(joinery.Peer{ID: joinery.PeerID(1 + n%8)}, n, n)
		x.Device, x.Reason = joinery.DeviceID(1+n), joinery.RefusedMIC
		r.Record(&x)
	}
	for range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
		r.Sync(ctx)
		cancel()
	}
	ticks := int64(time.Since(started)/tick) + 1
	if rows := store.rows.Load(); rows == 0 || rows > maxTick*(1+ticks) {
		t.Errorf("%d rows are written after %d ticks, want at most %d", rows, ticks, maxTick*(1+ticks))
	}
	// Who waits, waits for one tick of its own.
	r.Sync(t.Context())
	if rows := store.rows.Load(); rows < 2*maxTick {
		t.Errorf("%d rows are written after a tick", rows)
	}
}

// A refusal costs its request a copy and no memory.
func TestRecordAllocatesNothing(t *testing.T) {
	r := &Recorder{full: make(chan struct{}, 1)}
	r.refusals.waiting, r.attempts.waiting = make([]joinery.Refusal, 0, maxPending), make([]joinery.Attempt, 0, maxPending)
	x, a := unknown(joinery.Peer{ID: 1}, 1, 1), joinery.Attempt{Act: "requestExport"}
	if n := testing.AllocsPerRun(3*maxPending, func() { r.Record(&x); r.Attempt(&a) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if len(r.refusals.waiting) != maxPending || r.stats.hurried.Load() == 0 {
		t.Errorf("%d wait, %d were too many", len(r.refusals.waiting), r.stats.hurried.Load())
	}
	if len(r.attempts.waiting) != maxPending || r.stats.attemptsHurried.Load() == 0 {
		t.Errorf("%d attempts wait, %d were too many", len(r.attempts.waiting), r.stats.attemptsHurried.Load())
	}
}

func attacks() int {
	if os.Getenv("JOINERY_LONG") != "" {
		return 1_000_000
	}
	return 50_000
}

// Peers that ask for whatever they can think of: memory and database stay within
// their bounds, what is not kept is counted, and what concerns an honest device
// is not lost in the crowd.
func TestAttackStaysWithinBounds(t *testing.T) {
	n := attacks()
	f := newFixture(t, 300)
	evil := []joinery.Peer{f.addPeer("evil 1", f.maker), f.addPeer("evil 2", f.maker)}
	honest := about(f.peer, f.devices[7], joinery.RefusedDevNonceLow, 1)
	f.Record(&honest)
	before := heap()
	started := time.Now()
	var most int
	for i := range n {
		peer := evil[i/8%len(evil)]
		x := unknown(peer, i, i)
		switch i % 8 {
		case 0: // a device that is here
			x = about(peer, f.devices[i/8%len(f.devices)], joinery.RefusedOtherNetwork, i)
		case 1:
			x.Reason, x.Received.JoinEUI = joinery.RefusedJoinEUI, lorawan.EUI64FromUint64(uint64(i))
		case 2:
			x.Reason, x.Received.Problem = joinery.RefusedMalformed, "PHYPayload: want hexadecimal digits"
		}
		f.Record(&x)
		if i%1000 == 0 { // as fast as a server would be at it
			time.Sleep(2 * time.Millisecond)
			f.refusals.mu.Lock()
			most = max(most, len(f.refusals.waiting))
			f.refusals.mu.Unlock()
		}
	}
	took := time.Since(started)
	f.Sync(t.Context())
	grown := int64(heap()) - int64(before)
	f.Close()

	s := f.Stats()
	var recorded uint64
	for _, count := range s.Recorded {
		recorded += count
	}
	if recorded+s.Hurried != uint64(n)+1 {
		t.Errorf("%d of %d refusals are counted, and %d were too many", recorded, n+1, s.Hurried)
	}
	var stored uint64
	for _, peer := range evil {
		of, err := f.db.PeerRefusals(t.Context(), peer.ID, 1000)
		ok(t, err)
		for _, total := range of.Totals {
			stored += total.Count
		}
		if len(of.Unknown) != joinery.MaxUnknownDevices || len(of.Totals) != 4 || len(of.Devices) > len(f.devices) {
			t.Errorf("peer %s has %d unknown devices, %d totals, %d rows of devices", peer.Name, len(of.Unknown), len(of.Totals), len(of.Devices))
		}
	}
	if stored != recorded-1 {
		t.Errorf("totals say %d, want %d", stored, recorded-1)
	}
	got, err := f.db.DeviceRefusals(t.Context(), honest.Device)
	ok(t, err)
	if i := len(got) - 1; got[i].Reason != joinery.RefusedDevNonceLow || got[i].Count != 1 || got[i].Peer != f.peer.ID {
		t.Errorf("the honest device's refusal: %+v", got)
	}
	if most > maxPending {
		t.Errorf("%d waited, want at most %d", most, maxPending)
	}
	// What can wait, with room for the runtime's own.
	if limit := int64(16 << 20); grown > limit {
		t.Errorf("memory grew by %d bytes, want at most %d", grown, limit)
	}
	t.Logf("%d refusals in %v: %d not counted, %d not kept for their device; memory %+d KiB", n, took.Round(time.Millisecond), s.Hurried, s.Crowded, grown>>10)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// While nothing is written, what waits stays within its bounds.
func TestTallyIsBounded(t *testing.T) {
	counts := newTally()
	for i := range 100_000 {
		peer := joinery.Peer{ID: joinery.PeerID(1 + i%200)}
		x := unknown(peer, i, i)
		if i%2 == 0 {
			x.Device, x.Owner = joinery.DeviceID(1+i), 5
			x.Reason = joinery.RefusedMIC
		}
		counts.add(&x)
	}
	if counts.devices.len() != maxDevices || counts.unknown.len() > maxUnknown || counts.totals.len() != 200 {
		t.Errorf("%d devices, %d unknown, %d totals", counts.devices.len(), counts.unknown.len(), counts.totals.len())
	}
	one := newTally()
	for i := range 5_000 {
		x := unknown(joinery.Peer{ID: 1}, i, i)
		one.add(&x)
		x.Reason = joinery.RefusedMalformed
		one.add(&x)
		x.Device = joinery.DeviceID(1 + i)
		one.add(&x)
	}
	if one.unknown.len() != joinery.MaxUnknownDevices || one.devices.len() != maxOfPeer {
		t.Errorf("one peer: %d unknown, %d devices", one.unknown.len(), one.devices.len())
	}
	newest := rowKey{peer: 1, joinEUI: joinEUI, devEUI: lorawan.EUI64FromUint64(0xFF<<56 + 4_999)}
	if one.unknown.rows[newest] == nil {
		t.Error("the newest unknown device is not kept")
	}
	// All of it comes out, in batches of the size asked for, and nothing waits for
	// the last of them.
	rows := 0
	if b := one.take(maxBatch); len(b.Peers) != 2 || len(b.Unknown) < 10 || len(b.Devices) < 32 {
		t.Errorf("the first batch has %d totals, %d unknown, %d of devices", len(b.Peers), len(b.Unknown), len(b.Devices))
	} else {
		rows += maxBatch
	}
	for one.len() > 0 {
		b := one.take(maxBatch)
		n := len(b.Devices) + len(b.Unknown) + len(b.Peers)
		if n == 0 || n > maxBatch {
			t.Fatalf("a batch of %d", n)
		}
		rows += n
	}
	if want := joinery.MaxUnknownDevices + maxOfPeer + maxNames + 2; rows != want {
		t.Errorf("%d rows came out, want %d", rows, want)
	}
	for _, kind := range []ofPeers{one.totals, one.devices, one.named, one.unknown} {
		if len(kind.of)+len(kind.turns) != 0 {
			t.Errorf("%d peers are left, %d of them have turns", len(kind.of), len(kind.turns))
		}
	}
}

// Peers that ask about all that they can think of leave room for what another
// peer was refused, and do not make it wait.
func TestPeersDoNotCrowdOutOthers(t *testing.T) {
	for name, change := range map[string]func(x *joinery.Refusal, n int){
		"devices that nobody looked up": func(x *joinery.Refusal, _ int) { x.Reason = joinery.RefusedOptNeg },
		"devices that are here":         func(x *joinery.Refusal, n int) { x.Device, x.Reason = joinery.DeviceID(1+n), joinery.RefusedMIC },
		"devices that are not here":     func(*joinery.Refusal, int) {},
	} {
		counts := newTally()
		refuse := func(peer joinery.PeerID, from, to int) {
			for n := from; n < to; n++ {
				x := unknown(joinery.Peer{ID: peer}, n, n)
				change(&x, n)
				counts.add(&x)
			}
		}
		const evil, honest, many = 20, 99, 10
		flood := func() {
			for n := range 2_000 {
				for peer := range joinery.PeerID(evil) {
					refuse(1+peer, n, n+1)
				}
			}
		}
		flood()
		refuse(honest, 0, many)
		flood()
		var taken joinery.RefusalBatch
		for range maxTick / maxBatch {
			b := counts.take(maxBatch)
			taken.Devices, taken.Unknown = append(taken.Devices, b.Devices...), append(taken.Unknown, b.Unknown...)
		}
		found := 0
		for _, c := range append(taken.Devices, taken.Unknown...) {
			if c.Peer == honest {
				found++
			}
		}
		if found != many {
			t.Errorf("%s: %d of %d rows came out within a second", name, found, many)
		}
		// What could not be written finds its room again.
		flood()
		counts.giveBack(taken)
		if got := len(counts.devices.of[honest]) + len(counts.named.of[honest]) + len(counts.unknown.of[honest]); got != many {
			t.Errorf("%s: %d of %d rows are kept after a batch was given back", name, got, many)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	for name, x := range map[string]joinery.Refusal{
		"known":   about(joinery.Peer{ID: 1}, joinery.ActivationState{Device: joinery.Device{ID: 2}}, joinery.RefusedOtherNetwork, 1),
		"unknown": unknown(joinery.Peer{ID: 1}, 1, 1),
	} {
		b.Run(name, func(b *testing.B) {
			r := &Recorder{full: make(chan struct{}, 1)}
			r.refusals.waiting = make([]joinery.Refusal, 0, maxPending)
			b.ReportAllocs()
			for b.Loop() {
				if r.Record(&x); len(r.refusals.waiting) == maxPending {
					r.refusals.waiting = r.refusals.waiting[:0]
				}
			}
		})
	}
}

// The file does not grow with what is refused.
func TestDatabaseDoesNotGrow(t *testing.T) {
	f := newFixture(t, 5)
	attack := func(from int) int64 {
		t.Helper()
		for i := from; i < from+1_000; i++ {
			x := unknown(f.peer, i, i)
			if i%4 == 0 {
				x = about(f.peer, f.devices[i/4%len(f.devices)], joinery.RefusalReasons[i%len(joinery.RefusalReasons)], i)
			}
			f.Record(&x)
			if i%250 == 249 {
				f.Sync(t.Context())
			}
		}
		pages, err := f.db.DeviceRefusals(t.Context(), f.devices[0].Device.ID)
		ok(t, err)
		if len(pages) > joinery.MaxDeviceRefusals {
			t.Errorf("%d rows of one device", len(pages))
		}
		return rowsOf(t, f)
	}
	first := attack(0)
	second := attack(1_000)
	if second > first+first/10+50 {
		t.Errorf("%d rows after one attack, %d after two", first, second)
	}
}

// rowsOf counts all rows of refusals.
func rowsOf(t *testing.T, f *fixture) (n int64) {
	t.Helper()
	of, err := f.db.PeerRefusals(t.Context(), f.peer.ID, 1000)
	ok(t, err)
	n = int64(len(of.Totals) + len(of.Unknown))
	for _, d := range f.devices {
		list, err := f.db.DeviceRefusals(t.Context(), d.Device.ID)
		ok(t, err)
		n += int64(len(list))
	}
	return n
}
