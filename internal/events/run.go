package events

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"joinery"
)

// Sequencer names what was committed in the feed.
type Sequencer interface {
	// BeginFeed comes before the first join, and EndFeed after the last.
	BeginFeed(ctx context.Context) error
	EndFeed(ctx context.Context) error
	// Sequence names what this server committed since the last call, and tells
	// whether there was anything. With touch it says that this server lives.
	Sequence(ctx context.Context, touch bool) (more bool, err error)
}

// Leader is what one server does for all.
type Leader interface {
	// Lead: held is nil where another server leads; else it tells whether the lead
	// is lost by now, and release gives it back.
	Lead(ctx context.Context) (held func() error, release func(), err error)
	// Sources are the other servers that have, or had, the database open.
	Sources(ctx context.Context) ([]joinery.EventSource, error)
	// RecoverFeed names joins of another server that are missing, after giving
	// those that live the time settle to do it themselves.
	RecoverFeed(ctx context.Context, s joinery.EventSource, settle time.Duration) (n int, err error)
	ForgetSource(ctx context.Context, s joinery.EventSource) error
}

// RunOptions say how a server runs its part.
type RunOptions struct {
	// Alone: no other server can have the database open.
	Alone bool
	// Keep is how long the feed is kept; 0 is 30 days.
	Keep time.Duration
	// Leading is what else one server does for all, until its context ends; nil is
	// nothing.
	Leading func(ctx context.Context)
}

// How often things are done. Turns of the store's sequence are counted, so the
// first of these is also what its bounds mean.
const (
	sequenceEvery = 250 * time.Millisecond
	touchEvery    = 2 * time.Minute / sequenceEvery // in turns; a server with nothing to do is found again from here
	lookEvery     = time.Second                     // for webhooks, and whether this server leads
	leadAgain     = 2 * time.Second
	sourcesEvery  = 10 * time.Second
	// staleAfter is how long a source shows no life before it is looked into, and
	// forgetAfter until it is forgotten; both as seen by this server's own clock.
	staleAfter  = 15 * time.Second
	forgetAfter = 3 * time.Hour
	// lookAgain is how often a source is looked into while it shows no life, and
	// lookShare the part of its silence that is waited where that is longer: one
	// that lives shows it every touchEvery, and one that is gone joins nobody.
	lookAgain  = 15 * time.Second
	lookShare  = 10
	settleTime = 3 * time.Second
	pruneEvery = 10 * time.Minute
	prunePages = 500
	keepFor    = 30 * 24 * time.Hour
	endTimeout = 2 * time.Second
)

// Runner is a server's part in the feed and its deliveries, from Start to Close.
type Runner struct {
	*Service
	sequencer Sequencer
	leader    Leader
	opt       RunOptions

	wake    chan struct{} // holds one token when the feed has something new
	stop    context.CancelFunc
	running sync.WaitGroup
	closing sync.Once
}

// Start begins to name what this server commits, and to deliver when this server
// leads. It comes before the first join.
func Start(ctx context.Context, s *Service, sequencer Sequencer, leader Leader, opt RunOptions) (*Runner, error) {
	if err := sequencer.BeginFeed(ctx); err != nil {
		return nil, err
	}
	if opt.Keep == 0 {
		opt.Keep = keepFor
	}
	r := &Runner{Service: s, sequencer: sequencer, leader: leader, opt: opt, wake: make(chan struct{}, 1)}
	life, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.running.Go(func() { r.sequence(life) })
	r.running.Go(func() { r.lead(life) })
	return r, nil
}

// Close ends deliveries, names what is left, and gives the lead back. drained:
// nobody joins any more. Else this server stays among the sources, so that what
// it commits after this is found by another, or at the next start.
func (r *Runner) Close(drained bool) {
	r.closing.Do(func() {
		r.stop()
		r.running.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
		defer cancel()
		if err := r.endFeed(ctx, drained); err != nil {
			r.log.Warn("the last events are named in the feed at the next start", slog.Any("error", err))
		}
		r.sender.Close()
	})
}

func (r *Runner) endFeed(ctx context.Context, drained bool) error {
	if drained {
		return r.sequencer.EndFeed(ctx)
	}
	_, err := r.sequencer.Sequence(ctx, true)
	return err
}

// sequence names what was committed, turn by turn.
func (r *Runner) sequence(ctx context.Context) {
	clock := time.NewTicker(sequenceEvery)
	defer clock.Stop()
	failing := false
	for turn := time.Duration(1); ; turn++ {
		select {
		case <-ctx.Done():
			return
		case <-clock.C:
		}
		// Not cut off: what became of it would have to be looked for.
		writing, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		more, err := r.sequencer.Sequence(writing, turn%touchEvery == 0)
		cancel()
		if err != nil && ctx.Err() == nil && !failing {
			r.log.Warn("events wait to be named in the feed", slog.Any("error", err))
		}
		failing = err != nil
		if more {
			r.hurry()
		}
	}
}

func (r *Runner) hurry() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// lead delivers whenever this server leads.
func (r *Runner) lead(ctx context.Context) {
	for {
		held, release, err := r.leader.Lead(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			r.log.Debug("nobody knows who delivers events", slog.Any("error", err))
		case err == nil && held != nil:
			r.stats.leads.Store(true)
			r.reign(ctx, held)
			r.stats.leads.Store(false)
			release()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(leadAgain):
		}
	}
}

// reign does what the leader does until ctx ends or the lead is lost. Deliveries
// under way end before it returns.
func (r *Runner) reign(ctx context.Context, held func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	post := newPost(r)
	defer parts.Wait()
	defer post.wait()
	defer cancel()
	parts.Go(func() { r.recover(ctx) })
	parts.Go(func() { r.prune(ctx) })
	if r.opt.Leading != nil {
		parts.Go(func() { r.opt.Leading(ctx) })
	}
	clock := time.NewTicker(lookEvery)
	defer clock.Stop()
	for {
		if err := held(); err != nil {
			r.log.Warn("this server delivers no events for now", slog.Any("error", err))
			return
		}
		if r.hold() == nil {
			if err := post.round(ctx); err != nil && ctx.Err() == nil {
				r.log.Debug("webhooks cannot be read", slog.Any("error", err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-clock.C:
		case <-r.wake:
		}
	}
}

// prune forgets what is older than the feed is kept.
func (r *Runner) prune(ctx context.Context) {
	late := map[joinery.WebhookID]time.Time{}
	for {
		if err := r.leaveLate(ctx, late); err != nil && ctx.Err() == nil {
			r.log.Debug("nobody knows which webhooks are late", slog.Any("error", err))
		}
		n, err := r.store.PruneEvents(ctx, r.now().Add(-r.opt.Keep), prunePages)
		wait := pruneEvery
		if err == nil && n == prunePages {
			wait = lookEvery
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// leaveLate switches off the webhooks that have not taken what is twice as old
// as the feed is kept, however they came to that: else the feed of all would be
// kept for ever for one of them. late is since when they are; one that was off
// as long as this server, or whose server's clock has jumped, has pruneEvery to
// go on.
func (r *Runner) leaveLate(ctx context.Context, late map[joinery.WebhookID]time.Time) error {
	if r.hold() != nil {
		clear(late) // nothing is delivered
		return nil
	}
	list, err := r.store.LateWebhooks(ctx, r.now().Add(-2*r.opt.Keep))
	if err != nil {
		return err
	}
	now, since := time.Now(), maps.Clone(late)
	clear(late)
	for _, w := range list {
		first, known := since[w.ID]
		if !known {
			first = now
		}
		if now.Sub(first) < pruneEvery {
			late[w.ID] = first
			continue
		}
		why := fmt.Sprintf("it has not taken events that are %d days old, and they are not kept any longer", int(2*r.opt.Keep/(24*time.Hour)))
		if err := r.switchOff(w, why); err != nil {
			return err
		}
	}
	return nil
}

// watched is a source as this server has seen it.
type watched struct {
	beat   int64
	since  time.Time // when it had this beat first, by this server's own clock
	looked time.Time // when it was looked into last at this beat
}

// due tells whether to look into a source that has shown no life for age. Once
// is not enough: a server that had nothing to do may join a device later, and
// crash before it names that.
func (w watched) due(now time.Time, age time.Duration) bool {
	switch {
	case age < staleAfter:
		return false
	case w.looked.IsZero() || age >= forgetAfter:
		return true
	}
	return now.Sub(w.looked) >= max(lookAgain, age/lookShare)
}

// recover looks for joins that servers committed and did not come to name: all
// of a server that is no more, whatever beat it had; of others, those that show
// no life, which may also have nothing to do.
func (r *Runner) recover(ctx context.Context) {
	seen := map[int64]watched{}
	for {
		sources, err := r.leader.Sources(ctx)
		if err == nil {
			for _, source := range sources {
				r.lookInto(ctx, source, seen)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(sourcesEvery):
		}
	}
}

func (r *Runner) lookInto(ctx context.Context, source joinery.EventSource, seen map[int64]watched) {
	w, known := seen[source.Server]
	if !known || w.beat != source.Beat {
		w = watched{beat: source.Beat, since: time.Now()}
		seen[source.Server] = w
	}
	now := time.Now()
	age, settle := now.Sub(w.since), settleTime
	if r.opt.Alone {
		age, settle = forgetAfter, 0
	}
	if !w.due(now, age) {
		return
	}
	n, err := r.leader.RecoverFeed(ctx, source, settle)
	if err == nil && age >= forgetAfter {
		err = r.leader.ForgetSource(ctx, source)
		delete(seen, source.Server)
	} else if err == nil {
		w.looked = now
		seen[source.Server] = w
	}
	switch {
	case err != nil && ctx.Err() == nil:
		r.log.Warn("what a server left behind cannot be looked into", slog.Int64("server", source.Server), slog.Any("error", err))
	case n > 0:
		r.stats.found.Add(uint64(n))
		r.log.Info("joins of a server that ended are in the feed now", slog.Int64("server", source.Server), slog.Int("joins", n))
		r.hurry()
	}
}
