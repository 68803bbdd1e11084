package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

func postgresMigrations() ([]migration, error) { return migrations(embedded, "migrations/postgres") }

// schemaVersion tells which migration was the last, and from which on programs
// may serve what is there; ErrMissing where there is no schema, ErrForeign where
// the schema is another program's.
func (s *pgSession) schemaVersion() (version, servesFrom int, err error) {
	const look = `SELECT CASE WHEN to_regclass(quote_ident(current_schema()) || '.joinery_schema') IS NULL THEN 0 ELSE 1 END,
		(SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND relnamespace = CAST(current_schema() AS regnamespace)),
		coalesce(current_schema(), ''), current_database()`
	var ours, others int64
	var schema, database string
	if _, err := s.one(look, func(r *row) error {
		ours, others, schema, database = r.int(), r.int(), r.text(), r.text()
		return nil
	}); err != nil {
		return 0, 0, err
	}
	switch {
	case schema == "":
		return 0, 0, fmt.Errorf("%w: database %s has none of the schemas in the search path of this user; make one, or correct search_path", ErrMissing, database)
	case ours == 0 && others > 0:
		return 0, 0, fmt.Errorf("%w: schema %s of database %s holds tables, but none of joinery; correct the configured URL, or name an empty schema in search_path",
			ErrForeign, schema, database)
	case ours == 0:
		return 0, 0, fmt.Errorf("%w: schema %s of database %s is empty; correct the configured URL, restore a backup, "+
			"or make a new database in it with joinery migrate --create", errEmptySchema, schema, database)
	}
	_, err = s.one("SELECT version, serves_from FROM joinery_schema", func(r *row) error {
		version, servesFrom = int(r.int()), int(r.int())
		return nil
	})
	return version, servesFrom, err
}

// createPostgres is Create for PostgreSQL: in an existing database, in a schema
// that is empty. All of it is one transaction.
func createPostgres(ctx context.Context, o Options) error {
	steps, err := postgresMigrations()
	if err != nil {
		return err
	}
	return withSchema(ctx, o, func(s *pgSession) error {
		_, _, err := s.schemaVersion()
		switch {
		case err == nil:
			return fmt.Errorf("%w: the database holds a joinery already; choose another database or schema", ErrExists)
		case !errors.Is(err, errEmptySchema):
			return err
		}
		for _, m := range steps {
			if err := s.apply(m); err != nil {
				return fmt.Errorf("migration %s: %w", m.name, err)
			}
		}
		return conn{s}.founding(time.Now())
	})
}

// migratePostgres is Migrate for PostgreSQL.
func migratePostgres(ctx context.Context, o Options, steps []migration) (from, to int, err error) {
	for more := true; more; {
		step := func(s *pgSession) error {
			version, servesFrom, err := s.schemaVersion()
			if err != nil {
				return err
			}
			if from == 0 {
				from = version
			}
			to = version
			if servesFrom > len(steps) {
				return fmt.Errorf("%w: the database has version %d, this program knows %d; use a newer joinery", ErrNewerSchema, version, len(steps))
			}
			if more = version < len(steps); !more {
				return nil
			}
			m := steps[version]
			if err := s.admits(m, version); err != nil {
				return err
			}
			if err := s.apply(m); err != nil {
				return fmt.Errorf("migration %s: %w", m.name, err)
			}
			return nil
		}
		if err := o.whenAlone(ctx, func() error { return withSchema(ctx, o, step) }); err != nil {
			return from, to, err
		}
	}
	return from, to, nil
}

// pgAloneAgain is how often it is tried whether servers are gone.
const pgAloneAgain = 100 * time.Millisecond

// whenAlone does what needs the database for itself, again and again until no server has
// it open, for as long as o.Patience; see there.
func (o Options) whenAlone(ctx context.Context, do func() error) error {
	end, told := time.Now().Add(o.Patience), false
	for {
		err := do()
		if !errors.Is(err, ErrLocked) || !time.Now().Before(end) {
			return err
		}
		if !told && o.Waiting != nil {
			o.Waiting()
		}
		told = true
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pgAloneAgain):
		}
	}
}

// Each connection of each server holds this lock, shared with the others. Who
// gets it alone knows that no server runs.
const pgServersLock = "1248815471, CAST(CAST(to_regclass('joinery_schema') AS oid) AS int)"

// admits refuses a step that servers of version cannot live with, while any
// runs.
func (s *pgSession) admits(m migration, version int) error {
	if m.servesFrom() <= version {
		return nil
	}
	alone, err := conn{s}.integer("SELECT pg_try_advisory_xact_lock(" + pgServersLock + ")")
	if err == nil && alone == 0 {
		err = fmt.Errorf("%w: servers run, and those of this version cannot serve what %s makes; stop all of them first", ErrLocked, m.name)
	}
	return err
}

// servesFromLine begins a line of a migration which says the number of the
// oldest migration whose programs may serve the schema afterwards. Without it
// that is the migration itself.
const servesFromLine = "-- serves-from:"

func (m migration) servesFrom() int {
	for line := range strings.Lines(m.sql) {
		if text, ok := strings.CutPrefix(line, servesFromLine); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(text)); err == nil {
				return n
			}
		}
	}
	return m.version
}

// withSchema runs fn in a transaction on a connection of its own, while nobody
// else changes the schema.
func withSchema(ctx context.Context, o Options, fn func(*pgSession) error) (err error) {
	c, err := pgConnect(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = firstError(err, c.Close(context.WithoutCancel(ctx))) }()
	s := &pgSession{ctx: ctx, conn: c}
	if err := s.script("BEGIN; SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock(1248815472, 0)"); err != nil {
		return err
	}
	if err := fn(s); err != nil {
		return err // closing the connection rolls back
	}
	return s.script("COMMIT")
}

// apply runs one migration in the transaction that is open.
func (s *pgSession) apply(m migration) error {
	if err := s.script(m.sql); err != nil {
		return err
	}
	return conn{s}.exec("UPDATE joinery_schema SET version = ?, serves_from = ?", m.version, m.servesFrom())
}

// errEmptySchema is the ErrMissing of a schema in which nothing is.
var errEmptySchema = fmt.Errorf("%w", ErrMissing)

// columns implements engine.
func (*postgresDB) columns(c conn) (map[string][]column, error) { return pgColumns(c) }

func pgColumns(c conn) (map[string][]column, error) {
	const query = `SELECT CAST(t.relname AS text), CAST(a.attname AS text), CAST(a.atttypid AS regtype) || ''
		FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid
		WHERE t.relkind IN ('r', 'p') AND t.relnamespace = CAST(current_schema() AS regnamespace) AND t.relname <> 'joinery_schema'
		AND a.attnum > 0 AND NOT a.attisdropped ORDER BY t.relname, a.attnum`
	kinds := map[string]columnKind{"bigint": kindInteger, "integer": kindInteger, "smallint": kindInteger, "text": kindText, "bytea": kindBlob}
	return readColumns(c, query, kinds)
}

// lastMigration implements engine.
func (*postgresDB) lastMigration(c conn) (int, error) {
	n, err := c.integer("SELECT version FROM joinery_schema")
	return int(n), err
}
