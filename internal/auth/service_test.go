package auth

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store"

	"pgregory.net/rapid"
)

// memory is a Store of the same contract, in memory.
type memory struct {
	orgs    []joinery.Organisation
	keys    map[joinery.APIKeyID]joinery.APIKey
	roles   map[joinery.PersonID]joinery.Role
	entries []joinery.AuditEntry
	touched int
	down    error

	SessionStore // the tests of keys need none
}

func newMemory() *memory { return &memory{keys: map[joinery.APIKeyID]joinery.APIKey{}} }

// addOrg adds an organisation.
func (m *memory) addOrg() joinery.OrgID {
	id := joinery.NewOrgID()
	m.orgs = append(m.orgs, joinery.Organisation{ID: id, Name: id.String(), Kinds: joinery.EveryKind()})
	return id
}

func (m *memory) Orgs(context.Context) ([]joinery.Organisation, error) { return m.orgs, m.down }

func (m *memory) AddAPIKey(_ context.Context, key joinery.APIKey, entry joinery.AuditEntry) error {
	if m.down != nil {
		return m.down
	}
	m.keys[key.ID] = key
	m.entries = append(m.entries, entry)
	return nil
}

func (m *memory) APIKey(_ context.Context, id joinery.APIKeyID) (joinery.APIKey, error) {
	if m.down != nil {
		return joinery.APIKey{}, m.down
	}
	key, ok := m.keys[id]
	if !ok {
		return joinery.APIKey{}, joinery.Errorf(joinery.CodeNotFound, "no such API key")
	}
	return key, nil
}

func (m *memory) APIKeyStanding(ctx context.Context, id joinery.APIKeyID) (joinery.APIKey, joinery.Standing, error) {
	key, err := m.APIKey(ctx, id)
	s := joinery.Standing{Kinds: joinery.OrgKinds{joinery.KindServerOperator}, Role: m.roles[key.Person]}
	for _, o := range m.orgs {
		if o.ID == key.Org && !key.Operator {
			s.Kinds = o.Kinds
		}
	}
	return key, s, err
}

func (m *memory) TouchAPIKey(_ context.Context, id joinery.APIKeyID, at time.Time) error {
	key := m.keys[id]
	key.LastUsedAt = at
	m.keys[id] = key
	m.touched++
	return nil
}

func (m *memory) APIKeys(_ context.Context, org joinery.OrgID) (keys []joinery.APIKey, err error) {
	for _, key := range m.keys {
		if org == 0 || key.Org == org {
			keys = append(keys, key)
		}
	}
	return keys, m.down
}

func (m *memory) RevokeAPIKey(_ context.Context, id joinery.APIKeyID, at time.Time, entry joinery.AuditEntry) error {
	if m.down != nil {
		return m.down
	}
	key := m.keys[id]
	key.RevokedAt = at
	m.keys[id] = key
	m.entries = append(m.entries, entry)
	return nil
}

var operator = joinery.Caller{Operator: true, Name: "socket uid 0", Rights: joinery.AllRights(), Socket: true}

// tenantRights is what a key of an organisation of every kind may do that was made
// without scopes.
var tenantRights = joinery.EveryKind().Rights() &^ joinery.RightsOf(joinery.RightExportRequest, joinery.RightExportApprove)

// keyLen is how long the text of a key is.
const keyLen = len(keyText) + restLen

type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func fixture(t *testing.T) (*Service, *memory, *clock) {
	t.Helper()
	store, at := newMemory(), &clock{time.Date(2026, 11, 22, 12, 0, 0, 123456789, time.UTC)}
	return New(store, at.now), store, at
}

func wantCode(t *testing.T, err error, code joinery.Code) {
	t.Helper()
	if got := joinery.CodeOf(err); got != code {
		t.Fatalf("code %q, want %q (%v)", got, code, err)
	}
}

func TestMadeKeyAuthenticates(t *testing.T) {
	s, store, at := fixture(t)
	org := store.addOrg()
	ctx := t.Context()
	text, key, err := s.Make(ctx, operator, NewKey{Name: "script", Org: org})
	if err != nil {
		t.Fatal(err)
	}
	caller, err := s.Authenticate(ctx, text, 0)
	if err != nil {
		t.Fatal(err)
	}
	if want := (joinery.Caller{Org: org, Name: "key " + key.ID.String(), Rights: tenantRights, Key: key.ID}); caller != want {
		t.Fatalf("caller %+v, want %+v", caller, want)
	}
	if key.CreatedAt != at.at.Truncate(time.Millisecond) || key.Name != "script" {
		t.Fatalf("key %+v", key)
	}
	stored := store.keys[key.ID]
	if secret := text[len(text)-sumLen-secretLen : len(text)-sumLen]; strings.Contains(fmt.Sprintf("%+v %x", stored, stored.Hash), secret) {
		t.Fatal("the secret was stored")
	}
	if len(store.entries) != 1 || store.entries[0].Event != joinery.AuditAPIKeyMade || store.entries[0].Org != org || store.entries[0].Actor != operator.Name {
		t.Fatalf("audit entries %+v", store.entries)
	}
	if strings.Contains(fmt.Sprintf("%+v", store.entries), text[len(keyText)+idLen+1:]) {
		t.Fatal("the audit log holds the secret")
	}
}

func TestOperatorKey(t *testing.T) {
	s, _, _ := fixture(t)
	text, _, err := s.Make(t.Context(), operator, NewKey{Name: "ops", Operator: true})
	if err != nil {
		t.Fatal(err)
	}
	caller, err := s.Authenticate(t.Context(), text, 0)
	if err != nil || !caller.Operator || caller.Org != 0 {
		t.Fatalf("caller %+v, %v", caller, err)
	}
}

// On a server of one organisation, its own, a plain key acts for that one and
// is no operator's.
func TestPlainKeyOfTheFoundingOrganisation(t *testing.T) {
	opt := store.Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
	if err := store.Create(t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	orgs, err := db.Orgs(t.Context())
	if err != nil || len(orgs) != 1 {
		t.Fatalf("%d organisations, %v", len(orgs), err)
	}
	s := New(db, nil)
	text, key, err := s.Make(t.Context(), operator, NewKey{Name: "script"})
	if err != nil {
		t.Fatal(err)
	}
	_, operators, err := s.Make(t.Context(), operator, NewKey{Name: "ops", Operator: true})
	if err != nil {
		t.Fatal(err)
	}
	caller, err := s.Authenticate(t.Context(), text, 0)
	if err != nil {
		t.Fatal(err)
	}
	if want := (joinery.Caller{Org: orgs[0].ID, Name: "key " + key.ID.String(), Rights: tenantRights, Key: key.ID}); caller != want {
		t.Fatalf("caller %+v, want %+v", caller, want)
	}
	if org, err := caller.ActingFor(0, orgs); org != orgs[0].ID || err != nil {
		t.Errorf("acts for %s, %v", org, err)
	}
	if list, err := s.List(t.Context(), caller); err != nil || len(list) != 1 || list[0].ID != key.ID {
		t.Errorf("lists %+v, %v", list, err)
	}
	wantCode(t, s.Revoke(t.Context(), caller, operators.ID), joinery.CodeNotFound)
	wantCode(t, caller.RequireOperator(), joinery.CodeForbidden)
	if err := s.Revoke(t.Context(), caller, key.ID); err != nil {
		t.Error(err)
	}
}

func TestWhoMayMakeWhat(t *testing.T) {
	orgs := newMemory()
	own, other := orgs.addOrg(), orgs.addOrg()
	tenant := joinery.Caller{Org: own, Name: "key", Rights: tenantRights}
	past := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name      string
		caller    joinery.Caller
		keyName   string
		org       joinery.OrgID
		operator  bool
		expiresAt time.Time
		want      joinery.Code
	}{
		{"own organisation by default", tenant, "k", 0, false, time.Time{}, ""},
		{"own organisation said", tenant, "k", own, false, time.Time{}, ""},
		{"another organisation", tenant, "k", other, false, time.Time{}, joinery.CodeNotFound},
		{"an organisation that does not exist", operator, "k", joinery.NewOrgID(), true, time.Time{}, joinery.CodeNotFound},
		{"operator's key for none", operator, "k", 0, true, time.Time{}, ""},
		{"operator's key by a tenant", tenant, "k", 0, true, time.Time{}, joinery.CodeForbidden},
		{"operator's key for another by a tenant", tenant, "k", other, true, time.Time{}, joinery.CodeForbidden},
		{"operator without saying for whom", operator, "k", 0, false, time.Time{}, joinery.CodeInvalid},
		{"operator for any", operator, "k", other, false, time.Time{}, ""},
		{"expiry in the past", tenant, "k", 0, false, past, joinery.CodeInvalid},
		{"no name", tenant, "", 0, false, time.Time{}, joinery.CodeInvalid},
		{"blank name", tenant, "  ", 0, false, time.Time{}, joinery.CodeInvalid},
		{"name with a line break", tenant, "a\nb", 0, false, time.Time{}, joinery.CodeInvalid},
		{"name that is no text", tenant, "a\xff", 0, false, time.Time{}, joinery.CodeInvalid},
		{"long name", tenant, strings.Repeat("n", maxName+1), 0, false, time.Time{}, joinery.CodeInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, store, _ := fixture(t)
			store.orgs = orgs.orgs
			text, _, err := s.Make(t.Context(), c.caller, NewKey{Name: c.keyName, Org: c.org, Operator: c.operator, ExpiresAt: c.expiresAt})
			wantCode(t, err, c.want)
			if c.want != "" && (text != "" || len(store.keys) != 0) {
				t.Fatal("a refused key was made")
			}
		})
	}
}

func TestExpiryAndRevocation(t *testing.T) {
	s, store, at := fixture(t)
	ctx, org := t.Context(), store.addOrg()
	text, key, err := s.Make(ctx, operator, NewKey{Name: "short", Org: org, ExpiresAt: at.at.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	at.at = key.ExpiresAt.Add(-time.Nanosecond)
	if _, err := s.Authenticate(ctx, text, 0); err != nil {
		t.Fatalf("just before its expiry: %v", err)
	}
	at.at = key.ExpiresAt
	_, err = s.Authenticate(ctx, text, 0)
	wantCode(t, err, joinery.CodeUnauthenticated)
	if !strings.Contains(joinery.MessageOf(err), "expired") {
		t.Fatalf("message %q does not say that it expired", joinery.MessageOf(err))
	}
	at.at = key.CreatedAt

	stranger := joinery.Caller{Org: joinery.NewOrgID()}
	absent := s.Revoke(ctx, stranger, joinery.NewAPIKeyID())
	foreign := s.Revoke(ctx, stranger, key.ID)
	wantCode(t, foreign, joinery.CodeNotFound)
	if absent.Error() != foreign.Error() {
		t.Fatalf("foreign %q, absent %q", foreign, absent)
	}
	if err := s.Revoke(ctx, joinery.Caller{Org: org, Name: "key x", Rights: tenantRights}, key.ID); err != nil {
		t.Fatal(err)
	}
	entries := len(store.entries)
	if err := s.Revoke(ctx, operator, key.ID); err != nil || len(store.entries) != entries {
		t.Fatalf("revoked twice: %v, %d new entries", err, len(store.entries)-entries)
	}
	_, err = s.Authenticate(ctx, text, 0)
	wantCode(t, err, joinery.CodeUnauthenticated)
	if !strings.Contains(joinery.MessageOf(err), "revoked") {
		t.Fatalf("message %q does not say that it was revoked", joinery.MessageOf(err))
	}
}

// A key that ends makes none that outlives it, unless it is the operator's.
func TestKeysEndWithTheirMaker(t *testing.T) {
	s, store, at := fixture(t)
	ctx, org := t.Context(), store.addOrg()
	end := at.at.Add(time.Hour).UTC().Truncate(time.Millisecond)
	callerUntil := func(asOperator bool, end time.Time) joinery.Caller {
		text, _, err := s.Make(ctx, operator, NewKey{Name: "maker", Org: org, Operator: asOperator, ExpiresAt: end})
		if err != nil {
			t.Fatal(err)
		}
		caller, err := s.Authenticate(ctx, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		return caller
	}
	tenant, endless, admin := callerUntil(false, end), callerUntil(false, time.Time{}), callerUntil(true, end)
	for _, c := range []struct {
		name        string
		caller      joinery.Caller
		asked, want time.Time
	}{
		{"no end", tenant, time.Time{}, end},
		{"later", tenant, end.Add(time.Hour), end},
		{"earlier", tenant, end.Add(-time.Minute), end.Add(-time.Minute)},
		{"by a key without end", endless, time.Time{}, time.Time{}},
		{"by an operator's key", admin, time.Time{}, time.Time{}},
		{"on the socket", operator, end.Add(time.Hour), end.Add(time.Hour)},
	} {
		_, made, err := s.Make(ctx, c.caller, NewKey{Name: "made", Org: org, ExpiresAt: c.asked})
		if err != nil || !made.ExpiresAt.Equal(c.want) || !store.keys[made.ID].ExpiresAt.Equal(c.want) {
			t.Errorf("%s: ends at %v, %v; want %v", c.name, made.ExpiresAt, err, c.want)
		}
	}
}

// What is made with the session of a program ends, and so does what that makes.
func TestKeysOfProgramsEnd(t *testing.T) {
	s, store, at := fixture(t)
	ctx, org, person := t.Context(), store.addOrg(), joinery.NewPersonID()
	store.roles = map[joinery.PersonID]joinery.Role{person: joinery.RoleAdmin}
	last := at.at.UTC().Truncate(time.Millisecond).Add(programKeyLife)
	session := func(kind joinery.SessionKind) joinery.Caller {
		return joinery.Caller{Operator: true, Rights: joinery.AllRights(), Name: "person", Person: person, Session: joinery.NewSessionID(), SessionKind: kind}
	}
	var text string
	for _, c := range []struct {
		name        string
		kind        joinery.SessionKind
		asked, want time.Time
	}{
		{"a browser", joinery.SessionBrowser, time.Time{}, time.Time{}},
		{"a program, sooner", joinery.SessionProgram, last.Add(-time.Hour), last.Add(-time.Hour)},
		{"a program, later", joinery.SessionProgram, last.Add(time.Hour), last},
		{"a program", joinery.SessionProgram, time.Time{}, last},
	} {
		var key joinery.APIKey
		var err error
		if text, key, err = s.Make(ctx, session(c.kind), NewKey{Name: "k", Operator: true, Org: org, ExpiresAt: c.asked}); err != nil || !key.ExpiresAt.Equal(c.want) {
			t.Errorf("%s: ends at %v, %v; want %v", c.name, key.ExpiresAt, err, c.want)
		}
	}
	caller, err := s.Authenticate(ctx, text, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, next, err := s.Make(ctx, caller, NewKey{Name: "next", Operator: true, Org: org}); err != nil || !next.ExpiresAt.Equal(last) {
		t.Errorf("an operator's key of it makes one that ends at %v, %v", next.ExpiresAt, err)
	}
}

func TestTenantCannotRevokeOperatorKeyOfItsOrganisation(t *testing.T) {
	s, store, _ := fixture(t)
	org := store.addOrg()
	_, key, err := s.Make(t.Context(), operator, NewKey{Name: "ops for org", Org: org, Operator: true})
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, s.Revoke(t.Context(), joinery.Caller{Org: org}, key.ID), joinery.CodeForbidden)
}

func TestListShowsOwnKeysOnly(t *testing.T) {
	s, store, _ := fixture(t)
	ctx, a, b := t.Context(), store.addOrg(), store.addOrg()
	for _, org := range []joinery.OrgID{a, a, b} {
		if _, _, err := s.Make(ctx, operator, NewKey{Name: "k", Org: org}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		caller joinery.Caller
		want   int
	}{{joinery.Caller{Org: a}, 2}, {joinery.Caller{Org: b}, 1}, {operator, 3}, {joinery.Caller{Org: b, Operator: true}, 1}} {
		keys, err := s.List(ctx, c.caller)
		if err != nil || len(keys) != c.want {
			t.Errorf("%+v sees %d keys, want %d (%v)", c.caller, len(keys), c.want, err)
		}
	}
	_, err := s.List(ctx, joinery.Caller{})
	wantCode(t, err, joinery.CodeForbidden)
}

// TestWrongTexts takes a valid key and breaks it in every single character, in
// length, case and surroundings.
func TestWrongTexts(t *testing.T) {
	s, store, _ := fixture(t)
	ctx := t.Context()
	text, key, err := s.Make(ctx, operator, NewKey{Name: "k", Org: store.addOrg()})
	if err != nil {
		t.Fatal(err)
	}
	wrong := map[string]string{
		"empty": "", "prefix only": string(keyText), "upper case": strings.ToUpper(text), "space before": " " + text,
		"space after": text + " ", "line end": text + "\n", "cut": text[:len(text)-1], "longer": text + "0",
		"no checksum": text[:len(text)-sumLen], "id only": string(keyText) + text[len(keyText):len(keyText)+idLen], "doubled": text + text,
		"another prefix": "joinery_kex_" + text[len(keyText):], "with Bearer": "Bearer " + text, "id text": key.ID.String(),
		"zeros": string(keyText) + strings.Repeat("0", idLen) + "_" + strings.Repeat("0", secretLen+sumLen),
		"bytes": strings.Repeat("\xff", keyLen),
	}
	for i := range len(text) {
		for _, c := range []byte{'z', '0', 'i', '_', 0} {
			if text[i] != c {
				wrong[fmt.Sprintf("character %d is %q", i, c)] = text[:i] + string(c) + text[i+1:]
			}
		}
	}
	for name, text := range wrong {
		caller, err := s.Authenticate(ctx, text, 0)
		if joinery.CodeOf(err) != joinery.CodeUnauthenticated || caller != (joinery.Caller{}) {
			t.Errorf("%s: caller %+v, %v", name, caller, err)
		}
		if text != "" && len(text) > 3 && strings.Contains(err.Error(), text) {
			t.Errorf("%s: the error repeats the text", name)
		}
	}
}

// TestWrongSecretWithValidChecksum is what an attacker who knows the format
// sends: an existing id, another secret, and a fitting checksum.
func TestWrongSecretWithValidChecksum(t *testing.T) {
	s, store, _ := fixture(t)
	_, key, err := s.Make(t.Context(), operator, NewKey{Name: "k", Org: store.addOrg()})
	if err != nil {
		t.Fatal(err)
	}
	_, wrongSecret := s.Authenticate(t.Context(), newCredential(keyText, int64(key.ID)).text(), 0)
	_, unknown := s.Authenticate(t.Context(), newCredential(keyText, int64(joinery.NewAPIKeyID())).text(), 0)
	wantCode(t, wrongSecret, joinery.CodeUnauthenticated)
	if wrongSecret.Error() != unknown.Error() {
		t.Fatalf("a wrong secret is answered %q, an unknown key %q", wrongSecret, unknown)
	}
}

// TestSecondTextOfTheSameSecret: base32 leaves bits of the last character
// unused; a text that differs only there is refused, so that a key has one text.
func TestSecondTextOfTheSameSecret(t *testing.T) {
	c := newCredential(keyText, int64(joinery.NewAPIKeyID()))
	body := c.text()[:keyLen-sumLen]
	last := strings.IndexByte(alphabet, body[len(body)-1])
	other := body[:len(body)-1] + string(alphabet[last^1])
	if _, ok := parseCredential(keyText, other+checksum(other)); ok {
		t.Fatal("a second text of the same secret was accepted")
	}
}

func TestCredentialRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCredential(keyText, rapid.Int64Range(1, 1<<62).Draw(t, "id"))
		got, ok := parseCredential(keyText, c.text())
		if !ok || got != c {
			t.Fatalf("%v does not come back", c)
		}
		if strings.Contains(fmt.Sprintf("%v %+v %#v", c, c, c), c.text()[20:40]) {
			t.Fatal("a credential prints its secret")
		}
	})
}

// TestStoreFailureIsNoRefusal: a store that is away must not look like a wrong
// key, or clients would throw good keys away.
func TestStoreFailureIsNoRefusal(t *testing.T) {
	s, store, _ := fixture(t)
	text, _, err := s.Make(t.Context(), operator, NewKey{Name: "k", Org: store.addOrg()})
	if err != nil {
		t.Fatal(err)
	}
	store.down = joinery.Errorf(joinery.CodeUnavailable, "database away")
	_, err = s.Authenticate(t.Context(), text, 0)
	wantCode(t, err, joinery.CodeUnavailable)
	store.down = errors.New("disk on fire")
	_, err = s.Authenticate(t.Context(), text, 0)
	wantCode(t, err, joinery.CodeInternal)
}

// TestSecretIsComparedInConstantTime reads the code: nothing but
// crypto/subtle may compare a hash of a secret.
func TestSecretIsComparedInConstantTime(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "credential.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	constantTime := false
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "ConstantTimeCompare" {
				constantTime = true
			}
		case *ast.BinaryExpr:
			for _, side := range []ast.Expr{n.X, n.Y} {
				if mentionsHash(side) && (n.Op == token.EQL || n.Op == token.NEQ) {
					t.Errorf("a hash is compared with %s", n.Op)
				}
			}
		}
		return true
	})
	if !constantTime {
		t.Error("Authenticate does not use crypto/subtle")
	}
}

// mentionsHash tells whether e is a hash itself, not the result of a call.
func mentionsHash(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		return e.Sel.Name == "Hash"
	case *ast.Ident:
		return e.Name == "presented"
	case *ast.SliceExpr:
		return mentionsHash(e.X)
	}
	return false
}

func FuzzParseCredential(f *testing.F) {
	f.Add(newCredential(keyText, int64(joinery.NewAPIKeyID())).text())
	f.Add(string(keyText))
	f.Add(strings.Repeat("0", keyLen))
	f.Fuzz(func(t *testing.T, s string) {
		if c, ok := parseCredential(keyText, s); ok && c.text() != s {
			t.Fatalf("%q reads as a key whose text is another", s)
		}
	})
}
