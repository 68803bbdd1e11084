package rekey

import (
	"context"
	"time"

	"joinery"
)

// Expect is an order to accept devices of another Join Server.
type Expect struct {
	From    joinery.JoinServerID
	Devices joinery.EUIRange // DevEUIs
	Binding *joinery.Binding
	Life    time.Duration // zero: DefaultLife
}

// Expect has devices of another Join Server taken in for the caller's organisation:
// those that are parked, and those that come.
func (s *Service) Expect(ctx context.Context, caller joinery.Caller, x Expect) (made joinery.Expectation, err error) {
	if x.Life == 0 {
		x.Life = DefaultLife
	}
	org, err := s.acting(ctx, caller)
	switch {
	case err != nil:
		return made, err
	case x.Devices.First.Uint64() > x.Devices.Last.Uint64():
		return made, joinery.Errorf(joinery.CodeInvalid, "devices: the range ends before it begins")
	case x.Life < 0 || x.Life > MaxLife:
		return made, joinery.Errorf(joinery.CodeInvalid, "expiry: want at most %d days from now", int(MaxLife.Hours()/24))
	}
	if err := checkBinding(x.Binding); err != nil {
		return made, err
	}
	from, err := s.server(ctx, x.From)
	if err != nil {
		return made, err
	}
	now := s.now().UTC().Truncate(time.Millisecond)
	made = joinery.Expectation{
		ID: joinery.NewExpectationID(), Org: org, From: from.ID, Server: from.Name, Devices: x.Devices, Binding: x.Binding,
		By: caller.Name, At: now, ExpiresAt: now.Add(x.Life),
	}
	entry := joinery.AuditEntry{At: now, Event: joinery.AuditExpectation, Actor: caller.Name, Org: org, Detail: map[string]string{
		"expectation": made.ID.String(), "from": from.Name, "first": x.Devices.First.String(), "last": x.Devices.Last.String(),
	}}
	if err := s.store.Expect(ctx, made, maxExpectations, entry); err != nil {
		return made, err
	}
	return made, s.settleExpected(ctx, from.ID)
}

// acting gives the organisation for which a caller acts.
func (s *Service) acting(ctx context.Context, caller joinery.Caller) (joinery.OrgID, error) {
	orgs, err := s.store.Orgs(ctx)
	if err != nil {
		return 0, err
	}
	return caller.ActingFor(0, orgs)
}

func checkBinding(b *joinery.Binding) error {
	if b == nil {
		return nil
	}
	if b.Locked || b.Source != "" && b.Source != "owner" {
		return joinery.Errorf(joinery.CodeInvalid, "an owner's binding that is not locked goes with what is accepted")
	}
	return b.Check()
}

// EndExpectation has nothing more taken in by an expectation of the caller's
// organisation. What was taken in stays.
func (s *Service) EndExpectation(ctx context.Context, caller joinery.Caller, id joinery.ExpectationID) error {
	org, err := s.acting(ctx, caller)
	if err != nil {
		return err
	}
	return s.store.EndExpectation(ctx, id, org, joinery.AuditEntry{
		At: s.now().UTC().Truncate(time.Millisecond), Event: joinery.AuditExpectationEnded, Actor: caller.Name, Org: org,
		Detail: map[string]string{"expectation": id.String()},
	})
}

// Expectations lists those of the caller's organisation; to an operator who names
// none, all.
func (s *Service) Expectations(ctx context.Context, caller joinery.Caller) ([]joinery.Expectation, error) {
	if !caller.Operator && caller.Org == 0 {
		return nil, nil
	}
	return s.store.Expectations(ctx, caller.Org)
}
