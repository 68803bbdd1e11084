package export

import (
	"context"
	"time"

	"joinery"
)

// Policy is when exports of an organisation need another person, and what that
// means for who asks.
type Policy struct {
	joinery.ExportPolicy
	// Holds is the rule that holds now.
	Holds joinery.ApprovalRule
	// Admins is how many people of the organisation could approve.
	Admins int
	// Needed tells whether an export that the caller asked for now would need
	// another person.
	Needed bool
}

// Policy tells when exports of the caller's organisation need another person.
func (s *Service) Policy(ctx context.Context, caller joinery.Caller) (p Policy, err error) {
	org, err := s.acting(ctx, caller)
	if err != nil {
		return p, err
	}
	return s.policyFor(ctx, caller, org)
}

func (s *Service) policyFor(ctx context.Context, caller joinery.Caller, org joinery.OrgID) (p Policy, err error) {
	if p.ExportPolicy, err = s.store.ExportPolicy(ctx, org); err != nil {
		return p, err
	}
	members, err := s.store.Members(ctx, org)
	if err != nil {
		return p, err
	}
	now := s.time()
	p.Holds = p.At(now)
	others, belongs := 0, caller.Key != 0 && !caller.Operator && caller.Org == org
	for _, m := range members {
		if caller.Person != 0 && m.ID == caller.Person {
			belongs = true
		} else if m.Role == joinery.RoleAdmin {
			others++
		}
		if m.Role == joinery.RoleAdmin {
			p.Admins++
		}
	}
	p.Needed = needed(p.Holds, others, belongs, p.AdminLeftAt, now)
	return p, nil
}

// NeedsAnother tells whether root keys of an organisation that leave otherwise than
// by an export need another person, where it is caller who asks. CodeForbidden where
// he may not even ask.
func (s *Service) NeedsAnother(ctx context.Context, caller joinery.Caller, org joinery.OrgID) (bool, error) {
	if err := caller.Require(joinery.RightExportRequest); err != nil {
		return false, err
	}
	p, err := s.policyFor(ctx, caller, org)
	return p.Needed, err
}

// Another refuses who is not that other person, where asked is who asked.
func (s *Service) Another(ctx context.Context, caller joinery.Caller, org joinery.OrgID, asked joinery.PersonID) error {
	return s.another(ctx, caller, org, asked)
}

// Acting gives the organisation for which a caller acts.
func (s *Service) Acting(ctx context.Context, caller joinery.Caller) (joinery.OrgID, error) {
	return s.acting(ctx, caller)
}

// Held refuses to let root keys leave, by an export or otherwise, while the database may
// not be the newest state.
func (s *Service) Held() error { return s.held() }

// RecipientOf finds a recipient of an organisation to which something may be
// disclosed now.
func (s *Service) RecipientOf(ctx context.Context, org joinery.OrgID, id joinery.RecipientID) (joinery.Recipient, error) {
	r, err := s.store.Recipient(ctx, id)
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && (r.Org != org || !r.RemovedAt.IsZero()) {
		return joinery.Recipient{}, notFound("recipient")
	}
	if err == nil {
		err = s.held()
	}
	return r, err
}

// needed is the rule: who asks, and does not belong to the organisation, always
// needs one of its admins where there is one, whatever the organisation said.
func needed(rule joinery.ApprovalRule, others int, belongs bool, adminLeft, now time.Time) bool {
	switch rule {
	case joinery.ApprovalNever:
		return !belongs && others > 0
	case joinery.ApprovalAlways:
		return true
	}
	// A clock that went back makes an admin's leaving no older.
	left := !adminLeft.IsZero() && now.Before(adminLeft.Add(thinkFor))
	return others > 0 || left
}

// SetPolicy changes the rule. One that is as strict or stricter holds at once, and
// ends a weaker one that was to come. One that is weaker needs whom an export
// needs, and holds a day later.
func (s *Service) SetPolicy(ctx context.Context, caller joinery.Caller, rule joinery.ApprovalRule) (p Policy, err error) {
	org, err := s.acting(ctx, caller)
	if err != nil {
		return p, err
	}
	if p, err = s.policyFor(ctx, caller, org); err != nil {
		return p, err
	}
	next := joinery.ExportPolicy{Org: org, Approval: p.Holds, AdminLeftAt: p.AdminLeftAt}
	detail := map[string]string{"approval": rule.String(), "before": p.Holds.String()}
	switch {
	case rule >= p.Holds:
		next.Approval = rule
		detail["holds"] = "at once"
	case p.Needed:
		next.Next, next.ProposedBy, next.ProposedPerson = rule, caller.Name, caller.Person
		detail["holds"] = "a day after another admin approves it"
	default:
		next.Next, next.ProposedBy, next.ProposedPerson, next.NextFrom = rule, caller.Name, caller.Person, s.time().Add(thinkFor)
		detail["holds"] = "from " + next.NextFrom.Format(time.RFC3339)
	}
	if err := s.store.SetExportPolicy(ctx, next, p.ExportPolicy, s.entry(caller, joinery.AuditExportPolicy, org, detail)); err != nil {
		return p, err
	}
	return s.policyFor(ctx, caller, org)
}

// ApprovePolicy lets a weaker rule hold that another admin proposed, a day from
// now. rule is the one that the caller means.
func (s *Service) ApprovePolicy(ctx context.Context, caller joinery.Caller, rule joinery.ApprovalRule) (p Policy, err error) {
	org, err := s.acting(ctx, caller)
	if err != nil {
		return p, err
	}
	seen, err := s.store.ExportPolicy(ctx, org)
	switch {
	case err != nil:
		return p, err
	case seen.Next == 0 || !seen.NextFrom.IsZero() || seen.Next != rule:
		return p, joinery.Errorf(joinery.CodeConflict, "no policy of that rule waits for approval")
	}
	if err := s.another(ctx, caller, org, seen.ProposedPerson); err != nil {
		return p, err
	}
	next := seen
	next.NextFrom = s.time().Add(thinkFor)
	a := s.entry(caller, joinery.AuditExportPolicy, org, map[string]string{
		"approval": rule.String(), "before": seen.Approval.String(), "proposed_by": seen.ProposedBy, "holds": "from " + next.NextFrom.Format(time.RFC3339),
	})
	if err := s.store.SetExportPolicy(ctx, next, seen, a); err != nil {
		return p, err
	}
	return s.policyFor(ctx, caller, org)
}

// another refuses who is not another person: an admin of the organisation, signed
// in, who is not the one that asked. An API key is no person, whoever made it.
func (s *Service) another(ctx context.Context, caller joinery.Caller, org joinery.OrgID, asked joinery.PersonID) error {
	if caller.Person == 0 || caller.Session == 0 || caller.Key != 0 {
		return joinery.Errorf(joinery.CodeForbidden, "another person approves that: an admin of the organisation who is signed in; an API key or the operator socket is no person")
	}
	if caller.Person == asked {
		return &joinery.Attempted{Reason: joinery.AttemptOwnRequest,
			Err: joinery.Errorf(joinery.CodeForbidden, "you asked for it yourself; another admin of the organisation approves it")}
	}
	members, err := s.store.Members(ctx, org)
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.ID == caller.Person && m.Role == joinery.RoleAdmin {
			return nil
		}
	}
	return joinery.Errorf(joinery.CodeForbidden, "only an admin of the organisation can approve that")
}
