package events

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"joinery"
)

// post is the couriers of the server that leads.
type post struct {
	r *Runner

	mu       sync.Mutex
	couriers map[joinery.WebhookID]*courier
	busy     map[joinery.WebhookID]round
	// looks counts looks at the webhooks; ended is during which one, or after
	// which, a webhook's last round ended: what that look saw of it may be old.
	looks   uint64
	ended   map[joinery.WebhookID]uint64
	running sync.WaitGroup
}

// round is a round of deliveries under way, with the webhook as it was when that
// began.
type round struct {
	w    joinery.Webhook
	stop context.CancelFunc
}

// over tells whether a round signs with a secret that somebody took back.
func (r round) over(w joinery.Webhook, now time.Time) bool {
	was, is := r.w.Generation, w.Generation
	return was != is && (was+1 != is || !w.Overlaps(now))
}

func newPost(r *Runner) *post {
	return &post{r: r, couriers: map[joinery.WebhookID]*courier{}, busy: map[joinery.WebhookID]round{}, ended: map[joinery.WebhookID]uint64{}}
}

// wait waits for the deliveries under way.
func (p *post) wait() { p.running.Wait() }

// round begins a round for each webhook that has something to do and none under
// way.
func (p *post) round(ctx context.Context) error {
	p.mu.Lock()
	p.looks++
	look := p.looks
	p.mu.Unlock()
	end, err := p.r.store.FeedEnd(ctx)
	if err != nil {
		return err
	}
	list, err := p.r.store.Webhooks(ctx, 0)
	if err != nil {
		return err
	}
	now, failing := p.r.now(), int64(0)
	p.mu.Lock()
	defer p.mu.Unlock()
	there := make(map[joinery.WebhookID]bool, len(list))
	for _, w := range list {
		under, busy := p.busy[w.ID]
		if busy && under.over(w, now) {
			under.stop()
		}
		if w.Disabled != "" {
			continue
		}
		there[w.ID] = true
		if !w.FailingSince.IsZero() {
			failing++
		}
		switch {
		case busy:
			continue
		case p.ended[w.ID] == look:
			p.r.hurry()
			continue
		}
		c := p.couriers[w.ID]
		if c == nil {
			c = newCourier(p.r.Service, w)
			p.couriers[w.ID] = c
		}
		c.take(w)
		if c.due(now) && !c.idle(end) {
			p.begin(ctx, c)
		}
	}
	p.forget(there)
	p.r.stats.behind.Store(failing)
	return nil
}

// forget ends what is under way for webhooks that are off or gone, and lets go of
// their couriers. The caller holds the lock.
func (p *post) forget(there map[joinery.WebhookID]bool) {
	for id := range p.couriers {
		if there[id] {
			continue
		}
		if under, busy := p.busy[id]; busy {
			under.stop()
			continue
		}
		delete(p.couriers, id)
		delete(p.ended, id)
	}
}

// begin runs a round of c. The caller holds the lock.
func (p *post) begin(ctx context.Context, c *courier) {
	id := c.w.ID
	ctx, stop := context.WithCancel(ctx)
	p.busy[id] = round{c.w, stop}
	p.running.Go(func() {
		defer stop()
		more, err := p.inSlot(ctx, c)
		if err != nil && ctx.Err() == nil {
			p.r.log.Debug("a round of deliveries was cut off", slog.String("webhook", id.String()), slog.Any("error", err))
		}
		p.mu.Lock()
		delete(p.busy, id)
		p.ended[id] = p.looks
		p.mu.Unlock()
		if more {
			p.r.hurry()
		}
	})
}

// inSlot runs a round of c when it is its turn: what a round holds in memory is
// bounded as requests are.
func (p *post) inSlot(ctx context.Context, c *courier) (more bool, err error) {
	org := c.w.Org
	if err := p.r.slots.take(ctx, org); err != nil {
		return false, err
	}
	defer p.r.slots.give(org)
	return c.round(ctx)
}
