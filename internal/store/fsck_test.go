package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store/storetest"
	"joinery/lorawan"
)

// richDatabase makes a database with a row of every kind, and closes it.
func richDatabase(t *testing.T) string {
	t.Helper()
	o := newOptions(t)
	d, states := withDevices(t, o, 6)
	ctx := t.Context()
	a := joinery.AuditEntry{At: testTime, Event: joinery.AuditDeviceClaimed, Actor: "test", Detail: map[string]string{"k": "v"}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	maker := states[0].Device.Maker
	owner, third := joinery.NewOrgID(), joinery.NewOrgID()
	must(d.AddOrg(ctx, joinery.Organisation{ID: owner, Name: "owner", CreatedAt: testTime}, a))
	must(d.AddOrg(ctx, joinery.Organisation{ID: third, Name: "third", CreatedAt: testTime}, a))
	high := lorawan.EUI64FromUint64(0xF0 << 56)
	must(d.AssignRange(ctx, joinery.JoinEUIRange{EUIRange: joinery.EUIRange{First: high, Last: high}, Org: third}, a))

	b := &joinery.Binding{NetID: lorawan.NetID{1}, Source: "owner"}
	must(d.Claim(ctx, states[0].Device.ID, 0, owner, b, a))
	must(d.Claim(ctx, states[0].Device.ID, 1, maker, b, a))
	must(d.SetRoaming(ctx, joinery.RoamingRule{Org: maker, Device: states[1].Device.ID, NetIDs: []lorawan.NetID{{1}}}, a))
	must(d.DeleteDevice(ctx, states[5].Device.ID, states[5].Device.Ownership.Org, a))
	handOver(t, d, states, owner, a)
	exportOne(t, d, states, a)
	for range 6 {
		must(d.CommitActivation(ctx, storetest.NextCommit(reload(t, d, 0))))
	}
	must(d.CommitActivation(ctx, rejoin1(reload(t, d, 0))))
	serve(t, d, maker, states[1].Device.ID, a)
	must(d.CommitActivation(ctx, storetest.NextCommit(reload(t, d, 1))))

	peers := [2]joinery.Peer{}
	for i := range peers {
		peers[i] = joinery.Peer{ID: joinery.NewPeerID(), Name: string(rune('a' + i)), ASIDs: []string{"as" + string(rune('a'+i))}, CreatedAt: testTime}
		peers[i].Credentials = []joinery.Credential{{Kind: joinery.CredentialCASAN, CA: []byte("shared"), SAN: peers[i].Name}}
		must(d.AddPeer(ctx, peers[i], nil, a))
		must(d.AddKEK(ctx, joinery.KEK{ID: joinery.NewKEKID(), Peer: peers[i].ID, Role: joinery.KEKForNS, Label: peers[i].Name, Version: 1, Sealed: []byte{1}, CreatedAt: testTime}, a))
	}
	must(d.RemovePeer(ctx, peers[1].ID, a))
	refused := joinery.RefusalCount{Count: 1, First: testTime, Refusal: joinery.Refusal{At: testTime, Peer: peers[0].ID, Reason: joinery.RefusedMIC,
		Received: joinery.Received{JoinEUI: testJoinEUI, DevEUI: testDevEUI(0)}}}
	known := refused
	known.Device, known.Owner = states[0].Device.ID, maker
	must(d.RecordRefusals(ctx, joinery.RefusalBatch{
		Devices: []joinery.RefusalCount{known}, Unknown: []joinery.RefusalCount{refused}, Peers: []joinery.RefusalCount{refused},
	}))

	must(d.BeginFeed(ctx))
	must(d.CommitActivation(ctx, storetest.NextCommit(reload(t, d, 1))))
	_, err := d.Sequence(ctx, false)
	must(err)
	_, err = d.AddWebhook(ctx, joinery.Webhook{ID: joinery.NewWebhookID(), Org: maker, URL: "https://example.com", Generation: 1, CreatedAt: testTime}, 1, a)
	must(err)
	i, err := d.BeginImport(ctx, joinery.Import{Org: maker, Kind: joinery.ImportKeyList, SHA256: sha256.Sum256([]byte("list")), CreatedAt: testTime})
	must(err)
	sealed := testDevice(0)
	sealed.Device.DevEUI, sealed.KeySet.DevEUI = testDevEUI(100), testDevEUI(100)
	sealed.KeySet.Origin, sealed.KeySet.Master, sealed.KeySet.App.Use = joinery.OriginSealed, "", []byte{1, 2, 3}
	sealed.Serial = "S1"
	_, err = d.CommitRows(ctx, joinery.ImportRows{Import: i.ID, Count: 2, Devices: []joinery.NewDevice{sealed},
		Failed: []joinery.RowResult{{Index: 1, Status: joinery.RowFailed, Reason: "bad"}}}, a)
	must(err)
	clean(t, d)
	must(d.Close())
	return o.Path
}

// serve begins the service of device 3, and has a plan, a credit and an extension.
func serve(t *testing.T, d *DB, org joinery.OrgID, extended joinery.DeviceID, a joinery.AuditEntry) {
	t.Helper()
	ctx := t.Context()
	plan := joinery.BuiltInPlan()
	plan.Name, plan.CreatedAt = "gold", testTime
	plan.JoinEUIs = []joinery.EUIRange{{First: lorawan.EUI64{1}, Last: lorawan.EUI64{2}}, {First: lorawan.EUI64{3}, Last: lorawan.EUI64{4}}}
	c := storetest.NextCommit(reload(t, d, 3))
	c.Begin = &joinery.ServiceBegin{Plan: plan, Term: joinery.ServiceTerm{}.Begin(plan, c.Activation.At), Maker: org}
	_, granted := d.GrantService(ctx, joinery.ServiceGrant{Org: org, Months: 9, Reference: "G", At: testTime}, a)
	_, spent := d.ExtendService(ctx, joinery.ServiceExtension{Devices: []joinery.DeviceID{extended}, Months: 4, Reference: "E", Org: org, Credit: true, At: testTime})
	if err := errors.Join(d.PutPlan(ctx, plan, false, a), d.CommitActivation(ctx, c), granted, spent); err != nil {
		t.Fatal(err)
	}
}

// handOver offers, releases and disputes devices.
func handOver(t *testing.T, d *DB, states []joinery.ActivationState, owner joinery.OrgID, a joinery.AuditEntry) {
	t.Helper()
	ctx := t.Context()
	change := func(act joinery.OwnerAct, n int, to joinery.OrgID) {
		t.Helper()
		refused, err := d.ChangeOwners(ctx, []joinery.OwnerChange{{
			Act: act, Device: states[n].Device.ID, Seen: reload(t, d, n).Device.Ownership, To: to, ExpiresAt: testTime.Add(time.Hour), Audit: []joinery.AuditEntry{a},
		}})
		if err := errors.Join(append(refused, err)...); err != nil {
			t.Fatal(err)
		}
	}
	change(joinery.ActOffer, 1, owner)
	change(joinery.ActClaim, 2, owner)
	change(joinery.ActRelease, 2, 0)
	for _, err := range []error{
		d.OpenDispute(ctx, joinery.Dispute{
			ID: joinery.NewDisputeID(), Device: states[1].Device.ID, Claimant: owner, Evidence: joinery.EvidenceNone, OpenedAt: testTime,
		}, a),
		d.AddChallenge(ctx, joinery.Challenge{Random: [32]byte{1}, Org: owner, ExpiresAt: testTime.Add(time.Hour)}, testTime),
		d.NoteClaimFailures(ctx, []joinery.ClaimFailure{{Caller: "somebody", At: testTime, Count: 1}}, testTime),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func rejoin1(s joinery.ActivationState) joinery.ActivationCommit {
	c := storetest.NextCommit(s)
	c.Activation.Type, c.Activation.Count = joinery.JoinTypeRejoin1, 4
	e := s.KeySet.Nonces.For(testJoinEUI)
	e.NextRJCount1 = 5
	c.Nonces = c.Nonces.With(e)
	return c
}

// corrupted opens a copy of the database on which statements ran without any
// check, and gives what fsck finds.
func corrupted(t *testing.T, path string, check Checker, statements ...string) []Violation {
	t.Helper()
	o := Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
	content, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(o.Path, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	raw(t, o.Path, append([]string{"PRAGMA foreign_keys = OFF", "PRAGMA ignore_check_constraints = ON"}, statements...)...)
	d, err := OpenReadOnly(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	found, err := d.Fsck(t.Context(), check)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

const (
	firstDevice    = "(SELECT min(id) FROM device)"
	firstKeySet    = "(SELECT key_set FROM device WHERE id = " + firstDevice + ")"
	deletedDevice  = "(SELECT id FROM device WHERE deleted_at > 0)"
	lastActivation = "(SELECT max(id) FROM activation)"
	newestOfFirst  = "(SELECT max(id) FROM activation WHERE key_set = " + firstKeySet + ")"
)

// damages is each way in which a database can be spoiled, with the table and a
// part of the rule of a violation that must then be found.
var damages = []struct{ name, table, rule, statement string }{
	{"check", "(file)", "SQLite", "UPDATE device SET suspended = 7 WHERE id = " + firstDevice},
	{"foreign key", "device", "row of organisation", "UPDATE device SET org = 1 WHERE id = " + firstDevice},
	{"second store row", "store", "exactly one row", "INSERT INTO store (id, epoch, operator_org, created_at) SELECT 2, epoch, operator_org, created_at FROM store"},
	{"operator renamed", "organisation", "is named operator", "UPDATE organisation SET name = 'x' WHERE name = 'operator'"},
	{"overlapping ranges", "join_eui_range", "do not overlap", "UPDATE join_eui_range SET last = x'FFFFFFFFFFFFFFFF'"},
	{"range gone", "device", "range of its maker", "DELETE FROM join_eui_range"},
	{"range of another", "device", "range of its maker", "UPDATE join_eui_range SET org = (SELECT id FROM organisation WHERE name = 'owner')"},

	{"key set of another", "device", "its own", "UPDATE key_set SET device = 1 WHERE id = " + firstKeySet},
	{"DevEUI of another", "device", "has its DevEUI", "UPDATE key_set SET dev_eui = x'0000000000000001' WHERE id = " + firstKeySet},
	{"shared key set", "device", "alone has its key set", "UPDATE device SET key_set = " + firstKeySet},
	{"root of 1.1", "device", "with NwkKey", "UPDATE device SET mac_version = 110; UPDATE key_set SET root10 = 2"},
	{"sealed without keys", "device", "has keys", "DELETE FROM sealed_root"},
	{"deleted with binding", "device", "deleted device has no binding",
		"INSERT INTO binding SELECT " + deletedDevice + ", epoch, net_id, ns_id, as_id, app_s_key, clear_nwk_keys, source, locked, since, kek FROM binding LIMIT 1"},
	{"undisclosed device", "device", "was disclosed", "UPDATE key_set SET disclosed = 1 WHERE id = " + firstKeySet},
	{"JoinNonce below the floor", "key_set", "sum of all jumps", "UPDATE store SET join_nonce_floor = 65536"},
	{"what was told forgotten", "device", "told of disclosures", "INSERT INTO told SELECT id, 'export', 'x', 'x', 0, 0, 0 FROM device WHERE disclosed = 0 LIMIT 1; " +
		"INSERT INTO told_disclosure SELECT device, 0, 0, printf('%.43c', 'x'), 'file', '', 'x', '', 0 FROM told WHERE way = 'export' AND server = 'x'"},
	{"undisclosed key set", "key_set", "was disclosed", "INSERT INTO disclosure SELECT 1, key_set, org, 0, 'r', 'file', NULL, NULL FROM device WHERE disclosed = 0 LIMIT 1"},
	{"key set of nobody", "key_set", "belongs to a device", "UPDATE key_set SET device = 1 WHERE id = " + firstKeySet},
	{"key set that leads nowhere", "key_set", "leads to",
		"INSERT INTO key_set SELECT 1, device, dev_eui, origin, 'other', generation, NULL, NULL, root10, 0, 0, NULL, NULL, NULL, 0, NULL FROM key_set WHERE id = " + firstKeySet},
	{"candidate that it has", "rekey_candidate", "follows from", "INSERT INTO rekey_candidate SELECT id, key_set FROM device WHERE id = " + firstDevice},
	{"candidate unknown to joins", "device", "know of it", "INSERT INTO rekey_candidate SELECT id, key_set FROM device WHERE id = " + firstDevice},
	{"instruction without candidate", "rekey_candidate", "is one", "INSERT INTO join_server (id, name, transport_key, created_at) VALUES (1, 'x', x'00', 0); " +
		"INSERT INTO rekey SELECT 1, id, 'sent', join_eui, x'01020304050607', 1, NULL, '', org, 'a', NULL, 0, 0, NULL, 1, 1, 0, 0, NULL, 0 FROM device WHERE id = " + firstDevice},
	{"disclosed by an order to nobody", "rekey", "what an order disclosed", "INSERT INTO join_server (id, name, transport_key, created_at) VALUES (1, 'x', x'00', 0); " +
		"INSERT INTO rekey SELECT 1, id, 'armed', join_eui, x'01020304050607', 1, NULL, '', org, 'a', NULL, 0, 0, NULL, 1, 0, NULL, NULL, NULL, 0 FROM device WHERE id = " + firstDevice + "; " +
		"INSERT INTO disclosure SELECT 1, key_set, org, 0, 'r', 'file', NULL, 1 FROM device WHERE id = " + firstDevice},
	{"rekeying key of another", "rekeying_key", "goes with one of the same device", "INSERT INTO rekeying_key (key_set, held) SELECT min(id), max(id) FROM key_set"},
	{"hand-over that nobody sees to", "passage", "something is to be done", "INSERT INTO join_server (id, name, transport_key, created_at) VALUES (1, 'x', x'00', 0); " +
		"INSERT INTO rekey SELECT 1, id, 'cancelled', join_eui, x'01020304050607', 1, NULL, '', org, 'a', NULL, 0, 0, NULL, 1, 0, NULL, NULL, 1, 0 FROM device WHERE id = (SELECT min(id) FROM device); " +
		"INSERT INTO passage (rekey, state, said, tries, changed_at) VALUES (1, 'waiting', '', 0, 0)"},
	{"arrival of another device", "arrival", "is a device of its JoinEUI", "INSERT INTO join_server (id, name, transport_key, created_at) VALUES (1, 'x', x'00', 0); " +
		"INSERT INTO arrival SELECT 1, 1, 'r', org, x'0102030405060708', dev_eui, x'01020304050607', 'taken', '', id, 0, NULL, 0, 0, 0 FROM device WHERE id = (SELECT min(id) FROM device)"},
	{"arrival without keys", "arrival", "has its sealed keys", "INSERT INTO join_server (id, name, transport_key, created_at) VALUES (1, 'x', x'00', 0); " +
		"INSERT INTO arrival SELECT 1, 1, 'r', org, join_eui, dev_eui, x'01020304050607', 'parked', '', NULL, 0, NULL, 0, 0, 0 FROM device WHERE id = (SELECT min(id) FROM device)"},
	{"receipt gone", "arrival_news", "without gaps", "INSERT INTO join_server (id, name, transport_key, created_at) VALUES (1, 'x', x'00', 0); INSERT INTO arrival_news (join_server, n, line) VALUES (1, 2, x'00')"},
	{"batch that miscounts", "rekey_batch", "counts are those", "INSERT INTO join_server (id, name, transport_key, created_at) VALUES (1, 'x', x'00', 0); " +
		"INSERT INTO rekey_batch (id, org, state, join_eui, join_server, thumbprint, rekey_key, life, devices, armed, failed, digest, needs_approval, requested_by, requested_at, note, expires_at, ended_at) SELECT 1, org, 'approved', x'0102030405060708', 1, '', 0, 1, 1, 0, 0, zeroblob(32), 0, 'a', 0, '', 0, NULL FROM device WHERE id = " + firstDevice},
	{"batch done too early", "rekey_batch", "no device waits", "INSERT INTO join_server (id, name, transport_key, created_at) VALUES (1, 'x', x'00', 0); " +
		"INSERT INTO rekey_batch (id, org, state, join_eui, join_server, thumbprint, rekey_key, life, devices, armed, failed, digest, needs_approval, requested_by, requested_at, note, expires_at, ended_at) SELECT 1, org, 'done', x'0102030405060708', 1, '', 0, 1, 1, 0, 0, zeroblob(32), 0, 'a', 0, '', 0, 1 FROM device WHERE id = " + firstDevice},
	{"batch that nobody approved", "rekey_batch", "nothing was armed", "INSERT INTO join_server (id, name, transport_key, created_at) VALUES (1, 'x', x'00', 0); " +
		"INSERT INTO rekey_batch (id, org, state, join_eui, join_server, thumbprint, rekey_key, life, devices, armed, failed, digest, needs_approval, requested_by, requested_at, note, expires_at, ended_at) SELECT 1, org, 'approved', x'0102030405060708', 1, '', 0, 1, 1, 1, 0, zeroblob(32), 1, 'a', 0, '', 0, NULL FROM device WHERE id = " + firstDevice},
	{"batch with another's order", "rekey_batch", "to where the batch goes", "INSERT INTO join_server (id, name, transport_key, created_at) VALUES (1, 'x', x'00', 0); " +
		"INSERT INTO rekey_batch (id, org, state, join_eui, join_server, thumbprint, rekey_key, life, devices, armed, failed, digest, needs_approval, requested_by, requested_at, note, expires_at, ended_at) SELECT 1, org, 'done', x'0102030405060708', 1, '', 0, 1, 1, 1, 0, zeroblob(32), 0, 'a', 0, '', 0, 1 FROM device WHERE id = " + firstDevice + "; " +
		"INSERT INTO rekey SELECT 1, id, 'cancelled', join_eui, x'01020304050607', 1, NULL, '', org, 'a', NULL, 0, 0, NULL, 1, 0, NULL, NULL, 1, 0 FROM device WHERE id = " + firstDevice + "; " +
		"INSERT INTO rekey_batch_item (batch, idx, device, join_eui, dev_eui, epoch, state, rekey, code, reason) SELECT 1, 0, id, join_eui, dev_eui, owner_epoch, 1, 1, '', '' FROM device WHERE id = " + firstDevice},
	{"order armed by nobody", "rekey", "was approved by somebody", "INSERT INTO join_server (id, name, transport_key, created_at) VALUES (1, 'x', x'00', 0); " +
		"INSERT INTO rekey SELECT 1, id, 'cancelled', join_eui, x'01020304050607', 1, NULL, '', org, 'a', NULL, 0, 7, NULL, 9, 0, NULL, NULL, 8, 0 FROM device WHERE id = " + firstDevice},
	{"order approved by who asked", "rekey", "not approved by who asked", "INSERT INTO join_server (id, name, transport_key, created_at) VALUES (1, 'x', x'00', 0); " +
		"INSERT INTO rekey SELECT 1, id, 'cancelled', join_eui, x'01020304050607', 1, NULL, '', org, 'a', NULL, 0, 7, 'a', 9, 0, NULL, NULL, 8, 0 FROM device WHERE id = " + firstDevice},
	{"order of no batch", "rekey", "as one of many", "INSERT INTO join_server (id, name, transport_key, created_at) VALUES (1, 'x', x'00', 0); " +
		"INSERT INTO rekey SELECT 1, id, 'cancelled', join_eui, x'01020304050607', 1, NULL, '', org, 'a', NULL, 0, 0, 'b', 1, 0, NULL, NULL, 1, 0 FROM device WHERE id = " + firstDevice},
	{"batch approved by who asked", "rekey_batch", "not approved by who asked", "INSERT INTO join_server (id, name, transport_key, created_at) VALUES (1, 'x', x'00', 0); " +
		"INSERT INTO rekey_batch (id, org, state, join_eui, join_server, thumbprint, rekey_key, life, devices, armed, failed, digest, needs_approval, requested_by, requested_at, decided_by, decided_at, note, expires_at, ended_at) SELECT 1, org, 'approved', x'0102030405060708', 1, '', 0, 1, 1, 0, 0, zeroblob(32), 1, 'a', 0, 'a', 1, '', 0, NULL FROM device WHERE id = " + firstDevice},
	{"batch whose order goes elsewhere", "rekey_batch", "to where the batch goes", "INSERT INTO join_server (id, name, transport_key, created_at) VALUES (1, 'x', x'00', 0), (2, 'y', x'01', 0); " +
		"INSERT INTO rekey_batch (id, org, state, join_eui, join_server, thumbprint, rekey_key, life, devices, armed, failed, digest, needs_approval, requested_by, requested_at, note, expires_at, ended_at) SELECT 1, org, 'done', join_eui, 1, '', 0, 1, 1, 1, 0, zeroblob(32), 0, 'a', 0, '', 0, 1 FROM device WHERE id = " + firstDevice + "; " +
		"INSERT INTO rekey SELECT 1, id, 'cancelled', join_eui, x'01020304050607', 2, NULL, '', org, 'a', NULL, 0, 0, NULL, 1, 0, NULL, NULL, 1, 0 FROM device WHERE id = " + firstDevice + "; " +
		"INSERT INTO rekey_batch_item (batch, idx, device, join_eui, dev_eui, epoch, state, rekey, code, reason) SELECT 1, 0, id, join_eui, dev_eui, owner_epoch, 1, 1, '', '' FROM device WHERE id = " + firstDevice},
	{"basis that no result has", "device", "rest on what the results", "UPDATE device SET attest_basis = 2 WHERE id = " + firstDevice},
	{"basis of a rule that is not there", "device", "rest on what the results", "UPDATE device SET attest_basis = 64 WHERE id = " + firstDevice},
	{"result that nobody vouches for", "attest_result", "that is vouched for", "INSERT INTO attest_result (device, level, kind, verifier, at, until, ended_at, digest, version, counter, evidence, basis) " +
		"SELECT id, 1, 'possession', 'v', 0, 1, 1, zeroblob(32), '', 0, zeroblob(32), 1 FROM device WHERE id = " + firstDevice},
	{"chain that was not checked", "attest_result", "that is vouched for", "INSERT INTO attest_result (device, level, kind, verifier, at, until, ended_at, digest, version, counter, evidence, basis, chain) " +
		"SELECT id, 1, 'possession', 'v', 0, 1, 1, zeroblob(32), '', 0, zeroblob(32), 2, 'failed' FROM device WHERE id = " + firstDevice},
	{"unpinned and there", "attest_unpinned", "a signer that is gone", "INSERT INTO signer (id, org, name, kid, x5t_s256, certificate, join_eui_first, join_eui_last, dev_eui_first, dev_eui_last, master, generation, created_at) " +
		"SELECT 1, id, 's', '', '', x'00', zeroblob(8), zeroblob(8), zeroblob(8), zeroblob(8), '', 0, 0 FROM organisation LIMIT 1; " +
		"INSERT INTO attest_unpinned (signer, at) VALUES (1, 0)"},
	{"component of another maker's release", "attest_shown", "releases of the device's maker", "INSERT INTO product (id, org, name, hardware, created_at) SELECT 1, min(id), 'p', 'h', 0 FROM organisation WHERE id <> (SELECT maker FROM device WHERE id = " + firstDevice + "); " +
		"INSERT INTO product_key (id, product, device, use, public, created_at) VALUES (1, 1, 0, 'release', x'00', 0); " +
		"INSERT INTO firmware_release (id, product, version, digest, counter, statement, key, at) VALUES (1, 1, '1', zeroblob(32), 0, x'00', 1, 0); " +
		"INSERT INTO attest_shown SELECT id, 'BL', 1 FROM device WHERE id = " + firstDevice},
	{"derived by a cookie", "key_set", "names cookie", "UPDATE key_set SET rekey_join_eui = zeroblob(8) WHERE id = " + firstKeySet},
	{"sealed root of a derived one", "sealed_root", "only a sealed", "INSERT INTO sealed_root (key_set, nwk_use) SELECT key_set, x'00' FROM device WHERE id = " + firstDevice},
	{"binding epoch", "binding", "highest epoch", "UPDATE binding SET epoch = 77"},
	{"last join of another", "last_join", "under its owner",
		"INSERT INTO last_join SELECT id, (SELECT id FROM organisation WHERE name = 'operator'), 0 FROM device WHERE id = " + firstDevice},
	{"manifest entry of another", "manifest_entry", "maker of its device", "UPDATE manifest_entry SET org = (SELECT id FROM organisation WHERE name = 'owner')"},
	{"roaming rule of another", "roaming_rule", "owner's", "UPDATE roaming_rule SET org = (SELECT id FROM organisation WHERE name = 'owner')"},
	{"activation of nobody", "activation", "belongs to a key set", "UPDATE activation SET key_set = 5 WHERE id = " + lastActivation},

	{"removed peer speaks", "peer", "removed peer has no names", "INSERT INTO peer_identity SELECT id, 'as-id', 'x' FROM peer WHERE removed_at > 0"},
	{"CA of two", "peer_credential", "leads to no other",
		"INSERT INTO peer_credential SELECT peer + 1, 0, 'ca', NULL, ca, NULL FROM peer_credential"},
	{"KEK of another", "kek", "organisation", "UPDATE kek SET org = (SELECT id FROM organisation WHERE name = 'owner')"},
	{"KEK of a removed peer", "kek", "are retired", "UPDATE kek SET retired_at = NULL"},
	{"two operators", "organisation", "and no other", "UPDATE organisation SET kinds = 'owner server-operator' WHERE name = 'owner'"},
	{"person remembered", "person", "is forgotten", "INSERT INTO person (id, name, email, created_at) VALUES (7, 'ann', '', 0)"},
	{"key of a lost key", "api_key", "is there", "INSERT INTO api_key (id, org, operator, name, hash, created_at, made_by) SELECT 7, id, 0, 'k', zeroblob(32), 0, 8 FROM organisation LIMIT 1"},
	{"key of a revoked key", "api_key", "is revoked where", "INSERT INTO api_key (id, org, operator, name, hash, created_at, revoked_at) SELECT 8, id, 0, 'k', zeroblob(32), 0, 1 FROM organisation LIMIT 1; " +
		"INSERT INTO api_key (id, org, operator, name, hash, created_at, made_by) SELECT 7, id, 0, 'k', zeroblob(32), 0, 8 FROM organisation LIMIT 1"},
	{"claimed KEK of an NS", "kek", "of role as", "UPDATE kek SET claimed = 1, role = 'ns'"},
	{"KEK of a binding", "binding", "names an Application Server", "UPDATE binding SET as_id = '', kek = (SELECT min(id) FROM kek)"},
	{"export counts", "export", "counts are those", "UPDATE export SET wrapped = 0"},
	{"export not done", "export", "no device waits", "UPDATE export_item SET state = 0, blob = NULL; UPDATE export SET wrapped = 0"},
	{"export without keys", "export", "is there while", "UPDATE export_item SET blob = NULL"},
	{"export to another", "export", "to its recipient", "UPDATE disclosure SET recipient = 'x'"},
	{"export that nobody approved", "export", "another person", "UPDATE export SET needs_approval = 1"},
	{"set of other devices", "device_set", "tree over its devices", "UPDATE export_item SET join_eui = zeroblob(8)"},
	{"set with another root", "device_set", "commit to it", "UPDATE device_set SET root = zeroblob(32)"},
	{"set of nobody", "device_set", "of an export or a batch", "UPDATE device_set SET id = 5"},
	{"set that nobody asked for", "device_set", "who asked for it", "UPDATE audit SET subject = NULL"},
	{"entry of another order", "audit", "its columns say", "UPDATE audit SET subject = 5 WHERE subject > 0"},
	{"import counts", "import", "are the rows taken", "UPDATE import SET created = created + 1"},
	{"import errors", "import", "has its reason", "DELETE FROM import_error"},
	{"import error beyond", "import", "and no other", "UPDATE import_error SET idx = 99"},
	{"import run beyond", "import_run", "its rows were taken", "UPDATE import_run SET first = first + 99"},
	{"import runs overlap", "import_run", "in no other run", "INSERT INTO import_run (import, first, devices) SELECT import, first + 1, x'' FROM import_run WHERE length(devices) > 8"},

	{"refusals over the bound", "refusal_unknown", "at most 256 rows", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) " +
		"INSERT INTO refusal_unknown SELECT peer, join_eui, CAST(printf('%08d', i) AS BLOB), reason, 1, 0, 0, received FROM refusal_unknown, n"},
	{"attempts over the bound", "attempt", "at most 257 rows", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) " +
		"INSERT INTO attempt SELECT (SELECT min(id) FROM organisation), 0, 'a', 'act ' || i, 'no-right', 1, 0, 0, 0 FROM n"},
	{"attempts of a device over the bound", "attempt", "at most 17 rows", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 18) " +
		"INSERT INTO attempt SELECT org, id, 'a', 'act ' || i, 'no-right', 1, 0, 0, 0 FROM device, n WHERE id = " + firstDevice},
	{"attempts at nothing", "attempt", "a device that is here", "INSERT INTO attempt SELECT min(id), 77, 'a', 'x', 'not-held', 1, 0, 0, 0 FROM organisation"},
	{"refusals of a removed peer", "peer", "by device only", "UPDATE refusal_peer SET peer = (SELECT id FROM peer WHERE removed_at > 0)"},
	{"refusal of a deleted device", "device", "deleted device has no binding", "UPDATE refusal_device SET device = " + deletedDevice},
	{"refusal that cannot be read", "refusal_device", "can be read", "UPDATE refusal_device SET decided = '{'"},
	{"refusal for no reason", "refusal_peer", "one that is known", "UPDATE refusal_peer SET reason = 'x'"},

	{"last page", "event_feed", "newest there is", "UPDATE event_feed SET last_page = last_page + 1"},
	{"audit rows to come", "event_feed", "audit rows that there are", "UPDATE event_feed SET audited = 9999"},
	{"page gone", "event_page", "without gaps", "DELETE FROM event_page WHERE id = 2"},
	{"half a reference", "event_page", "are whole", "UPDATE event_page SET refs = CAST(refs || 'x' AS BLOB) WHERE kind = 'joins'"},
	{"import of a page gone", "event_page", "import is there", "UPDATE event_page SET first = 5 WHERE kind = 'devices'"},
	{"webhook beyond the feed", "webhook", "is in the feed", "UPDATE webhook SET page = 9999"},

	{"owner epoch missing", "ownership", "one row for each epoch", "DELETE FROM ownership WHERE epoch = 1"},
	{"owner chain", "ownership", "follows the link", "UPDATE ownership SET org = (SELECT id FROM organisation WHERE name = 'operator') WHERE epoch = 1"},
	{"owner maker", "ownership", "follows the link", "UPDATE device SET maker = (SELECT id FROM organisation WHERE name = 'owner')"},
	{"kept by another", "device", "kept by the operator", "UPDATE device SET org = maker WHERE released = 1"},
	{"not released", "ownership", "is the device's owner", "UPDATE device SET released = 0"},
	{"token generation", "ownership", "never goes back", "UPDATE device SET token_generation = 0"},
	{"offer of another", "transfer", "belongs to who offers it", "UPDATE transfer SET org = recipient + 1"},
	{"offer to oneself", "transfer", "belongs to who offers it", "UPDATE transfer SET recipient = org"},
	{"owner now", "ownership", "is the device's owner", "UPDATE device SET org = (SELECT id FROM organisation WHERE name = 'owner') WHERE owner_epoch = 2"},

	{"nonces damaged", "key_set", "nonces are damaged", "UPDATE key_set SET nonces = x'05' WHERE id = " + firstKeySet},
	{"nonces forgotten", "key_set", "are one chain", "UPDATE key_set SET nonces = NULL WHERE id = " + firstKeySet},
	{"JoinNonce back", "activation", "came later", "UPDATE key_set SET join_nonce = 3 WHERE id = " + firstKeySet},
	{"version back", "key_set", "counts every activation", "UPDATE key_set SET version = 2 WHERE id = " + firstKeySet},
	{"last join", "key_set", "last_join_at", "UPDATE key_set SET last_join_at = 5 WHERE id = " + firstKeySet},
	{"newest activation gone", "activation", "must be there", "DELETE FROM activation WHERE id = " + newestOfFirst},
	{"oldest activation gone", "activation", "must be there", "DELETE FROM activation WHERE id = (SELECT min(id) FROM activation WHERE key_set = " + firstKeySet + ")"},
	{"activation added", "key_set", "are one chain", "INSERT INTO activation SELECT 5, key_set, previous, payload, salt, leaf FROM activation WHERE id = " + newestOfFirst},
	{"chain in a ring", "activation", "chain of activations ends",
		"UPDATE activation SET previous = " + newestOfFirst + " WHERE previous IS NULL AND key_set = " + firstKeySet},
	{"chain cut", "key_set", "recent activations are in its chain", "UPDATE activation SET previous = NULL WHERE id = " + newestOfFirst},
	{"chain to another key set", "activation", "key set that names it",
		"UPDATE activation SET previous = (SELECT max(id) FROM activation WHERE key_set <> " + firstKeySet + ") WHERE id = " + newestOfFirst},
	{"recent out of order", "activation", "are its newest",
		"UPDATE activation SET previous = (SELECT min(id) FROM activation WHERE key_set = " + firstKeySet + ") WHERE id = " + newestOfFirst},
	{"payload", "activation", "not what the record covers", "UPDATE activation SET payload = CAST(payload || 'x' AS BLOB) WHERE id = " + newestOfFirst},
	{"salt", "activation", "not what the record covers", "UPDATE activation SET salt = zeroblob(32) WHERE id = " + newestOfFirst},
	{"leaf", "activation", "not what the record covers", "UPDATE activation SET leaf = x'010000000000000000000000000000000000000000000000000000000000000000' WHERE id = " + newestOfFirst},
	{"leaf of no version", "activation", "unknown version", "UPDATE activation SET payload = NULL, salt = NULL, leaf = x'070000000000000000000000000000000000000000000000000000000000000000' WHERE id = " + newestOfFirst},
	{"payload cut", "activation", "activation is damaged", "UPDATE activation SET payload = x'01' WHERE id = " + newestOfFirst},
	{"payload of another", "activation", "payload names its row",
		"UPDATE activation SET (payload, salt, leaf) = (SELECT payload, salt, leaf FROM activation WHERE key_set <> " + firstKeySet + ") WHERE id = " + newestOfFirst},
	{"activation twice", "activation", "none is issued twice",
		"UPDATE activation SET (payload, salt, leaf) = (SELECT payload, salt, leaf FROM activation WHERE id = " + newestOfFirst + ") WHERE key_set = " + firstKeySet},
	{"binding epoch never given", "activation", "epoch was given", "UPDATE device SET binding_epoch = 0; DELETE FROM binding"},

	{"refusal before the end", "device", "before joins are refused", "UPDATE device SET service_refuse_at = 1 WHERE service_ends_at > 0"},
	{"end without a fact", "device", "last fact", "DELETE FROM service_fact WHERE kind = 'included'"},
	{"credit out of nothing", "service_credit", "less what was spent", "UPDATE service_credit SET months = 9"},
	{"ranges of plans that overlap", "service_plan_range", "overlaps no other", "UPDATE service_plan_range SET last = x'0400000000000000'"},

	{"audit payload", "audit", "not what the record covers", "UPDATE audit SET payload = CAST(replace(CAST(payload AS TEXT), 'test', 'best') AS BLOB) WHERE id = 2"},
	{"audit columns", "audit", "what its payload says", "UPDATE audit SET event = 'x' WHERE id = 2"},
	{"audit row gone", "audit", "no row is missing", "DELETE FROM audit WHERE id = 2"},
	{"last audit row gone", "audit", "no row is missing", "DELETE FROM audit WHERE id = (SELECT max(id) FROM audit)"},
	{"audit leaf", "audit", "unknown version", "UPDATE audit SET payload = NULL, salt = NULL, leaf = zeroblob(33) WHERE id = 2"},
	{"audit payload of no format", "audit", "unknown format", "UPDATE audit SET payload = x'00' WHERE id = 2"},
}

func TestFsckFinds(t *testing.T) {
	if testing.Short() {
		t.Skip("long under the race detector; it runs without, too")
	}
	path := richDatabase(t)
	seen := map[string]bool{}
	for _, damage := range damages {
		t.Run(damage.name, func(t *testing.T) {
			found := corrupted(t, path, nil, strings.Split(damage.statement, "; ")...)
			hit := false
			for _, v := range found {
				seen[v.Table+": "+v.Rule] = true
				if v.ID == "" || v.Fix == "" || !strings.HasPrefix(v.String(), v.Table) {
					t.Errorf("incomplete: %+v", v)
				}
				hit = hit || v.Table == damage.table && strings.Contains(v.Rule, damage.rule)
			}
			if !hit {
				t.Errorf("not found; instead: %v", found)
			}
		})
	}
	for _, r := range slices.Concat(simpleRules, peopleRules, eventRules, exportRules, rekeyRules) { // no rule that never finds anything
		if !seen[r.table+": "+r.text] {
			t.Errorf("no damage shows the rule %q of %s", r.text, r.table)
		}
	}
}

// DevNonces and RJcount1 that a key set forgot are found, also where the row is
// otherwise whole.
func TestFsckFindsForgottenNonces(t *testing.T) {
	for name, forget := range map[string]func(*joinery.JoinEUINonces){
		"DevNonce 5 is remembered": func(e *joinery.JoinEUINonces) { e.Next = 5 },
		"RJcount1 4 is remembered": func(e *joinery.JoinEUINonces) { e.NextRJCount1 = 4 },
	} {
		t.Run(name, func(t *testing.T) {
			path := richDatabase(t)
			d := mustOpen(t, Options{Path: path, UnsafeNoSync: true})
			s := reload(t, d, 0)
			e := s.KeySet.Nonces.For(testJoinEUI)
			forget(&e)
			err := d.do(t.Context(), func(tx *tx) error {
				return tx.exec("UPDATE key_set SET nonces = ? WHERE id = ?", s.KeySet.Nonces.With(e).Encode(), s.KeySet.ID)
			})
			if err != nil {
				t.Fatal(err)
			}
			wantOne(t, d, nil, name)
		})
	}
	t.Run("DevNonce twice", func(t *testing.T) {
		d, states := withDevices(t, newOptions(t), 1)
		first := storetest.NextCommit(states[0])
		if err := d.CommitActivation(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		again := storetest.NextCommit(reload(t, d, 0))
		again.Activation.Count = first.Activation.Count
		if err := d.CommitActivation(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		wantOne(t, d, nil, "DevNonce 0 was accepted once")
	})
}

func wantOne(t *testing.T, d *DB, check Checker, rule string) {
	t.Helper()
	found, err := d.Fsck(t.Context(), check)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || !strings.Contains(found[0].Rule, rule) {
		t.Fatalf("want one violation of %q, got %v", rule, found)
	}
}

// A recorded erasure of payload and salt is no violation.
func TestFsckAfterErasure(t *testing.T) {
	path := richDatabase(t)
	if found := corrupted(t, path, nil, "UPDATE activation SET payload = NULL, salt = NULL", "UPDATE audit SET payload = NULL, salt = NULL WHERE id > 3"); len(found) > 0 {
		t.Fatalf("found %v", found)
	}
}

// A page of zeros in the middle of the file is found, or the file is refused.
func TestFsckDamagedPage(t *testing.T) {
	path := richDatabase(t)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for page := 2; page < len(content)/pageSize; page += 3 {
		spoiled := append([]byte(nil), content...)
		clear(spoiled[(page-1)*pageSize : page*pageSize])
		o := Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
		if err := os.WriteFile(o.Path, spoiled, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := OpenReadOnly(t.Context(), o)
		if err != nil {
			continue
		}
		found, err := d.Fsck(t.Context(), nil)
		if len(found) == 0 && err == nil {
			t.Errorf("page %d of zeros went unnoticed", page)
		}
		_ = d.Close()
	}
}

// refusing is a Checker that opens nothing.
type refusing struct{ seen *int }

func (r refusing) CheckKeySet(_ context.Context, ks joinery.KeySet) error {
	*r.seen++
	if ks.Origin != joinery.OriginSealed {
		return nil
	}
	return errors.New("does not open")
}

func (r refusing) CheckKEK(context.Context, joinery.KEK) error {
	*r.seen++
	return errors.New("does not open")
}

func TestFsckOpensBlobs(t *testing.T) {
	path, seen := richDatabase(t), 0
	found := corrupted(t, path, refusing{&seen}, "SELECT 1")
	tables := map[string]int{}
	for _, v := range found {
		tables[v.Table]++
	}
	if len(found) != 3 || tables["kek"] != 2 || tables["key_set"] != 1 {
		t.Errorf("found %v", found)
	}
	if seen != 6+2 { // five derived and one sealed device that are there, two KEKs
		t.Errorf("%d blobs opened", seen)
	}
}

func TestFsckStops(t *testing.T) {
	d, _ := withDevices(t, newOptions(t), 3)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Fsck(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	clean(t, d) // the connection works on
}
