package main

import (
	"context"
	"strings"
	"time"

	"joinery/client"
	"joinery/lorawan"

	"github.com/spf13/cobra"
)

// deviceQuery are the flags that select devices.
type deviceQuery struct {
	command *cobra.Command

	joinEUI, devEUI, netID, nsid, owner, status, sort string
	joinedBefore, joinedAfter, attestation            string
	suspended, claimed, exposed, neverJoined          bool
	limit                                             int
}

// Orders of --sort, and what the API calls them.
var deviceOrders = map[string]string{
	"dev-eui": "devEUI", "-dev-eui": "-devEUI", "last-join": "lastJoin", "-last-join": "-lastJoin",
}

func (q *deviceQuery) register(c *cobra.Command) {
	q.command = c
	f := c.Flags()
	f.StringVar(&q.joinEUI, "join-eui", "", "only devices with this JoinEUI")
	f.StringVar(&q.devEUI, "dev-eui", "", "only devices whose DevEUI begins with these hexadecimal digits")
	f.StringVar(&q.netID, "net-id", "", "only devices that are bound to this network")
	f.StringVar(&q.nsid, "nsid", "", "only devices that are bound to this Network Server of it")
	f.StringVar(&q.owner, "owner", "", "only devices of this organisation, id or name; for operators")
	f.StringVar(&q.status, "status", "", "only devices that are active, unbound or suspended")
	f.BoolVar(&q.suspended, "suspended", false, "the same as --status suspended")
	f.BoolVar(&q.claimed, "claimed", false, "only devices that somebody claimed; --claimed=false: that nobody did")
	f.BoolVar(&q.exposed, "exposed", false, "only devices of which a root key was ever disclosed; --exposed=false: never")
	f.StringVar(&q.joinedBefore, "joined-before", "", "only devices whose last join is older: 30d, 12h, 2027-01-31 or a time (RFC 3339)")
	f.StringVar(&q.joinedAfter, "joined-after", "", "only devices that joined since: 30d, 12h, 2027-01-31 or a time (RFC 3339)")
	f.StringVar(&q.attestation, "attestation", "", "only devices that stand at this level now: L0, L1, L2 or L3")
	f.BoolVar(&q.neverJoined, "never-joined", false, "only devices that never joined")
	f.StringVar(&q.sort, "sort", "", "order: dev-eui or last-join, with a minus before it downwards (default: dev-eui)")
	f.IntVar(&q.limit, "limit", 0, "at most this many (0: all)")
}

// read reads the flags, at now.
func (q *deviceQuery) read(ctx context.Context, api *client.Client, now time.Time) (out client.DevicesQuery, err error) {
	if out.JoinEUI, err = optionalFlag("--join-eui", q.joinEUI, lorawan.ParseEUI64); err != nil {
		return out, err
	}
	if out.NSID, err = optionalFlag("--nsid", q.nsid, lorawan.ParseEUI64); err != nil {
		return out, err
	}
	if q.netID != "" {
		netID, err := optionalFlag("--net-id", q.netID, lorawan.ParseNetID)
		if err != nil {
			return out, err
		}
		out.NetID = &netID
	}
	if out.DevEUI = strings.ToUpper(q.devEUI); strings.Trim(out.DevEUI, "0123456789ABCDEF") != "" || len(out.DevEUI) > 16 {
		return out, usagef("--dev-eui: want at most 16 hexadecimal digits")
	}
	if out.Status = q.status; q.suspended {
		if q.status != "" && q.status != "suspended" {
			return out, usagef("--suspended and --status %s exclude each other", q.status)
		}
		out.Status = "suspended"
	}
	if err := q.readTimes(&out, now); err != nil {
		return out, err
	}
	out.NeverJoined = q.neverJoined
	if q.command.Flags().Changed("claimed") {
		out.Claimed = &q.claimed
	}
	if q.command.Flags().Changed("exposed") {
		out.Disclosed = &q.exposed
	}
	if out.Attestation = strings.ToUpper(q.attestation); out.Attestation != "" && levels[out.Attestation] == "" {
		return out, usagef("--attestation: want L0, L1, L2 or L3")
	}
	if q.sort != "" {
		if out.Sort = deviceOrders[q.sort]; out.Sort == "" {
			return out, usagef("--sort: want dev-eui, -dev-eui, last-join or -last-join")
		}
	}
	if q.owner != "" {
		out.Owner, err = findOrganisation(ctx, api, q.owner)
	}
	return out, err
}

func (q *deviceQuery) readTimes(out *client.DevicesQuery, now time.Time) (err error) {
	if out.JoinedBefore, err = parseMoment("--joined-before", q.joinedBefore, now); err != nil {
		return err
	}
	out.JoinedAfter, err = parseMoment("--joined-after", q.joinedAfter, now)
	return err
}

// optionalFlag reads the value of a flag, if there is one.
func optionalFlag[T any](flag, text string, parse func(string) (T, error)) (out T, err error) {
	if text == "" {
		return out, nil
	}
	if out, err = parse(text); err != nil {
		return out, usagef("%s: %w", flag, err)
	}
	return out, nil
}

// parseMoment reads a time, or how long ago it was; "" is none.
func parseMoment(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	later, err := parseExpiry(s, now)
	if err != nil {
		return time.Time{}, usagef("%s: want 30d, 12h, 2027-01-31 or 2027-01-31T12:00:00Z", flag)
	}
	if strings.ContainsAny(s, "-:") { // a date or a time
		return later, nil
	}
	return now.Add(-later.Sub(now)), nil
}

func (a *app) deviceListCommand() *cobra.Command {
	var q deviceQuery
	c := a.command(&cobra.Command{
		Use:   "list",
		Short: "List devices",
		Long: `List devices: all that you may see, or those that the flags select together. The time
of the last join follows the joins within some minutes where it orders or selects.`,
		Example: `  joinctl device list
  joinctl device list --dev-eui 0004A310 --limit 20
  joinctl device list --net-id 000013 --joined-before 30d --sort last-join
  joinctl device list --status unbound --claimed --json | jq -r '.[].devEUI'`,
		Args: cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		filter, err := q.read(ctx, api, time.Now())
		if err != nil {
			return err
		}
		return showSeq(a, atMost(api.Devices(ctx, filter), q.limit), columns[client.Device]{
			names: []string{"JoinEUI", "DevEUI", "version", "network", "AS-ID", "state", "last join", "id"},
			cells: func(d client.Device) []any {
				network, asid := "-", "-"
				if d.Binding != nil {
					network, asid = networkOf(*d.Binding), orDash(d.Binding.ASID)
				}
				return []any{d.JoinEUI, d.DevEUI, d.MACVersion, network, asid, stateOf(d), when(d.LastJoinAt, "never"), d.ID}
			},
			empty: "no devices; 'joinctl import' brings them in",
		})
	})
	q.register(c)
	return c
}
