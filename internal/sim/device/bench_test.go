package device

import (
	"testing"

	"joinery/lorawan"
)

// One join as the device sees it: request, accept, four session keys. What a
// load generator spends on a device for each join.
func BenchmarkJoin(b *testing.B) {
	for _, version := range []lorawan.MACVersion{lorawan.MAC1_0_4, lorawan.MAC1_1} {
		b.Run(version.String(), func(b *testing.B) {
			d, roots := newDevice(b, version, Options{})
			_, accept := answer(roots, 0xFF, 0, 1, version.NegotiatesOptions())
			b.ReportAllocs()
			for b.Loop() {
				d.state.NextDevNonce, d.state.JoinNonce = 0, 0
				if _, err := d.JoinRequest(); err != nil {
					b.Fatal(err)
				}
				if _, err := d.HandleAccept(accept); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
