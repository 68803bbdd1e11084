package refusal

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"joinery"
)

// Writer adds counts to those that are stored, all or none. It may leave out
// what is about devices and peers that were deleted meanwhile.
type Writer interface {
	RecordRefusals(ctx context.Context, b joinery.RefusalBatch) error
}

// Bounds of what waits. A Refusal is some 350 bytes.
const (
	maxPending = 4096 // refusals that were not counted yet
	// maxBatch bounds the rows of one transaction, and so what a join can wait
	// for; maxTick bounds those of one tick.
	maxBatch = 64
	maxTick  = 8 * maxBatch

	tick = time.Second
	// closeTimeout bounds what is written when the server ends.
	closeTimeout = 2 * time.Second
)

// Recorder takes refused requests off the answer path. It is safe for concurrent
// use.
type Recorder struct {
	store Writer
	log   *slog.Logger

	mu      sync.Mutex
	pending []joinery.Refusal // in order; never longer than maxPending
	spare   []joinery.Refusal // memory of the one before

	full  chan struct{}      // holds one token when pending is half full
	asked chan chan struct{} // Sync
	stop  chan struct{}
	done  chan struct{}
	ended sync.Once

	counts  tally // the goroutine's, as failing
	failing bool
	stats   stats
}

// stats are numbers since the start.
type stats struct {
	recorded map[joinery.RefusalReason]*atomic.Uint64 // fixed set of keys
	hurried  atomic.Uint64                            // came faster than they could be counted
	crowded  atomic.Uint64                            // counted for the peer, but not kept for the device
	failed   atomic.Uint64                            // batches that the store did not take
}

// Stats are numbers since the server started.
type Stats struct {
	Recorded map[joinery.RefusalReason]uint64
	// Hurried came faster than they could be counted, and are in no count.
	// Crowded are in the peer's counts, but not in those of their device.
	Hurried, Crowded uint64
	// FailedWrites is batches that the store did not take at once.
	FailedWrites uint64
}

// NewRecorder starts a recorder; a nil log is none. Close ends it.
func NewRecorder(store Writer, log *slog.Logger) *Recorder {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Recorder{
		store: store, log: log,
		pending: make([]joinery.Refusal, 0, maxPending), spare: make([]joinery.Refusal, 0, maxPending),
		full: make(chan struct{}, 1), asked: make(chan chan struct{}), stop: make(chan struct{}), done: make(chan struct{}),
		counts: newTally(), stats: stats{recorded: map[joinery.RefusalReason]*atomic.Uint64{}},
	}
	for _, reason := range joinery.RefusalReasons {
		r.stats.recorded[reason] = new(atomic.Uint64)
	}
	go r.run()
	return r
}

// Record notes a refused request. It never waits for anything slow, and keeps
// nothing of x.
func (r *Recorder) Record(x *joinery.Refusal) {
	r.mu.Lock()
	n := len(r.pending)
	if n < maxPending {
		r.pending = append(r.pending, *x)
	}
	r.mu.Unlock()
	switch n {
	case maxPending:
		r.stats.hurried.Add(1)
	case maxPending / 2:
		select {
		case r.full <- struct{}{}:
		default:
		}
	}
}

// Sync returns when what was recorded before it can be read from the store, or
// when ctx ends, or when the store does not take it.
func (r *Recorder) Sync(ctx context.Context) {
	written := make(chan struct{})
	select {
	case r.asked <- written:
	case <-r.done:
		return
	case <-ctx.Done():
		return
	}
	select {
	case <-written:
	case <-ctx.Done():
	}
}

// Close writes what was recorded, as far as the store takes it in a moment, and
// ends the recorder. What is recorded afterwards is lost.
func (r *Recorder) Close() {
	r.ended.Do(func() { close(r.stop) })
	<-r.done
}

// Stats gives numbers since the start.
func (r *Recorder) Stats() Stats {
	s := Stats{Recorded: make(map[joinery.RefusalReason]uint64, len(r.stats.recorded)),
		Hurried: r.stats.hurried.Load(), Crowded: r.stats.crowded.Load(), FailedWrites: r.stats.failed.Load()}
	for reason, n := range r.stats.recorded {
		s.Recorded[reason] = n.Load()
	}
	return s
}

func (r *Recorder) run() {
	defer close(r.done)
	clock := time.NewTicker(tick)
	defer clock.Stop()
	for {
		select {
		case <-r.full:
			r.count()
		case <-clock.C:
			r.count()
			r.write(context.Background(), maxTick)
		case written := <-r.asked:
			r.count()
			r.write(context.Background(), maxTick)
			close(written)
		case <-r.stop:
			ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
			defer cancel()
			r.count()
			r.write(ctx, r.counts.len())
			return
		}
	}
}

// count takes what waits into the counts.
func (r *Recorder) count() {
	r.mu.Lock()
	taken := r.pending
	r.pending = r.spare
	r.mu.Unlock()
	for i := range taken {
		if n := r.stats.recorded[taken[i].Reason]; n != nil {
			n.Add(1)
		}
		if !r.counts.add(&taken[i]) {
			r.stats.crowded.Add(1)
		}
	}
	clear(taken)
	r.mu.Lock()
	r.spare = taken[:0]
	r.mu.Unlock()
}

// write adds up to limit counts to the store, batch by batch. What the store
// does not take stays for the next tick.
func (r *Recorder) write(ctx context.Context, limit int) {
	for limit > 0 && r.counts.len() > 0 {
		batch := r.counts.take(min(maxBatch, limit))
		if err := r.store.RecordRefusals(ctx, batch); err != nil {
			r.failed(batch, err)
			return
		}
		r.failing = false
		limit -= maxBatch
	}
}

// failed keeps a batch that the store could not take for the next tick. One that
// it did not want would stand in the way of all others, and is given up.
func (r *Recorder) failed(batch joinery.RefusalBatch, err error) {
	r.stats.failed.Add(1)
	kept := joinery.CodeOf(err) == joinery.CodeUnavailable
	if kept {
		r.counts.giveBack(batch)
	} else {
		r.stats.crowded.Add(uint64(len(batch.Devices) + len(batch.Unknown) + len(batch.Peers)))
	}
	if !r.failing {
		r.log.Warn("refused requests cannot be written", slog.Bool("kept_for_later", kept), slog.Any("error", err))
	}
	r.failing = true
}
