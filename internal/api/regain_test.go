package api_test

import (
	"net/http"
	"strings"
	"testing"

	"joinery"
	"joinery/client"
)

// TestNobodyRegainsByAnInvitation: who was an admin has no way back that they laid
// out themselves, nor by a key of theirs.
func TestNobodyRegainsByAnInvitation(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	ann := f.signedIn(t, f.orgA, joinery.RoleAdmin, "ann")
	ben := f.signedIn(t, f.orgA, joinery.RoleAdmin, "ben")
	b := f.as(t, ben.token)
	key, err := b.MakeAPIKey(ctx, client.NewAPIKey{Name: "script"})
	if err != nil {
		t.Fatal(err)
	}
	var tokens []string
	for _, c := range []*client.Client{b, f.as(t, key.Text)} {
		made, err := c.Invite(ctx, client.NewInvitation{Email: "other@example.com", Role: joinery.RoleAdmin})
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, made.Token)
	}
	if _, err := f.as(t, ann.token).ChangePerson(ctx, ben.id, client.RoleChange{Role: joinery.RoleViewer}); err != nil {
		t.Fatal(err)
	}
	for _, token := range tokens {
		if err := b.AcceptInvitation(ctx, client.AcceptedInvitation{Token: token}); code(err) != "forbidden" {
			t.Errorf("who was an admin is one again: %v", err)
		}
	}
}

// TestProgramsMakeNoWaysIn: whoever has a program's session, which is short, makes
// nothing by it that outlasts it.
func TestProgramsMakeNoWaysIn(t *testing.T) {
	f := start(t)
	ann := f.signedIn(t, f.orgA, joinery.RoleAdmin, "ann")
	login, err := f.operator.BeginLogin(t.Context(), client.NewLogin{Name: "mallory"})
	if err != nil {
		t.Fatal(err)
	}
	refused := func(method, path, body string) {
		t.Helper()
		a := f.send(t, ann.token, method, path, body)
		if p := a.problem(t); p.Code != joinery.CodeForbidden || !strings.Contains(p.Detail, "/sign-in") {
			t.Errorf("%s %s: %d %s", method, path, a.status, a.body)
		}
	}
	refused(http.MethodPost, "/sign-in/program", `{"code":"`+login.Code+`"}`)
	refused(http.MethodPost, "/sign-in/program/agree", `{"code":"`+login.Code+`"}`)
	refused(http.MethodPost, "/sign-in/passkey/new", `{}`)
	refused(http.MethodPost, "/sign-in/passkey/new/finish", `{"passkey":"mine","credential":{}}`)
	list, err := f.as(t, ann.token).Passkeys(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	refused(http.MethodDelete, "/api/v1/me/passkeys/"+list[0].ID.String(), "")
	if got, err := f.operator.FinishLogin(t.Context(), client.LoginPoll{Secret: login.Secret}); err != nil || got.Done {
		t.Errorf("%+v, %v", got.Done, err)
	}
	if after, err := f.as(t, ann.token).Passkeys(t.Context()); err != nil || len(after) != 1 {
		t.Errorf("%+v, %v", after, err)
	}
}
