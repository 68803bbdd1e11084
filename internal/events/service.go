package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"time"

	"joinery"
	"joinery/internal/webhook"
)

// Bounds.
const (
	maxWebhooks  = 16 // of an organisation
	defaultLimit = 100
	maxLimit     = 500
	maxScans     = 16 // of the store, for one page of the feed

	defaultOverlap = 24 * time.Hour
	maxOverlap     = 7 * 24 * time.Hour

	testsPerMinute = 10 // of an organisation
)

// Options are what a Service may be given besides its parts.
type Options struct {
	Log *slog.Logger
	// Now is the clock of what is written down and of when something is tried
	// again; nil is the system's.
	Now func() time.Time
	// Hold is why nothing is to be sent now, nil for no reason: a copy of a
	// database must not speak for the one that it was copied from.
	Hold func() error
	// Encode makes the body of a delivery of an event.
	Encode func(joinery.Event) ([]byte, error)
}

// Service is the rules of this package. It is safe for concurrent use.
type Service struct {
	store  Store
	keys   Keys
	sender *webhook.Sender
	log    *slog.Logger
	now    func() time.Time
	hold   func() error
	encode func(joinery.Event) ([]byte, error)

	mu    sync.Mutex
	tests map[joinery.OrgID]window

	slots *slots
	stats stats
}

// New makes a Service, which sends through sender.
func New(store Store, keys Keys, sender *webhook.Sender, opt Options) *Service {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Hold == nil {
		opt.Hold = func() error { return nil }
	}
	return &Service{
		store: store, keys: keys, sender: sender, log: opt.Log, now: opt.Now, hold: opt.Hold, encode: opt.Encode,
		tests: map[joinery.OrgID]window{}, slots: newSlots(),
	}
}

func (s *Service) timestamp() time.Time { return s.now().UTC().Truncate(time.Millisecond) }

func notFound(what string) error { return joinery.Errorf(joinery.CodeNotFound, "no such %s", what) }

// Events gives events behind after, in the order of the feed: to the operator
// all, else those of the caller's organisation. fromNow begins at the end. types
// narrow it; none is all.
func (s *Service) Events(ctx context.Context, caller joinery.Caller, after joinery.EventCursor, fromNow bool, types []joinery.EventType, limit int) (p joinery.EventPage, err error) {
	org, err := readsAs(caller)
	if err != nil {
		return p, err
	}
	if err := checkTypes(types); err != nil {
		return p, err
	}
	if fromNow {
		p.Next, err = s.store.FeedEnd(ctx)
		return p, err
	}
	if limit <= 0 {
		limit = defaultLimit
	}
	q := joinery.EventQuery{After: after, Org: org, Limit: min(limit, maxLimit)}
	if len(types) > 0 {
		q.Wants = func(t joinery.EventType) bool { return slices.Contains(types, t) }
	}
	for range maxScans {
		p, err = s.store.Events(ctx, q)
		if err != nil || len(p.Events) > 0 || !p.More {
			return p, err
		}
		q.After = p.Next
	}
	return p, nil
}

// readsAs gives the organisation whose events the caller reads; zero for an
// operator who acts for none: all.
func readsAs(caller joinery.Caller) (joinery.OrgID, error) {
	if caller.Org == 0 && !caller.Operator {
		return 0, notFound("organisation")
	}
	return caller.Org, nil
}

func checkTypes(types []joinery.EventType) error {
	for _, t := range types {
		if !slices.Contains(joinery.EventTypes, t) {
			return joinery.Errorf(joinery.CodeInvalid, "types: there is an event type that is not known; docs/events.md lists them")
		}
	}
	return nil
}

// mine tells whether a webhook is the caller's. One for all organisations is the
// operator's, whoever it was made for: its secret signs what all of them get.
func mine(caller joinery.Caller, w joinery.Webhook) bool {
	return caller.Owns(w.Org) && (caller.Operator || !w.AllOrgs)
}

// own finds a webhook of the caller's; another's is absent.
func (s *Service) own(ctx context.Context, caller joinery.Caller, id joinery.WebhookID) (joinery.Webhook, error) {
	w, err := s.store.Webhook(ctx, id)
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && !mine(caller, w) {
		return joinery.Webhook{}, notFound("webhook")
	}
	return w, err
}

// List gives the webhooks of the caller's organisation, to an operator who acts
// for none all.
func (s *Service) List(ctx context.Context, caller joinery.Caller) ([]joinery.Webhook, error) {
	org, err := readsAs(caller)
	if err != nil {
		return nil, err
	}
	list, err := s.store.Webhooks(ctx, org)
	return slices.DeleteFunc(list, func(w joinery.Webhook) bool { return !mine(caller, w) }), err
}

// Get gives one webhook.
func (s *Service) Get(ctx context.Context, caller joinery.Caller, id joinery.WebhookID) (joinery.Webhook, error) {
	return s.own(ctx, caller, id)
}

// holder gives the organisation whose a new webhook of the caller's is: of one for
// all organisations, the operator's own.
func (s *Service) holder(ctx context.Context, caller joinery.Caller, all bool) (joinery.OrgID, error) {
	orgs, err := s.store.Orgs(ctx)
	switch {
	case err != nil:
		return 0, err
	case !all:
		return caller.ActingFor(0, orgs)
	case !caller.Operator:
		return 0, joinery.Errorf(joinery.CodeForbidden, "only the operator of this Join Server gets the events of all organisations")
	}
	i := slices.IndexFunc(orgs, func(o joinery.Organisation) bool { return o.Kinds.Is(joinery.KindServerOperator) })
	if i < 0 {
		return 0, joinery.Errorf(joinery.CodeInternal, "the operator has no organisation")
	}
	return orgs[i].ID, nil
}

// Add adds a webhook for the caller's organisation, or the operator's where it is
// for all, and gives its secret, which cannot be had again. Of w URL, Description, Types and AllOrgs count.
func (s *Service) Add(ctx context.Context, caller joinery.Caller, w joinery.Webhook) (joinery.Webhook, string, error) {
	var err error
	if w.Org, err = s.holder(ctx, caller, w.AllOrgs); err != nil {
		return w, "", err
	}
	u, err := s.sender.Policy().CheckURL(w.URL)
	if err != nil {
		return w, "", joinery.Errorf(joinery.CodeInvalid, "%s", err.Error())
	}
	slices.Sort(w.Types)
	w.Types = slices.Compact(w.Types)
	if err := checkTypes(w.Types); err != nil {
		return w, "", err
	}
	w.ID, w.Generation, w.CreatedAt = joinery.NewWebhookID(), 1, s.timestamp()
	secret, err := s.keys.WebhookSecret(ctx, w.ID, w.Generation)
	if err != nil {
		return w, "", err
	}
	w, err = s.store.AddWebhook(ctx, w, maxWebhooks, s.entry(caller.Name, joinery.AuditWebhookAdded, w, map[string]string{"host": u.Host}))
	if err != nil {
		return w, "", err
	}
	return w, secret, nil
}

// entry is an audit entry about a webhook. It does not hold the URL, which may
// have a token of the receiver's in it.
func (s *Service) entry(actor string, event joinery.AuditEvent, w joinery.Webhook, detail map[string]string) joinery.AuditEntry {
	all := map[string]string{"webhook": w.ID.String()}
	for k, v := range detail {
		all[k] = v
	}
	return joinery.AuditEntry{At: s.timestamp(), Event: event, Actor: actor, Org: w.Org, Detail: all}
}

// Remove sends nothing to a webhook any more and forgets it.
func (s *Service) Remove(ctx context.Context, caller joinery.Caller, id joinery.WebhookID) error {
	w, err := s.own(ctx, caller, id)
	if err != nil {
		return err
	}
	return s.store.RemoveWebhook(ctx, id, s.entry(caller.Name, joinery.AuditWebhookRemoved, w, nil))
}

// Rotate gives a webhook another secret, which cannot be had again. The present
// one signs beside it for overlap; 0 is a day, negative not at all.
func (s *Service) Rotate(ctx context.Context, caller joinery.Caller, id joinery.WebhookID, overlap time.Duration) (joinery.Webhook, string, error) {
	w, err := s.own(ctx, caller, id)
	if err != nil {
		return w, "", err
	}
	if overlap == 0 {
		overlap = defaultOverlap
	}
	at := s.timestamp()
	until := at.Add(min(max(0, overlap), maxOverlap))
	secret, err := s.keys.WebhookSecret(ctx, id, w.Generation+1)
	if err != nil {
		return w, "", err
	}
	entry := s.entry(caller.Name, joinery.AuditWebhookRotated, w, map[string]string{
		"generation": fmt.Sprint(w.Generation + 1), "overlapUntil": until.Format(time.RFC3339),
	})
	if err := s.store.RotateWebhook(ctx, id, w.Generation, at, until, entry); err != nil {
		return w, "", err
	}
	w.Generation, w.RotatedAt, w.OverlapUntil = w.Generation+1, at, until
	return w, secret, nil
}

// Enable sends to a webhook again that was off or is waiting for its next try.
func (s *Service) Enable(ctx context.Context, caller joinery.Caller, id joinery.WebhookID, fromNow bool) error {
	w, err := s.own(ctx, caller, id)
	if err != nil {
		return err
	}
	return s.store.EnableWebhook(ctx, id, fromNow, s.entry(caller.Name, joinery.AuditWebhookEnabled, w, map[string]string{"fromNow": fmt.Sprint(fromNow)}))
}

// Deliveries gives the newest attempts to deliver, newest first.
func (s *Service) Deliveries(ctx context.Context, caller joinery.Caller, id joinery.WebhookID) ([]joinery.Delivery, error) {
	if _, err := s.own(ctx, caller, id); err != nil {
		return nil, err
	}
	return s.store.Deliveries(ctx, id)
}

// Test sends a test event now, whether the webhook is on or off, and tells what
// became of it. It is not in the feed, and changes nothing. CodeUnavailable while
// nothing is to be sent.
func (s *Service) Test(ctx context.Context, caller joinery.Caller, id joinery.WebhookID) (joinery.Delivery, error) {
	w, err := s.own(ctx, caller, id)
	if err != nil {
		return joinery.Delivery{}, err
	}
	if s.hold() != nil {
		return joinery.Delivery{}, joinery.Errorf(joinery.CodeUnavailable, "this server sends nothing: its database is not known to be the newest state, "+
			"until the operator confirms it")
	}
	if err := s.mayTest(w.Org); err != nil {
		return joinery.Delivery{}, err
	}
	at := s.timestamp()
	e := joinery.Event{
		ID: joinery.NewEventID("test", []byte(w.ID.String()), []byte(joinery.NewWebhookID().String())), Type: joinery.EventWebhookTest, At: at, Org: w.Org,
		Audit: &joinery.AuditEntry{At: at, Actor: caller.Name, Detail: map[string]string{"webhook": w.ID.String()}},
	}
	d, _ := s.attempt(ctx, w, e, 1)
	return d, nil
}

// window counts tests of one minute.
type window struct {
	since time.Time
	n     int
}

func (s *Service) mayTest(org joinery.OrgID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	w := s.tests[org]
	if age := now.Sub(w.since); age < 0 || age >= time.Minute {
		w = window{since: now}
	}
	if w.n++; w.n > testsPerMinute {
		return joinery.Errorf(joinery.CodeRateLimited, "at most %d tests a minute; try again in a minute", testsPerMinute)
	}
	s.tests[org] = w
	return nil
}

// attempt makes one attempt to deliver an event.
func (s *Service) attempt(ctx context.Context, w joinery.Webhook, e joinery.Event, n uint32) (joinery.Delivery, webhook.Answer) {
	began := time.Now()
	d := joinery.Delivery{Event: e.ID, Type: e.Type, At: s.timestamp(), Attempt: n}
	m, err := s.message(ctx, w, e, d.At)
	var a webhook.Answer
	if err != nil {
		s.log.ErrorContext(ctx, "an event cannot be written or signed for its webhook", "webhook", w.ID, "event", e.ID, "error", err)
		a.Err = errors.New("the event could not be written or signed here")
	} else {
		a = s.sender.Send(ctx, m)
	}
	d.Took, d.Status = time.Since(began), a.Status
	if a.Err != nil {
		d.Error = a.Err.Error()
	}
	s.stats.count(a)
	return d, a
}

// message signs an event with the secret of w, and while a rotation lasts with
// the one before, too.
func (s *Service) message(ctx context.Context, w joinery.Webhook, e joinery.Event, at time.Time) (m webhook.Message, err error) {
	m = webhook.Message{URL: w.URL, ID: e.ID.String(), At: at}
	if m.Body, err = s.encode(e); err != nil {
		return m, err
	}
	generations := []uint32{w.Generation}
	if w.Overlaps(at) {
		generations = append(generations, w.Generation-1)
	}
	content := webhook.Content(m.ID, at, m.Body)
	for _, g := range generations {
		signature, err := s.keys.SignWebhook(ctx, w.ID, g, content)
		if err != nil {
			return m, err
		}
		m.Signatures = append(m.Signatures, signature)
	}
	return m, nil
}

// hostOf is what logs may say of a URL.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Host
}
