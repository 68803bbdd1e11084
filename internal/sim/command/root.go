// Package command is the command tree of joinsim.
package command

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"joinery/internal/sim/device"
	"joinery/internal/sim/lab"
	"joinery/internal/sim/load"
)

// ErrFailed says that a check did not hold; what failed has been printed.
var ErrFailed = errors.New("not every check held")

// New makes the command tree. Results go to the command's output, errors are
// returned.
func New() *cobra.Command {
	root := &cobra.Command{
		Use:   "joinsim",
		Short: "Simulated LoRaWAN devices, Network Server and Application Server",
		Long: `joinsim plays everybody whom a Join Server deals with: end-devices with secure
elements, the Network Server they join, the Application Server behind it. It
speaks Backend Interfaces over mutual TLS and checks every answer as device,
Network Server and Application Server, with cryptography of its own.

Peers and devices are described by sim.json, which "joinery quickstart" writes.
Counters and sessions outlive the invocation; keys are opened from the silicon
files each time and are never written.

The exit status is 0 only if every check held.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newJoin(), newRejoin(), newAppSKey(), newHomeNS(), newRelay(), newDevices(), newRecipient(), newElement(), newFirmware(), newLoad())
	return root
}

// common are the flags of every command that needs a lab.
type common struct {
	config string
	json   bool
}

func (c *common) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.config, "config", "sim.json", "the simulator's configuration")
	cmd.Flags().BoolVar(&c.json, "json", false, "print one JSON object instead of text")
}

// withLab runs do with the lab open.
func (c *common) withLab(do func(*lab.Lab) error) (err error) {
	l, err := lab.Open(c.config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	l.Elsewhere = func(place int, s *device.State) error { return load.CatchUp(loadState(l), place, s) }
	return do(l)
}

// finish prints a report and gives ErrFailed if something in it failed.
func (c *common) finish(out io.Writer, r *report, verbose bool) error {
	if err := c.print(out, r, verbose); err != nil {
		return err
	}
	if !r.OK {
		return ErrFailed
	}
	return nil
}

// print prints a report in the wanted form.
func (c *common) print(out io.Writer, r *report, verbose bool) error {
	write := func() error { return r.printText(out, verbose) }
	if c.json {
		write = func() error { return r.printJSON(out) }
	}
	if err := write(); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	return nil
}
