package store

import (
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
	"modernc.org/libc"
	sqlitelib "modernc.org/sqlite/lib"
)

// Pages that connections keep in memory: what the writer uses, and what a reader
// of joins uses of some ten thousand devices. A larger fleet does not fit whatever
// is taken, and needs only what leads to its rows.
const (
	writerPages = 600
	readerPages = 900
)

// joinReaders is how many connections read for joins; each hardly ever waits for
// anything but a processor.
func joinReaders() int { return min(8, runtime.GOMAXPROCS(0)) }

// givePages gives SQLite the memory in which all connections of the process keep
// pages; when it is in use they take each other's oldest. SQLite by itself would
// ask its allocator, page by page, which rounds a page and its header up to twice
// the page, and when a reader drops what it knows, takes all back one by one.
//
// It works before SQLite first opens something in this process; later it does
// nothing, which costs memory only.
var givePages = sync.OnceFunc(func() {
	tls := libc.NewTLS()
	defer tls.Close()
	header := int32(0)
	if !configure(tls, sqlitelib.SQLITE_CONFIG_PCACHE_HDRSZ, unsafe.Pointer(&header)) {
		return
	}
	pages := writerPages + joinReaders()*readerPages
	slot := (pageSize + int(header) + 7) &^ 7
	memory, err := unix.Mmap(-1, 0, pages*slot, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return
	}
	// Never given back: SQLite has it until the process ends.
	configure(tls, sqlitelib.SQLITE_CONFIG_PAGECACHE, unsafe.Pointer(unsafe.SliceData(memory)), int32(slot), int32(pages))
})

func configure(tls *libc.TLS, option int32, args ...any) bool {
	for i, arg := range args {
		if p, is := arg.(unsafe.Pointer); is {
			args[i] = uintptr(p)
		}
	}
	list := libc.NewVaList(args...)
	defer libc.Xfree(tls, list)
	return sqlitelib.Xsqlite3_config(tls, option, list) == sqlitelib.SQLITE_OK
}
