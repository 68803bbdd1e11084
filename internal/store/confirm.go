package store

import (
	"context"
	"fmt"
	"time"

	"joinery"
	"joinery/lorawan"
)

// DefaultJump is by how much JoinNonces rise at a confirmation, unless somebody
// says otherwise: under one JoinEUI no device can have joined more often since
// the copy was taken, because it has no more DevNonces. Rejoins come on top.
const DefaultJump lorawan.JoinNonce = 1 << 16

// jumpSize is how many key sets rise in one transaction.
const jumpSize = 5000

// maxExhaustedListed bounds Confirmed.Exhausted.
const maxExhaustedListed = 1000

// Confirmation is what ConfirmFence is told.
type Confirmation struct {
	// Jump is by how much every JoinNonce rises; 0 is DefaultJump, or what a
	// confirmation that was cut off had.
	Jump lorawan.JoinNonce
	// Earlier is how many confirmations were made of states that came from this
	// one and are lost: each may have used up a jump. nil is not told; then there
	// must be a witness of them.
	Earlier *int
	Actor   string
	// Progress is called after each batch with key sets done and all there are;
	// nil is nobody.
	Progress func(done, all int64)
}

// Confirmed is what ConfirmFence did.
type Confirmed struct {
	Fence   Fence // that was up
	Jump    lorawan.JoinNonce
	KeySets int64
	// Witnessed: what was done is noted outside of the database.
	Witnessed bool
	// Exhausted are devices, deleted ones left out, that have no JoinNonce left
	// and cannot join any more: at most 1,000 of them.
	Exhausted []ExhaustedDevice
}

// ExhaustedDevice is a device whose key set has issued its last JoinNonce.
type ExhaustedDevice struct {
	ID      joinery.DeviceID
	JoinEUI lorawan.EUI64
	DevEUI  lorawan.EUI64
}

// ConfirmFence takes the operator's word that this database counts and no other:
// it raises the JoinNonce of every key set, so that none which may have been
// issued from another copy is issued again, and then lets joins be answered. A
// JoinNonce that would pass its end stays there: its device is refused for
// ever, rather than given one twice. It goes through the key sets in batches;
// cut off, it is taken up where it stood, with the same jump, by calling it
// again. CodeConflict where no fence is up, CodeInvalid for a jump that cannot
// be.
func (d *DB) ConfirmFence(ctx context.Context, o Confirmation) (done Confirmed, err error) {
	b, err := d.beginJump(ctx, o)
	if err != nil {
		return done, err
	}
	done.Fence, done.Jump = b.fence, b.jump
	var all int64
	err = d.engine.copying(ctx, func(c conn) (err error) { all, err = c.integer("SELECT count(*) FROM key_set"); return err })
	for n := int64(jumpSize); err == nil && n == jumpSize; {
		if n, err = d.jumpBatch(ctx, done.Jump); err == nil {
			done.KeySets += n
			if o.Progress != nil {
				o.Progress(min(done.KeySets, all), all)
			}
		}
	}
	if err == nil {
		// Before joins are answered, and so a crash between the two counts for a
		// confirmation too many, never for one too few.
		done.Witnessed, err = d.bearWitness(ctx)
	}
	if err == nil {
		err = d.endJump(ctx, done, o.Actor)
	}
	if err != nil {
		return done, err
	}
	done.Exhausted, err = d.exhausted(ctx)
	return done, err
}

// begun is how a confirmation began.
type begun struct {
	fence Fence
	jump  lorawan.JoinNonce
}

// beginJump writes down by how much JoinNonces rise, before the first does.
func (d *DB) beginJump(ctx context.Context, o Confirmation) (begun, error) {
	return write(ctx, d, func(t *tx) (b begun, err error) {
		s, _, err := t.storeRow()
		if err != nil {
			return b, err
		}
		b = begun{s.fence, o.Jump}
		switch {
		case s.fence.State != FenceRestored && s.fence.State != FenceForked:
			return b, joinery.Errorf(joinery.CodeConflict, "the database is not fenced: there is nothing to confirm")
		case s.fence.Jump != 0 && o.Jump != 0 && o.Jump != s.fence.Jump:
			return b, joinery.Errorf(joinery.CodeInvalid, "a confirmation with a jump of %d was begun; go on with that one, or without naming any", s.fence.Jump)
		case s.fence.Jump != 0:
			b.jump = s.fence.Jump
			return b, nil
		case b.jump == 0:
			b.jump = DefaultJump
		}
		above, err := d.witness.earlier(s, o, b.jump)
		if err != nil {
			return b, err
		}
		if uint64(b.jump)+uint64(above)+uint64(s.floor) >= uint64(lorawan.MaxJoinNonce) {
			return b, joinery.Errorf(joinery.CodeInvalid, "a jump of %d would use up every JoinNonce: earlier jumps took %d of %d", b.jump, s.floor+above, lorawan.MaxJoinNonce)
		}
		b.jump += above
		return b, t.exec("UPDATE store SET jump = ?, jumped = 0, join_nonce_floor = join_nonce_floor + ?", b.jump, b.jump)
	})
}

// jumpBatch raises the next key sets and tells how many; fewer than jumpSize are
// the last. Another confirmation may be at it at the same time, and then be done: no
// key set rises twice, and none once the fence is down.
func (d *DB) jumpBatch(ctx context.Context, jump lorawan.JoinNonce) (int64, error) {
	return write(ctx, d, func(t *tx) (n int64, err error) {
		if err := t.jumping(jump); err != nil {
			return 0, err
		}
		var last int64
		_, err = t.one("SELECT count(*), coalesce(max(id), 0) FROM (SELECT id FROM key_set WHERE id > (SELECT jumped FROM store) ORDER BY id LIMIT ?) AS batch",
			func(r *row) error { n, last = r.int(), r.int(); return nil }, jumpSize)
		if err != nil || n == 0 {
			return 0, err
		}
		err = t.exec(`UPDATE key_set SET version = version + 1, join_nonce = CASE WHEN join_nonce > ? THEN ? ELSE join_nonce + ? END
			WHERE id > (SELECT jumped FROM store) AND id <= ?`, lorawan.MaxJoinNonce-jump, lorawan.MaxJoinNonce, jump, last)
		if err != nil {
			return 0, err
		}
		return n, t.exec("UPDATE store SET jumped = ?", last)
	})
}

// jumping refuses to go on with a jump that is not the one under way any more.
func (t *tx) jumping(jump lorawan.JoinNonce) error {
	s, _, err := t.storeRow()
	if err == nil && (!s.fence.Up() || s.fence.Jump != jump) {
		err = joinery.Errorf(joinery.CodeConflict, "another confirmation ended meanwhile, or the fence was raised again: look with joinctl status")
	}
	return err
}

// endJump takes the fence down.
func (d *DB) endJump(ctx context.Context, done Confirmed, actor string) error {
	err := d.do(ctx, func(t *tx) error {
		if err := t.jumping(done.Jump); err != nil {
			return err
		}
		err := t.exec("UPDATE store SET fence = 'none', fence_at = NULL, fence_note = '', jump = NULL, jumped = 0")
		if err == nil {
			err = t.restartLog(done.Fence, actor)
		}
		return t.finish(err, joinery.AuditEntry{
			At: now(), Event: joinery.AuditServerConfirmed, Actor: actor, Org: t.operator,
			Detail: map[string]string{
				"fence": string(done.Fence.State), "since": done.Fence.Since.Format(time.RFC3339), "reason": done.Fence.Note,
				"join_nonce_jump": fmt.Sprint(done.Jump),
			},
		})
	})
	if err == nil {
		d.fence.Store(&Fence{State: FenceNone})
	}
	return err
}

func (d *DB) exhausted(ctx context.Context) (list []ExhaustedDevice, err error) {
	err = d.engine.copying(ctx, func(c conn) error {
		const query = `SELECT d.id, d.join_eui, d.dev_eui FROM device d JOIN key_set k ON k.id = d.key_set
			WHERE k.join_nonce >= ? AND d.deleted_at IS NULL ORDER BY d.id LIMIT ?`
		return c.each(query, func(r *row) error {
			list = append(list, ExhaustedDevice{joinery.DeviceID(r.int()), r.eui(), r.eui()})
			return nil
		}, lorawan.MaxJoinNonce, maxExhaustedListed)
	})
	return list, err
}

// RaiseFence fences the database by hand: for a disk that was put back from a
// snapshot, or a machine that was cloned, of which no file tells. CodeConflict
// where a fence is up already.
func (d *DB) RaiseFence(ctx context.Context, reason, actor string) error {
	f := Fence{State: FenceForked, Since: now(), Note: reason}
	err := d.do(ctx, func(t *tx) error {
		s, _, err := t.storeRow()
		if err == nil && s.fence.Up() {
			err = joinery.Errorf(joinery.CodeConflict, "the database is fenced already (%s)", s.fence.State)
		}
		if err != nil {
			return err
		}
		return t.raiseFence(f, actor)
	})
	if err == nil {
		d.fence.Store(&f)
	}
	return err
}
