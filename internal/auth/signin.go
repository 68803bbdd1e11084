package auth

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"net/url"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"

	"joinery"
)

// SignInStore is the state behind signing in. What is absent is
// joinery.CodeNotFound.
type SignInStore interface {
	PersonStore
	PasskeyStore
	StepStore
	SessionStore
}

// PersonStore keeps people and how they come in.
type PersonStore interface {
	Person(ctx context.Context, id joinery.PersonID) (joinery.Person, error)
	PersonOf(ctx context.Context, i joinery.Identity) (joinery.Person, error)
	// NotePerson keeps name and address up to date.
	NotePerson(ctx context.Context, p joinery.Person) error
	Memberships(ctx context.Context, person joinery.PersonID) ([]joinery.Membership, error)
	Invitation(ctx context.Context, id joinery.InvitationID) (joinery.Invitation, error)
	// InvitationsOf gives the invitations of an address that stand at that time.
	InvitationsOf(ctx context.Context, email string, at time.Time) ([]joinery.Invitation, error)
	// Join uses an invitation up; CodeNotFound where it was taken meanwhile.
	Join(ctx context.Context, j joinery.Joining, at time.Time, entries ...joinery.AuditEntry) error
	// RemoveMember is PeopleStore's.
	RemoveMember(ctx context.Context, org joinery.OrgID, person joinery.PersonID, keepKeys bool, entry joinery.AuditEntry) error
	// Orgs lists all organisations.
	Orgs(ctx context.Context) ([]joinery.Organisation, error)
}

// StepStore keeps the steps of signing in that wait for the next one. Each
// serves once: TakeSignIn gives it to one of those who ask at once.
type StepStore interface {
	AddSignIn(ctx context.Context, ch joinery.SignIn, now time.Time) error
	SignIn(ctx context.Context, hash [32]byte) (joinery.SignIn, error)
	SignInByCode(ctx context.Context, code string) (joinery.SignIn, error)
	TakeSignIn(ctx context.Context, hash [32]byte) (joinery.SignIn, error)
	// AgreeToSignIn writes its entry for every organisation of the person.
	AgreeToSignIn(ctx context.Context, hash [32]byte, person joinery.PersonID, entry joinery.AuditEntry) error
}

// SignInOptions say how people sign in.
type SignInOptions struct {
	// URL is the address under which browsers reach this server, without a path:
	// "https://js.example.com".
	URL string
	// Session is how long a session lasts.
	Session time.Duration
	// Provider is the OpenID provider; nil for none.
	Provider *Provider
	// Log is where it is told who signed in; nil is nowhere.
	Log *slog.Logger
	// Now is the clock; nil is the system's.
	Now func() time.Time
	// AnswerAfter is the time from its beginning before which a try is not
	// refused, so that the clock tells nothing of what was wrong: 50 ms where it is
	// zero; negative is none.
	AnswerAfter time.Duration
}

// SignIn signs people in. It is safe for concurrent use.
type SignIn struct {
	store    SignInStore
	url      *url.URL
	session  time.Duration
	provider *Provider
	passkeys *webauthn.WebAuthn
	log      *slog.Logger
	now      func() time.Time
	hold     time.Duration
	limit    *limiter
}

// NewSignIn makes a SignIn.
func NewSignIn(store SignInStore, o SignInOptions) (*SignIn, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" {
		return nil, errors.New("sign-in: want the address under which browsers reach this server")
	}
	s := &SignIn{store: store, url: u, session: o.Session, provider: o.Provider, log: o.Log, now: o.Now, hold: o.AnswerAfter}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.hold == 0 {
		s.hold = 50 * time.Millisecond
	}
	if s.session == 0 {
		s.session = 12 * time.Hour
	}
	if s.provider != nil {
		s.provider.redirect = u.JoinPath("/sign-in/callback").String()
	}
	s.limit = newLimiter(s.now)
	s.passkeys, err = newWebAuthn(u)
	return s, err
}

// URL is the address under which browsers reach this server, without a path.
func (s *SignIn) URL() string { return s.url.Scheme + "://" + s.url.Host }

// ProviderName names the OpenID provider by its host; "" where there is none.
func (s *SignIn) ProviderName() string {
	if s.provider == nil {
		return ""
	}
	return s.provider.name()
}

// Allow counts a try from an address, and refuses it where there were too many.
func (s *SignIn) Allow(from netip.Addr) error {
	if !s.limit.allow(from) {
		return joinery.Errorf(joinery.CodeRateLimited, "too many tries to sign in; try again in a minute")
	}
	return nil
}

// signInPage is where people sign in, behind URL.
const signInPage = "/sign-in"

func (s *SignIn) timestamp() time.Time { return s.now().UTC().Truncate(time.Millisecond) }

// refusal is what everybody is told whose proof is no good, whatever was wrong
// with it: an unknown passkey, a wrong signature, a step that was used already.
func (s *SignIn) refusal(ctx context.Context, began time.Time, cause error) error {
	if code := joinery.CodeOf(cause); code == joinery.CodeUnavailable || code == joinery.CodeRateLimited {
		return cause
	}
	wait(ctx, s.hold-time.Since(began))
	return joinery.WrapError(joinery.CodeUnauthenticated, cause, "this did not sign you in: try again from the beginning")
}

func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// StartSession signs a person in, and gives the text that holds the session.
func (s *SignIn) StartSession(ctx context.Context, person joinery.PersonID, kind joinery.SessionKind, name string) (string, joinery.Session, error) {
	c, now := newCredential(sessionText, int64(joinery.NewSessionID())), s.timestamp()
	session := joinery.Session{
		ID: joinery.SessionID(c.id), Person: person, Kind: kind, Name: name, Hash: c.hash(), CreatedAt: now, ExpiresAt: now.Add(s.session),
	}
	if err := s.store.AddSession(ctx, session); err != nil {
		return "", joinery.Session{}, err
	}
	s.log.InfoContext(ctx, "signed in", slog.String("person", person.String()), slog.String("session", session.ID.String()), slog.String("kind", string(kind)))
	return c.text(), session, nil
}

// requirePerson refuses who is nobody: an API key, the operator socket.
func requirePerson(caller joinery.Caller) error {
	if caller.Session == 0 {
		return joinery.Errorf(joinery.CodeForbidden, "only a person who signed in can do that")
	}
	return nil
}

// requireBrowser refuses who is nobody, and the session of a program: with that,
// whoever has it could make ways in that outlast it.
func requireBrowser(caller joinery.Caller) error {
	if err := requirePerson(caller); err != nil || caller.SessionKind == joinery.SessionBrowser {
		return err
	}
	return joinery.Errorf(joinery.CodeForbidden, "a program cannot do that for you: do it in a browser, on the server's page %s", signInPage)
}

// Me gives who the caller is, and where they belong; nobody for an API key or the
// operator socket.
func (s *SignIn) Me(ctx context.Context, caller joinery.Caller) (joinery.Person, []joinery.Membership, error) {
	if caller.Session == 0 {
		return joinery.Person{}, nil, nil
	}
	person, err := s.store.Person(ctx, caller.Person)
	if err != nil {
		return joinery.Person{}, nil, err
	}
	memberships, err := s.store.Memberships(ctx, caller.Person)
	return person, memberships, err
}

// Sessions lists the caller's sessions; none of an API key.
func (s *SignIn) Sessions(ctx context.Context, caller joinery.Caller) ([]joinery.Session, error) {
	if caller.Session == 0 {
		return nil, nil
	}
	list, err := s.store.Sessions(ctx, caller.Person)
	now := s.now()
	var living []joinery.Session
	for _, session := range list {
		if now.Before(session.ExpiresAt) {
			living = append(living, session)
		}
	}
	return living, err
}

// EndSession signs the caller out there; zero is here. A session of somebody else
// is absent.
func (s *SignIn) EndSession(ctx context.Context, caller joinery.Caller, id joinery.SessionID) error {
	if caller.Session == 0 {
		return joinery.Errorf(joinery.CodeNotFound, "no such session")
	}
	if id == 0 {
		id = caller.Session
	}
	return s.store.EndSession(ctx, caller.Person, id)
}

// invitationOf finds the invitation for which a token stands. Every token that
// does not is answered alike.
func (s *SignIn) invitationOf(ctx context.Context, token string) (joinery.Invitation, error) {
	refused := joinery.Errorf(joinery.CodeForbidden, "this is no invitation that stands: it was taken, withdrawn or has ended, or was not copied whole")
	c, ok := parseCredential(invitationText, token)
	if !ok {
		return joinery.Invitation{}, refused
	}
	i, err := s.store.Invitation(ctx, joinery.InvitationID(c.id))
	if err != nil && joinery.CodeOf(err) != joinery.CodeNotFound {
		return joinery.Invitation{}, err
	}
	if equal := c.matches(i.Hash); err != nil || !equal || !s.now().Before(i.ExpiresAt) {
		return joinery.Invitation{}, refused
	}
	return i, nil
}

// Offer is an invitation with what whoever holds its token must know before they
// take it.
type Offer struct {
	joinery.Invitation
	OrgName string
	// Operator is set where the organisation runs this server.
	Operator bool
}

// Offer tells what an invitation is, to whoever holds its token; nothing changes.
func (s *SignIn) Offer(ctx context.Context, token string) (Offer, error) {
	i, err := s.invitationOf(ctx, token)
	if err != nil {
		return Offer{}, err
	}
	orgs, err := s.store.Orgs(ctx)
	if err != nil {
		return Offer{}, err
	}
	o := Offer{Invitation: i}
	for _, org := range orgs {
		if org.ID == i.Org {
			o.OrgName, o.Operator = org.Name, org.Kinds.Is(joinery.KindServerOperator)
		}
	}
	return o, nil
}

// Accept lets the caller join an organisation for a token.
func (s *SignIn) Accept(ctx context.Context, caller joinery.Caller, token string) error {
	if err := requirePerson(caller); err != nil {
		return err
	}
	i, err := s.invitationOf(ctx, token)
	if err != nil {
		return err
	}
	return s.join(ctx, joinery.Joining{Invitation: i, Person: joinery.Person{ID: caller.Person}})
}

// Leave ends the caller's own membership. The API keys that they made there are
// revoked, always: were they kept, who left would go on to hold them. To anything
// else they do not belong, and it is answered as absent.
func (s *SignIn) Leave(ctx context.Context, caller joinery.Caller, org joinery.OrgID) error {
	if err := requirePerson(caller); err != nil {
		return err
	}
	entry := joinery.AuditEntry{At: s.timestamp(), Event: joinery.AuditPersonLeft, Actor: caller.Name, Org: org, Detail: map[string]string{
		"person": caller.Person.String(), "keys": "revoked",
	}}
	err := s.store.RemoveMember(ctx, org, caller.Person, false, entry)
	if joinery.CodeOf(err) == joinery.CodeNotFound {
		return joinery.Errorf(joinery.CodeNotFound, "you do not belong to such an organisation")
	}
	return err
}

// join makes somebody a member, with the audit entry of that.
func (s *SignIn) join(ctx context.Context, j joinery.Joining) error {
	at := s.timestamp()
	actor := "person " + j.Person.ID.String()
	// The store says which role they have then: who has a higher one keeps it.
	entry := joinery.AuditEntry{At: at, Event: joinery.AuditPersonJoined, Actor: actor, Org: j.Invitation.Org, Detail: map[string]string{
		"person": j.Person.ID.String(), "invitation": j.Invitation.ID.String(), "invitedBy": j.Invitation.InvitedBy, "offered": string(j.Invitation.Role),
	}}
	if j.Passkey != nil {
		entry.Detail["passkey"] = j.Passkey.ID.String()
	}
	return s.store.Join(ctx, j, at, entry)
}
