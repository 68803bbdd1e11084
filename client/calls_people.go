package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"joinery"
)

// Me reads who the caller is, and where they belong.
func (c *Client) Me(ctx context.Context) (Me, error) { return get[Me](ctx, c, "/me", nil) }

// AcceptInvitation lets the caller, who signed in, join an organisation.
func (c *Client) AcceptInvitation(ctx context.Context, token string) error {
	return c.act(ctx, http.MethodPost, "/me/invitations", nil, AcceptedInvitation{Token: token})
}

// Sessions lists where the caller is signed in.
func (c *Client) Sessions(ctx context.Context) ([]Session, error) {
	return list[Session](ctx, c, "/me/sessions", nil)
}

// EndSession signs the caller out there.
func (c *Client) EndSession(ctx context.Context, id joinery.SessionID) error {
	return c.act(ctx, http.MethodDelete, "/me/sessions/"+id.String(), nil, nil)
}

// Passkeys lists the caller's passkeys. The page /sign-in adds some.
func (c *Client) Passkeys(ctx context.Context) ([]Passkey, error) {
	return list[Passkey](ctx, c, "/me/passkeys", nil)
}

// RemovePasskey removes a passkey of the caller's.
func (c *Client) RemovePasskey(ctx context.Context, id joinery.PasskeyID) error {
	return c.act(ctx, http.MethodDelete, "/me/passkeys/"+id.String(), nil, nil)
}

// People lists who belongs to the organisation for which the caller acts.
func (c *Client) People(ctx context.Context) ([]Member, error) {
	return list[Member](ctx, c, "/people", nil)
}

// ChangePerson gives a member another role.
func (c *Client) ChangePerson(ctx context.Context, id joinery.PersonID, in RoleChange) (Member, error) {
	return send[Member](ctx, c, http.MethodPut, "/people/"+id.String(), in)
}

// RemovePerson ends a membership. The API keys that the person made end, or with
// keepKeys become the organisation's own.
func (c *Client) RemovePerson(ctx context.Context, id joinery.PersonID, keepKeys bool) error {
	return c.act(ctx, http.MethodDelete, "/people/"+id.String(), url.Values{"keepKeys": {strconv.FormatBool(keepKeys)}}, nil)
}

// Invitations lists the invitations that stand.
func (c *Client) Invitations(ctx context.Context) ([]Invitation, error) {
	return list[Invitation](ctx, c, "/invitations", nil)
}

// Invite invites somebody into the organisation for which the caller acts.
func (c *Client) Invite(ctx context.Context, in NewInvitation) (MadeInvitation, error) {
	return send[MadeInvitation](ctx, c, http.MethodPost, "/invitations", in)
}

// WithdrawInvitation ends an invitation.
func (c *Client) WithdrawInvitation(ctx context.Context, id joinery.InvitationID) error {
	return c.act(ctx, http.MethodDelete, "/invitations/"+id.String(), nil, nil)
}

// BootstrapOperator gives the token by which the first operator signs in. It is
// for the operator socket.
func (c *Client) BootstrapOperator(ctx context.Context) (MadeInvitation, error) {
	return send[MadeInvitation](ctx, c, http.MethodPost, "/operator/bootstrap", nil)
}

// ChangeOrganisation gives an organisation another name or other kinds.
func (c *Client) ChangeOrganisation(ctx context.Context, id joinery.OrgID, in OrganisationChange) (Organisation, error) {
	return send[Organisation](ctx, c, http.MethodPut, "/organisations/"+id.String(), in)
}

// BeginLogin lets a program wait for its person to agree in a browser. It needs
// no credential: see Options.Anonymous.
func (c *Client) BeginLogin(ctx context.Context, in NewLogin) (Login, error) {
	return send[Login](ctx, c, http.MethodPost, "/login", in)
}

// FinishLogin asks whether the person has agreed, and gives the session once they
// have.
func (c *Client) FinishLogin(ctx context.Context, secret string) (FinishedLogin, error) {
	return send[FinishedLogin](ctx, c, http.MethodPost, "/login/token", LoginPoll{Secret: secret})
}
