package claim

import (
	"context"
	"time"

	"joinery"
)

// How long an offer stands.
const (
	offerFor    = 14 * 24 * time.Hour
	longestFor  = 90 * 24 * time.Hour
	maxPage     = 500
	defaultPage = 100
)

// release judges a release: nobody holds the device afterwards, and who gets its
// new token can claim it.
func (b *batch) release(ctx context.Context, p *plan) error {
	if !p.device.Ownership.Claimed() {
		return joinery.Errorf(joinery.CodeConflict, "nobody has claimed the device, so there is nothing to let go")
	}
	b.makes(p, joinery.ActRelease, b.entry(b.caller, joinery.AuditDeviceReleased, p.device.Ownership.Org, p.device.ID, nil))
	return b.issue(ctx, p)
}

// offer judges an offer. Whether there is the organisation to which it goes does
// not matter, and nobody is told: one that does not exist never accepts.
func (b *batch) offer(ctx context.Context, p *plan, a Act) error {
	from, now := p.device.Ownership, b.time()
	if a.ExpiresAt.IsZero() {
		a.ExpiresAt = now.Add(offerFor)
	}
	a.ExpiresAt = a.ExpiresAt.Truncate(time.Millisecond)
	switch {
	case a.To == 0:
		return joinery.Errorf(joinery.CodeInvalid, "say to which organisation the device is offered")
	case a.To == from.Org:
		return joinery.Errorf(joinery.CodeInvalid, "that organisation holds the device already")
	case !a.ExpiresAt.After(now) || a.ExpiresAt.Sub(now) > longestFor:
		return joinery.Errorf(joinery.CodeInvalid, "an offer ends in the future, and in %d days at the latest", longestFor/(24*time.Hour))
	case from.Released:
		return joinery.Errorf(joinery.CodeConflict, "nobody holds the device; it can be claimed with its owner token")
	}
	standing, err := b.store.Transfer(ctx, p.device.ID)
	switch {
	case err == nil && standing.Open(now) && standing.To == a.To:
		return nil
	case err == nil && standing.Open(now):
		return joinery.Errorf(joinery.CodeConflict, "the device is offered to another organisation; cancel that offer first")
	case err != nil && joinery.CodeOf(err) != joinery.CodeNotFound:
		return err
	}
	until := a.ExpiresAt.UTC().Format(time.RFC3339)
	entry := b.entry(b.caller, joinery.AuditTransferOffered, from.Org, p.device.ID, map[string]string{"to": a.To.String(), "until": until})
	b.makes(p, joinery.ActOffer, entry, forOther(entry, a.To, map[string]string{"from": from.Org.String(), "until": until}))
	p.change.To, p.change.ExpiresAt = a.To, a.ExpiresAt
	return nil
}

// offered finds the offer that an act is about, with its device, where side says
// that it is the caller's to act on.
func (b *batch) offered(ctx context.Context, a Act, side func(joinery.Transfer) bool) (t joinery.Transfer, state joinery.ActivationState, err error) {
	looked := false
	var away error
	party := func(s joinery.ActivationState) bool {
		looked = true
		offer, err := b.store.Transfer(ctx, s.Device.ID)
		switch {
		case err != nil && joinery.CodeOf(err) != joinery.CodeNotFound:
			away = err
			return false
		case err != nil || !side(offer):
			return false
		}
		t = offer
		return true
	}
	if a.Device == 0 {
		state, err = b.labelled(ctx, a, party)
	} else if state, err = b.store.Device(ctx, a.Device); err == nil && !party(state) {
		err = noDevice()
	}
	if !looked { // as much work for a device that is not here
		_, _ = b.store.Transfer(ctx, decoy)
	}
	if away != nil {
		err = away
	}
	if err != nil {
		return joinery.Transfer{}, joinery.ActivationState{}, err
	}
	return t, state, nil
}

// is tells whether the caller acts for org. An operator who says for whom acts for
// nobody else.
func (b *batch) is(org joinery.OrgID) bool {
	return b.caller.Owns(org) && (b.caller.Org == 0 || b.caller.Org == org)
}

// cancel judges the end of an offer, by either side.
func (b *batch) cancel(ctx context.Context, a Act) (plan, error) {
	t, state, err := b.offered(ctx, a, func(t joinery.Transfer) bool { return b.is(t.From) || b.is(t.To) })
	if joinery.CodeOf(err) == joinery.CodeNotFound {
		// To its owner it is another matter than an absent device.
		if state, ownErr := b.own(ctx, a); ownErr == nil {
			return plan{device: state.Device}, joinery.Errorf(joinery.CodeNotFound, "the device is offered neither by this organisation nor to it")
		}
	}
	if err != nil {
		return plan{}, err
	}
	p := plan{device: state.Device}
	mine, other := t.From, t.To
	if !b.is(t.From) {
		mine, other = other, mine
	}
	detail := map[string]string{"from": t.From.String(), "to": t.To.String()}
	entry := b.entry(b.caller, joinery.AuditTransferCancelled, mine, p.device.ID, detail)
	b.makes(&p, joinery.ActCancel, entry, forOther(entry, other, detail))
	p.change.To = t.To
	return p, nil
}

// accept judges the acceptance of an offer. Repeating it is no error.
func (b *batch) accept(ctx context.Context, a Act) (plan, error) {
	t, state, err := b.offered(ctx, a, func(t joinery.Transfer) bool { return b.is(t.To) && t.Open(b.time()) })
	if joinery.CodeOf(err) == joinery.CodeNotFound {
		return b.accepted(ctx, a, err)
	}
	if err != nil {
		return plan{}, err
	}
	to, err := b.caller.ActingFor(t.To, b.orgs)
	if err != nil {
		return plan{}, err
	}
	p := plan{device: state.Device}
	if a.Binding != nil && lockedByNetwork(state.Binding) {
		return p, joinery.Errorf(joinery.CodeConflict, "the binding is locked by its network; accept the device without another, "+
			"and dispute the lock with the device at hand")
	}
	detail := map[string]string{"from": t.From.String()}
	if a.Binding != nil {
		describe(detail, *a.Binding)
	}
	entry := b.entry(b.caller, joinery.AuditDeviceTransferred, to, p.device.ID, detail)
	b.makes(&p, joinery.ActAccept, entry, forOther(entry, t.From, map[string]string{"to": to.String()}))
	p.change.To, p.change.Binding = to, a.Binding
	return p, b.issue(ctx, &p)
}

// accepted tells an acceptance that is repeated from one without an offer.
func (b *batch) accepted(ctx context.Context, a Act, none error) (plan, error) {
	state, err := b.own(ctx, a)
	if err != nil || !b.is(state.Device.Ownership.Org) {
		return plan{}, none
	}
	last, err := b.store.LastOwner(ctx, state.Device.ID)
	if err != nil {
		return plan{}, err
	}
	if last.How != joinery.HowTransfer {
		return plan{device: state.Device}, joinery.Errorf(joinery.CodeConflict, "the organisation holds the device, and nobody offers it")
	}
	return plan{device: state.Device}, nil
}

// Transfer gives the offer of a device to either side of it.
func (s *Service) Transfer(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (joinery.Transfer, error) {
	t, err := s.store.Transfer(ctx, id)
	if err == nil && !caller.Owns(t.From) && !caller.Owns(t.To) {
		err = noDevice()
	}
	if joinery.CodeOf(err) == joinery.CodeNotFound {
		if _, err := s.ownDevice(ctx, caller, id); err != nil {
			return joinery.Transfer{}, err
		}
	}
	if err != nil {
		return joinery.Transfer{}, err
	}
	return t, nil
}

// Transfers lists the offers that the caller's organisation makes and gets; to the
// operator, acting for none, all.
func (s *Service) Transfers(ctx context.Context, caller joinery.Caller, after joinery.DeviceID, limit int) ([]joinery.Transfer, error) {
	if !caller.Operator && caller.Org == 0 {
		return nil, joinery.Errorf(joinery.CodeNotFound, "no such organisation")
	}
	return s.store.Transfers(ctx, joinery.TransferQuery{Org: caller.Org, After: after, Limit: page(limit)})
}

func page(limit int) int {
	if limit <= 0 {
		return defaultPage
	}
	return min(limit, maxPage)
}
