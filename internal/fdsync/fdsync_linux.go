package fdsync

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
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
	if err := q.submit(request{opcode: opSyncData, fd: uint32(fd)}); err != nil {
		giveBack(q)
		return unix.Fdatasync(fd)
	}
	// From here on no second sync can be asked instead: after one that failed the
	// next may succeed without what the first one lost.
	return q.outcome()
}

// queue is a context of the kernel's asynchronous I/O (io_setup(2)), with room for
// one request.
type queue struct {
	context uintptr
	done    *os.File // an eventfd, which the runtime polls
	eventFD uint32   // the same; its method Fd would make it blocking
	asked   uint64   // how many requests it has had, which is the number of the last
}

var queues struct {
	sync.Mutex
	// idle are queues that nobody uses. A process has as many as files that it ever
	// synced at once.
	idle []*queue
	// lost are those of which nobody knows whether an answer is still to come. Nobody
	// may take it for that of another request, and the kernel may still write to their
	// eventfd: it stays open.
	lost []*queue
}

// refused is whether this process was told that it has no asynchronous I/O.
var refused atomic.Bool

func take() (*queue, error) {
	queues.Lock()
	defer queues.Unlock()
	if last := len(queues.idle) - 1; last >= 0 {
		q := queues.idle[last]
		queues.idle = queues.idle[:last]
		return q, nil
	}
	if refused.Load() {
		return nil, unix.ENOSYS
	}
	q, err := newQueue()
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		refused.Store(true)
	}
	return q, err
}

func giveBack(q *queue) {
	queues.Lock()
	defer queues.Unlock()
	queues.idle = append(queues.idle, q)
}

func lose(q *queue) {
	queues.Lock()
	defer queues.Unlock()
	queues.lost = append(queues.lost, q)
}

// newQueue makes a queue. What allows requests and not to read their answers would
// leave each sync without one, so it looks first.
func newQueue() (*queue, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	q := &queue{done: os.NewFile(uintptr(fd), "eventfd"), eventFD: uint32(fd)}
	if err := kernel.setup(&q.context); err != nil {
		return nil, errors.Join(err, q.done.Close())
	}
	if _, err := kernel.answers(q.context, 0, new(answer)); err != nil {
		return nil, errors.Join(err, destroy(q.context), q.done.Close())
	}
	return q, nil
}

// request is struct iocb of linux/aio_abi.h.
type request struct {
	number  uint64 // comes back with the answer
	_       uint64 // key and flags
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
	number uint64 // of the request
	_      uint64 // its address
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
	q.asked++
	r.number, r.flags, r.eventFD = q.asked, flagEventFD, q.eventFD
	return kernel.submit(q.context, &r)
}

// errOtherAnswer cannot be: a queue has one request at a time.
var errOtherAnswer = errors.New("the kernel answered another request than the one it was asked")

// outcome waits for that of what was submitted, and lets others have the queue then;
// one that gave no answer nobody has again.
func (q *queue) outcome() error {
	a, err := q.wait()
	if err == nil && a.number != q.asked {
		err = errOtherAnswer
	}
	if err != nil {
		lose(q)
		return err
	}
	giveBack(q)
	if a.result < 0 {
		return unix.Errno(-a.result)
	}
	return nil
}

// wait gives the answer to what was submitted. With an error it is still to come.
func (q *queue) wait() (a answer, err error) {
	var count [8]byte
	_, _ = q.done.Read(count[:]) // what it cannot say, the next call waits for
	for {
		n, err := kernel.answers(q.context, 1, &a)
		if err == nil && n == 0 || errors.Is(err, unix.EINTR) {
			continue
		}
		return a, err
	}
}

// kernel is what is asked of it. Tests replace it.
var kernel = struct {
	setup  func(context *uintptr) error
	submit func(context uintptr, r *request) error
	// answers reads one answer where there is one, and waits for it where least is 1.
	answers func(context uintptr, least int, a *answer) (int, error)
}{
	setup: func(context *uintptr) error {
		_, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(context)), 0)
		return failed(errno)
	},
	submit: func(context uintptr, r *request) error {
		list := &r
		_, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, context, 1, uintptr(unsafe.Pointer(list)))
		return failed(errno)
	},
	answers: func(context uintptr, least int, a *answer) (int, error) {
		n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, context, uintptr(least), 1, uintptr(unsafe.Pointer(a)), 0, 0)
		return int(n), failed(errno)
	},
}

func destroy(context uintptr) error {
	_, _, errno := unix.Syscall(unix.SYS_IO_DESTROY, context, 0, 0)
	return failed(errno)
}

func failed(errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}
