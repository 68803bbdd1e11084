package auditlog

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// Order is what somebody ordered for a device's keys: an export or a rekeying, of the
// device or of many at once.
type Order struct {
	Reference string `json:"reference"` // "exp_…", "rkb_…" or "rky_…"
	// Key is the thumbprint of the key to which root keys go.
	Key     string `json:"key"`
	Devices int64  `json:"devices"`
	Org     string `json:"org"` // whose order it is
	// Member: it is shown that the device is one of Devices.
	Member bool   `json:"member"`
	Steps  []Step `json:"steps"`
}

// Step is what was done with an order, by whom.
type Step struct {
	At    time.Time `json:"at"`
	What  string    `json:"what"` // "requested", "approved", "delivered" and so on
	By    string    `json:"by"`
	Entry string    `json:"entry"`
}

// What entries about a device name besides: records of the entries in which what is
// done was asked for and approved, hexadecimal.
const (
	DetailRequested = "requested_entry"
	DetailApproved  = "approved_entry"
)

// How events of orders for many devices begin, and of all of rekeying.
const (
	exportEvents = "export."
	batchEvents  = "rekey.batch_"
	rekeyEvents  = "rekey."
)

// orderSteps are the events about one device that are steps of its order to rekey.
var orderSteps = map[string]bool{
	"rekey.requested": true, "rekey.approved": true, "rekey.rejected": true, "rekey.armed": true, "rekey.cancelled": true,
}

// referenceOf names the order that an entry of KindRelated is about, and what of it
// was done; "" for what is none.
func referenceOf(p Event) (reference, what string) {
	if what, ok := strings.CutPrefix(p.Event, exportEvents); ok {
		return p.Detail["export"], what
	}
	if what, ok := strings.CutPrefix(p.Event, batchEvents); ok {
		return p.Detail["batch"], what
	}
	return "", ""
}

// related checks that an entry which is not about the device alone concerns it.
func (v *verifier) related(e *Entry) {
	p, err := ParseEvent(e.Payload)
	reference, _ := referenceOf(p)
	switch {
	case err == nil && p.Device != "":
	case err == nil && reference != "", err == nil && p.Event == eventDeviceImported:
		return // see orders and began
	case err == nil && strings.HasPrefix(p.Event, rekeyEvents) && p.Detail["arrival"] != "" && strings.EqualFold(p.Detail["dev_eui"], v.b.DevEUI):
		return
	}
	v.find(FaultOther, e.ID, "it is not about %s and others", v.b.Device)
}

// orders gathers who asked for what, and who approved it, and checks that each order
// is for the device, and that none is left out that an entry about the device names.
func (v *verifier) orders() {
	sets := map[string]Set{}
	for _, s := range v.b.Sets {
		sets[s.Of] = s
	}
	batchOf := map[string]string{} // by a device's own order
	ordered := map[string]bool{}   // devices' own orders
	at := map[string]int{}
	order := func(reference string, p Event) *Order {
		i, ok := at[reference]
		if !ok {
			i = len(v.r.Orders)
			at[reference] = i
			v.r.Orders = append(v.r.Orders, Order{Reference: reference, Org: p.Org})
		}
		return &v.r.Orders[i]
	}
	for i := range v.b.Entries {
		e := &v.b.Entries[i]
		p, err := ParseEvent(e.Payload)
		if err != nil {
			continue
		}
		reference, what := referenceOf(p)
		switch {
		case e.Kind == KindRelated && reference != "" && neverAsked(p, what):
			// Nothing was done by it.
		case e.Kind == KindRelated && reference != "":
			o := order(reference, p)
			o.Steps = append(o.Steps, Step{p.Time(), what, p.Actor, e.ID})
			v.covers(o, e, p, sets)
		case e.Kind == KindEvent && orderSteps[p.Event] && p.Detail["order"] != "":
			of := p.Detail["order"]
			ordered[of] = true
			if p.Detail["batch"] != "" {
				batchOf[of] = p.Detail["batch"]
			}
			if batchOf[of] != "" {
				of = batchOf[of]
			}
			o := order(of, p)
			o.Steps = append(o.Steps, Step{p.Time(), strings.TrimPrefix(p.Event, rekeyEvents), p.Actor, e.ID})
			if of == p.Detail["order"] {
				o.Member, o.Devices = true, 1
			}
			if p.Detail["key"] != "" {
				o.Key = p.Detail["key"]
			}
		}
		if e.Kind == KindEvent {
			v.ordered(e, p)
			v.rekeyed(e, p, ordered)
		}
	}
}

// neverAsked tells whether a step ended what somebody began and did not ask for: of
// what devices it would have been nobody has said.
func neverAsked(p Event, what string) bool {
	return (what == "withdrawn" || what == "expired") && p.Detail["set"] == "" && p.Detail["devices"] == ""
}

// covers checks that an order is for the device: each of its entries commits to that.
func (v *verifier) covers(o *Order, e *Entry, p Event, sets map[string]Set) {
	if p.Detail["devices"] != "" {
		o.Devices, _ = strconv.ParseInt(p.Detail["devices"], 10, 64)
	}
	if key := keyOf(p); key != "" {
		o.Key = key
	}
	if s, ok := sets[o.Reference]; !ok || !v.proves(s, p) {
		v.find(FaultSet, e.ID, "the device is not one of those of %s", o.Reference)
		return
	}
	o.Member = true
}

// keyOf is the thumbprint of the key to which an order sends root keys.
func keyOf(p Event) string {
	if p.Detail["recipient"] != "" {
		return p.Detail["recipient"]
	}
	return p.Detail["key"]
}

// rekeyed checks that it is shown who ordered the rekeying by which root keys were made
// readable. What was erased may have been that.
func (v *verifier) rekeyed(e *Entry, p Event, ordered map[string]bool) {
	if by := p.Detail["rekey"]; p.Event == EventExposed && by != "" && !ordered[by] && v.r.Erased == 0 {
		v.find(FaultOmitted, e.ID, "nothing shows who ordered %s", by)
	}
}

// ordered checks that the entries are there in which what an event tells of was asked
// for and approved, and that they say that.
func (v *verifier) ordered(e *Entry, p Event) {
	reference := p.Detail["export"]
	if reference == "" {
		reference = p.Detail["batch"]
	}
	switch {
	case reference == "" && p.Event == EventExposed && p.Detail["rekey"] == "":
		v.find(FaultOmitted, e.ID, "it does not name the order by which root keys were made readable")
		return
	case reference == "":
		return
	}
	requested, known := v.orderEntry(e, p, reference, DetailRequested, "requested")
	approved, _ := v.orderEntry(e, p, reference, DetailApproved, "approved")
	switch {
	case p.Detail[DetailRequested] == "":
		v.find(FaultOmitted, e.ID, "it does not name the entry in which %s was asked for", reference)
	case known && requested.Detail["approval"] == "needed" && p.Detail[DetailApproved] == "":
		v.find(FaultSet, e.ID, "%s needed somebody's approval, and none is named", reference)
	case known && approved.Event != "" && (approved.Detail["set"] != requested.Detail["set"] || approved.Detail["devices"] != requested.Detail["devices"]):
		v.find(FaultSet, e.ID, "%s was approved for other devices than it was asked for", reference)
	case known && requested.Detail["approval"] == "needed" && approved.Actor == requested.Actor:
		v.find(FaultSet, e.ID, "%s needed somebody else's approval, and %s approved what he had asked for", reference, approved.Actor)
	}
}

// orderEntry finds the entry that an event names by its record, and checks that it is
// that step of the order. known: its content is shown.
func (v *verifier) orderEntry(e *Entry, p Event, reference, name, step string) (found Event, known bool) {
	record := p.Detail[name]
	if record == "" {
		return found, false
	}
	for i := range v.b.Entries {
		o := &v.b.Entries[i]
		if o.Kind != KindRelated || hex.EncodeToString(o.Record) != record {
			continue
		}
		if e.Leaf >= 0 && (o.Leaf < 0 || o.Leaf >= e.Leaf) {
			v.find(FaultSet, o.ID, "it is younger than %s, which rests on it", e.ID)
		}
		q, err := ParseEvent(o.Payload)
		if err != nil { // withheld, erased, or found wrong
			return found, false
		}
		if of, what := referenceOf(q); of != reference || what != step || keyOf(q) != keyOf(p) {
			v.find(FaultSet, o.ID, "it is not the entry in which %s was %s, for the key of %s", reference, step, e.ID)
			return found, false
		}
		return q, true
	}
	v.find(FaultOmitted, e.ID, "the entry in which %s was %s is not shown", reference, step)
	return found, false
}
