package store

import (
	"fmt"
	"slices"
	"strings"
)

// table is a table of the schema as copies of the state know it.
type table struct {
	name string
	// key is the columns that order its rows, and by which a copy that was cut
	// off goes on.
	key []string
	// order, where it is set, comes before the key: rows that others of the same
	// table refer to come first.
	order string
}

// tables is every table that holds state, each after those to which it refers.
// store comes last: what lacks its row is no database yet.
var tables = []table{
	{name: "organisation", key: []string{"id"}},
	{name: "join_eui_range", key: []string{"first"}},
	{name: "signer", key: []string{"id"}},
	{name: "peer", key: []string{"id"}},
	{name: "peer_identity", key: []string{"peer", "kind", "name"}},
	{name: "peer_credential", key: []string{"peer", "idx"}},
	{name: "kek", key: []string{"id"}},
	{name: "master_key", key: []string{"name"}},
	{name: "key_set", key: []string{"id"}},
	{name: "sealed_root", key: []string{"key_set"}},
	{name: "disclosure", key: []string{"id"}},
	{name: "device", key: []string{"id"}},
	{name: "ownership", key: []string{"device", "epoch"}},
	{name: "binding", key: []string{"device"}},
	{name: "manifest_entry", key: []string{"device"}},
	{name: "roaming_rule", key: []string{"org", "device"}},
	{name: "activation", key: []string{"id"}},
	{name: "refusal", key: []string{"device", "peer", "reason"}},
	{name: "service_term", key: []string{"id"}},
	{name: "attestation", key: []string{"device"}},
	{name: "audit", key: []string{"id"}},
	{name: "import", key: []string{"id"}},
	{name: "import_error", key: []string{"import", "idx"}},
	{name: "api_key", key: []string{"id"}},
	{name: storeTable, key: []string{"id"}},
}

const storeTable = "store"

// progressTable is in databases alone that are being copied into, to say how
// far that got.
const progressTable = "copy_progress"

func findTable(name string) (table, error) {
	i := slices.IndexFunc(tables, func(t table) bool { return t.name == name })
	if i < 0 {
		return table{}, fmt.Errorf("%w: it has a table %q, which this program does not know", ErrCopy, name)
	}
	return tables[i], nil
}

// columns gives the columns of a table in their order; none for a table that
// does not exist.
func (c conn) columns(name string) (list []string, err error) {
	err = c.each("SELECT name FROM pragma_table_info(?)", func(r *row) error {
		list = append(list, r.text())
		return nil
	}, name)
	return list, err
}

// tableNames gives the tables that there are, the engine's own left out.
func (c conn) tableNames() (list []string, err error) {
	err = c.each("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name", func(r *row) error {
		list = append(list, r.text())
		return nil
	})
	return list, err
}

// present gives the tables of the list that a database of an older schema has,
// too, and refuses one with tables that are not in the list: a copy would
// forget them.
func (c conn) present() (list []table, err error) {
	names, err := c.tableNames()
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		if i := slices.Index(names, t.name); i >= 0 {
			names = slices.Delete(names, i, i+1)
			list = append(list, t)
		}
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == progressTable })
	if len(names) > 0 {
		return nil, fmt.Errorf("%w: the database has tables that copies do not know: %s; report it as a defect", ErrCopy, strings.Join(names, ", "))
	}
	return list, nil
}

// questionMarks is n of them, for a statement's arguments.
func questionMarks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }
