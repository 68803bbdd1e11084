package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"joinery/client"
	"joinery/internal/config"

	"github.com/descope/virtualwebauthn"
)

// page is a person's browser on the page of a server.
type page struct {
	t    *testing.T
	http *http.Client
	url  string
}

func (p page) post(path string, in, out any) {
	p.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		p.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.url+"/sign-in"+path, bytes.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	res, err := p.http.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: %d %s, %v", path, res.StatusCode, text, err)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(text, out); err != nil {
		p.t.Fatal(err)
	}
}

// join takes an invitation with a new passkey, and is signed in then.
func (p page) join(invitation, name string) {
	p.t.Helper()
	rp := virtualwebauthn.RelyingParty{Name: "Joinery", ID: "localhost", Origin: p.url}
	key := virtualwebauthn.NewCredentialWithImportedKey(virtualwebauthn.KeyTypeEC2, fullKey(p.t))
	authenticator := virtualwebauthn.NewAuthenticator()
	var options json.RawMessage
	p.post("/passkey/new", map[string]any{"invitation": invitation, "name": name}, &options)
	o, err := virtualwebauthn.ParseAttestationOptions(string(options))
	if err != nil {
		p.t.Fatal(err)
	}
	authenticator.Options.UserHandle = []byte(o.UserID)
	p.post("/passkey/new/finish", map[string]any{
		"invitation": invitation, "name": name, "passkey": "first",
		"credential": json.RawMessage(virtualwebauthn.CreateAttestationResponse(rp, authenticator, key, *o)),
	}, nil)
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

// TestPersonSignsIn: the program waits, its person agrees in a browser, and is
// who they are until they sign out.
func TestPersonSignsIn(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("JOINCTL_API_KEY_FILE", "")
	t.Setenv("DISPLAY", "")
	t.Setenv("WAYLAND_DISPLAY", "")
	s := startServerWith(t, func(c *config.Config) {
		_, port, _ := strings.Cut(c.API.Address, ":")
		c.SignIn.URL = "http://localhost:" + port
	})
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	person := page{t, &http.Client{Jar: jar}, s.config.SignIn.URL}

	var invited struct{ Token string }
	run := func(out any, args ...string) *exec.Cmd {
		t.Helper()
		c := joinctl(t, s, append(args, "--json")...)
		text, err := c.Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		if err := json.Unmarshal(text, out); err != nil {
			t.Fatalf("%v: %v in %s", args, err, text)
		}
		return c
	}
	run(&invited, "operator", "bootstrap")
	person.join(invited.Token, "Ann Smith")

	login := joinctl(t, s, "login", "--browser", "--server", "http://"+s.config.API.Address, "--profile", "ann", "--json")
	said, err := login.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	login.Stdout = &out
	if err := login.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	code := ""
	for code == "" && lines.Scan() {
		if _, after, found := strings.Cut(lines.Text(), "and compare"); found {
			code = strings.TrimSpace(after)
		}
	}
	var shown struct{ Name string }
	person.post("/program", map[string]string{"code": code}, &shown)
	if !strings.HasPrefix(shown.Name, "joinctl") {
		t.Errorf("the person is asked to agree to %q", shown.Name)
	}
	person.post("/program/agree", map[string]string{"code": code}, nil)
	if _, err := io.Copy(io.Discard, said); err != nil {
		t.Fatal(err)
	}
	if err := login.Wait(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "joinery_session_") {
		t.Error("the session is shown")
	}
	var me struct {
		Profile string
		client.Me
	}
	run(&me, "whoami", "--profile", "ann")
	if me.Person == nil || me.Person.Name != "Ann Smith" || !me.Caller.Operator || me.Profile != "ann" {
		t.Errorf("%+v", me)
	}
	joinAndLeave(t, s, run)
	list, err := loadProfiles()
	if err != nil {
		t.Fatal(err)
	}
	kept := list.Profiles["ann"]
	var ended map[string]any
	run(&ended, "logout", "--profile", "ann")
	if ended["ended"] != true || ended["forgotten"] != true || kept.Session == 0 {
		t.Errorf("%v, kept %+v", ended, kept)
	}
	if err := joinctl(t, s, "whoami", "--profile", "ann").Run(); err == nil {
		t.Error("signed out, and still somebody")
	}
}

// joinAndLeave has the person of the profile ann take an invitation, after a look
// at it, and leave again.
func joinAndLeave(t *testing.T, s server, run func(out any, args ...string) *exec.Cmd) {
	t.Helper()
	var added map[string]any
	run(&added, "org", "add", "Meters")
	var invited struct{ URL string }
	run(&invited, "person", "invite", "x@example.com", "--org", "Meters")
	file := filepath.Join(t.TempDir(), "invitation")
	if err := os.WriteFile(file, []byte(invited.URL+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	asAnn := func(want string, args ...string) {
		t.Helper()
		text, _ := joinctl(t, s, append(args, "--profile", "ann")...).CombinedOutput()
		if !strings.Contains(string(text), want) || strings.Contains(string(text), "joinery_invitation_") {
			t.Errorf("%v: %s, want %q", args, text, want)
		}
	}
	asAnn("invites you into Meters", "org", "join", "--invitation-file", file)
	asAnn("you do not belong to Meters", "org", "leave", "Meters")
	asAnn("you belong to Meters now", "org", "join", "--invitation-file", file, "--yes")
	asAnn("was taken", "org", "join", "--invitation-file", file, "--yes")
	asAnn("nothing was done", "org", "leave", "Meters")
	asAnn("left Meters", "org", "leave", "Meters", "--yes")
	asAnn("you do not belong to Meters", "org", "leave", "Meters", "--yes")
}
