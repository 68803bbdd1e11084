package manifesttest

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Pair is the two ES256 signatures of an entry that must be verified at the least:
// its own and that of its device certificate.
type Pair [2]signature

type signature struct {
	key    *ecdsa.PublicKey
	digest [sha256.Size]byte
	r, s   *big.Int
}

// Pairs takes the signatures off entries of m.
func Pairs[E ~[]byte](m *Maker, entries []E) []Pair {
	m.t.Helper()
	pairs := make([]Pair, len(entries))
	for k, e := range entries {
		pairs[k] = m.pair(e)
	}
	return pairs
}

func (m *Maker) pair(raw []byte) (both Pair) {
	m.t.Helper()
	must := func(err error) {
		if err != nil {
			m.t.Fatal(err)
		}
	}
	var entry struct{ Payload, Protected, Signature string }
	var payload struct {
		PublicKeySet struct{ Keys []struct{ X5C [][]byte } }
	}
	must(json.Unmarshal(raw, &entry))
	content, err := base64.RawURLEncoding.DecodeString(entry.Payload)
	must(err)
	must(json.Unmarshal(content, &payload))
	plain, err := base64.RawURLEncoding.DecodeString(entry.Signature)
	must(err)
	both[0] = signature{
		&m.LogKey.PublicKey, sha256.Sum256([]byte(entry.Protected + "." + entry.Payload)),
		new(big.Int).SetBytes(plain[:32]), new(big.Int).SetBytes(plain[32:]),
	}
	chain := payload.PublicKeySet.Keys[0].X5C
	device, err := x509.ParseCertificate(chain[0])
	must(err)
	var parts struct{ R, S *big.Int }
	_, err = asn1.Unmarshal(device.Signature, &parts)
	must(err)
	both[1] = signature{&m.signerKey.PublicKey, sha256.Sum256(device.RawTBSCertificate), parts.R, parts.S}
	return both
}

// Usage is time by the clock, and processor time of this process.
type Usage struct{ Clock, CPU time.Duration }

// Use measures what work takes, and adds it to u.
func (u *Usage) Use(t testing.TB, work func()) {
	t.Helper()
	begun, cpu := time.Now(), cpuTime(t)
	work()
	u.Clock += time.Since(begun)
	u.CPU += cpuTime(t) - cpu
}

// VerifyAlone verifies pairs of signatures on all processors and does nothing else.
func VerifyAlone(t testing.TB, pairs []Pair) {
	var next atomic.Int64
	var wait sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for k := next.Add(1) - 1; k < int64(len(pairs)); k = next.Add(1) - 1 {
				for _, s := range pairs[k] {
					if !ecdsa.Verify(s.key, s.digest[:], s.r, s.s) {
						t.Error("a signature does not verify")
					}
				}
			}
		})
	}
	wait.Wait()
}

// cpuTime is user and system time of this process.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// ReportRatio reports how an import of n entries compares with the signatures of
// them alone: ratio is the one rate over the other, and cpu-ratio the same of
// processor time, which other programs on the machine hardly change.
func ReportRatio(b *testing.B, n int, imported, alone Usage) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(n)/imported.Clock.Seconds(), "entries/s")
	b.ReportMetric(float64(n)/alone.Clock.Seconds(), "alone/s")
	b.ReportMetric(alone.Clock.Seconds()/imported.Clock.Seconds(), "ratio")
	b.ReportMetric(alone.CPU.Seconds()/imported.CPU.Seconds(), "cpu-ratio")
	b.ReportMetric(float64(imported.CPU.Microseconds())/float64(n), "cpu-µs/entry")
}
