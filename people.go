package joinery

import (
	"crypto/sha256"
	"time"
)

type (
	personKind     struct{}
	invitationKind struct{}
	sessionKind    struct{}
	passkeyKind    struct{}
)

func (personKind) prefix() string     { return "per" }
func (invitationKind) prefix() string { return "inv" }
func (sessionKind) prefix() string    { return "ses" }
func (passkeyKind) prefix() string    { return "psk" }

type (
	// PersonID is the identifier of a person: "per_…".
	PersonID = ID[personKind]
	// InvitationID is the identifier of an invitation: "inv_…".
	InvitationID = ID[invitationKind]
	// SessionID is the identifier of a session: "ses_…".
	SessionID = ID[sessionKind]
	// PasskeyID is the identifier of a passkey: "psk_…".
	PasskeyID = ID[passkeyKind]
)

// NewPersonID draws the identifier of a person.
func NewPersonID() PersonID { return newID[personKind]() }

// NewInvitationID draws the identifier of an invitation.
func NewInvitationID() InvitationID { return newID[invitationKind]() }

// NewSessionID draws the identifier of a session.
func NewSessionID() SessionID { return newID[sessionKind]() }

// NewPasskeyID draws the identifier of a passkey.
func NewPasskeyID() PasskeyID { return newID[passkeyKind]() }

// ParsePersonID reads "per_…".
func ParsePersonID(s string) (PersonID, error) { return parseID[personKind](s) }

// ParseInvitationID reads "inv_…".
func ParseInvitationID(s string) (InvitationID, error) { return parseID[invitationKind](s) }

// ParseSessionID reads "ses_…".
func ParseSessionID(s string) (SessionID, error) { return parseID[sessionKind](s) }

// ParsePasskeyID reads "psk_…".
func ParsePasskeyID(s string) (PasskeyID, error) { return parseID[passkeyKind](s) }

// Person is somebody who signs in. A person who belongs to no organisation any
// more is forgotten: what is left is the ID, and no name.
type Person struct {
	ID    PersonID
	Name  string // as their provider or they themselves gave it
	Email string // in lower case; "" where it is not known
	// EmailVerified is set where their provider vouches for the address. Else it is
	// the one to which they were invited, and whoever had the link came in.
	EmailVerified bool
	CreatedAt     time.Time
}

// Membership is one person's place in one organisation.
type Membership struct {
	Person PersonID
	Org    OrgID
	Role   Role
	Since  time.Time
	// OrgName, Kinds and Operator are the organisation's: its name, what it is,
	// and whether it is the one that runs this server.
	OrgName  string
	Kinds    OrgKinds
	Operator bool
}

// Member is a person as an organisation sees them.
type Member struct {
	Person
	Role  Role
	Since time.Time
}

// Identity is a person as their OpenID provider knows them.
type Identity struct {
	Issuer  string
	Subject string
}

// Invitation lets one person join an organisation: whoever signs in at the
// configured provider with that address, verified, or holds its token. Of the
// token only the hash is kept.
type Invitation struct {
	ID        InvitationID
	Org       OrgID
	Role      Role
	Email     string // in lower case; "" for the operator's bootstrap token
	Hash      [sha256.Size]byte
	CreatedAt time.Time
	ExpiresAt time.Time
	InvitedBy string // Caller.Name
	// ByPerson and ByKey are who made it, as Caller.Person and Caller.Key: it ends
	// where they may invite no more. Zero for none.
	ByPerson PersonID
	ByKey    APIKeyID
}

// Bounds of what one organisation may have, which keep a runaway script from filling
// the database.
const (
	// MaxAPIKeys is of keys that stand, with those made within a day, which others
	// must not take the place of without end.
	MaxAPIKeys = 1000
	// MaxInvitations is of invitations that stand.
	MaxInvitations = 1000
)

// SessionKind says what holds a session.
type SessionKind string

// Kinds of sessions.
const (
	SessionBrowser SessionKind = "browser" // a cookie
	SessionProgram SessionKind = "program" // a bearer token, as joinctl has it
)

// Session is a person who is signed in somewhere. Its secret half is random and
// only its hash is kept.
type Session struct {
	ID         SessionID
	Person     PersonID
	Kind       SessionKind
	Name       string // of the program or machine, for the person's own list
	Hash       [sha256.Size]byte
	CreatedAt  time.Time
	ExpiresAt  time.Time
	LastUsedAt time.Time // behind by some minutes; zero: not since it began
}

// Passkey is one WebAuthn credential of a person: a public key, nothing secret.
type Passkey struct {
	ID         PasskeyID
	Person     PersonID
	Name       string
	Credential []byte // its id with the authenticator
	Record     []byte // public key, flags and counter, as internal/auth writes them
	CreatedAt  time.Time
	LastUsedAt time.Time
}

// Standing is what an organisation and a person in it are at present: what bounds
// the API keys that they made.
type Standing struct {
	Kinds OrgKinds // of the key's organisation
	Role  Role     // of who made the key, in that organisation; "" for none
}

// SignInKind says what a SignIn is for.
type SignInKind string

// Kinds of steps of signing in.
const (
	SignInPasskey    SignInKind = "passkey"     // sign in with a passkey
	SignInNewPasskey SignInKind = "new-passkey" // register one
	SignInProgram    SignInKind = "program"     // a program waits for its person to agree
)

// SignIn is a step of signing in that waits for the next one, which may reach
// another server. It serves once. Only the hash of what its holder has is kept.
type SignIn struct {
	Hash      [sha256.Size]byte
	Kind      SignInKind
	Person    PersonID // whose passkey, or who agreed; zero: nobody yet
	Code      string   // of a program: what its person compares and types
	Name      string   // of a program or passkey, for lists
	ExpiresAt time.Time
}

// Joining is how a person comes into an organisation: what is new with it, all or
// nothing. Invitation is used up, and must still be there.
type Joining struct {
	Invitation Invitation
	// Person is who joins; New is set where there was no such person before.
	Person Person
	New    bool
	// Identity and Passkey are what a new person signs in with; nil for none.
	Identity *Identity
	Passkey  *Passkey
}
