package claim

import (
	"context"

	"joinery"
)

// OwnerToken shows the owner token of a device to its maker, for the label,
// until somebody claims the device. Each reading is recorded before the token
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

// mayRead tells whether who holds a device may read its owner token.
func (s *Service) mayRead(_ context.Context, d joinery.Device) error {
	if d.Ownership.Claimed() {
		return joinery.Errorf(joinery.CodeForbidden, "the device is claimed; its owner token could be read until then")
	}
	return nil
}
