package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// stateTable is a table of the schema as copies of the state know it.
type stateTable struct {
	name string
	// key is the columns that order its rows, and by which a copy that was cut
	// off goes on.
	key []string
	// until is the last schema that has the table; 0 is the newest.
	until int
}

// tables is every table that holds state, each after those to which it refers.
// store comes last: what lacks its row is no database yet.
var tables = []stateTable{
	{name: "organisation", key: []string{"id"}},
	{name: "person", key: []string{"id"}},
	{name: "membership", key: []string{"org", "person"}},
	{name: "identity", key: []string{"issuer", "subject"}},
	{name: "passkey", key: []string{"id"}},
	{name: "invitation", key: []string{"id"}},
	{name: "session", key: []string{"id"}},
	{name: "sign_in", key: []string{"hash"}},
	{name: "join_eui_range", key: []string{"first"}},
	{name: "signer", key: []string{"id"}},
	{name: "peer", key: []string{"id"}},
	{name: "peer_identity", key: []string{"peer", "kind", "name"}},
	{name: "peer_credential", key: []string{"peer", "idx"}},
	{name: "kek", key: []string{"id"}},
	{name: "master_key", key: []string{"name"}},
	{name: "key_set", key: []string{"id"}},
	{name: "sealed_root", key: []string{"key_set"}},
	{name: "device", key: []string{"id"}},
	{name: "ownership", key: []string{"device", "epoch"}},
	{name: "export_recipient", key: []string{"id"}},
	{name: "export_policy", key: []string{"org"}},
	{name: "export", key: []string{"id"}},
	{name: "export_item", key: []string{"export", "idx"}},
	{name: "binding", key: []string{"device"}},
	{name: "transfer", key: []string{"device"}},
	{name: "dispute", key: []string{"id"}},
	{name: "challenge", key: []string{"random"}},
	{name: "claim_failure", key: []string{"dev_eui", "caller", "at"}},
	{name: "manifest_entry", key: []string{"device"}},
	{name: "last_join", key: []string{"device"}},
	{name: "last_join_seen", key: []string{"id"}},
	{name: "join_server", key: []string{"id"}},
	{name: "join_server_range", key: []string{"join_server", "inward", "first"}},
	{name: "rekey", key: []string{"id"}},
	{name: "rekey_candidate", key: []string{"device", "key_set"}},
	{name: "rekey_batch", key: []string{"id"}},
	{name: "rekey_batch_item", key: []string{"batch", "idx"}},
	{name: "device_set", key: []string{"id"}},
	{name: "passage", key: []string{"rekey"}},
	{name: "expectation", key: []string{"id"}},
	{name: "arrival", key: []string{"id"}},
	{name: "arrival_key", key: []string{"arrival", "label"}},
	{name: "arrival_news", key: []string{"join_server", "n"}},
	{name: "rekeying_key", key: []string{"key_set"}},
	{name: "disclosure", key: []string{"id"}},
	{name: "told", key: []string{"device"}},
	{name: "told_disclosure", key: []string{"device", "idx"}},
	{name: "answer", key: []string{"id"}},
	{name: "roaming_rule", key: []string{"org", "device"}},
	{name: "activation", key: []string{"id"}},
	{name: "refusal", key: []string{"device", "peer", "reason"}, until: 1},
	{name: "refusal_device", key: []string{"device", "owner", "peer", "reason"}},
	{name: "refusal_unknown", key: []string{"peer", "join_eui", "dev_eui"}},
	{name: "refusal_peer", key: []string{"peer", "reason"}},
	{name: "attempt", key: []string{"org", "device", "by_whom", "act", "reason"}},
	{name: "event_page", key: []string{"id"}},
	{name: "event_feed", key: []string{"id"}},
	{name: "event_source", key: []string{"server"}},
	{name: "webhook", key: []string{"id"}},
	{name: "webhook_delivery", key: []string{"webhook", "n"}},
	{name: "service_plan", key: []string{"name"}},
	{name: "service_plan_maker", key: []string{"maker"}},
	{name: "service_plan_range", key: []string{"first"}},
	{name: "service_term", key: []string{"id"}, until: 11},
	{name: "service_fact", key: []string{"device", "kind", "org", "reference"}},
	{name: "service_active", key: []string{"month", "device"}},
	{name: "service_credit", key: []string{"org"}},
	{name: "service_grant", key: []string{"org", "reference"}},
	{name: "service_clock", key: []string{"id"}},
	{name: "attestation", key: []string{"device"}, until: 19},
	{name: "attest_policy", key: []string{"org"}},
	{name: "product", key: []string{"id"}},
	{name: "product_range", key: []string{"product", "first"}},
	{name: "product_key", key: []string{"id"}},
	{name: "firmware_release", key: []string{"id"}},
	{name: "attest_challenge", key: []string{"random"}},
	{name: "attest_result", key: []string{"device", "level"}},
	{name: "attest_component", key: []string{"device", "level", "firmware"}},
	{name: "attest_shown", key: []string{"device", "component", "firmware"}},
	{name: "attest_unpinned", key: []string{"signer"}},
	{name: "attest_fragment", key: []string{"device", "message", "idx"}},
	{name: "audit", key: []string{"id"}},
	{name: "served_keys", key: []string{"id"}},
	{name: "log_state", key: []string{"id"}},
	{name: "log_line", key: []string{"line"}},
	{name: "log_bundle", key: []string{"idx"}},
	{name: "log_tile", key: []string{"level", "idx"}},
	{name: "log_place", key: []string{"kind", "key", "first"}},
	{name: "log_found", key: []string{"id"}},
	{name: "log_witness", key: []string{"name", "line"}},
	{name: "log_erasure", key: []string{"ref"}},
	{name: "import", key: []string{"id"}},
	{name: "import_error", key: []string{"import", "idx"}},
	{name: "import_run", key: []string{"import", "first"}},
	{name: "api_key", key: []string{"id"}},
	{name: storeTable, key: []string{"id"}},
}

const storeTable = "store"

// progressTable is in databases alone that state is being moved into, to say how
// far that got.
const progressTable = "copy_progress"

// makeProgress makes the table. Both engines know these types, and nothing but
// move.go reads them.
func makeProgress(c conn) error {
	return c.exec("CREATE TABLE " + progressTable + " (name TEXT PRIMARY KEY, position TEXT NOT NULL)")
}

// column is a column of a table as copies of the state know it.
type column struct {
	name string
	kind columnKind
}

// columnKind is in what form values of a column are stored, in either engine.
type columnKind uint8

const (
	kindInteger columnKind = iota + 1
	kindText
	kindBlob
)

// readColumns gives the columns by table that query lists as table, name and
// declared type, of which kinds tells the form.
func readColumns(c conn, query string, kinds map[string]columnKind) (map[string][]column, error) {
	found := map[string][]column{}
	err := c.each(query, func(r *row) error {
		table, name, declared := r.text(), r.text(), r.text()
		kind, ok := kinds[declared]
		if !ok {
			return fmt.Errorf("%w: column %s of %s is of type %s", ErrCopy, name, table, declared)
		}
		found[table] = append(found[table], column{name, kind})
		return nil
	})
	return found, err
}

// value reads the next column: nil, int64, string or bytes.
func (r *row) value(kind columnKind) any {
	switch {
	case r.null():
		r.next()
		return nil
	case kind == kindText:
		return r.text()
	case kind == kindBlob:
		return r.blob()
	default:
		return r.int()
	}
}

// copied is a table with its columns, as one database has it.
type copied struct {
	stateTable
	columns []column
}

func (t copied) names() []string {
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = c.name
	}
	return names
}

// state gives the tables of the list that the database of c has; one of an older
// schema has fewer. It refuses a database with tables that are not in the list:
// a copy would forget them.
func (c conn) state(e engine) (list []copied, err error) {
	found, err := e.columns(c)
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		if columns, ok := found[t.name]; ok {
			list = append(list, copied{t, columns})
			delete(found, t.name)
		}
	}
	delete(found, progressTable)
	if len(found) > 0 {
		return nil, fmt.Errorf("%w: the database has tables that copies do not know: %s; report it as a defect",
			ErrCopy, strings.Join(slices.Sorted(maps.Keys(found)), ", "))
	}
	return list, nil
}
