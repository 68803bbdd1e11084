package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"joinery"
	"joinery/internal/store/storetest"
	"joinery/lorawan"
)

func TestMarkIsWrittenAndRead(t *testing.T) {
	l, err := openMark(filepath.Join(t.TempDir(), "joinery.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.f.Close() }()
	if _, ok := l.read(); ok {
		t.Fatal("an empty file gives a mark")
	}
	for _, m := range []mark{{}, {newInstance(), 1, 0}, {newInstance(), 1 << 62, 1<<63 - 1}} {
		if n := len(m.encode()); n != markLen {
			t.Fatalf("a mark has %d bytes, want %d", n, markLen)
		}
		if err := l.write(m); err != nil {
			t.Fatal(err)
		}
		if got, ok := l.read(); !ok || got != m {
			t.Fatalf("got %+v %v, want %+v", got, ok, m)
		}
	}
	if _, err := l.f.WriteAt([]byte("9"), 50); err != nil {
		t.Fatal(err)
	}
	if m, ok := l.read(); ok {
		t.Fatalf("a damaged mark gives %+v", m)
	}
}

// copyFiles copies a database and its log, as cp does.
func copyFiles(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(from + suffix)
		if errors.Is(err, os.ErrNotExist) {
			err = removeAll(to + suffix)
		} else if err == nil {
			err = os.WriteFile(to+suffix, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A database that is not known to be the one that was open at its place last is
// fenced when it is opened to serve; one that is known is not.
func TestStrangeDatabasesAreFenced(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		// happens runs on the path of a closed database of which an older copy, of
		// the same epoch, is at path.old.
		happens func(path string)
		note    string // "" for none
	}{
		{"nothing", func(string) {}, ""},
		{"lock file removed", func(path string) { must(os.Remove(path + ".lock")) }, ""},
		{"mark removed", func(path string) { must(os.Remove(path + ".mark")) }, "mark file"},
		{"mark damaged", func(path string) { must(os.WriteFile(path+".mark", []byte("database 00"), 0o600)) }, "mark file"},
		{"renamed away and back", func(path string) { must(os.Rename(path, path+".x")); must(os.Rename(path+".x", path)) }, ""},
		{"copied", func(path string) { copyFiles(t, path, path+".x"); must(os.Rename(path+".x", path)) }, "a copy"},
		{"older copy in its place", func(path string) { copyFiles(t, path+".old", path) }, "lacks join"},
		{"older copy of an earlier epoch", func(path string) {
			for range 2 {
				must(mustOpen(t, Options{Path: path, UnsafeNoSync: true}).Close())
			}
			copyFiles(t, path+".old", path)
		}, "was opened 4 times, and now knows of 2"},
		{"copy from before the schema knew of marks", func(path string) {
			raw(t, path, "UPDATE store SET instance = NULL, home = ''")
		}, "before the last upgrade"},
		{"another database's mark", func(path string) {
			other := newOptions(t)
			mustOpenAndClose(t, other)
			content, err := os.ReadFile(other.Path + ".mark")
			must(err)
			must(os.WriteFile(path+".mark", content, 0o600))
		}, "another database"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := richDatabase(t)
			o := Options{Path: path, UnsafeNoSync: true}
			d := mustOpen(t, o)
			if d.Fence().Up() {
				t.Fatalf("a database of our own: %+v", d.Fence())
			}
			joinSome(t, d, 1)
			copyFiles(t, path, path+".old")
			joinSome(t, d, 1)
			must(d.Close())

			c.happens(path)
			for range 2 { // once found, it stays
				d = mustOpen(t, o)
				f := d.Fence()
				if f.Up() != (c.note != "") || f.Up() && (f.State != FenceForked || f.Since.IsZero()) {
					t.Fatalf("fence %+v", f)
				}
				if f.Up() {
					wants(t, d.AnswersJoins(), ErrFenced)
					if !strings.Contains(f.Note, c.note) {
						t.Errorf("the note is %q, want %q in it", f.Note, c.note)
					}
					_, err := joinOnce(t, d)
					if joinery.CodeOf(err) != joinery.CodeUnavailable {
						t.Fatalf("a join behind the fence: %v", err)
					}
				} else {
					joinSome(t, d, 1)
				}
				must(d.Close())
			}
		})
	}
}

// A database that is made where another one was is not taken for a copy of it.
func TestNewDatabaseInAnOldPlace(t *testing.T) {
	o := newOptions(t)
	mustOpenAndClose(t, o)
	if err := removeAll(o.Path, o.Path+"-wal", o.Path+"-shm"); err != nil {
		t.Fatal(err)
	}
	if err := Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if f := mustOpen(t, o).Fence(); f.Up() {
		t.Errorf("fence %+v", f)
	}
}

// A first open that is cut off before or behind its commit does not make a new
// database look like a copied one.
func TestFirstOpenIsCutOff(t *testing.T) {
	for name, committed := range map[string]bool{"before the commit": false, "behind the commit": true} {
		t.Run(name, func(t *testing.T) {
			o := newOptions(t)
			if committed {
				mustOpenAndClose(t, o)
			}
			l, err := openMark(o.Path)
			if err != nil {
				t.Fatal(err)
			}
			m, ok := l.read()
			if ok != committed {
				t.Fatalf("a mark: %v", ok)
			}
			m.epoch, m.activation = 0, 0
			if !committed {
				m.instance = newInstance()
			}
			if err := firstError(l.begin(o.Path, m), l.f.Close()); err != nil {
				t.Fatal(err)
			}
			if f := mustOpen(t, o).Fence(); f.Up() {
				t.Errorf("fence %+v", f)
			}
		})
	}
}

// A confirmation raises every JoinNonce, once, however often it is cut off; a
// device at the end of its JoinNonces is refused rather than given one twice.
func TestConfirmedJoinNoncesJump(t *testing.T) {
	path := richDatabase(t)
	o := Options{Path: path, UnsafeNoSync: true}
	d := mustOpen(t, o)
	ctx := t.Context()
	if _, err := d.ConfirmFence(ctx, Confirmation{}); joinery.CodeOf(err) != joinery.CodeConflict {
		t.Fatalf("nothing to confirm: %v", err)
	}
	if err := d.RaiseFence(ctx, "a test", "tester"); err != nil {
		t.Fatal(err)
	}
	if err := d.RaiseFence(ctx, "a test", "tester"); joinery.CodeOf(err) != joinery.CodeConflict {
		t.Fatalf("fenced twice: %v", err)
	}
	raw(t, path, fmt.Sprintf("UPDATE key_set SET join_nonce = %d WHERE id = (SELECT key_set FROM device WHERE deleted_at IS NULL ORDER BY id LIMIT 1)", lorawan.MaxJoinNonce-1000))
	before := joinNonces(t, d)

	_, err := d.ConfirmFence(ctx, Confirmation{Jump: lorawan.MaxJoinNonce})
	if joinery.CodeOf(err) != joinery.CodeInvalid {
		t.Fatalf("a jump over all JoinNonces: %v", err)
	}
	// Cut off behind the first batch.
	if _, err := d.beginJump(ctx, Confirmation{Jump: 2000}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.jumpBatch(ctx, 2000); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, o)
	if f := d.Fence(); f.State != FenceForked || f.Jump != 2000 {
		t.Fatalf("cut off: %+v", f)
	}
	_, err = d.ConfirmFence(ctx, Confirmation{Jump: 3000})
	if joinery.CodeOf(err) != joinery.CodeInvalid {
		t.Fatalf("another jump than was begun: %v", err)
	}
	done, err := d.ConfirmFence(ctx, Confirmation{Actor: "tester"})
	if err != nil || done.Jump != 2000 || len(done.Exhausted) != 1 || d.Fence().Up() {
		t.Fatalf("%+v, %v, fence %+v", done, err, d.Fence())
	}
	exhausted := 0
	for id, now := range joinNonces(t, d) {
		switch was := before[id]; {
		case was >= lorawan.MaxJoinNonce-2000 && now == lorawan.MaxJoinNonce:
			exhausted++
		case now != was+2000:
			t.Errorf("key set %d: JoinNonce %d after %d", id, now, was)
		}
	}
	if exhausted != 1 {
		t.Errorf("%d key sets are at their end, want 1", exhausted)
	}
	joinSome(t, d, 1)
	if found, err := d.Fsck(ctx, nil); err != nil || len(found) > 0 {
		t.Fatal(found, err)
	}
	entries, err := d.AuditEntries(ctx, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	last := entries[len(entries)-1]
	if last.Event != joinery.AuditServerConfirmed || last.Actor != "tester" || last.Detail["join_nonce_jump"] != "2000" {
		t.Errorf("audited: %+v", last)
	}
}

func joinNonces(t *testing.T, d *DB) map[int64]lorawan.JoinNonce {
	t.Helper()
	all := map[int64]lorawan.JoinNonce{}
	err := d.read(t.Context(), func(c conn) error {
		return c.each("SELECT id, join_nonce FROM key_set", func(r *row) error {
			all[r.int()] = lorawan.JoinNonce(r.int())
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// joinOnce lets a device join.
func joinOnce(t *testing.T, d *DB) (joinery.ActivationID, error) {
	t.Helper()
	c := storetest.NextCommit(reload(t, d, 1))
	return c.Activation.ID, d.CommitActivation(t.Context(), c)
}

func joinSome(t *testing.T, d *DB, n int) {
	t.Helper()
	for range n {
		if _, err := joinOnce(t, d); err != nil {
			t.Fatal(err)
		}
	}
}

// A device that is imported after a confirmation may have joined before it, from
// a state that is lost: its JoinNonces begin above all jumps.
func TestNewKeySetsBeginAboveTheJumps(t *testing.T) {
	path := richDatabase(t)
	d := mustOpen(t, Options{Path: path, UnsafeNoSync: true})
	for range 2 {
		if err := d.RaiseFence(t.Context(), "a test", "tester"); err != nil {
			t.Fatal(err)
		}
		if _, err := d.ConfirmFence(t.Context(), Confirmation{}); err != nil {
			t.Fatal(err)
		}
	}
	maker := reload(t, d, 1).Device.Maker
	i, err := d.BeginImport(t.Context(), joinery.Import{Org: maker, Kind: joinery.ImportManifest, SHA256: sha256.Sum256([]byte("again")), CreatedAt: testTime})
	if err != nil {
		t.Fatal(err)
	}
	n := testDevice(200)
	n.Index = 0
	if _, err := d.CommitRows(t.Context(), joinery.ImportRows{Import: i.ID, Count: 1, Devices: []joinery.NewDevice{n}}, joinery.AuditEntry{At: testTime}); err != nil {
		t.Fatal(err)
	}
	if got := reload(t, d, 200).KeySet.Nonces.JoinNonce; got != 2*DefaultJump {
		t.Errorf("JoinNonce %d, want %d", got, 2*DefaultJump)
	}
	clean(t, d)
}

func TestMastersAreRemembered(t *testing.T) {
	d := mustOpen(t, Options{Path: richDatabase(t), UnsafeNoSync: true})
	ctx := t.Context()
	m := Master{Name: "m", Profile: "ecb-v1", KCV: "A1B2C3"}
	for range 2 {
		if err := d.NoteMasters(ctx, m, Master{Name: "unused", Profile: "ecb-v1", KCV: "000000"}); err != nil {
			t.Fatal(err)
		}
	}
	other := m
	other.KCV = "FFFFFF"
	if err := d.NoteMasters(ctx, other); joinery.CodeOf(err) != joinery.CodeConflict {
		t.Fatalf("another key of the same name: %v", err)
	}
	list, err := d.Masters(ctx)
	if err != nil || len(list) != 2 || list[0].KCV != m.KCV || list[0].KeySets != 6 {
		t.Fatalf("%+v, %v", list, err)
	}
	entries, err := d.AuditEntries(ctx, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, e := range entries {
		if e.Event == joinery.AuditMasterServed && (e.Detail["kcv"] == m.KCV || e.Detail["name"] == "unused") {
			told++
		}
	}
	if told != 2 {
		t.Errorf("%d entries of the custody log tell of new master keys, want 2", told)
	}
}
