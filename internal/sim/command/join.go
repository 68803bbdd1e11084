package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"joinery/internal/sim/lab"
)

// invocationTimeout bounds one command.
const invocationTimeout = time.Minute

// activation is what join and rejoin have in common.
type activation struct {
	common
	deviceFlags
	peerFlags
	acceptFlags
	then []string
}

func (a *activation) registerAll(cmd *cobra.Command) {
	a.common.register(cmd)
	a.deviceFlags.register(cmd)
	a.peerFlags.register(cmd)
	a.acceptFlags.register(cmd)
	cmd.Flags().StringSliceVar(&a.then, "then", nil, "further steps: join, repeat, replay, wrong-mic, appskey, rejoin0, rejoin1, rejoin2")
}

// run does the first step and those of --then.
func (a *activation) run(ctx context.Context, out io.Writer, first string) error {
	ctx, cancel := context.WithTimeout(ctx, invocationTimeout)
	defer cancel()
	return a.withLab(func(l *lab.Lab) error {
		r, err := a.runner(l)
		if err != nil {
			return err
		}
		if err := r.do(ctx, append([]string{first}, a.then...)); err != nil {
			// What was done before is worth reading.
			r.report.fail(err)
			return errors.Join(err, a.print(out, &r.report, a.verbose))
		}
		return a.finish(out, &r.report, a.verbose)
	})
}

func (a *activation) runner(l *lab.Lab) (*runner, error) {
	ns, as, err := a.peers(l)
	if err != nil {
		return nil, err
	}
	options, err := a.joinOptions(as)
	if err != nil {
		return nil, err
	}
	dev, err := a.open(l)
	if err != nil {
		return nil, err
	}
	return &runner{dev: dev, ns: ns, as: as, home: ns.Name() == l.HomeNS(), expect: a.expect, options: options}, nil
}

func newJoin() *cobra.Command {
	a := &activation{}
	var replay, wrongMIC bool
	cmd := &cobra.Command{
		Use:   "join",
		Short: "Have a device join, and tell it step by step",
		Long: `A device sends a join-request, its Network Server asks the Join Server, the
device takes the accept, and everybody compares keys. Each step tells what was
sent, what came back, and what device, Network Server and Application Server
verified.

The first ns of sim.json is taken for the network that the device is bound to;
through any other one the answer must be UnknownDevEUI. --replay and --wrong-mic
must be refused, too. --expect says otherwise.`,
		Example: `  joinsim join --config demo/sim/sim.json
  joinsim join --silicon-index 2 --mac 1.1 --then appskey,rejoin0,rejoin1
  joinsim join --mac 1.1 --network 1.0 --protocol 1.1
  joinsim join --dev-eui 0004A30B001C0530 --replay
  joinsim join --ns other-ns
  joinsim join --wrong-mic --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			first := stepJoin
			switch {
			case replay:
				first = stepReplay
			case wrongMIC:
				first = stepWrongMIC
			}
			return a.run(cmd.Context(), cmd.OutOrStdout(), first)
		},
	}
	a.registerAll(cmd)
	cmd.Flags().BoolVar(&replay, "replay", false, "send the device's last join-request again, as recorded on the air")
	cmd.Flags().BoolVar(&wrongMIC, "wrong-mic", false, "flip one bit of the join-request's MIC")
	cmd.MarkFlagsMutuallyExclusive("replay", "wrong-mic")
	return cmd
}

func newRejoin() *cobra.Command {
	a := &activation{}
	var rejoinType int
	cmd := &cobra.Command{
		Use:   "rejoin",
		Short: "Have a device rejoin from the session that it has",
		Long: `A device of LoRaWAN 1.1 sends a rejoin-request: type 0 renews everything, type 1
restores a session that the network lost, type 2 only renews keys. The rest is
as with join.`,
		Example: `  joinsim rejoin --type 0 --config demo/sim/sim.json
  joinsim rejoin --type 1 --dev-eui 0004A30B001C0530 --then appskey`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if rejoinType < 0 || rejoinType > 2 {
				return errors.New("--type: want 0, 1 or 2")
			}
			return a.run(cmd.Context(), cmd.OutOrStdout(), fmt.Sprintf("rejoin%d", rejoinType))
		},
	}
	a.registerAll(cmd)
	cmd.Flags().IntVar(&rejoinType, "type", 0, "type of the rejoin-request: 0, 1 or 2")
	return cmd
}

func newAppSKey() *cobra.Command {
	a := &activation{}
	cmd := &cobra.Command{
		Use:   "appskey",
		Short: "Have the Application Server fetch the AppSKey of a device's session",
		Long: `The Application Server asks for the AppSKey of the session in force by its
SessionKeyID, opens it under its KEK and compares it with the device's.`,
		Example: `  joinsim appskey --config demo/sim/sim.json --dev-eui 0004A30B001C0530`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.run(cmd.Context(), cmd.OutOrStdout(), stepAppSKey)
		},
	}
	a.common.register(cmd)
	a.deviceFlags.register(cmd)
	a.registerAS(cmd)
	cmd.Flags().StringVar(&a.appSKey, "appskey", "", "how AppSKey must travel: wrapped, or clear to allow it unwrapped")
	cmd.Flags().BoolVarP(&a.verbose, "verbose", "v", false, "print each check on a line of its own")
	a.network, a.cfList = "1.1", "none"
	return cmd
}
