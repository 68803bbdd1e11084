package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"strings"
	"testing"

	"github.com/descope/virtualwebauthn"

	"joinery/client"
	"joinery/internal/config"
)

// signsIn has a server that is stopped sign people in when it runs again.
func (s *scene) signsIn() {
	s.t.Helper()
	path := s.server.Path("joinery.yaml")
	c, err := config.Read(path)
	ok(s.t, err)
	_, port, err := net.SplitHostPort(c.API.Address)
	ok(s.t, err)
	c.SignIn.URL = "http://localhost:" + port // where passkeys need no TLS
	var text bytes.Buffer
	ok(s.t, config.Print(&text, c))
	ok(s.t, os.WriteFile(path, text.Bytes(), 0o600))
}

// person is somebody who is signed in at a server, and runs joinctl.
type person struct {
	*scene
	url  string
	file string // with what joinctl signs in
	http *http.Client
}

// admin is a new admin of an organisation: invited, with a passkey, and agreed that
// joinctl acts for them.
func (s *scene) admin(org, name string) person {
	t := s.t
	t.Helper()
	c, err := config.Read(s.server.Path("joinery.yaml"))
	ok(t, err)
	jar, err := cookiejar.New(nil)
	ok(t, err)
	p := person{scene: s, url: c.SignIn.URL, http: &http.Client{Jar: jar}}
	invited := answer[client.MadeInvitation](s, "person", "invite", name+"@example.com", "--role", "admin", "--org", org)
	p.join(invited.Token, name)
	api, err := client.New(client.Options{Server: p.url, Anonymous: true})
	ok(t, err)
	defer api.Close()
	login, err := api.BeginLogin(t.Context(), client.NewLogin{Name: "joinctl of " + name})
	ok(t, err)
	p.post("/program/agree", map[string]string{"code": login.Code})
	got, err := api.FinishLogin(t.Context(), client.LoginPoll{Secret: login.Secret})
	ok(t, err)
	p.file = s.secretFile(got.Token)
	return p
}

// join takes an invitation with a new passkey.
func (p person) join(invitation, name string) {
	p.t.Helper()
	rp := virtualwebauthn.RelyingParty{Name: "Joinery", ID: "localhost", Origin: p.url}
	key := virtualwebauthn.NewCredentialWithImportedKey(virtualwebauthn.KeyTypeEC2, fullKey(p.t))
	authenticator := virtualwebauthn.NewAuthenticator()
	in := map[string]any{"invitation": invitation, "name": name}
	o, err := virtualwebauthn.ParseAttestationOptions(string(p.post("/passkey/new", in)))
	ok(p.t, err)
	authenticator.Options.UserHandle = []byte(o.UserID)
	in["passkey"] = "first"
	in["credential"] = json.RawMessage(virtualwebauthn.CreateAttestationResponse(rp, authenticator, key, *o))
	p.post("/passkey/new/finish", in)
}

// post does what the sign-in page does.
func (p person) post(path string, in any) []byte {
	p.t.Helper()
	body, err := json.Marshal(in)
	ok(p.t, err)
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.url+"/sign-in"+path, bytes.NewReader(body))
	ok(p.t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	res, err := p.http.Do(req)
	ok(p.t, err)
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: %d %s, %v", path, res.StatusCode, text, err)
	}
	return text
}

// fullKey makes a P-256 key of which both coordinates fill 32 bytes: the library writes
// others short, which real authenticators do not.
func fullKey(t *testing.T) []byte {
	t.Helper()
	for {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		ok(t, err)
		point, err := key.PublicKey.Bytes() // 4 ‖ X ‖ Y
		ok(t, err)
		if point[1] == 0 || point[33] == 0 {
			continue
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		ok(t, err)
		return der
	}
}

func (p person) run(args ...string) (string, error) {
	return p.server.Run(p.t.Context(), "", "joinctl", append([]string{"--server", p.url, "--api-key-file", p.file}, args...)...)
}

// does runs joinctl as this person.
func (p person) does(args ...string) string {
	p.t.Helper()
	out, err := p.run(args...)
	ok(p.t, err)
	return out
}

// fails wants joinctl to refuse this person, and to say why.
func (p person) fails(why string, args ...string) {
	p.t.Helper()
	if _, err := p.run(args...); err == nil || !strings.Contains(err.Error(), why) {
		p.t.Errorf("%s: %v, want %q", strings.Join(args, " "), err, why)
	}
}

// answerOf reads the JSON that a command printed to a person.
func answerOf[T any](p person, args ...string) (v T) {
	p.t.Helper()
	ok(p.t, json.Unmarshal([]byte(p.does(append(args, "--json")...)), &v))
	return v
}
