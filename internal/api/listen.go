package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// ListenSocket listens on a Unix socket at path that only its owner and root can
// connect to: it has mode 0600 from the moment it exists. A socket that a server
// left behind when it was killed is replaced; one that somebody answers on, or
// anything else at that path, is refused.
func ListenSocket(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var modeErr error
		// The file takes the mode of the unbound socket (Linux, unix_bind).
		err := c.Control(func(fd uintptr) { modeErr = syscall.Fchmod(int(fd), 0o600) })
		return errors.Join(err, modeErr)
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("operator socket: %w", err)
	}
	// Where the kernel does not do that, and to be sure where it does.
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("operator socket: %w", err)
	}
	return l, nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("operator socket: %w", err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("operator socket: %s exists and is no socket; name another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("operator socket: another server answers on %s", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("operator socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("operator socket: %w", err)
	}
	return nil
}

// ListenLoopback listens on TCP at addr, "127.0.0.1:8080", "[::1]:0" or
// "localhost:8080"; any address that others could reach is refused.
func ListenLoopback(addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("API address: want host and port, as in 127.0.0.1:8080: %w", err)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, errNotLoopback
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("API address: %w", err)
	}
	return l, nil
}

var errNotLoopback = errors.New("API address: want one of this machine's own (127.0.0.1, ::1 or localhost): " +
	"API keys would travel readable; let a TLS proxy on this machine serve others")

// checkListener is what Serve asks of a listener.
func checkListener(l net.Listener) error {
	switch addr := l.Addr().(type) {
	case *net.UnixAddr:
		return nil
	case *net.TCPAddr:
		if addr.IP.IsLoopback() {
			return nil
		}
	}
	return errNotLoopback
}
