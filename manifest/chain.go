package manifest

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"sync"
	"time"
)

// maxIssuers bounds how many issuers of device certificates are remembered.
const maxIssuers = 256

// chains leads device certificates to pinned roots. A million elements have a
// handful of issuers, so what is above a device certificate is verified once and
// remembered, with the time in which it holds: an entry costs one signature of
// its chain.
type chains struct {
	roots *x509.CertPool

	mu      sync.Mutex
	issuers map[[sha256.Size]byte]issuers // by the certificates above the first
}

// issuers is what was found above a device certificate.
type issuers struct {
	// first holds the one that signs device certificates.
	first *x509.CertPool
	// from and to are when all of them are valid, the root included.
	from, to time.Time
}

func (i issuers) validAt(at time.Time) bool { return !at.Before(i.from) && !at.After(i.to) }

func newChains(roots [][]byte) (*chains, error) {
	c := &chains{roots: x509.NewCertPool(), issuers: map[[sha256.Size]byte]issuers{}}
	for _, der := range roots {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: a root certificate does not parse", ErrRules)
		}
		if !root.BasicConstraintsValid || !root.IsCA {
			return nil, fmt.Errorf("%w: %q is not the certificate of a CA", ErrRules, root.Subject.CommonName)
		}
		c.roots.AddCert(root)
	}
	return c, nil
}

// check verifies that the chain of a key leads to a root, as of the time when its
// element was provisioned.
func (c *chains) check(key certified, at time.Time) error {
	if key.leaf.IsCA {
		return fmt.Errorf("%w: the device certificate is one of a CA", ErrChain)
	}
	// Certificates are rounded to the hour, clocks differ.
	if early := key.leaf.NotBefore.Sub(at); early > 0 && early <= tolerance {
		at = key.leaf.NotBefore
	}
	if len(key.Chain) < 2 {
		_, err := verifyUnder(key.leaf, c.roots, nil, at)
		return err
	}
	name := nameOf(key.Chain[1:])
	if known, ok := c.known(name); ok && known.validAt(at) {
		_, err := verifyUnder(key.leaf, known.first, nil, at)
		return err
	}
	found, err := c.climb(key, at)
	if err != nil {
		return err
	}
	c.remember(name, found)
	return nil
}

// climb verifies a whole chain, because how long it may be and when it holds is
// said all along it, and gives what is above its first certificate.
func (c *chains) climb(key certified, at time.Time) (issuers, error) {
	between := x509.NewCertPool()
	var issuer *x509.Certificate
	for k, der := range key.Chain[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return issuers{}, fmt.Errorf("%w: a certificate of it does not parse", ErrChain)
		}
		if k == 0 {
			issuer = cert
		}
		between.AddCert(cert)
	}
	found, err := verifyUnder(key.leaf, c.roots, between, at)
	if err != nil {
		return issuers{}, err
	}
	for _, chain := range found {
		if len(chain) > 1 && chain[1].Equal(issuer) {
			return issuersOf(chain[1:]), nil
		}
	}
	return issuers{}, ErrChain // the second certificate did not sign the first
}

func issuersOf(above []*x509.Certificate) issuers {
	i := issuers{first: x509.NewCertPool(), from: above[0].NotBefore, to: above[0].NotAfter}
	i.first.AddCert(above[0])
	for _, cert := range above[1:] {
		if cert.NotBefore.After(i.from) {
			i.from = cert.NotBefore
		}
		if cert.NotAfter.Before(i.to) {
			i.to = cert.NotAfter
		}
	}
	return i
}

// nameOf names certificates by their hashes.
func nameOf(above [][]byte) [sha256.Size]byte {
	h := sha256.New()
	for _, der := range above {
		sum := sha256.Sum256(der)
		_, _ = h.Write(sum[:]) // a hash never fails
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func (c *chains) known(name [sha256.Size]byte) (issuers, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := c.issuers[name]
	return i, ok
}

func (c *chains) remember(name [sha256.Size]byte, i issuers) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.issuers) >= maxIssuers {
		clear(c.issuers)
	}
	c.issuers[name] = i
}

func verifyUnder(cert *x509.Certificate, roots, between *x509.CertPool, at time.Time) ([][]*x509.Certificate, error) {
	found, err := cert.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err == nil {
		return found, nil
	}
	if at.Before(cert.NotBefore) || at.After(cert.NotAfter) {
		return nil, fmt.Errorf("%w: a certificate of it was not valid when the element was provisioned", ErrChain)
	}
	return nil, ErrChain // the cause would repeat names of the certificate
}
