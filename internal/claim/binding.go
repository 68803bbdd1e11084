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
	if b.Source != "" && b.Source != "owner" {
		return b, joinery.Errorf(joinery.CodeInvalid, "only the claim of a network makes a network's binding")
	}
	// Epoch and time are the store's.
	return joinery.Binding{
		NetID: b.NetID, NSID: b.NSID, ASID: b.ASID, Policy: b.Policy, ClearNwkKeys: b.ClearNwkKeys, Source: "owner", Locked: b.Locked,
	}, nil
}

// Bind lets another network join the caller's device, from the next join on.
// The Application Server of the binding before keeps what it had and gets
// nothing new. A binding of the same terms changes nothing; one that is locked
// by its network is CodeConflict.
func (s *Service) Bind(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, b joinery.Binding) error {
	return s.Do(ctx, caller, Act{Kind: Binding, Device: id, Binding: &b}).Err
}

// Unbind lets no network join the caller's device.
func (s *Service) Unbind(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error {
	return s.Do(ctx, caller, Act{Kind: Unbinding, Device: id}).Err
}

// bind judges a change of the binding; nil removes it.
func (b *batch) bind(p *plan, state joinery.ActivationState, binding *joinery.Binding) error {
	old := state.Binding
	switch {
	case old == nil && binding == nil, old != nil && binding != nil && binding.SameTerms(*old):
		return nil
	case lockedByNetwork(old):
		return joinery.Errorf(joinery.CodeConflict, "the binding is locked by its network, which has to let go first; "+
			"who has the device at hand can dispute the lock")
	}
	detail := map[string]string{}
	if binding == nil {
		detail["removed"] = "true"
	} else {
		describe(detail, *binding)
	}
	b.makes(p, joinery.ActBind, b.entry(b.caller, joinery.AuditDeviceBound, p.device.Ownership.Org, p.device.ID, detail))
	p.change.Binding = binding
	if old != nil {
		p.change.BindingEpoch = old.Epoch
	}
	return nil
}

func lockedByNetwork(b *joinery.Binding) bool { return b != nil && b.Locked && b.Source == "network" }

// describe adds the terms of a binding to the detail of an audit entry.
func describe(detail map[string]string, b joinery.Binding) {
	detail["netID"] = b.NetID.String()
	if !b.NSID.IsZero() {
		detail["nsID"] = b.NSID.String()
	}
	detail["asID"] = b.ASID
	detail["appSKey"] = b.Policy.String()
	detail["clearNwkKeys"] = strconv.FormatBool(b.ClearNwkKeys)
	if b.Locked {
		detail["locked"] = "true"
	}
}
