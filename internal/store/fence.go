package store

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"joinery"
	"joinery/lorawan"
)

// FenceState says whether joins may be answered from a database.
type FenceState string

// Fence states.
const (
	// FenceNone: joins are answered.
	FenceNone FenceState = "none"
	// FenceRestored: restored from a backup; no joins until that is confirmed.
	FenceRestored FenceState = "restored"
	// FenceForked: a copy, or an older state than was open here before; no joins
	// until it is confirmed that this one counts.
	FenceForked FenceState = "forked"
	// FenceMoving and FenceMoved: its state goes, or went, to another database;
	// no server opens it.
	FenceMoving FenceState = "moving"
	FenceMoved  FenceState = "moved"
)

// Fence is a FenceState and how it came about.
type Fence struct {
	State FenceState
	Since time.Time // zero for FenceNone
	Note  string    // why, for people; FenceMoving and FenceMoved: whither
	// Jump is by how much a confirmation that was cut off raises JoinNonces; 0:
	// none was begun.
	Jump lorawan.JoinNonce
}

// Up tells whether joins are refused.
func (f Fence) Up() bool { return f.State != FenceNone }

// Err is what a join is refused with; nil where the fence is down. Networks
// take CodeUnavailable as "not here, not now", and not for a device's fault.
func (f Fence) Err() error {
	if !f.Up() {
		return nil
	}
	return joinery.WrapError(joinery.CodeUnavailable, fmt.Errorf("%w (%s)", ErrFenced, f.State), "this Join Server answers no joins for now; try again later")
}

// Fence gives the fence as it is now.
func (d *DB) Fence() Fence { return *d.fence.Load() }

// AnswersJoins is nil where joins may be answered, else why not.
func (d *DB) AnswersJoins() error { return d.Fence().Err() }

// storeRow is the row of the table store.
type storeRow struct {
	epoch     int64
	operator  joinery.OrgID
	createdAt time.Time
	fence     Fence
	jumped    int64
	floor     lorawan.JoinNonce
	opened    bool // instance and home are set
	instance  [16]byte
	home      string
}

func (c conn) storeRow() (s storeRow, found bool, err error) {
	const query = `SELECT epoch, operator_org, created_at, fence, fence_at, fence_note, coalesce(jump, 0), jumped,
		join_nonce_floor, instance, home FROM store`
	found, err = c.one(query, func(r *row) error {
		s.epoch, s.operator, s.createdAt = r.int(), joinery.OrgID(r.int()), r.time()
		s.fence = Fence{State: FenceState(r.text()), Since: r.time(), Note: r.text(), Jump: lorawan.JoinNonce(r.int())}
		s.jumped, s.floor = r.int(), lorawan.JoinNonce(r.int())
		instance := r.blob()
		s.opened = len(instance) == len(s.instance)
		copy(s.instance[:], instance)
		s.home = r.text()
		return nil
	})
	return s, found, err
}

// Ended is what a restored or copied state brought back of people, and what ended
// with its fence: it may have ended before, in the state that is lost.
type Ended struct {
	Sessions    int `json:"sessions"`
	SignIns     int `json:"signIns"` // that waited for their next step
	Invitations int `json:"invitations"`
}

// endSignIns ends everything by which somebody is in, or comes in, without proving
// anew who they are.
func (t *tx) endSignIns() (e Ended, err error) {
	for table, n := range map[string]*int{"session": &e.Sessions, "sign_in": &e.SignIns, "invitation": &e.Invitations} {
		if *n, err = t.changes("DELETE FROM " + table); err != nil {
			return e, err
		}
	}
	return e, nil
}

// raiseFence raises the fence and records that. A confirmation that was under
// way counts for nothing: what it raised may have been issued since. Where the
// state may be an older one, everybody is signed out, no invitation stands, and
// receipts of hand-overs get numbers of another epoch before the first is given.
func (t *tx) raiseFence(f Fence, actor string) error {
	_, err := t.raiseFenceAnd(f, actor)
	return err
}

// raiseFenceAnd is raiseFence, and tells what ended.
func (t *tx) raiseFenceAnd(f Fence, actor string) (ended Ended, err error) {
	detail := map[string]string{"state": string(f.State), "reason": f.Note}
	if f.State == FenceRestored || f.State == FenceForked {
		if ended, err = t.endSignIns(); err != nil {
			return ended, err
		}
		if err := t.exec("UPDATE store SET receipt_epoch = ?", newReceiptEpoch()); err != nil {
			return ended, err
		}
		detail["endedSessions"], detail["endedInvitations"] = strconv.Itoa(ended.Sessions), strconv.Itoa(ended.Invitations)
	}
	err = t.exec(`UPDATE store SET fence = ?, fence_at = ?, fence_note = ?,
		join_nonce_floor = join_nonce_floor - coalesce(jump, 0), jump = NULL, jumped = 0`, string(f.State), f.Since, f.Note)
	return ended, t.finish(err, joinery.AuditEntry{
		At: f.Since, Event: joinery.AuditServerFenced, Actor: actor, Org: t.operator, Detail: detail,
	})
}

// newReceiptEpoch draws what tells numbers of receipts from those of the same state
// elsewhere, or earlier: never 0.
func newReceiptEpoch() int64 {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return 1 + int64(binary.BigEndian.Uint64(b[:])%joinery.MaxReceiptEpoch)
}

// movedError refuses to serve a database whose state is elsewhere; name is what
// --from calls it.
func (f Fence) movedError(name string) error {
	switch f.State {
	case FenceMoving:
		return fmt.Errorf("%w: %s is on its way to %s since %s; finish that with the same joinery migrate, "+
			"or stay here with joinery migrate --from %[2]s --undo", ErrMoved, name, f.Note, f.Since.Format(time.RFC3339))
	case FenceMoved:
		return fmt.Errorf("%w: %s went to %s on %s, where its joins are answered now; configure that one. "+
			"Only if that is gone for good: joinery migrate --from %[2]s --undo, then joinery restore confirm",
			ErrMoved, name, f.Note, f.Since.Format(time.RFC3339))
	default:
		return nil
	}
}
