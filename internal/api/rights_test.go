package api_test

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/client"
)

var update = flag.Bool("update", false, "write the tables of docs/people.md anew")

// refusedByTheDoor tells whether an answer says that a right is missing.
func refusedByTheDoor(t *testing.T, a answer) bool {
	t.Helper()
	return a.status == http.StatusForbidden && strings.HasPrefix(a.problem(t).Detail, "this needs the right")
}

// try sends an operation with identifiers that nothing has.
func (f *fixture) try(t *testing.T, d document, op operation, credential string) answer {
	t.Helper()
	body := ""
	if op.RequestBody != nil {
		body = marshal(t, d.sample(t, d.body(op), absentIDs()))
	}
	return f.send(t, credential, op.method, op.pathIDs(t, absentIDs()), body)
}

// TestRolesAndScopes calls every operation as every role, in an organisation and
// as operator, and with an API key of every single scope: the door lets through
// whom the document says.
func TestRolesAndScopes(t *testing.T) {
	f := start(t)
	operators, err := f.operator.Organisations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	callers := map[string]string{}
	rights := map[string]joinery.Rights{}
	for _, role := range joinery.Roles() {
		tenant, operator := "tenant "+string(role), "operator "+string(role)
		callers[tenant] = f.signedIn(t, f.orgA, role, "t"+string(role)).token
		callers[operator] = f.signedIn(t, operators[0].ID, role, "o"+string(role)).token
		rights[tenant], rights[operator] = role.Rights()&joinery.EveryKind().Rights(), role.Rights()
	}
	for _, scope := range joinery.AllRightsInOrder() {
		if scope == joinery.RightExportApprove {
			continue // a person's alone: no key has it
		}
		made, err := f.operator.MakeAPIKey(t.Context(), client.NewAPIKey{Name: "one scope", Operator: true, Scopes: []joinery.Right{scope}})
		if err != nil {
			t.Fatal(err)
		}
		callers["scope "+string(scope)], rights["scope "+string(scope)] = made.Text, joinery.RightsOf(scope)
	}
	d, _ := readDocument(t, f)
	calls := 0
	for _, op := range d.operations() {
		for name, credential := range callers {
			calls++
			want := op.Right != "any" && op.Right != "none" && !rights[name].Has(op.Right)
			if a := f.try(t, d, op, credential); refusedByTheDoor(t, a) != want {
				t.Errorf("%s (needs %s) as %s: %d %s", op.OperationID, op.Right, name, a.status, a.body)
			}
		}
		anonymous := f.try(t, d, op, "")
		if open := anonymous.status != http.StatusUnauthorized; open != (op.Right == "none") && anonymous.status != http.StatusNotFound {
			t.Errorf("%s (needs %s) without a credential: %d", op.OperationID, op.Right, anonymous.status)
		}
	}
	t.Logf("%d calls", calls)
}

// TestKindsBoundAnOrganisation: what an organisation is not, its people and keys
// cannot do, from the next call on.
func TestKindsBoundAnOrganisation(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	a := f.as(t, f.keyA)
	small := client.NewJoinEUIRange{EUIRange: euiRange(t, "70B3D57ED0001000", "70B3D57ED0001000"), Organisation: f.orgA}
	if _, err := f.operator.AssignJoinEUIRange(ctx, small); err != nil {
		t.Fatal(err)
	}
	begin := func() error {
		_, err := a.BeginImport(ctx, client.NewImport{Kind: "key-list", SHA256: strings.Repeat("ab", 32)})
		return err
	}
	if err := begin(); err != nil {
		t.Fatal(err)
	}
	change := func(kinds ...joinery.OrgKind) {
		t.Helper()
		o, err := f.operator.ChangeOrganisation(ctx, f.orgA, client.OrganisationChange{Kinds: kinds})
		if err != nil || o.Name != "Acme" || !slices.Equal(o.Kinds, kinds) {
			t.Fatalf("%+v, %v", o, err)
		}
	}
	change(joinery.KindOwner)
	if err := begin(); code(err) != "forbidden" {
		t.Errorf("an owner imports: %v", err)
	}
	whole := client.NewJoinEUIRange{EUIRange: euiRange(t, "70B3D57ED0000000", "70B3D57ED00000FF"), Organisation: f.orgA}
	if _, err := f.operator.AssignJoinEUIRange(ctx, whole); code(err) != "conflict" {
		t.Errorf("an owner has JoinEUIs: %v", err)
	}
	if _, err := f.operator.AddPeer(ctx, f.newPeer(t, "Network A", "000013", "ns-v1")); code(err) != "conflict" {
		t.Errorf("an owner runs a network: %v", err)
	}
	change(joinery.KindDeviceMaker, joinery.KindNetworkOperator)
	if err := begin(); err != nil {
		t.Errorf("a device maker does not import: %v", err)
	}
	if _, err := f.operator.AssignJoinEUIRange(ctx, whole); err != nil {
		t.Error(err)
	}
	if _, err := f.operator.AddPeer(ctx, f.newPeer(t, "Network A", "000013", "ns-v1")); err != nil {
		t.Error(err)
	}
	operators, err := f.operator.Organisations(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.operator.ChangeOrganisation(ctx, operators[0].ID, client.OrganisationChange{Name: "x"}); code(err) != "conflict" {
		t.Errorf("the operator's own organisation: %v", err)
	}
	f.checkAudit(t, "org.changed")
}

// TestAKeyNeverMayMoreThanItsMaker: not when it is made, and not later.
func TestAKeyNeverMayMoreThanItsMaker(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	f.signedIn(t, f.orgA, joinery.RoleAdmin, "ann")
	ben := f.signedIn(t, f.orgA, joinery.RoleMember, "ben")
	b, org := f.as(t, ben.token), f.acting(t, f.orgA)
	if _, err := b.MakeAPIKey(ctx, client.NewAPIKey{Name: "k", Scopes: []joinery.Right{joinery.RightPeopleWrite}}); code(err) != "forbidden" {
		t.Errorf("a member gave an admin's right: %v", err)
	}
	narrow, err := b.MakeAPIKey(ctx, client.NewAPIKey{Name: "narrow", Scopes: []joinery.Right{joinery.RightDevicesRead, joinery.RightKeysWrite}})
	if err != nil {
		t.Fatal(err)
	}
	wide, err := b.MakeAPIKey(ctx, client.NewAPIKey{Name: "wide"})
	if err != nil || !slices.Contains(wide.Key.Scopes, joinery.RightDevicesOwn) || wide.Key.Person != ben.id {
		t.Fatalf("%+v, %v", wide.Key, err)
	}
	child, err := f.as(t, narrow.Text).MakeAPIKey(ctx, client.NewAPIKey{Name: "child"})
	if err != nil || len(child.Key.Scopes) != 2 || child.Key.MadeBy != narrow.Key.ID {
		t.Fatalf("%+v, %v", child.Key, err)
	}
	if _, err := f.as(t, narrow.Text).MakeAPIKey(ctx, client.NewAPIKey{Name: "more", Scopes: []joinery.Right{joinery.RightDevicesOwn}}); code(err) != "forbidden" {
		t.Errorf("a key gave what it has not: %v", err)
	}
	owns := func(key string) string {
		t.Helper()
		_, err := f.as(t, key).Claim(ctx, client.NewClaim{JoinEUI: eui(t, "70B3D57ED0000000"), DevEUI: eui(t, "0004A310001AA90A"), OwnerToken: "AAAAAAAAAAAAA"})
		if err != nil && strings.Contains(err.Error(), "this needs the right") {
			return "no right"
		}
		return code(err)
	}
	if got := owns(wide.Text); got != "forbidden" { // a wrong token, which is for the rules to say
		t.Errorf("a member's key claims: %s", got)
	}
	// Demoted, the person's keys may less at once.
	if _, err := org.ChangePerson(ctx, ben.id, client.RoleChange{Role: joinery.RoleViewer}); err != nil {
		t.Fatal(err)
	}
	if got := owns(wide.Text); got != "no right" {
		t.Errorf("a viewer's key claims: %s", got)
	}
	if _, err := org.ChangePerson(ctx, ben.id, client.RoleChange{Role: joinery.RoleMember}); err != nil {
		t.Fatal(err)
	}
	// With a key go those that it made.
	if err := b.RevokeAPIKey(ctx, narrow.Key.ID); err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]string{"revoked": narrow.Text, "made by it": child.Text} {
		if _, err := f.as(t, key).Status(ctx); code(err) != "unauthenticated" {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Removed, the person's keys end, and so do their sessions.
	if err := org.RemovePerson(ctx, ben.id, false); err != nil {
		t.Fatal(err)
	}
	for name, credential := range map[string]string{"key": wide.Text, "session": ben.token} {
		if _, err := f.as(t, credential).Status(ctx); code(err) != "unauthenticated" {
			t.Errorf("%s of who was removed: %v", name, err)
		}
	}
	// Unless the organisation keeps them.
	cem := f.signedIn(t, f.orgA, joinery.RoleMember, "cem")
	kept, err := f.as(t, cem.token).MakeAPIKey(ctx, client.NewAPIKey{Name: "for the gateway"})
	if err != nil {
		t.Fatal(err)
	}
	if err := org.RemovePerson(ctx, cem.id, true); err != nil {
		t.Fatal(err)
	}
	if s, err := f.as(t, kept.Text).Status(ctx); err != nil || s.Caller.Organisation != f.orgA {
		t.Errorf("a key that was kept: %+v, %v", s.Caller, err)
	}
	f.checkAudit(t, "person.role_changed", "person.removed", "api_key.revoked")
}

// TestNobodyRisesByInviting: who may write people gives no more than they have.
func TestNobodyRisesByInviting(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	ann := f.signedIn(t, f.orgA, joinery.RoleAdmin, "ann")
	a := f.as(t, ann.token)
	clerk, err := a.MakeAPIKey(ctx, client.NewAPIKey{Name: "clerk", Scopes: []joinery.Right{joinery.RightPeopleRead, joinery.RightPeopleWrite}})
	if err != nil {
		t.Fatal(err)
	}
	c := f.as(t, clerk.Text)
	for _, role := range joinery.Roles() {
		if _, err := c.Invite(ctx, client.NewInvitation{Email: "x@example.com", Role: role}); code(err) != "forbidden" {
			t.Errorf("a key for people invites as %s: %v", role, err)
		}
		if _, err := a.Invite(ctx, client.NewInvitation{Email: "x@example.com", Role: role}); err != nil {
			t.Errorf("an admin invites as %s: %v", role, err)
		}
	}
	if err := c.RemovePerson(ctx, ann.id, false); code(err) != "forbidden" {
		t.Errorf("a key for people removes an admin: %v", err)
	}
	f.signedIn(t, f.orgA, joinery.RoleViewer, "ben")
	if err := a.RemovePerson(ctx, ann.id, false); code(err) != "conflict" {
		t.Errorf("the last admin leaves: %v", err)
	}
	// A plain key of the operator's organisation makes no operators.
	orgs, err := f.operator.Organisations(ctx)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := f.acting(t, orgs[0].ID).MakeAPIKey(ctx, client.NewAPIKey{Name: "plain"})
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range joinery.Roles() {
		if _, err := f.as(t, plain.Text).Invite(ctx, client.NewInvitation{Email: "x@example.com", Role: role}); code(err) != "forbidden" {
			t.Errorf("a plain key invites an operator as %s: %v", role, err)
		}
	}
	for _, email := range []string{"", "x", "@", "a@", "@b", "a b@c", "a@b,c@d", strings.Repeat("a", 250) + "@b.cd"} {
		if _, err := a.Invite(ctx, client.NewInvitation{Email: email, Role: joinery.RoleViewer}); code(err) != "invalid" {
			t.Errorf("%q: %v", email, err)
		}
	}
}

// TestLastUse: when a credential was used is known, some minutes behind.
func TestLastUse(t *testing.T) {
	f := start(t)
	before := time.Now().Add(-time.Minute)
	keys, err := f.as(t, f.keyA).APIKeys(t.Context())
	if err != nil || len(keys) != 1 || keys[0].LastUsedAt.Before(before) {
		t.Errorf("%+v, %v", keys, err)
	}
	b, err := f.acting(t, f.orgB).APIKeys(t.Context())
	if err != nil || len(b) != 1 || !b[0].LastUsedAt.IsZero() {
		t.Errorf("a key that nobody used: %+v, %v", b, err)
	}
}

const peoplePage = "../../docs/people.md"

// TestPeoplePage holds the tables of the page against the code; -update writes
// them.
func TestPeoplePage(t *testing.T) {
	d, _ := readDocument(t, start(t))
	text, err := os.ReadFile(peoplePage)
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	for name, table := range map[string]string{"roles": rolesTable(), "kinds": kindsTable(), "operations": operationsTable(d)} {
		begin, end := "<!-- "+name+", made from the code -->\n", "<!-- end of "+name+" -->"
		before, rest, ok := strings.Cut(page, begin)
		_, after, found := strings.Cut(rest, end)
		if !ok || !found {
			t.Fatalf("%s has no place for the table of %s", peoplePage, name)
		}
		page = before + begin + table + end + after
	}
	if page == string(text) {
		return
	}
	if !*update {
		t.Fatalf("the tables of %s are not what the code says: go test ./internal/api -run PeoplePage -update", peoplePage)
	}
	if err := os.WriteFile(peoplePage, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
}

// matrix writes a table of which column has which right.
func matrix(columns []string, has func(column int, r joinery.Right) bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n| right | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, r := range joinery.AllRightsInOrder() {
		fmt.Fprintf(&b, "| `%s` |", r)
		for i := range columns {
			mark := "–"
			if has(i, r) {
				mark = "yes"
			}
			b.WriteString(" " + mark + " |")
		}
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	return b.String()
}

func rolesTable() string {
	roles := joinery.Roles()
	return matrix([]string{"viewer", "member", "admin"}, func(i int, r joinery.Right) bool { return roles[i].Rights().Has(r) })
}

func kindsTable() string {
	kinds := joinery.OrgKindsInOrder()
	var columns []string
	for _, k := range kinds {
		columns = append(columns, string(k))
	}
	return matrix(columns, func(i int, r joinery.Right) bool { return kinds[i].Rights().Has(r) })
}

func operationsTable(d document) string {
	byRight := map[joinery.Right][]string{}
	for _, op := range d.operations() {
		byRight[op.Right] = append(byRight[op.Right], "`"+op.OperationID+"`")
	}
	var b strings.Builder
	b.WriteString("\n| needs | operations |\n|---|---|\n")
	for _, r := range append([]joinery.Right{"none", "any"}, joinery.AllRightsInOrder()...) {
		if ops := byRight[r]; len(ops) > 0 {
			slices.Sort(ops)
			name := map[joinery.Right]string{"none": "no credential", "any": "any credential"}[r]
			if name == "" {
				name = "`" + string(r) + "`"
			}
			fmt.Fprintf(&b, "| %s | %s |\n", name, strings.Join(ops, ", "))
		}
	}
	b.WriteByte('\n')
	return b.String()
}
