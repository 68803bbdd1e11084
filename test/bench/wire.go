package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"joinery/internal/sim/chip"
	"joinery/internal/sim/load"
)

// Hosts that talk to elements as boards do, and a bare echo of their frames. Both are
// one thread that asks the system who has sent something, and nothing else, so that
// what they cost is what sockets cost.

// wireOrder is what both need to know.
type wireOrder struct {
	Network, Address string
	// Hosts is how many connections there are, each to an element of its own.
	Hosts int
	// Echo is that a bare echo answers.
	Echo             bool
	Warmup, Duration time.Duration
	PID              int // the server's
}

// wireResult is what the hosts found out.
type wireResult struct {
	Commands uint64
	CPU      float64 // of the server, in seconds
	Seconds  float64
	Busy     float64 // of the hosts' processor, 0 to 1
}

func (r wireResult) perSecond() float64    { return float64(r.Commands) / r.Seconds }
func (r wireResult) perCPUSecond() float64 { return float64(r.Commands) / r.CPU }

// address is the elements' I²C address.
const address = 0x59

// wireStep is a frame and how long its answer is, acknowledgement included.
type wireStep struct {
	frame  []byte
	answer int
}

// wireSteps are a command as drivers do it: wake, its answer, the command, its count,
// the rest, idle.
func wireSteps() []wireStep {
	frame := func(kind, to byte, data ...byte) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{kind, to}, uint16(len(data))), data...)
	}
	const aes = chip.TextResponse + 16
	return []wireStep{
		{frame('W', 0), 1},
		{[]byte{'R', address, 0, chip.MinResponse}, 1 + chip.MinResponse},
		{frame('W', address, append([]byte{3}, chip.Command(chip.OpAES, 0x40, 0, make([]byte, 16)...)...)...), 1},
		{[]byte{'R', address, 0, 1}, 2},
		{[]byte{'R', address, 0, aes - 1}, aes},
		{frame('W', address, 2), 1},
	}
}

// wire is connections that one thread serves.
type wire struct {
	epoll  int
	events []unix.EpollEvent
}

func newWire() (*wire, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return &wire{epoll, make([]unix.EpollEvent, 128)}, err
}

func (w *wire) add(fd int) error {
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// ready gives the descriptors that have something now. Hosts ask again and again and
// never sleep: a processor that sleeps takes as long to wake as several exchanges take,
// and that would be measured.
func (w *wire) ready() ([]unix.EpollEvent, error) {
	n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(w.epoll), uintptr(unsafe.Pointer(unsafe.SliceData(w.events))), uintptr(len(w.events)), 0, 0, 0)
	if e != 0 {
		return nil, e
	}
	return w.events[:n], nil
}

// wait waits until some have, or a while.
func (w *wire) wait() ([]unix.EpollEvent, error) {
	n, err := unix.EpollWait(w.epoll, w.events, 100)
	if errors.Is(err, unix.EINTR) {
		err = nil
	}
	return w.events[:max(n, 0)], err
}

// read and write ask past Go's scheduler: they do not wait.

func read(fd int, b []byte) (int, error) {
	n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func write(fd int, b []byte) error {
	n, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if e != 0 {
		return e
	}
	if int(n) != len(b) {
		return io.ErrShortWrite
	}
	return nil
}

// descriptor gives a connection's descriptor, which is the caller's to close, and closes
// the connection: package net would wait for its bytes, too.
func descriptor(conn net.Conn) (fd int, err error) {
	defer func() { err = errors.Join(err, conn.Close()) }()
	c, ok := conn.(syscall.Conn)
	if !ok {
		return -1, errors.New("a connection that is no socket")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	var dup error
	err = raw.Control(func(own uintptr) { fd, dup = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, dup)
}

// hosts are connections, each somewhere in a command.
type hosts struct {
	*wire
	echo  bool
	steps []wireStep
	// whole is how many bytes answer the steps up to each, it included.
	whole []int
	lines map[int]*hostLine
	// want is the answers to a whole command, which are all alike.
	want []byte
}

type hostLine struct {
	step int
	got  []byte
}

// connect makes the connections and has each begin a command.
func connect(o wireOrder) (*hosts, error) {
	w, err := newWire()
	if err != nil {
		return nil, err
	}
	h := &hosts{wire: w, echo: o.Echo, steps: wireSteps(), lines: map[int]*hostLine{}}
	whole := 0
	for _, s := range h.steps {
		whole += s.answer
		h.whole = append(h.whole, whole)
	}
	for i := range o.Hosts {
		conn, err := net.Dial(o.Network, o.Address)
		if err != nil {
			return nil, err
		}
		if err := selectElement(conn, i); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		fd, err := descriptor(conn)
		if err != nil {
			return nil, err
		}
		h.lines[fd] = &hostLine{got: make([]byte, 0, 64)}
		if err := errors.Join(w.add(fd), write(fd, h.steps[0].frame)); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// talk talks for a time, and gives how many commands were answered in it.
func (h *hosts) talk(ctx context.Context, d time.Duration) (commands uint64, err error) {
	for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; {
		ready, err := h.ready()
		if err != nil {
			return commands, err
		}
		for _, e := range ready {
			done, err := h.goOn(int(e.Fd))
			if err != nil {
				return commands, err
			}
			if done {
				commands++
			}
		}
	}
	return commands, ctx.Err()
}

// goOn takes what came and sends the next frame. It tells whether a command is done.
func (h *hosts) goOn(fd int) (done bool, err error) {
	l := h.lines[fd]
	n, err := read(fd, l.got[len(l.got):cap(l.got)])
	if err != nil || n == 0 {
		return false, fmt.Errorf("a host was hung up: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	l.got = l.got[:len(l.got)+n]
	if len(l.got) < h.whole[l.step] {
		return false, nil
	}
	if l.step++; l.step == len(h.steps) {
		if h.want == nil {
			h.want = bytes.Clone(l.got)
		}
		if !h.echo && !bytes.Equal(l.got, h.want) {
			return false, fmt.Errorf("an element answered %x, another %x", l.got, h.want)
		}
		l.step, l.got, done = 0, l.got[:0], true
	}
	return done, write(fd, h.steps[l.step].frame)
}

// close hangs up.
func (h *hosts) close() error {
	err := unix.Close(h.epoll)
	for fd := range h.lines {
		err = errors.Join(err, unix.Close(fd))
	}
	return err
}

// talkToElements has hosts send commands, one frame at a time each, and measures the
// server.
func talkToElements(ctx context.Context, o wireOrder) (r wireResult, err error) {
	h, err := connect(o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if _, err := h.talk(ctx, o.Warmup); err != nil {
		return r, err
	}
	awake := append([]byte{1}, chip.Awake.Packet()...)
	if !o.Echo && (len(h.want) < 6 || !bytes.Equal(h.want[1:6], awake)) {
		return r, fmt.Errorf("no element: its answers are %x", h.want)
	}
	server, self := load.Processes{o.PID}, load.Processes{os.Getpid()}
	theirs, err := server.Usage()
	if err != nil {
		return r, err
	}
	mine, err := self.Usage()
	if err != nil {
		return r, err
	}
	// Processor time counts in hundredths of a second: where none was counted, go on.
	for began := time.Now(); r.CPU == 0; {
		more, err := h.talk(ctx, o.Duration)
		if err != nil {
			return r, err
		}
		r.Commands += more
		theirsNow, err := server.Usage()
		if err != nil {
			return r, err
		}
		mineNow, err := self.Usage()
		if err != nil {
			return r, err
		}
		r.Seconds = time.Since(began).Seconds()
		r.CPU, r.Busy = (theirsNow.CPU - theirs.CPU).Seconds(), (mineNow.CPU-mine.CPU).Seconds()/r.Seconds
	}
	return r, nil
}

// selectElement has a connection talk to an element by its place.
func selectElement(conn net.Conn, place int) error {
	name := fmt.Sprintf("#%d", place)
	if _, err := conn.Write(append([]byte{'S', 0, 0, byte(len(name))}, name...)); err != nil {
		return err
	}
	ok := []byte{0}
	if _, err := io.ReadFull(conn, ok); err != nil || ok[0] != 1 {
		return fmt.Errorf("element %s: %x, %w", name, ok, err)
	}
	return nil
}

// serveWireEcho answers frames with as many bytes as elements do, and does nothing else.
// The first line that it prints says that it listens.
func serveWireEcho(ctx context.Context, o wireOrder, out io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	w, err := newWire()
	if err != nil {
		return err
	}
	l, err := net.Listen(o.Network, o.Address)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fd, err := descriptor(conn)
			if err != nil || w.add(fd) != nil {
				return
			}
		}
	}()
	fmt.Fprintln(out, l.Addr())
	in, answer := make([]byte, 256), slices.Concat([]byte{1}, make([]byte, 255))
	for ctx.Err() == nil {
		ready, err := w.ready()
		if len(ready) == 0 && err == nil {
			ready, err = w.wait()
		}
		if err != nil {
			return err
		}
		for _, e := range ready {
			n, err := read(int(e.Fd), in)
			if err != nil || n < 4 {
				_ = unix.Close(int(e.Fd))
				continue
			}
			length := 1
			if in[0] == 'R' {
				length += int(in[3])
			}
			if write(int(e.Fd), answer[:length]) != nil {
				_ = unix.Close(int(e.Fd))
			}
		}
	}
	return nil
}
