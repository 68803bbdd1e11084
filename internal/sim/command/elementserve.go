package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"joinery/internal/sim/chip"
	"joinery/internal/sim/chip/bus"
	"joinery/internal/sim/chip/rack"
	"joinery/internal/sim/chip/tnglora"
	"joinery/internal/sim/lab"
	"joinery/internal/sim/silicon"
)

// chipFlags say which chips there are.
type chipFlags struct {
	keys, config, state string
	blank               int
	sync                bool
}

func (f *chipFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.keys, "keys", "", "elements of a key list: CSV with the columns JoinEUI, DevEUI, NwkKey, AppKey,\nand if need be Serial, DeviceKey, RekeyKey, all hexadecimal")
	cmd.Flags().StringVar(&f.config, "config", "", "elements of the silicon files of a sim.json")
	cmd.Flags().IntVar(&f.blank, "blank", 0, "so many ATECC608 that nobody configured")
	cmd.Flags().StringVar(&f.state, "state", "", "file that keeps the elements' memory, keys in the clear, mode 0600;\nmade if it is missing (default: the memory ends with the command)")
	cmd.Flags().BoolVar(&f.sync, "sync", false, "have each change on the disk before it is answered: the state outlives the machine's power")
	cmd.MarkFlagsMutuallyExclusive("keys", "config", "blank")
}

// open puts the chips under power.
func (f *chipFlags) open(o rack.Options) (*rack.Rack, error) {
	images, err := f.images()
	if err != nil {
		return nil, err
	}
	o.State, o.Sync = f.state, f.sync
	return rack.Open(images, o)
}

func (f *chipFlags) images() (images []*chip.Image, err error) {
	switch {
	case f.keys != "":
		return imagesOfKeys(f.keys)
	case f.config != "":
		c := common{config: f.config}
		err := c.withLab(func(l *lab.Lab) error {
			return l.Images(func(m *chip.Image) { images = append(images, m) })
		})
		return images, err
	case f.blank < 0:
		return nil, errors.New("--blank: want how many")
	}
	for i := range f.blank {
		images = append(images, chip.Blank([chip.SerialSize]byte{1, 0x23, 5: byte(i >> 16), 6: byte(i >> 8), 7: byte(i), 8: 0xEE}))
	}
	return images, nil
}

func imagesOfKeys(file string) (images []*chip.Image, err error) {
	if err := silicon.CheckPrivate(file); err != nil {
		return nil, err
	}
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	list, err := tnglora.ReadKeyList(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, c := range list {
		m, err := tnglora.Image(c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		images = append(images, m)
	}
	return images, nil
}

// wireFlags say how chips behave on the wire.
type wireFlags struct {
	timing   string
	watchdog time.Duration
	script   string
	seed     uint64
	every    int
}

func (f *wireFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.timing, "timing", "none", "how long commands take: none (as long as they take to compute), longest (what the chip\nneeds at most), or a duration for all")
	cmd.Flags().DurationVar(&f.watchdog, "watchdog", bus.DefaultWatchdog, "how long a chip stays awake, 0 for ever")
	cmd.Flags().StringVar(&f.script, "faults", "", "file with what goes wrong, a rule a line, such as: AES 2 error 0F")
	cmd.Flags().Uint64Var(&f.seed, "fault-seed", 0, "seed from which faults are drawn")
	cmd.Flags().IntVar(&f.every, "fault-every", 0, "draw a fault for one transaction in so many, 0 for none")
	cmd.MarkFlagsMutuallyExclusive("faults", "fault-every")
}

// options gives what makes the options of each bus.
func (f *wireFlags) options() (func(int) bus.Options, error) {
	base := bus.Options{Watchdog: f.watchdog}
	var err error
	if base.Timing, err = timing(f.timing); err != nil {
		return nil, err
	}
	script := ""
	if f.script != "" {
		b, err := os.ReadFile(f.script)
		if err != nil {
			return nil, err
		}
		script = string(b)
		if _, err := bus.ParseScript(strings.NewReader(script)); err != nil {
			return nil, fmt.Errorf("%s: %w", f.script, err)
		}
	}
	if f.every < 0 {
		return nil, errors.New("--fault-every: want 0 or more")
	}
	return func(i int) bus.Options {
		o := base
		switch {
		case script != "":
			// Each chip has a script of its own: it counts its own transactions.
			o.Faults, _ = bus.ParseScript(strings.NewReader(script)) // was read before
		case f.every > 0:
			o.Faults = bus.NewRandom(f.seed+uint64(i), f.every)
		}
		return o
	}, nil
}

// doorFlags say where hosts connect.
type doorFlags struct {
	i2c, kit, bridge string
	each             bool
}

const defaultDoor = "127.0.0.1:7608"

func (f *doorFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.i2c, "i2c", "", "where I²C transactions are taken: HOST:PORT or unix:PATH (default "+defaultDoor+", where no other door is named)")
	cmd.Flags().StringVar(&f.kit, "kit", "", "where the kit protocol is taken, text lines")
	cmd.Flags().StringVar(&f.bridge, "bridge", "", "where the kit bridge's binary protocol is taken, version 2")
	cmd.Flags().BoolVar(&f.each, "each", false, "a door for each element: ports that follow the first one, or paths with -1, -2 and so on behind")
}

// door is one listener and what it serves.
type door struct {
	Protocol string `json:"protocol"`
	Address  string `json:"address"`
	// Element is the DevEUI or serial number of the first element.
	Element string `json:"element"`
	// Elements is how many can be selected.
	Elements int `json:"elements"`

	listener net.Listener
	serve    server
	serves   bus.Elements
}

// server serves a listener until ctx ends.
type server func(context.Context, net.Listener, bus.Elements) error

// speaking is a server of a protocol.
func speaking(p bus.Protocol) server {
	return func(ctx context.Context, l net.Listener, e bus.Elements) error { return bus.Serve(ctx, l, p, e) }
}

func (f *doorFlags) open(r *rack.Rack) (doors []door, err error) {
	if f.i2c == "" && f.kit == "" && f.bridge == "" {
		f.i2c = defaultDoor
	}
	for _, d := range []struct {
		name, address string
		serve         server
	}{{"i2c", f.i2c, bus.ServeI2C}, {"kit", f.kit, speaking(bus.Kit)}, {"bridge", f.bridge, speaking(bus.Bridge)}} {
		if d.address == "" {
			continue
		}
		n := 1
		if f.each {
			n = r.Len()
		}
		for i := range n {
			address, err := following(d.address, i)
			if err == nil {
				var l net.Listener
				if l, err = listen(address); err == nil {
					o := door{Protocol: d.name, Address: shown(l.Addr()), Element: r.Slot(i).Name(), Elements: r.Len(), listener: l, serve: d.serve, serves: r}
					if f.each {
						o.Elements, o.serves = 1, bus.One(r.Slot(i).Bus)
					}
					doors = append(doors, o)
				}
			}
			if err != nil {
				closeDoors(doors)
				return nil, fmt.Errorf("--%s: %w", d.name, err)
			}
		}
	}
	return doors, nil
}

func closeDoors(doors []door) {
	for _, d := range doors {
		_ = d.listener.Close()
	}
}

const unixPrefix = "unix:"

// following gives the address of the i-th door.
func following(address string, i int) (string, error) {
	if i == 0 {
		return address, nil
	}
	if strings.HasPrefix(address, unixPrefix) {
		return fmt.Sprintf("%s-%d", address, i), nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	p, err := strconv.Atoi(port)
	if err != nil || p != 0 && p+i > 65535 {
		return "", fmt.Errorf("%s has no %d ports behind it", address, i)
	}
	if p != 0 {
		p += i
	}
	return net.JoinHostPort(host, strconv.Itoa(p)), nil
}

// shown writes an address as the flags take it.
func shown(a net.Addr) string {
	if a.Network() == "unix" {
		return unixPrefix + a.String()
	}
	return a.String()
}

// listen opens a listener. The socket of a process that was killed is replaced, that
// of one that lives is not.
func listen(address string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, unixPrefix)
	if !isUnix {
		return net.Listen("tcp", address)
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("%s is in use by another process", path)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func newElementServe() *cobra.Command {
	var (
		chips  chipFlags
		wires  wireFlags
		doors  doorFlags
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve emulated secure elements to firmware",
		Long: `Serves ATECC608 secure elements in software to firmware that is built for a host: as
I²C transactions, as the kit protocol of development boards, or as the binary kit
bridge, over TCP or Unix sockets. Elements of a key list or of silicon files are
ATECC608-TNGLORA with every slot policy; others are blank.

A connection talks to the first element until it selects another, by DevEUI, serial
number or #PLACE; with --each, every element has a door of its own. Whoever connects
can use the keys: leave the doors on this machine.

A firmware that encrypts payloads under a key which no join derived is warned of.`,
		Example: `  joinsim element serve --keys keys.csv --state elements.state
  joinsim element serve --config play/sim/sim.json --i2c unix:/tmp/element.sock --timing longest
  joinsim element serve --blank 1 --kit 127.0.0.1:7609 --faults faults.txt`,
		Args: cobra.NoArgs,
	}
	chips.register(cmd)
	wires.register(cmd)
	doors.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object for each door instead of text")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		options, err := wires.options()
		if err != nil {
			return err
		}
		warnings := cmd.ErrOrStderr()
		r, err := chips.open(rack.Options{Bus: options, Warn: func(name string) { fmt.Fprintf(warnings, "element %s: %s\n", name, appSKeyWarning) }})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.Close()) }()
		open, err := doors.open(r)
		if err != nil {
			return err
		}
		if err := printDoors(cmd.OutOrStdout(), open, asJSON); err != nil {
			closeDoors(open)
			return err
		}
		return serveDoors(cmd.Context(), open)
	}
	return cmd
}

// appSKeyWarning is told to whoever develops a firmware that shows the symptom.
const appSKeyWarning = "the firmware encrypts payloads with slot 2 (AppSKey), but the last join derived no key there: " +
	"its driver takes the AppSKey of LoRaWAN 1.1 for derived without sending KDF; the Application Server will read garbage"

func printDoors(out io.Writer, doors []door, asJSON bool) error {
	for _, d := range doors {
		line := []byte(fmt.Sprintf("%s %s: element %s", d.Protocol, d.Address, d.Element))
		if d.Elements > 1 {
			line = fmt.Appendf(line, ", %d can be selected", d.Elements)
		}
		if asJSON {
			var err error
			if line, err = json.Marshal(d); err != nil {
				return err
			}
		}
		if _, err := out.Write(append(line, '\n')); err != nil {
			return fmt.Errorf("output: %w", err)
		}
	}
	return nil
}

// serveDoors serves until ctx ends or a door fails.
func serveDoors(ctx context.Context, doors []door) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(doors))
	var wg sync.WaitGroup
	for i, d := range doors {
		wg.Go(func() {
			defer cancel()
			errs[i] = d.serve(ctx, d.listener, d.serves)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
