package auth

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"joinery"
)

// KeyStore keeps API keys. APIKey answers joinery.CodeNotFound for an id that it
// does not have. Each change and its audit entry are durable together when the
// method returns nil.
type KeyStore interface {
	AddAPIKey(ctx context.Context, key joinery.APIKey, entry joinery.AuditEntry) error
	APIKey(ctx context.Context, id joinery.APIKeyID) (joinery.APIKey, error)
	// APIKeyStanding gives a key with what its organisation, and who made it, are
	// at present.
	APIKeyStanding(ctx context.Context, id joinery.APIKeyID) (joinery.APIKey, joinery.Standing, error)
	// APIKeys lists the keys of org, of all organisations and the operator's
	// for zero.
	APIKeys(ctx context.Context, org joinery.OrgID) ([]joinery.APIKey, error)
	// RevokeAPIKey ends a key, those that were made by it, and their invitations.
	RevokeAPIKey(ctx context.Context, id joinery.APIKeyID, at time.Time, entry joinery.AuditEntry) error
	TouchAPIKey(ctx context.Context, id joinery.APIKeyID, at time.Time) error
	// Orgs lists all organisations.
	Orgs(ctx context.Context) ([]joinery.Organisation, error)
}

// maxName bounds the name of a key, person, passkey or session, in characters.
const maxName = 128

// NewKey is what an API key is to be.
type NewKey struct {
	Name string
	// Org is the organisation for which it acts, zero for the caller's; see
	// joinery.Caller.ActingFor.
	Org joinery.OrgID
	// Operator makes an operator's key, which may act for no organisation.
	Operator bool
	// ExpiresAt is when it ends; zero is never.
	ExpiresAt time.Time
	// Rights is the most that it may do; none said is all that its maker may, but
	// for exports of root keys: a key that is made for something else cannot have
	// them, whoever finds it.
	Rights []joinery.Right
}

// Make makes an API key and gives its text, which cannot be had again. An operator
// may make a key for any organisation, and an operator's key; everybody else a key
// of their own organisation only. Nobody gives a right that they do not have, and
// what others than the operator make by a key that ends, ends with it at the
// latest; what is made with the session of a program has an end. Later the key may
// do no more than its maker then may.
func (s *Service) Make(ctx context.Context, caller joinery.Caller, n NewKey) (string, joinery.APIKey, error) {
	now := s.timestamp()
	if end := latestEnd(caller, now); !end.IsZero() && (n.ExpiresAt.IsZero() || n.ExpiresAt.After(end)) {
		n.ExpiresAt = end
	}
	rights, err := checkNewKey(caller, n, now)
	if err != nil {
		return "", joinery.APIKey{}, err
	}
	if !n.Operator || n.Org != 0 || caller.Org != 0 {
		orgs, err := s.store.Orgs(ctx)
		if err != nil {
			return "", joinery.APIKey{}, err
		}
		if n.Org, err = caller.ActingFor(n.Org, orgs); err != nil {
			return "", joinery.APIKey{}, err
		}
	}
	c := newCredential(keyText, int64(joinery.NewAPIKeyID()))
	key := joinery.APIKey{
		ID: joinery.APIKeyID(c.id), Org: n.Org, Operator: n.Operator, Name: n.Name, Hash: c.hash(), CreatedAt: now,
		Rights: rights, Person: caller.Person, MadeBy: caller.Key,
	}
	if !n.ExpiresAt.IsZero() {
		key.ExpiresAt = n.ExpiresAt.UTC().Truncate(time.Millisecond)
	}
	if err := s.store.AddAPIKey(ctx, key, s.keyEntry(caller, joinery.AuditAPIKeyMade, key, now)); err != nil {
		return "", joinery.APIKey{}, err
	}
	return c.text(), key, nil
}

// programKeyLife is how long a key lives at most that was made with the session of
// a program: whoever takes that session, on some machine, must not have with it a
// way in for ever.
const programKeyLife = 366 * 24 * time.Hour

// latestEnd is when what a caller makes ends at the latest; zero is never. An
// operator's key that no person made is what they run the server with, and is
// replaced by its likes.
func latestEnd(caller joinery.Caller, now time.Time) time.Time {
	switch {
	case caller.SessionKind == joinery.SessionProgram:
		return now.Add(programKeyLife)
	case caller.Operator && caller.Person == 0:
		return time.Time{}
	}
	return caller.ExpiresAt
}

// checkNewKey judges a wish, and gives the rights that the key is to have.
func checkNewKey(caller joinery.Caller, n NewKey, now time.Time) (joinery.Rights, error) {
	rights := caller.Rights &^ joinery.RightsOf(joinery.RightExportApprove) // another person approves, and a key is none
	if !n.Operator {
		rights &^= joinery.RightsOf(joinery.RightServerWrite)
	}
	asked := joinery.RightsOf(n.Rights...)
	switch {
	case n.Operator && !caller.Operator:
		return 0, joinery.Errorf(joinery.CodeForbidden, "only an operator can make an operator's key")
	case !n.ExpiresAt.IsZero() && !n.ExpiresAt.After(now):
		return 0, joinery.Errorf(joinery.CodeInvalid, "expiresAt lies in the past")
	case len(n.Rights) > 0 && !rights.Contains(asked):
		return 0, joinery.Errorf(joinery.CodeForbidden, "scopes: you cannot give what you may not do yourself: %s",
			strings.ReplaceAll((asked&^rights).String(), " ", ", "))
	case len(n.Rights) > 0:
		rights = asked
	default:
		rights &^= joinery.RightsOf(joinery.RightExportRequest)
	}
	return rights, checkName("name", n.Name)
}

// checkName keeps names that could not be told apart, or that would break a
// line of a log or a table, out of the store.
func checkName(what, name string) error {
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	switch {
	case strings.TrimSpace(name) == "" || name != strings.TrimSpace(name):
		return joinery.Errorf(joinery.CodeInvalid, "%s: want text that does not begin or end with a space", what)
	case utf8.RuneCountInString(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, unprintable):
		return joinery.Errorf(joinery.CodeInvalid, "%s: want at most %d printable characters", what, maxName)
	}
	return nil
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

// Revoke revokes a key and all that were made by it, at once and for ever. A key
// of somebody else is answered as one that does not exist; one that is revoked
// already stays so. Who may not say who belongs to the organisation revokes only
// keys that they made themselves.
func (s *Service) Revoke(ctx context.Context, caller joinery.Caller, id joinery.APIKeyID) error {
	key, err := s.store.APIKey(ctx, id)
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && !caller.Owns(key.Org) {
		return joinery.Errorf(joinery.CodeNotFound, "no such API key")
	}
	if err != nil {
		return err
	}
	switch {
	case key.Operator && !caller.Operator:
		return caller.RequireOperator()
	case !caller.May(joinery.RightPeopleWrite) && !madeBy(key, caller):
		return joinery.Errorf(joinery.CodeForbidden, "you did not make this key: ask an admin of the organisation to revoke it")
	case !key.RevokedAt.IsZero():
		return nil
	}
	now := s.timestamp()
	return s.store.RevokeAPIKey(ctx, id, now, s.keyEntry(caller, joinery.AuditAPIKeyRevoked, key, now))
}

// madeBy tells whether a key is the caller itself, or its work.
func madeBy(key joinery.APIKey, caller joinery.Caller) bool {
	return caller.Key != 0 && (key.ID == caller.Key || key.MadeBy == caller.Key) || caller.Person != 0 && key.Person == caller.Person
}

func (s *Service) keyEntry(caller joinery.Caller, event joinery.AuditEvent, key joinery.APIKey, at time.Time) joinery.AuditEntry {
	detail := map[string]string{"key": key.ID.String(), "name": key.Name, "operator": fmt.Sprint(key.Operator), "scopes": key.Rights.String()}
	if !key.ExpiresAt.IsZero() {
		detail["expiresAt"] = key.ExpiresAt.Format(time.RFC3339)
	}
	return joinery.AuditEntry{At: at, Event: event, Actor: caller.Name, Org: key.Org, Detail: detail}
}
