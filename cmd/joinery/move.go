package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"joinery/internal/config"
	"joinery/internal/store"
)

// moveFlags are those of migrate that move state from one database to another.
type moveFlags struct {
	from, to, passwordFile string
	undo                   bool
}

func (f *moveFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.from, "from", "", "move the state out of this database: sqlite:PATH or postgres://…")
	cmd.Flags().StringVar(&f.to, "to", "", "move the state into this new database: sqlite:PATH or postgres://…")
	cmd.Flags().StringVar(&f.passwordFile, "password-file", "", "file with the password of the PostgreSQL database that is moved from or to")
	cmd.Flags().BoolVar(&f.undo, "undo", false, "take up the database of --from again, whose state was moved or is on its way")
	cmd.MarkFlagsMutuallyExclusive("to", "undo", "create")
	cmd.MarkFlagsMutuallyExclusive("from", "create")
	cmd.MarkFlagsMutuallyExclusive("from", "config")
}

func (f *moveFlags) given() bool { return f.from != "" || f.to != "" || f.undo }

// run moves, or takes a move back.
func (f *moveFlags) run(cmd *cobra.Command) error {
	if f.from == "" || f.to == "" && !f.undo {
		return errors.New("give both --from and --to, or --from and --undo")
	}
	from, fromName, err := f.database("--from", f.from)
	if err != nil {
		return err
	}
	if f.undo {
		return f.takeBack(cmd, from, fromName)
	}
	to, toName, err := f.database("--to", f.to)
	if err != nil {
		return err
	}
	rows, err := store.MoveState(cmd.Context(), store.Move{
		From: patient(cmd, from), To: to, FromName: fromName, ToName: toName, Actor: actor("migrate"),
		Progress: rowsProgress(cmd.ErrOrStderr()),
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: has the state of %s now, %d rows; name it in the configuration, and start the server\n"+
		"%s: is served no more\n", toName, fromName, rows, fromName)
	return nil
}

func (f *moveFlags) takeBack(cmd *cobra.Command, o store.Options, name string) error {
	fence, err := store.UndoMove(cmd.Context(), patient(cmd, o), actor("migrate --undo"))
	if err != nil {
		return err
	}
	if fence.Up() {
		fmt.Fprintf(cmd.OutOrStdout(), "%s: can be served again, fenced: %s. When the other database is gone for good: joinery restore confirm\n", name, fence.Note)
		return nil
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: can be served again, as before unless it is a copy itself; remove what was copied\n", name)
	return nil
}

// serversGone is for how long servers that have just stopped are waited for.
const serversGone = 10 * time.Second

// patient has a database in PostgreSQL waited for until servers that have just stopped
// are gone there, too, and says so.
func patient(cmd *cobra.Command, o store.Options) store.Options {
	o.Patience = serversGone
	o.Waiting = func() {
		fmt.Fprintf(cmd.ErrOrStderr(), "servers have the database open; waiting up to %s, in case they have just stopped\n", serversGone)
	}
	return o
}

// database reads the name of a database. Its error never repeats a URL, which
// may hold a password.
func (f *moveFlags) database(flag, text string) (o store.Options, name string, err error) {
	path, isFile := strings.CutPrefix(text, "sqlite:")
	switch {
	case isFile && path != "":
		if path, err = filepath.Abs(path); err != nil {
			return o, "", err
		}
		return store.Options{Path: path}, "sqlite:" + path, nil
	case strings.HasPrefix(text, "postgres://"), strings.HasPrefix(text, "postgresql://"):
		if err := (config.Database{URL: text}).Check(); err != nil {
			return o, "", fmt.Errorf("%s: %w", flag, err)
		}
		return store.Options{URL: text, PasswordFile: f.passwordFile}, text, nil
	}
	return o, "", fmt.Errorf("%s: want sqlite:PATH or postgres://user@host/database?…", flag)
}
