package provisioning

import (
	"context"
	"slices"
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
	// patience is how long a chunk waits for one before it that has not come.
	patience = time.Second
)

// turns is the imports of which chunks are under way.
type turns struct {
	mu  sync.Mutex
	all map[joinery.ImportID]*queue
}

// queue is the chunks of one import that are under way.
type queue struct {
	// froms is where each begins.
	froms []uint64
	// moved is closed, and made anew, whenever a chunk leaves.
	moved chan struct{}
}

// turn is one chunk in its queue.
type turn struct {
	all  *turns
	id   joinery.ImportID
	q    *queue
	from uint64
}

// enter puts a chunk that begins at from into the queue of its import;
// CodeRateLimited where that is full.
func (t *turns) enter(id joinery.ImportID, from uint64) (*turn, error) {
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
	if len(q.froms) == maxAhead {
		return nil, joinery.Errorf(joinery.CodeRateLimited, "%d runs of rows of this import are under way; wait for one of them", maxAhead)
	}
	q.froms = append(q.froms, from)
	return &turn{t, id, q, from}, nil
}

// leave takes the chunk out, and lets the others look again.
func (t *turn) leave() {
	t.all.mu.Lock()
	defer t.all.mu.Unlock()
	close(t.q.moved)
	t.q.moved = make(chan struct{})
	i := slices.Index(t.q.froms, t.from)
	t.q.froms = slices.Delete(t.q.froms, i, i+1)
	if len(t.q.froms) == 0 {
		delete(t.all.all, t.id)
	}
}

// wait waits until the import stands where the chunk begins, and gives it.
// CodeConflict where it is beyond, or where what comes before does not come.
func (t *turn) wait(ctx context.Context, status func() (joinery.Import, error)) (joinery.Import, error) {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		moved, first := t.watch()
		i, err := status()
		switch {
		case err != nil:
			return i, err
		case i.Done || i.Next > t.from:
			return i, wrongRow(i)
		case i.Next == t.from:
			return i, nil
		}
		select {
		case <-moved:
			deadline.Reset(patience)
		case <-deadline.C:
			if first {
				return i, wrongRow(i)
			}
			deadline.Reset(patience)
		case <-ctx.Done():
			return i, ctx.Err()
		}
	}
}

// watch gives what is closed when another chunk leaves, and tells whether this one
// is the first of those that are under way.
func (t *turn) watch() (moved <-chan struct{}, first bool) {
	t.all.mu.Lock()
	defer t.all.mu.Unlock()
	return t.q.moved, t.from == slices.Min(t.q.froms)
}
