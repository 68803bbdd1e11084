package claim

import (
	"fmt"
	"strings"
	"testing"

	"joinery"
)

func refsOf(devices []joinery.Device) (refs []joinery.DeviceRef) {
	for _, d := range devices {
		refs = append(refs, joinery.DeviceRef{ID: d.ID})
	}
	return refs
}

func TestLabelTokens(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := t.Context()
	// More than one run, with what cannot be read in between.
	devices, tokens := f.devices(t, labelRun+20, nil)
	if _, err := f.Claim(ctx, f.acme, request(devices[1], tokens[1])); err != nil {
		t.Fatal(err)
	}
	refs := refsOf(devices)
	refs[0] = joinery.DeviceRef{JoinEUI: devices[0].JoinEUI, DevEUI: devices[0].DevEUI}
	refs[2] = joinery.DeviceRef{ID: joinery.NewDeviceID()}
	refs[3] = joinery.DeviceRef{}
	want := map[int]joinery.Code{1: joinery.CodeNotFound, 2: joinery.CodeNotFound, 3: joinery.CodeInvalid}
	got, err := f.LabelTokens(ctx, f.maker, refs)
	if err != nil || len(got) != len(refs) {
		t.Fatalf("%d results, %v", len(got), err)
	}
	for i, r := range got {
		switch code, bad := want[i]; {
		case bad:
			if joinery.CodeOf(r.Err) != code || r.OwnerToken != "" || r.Device.ID != 0 {
				t.Errorf("%d: %v, %v, want %s", i, r, r.Err, code)
			}
		case r.Err != nil || r.OwnerToken != tokens[i] || r.Device.ID != devices[i].ID || r.Device.DevEUI != devices[i].DevEUI || r.Device.JoinEUI != devices[i].JoinEUI:
			t.Errorf("%d: %v, %v", i, r, r.Err)
		}
		if text := fmt.Sprintf("%v %+v %#v", r, r, r); r.OwnerToken != "" && strings.Contains(text, r.OwnerToken) {
			t.Errorf("prints as %s", text)
		}
	}
	entries := f.audited(t, joinery.AuditOwnerTokenRead)
	if len(entries) != len(refs)-len(want) {
		t.Errorf("%d readings on record", len(entries))
	}
	for _, e := range entries {
		if e.Actor != f.maker.Name || e.Org != f.maker.Org || e.Device == 0 {
			t.Fatalf("audit: %+v", e)
		}
	}
}

// TestLabelTokensOfOthers: as for one device at a time.
func TestLabelTokensOfOthers(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := t.Context()
	devices, tokens := f.devices(t, 2, nil)
	if _, err := f.Claim(ctx, f.acme, request(devices[1], tokens[1])); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		caller joinery.Caller
		want   [2]joinery.Code
	}{
		"maker":    {f.maker, [2]joinery.Code{"", joinery.CodeNotFound}},
		"owner":    {f.acme, [2]joinery.Code{joinery.CodeNotFound, joinery.CodeForbidden}},
		"stranger": {f.others, [2]joinery.Code{joinery.CodeNotFound, joinery.CodeNotFound}},
		"nobody":   {joinery.Caller{}, [2]joinery.Code{joinery.CodeNotFound, joinery.CodeNotFound}},
		"operator": {joinery.Caller{Operator: true, Name: "socket uid 0"}, [2]joinery.Code{"", joinery.CodeForbidden}},
	} {
		got, err := f.LabelTokens(ctx, c.caller, refsOf(devices))
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range got {
			if joinery.CodeOf(r.Err) != c.want[i] || (r.OwnerToken != "") != (c.want[i] == "") {
				t.Errorf("%s, device %d: %v", name, i, r.Err)
			}
			// One at a time says the same.
			if token, err := f.OwnerToken(ctx, c.caller, devices[i].ID); joinery.CodeOf(err) != c.want[i] || token != r.OwnerToken {
				t.Errorf("%s, device %d alone: %v", name, i, err)
			}
		}
	}
}

// TestLabelTokensNeedTheirRecord: no token leaves unrecorded (promise P8).
func TestLabelTokensNeedTheirRecord(t *testing.T) {
	f := newFixture(t, Options{})
	devices, _ := f.devices(t, 2, nil)
	s := New(f.db, silentLog{f.db}, f.keys, Options{})
	if got, err := s.LabelTokens(t.Context(), f.maker, refsOf(devices)); err == nil || got != nil {
		t.Errorf("tokens left: %v", err)
	}
	_, err := f.LabelTokens(t.Context(), f.maker, make([]joinery.DeviceRef, joinery.MaxLabels+1))
	wantCode(t, err, joinery.CodeTooLarge)
}
