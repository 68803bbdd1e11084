package hsm_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"joinery/internal/keyring"
	"joinery/internal/keyring/hsm"
	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/internal/keyring/keyringtest"
)

// requests gives what joins of a 1.0.x network ask for: of a device with derived
// roots and of one with sealed roots.
func requests(tb testing.TB, f keyringtest.Fixture) (derived, sealed keyring.AcceptRequest) {
	tb.Helper()
	d := keyringtest.NewDevice(true)
	ks, nwk, app := f.DerivedKeySet(tb, d.DevEUI, 1)
	d.Root10, d.Nwk, d.App = nwk, nwk, app
	derived = request(tb, f, ks, d, false)
	d = keyringtest.NewDevice(false)
	return derived, request(tb, f, f.SealedKeySet(tb, d), d, false)
}

// A whole answer against the same PKCS #11 calls in a bare loop, by turns on the
// same token: the figure is how much of the token's own speed a keyring gives.
func BenchmarkAcceptAgainstBareCalls(b *testing.B) {
	opt := sharedOptions(b)
	token, f := open(b, nil)
	derived, sealed := requests(b, f)
	for _, c := range []struct {
		name string
		r    keyring.AcceptRequest
		blob []byte
	}{
		{"derived", derived, nil},
		{"sealed", sealed, sealed.KeySet.App.Use[1:25]},
	} {
		b.Run(c.name, func(b *testing.B) {
			err := hsm.RawSession(opt, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) {
				bare, err := hsm.NewBare(token, p, s, hsmtest.Master)
				if err != nil {
					b.Fatal(err)
				}
				ours, theirs := byTurns(b, func() error {
					_, err := f.Keyring.Accept(context.Background(), c.r)
					return err
				}, func() error { return bare.Join(c.blob) })
				n := float64(b.N)
				b.ReportMetric(ours.Seconds()*1e6/n, "us/join")
				b.ReportMetric(theirs.Seconds()*1e6/n, "us/bare")
				b.ReportMetric(100*theirs.Seconds()/ours.Seconds(), "%ofbare")
			})
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}

// byTurns measures two functions, in short turns so that both see the same machine.
func byTurns(b *testing.B, one, two func() error) (t1, t2 time.Duration) {
	const turn = 25
	measure := func(f func() error, n int) time.Duration {
		begun := time.Now()
		for range n {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(begun)
	}
	for done := 0; done < b.N; done += turn {
		n := min(turn, b.N-done)
		t1 += measure(one, n)
		t2 += measure(two, n)
	}
	return t1, t2
}

// How many sessions are best: with a token in the same process, and with one whose
// every call travels for a millisecond.
func BenchmarkSessions(b *testing.B) {
	for _, delay := range []time.Duration{0, time.Millisecond} {
		for _, sessions := range []int{0, 1, 2, 4, 8, 16, 32} {
			b.Run(fmt.Sprintf("delay=%v/sessions=%d", delay, sessions), func(b *testing.B) {
				opt := sharedOptions(b)
				opt.Sessions, opt.Delay = sessions, delay
				f := hsmtest.Open(b, opt, shared.key)
				r, _ := requests(b, f)
				parallel(b, 2*max(sessions, 16), func() error {
					_, err := f.Keyring.Accept(context.Background(), r)
					return err
				})
			})
		}
	}
}

// parallel shares b.N calls among so many goroutines, and tells the rate.
func parallel(b *testing.B, n int, f func() error) {
	calls := make(chan struct{}, b.N)
	for range b.N {
		calls <- struct{}{}
	}
	close(calls)
	var wg sync.WaitGroup
	b.ResetTimer()
	for range n {
		wg.Go(func() {
			for range calls {
				if err := f(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "joins/s")
}
