package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"joinery/internal/config"
	"joinery/internal/store"
)

func newMigrate() *cobra.Command {
	var create bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database to this program's schema, or make a new one",
		Long: `Brings the database of the configuration to the schema of this program, step by
step, each in a transaction of its own. The server must not be running. Make a
copy first: there is no way back to an older schema.

With --create it makes a new, empty database instead. It never replaces one.`,
		Example: `  joinery migrate --config /etc/joinery/joinery.yaml
  joinery migrate --config /etc/joinery/joinery.yaml --create`,
		Args: cobra.NoArgs,
	}
	path := configFlag(cmd)
	cmd.Flags().BoolVar(&create, "create", false, "make a new database where there is none")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(*path)
		if err != nil {
			return err
		}
		options := store.Options{Path: c.Database.Path}
		if create {
			if err := store.Create(cmd.Context(), options); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: made\n", c.Database.Path)
			return nil
		}
		from, to, err := store.Migrate(cmd.Context(), options)
		if err != nil {
			return err
		}
		if from == to {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: has schema %d already\n", c.Database.Path, to)
			return nil
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: schema %d is now %d\n", c.Database.Path, from, to)
		return nil
	}
	return cmd
}
