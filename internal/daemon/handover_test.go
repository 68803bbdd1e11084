package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"joinery/client"
	"joinery/internal/config"
	"joinery/internal/handover"
	"joinery/internal/store"
	"joinery/internal/store/storetest/pgtest"
)

// A server hands over to a successor: addresses and paths stay, and whoever has
// a connection to the old one is answered on it, as who they are.
func TestHandOver(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { testHandOver(t, installation(t)) })
	t.Run("PostgreSQL", func(t *testing.T) {
		c := installation(t)
		c.Database = config.Database{URL: pgtest.Start(t, pgtest.Options{Sync: true}).Database(t)}
		must(t, store.Create(t.Context(), DatabaseOptions(c)))
		testHandOver(t, c)
	})
}

func testHandOver(t *testing.T, c config.Config) {
	told := serviceManager(t)
	first := start(t, c, nil)
	waitFor(t, func() bool { return first.health.Load() != nil })
	operator, err := client.New(client.Options{Socket: c.API.Socket})
	must(t, err)
	defer operator.Close()
	_, err = operator.AddOrganisation(t.Context(), client.NewOrganisation{Name: "before"})
	must(t, err)

	second, err := Open(t.Context(), c, Options{Successor: true})
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- second.Run(ctx) }()
	waitFor(t, func() bool { return second.health.Load() != nil && first.retired() })

	// On the connection to the old server, by way of the new one.
	_, err = operator.AddOrganisation(t.Context(), client.NewOrganisation{Name: "meanwhile"})
	must(t, err)
	if status, _ := get(t, "http://"+second.OpsAddr().String()+"/readyz"); status != http.StatusOK {
		t.Errorf("/readyz: %d", status)
	}
	if first.InteropAddr().String() != second.InteropAddr().String() {
		t.Errorf("%v became %v", first.InteropAddr(), second.InteropAddr())
	}
	// It ended its connection with that answer, and so itself.
	must(t, first.stopped(10*time.Second))

	orgs, err := operator.Organisations(t.Context())
	must(t, err)
	var names []string
	for _, o := range orgs {
		names = append(names, o.Name)
	}
	if !slices.Contains(names, "before") || !slices.Contains(names, "meanwhile") {
		t.Errorf("organisations: %v", names)
	}
	stop()
	must(t, errors.Join(<-ended, second.Close()))
	for _, path := range []string{c.API.Socket, c.API.HandoverSocket()} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	got := told()
	for _, want := range []string{"READY=1", fmt.Sprintf("MAINPID=%d", os.Getpid()), "STOPPING=1"} {
		if !slices.Contains(got, want) {
			t.Errorf("the service manager was told %q, and not %q", got, want)
		}
	}
}

// retired tells whether each answer ends its connection. A successor may serve a
// moment before; a connection whose last answer came then ends as idle ones do.
func (r running) retired() bool { return r.core.retiring.Load() }

// stopped waits for a server that ends by itself.
func (r running) stopped(within time.Duration) error {
	select {
	case <-r.ended:
		return r.stop()
	case <-time.After(within):
		return errors.New("the server does not end")
	}
}

// serviceManager listens as one, and gives what it was told so far.
func serviceManager(t *testing.T) (told func() []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { _ = manager.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() (all []string) {
		buf := make([]byte, 64)
		must(t, manager.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		for {
			n, err := manager.Read(buf)
			if err != nil {
				return all
			}
			all = append(all, string(buf[:n]))
		}
	}
}

// The service manager hears that the server works, and no more when its database
// does not answer.
func TestWatchdog(t *testing.T) {
	told := serviceManager(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	p := start(t, installation(t), nil)
	waitFor(t, func() bool { return slices.Contains(told(), "WATCHDOG=1") })
	must(t, p.core.holders.db.Close())
	time.Sleep(50 * time.Millisecond)
	told()
	time.Sleep(100 * time.Millisecond)
	if got := told(); slices.Contains(got, "WATCHDOG=1") {
		t.Errorf("with a closed database: %q", got)
	}
	t.Setenv("WATCHDOG_PID", "1")
	if watchdogTime() != 0 {
		t.Error("the watchdog of another process is fed")
	}
}

// A hand-over that hangs does not count as work for ever.
func TestWatchdogSeesAHandOverThatHangs(t *testing.T) {
	var p Program
	p.letGoAt(time.Now())
	if !p.works(t.Context()) {
		t.Error("a hand-over that has just begun is taken for a defect")
	}
	p.letGoAt(time.Now().Add(-2 * lettingTimeout))
	if p.works(t.Context()) {
		t.Error("a hand-over that hangs is taken for work")
	}
}

// A successor does not lie in wait with the sockets for a database that somebody
// else holds.
func TestSuccessorDoesNotLieInWait(t *testing.T) {
	long := yieldedTimeout
	yieldedTimeout = 100 * time.Millisecond
	t.Cleanup(func() { yieldedTimeout = long })
	c := installation(t)
	db, err := store.Open(t.Context(), DatabaseOptions(c))
	must(t, err)
	defer func() { _ = db.Close() }()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.API.HandoverSocket(), Net: "unix"})
	must(t, err)
	defer func() { _ = l.Close() }()
	go func() { // ends as a crash does, while another process has the database
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		give := func() ([]handover.Socket, error) { return []handover.Socket{{Name: socketHandover, Listener: l}}, nil }
		if s, err := handover.Meet(t.Context(), conn, databaseName(c.Database), give); err == nil {
			_ = s.Close()
		}
	}()
	opened := make(chan error, 1)
	go func() {
		p, err := Open(t.Context(), c, Options{Successor: true})
		if err == nil {
			err = p.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		if !errors.Is(err, store.ErrLocked) {
			t.Errorf("got %v, want the lock", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for ever")
	}
}

// A configuration with other addresses takes over what stays, and binds the rest.
func TestSuccessorWithOtherAddresses(t *testing.T) {
	c := installation(t)
	first := start(t, c, nil)
	waitFor(t, func() bool { return first.health.Load() != nil })
	other := c
	other.API.Address = ""
	other.Ops.Address = "127.0.0.2:0"
	second := startWith(t, other, Options{Successor: true})
	must(t, first.stopped(10*time.Second))
	if second.APIAddr() != nil || second.OpsAddr().String() == first.OpsAddr().String() ||
		second.InteropAddr().String() != first.InteropAddr().String() {
		t.Errorf("interop %v, API %v, monitoring %v", second.InteropAddr(), second.APIAddr(), second.OpsAddr())
	}
	if conn, err := net.Dial("tcp", first.OpsAddr().String()); err == nil {
		_ = conn.Close()
		t.Error("somebody listens on the address that nobody wants any more")
	}
	must(t, second.stop())
}

// A server that ends while somebody has its sockets leaves their paths: whoever
// has them may serve there.
func TestPathsOutliveTheServerThatGaveThem(t *testing.T) {
	c := installation(t)
	first := start(t, c, nil)
	waitFor(t, func() bool { return first.health.Load() != nil })
	p, sockets, err := handover.Succeed(t.Context(), c.API.HandoverSocket(), databaseName(c.Database))
	must(t, err)
	defer handover.CloseAll(sockets)
	must(t, first.stop())
	for _, path := range []string{c.API.Socket, c.API.HandoverSocket()} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Errorf("whoever has the sockets cannot be reached: %v", err)
			continue
		}
		must(t, conn.Close())
	}
	must(t, p.Close())
}
