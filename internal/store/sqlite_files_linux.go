package store

import (
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
	"modernc.org/libc"
	sqlitelib "modernc.org/sqlite/lib"

	"joinery/internal/fdsync"
)

// SQLite's own way to files, but for how it waits for the disk. Its fsync is a
// system call, during which nothing else runs on a server's only processor. Where
// others may have work to do meanwhile, the kernel syncs by itself (fdsync). Where
// one caller waits alone, the call is the shorter way.

// crowd is how many batches of many joins are being committed now, and logs being
// copied back, whoever is there: that takes so long that somebody comes. It only
// chooses how to wait.
var crowd atomic.Int32

// crowdOf is how many joins one batch has at least when there is a crowd. Those
// who were answered by the last one are busy with their next.
const crowdOf = 4

// syncData is how a file is synced in a crowd. Tests replace it.
var syncData = fdsync.Data

// ownFiles makes ours the way in which connections opened from now on reach files.
var ownFiles = sync.OnceFunc(func() {
	tls := libc.NewTLS() // kept: the file system below lives as long as the process
	files.below = sqlitelib.Xsqlite3_vfs_find(tls, 0)
	name, err := libc.CString("joinery")
	if err != nil || files.below == 0 {
		return
	}
	own := libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(sqlitelib.Tsqlite3_vfs{})))
	if own == 0 {
		return
	}
	ours := at[sqlitelib.Tsqlite3_vfs](own)
	*ours = *at[sqlitelib.Tsqlite3_vfs](files.below)
	ours.FzName, ours.FpNext, ours.FxOpen = name, 0, address(openOver)
	sqlitelib.Xsqlite3_vfs_register(tls, own, 1)
})

var files struct {
	below uintptr // SQLite's own sqlite3_vfs
	mu    sync.Mutex
	sync  uintptr // SQLite's own xSync
	// ours are sqlite3_io_methods by those of SQLite that they are over, of which it
	// has several.
	ours map[uintptr]uintptr
}

// openOver opens a file as SQLite does, and puts our way of syncing over its own
// where it is a database or its log.
func openOver(tls *libc.TLS, _, name, file uintptr, flags int32, out uintptr) int32 {
	rc := function[openFunc](at[sqlitelib.Tsqlite3_vfs](files.below).FxOpen)(tls, files.below, name, file, flags, out)
	if rc != sqlitelib.SQLITE_OK || flags&(sqlitelib.SQLITE_OPEN_WAL|sqlitelib.SQLITE_OPEN_MAIN_DB) == 0 {
		return rc
	}
	f := at[sqlitelib.Tsqlite3_file](file)
	if ours := methodsOver(tls, f.FpMethods); ours != 0 {
		f.FpMethods = ours
	}
	return rc
}

// methodsOver gives methods like those of SQLite at address below, but for xSync;
// 0 where there are none.
func methodsOver(tls *libc.TLS, below uintptr) uintptr {
	files.mu.Lock()
	defer files.mu.Unlock()
	if ours, made := files.ours[below]; made {
		return ours
	}
	theirs := at[sqlitelib.Tsqlite3_io_methods](below)
	if files.sync == 0 {
		files.sync, files.ours = theirs.FxSync, map[uintptr]uintptr{}
	}
	if theirs.FxSync != files.sync {
		return 0
	}
	ours := libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(*theirs)))
	if ours == 0 {
		return 0
	}
	*at[sqlitelib.Tsqlite3_io_methods](ours) = *theirs
	at[sqlitelib.Tsqlite3_io_methods](ours).FxSync = address(syncAside)
	files.ours[below] = ours
	return ours
}

// syncAside is SQLite's xSync. The first sync of a new log is left to SQLite, which
// syncs the directory as well.
func syncAside(tls *libc.TLS, file uintptr, flags int32) int32 {
	f := at[sqlitelib.TunixFile](file)
	if crowd.Load() == 0 || f.FctrlFlags&sqlitelib.UNIXFILE_DIRSYNC != 0 {
		rc := function[syncFunc](files.sync)(tls, file, flags)
		if rc != sqlitelib.SQLITE_OK && f.FlastErrno != 0 {
			unsynced.Store(new(error(unix.Errno(f.FlastErrno))))
		}
		return rc
	}
	if err := syncData(int(f.Fh)); err != nil {
		if errno, ok := errors.AsType[unix.Errno](err); ok {
			f.FlastErrno = int32(errno)
		}
		unsynced.Store(&err)
		return sqlitelib.SQLITE_IOERR_FSYNC
	}
	return sqlitelib.SQLITE_OK
}
