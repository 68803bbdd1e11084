package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"joinery"
	"joinery/client"

	"github.com/spf13/cobra"
)

func (a *app) planCommand() *cobra.Command {
	c := &cobra.Command{Use: "plan", Short: "On what terms the activation service is given"}
	c.AddCommand(a.planListCommand(), a.planPutCommand(false), a.planPutCommand(true), a.planRemoveCommand())
	return c
}

func (a *app) planListCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "list",
		Short:   "List plans",
		Example: "  joinctl plan list",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		plans, err := api.Plans(ctx)
		if err != nil {
			return err
		}
		return showList(a, plans, columns[client.Plan]{
			names: []string{"name", "included", "grace", "activation", "month", "maker's share", "for"},
			cells: func(p client.Plan) []any {
				return []any{
					p.Name, fmt.Sprintf("%d months", p.IncludedMonths), fmt.Sprintf("%d days", p.GraceDays),
					price(p.ActivationPrice, p.Currency), price(p.MonthPrice, p.Currency), p.SharePercent.String() + " %", assigned(p),
				}
			},
			empty: "no plans",
		})
	})
}

func price(d joinery.Decimal, currency string) string {
	if currency == "" {
		return "-"
	}
	return d.String() + " " + currency
}

func assigned(p client.Plan) string {
	var to []string
	if p.Default {
		to = append(to, "all others")
	}
	for _, m := range p.Makers {
		to = append(to, m.String())
	}
	for _, r := range p.JoinEUIs {
		to = append(to, r.First.String()+"-"+r.Last.String())
	}
	return orDash(joined(to))
}

// planFlags are what of a plan is said on the command line.
type planFlags struct {
	included, grace          int
	currency                 string
	activation, month, share string
	standing                 bool
	makers, joinEUIs         []string
	noMakers, noJoinEUIs     bool
}

func (a *app) planPutCommand(changes bool) *cobra.Command {
	var p planFlags
	use, short := "add NAME", "Make a plan"
	long := `Make a plan: how many months begin with the first activation of a device, and how many
days after the end of a term joins are still answered. Prices and the maker's share are
for reports; nothing takes money.`
	example := `  joinctl plan add metering --included-months 120 --maker "Acme Metering"
  joinctl plan add pro --currency EUR --activation-price 1.25 --month-price 0.3 --share-percent 20 --default`
	if changes {
		use, short = "change NAME", "Change a plan; what was granted under it stays"
		long = `Change what the flags say of a plan, and leave the rest. Terms that were granted stay as
they are: a change counts for first activations and extensions from now on. --maker and
--join-eui say anew to whom it is assigned; --no-makers and --no-join-euis to nobody.`
		example = `  joinctl plan change standard --included-months 24
  joinctl plan change pro --month-price 0.28 --maker "Acme Metering" --maker "Borealis"`
	}
	c := a.command(&cobra.Command{Use: use, Short: short, Long: long, Example: example, Args: cobra.ExactArgs(1)}, nil)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		defer api.Close()
		plans, err := api.Plans(cmd.Context())
		if err != nil {
			return err
		}
		i := slices.IndexFunc(plans, func(o client.Plan) bool { return o.Name == args[0] })
		in := client.Plan{Name: args[0]}
		switch {
		case changes && i < 0:
			return fmt.Errorf("no plan %q; 'joinctl plan list' lists them", clean(args[0]))
		case !changes && i >= 0:
			return fmt.Errorf("there is a plan %q; 'joinctl plan change' changes it", clean(args[0]))
		case changes:
			in = plans[i]
		}
		if err := p.apply(cmd, api, &in, !changes); err != nil {
			return err
		}
		made, err := api.PutPlan(cmd.Context(), in)
		if err != nil {
			return err
		}
		return a.done(made, "plan %s: %d months included, %d days of grace, for %s", made.Name, made.IncludedMonths, made.GraceDays, assigned(made))
	}
	f := c.Flags()
	f.IntVar(&p.included, "included-months", 12, "months that begin with the first activation")
	f.IntVar(&p.grace, "grace-days", 30, "days after the end in which joins are still answered")
	f.StringVar(&p.currency, "currency", "", "currency of the prices, such as EUR")
	f.StringVar(&p.activation, "activation-price", "", "price of a first activation, for reports")
	f.StringVar(&p.month, "month-price", "", "price of a month of an extension, for reports")
	f.StringVar(&p.share, "share-percent", "", "the maker's part of both, in percent")
	f.BoolVar(&p.standing, "default", false, "it is for all devices to which no other plan is assigned")
	f.StringArrayVar(&p.makers, "maker", nil, "it is for devices that this organisation made; may be repeated")
	f.StringArrayVar(&p.joinEUIs, "join-euis", nil, "it is for these JoinEUIs: FIRST-LAST, PREFIX/BITS or one; may be repeated")
	if changes {
		f.BoolVar(&p.noMakers, "no-makers", false, "it is assigned to no maker")
		f.BoolVar(&p.noJoinEUIs, "no-join-euis", false, "it is assigned to no JoinEUIs")
	}
	return c
}

// apply puts what the flags say into a plan; of a new one, also what they leave.
func (p *planFlags) apply(c *cobra.Command, api *client.Client, in *client.Plan, fresh bool) (err error) {
	given := func(name string) bool { return fresh || c.Flags().Changed(name) }
	if given("included-months") {
		in.IncludedMonths = p.included
	}
	if given("grace-days") {
		in.GraceDays = p.grace
	}
	if given("currency") {
		in.Currency = p.currency
	}
	if given("default") {
		in.Default = p.standing
	}
	var errs error
	for _, d := range []struct {
		flag, text string
		to         *joinery.Decimal
	}{{"activation-price", p.activation, &in.ActivationPrice}, {"month-price", p.month, &in.MonthPrice}, {"share-percent", p.share, &in.SharePercent}} {
		if d.text != "" {
			*d.to, err = optionalFlag("--"+d.flag, d.text, joinery.ParseDecimal)
			errs = errors.Join(errs, err)
		}
	}
	if errs != nil {
		return errs
	}
	if len(p.makers) > 0 || p.noMakers {
		if in.Makers, err = organisations(c.Context(), api, p.makers); err != nil {
			return err
		}
	}
	if len(p.joinEUIs) > 0 || p.noJoinEUIs {
		in.JoinEUIs = nil
		for _, text := range p.joinEUIs {
			r, err := parseRange(text)
			if err != nil {
				return err
			}
			in.JoinEUIs = append(in.JoinEUIs, r)
		}
	}
	return nil
}

func organisations(ctx context.Context, api *client.Client, args []string) (ids []joinery.OrgID, err error) {
	for _, arg := range args {
		id, err := findOrganisation(ctx, api, arg)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func (a *app) planRemoveCommand() *cobra.Command {
	var yes bool
	c := a.command(&cobra.Command{
		Use:   "remove NAME",
		Short: "Take a plan away; what was granted under it stays",
		Example: `  joinctl plan remove pro
  joinctl plan remove pro --yes`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		question := fmt.Sprintf("Without plan %s its devices come under another with their next extension", args[0])
		if err := a.confirm(yes, question, args[0], "--yes"); err != nil {
			return err
		}
		if err := api.RemovePlan(ctx, args[0]); err != nil {
			return err
		}
		return a.done(map[string]string{"plan": args[0]}, "plan %s is gone", args[0])
	})
	yesFlag(c, &yes)
	return c
}

func (a *app) reportCommand() *cobra.Command {
	c := &cobra.Command{Use: "report", Short: "Figures for whoever writes bills"}
	var month, maker string
	var asCSV bool
	usage := a.command(&cobra.Command{
		Use:   "usage",
		Short: "What happened in a month, by maker and plan",
		Long: `Say what happened in a month (UTC), by maker, plan, currency and share: first
activations, devices that joined, extensions and their months, lapses, and amounts at the
prices of their time. The figures are those that were written down when it happened.
Operators see all makers, others what their organisation made.`,
		Example: `  joinctl report usage --month 2026-10
  joinctl report usage --month 2026-10 --maker "Acme Metering" --csv > acme-2026-10.csv`,
		Args: cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		if asCSV && a.flags.json {
			return usagef("--csv and --json exclude each other")
		}
		if _, err := optionalFlag("--month", month, joinery.ParseMonth); err != nil {
			return err
		}
		var by joinery.OrgID
		if maker != "" {
			var err error
			if by, err = findOrganisation(ctx, api, maker); err != nil {
				return err
			}
		}
		if asCSV {
			file, err := api.UsageCSV(ctx, client.UsageCSVQuery{Month: month, Maker: by})
			if err != nil {
				return err
			}
			_, err = a.out.Write(file)
			return err
		}
		rows, err := api.Usage(ctx, client.UsageQuery{Month: month, Maker: by})
		if err != nil {
			return err
		}
		return showList(a, rows, columns[client.Usage]{
			names: []string{"maker", "plan", "first", "active", "extensions", "months", "lapsed", "amount", "share"},
			cells: func(u client.Usage) []any {
				return []any{
					u.Maker, orDash(u.Plan), u.FirstActivations, u.ActiveDevices, u.Extensions, u.ExtensionMonths, u.Lapsed,
					price(u.Amount, u.Currency), price(u.ShareAmount, u.Currency),
				}
			},
			empty: "nothing happened in that month",
		})
	})
	f := usage.Flags()
	f.StringVar(&month, "month", "", "the month, such as 2026-10 (default: the present one)")
	f.StringVar(&maker, "maker", "", "only devices that this organisation made, id or name")
	f.BoolVar(&asCSV, "csv", false, "write a CSV")
	c.AddCommand(usage)
	return c
}

func (a *app) serverCommand() *cobra.Command {
	c := &cobra.Command{Use: "server", Short: "The clock of the server, by which service terms end"}
	c.AddCommand(a.command(&cobra.Command{
		Use:     "clock",
		Short:   "Say whether the server's clock is believed",
		Example: "  joinctl server clock",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		clock, err := api.Clock(ctx)
		if err != nil {
			return err
		}
		return a.show(clock, func() error { return a.clockFacts(clock) })
	}), a.command(&cobra.Command{
		Use:   "confirm-clock",
		Short: "Say that the server's clock is right",
		Long: `Say that the server's clock is right, after it stepped by more than a day. Until then no
service lapses or begins, and nobody is reminded. Look at 'joinctl server clock' first: it
says how many devices are refused once this clock counts.`,
		Example: `  joinctl server clock
  joinctl server confirm-clock`,
		Args: cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		clock, err := api.ConfirmClock(ctx)
		if err != nil {
			return err
		}
		return a.done(clock, "the clock counts; joins of %d devices are refused because their service lapsed", clock.Lapsed)
	}))
	return c
}

func (a *app) clockFacts(c client.Clock) error {
	state := "believed"
	if !c.DoubtedAt.IsZero() {
		state = "IN DOUBT since " + when(c.DoubtedAt, "?") + ": " + c.Why
	}
	return a.facts("clock", when(c.Now, "?"), "it is", state, "written down last", when(c.SeenAt, ""), "lapsed by it", fmt.Sprintf("%d devices", c.Lapsed))
}
