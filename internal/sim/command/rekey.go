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
	"joinery/lorawan"
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
ticket before derives nothing; so a run that was cut off can be done again. One that
obeyed another instruction since the ticket was written is left as it is.

What became of each is written to the results file, which goes back to the Join
Server that wrote the ticket.`,
		Example: `  joinsim element rekey ticket.json --key here.statement.pub --results results.json`,
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&f.config, "config", "sim.json", "the simulator's configuration")
	cmd.Flags().StringVar(&f.key, "key", "", "PEM file with the key that must have signed the ticket (default: any)")
	cmd.Flags().StringVar(&f.results, "results", "", "where the results go (default: standard output)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return f.run(cmd.OutOrStdout(), cmd.ErrOrStderr(), args[0])
	}
	return cmd
}

func (f *benchFlags) run(out, say io.Writer, ticketFile string) (err error) {
	trusted, err := f.trusted()
	if err != nil {
		return err
	}
	tickets, err := os.Open(ticketFile)
	if err != nil {
		return err
	}
	defer func() { _ = tickets.Close() }()
	var file *os.File
	defer func() {
		if file != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	rekeyed, failed := 0, 0
	c := common{config: f.config}
	err = c.withLab(func(l *lab.Lab) error {
		// A ticket of many devices has parts, and so have its results.
		for text, err := range rekeyfile.Parts(tickets) {
			var ticket rekeyfile.Ticket
			if err == nil {
				ticket, err = readTicket(text, trusted)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", ticketFile, err)
			}
			if f.results != "" && file == nil { // not before there is something to write
				if file, err = os.Create(f.results); err != nil {
					return err
				}
				out = file
			}
			results := rekeyfile.Results{Format: rekeyfile.FormatResults}
			for _, o := range ticket.Devices {
				r := rekeyfile.Result{Order: o.Order, DevEUI: o.DevEUI, Rekeyed: true}
				if err := rekeyElement(l, o); err != nil {
					r.Rekeyed, r.Error = false, err.Error()
					failed++
					fmt.Fprintf(say, "%s was not rekeyed: %v\n", o.DevEUI, err)
				} else {
					rekeyed++
				}
				results.Results = append(results.Results, r)
			}
			if err := json.MarshalWrite(out, results, jsontext.WithIndent("  ")); err != nil {
				return err
			}
			if _, err := io.WriteString(out, "\n"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	next := ""
	if f.results != "" {
		next = fmt.Sprintf("; 'joinctl rekey results %s' brings that to the Join Server that wrote the ticket", f.results)
	}
	fmt.Fprintf(say, "%d elements are rekeyed, %d are not%s\n", rekeyed, failed, next)
	if failed > 0 {
		return ErrFailed
	}
	return nil
}

// trusted reads the key that must have signed the ticket; nil for any.
func (f *benchFlags) trusted() ([]byte, error) {
	if f.key == "" {
		return nil, nil
	}
	text, err := os.ReadFile(f.key)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: want a PEM block with the server's public key", f.key)
	}
	if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		return nil, fmt.Errorf("%s: not a public key", f.key)
	}
	return block.Bytes, nil
}

// readTicket reads and verifies one part of a ticket.
func readTicket(text, trusted []byte) (t rekeyfile.Ticket, err error) {
	if _, err := rekeyfile.Open(text, rekeyfile.FormatTicket, trusted, &t); err != nil {
		return t, err
	}
	if !time.Now().Before(t.ExpiresAt) {
		return t, fmt.Errorf("the ticket ran out at %s: have another written", t.ExpiresAt.Format(time.RFC3339))
	}
	return t, nil
}

func rekeyElement(l *lab.Lab, o rekeyfile.Order) error {
	d, err := l.Device(lab.Selector{DevEUI: o.DevEUI}, 0)
	if err != nil {
		return err
	}
	// A ticket is a file: it is there still when the device went another way.
	var last *lorawan.Rekey
	if obeyed := d.State().Rekeyed; len(obeyed) > 0 {
		r := lorawan.Rekey(obeyed[len(obeyed)-1])
		last = &r
	}
	if err := o.Fits(d.JoinEUI(), last); err != nil {
		return err
	}
	if len(o.AuthMAC) > 0 {
		if err := d.SetAuthMAC(o.AuthMAC); err != nil {
			return err
		}
	}
	return d.Rekey(o.Rekey())
}
