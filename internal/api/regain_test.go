package api_test

import (
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
