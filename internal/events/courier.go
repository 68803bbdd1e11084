package events

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"joinery"
	"joinery/internal/webhook"
)

// Bounds of one round of deliveries to one webhook.
const (
	windowEvents = 256             // events that may be under way, or wait for one before them
	atOnce       = 8               // requests to one webhook
	roundTime    = 5 * time.Second // after which no request of a round begins
	noteTimeout  = 2 * time.Second // for writing down what became of a round
	skipPages    = 512             // pages without an event for a webhook, after which its place is written down
	placeEvery   = time.Hour       // or this long after it was, if there were any: what is not, the feed keeps for it
)

// courier delivers to one webhook, round by round. What is not written down in
// the webhook's place is in its memory only.
type courier struct {
	*Service
	w      joinery.Webhook
	cursor joinery.EventCursor // up to which all is delivered; at or behind w.Cursor
	// taken are events behind cursor that were delivered: one before them was not.
	taken map[joinery.EventID]bool
	// tries counts attempts for events that were not taken.
	tries map[joinery.EventID]uint32
	// notBefore is when the next round may begin, where the last one could not be
	// read or written down: what the database has of it is old. misses counts such
	// rounds.
	notBefore time.Time
	misses    uint32
	noted     time.Time // when progress was written down last
}

func newCourier(s *Service, w joinery.Webhook) *courier {
	return &courier{Service: s, w: w, cursor: w.Cursor, taken: map[joinery.EventID]bool{}, tries: map[joinery.EventID]uint32{}}
}

// take brings the courier up to date with what is stored. A place other than the
// one that it left there is somebody's wish: to begin at the end, for one.
func (c *courier) take(w joinery.Webhook) {
	if w.Cursor != c.w.Cursor {
		*c = *newCourier(c.Service, w)
	}
	if w.WebhookProgress != c.w.WebhookProgress {
		c.notBefore = time.Time{} // it is written down after all, or switched on anew
	}
	c.w = w
}

// due tells whether a round may begin, by what is stored and by what could not
// be.
func (c *courier) due(now time.Time) bool {
	return due(c.w, now) && reached(c.notBefore, now)
}

// missed puts the next round off after one that could not be read or written
// down, until at least next, when the receiver is to be tried again.
func (c *courier) missed(next time.Time) {
	c.misses++
	c.notBefore = c.timestamp().Add(min(wait(c.misses), longMiss))
	if next.After(c.notBefore) {
		c.notBefore = next
	}
}

// idle tells whether there is nothing to do before something is behind end.
func (c *courier) idle(end joinery.EventCursor) bool {
	return c.w.FailingSince.IsZero() && !c.cursor.Before(end) && !c.unwritten()
}

// unwritten tells whether the place is to be written down though there is nothing
// to deliver.
func (c *courier) unwritten() bool {
	pages, since := c.cursor.Page-c.w.Cursor.Page, c.now().Sub(c.noted)
	return pages >= skipPages || pages > 0 && (since >= placeEvery || since < 0)
}

// round delivers what is in the window, once each, and writes down what became
// of it. more tells that there is something to do at once.
func (c *courier) round(ctx context.Context) (more bool, err error) {
	q := joinery.EventQuery{After: c.cursor, Org: c.w.Org, Wants: c.w.Wants, Limit: windowEvents}
	if c.w.AllOrgs {
		q.Org = 0
	}
	p, err := c.store.Events(ctx, q)
	if err != nil {
		if ctx.Err() == nil { // else somebody ended the round
			c.missed(time.Time{})
		}
		return false, err
	}
	if len(p.Events) == 0 {
		c.cursor = p.Next
		if !c.unwritten() && c.w.FailingSince.IsZero() {
			return p.More, nil
		}
		return p.More, c.note(joinery.WebhookProgress{Cursor: c.cursor}, nil)
	}
	r := c.deliver(ctx, p.Events)
	c.advance(p)
	if err := c.judge(ctx, r); err != nil {
		return false, err
	}
	return ctx.Err() == nil && r.failure == nil, nil
}

// result is what became of a round.
type result struct {
	mu       sync.Mutex
	attempts []joinery.Delivery
	taken    []joinery.EventID
	failure  *webhook.Answer // the last one
	gone     bool
	after    time.Duration // the longest that the receiver asked to wait
}

func (r *result) add(e joinery.Event, d joinery.Delivery, a webhook.Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempts = append(r.attempts, d)
	if a.Err == nil {
		r.taken = append(r.taken, e.ID)
		return
	}
	r.failure, r.gone, r.after = &a, r.gone || a.Gone(), max(r.after, a.RetryAfter)
}

// deliver makes one attempt for each event that was not taken: those of one
// device one after another, up to the first that fails, those of several devices
// at once. What is about no device is a line of its own.
func (c *courier) deliver(ctx context.Context, events []joinery.Event) *result {
	lines := map[joinery.DeviceID][]joinery.Event{}
	var order []joinery.DeviceID
	for _, e := range events {
		if c.taken[e.ID] {
			continue
		}
		if lines[e.Device] == nil {
			order = append(order, e.Device)
		}
		lines[e.Device] = append(lines[e.Device], e)
	}
	queue := make(chan []joinery.Event, len(order))
	for _, device := range order {
		queue <- lines[device]
	}
	close(queue)
	r := c.walk(ctx, queue)
	for _, d := range r.attempts {
		c.tries[d.Event] = d.Attempt
	}
	for _, id := range r.taken {
		c.taken[id] = true
		delete(c.tries, id)
	}
	return r
}

// walk delivers lines: one after another, for which whoever calls it has a slot,
// and as many at once beside that as nobody else needs.
func (c *courier) walk(ctx context.Context, queue <-chan []joinery.Event) *result {
	r, began := &result{}, time.Now()
	var running sync.WaitGroup
	var helpers atomic.Int64
	help := func() {
		defer helpers.Add(-1)
		for {
			line, more := <-queue
			if more {
				c.line(ctx, line, began, r)
			}
			// Given back after each line: somebody else may wait for it.
			if c.slots.give(c.w.Org); !more || !c.slots.try(c.w.Org) {
				return
			}
		}
	}
	for line := range queue {
		for int(helpers.Load()) < min(atOnce-1, len(queue)) && c.slots.try(c.w.Org) {
			helpers.Add(1)
			running.Go(help)
		}
		c.line(ctx, line, began, r)
	}
	running.Wait()
	return r
}

// line delivers events one after another, up to the first that fails.
func (c *courier) line(ctx context.Context, events []joinery.Event, began time.Time, r *result) {
	for _, e := range events {
		if ctx.Err() != nil || time.Since(began) > roundTime {
			return
		}
		d, a := c.attempt(ctx, c.w, e, c.tries[e.ID]+1)
		if a.Err != nil && ctx.Err() != nil {
			return // we gave up, not the receiver
		}
		if r.add(e, d, a); a.Err != nil {
			return
		}
	}
}

// advance moves the cursor up to the first event that was not taken.
func (c *courier) advance(p joinery.EventPage) {
	for _, e := range p.Events {
		if !c.taken[e.ID] {
			return
		}
		delete(c.taken, e.ID)
		c.cursor = e.Cursor
	}
	c.cursor = p.Next
}

// judge writes down a round, and switches off what is gone or hopeless.
func (c *courier) judge(ctx context.Context, r *result) error {
	progress := joinery.WebhookProgress{Cursor: c.cursor}
	now := c.timestamp()
	if r.failure != nil {
		progress.FailingSince, progress.Attempts = c.w.FailingSince, c.w.Attempts+1
		if progress.FailingSince.IsZero() || progress.FailingSince.After(now) {
			progress.FailingSince = now
		}
		progress.NextAt = now.Add(max(wait(progress.Attempts), r.after))
	}
	c.say(ctx, progress, r)
	if len(r.attempts) == 0 && c.cursor == c.w.Cursor {
		return nil
	}
	if err := c.note(progress, r.attempts); err != nil {
		return err
	}
	switch {
	case r.gone:
		return c.disable("the receiver answered 410: it wants nothing any more")
	case r.failure != nil && hopeless(progress, now):
		return c.disable("deliveries failed since " + progress.FailingSince.Format(time.RFC3339) + ", last: " + r.failure.Err.Error())
	}
	return nil
}

// say logs when deliveries begin to fail, and when they go on.
func (c *courier) say(ctx context.Context, now joinery.WebhookProgress, r *result) {
	switch failed, fails := !c.w.FailingSince.IsZero(), !now.FailingSince.IsZero(); {
	case fails && !failed:
		c.log.WarnContext(ctx, "deliveries to a webhook fail; they are tried again", slog.String("webhook", c.w.ID.String()),
			slog.String("host", hostOf(c.w.URL)), slog.Any("error", r.failure.Err))
	case failed && !fails:
		c.log.InfoContext(ctx, "deliveries to a webhook go on", slog.String("webhook", c.w.ID.String()), slog.String("host", hostOf(c.w.URL)))
	}
}

// note writes down how far the deliveries are. A server that is told to stop
// does it all the same: what is not noted is delivered again.
func (c *courier) note(p joinery.WebhookProgress, attempts []joinery.Delivery) error {
	ctx, cancel := context.WithTimeout(context.Background(), noteTimeout)
	defer cancel()
	if err := c.store.RecordDeliveries(ctx, c.w.ID, p, attempts); err != nil {
		c.missed(p.NextAt)
		return err
	}
	c.notBefore, c.misses, c.noted = time.Time{}, 0, c.now()
	p.Cursor.Tag = 0 // as it is stored
	c.w.WebhookProgress = p
	return nil
}

func (c *courier) disable(why string) error { return c.switchOff(c.w, why) }

// switchOff sends nothing to w any more, and tells its owner why.
func (s *Service) switchOff(w joinery.Webhook, why string) error {
	ctx, cancel := context.WithTimeout(context.Background(), noteTimeout)
	defer cancel()
	s.stats.disabled.Add(1)
	s.log.Warn("a webhook was switched off", slog.String("webhook", w.ID.String()), slog.String("host", hostOf(w.URL)), slog.String("why", why))
	return s.store.DisableWebhook(ctx, w.ID, why, s.entry("server", joinery.AuditWebhookDisabled, w, map[string]string{"why": why}))
}
