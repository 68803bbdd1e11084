package main

import (
	"strconv"
	"strings"
	"time"

	"joinery"
	"joinery/client"
	"joinery/lorawan"

	"github.com/spf13/cobra"
)

// deviceFilterFlags are the flags by which devices are listed.
type deviceFilterFlags struct {
	joinEUI, devEUI, owner, netID, nsid, status, joinedBefore, joinedAfter, sort string

	suspended, claimed, exposed, neverJoined bool

	given func(flag string) bool
}

func (f *deviceFilterFlags) add(c *cobra.Command) {
	flags := c.Flags()
	f.given = flags.Changed
	flags.StringVar(&f.joinEUI, "join-eui", "", "only devices with this JoinEUI")
	flags.StringVar(&f.devEUI, "dev-eui", "", "only devices whose DevEUI begins with these hexadecimal digits")
	flags.StringVar(&f.owner, "owner", "", "only devices of this organisation (org_…); for the operator")
	flags.StringVar(&f.netID, "net-id", "", "only devices bound to this network")
	flags.StringVar(&f.nsid, "nsid", "", "only devices bound to this Network Server of their network")
	flags.StringVar(&f.status, "status", "", "only devices that are active, unbound or suspended")
	flags.BoolVar(&f.suspended, "suspended", false, "the same as --status suspended")
	flags.BoolVar(&f.claimed, "claimed", false, "only devices that somebody claimed; =false: that nobody did")
	flags.BoolVar(&f.exposed, "exposed", false, "only devices of which a root key was ever disclosed; =false: of which none was")
	flags.StringVar(&f.joinedBefore, "joined-before", "", "only devices that last joined before a time (RFC 3339), a day (2026-11-22), or so long ago (30d, 12h)")
	flags.StringVar(&f.joinedAfter, "joined-after", "", "only devices that joined after a time, a day, or not longer ago")
	flags.BoolVar(&f.neverJoined, "never-joined", false, "only devices that never joined")
	flags.StringVar(&f.sort, "sort", "", "the order: devEUI, -devEUI, lastJoin or -lastJoin; by last join leaves out what never joined")
	c.MarkFlagsMutuallyExclusive("status", "suspended")
}

// query makes the query of the flags.
func (f *deviceFilterFlags) query(now time.Time) (q client.DevicesQuery, err error) {
	q = client.DevicesQuery{DevEUI: strings.ToUpper(f.devEUI), Status: f.status, NeverJoined: f.neverJoined, Sort: f.sort}
	if strings.Trim(q.DevEUI, "0123456789ABCDEF") != "" || len(q.DevEUI) > 16 {
		return q, usagef("--dev-eui: want at most 16 hexadecimal digits")
	}
	if f.suspended {
		q.Status = "suspended"
	}
	if f.given("claimed") {
		q.Claimed = &f.claimed
	}
	if f.given("exposed") {
		q.Disclosed = &f.exposed
	}
	for _, flag := range []struct {
		name, text string
		read       func(string) error
	}{
		{"join-eui", f.joinEUI, func(s string) (err error) { q.JoinEUI, err = lorawan.ParseEUI64(s); return err }},
		{"nsid", f.nsid, func(s string) (err error) { q.NSID, err = lorawan.ParseEUI64(s); return err }},
		{"owner", f.owner, func(s string) (err error) { q.Owner, err = joinery.ParseOrgID(s); return err }},
		{"net-id", f.netID, func(s string) error {
			id, err := lorawan.ParseNetID(s)
			q.NetID = &id
			return err
		}},
		{"joined-before", f.joinedBefore, func(s string) (err error) { q.JoinedBefore, err = timeOrAgo(s, now); return err }},
		{"joined-after", f.joinedAfter, func(s string) (err error) { q.JoinedAfter, err = timeOrAgo(s, now); return err }},
	} {
		if flag.text == "" {
			continue
		}
		if err := flag.read(flag.text); err != nil {
			return q, usagef("--%s: %w", flag.name, err)
		}
	}
	return q, nil
}

// timeOrAgo reads a time, a day in UTC, or how long ago: "30d", "12h30m".
func timeOrAgo(s string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, usagef("want a time as in 2026-11-22T08:00:00Z, a day as in 2026-11-22, or how long ago as in 30d or 12h")
}
