package store

import (
	"bytes"
	"encoding/hex"

	"joinery"
)

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

// keptSet is a row of device_set.
type keptSet struct {
	id                int64
	salt, root, nodes []byte
}

// deviceSets checks that the trees over sets of devices are those of the devices that
// are there, and that the custody log commits to them.
func (f *checkup) deviceSets() error {
	for after := int64(0); ; {
		var list []keptSet // some at a time: their devices are read between them
		err := f.c.each("SELECT id, salt, root, nodes FROM device_set WHERE id > ? ORDER BY id LIMIT 100", func(r *row) error {
			list = append(list, keptSet{r.int(), r.blob(), r.blob(), r.blob()})
			return nil
		}, after)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, s := range list {
			after = s.id
			if err := f.deviceSet(s); err != nil {
				return err
			}
		}
	}
}

func (f *checkup) deviceSet(s keptSet) error {
	for _, of := range []setSource{exportSets, batchSets} {
		state := ""
		found, err := f.c.one("SELECT state FROM "+of.of+" WHERE id = ?", func(r *row) error { state = r.text(); return nil }, s.id)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		asked, err := f.askedSet(of.name(s.id), s)
		if err != nil {
			return err
		}
		if !asked { // devices may have come in since
			if state != "collecting" && state != "withdrawn" && state != "expired" {
				f.report("device_set", of.name(s.id), "an entry of the custody log says who asked for it", fixLog)
			}
			return nil
		}
		b, err := of.built(f.c, s.id, s.salt)
		if err != nil {
			return err
		}
		if !bytes.Equal(b.Root[:], s.root) || !bytes.Equal(b.nodes, s.nodes) {
			f.report("device_set", of.name(s.id), "it is the tree over its devices", fixTamper)
		}
		return nil
	}
	f.report("device_set", s.id, "it is that of an export or a batch", fixTamper)
	return nil
}

// askedSet checks the entries about an order for the devices of a set, and tells whether
// one says who asked for it.
func (f *checkup) askedSet(name string, s keptSet) (asked bool, err error) {
	err = f.c.each("SELECT event, payload FROM audit WHERE subject > 0 AND subject = ? ORDER BY id", func(r *row) error {
		event, payload := joinery.AuditEvent(r.text()), r.blob()
		asked = asked || event == joinery.AuditExportRequested || event == joinery.AuditRekeyBatchRequested
		if payload == nil { // erased
			return nil
		}
		e, err := decodeAudit(payload)
		if set := e.Detail["set"]; err == nil && set != "" && set != hex.EncodeToString(s.root) {
			f.report("device_set", name, "the entries of the custody log commit to it", fixLog)
		}
		return nil // what cannot be read auditRows reports
	}, s.id)
	return asked, err
}
