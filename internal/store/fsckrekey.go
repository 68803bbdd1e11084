package store

import (
	"maps"
	"slices"

	"joinery"
	"joinery/lorawan"
)

// rekeyRules are the invariants of orders to rekey that another person approved.
// Whoever arms an order by himself does so in the moment in which he gives it.
var rekeyRules = []rule{
	{"rekey", rekeyID, "an order that waited for another person was approved by somebody", fixTamper,
		"SELECT id FROM rekey WHERE armed_at IS NOT NULL AND armed_at <> at AND decided_by IS NULL"},
	{"rekey", rekeyID, "an order that waited for another person was not approved by who asked for it", fixTamper,
		"SELECT id FROM rekey WHERE armed_at IS NOT NULL AND decided_by = actor"},
	{"rekey_batch", rekeyBatchID, "what waited for another person was not approved by who asked for it", fixTamper,
		"SELECT id FROM rekey_batch WHERE needs_approval = 1 AND state IN ('approved', 'done') AND decided_by = requested_by"},
}

func rekeyID(id int64) string { return joinery.RekeyID(id).String() }

// ofNoBatch are orders that were armed when they were given, by the word of somebody
// who approved no batch that has them. With a clock that stands still one that waited
// for approval is there, too.
const ofNoBatch = `SELECT r.id FROM rekey r LEFT JOIN rekey_batch_item i ON i.rekey = r.id LEFT JOIN rekey_batch b ON b.id = i.batch AND b.decided_by = r.decided_by
	WHERE r.armed_at = r.at AND r.decided_by IS NOT NULL GROUP BY r.id HAVING max(b.id) IS NULL`

// rekeyRun is how many orders are looked at together.
const rekeyRun = 1000

// storedOrder is what a person approves of an order.
type storedOrder struct {
	id         joinery.RekeyID
	device     joinery.DeviceID
	joinEUI    lorawan.EUI64
	thumbprint string
	rekeyKey   bool
	armed      bool
	decidedBy  string
	noBatch    bool // see ofNoBatch
}

// rekeyApprovals holds each order against what the audit rows say of it: those that
// asked for it, armed it and approved it say the same of where it goes, and one that
// was armed after somebody asked another person has that one's approval. Rows that
// were erased say nothing.
func (f *checkup) rekeyApprovals() error {
	noBatch := map[joinery.RekeyID]bool{}
	if err := f.c.each(ofNoBatch, func(r *row) error { noBatch[joinery.RekeyID(r.int())] = true; return nil }); err != nil {
		return err
	}
	for after := joinery.RekeyID(0); ; {
		var orders []storedOrder
		devices := map[joinery.DeviceID]bool{}
		err := f.c.each(`SELECT id, device, join_eui, thumbprint, rekey_key, CASE WHEN armed_at IS NULL THEN 0 ELSE 1 END, coalesce(decided_by, '') FROM rekey
			WHERE id > ? ORDER BY id LIMIT ?`, func(r *row) error {
			o := storedOrder{joinery.RekeyID(r.int()), joinery.DeviceID(r.int()), r.eui(), r.text(), r.bool(), r.bool(), r.text(), false}
			o.noBatch = noBatch[o.id]
			orders, devices[o.device] = append(orders, o), true
			return nil
		}, after, rekeyRun)
		if err != nil || len(orders) == 0 {
			return err
		}
		said, err := f.saidOfOrders(slices.Sorted(maps.Keys(devices)))
		if err != nil {
			return err
		}
		for _, o := range orders {
			f.rekeyApproval(o, said[o.id.String()])
			after = o.id
		}
	}
}

// saidOfOrders gives the audit entries about devices that opened or approved orders,
// by order.
func (f *checkup) saidOfOrders(devices []joinery.DeviceID) (map[string][]joinery.AuditEntry, error) {
	said := map[string][]joinery.AuditEntry{}
	err := inRuns(devices, func(run []joinery.DeviceID) error {
		v := valuesOf("device INTEGER")
		for _, d := range run {
			v.add(d)
		}
		return f.c.each(v.with(`SELECT a.payload FROM v JOIN audit a ON a.device > 0 AND a.device = v.device
			WHERE a.payload IS NOT NULL AND a.event IN ('rekey.requested', 'rekey.armed', 'rekey.approved')`), func(r *row) error {
			e, err := decodeAudit(r.blob())
			if err != nil {
				return nil // auditRows reports it
			}
			if order := e.Detail["order"]; order != "" {
				said[order] = append(said[order], e)
			}
			return nil
		}, v.args...)
	})
	return said, err
}

func (f *checkup) rekeyApproval(o storedOrder, said []joinery.AuditEntry) {
	asked, approved := false, false
	for _, e := range said {
		asked = asked || e.Event == joinery.AuditRekeyRequested
		approved = approved || e.Event == joinery.AuditRekeyApproved
		// An order from before orders named a key was given that of its Join Server later.
		otherKey := e.Detail["key"] != "" && e.Detail["key"] != o.thumbprint
		if e.Device != o.device || e.Detail["new_join_eui"] != o.joinEUI.String() || otherKey || (e.Detail["rekeying_key"] != "") != o.rekeyKey {
			f.report("rekey", o.id, "device, JoinEUI, key and whether the rekeying key goes are those of "+string(e.Event), fixTamper)
		}
	}
	if o.noBatch && !asked {
		f.report("rekey", o.id, "one that was approved as one of many is of a batch that this person approved", fixTamper)
	}
	if o.armed && asked && approved && !slices.ContainsFunc(said, func(e joinery.AuditEntry) bool {
		return e.Event == joinery.AuditRekeyApproved && e.Actor == o.decidedBy
	}) {
		f.report("rekey", o.id, "who approved it is who the log says", fixTamper)
	}
	if o.armed && asked && !approved {
		f.report("rekey", o.id, "one that was requested of another person has his approval", fixTamper)
	}
}
