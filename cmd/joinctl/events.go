package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"joinery"
	"joinery/client"

	"github.com/spf13/cobra"
)

// followEvery is how often --follow asks for what is new.
const followEvery = time.Second

func (a *app) eventsCommand() *cobra.Command {
	var after string
	var types []string
	var limit int
	var follow bool
	c := a.command(&cobra.Command{
		Use:   "events",
		Short: "What happened: imports, claims, bindings, joins and more",
		Long: `What happened, in the order in which it was committed. With --follow it goes on
with what comes, from now or from --after, until it is interrupted.

--after takes a 'cursor' of an event in --json, and goes on behind it; 'now' is
the end. An event can come twice, with the same id. With --json --follow there is
one JSON object a line. The types are listed in docs/events.md.`,
		Example: `  joinctl events --limit 20
  joinctl events --follow --type device.joined --type join.refused
  joinctl events --follow --json --after now`,
		Args: cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		q := client.EventsPageQuery{After: after, Types: strings.Join(types, ",")}
		if follow {
			if after == "" {
				q.After = client.FromNow
			}
			return a.followEvents(ctx, api, q)
		}
		return showSeq(a, atMost(api.Events(ctx, q), limit), columns[client.Event]{
			names: []string{"when", "event", "device", "what"},
			cells: func(e client.Event) []any {
				return []any{when(e.Timestamp, "?"), e.Type, eventDevice(e), eventText(e)}
			},
			empty: "no events",
		})
	})
	f := c.Flags()
	f.StringVar(&after, "after", "", "only events behind this place; 'now' is the end (default: the beginning, with --follow the end)")
	f.StringArrayVar(&types, "type", nil, "only events of this type; may be repeated")
	f.IntVar(&limit, "limit", 0, "at most this many (0: all)")
	f.BoolVar(&follow, "follow", false, "go on with what comes")
	c.MarkFlagsMutuallyExclusive("follow", "limit")
	return c
}

// followEvents writes events as they come, until ctx ends. A server that is away
// for a while is waited for.
func (a *app) followEvents(ctx context.Context, api *client.Client, q client.EventsPageQuery) error {
	reached, away := false, false
	for ctx.Err() == nil {
		p, err := api.EventsPage(ctx, q)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && (!reached || !again(err)):
			return err
		case err != nil && !away:
			a.sayf("%v; waiting for the server\n", err)
		}
		away = err != nil
		if err == nil {
			reached, q.After = true, p.Next
			for _, e := range p.Items {
				if err := a.printEvent(e); err != nil {
					return err
				}
			}
			if p.More {
				continue
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(followEvery):
		}
	}
	return nil
}

func (a *app) printEvent(e client.Event) error {
	if a.flags.json {
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		return a.printf("%s\n", b)
	}
	return a.printf("%s\n", clean(fmt.Sprintf("%s  %-18s  %s  %s", when(e.Timestamp, "?"), e.Type, eventDevice(e), eventText(e))))
}

func eventDevice(e client.Event) string {
	if e.Data.DevEUI.IsZero() {
		return "-"
	}
	return e.Data.JoinEUI.String() + "/" + e.Data.DevEUI.String()
}

// eventText says in a few words what is particular to an event.
func eventText(e client.Event) string {
	d := e.Data
	switch {
	case d.Join != nil:
		return fmt.Sprintf("%s through %s, DevAddr %s, JoinNonce %d", d.Join.Type, d.Join.NetID, d.Join.DevAddr, d.Join.JoinNonce)
	case d.Refused != nil:
		return fmt.Sprintf("%s (%d so far)", d.Refused.What, d.Refused.Count)
	case d.Import != nil && d.Import.Kind != "":
		return fmt.Sprintf("%s: %d new, %d unchanged, %d refused", d.Import.ID, d.Import.Created, d.Import.Unchanged, d.Import.Failed)
	case d.Import != nil:
		return d.Import.ID.String()
	}
	return strings.TrimSpace("by " + d.Actor + "  " + detailText(d.Detail))
}

// again tells whether err may be over soon: the server is away, or busy.
func again(err error) bool {
	p, answered := errors.AsType[*client.Problem](err)
	return errors.Is(err, client.ErrUnreachable) || answered && p.Code == joinery.CodeUnavailable
}
