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

// audit writes entries into the transaction of their effect.
func (t *tx) audit(entries ...joinery.AuditEntry) error {
	if t.sequence != nil && len(entries) > 0 {
		t.sequence.audited.Store(true)
	}
	for _, e := range entries {
		chain, err := t.chainOf(e.Device)
		if err != nil {
			return err
		}
		payload, err := encodeAudit(e, chain)
		if err != nil {
			return err
		}
		var salt [auditlog.SaltSize]byte
		rand.Read(salt[:]) // never fails (crypto/rand)
		leaf := auditlog.NewRecord(salt, payload)
		err = t.exec("INSERT INTO audit (at, event, org, device, n, payload, salt, leaf) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			e.At, e.Event, optional{e.Org}, optional{e.Device}, optional{chain.n}, payload, salt, leaf[:])
		if err != nil {
			return err
		}
	}
	return nil
}

// deviceChain is the place of an entry among those about its device.
type deviceChain struct {
	n        int64 // 0: it is about none
	previous string
}

// chainOf gives the place of the next entry about a device. Entries from before
// there were numbers are counted.
func (t *tx) chainOf(device joinery.DeviceID) (at deviceChain, err error) {
	if device == 0 {
		return at, nil
	}
	var counted bool
	_, err = t.one("SELECT n, leaf FROM audit WHERE device > 0 AND device = ? ORDER BY id DESC LIMIT 1", func(r *row) error {
		counted = !r.null()
		at.n = r.int()
		at.previous = hex.EncodeToString(r.blob())
		return nil
	}, device)
	if err == nil && !counted {
		at.n, err = t.integer("SELECT count(*) FROM audit WHERE device > 0 AND device = ?", device)
	}
	at.n++
	return at, err
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
