package claim

import (
	"context"
	"slices"

	"joinery"
)

// labelRun is how many tokens are read before their readings are recorded, in
// one transaction: few enough that joins do not wait for it.
const labelRun = 250

// LabelTokens shows the owner tokens of many devices, for their labels, one
// result for each of refs and in their order. For each of them holds what holds
// for OwnerToken; one that may not be read has its Err and costs only itself. An
// error of the whole gives no token, though readings may be on record by then.
func (s *Service) LabelTokens(ctx context.Context, caller joinery.Caller, refs []joinery.DeviceRef) ([]joinery.LabelToken, error) {
	if len(refs) > joinery.MaxLabels {
		return nil, joinery.Errorf(joinery.CodeTooLarge, "at most %d devices in one request", joinery.MaxLabels)
	}
	all := make([]joinery.LabelToken, 0, len(refs))
	for run := range slices.Chunk(refs, labelRun) {
		tokens, err := s.labelTokens(ctx, caller, run)
		if err != nil {
			return nil, err
		}
		all = append(all, tokens...)
	}
	return all, nil
}

// labelTokens reads one run of tokens, and records it before it gives them.
func (s *Service) labelTokens(ctx context.Context, caller joinery.Caller, refs []joinery.DeviceRef) ([]joinery.LabelToken, error) {
	labels, err := s.store.Labelled(ctx, refs)
	if err != nil {
		return nil, err
	}
	tokens := make([]joinery.LabelToken, len(refs))
	var readings []joinery.AuditEntry
	for i, l := range labels {
		err := s.mayLabel(ctx, caller, refs[i], l.Device)
		if code := joinery.CodeOf(err); code == joinery.CodeInternal || code == joinery.CodeUnavailable {
			return nil, err // nothing that is wrong with this device
		}
		if err != nil {
			tokens[i].Err = err
			continue
		}
		d := l.Device
		token, err := s.tokens.OwnerToken(ctx, d.ID, d.Ownership.TokenGeneration)
		if err != nil {
			return nil, err
		}
		tokens[i] = joinery.LabelToken{Labelled: l, OwnerToken: token}
		readings = append(readings, s.entry(caller, joinery.AuditOwnerTokenRead, d.Ownership.Org, d.ID, nil))
	}
	if len(readings) == 0 {
		return tokens, nil
	}
	return tokens, s.registry.Record(ctx, readings...)
}

// mayLabel says why caller does not get the token of d, which ref named.
func (s *Service) mayLabel(ctx context.Context, caller joinery.Caller, ref joinery.DeviceRef, d joinery.Device) error {
	switch {
	case !ref.Names():
		return joinery.Errorf(joinery.CodeInvalid, "name the device by its id, or by JoinEUI and DevEUI")
	case d.ID == 0 || !caller.Owns(d.Ownership.Org):
		return joinery.Errorf(joinery.CodeNotFound, "no such device")
	}
	return s.mayRead(ctx, d)
}
