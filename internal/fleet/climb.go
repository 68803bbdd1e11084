package fleet

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"time"

	"joinery"
)

const (
	// maxChecks bounds the signatures that are verified for one chain before a
	// trusted CA vouches for any of it. A sound chain needs as many as it has
	// certificates; more, only where several CAs have one name and no key
	// identifiers.
	maxChecks = 32
	// maxRSABits bounds the RSA keys by which a client may have its chain
	// verified; crypto/tls has the same bound for the leaf.
	maxRSABits = 8192
)

// climb goes up a chain that a client presented, in search of trusted CAs. The
// handshake is not over yet, so anybody can make the server climb any chain:
// what it costs is bounded by the chain's length and by how many CAs have the
// names that the chain tells, not by how many CAs there are. A chain that names
// no trusted CA costs nothing, and x509.Verify, which tries any order of the
// certificates, sees only paths whose every signature is good.
type climb struct {
	chain  []*x509.Certificate
	now    time.Time
	proven int // chain[:proven+1] is signed link by link
	checks int // signatures that may still be verified
}

// peers are those under whose CAs the leaf is valid for client authentication,
// perhaps some twice.
func (c *climb) peers(cas map[string][]*trustedCA) []joinery.PeerID {
	var found []joinery.PeerID
	for depth, last := range c.chain {
		for _, ca := range cas[string(last.RawIssuer)] {
			// A root that the client sent, too, was tried one certificate below.
			if !ca.mayHaveSigned(last) || depth > 0 && last.Equal(ca.cert) {
				continue
			}
			named := ca.named(c.chain[0])
			if len(named) == 0 {
				continue
			}
			if !c.reach(depth) {
				return found
			}
			if c.signed(last, ca.cert) && c.verifies(depth, ca) {
				found = append(found, named...)
			}
		}
	}
	return found
}

// reach proves the links up to chain[depth].
func (c *climb) reach(depth int) bool {
	for ; c.proven < depth; c.proven++ {
		child, parent := c.chain[c.proven], c.chain[c.proven+1]
		if key, ok := parent.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSABits {
			return false
		}
		if !bytes.Equal(child.RawIssuer, parent.RawSubject) || !c.signed(child, parent) {
			return false
		}
	}
	return true
}

// signed tells whether parent is a CA that signed child, and both are valid now.
func (c *climb) signed(child, parent *x509.Certificate) bool {
	if !within(child, c.now) || !within(parent, c.now) || c.checks <= 0 {
		return false
	}
	c.checks--
	return child.CheckSignatureFrom(parent) == nil
}

// verifies judges the path from the leaf over chain[depth] to ca by all rules
// of RFC 5280 §6 that crypto/x509 knows: constraints, path lengths and key usages,
// too.
func (c *climb) verifies(depth int, ca *trustedCA) bool {
	intermediates := x509.NewCertPool()
	for _, cert := range c.chain[1 : depth+1] {
		intermediates.AddCert(cert)
	}
	_, err := c.chain[0].Verify(x509.VerifyOptions{
		Roots:         ca.pool,
		Intermediates: intermediates,
		CurrentTime:   c.now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, // a leaf without EKU, or with any, serves too
	})
	return err == nil
}

// mayHaveSigned compares key identifiers, which must be the same where both
// certificates have one (RFC 5280 §4.2.1.2).
func (ca *trustedCA) mayHaveSigned(c *x509.Certificate) bool {
	return len(c.AuthorityKeyId) == 0 || len(ca.cert.SubjectKeyId) == 0 || bytes.Equal(c.AuthorityKeyId, ca.cert.SubjectKeyId)
}

// named are the peers that a leaf under this CA may belong to.
func (ca *trustedCA) named(leaf *x509.Certificate) []joinery.PeerID {
	var ids []joinery.PeerID
	for _, p := range ca.peers {
		if p.san == "" || hasSAN(leaf, p.san) {
			ids = append(ids, p.peer)
		}
	}
	return ids
}
