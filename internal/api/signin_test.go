package api_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/api"
	"joinery/internal/auth"

	"github.com/descope/virtualwebauthn"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
)

// accounts is who has an account at the provider; all have the same password.
type accounts map[string]*storage.User

const password = "correct horse"

func (a accounts) GetUserByID(id string) *storage.User         { return a[id] }
func (a accounts) GetUserByUsername(name string) *storage.User { return a[name] }
func (a accounts) ExampleClientID() string                     { return "none" }

func account(name string, verified bool) *storage.User {
	return &storage.User{ID: name, Username: name, Password: password, FirstName: name, LastName: "Smith", Email: name + "@example.com", EmailVerified: verified}
}

// startProvider runs a fixture beside a real OpenID provider.
func startProvider(t *testing.T) *fixture {
	t.Helper()
	users := accounts{"ann": account("ann", true), "ben": account("ben", true), "eve": account("eve", false)}
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	clients := map[string]*storage.Client{}
	handler = exampleop.SetupServer(server.URL, storage.NewStorageWithClients(users, clients), slog.New(slog.DiscardHandler), false)
	f := startWith(t, auth.SignInOptions{Provider: auth.NewProvider(server.URL, "joinery", "not a secret", nil)})
	clients["joinery"] = storage.WebClient("joinery", "not a secret", f.url+"/sign-in/callback")
	return f
}

// browser is a person's browser on the page.
type browser struct {
	t    *testing.T
	f    *fixture
	http *http.Client
	jar  *cookiejar.Jar
}

func (f *fixture) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, f, &http.Client{Jar: jar, Timeout: 10 * time.Second}, jar}
}

func (b *browser) do(method, target, body string, header ...string) answer {
	b.t.Helper()
	if strings.HasPrefix(target, "/") {
		target = b.f.url + target
	}
	req, err := http.NewRequestWithContext(b.t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer{res.StatusCode, http.Header{"Location": {res.Request.URL.String()}, "Content-Type": res.Header["Content-Type"], "X-Request-Id": res.Header["X-Request-Id"]}, string(text)}
}

// post asks as the page does, and reads what it must get.
func (b *browser) post(path string, in, out any) {
	b.t.Helper()
	a := b.do(http.MethodPost, "/sign-in"+path, marshal(b.t, in), "Sec-Fetch-Site", "same-origin")
	if a.status != http.StatusOK {
		b.t.Fatalf("%s: %d %s", path, a.status, a.body)
	}
	if out != nil {
		if err := json.Unmarshal([]byte(a.body), out); err != nil {
			b.t.Fatal(err)
		}
	}
}

// refused asks as the page does, and wants a refusal.
func (b *browser) refused(path string, in any, want joinery.Code) client.Problem {
	b.t.Helper()
	a := b.do(http.MethodPost, "/sign-in"+path, marshal(b.t, in), "Sec-Fetch-Site", "same-origin")
	p := a.problem(b.t)
	if p.Code != want {
		b.t.Fatalf("%s: %d %s, want %s", path, a.status, a.body, want)
	}
	return p
}

// me reads who the browser is; nil for nobody.
func (b *browser) me() *client.Me {
	b.t.Helper()
	a := b.do(http.MethodGet, "/api/v1/me", "")
	if a.status == http.StatusUnauthorized {
		return nil
	}
	var me client.Me
	if err := json.Unmarshal([]byte(a.body), &me); err != nil || a.status != http.StatusOK {
		b.t.Fatalf("%d %s", a.status, a.body)
	}
	return &me
}

// provider signs in at the provider, and gives where that ends.
func (b *browser) provider(name, invitation string) *url.URL {
	b.t.Helper()
	to := b.toProvider(invitation)
	return b.logIn(to, name)
}

func (b *browser) toProvider(invitation string) string {
	b.t.Helper()
	var to struct{ URL string }
	b.post("/provider", map[string]string{"invitation": invitation}, &to)
	return to.URL
}

// logIn fills the provider's form, and follows where it leads.
func (b *browser) logIn(to, name string) *url.URL {
	b.t.Helper()
	form, err := url.Parse(b.do(http.MethodGet, to, "").header.Get("Location"))
	if err != nil || form.Query().Get("authRequestID") == "" {
		b.t.Fatalf("no form of the provider: %v, %v", form, err)
	}
	values := url.Values{"username": {name}, "password": {password}, "id": {form.Query().Get("authRequestID")}}
	end, err := url.Parse(b.do(http.MethodPost, form.String(), values.Encode(), "Content-Type", "application/x-www-form-urlencoded").header.Get("Location"))
	if err != nil {
		b.t.Fatal(err)
	}
	return end
}

func (f *fixture) invite(t *testing.T, org joinery.OrgID, email string, role joinery.Role) client.MadeInvitation {
	t.Helper()
	made, err := f.acting(t, org).Invite(t.Context(), client.NewInvitation{Email: email, Role: role})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestSignInAtTheProvider(t *testing.T) {
	f := startProvider(t)
	b := f.browser(t)
	if end := b.provider("ann", ""); end.Fragment != "error=forbidden" || b.me() != nil {
		t.Fatalf("nobody invited ann, and she is at %s, %+v", end, b.me())
	}
	f.invite(t, f.orgA, "Ann@Example.com", joinery.RoleMember)
	if end := b.provider("ann", ""); end.Path != "/sign-in" || end.Fragment != "" {
		t.Fatalf("ann is at %s", end)
	}
	me := b.me()
	if me == nil || me.Person.Name != "ann Smith" || me.Person.Email != "ann@example.com" || !me.Person.EmailVerified || len(me.Memberships) != 1 ||
		me.Memberships[0].Organisation != f.orgA || me.Memberships[0].Role != joinery.RoleMember || me.Caller.Operator {
		t.Fatalf("me %+v", me)
	}
	// Again, in another browser: the same person, whom nobody draws into another
	// organisation: she takes that invitation herself.
	second := f.invite(t, f.orgB, "ann@example.com", joinery.RoleAdmin)
	other := f.browser(t)
	other.provider("ann", "")
	if again := other.me(); again == nil || again.Person.ID != me.Person.ID || len(again.Memberships) != 1 {
		t.Fatalf("again %+v", again)
	}
	if a := other.do(http.MethodPost, "/api/v1/me/invitations", marshal(t, client.AcceptedInvitation{Token: second.Token}), "Sec-Fetch-Site", "same-origin"); a.status != http.StatusNoContent {
		t.Fatalf("she takes it: %d %s", a.status, a.body)
	}
	// Of two places she must name one.
	devices := func(header ...string) int { return other.do(http.MethodGet, "/api/v1/devices", "", header...).status }
	if got := devices(); got != http.StatusForbidden {
		t.Errorf("without a place: %d", got)
	}
	for org, want := range map[joinery.OrgID]int{f.orgA: 200, f.orgB: 200, joinery.NewOrgID(): 403} {
		if got := devices(client.OrganisationHeader, org.String()); got != want {
			t.Errorf("for %s: %d, want %d", org, got, want)
		}
	}
	// An address that nobody vouches for takes no invitation; its token does.
	made := f.invite(t, f.orgA, "eve@example.com", joinery.RoleViewer)
	eve := f.browser(t)
	if end := eve.provider("eve", ""); end.Fragment != "error=forbidden" {
		t.Errorf("eve is at %s", end)
	}
	if end := eve.provider("eve", made.Token); end.Fragment != "" || eve.me() == nil {
		t.Errorf("eve with a token is at %s", end)
	}
	if end := f.browser(t).provider("ben", made.Token); end.Fragment != "error=forbidden" {
		t.Errorf("an invitation served twice: %s", end)
	}
	f.checkAudit(t, "person.invited", "person.joined")
	for _, secret := range []string{made.Token, "not a secret", password} {
		if strings.Contains(f.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// TestProviderAnswersAreBoundToTheBrowser: what a provider sends back serves the
// browser that asked, and once.
func TestProviderAnswersAreBoundToTheBrowser(t *testing.T) {
	f := startProvider(t)
	f.invite(t, f.orgA, "ann@example.com", joinery.RoleMember)
	ann, mallory := f.browser(t), f.browser(t)

	// Mallory signs in as himself up to the callback, and gives that link to ann.
	to := mallory.toProvider("")
	var callback string
	mallory.http.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if r.URL.Path == "/sign-in/callback" {
			callback = r.URL.String()
			return http.ErrUseLastResponse
		}
		return nil
	}
	mallory.logIn(to, "ann")
	mallory.http.CheckRedirect = nil
	if callback == "" {
		t.Fatal("the provider did not come back")
	}
	for name, victim := range map[string]*browser{"one that asked nothing": f.browser(t), "one that asked itself": ann} {
		if victim == ann {
			ann.toProvider("")
		}
		if end := victim.do(http.MethodGet, callback, "").header.Get("Location"); !strings.HasSuffix(end, "#error=unauthenticated") || victim.me() != nil {
			t.Errorf("%s: %s", name, end)
		}
	}
	// Without the cookie of its beginning no callback counts, and one serves once.
	for name, spoil := range map[string]func(url.Values){
		"other state": func(q url.Values) { q.Set("state", "x") }, "no code": func(q url.Values) { q.Del("code") },
		"an error": func(q url.Values) { q.Set("error", "access_denied") }, "another issuer": func(q url.Values) { q.Set("iss", "https://id.example.com") },
		"another code": func(q url.Values) { q.Set("code", "x") },
	} {
		b := f.browser(t)
		b.toProvider("")
		u, _ := url.Parse(callback)
		q := u.Query()
		spoil(q)
		if end := b.do(http.MethodGet, "/sign-in/callback?"+q.Encode(), "").header.Get("Location"); !strings.HasSuffix(end, "#error=unauthenticated") {
			t.Errorf("%s: %s", name, end)
		}
	}
	if end := mallory.do(http.MethodGet, callback, "").header.Get("Location"); strings.Contains(end, "error") || mallory.me() == nil {
		t.Fatalf("the browser that asked: %s", end)
	}
	mallory.post("/out", struct{}{}, nil)
	if end := mallory.do(http.MethodGet, callback, "").header.Get("Location"); !strings.HasSuffix(end, "#error=unauthenticated") || mallory.me() != nil {
		t.Errorf("the same callback again: %s", end)
	}
}

func TestProviderThatIsAway(t *testing.T) {
	f := startWith(t, auth.SignInOptions{Provider: auth.NewProvider("http://127.0.0.1:1", "joinery", "x", nil)})
	b := f.browser(t)
	if p := b.refused("/provider", struct{}{}, joinery.CodeUnavailable); !strings.Contains(p.Detail, "provider") {
		t.Errorf("%+v", p)
	}
	none := start(t)
	none.browser(t).refused("/provider", struct{}{}, joinery.CodeNotFound)
}

// device is an authenticator.
type device struct {
	virtualwebauthn.Authenticator
	rp  virtualwebauthn.RelyingParty
	key virtualwebauthn.Credential
}

func (b *browser) device() *device {
	return &device{virtualwebauthn.NewAuthenticator(), virtualwebauthn.RelyingParty{Name: "Joinery", ID: "localhost", Origin: b.f.url},
		virtualwebauthn.NewCredentialWithImportedKey(virtualwebauthn.KeyTypeEC2, fullKey(b.t))}
}

// fullKey makes a P-256 key of which both coordinates fill 32 bytes: the library
// writes others short, which real authenticators do not.
func fullKey(t *testing.T) []byte {
	t.Helper()
	for {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := key.PublicKey.Bytes() // 4 ‖ X ‖ Y
		if err != nil {
			t.Fatal(err)
		}
		if point[1] == 0 || point[33] == 0 {
			continue
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
}

// create answers the options of a registration.
func (d *device) create(t *testing.T, options json.RawMessage) json.RawMessage {
	t.Helper()
	o, err := virtualwebauthn.ParseAttestationOptions(string(options))
	if err != nil {
		t.Fatal(err)
	}
	d.Options.UserHandle = []byte(o.UserID)
	return json.RawMessage(virtualwebauthn.CreateAttestationResponse(d.rp, d.Authenticator, d.key, *o))
}

// sign answers the options of a sign-in.
func (d *device) sign(t *testing.T, options json.RawMessage) json.RawMessage {
	t.Helper()
	o, err := virtualwebauthn.ParseAssertionOptions(string(options))
	if err != nil {
		t.Fatal(err)
	}
	return json.RawMessage(virtualwebauthn.CreateAssertionResponse(d.rp, d.Authenticator, d.key, *o))
}

// join takes an invitation with a new passkey.
func (b *browser) join(token, name string) *device {
	b.t.Helper()
	d := b.device()
	var options json.RawMessage
	b.post("/passkey/new", map[string]any{"invitation": token, "name": name}, &options)
	b.post("/passkey/new/finish", map[string]any{"invitation": token, "name": name, "passkey": "first", "credential": d.create(b.t, options)}, nil)
	return d
}

// usePasskey gives what a browser sends to sign in.
func (b *browser) usePasskey(d *device) map[string]any {
	b.t.Helper()
	var options json.RawMessage
	b.post("/passkey", struct{}{}, &options)
	return map[string]any{"credential": d.sign(b.t, options)}
}

func TestFirstOperator(t *testing.T) {
	f := start(t)
	made, err := f.operator.BootstrapOperator(t.Context())
	if err != nil || !strings.HasPrefix(made.URL, f.url+"/sign-in#invitation=joinery_invitation_") {
		t.Fatalf("%+v, %v", made.Invitation, err)
	}
	next, err := f.operator.BootstrapOperator(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := f.browser(t)
	b.refused("/passkey/new", map[string]any{"invitation": made.Token, "name": "Ann"}, joinery.CodeForbidden) // the next ended it
	d := b.join(next.Token, "Ann")
	me := b.me()
	if me == nil || !me.Caller.Operator || me.Person.Name != "Ann" || !me.Memberships[0].Operator || me.Memberships[0].Role != joinery.RoleAdmin {
		t.Fatalf("me %+v", me)
	}
	b.refused("/passkey/new", map[string]any{"invitation": next.Token, "name": "Eve"}, joinery.CodeForbidden) // once
	if a := b.do(http.MethodPost, "/api/v1/organisations", `{"name":"Cirrus"}`, "Sec-Fetch-Site", "same-origin"); a.status != http.StatusCreated {
		t.Errorf("the operator adds an organisation: %d %s", a.status, a.body)
	}
	if a := b.do(http.MethodPost, "/api/v1/operator/bootstrap", "", "Sec-Fetch-Site", "same-origin"); a.status != http.StatusForbidden {
		t.Errorf("a bootstrap token off the socket: %d", a.status)
	}
	// Out, and in again with the passkey.
	b.post("/out", struct{}{}, nil)
	if b.me() != nil {
		t.Fatal("signed out, and still somebody")
	}
	b.post("/passkey/finish", b.usePasskey(d), nil)
	if again := b.me(); again == nil || again.Person.ID != me.Person.ID {
		t.Fatalf("again %+v", again)
	}
	f.checkAudit(t, "operator.bootstrap_issued", "person.joined")
	for _, secret := range []string{made.Token, next.Token} {
		if strings.Contains(f.log.String(), secret) {
			t.Error("the log holds an invitation's token")
		}
	}
}

// TestPasskeysThatAreNoGood: all are refused in the same words.
func TestPasskeysThatAreNoGood(t *testing.T) {
	f := start(t)
	ann, ben := f.browser(t), f.browser(t)
	hers := ann.join(f.invite(t, f.orgA, "ann@example.com", joinery.RoleAdmin).Token, "Ann")
	his := ben.join(f.invite(t, f.orgB, "ben@example.com", joinery.RoleAdmin).Token, "Ben")
	b := f.browser(t)
	refusals := map[string]string{}
	refuse := func(name string, in map[string]any) {
		t.Helper()
		p := b.refused("/passkey/finish", in, joinery.CodeUnauthenticated)
		refusals[p.Detail] = name
	}
	refuse("unknown", b.usePasskey(b.device()))
	wrong := *hers
	wrong.key.Key = his.key.Key
	refuse("wrong signature", b.usePasskey(&wrong))
	swapped := *hers
	swapped.Options.UserHandle = his.Options.UserHandle
	refuse("another's handle", b.usePasskey(&swapped))
	elsewhere := *hers
	elsewhere.rp.Origin = "https://evil.example.com"
	refuse("another origin", b.usePasskey(&elsewhere))
	unverified := *hers
	unverified.Options.UserNotVerified = true
	refuse("user not verified", b.usePasskey(&unverified))
	used := b.usePasskey(hers)
	b.post("/passkey/finish", used, nil)
	refuse("used again", used)
	hers.key.Counter = 7
	b.post("/passkey/finish", b.usePasskey(hers), nil)
	hers.key.Counter = 5
	refuse("counter back", b.usePasskey(hers))
	refuse("nonsense", map[string]any{"credential": map[string]string{"id": "x"}})
	refuse("nothing", map[string]any{})
	if len(refusals) != 1 {
		t.Errorf("refused in different words: %v", refusals)
	}
}

func TestPasskeysOfAPerson(t *testing.T) {
	f := start(t)
	ann := f.browser(t)
	ann.join(f.invite(t, f.orgA, "ann@example.com", joinery.RoleAdmin).Token, "Ann")
	ann.refused("/passkey/new/finish", map[string]any{"passkey": "x", "credential": struct{}{}}, joinery.CodeUnauthenticated)
	if me := ann.me(); me.Person.Email != "ann@example.com" || me.Person.EmailVerified {
		t.Errorf("nobody vouches for her address: %+v", me.Person)
	}
	second := ann.device()
	var options json.RawMessage
	ann.post("/passkey/new", struct{}{}, &options)
	ann.post("/passkey/new/finish", map[string]any{"passkey": "security key", "credential": second.create(t, options)}, nil)
	f.browser(t).refused("/passkey/new", struct{}{}, joinery.CodeUnauthenticated)

	var passkeys client.List[client.Passkey]
	read := func() {
		t.Helper()
		if err := json.Unmarshal([]byte(ann.do(http.MethodGet, "/api/v1/me/passkeys", "").body), &passkeys); err != nil {
			t.Fatal(err)
		}
	}
	read()
	if len(passkeys.Items) != 2 || passkeys.Items[1].Name != "security key" {
		t.Fatalf("%+v", passkeys)
	}
	for i, want := range []int{http.StatusNoContent, http.StatusConflict} { // one way in stays
		path := "/api/v1/me/passkeys/" + passkeys.Items[i].ID.String()
		if a := ann.do(http.MethodDelete, path, "", "Sec-Fetch-Site", "same-origin"); a.status != want {
			t.Errorf("remove %s: %d %s", passkeys.Items[i].Name, a.status, a.body)
		}
	}
	ann.post("/out", struct{}{}, nil)
	ann.post("/passkey/finish", ann.usePasskey(second), nil)
	f.checkAudit(t, "person.passkey_added", "person.passkey_removed")
}

// TestStepsOfAnother: a step of registering a passkey serves whom it was begun for,
// and is refused to everybody else as one that is not there.
func TestStepsOfAnother(t *testing.T) {
	f := start(t)
	ann, ben := f.browser(t), f.browser(t)
	ann.join(f.invite(t, f.orgA, "ann@example.com", joinery.RoleAdmin).Token, "Ann")
	ben.join(f.invite(t, f.orgA, "ben@example.com", joinery.RoleAdmin).Token, "Ben")
	one, two := f.invite(t, f.orgA, "x@example.com", joinery.RoleViewer).Token, f.invite(t, f.orgB, "x@example.com", joinery.RoleViewer).Token
	byInvitation := func(token string) map[string]any { return map[string]any{"invitation": token, "name": "Eve"} }
	for name, c := range map[string]struct {
		begins, ends   *browser
		with, finishes map[string]any
	}{
		"a member's, with an invitation":   {ann, ann, map[string]any{}, byInvitation(one)},
		"an invitation's, as a member":     {ann, ann, byInvitation(one), map[string]any{}},
		"of another member":                {ann, ben, map[string]any{}, map[string]any{}},
		"of another invitation":            {ann, ann, byInvitation(one), byInvitation(two)},
		"a stranger's with an invitation ": {ann, f.browser(t), map[string]any{}, byInvitation(one)},
	} {
		var options json.RawMessage
		c.begins.post("/passkey/new", c.with, &options)
		c.finishes["passkey"], c.finishes["credential"] = "first", c.begins.device().create(t, options)
		if p := c.ends.refused("/passkey/new/finish", c.finishes, joinery.CodeUnauthenticated); !strings.Contains(p.Detail, "from the beginning") {
			t.Errorf("%s: %s", name, p.Detail)
		}
	}
}

// TestOtherSitesCannotActThroughABrowser: a cookie counts only for what our own
// page sends.
func TestOtherSitesCannotActThroughABrowser(t *testing.T) {
	f := start(t)
	b := f.browser(t)
	b.join(f.invite(t, f.orgA, "ann@example.com", joinery.RoleAdmin).Token, "Ann")
	body := `{"email":"mallory@example.com","role":"admin"}`
	for name, header := range map[string][]string{
		"cross-site": {"Sec-Fetch-Site", "cross-site"}, "same site": {"Sec-Fetch-Site", "same-site"},
		"foreign origin": {"Origin", "https://evil.example.com"}, "no origin": {"Origin", "null"},
	} {
		for _, path := range []string{"/api/v1/invitations", "/sign-in/out", "/sign-in/passkey", "/sign-in/provider"} {
			if a := b.do(http.MethodPost, path, body, header...); a.status != http.StatusForbidden {
				t.Errorf("%s, %s: %d %s", name, path, a.status, a.body)
			}
		}
	}
	if a := b.do(http.MethodPost, "/api/v1/invitations", body, "Sec-Fetch-Site", "same-origin", "Content-Type", "text/plain"); a.status == http.StatusCreated {
		t.Errorf("a form's kind of body was taken")
	}
	if a := b.do(http.MethodPost, "/api/v1/invitations", body, "Sec-Fetch-Site", "same-origin"); a.status != http.StatusCreated {
		t.Errorf("our own page: %d %s", a.status, a.body)
	}
	// A cookie is no credential beside another, and none on the operator socket.
	u, _ := url.Parse(f.url)
	session := b.jar.Cookies(u)[0]
	if a := f.send(t, f.keyB, http.MethodGet, "/api/v1/me", "", "Cookie", session.String()); !strings.Contains(a.body, f.orgB.String()) {
		t.Errorf("a key with a cookie: %s", a.body)
	}
	twice := session.String() + "; " + session.Name + "=x"
	if a := f.send(t, "", http.MethodGet, "/api/v1/me", "", "Cookie", twice); a.status != http.StatusUnauthorized {
		t.Errorf("two cookies of a name: %d", a.status)
	}
}

// TestCookiesAndHeaders reads what a browser behind https gets.
func TestCookiesAndHeaders(t *testing.T) {
	f := startWith(t, auth.SignInOptions{URL: "https://js.example.com"})
	page := f.send(t, "", http.MethodGet, "/sign-in", "")
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
		"Cache-Control": "no-store", "Content-Type": "text/html",
	} {
		if got := page.header.Get(name); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, bad := range []string{"<style", "onclick", "http://", "https://", "javascript:"} {
		if strings.Contains(page.body, bad) {
			t.Errorf("the page holds %q, which its policy does not allow", bad)
		}
	}
	if strings.Contains(page.header.Get("Content-Security-Policy"), "unsafe") {
		t.Error("an unsafe policy")
	}
	for _, path := range []string{"/sign-in/page.js", "/sign-in/page.css"} {
		if a := f.send(t, "", http.MethodGet, path, ""); a.status != http.StatusOK || len(a.body) < 100 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	provider := f.send(t, "", http.MethodPost, "/sign-in/out", "{}")
	cookie := provider.header.Get("Set-Cookie")
	for _, want := range []string{"__Host-joinery-session=", "Path=/", "HttpOnly", "Secure", "SameSite=Strict", "Max-Age=0"} {
		if !strings.Contains(cookie, want) {
			t.Errorf("cookie %q lacks %s", cookie, want)
		}
	}
}

// TestProgramSignsInThroughTheBrowser is what joinctl does.
func TestProgramSignsInThroughTheBrowser(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	program, err := client.New(client.Options{Server: f.url, Anonymous: true})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	login, err := program.BeginLogin(ctx, client.NewLogin{Name: "joinctl on laptop"})
	if err != nil || login.URL != f.url+"/sign-in#login="+login.Code || login.PollEvery < 1 {
		t.Fatalf("%+v, %v", login, err)
	}
	if got, err := program.FinishLogin(ctx, client.LoginPoll{Secret: login.Secret}); err != nil || got.Done || got.Token != "" {
		t.Fatalf("before anybody agreed: %+v, %v", got, err)
	}
	f.browser(t).refused("/program", map[string]string{"code": login.Code}, joinery.CodeUnauthenticated)
	b := f.browser(t)
	b.join(f.invite(t, f.orgA, "ann@example.com", joinery.RoleMember).Token, "Ann")
	b.refused("/program", map[string]string{"code": "BBBB-BBBB"}, joinery.CodeNotFound)
	var shown struct{ Name string }
	b.post("/program", map[string]string{"code": strings.ToLower(login.Code)}, &shown)
	if shown.Name != "joinctl on laptop" {
		t.Errorf("the page shows %q", shown.Name)
	}
	b.post("/program/agree", map[string]string{"code": login.Code}, nil)
	b.refused("/program/agree", map[string]string{"code": login.Code}, joinery.CodeNotFound)
	got, err := program.FinishLogin(ctx, client.LoginPoll{Secret: login.Secret})
	if err != nil || !got.Done || !strings.HasPrefix(got.Token, "joinery_session_") || got.ExpiresAt.Before(time.Now()) {
		t.Fatalf("%+v, %v", got.Done, err)
	}
	if _, err := program.FinishLogin(ctx, client.LoginPoll{Secret: login.Secret}); code(err) != "not_found" {
		t.Errorf("the session was given twice: %v", err)
	}
	c := f.as(t, got.Token)
	if s, err := c.Status(ctx); err != nil || s.Caller.Organisation != f.orgA || s.Caller.Person != b.me().Person.ID {
		t.Errorf("%+v, %v", s.Caller, err)
	}
	if _, err := c.AddOrganisation(ctx, client.NewOrganisation{Name: "x"}); code(err) != "forbidden" {
		t.Errorf("a member added an organisation: %v", err)
	}
	f.checkAudit(t, "person.program_agreed")
	// The person ends the program's session.
	if err := c.EndSession(ctx, got.Session); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(ctx); code(err) != "unauthenticated" {
		t.Errorf("an ended session: %v", err)
	}
	for _, secret := range []string{login.Secret, got.Token, f.keyA} {
		if strings.Contains(f.log.String(), secret[len(secret)-40:]) {
			t.Error("the log holds a secret")
		}
		f.notInDatabase(t, secret)
	}
}

// notInDatabase looks for the secret half of a credential in the files of the
// database, as text and as the bytes for which it stands.
func (f *fixture) notInDatabase(t *testing.T, credential string) {
	t.Helper()
	half := credential[len(credential)-58 : len(credential)-6]
	raw, err := base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding).DecodeString(half)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(f.socket), "joinery.db*"))
	if err != nil || len(files) < 2 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, form := range map[string][]byte{"as text": []byte(half), "raw": raw, "in hexadecimal": []byte(hex.EncodeToString(raw)), "in base64": []byte(base64.StdEncoding.EncodeToString(raw)[:40])} {
			if bytes.Contains(content, form) {
				t.Errorf("%s holds a secret %s", filepath.Base(file), name)
			}
		}
	}
}

func TestSignInIsLimited(t *testing.T) {
	now := time.Now() // stands still, so that nothing comes back meanwhile
	f := startWith(t, auth.SignInOptions{Now: func() time.Time { return now }})
	statuses := map[int]int{}
	for range 400 {
		statuses[f.send(t, "", http.MethodPost, "/sign-in/passkey/finish", `{"credential":{}}`).status]++
	}
	if statuses[http.StatusTooManyRequests] == 0 || statuses[http.StatusUnauthorized] == 0 || len(statuses) != 2 {
		t.Errorf("%v", statuses)
	}
	if a := f.send(t, f.keyA, http.MethodGet, "/api/v1/devices", ""); a.status != http.StatusOK {
		t.Errorf("an API key meanwhile: %d", a.status)
	}
}

// TestSignInIsLimitedBehindAProxy: with a proxy whose word is taken, one address
// that tries too often keeps no other out.
func TestSignInIsLimitedBehindAProxy(t *testing.T) {
	now := time.Now()
	f := startWith(t, auth.SignInOptions{Now: func() time.Time { return now }},
		func(o *api.Options) { o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	try := func(forwarded string) int {
		return f.send(t, "", http.MethodPost, "/sign-in/passkey/finish", `{"credential":{}}`, "X-Forwarded-For", forwarded).status
	}
	statuses := map[int]int{}
	for range 100 {
		statuses[try("203.0.113.9, 192.0.2.1")]++ // before the last anybody may write what they like
	}
	if statuses[http.StatusTooManyRequests] != 40 || statuses[http.StatusUnauthorized] != 60 {
		t.Errorf("%v", statuses)
	}
	for _, other := range []string{"192.0.2.2", "192.0.2.1, 203.0.113.9"} {
		if got := try(other); got != http.StatusUnauthorized {
			t.Errorf("%s: %d", other, got)
		}
	}
}

// TestWithoutSignIn: a server that signs nobody in says so.
func TestWithoutSignIn(t *testing.T) {
	f := start(t, func(o *api.Options) { o.SignIn = nil })
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/sign-in", ""}, {"GET", "/sign-in/callback?code=x&state=y", ""}, {"POST", "/sign-in/passkey", "{}"},
		{"POST", "/api/v1/login", `{"name":"x"}`}, {"POST", "/api/v1/login/token", `{"secret":"x"}`}, {"POST", "/api/v1/me/invitations", `{"token":"x"}`},
	} {
		a := f.send(t, f.keyA, c.method, c.path, c.body)
		if p := a.problem(t); a.status != http.StatusNotFound || !strings.Contains(p.Detail, "sign_in.url") {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.status, a.body)
		}
	}
	for _, path := range []string{"/me", "/me/sessions", "/me/passkeys"} {
		if a := f.send(t, f.keyA, http.MethodGet, "/api/v1"+path, ""); a.status != http.StatusOK {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	made, err := f.operator.BootstrapOperator(t.Context())
	if err != nil || made.URL != "" || made.Token == "" {
		t.Errorf("%v, %v", made.URL, err)
	}
	if a := f.send(t, "", http.MethodGet, "/api/v1/me", "", "Cookie", fmt.Sprintf("joinery-session=%s", made.Token)); a.status != http.StatusUnauthorized {
		t.Errorf("a cookie: %d", a.status)
	}
}

// TestForeignLink: who is known joins nothing by signing in, whatever link they
// came by: they see what it is, and take it themselves or not at all.
func TestForeignLink(t *testing.T) {
	f := startProvider(t)
	f.invite(t, f.orgA, "ann@example.com", joinery.RoleMember)
	f.browser(t).provider("ann", "")
	foreign := f.invite(t, f.orgB, "mallory@example.com", joinery.RoleAdmin)
	b := f.browser(t)
	if end := b.provider("ann", foreign.Token); end.Fragment != "" {
		t.Fatalf("ann is at %s", end)
	}
	if me := b.me(); me == nil || len(me.Memberships) != 1 {
		t.Fatalf("a link drew her in: %+v", me)
	}
	// One that stands no more is no reason to keep her out either.
	if end := f.browser(t).provider("ann", "joinery_invitation_x"); end.Fragment != "" {
		t.Errorf("with a spoilt link ann is at %s", end)
	}
	var shown client.Offer
	b.post("/invitation", map[string]string{"invitation": foreign.Token}, &shown)
	want := client.Offer{
		Organisation: f.orgB, Name: "Borealis", Role: joinery.RoleAdmin, Email: "mallory@example.com",
		InvitedBy: foreign.Invitation.InvitedBy, ExpiresAt: foreign.Invitation.ExpiresAt,
	}
	if shown != want {
		t.Errorf("the page shows %+v, want %+v", shown, want)
	}
	b.refused("/invitation", map[string]string{"invitation": "x"}, joinery.CodeForbidden)
	b.refused("/invitation", struct{}{}, joinery.CodeForbidden)
	body := marshal(t, client.AcceptedInvitation{Token: foreign.Token})
	if a := b.do(http.MethodPost, "/api/v1/me/invitations/offer", body, "Sec-Fetch-Site", "same-origin"); a.status != http.StatusOK || !strings.Contains(a.body, `"Borealis"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := b.do(http.MethodPost, "/api/v1/me/invitations", body, "Sec-Fetch-Site", "same-origin"); a.status != http.StatusNoContent || len(b.me().Memberships) != 2 {
		t.Errorf("she takes it: %d %s", a.status, a.body)
	}
	b.refused("/invitation", map[string]string{"invitation": foreign.Token}, joinery.CodeForbidden)
}

// TestLeaving: whoever belongs to an organisation may leave it themselves, by the
// rule by which others remove them; their keys go with them.
func TestLeaving(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	ann, ben := f.signedIn(t, f.orgA, joinery.RoleAdmin, "ann"), f.signedIn(t, f.orgA, joinery.RoleMember, "ben")
	asAnn, asBen := f.as(t, ann.token), f.as(t, ben.token)
	key, err := asBen.MakeAPIKey(ctx, client.NewAPIKey{Name: "script", ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if err := asAnn.LeaveOrganisation(ctx, f.orgA); code(err) != "conflict" {
		t.Errorf("the last admin leaves: %v", err)
	}
	for name, org := range map[string]joinery.OrgID{"another's": f.orgB, "nobody's": joinery.NewOrgID()} {
		if err := asBen.LeaveOrganisation(ctx, org); code(err) != "not_found" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]*client.Client{"an API key": f.as(t, f.keyA), "a key of a person": f.as(t, key.Text), "the socket": f.operator} {
		if err := c.LeaveOrganisation(ctx, f.orgA); code(err) != "forbidden" {
			t.Errorf("%s leaves: %v", name, err)
		}
	}
	if err := asBen.LeaveOrganisation(ctx, f.orgA); err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{"his session": ben.token, "his key": key.Text} {
		if _, err := f.as(t, token).Status(ctx); code(err) != "unauthenticated" {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Who is alone may leave, admin or not.
	if err := asAnn.LeaveOrganisation(ctx, f.orgA); err != nil {
		t.Error(err)
	}
	if people, err := f.acting(t, f.orgA).People(ctx); err != nil || len(people) != 0 {
		t.Errorf("%+v, %v", people, err)
	}
	f.checkAudit(t, "person.left")
}
