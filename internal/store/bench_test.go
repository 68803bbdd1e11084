package store_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store"
	"joinery/internal/store/storetest"
	"joinery/internal/store/storetest/pgtest"
	"joinery/lorawan"
)

var benchJoinEUI = lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 1}

func benchDevEUI(n int) lorawan.EUI64 {
	return lorawan.EUI64FromUint64(0x0004A30B_00000000 + uint64(n))
}

// fill makes a database of n devices with derived roots and no manifest, each
// bound to a network where bind says so.
func fill(t testing.TB, o store.Options, n int, bind bool) *store.DB {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	must(store.Create(ctx, o))
	db, err := store.Open(ctx, o)
	must(err)
	t.Cleanup(func() { _ = db.Close() })
	org := joinery.NewOrgID()
	must(db.AddOrg(ctx, joinery.Organisation{ID: org, Name: "maker", CreatedAt: time.Now()}, joinery.AuditEntry{}))
	must(db.AssignRange(ctx, joinery.JoinEUIRange{EUIRange: joinery.EUIRange{First: benchJoinEUI, Last: benchJoinEUI}, Org: org}, joinery.AuditEntry{}))
	i, err := db.BeginImport(ctx, joinery.Import{Org: org, Kind: joinery.ImportManifest, SHA256: sha256.Sum256([]byte("file")), CreatedAt: time.Now()})
	must(err)
	for from := 0; from < n; from += joinery.MaxImportRows {
		rows := joinery.ImportRows{Import: i.ID, From: uint64(from), Count: uint64(min(joinery.MaxImportRows, n-from))}
		for k := range int(rows.Count) {
			rows.Devices = append(rows.Devices, benchDevice(from+k, bind))
		}
		results, err := db.CommitRows(ctx, rows, joinery.AuditEntry{At: time.Now(), Event: joinery.AuditDeviceImported})
		must(err)
		for _, r := range results {
			if r.Status != joinery.RowCreated {
				t.Fatal(r.Reason)
			}
		}
	}
	return db
}

func benchDevice(n int, bind bool) joinery.NewDevice {
	id := joinery.NewDeviceID()
	d := joinery.NewDevice{
		Index:  uint64(n),
		Device: joinery.Device{ID: id, JoinEUI: benchJoinEUI, DevEUI: benchDevEUI(n), MACVersion: lorawan.MAC1_0_4, CreatedAt: time.Now()},
		KeySet: joinery.KeySet{ID: joinery.NewKeySetID(), DeviceID: id, DevEUI: benchDevEUI(n), Origin: joinery.OriginDerived, Master: "maker-2026", Root10: joinery.NwkKey},
	}
	if bind {
		d.Binding = &joinery.Binding{NetID: lorawan.NetID{0, 0, 0x13}, ASID: "as.example.com", Policy: joinery.AppSKeyWrapped, Source: "owner"}
	}
	return d
}

// cpuTime is user and system time of this process.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// residentMiB is the memory of this process, with what the benchmark holds.
func residentMiB(t testing.TB) float64 {
	t.Helper()
	var size, resident float64
	b, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		_, err = fmt.Sscan(string(b), &size, &resident)
	}
	if err != nil {
		t.Fatal(err)
	}
	return resident * float64(os.Getpagesize()) / (1 << 20)
}

const benchDevices = 10_000

// BenchmarkCommitActivation commits joins of 10,000 devices with fsync. joins/s
// is by the clock, joins/cpu-s by the process's own time.
func BenchmarkCommitActivation(b *testing.B) {
	for _, load := range []bool{false, true} {
		for _, writers := range []int{1, 16, 64} {
			name := map[bool]string{false: "commit", true: "load+commit"}[load]
			b.Run(fmt.Sprintf("%s/writers=%d", name, writers), func(b *testing.B) {
				db := fill(b, store.Options{Path: filepath.Join(b.TempDir(), "joinery.db")}, benchDevices, true)
				benchmarkCommits(b, db, benchDevices, writers, load, cpuTime)
			})
		}
	}
}

// BenchmarkPostgresCommit is the same on a PostgreSQL of its own, which syncs;
// its processor time counts.
func BenchmarkPostgresCommit(b *testing.B) {
	const devices = 2_000
	pg := pgtest.Start(b, pgtest.Options{Sync: true})
	db := fill(b, store.Options{URL: pg.Database(b)}, devices, true)
	both := func() time.Duration {
		used, err := pg.CPUTime()
		if err != nil {
			b.Fatal(err)
		}
		return cpuTime() + used
	}
	for _, writers := range []int{16, 64} {
		b.Run(fmt.Sprintf("load+commit/writers=%d", writers), func(b *testing.B) { benchmarkCommits(b, db, devices, writers, true, both) })
	}
}

func benchmarkCommits(b *testing.B, db *store.DB, devices, writers int, load bool, cpuTime func() time.Duration) {
	states := make([]joinery.ActivationState, devices)
	for n := range states {
		var err error
		if states[n], err = db.LoadActivation(b.Context(), benchJoinEUI, benchDevEUI(n)); err != nil {
			b.Fatal(err)
		}
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	cpu := cpuTime()
	for w := range writers {
		wg.Go(func() {
			// Each writer has devices of its own, so that no swap is lost.
			for n := w; next.Add(1) <= int64(b.N); n += writers {
				s := &states[n%(devices/writers*writers)]
				if load {
					var err error
					if *s, err = db.LoadActivation(context.Background(), benchJoinEUI, s.Device.DevEUI); err != nil {
						b.Error(err)
						return
					}
				}
				c := storetest.NextCommit(*s)
				if err := db.CommitActivation(context.Background(), c); err != nil {
					b.Error(err)
					return
				}
				s.KeySet.Version, s.KeySet.Nonces = s.KeySet.Version+1, c.Nonces
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "joins/s")
	b.ReportMetric(float64(b.N)/(cpuTime()-cpu).Seconds(), "joins/cpu-s")
	b.ReportMetric(residentMiB(b), "MiB-rss")
}

func BenchmarkLoadActivation(b *testing.B) {
	db := fill(b, store.Options{Path: filepath.Join(b.TempDir(), "joinery.db")}, benchDevices, true)
	b.ResetTimer()
	var n atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			// A large odd step visits the devices in no order.
			if _, err := db.LoadActivation(context.Background(), benchJoinEUI, benchDevEUI(int(n.Add(1)*7919%benchDevices))); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "loads/s")
}

// TestDiskPerDevice keeps the promise of at most 400 bytes on disk for a device
// with derived roots, without its manifest. What an empty database takes, some
// hundred kilobytes, is no device's.
func TestDiskPerDevice(t *testing.T) {
	const devices = 5_000
	size := func(count int) int64 {
		o := store.Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
		if err := fill(t, o, count, false).Close(); err != nil { // copies the log back
			t.Fatal(err)
		}
		info, err := os.Stat(o.Path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	empty, full := size(1), size(1+devices)
	each := float64(full-empty) / devices
	t.Logf("%d devices: %.0f bytes each; a database with one: %d", devices, each, empty)
	if each > 400 {
		t.Errorf("%.0f bytes a device, want at most 400", each)
	}
}
