package api

import (
	"context"
	"net/http"

	"joinery"
	"joinery/client"
	"joinery/internal/auth"
)

// People is who belongs to which organisation.
type People interface {
	Members(ctx context.Context, caller joinery.Caller) ([]joinery.Member, error)
	SetRole(ctx context.Context, caller joinery.Caller, person joinery.PersonID, role joinery.Role) (joinery.Member, error)
	Remove(ctx context.Context, caller joinery.Caller, person joinery.PersonID, keepKeys bool) error
	Invitations(ctx context.Context, caller joinery.Caller) ([]joinery.Invitation, error)
	Invite(ctx context.Context, caller joinery.Caller, email string, role joinery.Role) (token string, i joinery.Invitation, err error)
	Withdraw(ctx context.Context, caller joinery.Caller, id joinery.InvitationID) error
	Bootstrap(ctx context.Context, caller joinery.Caller) (token string, i joinery.Invitation, err error)
}

func (s *Server) registerPeople() {
	route(s, spec{method: http.MethodGet, path: "/people", id: "listPeople", tag: "people",
		summary: "Who belongs to the organisation for which the caller acts"},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.List[client.Member]], error) {
			members, err := s.People.Members(ctx, caller)
			if err != nil {
				return nil, err
			}
			return few(*in, "people", members, func(m joinery.Member) string { return m.ID.String() }, member)
		})
	route(s, spec{method: http.MethodPut, path: "/people/{id}", id: "changePerson", tag: "people",
		summary: "Give a member another role", description: "Nobody gives or takes a role that may do more than they may themselves. An organisation keeps its last admin."},
		func(ctx context.Context, caller joinery.Caller, in *struct {
			ID   string `path:"id" pattern:"^per_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"per_ and 13 characters" doc:"The person's id"`
			Body client.RoleChange
		}) (*body[client.Member], error) {
			id, err := parse[joinery.PersonID](in.ID, "person")
			if err != nil {
				return nil, err
			}
			m, err := s.People.SetRole(ctx, caller, id, in.Body.Role)
			return ok(member(m)), err
		})
	route(s, spec{method: http.MethodDelete, path: "/people/{id}", id: "removePerson", tag: "people",
		summary:     "End a membership, at once",
		description: "The API keys that the person made for the organisation are revoked, or with 'keepKeys' become its own. Who belongs to no organisation any more is forgotten."},
		func(ctx context.Context, caller joinery.Caller, in *struct {
			ID       string `path:"id" pattern:"^per_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"per_ and 13 characters" doc:"The person's id"`
			KeepKeys bool   `query:"keepKeys" default:"false" doc:"Keep the API keys that the person made"`
		}) (*none, error) {
			id, err := parse[joinery.PersonID](in.ID, "person")
			if err != nil {
				return nil, err
			}
			return nil, s.People.Remove(ctx, caller, id, in.KeepKeys)
		})
	s.registerInvitations()
	s.registerMe()
	s.registerLogin()
}

func (s *Server) registerInvitations() {
	route(s, spec{method: http.MethodGet, path: "/invitations", id: "listInvitations", tag: "people",
		summary: "Invitations into the organisation for which the caller acts that stand"},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.List[client.Invitation]], error) {
			invitations, err := s.People.Invitations(ctx, caller)
			if err != nil {
				return nil, err
			}
			return few(*in, "invitations", invitations, func(i joinery.Invitation) string { return i.ID.String() }, invitation)
		})
	route(s, spec{method: http.MethodPost, path: "/invitations", id: "invite", secret: true, tag: "people", status: http.StatusCreated,
		summary: "Invite somebody into the organisation for which the caller acts",
		description: "Who first signs in at the OpenID provider with that address, verified, joins by it; so does whoever has the token, which is in the " +
			"answer and nowhere else: the server sends no e-mail. It stands for 7 days."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.NewInvitation]) (*body[client.MadeInvitation], error) {
			token, i, err := s.People.Invite(ctx, caller, in.Body.Email, in.Body.Role)
			return ok(s.madeInvitation(token, i)), err
		})
	route(s, spec{method: http.MethodDelete, path: "/invitations/{id}", id: "withdrawInvitation", tag: "people", summary: "Withdraw an invitation"},
		func(ctx context.Context, caller joinery.Caller, in *struct {
			ID string `path:"id" pattern:"^inv_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"inv_ and 13 characters" doc:"The invitation's id"`
		}) (*none, error) {
			id, err := parse[joinery.InvitationID](in.ID, "invitation")
			if err != nil {
				return nil, err
			}
			return nil, s.People.Withdraw(ctx, caller, id)
		})
	route(s, spec{method: http.MethodPost, path: "/operator/bootstrap", id: "bootstrapOperator", secret: true, tag: "people", status: http.StatusCreated,
		summary:     "Make the token by which the first operator signs in",
		description: "On the operator socket alone. It serves once, for an hour, makes an admin of the operator's organisation, and ends the one before."},
		func(ctx context.Context, caller joinery.Caller, _ *none) (*body[client.MadeInvitation], error) {
			token, i, err := s.People.Bootstrap(ctx, caller)
			return ok(s.madeInvitation(token, i)), err
		})
	route(s, spec{method: http.MethodPut, path: "/organisations/{id}", id: "changeOrganisation", tag: "organisations",
		summary: "Change an organisation's name or kinds", description: "For the operator. What the organisation holds by a kind that it loses stays."},
		func(ctx context.Context, caller joinery.Caller, in *struct {
			ID   string `path:"id" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"The organisation's id"`
			Body client.OrganisationChange
		}) (*body[client.Organisation], error) {
			id, err := parse[joinery.OrgID](in.ID, "organisation")
			if err != nil {
				return nil, err
			}
			o, err := s.Organisations.ChangeOrg(ctx, caller, id, in.Body.Name, in.Body.Kinds)
			return ok(organisation(o)), err
		})
}

// madeInvitation shows a token, on the page where it is taken if there is one.
// Behind the '#' it stays in the browser.
func (s *Server) madeInvitation(token string, i joinery.Invitation) client.MadeInvitation {
	m := client.MadeInvitation{Invitation: invitation(i), Token: token}
	if s.SignIn != nil {
		m.URL = s.SignIn.URL() + signInPath + "#invitation=" + token
	}
	return m
}

func (s *Server) registerMe() {
	route(s, spec{method: http.MethodGet, path: "/me", id: "getMe", tag: "people", summary: "Who the caller is, and where they belong"},
		func(ctx context.Context, caller joinery.Caller, _ *none) (*body[client.Me], error) {
			me := client.Me{Caller: callerOut(caller), Memberships: []client.Membership{}}
			if s.SignIn == nil {
				return ok(me), nil
			}
			p, memberships, err := s.SignIn.Me(ctx, caller)
			if p.ID != 0 {
				out := person(p)
				me.Person = &out
			}
			me.Memberships = each(memberships, membership)
			return ok(me), err
		})
	route(s, spec{method: http.MethodPost, path: "/me/invitations", id: "acceptInvitation", tag: "people",
		summary: "Join an organisation by an invitation's token", description: "For people who signed in."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.AcceptedInvitation]) (*none, error) {
			if err := s.hasSignIn(); err != nil {
				return nil, err
			}
			return nil, s.SignIn.Accept(ctx, caller, in.Body.Token)
		})
	route(s, spec{method: http.MethodPost, path: "/me/invitations/offer", id: "readOffer", tag: "people",
		summary:     "What an invitation is, before it is taken",
		description: "For whoever has its token. It changes nothing: 'acceptInvitation' takes the invitation."},
		func(ctx context.Context, _ joinery.Caller, in *body[client.AcceptedInvitation]) (*body[client.Offer], error) {
			if err := s.hasSignIn(); err != nil {
				return nil, err
			}
			o, err := s.SignIn.Offer(ctx, in.Body.Token)
			return ok(offer(o)), err
		})
	route(s, spec{method: http.MethodDelete, path: "/me/organisations/{id}", id: "leaveOrganisation", tag: "people",
		summary: "Leave an organisation, at once",
		description: "For people who signed in. The API keys that they made for it are revoked. An organisation keeps its last admin, unless nobody else " +
			"belongs to it. Who belongs to no organisation any more is forgotten."},
		func(ctx context.Context, caller joinery.Caller, in *struct {
			ID string `path:"id" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"The organisation's id"`
		}) (*none, error) {
			id, err := parse[joinery.OrgID](in.ID, "organisation")
			if err == nil {
				err = s.hasSignIn()
			}
			if err != nil {
				return nil, err
			}
			return nil, s.SignIn.Leave(ctx, caller, id)
		})
	route(s, spec{method: http.MethodGet, path: "/me/sessions", id: "listSessions", tag: "people", summary: "Where the caller is signed in"},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.List[client.Session]], error) {
			var sessions []joinery.Session
			var err error
			if s.SignIn != nil {
				sessions, err = s.SignIn.Sessions(ctx, caller)
			}
			if err != nil {
				return nil, err
			}
			return few(*in, "sessions", sessions, func(x joinery.Session) string { return x.ID.String() },
				func(x joinery.Session) client.Session { return session(x, caller) })
		})
	route(s, spec{method: http.MethodDelete, path: "/me/sessions/{id}", id: "endSession", tag: "people", summary: "Sign out there, at once"},
		func(ctx context.Context, caller joinery.Caller, in *struct {
			ID string `path:"id" pattern:"^ses_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"ses_ and 13 characters" doc:"The session's id"`
		}) (*none, error) {
			id, err := parse[joinery.SessionID](in.ID, "session")
			if err == nil {
				err = s.hasSignIn()
			}
			if err != nil {
				return nil, err
			}
			return nil, s.SignIn.EndSession(ctx, caller, id)
		})
	s.registerMyPasskeys()
}

func (s *Server) registerMyPasskeys() {
	route(s, spec{method: http.MethodGet, path: "/me/passkeys", id: "listPasskeys", tag: "people",
		summary: "The caller's passkeys", description: "The page /sign-in adds some: only a browser can."},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.List[client.Passkey]], error) {
			var passkeys []joinery.Passkey
			var err error
			if s.SignIn != nil {
				passkeys, err = s.SignIn.Passkeys(ctx, caller)
			}
			if err != nil {
				return nil, err
			}
			return few(*in, "passkeys", passkeys, func(p joinery.Passkey) string { return p.ID.String() }, passkey)
		})
	route(s, spec{method: http.MethodDelete, path: "/me/passkeys/{id}", id: "removePasskey", tag: "people",
		summary: "Remove a passkey of the caller's", description: "The last way in which somebody can sign in stays."},
		func(ctx context.Context, caller joinery.Caller, in *struct {
			ID string `path:"id" pattern:"^psk_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"psk_ and 13 characters" doc:"The passkey's id"`
		}) (*none, error) {
			id, err := parse[joinery.PasskeyID](in.ID, "passkey")
			if err == nil {
				err = s.hasSignIn()
			}
			if err != nil {
				return nil, err
			}
			return nil, s.SignIn.RemovePasskey(ctx, caller, id)
		})
}

func (s *Server) registerLogin() {
	route(s, spec{method: http.MethodPost, path: "/login", id: "beginLogin", secret: true, tag: "people", status: http.StatusCreated,
		summary: "Let a program wait for its person to agree in a browser",
		description: "The program shows the code and opens the URL, or has its person open it on any machine. There the person signs in, compares the code and " +
			"agrees. Meanwhile the program asks 'finishLogin'."},
		func(ctx context.Context, _ joinery.Caller, in *body[client.NewLogin]) (*body[client.Login], error) {
			if err := s.hasSignIn(); err != nil {
				return nil, err
			}
			if err := s.SignIn.Allow(remote(ctx)); err != nil {
				return nil, err
			}
			p, err := s.SignIn.BeginProgram(ctx, in.Body.Name)
			return ok(client.Login{Secret: p.Secret, Code: p.Code, URL: p.URL, PollEvery: int(auth.PollEvery.Seconds()), ExpiresAt: utc(p.ExpiresAt)}), err
		})
	route(s, spec{method: http.MethodPost, path: "/login/token", id: "finishLogin", secret: true, tag: "people",
		summary: "Ask whether the person has agreed, and get the session", description: "The session is given once."},
		func(ctx context.Context, _ joinery.Caller, in *body[client.LoginPoll]) (*body[client.FinishedLogin], error) {
			if err := s.hasSignIn(); err != nil {
				return nil, err
			}
			if err := s.SignIn.Allow(remote(ctx)); err != nil {
				return nil, err
			}
			text, session, err := s.SignIn.FinishProgram(ctx, in.Body.Secret)
			return ok(client.FinishedLogin{Done: text != "", Token: text, Session: session.ID, ExpiresAt: utc(session.ExpiresAt)}), err
		})
}

// hasSignIn refuses where people cannot sign in.
func (s *Server) hasSignIn() error {
	if s.SignIn == nil {
		return joinery.Errorf(joinery.CodeNotFound, "nobody can sign in on this server: its configuration has no sign_in.url")
	}
	return nil
}

func callerOut(c joinery.Caller) client.Caller {
	return client.Caller{Name: c.Name, Operator: c.Operator, Organisation: c.Org, Person: c.Person, Scopes: each(c.Rights.List(), same)}
}

func person(p joinery.Person) client.Person {
	return client.Person{ID: p.ID, Name: p.Name, Email: p.Email, EmailVerified: p.EmailVerified}
}

func member(m joinery.Member) client.Member {
	return client.Member{Person: person(m.Person), Role: m.Role, Since: utc(m.Since)}
}

func membership(m joinery.Membership) client.Membership {
	return client.Membership{Organisation: m.Org, Name: m.OrgName, Kinds: each(m.Kinds, same), Role: m.Role, Operator: m.Operator, Since: utc(m.Since)}
}

func invitation(i joinery.Invitation) client.Invitation {
	return client.Invitation{
		ID: i.ID, Organisation: i.Org, Email: i.Email, Role: i.Role, InvitedBy: i.InvitedBy, CreatedAt: utc(i.CreatedAt), ExpiresAt: utc(i.ExpiresAt),
	}
}

func offer(o auth.Offer) client.Offer {
	return client.Offer{
		Organisation: o.Org, Name: o.OrgName, Operator: o.Operator, Role: o.Role, Email: o.Email, InvitedBy: o.InvitedBy, ExpiresAt: utc(o.ExpiresAt),
	}
}

func session(x joinery.Session, caller joinery.Caller) client.Session {
	return client.Session{
		ID: x.ID, Kind: x.Kind, Name: x.Name, Current: x.ID == caller.Session,
		CreatedAt: utc(x.CreatedAt), ExpiresAt: utc(x.ExpiresAt), LastUsedAt: utc(x.LastUsedAt),
	}
}

func passkey(p joinery.Passkey) client.Passkey {
	return client.Passkey{ID: p.ID, Name: p.Name, CreatedAt: utc(p.CreatedAt), LastUsedAt: utc(p.LastUsedAt)}
}
