package command

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"joinery/internal/firmware"
	"joinery/internal/signkey"
	"joinery/internal/sim/bootloader"
	"joinery/internal/sim/chip/tnglora"
	"joinery/internal/sim/lab"
	"joinery/lorawan"
)

// stateFlag is the directory of a device that verifies what it boots.
func stateFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "state", "", "directory that is the device: its element and its flash")
	if err := cmd.MarkFlagRequired("state"); err != nil {
		panic(err) // the flag is not registered
	}
}

// makeFlags are the flags of `element make`.
type makeFlags struct{ dir, product, hardware, public, keys, config, devEUI string }

func newElementMake() *cobra.Command {
	var f makeFlags
	cmd := &cobra.Command{
		Use:   "make",
		Short: "Make a device whose element verifies firmware",
		Long: `Makes a device for development, in a directory that holds its keys in the clear: an
element that is a TNGLORA with SecureBoot configured (FullDig: it keeps the digest of
the image that it verified), and a microcontroller with a bootloader, two places for
images, and a root of trust.

With --config and --dev-eui the element is one that "joinery factory provision
--release-key" made, as the silicon file has it: it verifies under the key that is in
it, and its manifest names the key that its boots are shown by. Else the element
verifies under --public-key, for its whole life; its root keys are those of the first
row of the key list --keys, or drawn.

The directory has two files for "joinctl product key add": boot.pub (--use boot), where
no manifest names that key, and token.pub (--use token), that of the root of trust.`,
		Example: `  joinsim element make --state meter --product meter-3 --hardware rev-c --public-key meter.pub
  joinsim element make --state meter --product meter-3 --hardware rev-c --config sim.json --dev-eui 0004A310001F0000`,
		Args: cobra.NoArgs,
	}
	stateFlag(cmd, &f.dir)
	cmd.Flags().StringVar(&f.product, "product", "", "what the device is, as signed images have it")
	cmd.Flags().StringVar(&f.hardware, "hardware", "", "id of its hardware, as signed images have it")
	cmd.Flags().StringVar(&f.public, "public-key", "", "file with the maker's public key, as \"joinctl firmware key new\" writes it")
	cmd.Flags().StringVar(&f.keys, "keys", "", "key list whose first row is the element's: JoinEUI, DevEUI, NwkKey, AppKey")
	cmd.Flags().StringVar(&f.config, "config", "", "take an element of the silicon files of a sim.json")
	cmd.Flags().StringVar(&f.devEUI, "dev-eui", "", "DevEUI of that element")
	cmd.MarkFlagsMutuallyExclusive("config", "public-key")
	cmd.MarkFlagsMutuallyExclusive("config", "keys")
	cmd.MarkFlagsOneRequired("config", "public-key")
	cmd.MarkFlagsRequiredTogether("config", "dev-eui")
	for _, name := range []string{"product", "hardware"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag is not registered
		}
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := f.content()
		if err != nil {
			return err
		}
		if err := bootloader.Make(f.dir, c); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s of %s in %s: its flash is empty, \"joinsim element boot --image\" fills it\n", f.product, f.hardware, f.dir)
		return err
	}
	return cmd
}

// content is what the device is made of.
func (f *makeFlags) content() (c bootloader.Content, err error) {
	c = bootloader.Content{Product: f.product, Hardware: f.hardware}
	if f.config != "" {
		devEUI, err := lorawan.ParseEUI64(f.devEUI)
		if err != nil {
			return c, fmt.Errorf("--dev-eui: %w", err)
		}
		from := common{config: f.config}
		err = from.withLab(func(l *lab.Lab) error {
			var ioKey [32]byte
			c.Element, ioKey, err = l.BootImage(lab.Selector{DevEUI: devEUI})
			c.IOKey = &ioKey
			return err
		})
		return c, err
	}
	text, err := os.ReadFile(f.public)
	if err != nil {
		return c, err
	}
	if c.ReleaseKey, err = signkey.ParsePublic(text); err != nil {
		return c, fmt.Errorf("%s: %w", f.public, err)
	}
	if f.keys == "" {
		c.Element, err = tnglora.Image(drawnContent())
		return c, err
	}
	images, err := imagesOfKeys(f.keys)
	if err != nil {
		return c, err
	}
	if len(images) == 0 {
		return c, fmt.Errorf("%s: it has no rows", f.keys)
	}
	c.Element = images[0]
	return c, nil
}

// drawnContent is an element's that belongs to nobody.
func drawnContent() tnglora.Content {
	c := tnglora.Content{Serial: [9]byte{1, 0x23, 8: 0xEE}, JoinEUI: lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0}, NwkKey: make([]byte, 16), AppKey: make([]byte, 16), DeviceKey: make([]byte, 32)}
	for _, b := range [][]byte{c.Serial[2:8], c.DevEUI[:], c.NwkKey, c.AppKey, c.DeviceKey} {
		rand.Read(b)
	}
	c.DeviceKey[0] &= 0x7F // below the order of the curve
	return c
}

// booted is what a boot came to, for programs.
type booted struct {
	Version   string   `json:"version"`
	Image     uint32   `json:"imageCounter"`
	Element   uint32   `json:"elementCounter"`
	Place     string   `json:"place"`
	Trial     bool     `json:"trial"`
	Confirmed bool     `json:"confirmed"`
	Refused   []string `json:"refused,omitempty"`
}

// started boots a device and, unless its firmware fails, has that say that it works.
func started(d *bootloader.Device, fails bool) (r bootloader.Running, b booted, err error) {
	if r, err = d.Boot(); err != nil {
		return r, b, err
	}
	b = booted{Version: r.Version, Image: r.Counter, Place: string('A' + rune(r.Place)), Trial: r.Trial}
	for _, why := range r.Refused {
		b.Refused = append(b.Refused, why.Error())
	}
	if !fails {
		if err := d.Confirm(r); err != nil {
			return r, b, err
		}
		b.Confirmed = true
	}
	b.Element, err = d.Element.Counter()
	return r, b, err
}

func (b booted) print(out io.Writer, asJSON bool) error {
	line := []byte(fmt.Sprintf("booted version %s (counter %d) from place %s; the element's counter is %d", b.Version, b.Image, b.Place, b.Element))
	if !b.Confirmed {
		line = append(line, "; the image did not say that it works"...)
	}
	for _, why := range b.Refused {
		line = append(line, "\nrefused: "+why...)
	}
	if asJSON {
		var err error
		if line, err = json.Marshal(b); err != nil {
			return err
		}
	}
	_, err := out.Write(append(line, '\n'))
	return err
}

func newElementBoot() *cobra.Command {
	var dir, image string
	var fails, asJSON bool
	var off int
	cmd := &cobra.Command{
		Use:   "boot",
		Short: "Boot a device whose element verifies firmware",
		Long: `Switches the power of a device of "joinsim element make" on. Its bootloader has the
element verify the image that it prefers (SecureBoot), holds product, hardware and
anti-rollback counter against the device's, and starts it, or else the other one. An
image that says that it works has the element's counter counted up to its own.

With --image a signed image is written to the place that is not running, verified by
the element, and booted with the next power cycle. One that is refused leaves the device
as it was. With --power-off the power goes before so many steps (commands to the chip
and writes to flash) were taken; the next boot shows what that left.`,
		Example: `  joinsim element boot --state meter --image meter-3.1.0.signed
  joinsim element boot --state meter --image meter-3.2.0.signed --power-off 9
  joinsim element boot --state meter`,
		Args: cobra.NoArgs,
	}
	stateFlag(cmd, &dir)
	cmd.Flags().StringVar(&image, "image", "", "signed image to install first, as \"joinctl firmware sign\" writes it")
	cmd.Flags().BoolVar(&fails, "fail", false, "the firmware that is started fails before it could say that it works")
	cmd.Flags().IntVar(&off, "power-off", 0, "take the power away before this step, 0 for never")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object instead of text")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		bench, err := bootloader.Open(dir)
		if err != nil {
			return err
		}
		power := &bootloader.Power{Off: off}
		defer func() {
			if err != nil && power.Gone() {
				err = fmt.Errorf("%w before step %d", bootloader.ErrPower, off)
			}
			err = errors.Join(err, bench.Close())
		}()
		if image != "" {
			f, err := os.Open(image)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			if err := install(bench, power, f); err != nil {
				return fmt.Errorf("%s: %w", image, err)
			}
		}
		d, err := bench.PowerOn(power)
		if err != nil {
			return err
		}
		_, b, err := started(d, fails)
		if err != nil {
			return err
		}
		return b.print(cmd.OutOrStdout(), asJSON)
	}
	return cmd
}

// install has a running device, or one whose flash is empty, take an image.
func install(bench *bootloader.Bench, power *bootloader.Power, image io.Reader) error {
	d, err := bench.PowerOn(power)
	if err != nil {
		return err
	}
	r, err := d.Boot()
	switch {
	case errors.Is(err, bootloader.ErrNothing):
		r = bootloader.Running{Place: 1} // the factory fills the first place
	case err != nil:
		return err
	}
	_, err = d.Install(r, image)
	return err
}

// aboutImage reads what an image says of itself.
func aboutImage(file string) (i firmware.Image, block []byte, err error) {
	if block, err = os.ReadFile(file); err == nil {
		i, err = firmware.ReadImage(strings.NewReader(string(block)), nil)
	}
	if err != nil {
		return i, nil, fmt.Errorf("%s: %w", file, err)
	}
	return i, block, nil
}
