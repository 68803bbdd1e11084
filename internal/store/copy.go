package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Copy is one state of a whole database, to be read row by row. What it gives
// does not depend on the engine: numbers (int64), text (string), bytes and nil.
type Copy struct {
	c      conn
	tables []copied
	schema int
	store  storeRow
	at     time.Time
}

// Copy shows fn one state of the database, while joins go on. A write-ahead log
// cannot shrink as long as fn runs.
func (d *DB) Copy(ctx context.Context, fn func(*Copy) error) error {
	return d.engine.copying(ctx, func(c conn) error {
		s := &Copy{c: c, at: now()}
		var err error
		if s.store, _, err = c.storeRow(); err != nil { // the first read opens the snapshot
			return err
		}
		if s.tables, err = c.state(d.engine); err != nil {
			return err
		}
		if s.schema, err = d.engine.lastMigration(c); err != nil {
			return err
		}
		return fn(s)
	})
}

// TakenAt is when the state was current.
func (s *Copy) TakenAt() time.Time { return s.at }

// Schema is the number of the last migration.
func (s *Copy) Schema() int { return s.schema }

// Epoch is how often servers opened the database until then.
func (s *Copy) Epoch() int64 { return s.store.epoch }

// Tables names the tables, each behind those to which it refers.
func (s *Copy) Tables() []string {
	names := make([]string, len(s.tables))
	for i, t := range s.tables {
		names[i] = t.name
	}
	return names
}

func (s *Copy) table(name string) copied {
	i := slices.IndexFunc(s.tables, func(t copied) bool { return t.name == name })
	if i < 0 {
		return copied{}
	}
	return s.tables[i]
}

// Columns names the columns of a table.
func (s *Copy) Columns(table string) []string { return s.table(table).names() }

// Count gives the number of rows of all tables together.
func (s *Copy) Count() (all int64, err error) {
	for _, t := range s.tables {
		n, err := s.c.integer("SELECT count(*) FROM " + t.name)
		if err != nil {
			return 0, err
		}
		all += n
	}
	return all, nil
}

// Rows calls fn with each row of a table, its values in the order of Columns.
func (s *Copy) Rows(table string, fn func(row []any) error) error {
	return s.rowsAfter(table, nil, fn)
}

// copyPage is how many rows are read by one statement.
const copyPage = 2000

// rowsAfter is Rows from the row on whose key comes after the one given.
func (s *Copy) rowsAfter(name string, after []any, fn func(row []any) error) error {
	t := s.table(name)
	if len(t.columns) == 0 {
		return fmt.Errorf("%w: no table %q", ErrCopy, name)
	}
	for n := copyPage; n == copyPage; {
		n = 0
		query, args := t.page(after)
		err := s.c.each(query, func(r *row) error {
			values := make([]any, len(t.columns))
			for i, c := range t.columns {
				values[i] = r.value(c.kind)
			}
			n++
			after = t.keyOf(values)
			return fn(values)
		}, args...)
		if err != nil {
			return err
		}
	}
	return nil
}

// page is the statement that reads the next rows behind a key.
func (t copied) page(after []any) (query string, args []any) {
	var where string
	if after != nil {
		where = fmt.Sprintf(" WHERE (%s) > (%s)", strings.Join(t.key, ", "), questionMarks(len(t.key)))
	}
	return fmt.Sprintf("SELECT %s FROM %s%s ORDER BY %s LIMIT %d",
		strings.Join(t.names(), ", "), t.name, where, strings.Join(t.key, ", "), copyPage), after
}

// keyOf gives the key of a row.
func (t copied) keyOf(values []any) []any {
	key := make([]any, len(t.key))
	for i, name := range t.key {
		key[i] = values[slices.IndexFunc(t.columns, func(c column) bool { return c.name == name })]
	}
	return key
}

// insert is the statement that writes a row.
func (t copied) insert() string {
	return fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", t.name, strings.Join(t.names(), ", "), questionMarks(len(t.columns)))
}

// questionMarks is n of them, for a statement's arguments.
func questionMarks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }
