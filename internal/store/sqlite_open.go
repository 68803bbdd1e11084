package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
)

// sqliteDB is the engine over one file: the lock, one writer and some readers.
type sqliteDB struct {
	path     string
	log      *slog.Logger
	lock     *fileLock // nil where opened beside a server
	marks    *markFile // nil unless opened to serve
	noted    mark      // what it says; the writer's
	joins    *pool     // readers for joins
	loads    chan *load
	readers  *pool     // readers for everybody else: a listing keeps no join waiting
	news     *news     // for the readers of joins
	sequence *sequence // of the DB
	w        *writer   // nil where opened for reading only
	closed   chan struct{}
}

// Memory for pages that one connection takes at most, in KiB, of what givePages
// gave all of them.
const (
	writerCache = 4 << 10
	joinsCache  = 8 << 10
	readerCache = 1 << 10
)

// pageSize is set once, when a database is made. Every page that a transaction
// touches goes whole into the log, so small pages make small commits.
const pageSize = 4096

// walPages is about what the write-ahead log has grown to, in pages, when it is
// copied back into the database; see writer.checkpoint.
const walPages = 16000

func commonPragmas(o Options, cacheKiB int) []string {
	sync := "FULL"
	if o.UnsafeNoSync {
		sync = "OFF"
	}
	return []string{
		"foreign_keys = ON",
		"trusted_schema = OFF",
		"synchronous = " + sync,
		fmt.Sprintf("cache_size = -%d", cacheKiB),
	}
}

// Open opens an existing database for a server and raises its epoch. It never
// makes one, and never changes a schema: a missing file, a file that is none of
// ours, an older or a newer schema and a held lock are each their own error.
func Open(ctx context.Context, o Options) (*DB, error) { return open(ctx, o, toServe) }

// OpenReadOnly is Open for those who only look, such as fsck: it takes the lock
// and leaves every row as it is. Calls that change something are refused.
func OpenReadOnly(ctx context.Context, o Options) (*DB, error) { return open(ctx, o, toRead) }

// OpenLive is OpenReadOnly without the lock: a server may have the database
// open, or open it meanwhile.
func OpenLive(ctx context.Context, o Options) (*DB, error) { return open(ctx, o, toReadLive) }

// purpose is what a database is opened for.
type purpose uint8

const (
	toServe purpose = iota
	toRead
	toReadLive
	toMove // to write, and not as a server
	toUndo // the same, even where it is not known to be the one that was served
)

func open(ctx context.Context, o Options, why purpose) (_ *DB, err error) {
	if o.UnsafeNoSync && !testing.Testing() {
		return nil, fmt.Errorf("%w: opening without fsync is for tests only", ErrNotDurable)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	d, err := openEngine(ctx, o, why)
	if err != nil {
		return nil, err
	}
	d.witness = o.witness()
	switch f := d.Fence(); {
	case why != toServe:
	case f.Up():
		o.Logger.Error("joins are refused until joinery restore confirm", "fence", f.State, "since", f.Since, "reason", f.Note)
	default:
		if _, err := d.bearWitness(ctx); err != nil {
			o.Logger.Warn("how far confirmations have raised JoinNonces is not noted here; give a later one --earlier-confirmations", "error", err)
		}
	}
	return d, nil
}

func openEngine(ctx context.Context, o Options, why purpose) (*DB, error) {
	if o.URL != "" {
		return openPostgres(ctx, o, why)
	}
	return openFile(ctx, o, why)
}

// openFile opens a SQLite file. With an error it gives back what it opened.
func openFile(ctx context.Context, o Options, why purpose) (_ *DB, err error) {
	var lock *fileLock
	if why != toReadLive {
		if lock, err = lockFile(ctx, o.Path, o.Successor); err != nil {
			return nil, err
		}
	}
	n := joinReaders()
	e := &sqliteDB{
		path: o.Path, log: o.Logger, lock: lock,
		joins: newPool(n), readers: newPool(max(2, n/2)), news: newNews(), closed: make(chan struct{}),
		loads: make(chan *load, loadsAtOnce),
	}
	d := &DB{engine: e, readOnly: why == toRead || why == toReadLive}
	e.sequence = &d.sequence
	defer func() {
		if err != nil {
			_ = d.Close()
		}
	}()
	steps, err := schemaMigrations()
	if err != nil {
		return nil, err
	}
	c, err := openChecked(o, writerCache)
	if err != nil {
		return nil, err
	}
	if err := inOrder(
		func() error { return c.checkVersion(o.Path, len(steps)) },
		func() error { return c.checkDurable(o) },
		func() error { return e.begin(d, c, why) },
	); err != nil {
		_ = c.Close()
		return nil, err
	}
	if d.readOnly {
		err = c.Close()
	} else {
		e.w, err = e.startWriter(c, d.epoch, o.Logger)
	}
	if err != nil {
		return nil, err
	}
	if err := e.joins.fill(o, joinsCache); err != nil {
		return nil, err
	}
	if err := e.readers.fill(o, readerCache); err != nil {
		return nil, err
	}
	for range n {
		go e.answerLoads()
	}
	return d, nil
}

// openChecked opens the file at o.Path after looking that it is one of ours.
func openChecked(o Options, cacheKiB int) (*sqliteConn, error) {
	if err := checkFile(o.Path); err != nil {
		return nil, err
	}
	c, err := openConn(o.Path, commonPragmas(o, cacheKiB)...)
	if err == nil {
		var id int
		if id, err = c.pragmaInt("application_id"); err == nil && id != applicationID {
			err = fmt.Errorf("%w: %s is an SQLite database, but not one of joinery; correct the configured path", ErrForeign, o.Path)
		}
		if err != nil {
			_ = c.Close()
		}
	}
	switch sqlite.ErrCode(err).ToPrimary() {
	case sqlite.ResultNotADB, sqlite.ResultCorrupt:
		return nil, fmt.Errorf("%w: %s is damaged or no SQLite file; restore a backup, or correct the configured path: %w", ErrNotDatabase, o.Path, err)
	case sqlite.ResultReadOnly, sqlite.ResultCantOpen:
		return nil, fmt.Errorf("%w: %s or its directory; give both to the user that runs joinery: %w", ErrUnwritable, o.Path, err)
	}
	return c, err
}

var fileMagic = []byte("SQLite format 3\x00")

// checkFile looks at the file before SQLite does, which would take an empty
// file for a new database. It runs before any connection of this process is
// open: closing a second descriptor would drop their locks.
func checkFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: there is no %s; correct the configured path, restore a backup, "+
			"or make a new database with joinery migrate --create", ErrMissing, path)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: %s; give it to the user that runs joinery", ErrUnwritable, path)
	case err != nil:
		return err
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, len(fileMagic))
	if _, err := io.ReadFull(f, head); err != nil || !bytes.Equal(head, fileMagic) {
		return fmt.Errorf("%w: %s is no SQLite file; correct the configured path, or restore a backup", ErrNotDatabase, path)
	}
	return nil
}

func (c *sqliteConn) checkVersion(path string, newest int) error {
	version, err := c.pragmaInt("user_version")
	switch {
	case err != nil:
		return err
	case version < newest:
		return fmt.Errorf("%w: %s has version %d, this program needs %d; run joinery migrate", ErrOlderSchema, path, version, newest)
	case version > newest:
		return fmt.Errorf("%w: this program is older than the database: %s has version %d, this program knows %d; use a newer joinery",
			ErrNewerSchema, path, version, newest)
	}
	return nil
}

// checkDurable reads back what decides whether a commit survives a crash.
func (c *sqliteConn) checkDurable(o Options) error {
	mode, err := c.pragmaValue("journal_mode")
	if err != nil {
		return err
	}
	sync, err := c.pragmaInt("synchronous")
	if err != nil {
		return err
	}
	keys, err := c.pragmaInt("foreign_keys")
	if err != nil {
		return err
	}
	const full = 2
	if mode != "wal" || sync < full && !o.UnsafeNoSync || keys != 1 {
		return fmt.Errorf("%w: journal_mode=%s synchronous=%d foreign_keys=%d; need wal, %d and 1: "+
			"the file was changed by another program", ErrNotDurable, mode, sync, keys, full)
	}
	return nil
}

// close implements engine.
func (e *sqliteDB) close() error {
	close(e.closed)
	if e.w != nil {
		e.w.stop()
	}
	err := firstError(e.joins.close(), e.readers.close())
	if e.w != nil && e.w.isBroken() == nil {
		// Last, because who closes last copies the log back. That of a broken writer
		// stays open until the process ends: the log must stay.
		err = firstError(err, e.w.c.Close())
	}
	if e.marks != nil {
		err = firstError(err, e.marks.f.Close())
	}
	if e.lock != nil {
		err = firstError(err, e.lock.release())
	}
	return err
}

// ping implements engine.
func (e *sqliteDB) ping(ctx context.Context) error {
	if err := e.read(ctx, func(c conn) error { return c.exec("SELECT epoch FROM store") }); err != nil {
		return err
	}
	if e.w == nil {
		return nil
	}
	return e.transaction(ctx, func(*tx) error { return nil })
}

// follow implements engine: one server has the file.
func (*sqliteDB) follow(func(), func(time.Time), func(error)) {}

// lockFleet implements engine.
func (*sqliteDB) lockFleet(context.Context) (release func(), err error) { return func() {}, nil }
