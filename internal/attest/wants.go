package attest

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"joinery"
)

func (s *Service) reload(ctx context.Context) error {
	list, err := s.store.AttestPolicies(ctx)
	if err != nil {
		return err
	}
	policies := make(map[joinery.OrgID]joinery.AttestPolicy, len(list))
	for _, p := range list {
		policies[p.Org] = p
	}
	s.policies.Store(&policies)
	return nil
}

// PolicyOf is what an organisation wants, from memory: joins and claims ask.
func (s *Service) PolicyOf(org joinery.OrgID) joinery.AttestPolicy {
	p, ok := (*s.policies.Load())[org]
	if !ok {
		p = joinery.AttestPolicy{Org: org, ValidDays: joinery.DefaultAttestDays}
		p.Basis = joinery.AttestVouched // what is taken back ends: so does a pin
	}
	return p
}

func (s *Service) acting(ctx context.Context, caller joinery.Caller) (joinery.OrgID, error) {
	orgs, err := s.store.Orgs(ctx)
	if err != nil {
		return 0, err
	}
	return caller.ActingFor(0, orgs)
}

// Policy gives what the caller's organisation wants of its devices.
func (s *Service) Policy(ctx context.Context, caller joinery.Caller) (joinery.AttestPolicy, error) {
	org, err := s.acting(ctx, caller)
	if err == nil {
		err = s.reload(ctx) // another server may have changed it
	}
	if err != nil {
		return joinery.AttestPolicy{}, err
	}
	return s.PolicyOf(org), nil
}

// SetPolicy changes what the caller's organisation wants of its devices.
func (s *Service) SetPolicy(ctx context.Context, caller joinery.Caller, p joinery.AttestPolicy) (joinery.AttestPolicy, error) {
	if p.ValidDays == 0 {
		p.ValidDays = joinery.DefaultAttestDays
	}
	var err error
	switch {
	case p.ValidDays < 1 || p.ValidDays > joinery.MaxAttestDays:
		return p, joinery.Errorf(joinery.CodeInvalid, "validDays: want 1 to %d", joinery.MaxAttestDays)
	case p.Level == joinery.AttestNone && (p.Activate != joinery.AttestIgnore || p.Claim != joinery.AttestIgnore):
		return p, joinery.Errorf(joinery.CodeInvalid, "level: nothing is below L0; want L1, L2 or L3, or none for both acts")
	}
	if p.Org, err = s.acting(ctx, caller); err != nil {
		return p, err
	}
	if p.Basis == joinery.AttestUnsaid {
		if err := s.reload(ctx); err != nil {
			return p, err
		}
		p.Basis = s.PolicyOf(p.Org).Basis
	}
	if err := possible(p.AttestRule); err != nil {
		return p, err
	}
	entry := s.entry(caller, joinery.AuditAttestPolicy, p.Org, 0, map[string]string{
		"level": p.Level.String(), "activate": p.Activate.String(), "claim": p.Claim.String(), "validDays": strconv.Itoa(p.ValidDays),
		"basis": p.Basis.String(),
	})
	if err := s.store.SetAttestPolicy(ctx, p, entry); err != nil {
		return p, err
	}
	return p, s.reload(context.WithoutCancel(ctx))
}

// possible refuses what no device can ever show.
func possible(r joinery.AttestRule) error {
	if r.Level == joinery.AttestToken && r.Basis == joinery.AttestChain {
		return joinery.Errorf(joinery.CodeInvalid, "basis: the keys of tokens (L3) are registered by the maker, and no certificate of them is looked at; want L1 or L2 on basis chain, or L3 on basis vouched")
	}
	return nil
}

// SetRule says what the owner wants of one device instead of what it wants of all;
// nil: the same as of all.
func (s *Service) SetRule(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, rule *joinery.AttestRule) error {
	detail := map[string]string{"rule": "as all devices"}
	if rule != nil {
		if rule.Level == joinery.AttestNone && rule.Activate != joinery.AttestIgnore {
			return joinery.Errorf(joinery.CodeInvalid, "level: nothing is below L0; want L1, L2 or L3, or none")
		}
	}
	d, err := s.own(ctx, caller, id)
	if err != nil {
		return err
	}
	if rule != nil {
		said := *rule
		if said.Basis == joinery.AttestUnsaid {
			if err := s.reload(ctx); err != nil {
				return err
			}
			said.Basis = s.PolicyOf(d.Ownership.Org).Basis
		}
		if err := possible(said); err != nil {
			return err
		}
		rule, detail = &said, map[string]string{"level": said.Level.String(), "activate": said.Activate.String(), "basis": said.Basis.String()}
	}
	return s.store.SetAttestRule(ctx, id, d.Ownership.Org, rule, s.entry(caller, joinery.AuditDeviceAttestRule, d.Ownership.Org, id, detail))
}

const (
	lookEvery = 2 * time.Second // at what others changed
	endEvery  = 10              // looks: at what is due
	endOne    = 200             // devices at once: joins wait meanwhile
	endMax    = 50              // times that, in one look
)

// Run follows what owners want, and tells them what ended, until ctx ends. Every
// server does: what is due is told once, whoever is first.
func (s *Service) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	failing := false
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := s.reload(ctx)
		if err == nil && s.hold() == nil {
			err = s.endWithdrawn(ctx)
		}
		if err == nil && s.hold() == nil {
			err = s.EndUnvouched(ctx)
		}
		if err == nil && n%endEvery == 0 {
			err = s.End(ctx)
		}
		if err != nil && ctx.Err() == nil && !failing {
			s.log.Warn("attestation is not looked after now", slog.Any("error", err))
		}
		failing = err != nil
	}
}

// End tells owners of the levels that ended by their time.
func (s *Service) End(ctx context.Context) error {
	return s.inParts(ctx, s.hold, s.store.EndAttestations)
}

// endWithdrawn ends what rests on what makers took back, and tells owners. No doubt
// about the time holds that.
func (s *Service) endWithdrawn(ctx context.Context) error {
	return s.inParts(ctx, func() error { return nil }, s.store.EndWithdrawn)
}

// EndUnvouched has what devices have shown rest no more on signers that are not pinned
// any longer, and tells owners.
func (s *Service) EndUnvouched(ctx context.Context) error {
	return s.inParts(ctx, s.hold, s.store.EndUnvouched)
}

func (s *Service) inParts(ctx context.Context, hold func() error, end func(context.Context, time.Time, int) (int, error)) error {
	for range endMax {
		if hold() != nil {
			return nil
		}
		n, err := end(ctx, s.time(), endOne)
		if err != nil || n < endOne {
			return err
		}
	}
	return nil
}
