package storetest

import (
	"fmt"
	"testing"
	"time"

	"joinery"
)

// audited gives what the log has since an entry, and the last entry.
func (w *world) audited(after int64) (list []joinery.AuditEntry, last int64) {
	w.t.Helper()
	list, err := w.AuditEntries(w.ctx, after, 1000)
	w.ok(err)
	last = after
	for _, e := range list {
		last = e.ID
	}
	return list, last
}

// said is an entry in short: its event, whose log it is in, and what it says.
type said struct {
	event joinery.AuditEvent
	org   joinery.OrgID
	texts map[string]string
}

// says wants entries, in order, that say at least so much.
func (w *world) says(name string, got []joinery.AuditEntry, want ...said) {
	w.t.Helper()
	if len(got) != len(want) {
		w.t.Fatalf("%s: %d entries %+v, want %d", name, len(got), got, len(want))
	}
	for i, e := range got {
		if e.Event != want[i].event || e.Org != want[i].org {
			w.t.Errorf("%s: entry %d is %s of %s, want %s of %s", name, i, e.Event, e.Org, want[i].event, want[i].org)
		}
		for field, text := range want[i].texts {
			if e.Detail[field] != text {
				w.t.Errorf("%s: entry %d says %s %q, want %q", name, i, field, e.Detail[field], text)
			}
		}
	}
}

// details makes what an entry says.
func details(pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

// auditOf is audit in the log of an organisation.
func (w *world) auditOf(org joinery.OrgID, event joinery.AuditEvent) joinery.AuditEntry {
	a := w.audit(event)
	a.Org = org
	return a
}

func peopleAudit(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		other := w.addOrg("other")
		w.person(w.org, joinery.RoleAdmin, "ann")
		ben := w.person(w.org, joinery.RoleMember, "ben")
		last := int64(0)
		since := func() (list []joinery.AuditEntry) { list, last = w.audited(last); return list }
		w.auditRoles(ben, other, since)
		w.auditWaysIn(ben, other, since)
		w.auditKeys(ben, since)
		w.auditOperatorsKeys(other, since)
		w.CheckInvariants(t)
	}
}

// auditRoles: an entry says which role somebody has then, and which they had.
func (w *world) auditRoles(ben joinery.Person, other joinery.OrgID, since func() []joinery.AuditEntry) {
	w.t.Helper()
	join := func(org joinery.OrgID, role joinery.Role) {
		w.t.Helper()
		i := w.invite(org, role, "x")
		since()
		w.ok(w.Join(w.ctx, joinery.Joining{Invitation: i, Person: ben}, epoch, w.auditOf(org, joinery.AuditPersonJoined)))
	}
	join(w.org, joinery.RoleViewer)
	w.says("a lower role", since(), said{joinery.AuditPersonJoined, w.org, details("role", "member", "before", "member")})
	join(w.org, joinery.RoleAdmin)
	w.says("a higher role", since(), said{joinery.AuditPersonJoined, w.org, details("role", "admin", "before", "member", "why", "contract")})
	join(other, joinery.RoleViewer)
	w.says("a new place", since(), said{joinery.AuditPersonJoined, other, details("role", "viewer", "before", "")})
	w.ok(w.Invite(w.ctx, w.invitedBy(w.org, ben.ID, 0), w.audit(joinery.AuditPersonInvited)))
	since()
	a := w.auditOf(w.org, joinery.AuditPersonRoleChanged)
	w.ok(w.SetRole(w.ctx, w.org, ben.ID, joinery.RoleMember, a))
	w.says("another role", since(), said{a.Event, w.org, details("role", "member", "before", "admin", "endedInvitations", "1", "why", "contract")})
}

// auditWaysIn: how somebody comes in concerns every organisation of theirs.
func (w *world) auditWaysIn(ben joinery.Person, other joinery.OrgID, since func() []joinery.AuditEntry) {
	w.t.Helper()
	both := func(event joinery.AuditEvent) []said {
		return []said{{event, min(w.org, other), details("why", "contract")}, {event, max(w.org, other), details("why", "contract")}}
	}
	p := joinery.Passkey{ID: joinery.NewPasskeyID(), Person: ben.ID, Name: "k", Credential: randomBytes(16), Record: []byte("{}"), CreatedAt: epoch}
	w.ok(w.AddPasskey(w.ctx, p, 9, w.audit(joinery.AuditPasskeyAdded)))
	w.says("a passkey", since(), both(joinery.AuditPasskeyAdded)...)
	w.ok(w.RemovePasskey(w.ctx, ben.ID, p.ID, w.audit(joinery.AuditPasskeyRemoved)))
	w.says("no passkey", since(), both(joinery.AuditPasskeyRemoved)...)
	waits := joinery.SignIn{Hash: hash(), Kind: joinery.SignInProgram, Code: "BCDF-GHJK", Name: "joinctl", ExpiresAt: epoch.Add(time.Minute)}
	w.ok(w.AddSignIn(w.ctx, waits, epoch))
	w.ok(w.AgreeToSignIn(w.ctx, waits.Hash, ben.ID, w.audit(joinery.AuditProgramAgreed)))
	w.says("a program", since(), both(joinery.AuditProgramAgreed)...)
}

// auditKeys: each key that something takes along is named.
func (w *world) auditKeys(ben joinery.Person, since func() []joinery.AuditEntry) {
	w.t.Helper()
	parent, apart := w.madeKey(w.org, false, ben.ID, 0), w.madeKey(w.org, false, ben.ID, 0)
	child := w.madeKey(w.org, false, ben.ID, parent.ID)
	since()
	a := w.auditOf(w.org, joinery.AuditAPIKeyRevoked)
	w.ok(w.RevokeAPIKey(w.ctx, parent.ID, epoch, a))
	w.says("a key", since(), said{a.Event, w.org, details("revokedKeys", "1", "why", "contract")},
		said{joinery.AuditAPIKeyRevoked, w.org, details("key", child.ID.String(), "madeBy", parent.ID.String(), "because", "api_key.revoked")})
	a = w.auditOf(w.org, joinery.AuditPersonRemoved)
	w.ok(w.RemoveMember(w.ctx, w.org, ben.ID, false, a))
	w.says("a person", since(), said{a.Event, w.org, details("role", "member", "revokedKeys", "1")},
		said{joinery.AuditAPIKeyRevoked, w.org, details("key", apart.ID.String(), "person", ben.ID.String(), "because", "person.removed")})
}

// auditOperatorsKeys: keys that an operator made for others are named in the logs
// of those others, kept or not.
func (w *world) auditOperatorsKeys(other joinery.OrgID, since func() []joinery.AuditEntry) {
	w.t.Helper()
	server := w.operatorOrg()
	w.person(server, joinery.RoleAdmin, "dan")
	for keep, event := range map[bool]joinery.AuditEvent{false: joinery.AuditAPIKeyRevoked, true: joinery.AuditAPIKeyKept} {
		cem := w.person(server, joinery.RoleAdmin, fmt.Sprintf("cem %v", keep))
		theirs, own := w.madeKey(other, false, cem.ID, 0), w.madeKey(0, true, cem.ID, 0)
		since()
		a := w.auditOf(server, joinery.AuditPersonRemoved)
		w.ok(w.RemoveMember(w.ctx, server, cem.ID, keep, a))
		w.says("an operator", since(), said{a.Event, server, nil},
			said{event, other, details("key", theirs.ID.String())}, said{event, server, details("key", own.ID.String(), "operator", "true")})
	}
}
