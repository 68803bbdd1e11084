package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"joinery/client"
	"joinery/internal/config"
	"joinery/test/rig"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
)

// patience is how long a page may take for one step, on a busy machine.
const patience = 30 * time.Second

// TestSignInPage takes the first operator from the link of 'joinctl operator
// bootstrap' to a program that acts for them, and lets somebody whom they invite
// come and go.
func TestSignInPage(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("DISPLAY", "")
	t.Setenv("WAYLAND_DISPLAY", "")
	s := startServer(t)
	ann := newBrowser(t)

	ann.open(s.link("operator", "bootstrap"))
	ann.see("invited")
	ann.picture("invited")
	ann.fill("name", "Ann Smith")
	ann.click("join-passkey")
	ann.see("signed-in")
	ann.reads("who", "Ann Smith")
	ann.reads("memberships", "operator: admin (runs this server)")
	ann.reads("passkeys", "first passkey")
	ann.picture("signed-in")
	if hash := ann.evaluate("location.href"); strings.Contains(hash, "joinery_") {
		t.Error("the invitation is still in the address bar")
	}

	ann.click("sign-out")
	ann.see("signed-out")
	ann.click("passkey")
	ann.see("signed-in")
	ann.reads("who", "Ann Smith")

	t.Run("a program", func(t *testing.T) { s.programSignsIn(t, ann) })
	t.Run("a guest", func(t *testing.T) {
		s.ctl(t, "org", "add", "Acme")
		ben := newBrowser(t)
		ben.open(s.link("person", "invite", "ben@example.com", "--role", "viewer", "--org", "Acme"))
		ben.fill("name", "Ben")
		ben.click("join-passkey")
		ben.reads("memberships", "Acme: viewer")
		ben.fill("passkey-name", "second key")
		// One authenticator holds one passkey of a person here, and says so.
		ben.click("add-passkey")
		ben.reads("message", "already registered")
		ben.settles("add-passkey")
		ben.click("sign-out")
		ben.see("signed-out")
	})
	t.Run("somebody who is here already", func(t *testing.T) {
		ann.t = t
		ann.open(s.link("person", "invite", "ann@example.com", "--role", "member", "--org", "Acme"))
		ann.reads("accept-what", "Acme: you would be member there")
		ann.picture("asked")
		if has := ann.text("memberships"); strings.Contains(has, "Acme") {
			t.Errorf("an opened link was enough: %s", has)
		}
		ann.click("accept-invitation")
		ann.reads("memberships", "Acme: member")
		if out := s.ctl(t, "person", "list", "--org", "Acme"); !strings.Contains(out, "Ann Smith") {
			t.Errorf("Acme has %s", out)
		}
	})
	t.Run("nobody", func(t *testing.T) {
		eve := newBrowser(t)
		eve.expectErrors = true // it was asked for what it may not see
		eve.open(s.config.SignIn.URL + "/sign-in#invitation=joinery_invitation_nonsense")
		eve.reads("message", "no invitation")
		eve.see("signed-out")
		if eve.text("invited") != "" {
			t.Error("somebody is invited by nonsense")
		}
		eve.picture("refused")
	})
}

// programSignsIn: joinctl waits, the person agrees on the page, and joinctl acts
// for them.
func (s server) programSignsIn(t *testing.T, person *browser) {
	login := exec.CommandContext(t.Context(), s.Binary("joinctl"), "login", "--browser", "--server", "http://"+s.config.API.Address, "--profile", "ann")
	said, err := login.StderrPipe()
	ok(t, err)
	ok(t, login.Start())
	url, code := "", ""
	lines := bufio.NewScanner(said)
	for (url == "" || code == "") && lines.Scan() {
		if _, after, found := strings.Cut(lines.Text(), "and compare"); found {
			code = strings.TrimSpace(after)
		}
		for _, word := range strings.Fields(lines.Text()) {
			if strings.HasPrefix(word, s.config.SignIn.URL) {
				url = word
			}
		}
	}
	person.t = t
	person.open(url)
	person.see("program")
	person.reads("program-code", strings.ToUpper(code))
	person.picture("program")
	person.click("agree")
	person.reads("message", "Done")
	for lines.Scan() { //nolint:revive // until it ends
	}
	ok(t, login.Wait())
	out, err := s.Run(t.Context(), "", "joinctl", "whoami", "--profile", "ann", "--json")
	ok(t, err)
	var me client.Me
	ok(t, json.Unmarshal([]byte(out), &me))
	if me.Person == nil || me.Person.Name != "Ann Smith" || !me.Caller.Operator {
		t.Errorf("%+v", me)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// server is a real one, at which people sign in.
type server struct {
	*rig.Server
	t      *testing.T
	config config.Config
}

func startServer(t *testing.T) server {
	t.Helper()
	programs, err := rig.Build(t.Context(), t.TempDir())
	ok(t, err)
	s, err := programs.Quickstart(t.Context(), filepath.Join(t.TempDir(), "server"), "--port", "0")
	ok(t, err)
	c, err := config.Read(s.Path("joinery.yaml"))
	ok(t, err)
	_, port, err := net.SplitHostPort(c.API.Address)
	ok(t, err)
	c.SignIn.URL = "http://localhost:" + port // where browsers allow passkeys without TLS
	var text bytes.Buffer
	ok(t, config.Print(&text, c))
	ok(t, os.WriteFile(s.Path("joinery.yaml"), text.Bytes(), 0o600))
	ok(t, s.Start(t.Context()))
	t.Cleanup(func() { ok(t, s.Stop()) })
	return server{s, t, c}
}

func (s server) ctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.Ctl(t.Context(), "", args...)
	ok(t, err)
	return out
}

// link asks joinctl for an invitation and gives its link.
func (s server) link(args ...string) string {
	s.t.Helper()
	var made client.MadeInvitation
	ok(s.t, json.Unmarshal([]byte(s.ctl(s.t, append(args, "--json")...)), &made))
	return made.URL
}

// browser is a Chromium with a home of its own.
type browser struct {
	t   *testing.T
	ctx context.Context
	// expectErrors: a refusal is in the console, too.
	expectErrors bool

	mu     sync.Mutex
	errors []string
}

// chromiums are the names under which systems have it.
var chromiums = []string{"chromium", "chromium-browser", "google-chrome"}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	path := ""
	for _, name := range chromiums {
		if found, err := exec.LookPath(name); err == nil && path == "" {
			path = found
		}
	}
	if path == "" {
		t.Skip("there is no Chromium here: sudo apt-get install chromium")
	}
	options := slices.Concat(chromedp.DefaultExecAllocatorOptions[:], []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(900, 900), chromedp.WSURLReadTimeout(patience),
	})
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // it refuses root otherwise
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	b := &browser{t: t}
	b.ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	authenticator := &webauthn.VirtualAuthenticatorOptions{
		Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
		HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
	}
	// Not within a time limit: the browser lives as long as the context of its
	// first command.
	_, err := chromedp.Call(b.ctx, log.Enable, cdp.Empty{})
	ok(t, err)
	ok(t, chromedp.Listen(b.ctx, b.hear))
	_, err = chromedp.Call(b.ctx, webauthn.Enable, webauthn.EnableParams{})
	ok(t, err)
	_, err = chromedp.Call(b.ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: authenticator})
	ok(t, err)
	t.Cleanup(b.quiet)
	return b
}

// hear notes what the page's console has to complain about.
func (b *browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		b.errors = append(b.errors, e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError && !strings.Contains(e.Entry.Text, "401") { // who asks who they are
			b.errors = append(b.errors, e.Entry.Text+" "+e.Entry.URL)
		}
	}
}

func (b *browser) quiet() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.errors) > 0 && !b.expectErrors {
		b.t.Errorf("the console says %q", b.errors)
	}
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	run(b, chromedp.Steps(steps...))
}

func run[T any](b *browser, a chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, a)
	ok(b.t, err)
	return v
}

func (b *browser) open(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate("about:blank"), chromedp.Navigate(url)) // a change behind the # alone loads nothing
}

func (b *browser) see(id chromedp.ID) {
	b.t.Helper()
	b.do(chromedp.WaitVisible(id))
}

func (b *browser) click(id chromedp.ID) {
	b.t.Helper()
	b.do(chromedp.Click(id, chromedp.NodeVisible))
}

func (b *browser) fill(id chromedp.ID, text string) {
	b.t.Helper()
	b.see(id)
	b.evaluate("document.getElementById('" + string(id) + "').value = ''")
	b.do(chromedp.SendKeys(id, text))
}

func (b *browser) evaluate(expression string) string {
	b.t.Helper()
	return run(b, chromedp.Evaluate[string](expression))
}

// text gives what an element shows; "" while it is hidden.
func (b *browser) text(id chromedp.ID) string {
	b.t.Helper()
	return b.evaluate("(e => e.checkVisibility() ? e.innerText : '')(document.getElementById('" + string(id) + "'))")
}

// reads waits until an element shows a text, "" for none.
func (b *browser) reads(id chromedp.ID, want string) {
	b.t.Helper()
	b.until(id, func(got string) bool { return strings.Contains(got, want) && (want != "" || got == "") })
}

// settles waits until what a button began is done, and it can be pressed again.
func (b *browser) settles(id chromedp.ID) {
	b.t.Helper()
	for end := time.Now().Add(patience); b.evaluate("String(document.getElementById('"+string(id)+"').disabled)") == "true"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("%s does not end; the page says %q", id, b.text("message"))
		}
	}
}

func (b *browser) until(id chromedp.ID, is func(string) bool) {
	b.t.Helper()
	got := ""
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if got = b.text(id); is(got) {
			return
		}
	}
	b.t.Fatalf("%s shows %q; the page says %q", id, got, b.text("message"))
}

// picture keeps what the page looks like, where JOINERY_PICTURES names a directory.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("JOINERY_PICTURES")
	if dir == "" {
		return
	}
	png := run(b, chromedp.FullScreenshot(100))
	ok(b.t, os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600))
}
