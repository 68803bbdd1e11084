package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"joinery"
	"joinery/auditlog"
)

// The custody log puts what the feed names into a tree. The feed's pages are in
// the order of commits and have no gaps, so a place in it says what is in the
// tree already. Which row a leaf is stands in the leaf's bundle; which leaf a row
// is, in log_place: one row for each run of audit rows and for each minute of
// activations in a batch, so that no join costs a statement.

const logColumns = `SELECT origin, line, size, root, page, audited, scanning, scanned, scan_size, settled_at FROM log_state WHERE id = 1`

func (c conn) logState() (s joinery.LogState, found bool, err error) {
	found, err = c.one(logColumns, func(r *row) error {
		s.Origin, s.Line, s.Size = r.text(), int(r.int()), r.int()
		r.into(s.Root[:])
		s.Page, s.Audited = r.int(), r.int()
		s.Scanning, s.Scanned, s.ScanSize, s.SettledAt = r.bool(), joinery.ActivationID(r.int()), r.int(), r.time()
		return nil
	})
	return s, found, err
}

// LogState gives how far the tree of the custody log got; CodeNotFound where it
// was not begun.
func (d *DB) LogState(ctx context.Context) (s joinery.LogState, err error) {
	err = d.read(ctx, func(c conn) error {
		var found bool
		s, found, err = c.logState()
		if err == nil && !found {
			err = notFound("custody log")
		}
		return err
	})
	return s, err
}

// LogOrigin is the name that the log of a database gets unless another is given:
// that of its operator's organisation, which every copy of it keeps.
func (d *DB) LogOrigin() string { return "joinery.log/" + d.operator.String() }

// BeginLog begins the custody log, unless it was begun: an empty tree, into which
// all rows that are there come first.
func (d *DB) BeginLog(ctx context.Context, origin string, empty [32]byte) error {
	return d.do(ctx, func(t *tx) error {
		_, found, err := t.logState()
		if err != nil || found {
			return err
		}
		f, err := t.feed()
		if err != nil {
			return err
		}
		return t.exec(`INSERT INTO log_state (id, origin, line, size, root, page, audited, scanning, scanned, scan_size, settled_at, checkpoint, checkpoint_size)
			VALUES (1, ?, 1, 0, ?, ?, 0, 1, 0, 0, 0, '', 0) ON CONFLICT (id) DO NOTHING`, origin, empty, f.lastPage)
	})
}

// AppendLog puts a batch into the tree: the state moves from old to the next, and
// the tree grows with it, both or neither. CodeConflict where the state is not
// old any more.
func (d *DB) AppendLog(ctx context.Context, old joinery.LogState, b joinery.LogBatch, growth joinery.LogGrowth) error {
	return d.do(ctx, func(t *tx) error {
		t.aside = true
		return inOrder(
			func() error { return t.moveLog(old, b.Next) },
			func() error { return t.writeBundles(growth.Bundles) },
			func() error { return t.writeTiles(growth.Tiles) },
			func() error { return t.writePlaces(old.Size, b.Leaves) },
			func() error { return t.writeFound(b.Found) },
			func() error { return t.tellMissing(b.Missing) },
		)
	})
}

func (t *tx) moveLog(old, next joinery.LogState) error {
	n, err := t.changes(`UPDATE log_state SET size = ?, root = ?, page = ?, audited = ?, scanning = ?, scanned = ?, scan_size = ?, settled_at = ?
		WHERE id = 1 AND line = ? AND size = ? AND page = ? AND audited = ? AND scanning = ? AND scanned = ?`,
		next.Size, next.Root, next.Page, next.Audited, next.Scanning, next.Scanned, next.ScanSize, settled(next.SettledAt),
		old.Line, old.Size, old.Page, old.Audited, old.Scanning, old.Scanned)
	if err == nil && n == 0 {
		err = joinery.Errorf(joinery.CodeConflict, "another server put rows into the custody log meanwhile")
	}
	return err
}

// settled is the stored form of LogState.SettledAt: the zero time is 0.
func settled(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.UnixMilli()
}

func (t *tx) writeBundles(bundles []joinery.LogBundle) error {
	for _, b := range bundles {
		refs := make([]byte, 0, 8*len(b.Refs))
		for _, r := range b.Refs {
			refs = binary.BigEndian.AppendUint64(refs, uint64(r))
		}
		err := t.exec(`INSERT INTO log_bundle (idx, refs, records) VALUES (?, ?, ?)
			ON CONFLICT (idx) DO UPDATE SET refs = excluded.refs, records = excluded.records`, b.Index, refs, b.Records)
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) writeTiles(tiles []joinery.LogTile) error {
	for _, tile := range tiles {
		err := t.exec(`INSERT INTO log_tile (level, idx, hashes) VALUES (?, ?, ?)
			ON CONFLICT (level, idx) DO UPDATE SET hashes = excluded.hashes`, tile.Level, tile.Index, tile.Hashes)
		if err != nil {
			return err
		}
	}
	return nil
}

// tellMissing puts into the log that a row is gone before it came there.
func (t *tx) tellMissing(ids []joinery.ActivationID) error {
	for _, id := range ids {
		err := t.audit(joinery.AuditEntry{
			At: now(), Event: joinery.AuditLogRowMissing, Actor: "joinery", Org: t.operator, Detail: map[string]string{"activation": id.String()},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// LogBundles gives the bundles from one to another, at most limit, as far as they
// are there.
func (d *DB) LogBundles(ctx context.Context, from, to int64, limit int) (list []joinery.LogBundle, err error) {
	err = d.read(ctx, func(c conn) error { list, err = c.logBundles(from, to, limit); return err })
	return list, err
}

func (c conn) logBundles(from, to int64, limit int) (list []joinery.LogBundle, err error) {
	err = c.each("SELECT idx, refs, records FROM log_bundle WHERE idx BETWEEN ? AND ? ORDER BY idx LIMIT ?", func(r *row) error {
		b := joinery.LogBundle{Index: r.int()}
		refs := r.blob()
		b.Records = r.blob()
		if len(refs)%8 != 0 || len(refs)/8*auditlog.RecordSize != len(b.Records) {
			return fmt.Errorf("bundle %d of the custody log is damaged", b.Index)
		}
		b.Refs = parseRefs(refs)
		list = append(list, b)
		return nil
	}, from, to, limit)
	return list, err
}

func parseRefs(b []byte) []joinery.LogRef {
	refs := make([]joinery.LogRef, len(b)/8)
	for i := range refs {
		refs[i] = joinery.LogRef(binary.BigEndian.Uint64(b[8*i:]))
	}
	return refs
}

// LogTile gives the hashes of a tile of level 1 or above; CodeNotFound.
func (d *DB) LogTile(ctx context.Context, level int, index int64) (hashes []byte, err error) {
	err = d.read(ctx, func(c conn) error {
		found, err := c.one("SELECT hashes FROM log_tile WHERE level = ? AND idx = ?", func(r *row) error { hashes = r.blob(); return nil }, level, index)
		if err == nil && !found {
			err = notFound("tile")
		}
		return err
	})
	return hashes, err
}

// LogCheckpoint gives the newest signed checkpoint; CodeNotFound.
func (d *DB) LogCheckpoint(ctx context.Context) (p joinery.LogCheckpoint, err error) {
	err = d.read(ctx, func(c conn) error {
		_, err := c.one("SELECT line, checkpoint_size, checkpoint FROM log_state WHERE id = 1", func(r *row) error {
			p.Line, p.Size, p.Note = int(r.int()), r.int(), r.text()
			return nil
		})
		if err == nil && p.Note == "" {
			err = notFound("checkpoint")
		}
		return err
	})
	return p, err
}

// SaveCheckpoint keeps a signed checkpoint, unless the log has a newer one or is
// another line by now.
func (d *DB) SaveCheckpoint(ctx context.Context, p joinery.LogCheckpoint) error {
	return d.do(ctx, func(t *tx) error {
		t.aside = true
		return t.exec("UPDATE log_state SET checkpoint = ?, checkpoint_size = ? WHERE id = 1 AND line = ? AND checkpoint_size <= ? AND size >= ?",
			p.Note, p.Size, p.Line, p.Size, p.Size)
	})
}

// LogLines gives the lines of the log that restores ended, oldest first.
func (d *DB) LogLines(ctx context.Context) (list []joinery.LogLine, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each("SELECT line, origin, size, root, checkpoint, ended_at, audit FROM log_line ORDER BY line", func(r *row) error {
			l := joinery.LogLine{Line: int(r.int()), Origin: r.text(), Size: r.int()}
			r.into(l.Root[:])
			l.Checkpoint, l.EndedAt, l.Told = r.text(), r.time(), joinery.AuditRef(r.int())
			list = append(list, l)
			return nil
		})
	})
	return list, err
}

// WitnessSize gives how far a witness has followed a line of the log.
func (d *DB) WitnessSize(ctx context.Context, name string, line int) (size int64, err error) {
	err = d.read(ctx, func(c conn) error {
		size, err = c.integer("SELECT size FROM log_witness WHERE name = ? AND line = ?", name, line)
		return err
	})
	return size, err
}

// SaveWitnessSize notes how far a witness has followed.
func (d *DB) SaveWitnessSize(ctx context.Context, name string, line int, size int64) error {
	return d.do(ctx, func(t *tx) error {
		t.aside = true
		return t.exec("INSERT INTO log_witness (name, line, size) VALUES (?, ?, ?) ON CONFLICT (name, line) DO UPDATE SET size = excluded.size", name, line, size)
	})
}

// restartLog ends the line of a log that was restored: what had been published
// beyond it cannot be continued, so the log goes on under another name. from is
// why. It tells in the log itself where the line before ended here.
func (t *tx) restartLog(from Fence, actor string) error {
	s, found, err := t.logState()
	if err != nil || !found {
		return err
	}
	err = t.audit(joinery.AuditEntry{
		At: now(), Event: joinery.AuditLogRestarted, Actor: actor, Org: t.operator, Detail: map[string]string{
			"line": fmt.Sprint(s.Line + 1), "size": fmt.Sprint(s.Size), "root": fmt.Sprintf("%x", s.Root), "fence": string(from.State),
		},
	})
	if err != nil {
		return err
	}
	err = t.exec(`INSERT INTO log_line (line, origin, size, root, checkpoint, ended_at, audit)
		SELECT line, ?, size, root, checkpoint, ?, (SELECT max(id) FROM audit) FROM log_state WHERE id = 1`, auditlog.LineName(s.Origin, s.Line), now())
	if err != nil {
		return err
	}
	return t.exec("UPDATE log_state SET line = line + 1, checkpoint = '', checkpoint_size = 0 WHERE id = 1")
}
