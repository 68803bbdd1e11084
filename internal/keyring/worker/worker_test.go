package worker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/keyring/soft"
)

// as, in the environment, says what this program is: a worker over the software
// backend, or a server that has one. Empty: the tests.
const as = "JOINERY_TEST_AS"

// orders are what a test's worker is told.
type orders struct {
	Dir     string // where the keys are
	PIN     string // the file of the PIN, which is right when it is "right"
	Tries   string // a file that gets a line for each try of the PIN
	Ballast int    // how much memory to take, in MiB
}

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(as) {
	case "":
		os.Exit(m.Run())
	case "worker":
		err = Serve(slog.New(slog.NewTextHandler(os.Stderr, nil)), openForTest)
	case "server":
		err = serverForTest()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

var ballast []byte

// openForTest is what joinery-hsm does with a token, with a key file.
func openForTest(ctx context.Context, config []byte) (Opened, error) {
	var o orders
	if err := json.Unmarshal(config, &o); err != nil {
		return Opened{}, err
	}
	ballast = bytes.Repeat([]byte{1}, o.Ballast<<20)
	if o.PIN != "" {
		if err := tryPIN(o); err != nil {
			return Opened{}, err
		}
	}
	token, err := soft.Open(ctx, soft.Options{
		KeyFile: filepath.Join(o.Dir, "keys"), Unlock: soft.Unlock{IdentityFile: filepath.Join(o.Dir, "identity")},
	})
	if err != nil {
		return Opened{}, err
	}
	return Opened{Keys: keyring.New(token), Backend: "soft", Token: "for tests"}, nil
}

func tryPIN(o orders) error {
	f, err := os.OpenFile(o.Tries, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteString("try\n"); err != nil {
		return err
	}
	pin, err := os.ReadFile(o.PIN)
	if err != nil {
		return err
	}
	if string(pin) != "right" {
		return fmt.Errorf("%w: user PIN of token test", keyring.ErrPIN)
	}
	return f.Close()
}

// serverForTest starts a worker, tells its process, and waits to be killed.
func serverForTest() error {
	k, err := Start(context.Background(), options(os.Getenv("JOINERY_TEST_DIR")))
	if err != nil {
		return err
	}
	fmt.Println(k.current.Load().pid())
	time.Sleep(time.Minute)
	return nil
}

func options(dir string) Options {
	return optionsOf(orders{Dir: dir})
}

func optionsOf(o orders) Options {
	config, err := json.Marshal(o)
	if err != nil {
		panic(err) // three strings and a number
	}
	return Options{
		Program: os.Args[0], Args: []string{"-test.run=^$"}, Env: []string{as + "=worker"},
		Config: config, every: 100 * time.Millisecond,
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// keyFiles makes the keys of a test's worker.
func keyFiles(tb testing.TB) (dir string, master [32]byte) {
	tb.Helper()
	dir = tb.TempDir()
	master, err := keyringtest.NewSoftFile(dir, "maker-1")
	must(tb, err)
	return dir, master
}

// started gives keys that are closed when the test ends, and the log.
func started(tb testing.TB, o Options) (*Keys, *logBuffer) {
	tb.Helper()
	log := &logBuffer{}
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	k, err := Start(context.Background(), o)
	must(tb, err)
	tb.Cleanup(func() { must(tb, k.Close()) })
	return k, log
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: it did not happen within 20s", what)
		}
	}
}

// Keys in a worker pass the contract of every keyring.
func TestContract(t *testing.T) {
	keyringtest.Run(t, func(tb testing.TB) keyringtest.Fixture {
		dir, master := keyFiles(tb)
		k, _ := started(tb, options(dir))
		return keyringtest.Fixture{Keyring: k, Master: "maker-1", MasterKey: master}
	})
}

// load asks for answers from many sides until stop, which gives how many there
// were, how many failed, and the longest time between two that did not.
func load(t *testing.T, k *Keys) (stop func() (answered, failed int64, gap time.Duration)) {
	t.Helper()
	f := keyringtest.Fixture{Keyring: k, Master: "maker-1"}
	key := make([]byte, 16)
	ns, as := f.KEK(t, key, joinery.KEKForNS, "ns"), f.KEK(t, key, joinery.KEKForAS, "as")
	d := keyringtest.NewDevice(true)
	ks := f.SealedKeySet(t, d)
	r := keyring.AcceptRequest{
		KeySet: ks, Frame: d.JoinRequest(1), NSKEK: ns, ASKEK: as,
		Activation: joinery.Activation{
			KeySet: ks.ID, Type: joinery.JoinTypeJoin, JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, OptNeg: true,
			Root: ks.Root10, Count: 1, JoinNonce: 1, Policy: joinery.AppSKeyWrapped,
		},
	}
	var answered, failed, last, longest atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	var busy sync.WaitGroup
	last.Store(time.Now().UnixNano())
	for range 8 {
		busy.Go(func() {
			for ctx.Err() == nil {
				one, cancel := context.WithTimeout(context.Background(), 3*time.Second)
				_, err := k.Accept(one, r)
				cancel()
				if err != nil {
					failed.Add(1)
					t.Logf("a verb failed: %v", err)
					continue
				}
				answered.Add(1)
				now := time.Now().UnixNano()
				if gap := now - last.Swap(now); gap > longest.Load() {
					longest.Store(gap)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	return func() (int64, int64, time.Duration) {
		cancel()
		busy.Wait()
		return answered.Load(), failed.Load(), time.Duration(longest.Load())
	}
}

// P7: the worker is killed again and again. At most the verbs in flight fail, and
// the next is answered within a second.
func TestKilledAgainAndAgain(t *testing.T) {
	dir, _ := keyFiles(t)
	k, log := started(t, options(dir))
	stop := load(t, k)
	const kills = 6
	for range kills {
		time.Sleep(150 * time.Millisecond)
		waitFor(t, "a worker serves", func() bool { return k.current.Load() != nil })
		p := k.current.Load()
		must(t, p.cmd.Process.Kill())
		waitFor(t, "another serves", func() bool { now := k.current.Load(); return now != nil && now != p })
	}
	answered, failed, gap := stop()
	t.Logf("%d answered, %d failed, longest gap %v", answered, failed, gap)
	if failed > 0 {
		t.Errorf("%d verbs failed, though each could be asked again", failed)
	}
	if gap > 2*time.Second { // the machine of the tests does other things besides
		t.Errorf("nobody was answered for %v", gap)
	}
	if s := k.Stats(); s.Restarts != kills || !s.Serving {
		t.Errorf("%+v\n%s", s, log)
	}
}

// A worker is replaced while verbs come: none fails.
func TestReplacedUnderLoad(t *testing.T) {
	dir, _ := keyFiles(t)
	k, log := started(t, options(dir))
	stop := load(t, k)
	var pids []int
	for range 4 {
		pids = append(pids, k.current.Load().pid())
		must(t, k.Replace(t.Context()))
		time.Sleep(50 * time.Millisecond)
	}
	answered, failed, gap := stop()
	t.Logf("%d answered, longest gap %v", answered, gap)
	if failed > 0 {
		t.Errorf("%d verbs failed", failed)
	}
	if s := k.Stats(); s.Replaced["ordered"] != 4 || s.Restarts != 0 {
		t.Errorf("%+v\n%s", s, log)
	}
	for _, pid := range pids {
		waitFor(t, "replaced workers end", func() bool { return syscall.Kill(pid, 0) != nil })
	}
}

// A worker that grew too large is replaced, but not right after its start.
func TestReplacedForItsMemory(t *testing.T) {
	dir, _ := keyFiles(t)
	o := optionsOf(orders{Dir: dir, Ballast: 64})
	o.MaxResident = 48 << 20
	k, log := started(t, o)
	waitFor(t, "it is replaced", func() bool { return k.Stats().Replaced["memory"] > 0 })
	// Told of one that is looked at while it is young, which on a busy machine may
	// not be the first.
	waitFor(t, "somebody is told that the limit is too low", func() bool { return strings.Contains(log.String(), "recycle_rss is too low") })
	if s := k.Stats(); s.Resident < 64<<20 {
		t.Errorf("it is said to have %d bytes", s.Resident)
	}
}

// tries counts the lines of a file.
func tries(t *testing.T, o orders) int {
	t.Helper()
	text, err := os.ReadFile(o.Tries)
	must(t, err)
	return bytes.Count(text, []byte("\n"))
}

// A PIN that the token refuses is tried once at each order of the operator's, and
// never by itself.
func TestWrongPIN(t *testing.T) {
	dir, _ := keyFiles(t)
	o := orders{Dir: dir, PIN: filepath.Join(dir, "pin"), Tries: filepath.Join(dir, "tries")}
	must(t, os.WriteFile(o.PIN, []byte("wrong"), 0o600))
	options := optionsOf(o)
	if _, err := Start(t.Context(), options); !errors.Is(err, keyring.ErrPIN) {
		t.Fatalf("a command that needs the keys: %v, want ErrPIN", err)
	}
	options.Locked = true
	k, log := started(t, options)
	refused := func(want int) {
		t.Helper()
		began := time.Now()
		err := k.Ready(t.Context())
		if !errors.Is(err, keyring.ErrPIN) || !errors.Is(err, keyring.ErrToken) || joinery.CodeOf(err) != joinery.CodeUnavailable {
			t.Errorf("ready: %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v to say so", took)
		}
		time.Sleep(500 * time.Millisecond) // several looks
		if n := tries(t, o); n != want {
			t.Errorf("the PIN was tried %d times, want %d", n, want)
		}
	}
	refused(2)
	if err := k.Reopen(t.Context()); !errors.Is(err, keyring.ErrPIN) {
		t.Errorf("reopen: %v", err)
	}
	refused(3)
	must(t, os.WriteFile(o.PIN, []byte("right"), 0o600))
	refused(3) // nobody looks at the file by himself
	must(t, k.Reopen(t.Context()))
	must(t, k.Ready(t.Context()))
	must(t, k.Reopen(t.Context())) // another in the place of the one that serves
	if n := tries(t, o); n != 5 {
		t.Errorf("the PIN was tried %d times", n)
	}

	// It is wrong when the worker is to be replaced: the old one goes on, and
	// when that ends, none is started.
	must(t, os.WriteFile(o.PIN, []byte("wrong"), 0o600))
	if err := k.Replace(t.Context()); !errors.Is(err, keyring.ErrPIN) {
		t.Errorf("replace: %v", err)
	}
	must(t, k.Ready(t.Context()))
	if err := k.Replace(t.Context()); !errors.Is(err, keyring.ErrPIN) {
		t.Errorf("replace again: %v", err)
	}
	must(t, k.current.Load().cmd.Process.Kill())
	waitFor(t, "nobody serves", func() bool { return k.current.Load() == nil })
	refused(6)
	if s := k.Stats(); !s.Refused || s.Serving {
		t.Errorf("%+v", s)
	}
	if !strings.Contains(log.String(), "send SIGHUP") {
		t.Errorf("the log does not say what to do:\n%s", log)
	}
}

// What cannot be opened is tried again, further and further apart, and said.
func TestKeysThatCannotBeOpened(t *testing.T) {
	dir, _ := keyFiles(t)
	if _, err := Start(t.Context(), options(dir+"x")); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("a start without keys: %v", err)
	}
	missing := options(dir)
	missing.Program = filepath.Join(dir, "none")
	if _, err := Start(t.Context(), missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a start without a program: %v", err)
	}
	none := options(dir)
	none.Program, none.Args = "/bin/true", nil
	if _, err := Start(t.Context(), none); !errors.Is(err, keyring.ErrToken) {
		t.Errorf("a program that is no worker: %v", err)
	}

	k, log := started(t, options(dir))
	must(t, os.Rename(filepath.Join(dir, "keys"), filepath.Join(dir, "away")))
	must(t, k.current.Load().cmd.Process.Kill())
	waitFor(t, "it is tried", func() bool { return strings.Count(log.String(), "cannot be opened") >= 2 })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := k.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ready, with little time: %v", err)
	}
	if err := k.Ready(t.Context()); !errors.Is(err, keyring.ErrToken) || !strings.Contains(err.Error(), "right now") {
		t.Errorf("ready: %v", err)
	}
	must(t, os.Rename(filepath.Join(dir, "away"), filepath.Join(dir, "keys")))
	waitFor(t, "it is opened again", func() bool { return k.Ready(t.Context()) == nil })
}

// A worker with master keys that the server does not take is not used.
func TestAdmit(t *testing.T) {
	dir, _ := keyFiles(t)
	k, _ := started(t, options(dir))
	var asked atomic.Int64
	refuse := errors.New("another key of that name")
	admit := func(_ context.Context, masters []keyring.Master) error {
		if len(masters) != 1 || masters[0].Name != "maker-1" {
			t.Errorf("%+v", masters)
		}
		if asked.Add(1) == 2 {
			return refuse
		}
		return nil
	}
	must(t, k.Admit(t.Context(), admit))
	before := k.current.Load()
	if err := k.Replace(t.Context()); !errors.Is(err, refuse) || k.current.Load() != before {
		t.Errorf("replaced all the same: %v", err)
	}
	must(t, k.Replace(t.Context()))
}

// A worker that stands still is killed, and another takes its place.
func TestWorkerThatHangs(t *testing.T) {
	dir, _ := keyFiles(t)
	k, log := started(t, options(dir))
	p := k.current.Load()
	must(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	waitFor(t, "another serves", func() bool { now := k.current.Load(); return now != nil && now != p })
	must(t, k.Ready(t.Context()))
	if !strings.Contains(log.String(), "does not answer well") {
		t.Error(log)
	}
}

// What ends a service ends its server first: the worker goes on until then.
func TestSignalsDoNotEndAWorker(t *testing.T) {
	dir, _ := keyFiles(t)
	k, _ := started(t, options(dir))
	p := k.current.Load()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		must(t, p.cmd.Process.Signal(s))
	}
	time.Sleep(100 * time.Millisecond)
	must(t, k.Ready(t.Context()))
	if k.current.Load() != p {
		t.Error("it was another worker that answered")
	}
}

// A worker ends with its server, however that ended.
func TestWorkerEndsWithItsServer(t *testing.T) {
	dir, _ := keyFiles(t)
	server := exec.Command(os.Args[0], "-test.run=^$")
	server.Env = append(os.Environ(), as+"=server", "JOINERY_TEST_DIR="+dir)
	server.Stderr = os.Stderr
	out, err := server.StdoutPipe()
	must(t, err)
	must(t, server.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	must(t, err)
	must(t, syscall.Kill(pid, 0)) // it is there
	must(t, server.Process.Kill())
	_ = server.Wait()
	waitFor(t, "the worker ends", func() bool { return gone(pid) })
}

// gone tells whether a process has ended, perhaps without anybody who waits for it.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}

func TestStats(t *testing.T) {
	dir, _ := keyFiles(t)
	k, _ := started(t, options(dir))
	must(t, k.Ready(t.Context()))
	_, err := k.OwnerToken(t.Context(), 1, 1)
	must(t, err)
	s := k.Stats().Verbs["owner-token"]
	if s.Count != 1 || s.Failed != 0 || s.Sum <= 0 {
		t.Errorf("%+v", s)
	}
	for i, n := range s.Within {
		if i > 0 && n < s.Within[i-1] {
			t.Errorf("%v", s.Within)
		}
	}
}
