package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"joinery"
	"joinery/internal/store"
	"joinery/lorawan"
)

// BenchmarkDevices reads pages of 100 devices from the middle of a listing:
// as many as asked for, and pages that look for what there is none of.
// JOINERY_DEVICES=1000000 says of how many devices; 10,000 unless said.
func BenchmarkDevices(b *testing.B) {
	n := benchDevices
	if text := os.Getenv("JOINERY_DEVICES"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	db := fill(b, store.Options{Path: filepath.Join(b.TempDir(), "joinery.db"), UnsafeNoSync: true}, n, true)
	first, err := db.Devices(b.Context(), joinery.DeviceQuery{Limit: 1})
	if err != nil {
		b.Fatal(err)
	}
	org, none := first.Items[0].Device.Ownership.Org, lorawan.NetID{9, 9, 9}
	middle := joinery.DevicePlace{DevEUI: benchDevEUI(n / 2), JoinEUI: benchJoinEUI, Device: 1}
	for name, q := range map[string]joinery.DeviceQuery{
		"all": {}, "owner": {Org: org}, "prefix": {Org: org, DevEUIPrefix: benchDevEUI(n / 2).String()[:13]},
		"active": {Org: org, Status: joinery.DeviceActive}, "never joined": {Org: org, NeverJoined: true},
		"no such network": {Org: org, NetID: &none}, "suspended": {Org: org, Status: joinery.DeviceSuspended},
	} {
		q.After, q.Limit = middle, 100
		b.Run(fmt.Sprintf("%s of %d", name, n), func(b *testing.B) {
			for b.Loop() {
				if _, err := db.Devices(b.Context(), q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
