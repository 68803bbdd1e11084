package bus

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ServeI2C serves connections of bare transactions until ctx ends, and then closes all
// of them.
//
// A command is half a dozen exchanges of a few bytes, so that what it costs is what
// the system asks for each: a read and a write. Connections therefore have no
// goroutine each, which would ask for a read in vain before each wait, but share a few
// loops that the system tells who has sent something. A chip that computes holds up
// the others of its loop for that long.
func ServeI2C(ctx context.Context, l net.Listener, e Elements) error {
	loops, err := newLoops(runtime.GOMAXPROCS(0))
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for _, p := range loops {
		wg.Go(p.run)
	}
	defer func() {
		for _, p := range loops {
			p.end()
		}
		wg.Wait()
	}()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for i := 0; ; i++ {
		conn, err := accept(ctx, l)
		if conn == nil {
			return err
		}
		_ = loops[i%len(loops)].add(conn, e) // where that fails this one is hung up, and the others go on
	}
}

// loop serves connections by one goroutine.
type loop struct {
	epoll, bell int // the bell ends it

	mu    sync.Mutex
	lines map[int32]*line // by descriptor
}

// line is one connection of a loop.
type line struct {
	fd int
	*talk
	// waits is that answers wait for a host that does not read; nothing is read from it
	// until it does.
	waits bool
}

func newLoops(n int) (loops []*loop, err error) {
	for range n {
		p := &loop{lines: map[int32]*line{}}
		if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			break
		}
		if p.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			_ = unix.Close(p.epoll)
			break
		}
		loops = append(loops, p)
		if err = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, p.bell, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(p.bell)}); err != nil {
			break
		}
	}
	if err != nil {
		for _, p := range loops {
			p.close()
		}
		return nil, err
	}
	return loops, nil
}

// add has the loop serve a connection, whose descriptor is copied: package net would
// wait for its bytes, too.
func (p *loop) add(conn net.Conn, e Elements) (err error) {
	defer func() { err = errors.Join(err, conn.Close()) }()
	c, ok := conn.(syscall.Conn)
	if !ok {
		return errors.New("bus: a connection that is no socket")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	n := &line{talk: newTalk(e)}
	var dup error
	if err := raw.Control(func(fd uintptr) { n.fd, dup = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil || dup != nil {
		return errors.Join(err, dup)
	}
	p.mu.Lock()
	p.lines[int32(n.fd)] = n
	p.mu.Unlock()
	if err := p.watch(unix.EPOLL_CTL_ADD, n, unix.EPOLLIN); err != nil {
		p.hangUp(n)
		return err
	}
	return nil
}

// watch says what the system is to tell of a line.
func (p *loop) watch(how int, n *line, events uint32) error {
	return unix.EpollCtl(p.epoll, how, n.fd, &unix.EpollEvent{Events: events, Fd: int32(n.fd)})
}

// end ends the loop.
func (p *loop) end() { _, _ = unix.Write(p.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// close closes all that the loop has.
func (p *loop) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for fd, n := range p.lines {
		n.leave()
		_ = unix.Close(int(fd))
	}
	_ = unix.Close(p.bell)
	_ = unix.Close(p.epoll)
}

func (p *loop) hangUp(n *line) {
	p.mu.Lock()
	delete(p.lines, int32(n.fd))
	p.mu.Unlock()
	n.leave()
	_ = unix.Close(n.fd)
}

// run serves until the bell rings.
func (p *loop) run() {
	defer p.close()
	events := make([]unix.EpollEvent, 128)
	for {
		k, err := happened(p.epoll, events)
		if k == 0 {
			k, err = unix.EpollWait(p.epoll, events, -1)
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return // cannot be: the descriptor is the loop's own
		}
		for _, event := range events[:max(k, 0)] {
			if event.Fd == int32(p.bell) {
				return
			}
			p.mu.Lock()
			n := p.lines[event.Fd]
			p.mu.Unlock()
			if n != nil && !p.serve(n) {
				p.hangUp(n)
			}
		}
	}
}

// serve goes on with a line that the system told of. It tells whether the line is to
// be kept.
func (p *loop) serve(n *line) bool {
	got := 0
	if !n.waits {
		var err error
		got, err = read(n.fd, n.space())
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			return true // the system tells again
		case err != nil, got == 0:
			return false
		}
	}
	for {
		answer, wrong := n.take(got)
		sent := 0
		if len(answer) > 0 {
			var err error
			if sent, err = write(n.fd, answer); err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
				return false
			}
		}
		n.answered(sent)
		switch {
		case sent < len(answer):
			return p.wait(n, true)
		case wrong != nil:
			return false // a connection that says nonsense is hung up
		case sent < enough:
			return p.wait(n, false)
		}
		got = 0
	}
}

// wait has the system tell when a line takes answers, or when it has frames.
func (p *loop) wait(n *line, answers bool) bool {
	if n.waits == answers {
		return true
	}
	n.waits = answers
	events := uint32(unix.EPOLLIN)
	if answers {
		events = unix.EPOLLOUT
	}
	return p.watch(unix.EPOLL_CTL_MOD, n, events) == nil
}

// The system is asked past Go's scheduler: none of these calls waits, and to tell the
// scheduler of each takes a fifth as long as the exchange itself.

func read(fd int, b []byte) (int, error) {
	n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return result(n, e)
}

func write(fd int, b []byte) (int, error) {
	n, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return result(n, e)
}

// happened gives what happened already.
func happened(epoll int, events []unix.EpollEvent) (int, error) {
	n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	return result(n, e)
}

func result(n uintptr, e unix.Errno) (int, error) {
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}
