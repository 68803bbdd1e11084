package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Draft is a database in the making, filled from a copy of the state of another
// one. No server opens it before Publish, and until then Discard leaves nothing
// of it. It is not safe for concurrent use.
type Draft struct {
	draftEngine
	c      conn
	engine engine
	tables []copied
	ended  Ended
}

// draftEngine is what each database does in its own way for a draft.
type draftEngine interface {
	// transaction runs fn in a transaction, or in the one that the whole draft is.
	transaction(fn func(*tx) error) error
	// insert writes rows of a table in such a transaction.
	insert(t *tx, table copied, rows [][]any) error
	// upgrade brings the schema to the newest version.
	upgrade() error
	// publish makes the draft a database in its place, on disk.
	publish() error
	// discard removes it, unless it is kept to be taken up again.
	discard() error
}

// NewDraft begins a database where o says, with the schema of that version. It
// never overwrites: ErrExists where there is one, ErrNewerSchema for a version
// that this program does not know.
func NewDraft(ctx context.Context, o Options, schema int) (*Draft, error) {
	return newDraft(ctx, o, schema, false)
}

// newDraft begins a draft, or where it is kept takes one up that is there.
func newDraft(ctx context.Context, o Options, schema int, kept bool) (*Draft, error) {
	if o.URL != "" {
		return newPostgresDraft(ctx, o, schema, kept)
	}
	return newFileDraft(ctx, o, schema, kept)
}

func newerCopy(schema, known int) error {
	return fmt.Errorf("%w: the copy has schema %d, this program knows %d; use a newer joinery", ErrNewerSchema, schema, known)
}

// begun reads what tables the draft has, once its schema is there.
func (d *Draft) begun() (err error) {
	d.tables, err = d.c.state(d.engine)
	return err
}

// Tables names the tables that the draft wants.
func (d *Draft) Tables() []string {
	names := make([]string, len(d.tables))
	for i, t := range d.tables {
		names[i] = t.name
	}
	return names
}

// Columns names the columns of a table; none for a table that this schema does
// not have.
func (d *Draft) Columns(table string) []string { return d.table(table).names() }

func (d *Draft) table(name string) copied {
	i := slices.IndexFunc(d.tables, func(t copied) bool { return t.name == name })
	if i < 0 {
		return copied{}
	}
	return d.tables[i]
}

// Insert writes rows of a table, their values in the order of Columns.
func (d *Draft) Insert(ctx context.Context, table string, rows [][]any) error {
	return d.insertAnd(ctx, table, rows, func(*tx) error { return nil })
}

// insertAnd writes rows, and what more does, in one transaction.
func (d *Draft) insertAnd(ctx context.Context, name string, rows [][]any, more func(*tx) error) error {
	t := d.table(name)
	if len(t.columns) == 0 {
		return fmt.Errorf("%w: no table %q", ErrCopy, name)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.transaction(func(tx *tx) error {
		if err := d.insert(tx, t, rows); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return more(tx)
	})
}

// Fence brings a draft that has all its rows to the newest schema and fences it
// as restored. note says from what, for people; actor is who does it. Everybody is
// signed out with it; Ended tells of how much.
func (d *Draft) Fence(note, actor string) error {
	return d.settle(func(t *tx) (err error) {
		d.ended, err = t.raiseFenceAnd(Fence{State: FenceRestored, Since: now(), Note: note}, actor)
		return err
	})
}

// Ended is what Fence ended.
func (d *Draft) Ended() Ended { return d.ended }

// settle brings the draft to the newest schema and makes its store row that of a
// database which no server has opened yet.
func (d *Draft) settle(more func(*tx) error) error {
	if err := d.upgrade(); err != nil {
		return err
	}
	return d.transaction(func(t *tx) error {
		s, found, err := t.storeRow()
		if err == nil && !found {
			err = fmt.Errorf("%w: it lacks the store row", ErrCopy)
		}
		if err != nil {
			return err
		}
		t.operator = s.operator
		if err := t.exec("UPDATE store SET instance = NULL, home = ''"); err != nil {
			return err
		}
		return more(t)
	})
}

// Fsck checks every invariant of the draft; see DB.Fsck.
func (d *Draft) Fsck(ctx context.Context, check Checker) (found []Violation, err error) {
	err = d.transaction(func(t *tx) (err error) {
		found, err = t.checkup(ctx, d.engine, check)
		return err
	})
	return found, err
}

// ErrPublished is part of the error of a Publish that put the draft in its place,
// where a server would open it, and then failed: perhaps it is not on disk yet.
var ErrPublished = errors.New("the database is in its place")

// published marks err, if it is one, as ErrPublished.
func published(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w, but: %w", ErrPublished, err)
}

// Publish puts the draft in its place, complete and on disk. It is over then.
// With ErrPublished in the error it is in its place all the same.
func (d *Draft) Publish() error { return d.publish() }

// Discard removes the draft, unless it was published.
func (d *Draft) Discard() error { return d.discard() }
