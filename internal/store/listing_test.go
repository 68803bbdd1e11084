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

// TestListingsWalkAlongAnIndex: no listing sorts, and none reads a table from its
// beginning to its end.
func TestListingsWalkAlongAnIndex(t *testing.T) {
	read := func(t *testing.T, d *DB, plan func(c conn, w *walk) (string, error), bad *regexp.Regexp) {
		for name, l := range listings() {
			w, err := newWalk(l.query)
			if err != nil {
				t.Fatal(err)
			}
			err = d.snapshot(t.Context(), func(c conn) error { // in which SET LOCAL holds
				text, err := plan(c, w)
				first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
				if found := bad.FindString(text); found != "" || !strings.Contains(text, l.index) {
					t.Errorf("%s: %q; want a walk along %s, which begins %s\n%s\n%s", name, found, l.index, first, w.statement(), text)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("sqlite", func(t *testing.T) {
		d := mustOpen(t, newOptions(t))
		read(t, d, func(c conn, w *walk) (text string, err error) {
			args := append(append(append([]any{}, w.keepArgs...), w.whereArgs...), 100)
			err = c.each("EXPLAIN QUERY PLAN "+w.statement(), func(r *row) error {
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
		read(t, d, func(c conn, w *walk) (text string, err error) {
			for _, kind := range []string{"seqscan", "bitmapscan", "hashjoin", "mergejoin", "sort"} {
				if err := c.exec("SET LOCAL enable_" + kind + " = off"); err != nil {
					return "", err
				}
			}
			args := append(append(append([]any{}, w.keepArgs...), w.whereArgs...), 100)
			err = c.each("EXPLAIN (COSTS OFF) "+w.statement(), func(r *row) error {
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
