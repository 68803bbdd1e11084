package command

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/internal/sim/lab"
	"joinery/internal/sim/load"
	"joinery/lorawan"
)

// fleetFlags say which devices there are.
type fleetFlags struct {
	devices string
	seed    string
	joinEUI string
	devEUI  string
}

func (f *fleetFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.devices, "devices", lab.DefaultMACVersion.String(), "LoRaWAN version of the devices as they were imported, and how many of each\nfollow one another: 1.1, or 1.0.3=5000,1.1=5000; without a number, all that are left")
	flags.StringVar(&f.seed, "seed", "", "derive the devices' root keys from this text instead of reading silicon files; who knows\nit knows the keys")
	flags.StringVar(&f.joinEUI, "join-eui", "0200000000000100", "with --seed: the devices' JoinEUI")
	flags.StringVar(&f.devEUI, "dev-eui-first", "020000FFFF000000", "with --seed: DevEUI of the first; the others follow")
}

// rest is the number of devices where none is given.
const rest = -1

// groups reads "VERSION[=COUNT],…"; only the last one goes without a number.
func (f *fleetFlags) groups() (groups []load.Group, err error) {
	for item := range strings.SplitSeq(f.devices, ",") {
		name, number, counted := strings.Cut(item, "=")
		g := load.Group{Count: rest}
		if g.Version, err = lorawan.ParseMACVersion(name); err != nil {
			return nil, fmt.Errorf("--devices: %w", err)
		}
		if counted {
			if g.Count, err = strconv.Atoi(number); err != nil || g.Count < 1 {
				return nil, fmt.Errorf("--devices: want a number of devices behind %s=", name)
			}
		}
		if n := len(groups); n > 0 {
			last := groups[n-1]
			if last.Count == rest {
				return nil, errors.New("--devices: only the last version goes without a number")
			}
			g.First = last.First + last.Count
		}
		groups = append(groups, g)
	}
	return groups, nil
}

// fleet makes the elements and says which version each speaks. It has no memory
// yet.
func (f *fleetFlags) fleet(l *lab.Lab) (*load.Fleet, error) {
	groups, err := f.groups()
	if err != nil {
		return nil, err
	}
	fleet := &load.Fleet{Elements: &element.Chest{}, Groups: groups, Used: map[int]device.State{}}
	if f.seed != "" {
		return fleet, f.derive(groups, nil, func(e *element.Element) { fleet.Elements.Add(e) })
	}
	last := &groups[len(groups)-1]
	if last.Count != rest {
		fleet.Elements.Grow(last.First + last.Count)
	}
	err = l.Elements(func(e *element.Element) bool {
		if used := l.Used(e.JoinEUI(), e.DevEUI()); used != nil {
			fleet.Used[fleet.Elements.Len()] = *used
		}
		fleet.Elements.Add(e)
		return last.Count == rest || fleet.Elements.Len() < last.First+last.Count
	})
	if err != nil {
		return nil, err
	}
	there := fleet.Elements.Len()
	if last.Count == rest {
		last.Count = there - last.First
	}
	if last.Count < 1 || last.First+last.Count > there {
		return nil, fmt.Errorf("--devices: the silicon files hold %d elements, fewer than that", there)
	}
	return fleet, nil
}

// derive makes the elements of a seed, their keys written to keyList, unless it
// is nil.
func (f *fleetFlags) derive(groups []load.Group, keyList io.Writer, take func(*element.Element)) error {
	joinEUI, err := lorawan.ParseEUI64(f.joinEUI)
	if err != nil {
		return fmt.Errorf("--join-eui: %w", err)
	}
	first, err := lorawan.ParseEUI64(f.devEUI)
	if err != nil {
		return fmt.Errorf("--dev-eui-first: %w", err)
	}
	factory := element.NewSeededFactory(f.seed, keyList)
	for _, g := range groups {
		if g.Count == rest {
			return errors.New("--devices: say how many of each version a seed makes: --devices 1.0.3=5000,1.1=5000")
		}
		for i := range g.Count {
			devEUI := lorawan.EUI64FromUint64(first.Uint64() + uint64(g.First+i))
			e, err := factory.Make(joinEUI, devEUI, g.Version)
			if err != nil {
				return err
			}
			take(e)
		}
	}
	return nil
}

// loadState is where elements of the silicon files remember what they did under
// load.
func loadState(l *lab.Lab) string { return l.StatePath() + ".load" }

// state gives where the fleet's devices remember, if no flag says.
func (f *fleetFlags) state(l *lab.Lab) string {
	path := loadState(l)
	if f.seed != "" {
		path += "-" + f.joinEUI + "-" + f.devEUI
	}
	return path
}

func newLoadPrepare() *cobra.Command {
	var f fleetFlags
	var out string
	cmd := &cobra.Command{
		Use:   "prepare",
		Short: "Write the key list of devices from a seed, for the server's import",
		Long: `Devices from a seed exist in simulation only. So that a Join Server knows them, this
writes their key list, with the root keys in the clear: a CSV with the columns
JoinEUI, DevEUI, MACVersion, NwkKey, AppKey, in a new file that only you can read.
Import it, remove it, and run "joinsim load" with the same --seed, --devices and EUIs.`,
		Example: `  joinsim load prepare --seed test-fleet --devices 1.0.3=5000,1.1=5000 --out keys.csv
  joinctl import keys keys.csv --bind-net-id 000013 --bind-as-id as.example.com
  joinsim load --seed test-fleet --devices 1.0.3=5000,1.1=5000`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.seed == "" || out == "" {
				return errors.New("give --seed and --out")
			}
			n, err := f.writeKeyList(out)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %d devices with their root keys in the clear; remove it after the import\n", out, n); err != nil {
				return fmt.Errorf("output: %w", err)
			}
			return nil
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&out, "out", "", "the file; it must not exist")
	return cmd
}

// writeKeyList writes the keys of a seed's devices to a new file.
func (f *fleetFlags) writeKeyList(path string) (n int, err error) {
	groups, err := f.groups()
	if err != nil {
		return 0, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, fmt.Errorf("key list: %w", err)
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	buffered := bufio.NewWriterSize(file, 1<<16)
	if err := f.derive(groups, buffered, func(*element.Element) { n++ }); err != nil {
		return 0, err
	}
	return n, buffered.Flush()
}
