package interop

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"joinery"
)

// door is a listener that gives connections whose TLS handshake is done and
// whose peer is known. It bounds what anybody can hold: connections in all, and
// of them, handshakes that are not done, in all and per address, and connections
// per peer. So who has no certificate gets no further than a quarter of the
// connections, each for the time of a handshake, and no peer keeps the others
// out.
type door struct {
	net.Listener
	server     *Server
	ctx        context.Context // ends with Close
	end        context.CancelFunc
	slots      chan struct{}
	handshakes chan struct{}
	ready      chan accepted
	settled    time.Time

	mu        sync.Mutex
	addresses map[netip.Prefix]int   // handshakes that are not done
	peers     map[joinery.PeerID]int // connections beyond their handshake
	guests    map[netip.Prefix]int   // the same, by address
}

type accepted struct {
	conn *clientConn
	err  error
}

// openDoor makes a door of a listener for plain TCP. It must be closed.
func (s *Server) openDoor(l net.Listener) *door {
	d := &door{
		Listener: l, server: s,
		slots:      make(chan struct{}, s.opt.MaxConnections),
		handshakes: make(chan struct{}, s.opt.MaxHandshakes),
		ready:      make(chan accepted),
		settled:    s.now().Add(s.opt.Settling),
		addresses:  make(map[netip.Prefix]int),
		peers:      make(map[joinery.PeerID]int),
		guests:     make(map[netip.Prefix]int),
	}
	d.ctx, d.end = context.WithCancel(context.Background())
	go d.run()
	return d
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	select {
	case a := <-d.ready:
		if a.err != nil {
			return nil, a.err
		}
		return a.conn, nil
	case <-d.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Handshakes on their way are cut off.
func (d *door) Close() error {
	d.end()
	return d.Listener.Close()
}

// run accepts connections as long as there is room for them; the others wait in
// the kernel's queue. An error waits until Accept was asked for it.
func (d *door) run() {
	for d.take(d.slots) && d.take(d.handshakes) {
		conn, err := d.Listener.Accept()
		if err != nil {
			<-d.handshakes
			<-d.slots
			d.offer(accepted{err: err})
			continue
		}
		d.server.metrics.connections.Inc()
		from := addressOf(conn)
		c := &heldConn{Conn: conn, door: d, from: from}
		d.server.held.add(c)
		if !d.begin(from) {
			d.refuse(c, "address", slog.String("address", from.String()))
			<-d.handshakes
			continue
		}
		go func() {
			defer d.done(from)
			d.welcome(c)
		}()
	}
}

// take waits for room; false is that the door was closed.
func (d *door) take(room chan struct{}) bool {
	select {
	case room <- struct{}{}:
		return true
	case <-d.ctx.Done():
		return false
	}
}

func (d *door) offer(a accepted) bool {
	select {
	case d.ready <- a:
		return true
	case <-d.ctx.Done():
		return false
	}
}

// begin counts a handshake, unless its address has too many. An address from which
// a peer is here may have more: when answers are late, a network opens a
// connection for each request. While the door is new, the bound on all is enough.
func (d *door) begin(from netip.Prefix) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	o := d.server.opt
	most := o.MaxHandshakesPerAddress
	switch {
	case d.server.now().Before(d.settled):
		most = o.MaxHandshakes
	case d.guests[from] > 0:
		most = max(most, o.MaxHandshakes/2)
	}
	if d.addresses[from] >= most {
		return false
	}
	d.addresses[from]++
	return true
}

// done takes back what begin counted, and gives room for the next handshake.
func (d *door) done(from netip.Prefix) {
	d.mu.Lock()
	if d.addresses[from]--; d.addresses[from] == 0 {
		delete(d.addresses, from)
	}
	d.mu.Unlock()
	<-d.handshakes
}

// welcome makes the handshake and hands the connection on, or closes it.
func (d *door) welcome(c *heldConn) {
	s := d.server
	defer func() {
		if defect := recover(); defect != nil { // in a goroutine of ours it would end the server
			s.metrics.panics.Inc()
			s.log.Error("defect", slog.String("during", "handshake"), slog.String("at", callers()))
			_ = c.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(d.ctx, s.opt.HandshakeTimeout)
	defer cancel()
	conn := tls.Server(c, s.tls)
	c.secure = conn
	if err := conn.HandshakeContext(ctx); err != nil {
		s.log.Debug("handshake failed", slog.String("remote", c.RemoteAddr().String()), slog.String("reason", err.Error()))
		hintAtTLS(err)
		_ = c.Close()
		return
	}
	state := conn.ConnectionState()
	peer, err := s.identify(&c.known, &state)
	if err != nil { // removed since the handshake's own look
		_ = c.Close()
		return
	}
	if !d.admit(c, peer.ID) {
		d.refuse(c, "peer", slog.String("peer", peer.Name))
		return
	}
	if !d.offer(accepted{conn: newClientConn(conn, c)}) {
		_ = c.Close()
	}
}

// admit counts a connection of a peer until it closes, unless the peer has too
// many.
func (d *door) admit(c *heldConn, peer joinery.PeerID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.peers[peer] >= d.server.opt.MaxPerPeer {
		return false
	}
	d.peers[peer]++
	d.guests[c.from]++
	c.peer = peer
	c.admitted = true
	return true
}

// refuse closes a connection of somebody who has too many.
func (d *door) refuse(c *heldConn, whose string, who slog.Attr) {
	s := d.server
	s.metrics.refusedConnections.WithLabelValues(whose).Inc()
	if s.refusals.allow(s.now()) {
		s.log.LogAttrs(d.ctx, slog.LevelWarn, "connection refused", slog.String("reason", "too many of one "+whose), who)
	}
	_ = c.Close()
}

// heldConn gives its room back when it is closed.
type heldConn struct {
	net.Conn
	door     *door
	from     netip.Prefix
	secure   *tls.Conn // set before the connection is handed on
	quiet    quiet
	known    connection
	once     sync.Once
	admitted bool // with peer, set before the connection is handed on
	peer     joinery.PeerID
}

// Close implements net.Conn; the room is free again after the first.
func (c *heldConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		d := c.door
		if c.admitted {
			d.mu.Lock()
			if d.peers[c.peer]--; d.peers[c.peer] == 0 {
				delete(d.peers, c.peer)
			}
			if d.guests[c.from]--; d.guests[c.from] == 0 {
				delete(d.guests, c.from)
			}
			d.mu.Unlock()
		}
		d.server.metrics.connections.Dec()
		d.server.held.remove(c)
		<-d.slots
	})
	return err
}

// addressOf is the remote address as far as it is one client's: of IPv6, the
// /64, because who has one address has as many as it likes.
func addressOf(c net.Conn) netip.Prefix {
	remote, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	address := remote.AddrPort().Addr().Unmap().WithZone("")
	bits := min(address.BitLen(), 64)
	prefix, err := address.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// hintAtTLS tells a client that speaks plain HTTP what is wrong.
func hintAtTLS(err error) {
	plain, ok := errors.AsType[tls.RecordHeaderError](err)
	if !ok || plain.Conn == nil {
		return
	}
	switch string(plain.RecordHeader[:]) {
	case "POST ", "GET /", "HEAD ", "PUT /", "OPTIO":
		_ = plain.Conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(plain.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nThis server speaks HTTPS only.\n")
	}
}
