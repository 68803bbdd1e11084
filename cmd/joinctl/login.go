package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"joinery/client"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// firstProfile is what a profile is called that nobody named.
const firstProfile = "default"

func (a *app) loginCommand() *cobra.Command {
	var browser bool
	c := &cobra.Command{
		Use:   "login",
		Short: "Sign in to a server, and remember it",
		Long: `Sign in to a server, and remember it as a profile: all commands then go there. You
sign in with a browser, on this machine or another, where the server lets people do
so; else with an API key, which is asked for without showing it. Away from a terminal
the key is read from standard input; --api-key-file names a file, or asks with '-'.
What you sign in with is tried before it is kept, in a file that only you can read.

--profile names the profile (else 'default'); with several, --profile and
JOINCTL_PROFILE choose between them, and 'joinctl profile use' sets the usual one.
--org remembers for which organisation to act, --server-ca the CA of the server.`,
		Example: `  joinctl login --server https://js.example.com
  joinctl login --server https://js.example.com --profile acme --server-ca ca.crt --org Acme < acme.key
  joinctl key make "my laptop" --operator | joinctl login --server http://127.0.0.1:8080 --profile ops
  joinctl login --socket /run/joinery/joinery.sock --profile here`,
		Args: cobra.NoArgs,
	}
	c.RunE = func(cmd *cobra.Command, _ []string) error { return a.login(cmd.Context(), browser) }
	c.Flags().BoolVar(&browser, "browser", false, "sign in with a browser, also away from a terminal")
	return c
}

// login signs in to a server, and keeps what it signed in with.
func (a *app) login(ctx context.Context, browser bool) error {
	list, err := loadProfiles()
	if err != nil {
		return err
	}
	name, p, err := a.signingIn(list)
	if err != nil {
		return err
	}
	text, err := a.credential(ctx, &p, browser)
	if err != nil {
		return err
	}
	api, err := a.dial(ctx, p, text)
	if err != nil {
		return err
	}
	defer api.Close()
	me, err := api.Me(ctx)
	if err != nil {
		return err
	}
	if p.Organisation != "" && me.Caller.Organisation != 0 { // by its id, so that it need not be looked up again
		p.Organisation = me.Caller.Organisation.String()
	}
	if p.APIKeyFile, err = list.keep(name, text); err != nil {
		return err
	}
	list.Profiles[name], list.Current = p, name
	if err := list.save(); err != nil {
		return err
	}
	if err := a.done(identityOf(place{p, name}, me), "signed in to %s as %s; it is remembered as profile %s", p.where(), callerText(me), name); err != nil {
		return err
	}
	if me.Caller.Organisation == 0 && !me.Caller.Operator && len(me.Memberships) > 1 {
		a.sayf("next: say for which organisation with 'joinctl profile change %s --org NAME': %s\n", name, clean(organisationsOf(me)))
	}
	return nil
}

// credential gets what to sign in with to a server; "" for an operator socket. A
// session's id goes into the profile.
func (a *app) credential(ctx context.Context, p *profile, browser bool) (string, error) {
	p.Session = 0
	named := orEnv(a.flags.apiKeyFile, "JOINCTL_API_KEY_FILE")
	f, person := a.in.(*os.File)
	person = person && isTerminal(f)
	switch {
	case browser && (named != "" || p.Socket != ""):
		return "", usagef("--browser signs in at a server with nothing else: leave out --socket and --api-key-file")
	case p.Socket != "" && named == "":
		return "", nil
	case browser || named == "" && person:
		s, err := a.signInByBrowser(ctx, *p)
		if err == nil {
			p.Session = s.Session
			a.sayf("signed in until %s\n", when(s.ExpiresAt, "you sign out"))
			return s.Token, nil
		}
		if browser || !errors.Is(err, errNoBrowser) {
			return "", err
		}
	}
	return a.askKey(ctx, p.where())
}

// signingIn gives the profile that is made, or signed in to anew.
func (a *app) signingIn(list *profiles) (name string, p profile, err error) {
	name = orEnv(a.flags.profile, "JOINCTL_PROFILE")
	if name == "" {
		name = firstProfile
	}
	if err := checkProfileName(name); err != nil {
		return "", p, err
	}
	named := *a
	named.flags.profile = ""
	at := place{}
	if a.flags.server != "" || a.flags.socket != "" || os.Getenv("JOINCTL_SERVER") != "" || os.Getenv("JOINCTL_SOCKET") != "" {
		if at, err = named.server(); err != nil {
			return "", p, err
		}
	}
	p = list.Profiles[name]
	if at.where() != "" && at.where() != p.where() {
		p = at.profile // another server: nothing of the old one is kept
	}
	if p.where() == "" {
		return "", p, usagef("sign in where? give --server https://js.example.com")
	}
	if org := orEnv(a.flags.organisation, "JOINCTL_ORG"); org != "" {
		p.Organisation = org
	}
	if ca := orEnv(a.flags.serverCA, "JOINCTL_SERVER_CA"); ca != "" {
		p.ServerCA, err = filepath.Abs(ca)
	}
	if p.Socket != "" {
		p.Socket, err = filepath.Abs(p.Socket)
	}
	return name, p, err
}

// keep keeps the credential of a profile, and gives the file in which it is; ""
// for none, where it also forgets the one that was there.
func (p *profiles) keep(name, key string) (string, error) {
	if key == "" {
		_, err := p.forgetKey(name)
		return "", err
	}
	return p.keyFile(name), p.saveKey(name, key)
}

// askKey reads an API key from the file that was named, from a person, or from
// standard input.
func (a *app) askKey(ctx context.Context, where string) (string, error) {
	path := orEnv(a.flags.apiKeyFile, "JOINCTL_API_KEY_FILE")
	if path == "" {
		path = "-"
	}
	f, ok := a.in.(*os.File)
	if path != "-" || !ok || !isTerminal(f) {
		return a.readSecretLine(path, "API key")
	}
	a.sayf("API key for %s (it is not shown): ", clean(where))
	text, err := readHidden(ctx, f)
	a.sayf("\n")
	if err != nil {
		return "", fmt.Errorf("API key: %w", err)
	}
	if text = strings.TrimSpace(text); text == "" {
		return "", errors.New("API key: nothing was typed; nothing was done")
	}
	return text, nil
}

// readHidden reads a line from a terminal that does not show it. An interrupt
// ends it and makes the terminal show again what is typed.
func readHidden(ctx context.Context, f *os.File) (string, error) {
	fd := int(f.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	type result struct {
		text []byte
		err  error
	}
	typed := make(chan result, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		typed <- result{text, err}
	}()
	select {
	case r := <-typed:
		return string(r.text), r.err
	case <-ctx.Done():
		return "", errors.Join(ctx.Err(), term.Restore(fd, before))
	}
}

func (a *app) logoutCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "logout",
		Short: "Sign out of a server",
		Long: `Sign out of the server of the profile in use, or of that which --profile names. What
you signed in with is forgotten on this machine. If it was a browser, the session ends
at the server, too; an API key stays valid until 'joinctl key revoke'. The server's
address stays remembered: 'joinctl profile remove' forgets it as well.`,
		Example: `  joinctl logout
  joinctl logout --profile acme`,
		Args: cobra.NoArgs,
	}
	c.RunE = func(cmd *cobra.Command, _ []string) error { return a.logout(cmd.Context()) }
	return c
}

func (a *app) logout(ctx context.Context) error {
	list, err := loadProfiles()
	if err != nil {
		return err
	}
	name := orEnv(a.flags.profile, "JOINCTL_PROFILE")
	if name == "" {
		name = list.Current
	}
	if name == "" {
		return errors.New("nobody is signed in")
	}
	p, err := list.get(name)
	if err != nil {
		return err
	}
	ended := a.endSession(ctx, p)
	had, err := list.forgetKey(name)
	if err != nil {
		return err
	}
	session := p.Session != 0
	p.APIKeyFile, p.Session = "", 0
	list.Profiles[name] = p
	if err := list.save(); err != nil {
		return err
	}
	out := map[string]any{"profile": name, "forgotten": had, "ended": session && ended == nil}
	switch {
	case !had:
		return a.done(out, "nothing was kept for profile %s", name)
	case !session:
		return a.done(out, "signed out of %s; the key stays valid until it is revoked ('joinctl key list', 'joinctl key revoke')", p.where())
	case ended != nil:
		return a.done(out, "forgotten on this machine; at %s the session goes on until it ends by itself: %v", p.where(), ended)
	}
	return a.done(out, "signed out of %s", p.where())
}

// endSession ends at the server the session that a profile keeps, if it is one.
func (a *app) endSession(ctx context.Context, p profile) error {
	if p.Session == 0 || p.APIKeyFile == "" {
		return nil
	}
	text, err := a.readSecretLine(p.APIKeyFile, "session")
	if err != nil {
		return err
	}
	p.Organisation = "" // it is the person's own
	api, err := a.dial(ctx, p, text)
	if err != nil {
		return err
	}
	defer api.Close()
	return api.EndSession(ctx, p.Session)
}

// identity is who speaks to which server.
type identity struct {
	Profile string `json:"profile,omitzero"`
	Server  string `json:"server,omitzero"`
	Socket  string `json:"socket,omitzero"`
	client.Me
}

func identityOf(p place, me client.Me) identity {
	return identity{Profile: p.name, Server: p.Server, Socket: p.Socket, Me: me}
}

// callerText names a caller for people.
func callerText(me client.Me) string {
	text := nameOf(me)
	if me.Caller.Operator {
		text += ", operator"
	}
	if me.Caller.Organisation != 0 {
		text += ", for " + organisationOf(me)
	}
	return text
}

// nameOf names a person as they are called, and others as the audit log does.
func nameOf(me client.Me) string {
	switch {
	case me.Person == nil:
		return me.Caller.Name
	case me.Person.Email != "":
		return me.Person.Name + " <" + me.Person.Email + ">"
	}
	return me.Person.Name
}

// organisationOf names the organisation for which a caller acts.
func organisationOf(me client.Me) string {
	for _, m := range me.Memberships {
		if m.Organisation == me.Caller.Organisation {
			return m.Name + " (" + m.Organisation.String() + ")"
		}
	}
	return idOr(me.Caller.Organisation, "none")
}

// organisationsOf lists where a person belongs.
func organisationsOf(me client.Me) string {
	var names []string
	for _, m := range me.Memberships {
		names = append(names, m.Name+" ("+string(m.Role)+")")
	}
	return strings.Join(names, ", ")
}

func (a *app) whoamiCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "whoami",
		Short: "Say to which server you speak, and who it takes you for",
		Example: `  joinctl whoami
  joinctl whoami --profile acme --json`,
		Args: cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		at, err := a.place()
		if err != nil {
			return err
		}
		me, err := api.Me(ctx)
		if err != nil {
			return err
		}
		return a.show(identityOf(at, me), func() error {
			by := "the operator socket"
			switch {
			case at.Session != 0:
				by = "a browser, session " + at.Session.String()
			case at.APIKeyFile != "":
				by = "API key in " + at.APIKeyFile
			}
			return a.facts("server", at.where(), "profile", at.name, "by", by, "you", nameOf(me),
				"operator", yesNo(me.Caller.Operator), "organisation", organisationOf(me),
				"belongs to", organisationsOf(me), "may", joined(me.Caller.Scopes))
		})
	})
}
