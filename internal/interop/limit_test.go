package interop

import (
	"crypto/x509"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"joinery"
)

// silent connects from an address of this machine and says nothing.
func (h *house) silent(t *testing.T, from string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(t.Context(), "tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ended waits for the server to close c.
func ended(t *testing.T, c net.Conn, within time.Duration) bool {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, c)
	return !isTimeout(err)
}

// eventually waits for what other goroutines are about to do.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for begun := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// TestHandshakesOfOneAddress: somebody without a certificate holds no more than
// the connections of one address, and keeps nobody out.
func TestHandshakesOfOneAddress(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := openHouse(t, func(o *Options) { o.MaxConnections, o.MaxHandshakesPerAddress, o.Metrics = 16, 3, registry })
	var idle []net.Conn
	for range 20 {
		idle = append(idle, h.silent(t, "127.0.0.2"))
	}
	for i, c := range idle[3:] {
		if !ended(t, c, 5*time.Second) {
			t.Errorf("connection %d of the address was not closed", i+4)
		}
	}
	h.mustPost(t, h.client(t, h.tlsConfig(h.ns)), joinReq10)
	if n := gauge(t, registry, "joinery_interop_connections"); n != 4 {
		t.Errorf("%v connections are held; want 3 handshakes and the one that was served", n)
	}
	if n := gauge(t, registry, "joinery_interop_refused_connections_total"); n != 17 {
		t.Errorf("%v refused connections were counted", n)
	}
}

// TestHandshakesOfAll: handshakes that are not done take their part of the
// connections, for their time; then it is another's turn.
func TestHandshakesOfAll(t *testing.T) {
	h := openHouse(t, func(o *Options) { o.MaxConnections, o.HandshakeTimeout = 8, 300*time.Millisecond })
	living := h.client(t, h.tlsConfig(h.ns))
	h.mustPost(t, living, joinReq10)
	one, two := h.silent(t, "127.0.0.2"), h.silent(t, "127.0.0.3")
	for range 20 { // who is in is not held up
		h.mustPost(t, living, joinReq10)
	}
	h.mustPost(t, h.client(t, h.tlsConfig(h.as)), appSKeyReq10)
	if !ended(t, one, 5*time.Second) || !ended(t, two, 5*time.Second) {
		t.Error("a handshake may last for ever")
	}
}

// TestConnectionsOfOnePeer: a peer that opens more and more connections does
// not keep the others out.
func TestConnectionsOfOnePeer(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := openHouse(t, func(o *Options) { o.MaxConnections, o.Metrics = 4, registry })
	one, two := h.client(t, h.tlsConfig(h.ns)), h.client(t, h.tlsConfig(h.ns))
	h.mustPost(t, one, joinReq10)
	h.mustPost(t, two, joinReq10)
	for range 10 {
		h.mustRefuse(t, h.client(t, h.tlsConfig(h.ns)), joinReq10)
	}
	h.mustPost(t, h.client(t, h.tlsConfig(h.as)), appSKeyReq10)
	h.mustPost(t, two, joinReq10)
	if n := gauge(t, registry, "joinery_interop_refused_connections_total"); n < 10 {
		t.Errorf("%v refused connections were counted", n)
	}
	if log := h.log.String(); !strings.Contains(log, "too many of one peer") || !strings.Contains(log, `"peer":"ns"`) {
		t.Errorf("the log does not say who:\n%s", log)
	}
	one.CloseIdleConnections()
	three := h.client(t, h.tlsConfig(h.ns))
	eventually(t, "a connection of the peer is free again", func() bool {
		_, _, err := h.post(three, joinReq10)
		return err == nil
	})
}

// TestShutdownDuringHandshakes: who does not finish its handshake does not hold
// up the end, and is not left behind.
func TestShutdownDuringHandshakes(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := openHouse(t, func(o *Options) { o.Metrics = registry })
	c := h.silent(t, "127.0.0.2")
	eventually(t, "the connection is held", func() bool { return gauge(t, registry, "joinery_interop_connections") == 1 })
	if err := h.stop(); err != nil {
		t.Error(err)
	}
	if !ended(t, c, time.Second) {
		t.Error("the connection outlives the server")
	}
	eventually(t, "nothing is held", func() bool { return gauge(t, registry, "joinery_interop_connections") == 0 })
}

// faultyPeers is a Resolver with a defect.
type faultyPeers struct {
	Resolver
	on atomic.Bool
}

func (b *faultyPeers) Resolve(chain []*x509.Certificate, now time.Time) (joinery.Peer, error) {
	if b.on.Load() {
		panic("a defect")
	}
	return b.Resolver.Resolve(chain, now)
}

// TestDefectDuringHandshake: it ends that connection, and not the server.
func TestDefectDuringHandshake(t *testing.T) {
	b := new(faultyPeers)
	h := openHouse(t, func(o *Options) { b.Resolver = o.Peers; o.Peers = b })
	b.on.Store(true)
	h.mustRefuse(t, h.client(t, h.tlsConfig(h.ns)), joinReq10)
	b.on.Store(false)
	h.mustPost(t, h.client(t, h.tlsConfig(h.ns)), joinReq10)
	if !strings.Contains(h.log.String(), "defect") {
		t.Error("nobody learns of it")
	}
}

type remote struct {
	net.Conn
	address net.Addr
}

func (r remote) RemoteAddr() net.Addr { return r.address }

func TestAddressOf(t *testing.T) {
	for address, want := range map[net.Addr]string{
		&net.TCPAddr{IP: net.ParseIP("192.0.2.7"), Port: 1}:             "192.0.2.7/32",
		&net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.7"), Port: 2}:      "192.0.2.7/32",
		&net.TCPAddr{IP: net.ParseIP("2001:db8:1:2:3:4:5:6"), Port: 3}:  "2001:db8:1:2::/64",
		&net.TCPAddr{IP: net.ParseIP("2001:db8:1:2::9"), Port: 4}:       "2001:db8:1:2::/64",
		&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 5}: "fe80::/64",
		&net.UnixAddr{Name: "socket", Net: "unix"}:                      "invalid Prefix",
	} {
		if got := addressOf(remote{address: address}).String(); got != want {
			t.Errorf("%v: %s, want %s", address, got, want)
		}
	}
}

// TestPlainHTTPHint: who forgot TLS learns so.
func TestPlainHTTPHint(t *testing.T) {
	h := openHouse(t)
	c := h.silent(t, "127.0.0.1")
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 200)
	n, err := c.Read(answer)
	if err != nil || !strings.HasPrefix(string(answer[:n]), "HTTP/1.0 400 ") {
		t.Errorf("%q, %v", answer[:n], err)
	}
}

// TestHandshakesOfAPeersAddress: where a peer is connected, more may come at
// once, as when answers are late.
func TestHandshakesOfAPeersAddress(t *testing.T) {
	h := openHouse(t, func(o *Options) { o.MaxConnections, o.MaxHandshakesPerAddress = 64, 3 }) // 16 handshakes
	h.mustPost(t, h.client(t, h.tlsConfig(h.ns)), joinReq10)
	var more []net.Conn
	for range 9 {
		more = append(more, h.silent(t, "127.0.0.1"))
	}
	// Half of all handshakes, of which the peer's own may still be one; which are too
	// many of those that come together is the scheduler's choice.
	closed := 0
	eventually(t, "somebody is closed", func() bool {
		closed = 0
		for _, c := range more {
			if ended(t, c, time.Millisecond) {
				closed++
			}
		}
		return closed > 0
	})
	if closed > 2 {
		t.Errorf("%d of 9 connections were closed, want those above half of all handshakes", closed)
	}
}

// TestDrain: what is idle may send one request more, and is told to end; what
// stays idle is closed.
func TestDrain(t *testing.T) {
	h := openHouse(t)
	busy, idle := h.client(t, h.tlsConfig(h.ns)), h.client(t, h.tlsConfig(h.as))
	h.mustPost(t, busy, joinReq10)
	h.mustPost(t, idle, appSKeyReq10)
	drained := make(chan struct{})
	begun := time.Now()
	go func() {
		defer close(drained)
		h.Drain(t.Context(), 300*time.Millisecond)
	}()
	eventually(t, "connections end with their answer", h.retiring.Load)
	resp, err := busy.Post("https://"+h.addr, "application/json", strings.NewReader(joinReq10))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if !resp.Close {
		t.Error("the answer does not say that the connection ends")
	}
	<-drained
	if took := time.Since(begun); took < 300*time.Millisecond {
		t.Errorf("an idle connection had %v", took)
	}
	if n := h.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}
