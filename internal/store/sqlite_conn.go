package store

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"zombiezen.com/go/sqlite"
)

// sqliteConn is one connection to a file. Every statement is prepared once and
// kept.
type sqliteConn struct {
	*sqlite.Conn
	// inTransaction is set for what runs in a transaction of the writer. After
	// some errors, a full disk among them, SQLite ends the transaction by itself;
	// what came after would be written alone and stay. So nothing comes after.
	inTransaction bool
}

var errNoTransaction = errors.New("the transaction has ended already")

// changes implements session.
func (c *sqliteConn) changes(query string, args ...any) (int, error) {
	if err := c.each(query, func(*row) error { return nil }, args...); err != nil {
		return 0, err
	}
	return c.Changes(), nil
}

// exec runs a statement that takes no arguments and returns no rows.
func (c *sqliteConn) exec(query string) error { return conn{c}.exec(query) }

// one implements session.
func (c *sqliteConn) one(query string, scan func(*row) error, args ...any) (found bool, err error) {
	stmt, err := c.bind(query, args)
	if err != nil {
		return false, err
	}
	found, err = stmt.Step()
	if err == nil && found {
		err = scan(&row{stmt: stmt})
	}
	return found, firstError(err, stmt.Reset())
}

// each implements session.
func (c *sqliteConn) each(query string, scan func(*row) error, args ...any) error {
	stmt, err := c.bind(query, args)
	if err != nil {
		return err
	}
	for {
		found, err := stmt.Step()
		if err == nil && found {
			err = scan(&row{stmt: stmt})
		}
		if err != nil || !found {
			return firstError(err, stmt.Reset())
		}
	}
}

func (c *sqliteConn) bind(query string, args []any) (*sqlite.Stmt, error) {
	if c.inTransaction && c.AutocommitEnabled() {
		return nil, errNoTransaction
	}
	stmt, err := c.Prepare(query)
	if err != nil {
		return nil, err
	}
	if n := stmt.BindParamCount(); n != len(args) {
		return nil, fmt.Errorf("statement takes %d arguments, got %d", n, len(args))
	}
	for i, arg := range args {
		stored, err := storedForm(arg)
		if err != nil {
			return nil, fmt.Errorf("argument %d: %w", i+1, err)
		}
		switch v := stored.(type) {
		case nil:
			stmt.BindNull(i + 1)
		case int64:
			stmt.BindInt64(i+1, v)
		case string:
			stmt.BindText(i+1, v)
		case []byte:
			stmt.BindBytes(i+1, v)
		}
	}
	return stmt, nil
}

// openConn opens one connection to an existing file and runs pragmas on it.
func openConn(path string, pragmas ...string) (*sqliteConn, error) {
	givePages()
	ownFiles()
	sc, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		return nil, err
	}
	sc.SetBusyTimeout(busyTimeout)
	c := &sqliteConn{Conn: sc}
	for _, p := range pragmas {
		if err := c.pragma(p); err != nil {
			_ = sc.Close()
			return nil, err
		}
	}
	return c, nil
}

// busyTimeout is longer than any transaction of ours takes: only another
// program that opened the file can make us wait, and then we say so.
const busyTimeout = 5 * time.Second

// pragma runs "PRAGMA p" outside the statement cache.
func (c *sqliteConn) pragma(p string) error {
	stmt, _, err := c.PrepareTransient("PRAGMA " + p)
	if err != nil {
		return fmt.Errorf("PRAGMA %s: %w", p, err)
	}
	for {
		more, err := stmt.Step()
		if err != nil || !more {
			return firstError(err, stmt.Finalize())
		}
	}
}

// pragmaValue gives the first column of "PRAGMA name".
func (c *sqliteConn) pragmaValue(name string) (v string, err error) {
	stmt, _, err := c.PrepareTransient("PRAGMA " + name)
	if err != nil {
		return "", err
	}
	found, err := stmt.Step()
	if found && err == nil {
		v = stmt.ColumnText(0)
	}
	return v, firstError(err, stmt.Finalize())
}

func (c *sqliteConn) pragmaInt(name string) (int, error) {
	v, err := c.pragmaValue(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(v)
}
