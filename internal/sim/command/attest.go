package command

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"joinery/internal/evidence"
	"joinery/internal/sim/lab"
	"joinery/lorawan"
)

// attestFlags are the flags of `element attest`.
type attestFlags struct {
	config, image, out, lie, by string
	counter                     uint32
	size                        int
}

func newElementAttest() *cobra.Command {
	var f attestFlags
	cmd := &cobra.Command{
		Use:   "attest CHALLENGE",
		Short: "Have an element answer a challenge",
		Long: `Answers a challenge file of "joinctl attest challenge" with the device key in the
element's slot 1: evidence of level L1, for "joinctl device attest". The digest of
--image and --counter are what the device says that it runs; the element signs whatever
it is told. With --fragments the evidence comes as uplinks of at most so many bytes, in
hexadecimal, one a line, for "joinctl attest fragment".

--lie makes evidence that has to be refused: "forged" is signed by a key of nobody's,
"foreign" by the element of the device --by, "garbled" is changed after it was signed,
"replayed" answers another challenge.`,
		Example: `  joinsim element attest challenge.json --image firmware.bin --counter 3 --out evidence.json
  joinsim element attest challenge.json --image firmware.bin --fragments 51`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&f.config, "config", "sim.json", "the simulator's configuration")
	cmd.Flags().StringVar(&f.image, "image", "", "the firmware that the device says it runs")
	cmd.Flags().Uint32Var(&f.counter, "counter", 0, "the anti-rollback counter that it says")
	cmd.Flags().StringVar(&f.out, "out", "", "where the answer goes (default: standard output)")
	cmd.Flags().IntVar(&f.size, "fragments", 0, "write fragments of at most so many bytes instead of a file")
	cmd.Flags().StringVar(&f.lie, "lie", "", "forged, foreign, garbled or replayed")
	cmd.Flags().StringVar(&f.by, "by", "", "DevEUI of the device that answers for another")
	if err := cmd.MarkFlagRequired("image"); err != nil {
		panic(err) // the flag is not registered
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
	image, err := os.ReadFile(f.image)
	if err != nil {
		return err
	}
	c := common{config: f.config}
	err = c.withLab(func(l *lab.Lab) error {
		asked.Kind = "possession"
		asked.Evidence, err = f.answer(l, asked, sha256.Sum256(image))
		return err
	})
	if err != nil {
		return err
	}
	answer, err := f.written(asked)
	if err != nil {
		return err
	}
	if f.out == "" {
		_, err = out.Write(answer)
		return err
	}
	return os.WriteFile(f.out, answer, 0o644)
}

// answer is what the device says, or what stands in its place.
func (f *attestFlags) answer(l *lab.Lab, asked evidence.File, digest [32]byte) ([]byte, error) {
	who := asked.DevEUI
	challenge := asked.About().Challenge
	switch f.lie {
	case "", "forged", "garbled":
	case "foreign":
		var err error
		if who, err = lorawan.ParseEUI64(f.by); err != nil {
			return nil, errors.New("--by: want the DevEUI of the device that answers in the place of the other")
		}
	case "replayed":
		challenge[evidence.ChallengeLen-1] ^= 1
	default:
		return nil, errors.New("--lie: want forged, foreign, garbled or replayed")
	}
	d, err := l.Device(lab.Selector{DevEUI: who}, 0)
	if err != nil {
		return nil, err
	}
	b, err := d.Possess(challenge, digest, f.counter)
	if err != nil {
		return nil, err
	}
	switch f.lie {
	case "forged":
		rand.Read(b[len(b)-evidence.SignatureLen:]) // as good as a stranger's
	case "garbled":
		b[evidence.TagLen+1] ^= 1
	}
	return b, nil
}

// written is the answer as a file, or as fragments.
func (f *attestFlags) written(answer evidence.File) ([]byte, error) {
	if f.size == 0 {
		return answer.Text()
	}
	parts, err := evidence.Split(answer.Evidence, f.size)
	var lines []byte
	for _, p := range parts {
		lines = append(hex.AppendEncode(lines, p), '\n')
	}
	return lines, err
}
