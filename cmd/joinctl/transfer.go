package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"joinery"
	"joinery/client"

	"github.com/spf13/cobra"
)

func (a *app) releaseCommand() *cobra.Command {
	var yes bool
	c := a.command(&cobra.Command{
		Use:   "release DEVICE",
		Short: "Let go of a device; the answer has its new owner token, once",
		Long: `Let go of a device. Nobody holds it afterwards, no network joins it, and its old
owner token is dead. The new one is printed, and nowhere else: give it to whoever
should claim the device. To hand a device to an organisation that is here already,
'joinctl transfer offer' is safer.` + deviceHelp,
		Example: `  joinctl release 0004A310001AA90A > token.txt
  joinctl release dev_0c3kd5vqmr2hx --yes --json`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		d, err := findDevice(ctx, api, args[0])
		if err != nil {
			return err
		}
		question := fmt.Sprintf("Releasing %s takes it out of your hands; only the new owner token leads to it", deviceName(d))
		if err := a.confirm(yes, question, d.DevEUI.String(), "--yes"); err != nil {
			return err
		}
		out, err := api.Release(ctx, d.ID)
		if err != nil {
			return err
		}
		return a.show(out, func() error {
			a.sayf("%s: released; its new owner token:\n", deviceName(d))
			return a.printf("%s\n", out.OwnerToken)
		})
	})
	yesFlag(c, &yes)
	return c
}

func (a *app) tokenCommand() *cobra.Command {
	c := &cobra.Command{Use: "token", Short: "Show and regenerate owner tokens"}
	c.AddCommand(a.tokenShowCommand(), a.tokenRegenerateCommand())
	return c
}

func (a *app) tokenShowCommand() *cobra.Command {
	c := a.deviceOwnerTokenCommand()
	c.Use = "show DEVICE"
	c.Short = "Read the owner token that was issued to you"
	c.Long = `Read the owner token of a device: as its maker, until somebody claims it; as its owner,
if the token was issued to you by a transfer, a dispute or 'joinctl token regenerate'.
The audit log records it.` + deviceHelp
	c.Example = "  joinctl token show 70B3D57ED0000000/0004A310001AA90A > token.txt"
	return c
}

func (a *app) tokenRegenerateCommand() *cobra.Command {
	var yes bool
	c := a.command(&cobra.Command{
		Use:   "regenerate DEVICE",
		Short: "Give a device a new owner token; the one on its label is dead",
		Long: `Give a device a new owner token, because the wrong people have seen the one before.
That one is dead at once: labels that show it lead nowhere.` + deviceHelp,
		Example: `  joinctl token regenerate 0004A310001AA90A > token.txt
  joinctl token regenerate 0004A310001AA90A --yes --json`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		d, err := findDevice(ctx, api, args[0])
		if err != nil {
			return err
		}
		question := fmt.Sprintf("A new owner token of %s makes every label of it worthless", deviceName(d))
		if err := a.confirm(yes, question, d.DevEUI.String(), "--yes"); err != nil {
			return err
		}
		t, err := api.RegenerateOwnerToken(ctx, d.ID)
		if err != nil {
			return err
		}
		return a.show(t, func() error { return a.printf("%s\n", t.OwnerToken) })
	})
	yesFlag(c, &yes)
	return c
}

func (a *app) transferCommand() *cobra.Command {
	c := &cobra.Command{Use: "transfer", Short: "Hand devices to another organisation: offer, accept, cancel"}
	c.AddCommand(a.transferOfferCommand(), a.transferAcceptCommand(), a.transferCancelCommand(), a.transferListCommand())
	return c
}

func (a *app) transferOfferCommand() *cobra.Command {
	var to, until string
	c := a.command(&cobra.Command{
		Use:   "offer DEVICE --to ORGANISATION",
		Short: "Offer a device to another organisation",
		Long: `Offer a device to another organisation. Nothing changes until it accepts; then its
binding ends, and the owner token that you know is dead. Ask the recipient for the id
of its organisation ('joinctl status' shows it): whether there is such an organisation
the server tells nobody.` + deviceHelp,
		Example: `  joinctl transfer offer 0004A310001AA90A --to org_0005m2q8g3c0y
  joinctl transfer offer 0004A310001AA90A --to org_0005m2q8g3c0y --until 2027-01-31`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		in := client.NewTransfer{}
		var err error
		if in.ExpiresAt, err = parseUntil(until); err != nil {
			return err
		}
		if in.Recipient, err = findOrganisation(ctx, api, to); err != nil {
			return err
		}
		d, err := findDevice(ctx, api, args[0])
		if err != nil {
			return err
		}
		t, err := api.OfferTransfer(ctx, d.ID, in)
		if err != nil {
			return err
		}
		return a.show(t, func() error {
			a.sayf("%s: offered to %s until %s\n", deviceName(d), t.Recipient, when(t.ExpiresAt, "?"))
			return nil
		})
	})
	c.Flags().StringVar(&to, "to", "", "organisation that may accept it: id, or name where you may see it")
	c.Flags().StringVar(&until, "until", "", "last day of the offer, as 2027-01-31, or a time, as 2027-01-31T12:00:00Z (default: two weeks)")
	require(c, "to")
	return c
}

// parseUntil reads a day, which counts whole, or a time.
func parseUntil(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if day, err := time.ParseInLocation(time.DateOnly, text, time.Local); err == nil {
		return day.AddDate(0, 0, 1), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, usagef("--until: want a day as 2027-01-31, or a time as 2027-01-31T12:00:00Z")
	}
	return at, nil
}

// findTransfer finds the offer of a device that the caller need not hold.
func findTransfer(ctx context.Context, api *client.Client, arg string) (client.Transfer, error) {
	if strings.HasPrefix(arg, "dev_") {
		id, err := joinery.ParseDeviceID(arg)
		if err != nil {
			return client.Transfer{}, usagef("device: %w", err)
		}
		return api.Transfer(ctx, id)
	}
	filter, err := deviceFilter(arg)
	if err != nil {
		return client.Transfer{}, err
	}
	var found []client.Transfer
	for t, err := range api.Transfers(ctx, client.TransfersQuery{}) {
		if err != nil {
			return client.Transfer{}, err
		}
		if t.DevEUI.String() == filter.DevEUI && (filter.JoinEUI.IsZero() || filter.JoinEUI == t.JoinEUI) {
			found = append(found, t)
		}
	}
	switch len(found) {
	case 0:
		return client.Transfer{}, fmt.Errorf("%s is offered neither to you nor by you; 'joinctl transfer list' lists offers", describe(filter))
	case 1:
		return found[0], nil
	}
	return client.Transfer{}, usagef("several devices with that DevEUI are offered; give JOINEUI/DEVEUI")
}

func (a *app) transferAcceptCommand() *cobra.Command {
	var b bindingFlags
	c := a.command(&cobra.Command{
		Use:   "accept DEVICE",
		Short: "Become the owner of a device that is offered to you",
		Long: `Become the owner of a device that is offered to you, and say which network may join
it. The former owner's binding ends, unless its network locked it. The new owner token
is printed; 'joinctl token show' reads it again.` + deviceHelp,
		Example: `  joinctl transfer accept 0004A310001AA90A --net-id 000013 --as-id as.example.com
  joinctl transfer accept dev_0c3kd5vqmr2hx --json`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		in := client.Acceptance{}
		var err error
		if in.Binding, err = b.optional(); err != nil {
			return err
		}
		t, err := findTransfer(ctx, api, args[0])
		if err != nil {
			return err
		}
		out, err := api.AcceptTransfer(ctx, t.Device, in)
		if err != nil {
			return err
		}
		return a.show(out, func() error {
			a.sayf("%s/%s: yours; its new owner token:\n", t.JoinEUI, t.DevEUI)
			return a.printf("%s\n", out.OwnerToken)
		})
	})
	b.register(c, "")
	return c
}

func (a *app) transferCancelCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "cancel DEVICE",
		Short:   "Take an offer back, or decline it",
		Long:    "Take an offer back, or decline one that was made to you. Nothing else changes." + deviceHelp,
		Example: "  joinctl transfer cancel 0004A310001AA90A",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		t, err := findTransfer(ctx, api, args[0])
		if err != nil {
			return err
		}
		if err := api.CancelTransfer(ctx, t.Device); err != nil {
			return err
		}
		return a.done(map[string]string{"device": t.Device.String()}, "%s/%s: offered no more", t.JoinEUI, t.DevEUI)
	})
}

func (a *app) transferListCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "list",
		Short: "List the offers that you make and get",
		Example: `  joinctl transfer list
  joinctl transfer list --json | jq -r '.[] | select(.expired | not) | .devEUI'`,
		Args: cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		return showSeq(a, api.Transfers(ctx, client.TransfersQuery{}), columns[client.Transfer]{
			names: []string{"JoinEUI", "DevEUI", "from", "to", "until", "state", "device"},
			cells: func(t client.Transfer) []any {
				state := map[bool]string{false: "open", true: "expired"}[t.Expired]
				return []any{t.JoinEUI, t.DevEUI, t.From, t.Recipient, when(t.ExpiresAt, "?"), state, t.Device}
			},
			empty: "no offers",
		})
	})
}
