package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"joinery/internal/ceremony"
	"joinery/internal/daemon"
)

func newCeremonyRun() *cobra.Command {
	var yes bool
	var worker string
	cmd := &cobra.Command{
		Use:   "run PLAN.yaml",
		Short: "Make the keys of a Join Server in a hardware token, by a plan",
		Long: `Carries out a plan that was reviewed: makes a Join Server's keys in its token, the
custody key in a token of another role, and master keys: drawn, accepted from
another organisation, or of two or three components. Without --yes it changes
nothing, and says what it would do; everything is checked that can be.

The keys are made by joinery-hsm, which alone reads PINs and components. Nothing
is ever overwritten. A ceremony that was cut off goes on when the same command is
given again, and says what was there. At the end the audit key in the token signs
a report: NAME.report.json in the plan's directory, beside the public keys.

A plan, with every way to have a master key; names of files are relative to it:

  ceremony: acme-2026
  purpose: the first keys of the Join Server
  participants:
    - {name: Ada Lind, role: leads}
    - {name: Bo Marsh, role: witness}
  directory: acme-2026              # where the report goes
  minimum_level: in-token
  token:                            # which the server opens
    module: /usr/lib/softhsm/libsofthsm2.so
    label: joinery
    serial: 62d9a1c7b8e45f03        # may be left out
    pin_file: token.pin
  custody:                          # which no server opens
    module: /usr/lib/softhsm/libsofthsm2.so
    label: joinery-custody
    pin_file: custody.pin           # or, in place of a token: public_key: custody.pub
  masters:
    - name: drawn-2026
      generate: true
      share:                        # may be left out; never possible afterwards
        - {to: partner.pub, kid: WYhx2w…, file: drawn-2026.master}
    - name: maker-2026
      accept: maker-2026.master
      kcv: 5A2B11                   # as learnt from the maker over another way
    - name: split-2026
      kcv: 9C3D07
      components:
        - {holder: Ada Lind, file: /media/ada/part, kcv: 11AA22}
        - {holder: Bo Marsh, file: /media/bo/part, kcv: 33BB44}

A later ceremony may give keys that are there a new generation beside the old ones:
rotate: [join-kek, transport-key, custody-key, audit-key], or some of them. A new
audit key is named in the report, which the one before signs.`,
		Example: `  joinery ceremony run acme-2026.yaml
  joinery ceremony run acme-2026.yaml --yes
  joinery ceremony run acme-2026.yaml --yes --worker /opt/joinery/joinery-hsm`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it; without, only say what would be done")
	cmd.Flags().StringVar(&worker, "worker", "", "path of joinery-hsm (default: beside this program)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		job, err := readPlan(args[0])
		if err != nil {
			return err
		}
		if present(job.Plan.ReportFile()) {
			return fmt.Errorf("%s is there: this ceremony is done; give the next one another name", job.Plan.ReportFile())
		}
		job.Apply = yes
		report, err := conduct(cmd.Context(), worker, job, cmd.OutOrStdout(), cmd.ErrOrStderr())
		if err != nil {
			return resumable(err, job)
		}
		if !yes {
			fmt.Fprintf(cmd.OutOrStdout(), "nothing was changed; the same with --yes does it\n")
			return nil
		}
		return writeReport(cmd.OutOrStdout(), job.Plan.ReportFile(), report)
	}
	return cmd
}

// resumable says how a ceremony goes on that failed.
func resumable(err error, job ceremony.Job) error {
	if !job.Apply {
		return err
	}
	return fmt.Errorf("%w\nthe ceremony is not done: the same command goes on where it stands", err)
}

// maxPlan bounds a plan, in bytes.
const maxPlan = 1 << 20

// readPlan reads a plan, checks it, and makes its paths whole.
func readPlan(path string) (job ceremony.Job, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return job, err
	}
	if len(text) > maxPlan {
		return job, fmt.Errorf("%s is longer than %d bytes: this is no plan of a ceremony", path, maxPlan)
	}
	if err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&job.Plan); err != nil {
		// Without the source: somebody may have put a PIN where a path belongs.
		return job, fmt.Errorf("%s: %s", path, yaml.FormatError(err, false, false))
	}
	if err := job.Plan.Check(); err != nil {
		return job, fmt.Errorf("%s: %w", path, err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return job, err
	}
	job.Plan = job.Plan.Resolve(dir)
	sum := sha256.Sum256(text)
	job.SHA256, job.Program = hex.EncodeToString(sum[:]), "joinery "+daemon.Version()
	return job, nil
}

// conduct has joinery-hsm carry out a plan, and prints its steps as they are done.
func conduct(ctx context.Context, worker string, job ceremony.Job, out, stderr io.Writer) (report []byte, err error) {
	last, err := askToken(ctx, worker, job, out, stderr)
	return last.Report, err
}

// askToken has joinery-hsm do a job, prints its steps, and gives what came of it.
func askToken(ctx context.Context, worker string, job ceremony.Job, out, stderr io.Writer) (last ceremony.Message, err error) {
	if worker == "" {
		if worker, err = workerBeside(); err != nil {
			return last, err
		}
	}
	told, err := json.Marshal(job)
	if err != nil {
		return last, err
	}
	answer, theirs, err := os.Pipe()
	if err != nil {
		return last, err
	}
	defer func() { _ = answer.Close() }()
	child := exec.CommandContext(ctx, worker, "ceremony")
	child.Stdin, child.Stdout, child.Stderr = bytes.NewReader(told), stderr, stderr
	child.ExtraFiles = []*os.File{theirs}
	err = child.Start()
	_ = theirs.Close()
	if err != nil {
		return last, fmt.Errorf("start the program that opens hardware tokens: %w; say where it is with --worker", err)
	}
	last, err = hear(answer, out)
	if ended := child.Wait(); err == nil && ended != nil {
		err = fmt.Errorf("joinery-hsm: %w", ended)
	}
	return last, err
}

// workerBeside is where joinery-hsm is, unless it is said.
func workerBeside() (string, error) {
	here, err := os.Executable()
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(here), "joinery-hsm"), nil
}

// hear prints steps until the last message comes, or the reason why none does.
func hear(answer io.Reader, out io.Writer) (last ceremony.Message, err error) {
	lines := json.NewDecoder(answer)
	for {
		var m ceremony.Message
		err := lines.Decode(&m)
		switch {
		case errors.Is(err, io.EOF):
			return last, errors.New("joinery-hsm ended before it was done")
		case err != nil:
			return last, fmt.Errorf("joinery-hsm: %w", err)
		case m.Error != "":
			return last, errors.New(m.Error)
		case m.Step == nil:
			return m, nil
		}
		printStep(out, *m.Step)
	}
}

func printStep(out io.Writer, s ceremony.Step) {
	text := fmt.Sprintf("%-11s %s", s.Outcome, s.What)
	if s.Detail != "" {
		text += ": " + s.Detail
	}
	fmt.Fprintln(out, text)
}

// writeReport keeps the signed report, and says what to do with it.
func writeReport(out io.Writer, path string, report []byte) error {
	if err := newFile(path, 0o644, func(w io.Writer) error { _, err := w.Write(report); return err }); err != nil {
		return err
	}
	_, fingerprint, err := ceremony.Verify(report)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "made %s, signed by the key %s\nWrite this fingerprint down: joinery ceremony verify compares it.\n", path, fingerprint)
	return nil
}

func newCeremonyVerify() *cobra.Command {
	var key string
	var after []string
	cmd := &cobra.Command{
		Use:   "verify REPORT",
		Short: "Verify the signed report of a ceremony, and print what it says",
		Long: `Checks the signature of a report, and prints what the ceremony made. The report
names the key that signed it; that this is the token's audit key says its
fingerprint, which the participants wrote down: give it with --key, or compare it.
Where the audit key was replaced since, name the reports of that with --after, in
their order: each is signed by the key before and names the next. No token is needed.`,
		Example: `  joinery ceremony verify acme-2026/acme-2026.report.json
  joinery ceremony verify acme-2026/acme-2026.report.json --key 0c3c6d1f2a4b5e68790c1d2e3f405162738495a6b7c8d9eaf0b1c2d3e4f50617`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&key, "key", "", "fingerprint that the audit key must have")
	cmd.Flags().StringArrayVar(&after, "after", nil, "with --key: report of a ceremony that replaced the audit key of that fingerprint (repeatable)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text, err := os.ReadFile(args[0])
		if err != nil {
			return err
		}
		r, fingerprint, err := ceremony.Verify(text)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if key, err = followed(key, after); err != nil {
			return err
		}
		if key != "" && !strings.EqualFold(key, fingerprint) {
			return fmt.Errorf("%s: it is signed by another key: %s", args[0], fingerprint)
		}
		printReport(cmd.OutOrStdout(), r)
		if key == "" {
			fmt.Fprintf(cmd.OutOrStdout(), "the signature fits; compare its key with the one that was written down: %s\n", fingerprint)
			return nil
		}
		fmt.Fprintf(cmd.OutOrStdout(), "the signature fits, by the key %s\n", fingerprint)
		return nil
	}
	return cmd
}

// followed gives the fingerprint of the audit key after it was replaced.
func followed(key string, after []string) (string, error) {
	if len(after) > 0 && key == "" {
		return "", errors.New("--after: say with --key which audit key is known")
	}
	var reports [][]byte
	for _, path := range after {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		reports = append(reports, text)
	}
	return ceremony.Follow(key, reports...)
}

func printReport(out io.Writer, r ceremony.Report) {
	fmt.Fprintf(out, "ceremony %s, %s to %s\n", r.Ceremony, r.Started.Format(time.DateTime), r.Finished.Format(time.DateTime))
	for _, p := range r.Participants {
		fmt.Fprintf(out, "  %s, %s\n", p.Name, p.Role)
	}
	for _, d := range r.Tokens {
		fmt.Fprintf(out, "token %q: %s %s, serial number %s\n", d.Label, d.Manufacturer, d.Model, d.Serial)
	}
	for _, o := range r.Objects {
		fmt.Fprintf(out, "object %s\n", describe(o))
	}
	for _, m := range r.Masters {
		fmt.Fprintf(out, "master key %s, profile %s, check value %s, %s\n", m.Name, m.Profile, m.KCV, m.Origin)
	}
	for _, k := range r.Rotated {
		fmt.Fprintf(out, "%s: new generation %d, %s", k.Key, k.Generation, k.Label)
		if k.KID != "" {
			fmt.Fprintf(out, ", fingerprint %s", k.KID)
		}
		if k.Key == ceremony.AuditKey {
			fmt.Fprint(out, ", which signs the reports after this one")
		}
		fmt.Fprintln(out)
	}
	for _, l := range r.Levels {
		fmt.Fprintf(out, "custody level of %s %s: %s\n", l.Origin, l.Profile, l.Level)
	}
}

// describe puts what a token says of an object into one line.
func describe(o ceremony.Object) string {
	parts := []string{o.Label, o.Class, o.Type, "may " + strings.Join(o.Rights, " and ")}
	if len(o.Rights) == 0 {
		parts[3] = "may nothing"
	}
	for _, flag := range []struct {
		is      *bool
		yes, no string
	}{{o.Sensitive, "sensitive", "READABLE"}, {o.Extractable, "EXTRACTABLE", "not extractable"}} {
		if flag.is != nil && *flag.is {
			parts = append(parts, flag.yes)
		} else if flag.is != nil {
			parts = append(parts, flag.no)
		}
	}
	if o.UnwrapTemplate != "" {
		parts = append(parts, "unwraps as: "+o.UnwrapTemplate)
	}
	if o.KID != "" {
		parts = append(parts, "fingerprint "+o.KID)
	}
	return strings.Join(parts, ", ")
}
