package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNobody is the error of Succeed where no server runs.
var ErrNobody = errors.New("no server is running")

// Predecessor is the running server, as its successor sees it.
type Predecessor struct{ line }

// signOfLife is how often one at work says so: well within patience.
var signOfLife = 5 * time.Second

// Working keeps the running server patient until done is called. Nothing else may
// be said meanwhile.
func (p *Predecessor) Working() (done func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(signOfLife)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				_ = p.send(message{Step: stepWorking}) // to nobody: Serving will tell
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}

// answerTimeout is how long the running server may take to give its sockets.
const answerTimeout = 5 * time.Second

// Succeed asks the server that listens at path for its sockets. database names
// what both must mean. It fails with ErrNobody where there is none. The sockets
// are the caller's; the Predecessor must be closed.
func Succeed(ctx context.Context, path, database string) (_ *Predecessor, sockets []Socket, err error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil, ErrNobody
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reach the running server: %w", err)
	}
	p := &Predecessor{line{conn: conn}}
	defer func() {
		if err != nil {
			CloseAll(sockets)
			sockets = nil
			_ = p.Close()
		}
	}()
	if _, err := trusted(conn); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if err := p.send(message{Step: stepHello, Database: database}); err != nil {
		return nil, nil, fmt.Errorf("ask the running server for its sockets: %w", err)
	}
	m, files, err := p.expect(ctx, stepSockets)
	if err != nil {
		return nil, nil, fmt.Errorf("ask the running server for its sockets: %w", err)
	}
	if len(files) != len(m.Sockets) {
		closeAll(files)
		return nil, nil, fmt.Errorf("the running server names %d sockets and sends %d", len(m.Sockets), len(files))
	}
	for i, f := range files {
		s, err := socketOf(f, m.Sockets[i].Name, m.Sockets[i].Kept)
		if err != nil {
			closeAll(files[i+1:])
			return nil, sockets, err
		}
		// Until we serve, the path is the other's to remove.
		if l, ok := s.Listener.(*net.UnixListener); ok {
			l.SetUnlinkOnClose(false)
		}
		sockets = append(sockets, s)
	}
	return p, sockets, nil
}

// Yield asks the running server to let go of the database and returns when it
// has, or when it ended without a word, as a crash does.
func (p *Predecessor) Yield(ctx context.Context) error {
	err := p.send(message{Step: stepYield})
	if err == nil {
		_, _, err = p.expect(ctx, stepYielded)
	}
	if gone(err) {
		return nil // the lock tells whether that is true
	}
	return err
}

// gone tells whether the other side ended, as against misbehaved.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// Serving tells the running server that this one serves, and answers with
// handler what the other still gets, until the other is done. The sockets are
// ours from now on, their paths included. It returns at once; done is closed at
// the end.
func (p *Predecessor) Serving(handler http.Handler, sockets []Socket) (done <-chan struct{}, err error) {
	for _, s := range sockets {
		if l, ok := s.Listener.(*net.UnixListener); ok {
			l.SetUnlinkOnClose(!s.Kept)
		}
	}
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }()
	ended := serveRelay(ours, handler)
	raw, err := theirs.SyscallConn()
	if err != nil {
		return ended, errors.Join(err, ours.Close())
	}
	var sent error
	err = raw.Control(func(fd uintptr) { sent = p.send(message{Step: stepServing}, int(fd)) })
	if err = errors.Join(err, sent); err != nil {
		_ = ours.Close()
		if gone(err) {
			return ended, p.refusal() // else it has nothing left to relay
		}
		return ended, fmt.Errorf("tell the running server that this one serves: %w", err)
	}
	return ended, nil
}

// refusal gives the last word of a server that ended the conversation, if that was
// a refusal: then it goes on, and this one must not.
func (p *Predecessor) refusal() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	m, files, err := p.receive(ctx)
	closeAll(files)
	if err == nil && m.Step == stepRefused {
		return refused(m)
	}
	return nil
}

// Close ends the conversation. Before Serving that is to say that nothing comes
// of it: the running server goes on.
func (p *Predecessor) Close() error { return p.close() }

// pair makes two connected sockets, one as a connection and one to be sent.
func pair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a way for what is relayed: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "relay"), os.NewFile(uintptr(fds[1]), "relay")
	defer func() { _ = ours.Close() }()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn, theirs, nil
}
