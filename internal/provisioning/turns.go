package provisioning

import (
	"context"
	"sync"
	"time"

	"joinery"
)

// Chunks of one import may be under way side by side, so that one is verified
// while the one before it is written. They are taken in the file's order all the
// same.
const (
	// maxAhead is how many chunks of one import are under way at most.
	maxAhead = 8
	// patience is how long a chunk waits for one before it that does not come.
	patience = time.Second
)

// turns is the imports of which chunks are under way.
type turns struct {
	mu  sync.Mutex
	all map[joinery.ImportID]*queue
}

// queue is the chunks of one import that are under way.
type queue struct {
	chunks int
	// moved is closed, and made anew, whenever a chunk leaves.
	moved chan struct{}
}

// turn is one chunk in its queue.
type turn struct {
	all *turns
	id  joinery.ImportID
	q   *queue
}

// enter puts a chunk into the queue of its import; CodeRateLimited where that is
// full.
func (t *turns) enter(id joinery.ImportID) (*turn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = make(map[joinery.ImportID]*queue)
	}
	q := t.all[id]
	if q == nil {
		q = &queue{moved: make(chan struct{})}
		t.all[id] = q
	}
	if q.chunks == maxAhead {
		return nil, joinery.Errorf(joinery.CodeRateLimited, "%d runs of rows of this import are under way; wait for one of them", maxAhead)
	}
	q.chunks++
	return &turn{t, id, q}, nil
}

// leave takes the chunk out, and lets the others look again.
func (t *turn) leave() {
	t.all.mu.Lock()
	defer t.all.mu.Unlock()
	close(t.q.moved)
	t.q.moved = make(chan struct{})
	if t.q.chunks--; t.q.chunks == 0 {
		delete(t.all.all, t.id)
	}
}

// wait waits until the import stands at from, and gives it. CodeConflict where it
// is beyond, or where the chunks that come before do not come.
func (t *turn) wait(ctx context.Context, from uint64, status func() (joinery.Import, error)) (joinery.Import, error) {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		moved := t.watch()
		i, err := status()
		switch {
		case err != nil:
			return i, err
		case i.Done || i.Next > from:
			return i, wrongRow(i)
		case i.Next == from:
			return i, nil
		}
		select {
		case <-moved:
			deadline.Reset(patience)
		case <-deadline.C:
			return i, wrongRow(i)
		case <-ctx.Done():
			return i, ctx.Err()
		}
	}
}

func (t *turn) watch() <-chan struct{} {
	t.all.mu.Lock()
	defer t.all.mu.Unlock()
	return t.q.moved
}
