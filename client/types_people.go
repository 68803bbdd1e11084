package client

import (
	"time"

	"joinery"
)

// Person is somebody who signs in.
type Person struct {
	ID    joinery.PersonID `json:"id" pattern:"^per_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"per_ and 13 characters" doc:"Identifier"`
	Name  string           `json:"name" example:"Ann Smith" doc:"Name, as the person or their OpenID provider gave it"`
	Email string           `json:"email,omitzero" example:"ann@example.com" doc:"Address, in lower case; absent where it is not known"`
	// EmailVerified tells a provider's word from an invitation's.
	EmailVerified bool `json:"emailVerified" doc:"Whether the OpenID provider vouches for the address; else it is the one to which the person was invited, and nobody checked that it is theirs"`
}

// Member is a person as an organisation sees them.
type Member struct {
	Person
	Role  joinery.Role `json:"role" enum:"viewer,member,admin" doc:"What the person may do in the organisation"`
	Since time.Time    `json:"since" doc:"When the person joined it"`
}

// RoleChange gives a person another role.
type RoleChange struct {
	Role joinery.Role `json:"role" enum:"viewer,member,admin" doc:"What the person may do in the organisation from now on"`
}

// Membership is one place where a person belongs.
type Membership struct {
	Organisation joinery.OrgID     `json:"organisation" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Identifier of the organisation"`
	Name         string            `json:"name" example:"Acme Metering" doc:"Its name"`
	Kinds        []joinery.OrgKind `json:"kinds" nullable:"false" enum:"element-maker,device-maker,distributor,owner,network-operator,server-operator" doc:"What parts it plays"`
	Role         joinery.Role      `json:"role" enum:"viewer,member,admin" doc:"What the person may do in it"`
	Operator     bool              `json:"operator" doc:"Whether it runs this server: who belongs to it acts as the operator"`
	Since        time.Time         `json:"since" doc:"When the person joined it"`
}

// Me is who the caller is.
type Me struct {
	Caller      Caller       `json:"caller" doc:"The caller as the server sees it"`
	Person      *Person      `json:"person,omitempty" doc:"Who signed in; absent for an API key and on the operator socket"`
	Memberships []Membership `json:"memberships" nullable:"false" doc:"Where the person belongs"`
}

// Invitation lets one person join an organisation.
type Invitation struct {
	ID           joinery.InvitationID `json:"id" pattern:"^inv_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"inv_ and 13 characters" doc:"Identifier"`
	Organisation joinery.OrgID        `json:"organisation,omitzero" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Which organisation; absent: the operator's"`
	Email        string               `json:"email,omitzero" example:"ann@example.com" doc:"Whoever signs in at the OpenID provider with this address, verified, takes it; absent for the operator's bootstrap token"`
	Role         joinery.Role         `json:"role" enum:"viewer,member,admin" doc:"What the person may do once in it"`
	InvitedBy    string               `json:"invitedBy" example:"socket uid 0" doc:"Who invited, as in the audit log"`
	CreatedAt    time.Time            `json:"createdAt" doc:"When"`
	ExpiresAt    time.Time            `json:"expiresAt" doc:"Until when it can be taken"`
}

// NewInvitation asks to invite somebody into the organisation for which the
// caller acts.
type NewInvitation struct {
	Email string       `json:"email" minLength:"3" maxLength:"254" example:"ann@example.com" doc:"Address of the person"`
	Role  joinery.Role `json:"role" enum:"viewer,member,admin" doc:"What the person may do; nobody gives more than they may themselves"`
}

// MadeInvitation is a new invitation with its token, which is shown this once.
type MadeInvitation struct {
	Invitation Invitation `json:"invitation" doc:"The invitation"`
	Token      string     `json:"token" doc:"Whoever has it can take the invitation, whatever their address. It is not stored and cannot be shown again"`
	URL        string     `json:"url,omitzero" doc:"The page on which it is taken, the token in it; absent where nobody can sign in here"`
}

// AcceptedInvitation takes an invitation.
type AcceptedInvitation struct {
	Token string `json:"token" minLength:"1" maxLength:"128" doc:"The invitation's token"`
}

// Offer is what whoever holds an invitation's token must know before they take it.
type Offer struct {
	Organisation joinery.OrgID `json:"organisation" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Identifier of the organisation"`
	Name         string        `json:"name" example:"Acme Metering" doc:"Its name"`
	Operator     bool          `json:"operator" doc:"Whether it runs this server"`
	Role         joinery.Role  `json:"role" enum:"viewer,member,admin" doc:"What the person may do once in it"`
	Email        string        `json:"email,omitzero" example:"ann@example.com" doc:"The address to which it was made; absent for the operator's bootstrap token"`
	InvitedBy    string        `json:"invitedBy" example:"person per_00wmnq30a1s88" doc:"Who invited, as in the audit log"`
	ExpiresAt    time.Time     `json:"expiresAt" doc:"Until when it can be taken"`
}

// Session is one place where a person is signed in.
type Session struct {
	ID         joinery.SessionID   `json:"id" pattern:"^ses_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"ses_ and 13 characters" doc:"Identifier"`
	Kind       joinery.SessionKind `json:"kind" enum:"browser,program" doc:"What holds it"`
	Name       string              `json:"name" example:"joinctl on laptop" doc:"Name of the program, as it gave it"`
	Current    bool                `json:"current" doc:"Whether this request came with it"`
	CreatedAt  time.Time           `json:"createdAt" doc:"When it began"`
	ExpiresAt  time.Time           `json:"expiresAt" doc:"When it ends"`
	LastUsedAt time.Time           `json:"lastUsedAt,omitzero" doc:"When it was used last, ten minutes behind at most"`
}

// Passkey is one of a person's passkeys.
type Passkey struct {
	ID         joinery.PasskeyID `json:"id" pattern:"^psk_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"psk_ and 13 characters" doc:"Identifier"`
	Name       string            `json:"name" example:"laptop" doc:"Name"`
	CreatedAt  time.Time         `json:"createdAt" doc:"When it was added"`
	LastUsedAt time.Time         `json:"lastUsedAt,omitzero" doc:"When it signed its person in last; absent: not yet"`
}

// NewLogin lets a program wait for its person to agree in a browser.
type NewLogin struct {
	Name string `json:"name" minLength:"1" maxLength:"128" example:"joinctl on laptop" doc:"What the person is shown, to know the program by"`
}

// Login is a program that waits for its person.
type Login struct {
	Secret    string    `json:"secret" doc:"What the program asks with; nobody else may have it"`
	Code      string    `json:"code" example:"BCDF-GHJK" doc:"What the program shows, for its person to compare with the page"`
	URL       string    `json:"url" example:"https://js.example.com/sign-in#login=BCDF-GHJK" doc:"Where the person goes with a browser, on any machine"`
	PollEvery int       `json:"pollEvery" example:"2" doc:"Seconds between two questions"`
	ExpiresAt time.Time `json:"expiresAt" doc:"How long the program may wait"`
}

// LoginPoll asks whether the person has agreed.
type LoginPoll struct {
	Secret string `json:"secret" minLength:"1" maxLength:"128" doc:"The login's secret"`
}

// FinishedLogin is what became of a login.
type FinishedLogin struct {
	Done      bool              `json:"done" doc:"Whether the person has agreed; else ask again after 'pollEvery' seconds"`
	Token     string            `json:"token,omitzero" doc:"The session, for 'Authorization: Bearer'. It is given once"`
	Session   joinery.SessionID `json:"session,omitzero" doc:"Identifier of the session"`
	ExpiresAt time.Time         `json:"expiresAt,omitzero" doc:"When the session ends"`
}

// OrganisationChange gives an organisation another name or other kinds.
type OrganisationChange struct {
	Name  string            `json:"name,omitzero" maxLength:"128" example:"Acme Metering" doc:"New name; absent: as it is"`
	Kinds []joinery.OrgKind `json:"kinds,omitzero" nullable:"false" maxItems:"5" enum:"element-maker,device-maker,distributor,owner,network-operator" doc:"What parts it plays from now on; absent: as it is"`
}
