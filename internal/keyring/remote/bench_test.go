package remote_test

import (
	"context"
	"io"
	"testing"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/lorawan"
)

// What it costs that the keys are in another process: each verb here and there,
// by one caller, and there by many.
func BenchmarkVerbs(b *testing.B) {
	here := keyringtest.Soft(b)
	there, _, _ := inWorker(b)
	for _, f := range []struct {
		name string
		keyringtest.Fixture
	}{{"here", here}, {"there", there}} {
		for name, do := range hotVerbs(b, f.Fixture) {
			b.Run(name+"/"+f.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					must(b, do())
				}
			})
			b.Run(name+"/"+f.name+"/many", func(b *testing.B) {
				b.SetParallelism(16)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						must(b, do())
					}
				})
			})
		}
	}
}

// hotVerbs are those of joins and claims, over one 1.1 device.
func hotVerbs(b *testing.B, f keyringtest.Fixture) map[string]func() error {
	b.Helper()
	key := make([]byte, 16)
	ns, as := f.KEK(b, key, joinery.KEKForNS, "ns-000013-v1"), f.KEK(b, key, joinery.KEKForAS, "as-example-v1")
	d := keyringtest.NewDevice(true)
	ks := f.SealedKeySet(b, d)
	ctx, stop := context.WithCancel(b.Context())
	b.Cleanup(stop)
	a := joinery.Activation{
		ID: 1, KeySet: ks.ID, Type: joinery.JoinTypeJoin, JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, OptNeg: true,
		Root: ks.Root10, Count: 1, JoinNonce: 1, NetID: lorawan.NetID{0, 0, 0x13}, Policy: joinery.AppSKeyWrapped,
	}
	accept := keyring.AcceptRequest{KeySet: ks, Frame: d.JoinRequest(1), NSKEK: ns, ASKEK: as, Activation: a}
	rejoin := d.Rejoin1(1)
	token, err := f.Keyring.OwnerToken(ctx, 1, 1)
	must(b, err)
	return map[string]func() error{
		"VerifyJoin":   func() error { return f.Keyring.VerifyJoin(ctx, ks, accept.Frame) },
		"VerifyRejoin": func() error { _, err := f.Keyring.VerifyRejoin(ctx, ks, rejoin, nil); return err },
		"Accept":       func() error { _, err := f.Keyring.Accept(ctx, accept); return err },
		"AppSKey":      func() error { _, err := f.Keyring.AppSKey(ctx, ks, a, as); return err },
		"CheckOwnerToken": func() error {
			_, err := f.Keyring.CheckOwnerToken(ctx, 1, 1, token)
			return err
		},
		"Ready": func() error { return f.Keyring.Ready(ctx) },
	}
}

// BenchmarkEcho is the least that two processes can do: a message of a join's
// length there and back over the same kind of socket. What BenchmarkVerbs has
// beyond it and the verb itself is the protocol's.
func BenchmarkEcho(b *testing.B) {
	conn, _ := startWorker(b, echo)
	b.Cleanup(func() { must(b, conn.Close()) })
	message := make([]byte, 400)
	b.ReportAllocs()
	for b.Loop() {
		_, err := conn.Write(message)
		must(b, err)
		_, err = io.ReadFull(conn, message)
		must(b, err)
	}
}
