package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"joinery"
	"joinery/client"
	"joinery/lorawan"

	"github.com/spf13/cobra"
)

func (a *app) statusCommand() *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{
		Use:   "status",
		Short: "Say whether the server is ready, and who it takes you for",
		Example: `  joinctl status
  joinctl status --wait 10s`,
		Args: cobra.NoArgs,
	}
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := a.waitReady(cmd.Context(), wait); err != nil {
			return err
		}
		api, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		defer api.Close()
		s, err := api.Status(cmd.Context())
		if err != nil {
			return err
		}
		return a.show(s, func() error { return a.statusFacts(s) })
	}
	c.Flags().DurationVar(&wait, "wait", 0, "wait this long for the server to be ready")
	return c
}

// waitReady waits for the server, which may not be there yet: so nothing is
// asked of it before, not even which organisation is meant.
func (a *app) waitReady(ctx context.Context, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	early := *a
	early.anyOrg = true
	api, err := early.connect(ctx)
	if err != nil {
		return err
	}
	defer api.Close()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return api.WaitReady(ctx)
}

func (a *app) statusFacts(s client.Status) error {
	ready := "ready"
	if !s.Ready {
		ready = "NOT READY: " + s.Reason
	}
	doubt := ""
	if s.ClockDoubted != "" {
		doubt = "IN DOUBT, so no service lapses: " + s.ClockDoubted + "; 'joinctl server confirm-clock' confirms it"
	}
	var masters []string
	for _, m := range s.Masters {
		masters = append(masters, fmt.Sprintf("%s (%s, check value %s)", m.Name, m.Profile, m.KCV))
	}
	return a.facts("server", ready, "clock", doubt, "version", s.Version, "you", callerText(client.Me{Caller: s.Caller}),
		"master keys", strings.Join(masters, "; "), "keys are kept", strings.Join(custodyTexts(s.Custody), "; "), "transport key", s.TransportKID)
}

// custodyTexts tells how keys are kept, by where they come from.
func custodyTexts(list []client.Custody) (texts []string) {
	for _, c := range list {
		text := strings.TrimSpace(c.Origin + " " + c.Profile)
		if c.Served {
			text += " " + c.Level
		} else {
			text += " NOT SERVED"
		}
		if c.Why != "" {
			text += " (" + c.Why + ")"
		}
		texts = append(texts, text)
	}
	return texts
}

func (a *app) keyCommand() *cobra.Command {
	c := &cobra.Command{Use: "key", Short: "API keys"}
	c.AddCommand(a.keyMakeCommand(), a.keyListCommand(), a.keyRevokeCommand())
	return c
}

func (a *app) keyMakeCommand() *cobra.Command {
	var operator bool
	var expires, out string
	var scopes []string
	c := a.command(&cobra.Command{
		Use:   "make NAME",
		Short: "Make an API key; its text is shown this once",
		Long: `Make an API key for an organisation (--org), or an operator's key (--operator). Its
text goes to standard output, or with --out to a file that only you can read. The
server keeps no copy and cannot show it again.

--scope says the most that it may do; without it that is what you may do yourself. A
key never may more than who made it, also later.

--expires takes a duration (90d, 12h), a date (2027-01-31) or a time (RFC 3339).`,
		Example: `  joinctl key make "billing script" --org "Acme Metering" --expires 90d --out billing.key
  joinctl key make dashboard --org "Acme Metering" --scope devices:read --scope events:read
  joinctl key make ops --operator > ops.key`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		in := client.NewAPIKey{Name: args[0], Operator: operator}
		var err error
		if in.ExpiresAt, err = parseExpiry(expires, time.Now()); err != nil {
			return err
		}
		if in.Scopes, err = parseScopes(scopes); err != nil {
			return err
		}
		made, err := api.MakeAPIKey(ctx, in)
		if err != nil {
			return err
		}
		if out != "" {
			return a.writeKey(out, made)
		}
		a.sayf("made %s (%s); its text is shown this once:\n", clean(made.Key.Name), made.Key.ID)
		return a.show(made, func() error { return a.printf("%s\n", made.Text) })
	})
	c.Flags().BoolVar(&operator, "operator", false, "make an operator's key")
	c.Flags().StringVar(&expires, "expires", "", "when it ends (default: never)")
	c.Flags().StringSliceVar(&scopes, "scope", nil, "what it may do, several times for several: devices:read, devices:own, … (default: all that you may)")
	c.Flags().StringVar(&out, "out", "", "write its text to this new file, readable by you alone")
	return c
}

// writeKey writes the text of a key to a file that must not exist.
func (a *app) writeKey(path string, made client.MadeAPIKey) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = f.WriteString(made.Text + "\n")
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}
	if err != nil {
		return fmt.Errorf("the key was made (%s), but could not be written: %w; revoke it with 'joinctl key revoke %s'", made.Key.ID, err, made.Key.ID)
	}
	return a.done(made.Key, "made %s (%s); its text is in %s", made.Key.Name, made.Key.ID, path)
}

// parseExpiry reads a duration, a date or a time; "" is never.
func parseExpiry(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if days, found := strings.CutSuffix(s, "d"); found {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n <= 36500 {
			return now.AddDate(0, 0, n), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return now.Add(d), nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
		return t, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	return time.Time{}, usagef("--expires: want 90d, 12h, 2027-01-31 or 2027-01-31T12:00:00Z")
}

func (a *app) keyListCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "list",
		Short:   "List API keys",
		Example: "  joinctl key list",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		keys, err := api.APIKeys(ctx)
		if err != nil {
			return err
		}
		return showList(a, keys, columns[client.APIKey]{
			names: []string{"name", "acts as", "made", "last used", "expires", "state", "scopes", "id"},
			cells: func(k client.APIKey) []any {
				as := "operator"
				if !k.Operator {
					as = k.Organisation.String()
				}
				state := "valid"
				switch {
				case !k.RevokedAt.IsZero():
					state = "revoked"
				case !k.ExpiresAt.IsZero() && time.Now().After(k.ExpiresAt):
					state = "expired"
				}
				return []any{k.Name, as, when(k.CreatedAt, "?"), when(k.LastUsedAt, "never"), when(k.ExpiresAt, "never"), state, scopesText(k.Scopes), k.ID}
			},
			empty: "no API keys; 'joinctl key make NAME' makes one",
		})
	})
}

func (a *app) keyRevokeCommand() *cobra.Command {
	var yes bool
	c := a.command(&cobra.Command{
		Use:   "revoke KEY",
		Short: "Refuse an API key from now on, for ever",
		Long:  "Refuse an API key from now on, for ever. KEY is its id (key_…), never its text.",
		Example: `  joinctl key revoke key_0c3kd5vqmr2hx
  joinctl key revoke key_0c3kd5vqmr2hx --yes`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		id, err := joinery.ParseAPIKeyID(args[0])
		if err != nil {
			return usagef("API key: %w ('joinctl key list' lists them; its text is not wanted here)", err)
		}
		if err := a.confirm(yes, fmt.Sprintf("Revoking %s stops whoever uses it, for ever", id), id.String(), "--yes"); err != nil {
			return err
		}
		if err := api.RevokeAPIKey(ctx, id); err != nil {
			return err
		}
		return a.done(map[string]string{"key": id.String()}, "revoked %s", id)
	})
	yesFlag(c, &yes)
	return c
}

func (a *app) roamingCommand() *cobra.Command {
	c := &cobra.Command{Use: "roaming", Short: "Networks that may ask for a device's home network"}
	c.AddCommand(a.roamingSetCommand(), a.roamingClearCommand(), a.roamingShowCommand())
	return c
}

func (a *app) roamingSetCommand() *cobra.Command {
	var device string
	var none bool
	c := a.command(&cobra.Command{
		Use:   "set NETID…",
		Short: "Set which networks may ask for the home of devices",
		Long: `Set which networks that are not a device's home may learn, by HomeNSReq, which one
is: for every device of the organisation, or with --device for one, whose own rule
then stands instead. --none lets no network ask.`,
		Example: `  joinctl roaming set 000013 60002A
  joinctl roaming set --device 0004A310001AA90A --none`,
	}, func(ctx context.Context, api *client.Client, args []string) error {
		netIDs, err := parseAll("NETID", args, lorawan.ParseNetID)
		if err != nil {
			return err
		}
		if none == (len(netIDs) > 0) {
			return usagef("name the networks, or give --none; 'joinctl roaming clear' removes a rule")
		}
		return a.setRoaming(ctx, api, device, append([]lorawan.NetID{}, netIDs...))
	})
	c.Flags().StringVar(&device, "device", "", "for this device only: JOINEUI/DEVEUI, DevEUI or id")
	c.Flags().BoolVar(&none, "none", false, "let no network ask")
	return c
}

// setRoaming sets a rule, or removes it where netIDs is nil.
func (a *app) setRoaming(ctx context.Context, api *client.Client, device string, netIDs []lorawan.NetID) error {
	rule := client.RoamingRule{NetIDs: netIDs}
	if device != "" {
		d, err := findDevice(ctx, api, device)
		if err != nil {
			return err
		}
		rule.Device = d.ID
	}
	if err := api.SetRoaming(ctx, rule); err != nil {
		return err
	}
	if netIDs == nil {
		return a.done(rule, "the rule is removed")
	}
	return a.done(rule, "networks that may ask: %s", orDash(joined(netIDs)))
}

func (a *app) roamingClearCommand() *cobra.Command {
	var device string
	c := a.command(&cobra.Command{
		Use:     "clear",
		Short:   "Remove a roaming rule",
		Long:    "Remove the rule of an organisation, or with --device that of one device, for which\nits organisation's then stands.",
		Example: "  joinctl roaming clear --device 0004A310001AA90A",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		return a.setRoaming(ctx, api, device, nil)
	})
	c.Flags().StringVar(&device, "device", "", "the rule of this device: JOINEUI/DEVEUI, DevEUI or id")
	return c
}

func (a *app) roamingShowCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "show",
		Short:   "Show the roaming rules of an organisation",
		Example: "  joinctl roaming show",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		rules, err := api.Roaming(ctx, 0)
		if err != nil {
			return err
		}
		return showList(a, rules, columns[client.RoamingRule]{
			names: []string{"devices", "networks"},
			cells: func(r client.RoamingRule) []any {
				if r.Device == 0 {
					return []any{"all", orDash(joined(r.NetIDs))}
				}
				return []any{r.Device, orDash(joined(r.NetIDs))}
			},
			empty: "no rules: no network but the home network learns anything of a device",
		})
	})
}

func (a *app) auditCommand() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "The log of custody events"}
	var after, limit int
	list := a.command(&cobra.Command{
		Use:   "list",
		Short: "List custody events, oldest first",
		Example: `  joinctl audit list --limit 50
  joinctl audit list --after 1200 --json`,
		Args: cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		return showSeq(a, atMost(api.Audit(ctx, client.AuditQuery{AfterID: after}), limit), columns[client.AuditEntry]{
			names: []string{"no", "when", "event", "by", "device", "peer", "detail"},
			cells: func(e client.AuditEntry) []any {
				device, peer := "", ""
				if e.Device != 0 {
					device = e.Device.String()
				}
				if e.Peer != 0 {
					peer = e.Peer.String()
				}
				return []any{e.ID, when(e.At, "?"), e.Event, e.Actor, device, peer, detailText(e.Detail)}
			},
			empty: "no events",
		})
	})
	list.Flags().IntVar(&after, "after", 0, "only events behind this number")
	list.Flags().IntVar(&limit, "limit", 0, "at most this many (0: all)")
	c.AddCommand(list, a.auditFetchCommand(), a.auditVerifyCommand(), a.auditEraseCommand(), a.auditCeremonyCommand())
	return c
}

func detailText(detail map[string]string) string {
	var pairs []string
	for name, value := range detail {
		pairs = append(pairs, name+"="+value)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, " ")
}
