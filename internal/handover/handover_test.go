package handover

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func listenTCP(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	ok(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// Who connects while a tap is shut is refused by nobody: the next tap, or the
// same when it opens, finds the connection.
func TestTapLeavesConnectionsInTheQueue(t *testing.T) {
	l := listenTCP(t)
	first := NewTap(l)
	accepted := make(chan error, 1)
	accept := func(tap *Tap) {
		conn, err := tap.Accept()
		if err == nil {
			err = conn.Close()
		}
		accepted <- err
	}
	go accept(first)
	ok(t, first.Shut())
	ok(t, first.Shut()) // again
	conn, err := net.Dial("tcp", l.Addr().String())
	ok(t, err)
	defer func() { _ = conn.Close() }()
	select {
	case err := <-accepted:
		t.Fatalf("a shut tap accepted: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	ok(t, first.Open())
	ok(t, <-accepted)

	ok(t, first.Shut())
	second := NewTap(l)
	conn2, err := net.Dial("tcp", l.Addr().String())
	ok(t, err)
	defer func() { _ = conn2.Close() }()
	go accept(second)
	ok(t, <-accepted)
	ok(t, first.Close()) // leaves the other alone
	conn3, err := net.Dial("tcp", l.Addr().String())
	ok(t, err)
	defer func() { _ = conn3.Close() }()
	go accept(second)
	ok(t, <-accepted)
	go accept(second)
	ok(t, second.Close())
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed tap gave %v", err)
	}
}

func TestGate(t *testing.T) {
	g := NewGate(time.Minute)
	if elsewhere, err := g.Enter(t.Context()); elsewhere != nil || err != nil {
		t.Fatalf("an open gate gave %v, %v", elsewhere, err)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := g.Shut(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("it shut with somebody inside: %v", err)
	}
	shut := make(chan error, 1)
	go func() { shut <- g.Shut(t.Context()) }()
	time.Sleep(10 * time.Millisecond)
	g.Leave()
	ok(t, <-shut)

	// Who waits learns where to go.
	var waiting sync.WaitGroup
	for range 50 {
		waiting.Go(func() {
			if elsewhere, err := g.Enter(t.Context()); elsewhere == nil || err != nil {
				t.Errorf("waited for %v, %v", elsewhere, err)
			}
		})
	}
	time.Sleep(10 * time.Millisecond)
	g.Open(http.NotFoundHandler())
	waiting.Wait()

	// One who was inside too long when it shut leaves after it opened.
	late := NewGate(time.Minute)
	if _, err := late.Enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	short, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := late.Shut(short); err == nil {
		t.Error("it shut with somebody inside")
	}
	late.Open(http.NotFoundHandler())
	emptied := make(chan error, 1)
	go func() { emptied <- late.Emptied(t.Context()) }()
	select {
	case err := <-emptied:
		t.Errorf("empty with somebody inside: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	late.Leave()
	ok(t, <-emptied)

	// Nobody waits for ever.
	hasty := NewGate(time.Millisecond)
	ok(t, hasty.Shut(t.Context()))
	if _, err := hasty.Enter(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// relayed opens a relay to handler.
func relayed(t *testing.T, handler http.HandlerFunc) (_ *Relay, done <-chan struct{}) {
	t.Helper()
	ours, theirs, err := pair()
	ok(t, err)
	done = serveRelay(ours, handler)
	s := &Successor{relay: theirs}
	r, err := s.Relay(t.Context())
	ok(t, err)
	return r, done
}

// What a relay says of a request arrives, what a client says in its place does
// not, and an answer that ends the client's connection does not end the relay.
func TestRelay(t *testing.T) {
	cert := certificate(t)
	r, done := relayed(t, func(w http.ResponseWriter, r *http.Request) {
		m, err := ReadRelayed(r)
		if err != nil {
			t.Error(err)
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %q %d %s %d", r.URL, m.Door, m.User, len(m.Chain), body, len(r.Header["Joinery-Relay-User"]))
	})
	door := httptest.NewTLSServer(r.Handler("interop", nil))
	door.Close() // only for its form
	door = httptest.NewUnstartedServer(r.Handler("interop", nil))
	door.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	door.StartTLS()
	defer door.Close()
	conf := door.Client().Transport.(*http.Transport).TLSClientConfig
	conf.Certificates = []tls.Certificate{cert}
	var asking sync.WaitGroup
	for range 300 { // more than HTTP/2 would let through at first
		asking.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, door.URL+"/p?q=1", strings.NewReader("question"))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Joinery-Relay-User", "somebody else")
			req.Header.Set("Joinery-Relay-Chain", "AAAA")
			resp, err := door.Client().Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = resp.Body.Close() }()
			body, _ := io.ReadAll(resp.Body)
			if want := `/p?q=1 interop "" 1 question 0`; string(body) != want || resp.StatusCode != http.StatusTeapot {
				t.Errorf("%d %q, want %q", resp.StatusCode, body, want)
			}
		})
	}
	asking.Wait()
	select {
	case <-done:
		t.Error("the relay ended")
	default:
	}
	ok(t, r.Close())
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("the end of the relay is not seen")
	}
}

// Uploads that nobody reads yet keep no join waiting.
func TestRelayPastUnreadUploads(t *testing.T) {
	read := make(chan struct{})
	r, _ := relayed(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get(headerDoor) == "api" {
			<-read
		}
		_, _ = io.Copy(io.Discard, r.Body)
	})
	defer func() { _ = r.Close() }()
	door := func(name string) *httptest.Server {
		s := httptest.NewServer(r.Handler(name, nil))
		t.Cleanup(s.Close)
		return s
	}
	post := func(ctx context.Context, s *httptest.Server, size int) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, strings.NewReader(strings.Repeat("x", size)))
		if err != nil {
			return err
		}
		resp, err := s.Client().Do(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	calls, joins := door("api"), door("interop")
	var uploads sync.WaitGroup
	for range 16 {
		uploads.Go(func() {
			if err := post(t.Context(), calls, 2<<20); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(200 * time.Millisecond) // until each has sent what it may
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := post(ctx, joins, 100); err != nil {
		t.Errorf("a join beside unread uploads: %v", err)
	}
	close(read)
	uploads.Wait()
}

// shorten makes a bound short for one test.
func shorten(t *testing.T, bound *time.Duration) {
	t.Helper()
	long := *bound
	*bound /= 100
	t.Cleanup(func() { *bound = long })
}

// A successor that says it serves and hangs is not waited for without bound.
func TestRelayToOneThatHangs(t *testing.T) {
	shorten(t, &relayTimeout)
	ours, theirs, err := pair()
	ok(t, err)
	defer func() { _ = ours.Close() }()
	opened := make(chan error, 1)
	go func() {
		_, err := (&Successor{relay: theirs}).Relay(t.Context())
		opened <- err
	}()
	select {
	case err := <-opened:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it answers: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("waited for without bound")
	}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ok(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Sockets arrive as they were, and both ends accept on them; another database is
// refused.
func TestSockets(t *testing.T) {
	dir := t.TempDir()
	meeting, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "next"), Net: "unix"})
	ok(t, err)
	defer func() { _ = meeting.Close() }()
	path := filepath.Join(dir, "s")
	operator, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	ok(t, err)
	tcp := listenTCP(t)
	given := []Socket{{"a", tcp, true}, {"b", operator, false}}
	met := make(chan error, 1)
	serve := func() {
		conn, err := meeting.AcceptUnix()
		if err == nil {
			_, err = Meet(t.Context(), conn, "ours", func() ([]Socket, error) { return given, nil })
		}
		met <- err
	}
	go serve()
	if _, _, err := Succeed(t.Context(), meeting.Addr().String(), "another"); err == nil || !strings.Contains(err.Error(), "another database") {
		t.Errorf("another database: %v", err)
	}
	if err := <-met; err == nil {
		t.Error("another database was not refused")
	}

	go serve()
	p, sockets, err := Succeed(t.Context(), meeting.Addr().String(), "ours")
	ok(t, err)
	if len(sockets) != 2 || sockets[0].Name != "a" || !sockets[0].Kept || sockets[1].Name != "b" || sockets[1].Kept ||
		sockets[0].Addr().String() != tcp.Addr().String() || sockets[1].Addr().String() != path {
		t.Fatalf("got %+v", sockets)
	}
	conn, err := net.Dial("tcp", tcp.Addr().String())
	ok(t, err)
	defer func() { _ = conn.Close() }()
	got, err := sockets[0].Accept()
	ok(t, err)
	ok(t, got.Close())
	// It ends before it is ready: nothing of the other's is lost.
	ok(t, p.Close())
	CloseAll(sockets)
	if err := <-met; err == nil {
		t.Error("who left is ready")
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	ok(t, operator.Close())

	if _, _, err := Succeed(t.Context(), filepath.Join(dir, "none"), "ours"); !errors.Is(err, ErrNobody) {
		t.Errorf("nobody: %v", err)
	}
}

// meet lets a successor get as far as having the sockets, and gives both ends.
func meet(t *testing.T) (_ *Predecessor, met func() (*Successor, error)) {
	t.Helper()
	meeting, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "next"), Net: "unix"})
	ok(t, err)
	t.Cleanup(func() { _ = meeting.Close() })
	var s *Successor
	var meetErr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := meeting.AcceptUnix()
		if err == nil {
			s, err = Meet(t.Context(), conn, "ours", func() ([]Socket, error) { return nil, nil })
		}
		meetErr = err
	}()
	p, _, err := Succeed(t.Context(), meeting.Addr().String(), "ours")
	ok(t, err)
	t.Cleanup(func() { _ = p.Close() })
	return p, func() (*Successor, error) { <-done; return s, meetErr }
}

// A running server that refuses is not taken for one that is gone.
func TestRefusedSuccessor(t *testing.T) {
	refusedToo := func(t *testing.T, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "refuses") {
			t.Errorf("got %v", err)
		}
	}
	t.Run("before it yields", func(t *testing.T) {
		p, met := meet(t)
		yielded := make(chan error, 1)
		go func() { yielded <- p.Yield(t.Context()) }()
		s, err := met()
		ok(t, err)
		ok(t, s.Refuse("busy"))
		refusedToo(t, <-yielded)
	})
	t.Run("after patience ran out", func(t *testing.T) {
		shorten(t, &patience)
		p, met := meet(t)
		if _, err := met(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it waited for ever: %v", err)
		}
		_, err := p.Serving(http.NotFoundHandler(), nil)
		refusedToo(t, err)
	})
	t.Run("gone without a word", func(t *testing.T) {
		p, met := meet(t)
		yielded := make(chan error, 1)
		go func() { yielded <- p.Yield(t.Context()) }()
		s, err := met()
		ok(t, err)
		ok(t, s.Close())
		ok(t, <-yielded)
	})
}

// One that works on a large database is waited for.
func TestSuccessorAtWork(t *testing.T) {
	shorten(t, &patience)
	shorten(t, &signOfLife)
	p, met := meet(t)
	done := p.Working()
	time.Sleep(3 * patience)
	done()
	_, err := p.Serving(http.NotFoundHandler(), nil)
	ok(t, err)
	s, err := met()
	ok(t, err)
	ok(t, s.Close())

	// What it said while nobody listened does not hide what it says now.
	p, met = meet(t)
	go func() { _ = p.send(message{Step: stepYield}) }()
	s, err = met()
	ok(t, err)
	ok(t, p.send(message{Step: stepWorking}))
	ok(t, p.send(message{Step: stepWorking}))
	_, err = p.Serving(http.NotFoundHandler(), nil)
	ok(t, err)
	alive := 0
	ok(t, s.Yielded(t.Context(), func() { alive++ }))
	if alive != 2 {
		t.Errorf("%d signs of life, want 2", alive)
	}
	r, err := s.Relay(t.Context())
	ok(t, err)
	ok(t, r.Close())
	ok(t, s.Close())
}

func TestFromServiceManager(t *testing.T) {
	for _, tc := range []struct{ pid, fds, names, wrong string }{
		{"", "", "", ""},
		{"1", "2", "a:b", ""}, // for another process
		{fmt.Sprint(os.Getpid()), "x", "", "LISTEN_FDS"},
		{fmt.Sprint(os.Getpid()), "99", "", "LISTEN_FDS"},
		{fmt.Sprint(os.Getpid()), "1", "other", `"other": want each of a, b`},
		{fmt.Sprint(os.Getpid()), "1", "", `"": want each of a, b`},
	} {
		t.Setenv("LISTEN_PID", tc.pid)
		t.Setenv("LISTEN_FDS", tc.fds)
		t.Setenv("LISTEN_FDNAMES", tc.names)
		sockets, err := FromServiceManager("a", "b")
		if len(sockets) != 0 || (err == nil) != (tc.wrong == "") || err != nil && !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%+v: %v, %v", tc, sockets, err)
		}
		if os.Getenv("LISTEN_FDS") != "" {
			t.Error("a child would take the sockets for its own")
		}
	}
}
