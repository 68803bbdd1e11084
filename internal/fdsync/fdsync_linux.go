// Package fdsync waits for the disk without keeping a processor from others.
//
// While a goroutine is in a system call, Go's runtime lends its processor to
// others only after it has noticed, some 20 µs to 10 ms later. A server that has
// one processor, and syncs some hundred times a second, spends a fifth of its time
// so. Here the kernel is asked to sync, and the goroutine waits for its answer as
// it would for a network's.
package fdsync

import (
	"errors"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Data returns when all that was written to fd, and the file's size, is on disk,
// as fdatasync does; with an error nobody knows what is. Where the kernel, or what
// it allows this process, has no asynchronous sync, it is fdatasync.
func Data(fd int) error {
	q, err := take()
	if err != nil {
		return unix.Fdatasync(fd)
	}
	defer giveBack(q)
	if err := q.submit(request{opcode: opSyncData, fd: uint32(fd)}); err != nil {
		return unix.Fdatasync(fd)
	}
	// From here on no second sync can be asked instead: after one that failed the
	// next may succeed without what the first one lost.
	return q.wait()
}

// queue is a context of the kernel's asynchronous I/O (io_setup(2)), with room for
// one request.
type queue struct {
	context uintptr
	done    *os.File // an eventfd, which the runtime polls
	eventFD uint32   // the same; its method Fd would make it blocking
}

// idle are queues that nobody uses. A process has as many as files that it ever
// synced at once.
var idle struct {
	sync.Mutex
	queues []*queue
}

func take() (*queue, error) {
	idle.Lock()
	defer idle.Unlock()
	if last := len(idle.queues) - 1; last >= 0 {
		q := idle.queues[last]
		idle.queues = idle.queues[:last]
		return q, nil
	}
	return newQueue()
}

func giveBack(q *queue) {
	idle.Lock()
	defer idle.Unlock()
	idle.queues = append(idle.queues, q)
}

func newQueue() (*queue, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	q := &queue{done: os.NewFile(uintptr(fd), "eventfd"), eventFD: uint32(fd)}
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&q.context)), 0); errno != 0 {
		return nil, errors.Join(errno, q.done.Close())
	}
	return q, nil
}

// request is struct iocb of linux/aio_abi.h.
type request struct {
	_       [2]uint64 // what comes back with the answer; key and flags
	opcode  uint16
	_       int16 // priority
	fd      uint32
	buffer  uint64
	length  uint64
	_       [2]uint64 // offset; reserved
	flags   uint32
	eventFD uint32
}

// answer is struct io_event of linux/aio_abi.h.
type answer struct {
	_      [2]uint64 // of the request
	result int64
	_      int64
}

// Of linux/aio_abi.h.
const (
	opSyncData  = 3 // IOCB_CMD_FDSYNC
	flagEventFD = 1 // IOCB_FLAG_RESFD
)

// submit hands a request to the kernel. With an error nothing was begun.
func (q *queue) submit(r request) error {
	r.flags, r.eventFD = flagEventFD, q.eventFD
	list := &r
	if _, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, q.context, 1, uintptr(unsafe.Pointer(&list))); errno != 0 {
		return errno
	}
	return nil
}

// wait gives the outcome of what was submitted.
func (q *queue) wait() error {
	var count [8]byte
	_, _ = q.done.Read(count[:]) // what it cannot say, the next call waits for
	var a answer
	for {
		n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, q.context, 1, 1, uintptr(unsafe.Pointer(&a)), 0, 0)
		switch {
		case errno == unix.EINTR || errno == 0 && n == 0:
			continue
		case errno != 0:
			return errno
		case a.result < 0:
			return unix.Errno(-a.result)
		}
		return nil
	}
}
