package store

import (
	"context"
	"time"

	"joinery"
)

// staleOffers is how long an offer that nobody accepted stays to be seen.
const staleOffers = 90 * 24 * time.Hour

// offer writes an offer in place of one that ended.
func (t *tx) offer(c joinery.OwnerChange, at time.Time) error {
	open, err := t.integer("SELECT count(*) FROM transfer WHERE device = ? AND expires_at > ?", c.Device, at)
	switch {
	case err != nil:
		return err
	case open > 0:
		return joinery.Errorf(joinery.CodeConflict, "the device is offered already; cancel that offer first")
	}
	if err := t.exec("DELETE FROM transfer WHERE device = ?", c.Device); err != nil {
		return err
	}
	if err := t.exec("DELETE FROM transfer WHERE expires_at <= ?", at.Add(-staleOffers)); err != nil {
		return err
	}
	return t.exec("INSERT INTO transfer (device, org, recipient, offered_at, expires_at) VALUES (?, ?, ?, ?, ?)",
		c.Device, c.Seen.Org, c.To, at, c.ExpiresAt)
}

// offered sees to it that a device is offered to an organisation.
func (t *tx) offered(id joinery.DeviceID, to joinery.OrgID, at time.Time) error {
	open, err := t.integer("SELECT count(*) FROM transfer WHERE device = ? AND recipient = ? AND expires_at > ?", id, to, at)
	if err == nil && open == 0 {
		err = noOffer()
	}
	return err
}

func (t *tx) cancel(c joinery.OwnerChange) error {
	n, err := t.changes("DELETE FROM transfer WHERE device = ? AND recipient = ?", c.Device, c.To)
	if err == nil && n == 0 {
		err = noOffer()
	}
	return err
}

func noOffer() error { return joinery.Errorf(joinery.CodeNotFound, "the device is not offered") }

const transferColumns = `SELECT t.device, d.join_eui, d.dev_eui, t.org, t.recipient, t.offered_at, t.expires_at
	FROM transfer t JOIN device d ON d.id = t.device WHERE `

func scanTransfer(r *row) joinery.Transfer {
	return joinery.Transfer{
		Device: joinery.DeviceID(r.int()), JoinEUI: r.eui(), DevEUI: r.eui(),
		From: joinery.OrgID(r.int()), To: joinery.OrgID(r.int()), OfferedAt: r.time(), ExpiresAt: r.time(),
	}
}

// Transfer gives the offer of a device, also one that ended; CodeNotFound.
func (d *DB) Transfer(ctx context.Context, device joinery.DeviceID) (offer joinery.Transfer, err error) {
	err = d.read(ctx, func(c conn) error {
		found, err := c.one(transferColumns+"t.device = ?", func(r *row) error { offer = scanTransfer(r); return nil }, device)
		if err == nil && !found {
			err = noOffer()
		}
		return err
	})
	return offer, err
}

// Transfers gives the offers that q selects, in order of their devices; the next
// page begins After the last device of this one.
func (d *DB) Transfers(ctx context.Context, q joinery.TransferQuery) (offers []joinery.Transfer, err error) {
	query, args := transferColumns+"t.device > ?", []any{q.After}
	if q.Org != 0 {
		query += " AND (t.org = ? OR t.recipient = ?)"
		args = append(args, q.Org, q.Org)
	}
	args = append(args, pageLimit(q.Limit))
	err = d.read(ctx, func(c conn) error {
		return c.each(query+" ORDER BY t.device LIMIT ?", func(r *row) error {
			offers = append(offers, scanTransfer(r))
			return nil
		}, args...)
	})
	return offers, err
}

// LastOwner gives the last link in the chain of a device's owners: the maker
// where nobody ever claimed it. CodeNotFound for an absent device.
func (d *DB) LastOwner(ctx context.Context, id joinery.DeviceID) (last joinery.OwnerLink, err error) {
	err = d.read(ctx, func(c conn) error {
		found, err := c.one(`SELECT coalesce(o.epoch, 0), coalesce(o.org, d.maker), coalesce(o.how, 0), coalesce(o.token_generation, 0), coalesce(o.since, d.created_at)
			FROM device d LEFT JOIN ownership o ON o.device = d.id AND o.epoch = d.owner_epoch WHERE d.id = ? AND d.deleted_at IS NULL`,
			func(r *row) error {
				last = joinery.OwnerLink{
					Epoch: uint32(r.int()), Org: joinery.OrgID(r.int()), How: joinery.How(r.int()), TokenGeneration: uint32(r.int()), Since: r.time(),
				}
				return nil
			}, id)
		if err == nil && !found {
			err = notFound("device")
		}
		return err
	})
	return last, err
}
