package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"

	"joinery"
	"joinery/auditlog"
	"joinery/lorawan"
)

// joinCommit is one accepted join in the queue, with all that could be computed
// before its turn, and no more than is written: thousands may wait.
type joinCommit struct {
	keySet    joinery.KeySetID
	version   uint64 // that the key set has now
	joinNonce lorawan.JoinNonce
	nonces    []byte
	at        time.Time
	id        joinery.ActivationID
	owner     joinery.OrgID
	previous  joinery.ActivationID // zero for a key set's first
	payload   []byte
	salt      [auditlog.SaltSize]byte
	leaf      auditlog.Record
	device    joinery.DeviceID
	begin     *joinery.ServiceBegin // nil but for a device's first

	// PostgreSQL only: since when the key set was found held by somebody else, and
	// whether it was sent without an answer, and so may be on disk.
	busySince time.Time
	sent      bool

	result chan error // takes one value
}

// CommitActivation makes one accepted join durable: the key set's nonces move
// from c.Version to the next, and the activation appears, both or neither. It
// returns nil only after both are on disk, ErrSwapLost where the key set has
// another version by now (nothing was written), and CodeUnavailable where the
// database did not take it, or too much waits for it already.
//
// A caller whose ctx ends while the commit waits for its turn gets ctx.Err(),
// and nothing was written. Once the writer has taken the commit it also gets
// ctx.Err(), and the join may count: a repeated request will find out.
func (d *DB) CommitActivation(ctx context.Context, c joinery.ActivationCommit) error {
	if d.readOnly {
		return storeError(ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.AnswersJoins(); err != nil {
		return err
	}
	j, err := newJoinCommit(c)
	if err != nil {
		return err
	}
	return d.engine.commitActivation(ctx, j)
}

// commitActivation implements engine.
func (e *sqliteDB) commitActivation(ctx context.Context, j *joinCommit) error {
	return e.w.join(ctx, j)
}

// join puts j in the queue and gives its outcome.
func (w *waiting) join(ctx context.Context, j *joinCommit) error {
	if err := enqueue(w, &w.joins, j); err != nil {
		return storeError(err)
	}
	select {
	case err := <-j.result:
		return storeError(err)
	case <-ctx.Done():
		withdraw(w, &w.joins, j)
		return ctx.Err()
	}
}

func newJoinCommit(c joinery.ActivationCommit) (*joinCommit, error) {
	recent := c.Nonces.Recent
	if c.Activation.KeySet != c.KeySet || len(recent) == 0 || recent[0].ID != c.Activation.ID {
		return nil, errors.New("commit of an activation that is not the newest of its key set's nonces")
	}
	j := &joinCommit{
		keySet: c.KeySet, version: c.Version, joinNonce: c.Nonces.JoinNonce, nonces: c.Nonces.Encode(),
		at: c.Activation.At, id: c.Activation.ID, owner: c.Activation.Owner, payload: c.Activation.AppendPayload(nil),
		device: c.Activation.Device, begin: c.Begin, result: make(chan error, 1),
	}
	if len(recent) > 1 {
		j.previous = recent[1].ID
	}
	rand.Read(j.salt[:]) // never fails (crypto/rand)
	j.leaf = auditlog.NewRecord(j.salt, j.payload)
	return j, nil
}

// takeBatch takes at most maxBatch commits off the queue, at most one of each
// key set, in the order of key sets; the rest stays in the order of arrival.
func takeBatch(queue []*joinCommit) (batch, rest []*joinCommit) {
	seen := make(map[joinery.KeySetID]bool, min(len(queue), maxBatch))
	for _, j := range queue {
		if len(batch) == maxBatch || seen[j.keySet] {
			rest = append(rest, j)
			continue
		}
		seen[j.keySet] = true
		batch = append(batch, j)
	}
	slices.SortFunc(batch, func(a, b *joinCommit) int { return cmp.Compare(a.keySet, b.keySet) })
	return batch, rest
}

// joinStatements are the statements of a batch.
type joinStatements struct{ begin, swap, insert, term, fact, find, commit, rollback *sqlite.Stmt }

func (s *joinStatements) prepare(c *sqliteConn) (err error) {
	for _, p := range []struct {
		stmt  **sqlite.Stmt
		query string
	}{
		{&s.begin, "BEGIN IMMEDIATE"},
		{&s.swap, "UPDATE key_set SET version = version + 1, join_nonce = ?, nonces = ?, last_join_at = ? WHERE id = ? AND version = ?"},
		{&s.insert, "INSERT INTO activation (id, key_set, previous, payload, salt, leaf) VALUES (?, ?, ?, ?, ?, ?)"},
		{&s.term, beginTerm},
		{&s.fact, noteTerm},
		{&s.find, "SELECT key_set FROM activation WHERE id = ?"},
		{&s.commit, "COMMIT"},
		{&s.rollback, "ROLLBACK"},
	} {
		if *p.stmt, err = c.Prepare(p.query); err != nil {
			return err
		}
	}
	return nil
}

// commitBatch commits a batch and tells each caller its outcome. Where the
// batch as a whole fails, each of it is tried again alone.
func (w *writer) commitBatch(batch []*joinCommit) {
	outcomes, err := w.tryBatch(batch)
	if err != nil && len(batch) > 1 && w.isBroken() == nil {
		w.log.Warn("a batch of joins failed and is tried one by one", "joins", len(batch), "error", err)
		w.news.next() // it may be on disk all the same
		w.sequence.doubtful()
		for _, j := range batch {
			w.commitBatch([]*joinCommit{j})
		}
		return
	}
	if err == nil {
		w.news.tell(batch, outcomes)
		w.sequence.tell(batch, outcomes)
	} else {
		w.news.next() // it may be on disk all the same
		w.sequence.doubtful()
	}
	for i, j := range batch {
		if err != nil {
			j.result <- err
		} else {
			j.result <- outcomes[i]
		}
	}
}

// tryBatch runs one transaction. With an error nothing of it was written, as
// far as anybody can tell; otherwise outcomes holds nil or ErrSwapLost by row.
func (w *writer) tryBatch(batch []*joinCommit) (outcomes []error, err error) {
	if len(batch) >= crowdOf {
		crowd.Add(1)
		defer crowd.Add(-1)
	}
	if err := w.begin(); err != nil {
		return nil, err
	}
	defer func() { err = firstError(err, w.rollback()) }()
	outcomes = make([]error, len(batch))
	for i, j := range batch {
		if outcomes[i], err = w.swapAndInsert(j); err != nil {
			return nil, err
		}
	}
	if err := w.commit(); err != nil {
		if w.isBroken() != nil { // what could be seen now says nothing of the disk
			return nil, err
		}
		if err := w.lookAgain(batch, outcomes, err); err != nil {
			return outcomes, err
		}
	}
	for i, j := range slices.Backward(batch) {
		if outcomes[i] == nil {
			w.committed(j.id)
			break
		}
	}
	return outcomes, nil
}

// swapAndInsert writes the two rows of one join. outcome is ErrSwapLost where
// the version moved, and then neither row was written.
func (w *writer) swapAndInsert(j *joinCommit) (outcome, err error) {
	s := w.stmts.swap
	s.BindInt64(1, int64(j.joinNonce))
	s.BindBytes(2, j.nonces)
	s.BindInt64(3, j.at.UnixMilli())
	s.BindInt64(4, int64(j.keySet))
	s.BindInt64(5, int64(j.version))
	if err := run(s); err != nil {
		return nil, err
	}
	if w.c.Changes() != 1 {
		return ErrSwapLost, nil
	}
	s = w.stmts.insert
	s.BindInt64(1, int64(j.id))
	s.BindInt64(2, int64(j.keySet))
	if j.previous != 0 {
		s.BindInt64(3, int64(j.previous))
	} else {
		s.BindNull(3)
	}
	s.BindBytes(4, j.payload)
	s.BindBytes(5, j.salt[:])
	s.BindBytes(6, j.leaf[:])
	if err := run(s); err != nil || j.begin == nil {
		return nil, err
	}
	return nil, w.beginService(j)
}

// What a first activation writes beside its two rows.
const (
	beginTerm = `UPDATE device SET service_plan = ?, service_ends_at = ?, service_refuse_at = ?, service_remind_at = ?, service_prepaid = 0
		WHERE id = ? AND service_ends_at IS NULL`
	noteTerm = `INSERT INTO service_fact (device, kind, org, reference, maker, at, ends_at, months, plan, currency, amount, share, credit)
		VALUES (?, 'included', ?, '', ?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT DO NOTHING`
)

// beginService lets the service of a device begin with its first activation.
func (w *writer) beginService(j *joinCommit) error {
	b := j.begin
	s := w.stmts.term
	s.BindText(1, b.Term.Plan)
	s.BindInt64(2, b.Term.EndsAt.UnixMilli())
	s.BindInt64(3, b.Term.RefuseAt.UnixMilli())
	s.BindNull(4)
	if next := b.Term.NextNotice(j.at); !next.IsZero() {
		s.BindInt64(4, next.UnixMilli())
	}
	s.BindInt64(5, int64(j.device))
	if err := run(s); err != nil || w.c.Changes() == 0 {
		return err
	}
	s = w.stmts.fact
	s.BindInt64(1, int64(j.device))
	s.BindInt64(2, int64(j.owner))
	s.BindInt64(3, int64(b.Maker))
	s.BindInt64(4, j.at.UnixMilli())
	s.BindInt64(5, b.Term.EndsAt.UnixMilli())
	s.BindInt64(6, int64(b.Plan.IncludedMonths))
	s.BindText(7, b.Plan.Name)
	s.BindText(8, b.Plan.Currency)
	s.BindInt64(9, int64(b.Plan.ActivationPrice))
	s.BindInt64(10, int64(b.Plan.Share))
	return run(s)
}

// lookAgain decides after a COMMIT that reported cause: the batch was one
// transaction, so one activation that is there proves all of them. nil means
// that the batch was committed.
func (w *writer) lookAgain(batch []*joinCommit, outcomes []error, cause error) error {
	if err := w.rollback(); err != nil {
		return fmt.Errorf("%w; and the transaction does not end: %w", cause, err)
	}
	for i, j := range batch {
		if outcomes[i] != nil {
			continue
		}
		w.stmts.find.BindInt64(1, int64(j.id))
		found, err := w.stmts.find.Step()
		if err = firstError(err, w.stmts.find.Reset()); err != nil {
			return fmt.Errorf("%w; and the outcome cannot be read: %w", cause, err)
		}
		if !found {
			return cause
		}
		return nil
	}
	return nil // nobody won: nothing was to be written
}
