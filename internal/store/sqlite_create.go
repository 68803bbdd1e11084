package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"zombiezen.com/go/sqlite/sqlitex"

	"joinery"
)

// Create makes a new database with the newest schema and the operator's
// organisation. It never overwrites: an existing file is ErrExists. The file
// appears under its name when it is complete and on disk.
func Create(ctx context.Context, o Options) error {
	if o.URL != "" {
		return createPostgres(ctx, o)
	}
	lock, err := lockFile(ctx, o.Path, o.Successor)
	if err != nil {
		return err
	}
	defer func() { _ = lock.release() }()
	if err := nothingAt(o.Path); err != nil {
		return err
	}
	unfinished := o.Path + ".new"
	if err := removeAll(unfinished, unfinished+"-wal", unfinished+"-shm"); err != nil {
		return err
	}
	if err := createFile(o, unfinished); err != nil {
		return fmt.Errorf("create %s: %w", o.Path, err)
	}
	return putInPlace(unfinished, o.Path)
}

func removeAll(names ...string) error {
	for _, name := range names {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return firstError(d.Sync(), d.Close())
}

// createFile makes a complete database at path, closed and without a log.
func createFile(o Options, path string) error {
	steps, err := schemaMigrations()
	if err != nil {
		return err
	}
	pragmas := append(commonPragmas(o, writerCache),
		fmt.Sprintf("page_size = %d", pageSize), "journal_mode = WAL", fmt.Sprintf("application_id = %d", applicationID))
	c, err := newFile(path, pragmas...)
	if err != nil {
		return err
	}
	if _, _, err := c.migrate(steps); err != nil {
		return firstError(err, c.Close())
	}
	err = c.found(time.Now())
	// Closing the last connection copies the log back, syncs and removes it.
	return firstError(err, c.Close())
}

// found writes the rows that every database has, in one transaction.
func (c *sqliteConn) found(now time.Time) (err error) {
	end, err := sqlitex.ImmediateTransaction(c.Conn)
	if err != nil {
		return err
	}
	defer end(&err)
	return conn{c}.founding(now)
}

// founding writes the rows that every database has.
func (c conn) founding(now time.Time) error {
	org := joinery.NewOrgID()
	if err := c.exec("INSERT INTO organisation (id, name, kinds, created_at) VALUES (?, ?, ?, ?)", org, OperatorOrg, joinery.KindServerOperator, now); err != nil {
		return err
	}
	return c.exec("INSERT INTO store (id, epoch, operator_org, created_at) VALUES (1, 0, ?, ?)", org, now)
}

// Migrate brings an existing database to the newest schema and tells from which
// version to which. It needs the lock: no server may run meanwhile.
func Migrate(ctx context.Context, o Options) (from, to int, err error) {
	if o.URL != "" {
		steps, err := postgresMigrations()
		if err != nil {
			return 0, 0, err
		}
		return migratePostgres(ctx, o, steps)
	}
	steps, err := schemaMigrations()
	if err != nil {
		return 0, 0, err
	}
	return migrateFile(ctx, o, steps)
}

func migrateFile(ctx context.Context, o Options, steps []migration) (from, to int, err error) {
	lock, err := lockFile(ctx, o.Path, o.Successor)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = lock.release() }()
	c, err := openChecked(o, writerCache)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = firstError(err, c.Close()) }()
	if err := c.checkVersion(o.Path, len(steps)); err != nil && !errors.Is(err, ErrOlderSchema) {
		return 0, 0, err
	}
	return c.migrate(steps)
}
