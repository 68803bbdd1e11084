package fleet

import (
	"context"
	"slices"
	"strings"

	"joinery"
	"joinery/lorawan"
)

// maxRoaming bounds the networks of one roaming rule.
const maxRoaming = 1000

// Orgs gives the organisations that caller may see: all to the operator, else
// its own.
func (s *Service) Orgs(ctx context.Context, caller joinery.Caller) ([]joinery.Organisation, error) {
	orgs, err := s.store.Orgs(ctx)
	return slices.DeleteFunc(orgs, func(o joinery.Organisation) bool { return !caller.Owns(o.ID) }), err
}

// AddOrg adds an organisation.
func (s *Service) AddOrg(ctx context.Context, caller joinery.Caller, name string) (joinery.Organisation, error) {
	if err := caller.RequireOperator(); err != nil {
		return joinery.Organisation{}, err
	}
	if err := checkName("name of the organisation", name); err != nil {
		return joinery.Organisation{}, err
	}
	orgs, err := s.store.Orgs(ctx)
	if err != nil {
		return joinery.Organisation{}, err
	}
	if slices.ContainsFunc(orgs, func(o joinery.Organisation) bool { return strings.EqualFold(o.Name, name) }) {
		return joinery.Organisation{}, joinery.Errorf(joinery.CodeConflict, "there is already an organisation of that name")
	}
	o := joinery.Organisation{ID: joinery.NewOrgID(), Name: name, CreatedAt: s.timestamp()}
	return o, s.store.AddOrg(ctx, o, s.entry(caller, joinery.AuditOrgAdded, o.ID, map[string]string{"name": name}))
}

// Roaming gives the roaming rules of an organisation; zero is the caller's.
func (s *Service) Roaming(ctx context.Context, caller joinery.Caller, org joinery.OrgID) ([]joinery.RoamingRule, error) {
	org, err := s.actingOrg(ctx, caller, org)
	if err != nil {
		return nil, err
	}
	return s.store.Roaming(ctx, org)
}

// SetRoaming replaces a roaming rule: which networks may learn where the
// devices of r.Org, or one device of it, are at home. An empty list allows
// none; nil removes the rule. A rule for a device overrides its organisation's.
func (s *Service) SetRoaming(ctx context.Context, caller joinery.Caller, r joinery.RoamingRule) error {
	if r.Device != 0 {
		state, err := s.device(ctx, caller, r.Device)
		if err != nil {
			return err
		}
		if r.Org != 0 && r.Org != state.Device.Ownership.Org {
			return notFound("device")
		}
		r.Org = state.Device.Ownership.Org
	}
	var err error
	if r.Org, err = s.actingOrg(ctx, caller, r.Org); err != nil {
		return err
	}
	if len(r.NetIDs) > maxRoaming {
		return joinery.Errorf(joinery.CodeTooLarge, "a roaming rule names at most %d networks", maxRoaming)
	}
	if r.NetIDs != nil {
		r.NetIDs = slices.Compact(slices.SortedFunc(slices.Values(r.NetIDs), func(a, b lorawan.NetID) int { return slices.Compare(a[:], b[:]) }))
		if r.NetIDs == nil {
			r.NetIDs = []lorawan.NetID{} // none allowed, which is not the same as no rule
		}
	}
	detail := map[string]string{"netIDs": joinText(r.NetIDs)}
	if r.NetIDs == nil {
		detail = map[string]string{"removed": "true"}
	}
	entry := s.entry(caller, joinery.AuditRoamingChanged, r.Org, detail)
	entry.Device = r.Device
	return s.store.SetRoaming(ctx, r, entry)
}

// maxAuditScan bounds how many entries of others one call steps over.
const maxAuditScan = 10 * maxPage

// Audit gives audit entries with an id above after, oldest first: all to the
// operator, else those of the caller's organisation. The second result is the
// id to go on from; it may have moved though the page is empty.
func (s *Service) Audit(ctx context.Context, caller joinery.Caller, after int64, limit int) ([]joinery.AuditEntry, int64, error) {
	if !caller.Operator && caller.Org == 0 {
		return nil, after, notFound("organisation")
	}
	limit = page(limit)
	var own []joinery.AuditEntry
	for range maxAuditScan / maxPage {
		list, err := s.store.AuditEntries(ctx, after, maxPage)
		if err != nil {
			return nil, after, err
		}
		for _, e := range list {
			after = e.ID
			if caller.Owns(e.Org) {
				own = append(own, e)
			}
			if len(own) == limit {
				return own, after, nil
			}
		}
		if len(list) < maxPage {
			break
		}
	}
	return own, after, nil
}
