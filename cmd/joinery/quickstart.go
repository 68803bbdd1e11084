package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"joinery/internal/config"
	"joinery/internal/daemon"
	"joinery/internal/harden"
	"joinery/internal/quickstart"
)

func newQuickstart() *cobra.Command {
	var prepareOnly bool
	options := quickstart.Options{Elements: 10}
	cmd := &cobra.Command{
		Use:   "quickstart",
		Short: "Make a complete server in one directory, and run it",
		Long: `Makes a complete Join Server in one directory: configuration, keys, database, a
small PKI, two Network Servers and an Application Server that it knows, and ten
secure elements fresh from the factory. Then it runs the server and says what to
type next. Where the directory holds such a server already it only runs it.

All keys of all parties lie in that directory: it is for looking around, not for
devices of anybody.`,
		Example: `  joinery quickstart --dir ./quickstart
  joinery quickstart --dir ./quickstart --port 8443 --prepare-only
  joinery quickstart --dir ./quickstart --database postgres:///joinery`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&options.Dir, "dir", "quickstart", "the server's directory")
	cmd.Flags().IntVar(&options.Port, "port", 0, "port for networks; the API and monitoring get the next two (0: free ones)")
	cmd.Flags().Uint64Var(&options.Elements, "elements", options.Elements, "how many secure elements the factory makes")
	cmd.Flags().StringVar(&options.Database, "database", "", "URL of an empty PostgreSQL database (default: a SQLite file in the directory)")
	cmd.Flags().BoolVar(&prepareOnly, "prepare-only", false, "make the server and leave it stopped")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if options.Port < 0 || options.Port > 65533 {
			return errors.New("--port: want 1 to 65533, or 0 for free ports")
		}
		if err := harden.Process(); err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		options.Report = func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
		err := quickstart.Prepare(cmd.Context(), options)
		switch {
		case errors.Is(err, quickstart.ErrPrepared) && !prepareOnly:
			fmt.Fprintf(out, "%s holds a server already: it goes on\n", options.Dir)
		case err != nil:
			return err
		}
		if prepareOnly {
			fmt.Fprintf(out, "ready: joinery serve --config %s\n", filepath.Join(options.Dir, quickstart.ConfigFile))
			return nil
		}
		return runQuickstart(cmd.Context(), options.Dir, out)
	}
	return cmd
}

// runQuickstart runs the server in dir in the foreground.
func runQuickstart(ctx context.Context, dir string, out io.Writer) error {
	c, err := config.Load(filepath.Join(dir, quickstart.ConfigFile))
	if err != nil {
		return err
	}
	p, err := daemon.Open(ctx, c, daemon.Options{Log: daemon.NewLogger(os.Stderr, c.Log)})
	if err != nil {
		return err
	}
	printNext(out, dir, c)
	return errors.Join(p.Run(ctx), p.Close())
}

// printNext says how the first element joins.
func printNext(w io.Writer, dir string, c config.Config) {
	joinEUI, devEUI := quickstart.FirstDevice()
	fmt.Fprintf(w, `
The server runs: networks at https://%[1]s, operators at %[2]s.
In another terminal, type:

  export JOINCTL_SOCKET=%[2]s
  %[9]s import manifest %[3]s --mac-version 1.0.4
  %[9]s device owner-token %[4]v/%[5]v | %[9]s claim %[4]v/%[5]v --owner-token-file - --net-id %[6]v --as-id %[7]s
  %[10]s join --config %[8]s --dev-eui %[5]v

Ctrl-C stops it; the same command starts it again.

`, c.Interop.Address, c.API.Socket, filepath.Join(dir, "sim", "manifest.json"),
		joinEUI, devEUI, quickstart.NetID(), quickstart.ASID, filepath.Join(dir, "sim", "sim.json"),
		beside("joinctl"), beside("joinsim"))
}

// beside names another program as this one was named: by its path, if it was
// not found on the PATH.
func beside(program string) string {
	if filepath.Base(os.Args[0]) == os.Args[0] {
		return program
	}
	return filepath.Join(filepath.Dir(os.Args[0]), program)
}
