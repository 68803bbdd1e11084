package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"os"

	"joinery"
	"joinery/client"
	"joinery/manifest"

	"github.com/spf13/cobra"
)

func (a *app) signerCommand() *cobra.Command {
	c := &cobra.Command{Use: "signer", Short: "Signers of manifests that this server trusts"}
	c.AddCommand(a.signerAddCommand(), a.signerListCommand(), a.signerRemoveCommand())
	return c
}

const signerHelp = `Trust a signer of manifests: the organisation (--org) may import what it signed,
for identifiers within the ranges. Root keys of its elements derive from the master
key that is named. Certificates are PEM or DER.

With --root each entry must have a device key with a certificate that leads to that
root, and names the same element. A factory of Joinery writes factory-root.crt.

--family microchip is for Trust Platform parts: their DevEUI is in the device
certificate, so --root is needed, and --serial-suffix says how serial numbers end
that count (27, 10). Their JoinEUI is in slot 9; entries without it count where
--join-euis is one JoinEUI alone. The maker's log signers sign for every buyer:
--shared lets every organisation import what they signed into the range of the
operator's organisation. Whoever has the entry of a chip is then taken for its
owner, once. Ask the maker for the certificates of its log signers and its root, and
compare their fingerprints with what the maker publishes: none come with Joinery.`

// signerFlags are what a signer is pinned with.
type signerFlags struct {
	certificate, family, suffix string
	roots                       []string
}

func (f *signerFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.certificate, "cert", "", "file of the signer's certificate")
	c.Flags().StringVar(&f.family, "family", string(manifest.FamilyJoinery), "whose parts it signs: joinery or microchip")
	c.Flags().StringArrayVar(&f.roots, "root", nil, "root certificate of the elements' device certificates; may be given more than once")
	c.Flags().StringVar(&f.suffix, "serial-suffix", "", "how serial numbers end that it may provision, in hexadecimal digits")
}

// read reads the certificates: the signer's, and roots one after the other, DER.
func (f *signerFlags) read() (signer, roots []byte, err error) {
	if f.certificate == "" {
		return nil, nil, usagef("--cert: name the file of the signer's certificate")
	}
	crt, err := readCertificate(f.certificate)
	if err != nil {
		return nil, nil, err
	}
	for _, path := range f.roots {
		root, err := readCertificate(path)
		if err != nil {
			return nil, nil, fmt.Errorf("--root: %w", err)
		}
		roots = append(roots, root.Raw...)
	}
	return crt.Raw, roots, nil
}

func (a *app) signerAddCommand() *cobra.Command {
	var f signerFlags
	var joinEUIs, devEUIs, master string
	var generation uint32
	var shared bool
	c := a.command(&cobra.Command{
		Use:   "add NAME",
		Short: "Trust a signer of manifests, within ranges",
		Long:  signerHelp + rangeHelp,
		Example: `  joinctl signer add "acme line 1" --cert factory.crt --root factory-root.crt \
      --master acme-2026 --generation 1 --join-euis 70B3D57ED0000000/64 --dev-euis 0004A31000000000/40
  joinctl signer add "Log Signer 003" --family microchip --cert log-signer-003.crt \
      --root root-ca-002.crt --serial-suffix 27 --shared --master tng-2026 \
      --join-euis 70B3D57ED0000000 --dev-euis 0004A30000000000/24`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		s := client.NewSigner{
			Name: args[0], Master: master, Generation: generation, Family: f.family, SerialSuffix: f.suffix, Shared: shared,
		}
		var err error
		if s.JoinEUIs, err = parseRange(joinEUIs); err != nil {
			return fmt.Errorf("--join-euis: %w", err)
		}
		if s.DevEUIs, err = parseRange(devEUIs); err != nil {
			return fmt.Errorf("--dev-euis: %w", err)
		}
		if s.Certificate, s.Roots, err = f.read(); err != nil {
			return err
		}
		made, err := api.AddSigner(ctx, s)
		if err != nil {
			return err
		}
		return a.done(made, "trusting %s (%s), kid %s", made.Name, made.ID, made.KID)
	})
	f.register(c)
	flags := c.Flags()
	flags.StringVar(&joinEUIs, "join-euis", "", "range of JoinEUIs that it may provision")
	flags.StringVar(&devEUIs, "dev-euis", "", "range of DevEUIs that it may provision")
	flags.StringVar(&master, "master", "", "master key from which its elements' root keys derive ('joinctl status' lists them)")
	flags.Uint32Var(&generation, "generation", 1, "generation in the derivation")
	flags.BoolVar(&shared, "shared", false, "let every organisation import what it signed")
	for _, name := range []string{"join-euis", "dev-euis", "master"} {
		require(c, name)
	}
	return c
}

func (a *app) signerListCommand() *cobra.Command {
	var pems string
	c := a.command(&cobra.Command{
		Use:     "list",
		Short:   "List signers",
		Example: "  joinctl signer list",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		signers, err := api.Signers(ctx)
		if err != nil {
			return err
		}
		if pems != "" {
			if err := writePEMs(pems, signers); err != nil {
				return err
			}
		}
		return showList(a, signers, columns[client.Signer]{
			names: []string{"name", "id", "family", "kid", "JoinEUIs", "DevEUIs", "serial", "root", "for", "master", "generation"},
			cells: func(s client.Signer) []any {
				root := map[bool]string{false: "none", true: "pinned"}[len(s.Roots) > 0]
				whom := map[bool]string{false: s.Organisation.String(), true: "everybody"}[s.Shared]
				serial := orDash(s.SerialSuffix)
				if s.SerialSuffix != "" {
					serial = "…" + s.SerialSuffix
				}
				return []any{s.Name, s.ID, s.Family, s.KID, rangeText(s.JoinEUIs), rangeText(s.DevEUIs), serial, root, whom, s.Master, s.Generation}
			},
			empty: "no signers; 'joinctl signer add' pins one",
		})
	})
	c.Flags().StringVar(&pems, "certificates", "", "write their certificates to this file, PEM")
	return c
}

func writePEMs(path string, signers []client.Signer) error {
	var text []byte
	for _, s := range signers {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate})...)
	}
	return os.WriteFile(path, text, 0o644)
}

func rangeText(r client.EUIRange) string { return r.First.String() + "-" + r.Last.String() }

func (a *app) signerRemoveCommand() *cobra.Command {
	var yes bool
	c := a.command(&cobra.Command{
		Use:   "remove SIGNER",
		Short: "Trust a signer no longer; devices that it brought stay",
		Long: `Trust a signer of manifests no longer. Devices that it brought stay, and join; what
it signed is imported no more. SIGNER is its id (sgn_…).`,
		Example: `  joinctl signer remove sgn_0c3kd5vqmr2hx
  joinctl signer remove sgn_0c3kd5vqmr2hx --yes`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		id, err := joinery.ParseSignerID(args[0])
		if err != nil {
			return usagef("signer: %w ('joinctl signer list' lists them)", err)
		}
		if err := a.confirm(yes, fmt.Sprintf("Manifests that %s signed would be imported no more", id), id.String(), "--yes"); err != nil {
			return err
		}
		if err := api.RemoveSigner(ctx, id); err != nil {
			return err
		}
		return a.done(map[string]string{"signer": id.String()}, "%s is trusted no longer: what it signed is imported no more, and what devices have shown with keys of its manifests rests on nobody's word", id)
	})
	yesFlag(c, &yes)
	return c
}
