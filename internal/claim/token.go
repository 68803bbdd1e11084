package claim

import (
	"context"

	"joinery"
)

// OwnerToken shows the owner token of a device to whom it was issued: to its
// maker, for the label, until somebody claims the device; and to an owner that
// got a new one, by a transfer, a dispute or because it asked for one. Who
// claimed a device knows its token. Each reading is recorded before the token
// leaves.
func (s *Service) OwnerToken(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (string, error) {
	// Until the first claim the maker is the owner; afterwards the device is none
	// of its business.
	state, err := s.ownDevice(ctx, caller, id)
	if err != nil {
		return "", err
	}
	d := state.Device
	if err := s.mayRead(ctx, d); err != nil {
		return "", err
	}
	token, err := s.tokens.OwnerToken(ctx, d.ID, d.Ownership.TokenGeneration)
	if err != nil {
		return "", err
	}
	if err := s.registry.Record(ctx, s.entry(caller, joinery.AuditOwnerTokenRead, d.Ownership.Org, d.ID, nil)); err != nil {
		return "", err
	}
	return token, nil
}

// mayRead tells whether the present token was issued to who holds the device now.
func (s *Service) mayRead(ctx context.Context, d joinery.Device) error {
	o := d.Ownership
	err := tokenReadable(o)
	if err == nil {
		return nil
	}
	last, lastErr := s.store.LastOwner(ctx, d.ID)
	if lastErr != nil {
		return lastErr
	}
	if last.How == joinery.HowTransfer || last.How == joinery.HowAward || last.TokenGeneration != o.TokenGeneration {
		return nil
	}
	return err
}

// tokenReadable tells whether the maker of a device, who holds it, may read its
// owner token.
func tokenReadable(o joinery.Ownership) error {
	switch {
	case o.Released:
		return joinery.Errorf(joinery.CodeForbidden, "the device is released; its owner token was in the answer to that")
	case o.Epoch > 0:
		return joinery.Errorf(joinery.CodeForbidden, "the device is claimed; its owner token could be read until then. Its owner can have a new one")
	}
	return nil
}

// regenerate judges a new owner token. The one before dies with the change.
func (b *batch) regenerate(ctx context.Context, p *plan) error {
	b.makes(p, joinery.ActRegenerateToken, b.entry(b.caller, joinery.AuditOwnerTokenRegenerated, p.device.Ownership.Org, p.device.ID, nil))
	return b.issue(ctx, p)
}
