package main

import (
	"slices"
	"testing"

	"joinery"
	"joinery/lorawan"
	"joinery/manifest"
	"joinery/manifest/manifesttest"
)

// One certificate may be pinned by several organisations, each with ranges and rules
// of its own: what any of them lets pass is good.
func TestCheckTriesEveryPin(t *testing.T) {
	m := manifesttest.NewMaker(t)
	part := manifesttest.NewPart(manifesttest.Third, 0x70B3D57ED0000000, 7)
	at := func(v uint64) joinery.EUIRange {
		return joinery.EUIRange{First: lorawan.EUI64FromUint64(v), Last: lorawan.EUI64FromUint64(v)}
	}
	pinned := func(suffix string, joinEUIs, devEUIs joinery.EUIRange) pin {
		t.Helper()
		s, err := manifest.NewSigner(m.Log, manifest.Rules{Family: manifest.FamilyMicrochip, Roots: [][]byte{m.Root}, SerialSuffix: suffix})
		if err != nil {
			t.Fatal(err)
		}
		return pin{s, joinEUIs, devEUIs}
	}
	right := pinned("27", at(0x70B3D57ED0000000), at(part.DevEUI))
	wrong := []pin{
		pinned("27", at(0x70B3D57ED0000000), at(part.DevEUI+1)),
		pinned("27", at(0x70B3D57ED0000001), at(part.DevEUI)),
		pinned("10", at(0x70B3D57ED0000000), at(part.DevEUI)),
	}
	id := right.ID()
	for place := range len(wrong) + 1 {
		list := slices.Insert(slices.Clone(wrong), place, right)
		if r := (pins{id: list}).check(m.Entry(part)); r.Status != statusGood || r.Reason != "" || r.DevEUI.Uint64() != part.DevEUI {
			t.Errorf("the right pin at place %d: %+v", place, r)
		}
	}
	if r := (pins{id: wrong}).check(m.Entry(part)); r.Status != "failed" || r.Reason != "its signer may not provision this DevEUI" {
		t.Errorf("no right pin: %+v", r)
	}
	if r := (pins{}).check(m.Entry(part)); r.Reason != manifest.ErrUnknownSigner.Error() {
		t.Errorf("no pin: %+v", r)
	}
}
