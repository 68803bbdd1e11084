package store

import (
	"context"
	"slices"
	"sync"

	"joinery"
)

// waiting is who waits to be written.
type waiting struct {
	mu     sync.Mutex
	broken error // nothing is written after it; see writer.distrust
	joins  []*joinCommit
	others []*otherWrite
	closed bool

	wake chan struct{} // holds one token while there may be work
}

func newWaiting() waiting { return waiting{wake: make(chan struct{}, 1)} }

// otherWrite is one transaction that is not a join's. run is called by the
// writer, unless the caller withdrew before.
type otherWrite struct {
	run    func(*tx) error
	result chan error // takes one value
}

// maxWaiting bounds each queue. More than that waits only behind a disk that
// does not keep up; then a refusal helps more than a place in the queue.
const maxWaiting = 4096

func (w *waiting) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// other puts fn in the queue of other writes and gives its outcome.
func (w *waiting) other(ctx context.Context, fn func(*tx) error) error {
	o := &otherWrite{run: fn, result: make(chan error, 1)}
	if err := enqueue(w, &w.others, o); err != nil {
		return storeError(err)
	}
	select {
	case err := <-o.result:
		return storeError(err)
	case <-ctx.Done():
		withdraw(w, &w.others, o)
		return ctx.Err()
	}
}

// enqueue puts a call at the end of one of the writer's queues and wakes the
// writer, or refuses.
func enqueue[T any](w *waiting, queue *[]*T, call *T) error {
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
func withdraw[T any](w *waiting, queue *[]*T, call *T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(*queue, call); i >= 0 {
		*queue = slices.Delete(*queue, i, i+1)
	}
}
