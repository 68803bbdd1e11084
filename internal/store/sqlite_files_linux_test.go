package store

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"joinery/internal/store/storetest"
)

// TestBatchIsSyncedAside: a batch of joins, and the copying of the log, let others
// work while they are synced, and what is said of that sync is believed at once and
// for good. A join that is alone waits as SQLite does.
func TestBatchIsSyncedAside(t *testing.T) {
	o := newOptions(t)
	o.UnsafeNoSync = false
	d, states := withDevices(t, o, 8)
	var synced []int
	var fails error
	really := syncData
	syncData = func(fd int) error {
		synced = append(synced, fd)
		return errors.Join(really(fd), fails)
	}
	t.Cleanup(func() {
		_ = d.Close()
		syncData = really
	})
	if err := d.CommitActivation(t.Context(), storetest.NextCommit(states[0])); err != nil || len(synced) != 0 {
		t.Fatalf("one join: %v, synced %v", err, synced)
	}
	for i, err := range commitTogether(t, d, commitsOf(states[1:])) {
		if err != nil {
			t.Errorf("join %d: %v", i, err)
		}
	}
	if len(synced) != 1 {
		t.Errorf("a batch of seven synced %v", synced)
	}
	log := synced[0]
	CopyLogBackAt(t, d, 1)
	hold(t, d)()
	synced = nil
	if err := d.CommitActivation(t.Context(), storetest.NextCommit(reload(t, d, 0))); err != nil {
		t.Fatal(err)
	}
	hold(t, d)() // the join is answered before the log is copied
	if len(synced) != 2 || synced[0] != log || synced[1] == log {
		t.Errorf("copying the log back synced %v, want the log, %d, and the database", synced, log)
	}
	clean(t, d)

	synced, fails = nil, unix.EIO
	for n := range states {
		states[n] = reload(t, d, n)
	}
	for i, err := range commitTogether(t, d, commitsOf(states)) {
		if !errors.Is(err, ErrUnsynced) {
			t.Errorf("join %d of a batch that was not synced: %v", i, err)
		}
	}
	if len(synced) != 1 {
		t.Errorf("a sync that failed: %v", synced)
	}
	refusesAll(t, d)
}
