package events

import (
	"context"
	"log/slog"
	"sync"

	"joinery"
)

// post is the couriers of the server that leads.
type post struct {
	r *Runner

	mu       sync.Mutex
	couriers map[joinery.WebhookID]*courier
	busy     map[joinery.WebhookID]bool
	// looks counts looks at the webhooks; ended is during which one, or after
	// which, a webhook's last round ended: what that look saw of it may be old.
	looks   uint64
	ended   map[joinery.WebhookID]uint64
	running sync.WaitGroup
}

func newPost(r *Runner) *post {
	return &post{r: r, couriers: map[joinery.WebhookID]*courier{}, busy: map[joinery.WebhookID]bool{}, ended: map[joinery.WebhookID]uint64{}}
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
		if w.Disabled != "" {
			continue
		}
		there[w.ID] = true
		if !w.FailingSince.IsZero() {
			failing++
		}
		switch {
		case p.busy[w.ID]:
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
		if due(w, now) && !c.idle(end) {
			p.begin(ctx, c)
		}
	}
	for id := range p.couriers {
		if !there[id] && !p.busy[id] {
			delete(p.couriers, id)
			delete(p.ended, id)
		}
	}
	p.r.stats.behind.Store(failing)
	return nil
}

// begin runs a round of c. The caller holds the lock.
func (p *post) begin(ctx context.Context, c *courier) {
	id := c.w.ID
	p.busy[id] = true
	p.running.Go(func() {
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
