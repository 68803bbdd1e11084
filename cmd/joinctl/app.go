package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"joinery/client"
	"joinery/internal/manual"

	"github.com/spf13/cobra"
)

// Exit codes. Scripts may rely on them.
const (
	exitDone    = 0
	exitFailed  = 1 // the server refused, or something could not be read
	exitUsage   = 2 // the command line is wrong; nothing was done
	exitPartial = 3 // done, but some rows of a file were refused
)

// app is one run of the program.
type app struct {
	in       io.Reader
	out, err io.Writer
	flags    globalFlags
	// anyOrg acts for no organisation, whatever flags and environment say.
	anyOrg bool
}

// globalFlags are the flags of every command.
type globalFlags struct {
	profile, socket, server, apiKeyFile, serverCA, organisation string
	json                                                        bool
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
server's user need no credential. From elsewhere 'joinctl login --server URL'
signs in with an API key, which 'joinctl key make' makes on the socket, and
remembers both as a profile; --server and --api-key-file do without.

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
	f.StringVar(&a.flags.profile, "profile", "", "server that 'joinctl login' remembered, by its name (JOINCTL_PROFILE)")
	f.StringVar(&a.flags.socket, "socket", "", "path of the operator socket (JOINCTL_SOCKET; default "+defaultSocket+")")
	f.StringVar(&a.flags.server, "server", "", "base URL of a server instead, as https://js.example.com (JOINCTL_SERVER)")
	f.StringVar(&a.flags.apiKeyFile, "api-key-file", "", "file with the text of an API key; - for standard input (JOINCTL_API_KEY_FILE)")
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
		&cobra.Group{ID: "you", Title: "You and this machine:"},
	)
	for group, commands := range map[string][]*cobra.Command{
		"devices":  {a.deviceCommand(), a.claimCommand(), a.labelCommand(), a.bindCommand(), a.unbindCommand(), a.releaseCommand(), a.transferCommand(), a.rekeyCommand(), a.tokenCommand(), a.batchCommand(), a.serviceCommand(), a.disputeCommand(), a.attestCommand(), a.productCommand(), a.manifestCommand(), a.importCommand(), a.sealCommand(), a.exportCommand(), a.firmwareCommand()},
		"networks": {a.peerCommand(), a.kekCommand(), a.roamingCommand()},
		"server":   {a.statusCommand(), a.unsealCommand(), a.orgCommand(), a.personCommand(), a.operatorCommand(), a.rangeCommand(), a.signerCommand(), a.keyCommand(), a.auditCommand(), a.eventsCommand(), a.webhookCommand(), a.planCommand(), a.reportCommand(), a.serverCommand()},
	} {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	for _, c := range []*cobra.Command{a.loginCommand(), a.logoutCommand(), a.whoamiCommand(), a.profileCommand(), manual.WithExample("joinctl")} {
		c.GroupID = "you"
		root.AddCommand(c)
	}
	explain := a.deviceExplainCommand() // what people ask most, also without 'device' before it
	explain.GroupID = "devices"
	root.AddCommand(explain)
	root.SetCompletionCommandGroupID("you")
	root.SetHelpCommandGroupID("you")
	addAliases(root)
	markUsage(root)
	a.completeArguments(root)
	return root
}

// aliases are other words for commands, for who is used to them.
var aliases = map[string][]string{"list": {"ls"}, "show": {"get"}, "delete": {"rm"}, "remove": {"rm"}}

// addAliases gives every command the other words for its name, and every group
// of commands its plural.
func addAliases(c *cobra.Command) {
	for _, sub := range c.Commands() {
		sub.Aliases = append(sub.Aliases, aliases[sub.Name()]...)
		if sub.HasSubCommands() && !c.HasParent() && len(sub.Aliases) == 0 {
			sub.Aliases = []string{sub.Name() + "s"}
		}
		addAliases(sub)
	}
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

// version is the module's version, as the Go toolchain stamped it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "devel"
	}
	return strings.TrimSuffix(info.Main.Version, "+dirty")
}
