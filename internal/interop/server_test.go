package interop

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"joinery"
	"joinery/backend"
	"joinery/internal/activation"
)

func TestNewRefuses(t *testing.T) {
	good := newHouse(t).opt
	for name, change := range map[string]func(*Options){
		"no resolver":    func(o *Options) { o.Peers = nil },
		"no rules":       func(o *Options) { o.Joins = nil },
		"no source":      func(o *Options) { o.Certificate = nil },
		"no certificate": func(o *Options) { o.Certificate = certificate(nil, nil) },
		"empty":          func(o *Options) { o.Certificate = certificate(&tls.Certificate{}, nil) },
		"no key":         func(o *Options) { o.Certificate = certificate(&tls.Certificate{Certificate: [][]byte{{1}}}, nil) },
		"unreadable":     func(o *Options) { o.Certificate = certificate(nil, errors.New("no such file")) },
		"names taken": func(o *Options) {
			r := prometheus.NewRegistry()
			o.Metrics = r
			if _, err := newMetrics(r, func() float64 { return 0 }); err != nil {
				t.Fatal(err)
			}
		},
	} {
		opt := good
		change(&opt)
		if s, err := New(opt); err == nil || s != nil || !strings.HasPrefix(err.Error(), "interop: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func certificate(c *tls.Certificate, err error) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c, err }
}

// TestCertificateIsReplacedWhileServing: a new handshake gets the new
// certificate, a living connection goes on; when there is none, handshakes fail
// and nothing else.
func TestCertificateIsReplacedWhileServing(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := openHouse(t, func(o *Options) { o.Metrics = registry })
	living := h.client(t, h.tlsConfig(h.ns))
	h.mustPost(t, living, joinReq10)

	next := h.serverCA.issue(t, "joinery, renewed", func(c *x509.Certificate) { c.NotAfter = time.Unix(4102444800, 0) })
	h.serverKey.Store(&next)
	var seen *x509.Certificate
	config := h.tlsConfig(h.ns)
	config.VerifyConnection = func(s tls.ConnectionState) error { seen = s.PeerCertificates[0]; return nil }
	h.mustPost(t, h.client(t, config), joinReq10)
	if seen == nil || !seen.Equal(next.Leaf) {
		t.Error("a new handshake got the old certificate")
	}
	if got := gauge(t, registry, "joinery_interop_certificate_not_after_seconds"); got != 4102444800 {
		t.Errorf("the metric says that it ends at %v", got)
	}

	h.serverKey.Store(nil)
	if _, _, err := h.post(h.client(t, h.tlsConfig(h.ns)), joinReq10); err == nil {
		t.Error("a handshake without a certificate")
	}
	h.mustPost(t, living, joinReq10)
	if got := gauge(t, registry, "joinery_interop_certificate_not_after_seconds"); got != 0 {
		t.Errorf("without a certificate the metric says %v", got)
	}
}

func gauge(t *testing.T, r *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// TestRefusedHandshakeTellsTheKey: the log holds what an operator needs to add
// the peer, once a second at most, and the metric counts all.
func TestRefusedHandshakeTellsTheKey(t *testing.T) {
	registry := prometheus.NewRegistry()
	stopped := time.Now()
	h := openHouse(t, func(o *Options) {
		o.Metrics = registry
		o.Now = func() time.Time { return stopped }
	})
	cert := newAuthority(t, "stranger").issue(t, "unknown-ns "+strings.Repeat("x", 300))
	for range 5 {
		h.mustRefuse(t, h.client(t, h.tlsConfig(cert)), joinReq10)
	}
	if n := gauge(t, registry, "joinery_interop_refused_handshakes_total"); n != 5 {
		t.Errorf("%v handshakes were counted", n)
	}
	log := h.log.String()
	if n := strings.Count(log, "handshake refused"); n != 1 || !strings.Contains(log, "unknown-ns") || !strings.Contains(log, "spki_sha256") ||
		strings.Contains(log, strings.Repeat("x", 250)) {
		t.Errorf("%d lines:\n%s", n, log)
	}
}

// TestStuckRules: an answer comes within AnswerTimeout, whatever happens behind.
func TestStuckRules(t *testing.T) {
	h := openHouse(t, func(o *Options) { o.AnswerTimeout = 50 * time.Millisecond })
	h.joins.join = func(ctx context.Context, _ activation.JoinRequest) (activation.JoinAnswer, error) {
		<-ctx.Done()
		return activation.JoinAnswer{}, joinery.WrapError(joinery.CodeUnavailable, ctx.Err(), "the request took too long")
	}
	if a := h.mustPost(t, h.client(t, h.tlsConfig(h.ns)), joinReq10); a.Result.Code != backend.Other {
		t.Errorf("result %+v", a.Result)
	}
}

// TestSlowClients: who does not finish the handshake, the header or the body in
// time is let go, and others are served meanwhile.
func TestSlowClients(t *testing.T) {
	h := openHouse(t, func(o *Options) { o.RequestTimeout = 300 * time.Millisecond; o.IdleTimeout = 300 * time.Millisecond })
	c := h.client(t, h.tlsConfig(h.ns))
	const head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 400\r\n"
	var wait sync.WaitGroup
	for _, tt := range []struct {
		name  string
		sends string
		plain bool
	}{
		{"nothing at all", "", true},
		{"half a ClientHello", "\x16\x03\x01\x02\x00\x01\x00", true},
		{"no header", "", false},
		{"half a header", head[:20], false},
		{"half a body", head + "\r\n" + joinReq10[:50], false},
		{"idle after an answer", strings.Replace(head, "400", fmt.Sprint(len(joinReq10)), 1) + "\r\n" + joinReq10, false},
	} {
		conn, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		if !tt.plain {
			conn = tls.Client(conn, h.tlsConfig(h.ns))
		}
		wait.Go(func() {
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			if tt.sends != "" || !tt.plain {
				if _, err := io.WriteString(conn, tt.sends); err != nil {
					t.Errorf("%s: %v", tt.name, err)
				}
				if tc, ok := conn.(*tls.Conn); ok {
					if err := tc.Handshake(); err != nil {
						t.Errorf("%s: %v", tt.name, err)
					}
				}
			}
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
				t.Errorf("%s: the connection was not closed", tt.name)
			}
		})
	}
	for range 20 {
		h.mustPost(t, c, joinReq10)
	}
	wait.Wait()
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// TestConnectionLimit: one connection too many waits until another closes.
func TestConnectionLimit(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := openHouse(t, func(o *Options) { o.MaxConnections = 2; o.MaxPerPeer = 2; o.Metrics = registry })
	one, two, three := h.client(t, h.tlsConfig(h.ns)), h.client(t, h.tlsConfig(h.ns)), h.client(t, h.tlsConfig(h.ns))
	h.mustPost(t, one, joinReq10)
	h.mustPost(t, two, joinReq10)
	if n := gauge(t, registry, "joinery_interop_connections"); n != 2 {
		t.Errorf("%v connections are held", n)
	}
	served := make(chan error, 1)
	go func() {
		_, _, err := h.post(three, joinReq10)
		served <- err
	}()
	select {
	case err := <-served:
		t.Fatalf("the third was served: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	one.CloseIdleConnections()
	if err := <-served; err != nil {
		t.Errorf("the third, after one closed: %v", err)
	}
	h.mustPost(t, two, joinReq10)
}

// TestShutdownWhileFull: a listener that waits for a slot stops waiting.
func TestShutdownWhileFull(t *testing.T) {
	h := openHouse(t, func(o *Options) { o.MaxConnections = 1 })
	h.mustPost(t, h.client(t, h.tlsConfig(h.ns)), joinReq10)
	if err := h.stop(); err != nil {
		t.Error(err)
	}
}

// TestShutdown: what is being answered is answered; what takes longer than the
// caller waits is cut off.
func TestShutdown(t *testing.T) {
	for _, tt := range []struct {
		name     string
		patience time.Duration
		answered bool
	}{{"patient", 10 * time.Second, true}, {"in a hurry", 50 * time.Millisecond, false}} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			h.addr = l.Addr().String()
			served := make(chan error, 1)
			go func() { served <- h.Serve(l) }()
			entered, leave := make(chan struct{}), make(chan struct{})
			h.joins.join = func(ctx context.Context, r activation.JoinRequest) (activation.JoinAnswer, error) {
				close(entered)
				select {
				case <-leave:
				case <-ctx.Done():
				}
				return (&joins{}).Join(ctx, r)
			}
			status := make(chan int, 1)
			client := h.client(t, h.tlsConfig(h.ns))
			go func() {
				n, _, _ := h.post(client, joinReq10)
				status <- n
			}()
			<-entered
			if tt.answered {
				time.AfterFunc(100*time.Millisecond, func() { close(leave) })
			}
			ctx, cancel := context.WithTimeout(t.Context(), tt.patience)
			defer cancel()
			if err := h.Shutdown(ctx); (err == nil) != tt.answered {
				t.Errorf("Shutdown: %v", err)
			}
			if got := <-status; (got == http.StatusOK) != tt.answered {
				t.Errorf("the request in flight got status %d", got)
			}
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}

// TestServeReportsALostListener: a listener that breaks is an error, not an end.
func TestServeReportsALostListener(t *testing.T) {
	h := newHouse(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := h.Serve(l); err == nil || !strings.HasPrefix(err.Error(), "interop: ") {
		t.Errorf("Serve: %v", err)
	}
}

// TestManyAtOnce: answers go to who asked, whatever is shared between them.
func TestManyAtOnce(t *testing.T) {
	h := openHouse(t)
	h.joins.join = func(_ context.Context, r activation.JoinRequest) (activation.JoinAnswer, error) {
		if r.DevAddr[3]%2 == 0 {
			return activation.JoinAnswer{}, joinery.Errorf(joinery.CodeReplay, "device %s, frame % x", r.DevAddr, r.PHYPayload)
		}
		a, err := (&joins{}).Join(context.Background(), r)
		copy(a.PHYPayload, r.PHYPayload)
		return a, err
	}
	c := h.client(t, h.tlsConfig(h.ns))
	var wait sync.WaitGroup
	for worker := range 16 {
		wait.Go(func() {
			for i := range 50 {
				n := worker*50 + i
				body := strings.NewReplacer(`:7,`, fmt.Sprintf(`:%d,`, n), `"01020304"`, fmt.Sprintf(`"%08x"`, n),
					`"00000000d07ed5b370080706050403020100003851f0b6"`, fmt.Sprintf(`"%08x"`, n)).Replace(joinReq10)
				status, text, err := h.post(c, body)
				var a backend.Answer
				if err != nil || status != http.StatusOK || a.Parse([]byte(text)) != nil || int(a.TransactionID) != n {
					t.Errorf("request %d: %d %s %v", n, status, text, err)
					continue
				}
				frame := []byte{0, 0, byte(n >> 8), byte(n)}
				if n%2 == 0 && a.Result.Description != fmt.Sprintf("device %08X, frame % x", n, frame) ||
					n%2 == 1 && string(a.PHYPayload[:4]) != string(frame) {
					t.Errorf("request %d got %s", n, text)
				}
			}
		})
	}
	wait.Wait()
}
