package interop

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"joinery/backend"
	"joinery/internal/activation"
)

// Joiner answers the four questions of the protocol. Its errors carry a
// joinery.Code. It must not keep a request's PHYPayload or SessionKeyID after it
// returned, and it must return when its context ends.
type Joiner interface {
	Join(ctx context.Context, r activation.JoinRequest) (activation.JoinAnswer, error)
	Rejoin(ctx context.Context, r activation.JoinRequest) (activation.JoinAnswer, error)
	AppSKey(ctx context.Context, r activation.AppSKeyRequest) (activation.Envelope, error)
	HomeNS(ctx context.Context, r activation.HomeNSRequest) (activation.HomeNSAnswer, error)
}

// Gate tells where a request is answered, for a server that hands its work over.
type Gate interface {
	// Enter gives nil for a request that is answered here; Leave must follow. Else
	// it gives who answers in our place. It may wait a while, and then fail.
	Enter(ctx context.Context) (elsewhere http.Handler, err error)
	// Leave tells that the request has its answer.
	Leave()
}

// Options are the parts and bounds of a Server. Zero bounds take the defaults
// below.
type Options struct {
	Peers Resolver
	Joins Joiner
	// Certificate gives the server's certificate for each handshake, so that it
	// can be replaced while the server runs.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// Gate is asked once a request is read; nil answers every request here.
	Gate Gate
	// Refusals gets every refused request of a known peer; nil is nobody.
	Refusals Recorder

	Log     *slog.Logger          // nil logs nothing
	Metrics prometheus.Registerer // nil registers nowhere
	Now     func() time.Time      // nil is the system's clock; it judges certificates

	// MaxBody bounds a request's body in bytes; above backend.MaxMessageLen it
	// has no effect.
	MaxBody int
	// MaxConnections bounds the connections of a listener that are held at once;
	// more wait in the kernel's queue.
	MaxConnections int
	// MaxHandshakes bounds those of them whose handshake is not done, a quarter if
	// zero; more wait in the kernel's queue. MaxHandshakesPerAddress bounds those
	// of one IPv4 address or one IPv6 /64 from which no peer is connected; where
	// one is, half of MaxHandshakes may be. More are closed at once.
	MaxHandshakes           int
	MaxHandshakesPerAddress int
	// Settling is how long after Serve one address may have as many handshakes as
	// all: where a server was started anew, clients that waited in the kernel's
	// queue come all at once.
	Settling time.Duration
	// MaxPerPeer bounds the connections of one peer, half of all if zero; more are
	// closed after their handshake.
	MaxPerPeer int
	// HandshakeTimeout bounds the handshake; it is never above RequestTimeout.
	HandshakeTimeout time.Duration
	// RequestTimeout bounds receipt of a request and the sending of its answer;
	// IdleTimeout the time between two requests of a connection;
	// AnswerTimeout the time that the Joiner has.
	RequestTimeout time.Duration
	IdleTimeout    time.Duration
	AnswerTimeout  time.Duration
}

// Defaults of the bounds. Clients give up after 5 s (ChirpStack) or 10 s (The
// Things Stack), a device's second receive window opens after 6 s, and some
// clients wait for ever: whatever happens, they have an answer after 3 s.
const (
	DefaultMaxBody                 = backend.MaxMessageLen
	DefaultMaxConnections          = 8192
	DefaultMaxHandshakesPerAddress = 64
	DefaultHandshakeTimeout        = 3 * time.Second
	DefaultRequestTimeout          = 10 * time.Second
	DefaultIdleTimeout             = 2 * time.Minute
	DefaultAnswerTimeout           = 3 * time.Second

	maxHeaderBytes = 8 << 10
)

// Server is the door. It may serve several listeners.
type Server struct {
	opt     Options
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics
	http    *http.Server
	tls     *tls.Config
	// refusals keeps clients that nobody knows from filling the log.
	refusals sparse
	// held are the connections; retiring ends each with its next answer.
	held     held
	retiring atomic.Bool
	// chatter keeps a known peer from filling the log.
	chatter chatter
}

// New makes a Server. It fails where a part is missing, where there is no
// usable certificate, or where metrics of the same names are registered.
func New(opt Options) (*Server, error) {
	if opt.Peers == nil || opt.Joins == nil || opt.Certificate == nil {
		return nil, errors.New("interop: Peers, Joins and Certificate are required")
	}
	s := &Server{opt: withDefaults(opt), log: opt.Log, now: opt.Now}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if _, err := s.certificate(&tls.ClientHelloInfo{}); err != nil {
		return nil, fmt.Errorf("interop: %w", err)
	}
	var err error
	if s.metrics, err = newMetrics(opt.Metrics, s.certificateEnds); err != nil {
		return nil, err
	}
	s.tls = &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"}, // HTTP/2 costs twice as much here
		// Any certificate, because trust is not one pool for all: each peer has
		// pins or a CA of its own, and what they allow changes while we run.
		// verifyConnection decides, also when a session is resumed.
		ClientAuth:       tls.RequireAnyClientCert,
		VerifyConnection: s.verifyConnection,
		GetCertificate:   s.certificate,
		Time:             s.now,
	}
	s.http = s.newHTTPServer()
	return s, nil
}

func withDefaults(opt Options) Options {
	if opt.MaxBody <= 0 || opt.MaxBody > backend.MaxMessageLen {
		opt.MaxBody = DefaultMaxBody
	}
	if opt.MaxConnections <= 0 {
		opt.MaxConnections = DefaultMaxConnections
	}
	if opt.MaxHandshakes <= 0 {
		opt.MaxHandshakes = max(1, opt.MaxConnections/4)
	}
	if opt.MaxHandshakesPerAddress <= 0 {
		opt.MaxHandshakesPerAddress = DefaultMaxHandshakesPerAddress
	}
	if opt.MaxPerPeer <= 0 {
		opt.MaxPerPeer = max(1, opt.MaxConnections/2)
	}
	if opt.RequestTimeout <= 0 {
		opt.RequestTimeout = DefaultRequestTimeout
	}
	if opt.HandshakeTimeout <= 0 {
		opt.HandshakeTimeout = DefaultHandshakeTimeout
	}
	opt.HandshakeTimeout = min(opt.HandshakeTimeout, opt.RequestTimeout)
	if opt.IdleTimeout <= 0 {
		opt.IdleTimeout = DefaultIdleTimeout
	}
	if opt.AnswerTimeout <= 0 {
		opt.AnswerTimeout = DefaultAnswerTimeout
	}
	return opt
}

func (s *Server) newHTTPServer() *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           s,
		Protocols:         &protocols,
		ReadHeaderTimeout: s.opt.RequestTimeout,
		ReadTimeout:       s.opt.RequestTimeout,
		WriteTimeout:      s.opt.RequestTimeout + s.opt.AnswerTimeout,
		IdleTimeout:       s.opt.IdleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnContext:       withConnection,
		ConnState:         followState,

		DisableGeneralOptionsHandler: true, // OPTIONS is not POST, as any other
		// What goes wrong below HTTP, half-open connections above all, is noise
		// unless somebody looks for it.
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// Serve accepts connections on l, which must give plain TCP: TLS is made here.
// It returns nil after Shutdown, and else the reason.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(s.openDoor(l)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("interop: %w", err)
	}
	return nil
}

// Retire makes each connection end with its next answer, or undoes that. A
// client that was told does not send another request on it, so nothing is lost,
// as it may be when a connection is closed while a request is on its way.
func (s *Server) Retire(on bool) { s.retiring.Store(on) }

// Connections is how many connections are held, those in their handshake
// included.
func (s *Server) Connections() int { return s.held.count() }

// ServeRelayed answers a request that another server received, which vouches
// for the chain of the client's certificate, leaf first.
func (s *Server) ServeRelayed(w http.ResponseWriter, r *http.Request, chain []*x509.Certificate) {
	r = r.WithContext(context.WithValue(r.Context(), connectionKey{}, new(connection)))
	r.TLS = &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: chain}
	s.ServeHTTP(w, r)
}

// Shutdown closes the listeners and waits until requests in flight are
// answered; when ctx ends first, it cuts them off.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return fmt.Errorf("interop: requests in flight were cut off: %w", errors.Join(err, s.http.Close()))
	}
	return nil
}

// certificate is tls.Config.GetCertificate with a check: a handshake without a
// certificate would else fail in a way that nobody understands.
func (s *Server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c, err := s.opt.Certificate(hello)
	if err != nil {
		return nil, fmt.Errorf("the server's certificate cannot be had: %w", err)
	}
	if c == nil || len(c.Certificate) == 0 || c.PrivateKey == nil {
		return nil, errors.New("the server has no certificate with a private key")
	}
	return c, nil
}

// certificateEnds is when the server's certificate ends, in seconds since 1970;
// 0 where that cannot be told.
func (s *Server) certificateEnds() float64 {
	c, err := s.certificate(&tls.ClientHelloInfo{})
	if err != nil {
		return 0
	}
	leaf, err := leafOf(c)
	if err != nil {
		return 0
	}
	return float64(leaf.NotAfter.Unix())
}
