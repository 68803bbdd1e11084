package store

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

// listings is each way in which devices are listed, with the index that it must
// walk along.
func listings() map[string]struct {
	query joinery.DeviceQuery
	index string
} {
	yes, no := true, false
	netID, owner := lorawan.NetID{1}, joinery.OrgID(5)
	place := joinery.DevicePlace{Device: 7, At: time.Unix(1, 0)}
	return map[string]struct {
		query joinery.DeviceQuery
		index string
	}{
		"all":                          {joinery.DeviceQuery{}, "device_euis"},
		"all, further on":              {joinery.DeviceQuery{After: place}, "device_euis"},
		"all, downwards":               {joinery.DeviceQuery{After: place, Descending: true}, "device_euis"},
		"prefix":                       {joinery.DeviceQuery{DevEUIPrefix: "0004"}, "device_euis"},
		"of an owner":                  {joinery.DeviceQuery{Org: owner}, "device_owner"},
		"of an owner, further on":      {joinery.DeviceQuery{Org: owner, After: place}, "device_owner"},
		"of an owner, downwards":       {joinery.DeviceQuery{Org: owner, After: place, Descending: true}, "device_owner"},
		"prefix of an owner":           {joinery.DeviceQuery{Org: owner, DevEUIPrefix: "0004"}, "device_owner"},
		"JoinEUI":                      {joinery.DeviceQuery{Org: owner, JoinEUI: lorawan.EUI64{1}}, "device_owner"},
		"network":                      {joinery.DeviceQuery{Org: owner, NetID: &netID, NSID: lorawan.EUI64{1}}, "device_owner"},
		"active":                       {joinery.DeviceQuery{Org: owner, Status: joinery.DeviceActive}, "device_owner"},
		"unbound":                      {joinery.DeviceQuery{Org: owner, Status: joinery.DeviceUnbound}, "device_owner"},
		"suspended":                    {joinery.DeviceQuery{Org: owner, Status: joinery.DeviceSuspended}, "device_suspended"},
		"suspended, further on":        {joinery.DeviceQuery{Org: owner, Status: joinery.DeviceSuspended, After: place}, "device_suspended"},
		"suspended, of all":            {joinery.DeviceQuery{Status: joinery.DeviceSuspended}, "device_euis"},
		"disclosed":                    {joinery.DeviceQuery{Org: owner, Disclosed: &yes, After: place}, "device_disclosed"},
		"not disclosed":                {joinery.DeviceQuery{Org: owner, Disclosed: &no}, "device_owner"},
		"claimed":                      {joinery.DeviceQuery{Org: owner, Claimed: &yes}, "device_owner"},
		"never joined":                 {joinery.DeviceQuery{Org: owner, NeverJoined: true}, "device_owner"},
		"joined between":               {joinery.DeviceQuery{Org: owner, JoinedAfter: time.Unix(1, 0), JoinedBefore: time.Unix(9, 0)}, "device_owner"},
		"by last join":                 {joinery.DeviceQuery{Sort: joinery.ByLastJoin}, "last_join_at"},
		"by last join, further on":     {joinery.DeviceQuery{Sort: joinery.ByLastJoin, After: place, Descending: true}, "last_join_at"},
		"by last join, of an owner":    {joinery.DeviceQuery{Org: owner, Sort: joinery.ByLastJoin, After: place}, "last_join_owner"},
		"by last join, downwards":      {joinery.DeviceQuery{Org: owner, Sort: joinery.ByLastJoin, After: place, Descending: true}, "last_join_owner"},
		"by last join, joined before":  {joinery.DeviceQuery{Org: owner, Sort: joinery.ByLastJoin, JoinedBefore: time.Unix(9, 0)}, "last_join_owner"},
		"by last join, with much else": {joinery.DeviceQuery{Org: owner, Sort: joinery.ByLastJoin, NetID: &netID, DevEUIPrefix: "00", Disclosed: &yes, Status: joinery.DeviceActive}, "last_join_owner"},
	}
}

// ends is what is looked for where pins end: the indexes that it must use, for what there
// is beside is much.
func ends() map[string]struct {
	query string
	args  []any
	index string
} {
	return map[string]struct {
		query string
		args  []any
		index string
	}{
		"hand-overs under way": {findPassages, []any{0, 0, maxPinEnds}, "passage_open"},
		"repinned":             {findRepinned, []any{7, 0, time.Unix(1, 0), "key", maxPinEnds}, "rekey_to"},
		"parked":               {findParked, []any{0, 0, maxPinEnds}, "arrival_parked"},
	}
}

// TestListingsWalkAlongAnIndex: no listing sorts, and none reads a table from its
// beginning to its end; nor is that done to see what ends with a pin.
func TestListingsWalkAlongAnIndex(t *testing.T) {
	read := func(t *testing.T, d *DB, plan func(c conn, query string, args ...any) (string, error), bad *regexp.Regexp) {
		want := func(name, query, index string, bad *regexp.Regexp, args ...any) {
			err := d.snapshot(t.Context(), func(c conn) error { // in which SET LOCAL holds
				text, err := plan(c, query, args...)
				first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
				if found := bad.FindString(text); found != "" || !strings.Contains(text, index) {
					t.Errorf("%s: %q; want a walk along %s, which begins %s\n%s\n%s", name, found, index, first, query, text)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		for name, l := range listings() {
			w, err := newWalk(l.query)
			if err != nil {
				t.Fatal(err)
			}
			args := append(append(append([]any{}, w.keepArgs...), w.whereArgs...), 100)
			want(name, w.statement(), l.index, bad, args...)
		}
		// The few that a page has may be sorted; who is pinned are few.
		for name, e := range ends() {
			want(name, e.query, e.index, regexp.MustCompile(`SCAN [rpa]\b|Seq Scan on (rekey|passage|arrival)`), e.args...)
		}
	}
	t.Run("sqlite", func(t *testing.T) {
		d := mustOpen(t, newOptions(t))
		read(t, d, func(c conn, query string, args ...any) (text string, err error) {
			err = c.each("EXPLAIN QUERY PLAN "+query, func(r *row) error {
				r.col = 3
				text += r.text() + "\n"
				return nil
			}, args...)
			return text, err
		}, regexp.MustCompile(`TEMP B-TREE|SCAN \w+$|SCAN \w+\n`))
	})
	t.Run("postgres", func(t *testing.T) {
		d := mustOpen(t, newPostgres(t))
		// With no rows a planner reads tables from end to end: what is asked is what
		// it does where that costs something.
		read(t, d, func(c conn, query string, args ...any) (text string, err error) {
			for _, kind := range []string{"seqscan", "bitmapscan", "hashjoin", "mergejoin", "sort"} {
				if err := c.exec("SET LOCAL enable_" + kind + " = off"); err != nil {
					return "", err
				}
			}
			err = c.each("EXPLAIN (COSTS OFF) "+query, func(r *row) error {
				text += r.text() + "\n"
				return nil
			}, args...)
			return text, err
		}, regexp.MustCompile(`Sort|Seq Scan|Hash|Materialize`))
	})
}

// TestJoinsAreFollowed runs the follower for real, on a clock of its own.
func TestJoinsAreFollowed(t *testing.T) {
	d := mustOpen(t, newOptions(t))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		d.FollowJoins(ctx, func(err error) { t.Error(err) })
		close(ended)
	}()
	stop()
	<-ended
}
