package store

import (
	"context"
	"time"

	"joinery"
)

// maxOpenDisputes and maxChallenges bound what one organisation can have open.
const (
	maxOpenDisputes = 1000
	maxChallenges   = 100
)

// AddChallenge keeps a challenge for its one use, and forgets those that ended.
// CodeRateLimited where its organisation has too many.
func (d *DB) AddChallenge(ctx context.Context, c joinery.Challenge, now time.Time) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.exec("DELETE FROM challenge WHERE expires_at <= ?", now); err != nil {
			return err
		}
		held, err := t.integer("SELECT count(*) FROM challenge WHERE org = ?", c.Org)
		switch {
		case err != nil:
			return err
		case held >= maxChallenges:
			return joinery.Errorf(joinery.CodeRateLimited, "%d challenges of this organisation wait for their answer; answer them, or wait until they end", held)
		}
		err = t.exec("INSERT INTO challenge (random, org, join_eui, dev_eui, expires_at) VALUES (?, ?, ?, ?, ?)",
			c.Random, c.Org, c.JoinEUI, c.DevEUI, c.ExpiresAt)
		return conflict(err, "there is such a challenge")
	})
}

// TakeChallenge gives a challenge of an organisation and makes an end of it;
// CodeNotFound.
func (d *DB) TakeChallenge(ctx context.Context, random [32]byte, org joinery.OrgID) (joinery.Challenge, error) {
	return write(ctx, d, func(t *tx) (c joinery.Challenge, err error) {
		found, err := t.one("SELECT join_eui, dev_eui, expires_at FROM challenge WHERE random = ? AND org = ?", func(r *row) error {
			c = joinery.Challenge{Random: random, Org: org, JoinEUI: r.eui(), DevEUI: r.eui(), ExpiresAt: r.time()}
			return nil
		}, random, org)
		if err == nil && !found {
			err = notFound("challenge")
		}
		if err != nil {
			return c, err
		}
		return c, t.exec("DELETE FROM challenge WHERE random = ?", random)
	})
}

// OpenDispute adds a dispute; CodeConflict where its claimant has one open about
// the device, CodeRateLimited where it has too many, CodeNotFound where the device
// is gone.
func (d *DB) OpenDispute(ctx context.Context, p joinery.Dispute, entries ...joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		if _, err := t.state(p.Device); err != nil {
			return err
		}
		held, err := t.integer("SELECT count(*) FROM dispute WHERE org = ? AND decided_at IS NULL", p.Claimant)
		switch {
		case err != nil:
			return err
		case held >= maxOpenDisputes:
			return joinery.Errorf(joinery.CodeRateLimited, "%d disputes of this organisation are open; wait for their decision", held)
		}
		err = t.exec("INSERT INTO dispute (id, device, org, about_lock, evidence, statement, state, opened_at, note) VALUES (?, ?, ?, ?, ?, ?, ?, ?, '')",
			p.ID, p.Device, p.Claimant, p.AboutLock, p.Evidence, p.Statement, joinery.DisputeOpen, p.OpenedAt)
		return t.finish(conflict(err, "this organisation disputes the device already"), entries...)
	})
}

// CloseDispute ends an open dispute as p says. One that is granted makes the
// claimant the owner, with a new token generation, and unbinds the device; one
// about a lock only unbinds it. CodeConflict where the dispute is decided, or the
// device is another's than p says.
func (d *DB) CloseDispute(ctx context.Context, p joinery.Dispute, entries ...joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("UPDATE dispute SET state = ?, decided_at = ?, note = ? WHERE id = ? AND decided_at IS NULL", p.State, p.DecidedAt, p.Note, p.ID)
		switch {
		case err != nil:
			return err
		case n == 0:
			return joinery.Errorf(joinery.CodeConflict, "the dispute is decided already")
		}
		if p.State == joinery.DisputeGranted {
			err = t.award(p)
		}
		return t.finish(err, entries...)
	})
}

func (t *tx) award(p joinery.Dispute) error {
	s, err := t.state(p.Device)
	if err != nil {
		return err
	}
	if s.Device.Ownership.Org != p.Holder {
		return changedOwner()
	}
	if err := t.replaceBinding(p.Device, nil, p.DecidedAt); err != nil {
		return err
	}
	if p.AboutLock {
		return t.advance(p.Device)
	}
	return t.addOwner(s.Device, joinery.OwnerLink{
		Org: p.Claimant, How: joinery.HowAward, TokenGeneration: s.Device.Ownership.TokenGeneration + 1, Since: p.DecidedAt,
	})
}

const disputeColumns = `SELECT p.id, p.device, d.join_eui, d.dev_eui, p.org, d.org, p.about_lock, p.evidence, p.statement,
	p.state, p.opened_at, p.decided_at, p.note FROM dispute p JOIN device d ON d.id = p.device WHERE `

func scanDispute(r *row) joinery.Dispute {
	return joinery.Dispute{
		ID: joinery.DisputeID(r.int()), Device: joinery.DeviceID(r.int()), JoinEUI: r.eui(), DevEUI: r.eui(),
		Claimant: joinery.OrgID(r.int()), Holder: joinery.OrgID(r.int()), AboutLock: r.bool(),
		Evidence: joinery.Evidence(r.text()), Statement: r.text(), State: joinery.DisputeState(r.text()),
		OpenedAt: r.time(), DecidedAt: r.time(), Note: r.text(),
	}
}

// Dispute finds a dispute; CodeNotFound.
func (d *DB) Dispute(ctx context.Context, id joinery.DisputeID) (p joinery.Dispute, err error) {
	err = d.read(ctx, func(c conn) error {
		found, err := c.one(disputeColumns+"p.id = ?", func(r *row) error { p = scanDispute(r); return nil }, id)
		if err == nil && !found {
			err = notFound("dispute")
		}
		return err
	})
	return p, err
}

// Disputes gives the disputes that q selects, in order of their ids; the next page
// begins After the last of this one.
func (d *DB) Disputes(ctx context.Context, q joinery.DisputeQuery) (list []joinery.Dispute, err error) {
	query, args := disputeColumns+"p.id > ?", []any{q.After}
	if q.Org != 0 {
		query += " AND (p.org = ? OR d.org = ?)"
		args = append(args, q.Org, q.Org)
	}
	if q.OnlyOpen {
		query += " AND p.decided_at IS NULL"
	}
	args = append(args, pageLimit(q.Limit))
	err = d.read(ctx, func(c conn) error {
		return c.each(query+" ORDER BY p.id LIMIT ?", func(r *row) error { list = append(list, scanDispute(r)); return nil }, args...)
	})
	return list, err
}
