package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"joinery"
	"joinery/client"

	"github.com/spf13/cobra"
)

// pinFlags say where another Join Server is reached, and by what it is known.
type pinFlags struct {
	url                     string
	certs, spki, cas        []string
	san                     string
	joinEUIs, acceptsInto   []string
	transport, statementKey string
	sha1                    bool
}

func (p *pinFlags) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&p.transport, "transport-key", "", "PEM file of its transport key")
	f.BoolVar(&p.sha1, "sha1", false, "seal to its transport key by OAEP with SHA-1: the token of this server knows no other")
	f.StringVar(&p.statementKey, "statement-key", "", "PEM file of its statement key; without it only the owner's word confirms")
	f.StringVar(&p.url, "url", "", "where it is reached: https://HOST:PORT of its API's TLS listener; without it hand-overs go as files")
	f.StringSliceVar(&p.certs, "cert", nil, "PEM file of its certificate: its public key is pinned")
	f.StringSliceVar(&p.spki, "spki", nil, "SHA-256 of its SubjectPublicKeyInfo, 64 hexadecimal digits: pinned")
	f.StringSliceVar(&p.cas, "ca", nil, "PEM file of the CA of its certificate")
	f.StringVar(&p.san, "san", "", "DNS name or URI that its certificate under --ca must carry, where the CA serves others, too")
	f.StringSliceVar(&p.joinEUIs, "join-euis", nil, "JoinEUIs that are its own, as FIRST-LAST or PREFIX/BITS: devices may be ordered there only")
	f.StringSliceVar(&p.acceptsInto, "accept-into", nil, "JoinEUIs of this server into which it may hand devices over; without it none")
}

// apply reads the flags that were given into in.
func (p *pinFlags) apply(in *client.NewJoinServer) (err error) {
	if p.transport != "" {
		key, err := readTransportKey(p.transport)
		if err != nil {
			return err
		}
		in.TransportKey = key.MarshalDER()
	}
	in.SHA1 = p.sha1 // a key that is pinned so says it itself
	in.URL = cmp.Or(p.url, in.URL)
	if p.statementKey != "" {
		if in.ReceiptKey, err = readPublicDER(p.statementKey); err != nil {
			return err
		}
	}
	known, err := (&peerFlags{certs: p.certs, spki: p.spki, cas: p.cas, san: p.san}).credentials()
	if err != nil {
		return err
	}
	switch len(known) {
	case 0:
		if in.Identity == nil && p.url != "" {
			return usagef("say by what its certificate is recognised: --cert, --spki, or --ca with or without --san")
		}
	case 1:
		in.Identity = &known[0]
	default:
		return usagef("one of --cert, --spki and --ca names it")
	}
	for _, list := range []struct {
		from []string
		to   *[]client.EUIRange
	}{{p.joinEUIs, &in.Theirs}, {p.acceptsInto, &in.Ours}} {
		if len(list.from) > 0 {
			*list.to = nil
		}
		for _, text := range list.from {
			r, err := parseRange(text)
			if err != nil {
				return err
			}
			*list.to = append(*list.to, r)
		}
	}
	return nil
}

func (a *app) rekeyExpectCommand() *cobra.Command {
	var from string
	var days uint32
	var bind bindingFlags
	c := a.command(&cobra.Command{
		Use:   "expect DEVICES --from SERVER",
		Short: "Accept devices that another Join Server hands over",
		Long: `Accept, for your organisation, devices that a pinned Join Server hands over: a DevEUI,
FIRST-LAST or PREFIX/BITS. They must be under JoinEUIs of yours into which the operator lets
that Join Server hand devices over. What is parked is taken in at once, what comes as it
comes.`,
		Example: `  joinctl rekey expect 0004A310001AA90A --from old.example.com --bind-net-id 000013 \
    --bind-as-id as.example.com
  joinctl rekey expect 0004A31000000000/32 --from old.example.com --days 30`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		r, err := parseRange(args[0])
		if err != nil {
			return err
		}
		server, err := findJoinServer(ctx, api, from)
		if err != nil {
			return err
		}
		in := client.NewExpectation{From: server.ID, Devices: r, Days: days}
		if in.Bind, err = bind.optional(); err != nil {
			return err
		}
		x, err := api.AddExpectation(ctx, in)
		if err != nil {
			return err
		}
		return a.done(x, "devices %s of %s are accepted until %s (%s)", rangeText(x.Devices), x.Server, when(x.ExpiresAt, "?"), x.ID)
	})
	c.Flags().StringVar(&from, "from", "", "name or id of the pinned Join Server that hands them over")
	c.Flags().Uint32Var(&days, "days", 0, "for how long they are accepted (default 90)")
	bind.register(c, "bind-")
	require(c, "from")
	return c
}

func (a *app) rekeyExpectationsCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "expectations",
		Short:   "List devices of other Join Servers that are accepted",
		Example: "  joinctl rekey expectations",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		list, err := api.Expectations(ctx)
		if err != nil {
			return err
		}
		return showList(a, list, columns[client.Expectation]{
			names: []string{"id", "from", "devices", "until", "by"},
			cells: func(x client.Expectation) []any {
				return []any{x.ID, x.Server, rangeText(x.Devices), when(x.ExpiresAt, "?"), x.By}
			},
			empty: "nothing is expected; 'joinctl rekey expect' accepts devices",
		})
	})
}

func (a *app) rekeyUnexpectCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "unexpect ID",
		Short:   "Accept nothing more by an expectation",
		Long:    "Accept nothing more by an expectation, by its id. What was taken in stays.",
		Example: "  joinctl rekey unexpect xpc_00wnt3keeq2a2",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		list, err := api.Expectations(ctx)
		if err != nil {
			return err
		}
		n := slices.IndexFunc(list, func(x client.Expectation) bool { return x.ID.String() == args[0] })
		if n < 0 {
			return fmt.Errorf("no expectation %s: 'joinctl rekey expectations' lists them", args[0])
		}
		if err := api.RemoveExpectation(ctx, list[n].ID); err != nil {
			return err
		}
		return a.done(map[string]string{"expectation": args[0]}, "nothing more is accepted by %s", args[0])
	})
}

func (a *app) rekeyArrivalsCommand() *cobra.Command {
	c := a.command(&cobra.Command{
		Use:   "arrivals",
		Short: "List devices that other Join Servers handed over",
		Long: `List devices that other Join Servers handed over to your organisation. Those that are
parked wait for 'joinctl rekey expect', for 90 days at most.`,
		Example: "  joinctl rekey arrivals",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		return showSeq(a, api.Arrivals(ctx, client.ArrivalsQuery{}), columns[client.Arrival]{
			names: []string{"when", "state", "JoinEUI", "DevEUI", "from", "reason", "id"},
			cells: func(x client.Arrival) []any {
				return []any{when(x.At, "?"), x.State, x.JoinEUI, x.DevEUI, x.Server, x.Reason, x.ID}
			},
			empty: "nothing was handed over",
		})
	})
	c.AddCommand(a.rekeyArrivalsRejectCommand())
	return c
}

func (a *app) rekeyArrivalsRejectCommand() *cobra.Command {
	var from string
	c := a.command(&cobra.Command{
		Use:   "reject ID",
		Short: "Reject devices that another Join Server handed over",
		Long: `Reject devices that are parked for your organisation, by their ids, or with --from all that
a Join Server handed over: their sealed keys are forgotten, and that Join Server is told. They
stay where they are now.`,
		Example: "  joinctl rekey arrivals reject arr_00wnt3keeq2a2\n  joinctl rekey arrivals reject --from old.example.com",
		Args:    cobra.ArbitraryArgs,
	}, func(ctx context.Context, api *client.Client, args []string) error {
		if (len(args) == 0) == (from == "") {
			return usagef("name devices by their ids, or all of a Join Server by --from")
		}
		ids, err := arrivalIDs(ctx, api, args, from)
		if err != nil {
			return err
		}
		done := client.Rejected{}
		const most = 200
		for batch := range slices.Chunk(ids, most) {
			d, err := api.RejectArrivals(ctx, client.RejectedArrivals{Arrivals: batch})
			if err != nil {
				return err
			}
			done.Rejected += d.Rejected
		}
		return a.done(done, "%d devices are rejected", done.Rejected)
	})
	c.Flags().StringVar(&from, "from", "", "name or id of a pinned Join Server: all that it handed over and nobody accepted")
	return c
}

// arrivalIDs reads ids of arrivals, or finds those of a Join Server that are parked.
func arrivalIDs(ctx context.Context, api *client.Client, args []string, from string) (ids []joinery.ArrivalID, err error) {
	for _, arg := range args {
		id, err := joinery.ParseArrivalID(arg)
		if err != nil {
			return nil, usagef("%s is no id of a device that was handed over: 'joinctl rekey arrivals' lists them", arg)
		}
		ids = append(ids, id)
	}
	if from == "" {
		return ids, nil
	}
	server, err := findJoinServer(ctx, api, from)
	if err != nil {
		return nil, err
	}
	for x, err := range api.Arrivals(ctx, client.ArrivalsQuery{}) {
		if err != nil {
			return nil, err
		}
		if x.From == server.ID && x.State == "parked" {
			ids = append(ids, x.ID)
		}
	}
	return ids, nil
}

func (a *app) rekeyTakeCommand() *cobra.Command {
	var bind bindingFlags
	c := a.command(&cobra.Command{
		Use:   "take FILE",
		Short: "Accept a hand-over that came as a file",
		Long: `Accept, for your organisation, the devices of a hand-over that came as a file. A Join
Server that is pinned here must have signed it, and the operator must let it hand devices
over into your JoinEUIs. It may be taken as often as it comes.`,
		Example: "  joinctl rekey take handover.json --bind-net-id 000013 --bind-as-id as.example.com",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		b, err := bind.optional()
		if err != nil {
			return err
		}
		var all client.HandoverResults
		refused := 0
		err = eachPart(args[0], func(text []byte) error {
			out, err := api.TakeHandover(ctx, client.NewHandoverFile{File: text, Bind: b})
			for _, r := range out.Results {
				if r.State == "refused" {
					refused++
					a.sayf("order %s was refused: %s\n", clean(r.Order), clean(r.Reason))
				}
			}
			all.Results = append(all.Results, out.Results...)
			return err
		})
		if err != nil {
			return fmt.Errorf("%w; %d devices before are taken in: give the same file again", err, len(all.Results)-refused)
		}
		if err := a.done(all, "%d devices are taken in, %d refused", len(all.Results)-refused, refused); err != nil || refused == 0 {
			return err
		}
		return errPartial
	})
	bind.register(c, "bind-")
	return c
}
