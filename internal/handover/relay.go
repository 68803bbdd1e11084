package handover

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
)

// Relay carries requests to the successor, any number at once over one
// connection (HTTP/2): it gives one descriptor, and nobody else has it.
type Relay struct{ conn *http.ClientConn }

// maxRelayed bounds the requests under way at once; more than a server has
// connections there never are.
const maxRelayed = 1 << 20

// maxUnread is how much of one upload waits for a handler that does not read yet,
// in bytes, and maxUnreadAll how much of all. The first must be a small part of
// the second, or a few uploads would keep joins waiting, whose bodies share the
// connection. net/http takes no more than this for the second.
const (
	maxUnread    = 16 << 10
	maxUnreadAll = 4<<20 - 1
)

func newRelay(ctx context.Context, conn net.Conn) (*Relay, error) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		Protocols:   protocols,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	cc, err := transport.NewClientConn(ctx, "http", successorHost+":80")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("relay: %w", err), conn.Close())
	}
	r := &Relay{cc}
	// Before its first answer a connection takes few requests, and now a crowd
	// may be waiting.
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, "http://"+successorHost, nil)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	resp, err := cc.RoundTrip(req)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("relay: the successor does not answer: %w", err), r.Close())
	}
	return r, resp.Body.Close()
}

// successorHost stands where HTTP wants a host.
const successorHost = "successor.invalid"

// Close ends the relay: the successor need not wait for it any more.
func (r *Relay) Close() error { return r.conn.Close() }

// Headers by which a relay tells what the successor cannot see.
const (
	headerDoor  = "Joinery-Relay-Door"
	headerChain = "Joinery-Relay-Chain"
	headerUser  = "Joinery-Relay-User"
)

// Handler answers requests of a door by asking the successor's. user names, for
// the operator socket, the user at its other end; it may be nil. The client
// certificates of a TLS connection go along.
func (r *Relay) Handler(door string, user func(*http.Request) string) http.Handler {
	return &httputil.ReverseProxy{
		Transport: r.conn,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: successorHost})
			p.Out.Host = p.In.Host
			p.Out.Header.Set(headerDoor, door)
			p.Out.Header.Del(headerChain)
			p.Out.Header.Del(headerUser)
			if p.In.TLS != nil {
				p.Out.Header.Set(headerChain, encodeChain(p.In.TLS.PeerCertificates))
			}
			if user != nil {
				p.Out.Header.Set(headerUser, user(p.In))
			}
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusServiceUnavailable) // the successor ended, too
		},
	}
}

// Relayed is what the old server says of a request that it relays.
type Relayed struct {
	Door  string
	Chain []*x509.Certificate // of the client, leaf first; proven in the handshake
	User  string              // as Handler's user gave it
}

// ReadRelayed takes what Handler added out of a request.
func ReadRelayed(r *http.Request) (m Relayed, err error) {
	h := r.Header
	m.Door, m.User = h.Get(headerDoor), h.Get(headerUser)
	m.Chain, err = decodeChain(h.Get(headerChain))
	h.Del(headerDoor)
	h.Del(headerChain)
	h.Del(headerUser)
	return m, err
}

func encodeChain(chain []*x509.Certificate) string {
	var der []byte
	for _, c := range chain {
		der = append(der, c.Raw...)
	}
	return base64.StdEncoding.EncodeToString(der)
}

func decodeChain(text string) ([]*x509.Certificate, error) {
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("relayed certificates: %w", err)
	}
	return x509.ParseCertificates(der)
}

// serveRelay answers on conn until it ends, which closes done.
func serveRelay(conn net.Conn, handler http.Handler) (done <-chan struct{}) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	l := &single{conn: make(chan net.Conn, 1), addr: conn.LocalAddr(), ended: make(chan struct{})}
	l.conn <- &reporting{Conn: conn, ended: l.ended}
	server := &http.Server{
		Handler:   withoutConnection(handler),
		Protocols: protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxRelayed,
			MaxReceiveBufferPerStream:     maxUnread,
			MaxReceiveBufferPerConnection: maxUnreadAll,
		},
	}
	go func() { _ = server.Serve(l) }() // ends with the connection
	return l.ended
}

// withoutConnection keeps the header Connection of answers back: it is about the
// client's connection, and would end the relay's. A HEAD without a door is the
// relay's own first question.
func withoutConnection(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(headerDoor) == "" {
			return
		}
		next.ServeHTTP(&hopless{ResponseWriter: w}, r)
	})
}

type hopless struct {
	http.ResponseWriter
	wrote bool
}

// WriteHeader implements http.ResponseWriter.
func (w *hopless) WriteHeader(status int) {
	w.wrote = true
	w.Header().Del("Connection")
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *hopless) Write(b []byte) (int, error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets deadlines be set.
func (w *hopless) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// single is a listener with one connection. After it has been given, Accept
// waits for its end.
type single struct {
	conn  chan net.Conn
	addr  net.Addr
	ended chan struct{}
}

// Accept implements net.Listener.
func (l *single) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.ended:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *single) Close() error { return nil }

// Addr implements net.Listener.
func (l *single) Addr() net.Addr { return l.addr }

// reporting is a connection that tells of its end.
type reporting struct {
	net.Conn
	once  sync.Once
	ended chan struct{}
}

// Close implements net.Conn.
func (c *reporting) Close() error {
	c.once.Do(func() { close(c.ended) })
	return c.Conn.Close()
}
