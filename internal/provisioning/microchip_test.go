package provisioning

import (
	"crypto/sha256"
	"encoding/json"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
	"joinery/manifest/manifesttest"
)

// Somebody without any range imports what a shared signer signed; somebody else
// who has the same file then is told of a conflict, and not whose the chips are.
func TestSharedSigner(t *testing.T) {
	f := newFixture(t)
	m := f.microchip(t)
	hobbyist := f.newOrg(t, "Hobbyist")
	entries := chips(m, 3)
	i := f.begin(t, hobbyist, Spec{Kind: joinery.ImportManifest, MACVersion: lorawan.MAC1_0_4})
	results, _ := f.take(t, hobbyist, Chunk{Import: i.ID, Entries: entries, Last: true})
	for k, r := range results {
		p := manifesttest.NewPart(manifesttest.Third, elements, k)
		if r.Status != joinery.RowCreated || r.Serial != p.UniqueID() || r.DevEUI.Uint64() != p.DevEUI {
			t.Errorf("%+v", r)
		}
		if s := f.state(t, elements, p.DevEUI); s.Device.Maker != hobbyist.Org || s.KeySet.Master != master {
			t.Errorf("%+v", s.Device)
		}
	}
	for _, caller := range []joinery.Caller{f.others, f.acme} {
		for _, dry := range []bool{true, false} {
			j := f.begin(t, caller, Spec{Kind: joinery.ImportManifest, MACVersion: lorawan.MAC1_0_4, DryRun: dry})
			results, after := f.take(t, caller, Chunk{Import: j.ID, Entries: entries, Last: true})
			for _, r := range results {
				if r.Status != joinery.RowConflict || r.Device != 0 || r.Serial == "" || strings.Contains(r.Reason, "Hobbyist") {
					t.Errorf("%+v", r)
				}
			}
			if after.Failed != 3 || after.Created != 0 {
				t.Errorf("%+v", after)
			}
			if dry {
				continue
			}
			listed, err := f.Errors(t.Context(), caller, j.ID, 0, 10)
			if err != nil || len(listed) != 3 || listed[0].Status != joinery.RowConflict || listed[0].Serial != results[0].Serial {
				t.Errorf("%+v, %v", listed, err)
			}
		}
	}

	// The same signer does not open other ranges, nor is everybody's range open to
	// key lists.
	other := m.Entry(manifesttest.NewPart(manifesttest.Third, otherElements, 9))
	j := f.begin(t, hobbyist, Spec{Kind: joinery.ImportManifest, MACVersion: lorawan.MAC1_0_4})
	if results, _ := f.take(t, hobbyist, Chunk{Import: j.ID, Entries: []json.RawMessage{other}}); results[0].Reason != reasonRange {
		t.Errorf("%+v", results[0])
	}
	_, err := f.Begin(t.Context(), hobbyist, Spec{Kind: joinery.ImportKeyList, SHA256: sha256.Sum256([]byte("list"))})
	wantCode(t, err, joinery.CodeForbidden)
}

// Two pins of one certificate: the organisation's own, for a range of its own, and
// a shared one.
func TestSignerPinnedTwice(t *testing.T) {
	f := newFixture(t)
	m := f.microchip(t)
	signers, err := f.db.Signers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	own := signers[len(signers)-1]
	own.ID, own.Org, own.Shared, own.JoinEUIs, own.Generation = joinery.NewSignerID(), f.others.Org, false, span(otherElements, rangeSize), 3
	if err := f.db.AddSigner(t.Context(), own, joinery.AuditEntry{At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	i := f.begin(t, f.others, Spec{Kind: joinery.ImportManifest, MACVersion: lorawan.MAC1_0_4})
	parts := []manifesttest.Part{
		manifesttest.NewPart(manifesttest.Second, elements, 1), manifesttest.NewPart(manifesttest.Third, otherElements, 2),
		manifesttest.NewPart(manifesttest.Third, ordinary, 3),
	}
	var entries []json.RawMessage
	for _, p := range parts {
		entries = append(entries, m.Entry(p))
	}
	results, _ := f.take(t, f.others, Chunk{Import: i.ID, Entries: entries})
	if results[0].Status != joinery.RowCreated || results[1].Status != joinery.RowCreated || results[2].Reason != reasonRange {
		t.Errorf("%+v", results)
	}
	if s := f.state(t, otherElements, parts[1].DevEUI); s.KeySet.Generation != 3 {
		t.Errorf("%+v", s.KeySet)
	}
}

func TestWarnings(t *testing.T) {
	f := newFixture(t)
	m := f.microchip(t)
	late := manifesttest.NewPart(manifesttest.Third, elements, 1)
	late.At = manifesttest.LogTo.AddDate(0, 2, 0)
	i := f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest, MACVersion: lorawan.MAC1_0_4})
	results, _ := f.take(t, f.acme, Chunk{Import: i.ID, Entries: []json.RawMessage{m.Entry(manifesttest.NewPart(manifesttest.Third, elements, 2)), m.Entry(late)}})
	if results[0].Warning != "" || results[1].Warning == "" || results[1].Status != joinery.RowCreated {
		t.Errorf("%+v", results)
	}
}

// Chunks that come side by side, in any order, are taken in the file's order.
func TestChunksSideBySide(t *testing.T) {
	f := newFixture(t)
	for _, dry := range []bool{false, true} {
		const count, size = maxAhead, 5
		entries := f.maker.run(t, firstDevEUI+uint64(len(t.Name())), count*size)
		i := f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest, DryRun: dry})
		var wait sync.WaitGroup
		for _, n := range rand.Perm(count) {
			wait.Go(func() {
				results, _, err := f.Rows(t.Context(), f.acme, Chunk{
					Import: i.ID, From: uint64(n * size), Entries: entries[n*size : (n+1)*size], Last: n == count-1,
				})
				if err != nil || len(results) != size || results[0].Index != uint64(n*size) {
					t.Errorf("chunk %d: %v, %v", n, results, err)
				}
			})
		}
		wait.Wait()
		after, err := f.Status(t.Context(), f.acme, i.ID)
		if err != nil || !after.Done || after.Next != count*size || after.Failed != 0 {
			t.Errorf("dry %v: %+v, %v", dry, after, err)
		}
	}
	if len(f.turns.all) != 0 {
		t.Error("queues are left behind")
	}
}

// The memory of an import does not grow with its file.
func TestImportStaysFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("long: thousands of chips")
	}
	f := newFixture(t)
	m := f.microchip(t)
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	i := f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest, MACVersion: lorawan.MAC1_0_4})
	const chunk, rounds = 250, 12
	var early uint64
	for n := range rounds {
		var entries []json.RawMessage
		for k := range chunk {
			entries = append(entries, m.Entry(manifesttest.NewPart(manifesttest.Second, elements, n*chunk+k)))
		}
		f.take(t, f.acme, Chunk{Import: i.ID, From: uint64(n * chunk), Entries: entries})
		entries = nil
		if n == 2 {
			early = heap()
		}
	}
	// What is kept of each entry in memory would show: they have 3 kB.
	if late := heap(); late > early+chunk*rounds*1000 {
		t.Errorf("%d bytes of heap after %d entries, %d after %d", early, 3*chunk, late, chunk*rounds)
	}
}
