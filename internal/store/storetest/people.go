package storetest

import (
	"context"
	"crypto/sha256"
	"sync"
	"testing"
	"time"

	"joinery"
)

// People holds who signs in, how, and to what they belong.
type People interface {
	Join(ctx context.Context, j joinery.Joining, at time.Time, entries ...joinery.AuditEntry) error
	SetRole(ctx context.Context, org joinery.OrgID, person joinery.PersonID, role joinery.Role, a joinery.AuditEntry) error
	RemoveMember(ctx context.Context, org joinery.OrgID, person joinery.PersonID, keepKeys bool, a joinery.AuditEntry) error
	Person(ctx context.Context, id joinery.PersonID) (joinery.Person, error)
	PersonOf(ctx context.Context, i joinery.Identity) (joinery.Person, error)
	NotePerson(ctx context.Context, p joinery.Person) error
	Members(ctx context.Context, org joinery.OrgID) ([]joinery.Member, error)
	Memberships(ctx context.Context, person joinery.PersonID) ([]joinery.Membership, error)
	Invite(ctx context.Context, i joinery.Invitation, a joinery.AuditEntry) error
	Invitation(ctx context.Context, id joinery.InvitationID) (joinery.Invitation, error)
	Invitations(ctx context.Context, org joinery.OrgID) ([]joinery.Invitation, error)
	InvitationsOf(ctx context.Context, email string, at time.Time) ([]joinery.Invitation, error)
	WithdrawInvitation(ctx context.Context, id joinery.InvitationID, a joinery.AuditEntry) error
	AddPasskey(ctx context.Context, p joinery.Passkey, most int, a joinery.AuditEntry) error
	PasskeyOf(ctx context.Context, credential []byte) (joinery.Passkey, error)
	Passkeys(ctx context.Context, person joinery.PersonID) ([]joinery.Passkey, error)
	UsePasskey(ctx context.Context, id joinery.PasskeyID, record []byte, at time.Time) error
	RemovePasskey(ctx context.Context, person joinery.PersonID, id joinery.PasskeyID, a joinery.AuditEntry) error
	AddSession(ctx context.Context, s joinery.Session) error
	SessionStanding(ctx context.Context, id joinery.SessionID) (joinery.Session, []joinery.Membership, error)
	Sessions(ctx context.Context, person joinery.PersonID) ([]joinery.Session, error)
	EndSession(ctx context.Context, person joinery.PersonID, id joinery.SessionID) error
	TouchSession(ctx context.Context, id joinery.SessionID, at time.Time) error
	AddSignIn(ctx context.Context, ch joinery.SignIn, now time.Time) error
	SignIn(ctx context.Context, hash [32]byte) (joinery.SignIn, error)
	SignInByCode(ctx context.Context, code string) (joinery.SignIn, error)
	TakeSignIn(ctx context.Context, hash [32]byte) (joinery.SignIn, error)
	AgreeToSignIn(ctx context.Context, hash [32]byte, person joinery.PersonID, a joinery.AuditEntry) error
}

func runPeople(t *testing.T, open func(testing.TB) Backend) {
	t.Run("kinds", kinds(open))
	t.Run("members", memberships(open))
	t.Run("invitations", invitations(open))
	t.Run("invitations end with who made them", madeInvitations(open))
	t.Run("keys end with who made them", madeKeys(open))
	t.Run("standing", standing(open))
	t.Run("passkeys", passkeys(open))
	t.Run("sessions", sessions(open))
	t.Run("sign-ins", signIns(open))
	t.Run("no more than an organisation may have", manyCredentials(open))
	t.Run("what the audit log says of people", peopleAudit(open))
}

func hash() [sha256.Size]byte { return sha256.Sum256(randomBytes(32)) }

func (w *world) invite(org joinery.OrgID, role joinery.Role, email string) joinery.Invitation {
	w.t.Helper()
	i := joinery.Invitation{ID: joinery.NewInvitationID(), Org: org, Role: role, Email: email, Hash: hash(), CreatedAt: epoch, ExpiresAt: epoch.Add(time.Hour), InvitedBy: "storetest"}
	w.ok(w.Invite(w.ctx, i, w.audit(joinery.AuditPersonInvited)))
	return i
}

// person makes somebody who belongs to org.
func (w *world) person(org joinery.OrgID, role joinery.Role, name string) joinery.Person {
	w.t.Helper()
	p := joinery.Person{ID: joinery.NewPersonID(), Name: name, Email: name + "@example.com", EmailVerified: true, CreatedAt: epoch}
	w.ok(w.Join(w.ctx, joinery.Joining{Invitation: w.invite(org, role, p.Email), Person: p, New: true, Identity: &joinery.Identity{Issuer: "https://id.example.com", Subject: name}},
		epoch, w.audit(joinery.AuditPersonJoined)))
	return p
}

func (w *world) operatorOrg() joinery.OrgID {
	w.t.Helper()
	orgs, err := w.Orgs(w.ctx)
	w.ok(err)
	for _, o := range orgs {
		if o.Kinds.Is(joinery.KindServerOperator) {
			return o.ID
		}
	}
	w.t.Fatal("nobody runs the server")
	return 0
}

func kinds(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		o := joinery.Organisation{ID: joinery.NewOrgID(), Name: "shop", Kinds: joinery.OrgKinds{joinery.KindDistributor, joinery.KindOwner}, CreatedAt: epoch.Add(time.Hour)}
		w.ok(w.AddOrg(w.ctx, o, w.audit(joinery.AuditOrgAdded)))
		o.Name, o.Kinds = "network", joinery.OrgKinds{joinery.KindNetworkOperator}
		w.ok(w.ChangeOrg(w.ctx, o, w.audit(joinery.AuditOrgChanged)))
		orgs, err := w.Orgs(w.ctx)
		w.ok(err)
		for _, got := range orgs {
			switch got.ID {
			case o.ID:
				w.equal(got, o)
			case w.org:
				w.equal(got.Kinds, joinery.EveryKind())
			}
		}
		taken := o
		taken.Name = "maker"
		w.refused(w.ChangeOrg(w.ctx, taken, w.audit(joinery.AuditOrgChanged)), joinery.CodeConflict)
		taken.ID = joinery.NewOrgID()
		w.refused(w.ChangeOrg(w.ctx, taken, w.audit(joinery.AuditOrgChanged)), joinery.CodeNotFound)
		w.CheckInvariants(t)
	}
}

func memberships(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		other := w.addOrg("other")
		a := w.audit(joinery.AuditPersonRoleChanged)
		ann, ben := w.person(w.org, joinery.RoleAdmin, "ann"), w.person(w.org, joinery.RoleViewer, "ben")
		got, err := w.Members(w.ctx, w.org)
		w.ok(err)
		w.equal(got, []joinery.Member{{Person: ann, Role: joinery.RoleAdmin, Since: epoch}, {Person: ben, Role: joinery.RoleViewer, Since: epoch}})
		found, err := w.PersonOf(w.ctx, joinery.Identity{Issuer: "https://id.example.com", Subject: "ann"})
		w.ok(err)
		w.equal(found, ann)
		_, err = w.PersonOf(w.ctx, joinery.Identity{Issuer: "https://id.example.org", Subject: "ann"})
		w.refused(err, joinery.CodeNotFound)
		ann.Name, ann.EmailVerified = "Ann", false
		w.ok(w.NotePerson(w.ctx, ann))
		found, err = w.Person(w.ctx, ann.ID)
		w.ok(err)
		w.equal(found, ann)

		// A second place, and a role that only rises.
		w.ok(w.Join(w.ctx, joinery.Joining{Invitation: w.invite(other, joinery.RoleMember, "x"), Person: ann}, epoch.Add(time.Minute)))
		w.ok(w.Join(w.ctx, joinery.Joining{Invitation: w.invite(w.org, joinery.RoleViewer, "x"), Person: ann}, epoch.Add(time.Minute)))
		w.ok(w.Join(w.ctx, joinery.Joining{Invitation: w.invite(w.org, joinery.RoleMember, "x"), Person: ben}, epoch.Add(time.Minute)))
		places, err := w.Memberships(w.ctx, ann.ID)
		w.ok(err)
		w.equal(places, []joinery.Membership{
			{Person: ann.ID, Org: w.org, Role: joinery.RoleAdmin, Since: epoch, OrgName: "maker", Kinds: joinery.EveryKind()},
			{Person: ann.ID, Org: other, Role: joinery.RoleMember, Since: epoch.Add(time.Minute), OrgName: "other", Kinds: joinery.EveryKind()},
		})
		places, err = w.Memberships(w.ctx, ben.ID)
		w.ok(err)
		w.equal(places[0].Role, joinery.RoleMember)

		// One account is one person, and an organisation keeps its last admin.
		again := joinery.Joining{Invitation: w.invite(w.org, joinery.RoleViewer, "x"), Person: joinery.Person{ID: joinery.NewPersonID()}, New: true,
			Identity: &joinery.Identity{Issuer: "https://id.example.com", Subject: "ann"}}
		w.refused(w.Join(w.ctx, again, epoch), joinery.CodeConflict)
		twice := joinery.Joining{Invitation: w.invite(w.org, joinery.RoleViewer, "x"), Person: ben, New: true}
		w.refused(w.Join(w.ctx, twice, epoch), joinery.CodeConflict)
		w.refused(w.SetRole(w.ctx, w.org, ann.ID, joinery.RoleMember, a), joinery.CodeConflict)
		w.refused(w.RemoveMember(w.ctx, w.org, ann.ID, false, a), joinery.CodeConflict)
		w.refused(w.SetRole(w.ctx, other, ben.ID, joinery.RoleAdmin, a), joinery.CodeNotFound)
		w.ok(w.SetRole(w.ctx, w.org, ben.ID, joinery.RoleAdmin, a))
		w.ok(w.RemoveMember(w.ctx, w.org, ann.ID, false, w.audit(joinery.AuditPersonRemoved)))
		w.refused(w.RemoveMember(w.ctx, w.org, ann.ID, false, a), joinery.CodeNotFound)
		found, err = w.Person(w.ctx, ann.ID) // she belongs to another still
		w.ok(err)
		w.equal(found, ann)

		// Who belongs to nothing is forgotten.
		s := joinery.Session{ID: joinery.NewSessionID(), Person: ann.ID, Kind: joinery.SessionBrowser, Name: "b", Hash: hash(), CreatedAt: epoch, ExpiresAt: epoch.Add(time.Hour)}
		w.ok(w.AddSession(w.ctx, s))
		w.ok(w.RemoveMember(w.ctx, other, ann.ID, false, w.audit(joinery.AuditPersonRemoved)))
		_, err = w.Person(w.ctx, ann.ID)
		w.refused(err, joinery.CodeNotFound)
		_, err = w.PersonOf(w.ctx, *again.Identity)
		w.refused(err, joinery.CodeNotFound)
		_, _, err = w.SessionStanding(w.ctx, s.ID)
		w.refused(err, joinery.CodeNotFound)
		w.CheckInvariants(t)
	}
}

func invitations(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		i := w.invite(w.org, joinery.RoleMember, "ann@example.com")
		got, err := w.Invitation(w.ctx, i.ID)
		w.ok(err)
		w.equal(got, i)
		all, err := w.Invitations(w.ctx, w.org)
		w.ok(err)
		w.equal(all, []joinery.Invitation{i})
		for at, want := range map[time.Time]int{epoch: 1, i.ExpiresAt: 0} {
			of, err := w.InvitationsOf(w.ctx, "ann@example.com", at)
			w.ok(err)
			w.equal(len(of), want)
		}

		// The operator's has no address, and there is one of it.
		bootstrap := joinery.Invitation{ID: joinery.NewInvitationID(), Role: joinery.RoleAdmin, Hash: hash(), CreatedAt: epoch, ExpiresAt: epoch.Add(time.Hour), InvitedBy: "socket uid 0"}
		next := bootstrap
		next.ID = joinery.NewInvitationID()
		w.ok(w.Invite(w.ctx, bootstrap, w.audit(joinery.AuditOperatorBootstrap)))
		w.ok(w.Invite(w.ctx, next, w.audit(joinery.AuditOperatorBootstrap)))
		_, err = w.Invitation(w.ctx, bootstrap.ID)
		w.refused(err, joinery.CodeNotFound)
		got, err = w.Invitation(w.ctx, next.ID)
		w.ok(err)
		w.equal(got.Org, w.operatorOrg())
		none, err := w.InvitationsOf(w.ctx, "", epoch)
		w.ok(err)
		w.equal(len(none), 0)

		// Of those who take one at once, one has it.
		var wait sync.WaitGroup
		outcomes := make(chan error, 8)
		for range cap(outcomes) {
			wait.Go(func() {
				p := joinery.Person{ID: joinery.NewPersonID(), Name: "x", CreatedAt: epoch}
				outcomes <- w.Join(w.ctx, joinery.Joining{Invitation: got, Person: p, New: true}, epoch, w.audit(joinery.AuditPersonJoined))
			})
		}
		wait.Wait()
		close(outcomes)
		taken := 0
		for err := range outcomes {
			if err == nil {
				taken++
				continue
			}
			w.refused(err, joinery.CodeNotFound)
		}
		w.equal(taken, 1)

		w.ok(w.WithdrawInvitation(w.ctx, i.ID, w.audit(joinery.AuditInvitationEnded)))
		w.refused(w.WithdrawInvitation(w.ctx, i.ID, w.audit(joinery.AuditInvitationEnded)), joinery.CodeNotFound)
		w.CheckInvariants(t)
	}
}

// invitedBy makes an invitation that a person, or a key, made.
func (w *world) invitedBy(org joinery.OrgID, person joinery.PersonID, key joinery.APIKeyID) joinery.Invitation {
	return joinery.Invitation{
		ID: joinery.NewInvitationID(), Org: org, Role: joinery.RoleAdmin, Email: "new@example.com", Hash: hash(), CreatedAt: epoch,
		ExpiresAt: epoch.Add(time.Hour), InvitedBy: "storetest", ByPerson: person, ByKey: key,
	}
}

// stands tells which of some invitations can still be taken.
func (w *world) stands(list ...joinery.Invitation) (which []bool) {
	w.t.Helper()
	for _, i := range list {
		got, err := w.Invitation(w.ctx, i.ID)
		if err == nil {
			w.equal(got, i)
		} else {
			w.refused(err, joinery.CodeNotFound)
		}
		which = append(which, err == nil)
	}
	return which
}

func madeInvitations(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		a, other := w.audit(joinery.AuditPersonInvited), w.addOrg("other")
		ann, ben := w.person(w.org, joinery.RoleAdmin, "ann"), w.person(w.org, joinery.RoleAdmin, "ben")
		w.ok(w.Join(w.ctx, joinery.Joining{Invitation: w.invite(other, joinery.RoleAdmin, "x"), Person: ben}, epoch))
		made := func(org joinery.OrgID, person joinery.PersonID, key joinery.APIKeyID) joinery.Invitation {
			t.Helper()
			i := w.invitedBy(org, person, key)
			w.ok(w.Invite(w.ctx, i, a))
			return i
		}

		// A demotion ends what they and their keys made there, and nothing else.
		key := w.madeKey(w.org, false, ben.ID, 0)
		his, byKey, hers, elsewhere := made(w.org, ben.ID, 0), made(w.org, ben.ID, key.ID), made(w.org, ann.ID, 0), made(other, ben.ID, 0)
		w.ok(w.SetRole(w.ctx, w.org, ben.ID, joinery.RoleAdmin, a))
		w.equal(w.stands(his, byKey, hers, elsewhere), []bool{true, true, true, true})
		w.ok(w.SetRole(w.ctx, w.org, ben.ID, joinery.RoleMember, a))
		w.equal(w.stands(his, byKey, hers, elsewhere), []bool{false, false, true, true})
		w.refused(w.Join(w.ctx, joinery.Joining{Invitation: his, Person: ben}, epoch), joinery.CodeNotFound)
		// A request that was let in before comes too late.
		w.refused(w.Invite(w.ctx, w.invitedBy(w.org, ben.ID, 0), a), joinery.CodeForbidden)

		// A removal, also what is to their address, whether or not their keys stay.
		w.ok(w.SetRole(w.ctx, w.org, ben.ID, joinery.RoleAdmin, a))
		his, to := made(w.org, ben.ID, 0), w.invite(w.org, joinery.RoleAdmin, ben.Email)
		toElsewhere := w.invite(other, joinery.RoleViewer, ben.Email)
		w.ok(w.RemoveMember(w.ctx, w.org, ben.ID, true, a))
		w.equal(w.stands(his, to, toElsewhere, hers), []bool{false, false, true, true})

		// A revoked key ends what it made, and what was made by its keys.
		parent := w.madeKey(w.org, false, 0, 0)
		child := w.madeKey(w.org, false, 0, parent.ID)
		first, second, another := made(w.org, 0, parent.ID), made(w.org, 0, child.ID), made(w.org, 0, key.ID)
		w.ok(w.RevokeAPIKey(w.ctx, parent.ID, epoch, a))
		w.equal(w.stands(first, second, another), []bool{false, false, true})
		w.refused(w.Invite(w.ctx, w.invitedBy(w.org, 0, child.ID), a), joinery.CodeForbidden)

		// An operator's, into whatever organisation, end with their office.
		w.person(w.operatorOrg(), joinery.RoleAdmin, "dan")
		cem := w.person(w.operatorOrg(), joinery.RoleAdmin, "cem")
		into, there := made(w.org, cem.ID, 0), made(w.operatorOrg(), cem.ID, 0)
		w.ok(w.SetRole(w.ctx, w.operatorOrg(), cem.ID, joinery.RoleViewer, a))
		w.equal(w.stands(into, there, hers), []bool{false, false, true})
		w.CheckInvariants(t)
	}
}

// madeKey stores a key that a person made.
func (w *world) madeKey(org joinery.OrgID, operator bool, person joinery.PersonID, by joinery.APIKeyID) joinery.APIKey {
	w.t.Helper()
	k := joinery.APIKey{ID: joinery.NewAPIKeyID(), Org: org, Operator: operator, Name: "k", Hash: hash(), CreatedAt: epoch, Rights: joinery.RoleMember.Rights(), Person: person, MadeBy: by}
	w.ok(w.AddAPIKey(w.ctx, k, w.audit(joinery.AuditAPIKeyMade)))
	return k
}

func (w *world) key(id joinery.APIKeyID) joinery.APIKey {
	w.t.Helper()
	k, err := w.APIKey(w.ctx, id)
	w.ok(err)
	return k
}

func madeKeys(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		a := w.audit(joinery.AuditAPIKeyRevoked)
		ann, ben := w.person(w.org, joinery.RoleAdmin, "ann"), w.person(w.org, joinery.RoleMember, "ben")
		mine := w.madeKey(w.org, false, ben.ID, 0)
		w.equal(w.key(mine.ID), mine)
		child := w.madeKey(w.org, false, ben.ID, mine.ID)
		grandchild := w.madeKey(w.org, false, ben.ID, child.ID)
		others := w.madeKey(w.org, false, ann.ID, 0)
		w.ok(w.TouchAPIKey(w.ctx, mine.ID, epoch.Add(time.Minute)))
		w.ok(w.TouchAPIKey(w.ctx, mine.ID, epoch))
		w.equal(w.key(mine.ID).LastUsedAt, epoch.Add(time.Minute))

		w.ok(w.RevokeAPIKey(w.ctx, mine.ID, epoch.Add(time.Minute), a))
		for _, id := range []joinery.APIKeyID{mine.ID, child.ID, grandchild.ID} {
			w.equal(w.key(id).RevokedAt, epoch.Add(time.Minute))
		}
		w.equal(w.key(others.ID).RevokedAt, time.Time{})
		late := joinery.APIKey{ID: joinery.NewAPIKeyID(), Org: w.org, Name: "late", Hash: hash(), CreatedAt: epoch, MadeBy: mine.ID}
		w.refused(w.AddAPIKey(w.ctx, late, a), joinery.CodeForbidden)

		kept, ended := w.madeKey(w.org, false, ben.ID, 0), w.madeKey(w.org, false, ben.ID, 0)
		w.ok(w.SetRole(w.ctx, w.org, ben.ID, joinery.RoleViewer, a))
		w.ok(w.RemoveMember(w.ctx, w.org, ben.ID, true, a))
		w.equal(w.key(kept.ID).Person, joinery.PersonID(0))
		w.equal(w.key(kept.ID).Rights, joinery.RoleViewer.Rights()) // what he had lost does not come back
		w.equal(w.key(ended.ID).RevokedAt, time.Time{})

		// An operator's keys, of whatever organisation, end with them.
		w.person(w.operatorOrg(), joinery.RoleAdmin, "dan")
		cem := w.person(w.operatorOrg(), joinery.RoleAdmin, "cem")
		operators, forOrg := w.madeKey(0, true, cem.ID, 0), w.madeKey(w.org, false, cem.ID, 0)
		w.ok(w.RemoveMember(w.ctx, w.operatorOrg(), cem.ID, false, a))
		for _, id := range []joinery.APIKeyID{operators.ID, forOrg.ID} {
			if w.key(id).RevokedAt.IsZero() {
				t.Errorf("key %s outlives its maker", id)
			}
		}
		w.CheckInvariants(t)
	}
}

func standing(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		w.person(w.org, joinery.RoleAdmin, "ann")
		ben := w.person(w.org, joinery.RoleMember, "ben")
		cem := w.person(w.operatorOrg(), joinery.RoleAdmin, "cem")
		server := joinery.OrgKinds{joinery.KindServerOperator}
		for _, c := range []struct {
			name string
			key  joinery.APIKey
			want joinery.Standing
		}{
			{"made by nobody", w.madeKey(w.org, false, 0, 0), joinery.Standing{Kinds: joinery.EveryKind()}},
			{"made by a member", w.madeKey(w.org, false, ben.ID, 0), joinery.Standing{Kinds: joinery.EveryKind(), Role: joinery.RoleMember}},
			{"made by an operator for an organisation", w.madeKey(w.org, false, cem.ID, 0), joinery.Standing{Kinds: joinery.EveryKind(), Role: joinery.RoleAdmin}},
			{"an operator's", w.madeKey(0, true, cem.ID, 0), joinery.Standing{Kinds: server, Role: joinery.RoleAdmin}},
			{"an operator's made by who is none", w.madeKey(0, true, ben.ID, 0), joinery.Standing{Kinds: server}},
		} {
			got, s, err := w.APIKeyStanding(w.ctx, c.key.ID)
			w.ok(err)
			w.equal(got, c.key)
			if s.Role != c.want.Role || s.Kinds.String() != c.want.Kinds.String() {
				t.Errorf("%s: %+v, want %+v", c.name, s, c.want)
			}
		}
		_, _, err := w.APIKeyStanding(w.ctx, joinery.NewAPIKeyID())
		w.refused(err, joinery.CodeNotFound)
	}
}

func passkeys(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		a := w.audit(joinery.AuditPasskeyAdded)
		first := joinery.Passkey{ID: joinery.NewPasskeyID(), Person: joinery.NewPersonID(), Name: "laptop", Credential: randomBytes(64), Record: []byte("{}"), CreatedAt: epoch}
		ann := joinery.Person{ID: first.Person, Name: "ann", CreatedAt: epoch}
		w.ok(w.Join(w.ctx, joinery.Joining{Invitation: w.invite(w.org, joinery.RoleAdmin, "x"), Person: ann, New: true, Passkey: &first}, epoch))
		ben := w.person(w.org, joinery.RoleViewer, "ben")
		got, err := w.PasskeyOf(w.ctx, first.Credential)
		w.ok(err)
		w.equal(got, first)
		w.ok(w.UsePasskey(w.ctx, first.ID, []byte("{1}"), epoch.Add(time.Minute)))
		first.Record, first.LastUsedAt = []byte("{1}"), epoch.Add(time.Minute)
		list, err := w.Passkeys(w.ctx, ann.ID)
		w.ok(err)
		w.equal(list, []joinery.Passkey{first})

		stolen := joinery.Passkey{ID: joinery.NewPasskeyID(), Person: ben.ID, Name: "mine", Credential: first.Credential, Record: []byte("{}"), CreatedAt: epoch}
		w.refused(w.AddPasskey(w.ctx, stolen, 9, a), joinery.CodeConflict)
		w.refused(w.RemovePasskey(w.ctx, ben.ID, first.ID, a), joinery.CodeNotFound)
		w.refused(w.RemovePasskey(w.ctx, ann.ID, first.ID, a), joinery.CodeConflict) // her only way in
		second := joinery.Passkey{ID: joinery.NewPasskeyID(), Person: ann.ID, Name: "key", Credential: randomBytes(16), Record: []byte("{}"), CreatedAt: epoch}
		w.refused(w.AddPasskey(w.ctx, second, 1, a), joinery.CodeConflict) // she has as many as she may
		w.ok(w.AddPasskey(w.ctx, second, 2, a))
		w.ok(w.RemovePasskey(w.ctx, ann.ID, first.ID, w.audit(joinery.AuditPasskeyRemoved)))
		_, err = w.PasskeyOf(w.ctx, first.Credential)
		w.refused(err, joinery.CodeNotFound)
		w.refused(w.UsePasskey(w.ctx, first.ID, nil, epoch), joinery.CodeNotFound)
		w.CheckInvariants(t)
	}
}

func sessions(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		ann := w.person(w.org, joinery.RoleAdmin, "ann")
		s := joinery.Session{ID: joinery.NewSessionID(), Person: ann.ID, Kind: joinery.SessionProgram, Name: "joinctl", Hash: hash(), CreatedAt: epoch, ExpiresAt: epoch.Add(time.Hour)}
		w.ok(w.AddSession(w.ctx, s))
		w.ok(w.TouchSession(w.ctx, s.ID, epoch.Add(time.Minute)))
		s.LastUsedAt = epoch.Add(time.Minute)
		got, places, err := w.SessionStanding(w.ctx, s.ID)
		w.ok(err)
		w.equal(got, s)
		if len(places) != 1 || places[0].Org != w.org || places[0].Operator {
			t.Errorf("belongs to %+v", places)
		}
		w.refused(w.EndSession(w.ctx, joinery.NewPersonID(), s.ID), joinery.CodeNotFound)
		// One that ended goes when the next begins.
		next := s
		next.ID, next.LastUsedAt, next.CreatedAt, next.ExpiresAt = joinery.NewSessionID(), time.Time{}, s.ExpiresAt, s.ExpiresAt.Add(time.Hour)
		w.ok(w.AddSession(w.ctx, next))
		list, err := w.Sessions(w.ctx, ann.ID)
		w.ok(err)
		w.equal(list, []joinery.Session{next})
		w.ok(w.EndSession(w.ctx, ann.ID, next.ID))
		w.refused(w.EndSession(w.ctx, ann.ID, next.ID), joinery.CodeNotFound)
	}
}

func signIns(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		ann := w.person(w.org, joinery.RoleAdmin, "ann")
		ch := joinery.SignIn{Hash: hash(), Kind: joinery.SignInProgram, Code: "BCDF-GHJK", Name: "joinctl", ExpiresAt: epoch.Add(time.Minute)}
		w.ok(w.AddSignIn(w.ctx, ch, epoch))
		taken := ch
		taken.Hash = hash()
		w.refused(w.AddSignIn(w.ctx, taken, epoch), joinery.CodeConflict)
		got, err := w.SignInByCode(w.ctx, "BCDF-GHJK")
		w.ok(err)
		w.equal(got, ch)
		_, err = w.SignInByCode(w.ctx, "")
		w.refused(err, joinery.CodeNotFound)
		w.ok(w.AgreeToSignIn(w.ctx, ch.Hash, ann.ID, w.audit(joinery.AuditProgramAgreed)))
		w.refused(w.AgreeToSignIn(w.ctx, ch.Hash, ann.ID, w.audit(joinery.AuditProgramAgreed)), joinery.CodeNotFound) // once
		ch.Person = ann.ID
		got, err = w.SignIn(w.ctx, ch.Hash)
		w.ok(err)
		w.equal(got, ch)

		var wait sync.WaitGroup
		outcomes := make(chan error, 8)
		for range cap(outcomes) {
			wait.Go(func() { _, err := w.TakeSignIn(w.ctx, ch.Hash); outcomes <- err })
		}
		wait.Wait()
		close(outcomes)
		n := 0
		for err := range outcomes {
			if err == nil {
				n++
			}
		}
		w.equal(n, 1)

		// Two without a code, which is no code; what ended goes with the next.
		for range 2 {
			w.ok(w.AddSignIn(w.ctx, joinery.SignIn{Hash: hash(), Kind: joinery.SignInPasskey, ExpiresAt: epoch.Add(time.Minute)}, epoch))
		}
		w.ok(w.AddSignIn(w.ctx, taken, epoch.Add(-time.Hour)))
		w.ok(w.AddSignIn(w.ctx, joinery.SignIn{Hash: hash(), Kind: joinery.SignInPasskey, ExpiresAt: epoch.Add(time.Hour)}, epoch.Add(time.Minute)))
		_, err = w.SignIn(w.ctx, taken.Hash)
		w.refused(err, joinery.CodeNotFound)
	}
}

func manyCredentials(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		other, a := w.addOrg("other"), w.audit(joinery.AuditAPIKeyMade)
		key := func(org joinery.OrgID, at time.Time) joinery.APIKey {
			return joinery.APIKey{ID: joinery.NewAPIKeyID(), Org: org, Name: "k", Hash: hash(), CreatedAt: at}
		}
		ends := key(w.org, epoch)
		ends.ExpiresAt = epoch.Add(25 * time.Hour)
		w.ok(w.AddAPIKey(w.ctx, ends, a))
		first := key(w.org, epoch)
		w.ok(w.AddAPIKey(w.ctx, first, a))
		for range joinery.MaxAPIKeys - 2 {
			w.ok(w.AddAPIKey(w.ctx, key(w.org, epoch), a))
		}
		w.refused(w.AddAPIKey(w.ctx, key(w.org, epoch), a), joinery.CodeConflict)
		w.ok(w.AddAPIKey(w.ctx, key(other, epoch), a)) // each organisation has its own
		// One that was revoked makes room, but not on the day on which it was made.
		w.ok(w.RevokeAPIKey(w.ctx, first.ID, epoch, a))
		w.refused(w.AddAPIKey(w.ctx, key(w.org, epoch.Add(time.Hour)), a), joinery.CodeConflict)
		w.ok(w.AddAPIKey(w.ctx, key(w.org, epoch.Add(24*time.Hour)), a))
		w.refused(w.AddAPIKey(w.ctx, key(w.org, epoch.Add(24*time.Hour)), a), joinery.CodeConflict)
		w.ok(w.AddAPIKey(w.ctx, key(w.org, ends.ExpiresAt), a)) // and so does one that has ended

		i := w.invitedBy(w.org, 0, 0)
		for range joinery.MaxInvitations {
			i.ID = joinery.NewInvitationID()
			w.ok(w.Invite(w.ctx, i, a))
		}
		more := w.invitedBy(w.org, 0, 0)
		w.refused(w.Invite(w.ctx, more, a), joinery.CodeConflict)
		w.ok(w.Invite(w.ctx, w.invitedBy(other, 0, 0), a))
		w.ok(w.WithdrawInvitation(w.ctx, i.ID, a))
		w.ok(w.Invite(w.ctx, more, a))
		more.ID, more.CreatedAt = joinery.NewInvitationID(), i.ExpiresAt
		w.ok(w.Invite(w.ctx, more, a)) // those before have ended
	}
}
