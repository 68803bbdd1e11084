package store_test

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store"
	"joinery/internal/store/storetest"
)

// Parts of a write-ahead log in SQLite's file format: a header, then frames of a
// header and a page.
const (
	logHeader   = 32
	frameHeader = 24
	frameSize   = frameHeader + 4096
)

// diary is a database, its log, and what was acknowledged on the way.
type diary struct {
	file, log []byte
	// ends says of each commit in the log where its last frame ends; states what
	// could be read before the first commit and after each, "" where nobody looked.
	ends    []int
	states  []string
	devices []joinery.DeviceID
}

// keepDiary joins, claims, suspends and imports, one after the other. old makes
// the log begin anew over an older one, whose frames stay behind its end.
func keepDiary(t *testing.T, old bool) *diary {
	t.Helper()
	o := store.Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	db := fill(t, o, 5, true)
	must(db.AddOrg(t.Context(), joinery.Organisation{ID: joinery.NewOrgID(), Name: killClaimant, CreatedAt: time.Now()}, joinery.AuditEntry{}))
	d := &diary{}
	for n := range 5 {
		s, err := db.LoadActivation(t.Context(), benchJoinEUI, benchDevEUI(n))
		must(err)
		d.devices = append(d.devices, s.Device.ID)
	}
	i, err := killBegin(t.Context(), db)
	must(err)
	step := func(n int) {
		s, err := db.LoadActivation(t.Context(), benchJoinEUI, benchDevEUI(n%5))
		must(err)
		entry := joinery.AuditEntry{At: time.Now(), Event: joinery.AuditDeviceClaimed, Device: s.Device.ID}
		orgs, err := db.Orgs(t.Context())
		must(err)
		switch o := s.Device.Ownership; n % 4 {
		case 1:
			must(db.Claim(t.Context(), s.Device.ID, o.Epoch, orgs[1+(int(o.Epoch)+1)%2].ID, s.Binding, entry))
		case 2:
			rows := joinery.ImportRows{Import: i.ID, From: i.Next, Count: 3}
			for k := range 3 {
				device := benchDevice(firstNewOne+int(i.Next)+k, false)
				device.Index = i.Next + uint64(k)
				rows.Devices = append(rows.Devices, device)
			}
			_, err := db.CommitRows(t.Context(), rows, entry)
			must(err)
			i.Next += 3
		case 3:
			must(db.SetSuspended(t.Context(), s.Device.ID, o.Org, !s.Device.Suspended, entry))
		default:
			must(db.CommitActivation(t.Context(), storetest.NextCommit(s)))
		}
	}
	commits := 24
	if old {
		commits = 10
		store.CopyLogBackAt(t, db, 150)
		before := mustRead(t, o.Path)
		for n := 0; slices.Equal(before, mustRead(t, o.Path)); n++ {
			step(n)
		}
	}
	store.CopyLogBackAt(t, db, 1<<30)
	d.file = mustRead(t, o.Path)
	d.states = append(d.states, d.read(t, db))
	for n := range commits {
		step(n)
		d.states = append(d.states, d.read(t, db))
	}
	d.log = mustRead(t, o.Path+"-wal")
	if !slices.Equal(d.file, mustRead(t, o.Path)) {
		t.Fatal("the log was copied back meanwhile")
	}
	d.ends = commitEnds(d.log)
	begun := len(d.ends) - commits // by what came before
	if begun < 0 {
		t.Fatalf("%d commits in the log, %d acknowledged", len(d.ends), commits)
	}
	d.states = append(make([]string, begun), d.states...)
	if tail := len(d.log) - d.ends[len(d.ends)-1]; old != (tail > 0) {
		t.Fatalf("%d bytes behind the last commit", tail)
	}
	return d
}

// commitEnds walks the frames that belong to the log's header and gives the end
// of each that commits.
func commitEnds(log []byte) (ends []int) {
	salts := log[16:24]
	for at := logHeader; at+frameSize <= len(log); at += frameSize {
		if !slices.Equal(log[at+8:at+16], salts) {
			break
		}
		if binary.BigEndian.Uint32(log[at+4:]) != 0 {
			ends = append(ends, at+frameSize)
		}
	}
	return ends
}

// read gives all that callers could be told of the database, in text.
func (d *diary) read(t *testing.T, db *store.DB) string {
	t.Helper()
	text := ""
	for _, id := range d.devices {
		s, err := db.Device(t.Context(), id)
		if err != nil {
			return "" // not yet
		}
		activations, err := db.Activations(t.Context(), id, 100)
		if err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf("%+v %+v %+v %v %+v\n", s.Device, s.KeySet, s.Binding, s.KeySet.Nonces, activations)
	}
	entries, err := db.AuditEntries(t.Context(), 0, 500)
	if err != nil {
		t.Fatal(err)
	}
	entries = slices.DeleteFunc(entries, func(e joinery.AuditEntry) bool { return e.Event == joinery.AuditServerFenced }) // it is a copy
	page, err := db.Devices(t.Context(), joinery.DeviceQuery{Limit: 500})
	if err != nil {
		t.Fatal(err)
	}
	return text + fmt.Sprintf("%d devices, %+v", len(page.Items), entries)
}

// expect opens the database with a log. Its state must be that after as many
// commits, and whole.
func (d *diary) expect(t *testing.T, what string, log []byte, commits int) {
	t.Helper()
	dir, err := os.MkdirTemp("", "joinery-log")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	o := store.Options{Path: filepath.Join(dir, "joinery.db"), UnsafeNoSync: true}
	for name, content := range map[string][]byte{o.Path: d.file, o.Path + "-wal": log} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	db, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer func() { _ = db.Close() }()
	if found, err := db.Fsck(t.Context(), nil); err != nil || len(found) > 0 {
		t.Fatalf("%s: fsck: %v, %v", what, err, found)
	}
	if want := d.states[commits]; want != "" && d.read(t, db) != want {
		t.Fatalf("%s: the state is not that after %d commits", what, commits)
	}
}

// commitsBefore is how many commits lie before an offset of the log.
func (d *diary) commitsBefore(offset int) int {
	n, _ := slices.BinarySearch(d.ends, offset+1)
	return n
}

// cuts are the lengths to which the log is cut: around the ends of commits and
// within frames drawn at random; in the long form around every frame's parts and
// all along.
func (d *diary) cuts() (cuts []int) {
	end := d.ends[len(d.ends)-1]
	around := func(at int) { cuts = append(cuts, at-1, at, at+1, at+frameHeader, at+mathrand.IntN(frameSize)) }
	if os.Getenv("JOINERY_LONG") == "" {
		cuts = append(cuts, 0, logHeader/2)
		around(logHeader)
		for _, at := range d.ends {
			cuts = append(cuts, at-1, at)
		}
		for range 4 {
			around(frameOf(mathrand.IntN(end)))
		}
	} else {
		for at := logHeader; at <= end; at += frameSize {
			around(at)
		}
		for at := 0; at < end; at += 64 {
			cuts = append(cuts, at)
		}
	}
	slices.Sort(cuts)
	return slices.DeleteFunc(slices.Compact(cuts), func(c int) bool { return c < 0 || c > len(d.log) })
}

// P2: wherever the log is cut, what is left is the state after the commits whose
// last frame is whole, exactly. So nothing is lost that was acknowledged before
// the cut, and nothing is there in half.
func TestEveryPrefixOfTheLog(t *testing.T) {
	if testing.Short() {
		t.Skip("long under the race detector; it runs without, too")
	}
	for name, old := range map[string]bool{"new log": false, "log over an older one": true} {
		t.Run(name, func(t *testing.T) {
			d := keepDiary(t, old)
			cuts := d.cuts()
			for _, cut := range cuts {
				d.expect(t, fmt.Sprintf("%d bytes of log", cut), d.log[:cut], d.commitsBefore(cut))
			}
			t.Logf("%d cuts of a log of %d bytes and %d commits", len(cuts), len(d.log), len(d.ends))
		})
	}
}

// P2 where the end of the log is not cut off but wrong: zeros, as after a crash of
// the file system, anything at all, or one bit.
func TestTornLog(t *testing.T) {
	if testing.Short() {
		t.Skip("long under the race detector; it runs without, too")
	}
	d := keepDiary(t, false)
	torn := 12
	if os.Getenv("JOINERY_LONG") != "" {
		torn = 3000
	}
	for range torn {
		at := mathrand.IntN(d.ends[len(d.ends)-1])
		zeros := slices.Clone(d.log)
		clear(zeros[at:min(len(zeros), at+frameSize)])
		if first := different(zeros, d.log); first < len(zeros) {
			d.expect(t, fmt.Sprintf("zeros from %d on", at), zeros, d.commitsBefore(frameOf(first)))
		}
		garbage := slices.Clone(d.log)
		rand.Read(garbage[at:])
		if first := different(garbage, d.log); first < len(garbage) {
			d.expect(t, fmt.Sprintf("garbage from %d on", at), garbage, d.commitsBefore(frameOf(first)))
		}
		bit := slices.Clone(d.log)
		bit[at] ^= 1 << mathrand.IntN(8)
		d.expect(t, fmt.Sprintf("a bit of byte %d", at), bit, d.commitsBefore(frameOf(at)))
	}
}

// different is the first byte in which two logs differ.
func different(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// frameOf is where the frame of an offset begins, 0 for the log's header.
func frameOf(offset int) int {
	if offset < logHeader {
		return 0
	}
	return offset - (offset-logHeader)%frameSize
}

func mustRead(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
