package events

import (
	"context"
	"time"

	"joinery"
)

// Store is the state behind this package. Changes write their audit entry in the
// same transaction and return nil only after it is durable. Absent things are
// CodeNotFound.
type Store interface {
	Feed
	Registry
	Webhooks
	Progress
}

// Feed is the feed of events.
type Feed interface {
	// Events gives events behind a cursor; CodeNotFound for a cursor whose place is
	// gone.
	Events(ctx context.Context, q joinery.EventQuery) (joinery.EventPage, error)
	// FeedEnd is the place behind the last event.
	FeedEnd(ctx context.Context) (joinery.EventCursor, error)
	// LateWebhooks gives those that are on and wait for events from before a time.
	LateWebhooks(ctx context.Context, before time.Time) ([]joinery.Webhook, error)
	// PruneEvents forgets at most limit pages from before a time, none that an
	// enabled webhook waits for, and tells how many.
	PruneEvents(ctx context.Context, before time.Time, limit int) (int, error)
}

// Registry is the organisations.
type Registry interface {
	Orgs(ctx context.Context) ([]joinery.Organisation, error)
}

// Webhooks holds webhooks.
type Webhooks interface {
	Webhook(ctx context.Context, id joinery.WebhookID) (joinery.Webhook, error)
	// Webhooks gives those of an organisation, all with a zero org.
	Webhooks(ctx context.Context, org joinery.OrgID) ([]joinery.Webhook, error)
	// AddWebhook is CodeConflict where the organisation has most already.
	AddWebhook(ctx context.Context, w joinery.Webhook, most int, a joinery.AuditEntry) (joinery.Webhook, error)
	RemoveWebhook(ctx context.Context, id joinery.WebhookID, a joinery.AuditEntry) error
	// RotateWebhook is CodeConflict unless expected is the present generation.
	RotateWebhook(ctx context.Context, id joinery.WebhookID, expected uint32, at, overlapUntil time.Time, a joinery.AuditEntry) error
}

// Progress holds how deliveries go.
type Progress interface {
	EnableWebhook(ctx context.Context, id joinery.WebhookID, fromNow bool, a joinery.AuditEntry) error
	DisableWebhook(ctx context.Context, id joinery.WebhookID, why string, a joinery.AuditEntry) error
	// RecordDeliveries never moves a cursor back.
	RecordDeliveries(ctx context.Context, id joinery.WebhookID, p joinery.WebhookProgress, attempts []joinery.Delivery) error
	// Deliveries is newest first.
	Deliveries(ctx context.Context, id joinery.WebhookID) ([]joinery.Delivery, error)
}

// Keys makes the secrets of webhooks and signs with them. Nobody else can have
// them.
type Keys interface {
	WebhookSecret(ctx context.Context, id joinery.WebhookID, generation uint32) (string, error)
	SignWebhook(ctx context.Context, id joinery.WebhookID, generation uint32, content []byte) (string, error)
}
