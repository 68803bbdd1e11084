package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"joinery/internal/config"
	"joinery/internal/daemon"
	"joinery/internal/harden"
	"joinery/internal/store"
)

func newMigrate() *cobra.Command {
	var create bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database to this program's schema, make a new one, or move it",
		Long: `Brings the database of the configuration to the schema of this program, step by
step, each in a transaction of its own. The server must not be running, but for
servers on PostgreSQL where a step says that they can live with it; those that
have just stopped are waited for. Make a copy first: there is no way back to an
older schema.

With --create it makes a new database instead: a new SQLite file, or the schema
in a PostgreSQL database that is there and empty. It never replaces one.

With --from and --to it moves the whole state into a new database, of the same
kind or the other. Both must have no server. It can be cut off at any time: given
again it goes on. At the end the old database is marked as moved, and no server
opens it any more, so that nothing is ever answered from both; --undo takes that
back. Devices notice nothing: JoinNonces go on where they stood.`,
		Example: `  joinery migrate --config /etc/joinery/joinery.yaml
  joinery migrate --config /etc/joinery/joinery.yaml --create
  joinery migrate --from sqlite:/var/lib/joinery/joinery.db \
    --to "postgres://joinery@db.example.com/joinery?sslmode=verify-full" --password-file db.password`,
		Args: cobra.NoArgs,
	}
	path := configFlag(cmd)
	cmd.Flags().BoolVar(&create, "create", false, "make a new database where there is none")
	var move moveFlags
	move.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if move.given() {
			return move.run(cmd)
		}
		c, err := config.Load(*path)
		if err != nil {
			return err
		}
		options := daemon.DatabaseOptions(c)
		if create {
			if err := store.Create(cmd.Context(), options); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: made\n", c.Database.Name())
			return nil
		}
		from, to, err := store.Migrate(cmd.Context(), patient(cmd, options))
		if err != nil {
			return err
		}
		if from == to {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: has schema %d already\n", c.Database.Name(), to)
			return nil
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: schema %d is now %d\n", c.Database.Name(), from, to)
		return nil
	}
	return cmd
}

// Exit codes of fsck.
const (
	exitViolations  = 1
	exitCannotCheck = 2
)

func newFsck() *cobra.Command {
	var keys, live, asJSON bool
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "Check every invariant of the database",
		Long: `Checks that everything in the database is as it must be: pages and references,
nonces against activations, owners, bindings, peers, imports and the audit log.
With --keys it also opens the key file and every sealed key, which finds rows
that were swapped, damaged, or belong to another key file.

The server must not be running, unless the database is in PostgreSQL or you give
--live: then the state of one instant is checked while joins go on. With SQLite a
check that takes long keeps the write-ahead log from shrinking. Nothing is changed.
The exit code is 0 when all is well, 1 when something is not, and 2 when it could
not be checked.`,
		Example: `  joinery fsck --config /etc/joinery/joinery.yaml --keys
  joinery fsck --config /etc/joinery/joinery.yaml --live --json`,
		Args: cobra.NoArgs,
	}
	path := configFlag(cmd)
	cmd.Flags().BoolVar(&keys, "keys", false, "open every sealed key, too")
	cmd.Flags().BoolVar(&live, "live", false, "check beside a running server")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print violations as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		found, err := fsck(cmd.Context(), *path, keys, live)
		if err != nil {
			return exitError{exitCannotCheck, fmt.Errorf("cannot check: %w", err)}
		}
		if err := printViolations(cmd.OutOrStdout(), found, keys, asJSON); err != nil {
			return err
		}
		if len(found) > 0 {
			return exitError{code: exitViolations}
		}
		return nil
	}
	return cmd
}

func fsck(ctx context.Context, configFile string, withKeys, live bool) (found []store.Violation, err error) {
	c, err := config.Load(configFile)
	if err != nil {
		return nil, err
	}
	open := store.OpenReadOnly
	if live {
		open = store.OpenLive
	}
	db, err := open(ctx, daemon.DatabaseOptions(c))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if !withKeys {
		return db.Fsck(ctx, nil)
	}
	if err := harden.Process(); err != nil {
		return nil, err
	}
	keys, err := daemon.OpenKeyring(ctx, c, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	return db.Fsck(ctx, keys)
}

// violation is a store.Violation for scripts.
type violation struct {
	Table string `json:"table"`
	ID    string `json:"id"`
	Rule  string `json:"rule"`
	Fix   string `json:"fix"`
}

func printViolations(w io.Writer, found []store.Violation, withKeys, asJSON bool) error {
	if asJSON {
		list := make([]violation, len(found))
		for i, v := range found {
			list[i] = violation(v)
		}
		return printJSON(w, map[string]any{"violations": list, "keysChecked": withKeys})
	}
	for _, v := range found {
		fmt.Fprintln(w, v)
	}
	switch {
	case len(found) > 0:
		fmt.Fprintf(w, "%d violations\n", len(found))
	case withKeys:
		fmt.Fprintln(w, "clean; every sealed key opens")
	default:
		fmt.Fprintln(w, "clean; sealed keys were not opened (--keys)")
	}
	return nil
}
