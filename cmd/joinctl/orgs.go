package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strconv"
	"strings"

	"joinery"
	"joinery/client"
	"joinery/lorawan"

	"github.com/spf13/cobra"
)

func (a *app) orgCommand() *cobra.Command {
	c := &cobra.Command{Use: "org", Short: "Organisations, which hold devices, peers and API keys"}
	c.AddCommand(a.orgAddCommand(), a.orgChangeCommand(), a.command(&cobra.Command{
		Use:     "list",
		Short:   "List organisations",
		Example: "  joinctl org list",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		orgs, err := api.Organisations(ctx)
		if err != nil {
			return err
		}
		return showList(a, orgs, columns[client.Organisation]{
			names: []string{"name", "kinds", "id", "added"},
			cells: func(o client.Organisation) []any {
				return []any{o.Name, joinery.OrgKinds(o.Kinds), o.ID, when(o.CreatedAt, "?")}
			},
			empty: "no organisations; 'joinctl org add NAME' adds one",
		})
	}))
	return c
}

func (a *app) orgAddCommand() *cobra.Command {
	var kinds []string
	c := a.command(&cobra.Command{
		Use:   "add NAME",
		Short: "Add an organisation",
		Long: `Add an organisation. Its kinds bound what its people and API keys may do; without any
it may do everything but run the server.`,
		Example: `  joinctl org add "Acme Metering"
  joinctl org add "Borealis" --kind network-operator`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		in := client.NewOrganisation{Name: args[0]}
		var err error
		if in.Kinds, err = parseKinds(kinds); err != nil {
			return err
		}
		o, err := api.AddOrganisation(ctx, in)
		if err != nil {
			return err
		}
		return a.done(o, "added %s (%s)", o.Name, o.ID)
	})
	c.Flags().StringSliceVar(&kinds, "kind", nil, "what part it plays, several times for several: "+kindNames())
	return c
}

func (a *app) rangeCommand() *cobra.Command {
	c := &cobra.Command{Use: "range", Short: "JoinEUI ranges that this server answers for"}
	c.AddCommand(a.rangeAssignCommand(), a.rangeListCommand(), a.rangeReleaseCommand())
	return c
}

const rangeHelp = `

A range is written FIRST-LAST, PREFIX/BITS (70B3D57ED0000000/40), or as one JoinEUI.`

func (a *app) rangeAssignCommand() *cobra.Command {
	var elements bool
	c := a.command(&cobra.Command{
		Use:   "assign RANGE",
		Short: "Answer for a range of JoinEUIs, and let an organisation import into it",
		Long:  "Answer for a range of JoinEUIs, and let one organisation import devices into it (--org)." + rangeHelp,
		Example: `  joinctl range assign 70B3D57ED0000000/64 --org "Acme Metering"
  joinctl range assign 70B3D57ED0001000-70B3D57ED0001FFF --elements`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		r, err := parseRange(args[0])
		if err != nil {
			return err
		}
		made, err := api.AssignJoinEUIRange(ctx, client.NewJoinEUIRange{EUIRange: r, Elements: elements})
		if err != nil {
			return err
		}
		return a.done(made, "assigned %s to %s to %s", made.First, made.Last, made.Organisation)
	})
	c.Flags().BoolVar(&elements, "elements", false, "take signed manifests only into this range, no key lists")
	return c
}

func (a *app) rangeListCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "list",
		Short:   "List ranges",
		Example: "  joinctl range list",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		ranges, err := api.JoinEUIRanges(ctx)
		if err != nil {
			return err
		}
		return showList(a, ranges, columns[client.JoinEUIRange]{
			names: []string{"first", "last", "organisation", "takes"},
			cells: func(r client.JoinEUIRange) []any {
				takes := "manifests and key lists"
				if r.Elements {
					takes = "manifests"
				}
				return []any{r.First, r.Last, r.Organisation, takes}
			},
			empty: "no ranges: this server answers for no JoinEUI; 'joinctl range assign' gives it some",
		})
	})
}

func (a *app) rangeReleaseCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "release RANGE",
		Short:   "Answer no longer for a range; no device may lie in it",
		Long:    "Answer no longer for a range. It is refused while devices lie in it." + rangeHelp,
		Example: "  joinctl range release 70B3D57ED0001000-70B3D57ED0001FFF",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		r, err := parseRange(args[0])
		if err != nil {
			return err
		}
		if err := api.ReleaseJoinEUIRange(ctx, r); err != nil {
			return err
		}
		return a.done(r, "released %s to %s", r.First, r.Last)
	})
}

// parseRange reads FIRST-LAST, PREFIX/BITS or one EUI-64.
func parseRange(s string) (r client.EUIRange, err error) {
	if first, last, found := strings.Cut(s, "-"); found {
		if r.First, err = lorawan.ParseEUI64(first); err == nil {
			r.Last, err = lorawan.ParseEUI64(last)
		}
		if err != nil {
			return r, usagef("range: %w", err)
		}
		if r.First.Uint64() > r.Last.Uint64() {
			return r, usagef("range: it ends before it begins")
		}
		return r, nil
	}
	prefix, bitsText, found := strings.Cut(s, "/")
	if r.First, err = lorawan.ParseEUI64(prefix); err != nil {
		return r, usagef("range: %w", err)
	}
	r.Last = r.First
	if !found {
		return r, nil
	}
	bits, err := strconv.Atoi(bitsText)
	if err != nil || bits < 1 || bits > 64 {
		return r, usagef("range: want 1 to 64 bits behind the slash")
	}
	rest := uint64(1)<<(64-bits) - 1
	if r.First.Uint64()&rest != 0 {
		return r, usagef("range: the prefix has bits set beyond its %d bits", bits)
	}
	r.Last = lorawan.EUI64FromUint64(r.First.Uint64() | rest)
	return r, nil
}

func (a *app) signerCommand() *cobra.Command {
	c := &cobra.Command{Use: "signer", Short: "Signers of manifests that this server trusts"}
	c.AddCommand(a.signerAddCommand(), a.signerListCommand(), a.signerRemoveCommand())
	return c
}

func (a *app) signerAddCommand() *cobra.Command {
	var cert, joinEUIs, devEUIs, master string
	var generation uint32
	c := a.command(&cobra.Command{
		Use:   "add NAME",
		Short: "Trust a signer of manifests, within ranges",
		Long: `Trust a signer of manifests: the organisation (--org) may import what it signed,
for identifiers within the ranges. Root keys of its elements derive from the master
key that is named.` + rangeHelp,
		Example: `  joinctl signer add "acme line 1" --cert signer.crt --master acme-2026 --generation 1 \
      --join-euis 70B3D57ED0000000/64 --dev-euis 0004A31000000000/40`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		s := client.NewSigner{Name: args[0], Master: master, Generation: generation}
		var err error
		if s.JoinEUIs, err = parseRange(joinEUIs); err != nil {
			return fmt.Errorf("--join-euis: %w", err)
		}
		if s.DevEUIs, err = parseRange(devEUIs); err != nil {
			return fmt.Errorf("--dev-euis: %w", err)
		}
		crt, err := readCertificate(cert)
		if err != nil {
			return err
		}
		s.Certificate = crt.Raw
		made, err := api.AddSigner(ctx, s)
		if err != nil {
			return err
		}
		return a.done(made, "trusting %s (%s), kid %s", made.Name, made.ID, made.KID)
	})
	f := c.Flags()
	f.StringVar(&cert, "cert", "", "the signer's certificate, PEM")
	f.StringVar(&joinEUIs, "join-euis", "", "range of JoinEUIs that it may provision")
	f.StringVar(&devEUIs, "dev-euis", "", "range of DevEUIs that it may provision")
	f.StringVar(&master, "master", "", "master key from which its elements' root keys derive ('joinctl status' lists them)")
	f.Uint32Var(&generation, "generation", 1, "generation in the derivation")
	for _, name := range []string{"cert", "join-euis", "dev-euis", "master"} {
		require(c, name)
	}
	return c
}

// require marks a flag as required; cobra then names it when it is missing.
func require(c *cobra.Command, flag string) {
	if err := c.MarkFlagRequired(flag); err != nil {
		panic(err) // the flag is not registered: a defect that every test finds
	}
}

// readCertificate reads one certificate of a PEM file.
func readCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		crt, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate in %s: %w", path, err)
		}
		return crt, nil
	}
	return nil, fmt.Errorf("certificate: %s holds no PEM certificate", path)
}

func (a *app) signerListCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "list",
		Short:   "List signers",
		Example: "  joinctl signer list",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		signers, err := api.Signers(ctx)
		if err != nil {
			return err
		}
		return showList(a, signers, columns[client.Signer]{
			names: []string{"name", "id", "kid", "JoinEUIs", "DevEUIs", "master", "generation"},
			cells: func(s client.Signer) []any {
				return []any{s.Name, s.ID, s.KID, rangeText(s.JoinEUIs), rangeText(s.DevEUIs), s.Master, s.Generation}
			},
			empty: "no signers; 'joinctl signer add' pins one",
		})
	})
}

func rangeText(r client.EUIRange) string { return r.First.String() + "-" + r.Last.String() }

func (a *app) signerRemoveCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "remove ID",
		Short:   "Trust a signer no longer; devices that it brought stay",
		Example: "  joinctl signer remove sgn_0c3kd5vqmr2hx",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		id, err := joinery.ParseSignerID(args[0])
		if err != nil {
			return usagef("signer: %w", err)
		}
		if err := api.RemoveSigner(ctx, id); err != nil {
			return err
		}
		return a.done(map[string]string{"signer": id.String()}, "%s is trusted no longer", id)
	})
}
