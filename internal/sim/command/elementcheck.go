package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"joinery/internal/sim/chip"
	"joinery/internal/sim/chip/bus"
	"joinery/internal/sim/chip/trial"
	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/lorawan"
)

// checkFlags are the flags of `element check`.
type checkFlags struct {
	chips    chipFlags
	timing   string
	protocol string
	address  string
	timeout  time.Duration
	step     int
	faults   []string
	asJSON   bool
	place    int
}

func newElementCheck() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check [flags] [-- COMMAND [ARGUMENT…]]",
		Short: "Try a firmware's join against an element that fails in every way",
		Long: `Starts a firmware again and again, each time against a fresh element and with another
fault: errors of AES, KDF and every other command, answers with a wrong CRC, wakes that
fail, storms of NACK, slow answers, and the loss of power between any two transactions.

The firmware is a command that joins once. It finds the element's address, HOST:PORT, in
place of {} in its arguments and in JOINSIM_ELEMENT, prints its join-request as 46
hexadecimal digits, and tells of failure by its exit status. Without a command, the
simulator's own device is tried.

It may join all the same, or fail and say so. What it must not do: send a join-request
with a wrong MIC, say that it worked where a key was never derived, hang, crash. Each
fault is printed as a line of a script, for "element serve --faults".

It warns of a firmware that joins and derives no AppSKey into slot 2, as a widely used
driver does with LoRaWAN 1.1.

The exit status is 0 only if the firmware did nothing of that, and each fault that was
named by --fault happened: one that never does, such as a command's number that is too
high, has tried nothing.`,
		Example: `  joinsim element check --keys keys.csv
  joinsim element check --keys keys.csv --step 5 --timeout 20s -- ./firmware --element {}
  joinsim element check --keys keys.csv --fault "AES every error 0F" -- ./firmware`,
	}
	f.chips.register(cmd)
	flags := cmd.Flags()
	flags.IntVar(&f.place, "element", 0, "the element, by its place, from 0")
	flags.StringVar(&f.timing, "timing", "none", "how long commands take: none, longest, or a duration for all")
	flags.StringVar(&f.protocol, "protocol", "i2c", "how the firmware talks to the element: i2c, kit or bridge")
	flags.StringVar(&f.address, "address", "127.0.0.1:0", "where the element listens, HOST:PORT; port 0 is any that is free")
	flags.DurationVar(&f.timeout, "timeout", 15*time.Second, "how long one run may take")
	flags.IntVar(&f.step, "step", 1, "try each fault at one place in so many")
	flags.StringArrayVar(&f.faults, "fault", nil, "try this fault only, a line of a script; may be given several times")
	flags.BoolVar(&f.asJSON, "json", false, "print one JSON object instead of text")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) }
	return cmd
}

// checkReport is what `element check` prints.
type checkReport struct {
	// OK is that the firmware did nothing that it must not do, and that each fault that was
	// named happened.
	OK bool `json:"ok"`
	// Warning is about the run in which nothing went wrong.
	Warning string      `json:"warning,omitempty"`
	Runs    []trial.Run `json:"runs"`
}

func (f *checkFlags) run(cmd *cobra.Command, args []string) error {
	s, err := f.setup(args)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	clean, err := s.Clean(ctx)
	if err != nil {
		return err
	}
	faults := f.faults
	if len(faults) == 0 {
		faults = trial.Faults(clean, f.step)
	}
	report := checkReport{OK: true, Warning: clean.Warning}
	progress := !f.asJSON && isTerminal(cmd.ErrOrStderr())
	for i, fault := range faults {
		if progress {
			fmt.Fprintf(cmd.ErrOrStderr(), "\r%d of %d\x1b[K", i+1, len(faults))
		}
		r, err := s.Run(ctx, fault)
		if err != nil {
			return fmt.Errorf("%s: %w", fault, err)
		}
		tried := r.Hits > 0 || len(f.faults) == 0 // of all faults, a run that ended early never comes to some
		report.OK = report.OK && r.Verdict.Good() && tried
		report.Runs = append(report.Runs, r)
	}
	if progress {
		fmt.Fprint(cmd.ErrOrStderr(), "\r\x1b[K")
	}
	if err := report.print(cmd.OutOrStdout(), f.asJSON); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	if !report.OK {
		return ErrFailed
	}
	return nil
}

func (f *checkFlags) setup(args []string) (*trial.Setup, error) {
	if f.chips.state != "" {
		return nil, errors.New("--state: each run has a fresh element; name a key list or silicon files")
	}
	images, err := f.chips.images()
	if err != nil {
		return nil, err
	}
	if f.place < 0 || f.place >= len(images) {
		return nil, fmt.Errorf("there are %d elements: name a key list or silicon files, and with --element a place in them", len(images))
	}
	speak, known := map[string]bus.Protocol{"i2c": bus.I2C, "kit": bus.Kit, "bridge": bus.Bridge}[f.protocol]
	if !known {
		return nil, errors.New("--protocol: want i2c, kit or bridge")
	}
	s := &trial.Setup{Image: images[f.place], Firmware: simulatedFirmware, Speak: speak, Address: f.address, Timeout: f.timeout}
	if s.Timing, err = timing(f.timing); err != nil {
		return nil, err
	}
	if len(args) > 0 {
		s.Firmware = func(ctx context.Context, address string) ([]byte, error) { return execFirmware(ctx, args, address) }
	} else if f.protocol != "i2c" {
		return nil, errors.New("--protocol: the simulator's own device talks i2c")
	}
	return s, nil
}

// execFirmware runs a command once.
func execFirmware(ctx context.Context, args []string, address string) ([]byte, error) {
	given := make([]string, len(args))
	for i, a := range args {
		given[i] = strings.ReplaceAll(a, "{}", address)
	}
	cmd := exec.CommandContext(ctx, given[0], given[1:]...)
	cmd.Env = append(os.Environ(), "JOINSIM_ELEMENT="+address, "JOINSIM_ELEMENT_NAME=") // there is one, without a name
	var out bytes.Buffer
	cmd.Stdout = &out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() < 0 { // a signal ended it
		return out.Bytes(), fmt.Errorf("%w: %s", trial.ErrCrashed, exit.String())
	}
	return out.Bytes(), err
}

// simulatedFirmware is the simulator's own device, over the same wire: it joins, and
// stores keys as if it had been accepted.
func simulatedFirmware(ctx context.Context, address string) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }()
	e, err := element.OnChip(bus.NewClient(conn, defaultAddress), false)
	if err != nil {
		return nil, err
	}
	dev, err := device.New(e, lorawan.MAC1_0_4, device.Options{})
	if err != nil {
		return nil, err
	}
	frame, err := dev.JoinRequest()
	if err != nil {
		return nil, err
	}
	for id, purpose := range map[element.KeyID]byte{element.AppSKey: 2, element.NwkSEncKey: 1, element.FNwkSIntKey: 1, element.SNwkSIntKey: 1} {
		if err := e.DeriveAndStore(id, e.Root10(), &[16]byte{purpose, 1}); err != nil {
			return nil, err
		}
	}
	return fmt.Appendf(nil, "%x\n", frame), nil
}

// defaultAddress is that of TNGLORA chips, of 7 bits.
const defaultAddress = 0x59

func (r *checkReport) print(out io.Writer, asJSON bool) error {
	if asJSON {
		b, err := json.Marshal(r, jsontext.WithIndent("  "))
		if err != nil {
			return err
		}
		_, err = out.Write(append(b, '\n'))
		return err
	}
	if r.Warning != "" {
		if _, err := fmt.Fprintf(out, "warning: %s\n", r.Warning); err != nil {
			return err
		}
	}
	count, missed := map[trial.Verdict]int{}, 0
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, run := range r.Runs {
		if run.Hits == 0 && run.Verdict.Good() {
			missed++ // it never came to that
			fmt.Fprintf(w, "%s\tDID NOT HAPPEN\t\n", run.Fault)
			continue
		}
		count[run.Verdict]++
		if !run.Verdict.Good() {
			fmt.Fprintf(w, "%s\t%s\t%s\n", run.Fault, strings.ToUpper(string(run.Verdict)), run.Detail)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	good := count[trial.Joined] + count[trial.Failed]
	_, err := fmt.Fprintf(out, "%d faults: joined all the same %d, failed and said so %d, neither %d",
		len(r.Runs), count[trial.Joined], count[trial.Failed], len(r.Runs)-missed-good)
	if err == nil && missed > 0 {
		_, err = fmt.Fprintf(out, "; did not happen %d", missed)
	}
	if err == nil {
		_, err = fmt.Fprintln(out)
	}
	return err
}

// timing reads --timing.
func timing(text string) (func(chip.Opcode) time.Duration, error) {
	switch text {
	case "none":
		return nil, nil
	case "longest":
		return bus.Longest, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return nil, errors.New("--timing: want none, longest or a duration such as 2ms")
	}
	return bus.Fixed(d), nil
}
