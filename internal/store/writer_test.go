package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store/storetest"
	"joinery/lorawan"
)

var (
	testJoinEUI = lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 1}
	testTime    = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
)

func testDevEUI(n int) lorawan.EUI64 { return lorawan.EUI64FromUint64(0x0004A30B_00000000 + uint64(n)) }

// withDevices opens a database of n devices.
func withDevices(t testing.TB, o Options, n int) (*DB, []joinery.ActivationState) {
	t.Helper()
	d := mustOpen(t, o)
	org := joinery.NewOrgID()
	a := joinery.AuditEntry{At: testTime, Event: joinery.AuditOrgAdded, Actor: "test"}
	r := joinery.JoinEUIRange{EUIRange: joinery.EUIRange{First: testJoinEUI, Last: testJoinEUI}, Org: org}
	err := firstError(d.AddOrg(t.Context(), joinery.Organisation{ID: org, Name: "maker", CreatedAt: testTime}, a), d.AssignRange(t.Context(), r, a))
	if err != nil {
		t.Fatal(err)
	}
	i, err := d.BeginImport(t.Context(), joinery.Import{Org: org, Kind: joinery.ImportManifest, SHA256: sha256.Sum256([]byte("file")), CreatedAt: testTime})
	if err != nil {
		t.Fatal(err)
	}
	rows := joinery.ImportRows{Import: i.ID, Count: uint64(n), Last: true}
	for k := range n {
		rows.Devices = append(rows.Devices, testDevice(k))
	}
	if _, err := d.CommitRows(t.Context(), rows, a); err != nil {
		t.Fatal(err)
	}
	states := make([]joinery.ActivationState, n)
	for k := range states {
		states[k] = reload(t, d, k)
	}
	return d, states
}

func testDevice(n int) joinery.NewDevice {
	id := joinery.NewDeviceID()
	return joinery.NewDevice{
		Index: uint64(n), Line: uint64(n) + 1,
		Device: joinery.Device{ID: id, JoinEUI: testJoinEUI, DevEUI: testDevEUI(n), MACVersion: lorawan.MAC1_0_4, CreatedAt: testTime},
		KeySet: joinery.KeySet{ID: joinery.NewKeySetID(), DeviceID: id, DevEUI: testDevEUI(n), Origin: joinery.OriginDerived, Master: "m", Root10: joinery.NwkKey},
	}
}

func reload(t testing.TB, d *DB, n int) joinery.ActivationState {
	t.Helper()
	s, err := d.LoadActivation(t.Context(), testJoinEUI, testDevEUI(n))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func clean(t testing.TB, d *DB) {
	t.Helper()
	found, err := d.Fsck(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		t.Errorf("fsck: %s", v)
	}
}

// hold keeps the writer busy until the function that it gives is called, so
// that what is asked for meanwhile waits.
func hold(t testing.TB, d *DB) (release func()) {
	t.Helper()
	entered, leave := make(chan struct{}), make(chan struct{})
	go func() {
		_ = d.do(context.Background(), func(*tx) error { close(entered); <-leave; return nil })
	}()
	<-entered
	return sync.OnceFunc(func() { close(leave) })
}

// commitTogether sees to it that all commits wait before the writer takes any.
func commitTogether(t testing.TB, d *DB, commits []joinery.ActivationCommit) []error {
	t.Helper()
	release := hold(t, d)
	defer release()
	errs := make([]error, len(commits))
	var wg sync.WaitGroup
	for i, c := range commits {
		wg.Go(func() { errs[i] = d.CommitActivation(context.Background(), c) })
	}
	for waits := 0; waits < len(commits); time.Sleep(time.Millisecond) {
		inFile(d).w.mu.Lock()
		waits = len(inFile(d).w.joins)
		inFile(d).w.mu.Unlock()
	}
	release()
	wg.Wait()
	return errs
}

func commitsOf(states []joinery.ActivationState) (commits []joinery.ActivationCommit) {
	for _, s := range states {
		commits = append(commits, storetest.NextCommit(s))
	}
	return commits
}

// A batch that holds a row which cannot be written is tried again one by one.
func TestFailingBatch(t *testing.T) {
	d, states := withDevices(t, newOptions(t), 8)
	taken := storetest.NextCommit(states[7])
	if err := d.CommitActivation(t.Context(), taken); err != nil {
		t.Fatal(err)
	}
	commits := commitsOf(states[:7])
	commits[3].Activation.ID, commits[3].Nonces.Recent[0].ID = taken.Activation.ID, taken.Activation.ID
	transactions := countCommits(d)
	for i, err := range commitTogether(t, d, commits) {
		if (err != nil) != (i == 3) || errors.Is(err, ErrSwapLost) {
			t.Errorf("commit %d: %v", i, err)
		}
		if got, want := reload(t, d, i).KeySet.Version-states[i].KeySet.Version, uint64(1); (got == want) != (i != 3) {
			t.Errorf("key set %d moved by %d", i, got)
		}
	}
	if n := *transactions; n != 1+6 { // the holder's, then one for each that can be written
		t.Errorf("%d transactions", n)
	}
	clean(t, d)
}

// countCommits counts the transactions of d; read it when the writer is idle.
func countCommits(d *DB) *int {
	n := new(int)
	inFile(d).w.commitFault = func(commit func() error) error { *n++; return commit() }
	return n
}

func TestOneTransactionForAll(t *testing.T) {
	d, states := withDevices(t, newOptions(t), 50)
	transactions := countCommits(d)
	for i, err := range commitTogether(t, d, commitsOf(states)) {
		if err != nil {
			t.Errorf("commit %d: %v", i, err)
		}
	}
	if *transactions != 2 { // the holder's, and one for all
		t.Errorf("%d transactions for 50 joins that waited", *transactions)
	}
	clean(t, d)
}

// After a COMMIT that reports an error the activations are looked for: whoever
// is there was committed, in whichever way the report was wrong.
func TestUnknownCommit(t *testing.T) {
	broken := errors.New("disk says no")
	for _, c := range []struct {
		name      string
		fault     func(call int, commit func() error) error
		committed bool
	}{
		{"persisted", func(_ int, commit func() error) error { return firstError(commit(), broken) }, true},
		{"not persisted, works again", func(call int, commit func() error) error {
			if call == 1 {
				return broken
			}
			return commit()
		}, true},
		{"never persisted", func(int, func() error) error { return broken }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, states := withDevices(t, newOptions(t), 9)
			stale := storetest.NextCommit(states[8])
			if err := d.CommitActivation(t.Context(), storetest.NextCommit(states[8])); err != nil {
				t.Fatal(err)
			}
			release := hold(t, d)
			calls := 0
			inFile(d).w.commitFault = func(commit func() error) error {
				if calls++; calls == 1 { // the holder's own
					return commit()
				}
				return c.fault(calls-1, commit)
			}
			commits := append(commitsOf(states[:8]), stale)
			errs := make([]error, len(commits))
			var wg sync.WaitGroup
			for i := range commits {
				wg.Go(func() { errs[i] = d.CommitActivation(context.Background(), commits[i]) })
			}
			for waits := 0; waits < len(commits); time.Sleep(time.Millisecond) {
				inFile(d).w.mu.Lock()
				waits = len(inFile(d).w.joins)
				inFile(d).w.mu.Unlock()
			}
			release()
			wg.Wait()
			for i, err := range errs[:8] {
				if (err == nil) != c.committed {
					t.Errorf("commit %d: %v", i, err)
				}
				_, err = d.Activation(t.Context(), commits[i].Activation.ID)
				if (err == nil) != c.committed {
					t.Errorf("activation %d: %v", i, err)
				}
			}
			if errs[8] == nil {
				t.Error("a stale commit was acknowledged")
			}
			inFile(d).w.mu.Lock() // the writer is idle: nothing waits
			inFile(d).w.commitFault = nil
			inFile(d).w.mu.Unlock()
			clean(t, d)
		})
	}
}

// SQLite ends a transaction by itself when the disk is full. What would come
// after in the same change must not be written alone.
func TestFullDiskLeavesNoHalf(t *testing.T) {
	d := mustOpen(t, newOptions(t))
	a := joinery.AuditEntry{At: testTime, Event: joinery.AuditPeerChanged, Actor: "test"}
	p := joinery.Peer{ID: joinery.NewPeerID(), Name: "ns", NetIDs: []lorawan.NetID{{0, 0, 1}}, CreatedAt: testTime}
	if err := d.AddPeer(t.Context(), p, nil, a); err != nil {
		t.Fatal(err)
	}
	look := func() string {
		peers, err := d.Peers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		entries, err := d.AuditEntries(t.Context(), 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%+v, %d entries", peers, len(entries))
	}
	before := look()
	release := hold(t, d)
	pages, err := inFile(d).w.c.pragmaInt("page_count")
	if err == nil {
		err = inFile(d).w.c.pragma(fmt.Sprintf("max_page_count = %d", pages))
	}
	release()
	if err != nil {
		t.Fatal(err)
	}
	p.Name = "changed"
	p.Credentials = []joinery.Credential{{Kind: joinery.CredentialCA, CA: make([]byte, 60_000)}}
	if err := d.ChangePeer(t.Context(), p, a); joinery.CodeOf(err) != joinery.CodeUnavailable {
		t.Errorf("got %v, want %s", err, joinery.CodeUnavailable)
	}
	if after := look(); after != before {
		t.Errorf("before: %s\nafter:  %s", before, after)
	}
	clean(t, d)
}

// Nothing is written in the name of a transaction that has ended.
func TestEndedTransactionWritesNothing(t *testing.T) {
	d := mustOpen(t, newOptions(t))
	entry := joinery.AuditEntry{At: testTime, Event: joinery.AuditOrgAdded, Actor: "test"}
	var inside error
	err := d.do(t.Context(), func(t *tx) error {
		if err := firstError(t.audit(entry), inFile(d).w.rollback()); err != nil {
			return err
		}
		inside = t.audit(entry)
		return nil
	})
	if err == nil || !errors.Is(inside, errNoTransaction) {
		t.Errorf("got %v inside, %v at the end", inside, err)
	}
	if entries, err := d.AuditEntries(t.Context(), 0, 10); err != nil || len(entries) != 0 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}

// waitsFor waits until n calls stand in the writer's queues.
func waitsFor(d *DB, n int) {
	for waits := -1; waits != n; time.Sleep(time.Millisecond) {
		inFile(d).w.mu.Lock()
		waits = len(inFile(d).w.joins) + len(inFile(d).w.others)
		inFile(d).w.mu.Unlock()
	}
}

// The queues hold only who still waits, and so many at most.
func TestQueuesAreBounded(t *testing.T) {
	d, states := withDevices(t, newOptions(t), 1)
	release := hold(t, d)
	defer release()
	commit := storetest.NextCommit(states[0])
	suspend := func(ctx context.Context) error {
		return d.SetSuspended(ctx, states[0].Device.ID, states[0].Device.Ownership.Org, true, joinery.AuditEntry{At: testTime})
	}
	for name, call := range map[string]func(context.Context) error{
		"joins":  func(ctx context.Context) error { return d.CommitActivation(ctx, commit) },
		"others": suspend,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for range maxWaiting {
				wg.Go(func() { _ = call(ctx) })
			}
			waitsFor(d, maxWaiting)
			if err := call(t.Context()); joinery.CodeOf(err) != joinery.CodeUnavailable {
				t.Errorf("one more: got %v, want %s", err, joinery.CodeUnavailable)
			}
			cancel()
			wg.Wait()
			waitsFor(d, 0)
		})
	}
	release()
	if err := d.CommitActivation(t.Context(), commit); err != nil {
		t.Errorf("after all withdrew: %v", err)
	}
}

// A caller that gives up while it waits leaves nothing behind.
func TestWithdrawn(t *testing.T) {
	d, states := withDevices(t, newOptions(t), 2)
	release := hold(t, d)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, 2)
	go func() { results <- d.CommitActivation(ctx, storetest.NextCommit(states[0])) }()
	go func() {
		results <- d.SetSuspended(ctx, states[1].Device.ID, states[1].Device.Ownership.Org, true, joinery.AuditEntry{At: testTime})
	}()
	waitsFor(d, 2)
	cancel()
	for range 2 {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
	}
	release()
	if err := d.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	for n, s := range states {
		if now := reload(t, d, n); now.KeySet.Version != s.KeySet.Version || now.Device.Suspended {
			t.Errorf("device %d was written after its caller left", n)
		}
	}
	clean(t, d)
}

// What waits when the database closes is refused, and told so.
func TestCloseRefusesWhatWaits(t *testing.T) {
	d, states := withDevices(t, newOptions(t), 1)
	release := hold(t, d)
	results := make(chan error, 2)
	go func() { results <- d.CommitActivation(context.Background(), storetest.NextCommit(states[0])) }()
	go func() {
		results <- d.SetSuspended(context.Background(), states[0].Device.ID, states[0].Device.Ownership.Org, true, joinery.AuditEntry{At: testTime})
	}()
	waitsFor(d, 2)
	closed := make(chan error)
	go func() { closed <- d.Close() }()
	<-inFile(d).closed
	for shut := false; !shut; time.Sleep(time.Millisecond) {
		inFile(d).w.mu.Lock()
		shut = inFile(d).w.closed
		inFile(d).w.mu.Unlock()
	}
	release()
	for range 2 {
		if err := <-results; !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
}

// Between two batches of joins runs at most one other transaction.
func TestJoinsGoFirst(t *testing.T) {
	d, states := withDevices(t, newOptions(t), 1)
	release := hold(t, d)
	defer release()
	var mu sync.Mutex
	var order []string
	note := func(what string) { mu.Lock(); order = append(order, what); mu.Unlock() }
	var wg sync.WaitGroup
	waitFor := func(n int) {
		for waits := 0; waits < n; time.Sleep(time.Millisecond) {
			inFile(d).w.mu.Lock()
			waits = len(inFile(d).w.joins) + len(inFile(d).w.others)
			inFile(d).w.mu.Unlock()
		}
	}
	for i := range 3 {
		wg.Go(func() {
			_ = d.do(context.Background(), func(*tx) error { note("other"); return nil })
		})
		waitFor(i + 1)
	}
	// Three joins of one key set, each made from the state after the one before.
	s := states[0]
	for i := range 3 {
		c := storetest.NextCommit(s)
		s.KeySet.Version, s.KeySet.Nonces = s.KeySet.Version+1, c.Nonces
		wg.Go(func() {
			if err := d.CommitActivation(context.Background(), c); err != nil {
				t.Error(err)
			}
		})
		waitFor(4 + i)
	}
	joins := 0
	inFile(d).w.commitFault = func(commit func() error) error {
		if n := reloadOn(conn{inFile(d).w.c}); n > joins {
			joins = n
			note("join")
		}
		return commit()
	}
	release()
	wg.Wait()
	if got, want := fmt.Sprint(order), "[join other join other join other]"; got != want {
		t.Errorf("order %s, want %s", got, want)
	}
	clean(t, d)
}

// reloadOn counts the activations that the writer's transaction sees.
func reloadOn(c conn) int {
	n, err := c.integer("SELECT count(*) FROM activation")
	if err != nil {
		return -1
	}
	return int(n)
}

// P5 in small: a full disk refuses, writes nothing of what it refused, and goes
// on when there is room again.
func TestDiskFull(t *testing.T) {
	d, states := withDevices(t, newOptions(t), 4)
	release := hold(t, d)
	pages, err := inFile(d).w.c.pragmaInt("page_count")
	if err == nil {
		err = inFile(d).w.c.pragma(fmt.Sprintf("max_page_count = %d", pages+1))
	}
	release()
	if err != nil {
		t.Fatal(err)
	}
	acknowledged := 0
	for range 200 {
		s := reload(t, d, 0)
		err := d.CommitActivation(t.Context(), storetest.NextCommit(s))
		if err != nil {
			if joinery.CodeOf(err) != joinery.CodeUnavailable {
				t.Fatalf("got %v, want %s", err, joinery.CodeUnavailable)
			}
			break
		}
		acknowledged++
	}
	if acknowledged == 0 || acknowledged == 200 {
		t.Fatalf("%d joins before the disk was full", acknowledged)
	}
	for i, err := range commitTogether(t, d, commitsOf(states[1:])) {
		if joinery.CodeOf(err) != joinery.CodeUnavailable {
			t.Errorf("commit %d: %v", i, err)
		}
	}
	if n := reload(t, d, 0).KeySet.Nonces.JoinNonce; int(n) != acknowledged {
		t.Errorf("JoinNonce %d after %d acknowledged joins", n, acknowledged)
	}
	clean(t, d)
	release = hold(t, d)
	err = inFile(d).w.c.pragma("max_page_count = 1000000")
	release()
	if err != nil {
		t.Fatal(err)
	}
	for i, err := range commitTogether(t, d, commitsOf(states[1:])) {
		if err != nil {
			t.Errorf("commit %d with room again: %v", i, err)
		}
	}
	clean(t, d)
}

func TestTakeBatch(t *testing.T) {
	waits := func(key joinery.KeySetID, version uint64) *joinCommit {
		return &joinCommit{keySet: key, version: version}
	}
	batch, rest := takeBatch([]*joinCommit{waits(9, 1), waits(2, 1), waits(9, 2), waits(5, 1), waits(2, 2), waits(9, 3)})
	show := func(queue []*joinCommit) (s string) {
		for _, j := range queue {
			s += fmt.Sprintf("%d.%d ", j.keySet, j.version)
		}
		return s
	}
	if show(batch) != "2.1 5.1 9.1 " || show(rest) != "9.2 2.2 9.3 " {
		t.Fatalf("batch %s rest %s", show(batch), show(rest))
	}
	var many []*joinCommit
	for n := range maxBatch + 3 {
		many = append(many, waits(joinery.KeySetID(n+1), 1))
	}
	if batch, rest = takeBatch(many); len(batch) != maxBatch || len(rest) != 3 {
		t.Fatalf("%d and %d", len(batch), len(rest))
	}
}
