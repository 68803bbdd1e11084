package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"joinery"
)

// unsequenced is joins that were found in no page of the feed.
type unsequenced struct {
	joins    []sequenced
	lastPage int64 // up to which was looked
}

func (u unsequenced) set() map[joinery.ActivationID]bool {
	set := make(map[joinery.ActivationID]bool, len(u.joins))
	for _, j := range u.joins {
		set[j.id] = true
	}
	return set
}

// Sources gives the other servers that have, or had, the database open.
func (d *DB) Sources(ctx context.Context) ([]joinery.EventSource, error) {
	return d.sources(ctx, "server <> ?")
}

// sources gives those to which a condition on this server's number applies.
func (d *DB) sources(ctx context.Context, where string) (list []joinery.EventSource, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each("SELECT server, mark, marked_at, beat FROM event_source WHERE "+where+" ORDER BY server", func(r *row) error {
			list = append(list, joinery.EventSource{Server: r.int(), Mark: joinery.ActivationID(r.int()), MarkedAt: r.time(), Beat: r.int()})
			return nil
		}, d.epoch)
	})
	return list, err
}

// How far before a mark pages are looked at: other servers draw ids by clocks of
// their own. Whatever is missed stands in the feed twice, with one id.
const sourceMargin = 10 * time.Minute

// scanRows bounds what one statement reads of ids.
const scanRows = 5000

// findUnsequenced finds the joins above the mark of a server that stand in no
// page. Those of servers that live may be among them, if they were committed
// just now.
func (d *DB) findUnsequenced(ctx context.Context, of joinery.EventSource) (u unsequenced, err error) {
	named := map[joinery.ActivationID]bool{}
	from, err := d.pageBefore(ctx, of.MarkedAt.Add(-sourceMargin))
	if err != nil {
		return u, err
	}
	if u.lastPage, err = d.eachNamed(ctx, from, func(id joinery.ActivationID) { named[id] = true }); err != nil {
		return u, err
	}
	for after, more := of.Mark, true; more; {
		var ids []joinery.ActivationID
		err := d.read(ctx, func(c conn) error {
			return c.each("SELECT id FROM activation WHERE id > ? ORDER BY id LIMIT ?", func(r *row) error {
				ids = append(ids, joinery.ActivationID(r.int()))
				return nil
			}, after, scanRows)
		})
		if err != nil {
			return u, err
		}
		more = len(ids) == scanRows
		for _, id := range ids {
			after = id
			if !named[id] {
				u.joins = append(u.joins, sequenced{id: id})
			}
		}
	}
	return u, d.findOwners(ctx, u.joins)
}

// findOwners reads who held the devices of joins.
func (d *DB) findOwners(ctx context.Context, joins []sequenced) error {
	for i := range joins {
		a, err := d.Activation(ctx, joins[i].id)
		switch {
		case joinery.CodeOf(err) == joinery.CodeNotFound: // erased
		case err != nil:
			return err
		}
		joins[i].owner = a.Owner
	}
	return nil
}

// pageBefore gives the newest page from before a time, 0 for none.
func (d *DB) pageBefore(ctx context.Context, at time.Time) (id int64, err error) {
	err = d.read(ctx, func(c conn) error {
		id, err = c.integer("SELECT id FROM event_page WHERE at < ? ORDER BY id DESC LIMIT 1", at)
		return err
	})
	return id, err
}

// eachNamed calls fn with each join that pages above one name, and gives the last
// page.
func (d *DB) eachNamed(ctx context.Context, after int64, fn func(joinery.ActivationID)) (last int64, err error) {
	for last = after; ; {
		n := 0
		err := d.read(ctx, func(c conn) (err error) {
			last, n, err = c.eachNamed(last, fn)
			return err
		})
		if err != nil || n < pagesAtOnce {
			return last, err
		}
	}
}

// pagesAtOnce bounds what one statement reads of pages: 16 KiB each.
const pagesAtOnce = 64

func (c conn) eachNamed(after int64, fn func(joinery.ActivationID)) (last int64, n int, err error) {
	last = after
	err = c.each("SELECT id, kind, refs FROM event_page WHERE id > ? ORDER BY id LIMIT ?", func(r *row) error {
		last = r.int()
		n++
		kind, refs := r.text(), r.blob()
		if kind != pageJoins {
			return nil
		}
		if len(refs)%joinRef != 0 {
			return fmt.Errorf("page %d of events is damaged", last)
		}
		for ; len(refs) > 0; refs = refs[joinRef:] {
			fn(joinery.ActivationID(binary.BigEndian.Uint64(refs)))
		}
		return nil
	}, after, pagesAtOnce)
	return last, n, err
}

// stillLost gives those of u that no page names by now.
func (t *tx) stillLost(u unsequenced) ([]sequenced, error) {
	named := map[joinery.ActivationID]bool{}
	for last, n := u.lastPage, pagesAtOnce; n == pagesAtOnce; {
		var err error
		if last, n, err = t.eachNamed(last, func(id joinery.ActivationID) { named[id] = true }); err != nil {
			return nil, err
		}
	}
	var lost []sequenced
	for _, j := range u.joins {
		if !named[j.id] {
			lost = append(lost, j)
		}
	}
	return lost, nil
}

// RecoverFeed names the joins of another server that stand in no page, and tells
// how many there were. Servers that live name theirs themselves, just behind
// their commits: for these settle is how long they are given.
func (d *DB) RecoverFeed(ctx context.Context, of joinery.EventSource, settle time.Duration) (n int, err error) {
	u, err := d.findUnsequenced(ctx, of)
	if err != nil || len(u.joins) == 0 {
		return 0, err
	}
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	n, err = write(ctx, d, func(t *tx) (int, error) {
		lost, err := t.stillLost(u)
		if err != nil {
			return 0, err
		}
		return len(lost), t.nameJoins(lost, true)
	})
	if err == nil {
		d.sequence.drop(u.set())
	}
	return n, err
}

// ForgetSource forgets a server of which nothing is missing any more, unless it
// has shown life since s was read.
func (d *DB) ForgetSource(ctx context.Context, s joinery.EventSource) error {
	return d.do(ctx, func(t *tx) error {
		return t.exec("DELETE FROM event_source WHERE server = ? AND beat = ?", s.Server, s.Beat)
	})
}
