package store

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"zombiezen.com/go/sqlite/sqlitex"
)

//go:embed migrations/*/*.sql
var embedded embed.FS

// applicationID marks the file as ours (PRAGMA application_id): "Join".
const applicationID = 0x4A6F696E

// migration is one numbered step of the schema. The number of the last one
// applied stands in PRAGMA user_version.
type migration struct {
	version int
	name    string
	sql     string
}

// migrations reads the steps of a directory: NNNN_name.sql, numbered from 1
// without gaps.
func migrations(files fs.FS, dir string) ([]migration, error) {
	entries, err := fs.ReadDir(files, dir)
	if err != nil {
		return nil, err
	}
	var all []migration
	for i, e := range entries {
		number, _, _ := strings.Cut(e.Name(), "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != i+1 {
			return nil, fmt.Errorf("migration %s: want number %04d", e.Name(), i+1)
		}
		sql, err := fs.ReadFile(files, path.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, migration{version, e.Name(), string(sql)})
	}
	return all, nil
}

func schemaMigrations() ([]migration, error) { return migrations(embedded, "migrations/sqlite") }

// migrate applies the steps above the database's version, each in a transaction
// of its own with the number of the version: a crash leaves whole steps.
func (c *sqliteConn) migrate(steps []migration) (from, to int, err error) {
	if from, err = c.pragmaInt("user_version"); err != nil {
		return 0, 0, err
	}
	to = from
	for _, m := range steps {
		if m.version <= from {
			continue
		}
		if err := c.apply(m); err != nil {
			return from, to, fmt.Errorf("migration %s: %w", m.name, err)
		}
		to = m.version
	}
	return from, to, nil
}

func (c *sqliteConn) apply(m migration) (err error) {
	end, err := sqlitex.ImmediateTransaction(c.Conn)
	if err != nil {
		return err
	}
	defer end(&err)
	if err := sqlitex.ExecuteScript(c.Conn, m.sql, nil); err != nil {
		return err
	}
	if broken, err := c.pragmaValue("foreign_key_check"); err != nil || broken != "" {
		return firstError(err, fmt.Errorf("rows of table %s refer to rows that do not exist", broken))
	}
	return c.pragma(fmt.Sprintf("user_version = %d", m.version))
}
