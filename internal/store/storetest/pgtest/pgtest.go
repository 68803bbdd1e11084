// Package pgtest gives tests a PostgreSQL server of their own: made from the
// machine's binaries, reached over a Unix socket, gone when the test binary is.
// It never touches a cluster of the machine.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a running PostgreSQL.
type Server struct {
	dir     string
	bin     string
	keeper  *exec.Cmd
	orders  io.WriteCloser // the keeper ends the server when this closes
	mu      sync.Mutex
	free    []string // URLs of databases that Joinery can give again
	counter atomic.Int64
}

// Options say how a server keeps what is written.
type Options struct {
	// Sync makes commits survive a crash, as users have it. Without it a server
	// refuses to open unless it is told UnsafeNoSync.
	Sync bool
	// Settings are further lines of postgresql.conf.
	Settings []string
}

var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Shared gives the server that the tests of this binary share, which does not
// sync. It ends with the binary.
func Shared(t testing.TB) *Server {
	t.Helper()
	shared.once.Do(func() { shared.server, shared.err = start(Options{}) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// Start starts a server for one test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Database makes an empty database and gives its URL. It stays as long as the
// server does.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	url, err := s.newDatabase()
	if err != nil {
		t.Fatal(err)
	}
	return url
}

func (s *Server) newDatabase() (url string, err error) {
	name := fmt.Sprintf("test%d", s.counter.Add(1))
	return s.URL(name), s.Exec("postgres", "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'UTF8' STRATEGY file_copy")
}

// Joinery gives the URL of a database with the newest schema, which create
// makes in an empty one, and no rows but the first. Making a database takes
// half a second; so one that a test is done with is emptied and used again.
func (s *Server) Joinery(t testing.TB, create func(url string) error) string {
	t.Helper()
	url := s.takeFree()
	if url == "" {
		url = s.Database(t)
		if err := create(url); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := s.Exec(databaseOf(url), empty); err != nil {
			t.Error(err)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.free = append(s.free, url)
	})
	return url
}

func (s *Server) takeFree() (url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		url, s.free = s.free[n-1], s.free[:n-1]
	}
	return url
}

// empty takes every row but those that a new database has.
const empty = `SET session_replication_role = replica;
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
DO $$ DECLARE t text; BEGIN
	FOR t IN SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
		AND relname NOT IN ('joinery_schema', 'store', 'organisation')
	LOOP EXECUTE format('DELETE FROM %I', t); END LOOP;
END $$;
DELETE FROM organisation WHERE id <> (SELECT operator_org FROM store);
UPDATE store SET fence = 'none', fence_at = NULL, fence_note = '', jump = NULL, jumped = 0, join_nonce_floor = 0, receipt_epoch = 0;
UPDATE joinery_schema SET audit_id = 0, fleet = 0;`

// URL is where a database of the server is reached.
func (s *Server) URL(database string) string {
	return "postgres://joinery@/" + database + "?host=" + s.dir
}

func databaseOf(url string) string {
	_, rest, _ := strings.Cut(url, "@/")
	name, _, _ := strings.Cut(rest, "?")
	return name
}

// Exec runs statements in a database as the superuser.
func (s *Server) Exec(database, sql string) error { return s.ExecURL(s.URL(database), sql) }

// ExecURL is Exec where the URL of the database is known.
func (*Server) ExecURL(url, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	return c.PgConn().Exec(ctx, sql).Close()
}

// start makes a cluster in a directory of its own and starts it.
func start(o Options) (_ *Server, err error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	as, err := runner()
	if err != nil {
		return nil, err
	}
	// Short, because a socket's path is: and not below a directory of go test,
	// which only its owner can enter.
	dir, err := os.MkdirTemp("", "joinery-pg-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	if err := as.own(dir); err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	initdb := as.command(filepath.Join(bin, "initdb"), "-D", data, "-U", "joinery", "-A", "trust", "-N", "--no-locale", "-E", "UTF8")
	initdb.Dir = dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	s := &Server{dir: dir, bin: bin}
	if err := s.configure(o); err != nil {
		return nil, err
	}
	return s, s.run(as)
}

func (s *Server) configure(o Options) error {
	onOff := map[bool]string{false: "off", true: "on"}[o.Sync]
	lines := append([]string{
		"listen_addresses = ''", "unix_socket_directories = '" + s.dir + "'", "max_connections = 100",
		"fsync = " + onOff, "synchronous_commit = " + onOff, "full_page_writes = " + onOff,
		"logging_collector = off", "shared_buffers = 64MB", "autovacuum_naptime = 1min",
	}, o.Settings...)
	return appendFile(filepath.Join(s.dir, "data", "postgresql.conf"), strings.Join(lines, "\n")+"\n")
}

func appendFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// keeper runs the server as its child, crashes and starts it as it is told, and
// ends it, with its directory, when its own standard input ends: that happens
// however the test binary ends.
const keeper = `start() { "$server" -D "$dir/data" >>"$dir/log" 2>&1 & pid=$!; }
server="$1" dir="$2"
start
while read -r what; do case $what in
crash) kill -QUIT $pid; wait $pid;;
start) start;;
esac; done
kill -CONT $pid 2>/dev/null
kill -QUIT $pid 2>/dev/null
wait $pid
rm -rf "$dir"`

func (s *Server) run(as runAs) error {
	s.keeper = as.command("/bin/sh", "-c", keeper, "sh", filepath.Join(s.bin, "postgres"), s.dir)
	s.keeper.Dir = "/"
	// What ends the tests from a terminal must not end the keeper before its work.
	s.keeper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := s.keeper.StdinPipe()
	if err != nil {
		return err
	}
	s.orders = in
	if err := s.keeper.Start(); err != nil {
		return err
	}
	return s.waitReady()
}

// Crash ends the server as an immediate shutdown does: nothing is written any
// more, and every connection breaks.
func (s *Server) Crash(t testing.TB) {
	t.Helper()
	s.order(t, "crash")
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(s.dir, "data", "postmaster.pid")); errors.Is(err, os.ErrNotExist) {
			return
		}
		if time.Now().After(end) {
			t.Fatal("PostgreSQL does not end")
		}
	}
}

// Recover ends the server as a crash does and starts it as one that recovers from
// an archive: what follows is on a new timeline, as behind a restore to a point
// in time and behind a failover.
func (s *Server) Recover(t testing.TB) {
	t.Helper()
	s.Crash(t)
	signal := filepath.Join(s.dir, "data", "recovery.signal")
	as, err := runner()
	if err == nil {
		err = os.WriteFile(signal, nil, 0o600)
	}
	if err == nil {
		err = as.own(signal)
	}
	if err == nil {
		err = appendFile(filepath.Join(s.dir, "data", "postgresql.conf"), "restore_command = 'false'\n")
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Restart(t)
}

// Restart starts the server after Crash.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.order(t, "start")
	if err := s.waitReady(); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) order(t testing.TB, what string) {
	t.Helper()
	if _, err := io.WriteString(s.orders, what+"\n"); err != nil {
		t.Fatal(err)
	}
}

// Stall stops every process of the server where it is, as a machine that hangs
// does, until the function that it gives is called.
func (s *Server) Stall(t testing.TB) (resume func()) {
	t.Helper()
	signal := func(sig syscall.Signal, pids ...int) {
		for _, pid := range pids {
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Error(err)
			}
		}
	}
	list := func() []int {
		pids, err := s.PIDs()
		if err != nil {
			t.Fatal(err)
		}
		return pids
	}
	signal(syscall.SIGSTOP, list()[0]) // which makes no others from now on
	pids := list()
	signal(syscall.SIGSTOP, pids...)
	resume = sync.OnceFunc(func() { signal(syscall.SIGCONT, pids...) })
	t.Cleanup(resume)
	return resume
}

func (s *Server) waitReady() error {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := s.Exec("postgres", "SELECT 1")
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			s.Stop()
			return fmt.Errorf("PostgreSQL does not start: %w\n%s", err, log)
		}
	}
}

// Stop ends the server at once and removes its directory.
func (s *Server) Stop() {
	_ = s.orders.Close()
	_ = s.keeper.Wait()
}

// PIDs are the processes of the server, the first process first.
func (s *Server) PIDs() ([]int, error) {
	text, err := os.ReadFile(filepath.Join(s.dir, "data", "postmaster.pid"))
	if err != nil {
		return nil, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	first, err := strconv.Atoi(line)
	if err != nil {
		return nil, err
	}
	pids := []int{first}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		pid, parent := parentOf(name)
		if parent == first {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// CPUTime is the processor time that the server's processes have used, those
// that have ended included.
func (s *Server) CPUTime() (total time.Duration, err error) {
	pids, err := s.PIDs()
	if err != nil {
		return 0, err
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux
	for i, pid := range pids {
		fields := statFields(fmt.Sprintf("/proc/%d/stat", pid))
		last := 13 // user and system, of the process
		if i == 0 {
			last = 15 // and of children that have ended
		}
		for f := 11; f < last && last <= len(fields); f++ {
			ticks, err := strconv.Atoi(fields[f])
			if err != nil {
				return 0, err
			}
			total += time.Duration(ticks) * tick
		}
	}
	return total, nil
}

// parentOf reads a process and its parent from /proc/PID/stat; zeros where the
// process is gone.
func parentOf(stat string) (pid, parent int) {
	fields := statFields(stat)
	if len(fields) < 2 {
		return 0, 0
	}
	pid, _ = strconv.Atoi(filepath.Base(filepath.Dir(stat)))
	parent, _ = strconv.Atoi(fields[1])
	return pid, parent
}

// statFields gives /proc/PID/stat from the state on: PID (NAME) STATE PARENT …,
// where NAME may hold anything.
func statFields(stat string) []string {
	text, err := os.ReadFile(stat)
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// binaries finds the newest PostgreSQL: Debian's first, which is in nobody's
// PATH.
func binaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	slices.SortFunc(found, func(a, b string) int { return major(b) - major(a) })
	for _, name := range append(found, "/usr/local/pgsql/bin/initdb", "/usr/local/bin/initdb", "/usr/pgsql/bin/initdb") {
		dir := filepath.Dir(name)
		if executable(name) && executable(filepath.Join(dir, "postgres")) {
			return dir, nil
		}
	}
	return "", errors.New("these tests need PostgreSQL's server programs: sudo apt-get install postgresql " +
		"(make need-pg does it; the packaged cluster is not used and need not run)")
}

func major(initdb string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb))))
	return n
}

func executable(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// runAs is the user that runs PostgreSQL, which refuses to be root; empty is our
// own.
type runAs struct{ name string }

func runner() (runAs, error) {
	if os.Getuid() != 0 {
		return runAs{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if _, err := user.Lookup(name); err == nil {
			return runAs{name}, nil
		}
	}
	return runAs{}, errors.New("PostgreSQL does not run as root, and there is no user postgres: install Debian's package postgresql, or run the tests as another user")
}

// own gives dir to the user.
func (r runAs) own(dir string) error {
	if r.name == "" {
		return nil
	}
	u, err := user.Lookup(r.name)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	return os.Chown(dir, uid, gid)
}

func (r runAs) command(name string, args ...string) *exec.Cmd {
	if r.name != "" {
		u, _ := user.Lookup(r.name)
		args = append([]string{"--reuid=" + r.name, "--regid=" + u.Gid, "--init-groups", name}, args...)
		name = "setpriv"
	}
	return exec.Command(name, args...)
}
