package bus

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"testing"

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
