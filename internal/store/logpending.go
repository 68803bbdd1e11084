package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"joinery"
)

const (
	// logPages bounds what pages of the feed one batch reads.
	logPages = 16
	// settleLog is how long after a scan pages may name what it took: servers name
	// their joins within seconds, and other clocks may be off.
	settleLog = 10 * time.Minute
	// breath is how long the log lets others go first after each run of rows that it
	// read, a third of a millisecond's work. On one processor nobody hears of the
	// network while somebody computes: who only yields keeps it.
	breath = time.Millisecond
	// keepFound is how long an activation is remembered that was named for another
	// server: as long as the feed is kept, and some.
	keepFound = 40 * 24 * time.Hour
)

// LogPending gives what comes next into the tree, about limit leaves of it, from
// one state of the database. Audit rows come in the order of their numbers, which
// is that of their commits; joins in the order of the feed. What was committed
// late is named late, and comes later: nothing is skipped.
//
// Each row comes once. A page names a join for the first time but where a server
// looked for what another one left behind: such pages are compared with the tree.
// So are those from about the time of a scan, which takes all rows there are:
// where the log begins, and where the feed was begun anew under it.
func (d *DB) LogPending(ctx context.Context, s joinery.LogState, limit int) (b joinery.LogBatch, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		p := pending{c: c, s: s, limit: limit}
		p.b.Next = s
		if s.Scanning {
			err = p.scan()
		} else {
			err = p.pages()
		}
		b = p.b
		return err
	})
	return b, err
}

// pending collects a batch.
type pending struct {
	c     conn
	s     joinery.LogState
	limit int
	b     joinery.LogBatch
	found map[joinery.ActivationID]bool // see log_found; nil: not read
}

func (p *pending) room() int { return p.limit - len(p.b.Leaves) }

// scan takes audit rows, and then activations by their ids.
func (p *pending) scan() error {
	newest, err := p.c.integer("SELECT coalesce(max(id), 0) FROM audit")
	if err == nil {
		err = p.audits(newest, p.limit)
	}
	if err != nil || p.room() <= 0 {
		p.b.More = true
		return err
	}
	var leaves []joinery.LogLeaf
	err = p.c.each("SELECT id, leaf FROM activation WHERE id > ? ORDER BY id LIMIT ?", func(r *row) error {
		l := joinery.LogLeaf{Ref: joinery.LogRef(r.int())}
		r.into(l.Record[:])
		leaves = append(leaves, l)
		return nil
	}, p.s.Scanned, p.room())
	if err != nil {
		return err
	}
	p.b.More = true
	if len(leaves) < p.room() {
		p.b.Next.Scanning, p.b.Next.SettledAt = false, now().Add(settleLog)
	}
	if len(leaves) > 0 {
		p.b.Next.Scanned = joinery.ActivationID(leaves[len(leaves)-1].Ref)
	}
	if p.s.ScanSize > 0 {
		if leaves, err = p.absent(leaves, p.s.ScanSize); err != nil {
			return err
		}
	}
	p.b.Leaves = append(p.b.Leaves, leaves...)
	return nil
}

// audits takes audit rows up to a number.
func (p *pending) audits(last int64, limit int) error {
	return p.c.each("SELECT id, leaf FROM audit WHERE id > ? AND id <= ? ORDER BY id LIMIT ?", func(r *row) error {
		id := r.int()
		if id != p.b.Next.Audited+1 {
			return fmt.Errorf("audit row %d is missing; run joinery fsck", p.b.Next.Audited+1)
		}
		p.b.Next.Audited = id
		l := joinery.LogLeaf{Ref: joinery.AuditRef(id)}
		r.into(l.Record[:])
		p.b.Leaves = append(p.b.Leaves, l)
		return nil
	}, p.b.Next.Audited, last, limit)
}

// logPage is a page of the feed as the log reads it.
type logPage struct {
	id, first, last int64
	at              time.Time
	kind            string
	refs            []byte
}

func (p *pending) pages() error {
	var pages []logPage
	err := p.c.each(`SELECT id, at, kind, coalesce(first, 0), coalesce(last, 0), CASE WHEN kind = 'joins' THEN refs END
		FROM event_page WHERE id > ? ORDER BY id LIMIT ?`, func(r *row) error {
		g := logPage{id: r.int(), at: r.time(), kind: r.text(), first: r.int(), last: r.int()}
		g.refs = r.blob()
		pages = append(pages, g)
		return nil
	}, p.s.Page, logPages)
	if err != nil {
		return err
	}
	newest, err := p.c.integer("SELECT last_page FROM event_feed WHERE id = 1")
	if err != nil {
		return err
	}
	if newest < p.s.Page || len(pages) > 0 && pages[0].id != p.s.Page+1 {
		// The feed was begun anew, or lost pages: all rows are gone through.
		p.b.Next.Page, p.b.Next.Scanning, p.b.Next.Scanned, p.b.Next.ScanSize = newest, true, 0, p.s.Size
		p.b.More = true
		return nil
	}
	p.b.More = len(pages) == logPages
	for _, g := range pages {
		if p.room() <= 0 {
			p.b.More = true
			return nil
		}
		if err := p.page(g); err != nil {
			return err
		}
	}
	return nil
}

func (p *pending) page(g logPage) error {
	switch g.kind {
	case pageAudit:
		if err := p.audits(g.last, pageRefs); err != nil {
			return err
		}
		if p.b.Next.Audited < g.last {
			return fmt.Errorf("audit row %d is missing; run joinery fsck", p.b.Next.Audited+1)
		}
	case pageJoins:
		if err := p.joins(g); err != nil {
			return err
		}
	}
	p.b.Next.Page = g.id
	return nil
}

// joins takes the activations that a page names.
func (p *pending) joins(g logPage) error {
	if len(g.refs)%joinRef != 0 {
		return fmt.Errorf("page %d of events is damaged", g.id)
	}
	ids := make([]joinery.ActivationID, 0, len(g.refs)/joinRef)
	for refs := g.refs; len(refs) > 0; refs = refs[joinRef:] {
		ids = append(ids, joinery.ActivationID(binary.BigEndian.Uint64(refs)))
	}
	if len(ids) == 0 {
		return nil
	}
	leaves, err := p.c.activationLeaves(ids)
	if err != nil {
		return err
	}
	if len(leaves) < len(ids) {
		p.miss(ids, leaves)
	}
	switch recovered := g.first == pageRecovered; {
	case recovered:
		if leaves, err = p.absent(leaves, p.s.Size); err != nil {
			return err
		}
		leaves = p.notTaken(leaves)
		p.b.Found = append(p.b.Found, ids...)
	case g.at.Before(p.s.SettledAt) && slices.Min(ids) <= p.s.Scanned:
		// A scan takes no ids beyond its last one, so most pages need no look.
		if leaves, err = p.absent(leaves, p.s.Size); err != nil {
			return err
		}
		leaves = p.notTaken(leaves)
	default:
		if leaves, err = p.notFound(leaves); err != nil {
			return err
		}
	}
	p.b.Leaves = append(p.b.Leaves, leaves...)
	return nil
}

// activationLeaves reads the leaves of activations, in the order of ids, without
// those that are not there.
func (c conn) activationLeaves(ids []joinery.ActivationID) (leaves []joinery.LogLeaf, err error) {
	leaves = make([]joinery.LogLeaf, 0, len(ids))
	err = inRuns(ids, func(run []joinery.ActivationID) error {
		v := valuesOf("idx INTEGER, id INTEGER")
		for i, id := range run {
			v.add(i, id)
		}
		defer time.Sleep(breath)
		return c.each(v.with("SELECT a.id, a.leaf FROM v JOIN activation a ON a.id = v.id ORDER BY v.idx"), func(r *row) error {
			l := joinery.LogLeaf{Ref: joinery.LogRef(r.int())}
			r.into(l.Record[:])
			leaves = append(leaves, l)
			return nil
		}, v.args...)
	})
	return leaves, err
}

func (p *pending) miss(ids []joinery.ActivationID, leaves []joinery.LogLeaf) {
	there := make(map[joinery.LogRef]bool, len(leaves))
	for _, l := range leaves {
		there[l.Ref] = true
	}
	for _, id := range ids {
		if !there[joinery.ActivationRef(id)] {
			p.b.Missing = append(p.b.Missing, id)
		}
	}
}

// absent leaves out what the first size leaves of the tree hold.
func (p *pending) absent(leaves []joinery.LogLeaf, size int64) ([]joinery.LogLeaf, error) {
	ids := make([]joinery.ActivationID, len(leaves))
	for i, l := range leaves {
		ids[i] = joinery.ActivationID(l.Ref)
	}
	places, err := p.c.activationPlaces(ids, size)
	if err != nil {
		return nil, err
	}
	kept := leaves[:0]
	for i, l := range leaves {
		if _, in := places[ids[i]]; !in {
			kept = append(kept, l)
		}
	}
	return kept, nil
}

// notTaken leaves out what this batch has already, and what comes twice.
func (p *pending) notTaken(leaves []joinery.LogLeaf) []joinery.LogLeaf {
	taken := make(map[joinery.LogRef]bool, len(p.b.Leaves)+len(leaves))
	for _, l := range p.b.Leaves {
		taken[l.Ref] = true
	}
	kept := leaves[:0]
	for _, l := range leaves {
		if !taken[l.Ref] {
			taken[l.Ref] = true
			kept = append(kept, l)
		}
	}
	return kept
}

// notFound leaves out what was named for the server that names it now.
func (p *pending) notFound(leaves []joinery.LogLeaf) ([]joinery.LogLeaf, error) {
	if p.found == nil {
		p.found = map[joinery.ActivationID]bool{}
		err := p.c.each("SELECT id FROM log_found", func(r *row) error {
			p.found[joinery.ActivationID(r.int())] = true
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for _, id := range p.b.Found {
		p.found[id] = true
	}
	kept := leaves[:0]
	for _, l := range leaves {
		if !p.found[joinery.ActivationID(l.Ref)] {
			kept = append(kept, l)
		}
	}
	return kept, nil
}

func (t *tx) writeFound(ids []joinery.ActivationID) error {
	if len(ids) == 0 {
		return nil
	}
	for _, id := range ids {
		if err := t.exec("INSERT INTO log_found (id) VALUES (?) ON CONFLICT (id) DO NOTHING", id); err != nil {
			return err
		}
	}
	return t.exec("DELETE FROM log_found WHERE id < ?", joinery.FirstActivationID(now().Add(-keepFound)))
}

// minuteBits is how far the minute stands in an identifier; see package joinery.
const minuteBits = 35

// Kinds of places.
const (
	placeAudit      = 1
	placeActivation = 2
	// placeNear is how many other leaves may lie between two batches of one minute
	// that are one place.
	placeNear = 4096
)

// writePlaces notes in which leaves rows are; first is the number of the first.
func (t *tx) writePlaces(first int64, leaves []joinery.LogLeaf) error {
	type span struct{ first, last int64 }
	minutes := map[int64]*span{}
	for i := 0; i < len(leaves); i++ {
		at := first + int64(i)
		if number, ok := leaves[i].Ref.Audit(); ok {
			last := at
			for i+1 < len(leaves) && leaves[i+1].Ref == leaves[i].Ref-1 {
				i++
				last++
			}
			if err := t.exec("INSERT INTO log_place (kind, key, first, last) VALUES (?, ?, ?, ?)", placeAudit, number, at, last); err != nil {
				return err
			}
			continue
		}
		minute := int64(leaves[i].Ref) >> minuteBits
		if s := minutes[minute]; s != nil {
			s.last = at
		} else {
			minutes[minute] = &span{at, at}
		}
	}
	for _, minute := range inOrderOf(minutes) {
		s := minutes[minute]
		n, err := t.changes(`UPDATE log_place SET last = ? WHERE kind = ? AND key = ? AND last >= ? AND
			first = (SELECT max(p.first) FROM log_place p WHERE p.kind = log_place.kind AND p.key = log_place.key)`,
			s.last, placeActivation, minute, s.first-placeNear)
		if err == nil && n == 0 {
			err = t.exec("INSERT INTO log_place (kind, key, first, last) VALUES (?, ?, ?, ?)", placeActivation, minute, s.first, s.last)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// activationPlaces gives the leaves of activations, as far as the first size
// leaves hold them.
func (c conn) activationPlaces(ids []joinery.ActivationID, size int64) (map[joinery.ActivationID]int64, error) {
	minutes := map[int64]map[joinery.LogRef]bool{}
	for _, id := range ids {
		m := int64(id) >> minuteBits
		if minutes[m] == nil {
			minutes[m] = map[joinery.LogRef]bool{}
		}
		minutes[m][joinery.ActivationRef(id)] = true
	}
	places := make(map[joinery.ActivationID]int64, len(ids))
	for _, m := range inOrderOf(minutes) {
		type span struct{ first, last int64 }
		var spans []span
		err := c.each("SELECT first, last FROM log_place WHERE kind = ? AND key = ? AND first < ? ORDER BY first", func(r *row) error {
			spans = append(spans, span{r.int(), r.int()})
			return nil
		}, placeActivation, m, size)
		if err != nil {
			return nil, err
		}
		for _, s := range spans {
			if len(minutes[m]) == 0 {
				break
			}
			if err := c.searchLeaves(s.first, min(s.last, size-1), minutes[m], places); err != nil {
				return nil, err
			}
		}
	}
	return places, nil
}

// searchLeaves looks for activations in leaves, and takes out of wanted what it
// finds.
func (c conn) searchLeaves(first, last int64, wanted map[joinery.LogRef]bool, places map[joinery.ActivationID]int64) error {
	return c.each("SELECT idx, refs FROM log_bundle WHERE idx BETWEEN ? AND ? ORDER BY idx", func(r *row) error {
		at := r.int() * bundleLeaves
		if len(wanted) == 0 {
			return nil
		}
		for i, ref := range parseRefs(r.blob()) {
			if n := at + int64(i); n >= first && n <= last && wanted[ref] {
				places[joinery.ActivationID(ref)] = n
				delete(wanted, ref)
			}
		}
		return nil
	}, first/bundleLeaves, last/bundleLeaves)
}

// bundleLeaves is how many leaves a bundle holds.
const bundleLeaves = 256

// auditPlace gives the leaf of an audit row; -1 where it is not in the tree yet.
func (c conn) auditPlace(number int64) (leaf int64, err error) {
	leaf = -1
	_, err = c.one("SELECT key, first, last FROM log_place WHERE kind = ? AND key <= ? ORDER BY key DESC LIMIT 1", func(r *row) error {
		from, first, last := r.int(), r.int(), r.int()
		if at := first + number - from; at <= last {
			leaf = at
		}
		return nil
	}, placeAudit, number)
	return leaf, err
}
