package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"joinery"
	"joinery/client"

	"github.com/spf13/cobra"
)

// Exit codes. Scripts may rely on them.
const (
	exitDone    = 0
	exitFailed  = 1 // the server refused, or something could not be read
	exitUsage   = 2 // the command line is wrong; nothing was done
	exitPartial = 3 // done, but some rows of a file were refused
)

// defaultSocket is where the packaged server has its operator socket.
const defaultSocket = "/run/joinery/joinery.sock"

// app is one run of the program.
type app struct {
	in       io.Reader
	out, err io.Writer
	flags    globalFlags
}

// globalFlags are the flags of every command.
type globalFlags struct {
	socket, server, apiKeyFile, serverCA, organisation string
	json                                               bool
}

// errPartial says that a command did its work, though not all of it.
var errPartial = errors.New("some rows were refused")

// usageError is a wrong command line.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run is the program, but for the process around it.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{in: in, out: out, err: errOut}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errPartial):
		return exitPartial
	}
	a.sayf("joinctl: %v\n", err)
	if hint := hintFor(err); hint != "" {
		a.sayf("next: %s\n", hint)
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

// sayf writes to people: what goes to standard output is for programs, too.
func (a *app) sayf(format string, args ...any) {
	_, _ = fmt.Fprintf(a.err, format, args...) // there is nowhere else to say it
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "joinctl",
		Short: "Speak to a Joinery LoRaWAN Join Server",
		Long: `joinctl speaks to a Joinery server over its HTTP API.

On the server's own machine it uses the operator socket, where root and the
server's user need no credential. From elsewhere it needs --server and an API
key, which 'joinctl key make' makes on the socket.

A device is written as JOINEUI/DEVEUI, as its DevEUI alone where that is not
ambiguous, or by its id (dev_…). Peers and organisations go by name or id, KEKs
by label or id.

Exit codes: 0 done, 1 failed, 2 wrong command line (nothing was done), 3 done in
part (some rows of a file were refused).`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
	}
	f := root.PersistentFlags()
	f.StringVar(&a.flags.socket, "socket", "", "path of the operator socket (JOINCTL_SOCKET; default "+defaultSocket+")")
	f.StringVar(&a.flags.server, "server", "", "base URL of a server instead, as https://js.example.com (JOINCTL_SERVER)")
	f.StringVar(&a.flags.apiKeyFile, "api-key-file", "", "file with the text of an API key (JOINCTL_API_KEY_FILE)")
	f.StringVar(&a.flags.serverCA, "server-ca", "", "PEM file of the CA that --server's certificate is under (JOINCTL_SERVER_CA; default: the system's)")
	f.StringVar(&a.flags.organisation, "org", "", "organisation to act for, for operators: id or name (JOINCTL_ORG)")
	f.BoolVar(&a.flags.json, "json", false, "write JSON for programs instead of text for people")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%w (see '%s --help')", err, c.CommandPath())
	})
	root.AddGroup(
		&cobra.Group{ID: "devices", Title: "Devices:"},
		&cobra.Group{ID: "networks", Title: "Networks and Application Servers:"},
		&cobra.Group{ID: "server", Title: "The server and who may use it:"},
	)
	for group, commands := range map[string][]*cobra.Command{
		"devices":  {a.deviceCommand(), a.claimCommand(), a.bindCommand(), a.unbindCommand(), a.manifestCommand(), a.importCommand(), a.sealCommand()},
		"networks": {a.peerCommand(), a.kekCommand(), a.roamingCommand()},
		"server":   {a.statusCommand(), a.orgCommand(), a.rangeCommand(), a.signerCommand(), a.keyCommand(), a.auditCommand(), a.eventsCommand(), a.webhookCommand()},
	} {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	markUsage(root)
	return root
}

// markUsage makes wrong arguments and missing flags of every command usage
// errors, and the bare name of a group of commands its help.
func markUsage(c *cobra.Command) {
	if c.HasSubCommands() && c.RunE == nil {
		c.Args = cobra.ArbitraryArgs
		c.SuggestionsMinimumDistance = 2
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			if like := c.SuggestionsFor(args[0]); len(like) > 0 {
				return usagef("%s has no such command; do you mean %s?", c.CommandPath(), strings.Join(like, " or "))
			}
			return usagef("%s has no such command (see '%s --help')", c.CommandPath(), c.CommandPath())
		}
	}
	check := c.Args
	c.Args = func(c *cobra.Command, args []string) error {
		var err error
		if check != nil {
			err = check(c, args)
		}
		if err == nil {
			err = c.ValidateRequiredFlags()
		}
		if err != nil {
			return usagef("%w; usage: %s (see '%s --help')", err, c.UseLine(), c.CommandPath())
		}
		return nil
	}
	for _, sub := range c.Commands() {
		markUsage(sub)
	}
}

// command makes a command whose work is do, with a client at hand.
func (a *app) command(c *cobra.Command, do func(ctx context.Context, c *client.Client, args []string) error) *cobra.Command {
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		defer api.Close()
		return do(cmd.Context(), api, args)
	}
	return c
}

// connect makes the client that flags and environment describe. Flags go before
// the environment, so that a script's setting can be overridden by hand.
func (a *app) connect(ctx context.Context) (*client.Client, error) {
	opt, err := a.options()
	if err != nil {
		return nil, err
	}
	api, err := client.New(opt)
	if err != nil {
		return nil, usageError{err}
	}
	org := orEnv(a.flags.organisation, "JOINCTL_ORG")
	if org == "" {
		return api, nil
	}
	defer api.Close()
	if opt.Organisation, err = findOrganisation(ctx, api, org); err != nil {
		return nil, err
	}
	return client.New(opt)
}

func (a *app) options() (client.Options, error) {
	opt := client.Options{Socket: a.flags.socket, Server: a.flags.server, UserAgent: "joinctl/" + version()}
	if opt.Socket != "" && opt.Server != "" {
		return opt, usagef("give --socket or --server, not both")
	}
	if opt.Socket == "" && opt.Server == "" {
		opt.Socket, opt.Server = os.Getenv("JOINCTL_SOCKET"), os.Getenv("JOINCTL_SERVER")
		if opt.Socket != "" && opt.Server != "" {
			return opt, usagef("JOINCTL_SOCKET and JOINCTL_SERVER are both set; unset one, or give --socket or --server")
		}
		if opt.Socket == "" && opt.Server == "" {
			opt.Socket = defaultSocket
		}
	}
	if path := orEnv(a.flags.apiKeyFile, "JOINCTL_API_KEY_FILE"); path != "" {
		key, err := a.readSecretLine(path, "API key")
		if err != nil {
			return opt, err
		}
		opt.APIKey = key
	}
	if path := orEnv(a.flags.serverCA, "JOINCTL_SERVER_CA"); path != "" {
		pem, err := os.ReadFile(path)
		if err != nil {
			return opt, fmt.Errorf("CA of the server: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return opt, fmt.Errorf("CA of the server: %s holds no PEM certificate", path)
		}
		opt.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return opt, nil
}

func orEnv(flag, name string) string {
	if flag != "" {
		return flag
	}
	return os.Getenv(name)
}

// hintFor says what to do about an error, where that is known.
func hintFor(err error) string {
	if errors.Is(err, client.ErrUnreachable) {
		switch {
		case errors.Is(err, os.ErrPermission):
			return "the operator socket is for root and the server's own user: use sudo, or --server with --api-key-file"
		case errors.Is(err, os.ErrNotExist):
			return "no socket is there: is the server running? name its socket with --socket or JOINCTL_SOCKET, or its address with --server"
		}
		return "is the server running, and is that its address? see --socket and --server"
	}
	p, ok := errors.AsType[*client.Problem](err)
	if !ok {
		return ""
	}
	switch p.Code {
	case joinery.CodeInvalid:
		if strings.Contains(p.Detail, "for which organisation") {
			return "name it with --org; 'joinctl org list' lists them, 'joinctl org add' adds one"
		}
	case joinery.CodeUnauthenticated:
		return "make an API key on the server's machine with 'joinctl key make NAME' and name its file with --api-key-file"
	case joinery.CodeForbidden:
		return "'joinctl status' says who the server takes you for"
	case joinery.CodeInternal:
		if p.RequestID != "" {
			return "the server's log has the cause under request " + p.RequestID
		}
	case joinery.CodeUnavailable:
		return "try again in a moment; 'joinctl status' says whether the server is ready"
	}
	return ""
}

// version is the module's version, as the Go toolchain stamped it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "devel"
	}
	return strings.TrimSuffix(info.Main.Version, "+dirty")
}
