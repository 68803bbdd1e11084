package store

import (
	"encoding/json"
	"fmt"

	"joinery"
	"joinery/auditlog"
	"joinery/lorawan"
)

// storedKeySet is a key set with what its device says of it.
type storedKeySet struct {
	joinery.KeySet
	mac          lorawan.MACVersion
	bindingEpoch uint32
	current      bool // and not deleted
	lastJoinAt   int64
	resetAfter   joinery.ActivationID
	activations  int64
}

// keySets checks each key set with all of its activations.
func (f *checkup) keySets() error {
	const all = `SELECT k.id, k.device, k.dev_eui, k.origin, k.master, k.generation, k.root10, k.version, k.join_nonce, k.disclosed,
		coalesce(d.mac_version, 0), coalesce(d.binding_epoch, 0), CASE WHEN d.key_set = k.id AND d.deleted_at IS NULL THEN 1 ELSE 0 END,
		coalesce(k.last_join_at, 0), coalesce(k.reset_after, 0), coalesce(a.n, 0), k.nonces,
		s.nwk_use, s.nwk_custody, s.app_use, s.app_custody
		FROM key_set k LEFT JOIN device d ON d.id = k.device LEFT JOIN sealed_root s ON s.key_set = k.id
		LEFT JOIN (SELECT key_set, count(*) AS n FROM activation GROUP BY key_set) a ON a.key_set = k.id ORDER BY k.id`
	return f.c.each(all, func(r *row) error {
		var k storedKeySet
		k.ID, k.DeviceID, k.DevEUI = joinery.KeySetID(r.int()), joinery.DeviceID(r.int()), r.eui()
		k.Origin, k.Master, k.Generation, k.Root10 = joinery.Origin(r.int()), r.text(), uint32(r.int()), joinery.RootKey(r.int())
		k.Version = uint64(r.int())
		joinNonce := lorawan.JoinNonce(r.int())
		k.Disclosed = r.bool()
		k.mac, k.bindingEpoch, k.current = macVersion(r.int()), uint32(r.int()), r.bool()
		k.lastJoinAt, k.resetAfter, k.activations = r.int(), joinery.ActivationID(r.int()), r.int()
		nonces, err := joinery.DecodeNonces(joinNonce, r.blob())
		if err != nil {
			f.report("key_set", k.ID, err.Error(), fixRestore)
			return nil
		}
		k.Nonces = nonces
		k.Nwk.Use, k.Nwk.Custody, k.App.Use, k.App.Custody = r.blob(), r.blob(), r.blob(), r.blob()
		if err := f.activations(k); err != nil {
			return err
		}
		return f.openKeySet(k)
	})
}

func (f *checkup) openKeySet(k storedKeySet) error {
	if f.check == nil || !k.current {
		return nil
	}
	switch k.Origin {
	case joinery.OriginRekeyed:
		if err := f.c.lineage(&k.KeySet); err != nil {
			return err
		}
	case joinery.OriginSealed:
		profile, err := f.c.integer("SELECT rekey_profile FROM device WHERE id = ?", k.DeviceID)
		if err != nil {
			return err
		}
		k.Rekey = joinery.RekeyProfile(profile)
		if err := f.c.held(&k.KeySet, k.ID); err != nil {
			return err
		}
	}
	if err := f.check.CheckKeySet(f.ctx, k.KeySet); err != nil {
		f.report("key_set", k.ID, "its sealed keys open: "+err.Error(), fixSealed)
	}
	return f.ctx.Err()
}

// chain is what is seen while walking the activations of one key set, newest
// first.
type chain struct {
	f          *checkup
	k          storedKeySet
	seen       int64
	named      int               // how many of the nonces' recent activations were met
	tag        *[8]byte          // what they say of the activation at hand, nil: nothing
	joinNonce  lorawan.JoinNonce // that nothing older may reach
	devNonces  map[devNonce]bool
	afterReset bool  // still above the newest activation at the last reset
	lastAt     int64 // of the newest activation; 0 where it was erased
}

type devNonce struct {
	joinEUI lorawan.EUI64
	value   uint16
}

// activations walks the chain of a key set's activations from the newest one
// that the nonces name, and checks each against the nonces.
func (f *checkup) activations(k storedKeySet) error {
	if k.Version < uint64(k.activations) {
		f.report("key_set", k.ID, "its version counts every activation", fixTamper)
	}
	ch := &chain{f: f, k: k, joinNonce: k.Nonces.JoinNonce + 1, devNonces: map[devNonce]bool{}, afterReset: true}
	var newest joinery.ActivationID
	if len(k.Nonces.Recent) > 0 {
		newest = k.Nonces.Recent[0].ID
	}
	for id := newest; id != 0; ch.seen++ {
		if ch.seen > k.activations {
			f.report("activation", id, "the chain of activations ends", fixTamper)
			return nil
		}
		next, found, err := ch.visit(id)
		if err != nil {
			return err
		}
		if !found {
			f.report("activation", id, "it is named by its key set "+k.ID.String()+" and must be there", fixRestore)
			return nil
		}
		id = next
	}
	if ch.seen != k.activations {
		f.report("key_set", k.ID, fmt.Sprintf("its %d activations are one chain, of which %d are found", k.activations, ch.seen), fixRestore)
	}
	if ch.named < len(k.Nonces.Recent) {
		f.report("key_set", k.ID, "its recent activations are in its chain", fixRestore)
	}
	if k.lastJoinAt != ch.lastAt && ch.lastAt != 0 {
		f.report("key_set", k.ID, "last_join_at is the time of the newest activation", fixTamper)
	}
	return nil
}

// visit checks one activation and gives the one before it.
func (ch *chain) visit(id joinery.ActivationID) (previous joinery.ActivationID, found bool, err error) {
	var payload, salt, leaf []byte
	var keySet joinery.KeySetID
	found, err = ch.f.c.one("SELECT key_set, coalesce(previous, 0), payload, salt, leaf FROM activation WHERE id = ?", func(r *row) error {
		keySet, previous = joinery.KeySetID(r.int()), joinery.ActivationID(r.int())
		payload, salt, leaf = r.blob(), r.blob(), r.blob()
		return nil
	}, id)
	if err != nil || !found {
		return 0, false, err
	}
	if keySet != ch.k.ID {
		ch.bad(id, "it belongs to the key set that names it", fixTamper)
	}
	ch.afterReset = ch.afterReset && id != ch.k.resetAfter
	ch.matchRecent(id)
	if payload == nil { // erased: only the leaf is left
		if _, err := auditlog.ParseRecord(leaf); err != nil {
			ch.bad(id, err.Error(), fixTamper)
		}
		return previous, true, nil
	}
	if err := auditlog.VerifyRecord(leaf, salt, payload); err != nil {
		ch.bad(id, err.Error(), fixTamper)
	}
	a, err := joinery.ParseActivation(payload)
	if err != nil {
		ch.bad(id, err.Error(), fixRestore)
		return previous, true, nil
	}
	ch.judge(id, a)
	return previous, true, nil
}

// matchRecent compares one activation, newest first, with those that the key set
// names: its newest, but that the last one named may be an older session that a
// device still speaks from (joinery.Nonces.WithActivation).
func (ch *chain) matchRecent(id joinery.ActivationID) {
	recent := ch.k.Nonces.Recent
	ch.tag = nil
	switch {
	case ch.named < len(recent) && recent[ch.named].ID == id:
		ch.tag = &recent[ch.named].Tag
		ch.named++
	case ch.seen < int64(len(recent))-1:
		ch.bad(id, "the recent activations of a key set are its newest", fixTamper)
	}
}

func (ch *chain) bad(id joinery.ActivationID, rule, fix string) {
	ch.f.report("activation", id, rule, fix)
}

// judge checks a against the row that holds it and the nonces of its key set.
func (ch *chain) judge(id joinery.ActivationID, a joinery.Activation) {
	k := ch.k
	if a.ID != id || a.KeySet != k.ID || a.Device != k.DeviceID || a.DevEUI != k.DevEUI {
		ch.bad(id, "its payload names its row, key set, device and DevEUI", fixTamper)
	}
	if a.JoinNonce >= ch.joinNonce {
		ch.bad(id, fmt.Sprintf("JoinNonce %d is below %d, which came later: none is issued twice (TS001-1.0.4 §6.2.6)", a.JoinNonce, ch.joinNonce), fixReport)
	}
	ch.joinNonce = a.JoinNonce
	if ch.seen == 0 {
		ch.lastAt = a.At.UnixMilli()
	}
	if ch.tag != nil && *ch.tag != [8]byte(a.FrameHash[:8]) {
		ch.bad(id, "its key set knows the beginning of its frame hash", fixTamper)
	}
	if a.BindingEpoch > k.bindingEpoch {
		ch.bad(id, "its binding's epoch was given", fixTamper)
	}
	ch.judgeCount(id, a)
}

// judgeCount checks that what the device sent cannot be accepted again.
func (ch *chain) judgeCount(id joinery.ActivationID, a joinery.Activation) {
	e := ch.k.Nonces.For(a.JoinEUI)
	switch a.Type {
	case joinery.JoinTypeJoin:
		if !ch.afterReset {
			return
		}
		dn := devNonce{a.JoinEUI, a.Count}
		if ch.devNonces[dn] {
			ch.bad(id, fmt.Sprintf("DevNonce %d was accepted once (TS001-1.0.4 §6.2.5)", a.Count), fixReport)
		}
		ch.devNonces[dn] = true
		remembered := e.Used.Has(lorawan.DevNonce(a.Count))
		if ch.k.mac.CountsDevNonces() {
			remembered = uint32(a.Count) < e.Next
		}
		if !remembered {
			ch.bad(id, fmt.Sprintf("DevNonce %d is remembered by its key set", a.Count), fixRestore)
		}
	case joinery.JoinTypeRejoin1:
		if uint32(a.Count) >= e.NextRJCount1 {
			ch.bad(id, fmt.Sprintf("RJcount1 %d is remembered by its key set", a.Count), fixRestore)
		}
	}
}

// auditRows checks that none is missing and that each is what it was.
func (f *checkup) auditRows() error {
	var last int64
	err := f.c.each("SELECT id, at, event, org, device, coalesce(n, 0), coalesce(subject, 0), payload, salt, leaf FROM audit ORDER BY id", func(r *row) error {
		id := r.int()
		if id != last+1 {
			f.report("audit", last+1, "no row is missing", fixTamper)
		}
		last = id
		columns := joinery.AuditEntry{At: r.time(), Event: joinery.AuditEvent(r.text()), Org: joinery.OrgID(r.int()), Device: joinery.DeviceID(r.int())}
		f.auditRow(id, columns, r.int(), r.int(), r.blob(), r.blob(), r.blob())
		return nil
	})
	if err != nil {
		return err
	}
	written, err := f.engine.lastAuditID(f.c)
	if err == nil && written != last {
		f.report("audit", written, "no row is missing", fixTamper)
	}
	return err
}

func (f *checkup) auditRow(id int64, columns joinery.AuditEntry, n, subject int64, payload, salt, leaf []byte) {
	if payload == nil { // erased: only the leaf is left
		if _, err := auditlog.ParseRecord(leaf); err != nil {
			f.report("audit", id, err.Error(), fixTamper)
		}
		return
	}
	if err := auditlog.VerifyRecord(leaf, salt, payload); err != nil {
		f.report("audit", id, err.Error(), fixTamper)
	}
	e, err := decodeAudit(payload)
	switch {
	case err != nil:
		f.report("audit", id, err.Error(), fixTamper)
	case !e.At.Equal(columns.At) || e.Event != columns.Event || e.Org != columns.Org || e.Device != columns.Device,
		subject != 0 && subject != subjectOf(e): // earlier versions did not write it
		f.report("audit", id, "its columns say what its payload says", fixTamper)
	}
	var numbered struct {
		N int64 `json:"n"`
	}
	if err == nil && json.Unmarshal(payload, &numbered) == nil && numbered.N != n {
		f.report("audit", id, "its number among those of its device is that of its payload", fixTamper)
	}
}
