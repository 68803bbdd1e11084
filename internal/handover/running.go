package handover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Successor is a server that wants to take over, as the running one sees it.
type Successor struct {
	line
	// PID is its process id, for the service manager.
	PID int
	// Yield tells that it waits for the database; otherwise it serves already, and
	// Serving has nothing to wait for.
	Yield bool

	relay *os.File
}

// helloTimeout bounds how long somebody who connects may say nothing;
// patience how long a successor that has the sockets may be silent.
const helloTimeout = 5 * time.Second

var patience = 30 * time.Second

// Meet talks to somebody who connected to the hand-over socket until it is ready
// to take over. database is what this server serves: a successor with another is
// refused. give is asked for the sockets when they go out; they stay open here,
// but their paths are not ours to remove any more, whatever comes of it.
func Meet(ctx context.Context, conn *net.UnixConn, database string, give func() ([]Socket, error)) (_ *Successor, err error) {
	s := &Successor{line: line{conn: conn}}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if s.PID, err = trusted(conn); err != nil {
		return nil, err
	}
	hello, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	m, _, err := s.expect(hello, stepHello)
	if err != nil {
		return nil, err
	}
	if m.Database != database {
		const reason = "it serves another database than the successor's configuration names; stop it first"
		_ = s.Refuse(reason)
		return nil, fmt.Errorf("refused: %s", reason)
	}
	sockets, err := give()
	if err != nil {
		_ = s.Refuse(err.Error())
		return nil, err
	}
	if err := s.give(sockets); err != nil {
		return nil, err
	}
	m, files, err := s.next(ctx, nil, stepYield, stepServing)
	if err != nil {
		_ = s.Refuse("it does not wait any longer, as it ends, or hands over to another, or heard nothing for too long")
		return nil, err
	}
	s.Yield = m.Step == stepYield
	return s, s.keep(files)
}

// give sends the sockets.
func (s *Successor) give(sockets []Socket) error {
	var descriptors []int
	var held []func()
	defer func() {
		for _, release := range held {
			release()
		}
	}()
	m := message{Step: stepSockets}
	for _, one := range sockets {
		fd, release, err := descriptor(one.Listener)
		if err != nil {
			return fmt.Errorf("socket %s: %w", one.Name, err)
		}
		held = append(held, release)
		descriptors = append(descriptors, fd)
		m.Sockets = append(m.Sockets, socketName{one.Name, one.Kept})
	}
	return s.send(m, descriptors...)
}

// descriptor gives a duplicate of a listener's descriptor. Not File and Fd: they
// would make the socket blocking, for everybody who has it.
func descriptor(l Listener) (fd int, release func(), err error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return 0, nil, err
	}
	var dupErr error
	err = raw.Control(func(own uintptr) { fd, dupErr = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	if err != nil {
		return 0, nil, err
	}
	if dupErr != nil {
		return 0, nil, dupErr
	}
	return fd, func() { _ = unix.Close(fd) }, nil
}

// next reads the next message that is about more than being at work, for which
// there is no bound but the one between two signs of life: to bring a large
// database to another schema takes as long as it takes. alive is told of each; it
// may be nil.
func (s *Successor) next(ctx context.Context, alive func(), steps ...string) (message, []*os.File, error) {
	steps = append(steps, stepWorking)
	for {
		m, files, err := s.within(ctx, patience, steps)
		if err != nil || m.Step != stepWorking {
			return m, files, err
		}
		closeAll(files)
		if alive != nil {
			alive()
		}
	}
}

func (s *Successor) within(ctx context.Context, d time.Duration, steps []string) (message, []*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return s.expect(ctx, steps...)
}

// Yielded tells the successor that the database is free, and waits until it
// serves. alive is told when it is at work until then. With an error it will not
// serve: its conversation is closed.
func (s *Successor) Yielded(ctx context.Context, alive func()) error {
	err := s.send(message{Step: stepYielded})
	if err == nil {
		var files []*os.File
		if _, files, err = s.next(ctx, alive, stepServing); err == nil {
			err = s.keep(files)
		}
	}
	if err != nil {
		_ = s.Close()
	}
	return err
}

// keep takes the descriptor that comes with stepServing.
func (s *Successor) keep(files []*os.File) error {
	if s.Yield && len(files) == 0 && s.relay == nil {
		return nil // it comes later
	}
	if len(files) != 1 {
		closeAll(files)
		return fmt.Errorf("the successor sent %d descriptors, want 1", len(files))
	}
	s.relay = files[0]
	return nil
}

// relayTimeout is how long a successor that says it serves may take to answer.
var relayTimeout = 5 * time.Second

// Relay opens the way to a successor that serves, and makes sure that it does.
func (s *Successor) Relay(ctx context.Context) (*Relay, error) {
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	conn, err := net.FileConn(s.relay)
	if err != nil {
		return nil, err
	}
	_ = s.relay.Close()
	return newRelay(ctx, conn)
}

// Refuse ends the conversation with a word why, so that the other does not take
// its end for the end of this server. It is not for one that was told Yielded,
// which may have the database.
func (s *Successor) Refuse(reason string) error {
	return errors.Join(s.send(message{Step: stepRefused, Reason: reason}), s.Close())
}

// Close ends the conversation.
func (s *Successor) Close() error {
	if s.relay != nil {
		_ = s.relay.Close()
	}
	return s.close()
}
