package claim

import (
	"context"
	"strconv"

	"joinery"
)

// ownersBinding checks a binding as its owner gives it.
func ownersBinding(b joinery.Binding) (joinery.Binding, error) {
	if err := b.Check(); err != nil {
		return b, err
	}
	if b.Locked || b.Source != "" && b.Source != "owner" {
		return b, joinery.Errorf(joinery.CodeInvalid, "only the claim of a network makes or locks a network's binding")
	}
	// Epoch and time are the store's.
	return joinery.Binding{
		NetID: b.NetID, NSID: b.NSID, ASID: b.ASID, Policy: b.Policy, ClearNwkKeys: b.ClearNwkKeys, Source: "owner",
	}, nil
}

// Bind lets another network join the caller's device, from the next join on.
// The Application Server of the binding before keeps what it had and gets
// nothing new. A binding of the same terms changes nothing; one that is locked
// by its network is CodeConflict.
func (s *Service) Bind(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, b joinery.Binding) error {
	b, err := ownersBinding(b)
	if err != nil {
		return err
	}
	state, err := s.ownDevice(ctx, caller, id)
	if err != nil {
		return err
	}
	if state.Binding != nil && b.SameTerms(*state.Binding) {
		return nil
	}
	detail := make(map[string]string)
	describe(detail, b)
	return s.rebind(ctx, caller, state, &b, detail)
}

// Unbind lets no network join the caller's device.
func (s *Service) Unbind(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error {
	state, err := s.ownDevice(ctx, caller, id)
	if err != nil || state.Binding == nil {
		return err
	}
	return s.rebind(ctx, caller, state, nil, map[string]string{"removed": "true"})
}

func (s *Service) rebind(ctx context.Context, caller joinery.Caller, state joinery.ActivationState, b *joinery.Binding, detail map[string]string) error {
	var epoch uint32
	if old := state.Binding; old != nil {
		if old.Locked && old.Source == "network" {
			return joinery.Errorf(joinery.CodeConflict, "the binding is locked by its network, which has to let go first")
		}
		epoch = old.Epoch
	}
	owner := state.Device.Ownership.Org
	entry := s.entry(caller, joinery.AuditDeviceBound, owner, state.Device.ID, detail)
	return s.store.SetBinding(ctx, state.Device.ID, owner, epoch, b, entry)
}

// describe adds the terms of a binding to the detail of an audit entry.
func describe(detail map[string]string, b joinery.Binding) {
	detail["netID"] = b.NetID.String()
	if !b.NSID.IsZero() {
		detail["nsID"] = b.NSID.String()
	}
	detail["asID"] = b.ASID
	detail["appSKey"] = b.Policy.String()
	detail["clearNwkKeys"] = strconv.FormatBool(b.ClearNwkKeys)
}
