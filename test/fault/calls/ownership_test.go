package calls

import (
	"context"
	"crypto/ecdsa"
	"time"

	"joinery"
	"joinery/internal/claim"
	"joinery/lorawan"
)

func (x stepStore) ChangeOwners(ctx context.Context, changes []joinery.OwnerChange) ([]error, error) {
	return step(x.s, "ChangeOwners", func() ([]error, error) { return x.db.ChangeOwners(ctx, changes) })
}

func (x stepStore) LastOwner(ctx context.Context, id joinery.DeviceID) (joinery.OwnerLink, error) {
	return step(x.s, "LastOwner", func() (joinery.OwnerLink, error) { return x.db.LastOwner(ctx, id) })
}

func (x stepStore) Transfer(ctx context.Context, id joinery.DeviceID) (joinery.Transfer, error) {
	return step(x.s, "Transfer", func() (joinery.Transfer, error) { return x.db.Transfer(ctx, id) })
}

func (x stepStore) Transfers(ctx context.Context, q joinery.TransferQuery) ([]joinery.Transfer, error) {
	return step(x.s, "Transfers", func() ([]joinery.Transfer, error) { return x.db.Transfers(ctx, q) })
}

func (x stepStore) AddChallenge(ctx context.Context, c joinery.Challenge, now time.Time) error {
	return act(x.s, "AddChallenge", func() error { return x.db.AddChallenge(ctx, c, now) })
}

func (x stepStore) TakeChallenge(ctx context.Context, random [32]byte, org joinery.OrgID) (joinery.Challenge, error) {
	return step(x.s, "TakeChallenge", func() (joinery.Challenge, error) { return x.db.TakeChallenge(ctx, random, org) })
}

func (x stepStore) OpenDispute(ctx context.Context, p joinery.Dispute, entries ...joinery.AuditEntry) error {
	return act(x.s, "OpenDispute", func() error { return x.db.OpenDispute(ctx, p, entries...) })
}

func (x stepStore) CloseDispute(ctx context.Context, p joinery.Dispute, entries ...joinery.AuditEntry) error {
	return act(x.s, "CloseDispute", func() error { return x.db.CloseDispute(ctx, p, entries...) })
}

func (x stepStore) Dispute(ctx context.Context, id joinery.DisputeID) (joinery.Dispute, error) {
	return step(x.s, "Dispute", func() (joinery.Dispute, error) { return x.db.Dispute(ctx, id) })
}

func (x stepStore) Disputes(ctx context.Context, q joinery.DisputeQuery) ([]joinery.Dispute, error) {
	return step(x.s, "Disputes", func() ([]joinery.Dispute, error) { return x.db.Disputes(ctx, q) })
}

func (x stepStore) DeviceKey(ctx context.Context, id joinery.DeviceID) (*ecdsa.PublicKey, error) {
	return step(x.s, "DeviceKey", func() (*ecdsa.PublicKey, error) { return x.db.DeviceKey(ctx, id) })
}

func (x stepStore) NoteClaimFailures(ctx context.Context, failures []joinery.ClaimFailure, since time.Time) error {
	return act(x.s, "NoteClaimFailures", func() error { return x.db.NoteClaimFailures(ctx, failures, since) })
}

func (x stepStore) ClaimFailures(ctx context.Context, since time.Time, limit int) ([]joinery.ClaimFailure, error) {
	return step(x.s, "ClaimFailures", func() ([]joinery.ClaimFailure, error) { return x.db.ClaimFailures(ctx, since, limit) })
}

// ownershipFlows are what is asked for of devices from hand to hand. They begin
// with a device that its maker holds.
func ownershipFlows(b *base) []flow {
	d := b.ids[lorawan.MAC1_0_4]
	label := claim.Act{Kind: claim.Claiming, JoinEUI: stepEUI, DevEUI: b.devices[lorawan.MAC1_0_4].DevEUI(), OwnerToken: b.token}
	offer := claim.Act{Kind: claim.Offering, Device: d, To: b.owner.Org}
	both := func(first, second func() error) error {
		if err := first(); err != nil {
			return err
		}
		return second()
	}
	does := func(ctx context.Context, r *rooms, caller joinery.Caller, a claim.Act) func() error {
		return func() error { return r.claim.Do(ctx, caller, a).Err }
	}
	return []flow{
		{name: "claim without JoinEUI", once: true, done: isCode(joinery.CodeForbidden), run: func(ctx context.Context, r *rooms) error {
			return r.claim.Do(ctx, b.owner, claim.Act{Kind: claim.Claiming, DevEUI: label.DevEUI, OwnerToken: b.token}).Err
		}},
		{name: "claim and release", done: isCode(joinery.CodeForbidden), run: func(ctx context.Context, r *rooms) error {
			return both(does(ctx, r, b.owner, label), does(ctx, r, b.owner, claim.Act{Kind: claim.Releasing, Device: d}))
		}},
		{name: "new owner token", done: never, run: func(ctx context.Context, r *rooms) error {
			return r.claim.Do(ctx, b.maker, claim.Act{Kind: claim.Regenerating, Device: d}).Err
		}},
		{name: "offer", once: true, done: never, run: func(ctx context.Context, r *rooms) error {
			return r.claim.Do(ctx, b.maker, offer).Err
		}},
		{name: "offer taken back", done: never, run: func(ctx context.Context, r *rooms) error {
			return both(does(ctx, r, b.maker, offer), does(ctx, r, b.maker, claim.Act{Kind: claim.Cancelling, Device: d}))
		}},
		{name: "transfer", once: true, done: isCode(joinery.CodeNotFound), run: func(ctx context.Context, r *rooms) error {
			return both(does(ctx, r, b.maker, offer), does(ctx, r, b.owner, claim.Act{Kind: claim.Accepting, Device: d}))
		}},
		{name: "acceptance alone", once: true, done: never, run: func(ctx context.Context, r *rooms) error {
			err := r.claim.Do(ctx, b.owner, claim.Act{Kind: claim.Accepting, Device: d}).Err
			if joinery.CodeOf(err) == joinery.CodeNotFound {
				return nil // nobody offers it
			}
			return err
		}},
		{name: "wrong owner token", done: never, run: func(ctx context.Context, r *rooms) error {
			wrong := label
			wrong.OwnerToken = "AAAAAAAAAAAAA"
			err := r.claim.Do(ctx, b.owner, wrong).Err
			if joinery.CodeOf(err) == joinery.CodeForbidden {
				return nil
			}
			return err
		}},
		{name: "challenge", done: never, run: func(ctx context.Context, r *rooms) error {
			_, err := r.claim.Challenge(ctx, b.owner, stepEUI, label.DevEUI)
			return err
		}},
		{name: "dispute, granted", done: isCode(joinery.CodeForbidden), run: func(ctx context.Context, r *rooms) error {
			return both(does(ctx, r, b.owner, label), func() error { return b.dispute(ctx, r, label) })
		}},
	}
}

// dispute has the maker dispute the device with its owner token, and the operator
// grant it.
func (b *base) dispute(ctx context.Context, r *rooms, label claim.Act) error {
	_, err := r.claim.Dispute(ctx, b.maker, claim.Case{JoinEUI: label.JoinEUI, DevEUI: label.DevEUI, OwnerToken: label.OwnerToken})
	if err != nil && joinery.CodeOf(err) != joinery.CodeConflict { // conflict: it is open since the last time
		return err
	}
	open, err := r.claim.Disputes(ctx, b.maker, true, 0, 0)
	if err != nil {
		return err
	}
	for _, p := range open {
		if _, err := r.claim.DecideDispute(ctx, operator, p.ID, true, ""); err != nil {
			return err
		}
	}
	return nil
}
