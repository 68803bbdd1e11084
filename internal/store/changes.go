package store

import (
	"context"
	"errors"
	"time"

	"joinery"
)

// ChangeOwners makes changes of who holds devices, and of which networks may
// join them, in one transaction, in their order. Each stands or falls alone, with
// its audit entries: outcomes has an error for each that was refused, nil for the
// others. CodeConflict says that what the change was judged by is not so any
// more, or that what it wants does not go; CodeNotFound that the device, or the
// offer to accept or cancel, is not there. With err nothing is known of any.
func (d *DB) ChangeOwners(ctx context.Context, changes []joinery.OwnerChange) (outcomes []error, err error) {
	return write(ctx, d, func(t *tx) ([]error, error) {
		outcomes := make([]error, len(changes))
		for i, c := range changes {
			refusal, err := t.alone(func() error { return t.changeOwner(c) })
			if err != nil {
				return nil, err
			}
			outcomes[i] = refusal
		}
		return outcomes, nil
	})
}

// alone runs fn so that nothing of it stays where it fails. What can only mean
// that the database is away ends the whole transaction, as err.
func (t *tx) alone(fn func() error) (refusal, err error) {
	if err := t.exec("SAVEPOINT alone"); err != nil {
		return nil, err
	}
	refusal = storeError(fn())
	if joinery.CodeOf(refusal) == joinery.CodeUnavailable || errors.Is(refusal, errNoTransaction) {
		return nil, refusal
	}
	if refusal != nil {
		if err := t.exec("ROLLBACK TO SAVEPOINT alone"); err != nil {
			return nil, err
		}
	}
	return refusal, t.exec("RELEASE SAVEPOINT alone")
}

func (t *tx) changeOwner(c joinery.OwnerChange) error {
	if len(c.Audit) == 0 {
		return errors.New("a change without its audit entry")
	}
	s, err := t.state(c.Device)
	if err != nil {
		return err
	}
	seen, now := c.Seen, s.Device.Ownership
	if seen.Org != now.Org || seen.Epoch != now.Epoch || seen.TokenGeneration != now.TokenGeneration {
		return changedOwner()
	}
	return t.finish(t.act(c, s, c.Audit[0].At), c.Audit...)
}

func (t *tx) act(c joinery.OwnerChange, s joinery.ActivationState, at time.Time) error {
	generation := s.Device.Ownership.TokenGeneration
	switch c.Act {
	case joinery.ActClaim:
		if s.Device.Ownership.Claimed() {
			return changedOwner()
		}
		return t.claim(s, c.To, c.Binding, at)
	case joinery.ActRelease:
		if !s.Device.Ownership.Claimed() {
			return changedOwner()
		}
		return t.handOver(s, joinery.OwnerLink{Org: t.operator, How: joinery.HowRelease, TokenGeneration: generation + 1, Since: at}, nil)
	case joinery.ActAccept:
		if err := t.offered(c.Device, c.To, at); err != nil {
			return err
		}
		return t.handOver(s, joinery.OwnerLink{Org: c.To, How: joinery.HowTransfer, TokenGeneration: generation + 1, Since: at}, c.Binding)
	case joinery.ActOffer:
		return t.offer(c, at)
	case joinery.ActCancel:
		return t.cancel(c)
	case joinery.ActRegenerateToken:
		// No join looks at it, so none has to think again.
		return t.exec("UPDATE device SET token_generation = ? WHERE id = ?", generation+1, c.Device)
	case joinery.ActBind:
		return t.rebind(c.Device, c.BindingEpoch, c.Binding, at)
	}
	return errors.New("a change of no kind")
}

// handOver gives a device on. Its binding ends with its owner, unless its network
// locked it; then nobody else can bind it either.
func (t *tx) handOver(s joinery.ActivationState, next joinery.OwnerLink, binding *joinery.Binding) error {
	locked := lockedByNetwork(s.Binding)
	if locked && binding != nil {
		return lockStands()
	}
	if !locked {
		if err := t.replaceBinding(s.Device.ID, binding, next.Since); err != nil {
			return err
		}
	}
	return t.addOwner(s.Device, next)
}
