package api

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"joinery"
)

// Bounds of the TLS listener, which anybody may reach: connections in all, and of
// one IPv4 address or one IPv6 /64. More are closed at once.
const (
	maxTLSConnections        = 2048
	maxTLSConnectionsAddress = 256
)

// ServeTLS answers on l, which gives plain TCP, until Shutdown, and then returns
// nil. TLS is made here; certificate gives the server's for each handshake, so that
// it can be replaced meanwhile.
//
// A client may present a certificate, and need not. It is asked for any, and only
// proves in the handshake that it holds the key: whom a certificate stands for is
// found out for each request, by those routes that ask for one. To all others it
// means nothing: they need an API key, as everywhere but on the operator socket.
func (s *Server) ServeTLS(l net.Listener, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) error {
	config := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		ClientAuth:     tls.RequestClientCert,
		GetCertificate: certificate,
	}
	bounded := &boundedListener{Listener: l, addresses: make(map[netip.Prefix]int)}
	if err := s.http.Serve(tls.NewListener(bounded, config)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// AsPresented gives r as it came to another server that vouches for what the
// client presented there, leaf first, as r.TLS had it.
func AsPresented(r *http.Request, chain []*x509.Certificate) *http.Request {
	if len(chain) == 0 {
		return r
	}
	r = r.WithContext(r.Context())
	r.TLS = &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: chain}
	return r
}

// LocalCaller gives who is known by the connection alone: the operator on its
// socket.
func LocalCaller(r *http.Request) (joinery.Caller, bool) {
	c, ok := r.Context().Value(connectionKey{}).(connection)
	return c.caller, ok && c.err == nil
}

// boundedListener keeps anybody from taking all connections that the process may
// have.
type boundedListener struct {
	net.Listener
	mu        sync.Mutex
	held      int
	addresses map[netip.Prefix]int
}

// Accept implements net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := addressOf(conn)
		if l.enter(from) {
			return &boundedConn{Conn: conn, leave: func() { l.leave(from) }}, nil
		}
		_ = conn.Close()
	}
}

func (l *boundedListener) enter(from netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held >= maxTLSConnections || l.addresses[from] >= maxTLSConnectionsAddress {
		return false
	}
	l.held++
	l.addresses[from]++
	return true
}

func (l *boundedListener) leave(from netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held--
	if l.addresses[from]--; l.addresses[from] == 0 {
		delete(l.addresses, from)
	}
}

// boundedConn gives its room back when it is closed.
type boundedConn struct {
	net.Conn
	once  sync.Once
	leave func()
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	defer c.once.Do(c.leave)
	return c.Conn.Close()
}

// addressOf is the remote address as far as it is one client's: of IPv6 the /64.
func addressOf(c net.Conn) netip.Prefix {
	remote, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	address := remote.AddrPort().Addr().Unmap().WithZone("")
	prefix, err := address.Prefix(min(address.BitLen(), 64))
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}
