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
	c := &cobra.Command{
		Use:   "login",
		Short: "Sign in to a server, and remember it",
		Long: `Sign in to a server with an API key, and remember server and key as a profile: all
commands then go there. The key is asked for without showing it, or read from
standard input, or with --api-key-file from a file. It is tried before it is kept, in
a file that only you can read.

--profile names the profile (else 'default'); with several, --profile and
JOINCTL_PROFILE choose between them, and 'joinctl profile use' sets the usual one.
--org remembers for which organisation to act, --server-ca the CA of the server.`,
		Example: `  joinctl login --server https://js.example.com
  joinctl login --server https://js.example.com --profile acme --server-ca ca.crt --org Acme < acme.key
  joinctl key make "my laptop" --operator | joinctl login --server http://127.0.0.1:8080 --profile ops
  joinctl login --socket /run/joinery/joinery.sock --profile here`,
		Args: cobra.NoArgs,
	}
	c.RunE = func(cmd *cobra.Command, _ []string) error { return a.login(cmd.Context()) }
	return c
}

// login tries a server and a key, and keeps both.
func (a *app) login(ctx context.Context) error {
	list, err := loadProfiles()
	if err != nil {
		return err
	}
	name, p, err := a.signingIn(list)
	if err != nil {
		return err
	}
	key := ""
	if p.Socket == "" || a.flags.apiKeyFile != "" {
		if key, err = a.askKey(ctx, p.where()); err != nil {
			return err
		}
	}
	api, err := a.dial(ctx, p, key)
	if err != nil {
		return err
	}
	defer api.Close()
	status, err := api.Status(ctx)
	if err != nil {
		return err
	}
	if status.Caller.Operator && status.Caller.Organisation != 0 && p.Organisation != "" { // by its id, so that it need not be looked up again
		p.Organisation = status.Caller.Organisation.String()
	}
	if p.APIKeyFile, err = list.keep(name, key); err != nil {
		return err
	}
	list.Profiles[name], list.Current = p, name
	if err := list.save(); err != nil {
		return err
	}
	return a.done(identityOf(place{p, name}, status), "signed in to %s as %s; it is remembered as profile %s", p.where(), callerText(status.Caller), name)
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
	if path := orEnv(a.flags.apiKeyFile, "JOINCTL_API_KEY_FILE"); path != "" {
		return a.readSecretLine(path, "API key")
	}
	f, ok := a.in.(*os.File)
	if !ok || !isTerminal(f) {
		return a.readSecretLine("-", "API key")
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
		Short: "Forget the API key of a profile on this machine",
		Long: `Forget the API key of the profile in use, or of that which --profile names, on this
machine. The server's address stays remembered, and the key itself stays valid: what
ends it is 'joinctl key revoke'. 'joinctl profile remove' forgets the server, too.`,
		Example: `  joinctl logout
  joinctl logout --profile acme`,
		Args: cobra.NoArgs,
	}
	c.RunE = func(*cobra.Command, []string) error {
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
		had, err := list.forgetKey(name)
		if err != nil {
			return err
		}
		p.APIKeyFile = ""
		list.Profiles[name] = p
		if err := list.save(); err != nil {
			return err
		}
		if !had {
			return a.done(map[string]any{"profile": name, "forgotten": false}, "no API key was kept for profile %s", name)
		}
		return a.done(map[string]any{"profile": name, "forgotten": true},
			"signed out of %s; the key stays valid until it is revoked ('joinctl key list', 'joinctl key revoke')", p.where())
	}
	return c
}

// identity is who speaks to which server.
type identity struct {
	Profile string        `json:"profile,omitzero"`
	Server  string        `json:"server,omitzero"`
	Socket  string        `json:"socket,omitzero"`
	Caller  client.Caller `json:"caller"`
}

func identityOf(p place, s client.Status) identity {
	return identity{Profile: p.name, Server: p.Server, Socket: p.Socket, Caller: s.Caller}
}

// callerText names a caller for people.
func callerText(c client.Caller) string {
	text := c.Name
	if c.Operator {
		text += ", operator"
	}
	if c.Organisation != 0 {
		text += ", for " + c.Organisation.String()
	}
	return text
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
		s, err := api.Status(ctx)
		if err != nil {
			return err
		}
		return a.show(identityOf(at, s), func() error {
			by := "the operator socket"
			if at.APIKeyFile != "" {
				by = "API key in " + at.APIKeyFile
			}
			return a.facts("server", at.where(), "profile", at.name, "by", by, "you", s.Caller.Name,
				"operator", yesNo(s.Caller.Operator), "organisation", idOr(s.Caller.Organisation, "none"))
		})
	})
}
