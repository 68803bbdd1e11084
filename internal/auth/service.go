package auth

import (
	"context"
	"strings"
	"sync"
	"time"

	"joinery"
)

// Store is the state behind credentials.
type Store interface {
	KeyStore
	SessionStore
}

// SessionStore keeps sessions. SessionStanding answers joinery.CodeNotFound for
// an id that it does not have.
type SessionStore interface {
	AddSession(ctx context.Context, s joinery.Session) error
	// SessionStanding gives a session with where its person belongs at present.
	SessionStanding(ctx context.Context, id joinery.SessionID) (joinery.Session, []joinery.Membership, error)
	Sessions(ctx context.Context, person joinery.PersonID) ([]joinery.Session, error)
	EndSession(ctx context.Context, person joinery.PersonID, id joinery.SessionID) error
	TouchSession(ctx context.Context, id joinery.SessionID, at time.Time) error
}

// Service turns credentials into callers, and makes, lists and revokes API keys.
// It is safe for concurrent use.
type Service struct {
	store Store
	now   func() time.Time
	noted notes
}

// New makes a Service; now is the clock, nil for the system's.
func New(store Store, now func() time.Time) *Service {
	if now == nil {
		now = time.Now
	}
	return &Service{store: store, now: now}
}

// timestamp is now, as the store keeps it.
func (s *Service) timestamp() time.Time { return s.now().UTC().Truncate(time.Millisecond) }

// Authenticate gives the caller that an API key or session stands for. org is the
// organisation for which it means to act, zero for its own. A text that is none,
// is unknown, or has the wrong secret is answered alike; that it has expired or
// was revoked is told only to who holds its secret.
func (s *Service) Authenticate(ctx context.Context, bearer string, org joinery.OrgID) (joinery.Caller, error) {
	if strings.HasPrefix(bearer, string(sessionText)) {
		return s.sessionCaller(ctx, bearer, org)
	}
	return s.keyCaller(ctx, bearer, org)
}

// errUnknownCredential is the answer to everything that is not a credential of
// ours.
func errUnknownCredential() error {
	return joinery.Errorf(joinery.CodeUnauthenticated, "this is no API key or session of this server; check that it was copied whole")
}

// errNotYours refuses to act for an organisation, whether it exists or not.
func errNotYours() error {
	return joinery.Errorf(joinery.CodeForbidden, "this credential does not act for that organisation")
}

func (s *Service) keyCaller(ctx context.Context, bearer string, org joinery.OrgID) (joinery.Caller, error) {
	c, ok := parseCredential(keyText, bearer)
	if !ok {
		return joinery.Caller{}, errUnknownCredential()
	}
	id := joinery.APIKeyID(c.id)
	key, standing, err := s.store.APIKeyStanding(ctx, id)
	if err != nil && joinery.CodeOf(err) != joinery.CodeNotFound {
		return joinery.Caller{}, err
	}
	// An unknown key costs the same comparison, with a hash that nothing has.
	equal := c.matches(key.Hash)
	if err != nil {
		return joinery.Caller{}, errUnknownCredential()
	}
	refuse := func(reason joinery.AttemptReason, err error) (joinery.Caller, error) {
		return joinery.Caller{}, &joinery.Attempted{Reason: reason, By: "key " + id.String(), Org: key.Org, Operator: key.Operator, Err: err}
	}
	now := s.now()
	switch {
	case !equal:
		return refuse(joinery.AttemptKeyWrong, errUnknownCredential())
	case !key.RevokedAt.IsZero():
		return refuse(joinery.AttemptKeyRevoked, joinery.Errorf(joinery.CodeUnauthenticated, "this API key was revoked"))
	case !key.ExpiresAt.IsZero() && !now.Before(key.ExpiresAt):
		return refuse(joinery.AttemptKeyExpired, joinery.Errorf(joinery.CodeUnauthenticated, "this API key has expired"))
	case key.Person != 0 && standing.Role == "":
		return refuse(joinery.AttemptKeyOrphaned, joinery.Errorf(joinery.CodeUnauthenticated, "who made this API key does not belong to the organisation any more"))
	}
	s.noted.use(ctx, int64(id), key.LastUsedAt, now, func(ctx context.Context, at time.Time) error { return s.store.TouchAPIKey(ctx, id, at) })
	caller := joinery.Caller{
		Org: key.Org, Operator: key.Operator, Name: "key " + id.String(), ExpiresAt: key.ExpiresAt,
		Rights: keyRights(key, standing), Person: key.Person, Key: id,
	}
	switch {
	case org == 0:
	case key.Operator:
		caller.Org = org // whether there is one the rules say
	case org != key.Org:
		return refuse(joinery.AttemptOtherOrg, errNotYours())
	}
	return caller, nil
}

// keyRights bounds a key by what its organisation, and who made it, may do at
// present.
func keyRights(key joinery.APIKey, s joinery.Standing) joinery.Rights {
	rights := key.Rights & s.Kinds.Rights()
	if key.Person != 0 {
		rights &= s.Role.Rights()
	}
	return rights
}

func (s *Service) sessionCaller(ctx context.Context, bearer string, org joinery.OrgID) (joinery.Caller, error) {
	c, ok := parseCredential(sessionText, bearer)
	if !ok {
		return joinery.Caller{}, errUnknownCredential()
	}
	id := joinery.SessionID(c.id)
	session, memberships, err := s.store.SessionStanding(ctx, id)
	if err != nil && joinery.CodeOf(err) != joinery.CodeNotFound {
		return joinery.Caller{}, err
	}
	if equal := c.matches(session.Hash); err != nil || !equal {
		return joinery.Caller{}, errUnknownCredential()
	}
	now := s.now()
	if !now.Before(session.ExpiresAt) {
		return joinery.Caller{}, joinery.Errorf(joinery.CodeUnauthenticated, "this session has ended: sign in again")
	}
	s.noted.use(ctx, int64(id), session.LastUsedAt, now, func(ctx context.Context, at time.Time) error { return s.store.TouchSession(ctx, id, at) })
	caller, err := actFor(memberships, org)
	if err != nil {
		return joinery.Caller{}, err
	}
	caller.Name, caller.Person = "person "+session.Person.String(), session.Person
	caller.Session, caller.SessionKind = id, session.Kind
	return caller, nil
}

// actFor says what somebody may do: as operator, where they belong to the
// operator's organisation; else for the organisation that they name, or the only
// one to which they belong. Who names none of several may do nothing yet. An
// operator reaches what is anybody's, so what they may do elsewhere as a member is
// never added to that: where it is more, they act as a member only.
func actFor(memberships []joinery.Membership, org joinery.OrgID) (joinery.Caller, error) {
	var asMember, asOperator *joinery.Caller
	for _, m := range memberships {
		switch {
		case m.Operator:
			asOperator = &joinery.Caller{Operator: true, Org: org, Rights: m.Role.Rights()}
		case m.Org == org || org == 0 && len(memberships) == 1:
			asMember = &joinery.Caller{Org: m.Org, Rights: m.Role.Rights() & m.Kinds.Rights()}
		}
	}
	switch {
	case asOperator != nil && (asMember == nil || asOperator.Rights.Contains(asMember.Rights)):
		return *asOperator, nil
	case asMember != nil:
		return *asMember, nil
	case org != 0:
		return joinery.Caller{}, errNotYours()
	}
	return joinery.Caller{}, nil
}

// noteEvery is how far behind the time at which a credential was last used may be.
const noteEvery = 10 * time.Minute

// noteTimeout bounds what noting that costs a request.
const noteTimeout = 500 * time.Millisecond

// maxNotes bounds the memory of notes; forgetting one costs one more write.
const maxNotes = 4096

// notes keeps requests that come together from all writing that the same
// credential was used.
type notes struct {
	mu   sync.Mutex
	last map[int64]time.Time
}

// use writes that a credential is used now, unless that was written lately. What
// cannot be written is let go: who may call does not hang on it.
func (n *notes) use(ctx context.Context, id int64, stored, now time.Time, write func(context.Context, time.Time) error) {
	if now.Sub(stored) < noteEvery || !n.first(id, now) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	_ = write(ctx, now.UTC().Truncate(time.Millisecond))
}

func (n *notes) first(id int64, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at, ok := n.last[id]; ok && now.Sub(at) < noteEvery && !at.After(now) {
		return false
	}
	if n.last == nil || len(n.last) >= maxNotes {
		n.last = map[int64]time.Time{}
	}
	n.last[id] = now
	return true
}
