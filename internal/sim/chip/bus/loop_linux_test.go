package bus

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"joinery/internal/sim/chip"
)

// served serves a chip over a socket, and gives what dials it.
func served(t *testing.T, network, address string) func() net.Conn {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- ServeI2C(ctx, l, One(New(newChip(t), Options{}))) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func() net.Conn {
		c, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
}

var infoFrames = append(append(frame('W', 0, nil), frame('W', address, append([]byte{wordCommand}, chip.Command(chip.OpInfo, 0, 0)...))...), 'R', address, 0, 7)

// Hosts over sockets: frame by frame, byte by byte, and many frames before the first
// answer is read; one that says nonsense is hung up after its answers, one that has no
// more to say gets the rest of them.
func TestServeI2C(t *testing.T) {
	for network, a := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "socket")} {
		dial := served(t, network, a)
		want := append([]byte{1, 1, 1}, unhex(t, "07000060028038")...)
		all := func(c net.Conn, want []byte) {
			t.Helper()
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: got %.40x, %v, want %.40x", network, got, err, want)
			}
		}
		c := dial()
		for _, b := range infoFrames {
			if _, err := c.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		all(c, want)

		// More answers than a socket takes, of which the host reads none before it has
		// sent all and has no more to say.
		const times = 8_000
		host := dial()
		if _, err := host.Write(append(bytes.Clone(infoFrames), bytes.Repeat([]byte{'R', address, 4, 0}, times)...)); err != nil {
			t.Fatal(err)
		}
		half, ok := host.(interface{ CloseWrite() error })
		if !ok {
			t.Fatal("a socket that is not closed by halves")
		}
		if err := half.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		all(host, append(bytes.Clone(want), bytes.Repeat(append([]byte{1}, bytes.Repeat([]byte{0xFF}, 1024)...), times)...))
		if n, err := host.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%s: after the last frame: %d, %v", network, n, err)
		}

		rude := dial()
		if _, err := rude.Write(append(bytes.Clone(infoFrames), 'X')); err != nil {
			t.Fatal(err)
		}
		all(rude, want)
		if _, err := rude.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%s: after nonsense: %v", network, err)
		}
		if _, err := c.Write(infoFrames); err != nil {
			t.Fatal(err)
		}
		all(c, want) // the others are served on
	}
}

// descriptors gives how many this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// Many hosts of which each sends half a frame and no more, some who read none of what
// they asked for, and some who only knock: they cost a descriptor each and no goroutine,
// the one who works is served, and when they are gone nothing of them is left.
func TestManyHosts(t *testing.T) {
	const many, some = 1_000, 8 // some that come and go with what else the process does
	dial := served(t, "unix", filepath.Join(t.TempDir(), "socket"))
	works := dial()
	step{infoFrames[:4], []byte{1}}.over(t, works) // the wake
	descriptorsBefore, goroutines := descriptors(t), runtime.NumGoroutine()
	hosts := make([]net.Conn, many)
	for i := range hosts {
		hosts[i] = dial()
		switch i % 3 {
		case 0:
			_, _ = hosts[i].Write([]byte{'W', address, 0, 200, wordCommand})
		case 1:
			if i < 100 { // what the system keeps for each is much
				_, _ = hosts[i].Write(bytes.Repeat([]byte{'R', address, 4, 0}, 1_000))
			}
		}
	}
	step{infoFrames[4 : len(infoFrames)-4], []byte{1}}.over(t, works) // the command
	for descriptors(t) < descriptorsBefore+2*many-some {
		time.Sleep(time.Millisecond) // until all are served
	}
	if now := runtime.NumGoroutine(); now > goroutines+many/10 {
		t.Errorf("%d goroutines, and %d before the hosts came", now, goroutines)
	}
	for _, h := range hosts {
		_ = h.Close()
	}
	for descriptors(t) > descriptorsBefore+some {
		time.Sleep(time.Millisecond)
	}
}

// Who only knocks, or goes to another element, does not wake the chip for those who are
// in the middle of a command; who spoke and hung up leaves one that wakes anew.
func TestHangUp(t *testing.T) {
	b, other := New(newChip(t), Options{}), New(newChip(t), Options{})
	c := connect(t, I2C, b)
	output := func() byte {
		t.Helper()
		b.Write(0, nil) // ignored where it is awake
		got, ok := b.Read(address, 1)
		if !ok {
			t.Fatal("it sleeps")
		}
		b.Write(address, []byte{wordReset})
		return got[0]
	}
	for _, request := range [][]byte{infoFrames[:4], infoFrames[4 : len(infoFrames)-4]} {
		step{request, []byte{1}}.over(t, c)
	}
	for range 2 {
		seat := sit(One(b))
		seat.leave()
		if got := output(); got != 7 {
			t.Errorf("after a knock the chip says %02x", got)
		}
	}
	seat := sit(pair{b, other})
	seat.chip()
	if !seat.move("other") || seat.bus != other || seat.move("none") {
		t.Fatal("the seat is not at the other")
	}
	if got := output(); got != 4 {
		t.Errorf("after one who spoke left, the chip says %02x", got)
	}
}

// pair is two elements.
type pair struct{ first, other *Bus }

func (p pair) First() *Bus { return p.first }
func (p pair) Find(name string) *Bus {
	if name == "other" {
		return p.other
	}
	return nil
}

// oddListener gives a connection that is no socket, after it found no room for one.
type oddListener struct {
	fullListener
	odd net.Conn
}

func (l *oddListener) Accept() (net.Conn, error) {
	if c := l.odd; l.left <= 0 && c != nil {
		l.odd = nil
		return c, nil
	}
	return l.fullListener.Accept()
}

// One connection that cannot be served is hung up, and the others are served.
func TestServeI2CGoesOn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- ServeI2C(ctx, &oddListener{fullListener{l, 2}, far}, One(New(newChip(t), Options{}))) }()
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the odd one: %v", err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	step{infoFrames[:4], []byte{1}}.over(t, c)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A firmware that is killed anywhere in its start, join, uplink and downlink, and
// started again at once, does all of it from the beginning.
func TestRestart(t *testing.T) {
	dial := served(t, "tcp", "127.0.0.1:0")
	steps := recorded(t)
	for cut := 1; cut < len(steps); cut += 9 {
		host := dial()
		for i, s := range slices.Concat(steps[:cut], steps) {
			if i == cut {
				_, _ = host.Write([]byte{'W', address, 0, 9, 3}) // a frame that is cut off
				_ = host.Close()
				host = dial()
				awaitHangUp(t, host)
			}
			s.over(t, host)
		}
	}
}

// awaitHangUp waits until the chip has heard that the host before is gone: it wakes.
func awaitHangUp(t *testing.T, c net.Conn) {
	t.Helper()
	for {
		step{send: frame('W', 0, nil), want: []byte{1}}.over(t, c)
		got := make([]byte, 5)
		if _, err := c.Write([]byte{'R', address, 0, 4}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, got); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(got[1:], chip.Awake.Packet()) {
			step{send: frame('W', address, []byte{wordIdle}), want: []byte{1}}.over(t, c)
			return
		}
	}
}

// The forms in which drivers say the same: a wake without data, with 00, with 01; the
// address as it is, or shifted; the pointer reset before the answer is read, or not; an
// answer in one read, or the count first; a sleep in place of the idle.
func TestForms(t *testing.T) {
	host := served(t, "tcp", "127.0.0.1:0")()
	command, answer := chip.Command(chip.OpInfo, 0, 0), unhex(t, "07000060028038")
	ok := []byte{1}
	for _, wake := range [][]byte{nil, {0}, {1}} {
		for _, a := range []byte{0x59, 0xB2} {
			for _, reads := range [][]int{{7}, {1, 6}} {
				for _, end := range [][]byte{{wordIdle}, {wordSleep}} {
					steps := []step{
						{frame('W', 0, wake), ok},
						{frame('W', a, []byte{wordReset}), ok},
						{[]byte{'R', a, 0, 4}, append([]byte{1}, chip.Awake.Packet()...)},
						{frame('W', a, append([]byte{wordCommand}, command...)), ok},
						{frame('W', a, []byte{wordReset}), ok},
					}
					at := 0
					for _, n := range reads {
						steps = append(steps, step{[]byte{'R', a, 0, byte(n)}, append([]byte{1}, answer[at:at+n]...)})
						at += n
					}
					steps = append(steps, step{frame('W', a, end), ok}, step{[]byte{'R', a, 0, 1}, []byte{0}})
					if a == 0xB2 { // without the resets
						steps = slices.DeleteFunc(steps, func(s step) bool { return bytes.HasSuffix(s.send, []byte{1, wordReset}) && s.send[1] != 0 })
					}
					for _, s := range steps {
						s.over(t, host)
					}
				}
			}
		}
	}
}
