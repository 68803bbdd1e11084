package store

// checkEngine implements engine. PostgreSQL enforces CHECKs and references, but
// not for a superuser who switches them off. It also gives the checkup its time,
// and keeps it from reading whole tables at once, which it does in a
// transaction that ends with it.
func (*postgresDB) checkEngine(f *checkup) error {
	if s, ok := f.c.session.(*pgSession); ok {
		s.paged, s.limit = true, 0
		set := "SET LOCAL "
		if s.idle() { // a draft, whose connection is its own
			set = "SET "
		}
		if err := s.script(set + "statement_timeout = 0; " + set + "idle_in_transaction_session_timeout = 0"); err != nil {
			return err
		}
	}
	err := f.c.each(`SELECT CAST(CAST(conrelid AS regclass) AS text), CAST(conname AS text) FROM pg_constraint
		WHERE connamespace = CAST(current_schema() AS regnamespace) AND NOT convalidated`, func(r *row) error {
		f.report(r.text(), r.text(), "every constraint is validated", fixTamper)
		return nil
	})
	if err != nil {
		return err
	}
	// References of one column, which all of ours are.
	const references = `SELECT CAST(CAST(c.conrelid AS regclass) AS text), CAST(a.attname AS text), CAST(CAST(c.confrelid AS regclass) AS text), CAST(p.attname AS text)
		FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
		JOIN pg_attribute p ON p.attrelid = c.confrelid AND p.attnum = c.confkey[1]
		WHERE c.contype = 'f' AND c.connamespace = CAST(current_schema() AS regnamespace) ORDER BY 1, 2`
	return f.c.each(references, func(r *row) error {
		table, column, parent, key := r.text(), r.text(), r.text(), r.text()
		return f.c.each("SELECT t."+column+" FROM "+table+" t WHERE t."+column+" IS NOT NULL AND NOT EXISTS (SELECT 1 FROM "+parent+
			" p WHERE p."+key+" = t."+column+")", func(r *row) error {
			f.report(table, r.int(), "refers to a row of "+parent+" that does not exist", fixTamper)
			return nil
		})
	})
}

// lastAuditID implements engine.
func (*postgresDB) lastAuditID(c conn) (int64, error) {
	return c.integer("SELECT audit_id FROM joinery_schema")
}
