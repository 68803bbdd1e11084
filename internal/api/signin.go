package api

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"joinery"
	"joinery/internal/auth"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// SignIn signs people in; see the package auth. Options and answers of passkeys
// are the JSON that browsers make and take.
type SignIn interface {
	SignInMethods
	Logins
	Self
}

// SignInMethods is how people prove who they are.
type SignInMethods interface {
	// URL is the address under which browsers reach this server, without a path.
	URL() string
	// ProviderName is "" where there is no OpenID provider.
	ProviderName() string
	// Allow counts a try, and refuses it where there were too many.
	Allow(from netip.Addr) error
	BeginProvider(ctx context.Context, b auth.Browser) (redirect string, err error)
	FinishProvider(ctx context.Context, b auth.Browser, query url.Values, invitation string) (joinery.PersonID, error)
	BeginPasskey(ctx context.Context) (options []byte, err error)
	FinishPasskey(ctx context.Context, answer []byte) (joinery.PersonID, error)
	BeginNewPasskey(ctx context.Context, who auth.Registrant) (options []byte, err error)
	FinishNewPasskey(ctx context.Context, who auth.Registrant, name string, answer []byte) (joinery.PersonID, error)
}

// Logins is sessions, and programs that wait for one.
type Logins interface {
	StartSession(ctx context.Context, person joinery.PersonID, kind joinery.SessionKind, name string) (text string, s joinery.Session, err error)
	BeginProgram(ctx context.Context, name string) (auth.Program, error)
	ProgramName(ctx context.Context, caller joinery.Caller, code string) (string, error)
	Agree(ctx context.Context, caller joinery.Caller, code string) error
	// FinishProgram gives "" while nobody agreed.
	FinishProgram(ctx context.Context, secret string) (text string, s joinery.Session, err error)
}

// Self is what people see and change of themselves.
type Self interface {
	Me(ctx context.Context, caller joinery.Caller) (joinery.Person, []joinery.Membership, error)
	// Offer tells whoever holds an invitation's token what it is.
	Offer(ctx context.Context, token string) (auth.Offer, error)
	Accept(ctx context.Context, caller joinery.Caller, token string) error
	Leave(ctx context.Context, caller joinery.Caller, org joinery.OrgID) error
	Sessions(ctx context.Context, caller joinery.Caller) ([]joinery.Session, error)
	// EndSession with the zero id ends the caller's own.
	EndSession(ctx context.Context, caller joinery.Caller, id joinery.SessionID) error
	Passkeys(ctx context.Context, caller joinery.Caller) ([]joinery.Passkey, error)
	RemovePasskey(ctx context.Context, caller joinery.Caller, id joinery.PasskeyID) error
}

// signInPath is where the page for signing in lies, and what only it asks.
const signInPath = "/sign-in"

// signInBody bounds what the page sends: an answer of an authenticator.
const signInBody = 64 << 10

// providerTime is how long a person may take at the provider.
const providerTime = 10 * time.Minute

//go:embed page
var pageFiles embed.FS

// pagePolicy lets the page load its own script and style, ask this server, and
// nothing else.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; " +
	"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// registerSignIn adds the page and what only it asks. These routes are not in the
// document: they are the two halves of one program.
func (s *Server) registerSignIn() {
	for path, file := range map[string]struct{ name, kind string }{
		signInPath:               {"page/page.html", "text/html; charset=utf-8"},
		signInPath + "/page.js":  {"page/page.js", "text/javascript; charset=utf-8"},
		signInPath + "/page.css": {"page/page.css", "text/css; charset=utf-8"},
	} {
		s.made.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { s.servePage(w, r, file.name, file.kind) })
	}
	s.made.mux.HandleFunc("GET "+signInPath+"/callback", s.finishProvider)
	s.ask("GET", "/methods", s.signInMethods)
	s.ask("POST", "/provider", s.beginProvider)
	s.ask("POST", "/passkey", func(w http.ResponseWriter, r *http.Request, _ signInRequest) (any, error) {
		return options(s.SignIn.BeginPasskey(r.Context()))
	})
	s.ask("POST", "/passkey/finish", s.finishPasskey)
	s.ask("POST", "/passkey/new", func(w http.ResponseWriter, r *http.Request, in signInRequest) (any, error) {
		who, err := s.registrant(r, in)
		if err != nil {
			return nil, err
		}
		return options(s.SignIn.BeginNewPasskey(r.Context(), who))
	})
	s.ask("POST", "/passkey/new/finish", s.finishNewPasskey)
	s.ask("POST", "/invitation", func(_ http.ResponseWriter, r *http.Request, in signInRequest) (any, error) {
		o, err := s.SignIn.Offer(r.Context(), in.Invitation)
		return offer(o), err
	})
	s.ask("POST", "/program", s.programName)
	s.ask("POST", "/program/agree", s.agree)
	s.ask("POST", "/out", s.signOut)
}

// signInRequest is what the page sends; each route reads what it needs.
type signInRequest struct {
	Invitation string         `json:"invitation,omitzero"` // a token
	Name       string         `json:"name,omitzero"`       // of somebody new
	Passkey    string         `json:"passkey,omitzero"`    // name of a new one
	Code       string         `json:"code,omitzero"`       // of a program
	Credential jsontext.Value `json:"credential,omitzero"` // what the authenticator answered
}

// done is the answer to what has no other.
type done struct {
	Done bool `json:"done"`
}

func options(text []byte, err error) (any, error) { return jsontext.Value(text), err }

// ask registers a route of the page. What another site's page sends is refused,
// and so is what comes too often.
func (s *Server) ask(method, path string, h func(http.ResponseWriter, *http.Request, signInRequest) (any, error)) {
	s.made.mux.HandleFunc(method+" "+signInPath+path, func(w http.ResponseWriter, r *http.Request) {
		in, err := s.readSignIn(w, r)
		var out any
		if err == nil {
			out, err = h(w, r, in)
		}
		if err != nil {
			s.logFailure(r.Context(), "sign-in", err)
			s.write(w, s.problemOf(err, requestID(r.Context())))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := encodeJSON(w, out); err != nil {
			s.log.Debug("write an answer", slog.Any("error", err))
		}
	})
}

func (s *Server) readSignIn(w http.ResponseWriter, r *http.Request) (in signInRequest, err error) {
	if err := s.hasSignIn(); err != nil {
		return in, err
	}
	if err := s.crossOrigin.Check(r); err != nil {
		return in, joinery.Errorf(joinery.CodeForbidden, "a page of another site sent this")
	}
	if err := s.SignIn.Allow(remote(r.Context())); err != nil {
		w.Header().Set("Retry-After", "60")
		return in, err
	}
	if r.Method == http.MethodGet {
		return in, nil
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return in, joinery.Errorf(joinery.CodeInvalid, "send the body as application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, signInBody))
	if _, big := errors.AsType[*http.MaxBytesError](err); big {
		return in, joinery.Errorf(joinery.CodeTooLarge, "the body is larger than this route takes")
	}
	if err != nil || json.Unmarshal(body, &in, json.RejectUnknownMembers(true)) != nil {
		return in, joinery.Errorf(joinery.CodeInvalid, "the body could not be read as JSON of this page")
	}
	return in, nil
}

func (s *Server) servePage(w http.ResponseWriter, _ *http.Request, name, kind string) {
	text, err := pageFiles.ReadFile(name)
	if err == nil {
		err = s.hasSignIn()
	}
	if err != nil {
		s.write(w, s.problemOf(err, w.Header().Get("X-Request-Id")))
		return
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	_, _ = w.Write(text) // whoever went away needs no answer
}

func (s *Server) signInMethods(http.ResponseWriter, *http.Request, signInRequest) (any, error) {
	return struct {
		Provider string `json:"provider"`
	}{s.SignIn.ProviderName()}, nil
}

// Cookies. Over https their names keep other hosts of the domain from setting
// them (RFC 6265bis §4.1.3.2); over plain http, on this machine, that is not to be
// had.
const (
	sessionCookie = "joinery-session"
	browserCookie = "joinery-sign-in"
)

func (s *Server) secure() bool { return strings.HasPrefix(s.SignIn.URL(), "https://") }

func (s *Server) cookieName(name string) string {
	if s.secure() {
		return "__Host-" + name
	}
	return name
}

// setCookie sets a cookie that scripts cannot read. A life of 0 removes it.
func (s *Server) setCookie(w http.ResponseWriter, name, value string, life time.Duration, site http.SameSite) {
	c := &http.Cookie{
		Name: s.cookieName(name), Value: value, Path: "/", HttpOnly: true, Secure: s.secure(), SameSite: site, MaxAge: int(life.Seconds()),
	}
	if life <= 0 {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// sessionCookie gives the session that a browser sent, or "".
func (s *Server) sessionCookie(r *http.Request) string {
	if s.SignIn == nil {
		return ""
	}
	return s.cookie(r, sessionCookie)
}

func (s *Server) cookie(r *http.Request, name string) string {
	// More than one of a name: somebody meddled.
	if all := r.CookiesNamed(s.cookieName(name)); len(all) == 1 {
		return all[0].Value
	}
	return ""
}

// enter signs a person in, in this browser. A session that it had ends.
func (s *Server) enter(w http.ResponseWriter, r *http.Request, person joinery.PersonID) error {
	if before, err := s.callerOf(r); err == nil && before.Session != 0 {
		if err := s.SignIn.EndSession(r.Context(), before, 0); err != nil && joinery.CodeOf(err) != joinery.CodeNotFound {
			return err
		}
	}
	text, session, err := s.SignIn.StartSession(r.Context(), person, joinery.SessionBrowser, "browser")
	if err != nil {
		return err
	}
	s.setCookie(w, sessionCookie, text, time.Until(session.ExpiresAt), http.SameSiteStrictMode)
	return nil
}

// beginProvider sends a browser to the provider. What it brings back is told by a
// cookie that other sites' links carry along: Lax.
func (s *Server) beginProvider(w http.ResponseWriter, r *http.Request, in signInRequest) (any, error) {
	var b auth.Browser
	rand.Read(b[:]) // never fails (crypto/rand)
	to, err := s.SignIn.BeginProvider(r.Context(), b)
	if err != nil {
		return nil, err
	}
	value := base64.RawURLEncoding.EncodeToString(b[:]) + "." + base64.RawURLEncoding.EncodeToString([]byte(in.Invitation))
	s.setCookie(w, browserCookie, value, providerTime, http.SameSiteLaxMode)
	return struct {
		URL string `json:"url"`
	}{to}, nil
}

func readBrowser(value string) (b auth.Browser, invitation string, ok bool) {
	secret, token, found := strings.Cut(value, ".")
	raw, err := base64.RawURLEncoding.DecodeString(secret)
	text, tokenErr := base64.RawURLEncoding.DecodeString(token)
	if !found || err != nil || tokenErr != nil || len(raw) != len(b) {
		return b, "", false
	}
	return auth.Browser(raw), string(text), true
}

// finishProvider takes a browser back from the provider, and shows the page: what
// went wrong stands behind the '#', as a code.
func (s *Server) finishProvider(w http.ResponseWriter, r *http.Request) {
	err := s.hasSignIn()
	if err == nil {
		err = s.SignIn.Allow(remote(r.Context()))
	}
	if err == nil {
		err = s.enterFromProvider(w, r)
	}
	if err != nil {
		s.logFailure(r.Context(), "sign-in", err)
	}
	switch code := joinery.CodeOf(err); {
	case s.SignIn == nil:
		s.write(w, s.problemOf(err, requestID(r.Context())))
	case err == nil:
		redirect(w, signInPath)
	default:
		s.log.InfoContext(r.Context(), "sign-in refused", slog.String("code", string(code)), slog.Any("error", err))
		redirect(w, signInPath+"#error="+url.QueryEscape(string(code)))
	}
}

func (s *Server) enterFromProvider(w http.ResponseWriter, r *http.Request) error {
	b, invitation, ok := readBrowser(s.cookie(r, browserCookie))
	if !ok {
		return joinery.Errorf(joinery.CodeUnauthenticated, "this browser did not ask to sign in, or did so too long ago")
	}
	s.setCookie(w, browserCookie, "", 0, http.SameSiteLaxMode)
	person, err := s.SignIn.FinishProvider(r.Context(), b, r.URL.Query(), invitation)
	if err != nil {
		return err
	}
	return s.enter(w, r, person)
}

// redirect goes to a path of ours, without a body that repeats it.
func redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}

func (s *Server) finishPasskey(w http.ResponseWriter, r *http.Request, in signInRequest) (any, error) {
	person, err := s.SignIn.FinishPasskey(r.Context(), in.Credential)
	if err != nil {
		return nil, err
	}
	return done{true}, s.enter(w, r, person)
}

// registrant is for whom the page registers a passkey: who is signed in, unless
// there is an invitation for somebody new.
func (s *Server) registrant(r *http.Request, in signInRequest) (auth.Registrant, error) {
	if in.Invitation != "" {
		return auth.Registrant{Invitation: in.Invitation, Name: in.Name}, nil
	}
	caller, err := s.callerOf(r)
	return auth.Registrant{Caller: caller}, err
}

func (s *Server) finishNewPasskey(w http.ResponseWriter, r *http.Request, in signInRequest) (any, error) {
	who, err := s.registrant(r, in)
	if err != nil {
		return nil, err
	}
	person, err := s.SignIn.FinishNewPasskey(r.Context(), who, in.Passkey, in.Credential)
	if err != nil || who.Caller.Session != 0 {
		return done{true}, err
	}
	return done{true}, s.enter(w, r, person)
}

func (s *Server) programName(_ http.ResponseWriter, r *http.Request, in signInRequest) (any, error) {
	caller, err := s.callerOf(r)
	if err != nil {
		return nil, err
	}
	name, err := s.SignIn.ProgramName(r.Context(), caller, in.Code)
	return struct {
		Name string `json:"name"`
	}{name}, err
}

func (s *Server) agree(_ http.ResponseWriter, r *http.Request, in signInRequest) (any, error) {
	caller, err := s.callerOf(r)
	if err != nil {
		return nil, err
	}
	return done{true}, s.SignIn.Agree(r.Context(), caller, in.Code)
}

func (s *Server) signOut(w http.ResponseWriter, r *http.Request, _ signInRequest) (any, error) {
	s.setCookie(w, sessionCookie, "", 0, http.SameSiteStrictMode)
	caller, err := s.callerOf(r)
	if err != nil {
		return done{true}, nil // there was no session, or it had ended
	}
	if err := s.SignIn.EndSession(r.Context(), caller, 0); err != nil && joinery.CodeOf(err) != joinery.CodeNotFound {
		return nil, err
	}
	return done{true}, nil
}
