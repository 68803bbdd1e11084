package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"joinery"
)

// EventFilter selects events of the feed.
type EventFilter struct {
	Types    []string // empty: all
	PageSize int      // 0: the server's default
}

// FromNow, as the place to begin, passes over what is in the feed.
const FromNow = "now"

// EventsPage reads one page of the feed behind after: "" is its beginning.
func (c *Client) EventsPage(ctx context.Context, f EventFilter, after string) (EventPage, error) {
	q := url.Values{}
	if after != "" {
		q.Set("after", after)
	}
	if f.PageSize > 0 {
		q.Set("limit", strconv.Itoa(f.PageSize))
	}
	for _, t := range f.Types {
		q.Add("type", t)
	}
	return get[EventPage](ctx, c, "/events", q)
}

// Events ranges over the feed behind after, up to what is there now. It ends
// with the first error, which is the last pair.
func (c *Client) Events(ctx context.Context, f EventFilter, after string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for more := true; more; {
			p, err := c.EventsPage(ctx, f, after)
			if err != nil {
				yield(Event{}, err)
				return
			}
			for _, e := range p.Items {
				if !yield(e, nil) {
					return
				}
			}
			after, more = p.Next, p.More
		}
	}
}

// Webhooks lists the webhooks of the caller's organisation.
func (c *Client) Webhooks(ctx context.Context) ([]Webhook, error) {
	return list[Webhook](ctx, c, "/webhooks", nil)
}

// Webhook reads one webhook.
func (c *Client) Webhook(ctx context.Context, id joinery.WebhookID) (Webhook, error) {
	return get[Webhook](ctx, c, webhookPath(id), nil)
}

// AddWebhook adds a webhook. The answer has its secret, this once.
func (c *Client) AddWebhook(ctx context.Context, in NewWebhook) (MadeWebhook, error) {
	return send[MadeWebhook](ctx, c, http.MethodPost, "/webhooks", in)
}

// RemoveWebhook sends nothing to a webhook any more and forgets it.
func (c *Client) RemoveWebhook(ctx context.Context, id joinery.WebhookID) error {
	return c.act(ctx, http.MethodDelete, webhookPath(id), nil, nil)
}

// RotateWebhook gives a webhook another secret. The answer has it, this once.
func (c *Client) RotateWebhook(ctx context.Context, id joinery.WebhookID, in WebhookRotation) (MadeWebhook, error) {
	return send[MadeWebhook](ctx, c, http.MethodPost, webhookPath(id)+"/rotate", in)
}

// EnableWebhook sends to a webhook again that was off.
func (c *Client) EnableWebhook(ctx context.Context, id joinery.WebhookID, in WebhookEnabling) error {
	return c.act(ctx, http.MethodPost, webhookPath(id)+"/enable", nil, in)
}

// TestWebhook sends a test event now and tells what became of it.
func (c *Client) TestWebhook(ctx context.Context, id joinery.WebhookID) (Delivery, error) {
	return send[Delivery](ctx, c, http.MethodPost, webhookPath(id)+"/test", nil)
}

// Deliveries lists the newest attempts to deliver to a webhook, newest first.
func (c *Client) Deliveries(ctx context.Context, id joinery.WebhookID) ([]Delivery, error) {
	return list[Delivery](ctx, c, webhookPath(id)+"/deliveries", nil)
}

func webhookPath(id joinery.WebhookID) string { return "/webhooks/" + id.String() }
