package store

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"joinery"
	"joinery/lorawan"
)

// Options say which database, and how to hold it.
type Options struct {
	// URL is the PostgreSQL database (libpq's form, without a password). Where it
	// is empty, Path is the database.
	URL string
	// PasswordFile holds the password for URL in its first line. Empty is none, or
	// libpq's own ways: PGPASSFILE, ~/.pgpass, peer authentication.
	PasswordFile string
	// TrustFailover: a new timeline of the PostgreSQL cluster loses no commit, and
	// raises no fence.
	TrustFailover bool
	// Path is the SQLite file. PATH-wal, PATH-shm, PATH.lock and PATH.mark stand
	// beside it.
	Path string
	// Witnesses are directories that keep how far confirmations have raised
	// JoinNonces, besides that of Path: best such as outlive the database.
	Witnesses []string
	// Successor waits for the lock, until the context ends, instead of refusing
	// while another process holds it.
	Successor bool
	// Patience is for how long what needs a PostgreSQL database for itself waits while
	// servers seem to have it open: their connections end a moment after they stopped.
	// Waiting, unless it is nil, is told once that it does.
	Patience time.Duration
	Waiting  func()
	// Logger gets what the store does by itself; nil is none.
	Logger *slog.Logger
	// UnsafeNoSync leaves out every fsync. Only tests may set it.
	UnsafeNoSync bool
}

// OperatorOrg is the name of the organisation that Create makes for the
// server's operator.
const OperatorOrg = "operator"

// DB is an open database. It is safe for concurrent use.
type DB struct {
	engine   engine
	operator joinery.OrgID
	epoch    int64
	fence    atomic.Pointer[Fence]
	readOnly bool
	witness  witness
	sequence sequence
	close    sync.Once
}

// engine is what each database does in its own way. Everything else is written
// once, in statements that run on conn.
type engine interface {
	// loadActivation is LoadActivation.
	loadActivation(ctx context.Context, joinEUI, devEUI lorawan.EUI64) (joinery.ActivationState, error)
	// commitActivation puts j in the queue of joins and gives its outcome; see
	// CommitActivation.
	commitActivation(ctx context.Context, j *joinCommit) error
	// transaction runs fn in a transaction that no other of them comes between;
	// see write.
	transaction(ctx context.Context, fn func(*tx) error) error
	// readJoin, read and snapshot run fn on a connection that only reads.
	readJoin(ctx context.Context, fn func(conn) error) error
	read(ctx context.Context, fn func(conn) error) error
	snapshot(ctx context.Context, fn func(conn) error) error
	// ping returns nil where the database can be read and written now.
	ping(ctx context.Context) error
	// failed is closed when nothing is written any more until the database is
	// opened anew, nil where that does not happen; failure is why.
	failed() <-chan struct{}
	failure() error
	// lockFleet is LockFleet.
	lockFleet(ctx context.Context) (release func(), err error)
	// lead is Lead.
	lead(ctx context.Context) (held func() error, release func(), err error)
	// follow is Follow.
	follow(changed func(), current func(asOf time.Time), lost func(error))
	// checkEngine reports what the engine itself finds broken: pages, references.
	checkEngine(f *checkup) error
	// lastAuditID is the highest id that an audit row ever had.
	lastAuditID(c conn) (int64, error)
	// copying runs fn on one state of the database, for as long as it takes.
	copying(ctx context.Context, fn func(conn) error) error
	// columns gives the columns of every table, the engine's own left out.
	columns(c conn) (map[string][]column, error)
	// lastMigration is the number of the last migration applied.
	lastMigration(c conn) (int, error)
	// close waits for the transaction under way, refuses what waits behind it and
	// gives everything back.
	close() error
}

// Close waits for the transaction under way, refuses what waits behind it,
// closes every connection and releases the lock.
func (d *DB) Close() (err error) {
	d.close.Do(func() { err = d.engine.close() })
	return err
}

// Epoch is how often the database was opened by a server, this time included.
func (d *DB) Epoch() int64 { return d.epoch }

// Ping tells whether the database answers: a read, and the writer's turn.
func (d *DB) Ping(ctx context.Context) error { return d.engine.ping(ctx) }

// Failed is closed when the database takes no more writes and only opening it
// anew can help; Failure says why. A server then does best to end: its service
// manager starts it again.
func (d *DB) Failed() <-chan struct{} { return d.engine.failed() }

// Failure is why Failed was closed.
func (d *DB) Failure() error { return d.engine.failure() }

// write runs fn in one transaction and returns after it is on disk; with an
// error nothing of it is. Transactions of write come one after another. A
// caller whose ctx ends gets ctx.Err(): while the call waited nothing was
// written; once it had its turn, the transaction ends by itself, either way,
// and only a look can tell how.
func write[T any](ctx context.Context, d *DB, fn func(*tx) (T, error)) (T, error) {
	var zero, result T
	if d.readOnly {
		return zero, storeError(ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return zero, err
	}
	terms := joinery.TermsOf(ctx)
	err := d.engine.transaction(ctx, func(t *tx) (err error) {
		t.operator, t.sequence = d.operator, &d.sequence
		if err := t.meet(terms); err != nil {
			return err
		}
		result, err = fn(t)
		return err
	})
	if err != nil {
		return zero, err
	}
	if terms != nil {
		terms.Meet()
	}
	return result, nil
}

// do is write for transactions without a result.
func (d *DB) do(ctx context.Context, fn func(*tx) error) error {
	_, err := write(ctx, d, func(t *tx) (struct{}, error) { return struct{}{}, fn(t) })
	return err
}

// LockFleet keeps other servers from checking and changing peers, KEKs, ranges
// and signers until release is called. It keeps nobody out who does not ask for
// it, and nobody of this server. In a SQLite file there are no others.
func (d *DB) LockFleet(ctx context.Context) (release func(), err error) {
	return d.engine.lockFleet(ctx)
}

// readJoin runs fn for a join: one look-up by a key.
func (d *DB) readJoin(ctx context.Context, fn func(conn) error) error {
	return d.engine.readJoin(ctx, fn)
}

// read runs fn for everybody else. A caller whose ctx ends gets ctx.Err().
func (d *DB) read(ctx context.Context, fn func(conn) error) error { return d.engine.read(ctx, fn) }

// snapshot is read where fn sees one state of the database.
func (d *DB) snapshot(ctx context.Context, fn func(conn) error) error {
	return d.engine.snapshot(ctx, fn)
}

// accept takes who we are from the store's one row.
func (d *DB) accept(s storeRow) {
	d.epoch, d.operator = s.epoch, s.operator
	d.fence.Store(&s.fence)
}
