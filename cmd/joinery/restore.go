package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"joinery/internal/backup"
	"joinery/internal/config"
	"joinery/internal/daemon"
	"joinery/internal/harden"
	"joinery/internal/keyring"
	"joinery/internal/store"
	"joinery/lorawan"
)

// exitRestoredWithFaults is restore's exit code where the database is there, and
// fenced, but should not be confirmed as it is.
const exitRestoredWithFaults = 3

func newRestore() *cobra.Command {
	var identityFile string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a new database from a backup; it answers no joins until confirmed",
		Long: `Makes the database of the configuration from a backup. There must be none yet:
nothing is ever overwritten. It appears when it is complete. Then the key file is
opened and everything is checked: every invariant, every sealed key, every master
key that devices need. What is missing is told. FILE may be - for standard input.

The new database is fenced: a server that opens it refuses joins. Devices may have
joined since the backup was taken, and would be given the same JoinNonces again.
Sessions, sign-ins under way and invitations end with it: some may have ended since.
API keys stay as they were in the backup; revoke again those that were revoked since.
Make sure that no other server answers for these devices, and then:

  joinery restore confirm --config …

The exit code is 0 when all is well, 1 when nothing was restored, and 3 when the
database is there but something in it or in the key file is not as it must be.`,
		Example: `  joinery restore joinery-2026-11-22.backup --identity-file backup.identity --config /etc/joinery/joinery.yaml
  joinery restore confirm --config /etc/joinery/joinery.yaml`,
		Args: cobra.ExactArgs(1),
	}
	cmd.AddCommand(newRestoreConfirm(), newRestoreFence())
	path := configFlag(cmd)
	cmd.Flags().StringVarP(&identityFile, "identity-file", "i", "", "file with an age identity that opens the backup")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what was restored, and what is missing, as JSON")
	require(cmd, "identity-file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := config.Load(*path)
		if err != nil {
			return err
		}
		r := &restoring{config: c}
		switch err := r.run(cmd, args[0], identityFile); {
		case errors.Is(err, store.ErrPublished):
			return exitError{exitRestoredWithFaults, fmt.Errorf("restored and fenced, but do not confirm it before this is clear: %w", err)}
		case err != nil:
			return fmt.Errorf("nothing was restored: %w", err)
		}
		return r.report(cmd.OutOrStdout(), asJSON)
	}
	return cmd
}

// restoring is one run of restore.
type restoring struct {
	config  config.Config
	draft   *store.Draft
	summary backup.Summary
	faults  faults
}

// run makes the database, or leaves nothing.
func (r *restoring) run(cmd *cobra.Command, file, identityFile string) (err error) {
	ctx := cmd.Context()
	defer func() {
		if r.draft != nil {
			err = errors.Join(err, r.draft.Discard()) // nothing is left to discard of a published one
		}
	}()
	if r.summary, err = readBackup(ctx, file, identityFile, cmd.InOrStdin(), r, rowsProgress(cmd.ErrOrStderr())); err != nil {
		return err
	}
	note := fmt.Sprintf("restored from the backup of %s", r.summary.TakenAt.Format(time.RFC3339))
	if err := r.draft.Fence(note, actor("restore")); err != nil {
		return err
	}
	if r.faults, err = findFaults(ctx, r.config, r.draft.Fsck, r.draft.Masters); err != nil {
		return err
	}
	return r.draft.Publish()
}

// Begin implements backup.Target.
func (r *restoring) Begin(ctx context.Context, h backup.Header) (err error) {
	r.draft, err = store.NewDraft(ctx, daemon.DatabaseOptions(r.config), h.Schema)
	return err
}

// Tables implements backup.Target.
func (r *restoring) Tables() []string { return r.draft.Tables() }

// Columns implements backup.Target.
func (r *restoring) Columns(table string) []string { return r.draft.Columns(table) }

// Insert implements backup.Target.
func (r *restoring) Insert(ctx context.Context, table string, rows [][]any) error {
	return r.draft.Insert(ctx, table, rows)
}

func (r *restoring) report(w io.Writer, asJSON bool) error {
	if asJSON {
		err := printJSON(w, struct {
			backup.Summary
			Database string `json:"database"`
			Fenced   bool   `json:"fenced"`
			// Ended is what of the backup does not come back.
			Ended store.Ended `json:"ended"`
			faults
		}{r.summary, r.config.Database.Name(), true, r.draft.Ended(), r.faults})
		if err != nil {
			return err
		}
		return r.faults.exit()
	}
	fmt.Fprintf(w, "%s: restored, as of %s: %d devices, %d joins, %d rows in all\n", r.config.Database.Name(),
		r.summary.TakenAt.Format(time.RFC3339), r.summary.Tables["device"], r.summary.Tables["activation"], r.summary.Rows)
	r.faults.print(w)
	ended := r.draft.Ended()
	fmt.Fprintf(w, "%d sessions and %d invitations of the backup were ended: everybody signs in anew. API keys are as they were in the\n"+
		"backup: one that was revoked since is valid again. Look with joinctl key list, and revoke those that are too many.\n", ended.Sessions, ended.Invitations)
	fmt.Fprint(w, "It is fenced: joins are refused. When no other server answers for these devices any more:\n"+
		"  joinery restore confirm\n")
	return r.faults.exit()
}

// faults are what must be mended before a restored database is confirmed.
type faults struct {
	// Keys says why the key file could not be opened; "" where it was.
	Keys       string      `json:"keyFile,omitempty"`
	Masters    []string    `json:"masters,omitempty"`
	Violations []violation `json:"violations,omitempty"`
}

func (f faults) none() bool { return f.Keys == "" && len(f.Masters) == 0 && len(f.Violations) == 0 }

func (f faults) exit() error {
	if f.none() {
		return nil
	}
	return exitError{code: exitRestoredWithFaults}
}

// maxFaultsShown bounds what a person is shown of each kind.
const maxFaultsShown = 20

func (f faults) print(w io.Writer) {
	if f.none() {
		fmt.Fprintln(w, "Every invariant holds, every sealed key opens, every master key is there.")
		return
	}
	if f.Keys != "" {
		fmt.Fprintf(w, "MISSING: the key file: %s\n"+
			"  Put server.age and what unlocks it back from their own copy; then see joinery fsck --keys.\n", f.Keys)
	}
	for _, m := range f.Masters {
		fmt.Fprintf(w, "MISSING: %s\n", m)
	}
	for _, v := range f.Violations[:min(len(f.Violations), maxFaultsShown)] {
		fmt.Fprintf(w, "VIOLATION: %s\n", store.Violation(v))
	}
	if n := len(f.Violations) - maxFaultsShown; n > 0 {
		fmt.Fprintf(w, "and %d more; joinery fsck --keys lists them\n", n)
	}
}

// findFaults opens the key file and checks everything with it; without the key
// file it checks what can be checked.
func findFaults(ctx context.Context, c config.Config, fsck func(context.Context, store.Checker) ([]store.Violation, error), needed func() ([]store.Master, error)) (f faults, err error) {
	var check store.Checker
	var have []keyring.Master
	keys, err := daemon.OpenKeyring(ctx, c, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Keys = err.Error()
	} else {
		defer func() { err = errors.Join(err, keys.Close()) }()
		check, have = keys, keys.Masters()
	}
	need, err := needed()
	if err != nil {
		return f, err
	}
	f.Masters = missingMasters(need, have)
	found, err := fsck(ctx, check)
	for _, v := range found {
		f.Violations = append(f.Violations, violation(v))
	}
	return f, err
}

// missingMasters says which master keys are needed and not there, or are others
// of the same name.
func missingMasters(need []store.Master, have []keyring.Master) (missing []string) {
	by := map[string]keyring.Master{}
	for _, m := range have {
		by[m.Name] = m
	}
	for _, n := range need {
		what := fmt.Sprintf("master key %s, of %d key sets", n.Name, n.KeySets)
		if n.KCV != "" {
			what += fmt.Sprintf(" (check value %s, profile %s)", n.KCV, n.Profile)
		}
		h, found := by[n.Name]
		switch {
		case !found:
			missing = append(missing, what+": it is not in the key file")
		case n.KCV != "" && (h.KCV != n.KCV || h.Profile != n.Profile):
			missing = append(missing, fmt.Sprintf("%s: the key file has another one of that name (check value %s, profile %s)", what, h.KCV, h.Profile))
		}
	}
	return missing
}

func newRestoreConfirm() *cobra.Command {
	var jump uint32
	var earlier int
	var despite, asJSON bool
	cmd := &cobra.Command{
		Use:   "confirm",
		Short: "Say that this database counts, so that joins are answered again",
		Long: `Takes the fence of the database down: after a restore, or after a server found
that its database is a copy or older than what it had answered before. The server
must not be running.

Confirm only when no other server answers for these devices and none will. Then:

1. Everything is checked, with the key file, as restore does.
2. The JoinNonce of every key set jumps, by 65,536 unless you say otherwise: more
   than any device can have used up by joining under one JoinEUI since the copy was
   taken. What a device was given before is so never given again. A device whose
   JoinNonces end there is listed, and refused from then on.
   Where the same state, or one that came from it, was confirmed before and is lost,
   they jump above that as well: it stands in files confirmed-… beside the key file
   and the database. Where those are lost, too, or it was confirmed on another
   machine, say with --earlier-confirmations how often: 0 is never.
3. Joins are answered when the server starts.

It can be cut off at any time: given again it goes on. Take a new backup right
behind it.`,
		Example: `  joinery restore confirm --config /etc/joinery/joinery.yaml
  joinery restore confirm --config /etc/joinery/joinery.yaml --earlier-confirmations 1`,
		Args: cobra.NoArgs,
	}
	path := configFlag(cmd)
	cmd.Flags().Uint32Var(&jump, "jump", 0, "by how much JoinNonces rise (default 65536)")
	cmd.Flags().IntVar(&earlier, "earlier-confirmations", 0, "how many confirmations were made, anywhere, since this state was taken (default: what is noted here)")
	cmd.Flags().BoolVar(&despite, "despite-faults", false, "confirm although something is missing or violated")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what was done as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("jump") && jump == 0 {
			return errors.New("--jump: at least 1; without a jump JoinNonces would be issued again")
		}
		c, err := config.Load(*path)
		if err != nil {
			return err
		}
		if err := harden.Process(); err != nil {
			return err
		}
		if jump != 0 && lorawan.JoinNonce(jump) < store.DefaultJump {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: a device that joined more than %d times since this state was taken is given JoinNonces again, and does not join until they are above its own\n", jump)
		}
		o := store.Confirmation{Jump: lorawan.JoinNonce(jump), Actor: actor("restore confirm")}
		if cmd.Flags().Changed("earlier-confirmations") {
			o.Earlier = &earlier
		}
		done, err := confirm(cmd, c, o, despite)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), confirmedJSON(done))
		}
		printConfirmed(cmd.OutOrStdout(), c.Database.Name(), done)
		return nil
	}
	return cmd
}

func confirm(cmd *cobra.Command, c config.Config, o store.Confirmation, despite bool) (done store.Confirmed, err error) {
	ctx := cmd.Context()
	db, err := store.Open(ctx, daemon.DatabaseOptions(c))
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	fence := db.Fence()
	if !fence.Up() {
		return done, fmt.Errorf("%s is not fenced: there is nothing to confirm", c.Database.Name())
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "fenced since %s: %s\n", fence.Since.Format(time.RFC3339), fence.Note)
	f, err := findFaults(ctx, c, db.Fsck, func() ([]store.Master, error) { return db.Masters(ctx) })
	if err != nil {
		return done, err
	}
	if !f.none() {
		f.print(cmd.ErrOrStderr())
		if !despite {
			return done, exitError{exitRestoredWithFaults, errors.New("not confirmed; mend that first, or give --despite-faults")}
		}
	}
	o.Progress = rowsProgress(cmd.ErrOrStderr())
	return db.ConfirmFence(ctx, o)
}

func printConfirmed(w io.Writer, name string, done store.Confirmed) {
	fmt.Fprintf(w, "%s: confirmed; the JoinNonces of %d key sets rose by %d. Joins are answered when the server starts.\n"+
		"Take a new backup now: one from before must be confirmed above this one.\n", name, done.KeySets, done.Jump)
	if !done.Witnessed {
		fmt.Fprintln(w, "This confirmation could not be noted beside the key file: count it, and give the next one --earlier-confirmations.")
	}
	for _, d := range done.Exhausted {
		fmt.Fprintf(w, "no JoinNonce is left for JoinEUI %s DevEUI %s: it cannot join any more; it needs new root keys\n", d.JoinEUI, d.DevEUI)
	}
}

func confirmedJSON(done store.Confirmed) any {
	type device struct {
		ID      string `json:"id"`
		JoinEUI string `json:"joinEUI"`
		DevEUI  string `json:"devEUI"`
	}
	exhausted := make([]device, len(done.Exhausted))
	for i, d := range done.Exhausted {
		exhausted[i] = device{d.ID.String(), d.JoinEUI.String(), d.DevEUI.String()}
	}
	return struct {
		Fence     string   `json:"fence"`
		Reason    string   `json:"reason"`
		Jump      uint32   `json:"jump"`
		KeySets   int64    `json:"keySets"`
		Witnessed bool     `json:"witnessed"`
		Exhausted []device `json:"exhausted"`
	}{string(done.Fence.State), done.Fence.Note, uint32(done.Jump), done.KeySets, done.Witnessed, exhausted}
}

func newRestoreFence() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "fence",
		Short: "Fence the database by hand, after a disk or machine was put back",
		Long: `Fences the database as restore does, until it is confirmed: everybody is signed out,
and invitations end; API keys stay. A server notices by
itself when its database file is a copy, or older than the joins it answered. It
cannot notice when a whole disk or machine was put back from a snapshot, or was
cloned: say so with this, before the server starts.`,
		Example: `  joinery restore fence --config /etc/joinery/joinery.yaml --reason "disk snapshot of Monday put back"`,
		Args:    cobra.NoArgs,
	}
	path := configFlag(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for whoever confirms")
	require(cmd, "reason")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		c, err := config.Load(*path)
		if err != nil {
			return err
		}
		db, err := store.Open(cmd.Context(), daemon.DatabaseOptions(c))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		if err := db.RaiseFence(cmd.Context(), reason, actor("restore fence")); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: fenced; joins are refused until joinery restore confirm\n", c.Database.Name())
		return nil
	}
	return cmd
}

// actor names who ran a command, for the audit log.
func actor(command string) string { return fmt.Sprintf("joinery %s, uid %d", command, os.Getuid()) }
