package main

import (
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// machine says on which processors server and client run; -1 is wherever the
// kernel likes.
type machine struct{ server, client int }

// newMachine takes the first two processors that this program may use. Where
// there is one only, nothing is pinned.
func newMachine() machine {
	free := machine{-1, -1}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil || set.Count() < 2 {
		return free
	}
	var found []int
	for cpu := 0; len(found) < 2; cpu++ {
		if set.IsSet(cpu) {
			found = append(found, cpu)
		}
	}
	return machine{found[0], found[1]}
}

func (m machine) pinned() bool { return m.server >= 0 }

// onServer and onClient start a process on the processor of its side. The Go
// runtime sees there that it has one processor, and so uses one.
func (m machine) onServer(cmd *exec.Cmd) error { return startOn(m.server, cmd) }
func (m machine) onClient(cmd *exec.Cmd) error { return startOn(m.client, cmd) }

// startOn starts a process on a processor: it inherits the affinity of the
// thread that makes it, which ends with the goroutine that keeps it locked.
func startOn(cpu int, cmd *exec.Cmd) error {
	if cpu < 0 {
		return cmd.Start()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			done <- err
			return
		}
		done <- cmd.Start()
	}()
	return <-done
}

// onDisk tells whether a directory is on a disk, not in memory.
func onDisk(dir string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC
}
