package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"joinery/internal/daemon"
	"joinery/internal/manual"
)

// exitError ends the program with a code of its own; the message, if any, was
// printed where it belongs.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

// exitInterrupted is what shells give for a program ended by SIGINT.
const exitInterrupted = 130

// run is the program: it gives the exit code, 0 for success, 1 for failure or
// what the command says.
func run(args []string, stdout, stderr io.Writer) int {
	// The first signal asks to stop; after it a second one ends the program at
	// once, as everybody expects.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	cmd := newRoot()
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(stderr, "joinery: interrupted")
		return exitInterrupted
	}
	exit, ok := errors.AsType[exitError](err)
	if !ok || exit.err != nil {
		fmt.Fprintf(stderr, "joinery: %v\n", err)
	}
	if ok {
		return exit.code
	}
	return 1
}

func newRoot() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "joinery",
		Short: "LoRaWAN Join Server",
		Long: `joinery is a LoRaWAN Join Server for devices whose root keys nobody has seen.

It answers join-requests that Network Servers send over LoRaWAN Backend
Interfaces. To look around, let it make a complete server in one directory:

  joinery quickstart --dir ./quickstart

A running server is administered with joinctl, through its API.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	cmd.CompletionOptions.HiddenDefaultCmd = true
	return group(cmd,
		newServe(), newQuickstart(),
		newMigrate(), newFsck(), newBackup(), newRestore(),
		newConfig(),
		newCeremony(), newFactory(), newRotate(), newExport(),
		newVersion(), manual.WithExample("joinery"),
	)
}

// group makes a command that only holds others: alone it shows its help, and a
// word that it does not know is an error.
func group(cmd *cobra.Command, commands ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(commands...)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("unknown command %q; see `%s --help`", args[0], cmd.CommandPath())
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "joinery %s (%s, %s/%s)\n", daemon.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}

// configFlag adds --config and returns where its value will be.
func configFlag(cmd *cobra.Command) *string {
	path := os.Getenv("JOINERY_CONFIG")
	if path == "" {
		path = "joinery.yaml"
	}
	return cmd.Flags().StringP("config", "c", path, "the server's configuration file ($JOINERY_CONFIG)")
}
