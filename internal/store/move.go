package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"joinery"
)

// Move is what MoveState is told.
type Move struct {
	From, To Options
	// FromName and ToName are how people call the two; ToName is remembered, and
	// must be the same when a move is taken up again.
	FromName, ToName string
	Actor            string
	// Progress is called with rows done and all there are; nil is nobody.
	Progress func(done, all int64)
}

// MoveState moves the whole state from one database to a new one, and leaves the
// old one as one that no server opens any more. No server may run on either.
//
// To is looked at first. Then:
//
//  1. From is marked as moving, to To: from now on no server opens it.
//  2. Rows are copied in batches, each with the place that it reached. Cut off
//     at any time, the same call goes on there.
//  3. To is checked with fsck.
//  4. From is marked as moved.
//  5. To becomes a database that servers open.
//
// A crash between two steps leaves at most one database that servers open, and
// the same call finishes the rest. JoinNonces need no jump: nothing was ever
// answered from two places. It gives the number of rows moved.
func MoveState(ctx context.Context, m Move) (rows int64, err error) {
	from, err := open(ctx, m.From, toMove)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	err = from.startMove(ctx, m, func(mv *moving) error {
		err := mv.run(ctx)
		rows = mv.done
		return err
	})
	return rows, err
}

// startMove looks at both ends, marks the source, and gives fn the move. The
// target comes first: a source is not put out of service for a target that
// cannot be.
func (d *DB) startMove(ctx context.Context, m Move, fn func(*moving) error) (err error) {
	if m.FromName == m.ToName {
		return fmt.Errorf("%w: --from and --to are the same", ErrExists)
	}
	f := d.Fence()
	if err := f.movable(m); err != nil {
		return err
	}
	var schema int
	if err := d.Copy(ctx, func(s *Copy) error { schema = s.Schema(); return nil }); err != nil {
		return err
	}
	draft, err := newDraft(ctx, m.To, schema, true)
	if err != nil {
		return f.alreadyMoved(err, m)
	}
	defer func() { err = errors.Join(err, draft.discard()) }()
	if f, err = d.beginMove(ctx, m); err != nil {
		return err
	}
	return d.Copy(ctx, func(s *Copy) error { return fn(&moving{move: m, from: d, copy: s, draft: draft, fence: f}) })
}

// movable refuses what cannot be moved, or is on its way to elsewhere.
func (f Fence) movable(m Move) error {
	switch {
	case (f.State == FenceMoving || f.State == FenceMoved) && f.Note != m.ToName:
		return f.movedError(m.FromName)
	case f.State == FenceMoving, f.State == FenceMoved, !f.Up():
		return nil
	default:
		return fmt.Errorf("%w: %s is fenced (%s): confirm first that it counts, with joinery restore confirm", ErrFenced, m.FromName, f.State)
	}
}

// alreadyMoved tells a move that was finished from a place that is taken.
func (f Fence) alreadyMoved(err error, m Move) error {
	if f.State == FenceMoved && errors.Is(err, ErrExists) {
		return fmt.Errorf("%w: %s went to %s already; nothing is left to do", ErrMoved, m.FromName, m.ToName)
	}
	return err
}

// beginMove marks the database as moving, or finds that it is.
func (d *DB) beginMove(ctx context.Context, m Move) (Fence, error) {
	return write(ctx, d, func(t *tx) (Fence, error) {
		s, _, err := t.storeRow()
		if err != nil {
			return Fence{}, err
		}
		if err := s.fence.movable(m); err != nil || s.fence.Up() {
			return s.fence, err
		}
		f := Fence{State: FenceMoving, Since: now(), Note: m.ToName}
		return f, t.raiseFence(f, m.Actor)
	})
}

// moving is one run of MoveState behind its first step.
type moving struct {
	move  Move
	from  *DB
	copy  *Copy
	draft *Draft
	fence Fence // of the source
	done  int64
	all   int64
}

func (m *moving) run(ctx context.Context) error {
	return inOrder(
		m.takeUp,
		func() error { return m.copyAll(ctx) },
		func() error { return m.leave(ctx) },
		m.arrive,
		m.draft.Publish,
	)
}

// copyAll copies every table and checks them. Once all is there nothing is copied
// any more: what the source has written since, that it was moved, is its own.
func (m *moving) copyAll(ctx context.Context) (err error) {
	if m.all, err = m.copy.Count(); err != nil {
		return err
	}
	finished, err := m.position(positionFinished)
	if err != nil {
		return err
	}
	for _, name := range m.copy.Tables() { // store, without which it is no database, comes last
		if finished != "" {
			err = m.count(name)
		} else {
			err = m.table(ctx, name)
		}
		if err != nil {
			return err
		}
	}
	found, err := m.finish(ctx, finished != "")
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("%w: the copy breaks %d invariants, the first: %s. Nothing was moved: check %s with joinery fsck, "+
			"mend it, remove the copy, and begin again", ErrCopy, len(found), found[0], m.move.FromName)
	}
	return err
}

// leave marks the source as moved.
func (m *moving) leave(ctx context.Context) error {
	if m.fence.State == FenceMoved {
		return nil
	}
	return m.from.do(ctx, func(t *tx) error {
		return t.raiseFence(Fence{State: FenceMoved, Since: now(), Note: m.move.ToName}, m.move.Actor)
	})
}

// arrive takes the fence of the copy down. A file keeps the table of positions
// until a server opens it: it must be known as this copy until it is in its
// place.
func (m *moving) arrive() error {
	return m.draft.transaction(func(t *tx) error {
		err := t.exec("UPDATE store SET fence = 'none', fence_at = NULL, fence_note = ''")
		if err != nil || m.move.To.URL == "" {
			return err
		}
		return t.exec("DROP TABLE " + progressTable)
	})
}

// Positions of the copy that are no tables.
const (
	positionSource   = "(source)"   // which move this is
	positionFinished = "(finished)" // all is there
)

// takeUp makes sure that the draft is of this very move.
func (m *moving) takeUp() error {
	this := strconv.FormatInt(m.fence.Since.UnixMilli(), 10)
	if m.fence.State == FenceMoved { // the moving that led there had another time
		this = ""
	}
	was, err := m.position(positionSource)
	switch {
	case err != nil:
		return err
	case was == "" && m.fence.State == FenceMoved:
		return fmt.Errorf("%w: %s went to %s, but that is not there any more", ErrMoved, m.move.FromName, m.move.ToName)
	case was == "":
		return m.draft.transaction(func(t *tx) error { return reach(t, positionSource, this) })
	case this != "" && was != this:
		return fmt.Errorf("%w: %s holds half a copy of another state; remove it, and give the same command again", ErrExists, m.move.ToName)
	}
	return nil
}

func (m *moving) position(name string) (position string, err error) {
	_, err = m.draft.c.one("SELECT position FROM "+progressTable+" WHERE name = ?", func(r *row) error {
		position = r.text()
		return nil
	}, name)
	return position, err
}

// reach notes a position.
func reach(t *tx, name, position string) error {
	return t.exec("INSERT INTO "+progressTable+" (name, position) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET position = excluded.position", name, position)
}

// keyPart is a value of a key as a position holds it.
type keyPart struct {
	Number *int64  `json:"n,omitempty"`
	Text   *string `json:"t,omitempty"`
	Bytes  []byte  `json:"b,omitempty"`
}

func encodePosition(key []any) (string, error) {
	parts := make([]keyPart, len(key))
	for i, value := range key {
		switch v := value.(type) {
		case int64:
			parts[i].Number = &v
		case string:
			parts[i].Text = &v
		case []byte:
			parts[i].Bytes = v
		}
	}
	b, err := json.Marshal(parts)
	return string(b), err
}

func decodePosition(text string) (key []any, err error) {
	if text == "" {
		return nil, nil
	}
	var parts []keyPart
	if err := json.Unmarshal([]byte(text), &parts); err != nil {
		return nil, fmt.Errorf("%w: the position of a copy cannot be read; remove the copy, and begin again", ErrCopy)
	}
	for _, p := range parts {
		switch {
		case p.Number != nil:
			key = append(key, *p.Number)
		case p.Text != nil:
			key = append(key, *p.Text)
		default:
			key = append(key, p.Bytes)
		}
	}
	return key, nil
}

// table copies the rows of a table behind those that are there.
func (m *moving) table(ctx context.Context, name string) error {
	text, err := m.position(name)
	if err != nil {
		return err
	}
	after, err := decodePosition(text)
	if err != nil {
		return err
	}
	t := m.copy.table(name)
	if there := m.draft.table(name); fmt.Sprint(there.names()) != fmt.Sprint(t.names()) {
		return fmt.Errorf("%w: table %s has other columns there", ErrCopy, name)
	}
	if after != nil {
		if err := m.count(name); err != nil {
			return err
		}
	}
	var batch [][]any
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		position, err := encodePosition(t.keyOf(batch[len(batch)-1]))
		if err != nil {
			return err
		}
		err = m.draft.insertAnd(ctx, name, batch, func(t *tx) error { return reach(t, name, position) })
		m.done += int64(len(batch))
		batch = batch[:0]
		if err == nil && m.move.Progress != nil {
			m.move.Progress(m.done, m.all)
		}
		return err
	}
	err = m.copy.rowsAfter(name, after, func(row []any) error {
		if batch = append(batch, row); len(batch) == copyPage {
			return flush()
		}
		return nil
	})
	return firstError(err, flush())
}

// count counts the rows of a table that an earlier run copied.
func (m *moving) count(name string) error {
	n, err := m.draft.c.integer("SELECT count(*) FROM " + name)
	m.done += n
	return err
}

// finish brings the copy to the newest schema, unless that is done, and checks
// it. It is fenced as moving still.
func (m *moving) finish(ctx context.Context, done bool) ([]Violation, error) {
	if !done {
		if err := m.draft.settle(func(t *tx) error { return reach(t, positionFinished, "all") }); err != nil {
			return nil, err
		}
	}
	found, err := m.draft.Fsck(ctx, nil)
	if err == nil && len(found) == 0 {
		return nil, nil
	}
	return found, errors.Join(err, m.draft.transaction(func(t *tx) error {
		return t.exec("DELETE FROM "+progressTable+" WHERE name = ?", positionFinished)
	}))
}

// UndoMove makes a database that was moved, or is on its way, one that servers
// open again. One whose state went elsewhere is fenced until that is confirmed;
// one that was on its way answers joins as before, unless the server that opens
// it finds that it is a copy. CodeConflict for others.
func UndoMove(ctx context.Context, o Options, actor string) (f Fence, err error) {
	d, err := open(ctx, o, toUndo)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	err = d.do(ctx, func(t *tx) error {
		s, _, err := t.storeRow()
		if err != nil {
			return err
		}
		switch s.fence.State {
		case FenceMoving:
			f = Fence{State: FenceNone}
			err = t.exec("UPDATE store SET fence = 'none', fence_at = NULL, fence_note = ''")
			return t.finish(err, joinery.AuditEntry{
				At: now(), Event: joinery.AuditServerConfirmed, Actor: actor, Org: t.operator,
				Detail: map[string]string{"fence": string(s.fence.State), "reason": "the move to " + s.fence.Note + " was given up"},
			})
		case FenceMoved:
			f = Fence{State: FenceForked, Since: now(), Note: "its state was moved to " + s.fence.Note + ", and is taken up here again"}
			return t.raiseFence(f, actor)
		default:
			return joinery.Errorf(joinery.CodeConflict, "the database was not moved: there is nothing to undo")
		}
	})
	return f, err
}
