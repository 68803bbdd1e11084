package command

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"joinery/internal/sim"
	"joinery/internal/sim/lab"
	"joinery/lorawan"
)

// relay is a Network Server for firmware that joins by itself.
type relay struct {
	common
	peerFlags
	mac, cfList string

	version lorawan.MACVersion
	options sim.JoinOptions
	network *sim.NS
}

func newRelay() *cobra.Command {
	f := &relay{}
	cmd := &cobra.Command{
		Use:   "relay [FRAME]",
		Short: "Bring the join-request of a firmware to the Join Server, and the accept back",
		Long: `Plays the network for a firmware that runs on this machine with its radio taken out:
takes a join-request as it would be on the air, 46 hexadecimal digits, asks the Join
Server as the Network Server of sim.json that the device is bound to, and prints the
join-accept, encrypted, as it would come down.

Without FRAME the requests are read from the input, one a line, and each is answered by
a line, at once: a firmware can keep it open on a pipe. A request that is refused is
answered by "refused" and the reason, and does not end it.`,
		Example: `  joinsim relay --config play/sim/sim.json --mac 1.0.4 000000d07ed5b370daf91f0010a304002a001c4073fa
  joinsim relay --config play/sim/sim.json --mac 1.0.4 < requests`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.Flags().StringVar(&f.config, "config", "sim.json", "the simulator's configuration")
	cmd.Flags().StringVar(&f.mac, "mac", "1.0.4", "LoRaWAN version of the firmware, 1.0.0 to 1.1, as the device was imported at the server")
	cmd.Flags().StringVar(&f.cfList, "cflist", "eu868", "channels that the accept brings: eu868, none, or 32 hexadecimal digits")
	cmd.Flags().StringVar(&f.ns, "ns", "", "the Network Server, by its name in sim.json (default: the first)")
	cmd.Flags().StringVar(&f.protocol, "protocol", sim.Protocol10, "version of Backend Interfaces, 1.0 or 1.1")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		// The devices' state is given back at once: a network has none, and other commands
		// wait for it.
		if err := f.withLab(f.open); err != nil {
			return err
		}
		if len(args) == 0 {
			return f.lines(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		}
		line, err := f.answer(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), line)
		return err
	}
	return cmd
}

func (f *relay) open(l *lab.Lab) (err error) {
	if f.version, err = lorawan.ParseMACVersion(f.mac); err != nil {
		return fmt.Errorf("--mac: %w", err)
	}
	f.options = sim.JoinOptions{DLSettings: 3, RxDelay: 1}
	if f.options.CFList, err = (&acceptFlags{cfList: f.cfList}).channelList(); err != nil {
		return err
	}
	o, err := f.peerFlags.options()
	if err != nil {
		return err
	}
	f.network, err = l.NS(f.ns, o)
	return err
}

// lines answers line by line.
func (f *relay) lines(ctx context.Context, in io.Reader, out io.Writer) error {
	for s := bufio.NewScanner(in); ; {
		if !s.Scan() {
			return s.Err()
		}
		text := strings.TrimSpace(s.Text())
		if text == "" {
			continue
		}
		line, err := f.answer(ctx, text)
		if err != nil {
			line = "refused " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return fmt.Errorf("output: %w", err)
		}
	}
}

// answer gives the accept to a request, both as hexadecimal digits.
func (f *relay) answer(ctx context.Context, text string) (string, error) {
	frame, err := hex.DecodeString(text)
	if err != nil {
		return "", errors.New("want a join-request of 46 hexadecimal digits")
	}
	ctx, cancel := context.WithTimeout(ctx, invocationTimeout)
	defer cancel()
	r, accept, err := f.network.Relay(ctx, frame, f.version, f.options)
	if err != nil {
		return "", err
	}
	if r.ResultCode != "" && r.ResultCode != sim.ResultSuccess {
		return "", fmt.Errorf("%s: %s", r.ResultCode, r.Description)
	}
	if err := r.Err(); err != nil {
		return "", err
	}
	return hex.EncodeToString(accept), nil
}
