package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// pgSession runs statements on one connection for one caller, whose context it
// keeps for that long.
type pgSession struct {
	ctx   context.Context
	conn  *pgx.Conn
	limit time.Duration // of one statement; 0 is none
	// paged reads the rows of a statement without arguments page by page: there may
	// be more than fit into memory.
	paged   bool
	cursors int // how many there were
}

// pgLimit is how long a statement may take that touches a few rows. Together
// with what is done about it afterwards it stays below the two seconds in which
// a request must be answered.
const pgLimit = time.Second

// errNoContact: the connection broke, or PostgreSQL did not answer in time. What
// was being written may be on disk.
var errNoContact = errors.New("PostgreSQL does not answer")

// one implements session.
func (s *pgSession) one(query string, scan func(*row) error, args ...any) (found bool, err error) {
	err = s.run(query, args, func(values [][]byte) error {
		if found {
			return nil
		}
		found = true
		return scan(&row{raw: values})
	}, nil)
	return found, err
}

// each implements session. The rows are all read before scan sees the first: a
// connection does one thing at a time, and scan may need it.
func (s *pgSession) each(query string, scan func(*row) error, args ...any) error {
	if s.paged && len(args) == 0 {
		return s.eachPage(query, scan)
	}
	var rows [][][]byte
	err := s.run(query, args, func(values [][]byte) error {
		rows = append(rows, copyValues(values))
		return nil
	}, nil)
	if err != nil {
		return err
	}
	for _, values := range rows {
		if err := scan(&row{raw: values}); err != nil {
			return err
		}
	}
	return nil
}

// pageRows is how many rows a page has.
const pageRows = 500

// eachPage is each for s.paged.
func (s *pgSession) eachPage(query string, scan func(*row) error) error {
	s.cursors++
	name := fmt.Sprintf("page%d", s.cursors)
	hold := ""
	if s.idle() { // it would end with its own statement
		hold = "WITH HOLD "
	}
	if err := s.script("DECLARE " + name + " NO SCROLL CURSOR " + hold + "FOR " + pgQuery(query)); err != nil {
		return err
	}
	for {
		var rows [][][]byte
		page := s.conn.PgConn().ExecParams(s.ctx, fmt.Sprintf("FETCH %d FROM %s", pageRows, name), nil, nil, nil, binaryFormat)
		for page.NextRow() {
			rows = append(rows, copyValues(page.Values()))
		}
		if _, err := page.Close(); err != nil {
			return contactError(err)
		}
		for _, values := range rows {
			if err := scan(&row{raw: values}); err != nil {
				return err
			}
		}
		if len(rows) < pageRows {
			return s.script("CLOSE " + name)
		}
	}
}

// copyValues copies a row out of the connection's buffer.
func copyValues(values [][]byte) [][]byte {
	size := 0
	for _, v := range values {
		size += len(v)
	}
	all, copied := make([]byte, 0, size), make([][]byte, len(values))
	for i, v := range values {
		if v != nil {
			all = append(all, v...)
			copied[i] = all[len(all)-len(v) : len(all) : len(all)]
		}
	}
	return copied
}

// changes implements session.
func (s *pgSession) changes(query string, args ...any) (n int, err error) {
	err = s.run(query, args, nil, func(tag pgconn.CommandTag) { n = int(tag.RowsAffected()) })
	return n, err
}

// run runs one statement; scan sees each row while it stands in the
// connection's buffer.
func (s *pgSession) run(query string, args []any, scan func([][]byte) error, done func(pgconn.CommandTag)) error {
	ctx := s.ctx
	if s.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.limit)
		defer cancel()
	}
	stmt, err := s.prepare(ctx, query)
	if err != nil {
		return err
	}
	if len(stmt.ParamOIDs) != len(args) {
		return fmt.Errorf("statement takes %d arguments, got %d", len(stmt.ParamOIDs), len(args))
	}
	values := make([][]byte, len(args))
	for i, arg := range args {
		if values[i], err = encodeArg(arg, stmt.ParamOIDs[i]); err != nil {
			return fmt.Errorf("argument %d: %w", i+1, err)
		}
	}
	result := s.conn.PgConn().ExecPrepared(ctx, stmt.Name, values, binaryFormat, binaryFormat)
	var failed error
	for result.NextRow() {
		if scan != nil && failed == nil {
			failed = scan(result.Values())
		}
	}
	tag, err := result.Close()
	if err != nil {
		return contactError(err)
	}
	if done != nil {
		done(tag)
	}
	return failed
}

// prepare gives a statement that was prepared on this connection before, or
// prepares it.
func (s *pgSession) prepare(ctx context.Context, query string) (*pgconn.StatementDescription, error) {
	query = pgQuery(query)
	stmt, err := s.conn.Prepare(ctx, query, query) // its name becomes a hash of it
	return stmt, contactError(err)
}

// binaryFormat asks for, and gives, all values in binary.
var binaryFormat = []int16{1}

// contactError marks an error that is not PostgreSQL's answer.
func contactError(err error) error {
	if err == nil {
		return nil
	}
	if _, answered := errors.AsType[*pgconn.PgError](err); answered {
		return err
	}
	return fmt.Errorf("%w: %w", errNoContact, err)
}

// encodeArg gives an argument in PostgreSQL's binary format for a parameter of
// a type.
func encodeArg(arg any, oid uint32) ([]byte, error) {
	stored, err := storedForm(arg)
	if err != nil {
		return nil, err
	}
	switch v := stored.(type) {
	case nil:
		return nil, nil
	case []byte:
		return v, nil
	case string:
		return append([]byte{}, v...), nil
	case int64:
		return encodeInteger(v, oid)
	}
	return nil, fmt.Errorf("no binary form of %T", stored)
}

func encodeInteger(v int64, oid uint32) ([]byte, error) {
	switch oid {
	case pgtype.Int8OID:
		return binary.BigEndian.AppendUint64(nil, uint64(v)), nil
	case pgtype.Int4OID:
		if int64(int32(v)) == v {
			return binary.BigEndian.AppendUint32(nil, uint32(v)), nil
		}
	case pgtype.Int2OID:
		if int64(int16(v)) == v {
			return binary.BigEndian.AppendUint16(nil, uint16(v)), nil
		}
	}
	return nil, fmt.Errorf("%d does not fit type %d", v, oid)
}

// pgArray writes a one-dimensional array in PostgreSQL's binary format.
type pgArray struct{ b []byte }

// newArray begins an array of n elements of a type.
func newArray(n int, oid uint32) *pgArray {
	b := make([]byte, 0, 20+16*n)
	b = binary.BigEndian.AppendUint32(b, 1) // dimensions
	b = binary.BigEndian.AppendUint32(b, 1) // there may be NULLs
	b = binary.BigEndian.AppendUint32(b, oid)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	return &pgArray{binary.BigEndian.AppendUint32(b, 1)} // first index
}

func (a *pgArray) integer(v int64) {
	a.b = binary.BigEndian.AppendUint32(a.b, 8)
	a.b = binary.BigEndian.AppendUint64(a.b, uint64(v))
}

func (a *pgArray) bytes(v []byte) {
	a.b = binary.BigEndian.AppendUint32(a.b, uint32(len(v)))
	a.b = append(a.b, v...)
}

func (a *pgArray) null() { a.b = binary.BigEndian.AppendUint32(a.b, ^uint32(0)) }

// pgQueries remembers what pgQuery made of each query.
var pgQueries sync.Map

// pgQuery writes a query as PostgreSQL wants it. This is all in which ordinary
// statements differ: placeholders, and the names of types in a CAST.
func pgQuery(query string) string {
	if made, ok := pgQueries.Load(query); ok {
		return made.(string) //nolint:forcetypeassert // we alone store into it
	}
	made := pgTypes.Replace(numberPlaceholders(query))
	pgQueries.Store(query, made)
	return made
}

var pgTypes = strings.NewReplacer(" AS BLOB)", " AS bytea)", " AS INTEGER)", " AS bigint)")

// numberPlaceholders makes $1 of ?1, and of ? without a number the next after
// the one before. Our queries have no question mark within quotes.
func numberPlaceholders(query string) string {
	var b strings.Builder
	next := 1
	for i := range len(query) {
		if query[i] != '?' {
			b.WriteByte(query[i])
			continue
		}
		b.WriteByte('$')
		if i+1 == len(query) || query[i+1] < '1' || query[i+1] > '9' {
			fmt.Fprint(&b, next)
			next++
		}
	}
	return b.String()
}
