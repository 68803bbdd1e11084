package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"joinery"
	"joinery/client"

	"github.com/spf13/cobra"
)

func (a *app) rekeyStatusCommand() *cobra.Command {
	var until string
	var wait time.Duration
	c := a.command(&cobra.Command{
		Use:   "status DEVICE",
		Short: "Show how the rekeying of a device stands",
		Long: `Show how a device rekeys, what keys it may have, and the orders that it got, newest first.
With --until first wait until the newest order has come so far, at most for --wait: parked
or taken, at a Join Server that is reached; sent; or confirmed. It ends with an error where
that does not come, or cannot come any more.` + deviceHelp,
		Example: `  joinctl rekey status 0004A310001AA90A
  joinctl rekey status 0004A310001AA90A --until taken --wait 10m
  joinctl rekey status 0004A310001AA90A --json`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		if until != "" && !slices.Contains(rekeySteps, until) {
			return usagef("--until: want %s", strings.Join(rekeySteps, ", "))
		}
		d, err := findDevice(ctx, api, args[0])
		if err != nil {
			return err
		}
		r, err := api.Rekeying(ctx, d.ID)
		if err == nil && until != "" {
			r, err = awaitRekeying(ctx, api, d.ID, r, until, wait)
		}
		if err != nil {
			return err
		}
		if !a.flags.json {
			word := ""
			if r.Word != "" {
				word = " by the word of its " + r.Word
			}
			a.sayf("%s: profile %s%s, rekeyed %d times, %d candidates\n", deviceName(d), r.Profile, word, r.Generation, r.Candidates)
			return showList(a, r.Orders, columns[client.RekeyOrder]{
				names: []string{"when", "state", "JoinEUI", "to", "hand-over", "cookie", "sent", "last", "until", "id"},
				cells: func(o client.RekeyOrder) []any {
					return []any{when(o.At, "?"), o.State, o.NewJoinEUI, o.To, passageText(o.Passage), o.Cookie, o.Sent, when(o.LastSentAt, "never"), when(o.ExpiresAt, "?"), o.ID}
				},
				empty: "no orders; 'joinctl rekey arm' gives one",
			})
		}
		return writeJSON(a.out, r)
	})
	c.Flags().StringVar(&until, "until", "", "wait until the newest order is parked, taken, sent or confirmed")
	c.Flags().DurationVar(&wait, "wait", time.Minute, "with --until: at most so long")
	return c
}

// rekeySteps are how far an order comes, in this order.
var rekeySteps = []string{"parked", "taken", "sent", "confirmed"}

// stepOf gives how far an order has come, by its place in rekeySteps; -1 where it has
// come to none of them. ended says why it comes no further, "" where it may.
func stepOf(o client.RekeyOrder) (step int, ended string) {
	step = slices.Index(rekeySteps, o.State)
	if p := o.Passage; p != nil {
		step = max(step, slices.Index(rekeySteps, p.State))
		if p.State == "refused" && o.State != "confirmed" {
			ended = "its hand-over is refused: " + clean(p.Said) + "; cancel the order and give a new one"
		}
	}
	switch o.State {
	case "cancelled", "expired", "rejected":
		ended = "the order is " + o.State
	}
	return step, ended
}

// awaitRekeying waits until the newest order of a device has come as far as until.
func awaitRekeying(ctx context.Context, api *client.Client, id joinery.DeviceID, r client.Rekeying, until string, wait time.Duration) (client.Rekeying, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		if len(r.Orders) == 0 {
			return r, errors.New("the device has no order: 'joinctl rekey arm' gives one")
		}
		o := r.Orders[0]
		step, ended := stepOf(o)
		switch {
		case step >= slices.Index(rekeySteps, until):
			return r, nil
		case ended != "":
			return r, fmt.Errorf("the order does not come to %s: %s", until, ended)
		}
		select {
		case <-ctx.Done():
			return r, fmt.Errorf("the order is %s, its hand-over %s, and not %s yet", o.State, passageText(o.Passage), until)
		case <-time.After(pause):
		}
		var err error
		if r, err = api.Rekeying(ctx, id); err != nil {
			return r, err
		}
	}
}

// passageText tells how a hand-over stands; by a file where this server does not see
// to it.
func passageText(p *client.Passage) string {
	switch {
	case p == nil:
		return "by file"
	case p.Said == "":
		return p.State
	}
	return p.State + ": " + clean(p.Said)
}
