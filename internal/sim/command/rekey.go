package command

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"joinery/internal/rekeyfile"
	"joinery/internal/sim/lab"
)

func newElement() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "element",
		Short: "Emulated secure elements: serve them to firmware, work on them at the bench",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newElementRekey(), newElementServe(), newElementAttest(), newElementCheck(), newElementMake(), newElementBoot())
	return cmd
}

// benchFlags are the flags of `element rekey`.
type benchFlags struct {
	config, key, results string
}

func newElementRekey() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "rekey TICKET",
		Short: "Rekey the elements of a ticket",
		Long: `Replays a ticket of a Join Server onto elements: each derives new root keys inside
and asks for its new JoinEUI from then on. An element that was rekeyed by the same
ticket before derives nothing; so a run that was cut off can be done again.

What became of each is written to the results file, which goes back to the Join
Server that wrote the ticket.`,
		Example: `  joinsim element rekey ticket.json --key server.pub --results results.json`,
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&f.config, "config", "sim.json", "the simulator's configuration")
	cmd.Flags().StringVar(&f.key, "key", "", "PEM file with the key that must have signed the ticket (default: any)")
	cmd.Flags().StringVar(&f.results, "results", "", "where the results go (default: standard output)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return f.run(cmd.OutOrStdout(), args[0]) }
	return cmd
}

func (f *benchFlags) run(out io.Writer, ticketFile string) error {
	ticket, err := f.ticket(ticketFile)
	if err != nil {
		return err
	}
	results := rekeyfile.Results{Format: rekeyfile.FormatResults}
	failed := false
	c := common{config: f.config}
	err = c.withLab(func(l *lab.Lab) error {
		for _, o := range ticket.Devices {
			r := rekeyfile.Result{Order: o.Order, DevEUI: o.DevEUI, Rekeyed: true}
			if err := rekeyElement(l, o); err != nil {
				r.Rekeyed, r.Error, failed = false, err.Error(), true
			}
			results.Results = append(results.Results, r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	text, err := json.Marshal(results, jsontext.WithIndent("  "))
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if f.results == "" {
		_, err = out.Write(text)
	} else {
		err = os.WriteFile(f.results, text, 0o644)
	}
	if err == nil && failed {
		err = ErrFailed
	}
	return err
}

// ticket reads and verifies a ticket.
func (f *benchFlags) ticket(file string) (t rekeyfile.Ticket, err error) {
	var trusted []byte
	if f.key != "" {
		text, err := os.ReadFile(f.key)
		if err != nil {
			return t, err
		}
		block, _ := pem.Decode(text)
		if block == nil {
			return t, fmt.Errorf("%s: want a PEM block with the server's public key", f.key)
		}
		if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
			return t, fmt.Errorf("%s: not a public key", f.key)
		}
		trusted = block.Bytes
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return t, err
	}
	if _, err := rekeyfile.Open(text, rekeyfile.FormatTicket, trusted, &t); err != nil {
		return t, fmt.Errorf("%s: %w", file, err)
	}
	if !time.Now().Before(t.ExpiresAt) {
		return t, fmt.Errorf("%s: the ticket ran out at %s: have another written", file, t.ExpiresAt.Format(time.RFC3339))
	}
	return t, nil
}

func rekeyElement(l *lab.Lab, o rekeyfile.Order) error {
	d, err := l.Device(lab.Selector{DevEUI: o.DevEUI}, 0)
	if err != nil {
		return err
	}
	if d.JoinEUI() != o.JoinEUI && d.JoinEUI() != o.NewJoinEUI {
		return errors.New("the element asks for another JoinEUI than the ticket knows of: it was rekeyed otherwise")
	}
	if len(o.AuthMAC) > 0 {
		if err := d.SetAuthMAC(o.AuthMAC); err != nil {
			return err
		}
	}
	return d.Rekey(o.Rekey())
}
