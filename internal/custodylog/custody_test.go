package custodylog

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"joinery"
	"joinery/auditlog"
	"joinery/internal/store"
	"joinery/internal/tlog"
)

// An owner gets everything, and it is proved; a former owner what was theirs; a
// later owner what concerns the keys, and nothing that is private; a stranger not
// even that the device is there.
func TestCustodyOfEachOwner(t *testing.T) {
	w := newWorld(t, Options{})
	d := w.devices[0]
	w.join(d)
	w.suspend(d)
	w.suspend(d)
	w.join(d)
	w.claim(d, w.buyer)
	w.join(d)
	w.suspend(d)
	w.suspend(d)
	w.join(d)
	w.publish()
	counts := func(b auditlog.Bundle) (events, joins, withheld int) {
		for _, e := range b.Entries {
			switch {
			case e.Withheld:
				withheld++
			case e.Kind == auditlog.KindJoin:
				joins++
			case e.Kind == auditlog.KindEvent:
				events++
			}
		}
		return events, joins, withheld
	}
	for _, c := range []struct {
		who                     string
		caller                  joinery.Caller
		events, joins, withheld int
	}{
		{"operator", operator, 6, 4, 0},
		{"owner", as(w.buyer), 4, 2, 4}, // claimed, linked and two of their own
		{"maker", as(w.maker), 2, 2, 6},
	} {
		t.Run(c.who, func(t *testing.T) {
			b := w.bundle(c.caller, d, 0)
			r := w.good(b, w.trust())
			events, joins, withheld := counts(b)
			if events != c.events || joins != c.joins || withheld != c.withheld || r.Withheld != c.withheld || r.Waiting != 0 {
				t.Errorf("%d events, %d joins, %d withheld; report %+v", events, joins, withheld, r)
			}
			for _, e := range b.Entries {
				if e.Withheld && (e.Payload != nil || e.Salt != nil) {
					t.Error("an entry that is withheld has its content")
				}
			}
		})
	}
	for _, id := range []joinery.DeviceID{d, joinery.NewDeviceID()} {
		for name, call := range map[string]func() error{
			"custody":    func() error { _, err := w.Custody(w.ctx, as(w.stranger), Query{Device: id}); return err },
			"provenance": func() error { _, err := w.Provenance(w.ctx, as(w.stranger), Query{Device: id}); return err },
		} {
			if err := call(); joinery.CodeOf(err) != joinery.CodeNotFound {
				t.Errorf("%s of %s for a stranger: %v", name, id, err)
			}
		}
	}
}

// What a server, or whoever has it, can do to a log is found (P26).
func TestAttacksAreFound(t *testing.T) {
	w := newWorld(t, Options{})
	d := w.devices[0]
	for range 3 {
		w.join(d)
		w.suspend(d)
	}
	old := w.publish()
	oldBundle := w.bundle(as(w.maker), d, 0)
	oldState, err := w.db.LogState(w.ctx)
	w.ok(err)
	for range 3 {
		w.join(d)
		w.suspend(d)
	}
	w.publish()
	good := w.bundle(as(w.maker), d, oldState.Size)
	trust := w.trust()
	trust.Old = old
	w.good(good, trust)
	withBundle := trust
	withBundle.OldBundle = &oldBundle
	w.good(good, withBundle)

	other := newWorld(t, Options{}) // another log of the same name and key: a second story
	for range 12 {
		other.join(other.devices[0])
	}
	other.publish()
	sign := func(from *world, size int64) string {
		t.Helper()
		root, err := from.tree(from.ctx, size).Root()
		w.ok(err)
		signed, err := w.sign(w.ctx, auditlog.Checkpoint{Origin: "log.example", Size: size, Root: root})
		w.ok(err)
		return string(signed)
	}
	otherState, err := other.db.LogState(w.ctx)
	w.ok(err)
	kindOf := func(b *auditlog.Bundle, kind string, n int) int {
		for i := range b.Entries {
			if b.Entries[i].Kind == kind {
				if n == 0 {
					return i
				}
				n--
			}
		}
		t.Fatal("no such entry")
		return 0
	}
	for _, c := range []struct {
		name  string
		fault auditlog.Fault
		do    func(b *auditlog.Bundle)
	}{
		{"truncation", auditlog.FaultRollback, func(b *auditlog.Bundle) { b.Checkpoint = sign(w, oldState.Size-2) }},
		{"rollback and another story", auditlog.FaultFork, func(b *auditlog.Bundle) {
			b.Checkpoint = sign(other, otherState.Size)
			proof, err := other.tree(w.ctx, otherState.Size).Consistency(oldState.Size)
			w.ok(err)
			b.Consistency = []auditlog.Consistency{{From: oldState.Size}}
			for _, h := range proof {
				b.Consistency[0].Proof = append(b.Consistency[0].Proof, h[:])
			}
		}},
		{"fork", auditlog.FaultFork, func(b *auditlog.Bundle) { b.Checkpoint = sign(other, oldState.Size) }},
		{"no proof", auditlog.FaultProof, func(b *auditlog.Bundle) { b.Consistency = nil }},
		{"another log", auditlog.FaultSignature, func(b *auditlog.Bundle) {
			b.Checkpoint = strings.Replace(b.Checkpoint, "log.example", "log.elsewhere", 2)
		}},
		{"checkpoint changed", auditlog.FaultSignature, func(b *auditlog.Bundle) { b.Checkpoint = strings.Replace(b.Checkpoint, "\n", "/2\n", 1) }},
		{"payload altered", auditlog.FaultAltered, func(b *auditlog.Bundle) {
			e := &b.Entries[kindOf(b, auditlog.KindEvent, 1)]
			e.Payload = bytes.Replace(e.Payload, []byte(`"test"`), []byte(`"best"`), 1)
		}},
		{"record and payload altered", auditlog.FaultAltered, func(b *auditlog.Bundle) {
			e := &b.Entries[kindOf(b, auditlog.KindEvent, 1)]
			e.Payload = bytes.Replace(e.Payload, []byte(`"test"`), []byte(`"best"`), 1)
			r := auditlog.NewRecord([32]byte(e.Salt), e.Payload)
			e.Record = r[:]
		}},
		{"an event left out", auditlog.FaultOmitted, func(b *auditlog.Bundle) {
			i := kindOf(b, auditlog.KindEvent, 2)
			b.Entries = slices.Delete(b.Entries, i, i+1)
		}},
		{"the first event left out", auditlog.FaultOmitted, func(b *auditlog.Bundle) {
			i := kindOf(b, auditlog.KindEvent, 0)
			b.Entries = slices.Delete(b.Entries, i, i+1)
		}},
		{"a join left out", auditlog.FaultOmitted, func(b *auditlog.Bundle) {
			i := kindOf(b, auditlog.KindJoin, 2)
			b.Entries = slices.Delete(b.Entries, i, i+1)
		}},
		{"the newest entries that were known left out", auditlog.FaultOmitted, func(b *auditlog.Bundle) {
			b.Entries = slices.DeleteFunc(b.Entries, func(e auditlog.Entry) bool { return e.Kind == auditlog.KindJoin && e.Leaf > oldState.Size/2 })
		}},
		{"an event shown twice in place of another", auditlog.FaultOmitted, func(b *auditlog.Bundle) {
			b.Entries[kindOf(b, auditlog.KindEvent, 2)] = b.Entries[kindOf(b, auditlog.KindEvent, 1)]
		}},
		{"content taken away", auditlog.FaultOmitted, func(b *auditlog.Bundle) {
			e := &b.Entries[kindOf(b, auditlog.KindEvent, 1)]
			e.Payload, e.Salt = nil, nil
		}},
		{"erased without a record", auditlog.FaultOmitted, func(b *auditlog.Bundle) {
			e := &b.Entries[kindOf(b, auditlog.KindEvent, 1)]
			e.Payload, e.Salt, e.ErasedBy = nil, nil, "audit_999"
		}},
		{"another device's", auditlog.FaultOther, func(b *auditlog.Bundle) { b.Device, b.DevEUI = w.devices[1].String(), "0004A30B00000001" }},
		{"another format", auditlog.FaultOther, func(b *auditlog.Bundle) { b.Format = "joinery-custody/9" }},
		{"beyond the checkpoint", auditlog.FaultProof, func(b *auditlog.Bundle) { b.Entries[0].Leaf = 1 << 30 }},
		{"proof altered", auditlog.FaultAltered, func(b *auditlog.Bundle) { b.Entries[0].Proof[0][0] ^= 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := clone(t, good)
			c.do(&b)
			r := auditlog.Verify(b, withBundle)
			if !slices.ContainsFunc(r.Findings, func(f auditlog.Finding) bool { return f.Fault == c.fault }) {
				t.Errorf("want %s, found %v", c.fault, r.Findings)
			}
		})
	}
}

func clone(t *testing.T, b auditlog.Bundle) (out auditlog.Bundle) {
	t.Helper()
	text, err := json.Marshal(b)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Erasure takes the content away and leaves the log valid, and it is told.
func TestErasure(t *testing.T) {
	w := newWorld(t, Options{})
	d := w.devices[0]
	for range 3 {
		w.join(d)
		w.suspend(d)
	}
	w.publish()
	before := w.bundle(operator, d, 0)
	state, err := w.db.LogState(w.ctx)
	w.ok(err)
	for _, i := range []int{1, 4} { // an event, a join
		ref, err := ParseEntryName(before.Entries[i].ID)
		w.ok(err)
		if err := w.Erase(w.ctx, as(w.maker), ref, "no"); joinery.CodeOf(err) != joinery.CodeForbidden {
			t.Errorf("an owner erases: %v", err)
		}
		if err := w.Erase(w.ctx, operator, ref, " "); joinery.CodeOf(err) != joinery.CodeInvalid {
			t.Errorf("without a reason: %v", err)
		}
		w.ok(w.Erase(w.ctx, operator, ref, "asked for"))
	}
	w.publish()
	b := w.bundle(as(w.maker), d, state.Size)
	trust := w.trust()
	trust.OldBundle = &before
	r := w.good(b, trust)
	if r.Erased != 2 {
		t.Errorf("%+v", r)
	}
	for _, i := range []int{1, 4} {
		for _, part := range [][]byte{before.Entries[i].Payload, before.Entries[i].Salt} {
			text, err := json.Marshal(b)
			w.ok(err)
			if quoted, _ := json.Marshal(part); bytes.Contains(text, quoted) {
				t.Error("what was erased is shown")
			}
		}
	}
}

// Each change of hands is a link, and the chain is checked by who has the file
// alone.
func TestProvenance(t *testing.T) {
	w := newWorld(t, Options{})
	d := w.devices[0]
	w.claim(d, w.buyer)
	w.claim(d, w.stranger)
	w.publish()
	for _, c := range []struct {
		org  joinery.OrgID
		seen string
	}{{w.maker, "Maker"}, {w.buyer, "Buyer"}, {w.stranger, "Stranger"}} {
		p, err := w.Provenance(w.ctx, as(c.org), Query{Device: d})
		w.ok(err)
		r := w.good(p.Bundle, w.trust())
		if len(r.Links) != 2 || len(p.Bundle.Parties) != 1 || p.Bundle.Parties[0].Name != c.seen {
			t.Fatalf("%s: %+v, %+v", c.seen, r.Links, p.Bundle.Parties)
		}
		text, err := json.Marshal(p.Bundle)
		w.ok(err)
		for _, name := range []string{"Maker", "Buyer", "Stranger"} {
			if name != c.seen && bytes.Contains(text, []byte(name)) {
				t.Errorf("%s reads the name %s", c.seen, name)
			}
		}
	}
	p, err := w.Provenance(w.ctx, as(w.buyer), Query{Device: d})
	w.ok(err)
	good := p.Bundle
	for name, do := range map[string]func(b *auditlog.Bundle){
		"a link left out":  func(b *auditlog.Bundle) { b.Entries, b.Parties = b.Entries[1:], nil },
		"links reversed":   func(b *auditlog.Bundle) { slices.Reverse(b.Entries) },
		"another manifest": func(b *auditlog.Bundle) { b.Manifest = []byte("other") },
		"another name":     func(b *auditlog.Bundle) { b.Parties[0].Name = "Somebody" },
	} {
		b := clone(t, good)
		do(&b)
		if r := auditlog.Verify(b, w.trust()); r.OK() {
			t.Errorf("%s: nothing is found", name)
		}
	}
}

// A buyer sees from the file alone how things stand: whoever leaves out the end of
// the chain, or what was done with the keys since, is found out.
func TestProvenanceIsStated(t *testing.T) {
	w := newWorld(t, Options{})
	d := w.devices[0]
	file := func(org joinery.OrgID) auditlog.Bundle {
		t.Helper()
		w.publish()
		p, err := w.Provenance(w.ctx, as(org), Query{Device: d})
		w.ok(err)
		return p.Bundle
	}
	w.ok(w.State(w.ctx, as(w.maker), d)) // before anybody else had it
	if r := w.good(file(w.maker), w.trust()); r.Stated == nil || r.Stated.Epoch != 0 || r.Stated.Disclosed {
		t.Errorf("%+v", r)
	}
	w.claim(d, w.buyer)
	if r := w.good(file(w.buyer), w.trust()); r.Stated != nil || len(r.Notes) == 0 {
		t.Errorf("a statement from before the last link counts: %+v", r)
	}
	w.ok(w.State(w.ctx, as(w.buyer), d))
	good := file(w.buyer)
	if r := w.good(good, w.trust()); r.Stated == nil || r.Stated.Epoch != 1 || len(r.Notes) > 0 {
		t.Errorf("%+v", r)
	}
	for _, org := range []joinery.OrgID{w.maker, w.stranger} {
		if err := w.State(w.ctx, as(org), d); joinery.CodeOf(err) != joinery.CodeNotFound {
			t.Errorf("who does not hold it states: %v", err)
		}
	}
	for name, do := range map[string]func(b *auditlog.Bundle){
		"the last link left out": func(b *auditlog.Bundle) {
			i := slices.IndexFunc(b.Entries, func(e auditlog.Entry) bool { return strings.Contains(string(e.Payload), "owner_linked") })
			b.Entries, b.Parties = slices.Delete(b.Entries, i, i+1), nil
		},
		"the statement altered": func(b *auditlog.Bundle) {
			i := slices.IndexFunc(b.Entries, func(e auditlog.Entry) bool { return strings.Contains(string(e.Payload), auditlog.EventStated) })
			b.Entries[i].Payload = bytes.Replace(b.Entries[i].Payload, []byte(`"epoch":"1"`), []byte(`"epoch":"2"`), 1)
		},
		"the statement not in the log": func(b *auditlog.Bundle) {
			i := slices.IndexFunc(b.Entries, func(e auditlog.Entry) bool { return strings.Contains(string(e.Payload), auditlog.EventStated) })
			b.Entries[i].Leaf = -1
		},
	} {
		b := clone(t, good)
		do(&b)
		if r := auditlog.Verify(b, w.trust()); r.OK() {
			t.Errorf("%s: nothing is found", name)
		}
	}
}

// A restored log goes on under another name, says so, and what was lost with the
// restore is found by who had seen it.
func TestRestoredLog(t *testing.T) {
	w := newWorld(t, Options{})
	d := w.devices[0]
	w.join(d)
	w.suspend(d)
	kept := w.publish()
	state, err := w.db.LogState(w.ctx)
	w.ok(err)
	lost, err := w.sign(w.ctx, auditlog.Checkpoint{Origin: "log.example", Size: state.Size + 7, Root: [32]byte{1}})
	w.ok(err)
	w.ok(w.db.RaiseFence(w.ctx, "restored", "test"))
	none := 0
	_, err = w.db.ConfirmFence(w.ctx, store.Confirmation{Earlier: &none, Actor: "test"})
	w.ok(err)
	w.join(d)
	w.suspend(d)
	w.publish()
	b := w.bundle(as(w.maker), d, state.Size)
	trust := w.trust()
	trust.Old = kept
	r := w.good(b, trust)
	if r.Checkpoint.Origin != "log.example/2" || len(r.Notes) == 0 {
		t.Errorf("%+v", r)
	}
	trust.Old = string(lost)
	r = auditlog.Verify(b, trust)
	if !slices.ContainsFunc(r.Findings, func(f auditlog.Finding) bool { return f.Fault == auditlog.FaultRollback }) {
		t.Errorf("what a restore lost is not found: %v", r.Findings)
	}
}

// A tree of many batches is the tree.
func TestManyBatches(t *testing.T) {
	w := newWorld(t, Options{})
	for range 300 {
		w.join(w.devices[w.n%3])
		w.n++
		if w.n%100 == 0 {
			w.publish()
		}
	}
	w.publish()
	state, err := w.db.LogState(w.ctx)
	w.ok(err)
	root, err := w.tree(w.ctx, state.Size).Root()
	w.ok(err)
	if root != state.Root || state.Size < tlog.Width {
		t.Errorf("size %d, roots %x and %x", state.Size, root, state.Root)
	}
	w.good(w.bundle(operator, w.devices[1], 0), w.trust())
}
