package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"joinery/internal/config"
	"joinery/internal/daemon"
	"joinery/internal/harden"
)

func newServe() *cobra.Command {
	var successor, migrate bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the Join Server",
		Long: `Runs the Join Server until SIGTERM or SIGINT: it then accepts nothing more,
finishes the requests in flight, and ends. SIGHUP reads the TLS certificates
and the key file anew, or has a hardware token opened anew by another process in
the place of the one that has it, without a failed join; a PIN that was refused is
tried again then. SIGUSR1 replaces that process, and nothing else. Sockets that systemd opened are used under the names interop, api,
api-tls, api-socket and ops.

With --successor it takes over from the server that runs with the same
configuration: it opens keys and certificate, gets the listening sockets, and
then the database. No connection is refused and no request fails; the other
server ends when its last connection has. Where this one cannot start, the other
goes on. SIGUSR2 to a running server starts its program anew in this way.

One server holds a database. With --migrate a successor of another version brings
it to its own schema on the way; the other server cannot take it back after that,
so make a copy first. Where no server can hand over but another process
holds the database, --successor waits for that.`,
		Example: `  joinery serve --config /etc/joinery/joinery.yaml
  joinery serve --config /etc/joinery/joinery.yaml --successor`,
		Args: cobra.NoArgs,
	}
	path := configFlag(cmd)
	cmd.Flags().BoolVar(&successor, "successor", false, "take over from the running server")
	cmd.Flags().BoolVar(&migrate, "migrate", false, "first bring an older database to this program's schema")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(*path)
		if err != nil {
			return err
		}
		if err := harden.Process(); err != nil {
			return err
		}
		p, err := daemon.Open(cmd.Context(), c, daemon.Options{
			Successor: successor,
			Migrate:   migrate,
			Upgrade:   successorCommand(os.Args, successor),
			Custody:   custodyCommand(c, *path),
			Log:       daemon.NewLogger(os.Stderr, c.Log),
		})
		if err != nil {
			return err
		}
		return errors.Join(p.Run(cmd.Context()), p.Close())
	}
	return cmd
}

// successorCommand is how this program, started as args, is started as its own
// successor; nil where it cannot be found again.
func successorCommand(args []string, successor bool) []string {
	program, err := exec.LookPath(args[0])
	if err == nil {
		program, err = filepath.Abs(program)
	}
	if err != nil {
		return nil
	}
	command := append([]string{program}, args[1:]...)
	if !successor {
		command = append(command, "--successor")
	}
	return command
}
