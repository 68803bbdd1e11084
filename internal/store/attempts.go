package store

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"joinery"
)

// attemptRow is one kind of refused attempts, as somebody is told of it.
type attemptRow struct {
	org    joinery.OrgID    // who is told
	device joinery.DeviceID // zero: about none
	by     string
	act    string
	reason joinery.AttemptReason
}

// attemptsOf are so many attempts of one kind.
type attemptsOf struct {
	attemptRow
	count       uint64
	first, last time.Time
}

// countAttempts adds refused attempts to those that are stored, and puts into the
// custody log what is the first of its kind for an hour. What is about no device
// that is here, and by nobody that is known, is nobody's to be told.
func (t *tx) countAttempts(counts []joinery.AttemptCount) error {
	if len(counts) == 0 {
		return nil
	}
	holders, err := t.attemptedDevices(counts)
	if err != nil {
		return err
	}
	rows := attemptRows{}
	for place, c := range counts {
		t.tellWhom(c, holders[place], rows.add)
	}
	stored, err := t.storedAttempts(rows)
	if err != nil {
		return err
	}
	if rows, err = t.boundAttempts(rows, stored); err != nil {
		return err
	}
	if err := t.addAttempts(rows.list()); err != nil {
		return err
	}
	at := now()
	var due []attemptsOf
	for _, r := range rows.list() {
		told, known := stored[r.attemptRow]
		if (!known || !told.After(at.Add(-tellEvery)) || told.After(at)) && len(due) < tellMost {
			due = append(due, r)
		}
	}
	return t.tellAttempts(due, at)
}

// holder is a device that an attempt was about, and who holds it.
type holder struct {
	device joinery.DeviceID
	org    joinery.OrgID
}

// devicesOfAttempt bounds the devices with one DevEUI of which somebody is told.
const devicesOfAttempt = 4

// attemptedDevices gives the devices that attempts were about, by their places in
// counts: of those that were held by who holds them now when the first attempt came.
// What was before that was not about the present holder.
func (t *tx) attemptedDevices(counts []joinery.AttemptCount) (map[int][]holder, error) {
	found := map[int][]holder{}
	byID := valuesOf("place INTEGER, device INTEGER, first_at INTEGER")
	byEUI := valuesOf("place INTEGER, any_join INTEGER, join_eui BLOB, dev_eui BLOB, first_at INTEGER")
	for place, c := range counts {
		switch {
		case c.Device != 0:
			byID.add(place, c.Device, c.First)
		case !c.DevEUI.IsZero():
			byEUI.add(place, c.JoinEUI.IsZero(), c.JoinEUI, c.DevEUI, c.First)
		}
	}
	const since = " AND d.deleted_at IS NULL AND coalesce(d.owned_since, d.created_at) <= v.first_at ORDER BY v.place, d.id"
	for query, v := range map[string]*values{
		"SELECT v.place, d.id, d.org FROM v JOIN device d ON d.id = v.device" + since:                                                       byID,
		"SELECT v.place, d.id, d.org FROM v JOIN device d ON d.dev_eui = v.dev_eui AND (v.any_join = 1 OR d.join_eui = v.join_eui)" + since: byEUI,
	} {
		if v.rows == 0 {
			continue
		}
		if err := t.each(v.with(query), func(r *row) error {
			if place := int(r.int()); len(found[place]) < devicesOfAttempt {
				found[place] = append(found[place], holder{joinery.DeviceID(r.int()), joinery.OrgID(r.int())})
			}
			return nil
		}, v.args...); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// tellWhom says whom attempts concern: whose credential it was, and who holds the
// device where that is another. The first is told of the device only where it is its
// own, so that it learns of no other whether there is one; the second is not told who
// it was. Whoever has another secret than the key whose id it shows is nobody: holders are
// told so, and the organisation of the key that this was tried, and not at what, of which
// a stranger could make up as many as there are kinds.
func (t *tx) tellWhom(c joinery.AttemptCount, holders []holder, tell func(attemptsOf)) {
	of := attemptsOf{attemptRow{act: c.Act, by: c.By, reason: c.Reason}, c.Count, c.First, c.At}
	own := joinery.OrgID(0)
	if c.Org != 0 || c.Operator {
		own = t.orOperator(c.Org)
	}
	if own != 0 && !c.Reason.OfHolder() {
		mine := of
		mine.org = own
		for _, h := range holders {
			if h.org == own {
				mine.device = h.device
			}
		}
		if c.Reason == joinery.AttemptKeyWrong {
			mine.act, mine.device = joinery.AttemptOtherAct, 0
		}
		tell(mine)
	}
	for _, h := range holders {
		if h.org == own && c.Reason != joinery.AttemptKeyWrong {
			continue
		}
		theirs := of
		theirs.org, theirs.device, theirs.by = h.org, h.device, joinery.ByAnother
		switch {
		case own == 0 && c.By == "", c.Reason == joinery.AttemptKeyWrong:
			theirs.by, theirs.reason = joinery.ByNobody, joinery.AttemptNoCredential
		case c.Operator:
			theirs.by = joinery.ByOperator
		case !c.Reason.OfHolder():
			theirs.reason = joinery.AttemptNotHeld // why else is not for the holder to know
		}
		tell(theirs)
	}
}

// attemptRows are attempts by their kind.
type attemptRows map[attemptRow]attemptsOf

func (rows attemptRows) add(r attemptsOf) {
	old, known := rows[r.attemptRow]
	if known {
		r.count += old.count
		if old.first.Before(r.first) {
			r.first = old.first
		}
		if old.last.After(r.last) {
			r.last = old.last
		}
	}
	rows[r.attemptRow] = r
}

// list gives them in an order, so that equal batches are equal statements.
func (rows attemptRows) list() []attemptsOf {
	return slices.SortedFunc(maps.Values(rows), func(a, b attemptsOf) int { return a.compare(b.attemptRow) })
}

func (r attemptRow) compare(o attemptRow) int {
	return cmp.Or(cmp.Compare(r.org, o.org), cmp.Compare(r.device, o.device), cmp.Compare(r.by, o.by), cmp.Compare(r.act, o.act), cmp.Compare(r.reason, o.reason))
}

// overflow is the kind of attempts where more kinds are than are told apart: of the
// device, or, for zero, of the organisation.
func (r attemptRow) overflow(device joinery.DeviceID) attemptRow {
	return attemptRow{org: r.org, device: device, by: auditor, act: joinery.AttemptOtherAct, reason: joinery.AttemptOther}
}

// auditor is who counts what nobody did alone.
const auditor = "joinery"

const attemptKey = "org INTEGER, device INTEGER, by_whom TEXT, act TEXT, reason TEXT"

// storedAttempts gives those of rows, and of what stands for them where there are too
// many, of which there is one, and when it was told last.
func (t *tx) storedAttempts(rows attemptRows) (map[attemptRow]time.Time, error) {
	want := map[attemptRow]bool{}
	for r := range rows {
		want[r], want[r.overflow(r.device)], want[r.overflow(0)] = true, true, true
	}
	stored := map[attemptRow]time.Time{}
	keys := slices.SortedFunc(maps.Keys(want), attemptRow.compare)
	err := inRuns(keys, func(run []attemptRow) error {
		v := valuesOf("place INTEGER, " + attemptKey)
		for place, r := range run {
			v.add(place, r.org, int64(r.device), r.by, r.act, string(r.reason))
		}
		return t.each(v.with(`SELECT v.place, a.told_at FROM v JOIN attempt a ON a.org = v.org AND a.device = v.device AND a.by_whom = v.by_whom
			AND a.act = v.act AND a.reason = v.reason`), func(r *row) error {
			key := run[r.int()]
			stored[key] = r.time()
			return nil
		}, v.args...)
	})
	return stored, err
}

// boundAttempts puts what is over a bound together.
func (t *tx) boundAttempts(rows attemptRows, stored map[attemptRow]time.Time) (attemptRows, error) {
	type place struct {
		org    joinery.OrgID
		device joinery.DeviceID // zero: all of the organisation
	}
	held := map[place]int{}
	orgs := map[joinery.OrgID]bool{}
	for r := range rows {
		if _, known := stored[r]; !known {
			orgs[r.org] = true
		}
	}
	for _, org := range inOrderOf(orgs) {
		err := t.each("SELECT device, count(*) FROM attempt WHERE org = ? GROUP BY device", func(r *row) error {
			device, n := joinery.DeviceID(r.int()), int(r.int())
			if device != 0 {
				held[place{org, device}] = n
			}
			held[place{org, 0}] += n
			return nil
		}, org)
		if err != nil {
			return nil, err
		}
	}
	bound := attemptRows{}
	for _, r := range rows.list() {
		known := func() bool { // it has a place already
			_, is := stored[r.attemptRow]
			_, comes := bound[r.attemptRow]
			return is || comes
		}
		if r.device != 0 && !known() && held[place{r.org, r.device}] >= joinery.MaxDeviceAttempts {
			r.attemptRow = r.overflow(r.device)
		}
		if !known() && held[place{r.org, 0}] >= joinery.MaxOrgAttempts {
			r.attemptRow = r.overflow(0)
		}
		if !known() {
			held[place{r.org, 0}]++
			if r.device != 0 {
				held[place{r.org, r.device}]++
			}
		}
		bound.add(r)
	}
	return bound, nil
}

func (t *tx) addAttempts(rows []attemptsOf) error {
	return inRuns(rows, func(run []attemptsOf) error {
		v := valuesOf(attemptKey + ", count INTEGER, first_at INTEGER, last_at INTEGER")
		for _, r := range run {
			v.add(r.org, int64(r.device), r.by, r.act, string(r.reason), int64(r.count), r.first, r.last)
		}
		return t.exec(v.with(`INSERT INTO attempt AS r (org, device, by_whom, act, reason, count, first_at, last_at, told_at)
			SELECT v.org, v.device, v.by_whom, v.act, v.reason, v.count, v.first_at, v.last_at, 0
			FROM v WHERE true ON CONFLICT (org, device, by_whom, act, reason) DO UPDATE SET count = r.count + excluded.count,
			first_at = CASE WHEN r.count = 0 OR excluded.first_at < r.first_at THEN excluded.first_at ELSE r.first_at END,
			last_at = CASE WHEN r.count = 0 OR excluded.last_at > r.last_at THEN excluded.last_at ELSE r.last_at END`), v.args...)
	})
}

// tellAttempts puts what was not told of some kinds into the custody log.
func (t *tx) tellAttempts(list []attemptsOf, at time.Time) error {
	return inRuns(list, func(run []attemptsOf) error {
		v := valuesOf("place INTEGER, " + attemptKey)
		for place, r := range run {
			v.add(place, r.org, int64(r.device), r.by, r.act, string(r.reason))
		}
		const same = "a.org = v.org AND a.device = v.device AND a.by_whom = v.by_whom AND a.act = v.act AND a.reason = v.reason"
		var entries []joinery.AuditEntry
		err := t.each(v.with("SELECT v.place, a.count, a.first_at, a.last_at FROM v JOIN attempt a ON "+same+" WHERE a.count > 0 ORDER BY v.place"), func(r *row) error {
			of := run[r.int()]
			of.count, of.first, of.last = uint64(r.int()), r.time(), r.time()
			entries = append(entries, of.entry(at))
			return nil
		}, v.args...)
		if err != nil {
			return err
		}
		return t.finish(t.exec(v.with(`UPDATE attempt SET count = 0, told_at = ? WHERE (org, device, by_whom, act, reason)
			IN (SELECT v.org, v.device, v.by_whom, v.act, v.reason FROM v)`), append(v.args, at)...), entries...)
	})
}

// entry is what the custody log says of refused attempts: how many of one kind there
// were since the entry before.
func (r attemptsOf) entry(at time.Time) joinery.AuditEntry {
	e := joinery.AuditEntry{
		At: at, Event: joinery.AuditOrgAttempt, Actor: r.by, Org: r.org, Device: r.device,
		Detail: map[string]string{
			"act": r.act, "reason": string(r.reason), "count": strconv.FormatUint(r.count, 10),
			"first": r.first.Format(time.RFC3339), "last": r.last.Format(time.RFC3339),
		},
	}
	if r.device != 0 {
		e.Event = joinery.AuditDeviceAttempt
	}
	return e
}

const attemptColumns = "SELECT org, device, by_whom, act, reason FROM attempt "

func scanAttempt(r *row) attemptsOf {
	return attemptsOf{attemptRow: attemptRow{joinery.OrgID(r.int()), joinery.DeviceID(r.int()), r.text(), r.text(), joinery.AttemptReason(r.text())}}
}

// hourOver is attempts of which is told again; its arguments are when that hour began,
// and now, which a clock that was set back may have put before it.
const hourOver = "(told_at <= ? OR told_at > ?)"

// closeAttempts tells of attempts whose hour is over, some of them, and forgets some of
// those of which none came since.
func (t *tx) closeAttempts(at time.Time) (more bool, err error) {
	forgotten, err := t.changes(`DELETE FROM attempt WHERE (org, device, by_whom, act, reason) IN
		(SELECT org, device, by_whom, act, reason FROM attempt WHERE `+hourOver+` AND count = 0 ORDER BY told_at LIMIT ?)`, at.Add(-tellEvery), at, closeMost)
	if err != nil {
		return false, err
	}
	var due []attemptsOf
	err = t.each(attemptColumns+"WHERE "+hourOver+" AND count > 0 ORDER BY told_at LIMIT ?", func(r *row) error {
		due = append(due, scanAttempt(r))
		return nil
	}, at.Add(-tellEvery), at, closeMost)
	if err != nil {
		return false, err
	}
	return forgotten == closeMost || len(due) == closeMost, t.tellAttempts(due, at)
}

// tellDeletedAttempts tells of the attempts at a device before that goes.
func (t *tx) tellDeletedAttempts(id joinery.DeviceID, at time.Time) error {
	var due []attemptsOf
	err := t.each(attemptColumns+"WHERE device > 0 AND device = ? AND count > 0", func(r *row) error {
		due = append(due, scanAttempt(r))
		return nil
	}, id)
	if err == nil {
		err = t.tellAttempts(due, at)
	}
	if err == nil {
		err = t.exec("DELETE FROM attempt WHERE device > 0 AND device = ?", id)
	}
	return err
}
