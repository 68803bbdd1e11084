package interop

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"joinery"
	"joinery/backend"
)

// Resolver leads from a certificate to a peer.
type Resolver interface {
	// Resolve finds the one peer to which a client's certificate belongs, or
	// fails with a joinery.Code. chain is what the client sent, leaf first: the
	// handshake proved that the client holds the leaf's key, and nothing else
	// was verified.
	Resolve(chain []*x509.Certificate, now time.Time) (joinery.Peer, error)
	// Generation names the state from which Resolve answers. It differs after
	// every change that can change an answer; while it is 0, no answer may be
	// used twice.
	Generation() uint64
}

// maxResolved is how long a connection may use one answer of the Resolver, if
// nothing changed: a CA that the client did not send may end meanwhile.
const maxResolved = time.Minute

// connection remembers, for one TLS connection, to which peer it belongs.
type connection struct {
	client     *clientConn // nil where the request came another way
	mu         sync.Mutex
	peer       joinery.Peer
	generation uint64
	from       time.Time
	until      time.Time
}

type connectionKey struct{}

// withConnection is http.Server.ConnContext. A connection that came through a
// door knows its peer already.
func withConnection(ctx context.Context, c net.Conn) context.Context {
	known := new(connection)
	if conn, ok := c.(*clientConn); ok {
		known = &conn.held.known
		known.client = conn
	}
	return context.WithValue(ctx, connectionKey{}, known)
}

// connectionOf gives the connection of a request; one that knows nothing where it
// has none.
func connectionOf(ctx context.Context) *connection {
	if c, ok := ctx.Value(connectionKey{}).(*connection); ok {
		return c
	}
	return new(connection)
}

// peerOf finds the peer of a request by its connection's certificate, as things
// stand now.
func (s *Server) peerOf(c *connection, state *tls.ConnectionState) (joinery.Peer, error) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return joinery.Peer{}, joinery.Errorf(joinery.CodeUnauthenticated, "there is no client certificate")
	}
	return s.identify(c, state)
}

// beginAnswer tells the connection that a request was read to its end.
func (c *connection) beginAnswer() {
	if c.client != nil {
		c.client.beginAnswer()
	}
}

// identify finds the peer of a connection, from memory where nothing changed.
func (s *Server) identify(c *connection, state *tls.ConnectionState) (joinery.Peer, error) {
	now := s.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	// Read before Resolve: an answer that is newer than its number does no harm.
	generation := s.opt.Peers.Generation()
	if generation != 0 && generation == c.generation && !now.Before(c.from) && now.Before(c.until) {
		return c.peer, nil
	}
	c.generation = 0
	peer, err := s.opt.Peers.Resolve(state.PeerCertificates, now)
	if err != nil {
		return joinery.Peer{}, err
	}
	c.peer, c.generation, c.from, c.until = peer, generation, now, now.Add(maxResolved)
	for _, cert := range state.PeerCertificates {
		if cert.NotAfter.Before(c.until) {
			c.until = cert.NotAfter
		}
	}
	return peer, nil
}

var errNoPeer = errors.New("the client certificate belongs to no peer of this server")

// verifyConnection is tls.Config.VerifyConnection: it ends every handshake, full
// or resumed, whose certificate leads to no peer now. The client is told no more
// than that; the log tells which key it was, so that an operator can see what a
// peer's credential should be.
func (s *Server) verifyConnection(state tls.ConnectionState) error {
	_, err := s.opt.Peers.Resolve(state.PeerCertificates, s.now())
	if err == nil {
		return nil
	}
	s.metrics.refusedHandshakes.Inc()
	if len(state.PeerCertificates) > 0 && s.refusals.allow(s.now()) {
		leaf := state.PeerCertificates[0]
		spki := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
		s.log.Info("handshake refused",
			slog.String("reason", err.Error()),
			slog.String("subject", shorten(leaf.Subject.String())),
			slog.String("issuer", shorten(leaf.Issuer.String())),
			slog.String("spki_sha256", hex.EncodeToString(spki[:])))
	}
	return errNoPeer
}

// maxLogged bounds text that a client chose.
const maxLogged = 200

func shorten(s string) string { return s[:min(len(s), maxLogged)] }

// checkSender: the names in a message must be the certificate's peer's. r was
// read as far as SenderID at least.
func checkSender(p *joinery.Peer, r *backend.Request) error {
	if !r.MessageType.FromNetwork() {
		if !slices.Contains(p.ASIDs, r.SenderID) {
			return joinery.Refuse(joinery.RefusedSenderASID, joinery.Errorf(joinery.CodeUnknownSender, "SenderID is not an AS-ID of this client certificate"))
		}
		return nil
	}
	if !slices.Contains(p.NetIDs, r.NetID) {
		return joinery.Refuse(joinery.RefusedSenderNetID, joinery.Errorf(joinery.CodeUnknownSender, "SenderID is not a NetID of this client certificate"))
	}
	if r.SenderNSID != "" && !p.IgnoreNSID && !slices.Contains(p.NSIDs, r.NSID) {
		return joinery.Refuse(joinery.RefusedSenderNSID, joinery.Errorf(joinery.CodeUnknownSender, "SenderNSID is not an NSID of this client certificate"))
	}
	return nil
}

// leafOf gives the parsed leaf of a certificate of ours.
func leafOf(c *tls.Certificate) (*x509.Certificate, error) {
	if c.Leaf != nil {
		return c.Leaf, nil
	}
	return x509.ParseCertificate(c.Certificate[0])
}

// sparse lets one event a second through.
type sparse struct {
	mu   sync.Mutex
	last time.Time
}

func (l *sparse) allow(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if age := now.Sub(l.last); age >= 0 && age < time.Second {
		return false
	}
	l.last = now
	return true
}
