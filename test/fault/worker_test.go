package fault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"joinery/internal/config"
	"joinery/internal/sim"
	"joinery/test/rig"
)

var buildWorker = sync.OnceValues(func() (string, error) {
	path := filepath.Join(programDir, "softworker")
	cmd := exec.Command("go", "build", "-o", path, "joinery/test/softworker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = errors.Join(err, errors.New(string(out)))
	}
	return path, err
})

// withWorker lets a server have its keys in a worker.
func withWorker(t *testing.T, s *rig.Server) {
	t.Helper()
	program, err := buildWorker()
	ok(t, err)
	c, err := config.Read(s.Path("joinery.yaml"))
	ok(t, err)
	identity := sealToIdentity(t, s.Path(c.Keys.File), s.Path(c.Keys.PassphraseFile))
	ok(t, os.WriteFile(s.Path("pin"), []byte("1234\n"), 0o600))
	c.Keys.Backend, c.Keys.PassphraseFile = config.BackendPKCS11, ""
	p := &c.Keys.PKCS11
	p.Module, p.InitArgs, p.Token, p.PINFile, p.Worker = c.Keys.File, identity, "test", "pin", program
	p.MinimumLevel = "in-memory"
	var text bytes.Buffer
	ok(t, config.Print(&text, c))
	ok(t, os.WriteFile(s.Path("joinery.yaml"), text.Bytes(), 0o600))
}

// sealToIdentity seals a key file to an age identity, which opens at once, where
// a passphrase takes a second on purpose. It gives the identity's file.
func sealToIdentity(t *testing.T, keyFile, passphraseFile string) string {
	t.Helper()
	passphrase, err := os.ReadFile(passphraseFile)
	ok(t, err)
	old, err := age.NewScryptIdentity(strings.TrimRight(string(passphrase), "\r\n"))
	ok(t, err)
	sealed, err := os.Open(keyFile)
	ok(t, err)
	defer func() { _ = sealed.Close() }()
	plain, err := age.Decrypt(sealed, old)
	ok(t, err)
	identity, err := age.GenerateX25519Identity()
	ok(t, err)
	var out bytes.Buffer
	w, err := age.Encrypt(&out, identity.Recipient())
	ok(t, err)
	_, err = io.Copy(w, plain)
	ok(t, err)
	ok(t, w.Close())
	ok(t, os.WriteFile(keyFile, out.Bytes(), 0o600))
	path := keyFile + ".identity"
	ok(t, os.WriteFile(path, []byte(identity.String()+"\n"), 0o600))
	return path
}

var opened = regexp.MustCompile(`msg="keyring opened".* process=(\d+)`)

// workers gives the processes that had the keys of a server, in order.
func workers(t *testing.T, s *rig.Server) (pids []int) {
	t.Helper()
	for _, m := range opened.FindAllStringSubmatch(s.Log(), -1) {
		pid, err := strconv.Atoi(m[1])
		ok(t, err)
		pids = append(pids, pid)
	}
	return pids
}

// crowd joins devices all the time.
type crowd struct {
	joined, failed atomic.Int64
	last, longest  atomic.Int64 // of joins that were answered: when, and the longest time between two
	stop           func()
}

func (f *fleet) crowd() *crowd {
	c := &crowd{}
	ctx, cancel := context.WithCancel(f.t.Context())
	var busy sync.WaitGroup
	c.last.Store(time.Now().UnixNano())
	for i := range joiners {
		busy.Go(func() {
			for n := i; ctx.Err() == nil; n += joiners {
				c.join(ctx, f, f.members[n%len(f.members)])
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	c.stop = sync.OnceFunc(func() {
		cancel()
		busy.Wait()
	})
	f.t.Cleanup(c.stop)
	return c
}

func (c *crowd) join(ctx context.Context, f *fleet, m *member) {
	r, err := f.ns.Join(ctx, m.Device, sim.JoinOptions{})
	if err == nil {
		err = r.Err()
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		c.failed.Add(1)
		f.t.Logf("a join failed: %v", err)
	default:
		c.joined.Add(1)
		now := time.Now().UnixNano()
		if gap := now - c.last.Swap(now); gap > c.longest.Load() {
			c.longest.Store(gap)
		}
	}
}

// newFleetWithWorker makes a server that has its keys in a worker, and devices.
func newFleetWithWorker(t *testing.T) *fleet {
	t.Helper()
	f := newFleetIn(t, dose{devices: 3 * joiners}, t.TempDir(), func(s *rig.Server) { withWorker(t, s) })
	return f
}

// P7: the process that has the keys is killed at any instant, again and again. At
// most the joins in flight fail, the next is answered within a second, and nobody
// tries a PIN for that more than once a process.
func TestWorkerKilled(t *testing.T) {
	kills := 5
	if long() {
		kills = 100
	}
	f := newFleetWithWorker(t)
	c := f.crowd()
	for range kills {
		time.Sleep(300 * time.Millisecond)
		pids := workers(t, f.server)
		ok(t, syscall.Kill(pids[len(pids)-1], syscall.SIGKILL))
		before := c.joined.Load()
		eventually(t, "joins go on", func() bool {
			return len(workers(t, f.server)) > len(pids) && c.joined.Load() > before+joiners
		})
	}
	c.stop()
	gap := time.Duration(c.longest.Load())
	t.Logf("%d joins, %d failed at %d kills, longest time without a join %v (promised: 1s)", c.joined.Load(), c.failed.Load(), kills, gap)
	if failed := c.failed.Load(); failed > int64(kills*joiners) {
		t.Errorf("%d joins failed, more than can have been in flight", failed)
	}
	if limit := 3 * time.Second; gap > limit || long() && gap > time.Second {
		t.Errorf("no join was answered for %v", gap)
	}
	if n := pinTries(t, f.server); n != len(workers(t, f.server)) {
		t.Errorf("the PIN was tried %d times by %d processes", n, len(workers(t, f.server)))
	}
	ok(t, f.server.Stop())
	f.fsck()
	ok(t, f.server.Start(t.Context()))
	if strings.Contains(f.server.Log(), "panic") {
		t.Error("somebody panicked")
	}
}

// The process that has the keys is replaced, and then the whole server, while
// joins come: none fails.
func TestWorkerReplacedUnderLoad(t *testing.T) {
	f := newFleetWithWorker(t)
	c := f.crowd()
	const times = 3
	for range times {
		n := len(workers(t, f.server))
		ok(t, syscall.Kill(f.server.PID(), syscall.SIGUSR1))
		eventually(t, "it is replaced", func() bool { return len(workers(t, f.server)) > n })
		time.Sleep(200 * time.Millisecond)
	}
	ok(t, f.server.Succeed(t.Context()))
	time.Sleep(500 * time.Millisecond)
	c.stop()
	t.Logf("%d joins, longest time without one %v", c.joined.Load(), time.Duration(c.longest.Load()))
	if failed := c.failed.Load(); failed > 0 {
		t.Errorf("%d joins failed", failed)
	}
	pids := workers(t, f.server)
	if len(pids) != 1+times+1 {
		t.Errorf("%d processes had the keys", len(pids))
	}
	for _, pid := range pids[:times] {
		eventually(t, "the old ones end", func() bool { return syscall.Kill(pid, 0) != nil })
	}
}

// A PIN that the token refuses is tried once: the server stays up and says why it
// is not ready, until somebody puts the right one in place and says so.
func TestWrongPIN(t *testing.T) {
	f := newFleetWithWorker(t)
	ok(t, f.server.Stop())
	ok(t, os.Remove(f.server.Path("pin.tries")))
	ok(t, os.WriteFile(f.server.Path("pin"), []byte("4321\n"), 0o600))
	ok(t, f.server.StartFenced(t.Context())) // serves, and is not ready
	const hint = "refused the PIN"
	wrong := func(tries int) {
		t.Helper()
		time.Sleep(3 * time.Second) // the watch looks every two
		if status, body := readyz(t, f.server); status != http.StatusServiceUnavailable || !strings.Contains(body, hint) || !strings.Contains(body, "SIGHUP") {
			t.Errorf("/readyz: %d %s", status, body)
		}
		if n := pinTries(t, f.server); n != tries {
			t.Errorf("the PIN was tried %d times, want %d", n, tries)
		}
	}
	wrong(1)
	status, err := f.api.Status(t.Context())
	ok(t, err)
	if status.Ready || !strings.Contains(status.Reason, hint) {
		t.Errorf("status: %+v", status)
	}
	if r, err := f.ns.Join(t.Context(), f.members[0].Device, sim.JoinOptions{}); err == nil && r.Err() == nil {
		t.Error("a join was answered without keys")
	}
	ok(t, syscall.Kill(f.server.PID(), syscall.SIGHUP))
	wrong(2)
	// A successor does not take over what it cannot serve, at the price of one try.
	if err := f.server.Succeed(t.Context()); err == nil || !strings.Contains(err.Error(), hint) {
		t.Errorf("a successor took over: %v", err)
	}
	wrong(3)
	ok(t, os.WriteFile(f.server.Path("pin"), []byte("1234\n"), 0o600))
	wrong(3)
	ok(t, syscall.Kill(f.server.PID(), syscall.SIGHUP))
	eventually(t, "it is ready", func() bool {
		status, _ := readyz(t, f.server)
		return status == http.StatusOK
	})
	r, err := f.ns.Join(t.Context(), f.members[0].Device, sim.JoinOptions{})
	ok(t, err)
	ok(t, r.Err())
}

func pinTries(t *testing.T, s *rig.Server) int {
	t.Helper()
	text, err := os.ReadFile(s.Path("pin.tries"))
	ok(t, err)
	return bytes.Count(text, []byte("\n"))
}

func readyz(t *testing.T, s *rig.Server) (int, string) {
	t.Helper()
	c, err := config.Read(s.Path("joinery.yaml"))
	ok(t, err)
	res, err := http.Get("http://" + c.Ops.Address + "/readyz")
	ok(t, err)
	body, err := io.ReadAll(res.Body)
	ok(t, errors.Join(err, res.Body.Close()))
	return res.StatusCode, string(body)
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: it did not happen within 30s", what)
		}
	}
}
