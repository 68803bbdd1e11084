package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"modernc.org/libc"
	sqlitelib "modernc.org/sqlite/lib"

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
		if !errors.Is(err, ErrUnsynced) || !errors.Is(err, unix.EIO) {
			t.Errorf("join %d of a batch that was not synced: %v", i, err)
		}
	}
	if len(synced) != 1 {
		t.Errorf("a sync that failed: %v", synced)
	}
	refusesAll(t, d)
}

// syncs are those of databases and their logs, in order: how, and the file's name.
var syncs struct {
	list  []string
	below uintptr // SQLite's own
	// failAt is which one fails, by its place in the list; -1: none.
	failAt int
}

func noteSync(how string, fd int) error {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	syncs.list = append(syncs.list, how+" "+filepath.Base(name))
	if len(syncs.list)-1 == syncs.failAt {
		err = unix.EIO
	}
	return err
}

func noteOwnSync(tls *libc.TLS, file uintptr, flags int32) int32 {
	f := at[sqlitelib.TunixFile](file)
	if err := noteSync("alone", int(f.Fh)); err != nil {
		f.FlastErrno = int32(unix.EIO) // as SQLite does
		return sqlitelib.SQLITE_IOERR_FSYNC
	}
	return function[syncFunc](syncs.below)(tls, file, flags)
}

// noteSyncs notes them until the test ends, whose databases are closed by then.
func noteSyncs(t *testing.T) {
	t.Helper()
	ownFiles()
	d := mustOpen(t, newOptions(t)) // so that it is known how SQLite syncs
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	really := syncData
	syncs.list, syncs.failAt, syncs.below = nil, -1, files.sync
	syncData = func(fd int) error { return errors.Join(noteSync("aside", fd), really(fd)) }
	files.sync = address(noteOwnSync)
	t.Cleanup(func() { syncData, files.sync = really, syncs.below })
}

// TestNewLogIsSyncedWithItsDirectory: the first sync of a new log is SQLite's, whoever
// waits, and no later one is.
func TestNewLogIsSyncedWithItsDirectory(t *testing.T) {
	o := newOptions(t)
	o.UnsafeNoSync = false
	noteSyncs(t)
	crowd.Add(1)
	defer crowd.Add(-1)
	d, _ := withDevices(t, o, 1)
	defer func() { _ = d.Close() }()
	var log []string
	for _, s := range syncs.list {
		if filepath.Ext(s) == ".db-wal" {
			log = append(log, s)
		}
	}
	if len(log) < 3 || log[0] != "alone joinery.db-wal" || slices.Contains(log[1:], log[0]) {
		t.Errorf("a new log was synced %q of %q", log, syncs.list)
	}
}

// TestLogIsNotCopiedBack: a sync that fails while the log is copied back, of the log
// or then of the database, is the end as well, and says why.
func TestLogIsNotCopiedBack(t *testing.T) {
	for n, file := range []string{"joinery.db-wal", "joinery.db"} {
		t.Run(file, func(t *testing.T) {
			o := newOptions(t)
			o.UnsafeNoSync = false
			noteSyncs(t)
			d, states := withDevices(t, o, 1)
			defer func() { _ = d.Close() }()
			CopyLogBackAt(t, d, 1)
			hold(t, d)()
			release := hold(t, d)
			syncs.list, syncs.failAt = nil, 2+n // after the log's new beginning and the join
			release()
			if err := d.CommitActivation(t.Context(), storetest.NextCommit(states[0])); err != nil {
				t.Fatal(err)
			}
			<-inFile(d).w.failed
			refusesAll(t, d)
			if err := d.Failure(); !errors.Is(err, unix.EIO) {
				t.Errorf("why: %v", err)
			}
			want := []string{"alone joinery.db-wal", "alone joinery.db-wal", "aside joinery.db-wal", "aside joinery.db"}[:3+n]
			if !slices.Equal(syncs.list, want) {
				t.Errorf("synced %q, want %q", syncs.list, want)
			}
		})
	}
}
