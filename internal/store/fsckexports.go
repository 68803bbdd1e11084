package store

import "joinery"

func exportID(id int64) string { return joinery.ExportID(id).String() }

func rekeyBatchID(id int64) string { return joinery.RekeyBatchID(id).String() }

// exportRules are the invariants of exports, and of orders to rekey many devices.
// Counts and items are written in one transaction.
var exportRules = []rule{
	{"export", exportID, "its counts are those of its devices", fixTamper,
		`SELECT e.id FROM export e WHERE e.devices <> (SELECT count(*) FROM export_item WHERE export = e.id)
		OR e.wrapped <> (SELECT count(*) FROM export_item WHERE export = e.id AND state = 1)
		OR e.dropped <> (SELECT count(*) FROM export_item WHERE export = e.id AND state = 2)`},
	{"export", exportID, "no device waits in one that is ready or delivered", fixTamper,
		"SELECT e.id FROM export e WHERE e.state IN ('ready', 'delivered') AND e.devices <> e.wrapped + e.dropped"},
	{"export", exportID, "what was wrapped is there while it can be downloaded", fixTamper,
		`SELECT e.id FROM export e WHERE e.state IN ('working', 'ready')
		AND EXISTS (SELECT 1 FROM export_item WHERE export = e.id AND state = 1 AND blob IS NULL)`},
	{"export", exportID, "every key set that was wrapped is known as disclosed, to its recipient", fixTamper,
		`SELECT i.export FROM export_item i WHERE i.state = 1 AND NOT EXISTS (SELECT 1 FROM disclosure x JOIN export e ON e.id = x.export
		JOIN export_recipient p ON p.id = e.recipient WHERE x.key_set = i.key_set AND x.export = i.export AND x.recipient = p.thumbprint)`},
	{"export", exportID, "nothing was wrapped that another person had to approve and did not", fixTamper,
		"SELECT e.id FROM export e WHERE e.wrapped > 0 AND e.needs_approval = 1 AND e.decided_at IS NULL"},
	{"rekey_batch", rekeyBatchID, "its counts are those of its devices", fixTamper,
		`SELECT b.id FROM rekey_batch b WHERE b.devices <> (SELECT count(*) FROM rekey_batch_item WHERE batch = b.id)
		OR b.armed <> (SELECT count(*) FROM rekey_batch_item WHERE batch = b.id AND state = 1)
		OR b.failed <> (SELECT count(*) FROM rekey_batch_item WHERE batch = b.id AND state = 2)`},
	{"rekey_batch", rekeyBatchID, "no device waits in one that is done", fixTamper,
		"SELECT b.id FROM rekey_batch b WHERE b.state = 'done' AND b.devices <> b.armed + b.failed"},
	{"rekey_batch", rekeyBatchID, "nothing was armed that another person had to approve and did not", fixTamper,
		"SELECT b.id FROM rekey_batch b WHERE b.armed > 0 AND b.needs_approval = 1 AND b.decided_at IS NULL"},
	{"rekey_batch", rekeyBatchID, "the order of each device is its own, to where the batch goes", fixTamper,
		`SELECT i.batch FROM rekey_batch_item i JOIN rekey_batch b ON b.id = i.batch JOIN rekey r ON r.id = i.rekey
		WHERE r.device <> i.device OR r.org <> b.org OR r.join_eui <> b.join_eui OR r.thumbprint <> b.thumbprint OR r.rekey_key <> b.rekey_key
		OR coalesce(r.join_server, 0) <> coalesce(b.join_server, 0) OR coalesce(r.recipient, 0) <> coalesce(b.recipient, 0)`},
}
