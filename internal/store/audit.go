package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"joinery"
	"joinery/auditlog"
)

// auditPayload is what the leaf of an audit row covers, as JSON: it is private,
// and read by auditors without a program of ours.
type auditPayload struct {
	Format int               `json:"format"` // 1
	At     int64             `json:"at"`     // milliseconds since 1970
	Event  string            `json:"event"`
	Actor  string            `json:"actor"`
	Org    string            `json:"org,omitempty"`
	Device string            `json:"device,omitempty"`
	Peer   string            `json:"peer,omitempty"`
	Detail map[string]string `json:"detail,omitempty"`

	// N counts the entries about Device, from 1, and Previous is the record of the
	// one before this, in hexadecimal digits: whoever is shown some of them sees
	// which are left out.
	N        int64  `json:"n,omitempty"`
	Previous string `json:"previous,omitempty"`
}

const auditFormat = 1

func encodeAudit(e joinery.AuditEntry, at deviceChain) ([]byte, error) {
	p := auditPayload{N: at.n, Previous: at.previous, Format: auditFormat, At: e.At.UnixMilli(), Event: string(e.Event), Actor: e.Actor, Detail: e.Detail}
	if e.Org != 0 {
		p.Org = e.Org.String()
	}
	if e.Device != 0 {
		p.Device = e.Device.String()
	}
	if e.Peer != 0 {
		p.Peer = e.Peer.String()
	}
	return json.Marshal(p)
}

func decodeAudit(b []byte) (e joinery.AuditEntry, err error) {
	var p auditPayload
	if err := json.Unmarshal(b, &p); err != nil || p.Format != auditFormat {
		return e, fmt.Errorf("audit payload is damaged or of an unknown format: %w", err)
	}
	e = joinery.AuditEntry{At: time.UnixMilli(p.At).UTC(), Event: joinery.AuditEvent(p.Event), Actor: p.Actor, Detail: p.Detail}
	if p.Org != "" {
		err = e.Org.UnmarshalText([]byte(p.Org))
	}
	if p.Device != "" {
		err = firstError(err, e.Device.UnmarshalText([]byte(p.Device)))
	}
	if p.Peer != "" {
		err = firstError(err, e.Peer.UnmarshalText([]byte(p.Peer)))
	}
	return e, err
}

// audit writes entries into the transaction of their effect, many in few
// statements.
func (t *tx) audit(entries ...joinery.AuditEntry) error {
	if t.sequence != nil && len(entries) > 0 {
		t.sequence.audited.Store(true)
	}
	for len(entries) > 0 {
		n := distinct(entries)
		if err := inRuns(entries[:n], t.auditRun); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// distinct is how many entries come before one about a device that another was
// about: each needs the one before it.
func distinct(entries []joinery.AuditEntry) int {
	seen := map[joinery.DeviceID]bool{}
	for i, e := range entries {
		if e.Device != 0 && seen[e.Device] {
			return i
		}
		seen[e.Device] = true
	}
	return len(entries)
}

// auditRun writes entries of which no two are about one device.
func (t *tx) auditRun(entries []joinery.AuditEntry) error {
	chains, err := t.chains(entries)
	if err != nil {
		return err
	}
	v := valuesOf("at INTEGER, event TEXT, org INTEGER, device INTEGER, n INTEGER, subject INTEGER, payload BLOB, salt BLOB, leaf BLOB")
	for _, e := range entries {
		chain := chains[e.Device]
		payload, err := encodeAudit(e, chain)
		if err != nil {
			return err
		}
		var salt [auditlog.SaltSize]byte
		rand.Read(salt[:]) // never fails (crypto/rand)
		leaf := auditlog.NewRecord(salt, payload)
		v.add(e.At, e.Event, optional{e.Org}, optional{e.Device}, optional{chain.n}, optional{subjectOf(e)}, payload, salt, leaf[:])
	}
	return t.exec(v.with("INSERT INTO audit (at, event, org, device, n, subject, payload, salt, leaf) SELECT v.* FROM v"), v.args...)
}

// deviceChain is the place of an entry among those about its device.
type deviceChain struct {
	n        int64 // 0: it is about none
	previous string
}

// chains gives the places of the next entries about devices. Entries from before
// there were numbers are counted.
func (t *tx) chains(entries []joinery.AuditEntry) (map[joinery.DeviceID]deviceChain, error) {
	var devices []joinery.DeviceID
	chains := map[joinery.DeviceID]deviceChain{}
	for _, e := range entries {
		if e.Device != 0 {
			devices = append(devices, e.Device)
			chains[e.Device] = deviceChain{n: 1}
		}
	}
	var uncounted []joinery.DeviceID
	err := inRuns(devices, func(run []joinery.DeviceID) error {
		v := valuesOf("device INTEGER")
		for _, d := range run {
			v.add(d)
		}
		return t.each(v.with(`SELECT a.device, a.n, a.leaf FROM v JOIN audit a
			ON a.id = (SELECT max(b.id) FROM audit b WHERE b.device > 0 AND b.device = v.device)`), func(r *row) error {
			id := joinery.DeviceID(r.int())
			if r.null() {
				uncounted = append(uncounted, id)
			}
			chains[id] = deviceChain{n: r.int() + 1, previous: hex.EncodeToString(r.blob())}
			return nil
		}, v.args...)
	})
	for _, id := range uncounted {
		n, err := t.integer("SELECT count(*) FROM audit WHERE device > 0 AND device = ?", id)
		if err != nil {
			return nil, err
		}
		chains[id] = deviceChain{n: n + 1, previous: chains[id].previous}
	}
	return chains, err
}

// finish ends a change: it gives err, or writes the entries that belong to it.
func (t *tx) finish(err error, entries ...joinery.AuditEntry) error {
	if err != nil {
		return err
	}
	return t.audit(entries...)
}

// AuditEntries gives at most limit audit entries after the one with id after,
// in the order in which they were written. Of an entry whose payload was erased
// id, time, event, organisation and device are left.
func (d *DB) AuditEntries(ctx context.Context, after int64, limit int) (entries []joinery.AuditEntry, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each("SELECT id, at, event, org, device, payload FROM audit WHERE id > ? ORDER BY id LIMIT ?", func(r *row) error {
			id := r.int()
			e := joinery.AuditEntry{At: r.time(), Event: joinery.AuditEvent(r.text()), Org: joinery.OrgID(r.int()), Device: joinery.DeviceID(r.int())}
			if payload := r.blob(); payload != nil {
				var err error
				if e, err = decodeAudit(payload); err != nil {
					return fmt.Errorf("audit row %d: %w", id, err)
				}
			}
			e.ID = id
			entries = append(entries, e)
			return nil
		}, after, pageLimit(limit))
	})
	return entries, err
}

// Pages of listings.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// pageLimit bounds what a caller asks for; nothing asked is defaultLimit.
func pageLimit(limit int) int {
	if limit <= 0 {
		return defaultLimit
	}
	return min(limit, maxLimit)
}
