package store

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"

	"zombiezen.com/go/sqlite"

	"joinery"
)

// writer is the one goroutine that writes. Joins go first: what waits of them
// is taken as one batch, and between two batches runs at most one other
// transaction, so that neither starves.
type writer struct {
	c     conn
	epoch int64
	stmts joinStatements
	log   *slog.Logger

	// commitFault, where a test sets it, runs in place of the statement COMMIT.
	commitFault func(commit func() error) error

	checkpointAt int           // pages in the log from which it is copied back
	failed       chan struct{} // closed when broken is set

	mu     sync.Mutex
	broken error // nothing is written after it; see checkpoint.go
	joins  []*joinCommit
	others []*otherWrite
	closed bool

	wake chan struct{} // holds one token while there may be work
	done chan struct{}
}

// otherWrite is one transaction that is not a join's. run is called by the
// writer, unless the caller withdrew before.
type otherWrite struct {
	run    func(*tx) error
	result chan error // takes one value
}

// yields is how often the writer lets others run before it takes what waits.
// On one CPU a caller that was answered can ask again only if the writer steps
// aside; without that batches would be of one.
const yields = 8

// maxWaiting bounds each queue. More than that waits only behind a disk that
// does not keep up; then a refusal helps more than a place in the queue.
const maxWaiting = 4096

// maxBatch bounds what one failing batch has to do again.
const maxBatch = 512

// startWriter starts a writer on c, which is the writer's to close from now on.
func startWriter(c conn, epoch int64, log *slog.Logger) (*writer, error) {
	w := &writer{
		c: c, epoch: epoch, log: log, checkpointAt: walPages,
		failed: make(chan struct{}), wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if err := w.stmts.prepare(c); err != nil {
		_ = c.Close()
		return nil, err
	}
	go w.loop()
	return w, nil
}

// stop refuses what still waits, ends the loop and closes the connection. That
// of a broken writer stays open until the process ends: closing it would make
// SQLite copy the log back and delete it.
func (w *writer) stop() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.signal()
	<-w.done
	if w.isBroken() != nil {
		return nil
	}
	return w.c.Close()
}

func (w *writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *writer) loop() {
	defer close(w.done)
	for range w.wake {
		for {
			for range yields {
				runtime.Gosched()
			}
			batch, other, closed := w.take()
			if closed {
				return
			}
			if len(batch) == 0 && other == nil {
				break
			}
			if len(batch) > 0 {
				w.commitBatch(batch)
			}
			if other != nil {
				other.result <- w.transaction(other.run)
			}
			w.checkpoint()
		}
	}
}

// take gives the next batch of joins and one other transaction. After stop it
// refuses all that waits.
func (w *writer) take() (batch []*joinCommit, other *otherWrite, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		for _, j := range w.joins {
			j.result <- storeError(ErrClosed)
		}
		for _, o := range w.others {
			o.result <- storeError(ErrClosed)
		}
		w.joins, w.others = nil, nil
		return nil, nil, true
	}
	batch, w.joins = takeBatch(w.joins)
	if len(w.others) > 0 {
		other = w.others[0]
		w.others = slices.Delete(w.others, 0, 1)
	}
	return batch, other, false
}

// tx is the connection of the writer inside a transaction.
type tx struct {
	conn
	operator joinery.OrgID
}

// write runs fn in one transaction of the writer and returns after it is on
// disk; with an error nothing of it is. A caller whose ctx ends gets ctx.Err():
// while the call waited nothing was written; once the writer took it, the
// transaction ends by itself, either way, and only a look can tell how.
func write[T any](ctx context.Context, d *DB, fn func(*tx) (T, error)) (T, error) {
	var zero, result T
	if d.w == nil {
		return zero, storeError(ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return zero, err
	}
	o := &otherWrite{result: make(chan error, 1)}
	o.run = func(t *tx) (err error) {
		t.operator = d.operator
		result, err = fn(t)
		return err
	}
	if err := enqueue(d.w, &d.w.others, o); err != nil {
		return zero, storeError(err)
	}
	select {
	case err := <-o.result:
		if err != nil {
			return zero, storeError(err)
		}
		return result, nil
	case <-ctx.Done():
		withdraw(d.w, &d.w.others, o)
		return zero, ctx.Err()
	}
}

// do is write for transactions without a result.
func (d *DB) do(ctx context.Context, fn func(*tx) error) error {
	_, err := write(ctx, d, func(t *tx) (struct{}, error) { return struct{}{}, fn(t) })
	return err
}

// enqueue puts a call at the end of one of the writer's queues and wakes the
// writer, or refuses.
func enqueue[T any](w *writer, queue *[]*T, call *T) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return ErrClosed
	case w.broken != nil:
		return w.broken
	case len(*queue) >= maxWaiting:
		return joinery.Errorf(joinery.CodeUnavailable, "too much waits to be written; try again later")
	}
	*queue = append(*queue, call)
	w.signal()
	return nil
}

// withdraw takes a call that still waits out of its queue.
func withdraw[T any](w *writer, queue *[]*T, call *T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(*queue, call); i >= 0 {
		*queue = slices.Delete(*queue, i, i+1)
	}
}

// transaction runs fn between BEGIN and COMMIT. A COMMIT that fails is an
// error, although the transaction may be on disk: see write.
func (w *writer) transaction(fn func(*tx) error) (err error) {
	if err := w.begin(); err != nil {
		return err
	}
	defer func() { err = firstError(err, w.rollback()) }()
	if err := fn(&tx{conn: conn{Conn: w.c.Conn, inTransaction: true}}); err != nil {
		return err
	}
	return w.commit()
}

// begin starts a transaction and makes sure that no other server has opened the
// database since we did.
func (w *writer) begin() error {
	if err := w.isBroken(); err != nil { // since the work was taken from its queue
		return err
	}
	if err := run(w.stmts.begin); err != nil {
		return err
	}
	epoch, err := w.c.integer("SELECT epoch FROM store")
	if err == nil && epoch != w.epoch {
		err = fmt.Errorf("%w: epoch %d is now %d", ErrSucceeded, w.epoch, epoch)
	}
	if err != nil {
		return firstError(err, w.rollback())
	}
	return nil
}

func (w *writer) commit() error {
	if w.commitFault != nil {
		return w.commitFault(func() error { return w.distrust(run(w.stmts.commit)) })
	}
	return w.distrust(run(w.stmts.commit))
}

// rollback ends a transaction that is still open; after some errors SQLite has
// ended it already.
func (w *writer) rollback() error {
	if w.c.AutocommitEnabled() {
		return nil
	}
	return run(w.stmts.rollback)
}

// run executes a prepared statement that returns no rows.
func run(stmt *sqlite.Stmt) error {
	_, err := stmt.Step()
	return firstError(err, stmt.Reset())
}
