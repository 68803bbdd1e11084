package activation_test

import (
	"context"
	"sync/atomic"
	"testing"

	"joinery/internal/sim/device"
	"joinery/lorawan"
)

// A whole join without its doors: real store (without fsync), real keyring,
// session keys wrapped for Network Server and Application Server.
func BenchmarkJoin(b *testing.B) {
	for _, v := range []lorawan.MACVersion{lorawan.MAC1_0_4, lorawan.MAC1_1} {
		for _, parallelism := range []int{1, 32} {
			name := v.String() + "/one"
			if parallelism > 1 {
				name = v.String() + "/many"
			}
			b.Run(name, func(b *testing.B) { benchmarkJoin(b, v, parallelism) })
		}
	}
}

func benchmarkJoin(b *testing.B, v lorawan.MACVersion, parallelism int) {
	h := newHouse(b)
	// Enough devices that joins of one device rarely meet.
	fleet := make([]chan *device.Device, 0, 256)
	for range cap(fleet) {
		ready := make(chan *device.Device, 1)
		ready <- h.add(v, binding())
		fleet = append(fleet, ready)
	}
	var turn atomic.Uint64
	b.ReportAllocs()
	b.SetParallelism(parallelism)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			ready := fleet[turn.Add(1)%uint64(len(fleet))]
			d := <-ready
			frame, err := d.JoinRequest()
			if err != nil {
				b.Error(err) // 65,536 joins of one device: lower -benchtime
				return
			}
			if _, err := h.Join(context.Background(), h.request(d, frame)); err != nil {
				b.Error(err)
				return
			}
			ready <- d
		}
	})
}
