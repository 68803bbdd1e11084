package provisioning

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store"
	"joinery/lorawan"
	"joinery/manifest"
	"joinery/manifest/manifesttest"
)

// microchip is a maker whose log signer is pinned for everybody, into the range
// of elements.
func (f fixture) microchip(t testing.TB) *manifesttest.Maker {
	t.Helper()
	m := manifesttest.NewMaker(t)
	id, _, err := manifest.ParseSigner(m.Log)
	if err != nil {
		t.Fatal(err)
	}
	s := joinery.Signer{
		ID: joinery.NewSignerID(), Org: f.acme.Org, Name: "Log Signer 002", KID: id.KID, X5TS256: id.X5TS256, DER: m.Log, Roots: m.Root,
		Family: manifest.FamilyMicrochip, SerialSuffix: "27", Shared: true,
		JoinEUIs: span(elements, 1), DevEUIs: joinery.EUIRange{First: eui(firstDevEUI), Last: eui(0x0004A31FFFFFFFFF)},
		Master: master, CreatedAt: time.Now(),
	}
	if err := f.db.AddSigner(t.Context(), s, joinery.AuditEntry{At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return m
}

// chips makes the entries of n chips.
func chips(m *manifesttest.Maker, n int) []json.RawMessage {
	entries := make([]json.RawMessage, n)
	var wait sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wait.Go(func() {
			for k := w; k < n; k += workers {
				entries[k] = m.Entry(manifesttest.NewPart(manifesttest.Third, elements, k))
			}
		})
	}
	wait.Wait()
	return entries
}

// takeAhead gives all entries as joinctl does: three chunks on their way at once.
func (f fixture) takeAhead(t testing.TB, caller joinery.Caller, i joinery.Import, entries []json.RawMessage) {
	t.Helper()
	const ahead = 3
	room := make(chan struct{}, ahead)
	var wait sync.WaitGroup
	for from := 0; from < len(entries); from += joinery.MaxImportRows {
		to := min(from+joinery.MaxImportRows, len(entries))
		room <- struct{}{}
		wait.Go(func() {
			defer func() { <-room }()
			results, _, err := f.Rows(t.Context(), caller, Chunk{Import: i.ID, From: uint64(from), Entries: entries[from:to], Last: to == len(entries)})
			if err != nil {
				t.Error(err)
			}
			for _, r := range results {
				if r.Status != joinery.RowCreated {
					t.Errorf("%+v", r)
					return
				}
			}
		})
	}
	wait.Wait()
}

// signature is what is verified of one: an ES256 signature over a hash.
type signature struct {
	key    *ecdsa.PublicKey
	digest [sha256.Size]byte
	r, s   *big.Int
}

// signaturesOf takes the two signatures off an entry that must be verified at the
// least: its own and that of its device certificate.
func signaturesOf(t testing.TB, m *manifesttest.Maker, raw json.RawMessage) (both [2]signature) {
	t.Helper()
	var entry struct{ Payload, Protected, Signature string }
	var payload struct {
		PublicKeySet struct{ Keys []struct{ X5C [][]byte } }
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
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
	issuer, err := x509.ParseCertificate(chain[1])
	must(err)
	var parts struct{ R, S *big.Int }
	_, err = asn1.Unmarshal(device.Signature, &parts)
	must(err)
	both[1] = signature{issuer.PublicKey.(*ecdsa.PublicKey), sha256.Sum256(device.RawTBSCertificate), parts.R, parts.S}
	return both
}

// verifyAlone verifies the two signatures of each entry and does nothing else, on
// all processors: how many entries a second that would be, and how much processor
// time it took.
func verifyAlone(t testing.TB, m *manifesttest.Maker, entries []json.RawMessage) (rate float64, cpu time.Duration) {
	t.Helper()
	list := make([][2]signature, len(entries))
	for k, e := range entries {
		list[k] = signaturesOf(t, m, e)
	}
	var next atomic.Int64
	var wait sync.WaitGroup
	begun, cpu := time.Now(), cpuTime(t)
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for k := next.Add(1) - 1; k < int64(len(list)); k = next.Add(1) - 1 {
				for _, s := range list[k] {
					if !ecdsa.Verify(s.key, s.digest[:], s.r, s.s) {
						t.Error("a signature does not verify")
					}
				}
			}
		})
	}
	wait.Wait()
	return float64(len(list)) / time.Since(begun).Seconds(), cpuTime(t) - cpu
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

// BenchmarkImport imports chips into a database that syncs, and compares with what
// the two signatures of each alone take on all processors: ratio is the one rate
// over the other, and cpu-ratio the same of processor time, which other programs
// on the machine hardly change. To be run with some thousand entries, as
// -benchtime=20000x.
func BenchmarkImport(b *testing.B) {
	o := store.Options{Path: filepath.Join(b.TempDir(), "joinery.db")}
	if err := store.Create(b.Context(), o); err != nil {
		b.Fatal(err)
	}
	db, err := store.Open(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	f := newFixtureOver(b, db)
	m := f.microchip(b)
	entries := chips(m, b.N)
	alone, aloneCPU := verifyAlone(b, m, entries)
	i := f.begin(b, f.acme, Spec{Kind: joinery.ImportManifest, MACVersion: lorawan.MAC1_0_4})
	b.ResetTimer()
	cpu := cpuTime(b)
	f.takeAhead(b, f.acme, i, entries)
	b.StopTimer()
	cpu = cpuTime(b) - cpu
	rate := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(rate, "entries/s")
	b.ReportMetric(alone, "alone/s")
	b.ReportMetric(rate/alone, "ratio")
	b.ReportMetric(aloneCPU.Seconds()/cpu.Seconds(), "cpu-ratio")
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-µs/entry")
}
