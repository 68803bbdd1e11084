package auditlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Fault is what is wrong with a log.
type Fault string

// Faults.
const (
	// FaultSignature: the checkpoint is not the log's.
	FaultSignature Fault = "signature"
	// FaultRollback: entries that were in the log are in it no more.
	FaultRollback Fault = "rollback"
	// FaultFork: two states of the log cannot come from one another.
	FaultFork Fault = "fork"
	// FaultAltered: an entry is not what the tree holds.
	FaultAltered Fault = "altered"
	// FaultOmitted: an entry about the device is left out.
	FaultOmitted Fault = "omitted"
	// FaultOther: an entry is not about the device, or of no known form.
	FaultOther Fault = "other"
	// FaultProof: what would prove it is missing.
	FaultProof Fault = "proof"
	// FaultLink: the chain of owners is broken.
	FaultLink Fault = "link"
	// FaultImport: the history does not begin where the device was imported.
	FaultImport Fault = "import"
	// FaultSet: an order for many devices is not one for this, or not approved.
	FaultSet Fault = "set"
	// FaultWitness: a witness that was asked for has not signed.
	FaultWitness Fault = "witness"
)

// Finding is one thing that is wrong.
type Finding struct {
	Fault Fault  `json:"fault"`
	Entry string `json:"entry,omitempty"` // "" for the log as a whole
	What  string `json:"what"`
}

func (f Finding) String() string {
	if f.Entry == "" {
		return fmt.Sprintf("%s: %s", f.Fault, f.What)
	}
	return fmt.Sprintf("%s: %s: %s", f.Fault, f.Entry, f.What)
}

// Report is what Verify found. A bundle is good where there is no Finding.
type Report struct {
	Checkpoint Checkpoint `json:"-"`
	Size       int64      `json:"size"`
	Cosigned   []string   `json:"cosigned,omitempty"`
	Entries    int        `json:"entries"`
	Withheld   int        `json:"withheld"`
	Erased     int        `json:"erased"`
	Waiting    int        `json:"waiting"` // not in the tree yet
	Findings   []Finding  `json:"findings"`
	Notes      []string   `json:"notes,omitempty"` // worth knowing, not wrong
	Links      []Link     `json:"links,omitempty"` // of the chain of owners, oldest first
	// Began is where the history begins; nil where that is not shown.
	Began *Began `json:"began,omitempty"`
	// Stated is how the chain of owners stood when it was asked for; nil where that is
	// not shown.
	Stated *Stated `json:"stated,omitempty"`
	// Disclosures are those of its root keys that the entries tell of, by this server
	// and, as far as others told it, before the device came here; Told is who did.
	Disclosures []Disclosure `json:"disclosures,omitempty"`
	Told        []Told       `json:"told,omitempty"`
	// Orders are who asked for exports and rekeyings of its keys, and who approved them.
	Orders []Order `json:"orders,omitempty"`
}

// Began is where the history of a device begins: its import.
type Began struct {
	At    time.Time `json:"at"`
	Entry string    `json:"entry"`
	Leaf  int64     `json:"leaf"`
	// Manifest is SHA-256 of its signed manifest entry, hexadecimal; "" for none.
	Manifest string `json:"manifest,omitempty"`
	// By is who imported it; "" where that is not shown.
	By string `json:"by,omitempty"`
}

// OK tells whether nothing is wrong.
func (r Report) OK() bool { return len(r.Findings) == 0 }

// Trust is what a verifier holds.
type Trust struct {
	Key Key
	// Witnesses must all have signed.
	Witnesses []note.Verifier
	// Old is a checkpoint that the verifier kept; "" is none.
	Old string
	// OldBundle is a bundle that the verifier kept: all in it must be in the new
	// one.
	OldBundle *Bundle
}

// Verify checks a bundle. It asks nobody.
func Verify(b Bundle, trust Trust) Report {
	v := verifier{b: b, trust: trust, r: Report{Findings: []Finding{}}}
	v.checkpoint()
	if v.r.OK() {
		v.consistency(trust.Old)
		if trust.OldBundle != nil {
			v.consistency(trust.OldBundle.Checkpoint)
			v.still(*trust.OldBundle)
		}
		for i := range b.Entries {
			v.entry(&b.Entries[i])
		}
		v.began()
		if b.Kind != BundleProvenance {
			v.events()
			v.joins()
			v.orders()
		}
		v.erasures()
		v.links()
		v.exposed()
		v.stated()
	}
	return v.r
}

// verifier is one run of Verify.
type verifier struct {
	b     Bundle
	trust Trust
	r     Report
}

func (v *verifier) find(f Fault, entry, format string, args ...any) {
	v.r.Findings = append(v.r.Findings, Finding{f, entry, fmt.Sprintf(format, args...)})
}

func (v *verifier) note(format string, args ...any) {
	v.r.Notes = append(v.r.Notes, fmt.Sprintf(format, args...))
}

func (v *verifier) checkpoint() {
	if v.b.Format != BundleFormat {
		v.find(FaultOther, "", "the bundle is of format %q; this program knows %s", v.b.Format, BundleFormat)
		return
	}
	c, cosigned, err := v.trust.Key.Open(v.b.Checkpoint, v.trust.Witnesses...)
	if err != nil {
		v.find(FaultSignature, "", "%v", err)
		return
	}
	v.r.Checkpoint, v.r.Size, v.r.Cosigned = c, c.Size, cosigned
	for _, w := range v.trust.Witnesses {
		if !slices.Contains(cosigned, w.Name()) {
			v.find(FaultWitness, "", "witness %s has not signed this state of the log", w.Name())
		}
	}
}

// consistency holds the checkpoint against one that was kept.
func (v *verifier) consistency(signed string) {
	if signed == "" {
		return
	}
	old, _, err := v.trust.Key.Open(signed)
	if err != nil {
		v.find(FaultSignature, "", "the old checkpoint: %v", err)
		return
	}
	c := v.r.Checkpoint
	end := c.Size
	if old.Origin != c.Origin {
		i := slices.IndexFunc(c.Continues, func(l Line) bool { return l.Origin == old.Origin })
		if i < 0 {
			v.find(FaultFork, "", "the old checkpoint is of the log %s, and this one is of %s, which does not continue it", old.Origin, c.Origin)
			return
		}
		end = c.Continues[i].Size
		if old.Size <= end {
			v.note("the server was restored from a backup since: the log %s ended with %d entries and goes on as %s; all that you knew of is in it", old.Origin, end, c.Origin)
		}
	}
	switch {
	case old.Size > end:
		v.find(FaultRollback, "", "the log had %d entries, and has %d of them: %d were taken away", old.Size, end, old.Size-end)
	case old.Size == 0:
	case old.Size == c.Size:
		if old.Root != c.Root {
			v.find(FaultFork, "", "two states of %d entries differ: the log was told in two ways", old.Size)
		}
	default:
		v.proveTree(old)
	}
}

func (v *verifier) proveTree(old Checkpoint) {
	c := v.r.Checkpoint
	i := slices.IndexFunc(v.b.Consistency, func(p Consistency) bool { return p.From == old.Size })
	if i < 0 {
		v.find(FaultProof, "", "there is no proof that the log continues its first %d entries; fetch the bundle again with the old checkpoint", old.Size)
		return
	}
	proof, ok := hashes(v.b.Consistency[i].Proof)
	if !ok || tlog.CheckTree(proof, c.Size, tlog.Hash(c.Root), old.Size, tlog.Hash(old.Root)) != nil {
		v.find(FaultFork, "", "the log does not continue the %d entries that it had: it was told in two ways, or changed", old.Size)
	}
}

func hashes(list [][]byte) (out []tlog.Hash, ok bool) {
	for _, b := range list {
		if len(b) != sha256.Size {
			return nil, false
		}
		out = append(out, tlog.Hash(b))
	}
	return out, true
}

// still checks that what an older bundle has is in this one.
func (v *verifier) still(old Bundle) {
	now := map[string]*Entry{}
	for i := range v.b.Entries {
		now[v.b.Entries[i].ID] = &v.b.Entries[i]
	}
	for _, e := range old.Entries {
		if e.Kind == KindLog || e.Kind == KindImport || v.b.Kind != old.Kind {
			continue
		}
		switch n := now[e.ID]; {
		case n == nil:
			v.find(FaultOmitted, e.ID, "it was in the older bundle and is left out of this one")
		case !bytes.Equal(n.Record, e.Record) || e.Leaf >= 0 && n.Leaf != e.Leaf:
			v.find(FaultAltered, e.ID, "it is not the entry of the older bundle")
		}
	}
}

// entry checks that an entry is in the tree, and is what the tree holds.
func (v *verifier) entry(e *Entry) {
	v.r.Entries++
	record, err := ParseRecord(e.Record)
	if err != nil {
		v.find(FaultAltered, e.ID, "%v", err)
		return
	}
	switch {
	case e.Leaf < 0:
		v.r.Waiting++
	case e.Leaf >= v.r.Size:
		v.find(FaultProof, e.ID, "it is entry %d, and the checkpoint covers %d", e.Leaf, v.r.Size)
	default:
		proof, ok := hashes(e.Proof)
		if !ok || tlog.CheckRecord(proof, v.r.Size, tlog.Hash(v.r.Checkpoint.Root), e.Leaf, tlog.Hash(record.LeafHash())) != nil {
			v.find(FaultAltered, e.ID, "it is not what the log holds as entry %d", e.Leaf)
		}
	}
	switch {
	case e.Payload != nil:
		if err := VerifyRecord(e.Record, e.Salt, e.Payload); err != nil {
			v.find(FaultAltered, e.ID, "%v", err)
			return
		}
		v.subject(e)
	case e.ErasedBy != "":
		v.r.Erased++
	case e.Withheld:
		v.r.Withheld++
	default:
		v.find(FaultOmitted, e.ID, "its content is missing, and nothing says why")
	}
}

// subject checks that an entry is about the device.
func (v *verifier) subject(e *Entry) {
	switch e.Kind {
	case KindEvent:
		if p, err := ParseEvent(e.Payload); err != nil || p.Device != v.b.Device {
			v.find(FaultOther, e.ID, "it is no event about %s", v.b.Device)
		}
	case KindJoin:
		if p, err := ParseJoin(e.Payload); err != nil || !strings.EqualFold(p.DevEUI, v.b.DevEUI) {
			v.find(FaultOther, e.ID, "it is no join of DevEUI %s", v.b.DevEUI)
		}
	case KindImport:
		if p, err := ParseEvent(e.Payload); err != nil || p.Event != EventImported {
			v.find(FaultOther, e.ID, "it is no event of an import")
		}
	case KindRelated:
		v.related(e)
	case KindLog:
		if p, err := ParseEvent(e.Payload); err != nil || !strings.HasPrefix(p.Event, "log.") {
			v.find(FaultOther, e.ID, "it is no event about the log")
		}
	default:
		v.find(FaultOther, e.ID, "entries of kind %q are not known", e.Kind)
	}
}

// events checks the chain of events about the device: each is numbered, and names
// the record before it.
func (v *verifier) events() {
	var before *Entry
	n := int64(0)
	for i := range v.b.Entries {
		e := &v.b.Entries[i]
		if e.Kind != KindEvent {
			continue
		}
		n++
		p, err := ParseEvent(e.Payload)
		switch {
		case err != nil || p.N == 0: // withheld, erased, or from before there were numbers
		case p.N != n:
			v.find(FaultOmitted, e.ID, "it is event %d about the device, and %d are shown up to it", p.N, n)
			n = p.N
		case before != nil && p.Previous != hex.EncodeToString(before.Record):
			v.find(FaultAltered, before.ID, "event %d about the device names another entry before it", p.N)
		}
		before = e
	}
}

// joins checks the chain of joins, whose JoinNonces rise by one: also from one key
// set to the next, which a rekeyed device has.
func (v *verifier) joins() {
	type seen struct {
		join   Join
		entry  *Entry
		hidden int64 // after it
	}
	var newest *seen
	for i := range slices.Backward(v.b.Entries) { // oldest first
		e := &v.b.Entries[i]
		if e.Kind != KindJoin {
			continue
		}
		j, err := ParseJoin(e.Payload)
		if err != nil {
			if newest != nil {
				newest.hidden++
			}
			continue
		}
		if newest != nil {
			v.gap(newest.entry, e, int64(j.JoinNonce)-int64(newest.join.JoinNonce)-1-newest.hidden)
		}
		newest = &seen{join: j, entry: e}
	}
}

// gap judges how many JoinNonces lie between two joins that nothing accounts for.
func (v *verifier) gap(older, newer *Entry, missing int64) {
	switch {
	case missing == 0:
	case missing < 0:
		v.find(FaultAltered, newer.ID, "its JoinNonce does not rise above that of the join before")
	case v.hidden(older.Leaf, newer.Leaf):
		v.note("%d JoinNonces before %s are not accounted for; an event of another owner, or an erased one, lies there and may say why", missing, newer.ID)
	case v.raised(older, newer):
		v.note("%d JoinNonces before %s were left out when they were raised: by the operator, or as the device was imported again", missing, newer.ID)
	default:
		v.find(FaultOmitted, newer.ID, "%d joins before it are left out", missing)
	}
}

// raising are the events with which JoinNonces may rise: reset by the operator,
// after a restore, or as a deleted device came back with what others had used. New
// root keys go on exactly where the ones before ended.
var raising = map[string]bool{"device.nonces_reset": true, "log.restarted": true, "device.deleted": true, eventDeviceImported: true}

// raised tells whether an entry between two joins says that JoinNonces were raised:
// between their leaves, or between their times. Joins come into the log behind their
// commit, and so those that a restored database had not named yet come behind the
// entry of its confirmation, by which nonces rose.
func (v *verifier) raised(older, newer *Entry) bool {
	before, errBefore := ParseJoin(older.Payload)
	after, errAfter := ParseJoin(newer.Payload)
	if errBefore != nil || errAfter != nil {
		return false
	}
	for i := range v.b.Entries {
		e := &v.b.Entries[i]
		p, err := ParseEvent(e.Payload)
		if e.Kind != KindEvent && e.Kind != KindLog || err != nil || !raising[p.Event] {
			continue
		}
		leaf := e.Leaf > older.Leaf && e.Leaf < newer.Leaf
		if leaf || !p.Time().Before(before.At) && !p.Time().After(after.At) {
			return true
		}
	}
	return false
}

// hidden tells whether an event without content lies between two leaves.
func (v *verifier) hidden(from, to int64) bool {
	return slices.ContainsFunc(v.b.Entries, func(e Entry) bool {
		return e.Kind == KindEvent && e.Payload == nil && e.Leaf > from && (to < 0 || e.Leaf < to)
	})
}

// erasures checks that what is erased has its record.
func (v *verifier) erasures() {
	for i := range v.b.Entries {
		e := &v.b.Entries[i]
		if e.ErasedBy == "" {
			continue
		}
		at := slices.IndexFunc(v.b.Entries, func(o Entry) bool { return o.ID == e.ErasedBy })
		if at < 0 {
			v.find(FaultOmitted, e.ID, "the record of its erasure, %s, is not shown", e.ErasedBy)
			continue
		}
		p, err := ParseEvent(v.b.Entries[at].Payload)
		if err != nil || p.Event != "log.entry_erased" || p.Detail["record"] != hex.EncodeToString(e.Record) {
			v.find(FaultAltered, e.ID, "%s is no record of its erasure", e.ErasedBy)
		}
	}
}
