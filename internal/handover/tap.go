package handover

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Listener is a listening socket of the kernel: TCP or Unix.
type Listener interface {
	net.Listener
	syscall.Conn
	SetDeadline(time.Time) error
}

// Tap accepts from a listener that belongs to somebody else. Shut, it leaves
// those who connect in the kernel's queue, where whoever opens a tap on the same
// socket next, in this process or another, finds them.
type Tap struct {
	Listener

	mu     sync.Mutex
	open   chan struct{} // closed while the tap is open
	closed chan struct{}
	end    sync.Once
}

// NewTap gives an open tap. Others on the same listener of this process must be
// shut.
func NewTap(l Listener) *Tap {
	_ = l.SetDeadline(time.Time{}) // fails where Accept will fail
	t := &Tap{Listener: l, open: make(chan struct{}), closed: make(chan struct{})}
	close(t.open)
	return t
}

// Accept implements net.Listener. It waits while the tap is shut.
func (t *Tap) Accept() (net.Conn, error) {
	for {
		open := t.gate()
		select {
		case <-open:
		case <-t.closed:
			return nil, net.ErrClosed
		}
		conn, err := t.Listener.Accept()
		// Shut sets the only deadline that there ever is; and once shut, a tap has
		// nothing to say of its listener, which may be somebody else's by now.
		if errors.Is(err, os.ErrDeadlineExceeded) || err != nil && open != t.gate() {
			continue
		}
		return conn, err
	}
}

func (t *Tap) gate() chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open
}

// Shut lets no more connections in. One that Accept has taken already it still
// gives.
func (t *Tap) Shut() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.open:
	default:
		return nil // shut already
	}
	t.open = make(chan struct{})
	return t.SetDeadline(time.Unix(1, 0))
}

// Open undoes Shut.
func (t *Tap) Open() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.open:
		return nil
	default:
	}
	if err := t.SetDeadline(time.Time{}); err != nil {
		return err
	}
	close(t.open)
	return nil
}

// Close shuts the tap for good. The listener stays.
func (t *Tap) Close() error {
	err := t.Shut()
	t.end.Do(func() { close(t.closed) })
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
