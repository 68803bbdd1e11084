package ttjs

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/claim"
	"joinery/internal/provisioning"
	"joinery/internal/seal"
	"joinery/internal/secret"
	"joinery/lorawan"
)

// Base is where the paths of this API begin.
const Base = client.BasePathV2

// Peers leads from certificates to peers; see fleet.Directory.
type Peers interface {
	Resolve(chain []*x509.Certificate, now time.Time) (joinery.Peer, error)
}

// Claims is the rules of claims by networks.
type Claims interface {
	Claim(ctx context.Context, peer joinery.Peer, c claim.NetworkClaim) error
	Status(ctx context.Context, peer joinery.Peer, d claim.NetworkDevice) (joinery.Binding, error)
	Unclaim(ctx context.Context, peer joinery.Peer, d claim.NetworkDevice) error
	UnclaimAll(ctx context.Context, peer joinery.Peer, devEUIs []lorawan.EUI64) map[lorawan.EUI64]error
}

// Devices is an organisation's devices and the JoinEUIs that the server answers
// for.
type Devices interface {
	Devices(ctx context.Context, caller joinery.Caller, q joinery.DeviceQuery) (joinery.DevicePage, error)
	FindDevices(ctx context.Context, caller joinery.Caller, devEUI lorawan.EUI64) ([]joinery.ActivationState, error)
	Delete(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error
	// Served is every JoinEUI range, in order.
	Served(ctx context.Context) ([]joinery.EUIRange, error)
}

// Tokens reads owner tokens; see claim.Service.
type Tokens interface {
	OwnerToken(ctx context.Context, caller joinery.Caller, device joinery.DeviceID) (string, error)
}

// Imports brings devices in.
type Imports interface {
	Begin(ctx context.Context, caller joinery.Caller, s provisioning.Spec) (joinery.Import, error)
	Rows(ctx context.Context, caller joinery.Caller, c provisioning.Chunk) ([]joinery.RowResult, joinery.Import, error)
	Errors(ctx context.Context, caller joinery.Caller, id joinery.ImportID, from uint64, limit int) ([]joinery.RowResult, error)
}

// Rates bounds who asks too often, and says in the headers of the answer how they
// stand; CodeRateLimited.
type Rates interface {
	SpendCaller(answer http.Header, caller joinery.Caller) error
	SpendPeer(answer http.Header, peer joinery.PeerID, requests int) error
}

// Attempts takes refused attempts, and waits for nothing.
type Attempts interface {
	Attempt(a *joinery.Attempt)
}

// Options is all that the door needs.
type Options struct {
	Peers   Peers
	Claims  Claims
	Devices Devices
	Tokens  Tokens
	Imports Imports
	// Rates counts requests together with those at the other doors of people and
	// scripts.
	Rates Rates
	// Attempts takes what was refused, for the custody log; nil is nobody.
	Attempts Attempts
	// Authenticate checks an API key or session. These clients name no
	// organisation: it acts for its own.
	Authenticate func(ctx context.Context, bearer string) (joinery.Caller, error)
	// Local gives who is known by the connection alone, such as the operator on its
	// socket.
	Local func(*http.Request) (joinery.Caller, bool)
	// TransportKey is the server's own, to which KEKs are sealed.
	TransportKey func() seal.PublicKey

	Version string
	Log     *slog.Logger
	Now     func() time.Time // nil is the system's clock; it judges certificates
}

// Server is the door: a handler for paths below Base.
type Server struct {
	Options
	mux      *http.ServeMux
	memory   *secret.Memory
	imports  importing
	document []byte
}

// New makes the door. Close it to give its memory for keys back.
func New(opt Options) (*Server, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	document, err := newDocument(opt.Version)
	if err != nil {
		return nil, err
	}
	memory, err := secret.NewMemory()
	if err != nil {
		return nil, err
	}
	s := &Server{
		Options: opt, mux: http.NewServeMux(), memory: memory, document: document,
	}
	for _, r := range s.routes() {
		s.mux.Handle(r.method+" "+Base+r.path, r.handler)
	}
	return s, nil
}

// Close wipes what keys are left.
func (s *Server) Close() error { return s.memory.Close() }

// route is one thing that the API does.
type route struct {
	method, path string
	handler      http.HandlerFunc
}

func (s *Server) routes() []route {
	return []route{
		{http.MethodPut, "/devices/{devEUI}/claim", s.asPeer(s.claim)},
		{http.MethodGet, "/devices/{devEUI}/claim", s.asPeer(s.claimStatus)},
		{http.MethodDelete, "/devices/{devEUI}/claim", s.asPeer(s.unclaim)},
		{http.MethodDelete, "/devices/{devEUIs}/claims", s.asPeer(s.unclaimAll)},

		{http.MethodGet, "/devices", s.asCaller(joinery.RightDevicesRead, s.listDevices)},
		{http.MethodGet, "/devices/{devEUI}", s.asCaller(joinery.RightDevicesRead, s.getDevice)},
		{http.MethodDelete, "/devices/{devEUI}", s.asCaller(joinery.RightDevicesWrite, s.deleteDevice)},
		{http.MethodGet, "/devices/import/formats", s.listFormats},
		{http.MethodPost, "/devices/import/{format}", s.asCaller(joinery.RightDevicesImport, s.importDevices)},

		{http.MethodGet, "/join-eui-prefixes", s.listPrefixes},
		{http.MethodGet, "/openapi.json", s.serveDocument},
	}
}

// ServeHTTP answers a request below Base. What the mux would say itself is said in
// this API's form, and never repeats a path.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	handler, pattern := s.mux.Handler(r)
	if clean := path.Clean(r.URL.Path) == r.URL.Path; pattern != "" && clean {
		s.mux.ServeHTTP(w, r)
		return
	}
	refused := discard{}
	handler.ServeHTTP(refused, r)
	if allow := http.Header(refused).Get("Allow"); allow != "" {
		w.Header().Set("Allow", allow)
		writeMessage(w, http.StatusMethodNotAllowed, "this path takes "+allow)
		return
	}
	writeMessage(w, http.StatusNotFound, "no such path; "+Base+"/openapi.json lists them all")
}

// discard keeps the headers of an answer only.
type discard http.Header

func (d discard) Header() http.Header         { return http.Header(d) }
func (d discard) WriteHeader(int)             {}
func (d discard) Write(b []byte) (int, error) { return len(b), nil }

// asPeer finds the Application Server that asks, before anything else of the
// request is looked at.
func (s *Server) asPeer(next func(http.ResponseWriter, *http.Request, joinery.Peer)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		peer, err := s.peerOf(r)
		if err == nil {
			err = s.Rates.SpendPeer(w.Header(), peer.ID, 1)
		}
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		next(w, r, peer)
	}
}

// peerOf finds the one Application Server to which the client certificate belongs
// now. A suspended peer is told what a stranger is.
func (s *Server) peerOf(r *http.Request) (joinery.Peer, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return joinery.Peer{}, joinery.Errorf(joinery.CodeUnauthenticated, "claims are for Application Servers: connect to the TLS listener with a client certificate")
	}
	peer, err := s.Peers.Resolve(r.TLS.PeerCertificates, s.Now())
	switch code := joinery.CodeOf(err); {
	case err == nil && len(peer.ASIDs) > 0:
		return peer, nil
	case err == nil, code == joinery.CodeUnauthenticated, code == joinery.CodeForbidden:
		return joinery.Peer{}, joinery.WrapError(joinery.CodeUnauthenticated, err, "the client certificate belongs to no Application Server that is known here")
	default:
		return joinery.Peer{}, err
	}
}

// asCaller finds who holds the API key of a request: as a bearer token, or as the
// password of basic authentication under any name, which older tools send. They
// must have the right that the route needs, before anything else of the request is
// looked at.
func (s *Server) asCaller(need joinery.Right, next func(http.ResponseWriter, *http.Request, joinery.Caller)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		caller, err := s.callerOf(r)
		if err == nil {
			err = s.Rates.SpendCaller(w.Header(), caller)
		}
		if err == nil {
			err = caller.Require(need)
		}
		if err != nil {
			if joinery.CodeOf(err) == joinery.CodeUnauthenticated {
				w.Header().Set("WWW-Authenticate", `Bearer realm="joinery"`)
			}
			s.attempted(r, caller, err)
			s.refuse(w, r, err)
			return
		}
		next(w, r, caller)
	}
}

func (s *Server) callerOf(r *http.Request) (joinery.Caller, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		if caller, ok := s.Local(r); ok {
			return caller, nil
		}
		return joinery.Caller{}, joinery.Errorf(joinery.CodeUnauthenticated, "an API key is needed here: 'Authorization: Bearer joinery_key_…'")
	}
	key, ok := r.Header.Get("Authorization"), false
	if _, password, basic := r.BasicAuth(); basic {
		key, ok = password, true
	} else if scheme, token, found := strings.Cut(key, " "); found && strings.EqualFold(scheme, "Bearer") {
		key, ok = strings.TrimSpace(token), true
	}
	if !ok || len(values) > 1 {
		return joinery.Caller{}, joinery.Errorf(joinery.CodeUnauthenticated, "want one header 'Authorization: Bearer' with an API key")
	}
	caller, err := s.Authenticate(r.Context(), key)
	if err == nil && caller.Session != 0 && caller.Org == 0 && !caller.Operator {
		return caller, joinery.Errorf(joinery.CodeForbidden, "this API knows no organisations, and you belong to several or to none: use an API key of the one that you mean")
	}
	return caller, err
}
