package store

import (
	"context"
	"runtime"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5/pgtype"

	"joinery"
	"joinery/lorawan"
)

// loadQueue is the joins that wait to be loaded: those that wait together are
// read by one statement.
type loadQueue struct {
	mu      sync.Mutex
	waiting []*loadCall
	closed  bool
	wake    chan struct{} // holds one token while there may be work
}

// loadCall is one LoadActivation.
type loadCall struct {
	joinEUI, devEUI lorawan.EUI64

	state joinery.ActivationState // written before result
	done  chan error              // takes one value
}

func newLoadQueue() loadQueue { return loadQueue{wake: make(chan struct{}, 1)} }

// maxLoads bounds what one statement reads.
const maxLoads = 256

// manyLoads is loadQuery for pairs in two arrays. The first column is the number
// of the pair, from 1. The planner may not have heard yet how many devices there
// are: OFFSET 0 keeps it from thinking of the look-up as a join, and the empty
// bytes from looking up all devices of a JoinEUI, which may be all there are. Nor may
// it read the whole of a smaller index, which some hundreds of devices that it has not
// counted may look worth: with sorts turned off, an order by DevEUI comes from
// device_euis only. An equation would leave nothing to order, so it is two bounds.
const manyLoads = `SELECT w.n, ` + stateColumnNames + withoutCustody + `
	FROM unnest(CAST(? AS bytea[]), CAST(? AS bytea[])) WITH ORDINALITY AS w(dev_eui, join_eui, n)
	CROSS JOIN LATERAL (SELECT * FROM device
		WHERE dev_eui >= w.dev_eui AND dev_eui <= w.dev_eui AND join_eui || CAST('' AS bytea) = w.join_eui AND deleted_at IS NULL
		ORDER BY dev_eui OFFSET 0) AS d ` + stateJoins

// loadActivation implements engine.
func (e *postgresDB) loadActivation(ctx context.Context, joinEUI, devEUI lorawan.EUI64) (joinery.ActivationState, error) {
	call := &loadCall{joinEUI: joinEUI, devEUI: devEUI, done: make(chan error, 1)}
	if err := e.loads.add(call); err != nil {
		return joinery.ActivationState{}, storeError(err)
	}
	select {
	case err := <-call.done:
		return call.state, storeError(err)
	case <-ctx.Done():
		e.loads.withdraw(call)
		return joinery.ActivationState{}, ctx.Err()
	}
}

func (q *loadQueue) add(call *loadCall) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return ErrClosed
	case len(q.waiting) >= maxWaiting:
		return joinery.Errorf(joinery.CodeUnavailable, "too much waits to be read; try again later")
	}
	q.waiting = append(q.waiting, call)
	q.signal()
	return nil
}

func (q *loadQueue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *loadQueue) withdraw(call *loadCall) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.waiting, call); i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
}

// take takes at most maxLoads calls, oldest first.
func (q *loadQueue) take() (calls []*loadCall, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.waiting), maxLoads)
	calls, q.waiting = q.waiting[:n:n], q.waiting[n:]
	return calls, q.closed
}

// refuse gives err to all that wait.
func (q *loadQueue) refuse(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.refuseAll(err)
}

// refuseAll is refuse for those who hold the lock.
func (q *loadQueue) refuseAll(err error) {
	for _, call := range q.waiting {
		call.done <- err
	}
	q.waiting = nil
}

// close refuses all that wait, and all that comes.
func (q *loadQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.refuseAll(ErrClosed)
	q.signal()
}

// loadLoop reads what waits, until the store closes. When PostgreSQL does not
// answer, whoever waited meanwhile is refused, too: their turn would come too
// late.
func (e *postgresDB) loadLoop() {
	for range e.loads.wake {
		for {
			for range yields {
				runtime.Gosched()
			}
			calls, closed := e.loads.take()
			if closed {
				return
			}
			if len(calls) == 0 {
				break
			}
			found, err := e.loadMany(calls)
			for i, call := range calls {
				switch {
				case err != nil:
					call.done <- err
				case found[i] == nil:
					call.done <- errUnknownDevice
				default:
					call.state = found[i].state
					call.done <- found[i].err
				}
			}
			if pgAllAway(err) {
				e.loads.refuse(err)
			}
		}
	}
}

// loaded is one state, or why it cannot be read.
type loaded struct {
	state joinery.ActivationState
	err   error
}

// loadMany reads the states of calls with one statement; nil for an unknown
// device.
func (e *postgresDB) loadMany(calls []*loadCall) ([]*loaded, error) {
	devEUIs, joinEUIs := newArray(len(calls), pgtype.ByteaOID), newArray(len(calls), pgtype.ByteaOID)
	for _, call := range calls {
		devEUIs.bytes(call.devEUI[:])
		joinEUIs.bytes(call.joinEUI[:])
	}
	found := make([]*loaded, len(calls))
	err := e.using(context.Background(), e.joins, pgLimit, func(s *pgSession) error {
		return s.run(manyLoads, []any{devEUIs.b, joinEUIs.b}, func(values [][]byte) error {
			r := &row{raw: values}
			l := &found[r.int()-1]
			*l = &loaded{}
			(*l).state, (*l).err = scanState(r)
			return nil
		}, nil)
	})
	return found, err
}
