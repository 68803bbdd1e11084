package auditlog

import (
	"encoding/json"
	"strconv"
	"time"
)

// Events about who could read root keys of a device.
const (
	// EventExposed: this server made them readable to somebody. Its detail has
	// "recipient", the thumbprint of the key to which they were encrypted, "kind",
	// "file" or "join-server", and "export" or "rekey", by what.
	EventExposed = "keys.exposed"
	// EventTold: the Join Server from which the device came told of it, signed. Its
	// detail has "server", who told, "signer", the thumbprint of the key that signed,
	// "way", "export" or "handover", "as_of", when it said so (milliseconds since
	// 1970), "outside", see Stated, "disclosed", whether root keys were ever, and
	// "times", the JSON of a list of ToldTime, those that were not told before.
	EventTold = "keys.exposure_told"
)

// Disclosure is one time that root keys of a device were made readable to somebody.
type Disclosure struct {
	At        time.Time `json:"at"`
	Recipient string    `json:"recipient"`
	Kind      string    `json:"kind"`
	Reference string    `json:"reference"` // by what export or order to rekey
	// Former: they were root keys that the device had before; known of what was told.
	Former bool `json:"former,omitempty"`
	// ToldBy is the Join Server that told of it, "" where the log's own server did it;
	// By the one that did, where that is a third one.
	ToldBy string `json:"toldBy,omitempty"`
	By     string `json:"by,omitempty"`
}

// Told is what another Join Server said of a device that came from it.
type Told struct {
	Server string    `json:"server"`
	Signer string    `json:"signer"` // thumbprint of the key that signed
	Way    string    `json:"way"`    // "export" or "handover"
	AsOf   time.Time `json:"asOf"`
	// Outside: the root keys came to it from elsewhere; see Stated.
	Outside   bool `json:"outside"`
	Disclosed bool `json:"disclosed"`
}

// ToldTime is a disclosure as the detail of EventTold has it.
type ToldTime struct {
	At        int64  `json:"at"` // milliseconds since 1970
	Recipient string `json:"recipient"`
	Kind      string `json:"kind"`
	By        string `json:"by,omitempty"` // who did it, where that is not who told
	Reference string `json:"reference"`
	Former    bool   `json:"former,omitempty"`
}

// Detail is t with its times as the detail of its event.
func (t Told) Detail(times []ToldTime) map[string]string {
	list, _ := json.Marshal(append([]ToldTime{}, times...)) // texts and numbers
	return map[string]string{
		"server": t.Server, "signer": t.Signer, "way": t.Way, "as_of": strconv.FormatInt(t.AsOf.UnixMilli(), 10),
		"outside": strconv.FormatBool(t.Outside), "disclosed": strconv.FormatBool(t.Disclosed), "times": string(list),
	}
}

// parseTold reads the detail of EventTold.
func parseTold(d map[string]string) (t Told, times []ToldTime, ok bool) {
	at, err1 := strconv.ParseInt(d["as_of"], 10, 64)
	outside, err2 := strconv.ParseBool(d["outside"])
	disclosed, err3 := strconv.ParseBool(d["disclosed"])
	if err1 != nil || err2 != nil || err3 != nil || json.Unmarshal([]byte(d["times"]), &times) != nil {
		return t, nil, false
	}
	return Told{Server: d["server"], Signer: d["signer"], Way: d["way"], AsOf: time.UnixMilli(at).UTC(), Outside: outside, Disclosed: disclosed}, times, true
}

// exposed gathers what the entries say of who could read root keys.
func (v *verifier) exposed() {
	for i := range v.b.Entries {
		e := &v.b.Entries[i]
		p, err := ParseEvent(e.Payload)
		if e.Kind != KindEvent || err != nil {
			continue
		}
		if (p.Event == EventExposed || p.Event == EventTold) && e.Leaf < 0 && v.b.Kind == BundleProvenance {
			v.find(FaultProof, e.ID, "it is not in the log yet")
		}
		switch p.Event {
		case EventExposed:
			reference := p.Detail["export"]
			if reference == "" {
				reference = p.Detail["rekey"]
			}
			v.r.Disclosures = append(v.r.Disclosures, Disclosure{At: p.Time(), Recipient: p.Detail["recipient"], Kind: p.Detail["kind"], Reference: reference})
		case EventTold:
			t, times, ok := parseTold(p.Detail)
			if !ok {
				v.find(FaultOther, e.ID, "it does not say what another Join Server told")
				continue
			}
			v.r.Told = append(v.r.Told, t)
			for _, x := range times {
				v.r.Disclosures = append(v.r.Disclosures, Disclosure{
					At: time.UnixMilli(x.At).UTC(), Recipient: x.Recipient, Kind: x.Kind, Reference: x.Reference, Former: x.Former, ToldBy: t.Server, By: x.By,
				})
			}
		}
	}
}

// counted holds the entries about disclosures against how many there are by what the
// log states: so none is left out. Statements of earlier versions do not count them.
func (v *verifier) counted(e *Entry, p Event) {
	want, ok := p.Detail["exposed"]
	if !ok {
		v.note("the statement is of a version that did not count disclosures; ask for a new one")
		return
	}
	n := 0
	for _, d := range v.r.Disclosures {
		if d.ToldBy == "" {
			n++
		}
	}
	if want != strconv.Itoa(n) || p.Detail["told"] != strconv.Itoa(len(v.r.Told)) {
		v.find(FaultOmitted, e.ID, "the log has %s disclosures by this server, and %s statements of others; shown are %d and %d", want, p.Detail["told"], n, len(v.r.Told))
	}
}
