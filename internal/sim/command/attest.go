package command

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"joinery/internal/evidence"
	"joinery/internal/firmware"
	"joinery/internal/sim/bootloader"
	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/internal/sim/lab"
	"joinery/lorawan"
)

// Kinds of evidence, as files of evidence have them.
const (
	kindPossession = "possession"
	kindBoot       = "boot"
	kindCOSE       = "eat-cose"
	kindJWT        = "eat-jwt"
)

// attestFlags are the flags of `element attest`.
type attestFlags struct {
	config, state, level, form, image, out, lie, by string
	counter                                         uint32
	size                                            int
}

func newElementAttest() *cobra.Command {
	var f attestFlags
	cmd := &cobra.Command{
		Use:   "attest CHALLENGE",
		Short: "Have a device answer a challenge",
		Long: `Answers a challenge file of "joinctl attest challenge", for "joinctl device attest".

With --state the device of "joinsim element make" is powered on and boots, and what it
boots answers; one that boots nothing answers nothing. --level says with what:

  L1  the device key in slot 1, which signs whatever it is told
  L2  the key in slot 11, which the element lets nobody use before it verified an image,
      and which signs the element's own state
  L3  the microcontroller's root of trust: an entity attestation token, --form cose
      (COSE_Sign1) or jwt

Without --state a device of the simulator's configuration answers, at L1; the digest of
--image, a signed image or any other file, and --counter are what it says that it runs.

With --fragments the evidence, of L1 or L2, comes as uplinks of at most so many bytes, in
hexadecimal, one a line, for "joinctl attest fragment".

--lie makes evidence that has to be refused: "forged" is signed by a key of nobody's,
"foreign" by the device --by (a DevEUI, or with --state its directory), "garbled" is
changed after it was signed, "replayed" answers another challenge.`,
		Example: `  joinsim element attest challenge.json --image firmware.bin --counter 3 --out evidence.json
  joinsim element attest challenge.json --state meter --level L2 --out evidence.json
  joinsim element attest challenge.json --state meter --level L3 --form jwt --out evidence.json
  joinsim element attest challenge.json --state meter --level L2 --fragments 51`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&f.config, "config", "sim.json", "the simulator's configuration")
	cmd.Flags().StringVar(&f.state, "state", "", "directory that is the device, of \"joinsim element make\"")
	cmd.Flags().StringVar(&f.level, "level", "L1", "L1, L2 or L3; the latter two with --state")
	cmd.Flags().StringVar(&f.form, "form", "cose", "how a token is written: cose or jwt")
	cmd.Flags().StringVar(&f.image, "image", "", "the firmware that the device says it runs, without --state")
	cmd.Flags().Uint32Var(&f.counter, "counter", 0, "the anti-rollback counter that it says, without --state")
	cmd.Flags().StringVar(&f.out, "out", "", "where the answer goes (default: standard output)")
	cmd.Flags().IntVar(&f.size, "fragments", 0, "write fragments of at most so many bytes instead of a file")
	cmd.Flags().StringVar(&f.lie, "lie", "", "forged, foreign, garbled or replayed")
	cmd.Flags().StringVar(&f.by, "by", "", "the device that answers for another")
	cmd.MarkFlagsOneRequired("state", "image")
	for _, name := range []string{"config", "image", "counter"} {
		cmd.MarkFlagsMutuallyExclusive("state", name)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return f.run(cmd.OutOrStdout(), args[0]) }
	return cmd
}

func (f *attestFlags) run(out io.Writer, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	asked, err := evidence.ParseFile(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	switch f.lie {
	case "", "forged", "garbled", "replayed", "foreign":
	default:
		return errors.New("--lie: want forged, foreign, garbled or replayed")
	}
	about := asked.About()
	if f.lie == "replayed" {
		about.Challenge[evidence.ChallengeLen-1] ^= 1
	}
	if f.state != "" {
		asked.Kind, asked.Evidence, err = f.booted(about)
	} else {
		asked.Kind = kindPossession
		asked.Evidence, err = f.says(about)
	}
	if err != nil {
		return err
	}
	f.spoil(asked.Kind, asked.Evidence)
	answer, err := f.written(asked)
	if err != nil {
		return err
	}
	if f.out == "" {
		_, err = out.Write(answer)
		return err
	}
	if err := os.WriteFile(f.out, answer, 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s of %v/%v in %s; next: joinctl device attest %v --evidence %s\n", asked.Kind, asked.JoinEUI, asked.DevEUI, f.out, asked.DevEUI, f.out)
	return err
}

// says is what a device of the lab answers: what it says of itself.
func (f *attestFlags) says(about evidence.About) (b []byte, err error) {
	if f.level != "L1" {
		return nil, errors.New("--level: what a device booted is shown with --state, the directory of \"joinsim element make\"")
	}
	image, err := os.ReadFile(f.image)
	if err != nil {
		return nil, err
	}
	who := about.DevEUI
	if f.lie == "foreign" {
		if who, err = lorawan.ParseEUI64(f.by); err != nil {
			return nil, errors.New("--by: want the DevEUI of the device that answers in the place of the other")
		}
	}
	c := common{config: f.config}
	err = c.withLab(func(l *lab.Lab) error {
		d, err := l.Device(lab.Selector{DevEUI: who}, 0)
		if err == nil {
			b, err = d.Possess(about.Challenge, digestOf(image), f.counter)
		}
		return err
	})
	return b, err
}

// digestOf gives what a release of the file is known by: of a signed image the digest
// that its signature is over, of any other file that of all of it.
func digestOf(file []byte) [sha256.Size]byte {
	if image, err := firmware.ReadImage(bytes.NewReader(file), nil); err == nil {
		return image.Digest
	}
	return sha256.Sum256(file)
}

// booted switches a device on, and has what boots answer.
func (f *attestFlags) booted(about evidence.About) (kind string, b []byte, err error) {
	dir := f.state
	if f.lie == "foreign" {
		if dir = f.by; dir == "" {
			return "", nil, errors.New("--by: want the directory of the device that answers in the place of the other")
		}
	}
	bench, err := bootloader.Open(dir)
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, bench.Close()) }()
	power, err := bench.PowerOn(&bootloader.Power{})
	if err != nil {
		return "", nil, err
	}
	running, _, err := started(power, false)
	if err != nil {
		return "", nil, err
	}
	e, err := element.OnChip(bench.Chip(), false)
	if err != nil {
		return "", nil, err
	}
	if f.lie != "foreign" && (e.JoinEUI() != about.JoinEUI || e.DevEUI() != about.DevEUI) {
		return "", nil, fmt.Errorf("the challenge is for %v/%v, and the device in %s is %v/%v", about.JoinEUI, about.DevEUI, dir, e.JoinEUI(), e.DevEUI())
	}
	token := bootloader.Token{About: about, Digest: running.Digest, Version: running.Version}
	switch {
	case f.level == "L1":
		d, err := device.New(e, lorawan.MAC1_0_4, device.Options{})
		if err == nil {
			b, err = d.Possess(about.Challenge, running.Digest, running.Counter)
		}
		return kindPossession, b, err
	case f.level == "L2":
		boot, err := power.Element.Evidence(about)
		return kindBoot, boot.Bytes(), err
	case f.level == "L3" && f.form == "cose":
		b, err = bench.COSE(token)
		return kindCOSE, b, err
	case f.level == "L3" && f.form == "jwt":
		b, err = bench.JWT(token)
		return kindJWT, b, err
	}
	return "", nil, errors.New("--level: want L1, L2 or L3, and --form cose or jwt")
}

// spoil makes evidence that is signed by nobody, or was changed after it was signed.
func (f *attestFlags) spoil(kind string, b []byte) {
	compact := kind == kindPossession || kind == kindBoot
	switch {
	case f.lie == "garbled" && compact:
		b[evidence.TagLen+1] ^= 1 // of the digest at L1, of what the chip drew at L2
	case f.lie == "garbled":
		b[len(b)*2/3] ^= 1 // of the claims
	case f.lie == "forged" && kind == kindJWT:
		var random [evidence.SignatureLen]byte
		rand.Read(random[:])
		base64.RawURLEncoding.Encode(b[bytes.LastIndexByte(b, '.')+1:], random[:])
	case f.lie == "forged":
		rand.Read(b[len(b)-evidence.SignatureLen:]) // as good as a stranger's
	}
}

// written is the answer as a file, or as fragments.
func (f *attestFlags) written(answer evidence.File) ([]byte, error) {
	if f.size == 0 {
		return answer.Text()
	}
	if answer.Kind != kindPossession && answer.Kind != kindBoot {
		return nil, errors.New("--fragments: tokens are too long for the radio; give them in a file")
	}
	parts, err := evidence.Split(answer.Evidence, f.size)
	var lines []byte
	for _, p := range parts {
		lines = append(hex.AppendEncode(lines, p), '\n')
	}
	return lines, err
}
