package store

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"joinery/internal/store/storetest/pgtest"
)

// newPostgres gives options for a new database in PostgreSQL.
func newPostgres(t testing.TB) Options {
	t.Helper()
	url := pgtest.Shared(t).Joinery(t, func(url string) error {
		return Create(context.Background(), Options{URL: url, UnsafeNoSync: true})
	})
	return Options{URL: url, UnsafeNoSync: true, Witnesses: []string{t.TempDir()}}
}

// inPostgres is what is PostgreSQL's in d.
func inPostgres(d *DB) *postgresDB { return d.engine.(*postgresDB) }

// Every migration has its twin under the same number and name.
func TestMigrationsHaveTwins(t *testing.T) {
	sqlite, err := schemaMigrations()
	if err != nil {
		t.Fatal(err)
	}
	postgres, err := postgresMigrations()
	if err != nil {
		t.Fatal(err)
	}
	names := func(all []migration) (names []string) {
		for _, m := range all {
			names = append(names, m.name)
		}
		return names
	}
	if diff := cmp.Diff(names(sqlite), names(postgres)); diff != "" {
		t.Errorf("(-sqlite +postgres)\n%s", diff)
	}
}

// table is what both engines can say of a table, in words of our own.
type table struct {
	Columns    []string // name, kind and whether NULL may be in it, in order
	PrimaryKey string
	Indexes    []string // columns, condition, whether unique; without primary keys
	References []string
	Checks     int
}

// The schemas that all migrations make are the same in both engines.
func TestSchemasAgree(t *testing.T) {
	inFile, inServer := map[string]*table{}, map[string]*table{}
	if err := mustOpen(t, newOptions(t)).read(t.Context(), func(c conn) error { return sqliteSchema(c, inFile) }); err != nil {
		t.Fatal(err)
	}
	if err := mustOpen(t, newPostgres(t)).read(t.Context(), func(c conn) error { return postgresSchema(c, inServer) }); err != nil {
		t.Fatal(err)
	}
	if len(inFile) < 20 {
		t.Fatalf("only %d tables are seen", len(inFile))
	}
	delete(inServer, "joinery_schema") // stands for the head of the file
	for _, schema := range []map[string]*table{inFile, inServer} {
		for _, one := range schema {
			slices.Sort(one.Indexes)
			slices.Sort(one.References)
		}
	}
	if diff := cmp.Diff(inFile, inServer); diff != "" {
		t.Errorf("(-sqlite +postgres)\n%s", diff)
	}
}

func describe(name, kind string, nullable bool) string {
	if nullable {
		kind += " or NULL"
	}
	return name + " " + kind
}

func index(unique bool, columns []string, where string) string {
	text := strings.Join(columns, ", ")
	if unique {
		text = "unique " + text
	}
	if where != "" {
		text += " where " + where
	}
	return text
}

func sqliteSchema(c conn, tables map[string]*table) error {
	texts := map[string]string{}
	err := c.each("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'", func(r *row) error {
		name := r.text()
		texts[name], tables[name] = r.text(), &table{}
		return nil
	})
	if err != nil {
		return err
	}
	kinds := map[string]string{"INTEGER": "number", "TEXT": "text", "BLOB": "bytes"}
	for name, one := range tables {
		key := map[int64]string{}
		if err := c.each("SELECT name, type, \"notnull\", pk FROM pragma_table_info('"+name+"') ORDER BY cid", func(r *row) error {
			column, kind, notNull, pk := r.text(), r.text(), r.bool(), r.int()
			one.Columns = append(one.Columns, describe(column, kinds[kind], !notNull && pk == 0))
			if pk > 0 {
				key[pk] = column
			}
			return nil
		}); err != nil {
			return err
		}
		var columns []string
		for i := range len(key) {
			columns = append(columns, key[int64(i)+1])
		}
		one.PrimaryKey = strings.Join(columns, ", ")
		if err := sqliteIndexes(c, name, one); err != nil {
			return err
		}
		if err := c.each("SELECT \"from\", \"table\" FROM pragma_foreign_key_list('"+name+"')", func(r *row) error {
			one.References = append(one.References, r.text()+" → "+r.text())
			return nil
		}); err != nil {
			return err
		}
		one.Checks = strings.Count(withoutComments(texts[name]), "CHECK (")
	}
	return nil
}

func withoutComments(sql string) (code string) {
	for line := range strings.Lines(sql) {
		line, _, _ = strings.Cut(line, "--")
		code += line + "\n"
	}
	return code
}

func sqliteIndexes(c conn, name string, one *table) error {
	return c.each(`SELECT l.name, l."unique", coalesce(m.sql, '') FROM pragma_index_list('`+name+`') l
		LEFT JOIN sqlite_master m ON m.name = l.name WHERE l.origin <> 'pk'`, func(r *row) error {
		indexName, unique, sql := r.text(), r.bool(), r.text()
		var columns []string
		err := c.each("SELECT name FROM pragma_index_info('"+indexName+"') ORDER BY seqno", func(r *row) error {
			columns = append(columns, r.text())
			return nil
		})
		_, where, _ := strings.Cut(sql, " WHERE ")
		one.Indexes = append(one.Indexes, index(unique, columns, where))
		return err
	})
}

func postgresSchema(c conn, tables map[string]*table) error {
	kinds := map[string]string{"int8": "number", "int4": "number", "int2": "number", "text": "text", "bytea": "bytes"}
	err := c.each(`SELECT CAST(t.relname AS text), CAST(a.attname AS text), CAST(y.typname AS text), a.attnotnull
		FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid JOIN pg_type y ON y.oid = a.atttypid
		WHERE t.relkind = 'r' AND t.relnamespace = CAST(current_schema() AS regnamespace) AND a.attnum > 0 AND NOT a.attisdropped
		ORDER BY t.relname, a.attnum`, func(r *row) error {
		name, column, kind, notNull := r.text(), r.text(), r.text(), r.bool()
		if tables[name] == nil {
			tables[name] = &table{}
		}
		if kinds[kind] == "" {
			return fmt.Errorf("%s.%s has type %s, which SQLite has not", name, column, kind)
		}
		tables[name].Columns = append(tables[name].Columns, describe(column, kinds[kind], !notNull))
		return nil
	})
	if err != nil {
		return err
	}
	if err := postgresIndexes(c, tables); err != nil {
		return err
	}
	return c.each(`SELECT CAST(CAST(k.conrelid AS regclass) AS text), CAST(k.contype AS text), coalesce(CAST(a.attname AS text), ''),
		coalesce(CAST(CAST(nullif(k.confrelid, 0) AS regclass) AS text), '')
		FROM pg_constraint k LEFT JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
		WHERE k.connamespace = CAST(current_schema() AS regnamespace) AND k.contype IN ('c', 'f')`, func(r *row) error {
		one, kind, column, parent := tables[r.text()], r.text(), r.text(), r.text()
		if kind == "c" {
			one.Checks++
		} else {
			one.References = append(one.References, column+" → "+parent)
		}
		return nil
	})
}

// SQLite's words for what PostgreSQL writes otherwise: casts, brackets, and the
// hash that stands for a value which is too long for an index.
var postgresWords = regexp.MustCompile(`::\w+|sha256\(|[()]`)

// postgresOneOf is what it writes for one of a list, without the casts and brackets.
var postgresOneOf = regexp.MustCompile(`= ANY ARRAY\[(.*)\]`)

func postgresIndexes(c conn, tables map[string]*table) error {
	return c.each(`SELECT CAST(CAST(i.indrelid AS regclass) AS text), i.indisunique, i.indisprimary,
		(SELECT string_agg(pg_get_indexdef(i.indexrelid, n, true), ', ' ORDER BY n) FROM generate_series(1, i.indnkeyatts) AS n),
		coalesce(pg_get_expr(i.indpred, i.indrelid), '')
		FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
		WHERE t.relkind = 'r' AND t.relnamespace = CAST(current_schema() AS regnamespace)`, func(r *row) error {
		one, unique, primary := tables[r.text()], r.bool(), r.bool()
		columns := strings.Split(postgresWords.ReplaceAllString(r.text(), ""), ", ")
		where := postgresOneOf.ReplaceAllString(postgresWords.ReplaceAllString(r.text(), ""), "IN ($1)")
		if primary {
			one.PrimaryKey = strings.Join(columns, ", ")
		} else {
			one.Indexes = append(one.Indexes, index(unique, columns, where))
		}
		return nil
	})
}
