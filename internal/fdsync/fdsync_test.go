//go:build linux

package fdsync

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestData syncs many files at once, with one processor, again and again: each
// call has its own answer, and what is idle afterwards serves the next.
func TestData(t *testing.T) {
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
	idle.Lock()
	defer idle.Unlock()
	if n := len(idle.queues); n == 0 || n > files {
		t.Errorf("%d queues idle of at most %d, or this machine has no asynchronous sync", n, files)
	}
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
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.WriteString("text"); err != nil {
		t.Fatal(err)
	}
	q, err := take()
	if err != nil {
		t.Skip("this machine has no asynchronous I/O: ", err)
	}
	defer giveBack(q)
	const opRead, nowhere = 0, 1
	if err := q.submit(request{opcode: opRead, fd: uint32(f.Fd()), buffer: nowhere, length: 4}); err != nil {
		t.Fatal(err)
	}
	if err := q.wait(); !errors.Is(err, unix.EFAULT) {
		t.Errorf("%v, want %v", err, unix.EFAULT)
	}
	if err := Data(int(f.Fd())); err != nil {
		t.Errorf("and then a sync: %v", err)
	}
}
