package joinery

import "time"

type webhookKind struct{}

func (webhookKind) prefix() string { return "whk" }

// WebhookID is the identifier of a webhook: "whk_…".
type WebhookID = ID[webhookKind]

// NewWebhookID draws the identifier of a webhook.
func NewWebhookID() WebhookID { return newID[webhookKind]() }

// ParseWebhookID reads "whk_…".
func ParseWebhookID(s string) (WebhookID, error) { return parseID[webhookKind](s) }

// Audit events of webhooks.
const (
	AuditWebhookAdded    AuditEvent = "webhook.added"
	AuditWebhookRemoved  AuditEvent = "webhook.removed"
	AuditWebhookRotated  AuditEvent = "webhook.rotated"
	AuditWebhookEnabled  AuditEvent = "webhook.enabled"
	AuditWebhookDisabled AuditEvent = "webhook.disabled"
)

// Webhook is an address to which the events of an organisation are sent. Its
// secret is derived in the keyring from ID and Generation, and nowhere at rest.
type Webhook struct {
	ID          WebhookID
	Org         OrgID
	URL         string
	Description string
	// Types is what it wants; empty is all but EventDeviceImported.
	Types []EventType
	// AllOrgs sends it the events of every organisation: the operator's to set.
	AllOrgs bool
	// Generation of its secret, from 1. Until OverlapUntil deliveries are signed
	// with the one before, too; RotatedAt is when that began.
	Generation   uint32
	RotatedAt    time.Time
	OverlapUntil time.Time
	CreatedAt    time.Time

	// Disabled is why nothing is sent; "" while it is on.
	Disabled string
	WebhookProgress
}

// WebhookProgress is how the deliveries to a webhook go.
type WebhookProgress struct {
	// Cursor: everything up to it was delivered.
	Cursor EventCursor
	// FailingSince is when the first of Attempts failed, without a success of all
	// that was due since; zero while all is well. NextAt is when it is tried again.
	FailingSince time.Time
	Attempts     uint32
	NextAt       time.Time
}

// Wants tells whether events of a type are sent to w.
func (w Webhook) Wants(t EventType) bool {
	for _, wanted := range w.Types {
		if wanted == t {
			return true
		}
	}
	return len(w.Types) == 0 && t != EventDeviceImported
}

// Overlaps tells whether the secret before the present one still signs.
func (w Webhook) Overlaps(now time.Time) bool {
	return w.Generation > 1 && !now.Before(w.RotatedAt) && now.Before(w.OverlapUntil)
}

// Delivery is one attempt to deliver an event.
type Delivery struct {
	N       int64 // counts those of a webhook, from 1; 0 before it is stored
	Event   EventID
	Type    EventType
	At      time.Time
	Took    time.Duration
	Attempt uint32 // of this event, from 1
	Status  int    // of HTTP; 0 without an answer
	Error   string // "" for one that was taken; never what the receiver said
}

// OK tells whether the receiver took the event.
func (d Delivery) OK() bool { return d.Error == "" }

// MaxDeliveries is how many attempts are remembered of one webhook.
const MaxDeliveries = 100
