package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"strconv"
	"time"

	"joinery"
	"joinery/auditlog"
)

// nonceLen is the length of what hides the name of an owner.
const nonceLen = 16

var howText = map[joinery.How]string{
	joinery.HowClaim: "claim", joinery.HowRelease: "release", joinery.HowTransfer: "transfer", joinery.HowAward: "award",
}

// makerNonce hides the name of the maker, who has no row: it is made from what
// hides the first owner's.
func makerNonce(first []byte) []byte {
	h := sha256.Sum256(append([]byte("joinery maker nonce 1\n"), first...))
	return h[:nonceLen]
}

// linkOwner writes the next link in the chain of a device's owners into the log:
// commitments to names, which their owners open to whom they like, and the hash of
// the link before. It gives what hides the name of the next owner.
func (t *tx) linkOwner(d joinery.Device, epoch uint32, next joinery.OwnerLink) (nonce []byte, err error) {
	nonce = make([]byte, nonceLen)
	rand.Read(nonce) // never fails (crypto/rand)
	link := auditlog.Link{Device: d.ID.String(), Epoch: epoch, How: howText[next.How], At: next.Since.UnixMilli(), Disclosed: d.Disclosed}
	from, err := t.orgName(d.Ownership.Org)
	if err != nil {
		return nil, err
	}
	to, err := t.orgName(next.Org)
	if err != nil {
		return nil, err
	}
	link.From, link.To = auditlog.Commitment(makerNonce(nonce), from), auditlog.Commitment(nonce, to)
	if link.Manifest, err = t.manifestHash(d.ID); err != nil {
		return nil, err
	}
	if epoch == 1 {
		link.Previous = auditlog.FirstHash(link.Device, link.Manifest)
	}
	if err := t.follow(&link, d.ID); err != nil {
		return nil, err
	}
	return nonce, t.audit(joinery.AuditEntry{
		At: next.Since, Event: joinery.AuditOwnerLinked, Actor: "joinery", Org: next.Org, Device: d.ID, Detail: link.Detail(),
	})
}

// StateProvenance writes into the log how the chain of a device's owners stands,
// and whether its root keys were disclosed. CodeNotFound unless owner holds it.
func (d *DB) StateProvenance(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, at time.Time) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.heldBy(id, owner); err != nil {
			return err
		}
		detail := map[string]string{}
		found, err := t.one(`SELECT d.owner_epoch, d.disclosed, CASE WHEN (k.origin = 2 OR k.origin = 3 AND `+rekeyKeyCame+`) AND NOT EXISTS (SELECT 1 FROM told WHERE device = d.id AND outside = 0) THEN 1 ELSE 0 END
			FROM device d JOIN key_set k ON k.id = d.key_set WHERE d.id = ? AND d.deleted_at IS NULL AND d.released = 0`, func(r *row) error {
			detail["epoch"], detail["disclosed"], detail["outside"] = strconv.FormatInt(r.int(), 10), strconv.FormatBool(r.bool()), strconv.FormatBool(r.bool())
			return nil
		}, id)
		for name, event := range map[string]joinery.AuditEvent{"exposed": joinery.AuditKeysExposed, "told": joinery.AuditKeysTold} {
			if err != nil {
				return err
			}
			var n int64
			n, err = t.integer("SELECT count(*) FROM audit WHERE device > 0 AND device = ? AND event = ? AND payload IS NOT NULL", id, event)
			detail[name] = strconv.FormatInt(n, 10)
		}
		if err == nil && !found {
			err = notFound("device")
		}
		if err != nil {
			return err
		}
		link := auditlog.Link{}
		if err := t.follow(&link, id); err != nil {
			return err
		}
		detail["link"] = link.Previous
		return t.audit(joinery.AuditEntry{At: at, Event: joinery.AuditProvenanceStated, Actor: "joinery", Org: owner, Device: id, Detail: detail})
	})
}

func (c conn) orgName(org joinery.OrgID) (name string, err error) {
	_, err = c.one("SELECT name FROM organisation WHERE id = ?", func(r *row) error { name = r.text(); return nil }, org)
	return name, err
}

// manifestHash is SHA-256 of the entry with which a device was imported; "" for
// none.
func (c conn) manifestHash(device joinery.DeviceID) (text string, err error) {
	_, err = c.one("SELECT entry FROM manifest_entry WHERE device = ?", func(r *row) error { text = manifestHash(r.blob()); return nil }, device)
	return text, err
}

// follow makes link the one after the newest of a device, if it has any.
func (c conn) follow(link *auditlog.Link, device joinery.DeviceID) error {
	_, err := c.one("SELECT payload FROM audit WHERE device > 0 AND device = ? AND event = ? ORDER BY id DESC LIMIT 1", func(r *row) error {
		e, err := auditlog.ParseEvent(r.blob())
		if err != nil {
			return err
		}
		before, err := auditlog.ParseLink(e)
		link.From, link.Previous = before.To, before.Hash()
		return err
	}, device, joinery.AuditOwnerLinked)
	return err
}
