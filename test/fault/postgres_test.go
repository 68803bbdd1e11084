package fault

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/config"
	"joinery/internal/sim"
	"joinery/internal/sim/lab"
	"joinery/internal/store/storetest/pgtest"
	"joinery/lorawan"
	"joinery/test/rig"
)

// newPostgresFleet is a fleet whose server keeps its state in a PostgreSQL of
// the test's own, which syncs as users have it.
func newPostgresFleet(t *testing.T, devices int) (*fleet, *pgtest.Server) {
	t.Helper()
	pg := pgtest.Start(t, pgtest.Options{Sync: true})
	dir := t.TempDir()
	server, err := built(t).Quickstart(t.Context(), filepath.Join(dir, "a"), "--database", pg.Database(t), "--elements", fmt.Sprint(elementsInBatches()))
	ok(t, err)
	f := &fleet{t: t, server: server, ids: map[lorawan.EUI64]joinery.DeviceID{}}
	allowReceivers(t, server)
	ok(t, server.Start(t.Context()))
	t.Cleanup(func() { ok(t, server.Stop()) })
	f.api, err = client.New(client.Options{Socket: server.Path("joinery.sock")})
	ok(t, err)
	t.Cleanup(f.api.Close)
	f.lab, err = lab.Open(server.Path("sim", "sim.json"))
	ok(t, err)
	t.Cleanup(func() { ok(t, f.lab.Close()) })
	f.ns, err = f.lab.NS("", lab.PeerOptions{})
	ok(t, err)
	f.importDevices(devices)
	return f, pg
}

// second makes another server on the same database, with the same keys, and the
// Network Server that speaks to it.
func (f *fleet) second() (*rig.Server, *sim.NS) {
	f.t.Helper()
	dir := filepath.Join(filepath.Dir(f.server.Dir), "b")
	for _, name := range []string{"keys", "pki"} {
		ok(f.t, os.CopyFS(filepath.Join(dir, name), os.DirFS(f.server.Path(name))))
		ok(f.t, filepath.Walk(filepath.Join(dir, name), func(path string, info os.FileInfo, err error) error {
			if err != nil || info.IsDir() {
				return err
			}
			return os.Chmod(path, 0o600) // CopyFS leaves it to the umask
		}))
	}
	c, err := config.Read(f.server.Path("joinery.yaml"))
	ok(f.t, err)
	c.Interop.Address, c.API.Address, c.Ops.Address = freeAddress(f.t), freeAddress(f.t), freeAddress(f.t)
	file, err := os.Create(filepath.Join(dir, "joinery.yaml"))
	ok(f.t, err)
	ok(f.t, config.Print(file, c))
	ok(f.t, file.Close())
	server, err := f.server.Open(dir)
	ok(f.t, err)
	ok(f.t, server.Start(f.t.Context()))
	f.t.Cleanup(func() { ok(f.t, server.Stop()) })
	ns, err := f.lab.NS("", lab.PeerOptions{Way: func(_ string, conf *tls.Config) (sim.Way, error) {
		return sim.NewLink("https://"+c.Interop.Address, conf, 0), nil
	}})
	ok(f.t, err)
	return server, ns
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// TestPostgres shares one PostgreSQL and its fleet among what is promised of it.
func TestPostgres(t *testing.T) {
	devices := 24
	if os.Getenv("JOINERY_LONG") != "" {
		devices = 400
	}
	f, pg := newPostgresFleet(t, devices)
	on := func(name string, run func(*testing.T)) {
		t.Run(name, func(t *testing.T) {
			defer func(outer *testing.T) { f.t = outer }(f.t)
			f.t = t
			run(t)
		})
	}
	on("stalled", func(*testing.T) { f.away(func() func() { return pg.Stall(f.t) }) })
	on("down", func(*testing.T) { f.away(func() func() { pg.Crash(f.t); return func() { pg.Restart(f.t) } }) })
	other, otherNS := f.second()
	on("one of two servers killed", func(*testing.T) { f.killedInTurns(other, otherNS) })
	on("batches by two servers", func(*testing.T) { f.batchesByTwo(other) })
	on("backed up", func(*testing.T) { f.backedUp() })
	on("changes reach the other server", func(*testing.T) { f.changed(otherNS) })
	on("restored into another database", func(*testing.T) {
		ok(f.t, other.Stop())
		f.restoredElsewhere(pg.Database(f.t))
	})
}

// P3: two servers on one PostgreSQL, one of which is killed each second. No
// JoinNonce repeats, no accepted DevNonce is accepted again at either, and no
// join that either acknowledged is lost; nor is the event of one, whichever
// server delivers, and whichever names in the feed what a dead one left out.
func (f *fleet) killedInTurns(other *rig.Server, otherNS *sim.NS) {
	t, joins := f.t, 150
	if os.Getenv("JOINERY_LONG") != "" {
		joins = 20_000
	}
	servers, ways := []*rig.Server{f.server, other}, []*sim.NS{f.ns, otherNS}

	r := newReceiver(t)
	r.disorder = true
	r.listens(f)

	ctx, stop := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	var total atomic.Int64
	for i := range joiners {
		busy.Go(func() { f.joinEither(ctx, i, ways, &total) })
	}
	kills := 0
	for ; total.Load() < int64(joins) || kills < 4; kills++ {
		time.Sleep(time.Second)
		victim := servers[kills%len(servers)]
		ok(t, victim.Kill())
		ok(t, victim.Start(t.Context()))
		if t.Failed() {
			break
		}
	}
	stop()
	busy.Wait()
	for _, ns := range ways {
		f.ns = ns
		f.checkReplays()
	}
	f.ns = ways[0]
	f.checkJoins()
	r.await(f, time.Minute)
	f.checkFeed(r)
	ok(t, f.api.RemoveWebhook(t.Context(), r.id))
	f.fsck() // on the state of one instant, beside the servers
	t.Logf("%d joins acknowledged over %d kills", f.acknowledged(), kills)
}

// listed is how many joins a device makes at most: those that checkJoins can have
// listed.
const listed = 450

// joinEither joins every joiners-th device in turns, at one server or the other,
// and at the next one where a server is dead.
func (f *fleet) joinEither(ctx context.Context, first int, ways []*sim.NS, total *atomic.Int64) {
	for turn := first; ctx.Err() == nil; turn++ {
		for i := first; i < len(f.members) && ctx.Err() == nil; i += joiners {
			m := f.members[i]
			if len(m.nonces) >= listed {
				time.Sleep(time.Millisecond)
				continue
			}
			r, err := ways[(turn+i)%len(ways)].Join(context.WithoutCancel(ctx), m.Device, sim.JoinOptions{})
			if err != nil {
				time.Sleep(20 * time.Millisecond) // dead, or without a whole answer
				continue
			}
			if err := r.Err(); err != nil {
				f.t.Errorf("device %s: %v", m.DevEUI(), err)
				return
			}
			m.acknowledge(f.t, r)
			total.Add(1)
		}
	}
}

// A peer that is removed at one server is refused by the other within two
// seconds, and so is a device that is suspended.
func (f *fleet) changed(otherNS *sim.NS) {
	t := f.t
	join := func(i int) string {
		r, err := otherNS.Join(t.Context(), f.members[i].Device, sim.JoinOptions{})
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(r.Err())
	}
	const success = "<nil>"
	if got := join(0); got != success {
		t.Fatal(got)
	}
	_, err := f.server.Ctl(t.Context(), "", "device", "suspend", f.ids[f.members[0].DevEUI()].String())
	ok(t, err)
	if got := join(0); got == success { // a device is read for each join
		t.Error("a suspended device joins at the other server")
	}
	if got := join(1); got != success {
		t.Fatal(got)
	}
	_, err = f.server.Ctl(t.Context(), "", "peer", "remove", f.lab.HomeNS(), "--yes")
	ok(t, err)
	for began := time.Now(); join(1) == success; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 2*time.Second {
			t.Fatal("a removed peer is served by the other server after two seconds")
		}
	}
}

// P6: PostgreSQL stalls, or is gone. Each request is answered within two
// seconds, /readyz says so within two, joins go on within five once it is back,
// and nothing piles up meanwhile.
func (f *fleet) away(begin func() (end func())) {
	t, span := f.t, 3*time.Second
	if os.Getenv("JOINERY_LONG") != "" {
		span = time.Minute
	}
	members := f.members[:8]
	readyz := "http://" + readOps(t, f.server) + "/readyz"
	join := func(m *member) bool {
		r, err := f.ns.Join(t.Context(), m.Device, sim.JoinOptions{})
		if err != nil || r.Err() != nil {
			return false
		}
		m.acknowledge(t, r)
		return true
	}
	for _, m := range members {
		if !join(m) {
			t.Fatal("no join before")
		}
	}
	before := residentKiB(t, f.server.PID())
	back := begin()
	began := time.Now()
	var asking sync.WaitGroup
	var slowest atomic.Int64
	for _, m := range members {
		asking.Go(func() {
			for time.Since(began) < span {
				asked := time.Now()
				if join(m) {
					t.Error("a join without a database")
					return
				}
				took := time.Since(asked)
				for old := slowest.Load(); int64(took) > old && !slowest.CompareAndSwap(old, int64(took)); old = slowest.Load() {
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	waitReady(t, readyz, false, began, 2*time.Second)
	asking.Wait()
	if took := time.Duration(slowest.Load()); took > 2*time.Second {
		t.Errorf("an answer took %s", took)
	}
	if grown := residentKiB(t, f.server.PID()) - before; grown > 16<<10 {
		t.Errorf("the server has grown by %d KiB", grown)
	}
	back()
	began = time.Now()
	for _, m := range members {
		for !join(m) {
			if time.Since(began) > 5*time.Second {
				t.Fatal("no join five seconds after the database is back")
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	waitReady(t, readyz, true, began, 5*time.Second)
	t.Logf("slowest answer %s, all well again after %s", time.Duration(slowest.Load()).Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
}

func readOps(t *testing.T, s *rig.Server) string {
	t.Helper()
	c, err := config.Read(s.Path("joinery.yaml"))
	ok(t, err)
	return c.Ops.Address
}

// waitReady waits until /readyz says that the server is ready, or that it is not.
func waitReady(t *testing.T, url string, want bool, began time.Time, within time.Duration) {
	t.Helper()
	for {
		resp, err := http.Get(url)
		ok(t, err)
		_ = resp.Body.Close()
		took := time.Since(began)
		switch is := resp.StatusCode == http.StatusOK; {
		case took > within:
			t.Fatalf("/readyz said %d after %s, want ready %v within %s", resp.StatusCode, took, want, within)
		case is == want:
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// residentKiB is the memory of a process.
func residentKiB(t *testing.T, pid int) (size int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	ok(t, err)
	_, rest, found := strings.Cut(string(text), "VmRSS:")
	if !found {
		t.Fatal("no VmRSS")
	}
	_, err = fmt.Sscan(rest, &size)
	ok(t, err)
	return size
}

// backedUp takes a backup, behind which joins go on.
func (f *fleet) backedUp() {
	f.t.Helper()
	made := f.joinery("ceremony", "identity", f.server.Path("backup.identity"))
	recipient := strings.TrimSpace(made[strings.LastIndex(made, " ")+1:])
	f.joinery("backup", "--config", f.config(), "--recipient", recipient, "-o", f.server.Path("joinery.backup"))
	f.joinAll(2)
}

// restoredElsewhere restores that backup into another database, and serves that:
// what was removed since is back, and no JoinNonce comes again.
func (f *fleet) restoredElsewhere(url string) {
	f.t.Helper()
	ok(f.t, f.server.Stop())
	c, err := config.Read(f.config())
	ok(f.t, err)
	c.Database.URL = url
	out, err := os.Create(f.config())
	ok(f.t, err)
	ok(f.t, config.Print(out, c))
	ok(f.t, out.Close())
	f.joinery("restore", f.server.Path("joinery.backup"), "--identity-file", f.server.Path("backup.identity"), "--config", f.config())
	f.refusedThenConfirmed("restored from the backup", func() {})
	f.joinAll(1)
	f.joinery("fsck", "--config", f.config())
}
