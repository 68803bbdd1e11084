package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// pgDraft is a draft in a PostgreSQL database, in a schema that was empty.
type pgDraft struct {
	*pgSession
	steps []migration
	// kept is set where the draft can be taken up again: then each insert is a
	// transaction; else the whole draft is one.
	kept bool
}

// newPostgresDraft begins a draft, or with kept takes one up that is there.
func newPostgresDraft(ctx context.Context, o Options, schema int, kept bool) (_ *Draft, err error) {
	steps, err := postgresMigrations()
	if err != nil {
		return nil, err
	}
	if schema < 1 || schema > len(steps) {
		return nil, newerCopy(schema, len(steps))
	}
	c, err := pgConnect(ctx, o)
	if err != nil {
		return nil, err
	}
	p := &pgDraft{pgSession: &pgSession{ctx: ctx, conn: c}, steps: steps, kept: kept}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.discard())
		}
	}()
	// The lock is this connection's: nobody else makes or changes the schema.
	if err := p.script(pgWithoutHaste + "; SELECT pg_advisory_lock(1248815472, 0)"); err != nil {
		return nil, err
	}
	there, err := p.begun()
	if err == nil && !there {
		err = p.make(schema)
	}
	if err != nil {
		return nil, err
	}
	d := &Draft{draftEngine: p, c: conn{p.pgSession}, engine: &postgresDB{}}
	return d, d.begun()
}

// begun tells whether an unfinished draft that is kept is there.
func (p *pgDraft) begun() (bool, error) {
	_, _, err := p.schemaVersion()
	if errors.Is(err, errEmptySchema) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	unfinished, err := conn{p.pgSession}.integer("SELECT count(*) FROM pg_class WHERE relname = '" + progressTable +
		"' AND relnamespace = CAST(current_schema() AS regnamespace)")
	if err == nil && (unfinished == 0 || !p.kept) {
		err = fmt.Errorf("%w: the database holds a joinery already; nothing is overwritten: choose another database or schema", ErrExists)
	}
	return true, err
}

// make makes the schema. References within key_set are checked at the end: what
// refers may come before that to which it refers.
func (p *pgDraft) make(schema int) error {
	if err := p.script("BEGIN"); err != nil {
		return err
	}
	for _, m := range p.steps[:schema] {
		if err := p.apply(m); err != nil {
			return fmt.Errorf("migration %s: %w", m.name, err)
		}
	}
	if err := p.script("ALTER TABLE key_set DROP CONSTRAINT key_set_parent_fkey"); err != nil {
		return err
	}
	if !p.kept {
		return nil
	}
	return firstError(makeProgress(conn{p.pgSession}), p.script("COMMIT"))
}

// transaction implements draftEngine.
func (p *pgDraft) transaction(fn func(*tx) error) (err error) {
	if !p.kept {
		return fn(&tx{conn: conn{p.pgSession}})
	}
	defer func() { err = firstError(err, p.rollback()) }()
	if err := p.script("BEGIN"); err != nil {
		return err
	}
	defer func() { p.paged = false }() // a page is of a cursor, and a cursor of a transaction
	if err := fn(&tx{conn: conn{p.pgSession}}); err != nil {
		return err
	}
	return p.script("COMMIT")
}

// insert implements draftEngine.
func (p *pgDraft) insert(_ *tx, t copied, rows [][]any) error {
	_, err := p.conn.CopyFrom(p.ctx, pgx.Identifier{t.name}, t.names(), pgx.CopyFromRows(rows))
	return err
}

// upgrade implements draftEngine.
func (p *pgDraft) upgrade() error {
	return p.transaction(func(t *tx) error {
		version, _, err := p.schemaVersion()
		if err != nil {
			return err
		}
		for _, m := range p.steps[version:] {
			if err := p.apply(m); err != nil {
				return fmt.Errorf("migration %s: %w", m.name, err)
			}
		}
		if err := t.exec("UPDATE joinery_schema SET audit_id = (SELECT coalesce(max(id), 0) FROM audit)"); err != nil {
			return err
		}
		if err := p.script("ALTER TABLE key_set DROP CONSTRAINT IF EXISTS key_set_parent_fkey"); err != nil {
			return err
		}
		return p.script("ALTER TABLE key_set ADD FOREIGN KEY (parent) REFERENCES key_set")
	})
}

// publish implements draftEngine.
func (p *pgDraft) publish() error {
	if !p.kept {
		if err := p.script("COMMIT"); err != nil {
			return errors.Join(err, p.discard())
		}
	}
	return published(firstError(p.script("ANALYZE"), p.discard())) //nolint:misspell // as PostgreSQL has it
}

// discard implements draftEngine: a transaction that is open ends with its
// connection.
func (p *pgDraft) discard() error {
	if p.conn.IsClosed() {
		return nil
	}
	return p.conn.Close(context.WithoutCancel(p.ctx))
}
