package store

// checkEngine implements engine: it asks SQLite about pages, indexes, CHECKs and foreign keys.
func (*sqliteDB) checkEngine(f *checkup) error {
	err := f.c.each("PRAGMA integrity_check(100)", func(r *row) error {
		if text := r.text(); text != "ok" {
			f.report("(file)", "-", "SQLite: "+text, fixRestore)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return f.c.each("PRAGMA foreign_key_check", func(r *row) error {
		table, id, parent := r.text(), r.int(), r.text()
		f.report(table, id, "refers to a row of "+parent+" that does not exist", fixTamper)
		return nil
	})
}

// lastAuditID implements engine: SQLite remembers the last number of an
// AUTOINCREMENT column.
func (*sqliteDB) lastAuditID(c conn) (int64, error) {
	return c.integer("SELECT seq FROM sqlite_sequence WHERE name = 'audit'")
}
