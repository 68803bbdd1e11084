package claim

import (
	"context"
	"fmt"
	"time"

	"joinery"
	"joinery/lorawan"
)

// Request is a claim: what stands on the label, and the binding to begin with.
type Request struct {
	JoinEUI    lorawan.EUI64
	DevEUI     lorawan.EUI64
	OwnerToken string
	// Binding is nil for none: the device is then bound later.
	Binding *joinery.Binding
}

// String keeps the token out of logs.
func (r Request) String() string { return fmt.Sprintf("claim of %s/%s", r.JoinEUI, r.DevEUI) }

// GoString is String, for %#v.
func (r Request) GoString() string { return r.String() }

// decoy is the device against which the token of an unknown device is checked.
// No device has this id: ids begin at the number of minutes of 2026, times 2^35.
const decoy joinery.DeviceID = 1

// Claim makes the caller's organisation the owner of a device whose owner token
// it shows. An unknown device and a wrong token are one CodeForbidden, after
// the same time; CodeConflict, for a device that has an owner already, is said
// to holders of the token only. Repeating one's own claim is no error.
func (s *Service) Claim(ctx context.Context, caller joinery.Caller, req Request) (joinery.Device, error) {
	begun := time.Now()
	orgs, err := s.registry.Orgs(ctx)
	if err != nil {
		return joinery.Device{}, err
	}
	org, err := caller.ActingFor(0, orgs)
	if err != nil {
		return joinery.Device{}, err
	}
	if req.Binding != nil {
		own, err := ownersBinding(*req.Binding)
		if err != nil {
			return joinery.Device{}, err
		}
		req.Binding = &own
	}
	state, err := s.prove(ctx, caller, req)
	if err != nil {
		if joinery.CodeOf(err) == joinery.CodeForbidden {
			wait(ctx, time.Until(begun.Add(s.hold)))
		}
		return joinery.Device{}, err
	}
	return s.take(ctx, caller, org, state, req.Binding)
}

// prove finds the device of req if its token is right, and counts the failure
// if it is not. Claims of one device take turns, so that guesses at once are
// counted one by one.
func (s *Service) prove(ctx context.Context, caller joinery.Caller, req Request) (joinery.ActivationState, error) {
	which := label{req.JoinEUI, req.DevEUI}
	defer s.turns.take(which)()

	guess, err := s.reserve(which, caller)
	if err != nil {
		return joinery.ActivationState{}, err
	}
	state, right, err := s.check(ctx, req)
	if err != nil || right {
		guess.forgive()
		return state, err
	}
	return joinery.ActivationState{}, joinery.Errorf(joinery.CodeForbidden,
		"claim failed: no device with this JoinEUI and DevEUI has this owner token")
}

// check does the same work for a known and for an unknown device.
func (s *Service) check(ctx context.Context, req Request) (joinery.ActivationState, bool, error) {
	id, generation := decoy, uint32(0)
	state, err := s.store.LoadActivation(ctx, req.JoinEUI, req.DevEUI)
	known := err == nil
	switch {
	case known:
		id, generation = state.Device.ID, state.Device.Ownership.TokenGeneration
	case joinery.CodeOf(err) != joinery.CodeUnknownDevice:
		return joinery.ActivationState{}, false, err
	}
	right, err := s.tokens.CheckOwnerToken(ctx, id, generation, req.OwnerToken)
	return state, right && known, err
}

// guess is one reserved failure: of a caller, for a device, and of the one for
// the other.
type guess struct{ forgive func() }

func (s *Service) reserve(which label, caller joinery.Caller) (guess, error) {
	now := s.now()
	var who any = caller.Name
	if caller.Org != 0 {
		who = caller.Org
	}
	forgiveTry, again := s.tries.reserve(try{which, who}, now)
	if again > 0 {
		return guess{}, tooMany("of this device by this caller", again)
	}
	forgiveCaller, again := s.callers.reserve(who, now)
	if again > 0 {
		forgiveTry()
		return guess{}, tooMany("by this caller", again)
	}
	forgiveDevice, again := s.devices.reserve(which, now)
	if again > 0 {
		forgiveTry()
		forgiveCaller()
		return guess{}, tooMany("of this device", again)
	}
	return guess{func() { forgiveTry(); forgiveCaller(); forgiveDevice() }}, nil
}

func tooMany(whose string, again time.Duration) error {
	return joinery.Errorf(joinery.CodeRateLimited, "too many failed claims %s; try again in %d minutes", whose, (again+time.Minute-1)/time.Minute)
}

// take makes org the owner of a device whose token was shown.
func (s *Service) take(ctx context.Context, caller joinery.Caller, org joinery.OrgID, state joinery.ActivationState, binding *joinery.Binding) (joinery.Device, error) {
	device := state.Device
	if device.Ownership.Claimed() {
		if device.Ownership.Org == org && (binding == nil || state.Binding != nil && binding.SameTerms(*state.Binding)) {
			return device, nil // the same claim again: its first answer may have been lost
		}
		return joinery.Device{}, joinery.Errorf(joinery.CodeConflict, "the device is claimed already; its owner can bind it, transfer it or let it go")
	}
	detail := map[string]string{"joinEUI": device.JoinEUI.String(), "devEUI": device.DevEUI.String()}
	if binding != nil {
		describe(detail, *binding)
	}
	entry := s.entry(caller, joinery.AuditDeviceClaimed, org, device.ID, detail)
	if err := s.store.Claim(ctx, device.ID, device.Ownership.Epoch, org, binding, entry); err != nil {
		return joinery.Device{}, err
	}
	after, err := s.store.Device(context.WithoutCancel(ctx), device.ID)
	if err != nil {
		return joinery.Device{}, joinery.WrapError(joinery.CodeUnavailable, err, "the device is claimed, but could not be read back; ask for it again")
	}
	return after.Device, nil
}

// wait lasts for d, or until nobody listens any more.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
