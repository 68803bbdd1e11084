package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"joinery"
)

// postgresDB is the engine over a PostgreSQL database, which other servers may
// use at the same time.
type postgresDB struct {
	options Options
	log     *slog.Logger
	config  *pgxpool.Config
	schema  int  // the last migration that this program knows
	serves  bool // and so its connections hold pgServersLock

	fence    *atomic.Pointer[Fence] // of the DB
	sequence *sequence              // of the DB
	home     atomic.Value           // string: by what the database was known when it was opened; see pgHome

	joins  *pgxpool.Pool // for joins, which nobody else keeps waiting
	others *pgxpool.Pool
	// reading holds a token for each reader of others, so that the writer always
	// finds a connection.
	reading chan struct{}

	loads   loadQueue
	commits waiting // its joins only
	writes  waiting // its others only

	// commitFault, where a test sets it, runs in place of sending a batch.
	commitFault func(send func() error) error

	following following
	fleet     atomic.Pointer[fleetLock] // that this server holds; nil for none

	running sync.WaitGroup
	closed  chan struct{}
	life    context.Context // ends with closed
	end     context.CancelFunc
}

// Connections of each server. PostgreSQL lets 100 in unless it is told
// otherwise.
const (
	joinConns   = 8 // batches in flight, and single look-ups of joins
	readerConns = 4
	otherConns  = readerConns + 3 // the writer, who holds the fleet for long, and who leads
)

// connectTimeout bounds the making of one connection. Nobody waits that long for
// one: it is there for who comes next.
const connectTimeout = 3 * time.Second

// pgVersion is the oldest server that is known to work.
const pgVersion = 140000

// poolConfig is how this program connects.
func poolConfig(o Options) (*pgxpool.Config, error) {
	if os.Getenv("PGPASSWORD") != "" {
		return nil, errors.New("PGPASSWORD is set: put the password into a file of its own, and name that as password_file")
	}
	c, err := pgxpool.ParseConfig(o.URL)
	if err != nil { // it may repeat the URL, and so what does not belong there
		return nil, errors.New("the database URL cannot be understood: want postgres://user@host:port/database?sslmode=verify-full, and only settings that libpq knows")
	}
	conn := c.ConnConfig
	conn.ConnectTimeout = connectTimeout
	conn.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	set := func(name, value string) { conn.RuntimeParams[name] = value }
	set("application_name", "joinery")
	set("default_transaction_isolation", "read committed")
	set("lock_timeout", "700ms") // well below pgLimit: who waits for a row must not look like a PostgreSQL that hangs
	set("statement_timeout", "30s")
	// A server that hangs in a transaction must not keep others from writing.
	set("idle_in_transaction_session_timeout", "10s")
	// Nor must one that is gone without a word keep its locks and connections.
	set("tcp_keepalives_idle", "5")
	set("tcp_keepalives_interval", "2")
	set("tcp_keepalives_count", "3")
	set("tcp_user_timeout", "10s")
	set("jit", "off")
	c.BeforeConnect = func(_ context.Context, conn *pgx.ConnConfig) error { return setPassword(conn, o.PasswordFile) }
	c.MaxConnLifetime = time.Hour
	c.PingTimeout = pgLimit
	return c, nil
}

// setPassword reads the password anew for each connection, so that it can be
// changed while the server runs.
func setPassword(c *pgx.ConnConfig, file string) error {
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("password file of the database: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	c.Password = strings.TrimRight(line, "\r")
	return nil
}

// openPostgres opens a PostgreSQL database. With an error it gives back what it
// opened.
func openPostgres(ctx context.Context, o Options, why purpose) (_ *DB, err error) {
	steps, err := postgresMigrations()
	if err != nil {
		return nil, err
	}
	config, err := poolConfig(o)
	if err != nil {
		return nil, err
	}
	e := &postgresDB{
		options: o, log: o.Logger, config: config, schema: len(steps), serves: why == toServe, reading: make(chan struct{}, readerConns),
		loads: newLoadQueue(), commits: newWaiting(), writes: newWaiting(), closed: make(chan struct{}),
	}
	e.life, e.end = context.WithCancel(context.Background())
	d := &DB{engine: e, readOnly: why == toRead || why == toReadLive}
	e.fence, e.sequence = &d.fence, &d.sequence
	defer func() {
		if err != nil {
			_ = d.Close()
		}
	}()
	if err := e.connect(ctx); err != nil {
		return nil, err
	}
	if err := e.begin(ctx, d, why); err != nil {
		return nil, err
	}
	e.start()
	return d, nil
}

// connect looks at the database over one connection, and then makes the pools.
// Every connection of theirs is looked at again: a server may be restarted with
// other settings, or another one stand at its address.
func (e *postgresDB) connect(ctx context.Context) (err error) {
	conn, err := pgConnect(ctx, e.options)
	if err != nil {
		return err
	}
	err = e.judge(ctx, conn)
	if err = firstError(err, conn.Close(ctx)); err != nil {
		return err
	}
	e.config.AfterConnect = e.judge
	joins := e.config.Copy()
	joins.MaxConns = joinConns
	// Joins are look-ups by keys: no estimate may talk the planner out of it.
	for _, name := range []string{"enable_hashjoin", "enable_mergejoin", "enable_seqscan", "enable_bitmapscan", "enable_material", "enable_memoize", "enable_sort"} {
		joins.ConnConfig.RuntimeParams[name] = "off"
	}
	joins.ConnConfig.RuntimeParams["plan_cache_mode"] = "force_generic_plan"
	joins.ConnConfig.RuntimeParams["statement_timeout"] = "2s"
	joins.ConnConfig.RuntimeParams["lock_timeout"] = "250ms" // for tables only; see pgBatch
	if e.joins, err = pgxpool.NewWithConfig(ctx, joins); err != nil {
		return err
	}
	others := e.config.Copy()
	others.MaxConns = otherConns
	e.others, err = pgxpool.NewWithConfig(ctx, others)
	return err
}

// pgConnect makes one connection outside of the pools.
func pgConnect(ctx context.Context, o Options) (*pgx.Conn, error) {
	config, err := poolConfig(o)
	if err != nil {
		return nil, err
	}
	if err := config.BeforeConnect(ctx, config.ConnConfig); err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	switch state := pgState(err); {
	case err == nil:
		return conn, nil
	case state == "3D000":
		return nil, fmt.Errorf("%w: %s has no database %s; correct the configured URL, or make it with createdb and then joinery migrate --create",
			ErrMissing, pgHost(config), config.ConnConfig.Database)
	case strings.HasPrefix(state, "28"):
		return nil, fmt.Errorf("%w: %s does not let user %s in; correct the user of the configured URL or its password file: %w",
			ErrUnwritable, pgHost(config), config.ConnConfig.User, err)
	default:
		return nil, fmt.Errorf("PostgreSQL at %s: %w", pgHost(config), err)
	}
}

func pgHost(c *pgxpool.Config) string {
	return fmt.Sprintf("%s port %d", c.ConnConfig.Host, c.ConnConfig.Port)
}

// judge refuses a database that is none of ours, has a schema that this program
// does not serve, is too old, or would lose commits.
func (e *postgresDB) judge(ctx context.Context, c *pgx.Conn) error {
	s := &pgSession{ctx: ctx, conn: c, limit: connectTimeout}
	return inOrder(
		func() error { return e.holdSchema(s) },
		func() error { return e.judgeSchema(s) },
		func() error { return e.judgeDurable(s) },
		func() error { return e.judgeHome(s) },
	)
}

// holdSchema takes the lock that tells migrations of running servers, for as
// long as the connection stands. So whatever can serve is either known to run or
// looks at the schema before it does.
func (e *postgresDB) holdSchema(s *pgSession) error {
	if !e.serves {
		return nil
	}
	got, err := conn{s}.integer("SELECT CASE WHEN pg_try_advisory_lock_shared(" + pgServersLock + ") IS FALSE THEN 0 ELSE 1 END") // NULL: no schema
	if err == nil && got == 0 {
		err = fmt.Errorf("%w: its schema is being changed", ErrLocked)
	}
	return err
}

func (e *postgresDB) judgeSchema(s *pgSession) error {
	version, servesFrom, err := s.schemaVersion()
	switch {
	case err != nil:
		return err
	case version < e.schema:
		return fmt.Errorf("%w: it has version %d, this program needs %d; run joinery migrate", ErrOlderSchema, version, e.schema)
	case servesFrom > e.schema:
		return fmt.Errorf("%w: this program is older than the database, which has version %d; this program knows %d, and %d is needed; use a newer joinery",
			ErrNewerSchema, version, e.schema, servesFrom)
	}
	return nil
}

// judgeDurable reads what decides whether a commit survives a crash.
func (e *postgresDB) judgeDurable(s *pgSession) error {
	const settings = `SELECT current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes'),
		CAST(current_setting('server_version_num') AS INTEGER)`
	var fsync, commit, pages string
	var version int64
	_, err := s.one(settings, func(r *row) error {
		fsync, commit, pages, version = r.text(), r.text(), r.text(), r.int()
		return nil
	})
	switch {
	case err != nil:
		return err
	case version < pgVersion:
		return fmt.Errorf("PostgreSQL has version %d, want 14 or newer", version/10000)
	case e.options.UnsafeNoSync:
		return nil
	case fsync != "on" || commit == "off" || pages != "on":
		return fmt.Errorf("%w: PostgreSQL runs with fsync=%s synchronous_commit=%s full_page_writes=%s; "+
			"set fsync and full_page_writes on, and synchronous_commit to anything but off for this user and database", ErrNotDurable, fsync, commit, pages)
	}
	return nil
}

// start starts the goroutines that load, commit and write.
func (e *postgresDB) start() {
	e.running.Go(e.loadLoop)
	e.running.Go(e.commitLoop)
	e.running.Go(e.writeLoop)
}

// close implements engine.
func (e *postgresDB) close() error {
	close(e.closed)
	e.end()
	e.loads.close()
	e.commits.shut(ErrClosed)
	e.writes.shut(ErrClosed)
	e.running.Wait()
	for _, p := range []*pgxpool.Pool{e.joins, e.others} {
		if p != nil {
			p.Close()
		}
	}
	return nil
}

func (e *postgresDB) isClosed() bool {
	select {
	case <-e.closed:
		return true
	default:
		return false
	}
}

// using runs fn on a connection of a pool, which it may take limit to get. A
// connection that is not as it was is
// closed when it comes back.
func (e *postgresDB) using(ctx context.Context, pool *pgxpool.Pool, limit time.Duration, fn func(*pgSession) error) error {
	acquiring, cancel := context.WithTimeout(ctx, limit)
	c, err := pool.Acquire(acquiring)
	cancel()
	if err != nil {
		return contactError(err)
	}
	defer c.Release()
	return fn(&pgSession{ctx: ctx, conn: c.Conn(), limit: limit})
}

// forCaller is using with the errors that callers get.
func (e *postgresDB) forCaller(ctx context.Context, pool *pgxpool.Pool, limit time.Duration, fn func(*pgSession) error) error {
	if e.isClosed() {
		return storeError(ErrClosed)
	}
	err := e.using(ctx, pool, limit, fn)
	if ctx.Err() != nil && errors.Is(err, errNoContact) {
		return ctx.Err()
	}
	return storeError(err)
}

// readJoin implements engine.
func (e *postgresDB) readJoin(ctx context.Context, fn func(conn) error) error {
	return e.forCaller(ctx, e.joins, pgLimit, func(s *pgSession) error { return fn(conn{s}) })
}

// read implements engine.
func (e *postgresDB) read(ctx context.Context, fn func(conn) error) error {
	return e.reader(ctx, func(s *pgSession) error { return fn(conn{s}) })
}

// reader waits for its turn among the readers, but not for long: in front of a
// PostgreSQL that hangs each turn takes as long as a statement may.
func (e *postgresDB) reader(ctx context.Context, fn func(*pgSession) error) error {
	patience := time.NewTimer(pgLimit / 2)
	defer patience.Stop()
	select {
	case e.reading <- struct{}{}:
	case <-patience.C:
		return joinery.Errorf(joinery.CodeUnavailable, "too much is read from the database; try again later")
	case <-ctx.Done():
		return ctx.Err()
	case <-e.closed:
		return storeError(ErrClosed)
	}
	defer func() { <-e.reading }()
	return e.forCaller(ctx, e.others, pgLimit, fn)
}

// snapshot implements engine.
func (e *postgresDB) snapshot(ctx context.Context, fn func(conn) error) error {
	return e.reader(ctx, func(s *pgSession) (err error) {
		if err := s.script("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
			return err
		}
		defer func() { err = firstError(err, s.rollback()) }()
		return fn(conn{s})
	})
}

// failed implements engine: what the disk of the database server keeps is that
// server's business, which ends itself at a failed fsync.
func (*postgresDB) failed() <-chan struct{} { return nil }

// failure implements engine.
func (*postgresDB) failure() error { return nil }

// ping implements engine. It writes nothing: that joins can be written shows at
// the joins, and a heartbeat of every server would fill the log of an idle
// database.
func (e *postgresDB) ping(ctx context.Context) error {
	if err := e.following.heard(); err != nil {
		return joinery.WrapError(joinery.CodeUnavailable, err, "the database is not available; try again later")
	}
	return e.readJoin(ctx, func(c conn) error {
		if err := e.lookAtFence(c); err != nil {
			return err
		}
		readOnly, err := c.integer("SELECT CASE WHEN current_setting('transaction_read_only') = 'on' THEN 1 ELSE 0 END FROM store")
		if err == nil && readOnly != 0 {
			err = joinery.Errorf(joinery.CodeUnavailable, "the database takes no writes")
		}
		return err
	})
}

// script runs statements that have no arguments and give no rows.
func (s *pgSession) script(sql string) error {
	ctx := s.ctx
	if s.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.limit)
		defer cancel()
	}
	return contactError(s.conn.PgConn().Exec(ctx, sql).Close())
}

// rollback ends a transaction that is open on a connection that still works.
func (s *pgSession) rollback() error {
	if s.conn.IsClosed() || s.idle() {
		return nil
	}
	ended := &pgSession{ctx: context.WithoutCancel(s.ctx), conn: s.conn, limit: pgLimit}
	return ended.script("ROLLBACK")
}

// idle tells whether no transaction is open.
func (s *pgSession) idle() bool { return s.conn.PgConn().TxStatus() == 'I' }
