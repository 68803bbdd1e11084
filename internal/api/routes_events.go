package api

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/refusal"
)

// Events is the feed of events, and the webhooks to which it is sent.
type Events interface {
	// Events gives events behind after, or with fromNow the end of the feed.
	Events(ctx context.Context, caller joinery.Caller, after joinery.EventCursor, fromNow bool, types []joinery.EventType, limit int) (joinery.EventPage, error)
	Webhooks
	Deliveries
}

// Webhooks is the addresses to which events are sent.
type Webhooks interface {
	List(ctx context.Context, caller joinery.Caller) ([]joinery.Webhook, error)
	Get(ctx context.Context, caller joinery.Caller, id joinery.WebhookID) (joinery.Webhook, error)
	// Add and Rotate give a secret that cannot be had again.
	Add(ctx context.Context, caller joinery.Caller, w joinery.Webhook) (joinery.Webhook, string, error)
	Rotate(ctx context.Context, caller joinery.Caller, id joinery.WebhookID, overlap time.Duration) (joinery.Webhook, string, error)
	Remove(ctx context.Context, caller joinery.Caller, id joinery.WebhookID) error
}

// Deliveries is what becomes of events on their way.
type Deliveries interface {
	Enable(ctx context.Context, caller joinery.Caller, id joinery.WebhookID, fromNow bool) error
	Test(ctx context.Context, caller joinery.Caller, id joinery.WebhookID) (joinery.Delivery, error)
	Deliveries(ctx context.Context, caller joinery.Caller, id joinery.WebhookID) ([]joinery.Delivery, error)
}

// WebhookPath names a webhook in a path. Its name is exported because huma looks
// past embedded types of other names.
type WebhookPath struct {
	ID string `path:"id" pattern:"^whk_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"whk_ and 13 characters" doc:"The webhook's id"`
}

func (in WebhookPath) parse() (joinery.WebhookID, error) {
	return parse[joinery.WebhookID](in.ID, "webhook")
}

type eventsInput struct {
	After string `query:"after" maxLength:"32" doc:"Only events behind this place: 'next' or a 'cursor' of an answer. 'now' is the end of the feed"`
	Types string `query:"types" maxLength:"1024" doc:"Only events of these types, separated by commas"`
	Limit int    `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"At most this many"`
}

type rotateInput struct {
	WebhookPath
	Body client.WebhookRotation
}

type enableInput struct {
	WebhookPath
	Body client.WebhookEnabling
}

type deliveriesInput struct {
	WebhookPath
	Paging
}

func (s *Server) registerEvents() {
	route(s, spec{method: http.MethodGet, path: "/events", id: "listEvents", call: "EventsPage", tag: "events",
		summary: "What happened, in the order in which it was committed",
		description: "To the operator all, else what is the caller's organisation's. There is always a 'next', behind which later events will come: " +
			"ask again with it. An event can come twice, with the same id. See docs/events.md."},
		s.listEvents)
	route(s, spec{method: http.MethodGet, path: "/webhooks", id: "listWebhooks", tag: "events", summary: "Webhooks, without their secrets"},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.List[client.Webhook]], error) {
			hooks, err := s.Events.List(ctx, caller)
			if err != nil {
				return nil, err
			}
			return few(*in, "webhooks", hooks, func(w joinery.Webhook) string { return w.ID.String() }, webhook)
		})
	route(s, spec{method: http.MethodPost, path: "/webhooks", id: "addWebhook", secret: true, tag: "events", status: http.StatusCreated,
		summary:     "Have events sent to an address",
		description: "From now on. The answer holds the secret with which deliveries are signed. It is stored nowhere and cannot be had again."},
		s.addWebhook)
	route(s, spec{method: http.MethodGet, path: "/webhooks/{id}", id: "getWebhook", tag: "events", summary: "One webhook"},
		func(ctx context.Context, caller joinery.Caller, in *WebhookPath) (*body[client.Webhook], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			w, err := s.Events.Get(ctx, caller, id)
			return ok(webhook(w)), err
		})
	route(s, spec{method: http.MethodDelete, path: "/webhooks/{id}", id: "removeWebhook", tag: "events", summary: "Send nothing to a webhook any more, and forget it"},
		func(ctx context.Context, caller joinery.Caller, in *WebhookPath) (*none, error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			return nil, s.Events.Remove(ctx, caller, id)
		})
	route(s, spec{method: http.MethodPost, path: "/webhooks/{id}/rotate", id: "rotateWebhook", secret: true, tag: "events",
		summary: "Give a webhook another secret", description: "The present one signs beside it for a while. The answer holds the new one, this once."},
		s.rotateWebhook)
	s.registerDeliveries()
}

func (s *Server) registerDeliveries() {
	route(s, spec{method: http.MethodPost, path: "/webhooks/{id}/enable", id: "enableWebhook", tag: "events",
		summary: "Send to a webhook again that was switched off, or that waits for its next try"},
		func(ctx context.Context, caller joinery.Caller, in *enableInput) (*none, error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			return nil, s.Events.Enable(ctx, caller, id, in.Body.FromNow)
		})
	route(s, spec{method: http.MethodPost, path: "/webhooks/{id}/test", id: "testWebhook", tag: "events",
		summary: "Send a test event now, and tell what became of it"},
		func(ctx context.Context, caller joinery.Caller, in *WebhookPath) (*body[client.Delivery], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			d, err := s.Events.Test(ctx, caller, id)
			return ok(delivery(d)), err
		})
	route(s, spec{method: http.MethodGet, path: "/webhooks/{id}/deliveries", id: "listDeliveries", call: "Deliveries", tag: "events",
		summary: "The newest attempts to deliver to a webhook, newest first"},
		func(ctx context.Context, caller joinery.Caller, in *deliveriesInput) (*body[client.List[client.Delivery]], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			attempts, err := s.Events.Deliveries(ctx, caller, id)
			if err != nil {
				return nil, err
			}
			newest := func(d joinery.Delivery) string { return fmt.Sprintf("%019d", math.MaxInt64-d.N) }
			return few(in.Paging, "deliveries", attempts, newest, delivery)
		})
}

func (s *Server) listEvents(ctx context.Context, caller joinery.Caller, in *eventsInput) (*body[client.EventPage], error) {
	fromNow := in.After == client.FromNow
	var after joinery.EventCursor
	if !fromNow {
		var err error
		if after, err = joinery.ParseEventCursor(in.After); err != nil {
			return nil, err
		}
	}
	p, err := s.Events.Events(ctx, caller, after, fromNow, eventTypes(strings.FieldsFunc(in.Types, func(r rune) bool { return r == ',' })), in.Limit)
	if err != nil {
		return nil, err
	}
	return ok(client.EventPage{Items: each(p.Events, event), Next: p.Next.String(), More: p.More}), nil
}

func (s *Server) addWebhook(ctx context.Context, caller joinery.Caller, in *body[client.NewWebhook]) (*body[client.MadeWebhook], error) {
	w, secret, err := s.Events.Add(ctx, caller, joinery.Webhook{
		URL: in.Body.URL, Description: in.Body.Description, Types: eventTypes(in.Body.Types), AllOrgs: in.Body.Everything,
	})
	return ok(client.MadeWebhook{Webhook: webhook(w), Secret: secret}), err
}

func (s *Server) rotateWebhook(ctx context.Context, caller joinery.Caller, in *rotateInput) (*body[client.MadeWebhook], error) {
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	overlap := time.Duration(in.Body.OverlapHours) * time.Hour
	if in.Body.Now {
		overlap = -1
	}
	w, secret, err := s.Events.Rotate(ctx, caller, id, overlap)
	return ok(client.MadeWebhook{Webhook: webhook(w), Secret: secret}), err
}

func eventTypes(texts []string) []joinery.EventType {
	return each(texts, func(t string) joinery.EventType { return joinery.EventType(t) })
}

// EncodeEvent makes the body of a delivery: an event as the feed has it, without
// its place there.
func EncodeEvent(e joinery.Event) ([]byte, error) {
	out := event(e)
	out.Cursor = ""
	return json.Marshal(out)
}

func event(e joinery.Event) client.Event {
	out := client.Event{
		ID: e.ID, Type: string(e.Type), Timestamp: utc(e.At), Organisation: e.Org, Cursor: e.Cursor.String(),
		Data: client.EventData{Device: e.Device, JoinEUI: e.JoinEUI, DevEUI: e.DevEUI},
	}
	d := &out.Data
	switch {
	case e.Audit != nil:
		d.Actor, d.Detail = e.Audit.Actor, e.Audit.Detail
	case e.Join != nil:
		a := activation(*e.Join)
		d.Join = &a
	case e.Import != nil:
		d.Import = &client.EventImport{
			ID: e.Import.ID, Kind: string(e.Import.Kind), Created: e.Import.Created, Unchanged: e.Import.Unchanged, Failed: e.Import.Failed,
		}
	case e.Imported != nil:
		d.Import = &client.EventImport{ID: *e.Imported}
	case e.Refusal != nil:
		c := e.Refusal
		what, remedy := refusal.ForOwner(*c)
		d.Refused = &client.EventRefused{
			Reason: string(c.Reason), Count: c.Count, First: utc(c.First), Last: utc(c.At), Peer: c.Peer, NetID: c.Received.NetID, What: what, Remedy: remedy,
		}
	}
	return out
}

func webhook(w joinery.Webhook) client.Webhook {
	return client.Webhook{
		ID: w.ID, Organisation: w.Org, URL: w.URL, Description: w.Description, Everything: w.AllOrgs,
		Types:     each(w.Types, func(t joinery.EventType) string { return string(t) }),
		CreatedAt: utc(w.CreatedAt), Generation: w.Generation, OverlapUntil: utc(w.OverlapUntil), Disabled: w.Disabled,
		FailingSince: utc(w.FailingSince), Attempts: w.Attempts, NextAt: utc(w.NextAt),
	}
}

func delivery(d joinery.Delivery) client.Delivery {
	return client.Delivery{
		Event: d.Event, Type: string(d.Type), At: utc(d.At), TookMS: d.Took.Milliseconds(), Attempt: d.Attempt,
		OK: d.OK(), Status: d.Status, Error: d.Error,
	}
}
