package store

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"time"

	"zombiezen.com/go/sqlite"

	"joinery"
	"joinery/lorawan"
)

// conn is one connection of either engine. Placeholders are ? or ?1, ?2 and so
// on; arguments are what storedForm knows.
type conn struct{ session }

// session is a connection as its engine has it. Statements are prepared once
// and kept.
type session interface {
	// one runs scan on the first row of query and tells whether there was one.
	one(query string, scan func(*row) error, args ...any) (found bool, err error)
	// each runs scan on every row of query. scan may run other statements.
	each(query string, scan func(*row) error, args ...any) error
	// changes runs a statement and gives the number of rows that it changed.
	changes(query string, args ...any) (int, error)
}

// exec runs a statement that returns no rows.
func (c conn) exec(query string, args ...any) error {
	_, err := c.changes(query, args...)
	return err
}

// integer gives the first column of the first row of query; 0 without a row.
func (c conn) integer(query string, args ...any) (n int64, err error) {
	_, err = c.one(query, func(r *row) error { n = r.int(); return nil }, args...)
	return n, err
}

// tx is a connection inside a transaction.
type tx struct {
	conn
	operator joinery.OrgID
	sequence *sequence // nil for a draft
	// aside is set by a transaction that comes often and changes nothing that a
	// join reads, so that readers of joins keep their snapshots.
	aside bool
}

// row is the current row of a statement; its methods read the columns in order.
// It is of SQLite where stmt is set, else of PostgreSQL. There is no interface
// between, because a join reads thirty columns.
type row struct {
	stmt *sqlite.Stmt
	raw  [][]byte // in PostgreSQL's binary format; nil for NULL
	col  int
}

func (r *row) next() int { r.col++; return r.col - 1 }

// null tells whether the next column is NULL, and does not read it.
func (r *row) null() bool {
	if r.stmt != nil {
		return r.stmt.ColumnIsNull(r.col)
	}
	return r.raw[r.col] == nil
}

// int reads a number or a truth value; 0 for NULL.
func (r *row) int() int64 {
	if r.stmt != nil {
		return r.stmt.ColumnInt64(r.next())
	}
	switch b := r.raw[r.next()]; len(b) {
	case 8:
		return int64(binary.BigEndian.Uint64(b))
	case 4:
		return int64(int32(binary.BigEndian.Uint32(b)))
	case 2:
		return int64(int16(binary.BigEndian.Uint16(b)))
	case 1:
		return int64(b[0])
	default:
		return 0
	}
}

func (r *row) bool() bool { return r.int() != 0 }

func (r *row) text() string {
	if r.stmt != nil {
		return r.stmt.ColumnText(r.next())
	}
	return string(r.raw[r.next()])
}

// time reads milliseconds; the zero time for NULL.
func (r *row) time() time.Time {
	if r.null() {
		r.next()
		return time.Time{}
	}
	return time.UnixMilli(r.int()).UTC()
}

// blob copies a column; nil for NULL.
func (r *row) blob() []byte {
	if r.null() {
		r.next()
		return nil
	}
	if r.stmt == nil {
		return append([]byte{}, r.raw[r.next()]...)
	}
	col := r.next()
	b := make([]byte, r.stmt.ColumnLen(col))
	r.stmt.ColumnBytes(col, b)
	return b
}

// into copies a column of known length; zeros for NULL.
func (r *row) into(b []byte) {
	if r.stmt != nil {
		r.stmt.ColumnBytes(r.next(), b)
		return
	}
	copy(b, r.raw[r.next()])
}

func (r *row) eui() (e lorawan.EUI64)   { r.into(e[:]); return e }
func (r *row) netID() (n lorawan.NetID) { r.into(n[:]); return n }

// optional is an argument whose zero value is stored as NULL.
type optional struct{ value any }

// storedForm gives an argument in the form in which it is stored: nil, a number,
// text or bytes. Times are milliseconds, truth values 0 and 1, identifiers
// numbers or bytes.
func storedForm(arg any) (any, error) {
	switch v := arg.(type) {
	case nil:
		return nil, nil
	case []byte:
		if v == nil {
			return nil, nil
		}
		return v, nil
	case joinery.Sealed:
		return storedForm([]byte(v))
	case lorawan.EUI64:
		return v[:], nil
	case lorawan.NetID:
		return v[:], nil
	case [32]byte:
		return v[:], nil
	case time.Time:
		return v.UnixMilli(), nil
	case lorawan.MACVersion:
		return macCode(v), nil
	case optional:
		if reflect.ValueOf(v.value).IsZero() {
			return nil, nil
		}
		return storedForm(v.value)
	}
	switch v := reflect.ValueOf(arg); v.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int(), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return int64(v.Uint()), nil
	case reflect.Bool:
		if v.Bool() {
			return int64(1), nil
		}
		return int64(0), nil
	case reflect.String:
		return v.String(), nil
	default:
		return nil, fmt.Errorf("no stored form of %s", v.Type())
	}
}

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
