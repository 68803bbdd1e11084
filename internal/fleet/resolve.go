package fleet

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"joinery"
)

// maxChain bounds the certificates that a client may present: a leaf, two
// intermediates and a root that it need not have sent.
const maxChain = 4

// Resolve finds the one peer to which a client certificate belongs; chain is
// what the client presented, leaf first. The TLS handshake has proved that the
// client holds the leaf's private key; nothing else of the chain was checked.
// Each certificate must be signed by the next, as RFC 5246 §7.4.2 has it; what
// leads to no CA may follow.
//
// A peer is a candidate where a pin is the leaf's public key and the leaf is
// within its validity period; or where the leaf verifies for client
// authentication under a CA that belongs to that peer alone; or under a shared
// CA, with the peer's subject alternative name. No candidate, or more than one,
// is CodeUnauthenticated; a suspended peer is CodeForbidden, which the outside
// must not be able to tell apart.
func (d *Directory) Resolve(chain []*x509.Certificate, now time.Time) (joinery.Peer, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return joinery.Peer{}, joinery.Errorf(joinery.CodeUnauthenticated, "present a client certificate with at most %d certificates in its chain", maxChain)
	}
	s, err := d.fresh()
	if err != nil {
		return joinery.Peer{}, err
	}
	id, err := s.resolve(chain, now)
	if err != nil {
		return joinery.Peer{}, err
	}
	p := s.peers[id]
	if p.Suspended {
		return joinery.Peer{}, joinery.Errorf(joinery.CodeForbidden, "the peer is suspended")
	}
	return p, nil
}

func (s *snapshot) resolve(chain []*x509.Certificate, now time.Time) (joinery.PeerID, error) {
	key := chainKey(chain)
	if id, ok := s.seen.find(key, now); ok {
		return id, nil
	}
	switch candidates := s.candidates(chain, now); len(candidates) {
	case 0:
		return 0, joinery.Errorf(joinery.CodeUnauthenticated, "the client certificate is not valid for any peer of this server")
	case 1:
		s.seen.add(key, candidates[0], now, s.nextChange(chain, now))
		return candidates[0], nil
	default:
		return 0, joinery.WrapError(joinery.CodeUnauthenticated,
			fmt.Errorf("ambiguous: it belongs to %s", strings.Join(s.names(candidates), ", ")),
			"the client certificate is not valid for exactly one peer of this server")
	}
}

// candidates are the peers to which the chain belongs, each once.
func (s *snapshot) candidates(chain []*x509.Certificate, now time.Time) []joinery.PeerID {
	var found []joinery.PeerID
	add := func(id joinery.PeerID) {
		if !slices.Contains(found, id) {
			found = append(found, id)
		}
	}
	leaf := chain[0]
	if within(leaf, now) {
		for _, id := range s.pins[sha256.Sum256(leaf.RawSubjectPublicKeyInfo)] {
			add(id)
		}
	}
	climb := climb{chain: chain, now: now, checks: maxChecks}
	for _, id := range climb.peers(s.cas) {
		add(id)
	}
	return found
}

// hasSAN tells whether a leaf carries exactly this DNS name or URI. Wildcards
// match nothing. DNS names are compared without case (RFC 4343).
func hasSAN(leaf *x509.Certificate, san string) bool {
	for _, name := range leaf.DNSNames {
		if strings.EqualFold(name, san) {
			return true
		}
	}
	for _, uri := range leaf.URIs {
		if uri.String() == san {
			return true
		}
	}
	return false
}

func within(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && !now.After(c.NotAfter)
}

func (s *snapshot) names(ids []joinery.PeerID) []string {
	var names []string
	for _, id := range ids {
		names = append(names, s.peers[id].Name)
	}
	return names
}

// nextChange is the first time after now at which a certificate of the chain or
// a trusted CA begins or ceases to be valid: until then the chain leads to the
// same peers.
func (s *snapshot) nextChange(chain []*x509.Certificate, now time.Time) time.Time {
	var next time.Time
	look := func(c *x509.Certificate) {
		// A certificate is valid up to and including NotAfter (RFC 5280 §4.1.2.5).
		for _, t := range [...]time.Time{c.NotBefore, c.NotAfter.Add(time.Nanosecond)} {
			if t.After(now) && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	for _, c := range chain {
		look(c)
	}
	for _, sameName := range s.cas {
		for _, ca := range sameName {
			look(ca.cert)
		}
	}
	return next
}

// chainKey names a presented chain, certificate by certificate.
func chainKey(chain []*x509.Certificate) [sha256.Size]byte {
	h := sha256.New()
	for _, c := range chain {
		sum := sha256.Sum256(c.Raw)
		h.Write(sum[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// seenChains remembers to which peer a chain led, so that a signature is not
// verified again for each request of a connection. It lives and dies with its
// snapshot, and an entry with the times between which nothing about the
// certificates changes.
type seenChains struct {
	mu sync.RWMutex
	m  map[[sha256.Size]byte]seenChain
}

type seenChain struct {
	peer        joinery.PeerID
	from, until time.Time // until is not included
}

// maxSeen bounds the memory: the holder of a trusted CA can make any number of
// leaves.
const maxSeen = 4096

func (c *seenChains) find(key [sha256.Size]byte, now time.Time) (joinery.PeerID, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s, ok := c.m[key]
	if !ok || now.Before(s.from) || !now.Before(s.until) {
		return 0, false
	}
	return s.peer, true
}

func (c *seenChains) add(key [sha256.Size]byte, peer joinery.PeerID, from, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) >= maxSeen {
		c.m = make(map[[sha256.Size]byte]seenChain)
	}
	c.m[key] = seenChain{peer, from, until}
}
