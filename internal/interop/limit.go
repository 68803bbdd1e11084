package interop

import (
	"net"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// limited is a listener that holds at most cap(slots) connections at once; the
// others wait in the kernel's queue until one closes.
type limited struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
	held   prometheus.Gauge
}

func limitListener(l net.Listener, n int, held prometheus.Gauge) net.Listener {
	return &limited{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{}), held: held}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	l.held.Inc()
	return &limitedConn{Conn: c, release: func() { l.held.Dec(); <-l.slots }}, nil
}

// Close implements net.Listener.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	once    sync.Once
	release func()
}

// Close implements net.Conn; the slot is free again after the first.
func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.release)
	return err
}
