package store

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store/storetest"
)

// A load after a commit that was acknowledged sees it, whatever snapshots the
// readers hold.
func TestLoadSeesWhatWasAcknowledged(t *testing.T) {
	d, states := withDevices(t, newOptions(t), 2)
	for range 3 { // generations
		for range 2 * cap(inFile(d).joins.free) { // every reader holds a snapshot
			reload(t, d, 1)
		}
		for range 5 {
			s := reload(t, d, 0)
			c := storetest.NextCommit(s)
			if err := d.CommitActivation(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			for range cap(inFile(d).joins.free) {
				now := reload(t, d, 0)
				if now.KeySet.Version != s.KeySet.Version+1 || now.KeySet.Nonces.JoinNonce != c.Nonces.JoinNonce ||
					now.KeySet.Nonces.Recent[0].ID != c.Activation.ID || !now.Device.LastJoinAt.Equal(c.Activation.At) {
					t.Fatalf("version %d after the commit of %d", now.KeySet.Version, s.KeySet.Version)
				}
				if a, err := d.Activation(t.Context(), c.Activation.ID); err != nil || a.ID != c.Activation.ID {
					t.Fatalf("Activation: %v", err)
				}
			}
		}
		before := reload(t, d, 1)
		err := d.SetSuspended(t.Context(), states[1].Device.ID, states[1].Device.Ownership.Org, !before.Device.Suspended, joinery.AuditEntry{At: testTime})
		if err != nil {
			t.Fatal(err)
		}
		for range cap(inFile(d).joins.free) {
			if now := reload(t, d, 1); now.Device.Suspended == before.Device.Suspended {
				t.Fatal("an acknowledged change is not seen")
			}
		}
	}
	clean(t, d)
}

// What a reader's snapshot lacks of the generation before is still known; from
// before that, it is read again.
func TestSnapshotsOfOlderGenerations(t *testing.T) {
	d, states := withDevices(t, newOptions(t), 1)
	s := reload(t, d, 0)
	c := storetest.NextCommit(s)
	if err := d.CommitActivation(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	then := inFile(d).news.current()
	old := s
	if ok, err := inFile(d).news.update(&old, then); !ok || err != nil || old.KeySet.Version != c.Version+1 {
		t.Errorf("same generation: %v %v, version %d", ok, err, old.KeySet.Version)
	}
	inFile(d).news.next()
	old = s
	if ok, err := inFile(d).news.update(&old, then); !ok || err != nil || old.KeySet.Version != c.Version+1 {
		t.Errorf("a generation later: %v %v, version %d", ok, err, old.KeySet.Version)
	}
	newer := s
	newer.KeySet.Version = c.Version + 7
	if ok, err := inFile(d).news.update(&newer, then); !ok || err != nil || newer.KeySet.Version != c.Version+7 {
		t.Errorf("the snapshot is newer than the news: %v %v, version %d", ok, err, newer.KeySet.Version)
	}
	inFile(d).news.next()
	if ok, err := inFile(d).news.update(&old, then); ok || err != nil {
		t.Errorf("two generations later the snapshot was good enough: %v", err)
	}
	if got := reload(t, d, 0); got.KeySet.Version != states[0].KeySet.Version+1 {
		t.Errorf("version %d", got.KeySet.Version)
	}
}

// What was read before a change was acknowledged does not become current by a
// join that came after the change: its commit loses.
func TestOldSnapshotDoesNotBorrowANewVersion(t *testing.T) {
	d, states := withDevices(t, newOptions(t), 1)
	s := reload(t, d, 0)
	snapshot := inFile(d).news.current()
	binding := &joinery.Binding{Epoch: 1, ASID: "as.example.com", Policy: joinery.AppSKeyWrapped, Source: "owner", Since: testTime}
	owner := states[0].Device.Ownership
	if err := d.SetBinding(t.Context(), s.Device.ID, owner.Org, 0, binding, joinery.AuditEntry{At: testTime}); err != nil {
		t.Fatal(err)
	}
	if err := d.CommitActivation(t.Context(), storetest.NextCommit(reload(t, d, 0))); err != nil {
		t.Fatal(err)
	}
	old := s
	if _, err := inFile(d).news.update(&old, snapshot); err != nil {
		t.Fatal(err)
	}
	if old.KeySet.Version != s.KeySet.Version {
		t.Errorf("what was read at version %d without the binding passes for version %d", s.KeySet.Version, old.KeySet.Version)
	}
	if err := d.CommitActivation(t.Context(), storetest.NextCommit(old)); !errors.Is(err, ErrSwapLost) {
		t.Errorf("a join under what was taken back: %v", err)
	}
}

// Readers that keep snapshots do not keep the log from being begun anew, while
// joins run and while nothing but other writes does.
func TestLogDoesNotGrow(t *testing.T) {
	o := newOptions(t)
	const devices = 400
	d, _ := withDevices(t, o, devices)
	pages := walPages
	if testing.Short() { // as under the race detector
		pages = 1000
		CopyLogBackAt(t, d, int64(pages))
	}
	logSize := func() int64 {
		info, err := os.Stat(o.Path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	rounds := 2 * pages / devices
	joinAll := func() {
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for n := w; n < devices; n += 4 {
					s, err := d.LoadActivation(context.Background(), testJoinEUI, testDevEUI(n))
					if err == nil {
						err = d.CommitActivation(context.Background(), storetest.NextCommit(s))
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	for range rounds {
		joinAll()
	}
	first := logSize()
	for range rounds {
		joinAll()
	}
	// It may be copied back somewhat later or earlier, but it does not add up.
	if second := logSize(); second > first+first/2 {
		t.Errorf("the log grew from %d to %d bytes", first, second)
	}
	reload(t, d, 0) // one reader holds a snapshot from here on
	entries := make([]joinery.AuditEntry, 1000)
	for i := range entries {
		entries[i] = joinery.AuditEntry{At: testTime.Add(time.Duration(i)), Event: joinery.AuditOrgAdded, Actor: "test"}
	}
	for range 12 * pages / len(entries) {
		if err := d.Record(t.Context(), entries...); err != nil {
			t.Fatal(err)
		}
	}
	if third := logSize(); third > 2*first {
		t.Errorf("other writes let the log grow from %d to %d bytes", first, third)
	}
}
