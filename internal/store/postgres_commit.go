package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"joinery"
)

// pgBatch commits a batch: one statement, so one transaction and one trip. A row
// whose version moved is not updated, and so its activation is not inserted:
// whose key set is not returned has lost. Where another batch, of another
// server, holds a row, the update waits for it and then looks at the version
// again (READ COMMITTED). Rows are locked in the order of the arrays, so that
// two batches never wait for each other. Behind a fence, whoever raised it,
// everybody loses.
const pgBatch = `WITH moved AS (
	UPDATE key_set k SET version = k.version + 1, join_nonce = w.join_nonce, nonces = w.nonces, last_join_at = w.at
	FROM unnest(CAST(? AS bigint[]), CAST(? AS bigint[]), CAST(? AS bigint[]), CAST(? AS bytea[]), CAST(? AS bigint[]),
		CAST(? AS bigint[]), CAST(? AS bigint[]), CAST(? AS bytea[]), CAST(? AS bytea[]), CAST(? AS bytea[]))
		AS w(key_set, version, join_nonce, nonces, at, id, previous, payload, salt, leaf)
	WHERE k.id = w.key_set AND k.version = w.version AND (SELECT fence FROM store WHERE id = 1) = 'none'
	RETURNING w.id, w.key_set, w.previous, w.payload, w.salt, w.leaf)
	INSERT INTO activation (id, key_set, previous, payload, salt, leaf)
	SELECT id, key_set, previous, payload, salt, leaf FROM moved RETURNING key_set`

// How long a batch may take that goes wrong: what is left of it then is refused.
const (
	lookLimit = 400 * time.Millisecond // for finding out what became of it
	oneByOne  = 1400 * time.Millisecond
)

// commitActivation implements engine.
func (e *postgresDB) commitActivation(ctx context.Context, j *joinCommit) error {
	return e.commits.join(ctx, j)
}

// commitLoop commits what waits, until the store closes. When PostgreSQL does
// not answer, whoever waited meanwhile is refused, too. One batch is under way
// at a time: two make each smaller, and cost a fifth more processor time a join.
func (e *postgresDB) commitLoop() {
	for range e.commits.wake {
		for {
			for range yields {
				runtime.Gosched()
			}
			batch, closed := e.commits.takeJoins()
			if closed {
				return
			}
			if len(batch) == 0 {
				break
			}
			if err := e.commitBatch(batch); pgUnavailable(err) {
				e.commits.refuse(err)
			}
		}
	}
}

// takeJoins takes the next batch.
func (w *waiting) takeJoins() (batch []*joinCommit, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	batch, w.joins = takeBatch(w.joins)
	return batch, w.closed
}

// refuse gives err to all that wait.
func (w *waiting) refuse(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuseAll(err)
}

// refuseAll is refuse for those who hold the lock.
func (w *waiting) refuseAll(err error) {
	for _, j := range w.joins {
		j.result <- err
	}
	for _, o := range w.others {
		o.result <- err
	}
	w.joins, w.others = nil, nil
}

// shut refuses all that wait, and all that comes.
func (w *waiting) shut(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.refuseAll(err)
	w.signal()
}

// commitBatch commits a batch and tells each caller its outcome. It gives the
// error of a batch that was refused as a whole.
func (e *postgresDB) commitBatch(batch []*joinCommit) error {
	outcomes, err := e.tryBatch(batch)
	switch {
	case err == nil:
		for i, j := range batch {
			j.result <- outcomes[i]
		}
	case len(batch) > 1 && !isUnknown(err):
		e.log.Warn("a batch of joins failed and is tried one by one", "joins", len(batch), "error", err)
		e.commitOneByOne(batch, err)
		return nil
	default:
		for _, j := range batch {
			j.result <- err
		}
	}
	return err
}

// commitOneByOne commits what it can in a bounded time; the rest gets cause.
func (e *postgresDB) commitOneByOne(batch []*joinCommit, cause error) {
	end := time.Now().Add(oneByOne)
	for i := range batch {
		one := batch[i : i+1]
		outcomes, err := []error{nil}, cause
		if time.Now().Before(end) {
			outcomes, err = e.tryBatch(one)
		}
		if err == nil {
			err = outcomes[0]
		}
		one[0].result <- err
	}
}

// isUnknown tells whether err leaves open what is on disk. PostgreSQL rolls back
// what it answers with an error, but for one that ends the connection: then the
// transaction may have been committed before.
func isUnknown(err error) bool {
	if errors.Is(err, errNoContact) {
		return true
	}
	state := pgState(err)
	return len(state) == 5 && (state[:2] == "57" || state[:2] == "08" || state[:2] == "58")
}

// tryBatch commits a batch. With an error nothing of it was written, as far as
// anybody can tell; otherwise outcomes holds nil or ErrSwapLost by row. Where
// the answer is lost the activations are looked for. Where none is found the
// batch is sent once more; it may still have been under way, and then it wins
// over the second, whose losers are looked for as well.
func (e *postgresDB) tryBatch(batch []*joinCommit) (outcomes []error, err error) {
	won, err := e.sendBatch(batch)
	if err == nil || !isUnknown(err) {
		return outcomesOf(batch, won), err
	}
	found, lookErr := e.findBatch(batch)
	if lookErr != nil {
		return nil, fmt.Errorf("%w; and the outcome cannot be read: %w", err, lookErr)
	}
	if len(found) > 0 {
		return outcomesOf(batch, found), nil
	}
	if won, err = e.sendBatch(batch); err != nil {
		return nil, err
	}
	if len(won) < len(batch) {
		if found, err = e.findBatch(batch); err != nil {
			return nil, err
		}
		won = found
	}
	return outcomesOf(batch, won), nil
}

// outcomesOf gives nil to those whose key set is in won.
func outcomesOf(batch []*joinCommit, won map[joinery.KeySetID]bool) []error {
	outcomes := make([]error, len(batch))
	for i, j := range batch {
		if !won[j.keySet] {
			outcomes[i] = ErrSwapLost
		}
	}
	return outcomes
}

// sendBatch sends a batch and gives the key sets that moved.
func (e *postgresDB) sendBatch(batch []*joinCommit) (won map[joinery.KeySetID]bool, err error) {
	send := func() error {
		return e.using(context.Background(), e.joins, pgLimit, func(s *pgSession) error {
			won, err = s.keySets(pgBatch, batchArrays(batch)...)
			return err
		})
	}
	if e.commitFault != nil {
		err = e.commitFault(send)
	} else {
		err = send()
	}
	return won, err
}

// findBatch gives the key sets of those activations of a batch that are there.
func (e *postgresDB) findBatch(batch []*joinCommit) (found map[joinery.KeySetID]bool, err error) {
	ids := newArray(len(batch), pgtype.Int8OID)
	for _, j := range batch {
		ids.integer(int64(j.id))
	}
	err = e.using(context.Background(), e.joins, lookLimit, func(s *pgSession) error {
		found, err = s.keySets("SELECT key_set FROM activation WHERE id = ANY (CAST(? AS bigint[]))", ids.b)
		return err
	})
	return found, err
}

// keySets reads a column of key sets.
func (s *pgSession) keySets(query string, args ...any) (map[joinery.KeySetID]bool, error) {
	found := map[joinery.KeySetID]bool{}
	err := s.run(query, args, func(values [][]byte) error {
		found[joinery.KeySetID((&row{raw: values}).int())] = true
		return nil
	}, nil)
	return found, err
}

// batchArrays are the arguments of pgBatch.
func batchArrays(batch []*joinCommit) []any {
	const columns = 10
	var a [columns]*pgArray
	for i := range a {
		oid := uint32(pgtype.Int8OID)
		if i == 3 || i > 6 {
			oid = pgtype.ByteaOID
		}
		a[i] = newArray(len(batch), oid)
	}
	for _, j := range batch {
		a[0].integer(int64(j.keySet))
		a[1].integer(int64(j.version))
		a[2].integer(int64(j.joinNonce))
		a[3].bytes(j.nonces)
		a[4].integer(j.at.UnixMilli())
		a[5].integer(int64(j.id))
		if j.previous != 0 {
			a[6].integer(int64(j.previous))
		} else {
			a[6].null()
		}
		a[7].bytes(j.payload)
		a[8].bytes(j.salt[:])
		a[9].bytes(j.leaf[:])
	}
	args := make([]any, columns)
	for i := range a {
		args[i] = a[i].b
	}
	return args
}
