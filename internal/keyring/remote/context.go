package remote

import (
	"context"
	"sync"
	"time"
)

// requestContext is the context of a request: that of its connection, with the
// time that the client left. It makes a channel and a timer only when somebody
// waits for its end, which a join in memory never does.
type requestContext struct {
	context.Context           // of the connection
	deadline        time.Time // zero: none

	mu    sync.Mutex
	err   error
	done  chan struct{}
	stops []func() bool
}

var _ context.Context = (*requestContext)(nil)

// Deadline implements context.Context.
func (c *requestContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Err implements context.Context.
func (c *requestContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if err := c.Context.Err(); err != nil {
		return err
	}
	if c.overdue() {
		return context.DeadlineExceeded
	}
	return nil
}

func (c *requestContext) overdue() bool {
	return !c.deadline.IsZero() && !time.Now().Before(c.deadline)
}

// Done implements context.Context.
func (c *requestContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done != nil {
		return c.done
	}
	c.done = make(chan struct{})
	if c.err != nil {
		close(c.done)
		return c.done
	}
	c.stops = append(c.stops, context.AfterFunc(c.Context, func() { c.end(c.Context.Err()) }))
	if !c.deadline.IsZero() {
		c.stops = append(c.stops, time.AfterFunc(time.Until(c.deadline), func() { c.end(context.DeadlineExceeded) }).Stop)
	}
	return c.done
}

// end ends it.
func (c *requestContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	if c.done != nil {
		close(c.done)
	}
	c.stop()
}

func (c *requestContext) stop() {
	for _, stop := range c.stops {
		stop()
	}
	c.stops = nil
}

// idle tells whether nobody ever waited for its end, so that it may be used for
// another request. It lets go of what else would hold it.
func (c *requestContext) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop()
	return c.done == nil
}
