package custodylog

import (
	"context"
	"sync"
	"time"

	"joinery"
)

// Records writes entries of events that change nothing else. It returns nil only
// after they are on disk.
type Records interface {
	Record(ctx context.Context, entries ...joinery.AuditEntry) error
}

// Recorder writes entries of many callers in one transaction: those that come
// while one is under way wait for the next. So an answer that must not leave before
// its entry is on disk costs a part of an fsync, and one where nobody else asks.
type Recorder struct {
	store Records

	mu      sync.Mutex
	writing bool
	waiting []recorded
}

type recorded struct {
	entry joinery.AuditEntry
	done  chan error // takes one value
}

// NewRecorder makes a Recorder.
func NewRecorder(store Records) *Recorder { return &Recorder{store: store} }

// recordTimeout bounds a transaction: whoever waits has long gone by then.
const recordTimeout = 10 * time.Second

// maxRecords bounds what one transaction writes.
const maxRecords = 256

// Record writes an entry. A caller whose ctx ends gets ctx.Err(), and the entry
// may be written.
func (r *Recorder) Record(ctx context.Context, entry joinery.AuditEntry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e := recorded{entry, make(chan error, 1)}
	r.mu.Lock()
	r.waiting = append(r.waiting, e)
	begins := !r.writing
	r.writing = true
	r.mu.Unlock()
	if begins {
		go r.write(context.WithoutCancel(ctx))
	}
	select {
	case err := <-e.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write writes what waits, until nothing does.
func (r *Recorder) write(ctx context.Context) {
	for {
		r.mu.Lock()
		batch := r.waiting[:min(len(r.waiting), maxRecords)]
		r.waiting = r.waiting[len(batch):]
		if len(batch) == 0 {
			r.waiting, r.writing = nil, false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		entries := make([]joinery.AuditEntry, len(batch))
		for i, e := range batch {
			entries[i] = e.entry
		}
		limited, cancel := context.WithTimeout(ctx, recordTimeout)
		err := r.store.Record(limited, entries...)
		cancel()
		for _, e := range batch {
			e.done <- err
		}
	}
}
