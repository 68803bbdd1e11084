package claim

import (
	"context"
	"fmt"

	"joinery"
	"joinery/lorawan"
)

// Request is a claim: what stands on the label, and the binding to begin with.
type Request struct {
	// JoinEUI is zero where only the DevEUI is known: of the devices that have it,
	// the one with this owner token is meant.
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

// alike is how many tokens a claim without JoinEUI checks at least, so that few
// devices with one DevEUI take as long as none.
const alike = 4

// Claim makes the caller's organisation the owner of a device whose owner token
// it shows. An unknown device and a wrong token are one CodeForbidden, after
// the same time; CodeConflict, for a device that has an owner already, is said
// to holders of the token only. Repeating one's own claim is no error.
func (s *Service) Claim(ctx context.Context, caller joinery.Caller, req Request) (joinery.Device, error) {
	o := s.Do(ctx, caller, Act{Kind: Claiming, JoinEUI: req.JoinEUI, DevEUI: req.DevEUI, OwnerToken: req.OwnerToken, Binding: req.Binding})
	if o.Err != nil {
		return joinery.Device{}, o.Err
	}
	return o.Device, nil
}

// claim judges a claim.
func (b *batch) claim(ctx context.Context, i int, a Act) (plan, error) {
	org, err := b.caller.ActingFor(0, b.orgs)
	if err != nil {
		return plan{}, err
	}
	if a.Device != 0 {
		return plan{}, joinery.Errorf(joinery.CodeInvalid, "a claim goes by what stands on the label: DevEUI, JoinEUI and owner token")
	}
	state, failure, err := b.prove(ctx, b.caller, a)
	if failure.Count > 0 {
		b.wrong, b.wrongOf = append(b.wrong, failure), append(b.wrongOf, i)
	}
	if err != nil {
		return plan{}, err
	}
	p := plan{device: state.Device}
	if state.Device.Ownership.Claimed() {
		if state.Device.Ownership.Org == org && (a.Binding == nil || state.Binding != nil && a.Binding.SameTerms(*state.Binding)) {
			return p, nil // the same claim again: its first answer may have been lost
		}
		return p, joinery.Errorf(joinery.CodeConflict, "the device is claimed already; its owner can bind it, transfer it or let it go, "+
			"and whoever should be its owner can dispute it")
	}
	if a.Binding != nil && lockedByNetwork(state.Binding) {
		return p, joinery.Errorf(joinery.CodeConflict, "the binding is locked by its network; claim the device without another, "+
			"and dispute the lock with the device at hand")
	}
	detail := map[string]string{"joinEUI": state.Device.JoinEUI.String(), "devEUI": state.Device.DevEUI.String()}
	if err := b.checkAttested(org, state.Device, detail); err != nil {
		return p, err
	}
	if a.Binding != nil {
		describe(detail, *a.Binding)
	}
	b.makes(&p, joinery.ActClaim, b.entry(b.caller, joinery.AuditDeviceClaimed, org, p.device.ID, detail))
	p.change.To, p.change.Binding = org, a.Binding
	return p, nil
}

// checkAttested holds a claim against what the claimant wants of devices. Where it
// is warned only, detail says so: in the log, and in the event of the claim. Only
// claims ask: whoever lets a device go is never held.
func (s *Service) checkAttested(org joinery.OrgID, d joinery.Device, detail map[string]string) error {
	if s.attested == nil {
		return nil
	}
	want, now := s.attested.PolicyOf(org), s.now()
	if want.Claim == joinery.AttestIgnore || want.Counts(d.Attested, now) >= want.Level {
		return nil
	}
	have, level := want.Compare(d.Attested, now)
	if want.Claim == joinery.AttestRefuse {
		return joinery.Errorf(joinery.CodeAttestation, "the device is attested %s now, and the policy of your organisation is to claim none below %s; "+
			"have who holds it show more of it, or change the policy", have, level)
	}
	detail["attestation"], detail["attestationWanted"] = have, level
	return nil
}

// prove finds the device of a if its token is right, and counts the failure if
// it is not: the caller writes it down before it answers. Claims of one DevEUI
// take turns, so that guesses at once are counted one by one.
func (s *Service) prove(ctx context.Context, caller joinery.Caller, a Act) (joinery.ActivationState, joinery.ClaimFailure, error) {
	defer s.turns.take(a.DevEUI)()
	who, at := whoIs(caller), s.now()
	forgive, err := s.guard.reserve(a.DevEUI, who, at)
	if err != nil {
		return joinery.ActivationState{}, joinery.ClaimFailure{}, err
	}
	state, right, err := s.check(ctx, a)
	if err != nil || right {
		forgive()
		return state, joinery.ClaimFailure{}, err
	}
	return joinery.ActivationState{}, joinery.ClaimFailure{DevEUI: a.DevEUI, Caller: who, At: at, Count: 1},
		joinery.Errorf(joinery.CodeForbidden, "claim failed: no device with this JoinEUI and DevEUI has this owner token")
}

// check does the same work for a known and for an unknown device.
func (s *Service) check(ctx context.Context, a Act) (found joinery.ActivationState, right bool, err error) {
	candidates, least, err := s.candidates(ctx, a)
	if err != nil {
		return found, false, err
	}
	for n := range max(least, len(candidates)) {
		id, generation := decoy, uint32(0)
		if n < len(candidates) {
			id, generation = candidates[n].Device.ID, candidates[n].Device.Ownership.TokenGeneration
		}
		ok, err := s.tokens.CheckOwnerToken(ctx, id, generation, a.OwnerToken)
		if err != nil {
			return joinery.ActivationState{}, false, err
		}
		if ok && n < len(candidates) {
			found, right = candidates[n], true
		}
	}
	return found, right, nil
}

// candidates finds the devices that a claim can mean, and how many tokens are
// checked at least.
func (s *Service) candidates(ctx context.Context, a Act) (states []joinery.ActivationState, least int, err error) {
	if a.JoinEUI.IsZero() {
		states, err = s.store.FindDevices(ctx, a.DevEUI)
		return states, alike, err
	}
	state, err := s.store.LoadActivation(ctx, a.JoinEUI, a.DevEUI)
	switch {
	case err == nil:
		return []joinery.ActivationState{state}, 1, nil
	case joinery.CodeOf(err) == joinery.CodeUnknownDevice:
		return nil, 1, nil
	}
	return nil, 0, err
}
