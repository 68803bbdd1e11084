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
	c.AddCommand(a.orgAddCommand(), a.orgChangeCommand(), a.orgJoinCommand(), a.orgLeaveCommand(), a.command(&cobra.Command{
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
			empty: "no ranges that you may see; the server's operator assigns them with 'joinctl range assign'",
		})
	})
}

func (a *app) rangeReleaseCommand() *cobra.Command {
	var yes bool
	c := a.command(&cobra.Command{
		Use:   "release RANGE",
		Short: "Answer no longer for a range; no device may lie in it",
		Long:  "Answer no longer for a range. It is refused while devices lie in it." + rangeHelp,
		Example: `  joinctl range release 70B3D57ED0001000-70B3D57ED0001FFF
  joinctl range release 70B3D57ED0001000-70B3D57ED0001FFF --yes`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		r, err := parseRange(args[0])
		if err != nil {
			return err
		}
		if err := a.confirm(yes, "Join-requests for "+rangeText(r)+" would be answered no longer", "release", "--yes"); err != nil {
			return err
		}
		if err := api.ReleaseJoinEUIRange(ctx, r.First, r.Last); err != nil {
			return err
		}
		return a.done(r, "released %s to %s", r.First, r.Last)
	})
	yesFlag(c, &yes)
	return c
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

// require marks a flag as required; cobra then names it when it is missing.
func require(c *cobra.Command, flag string) {
	if err := c.MarkFlagRequired(flag); err != nil {
		panic(err) // the flag is not registered: a defect that every test finds
	}
}

// readCertificate reads one certificate of a file: the first one of PEM, or DER.
func readCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if crt, err := x509.ParseCertificate(text); err == nil { // DER
		return crt, nil
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
	return nil, fmt.Errorf("certificate: %s holds no certificate, PEM or DER", path)
}
