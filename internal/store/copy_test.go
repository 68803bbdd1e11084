package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"joinery"
)

// Whoever adds a table must say where it stands among the copied ones, and each
// must come behind those to which it refers.
func TestCopiesKnowEveryTable(t *testing.T) {
	d := mustOpen(t, newOptions(t))
	err := d.read(t.Context(), func(c conn) error {
		found, err := d.engine.columns(c)
		if err != nil {
			return err
		}
		var before []string
		for _, table := range tables {
			before = append(before, table.name)
			columns, there := found[table.name]
			if there == (table.until != 0) {
				t.Errorf("table %s: there is one: %v, until schema %d", table.name, there, table.until)
			}
			if !there {
				continue
			}
			for _, key := range table.key {
				if !slices.ContainsFunc(columns, func(c column) bool { return c.name == key }) {
					t.Errorf("table %s has no column %s", table.name, key)
				}
			}
			delete(found, table.name)
			err := c.each("SELECT \"table\" FROM pragma_foreign_key_list(?)", func(r *row) error {
				if name := r.text(); !slices.Contains(before, name) {
					t.Errorf("table %s refers to %s, which is copied after it", table.name, name)
				}
				return nil
			}, table.name)
			if err != nil {
				return err
			}
		}
		for name := range found {
			t.Errorf("table %s is not among the copied ones: see tables.go", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if last := tables[len(tables)-1].name; last != storeTable {
		t.Errorf("%s comes last, want the store row", last)
	}
}

// contents reads every row of every table.
func contents(t *testing.T, d *DB) map[string][][]any {
	t.Helper()
	all := map[string][][]any{}
	err := d.Copy(t.Context(), func(s *Copy) error {
		for _, table := range s.Tables() {
			if err := s.Rows(table, func(row []any) error { all[table] = append(all[table], row); return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// copyInto fills a draft with all that d has.
func copyInto(ctx context.Context, d *DB, o Options) (draft *Draft, err error) {
	err = d.Copy(ctx, func(s *Copy) error {
		if draft, err = NewDraft(ctx, o, s.Schema()); err != nil {
			return err
		}
		for _, table := range s.Tables() {
			var rows [][]any
			if err := s.Rows(table, func(row []any) error { rows = append(rows, row); return nil }); err != nil {
				return err
			}
			if err := draft.Insert(ctx, table, rows); err != nil {
				return err
			}
		}
		return nil
	})
	return draft, err
}

// A draft of a copy is the same state, fenced, and nothing of it is there until
// it is published.
func TestDraftOfACopyIsTheSameState(t *testing.T) {
	from := mustOpen(t, Options{Path: richDatabase(t), UnsafeNoSync: true})
	o := Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
	draft, err := copyInto(t.Context(), from, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := draft.Fence("restored from a test", "tester"); err != nil {
		t.Fatal(err)
	}
	if found, err := draft.Fsck(t.Context(), nil); err != nil || len(found) > 0 {
		t.Fatal(found, err)
	}
	_, err = Open(t.Context(), o)
	wants(t, err, ErrLocked)
	if exists(o.Path) {
		t.Fatal("the database is there before it is complete")
	}
	if err := draft.Publish(); err != nil {
		t.Fatal(err)
	}
	if err := draft.Discard(); err != nil {
		t.Fatal(err)
	}
	to := mustOpen(t, o)
	if f := to.Fence(); f.State != FenceRestored || f.Note != "restored from a test" {
		t.Errorf("fence %+v", f)
	}
	was, is := contents(t, from), contents(t, to)
	if n := len(is["audit"]); n != len(was["audit"])+1 {
		t.Errorf("%d audit rows after %d, want one more: of the restore", n, len(was["audit"]))
	}
	is["audit"] = is["audit"][:len(was["audit"])]
	delete(was, storeTable)
	delete(is, storeTable)
	if diff := cmp.Diff(was, is); diff != "" {
		t.Error(diff)
	}
	clean(t, to)
	left, err := filepath.Glob(o.Path + ".new*")
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A copy made in the midst of a confirmation is confirmed from the beginning:
// what rose before the copy was taken may have been issued since.
func TestCopyOfAHalfConfirmedDatabase(t *testing.T) {
	from := mustOpen(t, Options{Path: richDatabase(t), UnsafeNoSync: true})
	ctx := t.Context()
	if err := from.RaiseFence(ctx, "a test", "tester"); err != nil {
		t.Fatal(err)
	}
	if _, err := from.beginJump(ctx, Confirmation{Jump: 1000}); err != nil {
		t.Fatal(err)
	}
	if _, err := from.jumpBatch(ctx, 1000); err != nil {
		t.Fatal(err)
	}
	o := Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
	draft, err := copyInto(ctx, from, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := firstError(draft.Fence("restored", "tester"), draft.Publish()); err != nil {
		t.Fatal(err)
	}
	before := joinNonces(t, from)
	to := mustOpen(t, o)
	if _, err := to.ConfirmFence(ctx, Confirmation{Jump: 500, Earlier: new(0)}); err != nil {
		t.Fatal(err)
	}
	for id, now := range joinNonces(t, to) {
		if now != before[id]+500 {
			t.Errorf("key set %d: JoinNonce %d after %d", id, now, before[id])
		}
	}
	clean(t, to)
}

func TestDraftsNeverOverwrite(t *testing.T) {
	o := newOptions(t)
	_, err := NewDraft(t.Context(), o, 1)
	wants(t, err, ErrExists, o.Path)
	if err := os.Rename(o.Path, o.Path+".away"); err != nil {
		t.Fatal(err)
	}
	// The log of the database that was there would be taken for the new one's.
	if err := os.WriteFile(o.Path+"-wal", []byte("log"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = NewDraft(t.Context(), o, 1)
	wants(t, err, ErrExists, "-wal")
	wants(t, Create(t.Context(), o), ErrExists, "-wal")
	if err := os.Remove(o.Path + "-wal"); err != nil {
		t.Fatal(err)
	}
	_, err = NewDraft(t.Context(), o, 99)
	wants(t, err, ErrNewerSchema)

	draft, err := NewDraft(t.Context(), o, 1)
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewDraft(t.Context(), o, 1)
	wants(t, err, ErrLocked)
	if err := draft.Fence("no rows", "tester"); !errors.Is(err, ErrCopy) {
		t.Errorf("a draft without a store row: %v", err)
	}
	if err := draft.Discard(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(o.Path + ".new*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A backup of an older schema is restored as that schema, and then migrated.
func TestDraftOfAnOlderSchema(t *testing.T) {
	o := Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
	draft, err := NewDraft(t.Context(), o, 1)
	if err != nil {
		t.Fatal(err)
	}
	org := joinery.NewOrgID()
	rows := map[string][]any{"organisation": {int64(org), OperatorOrg, int64(1)}, storeTable: {int64(1), int64(7), int64(org), int64(1)}}
	for table, row := range rows {
		if n := len(draft.Columns(table)); n != len(row) {
			t.Fatalf("%s has %d columns in schema 1", table, n)
		}
	}
	for _, table := range []string{"organisation", storeTable} {
		if err := draft.Insert(t.Context(), table, [][]any{rows[table]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := firstError(draft.Fence("old", "tester"), draft.Publish()); err != nil {
		t.Fatal(err)
	}
	d := mustOpen(t, o)
	if d.Epoch() != 8 || !d.Fence().Up() {
		t.Errorf("epoch %d, fence %+v", d.Epoch(), d.Fence())
	}
	clean(t, d)
}

// A copy beside a server that writes is one state, and holds nobody up.
func TestCopyBesideAServer(t *testing.T) {
	o := Options{Path: richDatabase(t), UnsafeNoSync: true}
	server := mustOpen(t, o)
	live, err := OpenLive(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = live.Close() }()
	var before, during int64
	err = live.Copy(t.Context(), func(s *Copy) (err error) {
		if before, err = s.Count(); err != nil {
			return err
		}
		joinSome(t, server, 3)
		during, err = s.Count()
		return err
	})
	if err != nil || before == 0 || before != during {
		t.Fatalf("%d rows, then %d: %v", before, during, err)
	}
	if found, err := live.Fsck(t.Context(), nil); err != nil || len(found) > 0 {
		t.Fatal(found, err)
	}
	wants(t, live.AddOrg(t.Context(), joinery.Organisation{}, joinery.AuditEntry{}), ErrClosed)
	if after := contents(t, live); int64(countAll(after)) != before+3 {
		t.Errorf("%d rows after three joins and %d", countAll(after), before)
	}
}

func countAll(all map[string][][]any) (n int) {
	for _, rows := range all {
		n += len(rows)
	}
	return n
}

// Tables longer than a page are read whole, in the order of their keys.
func TestCopyReadsPageByPage(t *testing.T) {
	d := mustOpen(t, Options{Path: richDatabase(t), UnsafeNoSync: true})
	n := 2*copyPage + 1
	err := d.do(t.Context(), func(t *tx) error {
		peer, err := t.integer("SELECT min(id) FROM peer")
		if err = firstError(err, t.exec("DELETE FROM refusal_unknown")); err != nil {
			return err
		}
		for i := range n {
			err := t.exec("INSERT INTO refusal_unknown (peer, join_eui, dev_eui, reason, count, first_at, last_at, received) VALUES (?, ?, ?, '', 1, 0, 0, '')",
				peer, testDevEUI(i/7), testDevEUI(i%7))
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	var last string
	err = d.Copy(t.Context(), func(s *Copy) error {
		names := s.Columns("refusal_unknown")
		return s.Rows("refusal_unknown", func(row []any) error {
			key := fmt.Sprintf("%x %x", row[slices.Index(names, "join_eui")], row[slices.Index(names, "dev_eui")])
			if seen[key] || strings.Compare(key, last) <= 0 {
				t.Errorf("row %s after %s", key, last)
			}
			seen[key], last = true, key
			return nil
		})
	})
	if err != nil || len(seen) != n {
		t.Fatalf("%d of %d rows, %v", len(seen), n, err)
	}
}
