package store

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"joinery"
	"joinery/auditlog"
)

const fixLog = "somebody changed the custody log or the rows in it by hand: find out who, and restore a backup; what was published before proves it"

// custodyLog checks that tree, tiles and rows of the custody log agree. It hashes
// the tree anew from its records by the definition (RFC 6962 §2.1), apart from the
// code that grows it.
func (f *checkup) custodyLog() error {
	s, found, err := f.c.logState()
	if err != nil || !found {
		return err
	}
	w := logWalk{f: f, s: s}
	return inOrder(w.bundles, w.tiles, w.places, w.strangers, w.waiting)
}

// logWalk goes through the tree.
type logWalk struct {
	f      *checkup
	s      joinery.LogState
	next   int64 // leaf
	audits int64 // rows in the tree
	joins  []joinery.ActivationID
	full   [][32]byte // by index, roots of the full bundles
	forest [][32]byte // roots of full subtrees, largest first
	sizes  []int64    // of these, in leaves
}

func (w *logWalk) bad(table string, id any, rule string) { w.f.report(table, id, rule, fixLog) }

// bundles compares each leaf with its row and hashes the tree.
func (w *logWalk) bundles() error {
	var index int64
	for {
		list, err := w.f.c.logBundles(index, index+63, 64)
		if err != nil {
			return err
		}
		for _, b := range list {
			if b.Index != index {
				w.bad("log_bundle", index, "no bundle is missing")
				index = b.Index
			}
			if err := w.bundle(b); err != nil {
				return err
			}
			index++
		}
		if len(list) == 0 {
			break
		}
	}
	if w.next != w.s.Size {
		w.bad("log_state", 1, fmt.Sprintf("the tree has %d leaves, of which %d are found", w.s.Size, w.next))
	}
	if root := w.root(); root != w.s.Root {
		w.bad("log_state", 1, "its root is the hash of its leaves")
	}
	if w.audits != w.s.Audited {
		w.bad("log_state", 1, fmt.Sprintf("audit rows 1 to %d are in the tree, once each", w.s.Audited))
	}
	return nil
}

func (w *logWalk) bundle(b joinery.LogBundle) error {
	rows, err := w.rows(b.Refs)
	if err != nil {
		return err
	}
	var leaves [][32]byte
	for i, ref := range b.Refs {
		record := auditlog.Record(b.Records[i*auditlog.RecordSize : (i+1)*auditlog.RecordSize])
		row, there := rows[ref]
		switch number, audit := ref.Audit(); {
		case !there:
			w.bad("log_bundle", b.Index, fmt.Sprintf("leaf %d is a row that is there", w.next))
		case row != record:
			w.bad("log_bundle", b.Index, fmt.Sprintf("leaf %d is the record of its row", w.next))
		case audit:
			w.audits++
			if number != w.audits {
				w.bad("log_bundle", b.Index, "audit rows are in the order of their numbers")
			}
		}
		if id, ok := ref.Activation(); ok {
			w.joins = append(w.joins, id)
		}
		h := record.LeafHash()
		leaves = append(leaves, h)
		w.push(h)
		w.next++
	}
	if len(b.Refs) == bundleLeaves {
		w.full = append(w.full, merkle(leaves))
	}
	return nil
}

// rows reads the records of rows.
func (w *logWalk) rows(refs []joinery.LogRef) (map[joinery.LogRef]auditlog.Record, error) {
	rows := make(map[joinery.LogRef]auditlog.Record, len(refs))
	var joins []joinery.ActivationID
	var first, last int64
	for _, ref := range refs {
		if number, ok := ref.Audit(); ok {
			if first == 0 {
				first = number
			}
			first, last = min(first, number), max(last, number)
			continue
		}
		joins = append(joins, joinery.ActivationID(ref))
	}
	leaves, err := w.f.c.activationLeaves(joins)
	if err != nil {
		return nil, err
	}
	for _, l := range leaves {
		rows[l.Ref] = l.Record
	}
	if first == 0 {
		return rows, nil
	}
	err = w.f.c.each("SELECT id, leaf FROM audit WHERE id BETWEEN ? AND ?", func(r *row) error {
		ref := joinery.AuditRef(r.int())
		var record auditlog.Record
		r.into(record[:])
		rows[ref] = record
		return nil
	}, first, last)
	return rows, err
}

// push adds a leaf to the forest of full subtrees.
func (w *logWalk) push(h [32]byte) {
	w.forest, w.sizes = append(w.forest, h), append(w.sizes, 1)
	for n := len(w.sizes); n > 1 && w.sizes[n-1] == w.sizes[n-2]; n-- {
		w.forest[n-2] = node(w.forest[n-2], w.forest[n-1])
		w.sizes[n-2] *= 2
		w.forest, w.sizes = w.forest[:n-1], w.sizes[:n-1]
	}
}

func (w *logWalk) root() [32]byte {
	if len(w.forest) == 0 {
		return sha256.Sum256(nil)
	}
	root := w.forest[len(w.forest)-1]
	for _, h := range slices.Backward(w.forest[:len(w.forest)-1]) {
		root = node(h, root)
	}
	return root
}

func node(left, right [32]byte) [32]byte {
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

// merkle hashes a power of two of hashes.
func merkle(row [][32]byte) [32]byte {
	row = slices.Clone(row)
	for len(row) > 1 {
		for i := range len(row) / 2 {
			row[i] = node(row[2*i], row[2*i+1])
		}
		row = row[:len(row)/2]
	}
	return row[0]
}

// tiles compares the tiles of each level with the hashes below.
func (w *logWalk) tiles() error {
	below := w.full
	for level := 1; len(below) > 0; level++ {
		var above [][32]byte
		for index := 0; index*bundleLeaves < len(below); index++ {
			want := below[index*bundleLeaves : min((index+1)*bundleLeaves, len(below))]
			var got []byte
			if _, err := w.f.c.one("SELECT hashes FROM log_tile WHERE level = ? AND idx = ?", func(r *row) error { got = r.blob(); return nil }, level, index); err != nil {
				return err
			}
			if !slices.Equal(got, slices.Concat(hashSlices(want)...)) {
				w.bad("log_tile", fmt.Sprintf("%d/%d", level, index), "it holds the hashes of the tiles below")
			}
			if len(want) == bundleLeaves {
				above = append(above, merkle(want))
			}
		}
		below = above
	}
	return nil
}

func hashSlices(hashes [][32]byte) [][]byte {
	list := make([][]byte, len(hashes))
	for i := range hashes {
		list[i] = hashes[i][:]
	}
	return list
}

// places checks that rows are found from log_place.
func (w *logWalk) places() error {
	for run := range slices.Chunk(w.joins, 4096) {
		places, err := w.f.c.activationPlaces(run, w.s.Size)
		if err != nil {
			return err
		}
		for _, id := range run {
			if _, ok := places[id]; !ok {
				w.bad("log_place", activation(int64(id)), "it tells in which leaf an activation is")
			}
		}
	}
	for number := int64(1); number <= w.audits; number++ {
		at, err := w.f.c.auditPlace(number)
		if err != nil {
			return err
		}
		if at < 0 {
			w.bad("log_place", number, "it tells in which leaf an audit row is")
		}
	}
	slices.Sort(w.joins)
	for i := 1; i < len(w.joins); i++ {
		if w.joins[i] == w.joins[i-1] {
			w.bad("log_bundle", "-", "activation "+w.joins[i].String()+" is in the tree once")
		}
	}
	return nil
}

// strangers looks for rows that should be in the tree: erased without a record, or
// older than what the log has settled.
func (w *logWalk) strangers() error {
	err := w.f.c.each(`SELECT a.id FROM audit a WHERE a.payload IS NULL AND NOT EXISTS (SELECT 1 FROM log_erasure e WHERE e.ref = -a.id)`, func(r *row) error {
		w.bad("audit", r.int(), "what was erased has a record of that")
		return nil
	})
	if err != nil {
		return err
	}
	err = w.f.c.each(`SELECT a.id FROM activation a WHERE a.payload IS NULL AND NOT EXISTS (SELECT 1 FROM log_erasure e WHERE e.ref = a.id)`, func(r *row) error {
		w.bad("activation", activation(r.int()), "what was erased has a record of that")
		return nil
	})
	if err != nil {
		return err
	}
	return w.f.c.each(`SELECT e.ref FROM log_erasure e JOIN audit a ON a.id = e.audit WHERE a.event <> 'log.entry_erased'`, func(r *row) error {
		w.bad("log_erasure", r.int(), "the record of an erasure is one")
		return nil
	})
}

// waiting looks for activations that are neither in the tree nor on their way: no
// page names them, and no server will, which has a mark above them.
func (w *logWalk) waiting() error {
	if w.s.Scanning {
		return nil
	}
	var bound int64
	found, err := w.f.c.one("SELECT mark FROM event_source ORDER BY mark LIMIT 1", func(r *row) error { bound = r.int(); return nil })
	if err != nil {
		return err
	}
	named := map[joinery.ActivationID]bool{}
	for last, n := w.s.Page, pagesAtOnce; n == pagesAtOnce; {
		if last, n, err = w.f.c.eachNamed(last, func(id joinery.ActivationID) { named[id] = true }); err != nil {
			return err
		}
	}
	return w.f.c.each("SELECT id FROM activation ORDER BY id", func(r *row) error {
		id := joinery.ActivationID(r.int())
		if _, in := slices.BinarySearch(w.joins, id); !in && !named[id] && (!found || int64(id) < bound) {
			w.bad("activation", id, "it is in the custody log, or named in the feed")
		}
		return nil
	})
}
