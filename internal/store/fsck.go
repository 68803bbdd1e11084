package store

import (
	"context"
	"fmt"
	"slices"

	"joinery"
)

// Violation is one thing in the database that must not be.
type Violation struct {
	Table string
	ID    string // of the row, in its text form
	Rule  string // what does not hold
	Fix   string // what to do
}

func (v Violation) String() string { return fmt.Sprintf("%s %s: %s: %s", v.Table, v.ID, v.Rule, v.Fix) }

// Checker opens the sealed blobs of rows. It returns nil for what opens and
// belongs where it stands; see keyring.Keyring.
type Checker interface {
	CheckKeySet(ctx context.Context, ks joinery.KeySet) error
	CheckKEK(ctx context.Context, kek joinery.KEK) error
}

// What people can do about a violation.
const (
	fixRestore = "restore a backup; do not serve joins from this database"
	fixReport  = "stop the server, keep a copy of the database, and report it as a defect"
	fixTamper  = "somebody changed the database by hand: find out who, and restore a backup"
	fixSealed  = "restore the row from a backup, or import the key again; check that the key file belongs to this database"
	fixImport  = "import the file again under another name; nothing else depends on this row"
)

// checkup is one run of Fsck.
type checkup struct {
	ctx    context.Context
	c      conn
	engine engine
	check  Checker
	found  []Violation
}

// Fsck checks every invariant of the database on one state of it, while joins
// go on, and reports what does not hold. check may be nil: then sealed blobs
// are not opened. The error says that checking itself failed.
func (d *DB) Fsck(ctx context.Context, check Checker) (found []Violation, err error) {
	err = d.snapshot(ctx, func(c conn) (err error) {
		found, err = c.checkup(ctx, d.engine, check)
		return err
	})
	if ctx.Err() != nil {
		return found, ctx.Err()
	}
	return found, err
}

// checkup checks what c sees, which must be one state.
func (c conn) checkup(ctx context.Context, e engine, check Checker) ([]Violation, error) {
	f := &checkup{ctx: ctx, c: c, engine: e, check: check}
	for _, part := range []func() error{
		func() error { return e.checkEngine(f) }, f.rules, f.ranges, f.owners, f.peers, f.keySets, f.auditRows, f.refusals, f.rekeyApprovals, f.custodyLog, f.imported, f.deviceSets,
	} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	return f.found, nil
}

func (f *checkup) report(table string, id any, rule, fix string) {
	f.found = append(f.found, Violation{Table: table, ID: fmt.Sprint(id), Rule: rule, Fix: fix})
}

// rule is an invariant that one query can state: it gives the first column of
// each row that breaks it.
type rule struct {
	table string
	name  func(id int64) string // text form of the id
	text  string
	fix   string
	query string
}

func plain(id int64) string      { return fmt.Sprint(id) }
func deviceID(id int64) string   { return joinery.DeviceID(id).String() }
func keySetID(id int64) string   { return joinery.KeySetID(id).String() }
func peerID(id int64) string     { return joinery.PeerID(id).String() }
func kekID(id int64) string      { return joinery.KEKID(id).String() }
func importID(id int64) string   { return joinery.ImportID(id).String() }
func activation(id int64) string { return joinery.ActivationID(id).String() }

// simpleRules are all invariants that need no code.
var simpleRules = []rule{
	{"store", plain, "there is exactly one row, of a database that was opened", fixRestore,
		"SELECT count(*) FROM store HAVING count(*) <> 1"},
	{"organisation", plain, "the operator's organisation is named " + OperatorOrg, fixTamper,
		"SELECT o.id FROM store s JOIN organisation o ON o.id = s.operator_org WHERE o.name <> '" + OperatorOrg + "'"},

	{"device", deviceID, "its key set is its own and has its DevEUI", fixTamper,
		"SELECT d.id FROM device d JOIN key_set k ON k.id = d.key_set WHERE k.device <> d.id OR k.dev_eui <> d.dev_eui"},
	{"device", deviceID, "it alone has its key set", fixTamper,
		"SELECT max(id) FROM device GROUP BY key_set HAVING count(*) > 1"},
	{"device", deviceID, "a device of MACVersion 1.1.0 answers join-requests with NwkKey", fixTamper,
		"SELECT d.id FROM device d JOIN key_set k ON k.id = d.key_set WHERE d.mac_version = 110 AND k.root10 <> 1"},
	{"device", deviceID, "a device that is there has keys", fixSealed,
		`SELECT d.id FROM device d JOIN key_set k ON k.id = d.key_set LEFT JOIN sealed_root s ON s.key_set = k.id
		WHERE d.deleted_at IS NULL AND k.origin = 2 AND coalesce(s.nwk_use, s.app_use) IS NULL`},
	{"device", deviceID, "a released device is kept by the operator's organisation", fixTamper,
		"SELECT d.id FROM device d WHERE d.released = 1 AND d.org <> (SELECT operator_org FROM store)"},
	{"transfer", deviceID, "its device is there and belongs to who offers it", fixTamper,
		"SELECT t.device FROM transfer t JOIN device d ON d.id = t.device WHERE d.deleted_at IS NOT NULL OR d.released = 1 OR d.org <> t.org OR t.org = t.recipient"},
	{"device", deviceID, "a deleted device has no binding, roaming rule, manifest entry, refusal or sealed root", fixTamper,
		`SELECT d.id FROM device d WHERE d.deleted_at IS NOT NULL AND (EXISTS (SELECT 1 FROM binding WHERE device = d.id)
		OR EXISTS (SELECT 1 FROM roaming_rule r WHERE r.org = d.org AND r.device = d.id)
		OR EXISTS (SELECT 1 FROM refusal_device WHERE device = d.id)
		OR EXISTS (SELECT 1 FROM manifest_entry WHERE device = d.id) OR EXISTS (SELECT 1 FROM sealed_root WHERE key_set = d.key_set))`},
	{"device", deviceID, "its JoinEUI lies in a range of its maker, or as an element in one for elements", "assign the range to the maker again",
		`SELECT d.id FROM device d WHERE d.deleted_at IS NULL
		AND NOT EXISTS (SELECT 1 FROM join_eui_range r WHERE r.first <= d.join_eui AND d.join_eui <= r.last
		AND (r.org = d.maker OR r.elements = 1 AND EXISTS (SELECT 1 FROM manifest_entry m WHERE m.device = d.id)))`},
	{"device", deviceID, "a device of which a root key was disclosed says so", fixTamper,
		"SELECT d.id FROM key_set k JOIN device d ON d.id = k.device WHERE k.disclosed = 1 AND d.disclosed = 0"},
	{"device", deviceID, "a device of which another Join Server told of disclosures says that there were", fixTamper,
		"SELECT d.id FROM device d WHERE d.disclosed = 0 AND EXISTS (SELECT 1 FROM told_disclosure WHERE device = d.id)"},
	{"key_set", keySetID, "a key set of which a root key was disclosed says so", fixTamper,
		"SELECT k.id FROM key_set k WHERE k.disclosed = 0 AND EXISTS (SELECT 1 FROM disclosure WHERE key_set = k.id)"},
	{"key_set", keySetID, "it belongs to a device, whose key set it is or leads to, or was handed over with it", fixTamper,
		`SELECT k.id FROM key_set k LEFT JOIN device d ON d.id = k.device WHERE d.id IS NULL OR (d.key_set <> k.id
		AND NOT EXISTS (SELECT 1 FROM rekey_candidate WHERE device = d.id AND key_set = k.id)
		AND NOT EXISTS (SELECT 1 FROM disclosure WHERE key_set = k.id AND rekey IS NOT NULL)
		AND NOT EXISTS (SELECT 1 FROM rekeying_key r JOIN key_set o ON o.id = r.key_set WHERE r.held = k.id AND o.device = d.id)
		AND NOT EXISTS (SELECT 1 FROM arrival_key c JOIN arrival a ON a.id = c.arrival WHERE c.key_set = k.id AND a.device = d.id) AND NOT EXISTS (
		WITH RECURSIVE up(id) AS (SELECT d.key_set UNION SELECT p.parent FROM up JOIN key_set p ON p.id = up.id WHERE p.parent IS NOT NULL)
		SELECT 1 FROM up WHERE id = k.id))`},
	{"key_set", keySetID, "its JoinNonce is not below the sum of all jumps", fixReport,
		"SELECT k.id FROM key_set k JOIN store s ON k.join_nonce < s.join_nonce_floor WHERE s.jump IS NULL"},
	{"rekey_candidate", deviceID, "it follows from the key set that its device has, or was handed over with it", fixTamper,
		`SELECT c.device FROM rekey_candidate c JOIN device d ON d.id = c.device JOIN key_set k ON k.id = c.key_set
		WHERE k.device <> d.id OR k.id = d.key_set OR k.origin = 3 AND k.parent <> d.key_set`},
	{"rekey_candidate", deviceID, "an instruction that was sent, and not obeyed yet, is one", fixTamper,
		`SELECT r.device FROM rekey r JOIN device d ON d.id = r.device WHERE r.sent > 0 AND r.state IN ('armed', 'sent')
		AND NOT EXISTS (SELECT 1 FROM key_set k WHERE k.device = d.id AND k.cookie = r.cookie)`},
	{"rekey", deviceID, "what an order disclosed is of its device, and to whom it names", fixTamper,
		`SELECT r.device FROM disclosure x JOIN rekey r ON r.id = x.rekey JOIN key_set k ON k.id = x.key_set
		WHERE k.device <> r.device OR k.cookie <> r.cookie OR r.recipient IS NULL OR x.recipient <> r.thumbprint OR x.org <> r.org`},
	{"device", deviceID, "joins of a device that is being rekeyed know of it", fixTamper,
		`SELECT d.id FROM device d JOIN key_set k ON k.id = d.key_set WHERE d.rekeying = 0 AND (k.origin = 3
		OR EXISTS (SELECT 1 FROM rekey_candidate WHERE device = d.id)
		OR EXISTS (SELECT 1 FROM rekey WHERE device = d.id AND state IN ('armed', 'sent', 'confirmed')))`},
	{"key_set", keySetID, "a rekeyed one names cookie and JoinEUI", fixTamper,
		"SELECT id FROM key_set WHERE (origin = 3) <> (rekey_join_eui IS NOT NULL)"},
	{"sealed_root", keySetID, "only a sealed key set has sealed roots", fixTamper,
		"SELECT s.key_set FROM sealed_root s JOIN key_set k ON k.id = s.key_set WHERE k.origin <> 2"},
	{"rekeying_key", keySetID, "it is a sealed key, of no device's joins, and goes with one of the same device", fixTamper,
		`SELECT r.held FROM rekeying_key r JOIN key_set h ON h.id = r.held JOIN key_set k ON k.id = r.key_set
		WHERE h.origin <> 2 OR h.device <> k.device OR h.dev_eui <> k.dev_eui OR k.origin <> 2
		OR r.held IN (SELECT key_set FROM device) OR EXISTS (SELECT 1 FROM rekey_candidate WHERE key_set = r.held)
		OR r.held IN (SELECT key_set FROM activation)`},
	{"passage", plain, "something is to be done for what waits to be handed over, and its order is there", fixTamper,
		"SELECT count(*) FROM passage p JOIN rekey r ON r.id = p.rekey WHERE p.state = 'waiting' AND p.next_at IS NULL HAVING count(*) > 0"},
	{"arrival", deviceID, "what was taken in is a device of its JoinEUI and DevEUI, with a key set that came with it", fixTamper,
		`SELECT a.device FROM arrival a JOIN device d ON d.id = a.device WHERE a.dev_eui <> d.dev_eui OR a.join_eui <> d.join_eui
		OR NOT EXISTS (SELECT 1 FROM arrival_key WHERE arrival = a.id)`},
	{"arrival", plain, "what is parked has its sealed keys, and nothing else has", fixTamper,
		"SELECT count(*) FROM arrival WHERE (state = 'parked') <> (content IS NOT NULL) HAVING count(*) > 0"},
	{"arrival_news", plain, "the receipts for a Join Server are numbered without gaps", fixTamper,
		"SELECT join_server FROM arrival_news GROUP BY join_server HAVING max(n) <> count(*)"},
	{"binding", deviceID, "it has the highest epoch that its device ever gave", fixTamper,
		"SELECT b.device FROM binding b JOIN device d ON d.id = b.device WHERE b.epoch <> d.binding_epoch"},
	{"last_join", deviceID, "it is listed under its owner", "delete the rows of last_join and last_join_seen; joins fill them again",
		"SELECT j.device FROM last_join j JOIN device d ON d.id = j.device WHERE j.org <> d.org"},
	{"device", deviceID, "its service ends before joins are refused, and has a plan", fixTamper,
		`SELECT d.id FROM device d WHERE (d.service_ends_at IS NULL) <> (d.service_refuse_at IS NULL) OR d.service_refuse_at < d.service_ends_at
		OR d.service_plan IS NULL AND (d.service_ends_at IS NOT NULL OR d.service_prepaid > 0) OR d.service_prepaid > 0 AND d.service_ends_at IS NOT NULL`},
	{"device", deviceID, "its service ends when the last fact about it says", fixTamper,
		`SELECT d.id FROM device d WHERE d.service_ends_at IS NOT NULL
		AND d.service_ends_at <> (SELECT coalesce(max(f.ends_at), 0) FROM service_fact f WHERE f.device = d.id)`},
	{"service_credit", orgID, "it is what was granted less what was spent", fixTamper,
		`SELECT c.org FROM service_credit c WHERE c.months <> (SELECT coalesce(sum(g.months), 0) FROM service_grant g WHERE g.org = c.org)
		- (SELECT coalesce(sum(f.months), 0) FROM service_fact f WHERE f.org = c.org AND f.credit = 1)`},
	{"service_plan_range", plain, "it overlaps no other", "change one of the plans",
		"SELECT 1 FROM service_plan_range a JOIN service_plan_range b ON a.first < b.first AND b.first <= a.last"},
	{"manifest_entry", deviceID, "it belongs to the maker of its device", fixTamper,
		"SELECT m.device FROM manifest_entry m JOIN device d ON d.id = m.device WHERE m.org <> d.maker"},
	{"roaming_rule", deviceID, "a rule for a device is its owner's", fixTamper,
		`SELECT r.device FROM roaming_rule r WHERE r.device <> 0
		AND NOT EXISTS (SELECT 1 FROM device d WHERE d.id = r.device AND d.org = r.org AND d.deleted_at IS NULL)`},
	{"activation", activation, "it belongs to a key set", fixTamper,
		"SELECT a.id FROM activation a WHERE NOT EXISTS (SELECT 1 FROM key_set k WHERE k.id = a.key_set)"},

	{"peer", peerID, "a removed peer has no names and no credentials", fixTamper,
		`SELECT p.id FROM peer p WHERE p.removed_at IS NOT NULL AND (EXISTS (SELECT 1 FROM peer_identity WHERE peer = p.id)
		OR EXISTS (SELECT 1 FROM peer_credential WHERE peer = p.id))`},
	{"peer", peerID, "what a removed peer was refused is kept by device only", fixRefusals,
		`SELECT p.id FROM peer p WHERE p.removed_at IS NOT NULL AND (EXISTS (SELECT 1 FROM refusal_peer WHERE peer = p.id)
		OR EXISTS (SELECT 1 FROM refusal_unknown WHERE peer = p.id))`},
	{"peer_credential", peerID, "a CA that is one peer's alone leads to no other", "remove one of the two peers' credentials",
		"SELECT a.peer FROM peer_credential a JOIN peer_credential b ON a.ca = b.ca AND a.peer <> b.peer WHERE a.kind = 'ca'"},
	{"kek", kekID, "it belongs to its peer's organisation", fixTamper,
		"SELECT k.id FROM kek k JOIN peer p ON p.id = k.peer WHERE k.org <> p.org"},
	{"kek", kekID, "a removed peer's KEKs are retired", fixTamper,
		"SELECT k.id FROM kek k JOIN peer p ON p.id = k.peer WHERE p.removed_at IS NOT NULL AND k.retired_at IS NULL"},

	{"kek", kekID, "a KEK that came with a claim is of role as", fixTamper,
		"SELECT id FROM kek WHERE claimed = 1 AND role <> 'as'"},
	{"binding", deviceID, "its KEK is one of role as, and the binding names an Application Server", fixTamper,
		"SELECT b.device FROM binding b LEFT JOIN kek k ON k.id = b.kek WHERE b.kek > 0 AND (k.id IS NULL OR k.role <> 'as' OR b.as_id = '')"},

	{"import", importID, "created, unchanged and failed rows are the rows taken", fixImport,
		"SELECT id FROM import WHERE created + unchanged + failed <> next"},
	{"import", importID, "every failed row has its reason, and no other", fixImport,
		`SELECT i.id FROM import i WHERE i.failed <> (SELECT count(*) FROM import_error WHERE import = i.id)
		OR EXISTS (SELECT 1 FROM import_error WHERE import = i.id AND idx NOT BETWEEN 0 AND i.next - 1)`},
	{"import_run", importID, "its rows were taken, and are in no other run", fixImport,
		`SELECT r.import FROM import_run r JOIN import i ON i.id = r.import WHERE r.first + length(r.devices) / 8 > i.next
		OR EXISTS (SELECT 1 FROM import_run o WHERE o.import = r.import AND o.first > r.first AND o.first < r.first + length(r.devices) / 8)`},
}

func (f *checkup) rules() error {
	for _, rule := range slices.Concat(simpleRules, peopleRules, eventRules, exportRules, rekeyRules, attestRules) {
		err := f.c.each(rule.query, func(r *row) error {
			f.report(rule.table, rule.name(r.int()), rule.text, rule.fix)
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %s: %w", rule.table, rule.text, err)
		}
	}
	return nil
}

func (f *checkup) ranges() error {
	var last joinery.EUIRange
	first := true
	return f.c.each("SELECT first, last FROM join_eui_range ORDER BY first", func(r *row) error {
		this := joinery.EUIRange{First: r.eui(), Last: r.eui()}
		if !first && this.First.Uint64() <= last.Last.Uint64() {
			f.report("join_eui_range", this.First, "ranges do not overlap", "release one of the two")
		}
		first, last = false, this
		return nil
	})
}

// owners walks the chain of owners of each device that was ever claimed.
func (f *checkup) owners() error {
	claimed := "SELECT id, maker, created_at, org, owner_epoch, owned_since, token_generation, released FROM device WHERE owner_epoch > 0 OR id IN (SELECT device FROM ownership)"
	return f.c.each(claimed, func(r *row) error {
		d := joinery.Device{ID: joinery.DeviceID(r.int()), Maker: joinery.OrgID(r.int()), CreatedAt: r.time()}
		d.Ownership = joinery.Ownership{Org: joinery.OrgID(r.int()), Epoch: uint32(r.int()), Since: r.time(), TokenGeneration: uint32(r.int()), Released: r.bool()}
		links, err := f.c.links(d.ID)
		if err != nil {
			return err
		}
		if uint32(len(links)) != d.Ownership.Epoch {
			f.report("ownership", d.ID, "there is one row for each epoch of the device's ownership", fixTamper)
			return nil
		}
		last := firstLink(d)
		for i, l := range links {
			if l.epoch != uint32(i)+1 || l.previous != last.hash() {
				f.report("ownership", d.ID, fmt.Sprintf("epoch %d follows the link before it", l.epoch), fixTamper)
				return nil
			}
			last = l
		}
		if last.org != d.Ownership.Org || !last.since.Equal(d.Ownership.Since) || (last.how == joinery.HowRelease) != d.Ownership.Released {
			f.report("ownership", d.ID, "the last link is the device's owner", fixTamper)
		}
		if last.tokenGeneration > d.Ownership.TokenGeneration {
			f.report("ownership", d.ID, "the owner token's generation never goes back", fixTamper)
		}
		return nil
	})
}

// peers opens every KEK.
func (f *checkup) peers() error {
	if f.check == nil {
		return nil
	}
	return f.c.eachKEK(func(k joinery.KEK) error {
		if err := f.check.CheckKEK(f.ctx, k); err != nil {
			f.report("kek", k.ID, "its sealed key opens: "+err.Error(), fixSealed)
		}
		return f.ctx.Err()
	})
}
