package command

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"joinery/internal/fragment"
	"joinery/internal/sim/bootloader"
	"joinery/internal/sim/chip/tnglora"
	"joinery/internal/sim/fuota"
)

func newFirmware() *cobra.Command {
	cmd := &cobra.Command{Use: "firmware", Short: "Firmware of simulated devices", Args: cobra.NoArgs}
	cmd.AddCommand(newFirmwareUpdate())
	return cmd
}

// updateFlags are the flags of `firmware update`.
type updateFlags struct {
	dir, image    string
	loss, parity  float64
	seed          uint64
	size, version int
	memory        int
	asJSON        bool
}

func newFirmwareUpdate() *cobra.Command {
	var f updateFlags
	cmd := &cobra.Command{
		Use:   "update",
		Short: "Send an image to a device over LoRaWAN, and boot it",
		Long: `Sends a signed image to a device of "joinsim element make" by fragmented data block
transport (TS004): FragSessionSetup, DataFragments, parity for what was lost, and
FragSessionStatus, over downlinks and uplinks of which --loss get lost. What came
together is verified by the device's element, and only then booted. When too much is
lost, or the element refuses the image, the device stays on what it has, and the exit
status says so.

Version 2 also has a counter of sessions and a MIC of the block, under a key that the
element derives from its AppKey; this command asks the element for it on the sender's
behalf, where a fleet's sender has its own copy.`,
		Example: `  joinsim firmware update --state meter --image meter-3.2.0.signed --loss 0.2
  joinsim firmware update --state meter --image meter-3.2.0.signed --loss 0.2 --fragment-size 51 --package-version 2`,
		Args: cobra.NoArgs,
	}
	stateFlag(cmd, &f.dir)
	fl := cmd.Flags()
	fl.StringVar(&f.image, "image", "", "signed image, as \"joinctl firmware sign\" writes it")
	fl.Float64Var(&f.loss, "loss", 0, "share of messages that get lost, 0 to 1")
	fl.Float64Var(&f.parity, "parity", 0.5, "how much parity is sent at most, as a share of the image's fragments")
	fl.Uint64Var(&f.seed, "seed", 1, "from which it is drawn what gets lost")
	fl.IntVar(&f.size, "fragment-size", 100, "bytes in a fragment; a downlink has 3 more (EU868: 48 at DR0, 219 at DR5)")
	fl.IntVar(&f.version, "package-version", 1, "version of TS004: 1 or 2")
	fl.IntVar(&f.memory, "memory", 256<<10, "bytes that the device has for an image")
	fl.BoolVar(&f.asJSON, "json", false, "print JSON objects instead of text, one a line")
	if err := cmd.MarkFlagRequired("image"); err != nil {
		panic(err) // the flag is not registered
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return f.run(cmd.OutOrStdout()) }
	return cmd
}

func (f *updateFlags) run(out io.Writer) (err error) {
	if f.loss < 0 || f.loss > 1 || f.parity < 0 || f.version != 1 && f.version != 2 {
		return errors.New("want --loss from 0 to 1, --parity of 0 or more, --package-version 1 or 2")
	}
	image, block, err := aboutImage(f.image)
	if err != nil {
		return err
	}
	bench, err := bootloader.Open(f.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bench.Close()) }()
	power := &bootloader.Power{}
	d, err := bench.PowerOn(power)
	if err != nil {
		return err
	}
	running, before, err := started(d, false)
	if err != nil {
		return err
	}
	if err := before.print(out, f.asJSON); err != nil {
		return err
	}
	stays := func(err error) error {
		return fmt.Errorf("the device stays on version %s: %w", before.Version, err)
	}

	// The sender takes the image at its word; the device does not.
	r := &fuota.Receiver{Version: fragment.Version(f.version), Descriptor: fuota.Descriptor(d.Product, d.Hardware), Memory: f.memory}
	o := fuota.Options{
		Version: r.Version, FragSize: f.size, Parity: f.parity, Descriptor: fuota.Descriptor(image.Product, image.Hardware),
		Progress: func(p fuota.Progress) { _ = f.progress(out, p) },
	}
	if r.Version >= fragment.V2 {
		seed := [16]byte{0x30} // DataBlockIntKey = AES(AppKey, 30 ‖ zeros)
		if err := tnglora.NewDriver(bench.Chip()).Encrypt(tnglora.SlotRoots, tnglora.PlaceAppKey, r.Key[:], seed[:]); err != nil {
			return err
		}
		o.Key = r.Key
	}
	if _, err := fuota.Send(fuota.NewAir(f.loss, f.seed), r, block, o); err != nil {
		return stays(err)
	}
	if _, err := d.Install(running, bytes.NewReader(r.Block())); err != nil {
		return stays(err)
	}
	if d, err = bench.PowerOn(power); err != nil {
		return err
	}
	_, after, err := started(d, false)
	if err != nil {
		return err
	}
	return after.print(out, f.asJSON)
}

func (f *updateFlags) progress(out io.Writer, p fuota.Progress) error {
	line := []byte(fmt.Sprintf("sent %d of %d fragments, %d of parity; the device last had %d", p.Sent-p.Parity, p.Fragments, p.Parity, p.Received))
	if f.asJSON {
		var err error
		if line, err = json.Marshal(p); err != nil {
			return err
		}
	}
	_, err := out.Write(append(line, '\n'))
	return err
}
