package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// fileDraft is a draft in PATH.new, under the lock of PATH.
type fileDraft struct {
	*sqliteConn
	path  string
	lock  *fileLock
	steps []migration
	// kept is set where what is written must outlive this process: then the draft
	// can be taken up again.
	kept bool
}

// draftCache is memory for pages of a draft, in KiB: its indexes are written in
// no order.
const draftCache = 64 << 10

// newFileDraft begins a draft, or with kept takes one up that is there.
func newFileDraft(ctx context.Context, o Options, schema int, kept bool) (_ *Draft, err error) {
	steps, err := schemaMigrations()
	if err != nil {
		return nil, err
	}
	if schema < 1 || schema > len(steps) {
		return nil, newerCopy(schema, len(steps))
	}
	lock, err := lockFile(ctx, o.Path, false)
	if err != nil {
		return nil, err
	}
	f := &fileDraft{path: o.Path, lock: lock, steps: steps, kept: kept}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.giveBack())
		}
	}()
	if err := nothingAt(o.Path); err != nil {
		return nil, err
	}
	if !kept || !exists(f.unfinished()) {
		if err := f.begin(schema); err != nil {
			return nil, errors.Join(fmt.Errorf("make %s: %w", f.unfinished(), err), f.remove())
		}
	} else if f.sqliteConn, err = openConn(f.unfinished(), f.pragmas()...); err != nil {
		return nil, err
	}
	d := &Draft{draftEngine: f, c: conn{f.sqliteConn}, engine: &sqliteDB{}}
	return d, d.begun()
}

// nothingAt makes sure that a database can be put at path. A write-ahead log of
// another database would be taken for the new one's.
func nothingAt(path string) error {
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		if exists(name) {
			return fmt.Errorf("%w: %s; nothing is overwritten: choose another path, or move it away, "+
				"together with what else is named %s-…", ErrExists, name, path)
		}
	}
	return nil
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return !errors.Is(err, os.ErrNotExist)
}

func (f *fileDraft) unfinished() string { return f.path + ".new" }

func (f *fileDraft) begin(schema int) (err error) {
	if err := f.remove(); err != nil {
		return err
	}
	f.sqliteConn, err = newFile(f.unfinished(), f.pragmas()...)
	if err == nil {
		_, _, err = f.migrate(f.steps[:schema])
	}
	if err == nil && f.kept {
		err = makeProgress(conn{f.sqliteConn})
	}
	return err
}

// pragmas are those of a draft: one that is not kept is thrown away with the
// process, so nothing of it needs to be on disk before it is published.
// References are checked at the end, all at once.
func (f *fileDraft) pragmas() []string {
	list := []string{
		"foreign_keys = OFF", "trusted_schema = OFF", fmt.Sprintf("cache_size = -%d", draftCache),
		fmt.Sprintf("page_size = %d", pageSize), fmt.Sprintf("application_id = %d", applicationID),
	}
	if f.kept {
		return append(list, "synchronous = FULL", "journal_mode = WAL")
	}
	return append(list, "synchronous = OFF", "journal_mode = MEMORY")
}

// newFile makes an empty file that only its owner reads, and opens it.
func newFile(path string, pragmas ...string) (*sqliteConn, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return openConn(path, pragmas...)
}

// transaction implements draftEngine.
func (f *fileDraft) transaction(fn func(*tx) error) error { return f.immediate(fn) }

// insert implements draftEngine.
func (f *fileDraft) insert(t *tx, table copied, rows [][]any) error {
	query := table.insert()
	for _, values := range rows {
		if err := t.exec(query, values...); err != nil {
			return err
		}
	}
	return nil
}

// upgrade implements draftEngine.
func (f *fileDraft) upgrade() error {
	_, _, err := f.migrate(f.steps)
	return err
}

// putInPlace makes the finished file the database at path. The mark of one that
// was there before goes: this is another. A link, unlike a rename, cannot replace
// a file.
func putInPlace(finished, path string) error {
	if err := inOrder(
		func() error { return removeAll(path + ".mark") },
		func() error { return os.Link(finished, path) },
	); err != nil {
		return err
	}
	return published(firstError(os.Remove(finished), syncDir(filepath.Dir(path))))
}

// publish implements draftEngine.
func (f *fileDraft) publish() (err error) {
	defer func() { err = errors.Join(err, f.giveBack()) }()
	err = inOrder(
		func() error { return f.pragma("journal_mode = WAL") },
		f.closeConn, // copies the log back and removes it
		func() error { return syncFile(f.unfinished()) },
		func() error { return nothingAt(f.path) },
		func() error { return putInPlace(f.unfinished(), f.path) },
	)
	return err
}

// discard implements draftEngine.
func (f *fileDraft) discard() error {
	if f.lock == nil || f.kept {
		return f.giveBack()
	}
	return errors.Join(f.closeConn(), f.remove(), f.giveBack())
}

func (f *fileDraft) closeConn() error {
	c := f.sqliteConn
	f.sqliteConn = nil
	if c == nil {
		return nil
	}
	return c.Close()
}

func (f *fileDraft) remove() error {
	return removeAll(f.unfinished(), f.unfinished()+"-wal", f.unfinished()+"-shm", f.unfinished()+"-journal")
}

// giveBack closes what is open and lets go of the lock; what is written stays.
func (f *fileDraft) giveBack() error {
	lock := f.lock
	f.lock = nil
	if lock == nil {
		return nil
	}
	return errors.Join(f.closeConn(), lock.release())
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return firstError(f.Sync(), f.Close())
}
