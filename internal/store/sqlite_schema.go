package store

// columns implements engine.
func (*sqliteDB) columns(c conn) (map[string][]column, error) {
	const query = `SELECT t.name, i.name, i.type FROM sqlite_schema t JOIN pragma_table_info(t.name) i
		WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY t.name, i.cid`
	kinds := map[string]columnKind{"INTEGER": kindInteger, "TEXT": kindText, "BLOB": kindBlob}
	return readColumns(c, query, kinds)
}

// lastMigration implements engine.
func (*sqliteDB) lastMigration(c conn) (int, error) {
	n, err := c.integer("SELECT user_version FROM pragma_user_version")
	return int(n), err
}
