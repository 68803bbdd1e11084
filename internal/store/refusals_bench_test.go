package store_test

import (
	"path/filepath"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store"
	"joinery/internal/store/storetest/pgtest"
)

// One batch of refusals, as a recorder writes it while a peer asks about
// everything that it can: of devices that are here, at their bound, and of
// devices that are not.
func BenchmarkRecordRefusals(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) {
		benchmarkRefusals(b, store.Options{Path: filepath.Join(b.TempDir(), "joinery.db"), UnsafeNoSync: true})
	})
	b.Run("postgres", func(b *testing.B) {
		benchmarkRefusals(b, store.Options{URL: pgtest.Shared(b).Database(b), UnsafeNoSync: true})
	})
}

func benchmarkRefusals(b *testing.B, o store.Options) {
	const batch, devices = 64, joinery.MaxPeerRefusals + 1_000
	db := fill(b, o, devices, false)
	states := make([]joinery.ActivationState, 0, devices)
	for q := (joinery.DeviceQuery{Limit: 1_000}); len(states) < devices; {
		page, err := db.Devices(b.Context(), q)
		if err != nil {
			b.Fatal(err)
		}
		states, q.After = append(states, page.Items...), page.Next
	}
	peer := joinery.Peer{ID: joinery.NewPeerID(), Name: "network", CreatedAt: time.Now()}
	if err := db.AddPeer(b.Context(), peer, nil, joinery.AuditEntry{}); err != nil {
		b.Fatal(err)
	}
	at, n := time.Now(), 0
	count := func(known bool) joinery.RefusalCount {
		n++
		at = at.Add(time.Millisecond)
		c := joinery.RefusalCount{Count: 1, First: at, Refusal: joinery.Refusal{At: at, Peer: peer.ID, Reason: joinery.RefusedUnknownDevice,
			Received: joinery.Received{Message: "JoinReq", JoinEUI: benchJoinEUI, DevEUI: benchDevEUI(n)}}}
		if known {
			d := states[n%devices].Device
			c.Device, c.Owner, c.Reason = d.ID, d.Ownership.Org, joinery.RefusedOtherNetwork
		}
		return c
	}
	write := func(b *testing.B, known bool) {
		var batchOf joinery.RefusalBatch
		for range batch {
			if known {
				batchOf.Devices = append(batchOf.Devices, count(true))
			} else {
				batchOf.Unknown = append(batchOf.Unknown, count(false))
			}
		}
		if err := db.RecordRefusals(b.Context(), batchOf); err != nil {
			b.Fatal(err)
		}
	}
	for range devices / batch {
		write(b, true)
	}
	for name, known := range map[string]bool{"known": true, "unknown": false} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				write(b, known)
			}
		})
	}
}
