package store

import (
	"context"
	"crypto/rand"
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
}

const auditFormat = 1

func encodeAudit(e joinery.AuditEntry) ([]byte, error) {
	p := auditPayload{Format: auditFormat, At: e.At.UnixMilli(), Event: string(e.Event), Actor: e.Actor, Detail: e.Detail}
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
		payload, err := encodeAudit(e)
		if err != nil {
			return err
		}
		var salt [auditlog.SaltSize]byte
		rand.Read(salt[:]) // never fails (crypto/rand)
		leaf := auditlog.NewRecord(salt, payload)
		err = t.exec("INSERT INTO audit (at, event, org, device, payload, salt, leaf) VALUES (?, ?, ?, ?, ?, ?, ?)",
			e.At, e.Event, optional{e.Org}, optional{e.Device}, payload, salt, leaf[:])
		if err != nil {
			return err
		}
	}
	return nil
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
