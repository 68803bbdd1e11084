package auth

import (
	"context"
	"slices"
	"strings"
	"time"

	"joinery"
)

// PeopleStore keeps who belongs to which organisation. Changes and their audit
// entries are durable together when a method returns nil. What is absent is
// joinery.CodeNotFound.
type PeopleStore interface {
	InvitationStore
	Orgs(ctx context.Context) ([]joinery.Organisation, error)
	Members(ctx context.Context, org joinery.OrgID) ([]joinery.Member, error)
	// SetRole and RemoveMember are CodeConflict where an organisation would lose
	// its last admin; they add to the entry which role it was and is. RemoveMember revokes the keys that the person made there, or
	// with keepKeys makes them the organisation's own. Invitations made by who is
	// no admin any more, or by a key of theirs, end with it.
	SetRole(ctx context.Context, org joinery.OrgID, person joinery.PersonID, role joinery.Role, entry joinery.AuditEntry) error
	RemoveMember(ctx context.Context, org joinery.OrgID, person joinery.PersonID, keepKeys bool, entry joinery.AuditEntry) error
}

// InvitationStore keeps invitations. Invite with the zero organisation is for the
// operator's, and one without an address takes the place of those before.
type InvitationStore interface {
	Invite(ctx context.Context, i joinery.Invitation, entry joinery.AuditEntry) error
	Invitation(ctx context.Context, id joinery.InvitationID) (joinery.Invitation, error)
	Invitations(ctx context.Context, org joinery.OrgID) ([]joinery.Invitation, error)
	WithdrawInvitation(ctx context.Context, id joinery.InvitationID, entry joinery.AuditEntry) error
}

// How long an invitation, and the operator's bootstrap token, can be taken.
const (
	invitationLife = 7 * 24 * time.Hour
	bootstrapLife  = time.Hour
)

// People says who belongs to which organisation. It is safe for concurrent use.
type People struct {
	store PeopleStore
	now   func() time.Time
}

// NewPeople makes a People; now is the clock, nil for the system's.
func NewPeople(store PeopleStore, now func() time.Time) *People {
	if now == nil {
		now = time.Now
	}
	return &People{store: store, now: now}
}

func (s *People) timestamp() time.Time { return s.now().UTC().Truncate(time.Millisecond) }

// acting gives the organisation for which caller acts.
func (s *People) acting(ctx context.Context, caller joinery.Caller) (joinery.Organisation, error) {
	orgs, err := s.store.Orgs(ctx)
	if err != nil {
		return joinery.Organisation{}, err
	}
	id, err := caller.ActingFor(0, orgs)
	if err != nil {
		return joinery.Organisation{}, err
	}
	return orgs[slices.IndexFunc(orgs, func(o joinery.Organisation) bool { return o.ID == id })], nil
}

// Members lists who belongs to the caller's organisation.
func (s *People) Members(ctx context.Context, caller joinery.Caller) ([]joinery.Member, error) {
	org, err := s.acting(ctx, caller)
	if err != nil {
		return nil, err
	}
	return s.store.Members(ctx, org.ID)
}

// mayGive refuses to give, or to take, a role that lets do more than the caller
// may. Who runs the server only its operators decide.
func mayGive(caller joinery.Caller, org joinery.Organisation, roles ...joinery.Role) error {
	for _, role := range roles {
		if !slices.Contains(joinery.Roles(), role) {
			return joinery.Errorf(joinery.CodeInvalid, "role: want viewer, member or admin")
		}
		rights := role.Rights() & org.Kinds.Rights()
		if caller.Key != 0 {
			// A key has the rights to export only where that was said, or never. Who
			// invites with one is the person who made it, and could do so without.
			rights &^= joinery.RightsOf(joinery.RightExportRequest, joinery.RightExportApprove)
		}
		if !caller.Rights.Contains(rights) {
			return joinery.Errorf(joinery.CodeForbidden, "the role %s may do what you may not: %s", role,
				strings.ReplaceAll((rights&^caller.Rights).String(), " ", ", "))
		}
	}
	if org.Kinds.Is(joinery.KindServerOperator) {
		return caller.RequireOperator()
	}
	return nil
}

// SetRole gives a member of the caller's organisation another role.
func (s *People) SetRole(ctx context.Context, caller joinery.Caller, person joinery.PersonID, role joinery.Role) (joinery.Member, error) {
	org, member, err := s.member(ctx, caller, person)
	if err != nil {
		return joinery.Member{}, err
	}
	if err := mayGive(caller, org, member.Role, role); err != nil {
		return joinery.Member{}, err
	}
	entry := s.entry(caller, joinery.AuditPersonRoleChanged, org.ID, map[string]string{"person": person.String()})
	if err := s.store.SetRole(ctx, org.ID, person, role, entry); err != nil {
		return joinery.Member{}, err
	}
	member.Role = role
	return member, nil
}

// Remove ends a membership in the caller's organisation, and with it the API keys
// that the person made there, unless the organisation keeps them.
func (s *People) Remove(ctx context.Context, caller joinery.Caller, person joinery.PersonID, keepKeys bool) error {
	org, member, err := s.member(ctx, caller, person)
	if err != nil {
		return err
	}
	if err := mayGive(caller, org, member.Role); err != nil {
		return err
	}
	detail := map[string]string{"person": person.String(), "keys": "revoked"}
	if keepKeys {
		detail["keys"] = "kept"
	}
	return s.store.RemoveMember(ctx, org.ID, person, keepKeys, s.entry(caller, joinery.AuditPersonRemoved, org.ID, detail))
}

// member finds a member of the caller's organisation; anybody else is absent.
func (s *People) member(ctx context.Context, caller joinery.Caller, person joinery.PersonID) (joinery.Organisation, joinery.Member, error) {
	org, err := s.acting(ctx, caller)
	if err != nil {
		return org, joinery.Member{}, err
	}
	members, err := s.store.Members(ctx, org.ID)
	if err != nil {
		return org, joinery.Member{}, err
	}
	i := slices.IndexFunc(members, func(m joinery.Member) bool { return m.ID == person })
	if i < 0 {
		return org, joinery.Member{}, joinery.Errorf(joinery.CodeNotFound, "no such person")
	}
	return org, members[i], nil
}

// Invite lets somebody join the caller's organisation, and gives the token for
// which the invitation can be taken, too. It cannot be had again.
func (s *People) Invite(ctx context.Context, caller joinery.Caller, email string, role joinery.Role) (token string, _ joinery.Invitation, err error) {
	org, err := s.acting(ctx, caller)
	if err != nil {
		return "", joinery.Invitation{}, err
	}
	if email, err = checkEmail(email); err != nil {
		return "", joinery.Invitation{}, err
	}
	if err := mayGive(caller, org, role); err != nil {
		return "", joinery.Invitation{}, err
	}
	i, c := s.newInvitation(caller, invitationLife)
	i.Org, i.Role, i.Email = org.ID, role, email
	// The address is no identifier, and audit entries stay: they name the invitation.
	entry := s.entry(caller, joinery.AuditPersonInvited, org.ID, map[string]string{"invitation": i.ID.String(), "role": string(role)})
	return c.text(), i, s.store.Invite(ctx, i, entry)
}

func (s *People) newInvitation(caller joinery.Caller, life time.Duration) (joinery.Invitation, credential) {
	c, now := newCredential(invitationText, int64(joinery.NewInvitationID())), s.timestamp()
	return joinery.Invitation{
		ID: joinery.InvitationID(c.id), Hash: c.hash(), CreatedAt: now, ExpiresAt: now.Add(life),
		InvitedBy: caller.Name, ByPerson: caller.Person, ByKey: caller.Key,
	}, c
}

// Bootstrap gives the token by which the first operator, or one who lost every
// other way in, joins the operator's organisation as its admin. Only the operator
// socket gives it; it serves once, for an hour, and ends the one before.
func (s *People) Bootstrap(ctx context.Context, caller joinery.Caller) (token string, _ joinery.Invitation, err error) {
	if err := caller.RequireOperator(); err != nil {
		return "", joinery.Invitation{}, err
	}
	if !caller.Socket {
		return "", joinery.Invitation{}, joinery.Errorf(joinery.CodeForbidden, "only root and the server's own user can do that, on the operator socket")
	}
	i, c := s.newInvitation(caller, bootstrapLife)
	i.Role = joinery.RoleAdmin
	entry := s.entry(caller, joinery.AuditOperatorBootstrap, 0, map[string]string{"invitation": i.ID.String()})
	return c.text(), i, s.store.Invite(ctx, i, entry)
}

// Invitations lists the invitations into the caller's organisation that stand.
func (s *People) Invitations(ctx context.Context, caller joinery.Caller) ([]joinery.Invitation, error) {
	org, err := s.acting(ctx, caller)
	if err != nil {
		return nil, err
	}
	list, err := s.store.Invitations(ctx, org.ID)
	now := s.now()
	return slices.DeleteFunc(list, func(i joinery.Invitation) bool { return !now.Before(i.ExpiresAt) }), err
}

// Withdraw ends an invitation into an organisation of the caller's; any other is
// absent.
func (s *People) Withdraw(ctx context.Context, caller joinery.Caller, id joinery.InvitationID) error {
	i, err := s.store.Invitation(ctx, id)
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && !caller.Owns(i.Org) {
		return joinery.Errorf(joinery.CodeNotFound, "no such invitation")
	}
	if err != nil {
		return err
	}
	return s.store.WithdrawInvitation(ctx, id, s.entry(caller, joinery.AuditInvitationEnded, i.Org, map[string]string{"invitation": id.String()}))
}

func (s *People) entry(caller joinery.Caller, event joinery.AuditEvent, org joinery.OrgID, detail map[string]string) joinery.AuditEntry {
	return joinery.AuditEntry{At: s.timestamp(), Event: event, Actor: caller.Name, Org: org, Detail: detail}
}

// checkEmail wants something that can be an address, and gives it in lower case:
// whether it is one its mailbox decides.
func checkEmail(email string) (string, error) {
	local, domain, found := strings.Cut(email, "@")
	bad := func(r rune) bool { return r <= ' ' || r == 0x7f || r > 0x7f || strings.ContainsRune(`@,;<>"`, r) }
	if !found || local == "" || domain == "" || len(email) > 254 || strings.ContainsFunc(local, bad) || strings.ContainsFunc(domain, bad) {
		return "", joinery.Errorf(joinery.CodeInvalid, "email: want one address, such as ann@example.com")
	}
	return strings.ToLower(email), nil
}
