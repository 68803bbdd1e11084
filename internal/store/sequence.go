package store

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"joinery"
)

// The feed of events is pages of references, numbered in the order of their
// commits. Everything but a join gets its place in its own transaction, or just
// behind it: the numbers of audit rows rise in the order of commits, too. Joins
// have numbers that were drawn before, and nothing that says in which order they
// came; to write that with each of them would make every join dearer. So each
// server remembers its own joins as they are committed and names them in a page
// some times a second, in batches, off the answer path. What a crash kept from
// being named is found by its id: see floor.

// sequence is what this server has committed and not yet named in the feed.
type sequence struct {
	mu    sync.Mutex
	on    bool // somebody takes what is here; see BeginFeed
	joins []sequenced
	// look is the turn in which to look for joins that were reported as failed and
	// may be on disk all the same; 0: there are none.
	look  uint64
	marks []floor // oldest first
	turns uint64  // of Sequence
	// written is the mark that was written last: whoever forgot this server, as one
	// that stood still for hours, took it out of the database.
	written floor
	// untold is refusals of which an event may be due; see tellRefusals.
	untold map[refusalKey]joinery.RefusalCount

	audited atomic.Bool // audit rows were written
}

// sequenced is a join as a page names it.
type sequenced struct {
	id    joinery.ActivationID
	owner joinery.OrgID
}

// floor is an id below which every join of this server is decided: committed and
// named, or not committed. It was drawn some time ago, so that whoever drew a
// lower one is answered by now. That time is counted in turns of Sequence, and
// not by a clock: a server that stood still has not come any further.
type floor struct {
	id   joinery.ActivationID
	at   time.Time
	turn uint64
}

// Turns between two marks, and until a mark counts: a minute at four turns a
// second, which is many times what a join may take.
const (
	markEvery = 40
	markAfter = 240
	// lookAfter is turns from a commit of unknown outcome until that is decided.
	lookAfter = 20
)

// pageRefs bounds what one page names.
const pageRefs = 1024

// tell adds the joins of a batch that were committed.
func (s *sequence) tell(batch []*joinCommit, outcomes []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.on {
		return
	}
	for i, j := range batch {
		if outcomes[i] == nil {
			s.joins = append(s.joins, sequenced{j.id, j.owner})
		}
	}
}

// doubtful says that joins may be on disk of which nobody knows.
func (s *sequence) doubtful() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look = s.turns + lookAfter
}

func (s *sequence) begun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.on
}

// turn begins a turn: it takes what waits, and gives the newest mark that
// counts.
func (s *sequence) turn() (joins []sequenced, doubt bool, counts floor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turns++
	if s.turns%markEvery == 1 {
		s.marks = append(s.marks, floor{joinery.NewActivationID(), now(), s.turns})
	}
	for len(s.marks) > 1 && s.marks[1].turn+markAfter <= s.turns {
		s.marks = s.marks[1:]
	}
	joins, doubt = s.joins, s.look > 0 && s.look <= s.turns
	s.joins = nil
	if doubt {
		s.look = 0
	}
	return joins, doubt, s.marks[0]
}

// failed ends a turn that may have been written or not: what it took is looked
// for.
func (s *sequence) failed() {
	s.doubtful()
	s.audited.Store(true)
}

// drop takes joins out that somebody else names.
func (s *sequence) drop(named map[joinery.ActivationID]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.joins[:0]
	for _, j := range s.joins {
		if !named[j.id] {
			kept = append(kept, j)
		}
	}
	s.joins = kept
}

// BeginFeed begins to note the joins of this server for the feed, and tells what
// is there to find them again after a crash. It comes before the first join;
// from then on Sequence is called about four times a second.
func (d *DB) BeginFeed(ctx context.Context) error {
	s := &d.sequence
	first := floor{joinery.NewActivationID(), now(), 0}
	known, err := write(ctx, d, func(t *tx) (bool, error) {
		if _, err := t.feed(); err != nil {
			return false, err
		}
		n, err := t.changes("INSERT INTO event_source (server, mark, marked_at, beat) VALUES (?, ?, ?, 0) ON CONFLICT (server) DO NOTHING",
			d.epoch, first.id, first.at)
		return n == 0, err
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// A row of this number is that of a server in another life of this database:
	// its mark stays until what it covers has been looked at.
	s.on, s.marks, s.written = true, []floor{first}, first
	if known {
		s.look = s.turns + 1
	}
	s.audited.Store(true)
	return nil
}

// EndFeed names what is left and forgets this server among the sources, unless
// something of it is not known. No join may come after it.
func (d *DB) EndFeed(ctx context.Context) error {
	if _, err := d.Sequence(ctx, false); err != nil {
		return err
	}
	d.sequence.mu.Lock()
	settled := d.sequence.look == 0 && len(d.sequence.joins) == 0
	d.sequence.mu.Unlock()
	if !settled {
		return nil
	}
	return d.do(ctx, func(t *tx) error { return t.exec("DELETE FROM event_source WHERE server = ?", d.epoch) })
}

// Sequence names in the feed what this server has committed since the last
// call, and what audit rows are new. more tells that there are new pages. With
// touch it writes that this server lives, though there be nothing.
func (d *DB) Sequence(ctx context.Context, touch bool) (more bool, err error) {
	s := &d.sequence
	if !s.begun() {
		return false, nil
	}
	joins, doubt, m := s.turn()
	audited := s.audited.Swap(false)
	untold := s.takeUntold()
	if len(joins) == 0 && !doubt && !audited && !touch && len(untold) == 0 {
		return false, nil
	}
	defer func() {
		if err != nil {
			s.failed()
			s.leave(untold)
		}
	}()
	var lost unsequenced
	if doubt {
		if lost, err = d.ownLost(ctx); err != nil {
			return false, err
		}
	}
	more, err = write(ctx, d, func(t *tx) (bool, error) {
		// Where ctx ends this goes on beside the caller: it changes nothing of the
		// caller's, the error least of all, which says whether the joins are named.
		joins := joins
		t.aside = true
		if doubt {
			var err error
			if joins, err = t.stillLost(lost); err != nil {
				return false, err
			}
		}
		audits := false
		err := inOrder(
			func() (err error) { audits, err = t.nameAudit(); return err },
			func() error { return t.nameJoins(joins, doubt) },
			func() error { return t.tellRefusals(untold) },
			func() error { return t.markSource(d.epoch, m) },
		)
		return audits || len(joins) > 0 || len(untold) > 0, err
	})
	if err == nil {
		s.wrote(m)
	}
	if err == nil && doubt {
		s.drop(lost.set())
	}
	return more, err
}

// markSource writes the mark of a server, which it shows life with. Its row may
// be gone: a server that stood still for hours is forgotten, and is found again
// after a crash only if it stands there again. The beat of such a row is none
// that the one before had, so that who forgets that one leaves this alone.
func (t *tx) markSource(server int64, m floor) error {
	return t.exec(`INSERT INTO event_source (server, mark, marked_at, beat) VALUES (?, ?, ?, ?)
		ON CONFLICT (server) DO UPDATE SET mark = excluded.mark, marked_at = excluded.marked_at, beat = event_source.beat + 1`,
		server, m.id, m.at, now())
}

// wrote notes that a mark is in the database.
func (s *sequence) wrote(m floor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = m
}

// ownLost finds the joins of this server that no page names. Where the database
// has no mark of it, that which was written last counts: whoever forgot it named
// what was there then.
func (d *DB) ownLost(ctx context.Context) (u unsequenced, err error) {
	sources, err := d.sources(ctx, "server = ?")
	if err != nil {
		return u, err
	}
	if len(sources) > 0 {
		return d.findUnsequenced(ctx, sources[0])
	}
	d.sequence.mu.Lock()
	m := d.sequence.written
	d.sequence.mu.Unlock()
	return d.findUnsequenced(ctx, joinery.EventSource{Server: d.epoch, Mark: m.id, MarkedAt: m.at})
}

// feedState is the row of the feed.
type feedState struct{ lastPage, audited int64 }

// feed gives that row, and makes it where there is none: the feed begins behind
// the audit rows that are there.
func (t *tx) feed() (f feedState, err error) {
	const query = "SELECT last_page, audited FROM event_feed WHERE id = 1"
	scan := func(r *row) error { f.lastPage, f.audited = r.int(), r.int(); return nil }
	found, err := t.one(query, scan)
	if err != nil || found {
		return f, err
	}
	if err := t.exec("INSERT INTO event_feed (id, last_page, audited) SELECT 1, 0, coalesce(max(id), 0) FROM audit"); err != nil {
		return f, err
	}
	_, err = t.one(query, scan)
	return f, err
}

// eventPage is a page of the feed, as it is written.
type eventPage struct {
	kind        string
	org         joinery.OrgID
	first, last int64
	refs        []byte
	note        string
}

// Kinds of pages.
const (
	pageAudit   = "audit"   // audit rows first to last
	pageJoins   = "joins"   // activations
	pageDevices = "devices" // imported by import first
	pageImport  = "import"  // import first, finished
	pageRefusal = "refusal" // a joinery.RefusalCount
)

// addPages appends pages to the feed.
func (t *tx) addPages(pages ...eventPage) error {
	if len(pages) == 0 {
		return nil
	}
	f, err := t.feed()
	if err != nil {
		return err
	}
	if err := t.exec("UPDATE event_feed SET last_page = ?", f.lastPage+int64(len(pages))); err != nil {
		return err
	}
	id, at := f.lastPage, now()
	return inRuns(pages, func(run []eventPage) error {
		v := valuesOf("id INTEGER, tag INTEGER, at INTEGER, kind TEXT, org INTEGER, first INTEGER, last INTEGER, refs BLOB, note TEXT")
		for _, p := range run {
			id++
			v.add(id, newTag(), at, p.kind, optional{p.org}, optional{p.first}, optional{p.last}, p.refs, optional{p.note})
		}
		return t.exec(v.with("INSERT INTO event_page (id, tag, at, kind, org, first, last, refs, note) SELECT v.* FROM v"), v.args...)
	})
}

// newTag draws a number from 1 to 2^32-1.
func newTag() uint32 {
	var b [4]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return max(1, binary.BigEndian.Uint32(b[:]))
}

// nameAudit names the audit rows that stand in no page. Their numbers have no
// gaps and rise in the order of commits, so there is nothing to miss.
func (t *tx) nameAudit() (more bool, err error) {
	f, err := t.feed()
	if err != nil {
		return false, err
	}
	newest, err := t.integer("SELECT coalesce(max(id), 0) FROM audit")
	if err != nil || newest <= f.audited {
		return false, err
	}
	var pages []eventPage
	for first := f.audited + 1; first <= newest; first += pageRefs {
		pages = append(pages, eventPage{kind: pageAudit, first: first, last: min(newest, first+pageRefs-1)})
	}
	if err := t.addPages(pages...); err != nil {
		return false, err
	}
	return true, t.exec("UPDATE event_feed SET audited = ?", newest)
}

// nameJoins names joins in the feed. recovered: they were looked for, and may have
// been named before, or be named by their own server yet.
func (t *tx) nameJoins(joins []sequenced, recovered bool) error {
	var pages []eventPage
	var first int64
	if recovered {
		first = pageRecovered
	}
	for run := range slices.Chunk(joins, pageRefs) {
		refs := make([]byte, 0, joinRef*len(run))
		for _, j := range run {
			refs = binary.BigEndian.AppendUint64(refs, uint64(j.id))
			refs = binary.BigEndian.AppendUint64(refs, uint64(j.owner))
		}
		pages = append(pages, eventPage{kind: pageJoins, first: first, refs: refs})
	}
	return t.addPages(pages...)
}

// pageRecovered stands in the column first of a page of joins that were looked for.
const pageRecovered = 1

// Lengths of references.
const (
	joinRef   = 16
	deviceRef = 8
)

// nameImport puts into the feed what a run of rows of an import did.
func (t *tx) nameImport(i joinery.Import, rows joinery.ImportRows, results []joinery.RowResult) error {
	var refs []byte
	for _, r := range results {
		if r.Status == joinery.RowCreated {
			refs = binary.BigEndian.AppendUint64(refs, uint64(r.Device))
		}
	}
	var pages []eventPage
	if refs != nil {
		pages = append(pages, eventPage{kind: pageDevices, org: i.Org, first: int64(i.ID), refs: refs})
	}
	if rows.Last {
		pages = append(pages, eventPage{kind: pageImport, org: i.Org, first: int64(i.ID)})
	}
	return t.addPages(pages...)
}
