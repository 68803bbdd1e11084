package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"joinery"
	"joinery/internal/store/storetest"
)

// told is what a run of the workload was told by the store.
type told struct {
	joins map[joinery.ActivationID]string // "acknowledged", or "refused"
	order []joinery.ActivationID
	// suspended is the last acknowledged state of device 0, maybe what was asked
	// for after it without an acknowledgement.
	suspended, maybe bool
}

const diskDevices = 3

// workload joins and changes devices, so that the log is copied back more than
// once on the way, and goes on after errors as callers do.
func workload(t *testing.T, d *DB) told {
	t.Helper()
	w := told{joins: map[joinery.ActivationID]string{}}
	for n := range 12 {
		s, err := d.LoadActivation(t.Context(), testJoinEUI, testDevEUI(n%diskDevices))
		if err != nil {
			t.Fatalf("what was acknowledged cannot be read any more: %v", err)
		}
		c := storetest.NextCommit(s)
		w.order = append(w.order, c.Activation.ID)
		if err := d.CommitActivation(t.Context(), c); err == nil {
			w.joins[c.Activation.ID] = "acknowledged"
		} else {
			w.joins[c.Activation.ID] = "refused"
			if joinery.CodeOf(err) != joinery.CodeUnavailable {
				t.Errorf("join %d: got %v, want %s", n, err, joinery.CodeUnavailable)
			}
		}
		if n%4 == 3 {
			w.maybe = !w.suspended
			o := s.Device.Ownership.Org
			if s, err = d.LoadActivation(t.Context(), testJoinEUI, testDevEUI(0)); err == nil {
				err = d.SetSuspended(t.Context(), s.Device.ID, o, w.maybe, joinery.AuditEntry{At: testTime, Event: joinery.AuditDeviceSuspended, Actor: "test"})
			}
			if err == nil {
				w.suspended = w.maybe
			}
		}
	}
	return w
}

// check opens what is left in files and compares it with what was told.
func (w told) check(t *testing.T, what string, files map[string][]byte) {
	t.Helper()
	d, err := Open(t.Context(), Options{Path: filepath.Join(put(t, files), "joinery.db"), UnsafeNoSync: true})
	if err != nil {
		t.Errorf("%s: it does not open: %v", what, err)
		return
	}
	defer func() { _ = d.Close() }()
	found, err := d.Fsck(t.Context(), nil)
	if err != nil || len(found) > 0 {
		t.Errorf("%s: fsck: %v %v", what, err, found)
	}
	for n, id := range w.order {
		_, err := d.Activation(t.Context(), id)
		if w.joins[id] == "acknowledged" && err != nil {
			t.Errorf("%s: acknowledged join %d is lost: %v", what, n, err)
		}
	}
	s := reload(t, d, 0)
	if s.Device.Suspended != w.suspended && s.Device.Suspended != w.maybe {
		t.Errorf("%s: the acknowledged change of device 0 is lost", what)
	}
}

// onDisk opens a copy of a database with a disk under it and a log that is
// copied back all the time.
func onDisk(t *testing.T, base map[string][]byte) (*DB, *disk) {
	t.Helper()
	dir := put(t, base)
	k := newDisk(t, dir)
	d, err := Open(t.Context(), Options{Path: filepath.Join(dir, "joinery.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	confirm(t, d)
	CopyLogBackAt(t, d, 20)
	return d, k
}

// confirm says of a copy that it counts.
func confirm(t *testing.T, d *DB) {
	t.Helper()
	if _, err := d.ConfirmFence(t.Context(), Confirmation{Jump: 1, Earlier: new(0)}); err != nil {
		t.Fatal(err)
	}
}

// CopyLogBackAt makes d copy its log back when it has grown by so many pages.
func CopyLogBackAt(t testing.TB, d *DB, pages int64) {
	t.Helper()
	release := hold(t, d)
	inFile(d).w.checkpointAt = pages
	release()
	for range 2 { // after the first the log may be copied back, after the second not
		if err := d.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// diskBase is the files of a database of some devices.
func diskBase(t *testing.T) map[string][]byte {
	t.Helper()
	o := newOptions(t)
	d, _ := withDevices(t, o, diskDevices)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return filesOf(t, filepath.Dir(o.Path))
}

// P4 below the store: every write, truncation and fsync of a run fails, once
// with its effect and once without. Nothing that was acknowledged is lost,
// neither to a killed process nor to a power cut; nothing is there in half.
func TestEveryDiskStepFails(t *testing.T) {
	if testing.Short() {
		t.Skip("long under the race detector; it runs without, too")
	}
	base := diskBase(t)
	d, k := onDisk(t, base)
	k.failNext(-1, false)
	whole := workload(t, d)
	steps := k.steps
	whole.check(t, "without a fault, killed", filesOf(t, k.dir))
	whole.check(t, "without a fault, power cut", k.afterPowerCut())
	t.Logf("%d steps: %s", len(steps), tally(steps))
	long := os.Getenv("JOINERY_LONG") != ""
	for n := range steps {
		if write := strings.HasPrefix(steps[n], "write"); write && !long && n%4 != 0 {
			continue // the short form leaves out writes, and nothing else
		}
		for _, keeps := range []bool{false, true} {
			d, k := onDisk(t, base)
			k.failNext(n, keeps)
			w := workload(t, d)
			if n >= len(k.steps) {
				t.Logf("step %d: this run had %d steps only", n, len(k.steps))
				_ = d.Close()
				continue
			}
			failing := k.steps[n] // this run's: what shares a batch is not always the same
			what := failing + " fails without effect"
			if keeps {
				what = failing + " fails after it took effect"
			}
			w.check(t, what+", killed", filesOf(t, k.dir))
			w.check(t, what+", power cut", k.afterPowerCut())
			if t.Failed() {
				t.Fatalf("step %d: %s", n, what)
			}
			failed := isClosed(d.Failed())
			if sync := strings.HasPrefix(failing, "sync"); failed != sync {
				t.Fatalf("%s: Failed is %t", what, failed)
			}
			if failed {
				refusesAll(t, d)
			}
			_ = d.Close()
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// refusesAll: a database that failed to sync takes nothing more, says so, and
// still reads.
func refusesAll(t *testing.T, d *DB) {
	t.Helper()
	if err := d.Failure(); !errors.Is(err, ErrUnsynced) || joinery.CodeOf(err) != joinery.CodeUnavailable {
		t.Errorf("Failure: %v", err)
	}
	if err := d.Ping(t.Context()); !errors.Is(err, ErrUnsynced) {
		t.Errorf("Ping: %v", err)
	}
	s := reload(t, d, 0)
	if err := d.CommitActivation(t.Context(), storetest.NextCommit(s)); !errors.Is(err, ErrUnsynced) {
		t.Errorf("a join: %v", err)
	}
}

// What waited behind a failed fsync is refused, and nothing is tried again one
// by one.
func TestFailedSyncRefusesWhatWaits(t *testing.T) {
	d, k := onDisk(t, diskBase(t))
	var commits []joinery.ActivationCommit
	for n := range diskDevices {
		commits = append(commits, storetest.NextCommit(reload(t, d, n)))
	}
	syncs := func() (n int) {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, s := range k.steps {
			if s == "sync joinery.db-wal" {
				n++
			}
		}
		return n
	}
	// The holder's transaction is empty and writes nothing: the first sync is
	// that of the batch.
	k.mu.Lock()
	k.steps, k.failAt = nil, -1
	k.mu.Unlock()
	k.failSync("joinery.db-wal")
	for i, err := range commitTogether(t, d, commits) {
		if !errors.Is(err, ErrUnsynced) {
			t.Errorf("join %d of the batch: %v", i, err)
		}
	}
	if n := syncs(); n != 1 {
		t.Errorf("the log was synced %d times", n)
	}
	refusesAll(t, d)
}

// The next process may not trust what it reads either: the kernel holds pages
// that are not on disk and calls them clean. Opening writes the log out anew.
func TestOpenAfterFailedSync(t *testing.T) {
	base := diskBase(t)
	d, k := onDisk(t, base)
	first := storetest.NextCommit(reload(t, d, 0))
	if err := d.CommitActivation(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	k.failSync("joinery.db-wal")
	unsynced := storetest.NextCommit(reload(t, d, 1))
	if err := d.CommitActivation(t.Context(), unsynced); !errors.Is(err, ErrUnsynced) {
		t.Fatalf("got %v", err)
	}
	// The process dies; the next one finds the files as the kernel shows them,
	// over a disk that lacks some of it.
	next := put(t, filesOf(t, k.dir))
	k2 := newDisk(t, next)
	k2.synced = k.afterPowerCut()
	d2, err := Open(t.Context(), Options{Path: filepath.Join(next, "joinery.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d2.Close() }()
	confirm(t, d2)
	w := told{joins: map[joinery.ActivationID]string{}}
	for n := range diskDevices {
		c := storetest.NextCommit(reload(t, d2, n))
		if err := d2.CommitActivation(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		w.order, w.joins[c.Activation.ID] = append(w.order, c.Activation.ID), "acknowledged"
	}
	w.order, w.joins[first.Activation.ID] = append(w.order, first.Activation.ID), "acknowledged"
	w.check(t, "power cut after the restart", k2.afterPowerCut())
}

// failSync makes the next sync of a file fail without effect.
func (d *disk) failSync(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failName = "sync " + name
}
