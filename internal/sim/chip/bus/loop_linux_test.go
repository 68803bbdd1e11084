package bus

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
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
