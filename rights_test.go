package joinery

import (
	"testing"
)

// Each role has what the one before it has, and each kind of organisation some
// rights, but the server's.
func TestRolesAndKinds(t *testing.T) {
	var before Rights
	for _, r := range Roles() {
		if !r.Rights().Contains(before) || r.Rights() == before {
			t.Errorf("%s has not all of the role before it, or no more", r)
		}
		before = r.Rights()
	}
	if before != AllRights() || Role("king").Rights() != 0 || OrgKind("king").Rights() != 0 {
		t.Error("an admin has not all rights, or what is not known has some")
	}
	for _, k := range OrgKindsInOrder() {
		server := k == KindServerOperator
		if got := k.Rights(); got.Has(RightServerWrite) != server || !got.Has(RightPeopleWrite) {
			t.Errorf("%s: %s", k, got)
		}
	}
	if EveryKind().Is(KindServerOperator) {
		t.Error("an organisation of which nothing is said runs the server")
	}
	for _, r := range []Right{RightDevicesRead, RightAuditRead} {
		if !RoleViewer.Rights().Has(r) {
			t.Errorf("a viewer lacks %s", r)
		}
	}
	for _, r := range AllRightsInOrder() {
		if RoleViewer.Rights().Has(r) && (r == RightTokensRead || len(r) > 6 && r[len(r)-6:] == ":write") {
			t.Errorf("a viewer has %s", r)
		}
	}
}

func TestRightsText(t *testing.T) {
	for _, r := range AllRightsInOrder() {
		set := RightsOf(r)
		if got := ParseRights(set.String()); got != set || set.String() != string(r) {
			t.Errorf("%s comes back as %s", r, got)
		}
	}
	if got := ParseRights(AllRights().String()); got != AllRights() {
		t.Errorf("all rights come back as %s", got)
	}
	// What a newer program wrote gives nothing.
	if got := ParseRights("devices:read keys:fetch  king"); got != RightsOf(RightDevicesRead) {
		t.Errorf("unknown words give %s", got)
	}
	if Rights(0).Has("king") || AllRights().Has("king") || !AllRights().Contains(0) || Rights(0).Contains(AllRights()) {
		t.Error("what is no right is in a set")
	}
	kinds, err := NewOrgKinds([]OrgKind{KindOwner, KindDeviceMaker, KindOwner})
	if err != nil || kinds.String() != "device-maker owner" || ParseOrgKinds(kinds.String()).String() != kinds.String() {
		t.Errorf("kinds %q, %v", kinds, err)
	}
	for _, bad := range [][]OrgKind{nil, {}, {"king"}, {KindServerOperator}, {KindOwner, ""}} {
		if _, err := NewOrgKinds(bad); CodeOf(err) != CodeInvalid {
			t.Errorf("kinds %v: %v", bad, err)
		}
	}
}

func TestRequire(t *testing.T) {
	c := Caller{Org: 1, Rights: RightsOf(RightDevicesRead)}
	if err := c.Require(RightDevicesRead); err != nil {
		t.Error(err)
	}
	if err := c.Require(RightDevicesOwn); CodeOf(err) != CodeForbidden {
		t.Error(err)
	}
	if err := (Caller{}).Require("king"); CodeOf(err) != CodeForbidden {
		t.Error(err)
	}
}
