package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"joinery"
)

// pgBatch commits a batch: one statement, so one transaction and one trip. Its
// rows tell what became of each key set: 1 where it moved and the activation is
// there, 0 where its version had moved before, or behind a fence, whoever raised
// it. A key set that somebody else holds at this moment is left out, so that it
// keeps nobody waiting; the lock is that of the update, which lets references
// come and go. Once it is held, the version is looked at again (READ COMMITTED).
const pgBatch = `WITH held AS (
	SELECT w.* FROM unnest(CAST(? AS bigint[]), CAST(? AS bigint[]), CAST(? AS bigint[]), CAST(? AS bytea[]), CAST(? AS bigint[]),
		CAST(? AS bigint[]), CAST(? AS bigint[]), CAST(? AS bytea[]), CAST(? AS bytea[]), CAST(? AS bytea[]))
		AS w(key_set, version, join_nonce, nonces, at, id, previous, payload, salt, leaf)
	JOIN key_set k ON k.id = w.key_set FOR NO KEY UPDATE OF k SKIP LOCKED),
	moved AS (
	UPDATE key_set k SET version = k.version + 1, join_nonce = w.join_nonce, nonces = w.nonces, last_join_at = w.at
	FROM held AS w WHERE k.id = w.key_set AND k.version = w.version AND (SELECT fence FROM store WHERE id = 1) = 'none'
	RETURNING w.id, w.key_set, w.previous, w.payload, w.salt, w.leaf),
	added AS (
	INSERT INTO activation (id, key_set, previous, payload, salt, leaf)
	SELECT id, key_set, previous, payload, salt, leaf FROM moved RETURNING key_set)
	SELECT key_set, 1 FROM added UNION ALL SELECT key_set, 0 FROM held`

// pgBatchBegin is pgBatch for batches in which the service of a device begins. It
// holds the devices' rows, too: where somebody else has one, its key set is left
// out, so that nobody who holds one of the two waits for the other.
const pgBatchBegin = `WITH held AS (
	SELECT w.* FROM unnest(CAST(? AS bigint[]), CAST(? AS bigint[]), CAST(? AS bigint[]), CAST(? AS bytea[]), CAST(? AS bigint[]),
		CAST(? AS bigint[]), CAST(? AS bigint[]), CAST(? AS bytea[]), CAST(? AS bytea[]), CAST(? AS bytea[]),
		CAST(? AS bigint[]), CAST(? AS bigint[]), CAST(? AS bigint[]), CAST(? AS bigint[]), CAST(? AS bigint[]), CAST(? AS bigint[]),
		CAST(? AS bigint[]), CAST(? AS text[]), CAST(? AS text[]), CAST(? AS bigint[]), CAST(? AS bigint[]))
		AS w(key_set, version, join_nonce, nonces, at, id, previous, payload, salt, leaf,
			device, owner, ends, refuse, remind, maker, months, plan, currency, amount, share)
	JOIN key_set k ON k.id = w.key_set JOIN device d ON d.id = w.device FOR NO KEY UPDATE OF k, d SKIP LOCKED),
	moved AS (
	UPDATE key_set k SET version = k.version + 1, join_nonce = w.join_nonce, nonces = w.nonces, last_join_at = w.at
	FROM held AS w WHERE k.id = w.key_set AND k.version = w.version AND (SELECT fence FROM store WHERE id = 1) = 'none'
	RETURNING w.*),
	added AS (
	INSERT INTO activation (id, key_set, previous, payload, salt, leaf)
	SELECT id, key_set, previous, payload, salt, leaf FROM moved RETURNING key_set),
	begun AS (
	UPDATE device d SET service_plan = w.plan, service_ends_at = w.ends, service_refuse_at = w.refuse, service_remind_at = w.remind, service_prepaid = 0
	FROM moved AS w WHERE d.id = w.device AND w.ends IS NOT NULL AND d.service_ends_at IS NULL RETURNING w.*),
	noted AS (
	INSERT INTO service_fact (device, kind, org, reference, maker, at, ends_at, months, plan, currency, amount, share, credit)
	SELECT device, 'included', owner, '', maker, at, ends, months, plan, currency, amount, share, 0 FROM begun ON CONFLICT DO NOTHING)
	SELECT key_set, 1 FROM added UNION ALL SELECT key_set, 0 FROM held`

// How long a join may wait that goes wrong; see pgLimit.
const (
	lookLimit  = 400 * time.Millisecond  // for finding out what became of a batch
	batchLimit = 1400 * time.Millisecond // for all tries of a batch, the last look left out
	busyLimit  = time.Second             // for a key set that somebody else holds
	busyAgain  = 10 * time.Millisecond   // until such a key set is tried again
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
			if err := e.commitBatch(batch); pgAllAway(err) {
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
	end := time.Now().Add(batchLimit)
	outcomes, err := e.tryBatch(batch, end)
	switch {
	case err == nil:
		e.sequence.tell(batch, outcomes)
		e.tell(batch, outcomes)
	case len(batch) > 1 && oneMayFail(err):
		e.log.Warn("a batch of joins failed and is tried one by one", "joins", len(batch), "error", err)
		e.commitOneByOne(batch, err, end)
		return nil
	default:
		e.sequence.doubtful()
		for _, j := range batch {
			j.result <- err
		}
	}
	return err
}

// commitOneByOne commits what it can until end; the rest gets cause.
func (e *postgresDB) commitOneByOne(batch []*joinCommit, cause error, end time.Time) {
	for i := range batch {
		one := batch[i : i+1]
		outcomes, err := []error{nil}, cause
		if time.Now().Before(end) {
			outcomes, err = e.tryBatch(one, end)
		}
		if err != nil {
			outcomes = []error{err}
			e.sequence.doubtful()
		} else {
			e.sequence.tell(one, outcomes)
		}
		e.tell(one, outcomes)
	}
}

// oneMayFail tells whether a batch may have failed because of one of its rows.
// What waits for a table, or finds PostgreSQL away, concerns them all.
func oneMayFail(err error) bool {
	return !pgUnavailable(err) || strings.HasPrefix(pgState(err), "40")
}

// errBusy: somebody else holds the key set.
var errBusy = joinery.Errorf(joinery.CodeUnavailable, "somebody else changes the device for too long; try again later")

// tell gives each caller its outcome. Who was busy comes back to the queue after
// a pause, for a bounded time.
func (e *postgresDB) tell(batch []*joinCommit, outcomes []error) {
	var busy []*joinCommit
	for i, j := range batch {
		if !errors.Is(outcomes[i], errBusy) {
			j.result <- outcomes[i]
			continue
		}
		if j.busySince.IsZero() {
			j.busySince = time.Now()
		}
		if time.Since(j.busySince) < busyLimit {
			busy = append(busy, j)
		} else {
			if j.sent {
				e.sequence.doubtful()
			}
			j.result <- errBusy
		}
	}
	if len(busy) > 0 {
		time.AfterFunc(busyAgain, func() { e.commits.again(busy) })
	}
}

// again puts joins back in the queue.
func (w *waiting) again(joins []*joinCommit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		for _, j := range joins {
			j.result <- ErrClosed
		}
		return
	}
	w.joins = append(w.joins, joins...)
	w.signal()
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
// anybody can tell; otherwise outcomes holds nil, ErrSwapLost or errBusy by row.
// Where the answer is lost the activations are looked for. Where none is found
// the batch is sent once more, as far as end allows; the first may still have
// been under way, and then it holds the rows, or wins over the second. So who
// does not win then is looked for, as often as it is tried.
func (e *postgresDB) tryBatch(batch []*joinCommit, end time.Time) (outcomes []error, err error) {
	done, err := e.sendBatch(batch, pgLimit)
	if isUnknown(err) {
		for _, j := range batch {
			j.sent = true
		}
		found, lookErr := e.findBatch(batch)
		if lookErr != nil {
			return nil, fmt.Errorf("%w; and the outcome cannot be read: %w", err, lookErr)
		}
		if len(found) > 0 { // who is missing was busy, or has lost: the next try tells
			return found.outcomes(batch), nil
		}
		left := min(pgLimit, time.Until(end))
		if left <= 0 {
			return nil, err
		}
		done, err = e.sendBatch(batch, left)
	}
	if err != nil {
		return nil, err
	}
	var doubtful []*joinCommit
	for _, j := range batch {
		if j.sent && !done[j.keySet] {
			doubtful = append(doubtful, j)
		}
	}
	if len(doubtful) > 0 {
		found, err := e.findBatch(doubtful)
		if err != nil {
			return nil, err
		}
		maps.Copy(done, found)
	}
	return done.outcomes(batch), nil
}

// fates is what became of key sets: true of those that moved, false of those
// that had moved before. Those that are missing were busy.
type fates map[joinery.KeySetID]bool

func (f fates) outcomes(batch []*joinCommit) []error {
	outcomes := make([]error, len(batch))
	for i, j := range batch {
		switch won, known := f[j.keySet]; {
		case won:
		case known:
			outcomes[i] = ErrSwapLost
		default:
			outcomes[i] = errBusy
		}
	}
	return outcomes
}

// sendBatch sends a batch, which may take limit.
func (e *postgresDB) sendBatch(batch []*joinCommit, limit time.Duration) (done fates, err error) {
	send := func() error {
		return e.using(context.Background(), e.joins, limit, func(s *pgSession) error {
			if slices.ContainsFunc(batch, func(j *joinCommit) bool { return j.begin != nil }) {
				done, err = s.fates(pgBatchBegin, append(batchArrays(batch), beginArrays(batch)...)...)
			} else {
				done, err = s.fates(pgBatch, batchArrays(batch)...)
			}
			return err
		})
	}
	if e.commitFault != nil {
		err = e.commitFault(send)
	} else {
		err = send()
	}
	return done, err
}

// findBatch gives the key sets of those activations of a batch that are there.
func (e *postgresDB) findBatch(batch []*joinCommit) (found fates, err error) {
	ids := newArray(len(batch), pgtype.Int8OID)
	for _, j := range batch {
		ids.integer(int64(j.id))
	}
	err = e.using(context.Background(), e.joins, lookLimit, func(s *pgSession) error {
		found, err = s.fates("SELECT key_set, 1 FROM activation WHERE id = ANY (CAST(? AS bigint[]))", ids.b)
		return err
	})
	return found, err
}

// fates reads key sets and what became of them; winning counts.
func (s *pgSession) fates(query string, args ...any) (fates, error) {
	done := fates{}
	err := s.run(query, args, func(values [][]byte) error {
		r := &row{raw: values}
		id := joinery.KeySetID(r.int())
		done[id] = r.bool() || done[id]
		return nil
	}, nil)
	return done, err
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

// beginArrays are the further arguments of pgBatchBegin.
func beginArrays(batch []*joinCommit) []any {
	const columns, plan, currency = 11, 7, 8
	var a [columns]*pgArray
	for i := range a {
		oid := uint32(pgtype.Int8OID)
		if i == plan || i == currency {
			oid = pgtype.TextOID
		}
		a[i] = newArray(len(batch), oid)
	}
	for _, j := range batch {
		a[0].integer(int64(j.device))
		a[1].integer(int64(j.owner))
		b := j.begin
		if b == nil {
			for i := 2; i < columns; i++ {
				a[i].null()
			}
			continue
		}
		a[2].integer(b.Term.EndsAt.UnixMilli())
		a[3].integer(b.Term.RefuseAt.UnixMilli())
		if next := b.Term.NextNotice(j.at); next.IsZero() {
			a[4].null()
		} else {
			a[4].integer(next.UnixMilli())
		}
		a[5].integer(int64(b.Maker))
		a[6].integer(int64(b.Plan.IncludedMonths))
		a[plan].bytes([]byte(b.Plan.Name))
		a[currency].bytes([]byte(b.Plan.Currency))
		a[9].integer(int64(b.Plan.ActivationPrice))
		a[10].integer(int64(b.Plan.Share))
	}
	args := make([]any, columns)
	for i := range a {
		args[i] = a[i].b
	}
	return args
}
