//go:build !clientgen

package client

import (
	"context"
	"iter"
)

// Events ranges over the feed of events behind q.After, up to what is there now.
// It ends with the first error, which is the last pair.
func (c *Client) Events(ctx context.Context, q EventsPageQuery, opts ...CallOption) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for more := true; more; {
			p, err := c.EventsPage(ctx, q, opts...)
			if err != nil {
				yield(Event{}, err)
				return
			}
			for _, e := range p.Items {
				if !yield(e, nil) {
					return
				}
			}
			q.After, more = p.Next, p.More
		}
	}
}
