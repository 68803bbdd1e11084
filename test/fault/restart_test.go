package fault

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"joinery/internal/config"
	"joinery/internal/handover"
	"joinery/internal/sim"
	"joinery/internal/sim/lab"
	"joinery/test/rig"
)

// joinsPerSecond is the load under which nothing may fail.
const joinsPerSecond = 200

// How long the load lasts, and how often the server is restarted meanwhile.
func restarts() (times int, pause time.Duration) {
	if os.Getenv("JOINERY_LONG") != "" {
		return 20, 6 * time.Second
	}
	return 3, 500 * time.Millisecond
}

// newBusyFleet is a fleet large enough that a device is always free to join.
func newBusyFleet(t *testing.T) *fleet {
	return newFleet(t, dose{devices: 1200, claims: 1})
}

// load lets devices join, 200 a second whatever the server does, until stop,
// which fails the test for each join without a right answer and tells how many
// there were.
type load struct {
	f       *fleet
	end     context.CancelFunc
	ticking sync.WaitGroup
	joining sync.WaitGroup
	free    chan *member

	mu     sync.Mutex
	sent   int
	failed []error
	slow   time.Duration
}

func (f *fleet) load() *load {
	ctx, end := context.WithCancel(f.t.Context())
	l := &load{f: f, end: end, free: make(chan *member, len(f.members))}
	for _, m := range f.members {
		l.free <- m
	}
	l.ticking.Go(func() {
		tick := time.NewTicker(time.Second / joinsPerSecond)
		defer tick.Stop()
		began, started := time.Now(), 0
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			// A tick may come late on a busy machine; none is left out.
			for due := int(time.Since(began) * joinsPerSecond / time.Second); started < due; started++ {
				l.joining.Go(l.joinOne)
			}
		}
	})
	return l
}

func (l *load) joinOne() {
	began := time.Now()
	var err error
	select {
	case m := <-l.free:
		err = l.f.joinOnce(m)
		l.free <- m
	default:
		err = errors.New("every device waits for an answer")
	}
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	l.slow = max(l.slow, took)
	if err != nil {
		l.failed = append(l.failed, fmt.Errorf("%s after %v: %w", began.Format("15:04:05.000"), took, err))
	}
}

// joinOnce joins once and checks the answer, and that JoinNonces rise.
func (f *fleet) joinOnce(m *member) error {
	r, err := f.ns.Join(context.WithoutCancel(f.t.Context()), m.Device, sim.JoinOptions{})
	if err != nil {
		return err
	}
	if err := r.Err(); err != nil {
		return err
	}
	if n := len(m.fresh); n > 0 && m.fresh[n-1] >= r.Accepted.JoinNonce {
		return fmt.Errorf("device %s: JoinNonce %d after %d", m.DevEUI(), r.Accepted.JoinNonce, m.fresh[n-1])
	}
	m.acknowledge(f.t, r)
	return nil
}

// stop ends the load and judges it.
func (l *load) stop() {
	l.f.t.Helper()
	l.end()
	l.ticking.Wait()
	l.joining.Wait()
	l.f.t.Logf("%d joins, %d failed, the slowest took %v", l.sent, len(l.failed), l.slow)
	for _, err := range l.failed[:min(10, len(l.failed))] {
		l.f.t.Error(err)
	}
	if len(l.failed) > 0 {
		l.f.t.Logf("the server's log:\n%s", l.f.server.Log())
	}
	if l.sent == 0 {
		l.f.t.Error("nobody joined")
	}
}

// P23: the running server hands over to a successor, again and again, and no
// join fails.
func TestHandOverUnderLoad(t *testing.T) {
	f := newBusyFleet(t)
	l := f.load()
	times, pause := restarts()
	for range times {
		time.Sleep(pause)
		before := f.server.PID()
		ok(t, f.server.Succeed(t.Context()))
		if f.server.PID() == before {
			t.Error("the same process serves")
		}
	}
	time.Sleep(pause)
	l.stop()
	f.checkJoins()
	if n := strings.Count(f.server.Log(), `msg="handed over"`); n != times {
		t.Errorf("%d servers handed over, want %d:\n%s", n, times, f.server.Log())
	}
	for line := range strings.Lines(f.server.Log()) {
		if strings.Contains(line, `msg="handed over"`) {
			t.Log(strings.TrimSpace(line))
		}
	}
	ok(t, f.server.Stop())
	f.fsck()
}

// A successor that cannot start leaves everything to the server that runs.
func TestBrokenSuccessor(t *testing.T) {
	f := newBusyFleet(t)
	good, err := os.ReadFile(f.server.Path("joinery.yaml"))
	ok(t, err)
	l := f.load()
	for name, change := range map[string][2]string{
		"no such key":        {"limits:", "limitz:"},
		"another database":   {"path: joinery.db", "path: other.db"},
		"no such key file":   {"file: keys/server.age", "file: keys/none.age"},
		"no such key of TLS": {"key: pki/", "key: none/"},
	} {
		bad := strings.Replace(string(good), change[0], change[1], 1)
		if bad == string(good) {
			t.Fatalf("%s: %q is not in the configuration", name, change[0])
		}
		path := f.server.Path("broken.yaml")
		ok(t, os.WriteFile(path, []byte(bad), 0o600))
		if out, err := f.server.Run(t.Context(), "", "joinery", "serve", "--config", path, "--successor"); err == nil {
			t.Errorf("%s: the successor ran:\n%s", name, out)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	l.stop()
	f.checkJoins()
	if pid := f.server.Holder(); pid != f.server.PID() {
		t.Errorf("process %d holds the database, want %d", pid, f.server.PID())
	}
}

// A successor may end at each step. Until it serves, no join fails for that: the
// old server goes on, or takes the database back.
func TestSuccessorEndsAtEachStep(t *testing.T) {
	f := newBusyFleet(t)
	c, err := f.server.Config()
	ok(t, err)
	database, err := filepath.EvalSymlinks(c.Database.Path)
	ok(t, err)
	name := sha256.Sum256([]byte("sqlite:" + database))
	l := f.load()
	for _, step := range []string{"connected", "sockets", "yielded", "locked"} {
		ctx := t.Context()
		conn, err := net.Dial("unix", c.API.HandoverSocket())
		ok(t, err)
		ok(t, conn.Close())
		if step == "connected" {
			continue
		}
		p, sockets, err := handover.Succeed(ctx, c.API.HandoverSocket(), hex.EncodeToString(name[:]))
		ok(t, err)
		if len(sockets) != 5 {
			t.Errorf("%d sockets, want 5", len(sockets))
		}
		if step != "sockets" {
			ok(t, p.Yield(ctx))
		}
		if step == "locked" {
			lock, err := os.OpenFile(database+".lock", os.O_RDWR, 0)
			ok(t, err)
			ok(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
			time.AfterFunc(300*time.Millisecond, func() { _ = lock.Close() })
		}
		ok(t, p.Close())
		handover.CloseAll(sockets)
		time.Sleep(700 * time.Millisecond)
	}
	// And after all that it can still hand over.
	ok(t, f.server.Succeed(t.Context()))
	time.Sleep(200 * time.Millisecond)
	l.stop()
	f.checkJoins()
	if n := strings.Count(f.server.Log(), "takes it back"); n != 2 {
		t.Errorf("the server took the database back %d times, want 2", n)
	}
	ok(t, f.server.Stop())
	f.fsck()
}

// kill -9 of a successor at any instant: the old server goes on, or the next
// start is clean.
func TestKilledSuccessor(t *testing.T) {
	f := newBusyFleet(t)
	kills := 4
	if os.Getenv("JOINERY_LONG") != "" {
		kills = 60
	}
	began := time.Now()
	ok(t, f.server.Succeed(t.Context()))
	usual := time.Since(began)
	var wentOn, anew int
	for range kills {
		for _, m := range f.members[:20] {
			ok(t, f.joinOnce(m))
		}
		next, err := f.server.Spawn(f.server.Command("--successor"))
		ok(t, err)
		time.Sleep(usual/2 + rand.N(usual*3/4))
		ok(t, next.KillAndWait())
		if f.somebodyServes() {
			wentOn++
		} else {
			anew++
			ok(t, f.server.Kill())
			ok(t, f.server.Start(t.Context()))
		}
		f.checkReplays()
		f.checkJoins()
	}
	t.Logf("%d times the old server went on, %d times it was started anew", wentOn, anew)
	ok(t, f.server.Stop())
	f.fsck()
}

// somebodyServes tells whether a join is answered over a new connection.
func (f *fleet) somebodyServes() bool {
	ns, err := f.lab.NS("", lab.PeerOptions{}) // with connections of its own
	ok(f.t, err)
	f.ns = ns
	for range 3 {
		if err = f.joinOnce(f.members[20]); err == nil {
			return true
		}
		time.Sleep(100 * time.Millisecond)
	}
	f.t.Log(err)
	return false
}

// Socket activation: the service manager keeps the sockets while the server is
// stopped and started, and no join fails.
func TestRestartWithSocketsKept(t *testing.T) {
	f := newBusyFleet(t)
	ok(t, f.server.Stop())
	c, err := f.server.Config()
	ok(t, err)
	m := newManager(t, c)
	ok(t, f.server.StartWith(t.Context(), m.command(f.server)))
	times, pause := restarts()
	l := f.load()
	for range min(times, 8) {
		time.Sleep(pause)
		ok(t, f.server.Stop())
		ok(t, f.server.StartWith(t.Context(), m.command(f.server)))
	}
	time.Sleep(pause)
	// A server with passed sockets hands over, too.
	ok(t, f.server.Succeed(t.Context()))
	time.Sleep(pause)
	l.stop()
	f.checkJoins()
	if _, err := os.Stat(c.API.Socket); err != nil {
		t.Errorf("the operator socket is the service manager's: %v", err)
	}
}

// manager is a service manager with sockets.
type manager struct {
	names []string
	files []*os.File
}

func newManager(t *testing.T, c config.Config) *manager {
	t.Helper()
	m := &manager{}
	add := func(name, network, address string) {
		l, err := net.Listen(network, address)
		ok(t, err)
		t.Cleanup(func() { _ = l.Close() })
		filer, good := l.(interface{ File() (*os.File, error) })
		if !good {
			t.Fatalf("%T has no file", l)
		}
		file, err := filer.File()
		ok(t, err)
		t.Cleanup(func() { _ = file.Close() })
		m.names, m.files = append(m.names, name), append(m.files, file)
	}
	add("interop", "tcp", c.Interop.Address)
	add("api-socket", "unix", c.API.Socket)
	add("ops", "tcp", c.Ops.Address)
	return m
}

// command starts a server with the sockets, as systemd does: LISTEN_PID must be
// the server's own process.
func (m *manager) command(s *rig.Server) *exec.Cmd {
	cmd := s.Command()
	cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	cmd.Env = append(os.Environ(), fmt.Sprintf("LISTEN_FDS=%d", len(m.files)), "LISTEN_FDNAMES="+strings.Join(m.names, ":"))
	cmd.ExtraFiles = m.files
	return cmd
}
