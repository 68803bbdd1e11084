package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"joinery"
)

const (
	// providerTimeout bounds each request to the provider.
	providerTimeout = 10 * time.Second
	// providerRest is how long a provider that failed is not asked again.
	providerRest = 5 * time.Second
)

// Provider is an OpenID provider (OpenID Connect Core 1.0), as a client of the
// authorization code flow with PKCE knows it. It is asked for its configuration
// when somebody first signs in, and again, some seconds later, until it answers.
type Provider struct {
	issuer, clientID, secret string
	redirect                 string
	client                   *http.Client
	rest                     time.Duration

	mu    sync.Mutex
	asked *inquiry // the newest; nil before the first
}

// inquiry is one question to a provider what it is, with its answer once done is
// closed.
type inquiry struct {
	done  chan struct{}
	found *discovered
	err   error
	ended time.Time
}

// serves tells whether an inquiry is to be waited for, or its answer to be taken.
func (q *inquiry) serves(rest time.Duration) bool {
	select {
	case <-q.done:
		return q.err == nil || time.Since(q.ended) < rest
	default:
		return true
	}
}

// discovered is what a provider says of itself.
type discovered struct {
	provider *oidc.Provider
	oauth    oauth2.Config
	verifier *oidc.IDTokenVerifier
}

// NewProvider makes a Provider; secret may be empty for a public client. client
// makes the requests; nil is one of its own.
func NewProvider(issuer, clientID, secret string, client *http.Client) *Provider {
	if client == nil {
		client = &http.Client{Timeout: providerTimeout}
	}
	return &Provider{issuer: issuer, clientID: clientID, secret: secret, client: client, rest: providerRest}
}

// String keeps the secret out of logs.
func (p *Provider) String() string { return "OpenID provider " + p.issuer }

// GoString is String, for %#v.
func (p *Provider) GoString() string { return p.String() }

func (p *Provider) name() string {
	if u, err := url.Parse(p.issuer); err == nil {
		return u.Host
	}
	return p.issuer
}

// discover gives what the provider says that it is. Who asks at once shares one
// inquiry, and each waits no longer than their own request lives.
func (p *Provider) discover(ctx context.Context) (*discovered, error) {
	q := p.inquire(ctx)
	select {
	case <-q.done:
		return q.found, q.err
	case <-ctx.Done():
		return nil, joinery.WrapError(joinery.CodeUnavailable, ctx.Err(), "the OpenID provider has not answered yet; try again later")
	}
}

// inquire gives the inquiry that serves, and begins one where none does.
func (p *Provider) inquire(ctx context.Context) *inquiry {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked != nil && p.asked.serves(p.rest) {
		return p.asked
	}
	q := &inquiry{done: make(chan struct{})}
	p.asked = q
	// The context stays with what verifies tokens: it must not end with the request.
	ctx = context.WithoutCancel(ctx)
	go func() {
		defer close(q.done)
		q.found, q.err = p.ask(ctx)
		q.ended = time.Now()
	}()
	return q
}

// ask asks the provider what it is.
func (p *Provider) ask(ctx context.Context) (*discovered, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, p.client), p.issuer)
	if err != nil {
		return nil, joinery.WrapError(joinery.CodeUnavailable, err, "the OpenID provider does not answer as one; try again later")
	}
	return &discovered{
		provider: provider,
		oauth: oauth2.Config{
			ClientID: p.clientID, ClientSecret: p.secret, Endpoint: provider.Endpoint(),
			RedirectURL: p.redirect, Scopes: []string{oidc.ScopeOpenID, "profile", "email"},
		},
		verifier: provider.Verifier(&oidc.Config{ClientID: p.clientID}),
	}, nil
}

// Browser is the secret that a browser keeps, in a cookie, from when it is sent to
// the provider until it comes back. State, nonce and PKCE verifier are made from
// it, so that no server has to remember them and none but that browser can bring
// an answer back.
type Browser [32]byte

func (b Browser) derive(what string) string {
	mac := hmac.New(sha256.New, b[:])
	mac.Write([]byte(what)) // never fails (hash.Hash)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// BeginProvider gives where to send a browser so that its person signs in at the
// provider.
func (s *SignIn) BeginProvider(ctx context.Context, b Browser) (string, error) {
	if s.provider == nil {
		return "", joinery.Errorf(joinery.CodeNotFound, "no OpenID provider is set up here")
	}
	d, err := s.provider.discover(ctx)
	if err != nil {
		return "", err
	}
	return d.oauth.AuthCodeURL(b.derive("state"), oidc.Nonce(b.derive("nonce")), oauth2.S256ChallengeOption(b.derive("verifier"))), nil
}

// claims is what is read of an ID token.
type claims struct {
	Name          string   `json:"name"`
	Email         string   `json:"email"`
	EmailVerified verified `json:"email_verified"`
}

// verified is true for true, and for "true", which some providers send although
// the claim is a boolean (OpenID Connect Core 1.0 §5.1). Anything else vouches for
// nothing, and keeps nobody out.
type verified bool

// UnmarshalJSON implements json.Unmarshaler.
func (v *verified) UnmarshalJSON(text []byte) error {
	*v = verified(string(text) == "true" || string(text) == `"true"`)
	return nil
}

// FinishProvider takes what the provider sent a browser back with, and gives who
// it is. invitation is a token that the browser brought along, or "": somebody new
// may come in by it, and who is known is not asked about it here. Whoever nobody
// invited is refused (joinery.CodeForbidden), and nothing of them is kept.
func (s *SignIn) FinishProvider(ctx context.Context, b Browser, query url.Values, invitation string) (joinery.PersonID, error) {
	began := time.Now()
	if s.provider == nil {
		return 0, joinery.Errorf(joinery.CodeNotFound, "no OpenID provider is set up here")
	}
	id, c, err := s.provider.redeem(ctx, b, query)
	if err != nil {
		return 0, s.refusal(ctx, began, err)
	}
	return s.admit(ctx, id, c, invitation)
}

// redeem checks an answer of the provider and gets the ID token for its code.
func (p *Provider) redeem(ctx context.Context, b Browser, query url.Values) (joinery.Identity, claims, error) {
	var none joinery.Identity
	// RFC 6749 §10.12: before anything else, that this browser asked.
	if subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(b.derive("state"))) != 1 {
		return none, claims{}, errors.New("the answer is not to what this browser asked")
	}
	if iss := query.Get("iss"); iss != "" && iss != p.issuer { // RFC 9207 §2.4
		return none, claims{}, errors.New("the answer is of another issuer")
	}
	if query.Has("error") || query.Get("code") == "" {
		return none, claims{}, errors.New("the provider refused, or the person did")
	}
	d, err := p.discover(ctx)
	if err != nil {
		return none, claims{}, err
	}
	ctx = oidc.ClientContext(ctx, p.client)
	token, err := d.oauth.Exchange(ctx, query.Get("code"), oauth2.VerifierOption(b.derive("verifier")))
	if err != nil {
		return none, claims{}, exchangeError(err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return none, claims{}, errors.New("the provider gave no ID token")
	}
	idToken, err := d.verifier.Verify(ctx, raw)
	if err != nil {
		return none, claims{}, fmt.Errorf("the ID token does not verify: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(idToken.Nonce), []byte(b.derive("nonce"))) != 1 {
		return none, claims{}, errors.New("the ID token is for another sign-in")
	}
	c, err := d.claims(ctx, idToken, token)
	return joinery.Identity{Issuer: idToken.Issuer, Subject: idToken.Subject}, c, err
}

// claims reads name and address: from the ID token, or where it leaves the address
// out, as it may (OpenID Connect Core 1.0 §5.4), from the provider's UserInfo.
func (d *discovered) claims(ctx context.Context, idToken *oidc.IDToken, token *oauth2.Token) (c claims, err error) {
	if err := idToken.Claims(&c); err != nil {
		return c, errors.New("the claims of the ID token cannot be read")
	}
	if c.Email != "" || d.provider.UserInfoEndpoint() == "" {
		return c, nil
	}
	info, err := d.provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	switch {
	case err != nil:
		return c, errors.New("the provider does not tell who signed in (UserInfo)")
	case info.Subject != idToken.Subject: // §5.3.2
		return c, errors.New("the provider's UserInfo is about somebody else")
	}
	var more claims
	if err := info.Claims(&more); err != nil {
		return c, errors.New("the provider's UserInfo cannot be read")
	}
	return claims{Name: firstOf(c.Name, more.Name), Email: more.Email, EmailVerified: more.EmailVerified}, nil
}

// exchangeError tells of a failed exchange without the provider's answer, which
// may repeat what was sent.
func exchangeError(err error) error {
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		status := 0
		if refused.Response != nil {
			status = refused.Response.StatusCode
		}
		return fmt.Errorf("the provider does not take the code: HTTP %d, error %q", status, oauthError(refused.ErrorCode))
	}
	return joinery.WrapError(joinery.CodeUnavailable, errors.New("the provider cannot be reached"), "the OpenID provider does not answer; try again later")
}

// oauthError lets a word of RFC 6749 §5.2 through, and nothing else.
func oauthError(code string) string {
	switch code {
	case "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope":
		return code
	}
	return "other"
}

// admit finds the person of an account. Who is new needs an invitation: a token,
// or one to an address that the provider vouches for; all that stand for that
// address are taken then. Who is known joins nothing by signing in, whatever link
// they came by: a link can be anybody's, and to take it is another step (Accept).
func (s *SignIn) admit(ctx context.Context, id joinery.Identity, c claims, token string) (joinery.PersonID, error) {
	email := ""
	if c.EmailVerified {
		email, _ = checkEmail(c.Email) // one that cannot be read is none
	}
	person, err := s.store.PersonOf(ctx, id)
	switch {
	case err == nil:
		return person.ID, s.note(ctx, person, personName(c.Name, email), email)
	case joinery.CodeOf(err) != joinery.CodeNotFound:
		return 0, err
	}
	person = joinery.Person{
		ID: joinery.NewPersonID(), Name: personName(c.Name, email), Email: email, EmailVerified: email != "", CreatedAt: s.timestamp(),
	}
	return person.ID, s.admitNew(ctx, joinery.Joining{Person: person, New: true, Identity: &id}, token)
}

// note keeps up with what the provider says of somebody.
func (s *SignIn) note(ctx context.Context, person joinery.Person, name, email string) error {
	before := person
	person.Name, person.Email = firstOf(name, person.Name), firstOf(email, person.Email)
	if email != "" { // else what the provider said before stays
		person.EmailVerified = true
	}
	if person == before {
		return nil
	}
	return s.store.NotePerson(ctx, person)
}

// admitNew lets somebody in who was not known, by all their invitations.
func (s *SignIn) admitNew(ctx context.Context, j joinery.Joining, token string) error {
	invitations, err := s.invitationsFor(ctx, j.Person.Email, token)
	if err != nil {
		return err
	}
	if len(invitations) == 0 {
		return joinery.Errorf(joinery.CodeForbidden, "you are signed in at the provider, and nobody invited that account here: ask an admin of your organisation to invite your address")
	}
	for _, j.Invitation = range invitations {
		// One that was taken or withdrawn since is no reason to keep out who has others.
		if err := s.join(ctx, j); err != nil && (j.New || joinery.CodeOf(err) != joinery.CodeNotFound) {
			return err
		}
		j.New, j.Identity = false, nil
	}
	return nil
}

func (s *SignIn) invitationsFor(ctx context.Context, email, token string) (list []joinery.Invitation, err error) {
	if email != "" {
		if list, err = s.store.InvitationsOf(ctx, email, s.now()); err != nil {
			return nil, err
		}
	}
	if token == "" {
		return list, nil
	}
	byToken, err := s.invitationOf(ctx, token)
	if err != nil {
		return nil, err
	}
	for _, i := range list {
		if i.ID == byToken.ID {
			return list, nil
		}
	}
	return append(list, byToken), nil
}

// personName is what a person is called: what their provider says, where it can be
// shown, else their address.
func personName(name, email string) string {
	if checkName("", name) == nil {
		return name
	}
	return email
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
