package soft_test

import (
	"context"
	"testing"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/lorawan"
)

// The whole of a join's cryptography: root, MIC, session keys, both wraps,
// accept.
func BenchmarkAccept(b *testing.B) {
	f := keyringtest.Soft(b)
	key := make([]byte, 16)
	ns, as := f.KEK(b, key, joinery.KEKForNS, "ns"), f.KEK(b, key, joinery.KEKForAS, "as")
	for _, c := range []struct {
		name            string
		derived, optNeg bool
	}{
		{"1.0.x/derived", true, false},
		{"1.0.x/sealed", false, false},
		{"1.1/derived", true, true},
		{"1.1/sealed", false, true},
	} {
		d := keyringtest.NewDevice(true)
		var ks joinery.KeySet
		if c.derived {
			ks, d.Nwk, d.App = f.DerivedKeySet(b, d.DevEUI, 1)
			d.Root10 = d.Nwk
		} else {
			ks = f.SealedKeySet(b, d)
		}
		r := keyring.AcceptRequest{
			KeySet: ks, Frame: d.JoinRequest(1), NSKEK: ns, ASKEK: as,
			Activation: joinery.Activation{
				KeySet: ks.ID, Type: joinery.JoinTypeJoin, JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, OptNeg: c.optNeg,
				Root: ks.Root10, Count: 1, JoinNonce: 1, NetID: lorawan.NetID{0, 0, 0x13}, Policy: joinery.AppSKeyWrapped,
			},
		}
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Keyring.Accept(context.Background(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSealRoots500(b *testing.B) {
	f := keyringtest.Soft(b)
	d := keyringtest.NewDevice(true)
	h, rows := f.Rows(b, d, 500)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Keyring.SealRoots(context.Background(), h, rows); err != nil {
			b.Fatal(err)
		}
	}
}
