package api_test

import (
	"runtime"
	"strings"
	"sync"
	"testing"

	"joinery/client"
	"joinery/lorawan"
	"joinery/manifest/manifesttest"
)

// BenchmarkImportRows imports chips as joinctl does, over a socket, into a database
// that syncs, and compares with what the two signatures of each alone take on all
// processors, in turn. Client and server share the processors. To be run with some
// thousand entries, as -benchtime=20000x.
func BenchmarkImportRows(b *testing.B) {
	f := start(b)
	m := manifesttest.NewMaker(b)
	api := f.pinMaker(b, m)
	entries := chips(m, b.N)
	pairs := manifesttest.Pairs(m, entries)
	i, err := api.BeginImport(b.Context(), client.NewImport{Kind: "manifest", MACVersion: lorawan.MAC1_0_4, SHA256: strings.Repeat("ab", 32)})
	if err != nil {
		b.Fatal(err)
	}
	const run = 8 * client.MaxImportRows
	var imported, alone manifesttest.Usage
	b.ResetTimer()
	for from := 0; from < b.N; from += run {
		to := min(from+run, b.N)
		alone.Use(b, func() { manifesttest.VerifyAlone(b, pairs[from:to]) })
		imported.Use(b, func() { giveAhead(b, api, i, entries[:to], from) })
	}
	manifesttest.ReportRatio(b, b.N, imported, alone)
}

const chipsJoinEUI = 0x70B3D57ED0000000

// pinMaker shares a maker's log signer with everybody, and gives a client of an
// organisation.
func (f *fixture) pinMaker(t testing.TB, m *manifesttest.Maker) *client.Client {
	t.Helper()
	joinEUIs := client.EUIRange{First: lorawan.EUI64FromUint64(chipsJoinEUI), Last: lorawan.EUI64FromUint64(chipsJoinEUI)}
	if _, err := f.operator.AssignJoinEUIRange(t.Context(), client.NewJoinEUIRange{Organisation: f.orgA, EUIRange: joinEUIs, Elements: true}); err != nil {
		t.Fatal(err)
	}
	_, err := f.operator.AddSigner(t.Context(), client.NewSigner{
		Organisation: f.orgA, Name: "Log Signer 002", Certificate: m.Log, Roots: m.Root, Family: "microchip", Shared: true,
		JoinEUIs: joinEUIs, DevEUIs: client.EUIRange{Last: lorawan.EUI64FromUint64(1<<64 - 1)}, Master: "test-master",
	})
	if err != nil {
		t.Fatal(err)
	}
	return f.as(t, f.keyA)
}

// chips makes the entries of n chips.
func chips(m *manifesttest.Maker, n int) [][]byte {
	entries := make([][]byte, n)
	var wait sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wait.Go(func() {
			for k := w; k < n; k += workers {
				entries[k] = m.Entry(manifesttest.NewPart(manifesttest.Third, chipsJoinEUI, k))
			}
		})
	}
	wait.Wait()
	return entries
}

// giveAhead gives all entries from one on as joinctl does: three runs on their way at
// once.
func giveAhead(b *testing.B, api *client.Client, i client.Import, entries [][]byte, from int) {
	b.Helper()
	room := make(chan struct{}, 3)
	var wait sync.WaitGroup
	for at := from; at < len(entries); at += client.MaxImportRows {
		to := min(at+client.MaxImportRows, len(entries))
		room <- struct{}{}
		wait.Go(func() {
			defer func() { <-room }()
			p, err := api.ImportRows(b.Context(), i.ID, client.ImportRows{From: uint64(at), Entries: entries[at:to]})
			if err != nil {
				b.Error(err)
			}
			for _, r := range p.Results {
				if r.Status != "created" {
					b.Errorf("%+v", r)
					return
				}
			}
		})
	}
	wait.Wait()
}
