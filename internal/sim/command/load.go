package command

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"joinery/internal/sim"
	"joinery/internal/sim/lab"
	"joinery/internal/sim/load"
	"joinery/lorawan"
)

// loadFlags are the flags of load.
type loadFlags struct {
	common
	peerFlags
	acceptFlags
	fleetFlags
	mix         string
	memory      string
	connections int
	rate        float64
	duration    time.Duration
	warmup      time.Duration
	joins       uint64
	replays     float64
	wrongMICs   float64
	window      time.Duration
	pids        []int
	quiet       bool
}

func newLoad() *cobra.Command {
	f := &loadFlags{}
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Have many devices join over many connections, and measure it",
		Long: `Many devices join over a number of kept-alive connections, mutual TLS, one request
at a time on each. Every answer is checked as device, Network Server and Application
Server: form, fields, MIC, every key unwrapped and compared, JoinNonce rising. Where
AppSKey is to be fetched by its SessionKeyID, the Application Server fetches it.

Without --rate the loop is closed: the next request goes out when the last answer
has come. With --rate it is open: requests are due at fixed instants, whatever
became of the ones before, and latency counts from the instant that was due.

--replays and --wrong-mics mix in requests that must be refused, or, for a repeat
within the repeat window, be answered the same; anything else is an error.

Devices are the elements of the silicon files of sim.json, in their order, or derive
from a seed: "joinsim load prepare" writes their key list. What they remember is kept
in a file beside devices.json, so that the next run goes on.

The exit status is 0 only if every answer was as it must be.`,
		Example: `  joinsim load --config demo/sim/sim.json --devices 1.0.3 --duration 10s
  joinsim load --devices 1.0.3=5000,1.1=5000 --mix 1.1=100 --connections 64 --pid $(pidof joinery)
  joinsim load --rate 300 --duration 1m --replays 0.01 --wrong-mics 0.01
  joinsim load --seed test-fleet --devices 1.0.4=10000 --connections 64
  joinsim load --joins 100000 --warmup 2s --pid $(pidof joinery) --pid $(head -1 /var/lib/postgresql/data/postmaster.pid) --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f.register(cmd)
	cmd.AddCommand(newLoadPrepare())
	return cmd
}

func (f *loadFlags) register(cmd *cobra.Command) {
	f.common.register(cmd)
	f.fleetFlags.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.mix, "mix", "", "parts of the joins by version: 1.0.3=90,1.1=10 (default: by the number of devices)")
	flags.StringVar(&f.memory, "state", "", "file with what the devices remember (default: beside devices.json)")
	flags.IntVarP(&f.connections, "connections", "c", 16, "kept-alive connections, each with one request on its way at most")
	flags.Float64Var(&f.rate, "rate", 0, "requests a second of an open loop (default: a closed loop)")
	flags.DurationVarP(&f.duration, "duration", "d", 10*time.Second, "how long to count; 0 with --joins")
	flags.DurationVar(&f.warmup, "warmup", time.Second, "how long to run before anything is counted")
	flags.Uint64Var(&f.joins, "joins", 0, "end after so many joins (default: by --duration alone); without --duration also after as many\nerrors, 1000 at least")
	flags.Float64Var(&f.replays, "replays", 0, "part of the requests that replays an earlier one, 0 to 1")
	flags.Float64Var(&f.wrongMICs, "wrong-mics", 0, "part of the requests with a wrong MIC, 0 to 1")
	flags.DurationVar(&f.window, "repeat-window", 10*time.Second, "how long the server answers the same request the same; 0: never")
	flags.IntSliceVar(&f.pids, "pid", nil, "process of the server, or of its database: its processor time and memory, and those of\nits children, are measured (repeatable)")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "no progress on standard error")
	flags.StringVar(&f.ns, "ns", "", "the Network Server, by its name in sim.json (default: the first)")
	flags.StringVar(&f.as, "as", "", "the Application Server, by its name in sim.json (default: the first)")
	flags.StringVar(&f.protocol, "protocol", sim.Protocol10, "version of Backend Interfaces, 1.0 or 1.1")
	flags.StringVar(&f.dialect, "dialect", "", "spelling of messages: "+strings.Join(sim.DialectNames(), ", "))
	flags.StringVar(&f.network, "network", "1.1", "highest LoRaWAN version of the network: 1.0, 1.1, or one in three numbers")
	flags.StringVar(&f.cfList, "cflist", "eu868", "channel list in the accept: eu868, none, or 32 hexadecimal digits")
	flags.StringVar(&f.appSKey, "appskey", "", "how AppSKey must travel: wrapped, session-key-id or clear (default: not in the clear)")
	flags.BoolVar(&f.clearKeys, "clear-keys", false, "network session keys may travel unwrapped")
}

func (f *loadFlags) run(ctx context.Context, out, progress io.Writer) error {
	return f.withLab(func(l *lab.Lab) (err error) {
		c, err := f.config(l)
		if err != nil {
			return err
		}
		path := f.memory
		if path == "" {
			path = f.state(l)
		}
		if c.Fleet.Memory, err = load.OpenMemory(path, c.Fleet.Elements.Len()); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.Fleet.Memory.Close()) }()
		if !f.quiet {
			c.Progress = func(p load.Progress) { printProgress(progress, p) }
		}
		report, err := load.Run(ctx, *c)
		if err != nil {
			return err
		}
		if err := f.print(out, report); err != nil {
			return err
		}
		if !report.OK {
			return ErrFailed
		}
		return nil
	})
}

// config makes the configuration of a run, but for the devices' memory.
func (f *loadFlags) config(l *lab.Lab) (*load.Config, error) {
	c := &load.Config{
		Connections: f.connections, Rate: f.rate, Duration: f.duration, Warmup: f.warmup, Joins: f.joins,
		Replays: f.replays, WrongMICs: f.wrongMICs, RepeatWindow: f.window, Server: f.pids,
	}
	var err error
	if c.Join, err = f.joinOptions(nil); err != nil {
		return nil, err
	}
	if c.Mix, err = parseMix(f.mix); err != nil {
		return nil, err
	}
	o, err := f.options()
	if err != nil {
		return nil, err
	}
	o.Forgetful = true
	c.Peers = func(way func(string, *tls.Config) (sim.Way, error)) (*sim.NS, *sim.AS, error) {
		o := o
		o.Way = way
		ns, err := l.NS(f.ns, o)
		if err != nil {
			return nil, nil, err
		}
		as, err := l.AS(f.as, o)
		return ns, as, err
	}
	c.Fleet, err = f.fleet(l)
	return c, err
}

// parseMix reads "VERSION=PART,…".
func parseMix(text string) (map[lorawan.MACVersion]float64, error) {
	if text == "" {
		return nil, nil
	}
	mix := map[lorawan.MACVersion]float64{}
	for item := range strings.SplitSeq(text, ",") {
		name, number, _ := strings.Cut(item, "=")
		version, err := lorawan.ParseMACVersion(name)
		if err != nil {
			return nil, fmt.Errorf("--mix: %w", err)
		}
		part, err := strconv.ParseFloat(number, 64)
		if err != nil || part < 0 {
			return nil, fmt.Errorf("--mix: want a number behind %s=", name)
		}
		mix[version] = part
	}
	return mix, nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
