package store

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// disk stands below SQLite and fails when it is told to. It knows two contents
// of each file: what everybody reads, which is the real file, and what a power
// cut would leave, which is what was synced. As Linux does, it forgets at a
// failed fsync what was to be written: the next one succeeds without it.
type disk struct {
	dir string

	mu     sync.Mutex
	synced map[string][]byte // by name in dir
	behind map[string][]func([]byte) []byte
	steps  []string // what was asked of the disk
	failAt int      // index of the step that fails; -1: none
	keeps  bool     // the step that fails takes effect all the same
	// failName, where it is set, is the next step to fail, by what it is.
	failName string
}

// newDisk puts a disk under the files of dir, as they are.
func newDisk(t testing.TB, dir string) *disk {
	t.Helper()
	d := &disk{dir: dir, synced: map[string][]byte{}, behind: map[string][]func([]byte) []byte{}, failAt: -1}
	for name, content := range filesOf(t, dir) {
		d.synced[name] = content
	}
	shim.install(t)
	shim.mu.Lock()
	defer shim.mu.Unlock()
	shim.disks[dir] = d
	t.Cleanup(func() {
		shim.mu.Lock()
		defer shim.mu.Unlock()
		delete(shim.disks, dir)
	})
	return d
}

// filesOf reads a database and its log. The index of the log belongs to
// processes, and lock and mark to a place.
func filesOf(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	names, err := filepath.Glob(filepath.Join(dir, "*.db*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".db") && !strings.HasSuffix(name, ".db-wal") {
			continue
		}
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(name)] = content
	}
	return files
}

// failNext begins to count steps anew, and makes one of them fail.
func (d *disk) failNext(step int, keeps bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.steps, d.failAt, d.keeps = nil, step, keeps
}

// step counts one step. apply tells whether it takes effect, fail whether it
// reports an error.
func (d *disk) step(what, name string) (apply, fail bool) {
	at := len(d.steps)
	d.steps = append(d.steps, what+" "+name)
	if d.failName == d.steps[at] {
		d.failName = ""
		return false, true
	}
	if at != d.failAt {
		return true, false
	}
	return d.keeps, true
}

// afterPowerCut is what the disk holds of every file.
func (d *disk) afterPowerCut() map[string][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	files := maps.Clone(d.synced)
	for name, content := range files {
		files[name] = bytes.Clone(content)
	}
	return files
}

func writeAt(off int64, content []byte) func([]byte) []byte {
	return func(file []byte) []byte {
		if need := int(off) + len(content) - len(file); need > 0 {
			file = append(file, make([]byte, need)...)
		}
		copy(file[off:], content)
		return file
	}
}

func truncateTo(size int64) func([]byte) []byte {
	return func(file []byte) []byte {
		if int(size) <= len(file) {
			return file[:size]
		}
		return append(file, make([]byte, int(size)-len(file))...)
	}
}

func (d *disk) sync(name string) {
	for _, change := range d.behind[name] {
		d.synced[name] = change(d.synced[name])
	}
	d.behind[name] = nil
}

// vfsShim is SQLite's own file system with some of its methods replaced, for
// files of which a disk is told.
type vfsShim struct {
	once     sync.Once
	mu       sync.Mutex
	disks    map[string]*disk
	open     map[uintptr]shimFile // by sqlite3_file
	own, sys *lib.Tsqlite3_vfs
	sysAddr  uintptr
	methods  map[uintptr]uintptr // from SQLite's methods, of which it has several, to ours
}

type shimFile struct {
	disk *disk
	name string
	sys  *lib.Tsqlite3_io_methods
}

var shim = vfsShim{disks: map[string]*disk{}, open: map[uintptr]shimFile{}, methods: map[uintptr]uintptr{}}

type (
	closeFunc    = func(tls *libc.TLS, file uintptr) int32
	writeFunc    = func(tls *libc.TLS, file, buf uintptr, n int32, off lib.Tsqlite3_int64) int32
	truncateFunc = func(tls *libc.TLS, file uintptr, size lib.Tsqlite3_int64) int32
)

// install makes the shim SQLite's default for connections opened from now on.
func (s *vfsShim) install(t testing.TB) {
	t.Helper()
	s.once.Do(func() {
		ownFiles() // below ours
		tls := libc.NewTLS()
		s.sysAddr = lib.Xsqlite3_vfs_find(tls, 0)
		s.sys = at[lib.Tsqlite3_vfs](s.sysAddr)
		name, err := libc.CString("joinery-test")
		if err != nil {
			t.Fatal(err)
		}
		own := libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(lib.Tsqlite3_vfs{})))
		s.own = at[lib.Tsqlite3_vfs](own)
		*s.own = *s.sys
		s.own.FzName, s.own.FpNext, s.own.FxOpen = name, 0, address(shimOpen)
		if rc := lib.Xsqlite3_vfs_register(tls, own, 1); rc != lib.SQLITE_OK {
			t.Fatalf("registering a file system: %d", rc)
		}
	})
}

func shimOpen(tls *libc.TLS, _, name, file uintptr, flags int32, out uintptr) int32 {
	rc := function[openFunc](shim.sys.FxOpen)(tls, shim.sysAddr, name, file, flags, out)
	if rc != lib.SQLITE_OK || name == 0 {
		return rc
	}
	path := libc.GoString(name)
	shim.mu.Lock()
	defer shim.mu.Unlock()
	d := shim.disks[filepath.Dir(path)]
	if d == nil {
		return rc
	}
	f := at[lib.Tsqlite3_file](file)
	shim.open[file] = shimFile{d, filepath.Base(path), at[lib.Tsqlite3_io_methods](f.FpMethods)}
	f.FpMethods = shim.over(tls, f.FpMethods)
	return rc
}

// over gives our methods over some of SQLite's.
func (s *vfsShim) over(tls *libc.TLS, sys uintptr) uintptr {
	if s.methods[sys] == 0 {
		s.methods[sys] = libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(lib.Tsqlite3_io_methods{})))
		ours := at[lib.Tsqlite3_io_methods](s.methods[sys])
		*ours = *at[lib.Tsqlite3_io_methods](sys)
		ours.FxClose, ours.FxWrite = address(shimClose), address(shimWrite)
		ours.FxTruncate, ours.FxSync = address(shimTruncate), address(shimSync)
	}
	return s.methods[sys]
}

func shimClose(tls *libc.TLS, file uintptr) int32 {
	f := shim.of(file)
	shim.mu.Lock()
	delete(shim.open, file)
	shim.mu.Unlock()
	return function[closeFunc](f.sys.FxClose)(tls, file)
}

func (s *vfsShim) of(file uintptr) shimFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[file]
}

func shimWrite(tls *libc.TLS, file, buf uintptr, n int32, off lib.Tsqlite3_int64) int32 {
	content := bytes.Clone(unsafe.Slice(at[byte](buf), n))
	f := shim.of(file)
	return f.change("write", lib.SQLITE_IOERR_WRITE, writeAt(off, content), func() int32 {
		return function[writeFunc](f.sys.FxWrite)(tls, file, buf, n, off)
	})
}

func shimTruncate(tls *libc.TLS, file uintptr, size lib.Tsqlite3_int64) int32 {
	f := shim.of(file)
	return f.change("truncate", lib.SQLITE_IOERR_TRUNCATE, truncateTo(size), func() int32 {
		return function[truncateFunc](f.sys.FxTruncate)(tls, file, size)
	})
}

// change makes a change of a file, or fails, or both.
func (f shimFile) change(what string, code int32, change func([]byte) []byte, really func() int32) int32 {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	apply, fail := f.disk.step(what, f.name)
	if apply {
		f.disk.behind[f.name] = append(f.disk.behind[f.name], change)
		if rc := really(); rc != lib.SQLITE_OK {
			return rc
		}
	}
	if fail {
		return code
	}
	return lib.SQLITE_OK
}

func shimSync(_ *libc.TLS, file uintptr, _ int32) int32 {
	f := shim.of(file)
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	apply, fail := f.disk.step("sync", f.name)
	if apply {
		f.disk.sync(f.name)
	}
	if fail {
		f.disk.behind[f.name] = nil
		return lib.SQLITE_IOERR_FSYNC
	}
	return lib.SQLITE_OK
}

// put makes a directory with files.
func put(t testing.TB, files map[string][]byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tally counts steps by what they are, for the log of a test.
func tally(steps []string) string {
	counts := map[string]int{}
	for _, s := range steps {
		counts[s]++
	}
	var b strings.Builder
	for _, s := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&b, "%d × %s, ", counts[s], s)
	}
	return strings.TrimSuffix(b.String(), ", ")
}
