package store

import (
	"crypto/sha256"
	"path/filepath"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store/storetest/pgtest"
)

// withSignIns makes a database with somebody who is signed in, two steps of signing
// in, an invitation that stands and an API key of theirs.
func withSignIns(t *testing.T, o Options) (*DB, joinery.APIKey) {
	t.Helper()
	d := mustOpen(t, o)
	ctx := t.Context()
	a := joinery.AuditEntry{At: testTime, Event: joinery.AuditPersonJoined, Actor: "test"}
	hash := func(text string) [sha256.Size]byte { return sha256.Sum256([]byte(text)) }
	end := testTime.Add(time.Hour)
	invitation := joinery.Invitation{ID: joinery.NewInvitationID(), Org: d.operator, Role: joinery.RoleAdmin, Email: "ann@example.com", Hash: hash("i"), CreatedAt: testTime, ExpiresAt: end}
	next := invitation
	next.ID = joinery.NewInvitationID()
	ann := joinery.Person{ID: joinery.NewPersonID(), Name: "ann", CreatedAt: testTime}
	key := joinery.APIKey{ID: joinery.NewAPIKeyID(), Org: d.operator, Name: "k", Hash: hash("k"), CreatedAt: testTime, Person: ann.ID}
	err := inOrder(
		func() error { return d.Invite(ctx, invitation, a) },
		func() error { return d.Invite(ctx, next, a) },
		func() error {
			return d.Join(ctx, joinery.Joining{Invitation: invitation, Person: ann, New: true, Identity: &joinery.Identity{Issuer: "https://id.example.com", Subject: "ann"}}, testTime)
		},
		func() error {
			return d.AddSession(ctx, joinery.Session{ID: joinery.NewSessionID(), Person: ann.ID, Kind: joinery.SessionBrowser, Name: "b", Hash: hash("s"), CreatedAt: testTime, ExpiresAt: end})
		},
		func() error {
			return d.AddSignIn(ctx, joinery.SignIn{Hash: hash("1"), Kind: joinery.SignInPasskey, ExpiresAt: end}, testTime)
		},
		func() error {
			return d.AddSignIn(ctx, joinery.SignIn{Hash: hash("2"), Kind: joinery.SignInPasskey, ExpiresAt: end}, testTime)
		},
		func() error { return d.AddAPIKey(ctx, key, a) },
	)
	if err != nil {
		t.Fatal(err)
	}
	return d, key
}

// left is what d still has by which people are in or come in.
func left(t *testing.T, d *DB) (e Ended) {
	t.Helper()
	for table, n := range map[string]*int{"session": &e.Sessions, "sign_in": &e.SignIns, "invitation": &e.Invitations} {
		if err := d.read(t.Context(), func(c conn) error {
			rows, err := c.integer("SELECT count(*) FROM " + table)
			*n = int(rows)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// receiptEpoch is what numbers of receipts are of.
func receiptEpoch(t *testing.T, d *DB) (epoch uint64) {
	t.Helper()
	_, newest, err := d.ArrivalNews(t.Context(), 1, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	return newest.Epoch
}

// What a restored or copied state says of who is signed in and who is invited
// counts for nothing: it may have ended since. Keys and members stay.
func TestFenceSignsEverybodyOut(t *testing.T) {
	all := Ended{Sessions: 1, SignIns: 2, Invitations: 1}
	for name, c := range map[string]struct{ options, nowhere func(testing.TB) Options }{
		"SQLite": {newOptions, func(t testing.TB) Options {
			return Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
		}},
		"PostgreSQL": {newPostgres, func(t testing.TB) Options {
			return Options{URL: pgtest.Shared(t).Database(t), UnsafeNoSync: true, Witnesses: []string{t.TempDir()}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d, key := withSignIns(t, c.options(t))
			if got := receiptEpoch(t, d); got != 0 {
				t.Fatalf("begins with receipts of epoch %d", got)
			}
			if got := left(t, d); got != all {
				t.Fatalf("begins with %+v", got)
			}
			o := c.nowhere(t)
			draft, err := copyInto(t.Context(), d, o)
			if err == nil {
				err = firstError(draft.Fence("restored from a test", "tester"), draft.Publish())
			}
			if err != nil || draft.Ended() != all {
				t.Fatalf("ended %+v, %v", draft.Ended(), err)
			}
			restored := mustOpen(t, o)
			if err := d.RaiseFence(t.Context(), "by hand", "tester"); err != nil {
				t.Fatal(err)
			}
			if e, f := receiptEpoch(t, restored), receiptEpoch(t, d); e == 0 || f == 0 || e == f {
				t.Errorf("receipts of epochs %d and %d", e, f)
			}
			for name, d := range map[string]*DB{"restored": restored, "fenced by hand": d} {
				if got := left(t, d); got != (Ended{}) {
					t.Errorf("%s: %+v is left", name, got)
				}
				if got, err := d.APIKey(t.Context(), key.ID); err != nil || !got.RevokedAt.IsZero() {
					t.Errorf("%s: the key is %+v, %v", name, got, err)
				}
				if members, err := d.Members(t.Context(), d.operator); err != nil || len(members) != 1 {
					t.Errorf("%s: %d members, %v", name, len(members), err)
				}
				entries, err := d.AuditEntries(t.Context(), 0, 100)
				if err != nil || len(entries) == 0 {
					t.Fatal(entries, err)
				}
				if last := entries[len(entries)-1]; last.Detail["endedSessions"] != "1" || last.Detail["endedInvitations"] != "1" {
					t.Errorf("%s: the log says %+v", name, last.Detail)
				}
			}
		})
	}
}

// A move is no restore: nobody is signed out.
func TestMoveSignsNobodyOut(t *testing.T) {
	o := newOptions(t)
	d, _ := withSignIns(t, o)
	before := left(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	to := o
	to.Path += ".moved"
	if _, err := MoveState(t.Context(), Move{From: o, To: to, FromName: "here", ToName: "there", Actor: "tester"}); err != nil {
		t.Fatal(err)
	}
	moved := mustOpen(t, to)
	if after := left(t, moved); after != before {
		t.Errorf("%+v of %+v", after, before)
	}
	if e := receiptEpoch(t, moved); e != 0 {
		t.Errorf("receipts of epoch %d", e)
	}
}
