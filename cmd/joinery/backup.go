package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"joinery/internal/backup"
	"joinery/internal/config"
	"joinery/internal/daemon"
	"joinery/internal/harden"
	"joinery/internal/store"
)

func newBackup() *cobra.Command {
	var texts, files []string
	var out string
	var asJSON bool
	cmd := group(&cobra.Command{
		Use:   "backup",
		Short: "Write an encrypted backup of the database, while the server runs",
		Long: `Writes one state of the whole database to a file that only the given recipients
can open (age). The server may run, and goes on answering joins; it may be stopped
as well. The file appears when it is complete.

Make an identity for backups (age-keygen, or joinery ceremony identity), keep it
away from this machine, and give its public part here.

A backup holds no key that opens anything: the key file and what unlocks it need
a copy of their own. See docs/operations.md, "Back up and restore".`,
		Example: `  joinery backup --config /etc/joinery/joinery.yaml --recipient age1… -o /backup/joinery-2026-11-22.backup
  joinery backup --recipients-file /etc/joinery/backup.recipients -o - | ssh vault 'cat > joinery.backup'`,
	}, newBackupVerify())
	path := configFlag(cmd)
	cmd.Flags().StringArrayVarP(&texts, "recipient", "r", nil, "age recipient that can open the backup; may be repeated")
	cmd.Flags().StringArrayVarP(&files, "recipients-file", "R", nil, "file with age recipients, one a line; may be repeated")
	cmd.Flags().StringVarP(&out, "output", "o", "", "the file to make; - is standard output")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what was written as JSON")
	require(cmd, "output")
	cmd.MarkFlagsOneRequired("recipient", "recipients-file")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(*path)
		if err != nil {
			return err
		}
		recipients, err := backup.ParseRecipients(texts, files)
		if err != nil {
			return err
		}
		started := time.Now()
		report := cmd.OutOrStdout()
		var done backupReport
		write := func(w io.Writer) error {
			counted := &countingWriter{w: w}
			sum, err := takeBackup(cmd.Context(), counted, c, recipients, rowsProgress(cmd.ErrOrStderr()))
			done = backupReport{Summary: sum, File: out, Bytes: counted.n, Seconds: time.Since(started).Seconds()}
			return err
		}
		if out == "-" {
			report = cmd.ErrOrStderr()
			err = toStdout(cmd.OutOrStdout(), write)
		} else {
			err = newFile(out, 0o600, write)
		}
		if err != nil {
			return fmt.Errorf("no backup was made: %w", err)
		}
		if asJSON {
			return printJSON(report, done)
		}
		fmt.Fprintf(report, "%s: %s\n", out, done)
		return nil
	}
	return cmd
}

// backupReport is what a backup came to.
type backupReport struct {
	backup.Summary
	File    string  `json:"file"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

func (r backupReport) String() string {
	return fmt.Sprintf("state of %s, schema %d: %d devices, %d joins, %d rows in all; %d bytes in %.1f s",
		r.TakenAt.Format(time.RFC3339), r.Schema, r.Tables["device"], r.Tables["activation"], r.Rows, r.Bytes, r.Seconds)
}

func takeBackup(ctx context.Context, w io.Writer, c config.Config, to backup.Recipients, progress backup.Progress) (sum backup.Summary, err error) {
	db, err := store.OpenLive(ctx, daemon.DatabaseOptions(c))
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.Copy(ctx, func(s *store.Copy) (err error) {
		sum, err = backup.Write(ctx, w, to, s, daemon.Version(), progress)
		return err
	})
	return sum, err
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// toStdout writes what is for a file or a pipe, not for a person.
func toStdout(w io.Writer, write func(io.Writer) error) error {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return errors.New("standard output is a terminal: name a file with -o, or send it through a pipe")
	}
	return write(w)
}

// rowsProgress shows a person how many rows are done; to a file or pipe it shows
// nothing.
func rowsProgress(w io.Writer) backup.Progress {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	var bar *progressbar.ProgressBar
	return func(done, all int64) {
		if bar == nil {
			bar = progressbar.NewOptions64(all,
				progressbar.OptionSetWriter(w), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
				progressbar.OptionSetItsString("rows"), progressbar.OptionThrottle(100*time.Millisecond),
				progressbar.OptionClearOnFinish())
		}
		_ = bar.Set64(min(done, all)) // only a picture
	}
}

func printJSON(w io.Writer, v any) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(v)
}

func newBackupVerify() *cobra.Command {
	var identityFile string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Read a backup to its end and check that all is there",
		Long: `Decrypts a whole backup and checks every piece of it and its end, without writing
anything. It needs no configuration and no server. FILE may be - for standard
input.`,
		Example: `  joinery backup verify joinery-2026-11-22.backup --identity-file backup.identity`,
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().StringVarP(&identityFile, "identity-file", "i", "", "file with an age identity that opens the backup")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what the backup holds as JSON")
	require(cmd, "identity-file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		sum, err := readBackup(cmd.Context(), args[0], identityFile, cmd.InOrStdin(), nil, rowsProgress(cmd.ErrOrStderr()))
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), sum)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: whole; state of %s, schema %d: %d devices, %d joins, %d rows in all\n",
			args[0], sum.TakenAt.Format(time.RFC3339), sum.Schema, sum.Tables["device"], sum.Tables["activation"], sum.Rows)
		return nil
	}
	return cmd
}

// readBackup reads the backup in a file, or in stdin for "-", into target.
func readBackup(ctx context.Context, file, identityFile string, stdin io.Reader, target backup.Target, progress backup.Progress) (backup.Summary, error) {
	if err := harden.Process(); err != nil {
		return backup.Summary{}, err
	}
	identities, err := backup.ReadIdentities(identityFile)
	if err != nil {
		return backup.Summary{}, err
	}
	in := stdin
	if file != "-" {
		f, err := os.Open(filepath.Clean(file))
		if err != nil {
			return backup.Summary{}, err
		}
		defer func() { _ = f.Close() }() // read only
		in = f
	}
	return backup.Read(ctx, in, identities, target, progress)
}
