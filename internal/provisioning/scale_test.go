package provisioning

import (
	"encoding/json"
	"path/filepath"
	"runtime"
	"sync"
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

// takeAhead gives all entries from one on as joinctl does: three chunks on their way
// at once.
func (f fixture) takeAhead(t testing.TB, caller joinery.Caller, i joinery.Import, entries []json.RawMessage, from int) {
	t.Helper()
	const ahead = 3
	room := make(chan struct{}, ahead)
	var wait sync.WaitGroup
	for at := from; at < len(entries); at += joinery.MaxImportRows {
		to := min(at+joinery.MaxImportRows, len(entries))
		room <- struct{}{}
		wait.Go(func() {
			defer func() { <-room }()
			results, _, err := f.Rows(t.Context(), caller, Chunk{Import: i.ID, From: uint64(at), Entries: entries[at:to]})
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

// benchRun is how many entries are imported, and verified alone, before the other of
// the two has its turn: both then meet the same other programs on the machine.
const benchRun = 8 * joinery.MaxImportRows

// BenchmarkImport imports chips into a database that syncs, and compares with what
// the two signatures of each alone take on all processors, in turn. To be run with
// some thousand entries, as -benchtime=20000x.
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
	pairs := manifesttest.Pairs(m, entries)
	i := f.begin(b, f.acme, Spec{Kind: joinery.ImportManifest, MACVersion: lorawan.MAC1_0_4})
	var imported, alone manifesttest.Usage
	b.ResetTimer()
	for from := 0; from < b.N; from += benchRun {
		to := min(from+benchRun, b.N)
		alone.Use(b, func() { manifesttest.VerifyAlone(b, pairs[from:to]) })
		imported.Use(b, func() { f.takeAhead(b, f.acme, i, entries[:to], from) })
	}
	manifesttest.ReportRatio(b, b.N, imported, alone)
}
