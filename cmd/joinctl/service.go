package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"time"

	"joinery"
	"joinery/client"
	"joinery/lorawan"

	"github.com/spf13/cobra"
)

func (a *app) serviceCommand() *cobra.Command {
	c := &cobra.Command{Use: "service", Short: "Until when joins of devices are answered"}
	c.AddCommand(a.serviceShowCommand(), a.serviceListCommand(), a.serviceExtendCommand(), a.serviceCreditCommand())
	return c
}

// stateText says how a device stands, for people.
func stateText(s client.DeviceService) string {
	text := s.State
	if s.Held {
		text += " (but the server's clock is in doubt, so nothing lapses)"
	}
	return text
}

func (a *app) serviceShowCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "show DEVICE",
		Short:   "Say until when joins of a device are answered",
		Long:    "Say until when joins of a device are answered, and on what terms they can be longer." + deviceHelp,
		Example: "  joinctl service show 0004A310001AA90A",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		d, err := findDevice(ctx, api, args[0])
		if err != nil {
			return err
		}
		s, err := api.DeviceService(ctx, d.ID)
		if err != nil {
			return err
		}
		return a.show(s, func() error {
			begins := ""
			if s.State == "not-begun" {
				begins = fmt.Sprintf("with the first activation: %d months", s.IncludedMonths+s.PrepaidMonths)
			}
			price := ""
			if s.Currency != "" {
				price = s.MonthPrice.String() + " " + s.Currency
			}
			return a.facts("device", deviceName(d), "service", stateText(s), "begins", begins, "ends", when(s.EndsAt, ""), "joins until", when(s.JoinsUntil, ""),
				"granted under", s.GrantedUnder, "plan now", s.Plan, "a month costs", price)
		})
	})
}

func (a *app) serviceListCommand() *cobra.Command {
	var before, after string
	var limit int
	c := a.command(&cobra.Command{
		Use:   "list",
		Short: "List devices in the order in which their service ends",
		Long: `List devices whose service has begun, in the order in which it ends. --ending-before
and --ending-after take a date (2027-01-31), a time (RFC 3339) or how long from now
that is (30d, 12h).`,
		Example: `  joinctl service list --ending-before 30d
  joinctl service list --ending-before 2027-01-31 --json | jq -r '.[].devEUI'`,
		Args: cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		q, err := endingQuery(before, after, time.Now())
		if err != nil {
			return err
		}
		return showSeq(a, atMost(api.ServiceDevices(ctx, q), limit), columns[client.DeviceService]{
			names: []string{"JoinEUI", "DevEUI", "service", "ends", "joins until", "plan", "id"},
			cells: func(s client.DeviceService) []any {
				return []any{s.JoinEUI, s.DevEUI, s.State, when(s.EndsAt, "-"), when(s.JoinsUntil, "-"), s.GrantedUnder, s.Device}
			},
			empty: "no such devices",
		})
	})
	f := c.Flags()
	f.StringVar(&before, "ending-before", "", "only devices whose service ends before: 30d, 12h, 2027-01-31 or a time (RFC 3339)")
	f.StringVar(&after, "ending-after", "", "only devices whose service ends after: 30d, 12h, 2027-01-31 or a time (RFC 3339)")
	f.IntVar(&limit, "limit", 0, "at most this many (0: all)")
	return c
}

func endingQuery(before, after string, now time.Time) (q client.ServiceDevicesQuery, err error) {
	if q.EndingBefore, err = parseEnding("--ending-before", before, now); err == nil {
		q.EndingAfter, err = parseEnding("--ending-after", after, now)
	}
	return q, err
}

func parseEnding(flag, text string, now time.Time) (time.Time, error) {
	t, err := parseExpiry(text, now)
	if err != nil {
		return t, usagef("%s: want 30d, 12h, 2027-01-31 or 2027-01-31T12:00:00Z", flag)
	}
	return t, nil
}

// extendAtOnce is how many devices go in one request.
const extendAtOnce = 2000

// extendJob is an extension on its way.
type extendJob struct {
	months                 int
	reference              string
	file                   string
	before, after          string
	joinEUI, devEUI        string
	dryRun                 bool
	extended, same, failed int
}

func (a *app) serviceExtendCommand() *cobra.Command {
	var j extendJob
	c := a.command(&cobra.Command{
		Use:   "extend [DEVICE]",
		Short: "Extend the service of devices",
		Long: `Extend the service of devices, each by --months: one or more that are named, those in --file
(one DEVICE a line), or those that --ending-before, --join-eui and --dev-eui select
together. A term goes on from its end or, where joins are refused already, from now;
before the first activation of a device the months are kept for it.

--reference names the order. The same reference never extends a device twice: when a
run is cut off, give the same command again.

The operator extends any device. An organisation extends its own, and spends its
credit, months times devices: see 'joinctl service credit'.

The exit code is 3 if some devices were not extended.` + deviceHelp,
		Example: `  joinctl service extend 0004A310001AA90A --months 12 --reference PO-2027-17
  joinctl service extend --ending-before 30d --months 12 --reference 2027-renewal --dry-run
  joinctl service extend --file devices.txt --months 24 --reference PO-2027-18 --json`,
		Args: cobra.ArbitraryArgs,
	}, func(ctx context.Context, api *client.Client, args []string) error {
		devices, err := j.devices(ctx, api, args)
		if err != nil {
			return err
		}
		if j.dryRun {
			return a.done(map[string]int{"devices": len(devices), "months": j.months * len(devices)},
				"%d devices would be extended by %d months each, %d together; nothing was done", len(devices), j.months, j.months*len(devices))
		}
		return j.run(ctx, a, api, devices)
	})
	f := c.Flags()
	f.IntVar(&j.months, "months", 0, "by how many months")
	f.StringVar(&j.reference, "reference", "", "name of the order, which extends no device twice")
	f.StringVar(&j.file, "file", "", "file with one DEVICE a line")
	f.StringVar(&j.before, "ending-before", "", "devices whose service ends before: 30d, 12h, 2027-01-31 or a time (RFC 3339)")
	f.StringVar(&j.after, "ending-after", "", "of them, those whose service ends after: 30d, 12h, 2027-01-31 or a time (RFC 3339)")
	f.StringVar(&j.joinEUI, "join-eui", "", "only devices with this JoinEUI")
	f.StringVar(&j.devEUI, "dev-eui", "", "only devices whose DevEUI begins with these hexadecimal digits")
	f.BoolVar(&j.dryRun, "dry-run", false, "only say how many devices that would be")
	_ = c.MarkFlagRequired("months")
	_ = c.MarkFlagRequired("reference")
	return c
}

// devices gives the devices that are named, or those that are selected.
func (j *extendJob) devices(ctx context.Context, api *client.Client, args []string) (ids []joinery.DeviceID, err error) {
	selects := j.before != "" || j.after != "" || j.joinEUI != "" || j.devEUI != ""
	switch {
	case j.file != "" && (len(args) > 0 || selects), len(args) > 0 && selects:
		return nil, usagef("name devices, give --file, or select them: one of the three")
	case j.file != "":
		if args, err = readLines(j.file); err != nil {
			return nil, err
		}
	case selects:
		return j.selected(ctx, api)
	}
	for _, arg := range args {
		id, err := joinery.ParseDeviceID(arg)
		if err != nil {
			d, err := findDevice(ctx, api, arg)
			if err != nil {
				return nil, err
			}
			id = d.ID
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, usagef("which devices? Name them, give --file, or select them with --ending-before, --join-eui, --dev-eui")
	}
	return ids, nil
}

func (j *extendJob) selected(ctx context.Context, api *client.Client) (ids []joinery.DeviceID, err error) {
	filter := client.DevicesQuery{DevEUI: strings.ToUpper(j.devEUI)}
	if filter.JoinEUI, err = optionalFlag("--join-eui", j.joinEUI, lorawan.ParseEUI64); err != nil {
		return nil, err
	}
	if j.before == "" && j.after == "" {
		for d, err := range api.Devices(ctx, filter) {
			if err != nil {
				return nil, err
			}
			ids = append(ids, d.ID)
		}
		return ids, nil
	}
	q, err := endingQuery(j.before, j.after, time.Now())
	if err != nil {
		return nil, err
	}
	for s, err := range api.ServiceDevices(ctx, q) {
		if err != nil {
			return nil, err
		}
		if (filter.JoinEUI.IsZero() || s.JoinEUI == filter.JoinEUI) && strings.HasPrefix(s.DevEUI.String(), filter.DevEUI) {
			ids = append(ids, s.Device)
		}
	}
	return ids, nil
}

// readLines gives the lines of a file, without empty ones and those that begin
// with #.
func readLines(path string) (lines []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines, s.Err()
}

// run extends devices, some thousands at a time.
func (j *extendJob) run(ctx context.Context, a *app, api *client.Client, devices []joinery.DeviceID) error {
	results := func(yield func(client.ServiceResult, error) bool) {
		for run := range slices.Chunk(devices, extendAtOnce) {
			r, err := api.ExtendService(ctx, client.ServiceExtension{Devices: run, Months: j.months, Reference: j.reference})
			if err != nil {
				yield(client.ServiceResult{}, fmt.Errorf("%w; give the same command again: what was extended is not extended twice", err))
				return
			}
			j.extended, j.same, j.failed = j.extended+r.Extended, j.same+r.Unchanged, j.failed+r.Failed
			for _, one := range r.Results {
				if !yield(one, nil) {
					return
				}
			}
		}
	}
	if err := j.report(a, results); err != nil {
		return err
	}
	a.sayf("%d extended, %d unchanged, %d failed\n", j.extended, j.same, j.failed)
	if j.failed > 0 {
		return errPartial
	}
	return nil
}

// report writes every result for programs, and what failed for people.
func (j *extendJob) report(a *app, results iter.Seq2[client.ServiceResult, error]) error {
	if a.flags.json {
		return writeArray(a.out, results)
	}
	var errs error
	for r, err := range results {
		if errs = errors.Join(errs, err); r.Status == "failed" {
			a.sayf("%s: %s\n", r.Device, clean(r.Reason))
		}
	}
	return errs
}

func (a *app) serviceCreditCommand() *cobra.Command {
	c := &cobra.Command{Use: "credit", Short: "Months by which organisations may extend their devices"}
	list := a.command(&cobra.Command{
		Use:     "list",
		Short:   "List credits: your organisation's, for operators all",
		Example: "  joinctl service credit list",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		credits, err := api.ServiceCredits(ctx)
		if err != nil {
			return err
		}
		return showList(a, credits, columns[client.ServiceCredit]{
			names: []string{"organisation", "months"},
			cells: func(c client.ServiceCredit) []any { return []any{c.Organisation, c.Months} },
			empty: "nobody has any credit; 'joinctl service credit grant ORG' grants some",
		})
	})
	var in client.ServiceGrant
	grant := a.command(&cobra.Command{
		Use:   "grant ORG",
		Short: "Let an organisation extend its devices by so many months more",
		Long: `Let an organisation extend its devices by so many months more, of all devices together.
It is for the operator. --reference names the order: the same one never grants twice.`,
		Example: `  joinctl service credit grant "Acme Metering" --months 1200 --reference INV-2027-3`,
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) (err error) {
		if in.Organisation, err = findOrganisation(ctx, api, args[0]); err != nil {
			return err
		}
		credit, err := api.GrantServiceCredit(ctx, in)
		if err != nil {
			return err
		}
		return a.done(credit, "%s may extend its devices by %d months", args[0], credit.Months)
	})
	f := grant.Flags()
	f.IntVar(&in.Months, "months", 0, "by how many months")
	f.StringVar(&in.Reference, "reference", "", "name of the order, which grants nothing twice")
	_ = grant.MarkFlagRequired("months")
	_ = grant.MarkFlagRequired("reference")
	c.AddCommand(list, grant)
	return c
}
