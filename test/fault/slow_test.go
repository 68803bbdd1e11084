package fault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"joinery/internal/config"
	"joinery/internal/sim"
	"joinery/internal/sim/lab"
)

// slowness is many clients that are slow, each in one of several ways, against one
// server. Who is cut off comes again.
type slowness struct {
	address string
	peer    *tls.Config // of a peer that the server knows
	busy    sync.WaitGroup
	held    atomic.Int64 // connections that are open
	cut     atomic.Int64 // how often the server made an end
}

// P11: with 2,000 slow connections, and with bodies that are too long or nested
// too deep, joins of honest networks are all answered, 99 of 100 within 200 ms.
// The short form has fewer connections and does not judge the time.
func TestSlowClients(t *testing.T) {
	connections, span := 400, 4*time.Second
	if long() {
		connections, span = 2000, 30*time.Second
	}
	f := newFleet(t, dose{devices: 32})
	c, err := config.Read(f.server.Path("joinery.yaml"))
	ok(t, err)
	s := &slowness{address: c.Interop.Address, peer: peerTLS(t, f, "other-ns")}
	before := takeSample(t, f.server)
	ctx, end := context.WithCancel(t.Context())
	defer end()
	s.begin(ctx, connections)
	for until := time.Now().Add(30 * time.Second); s.held.Load() < int64(connections)*3/4; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d of %d slow connections are open", s.held.Load(), connections)
		}
	}
	took := f.honest(t, span)
	during := takeSample(t, f.server)
	held := s.held.Load()
	s.caps(t)
	end()
	s.busy.Wait()
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	t.Logf("%d slow connections, cut off %d times; %d honest joins, p50 %v, p99 %v (promised: 200ms), longest %v; %v, before %v",
		held, s.cut.Load(), len(took), took[len(took)/2], p99, took[len(took)-1], during, before)
	if long() && p99 > 200*time.Millisecond {
		t.Errorf("p99 is %v", p99)
	}
	f.settled(t, before)
	ok(t, f.server.Kill())
	f.fsck()
}

// begin starts slow clients: half of them strangers, half with the certificate of
// a peer. Half of the strangers share four addresses, more than the server takes
// from one.
func (s *slowness) begin(ctx context.Context, n int) {
	ways := []func(context.Context, net.Conn) error{s.silent, s.halfHello, s.slowHeader, s.slowBody}
	for i := range n {
		from := net.IPv4(127, 1, byte(i>>8), byte(i))
		if i%4 < 2 && i%8 < 4 {
			from = net.IPv4(127, 2, 0, byte(1+i/8%4))
		}
		s.busy.Go(func() { s.keep(ctx, from, ways[i%len(ways)]) })
	}
}

// keep holds one slow connection, again and again.
func (s *slowness) keep(ctx context.Context, from net.IP, slow func(context.Context, net.Conn) error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: 5 * time.Second}
	for ctx.Err() == nil {
		conn, err := dialer.DialContext(ctx, "tcp", s.address)
		begun := time.Now()
		if err == nil {
			s.held.Add(1)
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			err = slow(ctx, conn)
			stop()
			_ = conn.Close()
			s.held.Add(-1)
		}
		if err != nil && ctx.Err() == nil {
			s.cut.Add(1)
			if time.Since(begun) < time.Second {
				pause(ctx, 2*time.Second) // slow, not a flood
			}
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// silent says nothing.
func (s *slowness) silent(_ context.Context, c net.Conn) error {
	_, err := io.Copy(io.Discard, c)
	return orEOF(err)
}

func orEOF(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

// halfHello begins a handshake, a byte at a time.
func (s *slowness) halfHello(ctx context.Context, c net.Conn) error {
	return trickle(ctx, c, append([]byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}, make([]byte, 500)...))
}

// trickle writes a byte every 300 ms until somebody makes an end.
func trickle(ctx context.Context, w io.Writer, text []byte) error {
	for i := range text {
		if _, err := w.Write(text[i : i+1]); err != nil {
			return err
		}
		pause(ctx, 300*time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// slowHeader has a certificate and sends its request a byte at a time.
func (s *slowness) slowHeader(ctx context.Context, c net.Conn) error {
	conn := tls.Client(c, s.peer)
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	return trickle(ctx, conn, []byte("POST / HTTP/1.1\r\nHost: join.example.com\r\nX-Long: "+strings.Repeat("x", 4000)))
}

// slowBody has a certificate, and its body comes a byte at a time.
func (s *slowness) slowBody(ctx context.Context, c net.Conn) error {
	conn := tls.Client(c, s.peer)
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: join.example.com\r\nContent-Length: 4000\r\n\r\n"); err != nil {
		return err
	}
	return trickle(ctx, conn, []byte(`{"ProtocolVersion":"`+strings.Repeat("1", 4000)))
}

// caps sends what is too long and what is nested too deep.
func (s *slowness) caps(t *testing.T) {
	t.Helper()
	for name, c := range map[string]struct{ body, want string }{
		"too long":             {`{"ProtocolVersion":"` + strings.Repeat("1", 40_000) + `"}`, "HTTP/1.1 413"},
		"too long, unsaid":     {"", "HTTP/1.1 413"},
		"nested too deep":      {`{"MessageType":"JoinReq","x":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`, "HTTP/1.1 400"},
		"objects nested twice": {strings.Repeat(`{"a":`, 5000), "HTTP/1.1 400"},
	} {
		conn, err := tls.Dial("tcp", s.address, s.peer)
		ok(t, err)
		ok(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		if c.body != "" {
			_, err = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(c.body), c.body)
		} else {
			_, err = fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
			for n := 0; err == nil && n < 40; n++ {
				_, err = fmt.Fprintf(conn, "400\r\n%s\r\n", strings.Repeat(" ", 1024))
			}
		}
		if err != nil {
			t.Logf("%s: the server stopped reading: %v", name, err)
		}
		answer := make([]byte, 12)
		if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != c.want {
			t.Errorf("%s: answered %q, %v; want %q", name, answer, err, c.want)
		}
		_ = conn.Close()
	}
}

// honest has devices join over four links for a while, every tenth on a new
// connection, and gives how long each join took.
func (f *fleet) honest(t *testing.T, span time.Duration) (took []time.Duration) {
	t.Helper()
	var mu sync.Mutex
	var busy sync.WaitGroup
	until := time.Now().Add(span)
	for w := range 4 {
		var link *sim.Link
		ns, err := f.lab.NS("", lab.PeerOptions{Way: func(url string, conf *tls.Config) (sim.Way, error) {
			link = sim.NewLink(url, conf, 1)
			return link, nil
		}})
		ok(t, err)
		busy.Go(func() {
			defer link.Close()
			for n := w; time.Now().Before(until); n += 4 {
				if n/4%10 == 9 {
					link.Close()
				}
				m := f.members[n%len(f.members)]
				begun := time.Now()
				r, err := ns.Join(t.Context(), m.Device, sim.JoinOptions{})
				d := time.Since(begun)
				if err == nil {
					err = r.Err()
				}
				if err != nil {
					t.Errorf("an honest join: %v", err)
					return
				}
				mu.Lock()
				took = append(took, d)
				mu.Unlock()
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	busy.Wait()
	return took
}

// settled waits until the server holds no more than before.
func (f *fleet) settled(t *testing.T, before sample) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		now := takeSample(t, f.server)
		if now.goroutines <= before.goroutines+10 && now.descriptors <= before.descriptors+10 {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("the server held %v before, and holds %v after", before, now)
		}
	}
}

// peerTLS is how a peer of the quickstart connects.
func peerTLS(t *testing.T, f *fleet, name string) *tls.Config {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(f.server.Path("pki", name+".crt"), f.server.Path("pki", name+".key"))
	ok(t, err)
	pem, err := os.ReadFile(f.server.Path("pki", "ca.crt"))
	ok(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{cert}, ServerName: "127.0.0.1", ClientSessionCache: tls.NewLRUClientSessionCache(0)}
}
