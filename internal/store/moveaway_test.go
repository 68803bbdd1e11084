package store

import (
	"os"
	"testing"
	"time"
)

// A database that is moved away under its server, lock and all, is written no
// more: another one may stand in its place.
func TestMovedAwayUnderItsServer(t *testing.T) {
	path := richDatabase(t)
	o := Options{Path: path, UnsafeNoSync: true}
	d := mustOpen(t, o)
	joinSome(t, d, 1)
	away := t.TempDir() + "/joinery.db"
	for _, suffix := range []string{"", "-wal", "-shm", ".lock", ".mark"} {
		if err := os.Rename(path+suffix, away+suffix); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	if err := Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	_, err := joinOnce(t, d)
	wants(t, err, ErrSucceeded, "moved away")
	select {
	case <-d.Failed():
	case <-time.After(10 * time.Second):
		t.Error("the server is not told to end")
	}
	mustOpen(t, o)
}
