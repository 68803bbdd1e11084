package rekey_test

import (
	"slices"
	"testing"

	"joinery"
	"joinery/internal/rekey"
	"joinery/lorawan"
)

// operatorOrg is the operator's organisation.
func (s *server) operatorOrg() joinery.OrgID {
	s.t.Helper()
	orgs, err := s.store.Orgs(s.t.Context())
	ok(s.t, err)
	return orgs[slices.IndexFunc(orgs, func(o joinery.Organisation) bool { return o.Name == "operator" })].ID
}

// release has the holder of a device let it go.
func (s *server) release(id joinery.DeviceID) {
	s.t.Helper()
	state, err := s.store.RekeyingDevice(s.t.Context(), id)
	ok(s.t, err)
	list, err := s.store.ChangeOwners(s.t.Context(), []joinery.OwnerChange{{
		Act: joinery.ActRelease, Device: id, Seen: state.Device.Ownership,
		Audit: []joinery.AuditEntry{{At: s.now, Event: joinery.AuditDeviceReleased, Actor: "test", Org: state.Device.Ownership.Org, Device: id}},
	}})
	ok(s.t, err)
	ok(s.t, list[0])
}

// A device that was let go stands under the operator's organisation until somebody
// claims it. Who acts for that one does not send its keys away: neither by a new order
// nor by one from before, which the device may have obeyed.
func TestReleased(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to, link := know(a, b, there, "b")
	org := a.operatorOrg()
	acting := joinery.Caller{Org: org, Operator: true, Name: "operator", Rights: joinery.AllRights()}
	var ids []joinery.DeviceID
	for n := range byte(3) {
		id := a.derived(lorawan.EUI64{1 + n}, "")
		ok(t, a.store.Claim(ctx, id, 0, org, nil, joinery.AuditEntry{At: noon, Event: joinery.AuditDeviceClaimed, Actor: "test", Org: org, Device: id}))
		ok(t, a.SetProfile(ctx, acting, id, joinery.RekeyS))
		ids = append(ids, id)
	}
	fresh, told, armed := ids[0], ids[1], ids[2]
	for _, id := range ids[1:] {
		_, err := a.Arm(ctx, acting, rekey.Arm{Device: id, JoinEUI: there, To: to.ID})
		ok(t, err)
	}
	_, err := a.Handover(ctx, acting, to.ID, []joinery.DeviceID{told})
	ok(t, err)
	_, err = a.Ticket(ctx, acting, []joinery.DeviceID{told})
	ok(t, err)
	for _, id := range ids {
		a.release(id)
	}

	_, err = a.Arm(ctx, acting, rekey.Arm{Device: fresh, JoinEUI: there, To: to.ID})
	wantCode(t, err, joinery.CodeConflict)
	_, err = a.Handover(ctx, acting, to.ID, []joinery.DeviceID{told})
	wantCode(t, err, joinery.CodeConflict)
	_, err = a.Ticket(ctx, acting, []joinery.DeviceID{armed})
	wantCode(t, err, joinery.CodeConflict)
	f, err := a.Service.Handover(ctx, acting, to.ID, []joinery.DeviceID{told}, true)
	ok(t, err)
	if f.Content != nil || len(f.LeftOut) != 1 {
		t.Fatalf("%+v", f)
	}
	a.pass(link, to)
	if link.offers != 0 {
		t.Errorf("%d offers of devices that nobody holds", link.offers)
	}
	a.wantClean()
}
