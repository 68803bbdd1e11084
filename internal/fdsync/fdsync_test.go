//go:build linux

package fdsync

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestData syncs many files at once, with one processor, again and again: each
// call has its own answer, and what is idle afterwards serves the next.
func TestData(t *testing.T) {
	needsKernel(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const files = 16
	var all sync.WaitGroup
	for i := range files {
		f, err := os.Create(filepath.Join(t.TempDir(), "file"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		all.Go(func() {
			for range 20 {
				if _, err := f.Write(bytes.Repeat([]byte{byte(i)}, 5000)); err != nil {
					t.Error(err)
				}
				if err := Data(int(f.Fd())); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	queues.Lock()
	defer queues.Unlock()
	if n := len(queues.idle); n == 0 || n > files || len(queues.lost) > 0 {
		t.Errorf("%d queues idle of at most %d, %d lost", n, files, len(queues.lost))
	}
}

// needsKernel skips a test where this machine has no asynchronous I/O; else one queue
// at least is idle then.
func needsKernel(t *testing.T) {
	t.Helper()
	q, err := take()
	if err != nil {
		t.Skip("this machine has no asynchronous I/O: ", err)
	}
	giveBack(q)
}

// someFile gives a file that has something to sync.
func someFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.WriteString("text"); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestWhatCannotBeSynced gets the error that fdatasync gives.
func TestWhatCannotBeSynced(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	if err := Data(int(w.Fd())); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a pipe: %v", err)
	}
	if err := Data(1 << 20); !errors.Is(err, unix.EBADF) {
		t.Errorf("no file: %v", err)
	}
}

// TestFailsLater: what the kernel took and then could not do is an error. A read
// to where this process has no memory stands for a disk that fails.
func TestFailsLater(t *testing.T) {
	needsKernel(t)
	f := someFile(t)
	q, err := take()
	if err != nil {
		t.Fatal(err)
	}
	const opRead, nowhere = 0, 1
	if err := q.submit(request{opcode: opRead, fd: uint32(f.Fd()), buffer: nowhere, length: 4}); err != nil {
		t.Fatal(err)
	}
	if err := q.outcome(); !errors.Is(err, unix.EFAULT) {
		t.Errorf("%v, want %v", err, unix.EFAULT)
	}
	if err := Data(int(f.Fd())); err != nil {
		t.Errorf("and then a sync: %v", err)
	}
}

// TestNoAnswer: what was asked and got no answer failed, and nobody else reads that
// answer when it comes.
func TestNoAnswer(t *testing.T) {
	needsKernel(t)
	f := someFile(t)
	ask := func() *queue {
		q, err := take()
		if err == nil {
			err = q.submit(request{opcode: opSyncData, fd: uint32(f.Fd())})
		}
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	t.Cleanup(func() { queues.lost = nil })

	gone := ask()
	if err := destroy(gone.context); err != nil {
		t.Fatal(err)
	}
	if err := gone.outcome(); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a queue that is gone: %v", err)
	}
	late := ask()
	late.asked++ // as if that answer were one from before
	if err := late.outcome(); !errors.Is(err, errOtherAnswer) {
		t.Errorf("the answer to another request: %v", err)
	}
	if !slices.Equal(queues.lost, []*queue{gone, late}) || slices.Contains(queues.idle, gone) || slices.Contains(queues.idle, late) {
		t.Errorf("lost %v, idle %v", queues.lost, queues.idle)
	}
	if err := Data(int(f.Fd())); err != nil {
		t.Errorf("and then a sync: %v", err)
	}
}

// TestFallsBack: where the kernel lets this process have no queue, or take no request,
// a sync is a system call, and leaves nothing behind. What can never be is asked once.
func TestFallsBack(t *testing.T) {
	needsKernel(t)
	f := someFile(t)
	really := kernel
	t.Cleanup(func() {
		kernel = really
		refused.Store(false)
	})
	var asked int
	says := func(err error) error {
		asked++
		return err
	}
	setup := func(err error) { kernel.setup = func(*uintptr) error { return says(err) } }
	answers := func(err error) { kernel.answers = func(uintptr, int, *answer) (int, error) { return 0, says(err) } }
	submit := func(err error) { kernel.submit = func(uintptr, *request) error { return says(err) } }
	for _, c := range []struct {
		name  string
		what  func(error)
		fails error
		idle  bool // whether there is a queue already
		asked int  // in three syncs
	}{
		{"no room for a queue", setup, unix.EAGAIN, false, 3},
		{"no queue ever", setup, unix.ENOSYS, false, 1},
		{"no queue allowed", setup, unix.EPERM, false, 1},
		{"no answer allowed", answers, unix.EPERM, false, 1},
		{"no request allowed", submit, unix.EPERM, true, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			kept := queues.idle
			if !c.idle {
				queues.idle = nil
			}
			kernel, asked = really, 0
			refused.Store(false)
			c.what(c.fails)
			idle, open := len(queues.idle), descriptors(t)
			for range 3 {
				if err := Data(int(f.Fd())); err != nil {
					t.Error(err)
				}
			}
			if asked != c.asked {
				t.Errorf("the kernel was asked %d times, want %d", asked, c.asked)
			}
			if len(queues.idle) != idle || len(queues.lost) != 0 {
				t.Errorf("%d idle, want %d; %d lost", len(queues.idle), idle, len(queues.lost))
			}
			if n := descriptors(t); n != open {
				t.Errorf("%d descriptors are open, %d were before", n, open)
			}
			queues.idle = kept
		})
	}
}

// descriptors is how many this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
