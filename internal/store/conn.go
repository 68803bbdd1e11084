package store

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"zombiezen.com/go/sqlite"

	"joinery"
	"joinery/lorawan"
)

// conn is one connection. Every statement is prepared once and kept.
type conn struct {
	*sqlite.Conn
	// inTransaction is set for what runs in a transaction of the writer. After
	// some errors, a full disk among them, SQLite ends the transaction by itself;
	// what came after would be written alone and stay. So nothing comes after.
	inTransaction bool
}

var errNoTransaction = errors.New("the transaction has ended already")

// row is the current row of a statement; its methods read the columns in order.
type row struct {
	stmt *sqlite.Stmt
	col  int
}

// exec runs a statement that returns no rows.
func (c conn) exec(query string, args ...any) error {
	return c.each(query, func(*row) error { return nil }, args...)
}

// changes runs a statement and gives the number of rows that it changed.
func (c conn) changes(query string, args ...any) (int, error) {
	if err := c.exec(query, args...); err != nil {
		return 0, err
	}
	return c.Changes(), nil
}

// one runs scan on the first row of query and tells whether there was one.
func (c conn) one(query string, scan func(*row) error, args ...any) (found bool, err error) {
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

// each runs scan on every row of query.
func (c conn) each(query string, scan func(*row) error, args ...any) error {
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

// integer gives the first column of the first row of query; 0 without a row.
func (c conn) integer(query string, args ...any) (n int64, err error) {
	_, err = c.one(query, func(r *row) error { n = r.int(); return nil }, args...)
	return n, err
}

func (c conn) bind(query string, args []any) (*sqlite.Stmt, error) {
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
		if err := bindArg(stmt, i+1, arg); err != nil {
			return nil, err
		}
	}
	return stmt, nil
}

// bindArg binds one argument in the form in which it is stored: times in
// milliseconds, identifiers as bytes, and the zero of either as NULL where it
// is wrapped in optional.
func bindArg(stmt *sqlite.Stmt, i int, arg any) error {
	switch v := arg.(type) {
	case nil:
		stmt.BindNull(i)
	case []byte:
		if v == nil {
			stmt.BindNull(i)
		} else {
			stmt.BindBytes(i, v)
		}
	case joinery.Sealed:
		return bindArg(stmt, i, []byte(v))
	case lorawan.EUI64:
		stmt.BindBytes(i, v[:])
	case lorawan.NetID:
		stmt.BindBytes(i, v[:])
	case [32]byte:
		stmt.BindBytes(i, v[:])
	case time.Time:
		stmt.BindInt64(i, v.UnixMilli())
	case lorawan.MACVersion:
		stmt.BindInt64(i, macCode(v))
	case optional:
		if reflect.ValueOf(v.value).IsZero() {
			stmt.BindNull(i)
			return nil
		}
		return bindArg(stmt, i, v.value)
	default:
		return bindKind(stmt, i, reflect.ValueOf(arg))
	}
	return nil
}

func bindKind(stmt *sqlite.Stmt, i int, v reflect.Value) error {
	switch v.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		stmt.BindInt64(i, v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		stmt.BindInt64(i, int64(v.Uint()))
	case reflect.Bool:
		stmt.BindBool(i, v.Bool())
	case reflect.String:
		stmt.BindText(i, v.String())
	default:
		return fmt.Errorf("argument %d: no stored form of %s", i, v.Type())
	}
	return nil
}

// optional is an argument whose zero value is stored as NULL.
type optional struct{ value any }

// macCode is the stored form of a MAC version: its three numbers, 103 for
// 1.0.3. 0 is no version.
func macCode(v lorawan.MACVersion) int64 {
	switch {
	case !v.Valid():
		return 0
	case v == lorawan.MAC1_1:
		return 110
	default:
		return 100 + int64(v-lorawan.MAC1_0_0)
	}
}

func macVersion(code int64) lorawan.MACVersion {
	for v := lorawan.MAC1_0_0; v.Valid(); v++ {
		if macCode(v) == code {
			return v
		}
	}
	return 0
}

func (r *row) next() int { r.col++; return r.col - 1 }

func (r *row) int() int64   { return r.stmt.ColumnInt64(r.next()) }
func (r *row) bool() bool   { return r.stmt.ColumnBool(r.next()) }
func (r *row) text() string { return r.stmt.ColumnText(r.next()) }

// time reads milliseconds; the zero time for NULL.
func (r *row) time() time.Time {
	col := r.next()
	if r.stmt.ColumnIsNull(col) {
		return time.Time{}
	}
	return time.UnixMilli(r.stmt.ColumnInt64(col)).UTC()
}

// blob copies a column; nil for NULL.
func (r *row) blob() []byte {
	col := r.next()
	if r.stmt.ColumnIsNull(col) {
		return nil
	}
	b := make([]byte, r.stmt.ColumnLen(col))
	r.stmt.ColumnBytes(col, b)
	return b
}

// into copies a column of known length; zeros for NULL.
func (r *row) into(b []byte) { r.stmt.ColumnBytes(r.next(), b) }

func (r *row) eui() (e lorawan.EUI64)   { r.into(e[:]); return e }
func (r *row) netID() (n lorawan.NetID) { r.into(n[:]); return n }

// firstError gives the first error of calls that were all made, such as those
// that close something; for steps of which each needs the one before see inOrder.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// inOrder runs steps one after another up to the first that fails.
func inOrder(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// openConn opens one connection to an existing file and runs pragmas on it.
func openConn(path string, pragmas ...string) (conn, error) {
	sc, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		return conn{}, err
	}
	sc.SetBusyTimeout(busyTimeout)
	c := conn{Conn: sc}
	for _, p := range pragmas {
		if err := c.pragma(p); err != nil {
			_ = sc.Close()
			return conn{}, err
		}
	}
	return c, nil
}

// busyTimeout is longer than any transaction of ours takes: only another
// program that opened the file can make us wait, and then we say so.
const busyTimeout = 5 * time.Second

// pragma runs "PRAGMA p" outside the statement cache.
func (c conn) pragma(p string) error {
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
func (c conn) pragmaValue(name string) (v string, err error) {
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

func (c conn) pragmaInt(name string) (int, error) {
	v, err := c.pragmaValue(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(v)
}
