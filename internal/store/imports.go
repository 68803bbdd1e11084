package store

import (
	"cmp"
	"context"
	"slices"

	"joinery"
)

const importColumns = `SELECT id, org, kind, sha256, mac_version, rekey_profile, next, created, unchanged, failed, done, created_at,
	CASE WHEN bind_net_id IS NULL THEN NULL ELSE 0 END, bind_net_id, bind_ns_id, bind_as_id, bind_app_s_key, bind_clear_nwk,
	bind_source, bind_locked, NULL, NULL FROM import `

func scanImport(r *row) (i joinery.Import) {
	i = joinery.Import{ID: joinery.ImportID(r.int()), Org: joinery.OrgID(r.int()), Kind: joinery.ImportKind(r.text())}
	r.into(i.SHA256[:])
	i.MACVersion, i.Rekey, i.Next = macVersion(r.int()), joinery.RekeyProfile(r.int()), uint64(r.int())
	i.Created, i.Unchanged, i.Failed = uint64(r.int()), uint64(r.int()), uint64(r.int())
	i.Done, i.CreatedAt = r.bool(), r.time()
	i.Bind = scanBinding(r)
	return i
}

// BeginImport gives the import of the same file (organisation, kind and hash),
// as far as it got and as it was begun, or makes i. A finished one is given,
// too, unless a device was deleted since that it could bring back. None is given,
// finished or not, of which rows were refused before a range, a signer or a master
// key came. Of Bind, Epoch and Since are not kept: each device's binding gets its
// own.
func (d *DB) BeginImport(ctx context.Context, i joinery.Import) (joinery.Import, error) {
	return write(ctx, d, func(t *tx) (found joinery.Import, err error) {
		find := func() (bool, error) {
			return t.one(importColumns+"WHERE org = ? AND kind = ? AND sha256 = ? AND current = 1",
				func(r *row) error { found = scanImport(r); return nil }, i.Org, i.Kind, i.SHA256)
		}
		if ok, err := find(); err != nil || ok {
			return found, err
		}
		if i.ID == 0 {
			i.ID = joinery.NewImportID()
		}
		b := i.Bind
		if b == nil {
			b = &joinery.Binding{}
		}
		netID := any(nil)
		if i.Bind != nil {
			netID = b.NetID
		}
		err = t.exec(`INSERT INTO import (id, org, kind, sha256, mac_version, rekey_profile, bind_net_id, bind_ns_id, bind_as_id, bind_app_s_key,
			bind_clear_nwk, bind_source, bind_locked, next, created, unchanged, failed, done, current, created_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0, 1, ?)`,
			i.ID, i.Org, i.Kind, i.SHA256, optional{i.MACVersion}, i.Rekey, netID, optional{b.NSID}, b.ASID, b.Policy, b.ClearNwkKeys, b.Source, b.Locked, i.CreatedAt)
		if err := conflict(err, "the file is being imported"); err != nil {
			return found, err
		}
		_, err = find()
		return found, err
	})
}

// reopenImports forgets imports of which rows were refused, because what was
// changed may let those pass: the same file is looked at anew. One that is under
// way goes on by its id, and could not take again what it has behind it.
func (t *tx) reopenImports() error {
	return t.exec("UPDATE import SET current = 0 WHERE failed > 0 AND current = 1")
}

// Import finds an import by its id; CodeNotFound.
func (d *DB) Import(ctx context.Context, id joinery.ImportID) (i joinery.Import, err error) {
	err = d.read(ctx, func(c conn) error { i, err = c.findImport(id); return err })
	return i, err
}

func (c conn) findImport(id joinery.ImportID) (i joinery.Import, err error) {
	found, err := c.one(importColumns+"WHERE id = ?", func(r *row) error { i = scanImport(r); return nil }, id)
	if err == nil && !found {
		err = notFound("import")
	}
	return i, err
}

// ImportErrors gives at most limit failed rows of an import, by index, from
// above after; 0 is from the beginning, row 0 included. The next page begins
// after the last index of this one, so a page has room for two rows at least:
// one of row 0 alone would be followed by itself. CodeNotFound for an absent
// import.
func (d *DB) ImportErrors(ctx context.Context, id joinery.ImportID, after uint64, limit int) (rows []joinery.RowResult, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		if _, err := c.findImport(id); err != nil {
			return err
		}
		return c.each("SELECT idx, line, join_eui, dev_eui, serial, conflict, reason FROM import_error WHERE import = ?1 AND (idx > ?2 OR ?2 = 0) ORDER BY idx LIMIT ?3",
			func(r *row) error {
				status := map[bool]joinery.RowStatus{false: joinery.RowFailed, true: joinery.RowConflict}
				rows = append(rows, joinery.RowResult{
					Index: uint64(r.int()), Line: uint64(r.int()), JoinEUI: r.eui(), DevEUI: r.eui(), Serial: r.text(),
					Status: status[r.bool()], Reason: r.text(),
				})
				return nil
			}, id, after, max(2, pageLimit(limit)))
	})
	return rows, err
}

// CommitRows takes a run of rows of one import in one transaction, in which the
// import's Next moves to From+Count: a crash at any instant leaves the import
// where Next says. It gives the fate of each row, by index. CodeConflict where
// From is not the import's Next, CodeTooLarge above joinery.MaxImportRows.
//
// A row fails singly where its JoinEUI is not in a range of the import's
// organisation, where its element or its (JoinEUI, DevEUI) belongs to somebody
// else, and where the device is there with other keys or another MACVersion. A
// device that is there and was made or is held by the organisation is
// unchanged: its binding stays, and sealed keys stay those that are there.
func (d *DB) CommitRows(ctx context.Context, rows joinery.ImportRows, a joinery.AuditEntry) ([]joinery.RowResult, error) {
	if err := checkRows(rows); err != nil {
		return nil, err
	}
	return write(ctx, d, func(t *tx) ([]joinery.RowResult, error) {
		i, err := t.findImport(rows.Import)
		if err != nil {
			return nil, err
		}
		if i.Done || i.Next != rows.From {
			return nil, joinery.Errorf(joinery.CodeConflict, "the import goes on at row %d, not at %d", i.Next, rows.From)
		}
		run, err := t.newRun(i, rows)
		if err != nil {
			return nil, err
		}
		results := slices.Clone(rows.Failed)
		for _, n := range rows.Devices {
			result, err := t.importDevice(i, n, run.number)
			if err != nil {
				return nil, err
			}
			run.take(n, result)
			if result.Status == joinery.RowCreated {
				told, err := t.putTold(result.Device, n.Told, i.Org, a.At, "import")
				if err != nil {
					return nil, err
				}
				if told != nil {
					run.told = append(run.told, *told)
				}
			}
			results = append(results, result)
		}
		slices.SortFunc(results, func(a, b joinery.RowResult) int { return cmp.Compare(a.Index, b.Index) })
		return results, t.finish(inOrder(
			func() error { return t.commitRun(&run, a) },
			func() error { return t.moveImport(i, rows, results) },
			func() error { return t.noteRun(run, results) },
			func() error { return t.nameImport(i, rows, results) },
		), slices.Concat([]joinery.AuditEntry{a}, run.again(a), run.told)...)
	})
}

// checkRows sees to it that a run covers each index of [From, From+Count) once.
func checkRows(rows joinery.ImportRows) error {
	if rows.Count > joinery.MaxImportRows {
		return joinery.Errorf(joinery.CodeTooLarge, "an import takes at most %d rows at once", joinery.MaxImportRows)
	}
	seen := make(map[uint64]bool, rows.Count)
	mark := func(index uint64) bool {
		fits := index >= rows.From && index-rows.From < rows.Count && !seen[index]
		seen[index] = true
		return fits
	}
	ok := uint64(len(rows.Devices)+len(rows.Failed)) == rows.Count
	for _, f := range rows.Failed {
		ok = mark(f.Index) && f.Status.Refused() && ok
	}
	for _, n := range rows.Devices {
		ok = mark(n.Index) && ok
	}
	if !ok {
		return joinery.Errorf(joinery.CodeInvalid, "rows: want each index from From to From+Count once")
	}
	return nil
}

func (t *tx) moveImport(i joinery.Import, rows joinery.ImportRows, results []joinery.RowResult) error {
	count := map[joinery.RowStatus]int{}
	for _, r := range results {
		count[r.Status]++
		if !r.Status.Refused() {
			continue
		}
		err := t.exec("INSERT INTO import_error (import, idx, line, join_eui, dev_eui, serial, conflict, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			i.ID, r.Index, r.Line, r.JoinEUI, r.DevEUI, r.Serial, r.Status == joinery.RowConflict, r.Reason)
		if err != nil {
			return err
		}
	}
	return t.exec("UPDATE import SET next = next + ?, created = created + ?, unchanged = unchanged + ?, failed = failed + ?, done = ? WHERE id = ?",
		rows.Count, count[joinery.RowCreated], count[joinery.RowUnchanged], count[joinery.RowFailed]+count[joinery.RowConflict], rows.Last, i.ID)
}
