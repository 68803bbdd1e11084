package fault

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"joinery/internal/sim"
	"joinery/test/rig"
)

// P5: the disk is full. Joins are refused with the code for what fails inside the
// server, nothing of a refused join is kept, and they go on within five seconds
// after there is room again, in the same process. The file system is really full
// where the test may mount one; a limit on the size of files shows the same to
// everybody else, through other errors of the system.
func TestDiskFull(t *testing.T) {
	t.Run("full file system", func(t *testing.T) {
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=24m,mode=0700"); err != nil {
			t.Skipf("no file system can be mounted here: %v", err)
		}
		t.Cleanup(func() { ok(t, unix.Unmount(dir, unix.MNT_DETACH)) })
		filler := filepath.Join(dir, "filler")
		diskFull(t, dir,
			func(*fleet) { fill(t, filler) },
			func(*fleet) { ok(t, os.Remove(filler)) })
	})
	t.Run("files that cannot grow", func(t *testing.T) {
		limit := func(f *fleet, bytes uint64) {
			t.Helper()
			ok(t, unix.Prlimit(f.server.PID(), unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: unix.RLIM_INFINITY}, nil))
		}
		diskFull(t, t.TempDir(),
			func(f *fleet) { limit(f, 16<<10) },
			func(f *fleet) { limit(f, unix.RLIM_INFINITY) })
	})
}

// fill writes a file until there is no room.
func fill(t *testing.T, name string) {
	t.Helper()
	file, err := os.Create(name)
	ok(t, err)
	for _, size := range []int{1 << 20, 4096, 1} {
		for err == nil {
			_, err = file.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
	ok(t, file.Close())
}

func diskFull(t *testing.T, dir string, fill, free func(*fleet)) {
	f := newFleetIn(t, dose{devices: 16, claims: 3}, dir, func(*rig.Server) {})
	pid := f.server.PID()
	for round := range 2 {
		for range 3 {
			f.mustJoin(t)
		}
		fill(f)
		// What is full shows at once or when the log has used up what it has.
		refused := 0
		for n := 0; refused < 32; n++ {
			if n == 20_000 {
				t.Fatal("joins go on for ever on a full disk")
			}
			m := f.members[n%len(f.members)]
			r, err := f.ns.Join(t.Context(), m.Device, sim.JoinOptions{})
			ok(t, err)
			switch r.ResultCode {
			case sim.ResultSuccess:
				ok(t, r.Err())
				m.acknowledge(t, r)
			case "Other":
				refused++
			default:
				t.Fatalf("refused with %s (%s), want Other", r.ResultCode, r.Description)
			}
		}
		if _, err := f.api.Claim(t.Context(), f.unclaimed[0]); err == nil {
			f.claimed, f.unclaimed = append(f.claimed, f.unclaimed[0]), f.unclaimed[1:]
		}
		free(f)
		freed := time.Now()
		f.recover(t)
		t.Logf("round %d: %d joins refused, the first one is accepted %v after there was room", round+1, refused, time.Since(freed).Round(time.Millisecond))
		f.mustJoin(t)
		f.waitReady(t, 5*time.Second)
	}
	if now := f.server.PID(); now != pid {
		t.Errorf("process %d became %d", pid, now)
	}
	ok(t, f.server.Kill())
	f.fsck()
	ok(t, f.server.Start(t.Context()))
	f.checkReplays()
	f.checkJoins()
	f.checkClaims()
}

// mustJoin joins every device.
func (f *fleet) mustJoin(t *testing.T) {
	t.Helper()
	for _, m := range f.members {
		r, err := f.ns.Join(t.Context(), m.Device, sim.JoinOptions{})
		ok(t, err)
		ok(t, r.Err())
		m.acknowledge(t, r)
	}
}

// recover joins one device again and again until it may, within the five seconds
// of the promise.
func (f *fleet) recover(t *testing.T) {
	t.Helper()
	m := f.members[0]
	for until := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		r, err := f.ns.Join(t.Context(), m.Device, sim.JoinOptions{})
		ok(t, err)
		if r.ResultCode == sim.ResultSuccess {
			ok(t, r.Err())
			m.acknowledge(t, r)
			return
		}
		if time.Now().After(until) {
			t.Fatalf("joins are still refused: %s (%s)", r.ResultCode, r.Description)
		}
	}
}

func (f *fleet) waitReady(t *testing.T, within time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for {
		status, err := f.server.Ready(ctx)
		if err == nil && status == http.StatusOK {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("/readyz: %d, %v", status, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
