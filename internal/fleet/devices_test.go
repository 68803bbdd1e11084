package fleet

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store"
	"joinery/lorawan"
)

func span(org joinery.OrgID, first, last uint64) joinery.JoinEUIRange {
	return joinery.JoinEUIRange{Org: org, EUIRange: joinery.EUIRange{First: lorawan.EUI64FromUint64(first), Last: lorawan.EUI64FromUint64(last)}}
}

// imports puts n devices of org into the store, with derived roots.
func (f fixture) imports(t testing.TB, org joinery.OrgID, joinEUI uint64, n int) []joinery.DeviceID {
	t.Helper()
	if _, err := f.AssignRange(t.Context(), operator, span(org, joinEUI, joinEUI)); err != nil {
		t.Fatal(err)
	}
	i, err := f.db.BeginImport(t.Context(), joinery.Import{
		Org: org, Kind: joinery.ImportManifest, SHA256: sha256.Sum256([]byte(fmt.Sprint(joinEUI))), MACVersion: lorawan.MAC1_1, CreatedAt: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	rows := joinery.ImportRows{Import: i.ID, Count: uint64(n), Last: true}
	for k := range n {
		d := joinery.Device{
			ID: joinery.NewDeviceID(), JoinEUI: lorawan.EUI64FromUint64(joinEUI), DevEUI: lorawan.EUI64FromUint64(uint64(k) + 1),
			MACVersion: lorawan.MAC1_1, Maker: org, Ownership: joinery.Ownership{Org: org}, CreatedAt: time.Now(),
		}
		rows.Devices = append(rows.Devices, joinery.NewDevice{Index: uint64(k), Device: d, KeySet: joinery.KeySet{
			ID: joinery.NewKeySetID(), DeviceID: d.ID, DevEUI: d.DevEUI, Origin: joinery.OriginDerived,
			Master: fmt.Sprint("m", joinEUI), Root10: joinery.NwkKey,
		}, Manifest: []byte(`{"payload":"cA","planted":1,"protected":"cQ","header":{"planted":2},"signature":"cg"}`), Serial: "S"})
	}
	results, err := f.db.CommitRows(t.Context(), rows, joinery.AuditEntry{At: time.Now(), Event: joinery.AuditDeviceImported, Actor: "key of test", Org: org})
	if err != nil {
		t.Fatal(err)
	}
	var ids []joinery.DeviceID
	for _, r := range results {
		if r.Status != joinery.RowCreated {
			t.Fatalf("row %d: %s", r.Index, r.Reason)
		}
		ids = append(ids, r.Device)
	}
	return ids
}

// An entry of before, when all of it was kept, is shown without what nobody signed.
func TestManifestEntryIsWhatWasSigned(t *testing.T) {
	f := newFixture(t)
	id := f.imports(t, f.acme, 0x10, 1)[0]
	entry, serial, err := f.ManifestEntry(t.Context(), f.tenant(f.acme), id)
	if err != nil || serial != "S" || string(entry) != `{"payload":"cA","protected":"cQ","signature":"cg"}` {
		t.Errorf("%s, %s, %v", entry, serial, err)
	}
}

// TestForeignIsAbsent asks for a device of another organisation and for one
// that never was: the answers do not differ.
func TestForeignIsAbsent(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	id := f.imports(t, f.acme, 0x10, 1)[0]
	owner, stranger := f.tenant(f.acme), f.tenant(f.other)
	calls := func(caller joinery.Caller, id joinery.DeviceID) map[string]error {
		_, device := f.Device(ctx, caller, id)
		_, activations := f.Activations(ctx, caller, id, 0, 10)
		return map[string]error{
			"Device": device, "Activations": activations,
			"Suspend":    f.Suspend(ctx, caller, id, true),
			"Resume":     f.Suspend(ctx, caller, id, false),
			"SetRoaming": f.SetRoaming(ctx, caller, joinery.RoamingRule{Device: id, NetIDs: []lorawan.NetID{{1}}}),
			"Delete":     f.Delete(ctx, caller, id),
		}
	}
	absent := calls(stranger, joinery.NewDeviceID())
	for name, err := range calls(stranger, id) {
		if joinery.CodeOf(err) != joinery.CodeNotFound || joinery.MessageOf(err) != joinery.MessageOf(absent[name]) {
			t.Errorf("%s: foreign %v, absent %v", name, err, absent[name])
		}
	}
	for name, err := range calls(owner, id) {
		if err != nil {
			t.Errorf("%s by the owner: %v", name, err)
		}
	}
	for _, org := range []joinery.OrgID{f.acme, joinery.NewOrgID()} {
		_, err := f.Devices(ctx, stranger, joinery.DeviceQuery{Org: org})
		wantCode(t, err, joinery.CodeNotFound)
		_, err = f.Roaming(ctx, stranger, org)
		wantCode(t, err, joinery.CodeNotFound)
		wantCode(t, f.SetRoaming(ctx, stranger, joinery.RoamingRule{Org: org}), joinery.CodeNotFound)
	}
	_, err := f.Devices(ctx, joinery.Caller{}, joinery.DeviceQuery{})
	wantCode(t, err, joinery.CodeNotFound)
}

func TestDevices(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	mine, others := f.imports(t, f.acme, 0x10, 5), f.imports(t, f.other, 0x20, 3)
	owner := f.tenant(f.acme)
	list := func(caller joinery.Caller, q joinery.DeviceQuery) []joinery.DeviceID {
		t.Helper()
		states, err := f.Devices(ctx, caller, q)
		if err != nil {
			t.Fatal(err)
		}
		var ids []joinery.DeviceID
		for _, s := range states.Items {
			ids = append(ids, s.Device.ID)
		}
		return ids
	}
	if got := list(owner, joinery.DeviceQuery{}); !slices.Equal(got, mine) {
		t.Errorf("own: %v", got)
	}
	page, err := f.Devices(ctx, owner, joinery.DeviceQuery{Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	if got := list(owner, joinery.DeviceQuery{After: page.Next, Limit: 2}); !slices.Equal(got, mine[2:4]) {
		t.Errorf("page: %v", got)
	}
	if got := list(operator, joinery.DeviceQuery{}); len(got) != len(mine)+len(others) {
		t.Errorf("operator sees %d", len(got))
	}
	if got := list(operator, joinery.DeviceQuery{Org: f.other}); !slices.Equal(got, others) {
		t.Errorf("operator, of one: %v", got)
	}
	found, err := f.FindDevices(ctx, owner, lorawan.EUI64FromUint64(1))
	if err != nil || len(found) != 1 || found[0].Device.ID != mine[0] {
		t.Errorf("found %d, %v", len(found), err)
	}
	if found, err = f.FindDevices(ctx, operator, lorawan.EUI64FromUint64(1)); err != nil || len(found) != 2 {
		t.Errorf("operator found %d, %v", len(found), err)
	}

	if err := f.Suspend(ctx, owner, mine[0], true); err != nil {
		t.Fatal(err)
	}
	if got := list(owner, joinery.DeviceQuery{Status: joinery.DeviceSuspended}); !slices.Equal(got, mine[:1]) {
		t.Errorf("suspended: %v", got)
	}
	before := len(f.events(t))
	if err := f.Suspend(ctx, owner, mine[0], true); err != nil || len(f.events(t)) != before {
		t.Errorf("suspended twice: %v", err)
	}
	if err := f.Suspend(ctx, operator, mine[0], false); err != nil {
		t.Fatal(err)
	}
	if err := f.Delete(ctx, owner, mine[4]); err != nil {
		t.Fatal(err)
	}
	if got := list(owner, joinery.DeviceQuery{}); !slices.Equal(got, mine[:4]) {
		t.Errorf("after deletion: %v", got)
	}

	if err := f.OpenReset(ctx, operator, mine[0], 1000); err != nil {
		t.Fatal(err)
	}
	wantCode(t, f.OpenReset(ctx, operator, mine[0], lorawan.MaxJoinNonce+1), joinery.CodeInvalid)
	state, err := f.Device(ctx, owner, mine[0])
	if err != nil || state.KeySet.Nonces.JoinNonce != 1000 || state.KeySet.Nonces.ResetAt.IsZero() {
		t.Errorf("after reset: %+v, %v", state.KeySet.Nonces, err)
	}

	own, _, err := f.Audit(ctx, owner, 0, maxPage)
	if err != nil {
		t.Fatal(err)
	}
	var events []string
	for _, e := range own {
		if e.Org != f.acme {
			t.Errorf("a tenant reads %s of %s", e.Event, e.Org)
		}
		if e.Device != 0 {
			events = append(events, string(e.Event))
		}
	}
	want := []string{"device.suspended", "device.resumed", "device.deleted", "device.nonces_reset"}
	if !slices.Equal(events, want) {
		t.Errorf("audit: %v", events)
	}
}

// claimedBetween is a store in which the device is claimed right after a caller
// was found to hold it.
type claimedBetween struct {
	*store.DB
	by joinery.OrgID
}

func (s claimedBetween) Device(ctx context.Context, id joinery.DeviceID) (joinery.ActivationState, error) {
	state, err := s.DB.Device(ctx, id)
	if err == nil {
		err = s.Claim(ctx, id, state.Device.Ownership.Epoch, s.by, nil, joinery.AuditEntry{At: time.Now()})
	}
	return state, err
}

// What was allowed to a former owner does not happen to the next one's device.
func TestChangesAfterAnothersClaim(t *testing.T) {
	for name, change := range map[string]func(*Service, joinery.Caller, joinery.DeviceID) error{
		"suspend": func(s *Service, c joinery.Caller, id joinery.DeviceID) error {
			return s.Suspend(t.Context(), c, id, true)
		},
		"delete": func(s *Service, c joinery.Caller, id joinery.DeviceID) error { return s.Delete(t.Context(), c, id) },
		"reset": func(s *Service, _ joinery.Caller, id joinery.DeviceID) error {
			return s.OpenReset(t.Context(), operator, id, 1000)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			id := f.imports(t, f.acme, 0x100, 1)[0]
			late := New(claimedBetween{f.db, f.other}, f.keys, Options{})
			wantCode(t, change(late, f.tenant(f.acme), id), joinery.CodeConflict)
			s, err := f.Device(t.Context(), f.tenant(f.other), id)
			if err != nil || s.Device.Suspended || s.KeySet.Nonces.JoinNonce != 0 {
				t.Errorf("%+v, %v", s.Device, err)
			}
		})
	}
}

func TestAuditPages(t *testing.T) {
	f := newFixture(t)
	for i := range 7 {
		if _, err := f.AssignRange(t.Context(), operator, span(f.acme, uint64(i), uint64(i))); err != nil {
			t.Fatal(err)
		}
	}
	var all []joinery.AuditEntry
	var after int64
	for {
		list, next, err := f.Audit(t.Context(), f.tenant(f.acme), after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > 2 {
			t.Fatalf("page of %d", len(list))
		}
		all = append(all, list...)
		if next == after {
			break
		}
		after = next
	}
	if len(all) != 8 || all[0].Event != joinery.AuditOrgAdded || !slices.IsSortedFunc(all, func(a, b joinery.AuditEntry) int { return int(a.ID - b.ID) }) {
		t.Errorf("%d entries", len(all))
	}
	_, _, err := f.Audit(t.Context(), joinery.Caller{}, 0, 10)
	wantCode(t, err, joinery.CodeNotFound)
}

func TestRanges(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	assign := func(r joinery.JoinEUIRange) error { _, err := f.AssignRange(ctx, operator, r); return err }
	if err := assign(span(f.acme, 100, 199)); err != nil {
		t.Fatal(err)
	}
	if !f.Directory().ServesJoinEUI(lorawan.EUI64FromUint64(150)) {
		t.Error("the range is not served")
	}
	for name, c := range map[string]struct {
		r    joinery.JoinEUIRange
		want joinery.Code
	}{
		"same":            {span(f.acme, 100, 199), joinery.CodeConflict},
		"inside":          {span(f.other, 150, 150), joinery.CodeConflict},
		"around":          {span(f.other, 50, 250), joinery.CodeConflict},
		"at its end":      {span(f.other, 199, 300), joinery.CodeConflict},
		"behind":          {span(f.other, 200, 300), ""},
		"backwards":       {span(f.other, 50, 40), joinery.CodeInvalid},
		"absent org":      {span(joinery.NewOrgID(), 1, 2), joinery.CodeNotFound},
		"no org":          {span(0, 1, 2), joinery.CodeInvalid},
		"everything else": {span(f.other, 301, 1<<64-1), ""},
	} {
		if err := assign(c.r); joinery.CodeOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	own, err := f.Ranges(ctx, f.tenant(f.acme))
	if err != nil || len(own) != 1 {
		t.Errorf("a tenant sees %d ranges, %v", len(own), err)
	}

	wantCode(t, f.ReleaseRange(ctx, operator, span(0, 100, 150).EUIRange), joinery.CodeNotFound)
	if err := f.ReleaseRange(ctx, operator, span(0, 100, 199).EUIRange); err != nil {
		t.Fatal(err)
	}
	if f.Directory().ServesJoinEUI(lorawan.EUI64FromUint64(150)) {
		t.Error("the released range is served")
	}
	f.imports(t, f.acme, 7, 1)
	wantCode(t, f.ReleaseRange(ctx, operator, span(0, 7, 7).EUIRange), joinery.CodeConflict)
}

func TestSigners(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	if _, err := f.AssignRange(ctx, operator, span(f.acme, 100, 199)); err != nil {
		t.Fatal(err)
	}
	certificate := selfSigned(t, withSKI)
	good := joinery.Signer{
		Org: f.acme, Name: "line 1", DER: certificate.Raw, Master: master, Generation: 3,
		JoinEUIs: span(0, 100, 110).EUIRange, DevEUIs: span(0, 1, 1000).EUIRange,
	}
	added, err := f.AddSigner(ctx, operator, good)
	if err != nil || added.ID == 0 || len(added.KID) == 0 || len(added.X5TS256) != 43 {
		t.Fatalf("%+v, %v", added, err)
	}
	for name, c := range map[string]struct {
		edit func(*joinery.Signer)
		want joinery.Code
	}{
		"other certificate":        {func(s *joinery.Signer) { s.DevEUIs = span(0, 5000, 5001).EUIRange }, ""},
		"same certificate":         {func(s *joinery.Signer) { s.DER = certificate.Raw }, joinery.CodeConflict},
		"same name":                {func(s *joinery.Signer) { s.Name = "line 1" }, joinery.CodeConflict},
		"no name":                  {func(s *joinery.Signer) { s.Name = "" }, joinery.CodeInvalid},
		"no certificate":           {func(s *joinery.Signer) { s.DER = nil }, joinery.CodeInvalid},
		"kid of another":           {func(s *joinery.Signer) { s.KID = added.KID + "x" }, joinery.CodeInvalid},
		"unknown master":           {func(s *joinery.Signer) { s.Master = "nobody" }, joinery.CodeInvalid},
		"JoinEUIs outside":         {func(s *joinery.Signer) { s.JoinEUIs = span(0, 150, 200).EUIRange }, joinery.CodeInvalid},
		"JoinEUIs of another org":  {func(s *joinery.Signer) { s.Org = f.other }, joinery.CodeInvalid},
		"JoinEUIs backwards":       {func(s *joinery.Signer) { s.JoinEUIs = span(0, 110, 100).EUIRange }, joinery.CodeInvalid},
		"DevEUIs backwards":        {func(s *joinery.Signer) { s.DevEUIs = span(0, 2, 1).EUIRange }, joinery.CodeInvalid},
		"organisation there isn't": {func(s *joinery.Signer) { s.Org = joinery.NewOrgID() }, joinery.CodeNotFound},
	} {
		s := good
		s.Name, s.DER = name, selfSigned(t, withSKI).Raw
		c.edit(&s)
		if _, err := f.AddSigner(ctx, operator, s); joinery.CodeOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	own, err := f.Signers(ctx, f.tenant(f.acme))
	others, err2 := f.Signers(ctx, f.tenant(f.other))
	if err != nil || err2 != nil || len(own) != 2 || len(others) != 0 {
		t.Errorf("tenants see %d and %d signers: %v, %v", len(own), len(others), err, err2)
	}
	// The roots of one element never belong to two organisations.
	if _, err := f.AssignRange(ctx, operator, span(f.other, 200, 299)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		edit func(*joinery.Signer)
		want joinery.Code
	}{
		"same DevEUIs":       {func(*joinery.Signer) {}, joinery.CodeConflict},
		"one DevEUI":         {func(s *joinery.Signer) { s.DevEUIs = span(0, 1000, 2000).EUIRange }, joinery.CodeConflict},
		"DevEUIs beyond":     {func(s *joinery.Signer) { s.DevEUIs = span(0, 1001, 2000).EUIRange }, ""},
		"another generation": {func(s *joinery.Signer) { s.Generation++ }, ""},
		"shared certificate": {func(s *joinery.Signer) { s.DER = certificate.Raw }, ""},
	} {
		s := good
		s.Org, s.Name, s.JoinEUIs, s.DER = f.other, name, span(0, 200, 210).EUIRange, selfSigned(t, withSKI).Raw
		c.edit(&s)
		added, err := f.AddSigner(ctx, operator, s)
		if joinery.CodeOf(err) != c.want || err != nil && strings.Contains(err.Error(), good.Name) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			if err := f.RemoveSigner(ctx, operator, added.ID); err != nil {
				t.Error(err)
			}
		}
	}
	wantCode(t, f.ReleaseRange(ctx, operator, span(0, 100, 199).EUIRange), joinery.CodeConflict)
	for _, s := range own {
		if err := f.RemoveSigner(ctx, operator, s.ID); err != nil {
			t.Error(err)
		}
	}
	wantCode(t, f.RemoveSigner(ctx, operator, added.ID), joinery.CodeNotFound)
	if err := f.ReleaseRange(ctx, operator, span(0, 100, 199).EUIRange); err != nil {
		t.Error(err)
	}
}

func TestRoaming(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	owner := f.tenant(f.acme)
	id := f.imports(t, f.acme, 0x10, 1)[0]
	one, two, three := lorawan.NetID{0, 0, 1}, lorawan.NetID{0, 0, 2}, lorawan.NetID{0, 0, 3}
	allowed := func(netID lorawan.NetID) bool {
		t.Helper()
		ok, err := f.db.RoamingAllowed(ctx, f.acme, id, netID)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	set := func(r joinery.RoamingRule) {
		t.Helper()
		if err := f.SetRoaming(ctx, owner, r); err != nil {
			t.Fatal(err)
		}
	}
	set(joinery.RoamingRule{NetIDs: []lorawan.NetID{two, one, two}})
	if !allowed(one) || !allowed(two) || allowed(three) {
		t.Error("the organisation's rule does not hold")
	}
	rules, err := f.Roaming(ctx, owner, 0)
	if err != nil || len(rules) != 1 || !slices.Equal(rules[0].NetIDs, []lorawan.NetID{one, two}) {
		t.Errorf("%v, %v", rules, err)
	}
	set(joinery.RoamingRule{Device: id, NetIDs: []lorawan.NetID{three}})
	if allowed(one) || !allowed(three) {
		t.Error("the device's rule does not override")
	}
	set(joinery.RoamingRule{Device: id, NetIDs: []lorawan.NetID{}})
	if allowed(one) || allowed(three) {
		t.Error("an empty rule allows")
	}
	set(joinery.RoamingRule{Device: id})
	if !allowed(one) || allowed(three) {
		t.Error("without a rule of its own the device does not follow its organisation")
	}
	wantCode(t, f.SetRoaming(ctx, owner, joinery.RoamingRule{NetIDs: make([]lorawan.NetID, maxRoaming+1)}), joinery.CodeTooLarge)
	wantCode(t, f.SetRoaming(ctx, operator, joinery.RoamingRule{Org: f.other, Device: id}), joinery.CodeNotFound)
}
