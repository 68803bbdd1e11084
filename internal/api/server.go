package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/auth"

	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of the door.
const (
	bodyTimeout   = 30 * time.Second
	writeTimeout  = 2 * time.Minute
	idleTimeout   = 2 * time.Minute
	headTimeout   = 10 * time.Second
	maxHead       = 16 << 10
	ordinaryBody  = 256 << 10
	importBody    = 24 << 20 // 500 entries of a manifest, at most 32 kB each, in base64 and JSON
	defaultLimit  = 100
	maxLimit      = 500
	importsAtOnce = 8                            // large bodies that are read and checked
	importsOfOrg  = 3                            // of them of one organisation; joinctl sends so many ahead
	importsHeld   = 8                            // large bodies of one organisation in memory, parked ones counted
	importWait    = bodyTimeout + 10*time.Second // for a slot: who has one is through by then
	shutdownGrace = 10 * time.Second
)

// Options is all that the door needs.
type Options struct {
	// Version of the server, for the status and the OpenAPI document.
	Version string
	Log     *slog.Logger
	// Metrics takes the door's metrics; nil for none.
	Metrics prometheus.Registerer
	// Around wraps the whole door where it is served; nil does not.
	Around func(http.Handler) http.Handler

	// PerMinute is how many requests one caller may send in a minute; 0 is
	// 6,000, and below 0 there is no bound.
	PerMinute int

	// TrustedProxies are networks of proxies whose word on where a request came from
	// is taken.
	TrustedProxies []netip.Prefix

	// Services may also come later, with Attach: to make the door needs none.
	Services
}

// Server is the door. It serves any number of listeners.
type Server struct {
	Services

	version string
	log     *slog.Logger
	kinds   map[joinery.Code]kind
	http    *http.Server
	metrics *metrics
	// crossOrigin tells what pages of other sites send.
	crossOrigin *http.CrossOriginProtection

	tables tables
	making sync.Mutex // made
	made   *table     // to which routes are registered
	// document gives the OpenAPI document as packDocument made it.
	document func() ([]byte, error)

	proxies proxies
	rates   *rates
	imports slots        // of requests that may have a large body
	held    atomic.Int64 // connections
}

// New makes the door; Serve opens it.
func New(opt Options) (*Server, error) {
	s := &Server{
		Services: opt.Services, version: opt.Version, log: opt.Log,
		crossOrigin: http.NewCrossOriginProtection(),
		kinds:       kinds(),
		rates:       newRates(opt.PerMinute), proxies: opt.TrustedProxies,
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.metrics, err = newMetrics(opt.Metrics); err != nil {
		return nil, err
	}
	s.tables.new = s.newTable
	s.document = sync.OnceValues(s.packedDocument)
	handler := s.Handler()
	if opt.Around != nil {
		handler = opt.Around(handler)
	}
	s.http = &http.Server{
		Handler:           handler,
		ConnState:         s.count,
		ReadHeaderTimeout: headTimeout,
		ReadTimeout:       headTimeout + bodyTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHead,
		ConnContext:       connContext,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Attach gives the door its services. It comes before Serve.
func (s *Server) Attach(services Services) { s.Services = services }

// count follows http.Server.ConnState.
func (s *Server) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.held.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.held.Add(-1)
	}
}

// Connections is how many connections are held.
func (s *Server) Connections() int { return int(s.held.Load()) }

// Handler gives the door without a listener. Requests that do not come through
// Serve have no connection to tell who they are, and need an API key.
func (s *Server) Handler() http.Handler { return s.outermost(http.HandlerFunc(s.routes)) }

// connContext asks the kernel who connected to the operator socket.
func connContext(ctx context.Context, c net.Conn) context.Context {
	if c.LocalAddr().Network() != "unix" {
		return ctx
	}
	caller, err := auth.SocketCaller(c)
	return context.WithValue(ctx, connectionKey{}, connection{caller, err})
}

// SocketUser names the operator on whose connection to the operator socket r
// came; "" for everybody else.
func SocketUser(r *http.Request) string {
	c, ok := r.Context().Value(connectionKey{}).(connection)
	if !ok || c.err != nil || !c.caller.Operator {
		return ""
	}
	return c.caller.Name
}

// AsSocketUser gives r as it came to another server that vouches for what
// SocketUser says there.
func AsSocketUser(r *http.Request, user string) *http.Request {
	if user == "" {
		return r
	}
	caller := joinery.Caller{Operator: true, Name: user, Rights: joinery.AllRights(), Socket: true}
	return r.WithContext(context.WithValue(r.Context(), connectionKey{}, connection{caller: caller}))
}

// Serve answers on l until Shutdown, and then returns nil. On a Unix socket root
// and the server's own user are the operator; on TCP everybody needs an API key,
// and the address must be this machine's own: the keys travel readable.
func (s *Server) Serve(l net.Listener) error {
	if err := checkListener(l); err != nil {
		_ = l.Close()
		return err
	}
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown lets requests in flight end, until ctx does, and closes everything.
func (s *Server) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shutdownGrace)
	defer cancel()
	defer s.tables.drop()
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

// full gives the path of a route behind the base path.
func full(route string) string { return client.BasePath + route }
