package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"joinery"
	"joinery/client"

	"github.com/spf13/cobra"
)

const webhookHelp = "\n\nWEBHOOK is an id (whk_…), or a part of the URL or the description that only one has."

func (a *app) webhookCommand() *cobra.Command {
	c := &cobra.Command{Use: "webhook", Short: "Addresses to which events are sent"}
	c.AddCommand(a.webhookAddCommand(), a.webhookListCommand(), a.webhookTestCommand(), a.webhookRotateCommand(),
		a.webhookEnableCommand(), a.webhookRemoveCommand(), a.webhookDeliveriesCommand())
	return c
}

func (a *app) webhookAddCommand() *cobra.Command {
	var in client.NewWebhook
	var out string
	c := a.command(&cobra.Command{
		Use:   "add URL",
		Short: "Have events sent to an address; its secret is shown this once",
		Long: `Have the events of an organisation (--org) posted to URL from now on, signed as
Standard Webhooks has it. The secret goes to standard output, or with --out to a
file that only you can read. The server keeps no copy and cannot show it again:
'joinctl webhook rotate' makes another.

Without --type everything is sent but device.imported, of which an import has one
for each device. The types are listed in docs/events.md.`,
		Example: `  joinctl webhook add https://example.com/joins --out webhook.secret
  joinctl webhook add https://example.com/joins --type device.joined --type join.refused`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		in.URL = args[0]
		made, err := api.AddWebhook(ctx, in)
		if err != nil {
			return err
		}
		return a.showSecret(out, "added", made)
	})
	f := c.Flags()
	f.StringArrayVar(&in.Types, "type", nil, "send events of this type; may be repeated")
	f.StringVar(&in.Description, "description", "", "what it is for")
	f.BoolVar(&in.Everything, "everything", false, "send the events of all organisations (operator)")
	f.StringVar(&out, "out", "", "write its secret to this new file, readable by you alone")
	return c
}

// showSecret writes the secret of a webhook, which is had this once.
func (a *app) showSecret(path, done string, made client.MadeWebhook) error {
	w := made.Webhook
	if path == "" {
		a.sayf("%s %s; its secret is shown this once:\n", done, w.ID)
		return a.show(made, func() error { return a.printf("%s\n", made.Secret) })
	}
	write := func(f io.Writer) error { _, err := io.WriteString(f, made.Secret+"\n"); return err }
	if err := writeSecret(path, write); err != nil {
		return fmt.Errorf("%s %s, but its secret could not be written: %w; 'joinctl webhook rotate %s --now' makes another", done, w.ID, err, w.ID)
	}
	return a.done(w, "%s %s; its secret is in %s", done, w.ID, path)
}

func (a *app) webhookListCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "list",
		Short:   "List webhooks and how their deliveries go",
		Example: "  joinctl webhook list",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		hooks, err := api.Webhooks(ctx)
		if err != nil {
			return err
		}
		return showList(a, hooks, columns[client.Webhook]{
			names: []string{"id", "url", "events", "state", "for"},
			cells: func(w client.Webhook) []any {
				types := "all but device.imported"
				if len(w.Types) > 0 {
					types = joined(w.Types)
				}
				return []any{w.ID, w.URL, types, webhookState(w), w.Description}
			},
			empty: "no webhooks; 'joinctl webhook add URL' adds one",
		})
	})
}

func webhookState(w client.Webhook) string {
	switch {
	case w.Disabled != "":
		return "off: " + w.Disabled
	case !w.FailingSince.IsZero():
		return fmt.Sprintf("fails since %s, %d attempts, next %s", when(w.FailingSince, "?"), w.Attempts, when(w.NextAt, "soon"))
	}
	return "on"
}

// findWebhook finds the one webhook that arg names.
func findWebhook(ctx context.Context, api *client.Client, arg string) (client.Webhook, error) {
	if strings.HasPrefix(arg, "whk_") {
		id, err := joinery.ParseWebhookID(arg)
		if err != nil {
			return client.Webhook{}, usagef("webhook: %w", err)
		}
		return api.Webhook(ctx, id)
	}
	hooks, err := api.Webhooks(ctx)
	if err != nil {
		return client.Webhook{}, err
	}
	var found []client.Webhook
	for _, w := range hooks {
		if w.URL == arg {
			return w, nil
		}
		if strings.Contains(w.URL, arg) || strings.Contains(w.Description, arg) {
			found = append(found, w)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return client.Webhook{}, fmt.Errorf("no webhook with that in its URL or description; 'joinctl webhook list' lists them")
	}
	return client.Webhook{}, usagef("several webhooks have that in their URL or description; give an id, 'joinctl webhook list' lists them")
}

// webhookAct makes a command on one webhook.
func (a *app) webhookAct(c *cobra.Command, do func(ctx context.Context, api *client.Client, w client.Webhook) error) *cobra.Command {
	c.Args = cobra.ExactArgs(1)
	c.Long += webhookHelp
	return a.command(c, func(ctx context.Context, api *client.Client, args []string) error {
		w, err := findWebhook(ctx, api, args[0])
		if err != nil {
			return err
		}
		return do(ctx, api, w)
	})
}

func (a *app) webhookTestCommand() *cobra.Command {
	return a.webhookAct(&cobra.Command{
		Use:   "test WEBHOOK",
		Short: "Send a test event now and say what became of it",
		Long: `Send a signed event of type webhook.test now, and say what became of it. It is in
no feed and counts for nothing. The exit code is 1 where the receiver did not
take it.`,
		Example: "  joinctl webhook test example.com",
	}, func(ctx context.Context, api *client.Client, w client.Webhook) error {
		d, err := api.TestWebhook(ctx, w.ID)
		if err != nil {
			return err
		}
		if !d.OK {
			if err := a.show(d, func() error { return nil }); err != nil {
				return err
			}
			return fmt.Errorf("the test event was not taken: %s (after %d ms)", d.Error, d.TookMS)
		}
		return a.done(d, "the receiver took the test event: status %d after %d ms", d.Status, d.TookMS)
	})
}

func (a *app) webhookRotateCommand() *cobra.Command {
	var overlap time.Duration
	var now bool
	var out string
	c := a.webhookAct(&cobra.Command{
		Use:   "rotate WEBHOOK",
		Short: "Give a webhook another secret; it is shown this once",
		Long: `Give a webhook another secret. For --overlap deliveries carry a signature of
each, so that the receiver can be changed meanwhile; --now ends the present one at
once, for when somebody else knows it.`,
		Example: `  joinctl webhook rotate example.com --out new.secret
  joinctl webhook rotate example.com --overlap 72h`,
	}, func(ctx context.Context, api *client.Client, w client.Webhook) error {
		if overlap < 0 || overlap%time.Hour != 0 || overlap > 7*24*time.Hour {
			return usagef("--overlap: want whole hours, at most 168h")
		}
		made, err := api.RotateWebhook(ctx, w.ID, client.WebhookRotation{OverlapHours: int(overlap / time.Hour), Now: now})
		if err != nil {
			return err
		}
		return a.showSecret(out, "rotated", made)
	})
	f := c.Flags()
	f.DurationVar(&overlap, "overlap", 24*time.Hour, "how long the present secret goes on to sign, too; whole hours")
	f.BoolVar(&now, "now", false, "end the present secret at once")
	f.StringVar(&out, "out", "", "write the new secret to this new file, readable by you alone")
	c.MarkFlagsMutuallyExclusive("overlap", "now")
	return c
}

func (a *app) webhookEnableCommand() *cobra.Command {
	var fromNow bool
	c := a.webhookAct(&cobra.Command{
		Use:   "enable WEBHOOK",
		Short: "Send to a webhook again that was switched off, or try again now",
		Long: `Send to a webhook again that was switched off because deliveries failed for long,
or do not wait for the next try. Deliveries go on where they stopped; --from-now
passes over what was not delivered.`,
		Example: "  joinctl webhook enable example.com",
	}, func(ctx context.Context, api *client.Client, w client.Webhook) error {
		if err := api.EnableWebhook(ctx, w.ID, client.WebhookEnabling{FromNow: fromNow}); err != nil {
			return err
		}
		return a.done(map[string]string{"webhook": w.ID.String()}, "%s is on", w.ID)
	})
	c.Flags().BoolVar(&fromNow, "from-now", false, "pass over what was not delivered")
	return c
}

func (a *app) webhookRemoveCommand() *cobra.Command {
	var yes bool
	c := a.webhookAct(&cobra.Command{
		Use:   "remove WEBHOOK",
		Short: "Send nothing to a webhook any more, and forget it",
		Long: `Send nothing to a webhook any more, and forget it with its secret and its place in
the feed. The feed keeps its events.`,
		Example: `  joinctl webhook remove whk_0c3kd5vqmr2hx
  joinctl webhook remove whk_0c3kd5vqmr2hx --yes`,
	}, func(ctx context.Context, api *client.Client, w client.Webhook) error {
		question := fmt.Sprintf("Removing %s (%s) forgets its secret and what it was not sent yet", w.ID, clean(w.URL))
		if err := a.confirm(yes, question, w.ID.String(), "--yes"); err != nil {
			return err
		}
		if err := api.RemoveWebhook(ctx, w.ID); err != nil {
			return err
		}
		return a.done(map[string]string{"webhook": w.ID.String()}, "removed %s (%s)", w.ID, clean(w.URL))
	})
	yesFlag(c, &yes)
	return c
}

func (a *app) webhookDeliveriesCommand() *cobra.Command {
	return a.webhookAct(&cobra.Command{
		Use:     "deliveries WEBHOOK",
		Short:   "List the newest attempts to deliver, newest first",
		Long:    "List the newest attempts to deliver to a webhook, newest first, at most 100.",
		Example: "  joinctl webhook deliveries example.com",
	}, func(ctx context.Context, api *client.Client, w client.Webhook) error {
		attempts, err := api.Deliveries(ctx, w.ID)
		if err != nil {
			return err
		}
		return showList(a, attempts, columns[client.Delivery]{
			names: []string{"when", "event", "type", "attempt", "took", "result"},
			cells: func(d client.Delivery) []any {
				result := fmt.Sprintf("taken (%d)", d.Status)
				if !d.OK {
					result = d.Error
				}
				return []any{when(d.At, "?"), d.Event, d.Type, d.Attempt, fmt.Sprintf("%d ms", d.TookMS), result}
			},
			empty: "nothing was sent yet; 'joinctl webhook test' sends a test event",
		})
	})
}
