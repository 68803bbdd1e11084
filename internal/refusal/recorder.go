package refusal

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"joinery"
)

// Writer adds counts to those that are stored, all or none. It may leave out
// what is about devices and peers that were deleted meanwhile.
type Writer interface {
	RecordRefusals(ctx context.Context, b joinery.RefusalBatch) error
	// CloseAttempts puts into the custody log what was refused in hours that are
	// over at a time, some of it; more tells that there is more.
	CloseAttempts(ctx context.Context, at time.Time) (more bool, err error)
}

// Bounds of what waits. A Refusal is some 350 bytes.
const (
	maxPending = 4096 // refusals that were not counted yet
	// maxBatch bounds the rows of one transaction, and so what a join can wait
	// for; maxTick bounds those of one tick.
	maxBatch = 64
	maxTick  = 8 * maxBatch

	tick = time.Second
	// closeEvery is how often hours are looked for that are over.
	closeEvery = 5 * time.Minute
	// closeTimeout bounds what is written when the server ends.
	closeTimeout = 2 * time.Second
)

// Recorder takes refused requests off the answer path. It is safe for concurrent
// use.
type Recorder struct {
	store Writer
	log   *slog.Logger

	refusals queue[joinery.Refusal]
	attempts queue[joinery.Attempt]

	full  chan struct{}      // holds one token when one of them is half full
	asked chan chan struct{} // Sync
	stop  chan struct{}
	done  chan struct{}
	// closed is when closeHours has ended.
	closed chan struct{}
	ended  sync.Once

	// The goroutine's.
	counts  tally
	round   round
	failing bool

	stats stats
}

// stats are numbers since the start.
type stats struct {
	recorded map[joinery.RefusalReason]*atomic.Uint64 // fixed set of keys
	hurried  atomic.Uint64                            // came faster than they could be counted
	crowded  atomic.Uint64                            // counted for the peer, but not kept for the device
	failed   atomic.Uint64                            // batches that the store did not take

	attempted       atomic.Uint64
	attemptsHurried atomic.Uint64
	attemptsCrowded atomic.Uint64
}

// Stats are numbers since the server started.
type Stats struct {
	Recorded map[joinery.RefusalReason]uint64
	// Hurried came faster than they could be counted, and are in no count.
	// Crowded are in the peer's counts, but not in those of their device.
	Hurried, Crowded uint64
	// FailedWrites is batches that the store did not take at once.
	FailedWrites uint64
	// Attempts is those of people and programs, AttemptsDropped how many of them
	// are in no count: more came, or of more kinds, than are counted.
	Attempts, AttemptsDropped uint64
}

// NewRecorder starts a recorder; a nil log is none. Close ends it.
func NewRecorder(store Writer, log *slog.Logger) *Recorder {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Recorder{
		store: store, log: log,
		full: make(chan struct{}, 1), asked: make(chan chan struct{}), stop: make(chan struct{}), done: make(chan struct{}), closed: make(chan struct{}),
		counts: newTally(), round: round{ends: make(chan end, 1), rows: maxTick}, stats: stats{recorded: map[joinery.RefusalReason]*atomic.Uint64{}},
	}
	for _, reason := range joinery.RefusalReasons {
		r.stats.recorded[reason] = new(atomic.Uint64)
	}
	go r.run()
	go r.closeHours()
	return r
}

// closeHours has the custody log told of refusals after which none came that would
// tell of them. Of several servers each does it, and finds what is left.
func (r *Recorder) closeHours() {
	defer close(r.closed)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-r.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	clock := time.NewTicker(closeEvery)
	defer clock.Stop()
	for {
		select {
		case <-clock.C:
			r.closeAttempts(ctx)
		case <-r.stop:
			return
		}
	}
}

// closeAttempts closes all that is over.
func (r *Recorder) closeAttempts(ctx context.Context) {
	for more := true; more; {
		var err error
		if more, err = r.store.CloseAttempts(ctx, time.Now().UTC()); err != nil {
			if ctx.Err() == nil {
				r.log.Warn("refused requests are not in the custody log yet", slog.Any("error", err))
			}
			return
		}
	}
}

// Record notes a refused request. It never waits for anything slow, and keeps
// nothing of x.
func (r *Recorder) Record(x *joinery.Refusal) { r.noted(r.refusals.put(x), &r.stats.hurried) }

// Attempt notes a refused attempt at the management API, as Record does. Whether
// there is a device to which it was, and whose, is looked at behind.
func (r *Recorder) Attempt(x *joinery.Attempt) { r.noted(r.attempts.put(x), &r.stats.attemptsHurried) }

// noted has a queue counted that fills up; so many waited in it.
func (r *Recorder) noted(waited int, hurried *atomic.Uint64) {
	switch waited {
	case maxPending:
		hurried.Add(1)
	case maxPending / 2:
		select {
		case r.full <- struct{}{}:
		default:
		}
	}
}

// Sync returns when what was recorded before it can be read from the store, or
// when ctx ends, or when the store does not take it. While more is refused than
// may be written, it returns after a second or two.
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
	<-r.closed
}

// Stats gives numbers since the start.
func (r *Recorder) Stats() Stats {
	s := Stats{Recorded: make(map[joinery.RefusalReason]uint64, len(r.stats.recorded)),
		Hurried: r.stats.hurried.Load(), Crowded: r.stats.crowded.Load(), FailedWrites: r.stats.failed.Load(),
		Attempts: r.stats.attempted.Load(), AttemptsDropped: r.stats.attemptsHurried.Load() + r.stats.attemptsCrowded.Load()}
	for reason, n := range r.stats.recorded {
		s.Recorded[reason] = n.Load()
	}
	return s
}

// run counts what comes and has it written, batch by batch. A store that is slow
// holds up the writing, not the counting.
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
			r.round.begin()
		case written := <-r.asked:
			r.count()
			r.round.ask(written)
		case end := <-r.round.ends:
			r.round.busy = false
			r.took(end)
		case <-r.stop:
			r.finish()
			return
		}
		r.write(context.Background())
	}
}

// round is the writing of what waits, one batch after the other. Each tick begins
// one, and so does who asks; but they share the rows of a tick, so that a store
// takes no more of them in a second than it should, however often somebody asks.
type round struct {
	on      bool
	rows    int // that may still be written before the next tick
	ticks   uint64
	busy    bool     // a batch is under way
	ends    chan end // of batches; room for one
	waiters []waiter
}

// waiter is told when all is written; or else when the rows of a whole tick, of
// one after since, are used up.
type waiter struct {
	written chan struct{}
	since   uint64
}

// minBatch is what the smallest batch costs in rows: a transaction has a price
// of its own.
const minBatch = 8

func (r *round) begin() {
	r.ticks++
	r.on, r.rows = true, maxTick
}

func (r *round) ask(written chan struct{}) {
	r.on = true
	r.waiters = append(r.waiters, waiter{written, r.ticks})
}

// end ends the round. Of those who wait, it tells who asked before tick before.
func (r *round) end(before uint64) {
	r.on = false
	r.waiters = slices.DeleteFunc(r.waiters, func(w waiter) bool {
		if w.since >= before {
			return false
		}
		close(w.written)
		return true
	})
}

type end struct {
	batch joinery.RefusalBatch
	err   error
}

// write begins the next batch of a round, or ends the round.
func (r *Recorder) write(ctx context.Context) {
	switch {
	case r.round.busy || !r.round.on:
	case r.counts.len() == 0:
		r.round.end(math.MaxUint64)
	case r.round.rows <= 0:
		r.round.end(r.round.ticks)
	default:
		batch := r.counts.take(min(maxBatch, r.round.rows))
		r.round.busy = true
		go func() { r.round.ends <- end{batch, r.store.RecordRefusals(ctx, batch)} }()
	}
}

// took ends a batch. What the store did not take waits for the next round, or,
// where it did not want it, is given up: it would stand in the way for ever.
func (r *Recorder) took(e end) {
	rows, attempts := len(e.batch.Devices)+len(e.batch.Unknown)+len(e.batch.Peers), len(e.batch.Attempts)
	r.round.rows -= max(rows+attempts, minBatch)
	if e.err == nil {
		r.failing = false
		return
	}
	r.round.end(math.MaxUint64)
	r.stats.failed.Add(1)
	kept := joinery.CodeOf(e.err) == joinery.CodeUnavailable
	if kept {
		rows, attempts = r.counts.giveBack(e.batch)
	}
	r.stats.crowded.Add(uint64(rows))
	r.stats.attemptsCrowded.Add(uint64(attempts))
	if !r.failing {
		r.log.Warn("refused requests cannot be written", slog.Bool("kept_for_later", kept), slog.Any("error", e.err))
	}
	r.failing = true
}

// finish writes all that there is, as far as the store takes it in time.
func (r *Recorder) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	r.count()
	r.round.on, r.round.rows = true, math.MaxInt
	for r.write(ctx); r.round.busy; r.write(ctx) {
		select {
		case e := <-r.round.ends:
			r.round.busy = false
			r.took(e)
		case <-ctx.Done():
			return
		}
	}
}

// count takes what waits into the counts.
func (r *Recorder) count() {
	r.refusals.take(func(x *joinery.Refusal) {
		if n := r.stats.recorded[x.Reason]; n != nil {
			n.Add(1)
		}
		if !r.counts.add(x) {
			r.stats.crowded.Add(1)
		}
	})
	r.attempts.take(func(x *joinery.Attempt) {
		r.stats.attempted.Add(1)
		if !r.counts.attempts.add(joinery.AttemptCount{Attempt: *x, Count: 1, First: x.At}) {
			r.stats.attemptsCrowded.Add(1)
		}
	})
}
