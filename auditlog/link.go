package auditlog

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"
)

// Link is one change of hands in the chain of a device's owners. The event
// "device.owner_linked" holds it; its hash is in the next one.
type Link struct {
	Device string `json:"device"`
	Epoch  uint32 `json:"epoch"` // of the ownership that begins; 0 is the maker
	How    string `json:"how"`   // "claim", "transfer" and so on
	At     int64  `json:"at"`    // milliseconds since 1970
	// From and To are commitments to names, hexadecimal; see Commitment.
	From string `json:"from"`
	To   string `json:"to"`
	// Disclosed: a root key had left the keyring readable to somebody.
	Disclosed bool `json:"disclosed"`
	// Manifest is SHA-256 of the signed entry with which the device was imported,
	// hexadecimal; "" for none.
	Manifest string `json:"manifest"`
	// Previous is the Hash of the link before, hexadecimal; that of the first says
	// FirstHash.
	Previous string `json:"previous"`
	// FromName and ToName are what was opened of the commitments.
	FromName string `json:"fromName,omitempty"`
	ToName   string `json:"toName,omitempty"`
}

// Time is when it was.
func (l Link) Time() time.Time { return time.UnixMilli(l.At).UTC() }

// Hash is SHA-256 over a line for each field.
func (l Link) Hash() string {
	h := sha256.Sum256(fmt.Appendf(nil, "joinery owner link 1\n%s\n%d\n%s\n%d\n%s\n%s\n%t\n%s\n%s\n",
		l.Device, l.Epoch, l.How, l.At, l.From, l.To, l.Disclosed, l.Manifest, l.Previous))
	return hex.EncodeToString(h[:])
}

// FirstHash is what the first link has as Previous: the device's manifest entry.
func FirstHash(device, manifest string) string {
	h := sha256.Sum256(fmt.Appendf(nil, "joinery first link 1\n%s\n%s\n", device, manifest))
	return hex.EncodeToString(h[:])
}

// Commitment hides a name until its owner tells it together with the nonce:
// SHA-256 over "joinery party 1\n" ‖ nonce 16 ‖ name, hexadecimal.
func Commitment(nonce []byte, name string) string {
	h := sha256.Sum256(append(append([]byte("joinery party 1\n"), nonce...), name...))
	return hex.EncodeToString(h[:])
}

// EventStated is the event that says how the chain of a device's owners stands. Its
// detail has "epoch", that of the newest ownership, "link", the Hash of the newest
// link or "" for none, "disclosed", whether a root key was ever disclosed as far as
// the server knows, "outside", see Stated, and "exposed" and "told", how many entries
// EventExposed and EventTold there are about the device.
const EventStated = "device.provenance_stated"

// Stated is how a chain of owners stood at a time.
type Stated struct {
	At        time.Time `json:"at"`
	Epoch     uint32    `json:"epoch"`
	Disclosed bool      `json:"disclosed"`
	// Outside: the root keys came from elsewhere, and no Join Server told who could
	// read them there; such as from a list, whose maker could.
	Outside bool `json:"outside"`
}

// stated holds the chain against what the log says of how it stands: without that,
// whoever shows a chain could leave its end out, and what they did since.
func (v *verifier) stated() {
	var e *Entry
	var p Event
	for i := range v.b.Entries {
		if q, err := ParseEvent(v.b.Entries[i].Payload); err == nil && v.b.Entries[i].Kind == KindEvent && q.Event == EventStated {
			e, p = &v.b.Entries[i], q
		}
	}
	if e == nil {
		if v.b.Kind == BundleProvenance {
			v.note("nothing says how things stand now: later links, and a disclosure of root keys since the last one, may be left out; ask the seller, who can have it stated")
		}
		return
	}
	if v.b.Kind != BundleProvenance {
		return
	}
	epoch, err1 := strconv.ParseUint(p.Detail["epoch"], 10, 32)
	disclosed, err2 := strconv.ParseBool(p.Detail["disclosed"])
	last := Link{}
	hash := ""
	if n := len(v.r.Links); n > 0 {
		last = v.r.Links[n-1]
		hash = last.Hash()
	}
	switch {
	case err1 != nil || err2 != nil || e.Leaf < 0:
		v.find(FaultLink, e.ID, "it says nothing, or is not in the log yet")
	case p.Detail["link"] != hash || hash != "" && uint32(epoch) != last.Epoch:
		v.find(FaultLink, e.ID, "the chain of owners had another end then: links are left out, or the statement is older")
	case last.Disclosed && !disclosed:
		v.find(FaultLink, e.ID, "a disclosure of root keys is forgotten")
	default:
		v.r.Stated = &Stated{At: p.Time(), Epoch: uint32(epoch), Disclosed: disclosed, Outside: p.Detail["outside"] == "true"}
		v.counted(e, p)
	}
}

// Detail is the link as the detail of its event.
func (l Link) Detail() map[string]string {
	return map[string]string{
		"epoch": strconv.FormatUint(uint64(l.Epoch), 10), "how": l.How, "at": strconv.FormatInt(l.At, 10), "from": l.From, "to": l.To,
		"disclosed": strconv.FormatBool(l.Disclosed), "manifest": l.Manifest, "previous": l.Previous, "link": l.Hash(),
	}
}

// ParseLink reads the link of an event; an error where it is none, or its hash is
// another.
func ParseLink(e Event) (l Link, err error) {
	d := e.Detail
	epoch, err1 := strconv.ParseUint(d["epoch"], 10, 32)
	at, err2 := strconv.ParseInt(d["at"], 10, 64)
	disclosed, err3 := strconv.ParseBool(d["disclosed"])
	if e.Event != "device.owner_linked" || err1 != nil || err2 != nil || err3 != nil {
		return l, fmt.Errorf("%w: want a link", ErrPayload)
	}
	l = Link{
		Device: e.Device, Epoch: uint32(epoch), How: d["how"], At: at, From: d["from"], To: d["to"],
		Disclosed: disclosed, Manifest: d["manifest"], Previous: d["previous"],
	}
	if l.Hash() != d["link"] {
		return l, fmt.Errorf("%w: the hash of a link is another", ErrPayload)
	}
	return l, nil
}

// links checks the chain of owners that a bundle has.
func (v *verifier) links() {
	for i := range v.b.Entries {
		e := &v.b.Entries[i]
		p, err := ParseEvent(e.Payload)
		if e.Kind != KindEvent || err != nil || p.Event != "device.owner_linked" {
			continue
		}
		l, err := ParseLink(p)
		if err != nil || e.Leaf < 0 && v.b.Kind == BundleProvenance {
			v.find(FaultLink, e.ID, "it is no link, or not in the log yet")
			continue
		}
		v.link(e, &l)
		v.r.Links = append(v.r.Links, l)
	}
	for _, p := range v.b.Parties {
		v.party(p)
	}
	if v.b.Kind == BundleProvenance && len(v.r.Links) == 0 {
		v.note("the device never changed hands since links are written down")
	}
}

func (v *verifier) link(e *Entry, l *Link) {
	switch n := len(v.r.Links); {
	case n == 0 && l.Epoch == 1 && l.Previous != FirstHash(l.Device, l.Manifest):
		v.find(FaultLink, e.ID, "the first link does not begin at the device's manifest entry")
	case n == 0 && l.Epoch != 1 && l.Previous != "":
		v.find(FaultLink, e.ID, "the links before it are left out")
	case n == 0 && l.Epoch != 1:
		v.note("links before the one of epoch %d were made before they were written down", l.Epoch)
	case n > 0 && (l.Previous != v.r.Links[n-1].Hash() || l.Epoch != v.r.Links[n-1].Epoch+1):
		v.find(FaultLink, e.ID, "it does not follow the link before it")
	case n > 0 && l.From != v.r.Links[n-1].To:
		v.find(FaultLink, e.ID, "who gave the device is not who had it")
	case n > 0 && v.r.Links[n-1].Disclosed && !l.Disclosed:
		v.find(FaultLink, e.ID, "a disclosure of root keys is forgotten")
	}
	v.linkManifest(e, l)
}

// linkManifest checks that a link is of the device that was imported.
func (v *verifier) linkManifest(e *Entry, l *Link) {
	switch h := v.manifest(); {
	case v.b.Import != nil && !v.hadManifest(l.Manifest):
		v.find(FaultLink, e.ID, "the manifest entry of this link is not the one with which the device was imported")
	case v.b.Import == nil && h != "" && l.Manifest != h:
		v.find(FaultLink, e.ID, "the manifest entry is not the one of this link")
	}
}

// party opens a commitment.
func (v *verifier) party(p Party) {
	opened := false
	for i := range v.r.Links {
		l, c := &v.r.Links[i], Commitment(p.Nonce, p.Name)
		if l.Epoch == p.Epoch && l.To == c {
			l.ToName, opened = p.Name, true
		}
		if l.Epoch == p.Epoch+1 && l.From == c {
			l.FromName, opened = p.Name, true
		}
	}
	if !opened {
		v.find(FaultLink, "", "%q is not who had the device in epoch %d", p.Name, p.Epoch)
	}
}
