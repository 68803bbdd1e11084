package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
)

// Socket is a bound listener under its name in a server.
type Socket struct {
	Name string
	Listener
	// Kept tells that the service manager holds this socket open as well: its path,
	// where it has one, is not ours to remove.
	Kept bool
}

// socketOf makes a listener of a descriptor and closes the file.
func socketOf(f *os.File, name string, kept bool) (Socket, error) {
	defer func() { _ = f.Close() }()
	l, err := net.FileListener(f)
	if err != nil {
		return Socket{}, fmt.Errorf("socket %s: %w", name, err)
	}
	switch l := l.(type) {
	case *net.TCPListener:
		return Socket{name, l, kept}, nil
	case *net.UnixListener:
		l.SetUnlinkOnClose(!kept)
		return Socket{name, l, kept}, nil
	}
	return Socket{}, errors.Join(fmt.Errorf("socket %s: want a listening TCP or Unix stream socket", name), l.Close())
}

// Leave closes our end of a socket that somebody else goes on to use.
func (s Socket) Leave() error {
	if l, ok := s.Listener.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false)
	}
	return s.Close()
}

// CloseAll closes sockets that nobody uses any more.
func CloseAll(sockets []Socket) {
	for _, s := range sockets {
		_ = s.Close()
	}
}
