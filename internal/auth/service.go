package auth

import (
	"context"
	"crypto/subtle"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"joinery"
)

// Store keeps API keys. APIKey answers joinery.CodeNotFound for an id that it
// does not have. Each change and its audit entry are durable together when the
// method returns nil.
type Store interface {
	AddAPIKey(ctx context.Context, key joinery.APIKey, entry joinery.AuditEntry) error
	APIKey(ctx context.Context, id joinery.APIKeyID) (joinery.APIKey, error)
	// APIKeys lists the keys of org, of all organisations and the operator's
	// for zero.
	APIKeys(ctx context.Context, org joinery.OrgID) ([]joinery.APIKey, error)
	RevokeAPIKey(ctx context.Context, id joinery.APIKeyID, at time.Time, entry joinery.AuditEntry) error
	// Orgs lists all organisations.
	Orgs(ctx context.Context) ([]joinery.Organisation, error)
}

// maxName bounds a key's name, in characters.
const maxName = 128

// Service makes, checks and revokes API keys.
type Service struct {
	store Store
	now   func() time.Time
}

// New makes a Service; now is the clock, nil for the system's.
func New(store Store, now func() time.Time) *Service {
	if now == nil {
		now = time.Now
	}
	return &Service{store: store, now: now}
}

// Make makes an API key and gives its text, which cannot be had again. It acts
// for org, zero for the caller's (see joinery.Caller.ActingFor). An operator may
// make a key for any organisation, and an operator's key, which may act for
// none; everybody else a key of their own organisation only. A zero expiresAt is
// a key without end; but what others than the operator make by a key that ends,
// ends with it at the latest.
func (s *Service) Make(ctx context.Context, caller joinery.Caller, name string, org joinery.OrgID, operator bool, expiresAt time.Time) (string, joinery.APIKey, error) {
	now := s.now().UTC().Truncate(time.Millisecond)
	if end := caller.ExpiresAt; !caller.Operator && !end.IsZero() && (expiresAt.IsZero() || expiresAt.After(end)) {
		expiresAt = end
	}
	if err := checkNewKey(caller, name, operator, expiresAt, now); err != nil {
		return "", joinery.APIKey{}, err
	}
	if !operator || org != 0 || caller.Org != 0 {
		orgs, err := s.store.Orgs(ctx)
		if err != nil {
			return "", joinery.APIKey{}, err
		}
		if org, err = caller.ActingFor(org, orgs); err != nil {
			return "", joinery.APIKey{}, err
		}
	}
	c := newCredential(joinery.NewAPIKeyID())
	key := joinery.APIKey{
		ID: c.id, Org: org, Operator: operator, Name: name, Hash: c.hash(), CreatedAt: now,
	}
	if !expiresAt.IsZero() {
		key.ExpiresAt = expiresAt.UTC().Truncate(time.Millisecond)
	}
	if err := s.store.AddAPIKey(ctx, key, s.entry(caller, joinery.AuditAPIKeyMade, key, now)); err != nil {
		return "", joinery.APIKey{}, err
	}
	return c.text(), key, nil
}

func checkNewKey(caller joinery.Caller, name string, operator bool, expiresAt, now time.Time) error {
	switch {
	case operator && !caller.Operator:
		return joinery.Errorf(joinery.CodeForbidden, "only an operator can make an operator's key")
	case !expiresAt.IsZero() && !expiresAt.After(now):
		return joinery.Errorf(joinery.CodeInvalid, "expiresAt lies in the past")
	}
	return checkName(name)
}

// checkName keeps names that could not be told apart, or that would break a
// line of a log or a table, out of the store.
func checkName(name string) error {
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	switch {
	case strings.TrimSpace(name) == "" || name != strings.TrimSpace(name):
		return joinery.Errorf(joinery.CodeInvalid, "name: want text that does not begin or end with a space")
	case utf8.RuneCountInString(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, unprintable):
		return joinery.Errorf(joinery.CodeInvalid, "name: want at most %d printable characters", maxName)
	}
	return nil
}

// Authenticate gives the caller that an API key stands for. A key that is no
// key, is unknown, or has the wrong secret is answered alike; that a key has
// expired or was revoked is told only to who holds its secret.
func (s *Service) Authenticate(ctx context.Context, bearer string) (joinery.Caller, error) {
	c, ok := parseCredential(bearer)
	if !ok {
		return joinery.Caller{}, joinery.Errorf(joinery.CodeUnauthenticated, "this is no API key of this server; check that it was copied whole")
	}
	key, err := s.store.APIKey(ctx, c.id)
	if err != nil && joinery.CodeOf(err) != joinery.CodeNotFound {
		return joinery.Caller{}, err
	}
	// An unknown key costs the same comparison, with a hash that nothing has.
	presented := c.hash()
	equal := subtle.ConstantTimeCompare(presented[:], key.Hash[:]) == 1
	if err != nil || !equal {
		return joinery.Caller{}, joinery.Errorf(joinery.CodeUnauthenticated, "this is no API key of this server; check that it was copied whole")
	}
	now := s.now()
	switch {
	case !key.RevokedAt.IsZero():
		return joinery.Caller{}, joinery.Errorf(joinery.CodeUnauthenticated, "this API key was revoked")
	case !key.ExpiresAt.IsZero() && !now.Before(key.ExpiresAt):
		return joinery.Caller{}, joinery.Errorf(joinery.CodeUnauthenticated, "this API key has expired")
	}
	return joinery.Caller{Org: key.Org, Operator: key.Operator, Name: "key " + key.ID.String(), ExpiresAt: key.ExpiresAt}, nil
}

// List lists the caller's keys: all of them to the operator acting for no
// organisation, else those of the caller's organisation.
func (s *Service) List(ctx context.Context, caller joinery.Caller) ([]joinery.APIKey, error) {
	if caller.Org == 0 {
		if err := caller.RequireOperator(); err != nil {
			return nil, err
		}
	}
	return s.store.APIKeys(ctx, caller.Org)
}

// Revoke revokes a key, at once and for ever. A key of somebody else is
// answered as one that does not exist; one that is revoked already stays so.
func (s *Service) Revoke(ctx context.Context, caller joinery.Caller, id joinery.APIKeyID) error {
	key, err := s.store.APIKey(ctx, id)
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && !caller.Owns(key.Org) {
		return joinery.Errorf(joinery.CodeNotFound, "no such API key")
	}
	if err != nil {
		return err
	}
	if key.Operator {
		if err := caller.RequireOperator(); err != nil {
			return err
		}
	}
	if !key.RevokedAt.IsZero() {
		return nil
	}
	now := s.now().UTC().Truncate(time.Millisecond)
	return s.store.RevokeAPIKey(ctx, id, now, s.entry(caller, joinery.AuditAPIKeyRevoked, key, now))
}

func (s *Service) entry(caller joinery.Caller, event joinery.AuditEvent, key joinery.APIKey, at time.Time) joinery.AuditEntry {
	detail := map[string]string{"key": key.ID.String(), "name": key.Name, "operator": fmt.Sprint(key.Operator)}
	if !key.ExpiresAt.IsZero() {
		detail["expiresAt"] = key.ExpiresAt.Format(time.RFC3339)
	}
	return joinery.AuditEntry{At: at, Event: event, Actor: caller.Name, Org: key.Org, Detail: detail}
}
