package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"joinery/internal/config"
	"joinery/internal/daemon"
)

func newServe() *cobra.Command {
	var successor bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the Join Server",
		Long: `Runs the Join Server until SIGTERM or SIGINT: it then accepts nothing more,
finishes the requests in flight, and ends. SIGHUP reads the interop certificate
anew.

One server holds a database. With --successor this one waits until the running
server lets go, instead of failing: start it, then stop the other.`,
		Example: `  joinery serve --config /etc/joinery/joinery.yaml`,
		Args:    cobra.NoArgs,
	}
	path := configFlag(cmd)
	cmd.Flags().BoolVar(&successor, "successor", false, "wait for the running server to end, then take over")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(*path)
		if err != nil {
			return err
		}
		if err := daemon.Harden(); err != nil {
			return err
		}
		p, err := daemon.Open(cmd.Context(), c, daemon.Options{
			Successor: successor,
			Log:       daemon.NewLogger(os.Stderr, c.Log),
		})
		if err != nil {
			return err
		}
		return errors.Join(p.Run(cmd.Context()), p.Close())
	}
	return cmd
}
