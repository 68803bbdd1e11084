package api_test

import (
	"log/slog"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/auth"
	"joinery/internal/store"
)

// somebody is a person who is signed in.
type somebody struct {
	id    joinery.PersonID
	token string // of a session
}

func newSignIn(t testing.TB, db *store.DB, url string, o auth.SignInOptions, log *slog.Logger) *auth.SignIn {
	t.Helper()
	if o.URL == "" {
		o.URL = url
	}
	o.Log, o.AnswerAfter = log, -1
	s, err := auth.NewSignIn(db, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// signedIn makes a person of an organisation and signs them in.
func (f *fixture) signedIn(t testing.TB, org joinery.OrgID, role joinery.Role, name string) somebody {
	t.Helper()
	made, err := f.acting(t, org).Invite(t.Context(), client.NewInvitation{Email: name + "@example.com", Role: role})
	if err != nil {
		t.Fatal(err)
	}
	i, err := f.db.Invitation(t.Context(), made.Invitation.ID)
	if err != nil {
		t.Fatal(err)
	}
	p := joinery.Person{ID: joinery.NewPersonID(), Name: name, Email: i.Email, CreatedAt: time.Now().Truncate(time.Millisecond)}
	first := joinery.Passkey{ID: joinery.NewPasskeyID(), Person: p.ID, Name: "first", Credential: randomKey(16), Record: []byte("{}"), CreatedAt: p.CreatedAt}
	entry := joinery.AuditEntry{At: p.CreatedAt, Event: joinery.AuditPersonJoined, Actor: "test", Org: i.Org}
	if err := f.db.Join(t.Context(), joinery.Joining{Invitation: i, Person: p, New: true, Passkey: &first}, p.CreatedAt, entry); err != nil {
		t.Fatal(err)
	}
	token, _, err := f.signIn.StartSession(t.Context(), p.ID, joinery.SessionProgram, "test")
	if err != nil {
		t.Fatal(err)
	}
	return somebody{p.ID, token}
}

// populatePeople makes somebody of orgA, with everything that people have.
func (f *fixture) populatePeople(t testing.TB, w *world) {
	t.Helper()
	ctx := t.Context()
	ann := f.signedIn(t, f.orgA, joinery.RoleAdmin, "ann")
	w.ids["per"] = ann.id.String()
	c := f.as(t, ann.token)
	sessions, err := c.Sessions(ctx)
	if err != nil || len(sessions) != 1 || !sessions[0].Current {
		t.Fatalf("sessions %+v, %v", sessions, err)
	}
	w.ids["ses"] = sessions[0].ID.String()
	passkeys, err := c.Passkeys(ctx)
	if err != nil || len(passkeys) != 1 {
		t.Fatalf("passkeys %+v, %v", passkeys, err)
	}
	w.ids["psk"] = passkeys[0].ID.String()
	invited, err := c.Invite(ctx, client.NewInvitation{Email: "next@example.com", Role: joinery.RoleViewer})
	if err != nil {
		t.Fatal(err)
	}
	w.ids["inv"] = invited.Invitation.ID.String()
}
