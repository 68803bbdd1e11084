package main

import (
	"context"
	"fmt"
	"strings"

	"joinery"
	"joinery/client"
	"joinery/lorawan"

	"github.com/spf13/cobra"
)

func (a *app) deviceCommand() *cobra.Command {
	c := &cobra.Command{Use: "device", Short: "List, show, explain, suspend and delete devices"}
	c.AddCommand(
		a.deviceListCommand(), a.deviceShowCommand(), a.deviceExplainCommand(), a.deviceActivationsCommand(), a.provenanceCommand(), a.deviceOwnerTokenCommand(),
		a.deviceSuspendCommand(), a.deviceResumeCommand(), a.deviceResetCommand(), a.deviceDeleteCommand(), a.deviceAttestCommand(),
	)
	return c
}

// atMost cuts a sequence off after n items; 0 lets all of it pass.
func atMost[T any](items func(func(T, error) bool), n int) func(func(T, error) bool) {
	if n <= 0 {
		return items
	}
	return func(yield func(T, error) bool) {
		left := n
		items(func(v T, err error) bool {
			left--
			return yield(v, err) && left > 0
		})
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func networkOf(b client.Binding) string {
	if b.NSID.IsZero() {
		return b.NetID.String()
	}
	return b.NetID.String() + "/" + b.NSID.String()
}

// stateOf says in a word or two what matters most about a device.
func stateOf(d client.Device) string {
	var words []string
	if d.Suspended {
		words = append(words, "suspended")
	}
	switch {
	case d.Released:
		words = append(words, "released")
	case d.OwnershipEpoch == 0:
		words = append(words, "unclaimed")
	}
	if d.Binding == nil {
		words = append(words, "unbound")
	}
	if d.Disclosed {
		words = append(words, "keys disclosed")
	}
	if len(words) == 0 {
		return "ready"
	}
	return strings.Join(words, ", ")
}

func (a *app) deviceShowCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "show DEVICE",
		Short: "Show one device",
		Long:  "Show one device, its owner, its binding and where its keys come from." + deviceHelp,
		Example: `  joinctl device show 70B3D57ED0000000/0004A310001AA90A
  joinctl device show 0004A310001AA90A --json`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		d, err := findDevice(ctx, api, args[0])
		if err != nil {
			return err
		}
		var known []client.Disclosure
		if d.Disclosed && !a.flags.json {
			if known, err = api.Disclosures(ctx, d.ID); err != nil {
				return err
			}
		}
		return a.showDevice(d, known...)
	})
}

// disclosedText says who could read root keys of a device, as far as is known.
func disclosedText(d client.Device, known []client.Disclosure) string {
	text := ""
	switch d.Exposed {
	case "disclosed":
		text = "YES: a root key of it was readable to somebody"
	case "outside":
		text = "not by this server; its root keys came from elsewhere, as in a list, whose maker could read them"
	default:
		text = "not by this server"
	}
	for _, x := range known {
		text += "; " + disclosureText(x)
	}
	if t := d.Told; t != nil {
		text += fmt.Sprintf("; told by %s, with key %s, as of %s", t.Server, t.Signer, when(t.AsOf, "?"))
		if !d.Disclosed {
			text += ": of none"
		}
	}
	return text
}

// disclosureText says to whom it was, and by whose word.
func disclosureText(x client.Disclosure) string {
	to := "to the holder of key "
	if x.Kind == "join-server" {
		to = "to the Join Server with transport key "
	}
	by := fmt.Sprintf("by this server for %s (%s)", x.Organisation, x.Export)
	switch {
	case x.ToldBy != "" && x.By != x.ToldBy:
		by = fmt.Sprintf("by %s (%s), told by %s", x.By, x.Reference, x.ToldBy)
	case x.ToldBy != "":
		by = fmt.Sprintf("by %s (%s), which told so", x.By, x.Reference)
	case x.Rekey != 0:
		by = fmt.Sprintf("by this server for %s (rekeying %s)", x.Organisation, x.Rekey)
	}
	if x.Former {
		by += ", of former root keys"
	}
	return to + x.Recipient + ", " + when(x.At, "?") + ", " + by
}

// attestedText says what a device has shown, and until when that stands.
func attestedText(d client.Device) string {
	if d.AttestedUntil.IsZero() {
		return d.Attestation
	}
	return fmt.Sprintf("%s on basis %s until %s", d.Attestation, d.AttestedBasis, when(d.AttestedUntil, "?"))
}

func (a *app) showDevice(d client.Device, known ...client.Disclosure) error {
	return a.show(d, func() error {
		disclosed := disclosedText(d, known)
		claimed := "not claimed yet; its maker holds it"
		if d.OwnershipEpoch > 0 {
			claimed = "since " + when(d.OwnedSince, "?")
		}
		if d.Released {
			claimed = "released " + when(d.OwnedSince, "?") + "; nobody holds it"
		}
		origin := d.KeySet.Origin
		if d.KeySet.Master != "" {
			origin += fmt.Sprintf(" from %s, generation %d", d.KeySet.Master, d.KeySet.Generation)
		}
		reset := ""
		if !d.KeySet.NoncesResetSince.IsZero() {
			reset = "open since " + when(d.KeySet.NoncesResetSince, "") + ", for 24 hours or one join"
		}
		facts := []any{"JoinEUI", d.JoinEUI, "DevEUI", d.DevEUI, "id", d.ID, "state", stateOf(d),
			"LoRaWAN", d.MACVersion, "owner", idOr(d.Owner, "none"), "claimed", claimed,
			"attested", attestedText(d), "root keys", origin, "serves 1.0.x with", d.KeySet.Root10, "disclosed", disclosed, "rekeys", rekeysText(d),
			"last JoinNonce", d.KeySet.JoinNonce, "nonces reset", reset,
			"last join", when(d.LastJoinAt, "never"), "imported", when(d.CreatedAt, "?")}
		if d.Binding == nil {
			return a.facts(append(facts, "binding", "none; 'joinctl bind' lets a network join it")...)
		}
		b := *d.Binding
		return a.facts(append(facts, "network", networkOf(b), "AS-ID", orDash(b.ASID), "AppSKey travels", b.AppSKey,
			"clear network keys", yesNo(b.ClearNwkKeys), "binding by", b.Source+lockedWord(b.Locked), "bound since", when(b.Since, "?"))...)
	})
}

// rekeysText says how a device rekeys, and by whose word.
func rekeysText(d client.Device) string {
	if d.RekeyProfile == "" {
		return "no, or nobody said so"
	}
	return "profile " + d.RekeyProfile + ", by the word of its " + d.RekeyWord
}

func lockedWord(locked bool) string {
	if locked {
		return ", locked"
	}
	return ""
}

func idOr(id joinery.OrgID, none string) string {
	if id == 0 {
		return none
	}
	return id.String()
}

func (a *app) deviceActivationsCommand() *cobra.Command {
	var limit int
	c := a.command(&cobra.Command{
		Use:   "activations DEVICE",
		Short: "List a device's accepted joins, newest first",
		Long:  "List a device's accepted joins and rejoins, newest first." + deviceHelp,
		Example: `  joinctl device activations 0004A310001AA90A
  joinctl device activations 0004A310001AA90A --limit 1 --json`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		d, err := findDevice(ctx, api, args[0])
		if err != nil {
			return err
		}
		return showSeq(a, atMost(api.Activations(ctx, d.ID, client.ActivationsQuery{}), limit), columns[client.Activation]{
			names: []string{"when", "type", "keys", "count", "JoinNonce", "NetID", "DevAddr", "AS-ID", "AppSKey", "id"},
			cells: func(v client.Activation) []any {
				return []any{when(v.At, "?"), v.Type, v.KeyLayout, v.Count, v.JoinNonce, v.NetID, v.DevAddr, orDash(v.ASID), v.AppSKey, v.ID}
			},
			empty: "it never joined",
		})
	})
	c.Flags().IntVar(&limit, "limit", 100, "at most this many (0: all)")
	return c
}

func (a *app) deviceOwnerTokenCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "owner-token DEVICE",
		Short: "Read the token that a device's first owner claims it with",
		Long: `Read the owner token of a device that nobody claimed yet. Only its maker can,
and the audit log records it. It goes on the device's label: whoever has it can
become the owner.` + deviceHelp,
		Example: `  joinctl device owner-token 70B3D57ED0000000/0004A310001AA90A > token.txt`,
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		d, err := findDevice(ctx, api, args[0])
		if err != nil {
			return err
		}
		t, err := api.OwnerToken(ctx, d.ID)
		if err != nil {
			return err
		}
		return a.show(t, func() error { return a.printf("%s\n", t.OwnerToken) })
	})
}

// deviceAct makes a command that does one thing to one device.
func (a *app) deviceAct(c *cobra.Command, done string, do func(context.Context, *client.Client, client.Device) error) *cobra.Command {
	c.Args = cobra.ExactArgs(1)
	return a.command(c, func(ctx context.Context, api *client.Client, args []string) error {
		d, err := findDevice(ctx, api, args[0])
		if err != nil {
			return err
		}
		if err := do(ctx, api, d); err != nil {
			return err
		}
		return a.done(map[string]string{"device": d.ID.String()}, "%s: %s", deviceName(d), done)
	})
}

// done says that something was done: to people in words, to programs with what.
func (a *app) done(what any, format string, args ...any) error {
	if a.flags.json {
		return writeJSON(a.out, what)
	}
	a.sayf("%s\n", clean(fmt.Sprintf(format, args...)))
	return nil
}

// doneThen is done, and says to people what comes next.
func (a *app) doneThen(what any, next, format string, args ...any) error {
	if err := a.done(what, format, args...); err != nil || a.flags.json {
		return err
	}
	a.sayf("next: %s\n", clean(next))
	return nil
}

func (a *app) deviceSuspendCommand() *cobra.Command {
	return a.deviceAct(&cobra.Command{
		Use:     "suspend DEVICE",
		Short:   "Refuse joins of a device until it is resumed",
		Long:    "Refuse joins of a device, at once, until 'joinctl device resume'." + deviceHelp,
		Example: "  joinctl device suspend 0004A310001AA90A",
	}, "suspended", func(ctx context.Context, api *client.Client, d client.Device) error {
		return api.SuspendDevice(ctx, d.ID)
	})
}

func (a *app) deviceResumeCommand() *cobra.Command {
	return a.deviceAct(&cobra.Command{
		Use:     "resume DEVICE",
		Short:   "End the suspension of a device",
		Long:    "End the suspension of a device." + deviceHelp,
		Example: "  joinctl device resume 0004A310001AA90A",
	}, "resumed", func(ctx context.Context, api *client.Client, d client.Device) error {
		return api.ResumeDevice(ctx, d.ID)
	})
}

func (a *app) deviceResetCommand() *cobra.Command {
	var atLeast uint32
	c := a.deviceAct(&cobra.Command{
		Use:   "reset-nonces DEVICE",
		Short: "Let one join start the DevNonces of a device anew",
		Long: `Let one join of a device, within 24 hours, be accepted whatever its DevNonce, and
count from there. Use it for a device that lost its counter. While it is open, a
recorded join-request of the device could be replayed once. JoinNonce is never
lowered; --join-nonce-at-least raises it.` + deviceHelp,
		Example: `  joinctl device reset-nonces 0004A310001AA90A
  joinctl device reset-nonces 0004A310001AA90A --join-nonce-at-least 500`,
	}, "the next join within 24 hours starts its DevNonces anew", func(ctx context.Context, api *client.Client, d client.Device) error {
		return api.ResetNonces(ctx, d.ID, client.NoncesReset{JoinNonceAtLeast: lorawan.JoinNonce(atLeast)})
	})
	c.PreRunE = func(*cobra.Command, []string) error {
		if atLeast > uint32(lorawan.MaxJoinNonce) {
			return usagef("--join-nonce-at-least: at most %d", lorawan.MaxJoinNonce)
		}
		return nil
	}
	c.Flags().Uint32Var(&atLeast, "join-nonce-at-least", 0, "raise JoinNonce to this, if it is lower")
	return c
}

func (a *app) deviceDeleteCommand() *cobra.Command {
	var yes bool
	c := a.deviceAct(&cobra.Command{
		Use:   "delete DEVICE",
		Short: "Delete a device and its keys for ever",
		Long: `Delete a device and its keys for ever. What it did stays in the audit log. A
device from a key list can come back only from the list itself, and then without
its nonces: prefer 'joinctl device suspend'.` + deviceHelp,
		Example: `  joinctl device delete 70B3D57ED0000000/0004A310001AA90A
  joinctl device delete dev_0c3kd5vqmr2hx --yes`,
	}, "deleted", func(ctx context.Context, api *client.Client, d client.Device) error {
		question := fmt.Sprintf("Deleting %s (%s; last join %s; last JoinNonce %d) destroys its keys and its nonces for ever",
			deviceName(d), stateOf(d), when(d.LastJoinAt, "never"), d.KeySet.JoinNonce)
		if err := a.confirm(yes, question, d.DevEUI.String(), "--yes"); err != nil {
			return err
		}
		return api.DeleteDevice(ctx, d.ID)
	})
	yesFlag(c, &yes)
	return c
}
