package main

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"joinery/internal/factory"
	"joinery/internal/harden"
	"joinery/internal/keyring/soft"
	"joinery/internal/signkey"
	"joinery/lorawan"
)

func newFactory() *cobra.Command {
	return group(&cobra.Command{
		Use:   "factory",
		Short: "Make secure elements, offline",
		Long: `What a maker of secure elements does, away from any server: a factory has a key
file of its own with the signer of its manifests, and shares master keys with the
Join Servers that its elements will join through.`,
	}, newFactoryInit(), newFactoryProvision())
}

func newFactoryInit() *cobra.Command {
	var dir string
	var unlock soft.Unlock
	var options soft.FactoryOptions
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make the keys of a new factory",
		Long: `Makes, in one directory:

  factory.age         the factory's keys, sealed: the signer of manifests, the issuer
                      of the elements' device certificates, and a transport key by
                      which master keys are shared with it
  factory.passphrase  what opens it
  factory.crt         the signer's certificate, PEM: Join Servers pin it
  factory-root.crt    the root of the elements' device certificates, PEM: Join
                      Servers pin it beside the signer
  factory.pub         the transport key, PEM

The root signs the one issuer and then its private key is destroyed.

It has no master key yet: make one with "joinery ceremony master new", or accept
one. The passphrase is drawn at random, unless you name a file with your own.`,
		Example: `  joinery factory init --dir factory --name "ACME line 1"`,
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "dir", "factory", "where the files go; it is made if it is missing")
	cmd.Flags().StringVar(&options.CommonName, "name", "", "name of the signer in its certificate")
	cmd.Flags().StringVar(&options.Organisation, "organisation", "", "organisation of the signer in its certificate")
	newUnlockFlags(cmd, &unlock, "", "factory.age")
	require(cmd, "name")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := harden.Process(); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		file, err := prepareKeyFile(dir, "factory", unlock)
		if err != nil {
			return err
		}
		options.KeyFile, options.Unlock = file.path, file.unlock
		if err := soft.InitFactory(options); err != nil {
			file.abandon()
			return err
		}
		public := publicHalves{
			certificate: filepath.Join(dir, "factory.crt"), root: filepath.Join(dir, "factory-root.crt"), transport: filepath.Join(dir, "factory.pub"),
		}
		if err := public.write(cmd, options); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "made %v\nmade %s, %s and %s: give them to the Join Servers\n",
			file, public.certificate, public.root, public.transport)
		return nil
	}
	return cmd
}

// publicHalves is where the files go that the world may know of a new factory.
type publicHalves struct{ certificate, root, transport string }

func (p publicHalves) write(cmd *cobra.Command, options soft.FactoryOptions) error {
	f, err := soft.OpenFactory(cmd.Context(), soft.Options{KeyFile: options.KeyFile, Unlock: options.Unlock})
	if err != nil {
		return err
	}
	certificate, root := f.Certificate(), f.Root()
	if err := f.Close(); err != nil {
		return err
	}
	key, err := soft.TransportKey(options.KeyFile, options.Unlock)
	if err != nil {
		return err
	}
	certificateTo := func(der []byte) func(io.Writer) error {
		return func(w io.Writer) error { return pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: der}) }
	}
	return errors.Join(
		newFile(p.certificate, 0o644, certificateTo(certificate)),
		newFile(p.root, 0o644, certificateTo(root)),
		newFile(p.transport, 0o644, func(w io.Writer) error {
			_, err := w.Write(key.MarshalPEM())
			return err
		}),
	)
}

// provisionFlags are the flags of `factory provision`.
type provisionFlags struct {
	order                      factory.Order
	joinEUI, devEUI, recipient string
	rekey, releaseKey          string
	manifest, silicon          string
}

func newFactoryProvision() *cobra.Command {
	var f provisionFlags
	cmd := &cobra.Command{
		Use:   "provision",
		Short: "Make elements: a signed manifest, and their keys for the silicon",
		Long: `Makes COUNT elements with consecutive DevEUIs, whose root keys derive from a master
key. Each gets a P-256 device key with a certificate, by which it can prove to be
itself. It writes the signed manifest, which the device maker imports into a Join
Server that has the same master key and pins this factory's signer and root, and
the silicon file with the root keys and the private device keys, sealed to whoever
puts them into silicon (here: the simulator).

With --release-key the elements verify firmware: SecureBoot is configured as
docs/firmware.md says, with this public key, which an element keeps for life, and an
anti-rollback counter. The manifest names the key in slot 11 as well, by which each
shows what it booted (L2), and the silicon file has what is in the slots besides.

(master key, generation, DevEUI) must never be used for two elements.`,
		Example: `  joinery factory provision --key-file factory.age --passphrase-file factory.passphrase \
    --master acme-2026 --join-eui 70B3D57ED0000000 --dev-eui-first 0004A310001F0000 --count 1000 \
    --recipient recipient.pub --manifest manifest.json --silicon elements.silicon
  joinery factory provision --key-file factory.age --passphrase-file factory.passphrase \
    --master acme-2026 --join-eui 70B3D57ED0000000 --dev-eui-first 0004A310001F0000 --count 1000 \
    --recipient recipient.pub --release-key meter.pub`,
		Args: cobra.NoArgs,
	}
	file := keyFileFlags(cmd, false)
	flags := cmd.Flags()
	flags.StringVar(&f.order.Master, "master", "", "master key from which the root keys derive")
	flags.Uint32Var(&f.order.Generation, "generation", 1, "generation in the derivation")
	flags.StringVar(&f.joinEUI, "join-eui", "", "JoinEUI of the elements, 16 hexadecimal digits")
	flags.StringVar(&f.devEUI, "dev-eui-first", "", "DevEUI of the first element, 16 hexadecimal digits")
	flags.Uint64Var(&f.order.Count, "count", 1, "how many elements")
	flags.StringVar(&f.recipient, "recipient", "", "PEM file with the public key to which root keys are sealed")
	flags.StringVar(&f.manifest, "manifest", "manifest.json", "where the manifest goes")
	flags.StringVar(&f.silicon, "silicon", "elements.silicon", "where the sealed root keys go")
	flags.StringVar(&f.rekey, "rekey", "none", "how the elements can be rekeyed: none, S or M")
	flags.StringVar(&f.releaseKey, "release-key", "", "PEM file with the public key under which the elements verify firmware,\nas \"joinctl firmware key new\" writes it (default: they verify none)")
	flags.StringVar(&f.order.Maker, "maker", "", "organisation named in the manifest as manufacturer")
	flags.StringVar(&f.order.Part, "part", "", "part number in the manifest")
	flags.StringVar(&f.order.Group, "group", "", "group in the manifest, such as an order number")
	require(cmd, "master", "join-eui", "dev-eui-first", "recipient")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		path, unlock, err := hardened(file)
		if err != nil {
			return err
		}
		return f.provision(cmd, soft.Options{KeyFile: path, Unlock: unlock})
	}
	return cmd
}

// provision carries an order out. The manifest appears under its name last: who
// finds it finds the silicon file, too.
func (f *provisionFlags) provision(cmd *cobra.Command, keyFile soft.Options) (err error) {
	if f.order.JoinEUI, err = lorawan.ParseEUI64(f.joinEUI); err != nil {
		return fmt.Errorf("--join-eui: %w", err)
	}
	if f.order.DevEUI, err = lorawan.ParseEUI64(f.devEUI); err != nil {
		return fmt.Errorf("--dev-eui-first: %w", err)
	}
	if f.order.Recipient, err = readPublicKey(f.recipient); err != nil {
		return fmt.Errorf("--recipient: %w", err)
	}
	if err := f.order.Rekey.UnmarshalText([]byte(f.rekey)); err != nil {
		return fmt.Errorf("--rekey: %w", err)
	}
	if f.releaseKey != "" {
		text, err := os.ReadFile(f.releaseKey)
		if err == nil {
			f.order.ReleaseKey, err = signkey.ParsePublic(text)
		}
		if err != nil {
			return fmt.Errorf("--release-key: %w", err)
		}
	}
	f.order.At = time.Now()
	if err := f.order.Check(); err != nil {
		return err
	}
	keys, err := soft.OpenFactory(cmd.Context(), keyFile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	bar := newProgress(cmd.ErrOrStderr(), f.order.Count)
	err = newFile(f.manifest, 0o644, func(manifest io.Writer) error {
		return newFile(f.silicon, 0o600, func(silicon io.Writer) error {
			return factory.Make(cmd.Context(), keys, f.order, manifest, silicon, bar)
		})
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "made %d elements: %s, signed, and %s, sealed to %s\n",
		f.order.Count, f.manifest, f.silicon, f.order.Recipient.KID())
	if f.order.ReleaseKey != nil {
		fmt.Fprintf(cmd.OutOrStdout(), "they verify firmware: register the product with\n  joinctl product add NAME --hardware ID --dev-euis %s-%s --boot-slots %d,%d --boot-counter %d\n",
			f.order.DevEUI, f.order.Last(), factory.BootKeySlot, factory.BootDigestSlot, factory.BootCounter)
	}
	return nil
}

// newProgress shows progress to a person; to a file or pipe it shows nothing.
func newProgress(w io.Writer, total uint64) func(done uint64) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func(uint64) {}
	}
	bar := progressbar.NewOptions64(int64(total),
		progressbar.OptionSetWriter(w), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("elements"), progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish())
	return func(done uint64) { _ = bar.Set64(int64(done)) }
}
