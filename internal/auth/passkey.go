package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/url"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"joinery"
)

// PasskeyStore keeps WebAuthn credentials. Entries are written for every
// organisation of the person.
type PasskeyStore interface {
	// AddPasskey is CodeConflict where the person has most already.
	AddPasskey(ctx context.Context, p joinery.Passkey, most int, entry joinery.AuditEntry) error
	PasskeyOf(ctx context.Context, credential []byte) (joinery.Passkey, error)
	Passkeys(ctx context.Context, person joinery.PersonID) ([]joinery.Passkey, error)
	UsePasskey(ctx context.Context, id joinery.PasskeyID, record []byte, at time.Time) error
	// RemovePasskey is CodeConflict where the person could not sign in any more.
	RemovePasskey(ctx context.Context, person joinery.PersonID, id joinery.PasskeyID, entry joinery.AuditEntry) error
}

// Bounds of passkeys.
const (
	ceremonyLife = 5 * time.Minute
	maxPasskeys  = 20 // of a person
)

func newWebAuthn(u *url.URL) (*webauthn.WebAuthn, error) {
	return webauthn.New(&webauthn.Config{
		RPID: u.Hostname(), RPDisplayName: "Joinery", RPOrigins: []string{u.Scheme + "://" + u.Host},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, UserVerification: protocol.VerificationRequired,
		},
	})
}

// holder is a person as the library wants one. Their handle, which authenticators
// keep, is their id: it tells nothing of them.
type holder struct {
	id       joinery.PersonID
	name     string
	passkeys []webauthn.Credential
}

func handle(id joinery.PersonID) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

// WebAuthnID implements webauthn.User.
func (h holder) WebAuthnID() []byte { return handle(h.id) }

// WebAuthnName implements webauthn.User.
func (h holder) WebAuthnName() string { return h.name }

// WebAuthnDisplayName implements webauthn.User.
func (h holder) WebAuthnDisplayName() string { return h.name }

// WebAuthnCredentials implements webauthn.User.
func (h holder) WebAuthnCredentials() []webauthn.Credential { return h.passkeys }

// record is what is stored of a credential: what verifying needs, and nothing of
// how it was attested.
func record(c webauthn.Credential) ([]byte, error) {
	c.Attestation = webauthn.CredentialAttestation{}
	return json.Marshal(c)
}

// BeginPasskey gives the options of a sign-in by passkey, as JSON for the browser.
// They name nobody: the authenticator says who it is.
func (s *SignIn) BeginPasskey(ctx context.Context) ([]byte, error) {
	options, session, err := s.passkeys.BeginDiscoverableLogin()
	if err != nil {
		return nil, err
	}
	if err := s.remember(ctx, joinery.SignIn{Hash: hashOf(session.Challenge), Kind: joinery.SignInPasskey}, ceremonyLife); err != nil {
		return nil, err
	}
	return json.Marshal(options)
}

func hashOf(text string) [sha256.Size]byte { return sha256.Sum256([]byte(text)) }

func (s *SignIn) remember(ctx context.Context, ch joinery.SignIn, life time.Duration) error {
	now := s.timestamp()
	ch.ExpiresAt = now.Add(life)
	return s.store.AddSignIn(ctx, ch, now)
}

// take uses up the step for which a browser or program has the secret.
func (s *SignIn) take(ctx context.Context, kind joinery.SignInKind, hash [sha256.Size]byte) (joinery.SignIn, error) {
	ch, err := s.store.TakeSignIn(ctx, hash)
	switch {
	case err != nil:
		return joinery.SignIn{}, err
	case ch.Kind != kind:
		return joinery.SignIn{}, errors.New("the step is another one's")
	case !s.now().Before(ch.ExpiresAt):
		return joinery.SignIn{}, errors.New("the step came too late")
	}
	return ch, nil
}

// FinishPasskey gives who signed in, by the browser's answer (the JSON of a
// PublicKeyCredential). An unknown passkey and a wrong signature are refused alike.
func (s *SignIn) FinishPasskey(ctx context.Context, answer []byte) (joinery.PersonID, error) {
	began := time.Now()
	person, err := s.checkPasskey(ctx, answer)
	if err != nil {
		return 0, s.refusal(ctx, began, err)
	}
	return person, nil
}

func (s *SignIn) checkPasskey(ctx context.Context, answer []byte) (joinery.PersonID, error) {
	parsed, err := protocol.ParseCredentialRequestResponseBytes(answer)
	if err != nil {
		return 0, errors.New("the answer cannot be read")
	}
	challenge := parsed.Response.CollectedClientData.Challenge
	if _, err := s.take(ctx, joinery.SignInPasskey, hashOf(challenge)); err != nil {
		return 0, err
	}
	var found joinery.Passkey
	find := func(rawID, userHandle []byte) (webauthn.User, error) {
		if found, err = s.store.PasskeyOf(ctx, rawID); err != nil {
			return nil, err
		}
		if !bytes.Equal(userHandle, handle(found.Person)) {
			return nil, errors.New("the passkey is another person's")
		}
		var c webauthn.Credential
		if err := json.Unmarshal(found.Record, &c); err != nil {
			return nil, errors.New("the record of the passkey is damaged")
		}
		return holder{id: found.Person, passkeys: []webauthn.Credential{c}}, nil
	}
	_, used, err := s.passkeys.ValidatePasskeyLogin(find, webauthn.SessionData{
		Challenge: challenge, RelyingPartyID: s.url.Hostname(), UserVerification: protocol.VerificationRequired,
	}, parsed)
	switch {
	case err != nil:
		return 0, errors.New("the passkey is not known, or did not sign this")
	case used.Authenticator.CloneWarning: // WebAuthn level 3, §6.1.1
		return 0, errors.New("the counter of the passkey went back: there may be a copy of it")
	}
	kept, err := record(*used)
	if err != nil {
		return 0, err
	}
	return found.Person, s.store.UsePasskey(ctx, found.ID, kept, s.timestamp())
}

// Registrant is for whom a passkey is registered: the caller, who signed in in a
// browser, or, with an invitation, somebody new of that name.
type Registrant struct {
	Caller     joinery.Caller
	Invitation string
	Name       string
}

// step names a step of registering by its challenge and for whom it was begun: one
// that was begun for somebody else, or with another invitation, is not found.
func (r Registrant) step(challenge string) [sha256.Size]byte {
	if r.Caller.Session != 0 {
		return hashOf(challenge + " " + r.Caller.Person.String())
	}
	return hashOf(challenge + " " + r.Invitation)
}

// BeginNewPasskey gives the options of registering a passkey, as JSON for the
// browser.
func (s *SignIn) BeginNewPasskey(ctx context.Context, who Registrant) ([]byte, error) {
	h, err := s.holderOf(ctx, who)
	if err != nil {
		return nil, err
	}
	options, session, err := s.passkeys.BeginRegistration(h, webauthn.WithExclusions(webauthn.Credentials(h.passkeys).CredentialDescriptors()))
	if err != nil {
		return nil, err
	}
	ch := joinery.SignIn{Hash: who.step(session.Challenge), Kind: joinery.SignInNewPasskey, Person: h.id, Name: h.name}
	if err := s.remember(ctx, ch, ceremonyLife); err != nil {
		return nil, err
	}
	return json.Marshal(options)
}

func (s *SignIn) holderOf(ctx context.Context, who Registrant) (holder, error) {
	if _, err := s.mayRegister(ctx, who); err != nil {
		return holder{}, err
	}
	if who.Caller.Session == 0 {
		return holder{id: joinery.NewPersonID(), name: who.Name}, checkName("your name", who.Name)
	}
	person, err := s.store.Person(ctx, who.Caller.Person)
	if err != nil {
		return holder{}, err
	}
	list, err := s.store.Passkeys(ctx, person.ID)
	switch {
	case err != nil:
		return holder{}, err
	case len(list) >= maxPasskeys:
		return holder{}, joinery.Errorf(joinery.CodeConflict, "you have %d passkeys: remove one first", len(list))
	}
	h := holder{id: person.ID, name: firstOf(person.Name, person.Email, person.ID.String())}
	for _, p := range list {
		h.passkeys = append(h.passkeys, webauthn.Credential{ID: p.Credential})
	}
	return h, nil
}

// FinishNewPasskey stores the passkey that the browser made (the JSON of a
// PublicKeyCredential) under a name, and gives whose it is: somebody new has joined
// the organisation with it.
func (s *SignIn) FinishNewPasskey(ctx context.Context, who Registrant, name string, answer []byte) (joinery.PersonID, error) {
	began := time.Now()
	if err := checkName("name of the passkey", name); err != nil {
		return 0, err
	}
	invitation, err := s.mayRegister(ctx, who)
	if err != nil {
		return 0, err
	}
	ch, made, err := s.checkNewPasskey(ctx, who, answer)
	if err != nil {
		return 0, s.refusal(ctx, began, err)
	}
	passkey := joinery.Passkey{ID: joinery.NewPasskeyID(), Person: ch.Person, Name: name, Credential: made.ID, CreatedAt: s.timestamp()}
	if passkey.Record, err = record(*made); err != nil {
		return 0, err
	}
	if who.Caller.Session != 0 {
		return ch.Person, s.store.AddPasskey(ctx, passkey, maxPasskeys, s.passkeyEntry(who.Caller, joinery.AuditPasskeyAdded, passkey.ID))
	}
	person := joinery.Person{ID: ch.Person, Name: ch.Name, Email: invitation.Email, CreatedAt: passkey.CreatedAt}
	return person.ID, s.join(ctx, joinery.Joining{Invitation: invitation, Person: person, New: true, Passkey: &passkey})
}

// mayRegister gives the invitation of somebody new, and none of who is signed in,
// in a browser.
func (s *SignIn) mayRegister(ctx context.Context, who Registrant) (joinery.Invitation, error) {
	if who.Caller.Session != 0 {
		return joinery.Invitation{}, requireBrowser(who.Caller)
	}
	return s.invitationOf(ctx, who.Invitation)
}

func (s *SignIn) checkNewPasskey(ctx context.Context, who Registrant, answer []byte) (joinery.SignIn, *webauthn.Credential, error) {
	parsed, err := protocol.ParseCredentialCreationResponseBytes(answer)
	if err != nil {
		return joinery.SignIn{}, nil, errors.New("the answer cannot be read")
	}
	challenge := parsed.Response.CollectedClientData.Challenge
	ch, err := s.take(ctx, joinery.SignInNewPasskey, who.step(challenge))
	if err != nil {
		return ch, nil, err
	}
	made, err := s.passkeys.CreateCredential(holder{id: ch.Person}, webauthn.SessionData{
		Challenge: challenge, RelyingPartyID: s.url.Hostname(), UserID: handle(ch.Person),
		UserVerification: protocol.VerificationRequired, CredParams: webauthn.CredentialParametersDefault(),
	}, parsed)
	if err != nil {
		return ch, nil, errors.New("the new passkey does not verify")
	}
	return ch, made, nil
}

// Passkeys lists the caller's passkeys; none of an API key.
func (s *SignIn) Passkeys(ctx context.Context, caller joinery.Caller) ([]joinery.Passkey, error) {
	if caller.Session == 0 {
		return nil, nil
	}
	return s.store.Passkeys(ctx, caller.Person)
}

// RemovePasskey removes a passkey of the caller's, who asks in a browser; any other
// is absent.
func (s *SignIn) RemovePasskey(ctx context.Context, caller joinery.Caller, id joinery.PasskeyID) error {
	if caller.Session == 0 {
		return joinery.Errorf(joinery.CodeNotFound, "no such passkey")
	}
	if err := requireBrowser(caller); err != nil {
		return err
	}
	return s.store.RemovePasskey(ctx, caller.Person, id, s.passkeyEntry(caller, joinery.AuditPasskeyRemoved, id))
}

func (s *SignIn) passkeyEntry(caller joinery.Caller, event joinery.AuditEvent, id joinery.PasskeyID) joinery.AuditEntry {
	return joinery.AuditEntry{At: s.timestamp(), Event: event, Actor: caller.Name, Detail: map[string]string{"passkey": id.String(), "person": caller.Person.String()}}
}
