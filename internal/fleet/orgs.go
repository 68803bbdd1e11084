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

// AddOrg adds an organisation, of every kind where none is said.
func (s *Service) AddOrg(ctx context.Context, caller joinery.Caller, name string, kinds []joinery.OrgKind) (joinery.Organisation, error) {
	if err := caller.RequireOperator(); err != nil {
		return joinery.Organisation{}, err
	}
	o := joinery.Organisation{ID: joinery.NewOrgID(), Name: name, Kinds: joinery.EveryKind(), CreatedAt: s.timestamp()}
	if _, err := s.settleOrg(ctx, &o, name, kinds); err != nil {
		return joinery.Organisation{}, err
	}
	return o, s.store.AddOrg(ctx, o, s.entry(caller, joinery.AuditOrgAdded, o.ID, orgDetail(o)))
}

// ChangeOrg gives an organisation another name or other kinds; an empty name and
// no kinds leave what is there. What it holds by a kind that it loses stays.
func (s *Service) ChangeOrg(ctx context.Context, caller joinery.Caller, id joinery.OrgID, name string, kinds []joinery.OrgKind) (joinery.Organisation, error) {
	if err := caller.RequireOperator(); err != nil {
		return joinery.Organisation{}, err
	}
	o := joinery.Organisation{ID: id}
	found, err := s.settleOrg(ctx, &o, name, kinds)
	switch {
	case err != nil:
		return joinery.Organisation{}, err
	case !found:
		return joinery.Organisation{}, notFound("organisation")
	case o.Kinds.Is(joinery.KindServerOperator):
		return joinery.Organisation{}, joinery.Errorf(joinery.CodeConflict, "the operator's own organisation stays what it is")
	}
	return o, s.store.ChangeOrg(ctx, o, s.entry(caller, joinery.AuditOrgChanged, o.ID, orgDetail(o)))
}

// settleOrg fills o: with what is stored, if it is, and then with what is asked.
func (s *Service) settleOrg(ctx context.Context, o *joinery.Organisation, name string, kinds []joinery.OrgKind) (found bool, err error) {
	orgs, err := s.store.Orgs(ctx)
	if err != nil {
		return false, err
	}
	if i := slices.IndexFunc(orgs, func(other joinery.Organisation) bool { return other.ID == o.ID }); i >= 0 {
		*o, found = orgs[i], true
	}
	if found && o.Kinds.Is(joinery.KindServerOperator) {
		return true, nil
	}
	if name != "" || !found {
		if err := checkName("name of the organisation", name); err != nil {
			return found, err
		}
		o.Name = name
	}
	if len(kinds) > 0 {
		if o.Kinds, err = joinery.NewOrgKinds(kinds); err != nil {
			return found, err
		}
	}
	if slices.ContainsFunc(orgs, func(other joinery.Organisation) bool {
		return other.ID != o.ID && strings.EqualFold(other.Name, o.Name)
	}) {
		return found, joinery.Errorf(joinery.CodeConflict, "there is already an organisation of that name")
	}
	return found, nil
}

func orgDetail(o joinery.Organisation) map[string]string {
	return map[string]string{"name": o.Name, "kinds": o.Kinds.String()}
}

// requireKind refuses to give org what is for organisations of those kinds; the
// operator's own may have everything.
func (s *Service) requireKind(ctx context.Context, org joinery.OrgID, what string, kinds ...joinery.OrgKind) error {
	orgs, err := s.store.Orgs(ctx)
	if err != nil {
		return err
	}
	kinds = append(kinds, joinery.KindServerOperator)
	if !slices.ContainsFunc(orgs, func(o joinery.Organisation) bool { return o.ID == org && o.Kinds.Is(kinds...) }) {
		return joinery.Errorf(joinery.CodeConflict, "%s is for an organisation of another kind (%s): change its kinds first", what,
			strings.ReplaceAll(joinery.OrgKinds(kinds[:len(kinds)-1]).String(), " ", ", "))
	}
	return nil
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
