package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"joinery/internal/sim"
	"joinery/test/rig"
)

// tapProgram, in the environment, makes the tests' program stand between a server and
// the joinery-hsm that it names, and write what passes into tapFile.
const (
	tapProgram = "JOINERY_TEST_TAPPED"
	tapFile    = "JOINERY_TEST_TAP"
)

func TestMain(m *testing.M) {
	if program := os.Getenv(tapProgram); program != "" && len(os.Args) == 1 {
		if err := tapWorker(program, os.Getenv(tapFile)); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// tapWorker runs the keyring's process, and passes on what server and it say to each
// other on descriptor 3.
func tapWorker(program, file string) error {
	record, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	syscall.CloseOnExec(fds[0])
	server, worker, theirs := os.NewFile(3, "server"), os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "theirs")
	syscall.CloseOnExec(3)
	cmd := exec.Command(program)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, []*os.File{theirs}
	if err := errors.Join(cmd.Start(), theirs.Close()); err != nil {
		return err
	}
	go func() { _, _ = io.Copy(server, io.TeeReader(worker, record)) }()
	_, _ = io.Copy(worker, io.TeeReader(server, record)) // until the server is gone
	_ = syscall.Shutdown(fds[0], syscall.SHUT_WR)
	return cmd.Wait()
}

// taps records what passes between the parts of a test, in files of a directory.
type taps struct {
	t   *testing.T
	dir string
}

// tape is one recording.
type tape struct {
	mu sync.Mutex
	f  *os.File
}

// Write implements io.Writer.
func (r *tape) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.f.Write(b)
}

func (x taps) tape(name string) *tape {
	x.t.Helper()
	f, err := os.OpenFile(filepath.Join(x.dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ok(x.t, err)
	x.t.Cleanup(func() { _ = f.Close() })
	return &tape{f: f}
}

// socket stands before a server's operator socket, and gives the path to talk to.
func (x taps) socket(name string, s *rig.Server) string {
	x.t.Helper()
	path, record := filepath.Join(x.dir, name+".sock"), x.tape(name)
	listener, err := net.Listen("unix", path)
	ok(x.t, err)
	x.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("unix", s.Path("joinery.sock"))
			if err != nil {
				_ = from.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(to, io.TeeReader(from, record))
				_ = to.Close()
			}()
			go func() {
				_, _ = io.Copy(from, io.TeeReader(to, record))
				_ = from.Close()
			}()
		}
	}()
	return path
}

// servers stands before the TLS listener of a server that others call, shows each side
// the certificate of the other, and records what they say within TLS, and what is on
// the wire ("NAME wire"). It gives the URL to call.
func (x taps) servers(name, address string, server, client tls.Certificate) string {
	x.t.Helper()
	record, wire := x.tape(name), x.tape(name+" wire")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ok(x.t, err)
	x.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				from := tls.Server(tappedConn{raw, wire}, &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAnyClientCert})
				defer func() { _ = from.Close() }()
				if from.Handshake() != nil {
					return
				}
				raw, err := net.Dial("tcp", address)
				if err != nil {
					return
				}
				//nolint:gosec // the test knows who is there
				to := tls.Client(tappedConn{raw, wire}, &tls.Config{Certificates: []tls.Certificate{client}, InsecureSkipVerify: true})
				go func() {
					_, _ = io.Copy(to, io.TeeReader(from, record))
					_ = to.Close()
				}()
				_, _ = io.Copy(from, io.TeeReader(to, record))
			}()
		}
	}()
	return "https://" + listener.Addr().String()
}

// tappedConn records what is on the wire, both ways.
type tappedConn struct {
	net.Conn
	record *tape
}

func (c tappedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	_, _ = c.record.Write(b[:n])
	return n, err
}

func (c tappedConn) Write(b []byte) (int, error) {
	_, _ = c.record.Write(b)
	return c.Conn.Write(b)
}

// way records what a peer and a Join Server say to each other within TLS.
func (x taps) way(name string) func(string, *tls.Config) (sim.Way, error) {
	record := x.tape(name)
	return func(url string, conf *tls.Config) (sim.Way, error) {
		link := sim.NewLink(url, conf, 0)
		x.t.Cleanup(link.Close)
		return tappedWay{link, record}, nil
	}
}

type tappedWay struct {
	*sim.Link
	record *tape
}

// Send implements sim.Way.
func (w tappedWay) Send(ctx context.Context, body []byte) (*sim.Reply, error) {
	_, _ = w.record.Write(body)
	r, err := w.Link.Send(ctx, body)
	if err == nil {
		_, _ = w.record.Write(r.Body)
	}
	return r, err
}
