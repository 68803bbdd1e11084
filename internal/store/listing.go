package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"joinery"
)

// maxLooks is at how many devices one page of a listing looks, unless the query
// wants fewer: it keeps a page cheap that looks for what is rare among a million.
const maxLooks = 10_000

// Devices gives a page of the devices that q selects, at most q.Limit of them
// (100 unless said, 1,000 at most), in q's order.
//
// A listing walks along an index: the owner's devices by DevEUI, all devices by
// DevEUI, or by last join. What an index cannot tell is looked up for each
// device on the way, so what a page costs depends on its length and on maxLooks
// alone, never on how many devices there are or how far into the listing it is.
func (d *DB) Devices(ctx context.Context, q joinery.DeviceQuery) (page joinery.DevicePage, err error) {
	w, err := newWalk(q)
	if err != nil {
		return page, err
	}
	err = d.snapshot(ctx, func(c conn) error {
		found, next, err := w.run(c)
		if err != nil {
			return err
		}
		page.Next = next
		page.Items, err = c.inPlaces(found)
		return err
	})
	return page, err
}

// walk is a listing on its way along an index.
type walk struct {
	query joinery.DeviceQuery
	limit int
	looks int
	// The parts of the statement: what is read of each device, where the walk goes
	// along, and what it keeps to. keep is a condition that tells which of those
	// devices are selected; it is no part of WHERE, so that LIMIT bounds the looks.
	columns, from, where, keep, order []string
	whereArgs, keepArgs               []any
}

// seen is a device that a walk came to.
type seen struct {
	place joinery.DevicePlace
	kept  bool
}

func newWalk(q joinery.DeviceQuery) (*walk, error) {
	w := &walk{query: q, limit: pageLimit(q.Limit), looks: maxLooks}
	if q.Looks > 0 {
		w.looks = min(q.Looks, maxLooks)
	}
	if q.Sort == joinery.ByLastJoin {
		w.byLastJoin()
	} else {
		w.byDevEUI()
	}
	return w, w.filter()
}

func (w *walk) only(condition string, args ...any) {
	w.where, w.whereArgs = append(w.where, condition), append(w.whereArgs, args...)
}

func (w *walk) keepIf(condition string, args ...any) {
	w.keep, w.keepArgs = append(w.keep, condition), append(w.keepArgs, args...)
}

// direction gives how the order is written, and how a place behind another
// compares.
func (w *walk) direction() (order, behind string) {
	if w.query.Descending {
		return " DESC", "<"
	}
	return "", ">"
}

func (w *walk) byDevEUI() {
	order, behind := w.direction()
	w.columns = []string{"d.id", "d.dev_eui", "d.join_eui"}
	w.from = []string{"device d"}
	w.order = []string{"d.dev_eui" + order, "d.join_eui" + order}
	w.only("d.deleted_at IS NULL")
	if w.query.Org != 0 {
		w.only("d.org = ?", w.query.Org)
	}
	if after := w.query.After; after.Device != 0 {
		w.only("(d.dev_eui, d.join_eui) "+behind+" (?, ?)", after.DevEUI, after.JoinEUI)
	}
}

func (w *walk) byLastJoin() {
	order, behind := w.direction()
	w.columns = []string{"j.device", "j.at"}
	w.from = []string{"last_join j", "device d ON d.id = j.device"}
	w.order = []string{"j.at" + order, "j.device" + order}
	w.keepIf("d.deleted_at IS NULL")
	if w.query.Org != 0 {
		w.only("j.org = ?", w.query.Org)
		w.keepIf("d.org = ?", w.query.Org)
	}
	if after := w.query.After; after.Device != 0 {
		w.only("(j.at, j.device) "+behind+" (?, ?)", after.At, after.Device)
	}
	// Nothing joins earlier than it did before, but for a clock that was set back,
	// so the index may leave out what joined too late, and not what joined too
	// early.
	if !w.query.JoinedBefore.IsZero() {
		w.only("j.at < ?", w.query.JoinedBefore)
	}
}

// filter adds what else is asked.
func (w *walk) filter() error {
	q := w.query
	if q.DevEUIPrefix != "" {
		first, last, err := prefixRange(q.DevEUIPrefix)
		if err != nil {
			return err
		}
		if q.Sort == joinery.ByLastJoin {
			w.keepIf("d.dev_eui BETWEEN ? AND ?", first, last)
		} else {
			w.only("d.dev_eui BETWEEN ? AND ?", first, last)
		}
	}
	if !q.JoinEUI.IsZero() {
		w.keepIf("d.join_eui = ?", q.JoinEUI)
	}
	if q.Claimed != nil {
		w.keepIf("(d.owner_epoch > 0 AND d.released = 0) = (? = 1)", *q.Claimed)
	}
	if q.Disclosed != nil {
		w.rare("d.disclosed", *q.Disclosed)
	}
	w.filterAttested()
	if err := w.filterStatus(); err != nil {
		return err
	}
	w.filterNetwork()
	w.filterJoins()
	return nil
}

// rare keeps to devices that have a mark, or have not. Those that have lie in an
// index of their own.
func (w *walk) rare(mark string, has bool) {
	switch {
	case !has:
		w.keepIf(mark + " = 0")
	case w.query.Sort == joinery.ByLastJoin || w.query.Org == 0:
		w.keepIf(mark + " = 1")
	default:
		w.only(mark + " = 1")
	}
}

func (w *walk) filterStatus() error {
	switch w.query.Status {
	case joinery.DeviceAny:
	case joinery.DeviceSuspended:
		w.rare("d.suspended", true)
	case joinery.DeviceActive:
		w.rare("d.suspended", false)
		w.bindings()
		w.keepIf("b.device IS NOT NULL")
	case joinery.DeviceUnbound:
		w.rare("d.suspended", false)
		w.bindings()
		w.keepIf("b.device IS NULL")
	default:
		return joinery.Errorf(joinery.CodeInvalid, "status: want active, unbound or suspended")
	}
	return nil
}

func (w *walk) filterNetwork() {
	if w.query.NetID != nil {
		w.bindings()
		w.keepIf("b.net_id = ?", *w.query.NetID)
	}
	if !w.query.NSID.IsZero() {
		w.bindings()
		w.keepIf("b.ns_id = ?", w.query.NSID)
	}
}

func (w *walk) filterJoins() {
	q := w.query
	if q.JoinedBefore.IsZero() && q.JoinedAfter.IsZero() && !q.NeverJoined {
		return
	}
	w.from = append(w.from, "key_set k ON k.id = d.key_set")
	if !q.JoinedBefore.IsZero() {
		w.keepIf("k.last_join_at < ?", q.JoinedBefore)
	}
	if !q.JoinedAfter.IsZero() {
		w.keepIf("k.last_join_at > ?", q.JoinedAfter)
	}
	if q.NeverJoined {
		w.keepIf("k.last_join_at IS NULL")
	}
}

// bindings joins the bindings, once.
func (w *walk) bindings() {
	const join = "binding b ON b.device = d.id"
	if w.from[len(w.from)-1] != join {
		w.from = append(w.from, join)
	}
}

// statement reads the next looks devices on the way.
func (w *walk) statement() string {
	kept := "1"
	if len(w.keep) > 0 {
		kept = "CASE WHEN " + strings.Join(w.keep, " AND ") + " THEN 1 ELSE 0 END"
	}
	where := ""
	if len(w.where) > 0 {
		where = " WHERE " + strings.Join(w.where, " AND ")
	}
	// LEFT, so that the walk is always the outer loop.
	return fmt.Sprintf("SELECT %s, %s FROM %s%s ORDER BY %s LIMIT ?",
		strings.Join(w.columns, ", "), kept, strings.Join(w.from, " LEFT JOIN "), where, strings.Join(w.order, ", "))
}

// run walks until the page is full, there are no more devices, or it looked at
// enough of them.
func (w *walk) run(c conn) (found []joinery.DeviceID, next joinery.DevicePlace, err error) {
	looked := 0
	for looks := w.limit; ; looks *= 4 {
		looks = min(looks, w.looks-looked)
		all, err := w.look(c, looks)
		if err != nil {
			return nil, next, err
		}
		for _, s := range all {
			next = s.place
			if s.kept {
				found = append(found, s.place.Device)
			}
			if len(found) == w.limit {
				return found, next, nil
			}
		}
		looked += len(all)
		switch {
		case len(all) < looks:
			return found, joinery.DevicePlace{}, nil
		case looked == w.looks:
			return found, next, nil
		}
		q := w.query
		q.After = next
		if w, err = newWalk(q); err != nil {
			return nil, next, err
		}
	}
}

func (w *walk) look(c conn, looks int) (all []seen, err error) {
	args := append(append(append([]any{}, w.keepArgs...), w.whereArgs...), looks)
	err = c.each(w.statement(), func(r *row) error {
		s := seen{place: joinery.DevicePlace{Device: joinery.DeviceID(r.int())}}
		if w.query.Sort == joinery.ByLastJoin {
			s.place.At = r.time()
		} else {
			s.place.DevEUI, s.place.JoinEUI = r.eui(), r.eui()
		}
		s.kept = r.bool()
		all = append(all, s)
		return nil
	}, args...)
	return all, err
}

// inPlaces gives the states of devices, in the order of ids.
func (c conn) inPlaces(ids []joinery.DeviceID) ([]joinery.ActivationState, error) {
	places := make(map[joinery.DeviceID]int, len(ids))
	for place, id := range ids {
		places[id] = place
	}
	states := make([]joinery.ActivationState, len(ids))
	err := inRuns(ids, func(run []joinery.DeviceID) error {
		v := valuesOf("id INTEGER")
		for _, id := range run {
			v.add(id)
		}
		found, err := c.states(v.with(stateColumns+withCustody+" FROM v JOIN device d ON d.id = v.id "+stateJoins), v.args...)
		for _, s := range found {
			states[places[s.Device.ID]] = s
		}
		return err
	})
	if err == nil {
		err = c.tellAll(states)
	}
	return states, err
}

// ActivationsBefore is Activations from behind one of a device's activations on;
// zero is from the newest on.
func (d *DB) ActivationsBefore(ctx context.Context, device joinery.DeviceID, before joinery.ActivationID, limit int) (all []joinery.Activation, err error) {
	if before == 0 {
		return d.Activations(ctx, device, limit)
	}
	limit = pageLimit(limit)
	err = d.snapshot(ctx, func(c conn) error {
		keySet, err := c.integer("SELECT key_set FROM device WHERE id = ? AND deleted_at IS NULL", device)
		if err == nil && keySet == 0 {
			err = notFound("device")
		}
		if err != nil {
			return err
		}
		// Whoever makes a place up may read on in this device's activations only.
		previous, err := c.integer("SELECT coalesce(previous, 0) FROM activation WHERE id = ? AND key_set = ?", before, keySet)
		if err != nil {
			return err
		}
		return c.walk(previous, func(_ int64, payload []byte) (bool, error) {
			if payload == nil {
				return true, nil
			}
			a, err := joinery.ParseActivation(payload)
			all = append(all, a)
			return len(all) < limit, err
		})
	})
	return all, err
}

// noteJoins is how many activations NoteJoins takes at once: joins wait
// meanwhile.
const noteJoins = 500

// NoteJoins lets listings by last join follow the next activations, of those
// whose ids are at most upTo. more tells that there may be others.
func (d *DB) NoteJoins(ctx context.Context, upTo joinery.ActivationID) (more bool, err error) {
	var waiting bool
	err = d.read(ctx, func(c conn) error {
		waiting, err = c.one(`SELECT 1 FROM activation WHERE id > coalesce((SELECT activation FROM last_join_seen), 0) AND id <= ? LIMIT 1`,
			func(*row) error { return nil }, upTo)
		return err
	})
	if err != nil || !waiting {
		return false, err // and nothing is written
	}
	return write(ctx, d, func(t *tx) (bool, error) {
		var last joinery.ActivationID
		var n int
		at := map[joinery.DeviceID]lastJoin{}
		active := map[activeDevice]activeUnder{}
		err := t.each(`SELECT a.id, d.id, d.org, k.last_join_at, d.maker, coalesce(d.service_plan, '') FROM activation a JOIN key_set k ON k.id = a.key_set JOIN device d ON d.id = k.device
			WHERE a.id > coalesce((SELECT activation FROM last_join_seen), 0) AND a.id <= ? ORDER BY a.id LIMIT ?`, func(r *row) error {
			last = joinery.ActivationID(r.int())
			device := joinery.DeviceID(r.int())
			at[device] = lastJoin{joinery.OrgID(r.int()), r.time()}
			active[activeDevice{joinery.MonthOf(last.Minute()).Number(), device}] = activeUnder{joinery.OrgID(r.int()), r.text()}
			n++
			return nil
		}, upTo, noteJoins)
		if err != nil || n == 0 {
			return false, err
		}
		if err := t.noteJoins(at); err != nil {
			return false, err
		}
		if err := t.noteActive(active); err != nil {
			return false, err
		}
		return n == noteJoins, t.exec("INSERT INTO last_join_seen (id, activation) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET activation = excluded.activation", last)
	})
}

type lastJoin struct {
	org joinery.OrgID
	at  time.Time
}

func (t *tx) noteJoins(at map[joinery.DeviceID]lastJoin) error {
	return inRuns(slices.Sorted(maps.Keys(at)), func(run []joinery.DeviceID) error {
		v := valuesOf("device INTEGER, org INTEGER, at INTEGER")
		for _, id := range run {
			v.add(id, at[id].org, at[id].at)
		}
		return t.exec(v.with(`INSERT INTO last_join (device, org, at) SELECT v.device, v.org, v.at FROM v WHERE v.device > 0
			ON CONFLICT (device) DO UPDATE SET org = excluded.org, at = excluded.at`), v.args...)
	})
}

// activeDevice is a device in a month, activeUnder what a report counts it under.
type (
	activeDevice struct {
		month  int
		device joinery.DeviceID
	}
	activeUnder struct {
		maker joinery.OrgID
		plan  string
	}
)

// noteActive notes which devices joined in which month.
func (t *tx) noteActive(active map[activeDevice]activeUnder) error {
	list := slices.SortedFunc(maps.Keys(active), func(a, b activeDevice) int {
		return cmp.Or(cmp.Compare(a.month, b.month), cmp.Compare(a.device, b.device))
	})
	return inRuns(list, func(run []activeDevice) error {
		v := valuesOf("month INTEGER, device INTEGER, maker INTEGER, plan TEXT")
		for _, a := range run {
			v.add(a.month, a.device, active[a].maker, active[a].plan)
		}
		return t.exec(v.with(`INSERT INTO service_active (month, device, maker, plan) SELECT v.month, v.device, v.maker, v.plan FROM v WHERE v.device > 0
			ON CONFLICT (month, device) DO NOTHING`), v.args...)
	})
}

// Joins are noted when their minute has been over for a minute: identifiers of
// one minute are drawn in no order that all servers share.
const (
	noteEvery = 20 * time.Second
	noteAfter = time.Minute
	noteMost  = 20 // times noteJoins, each noteEvery: a backlog takes little from joins
)

// FollowJoins lets listings by last join follow the joins, until ctx ends or the
// database is closed. One server is enough, and more of them do no harm. failed
// is told what else went wrong; it goes on.
func (d *DB) FollowJoins(ctx context.Context, failed func(error)) {
	tick := time.NewTicker(noteEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			upTo := joinery.FirstActivationID(now.Add(-noteAfter)) - 1
			for range noteMost {
				more, err := d.NoteJoins(ctx, upTo)
				switch {
				case errors.Is(err, ErrClosed):
					return
				case err != nil && ctx.Err() == nil:
					failed(err)
				}
				if err != nil || !more {
					break
				}
			}
		}
	}
}
