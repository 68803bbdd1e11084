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
// remembered: an entry costs one signature of its chain.
type chains struct {
	roots *x509.CertPool

	mu      sync.Mutex
	issuers map[[sha256.Size]byte]*x509.CertPool // by the certificates above the first; the pool holds the second
}

func newChains(roots [][]byte) (*chains, error) {
	c := &chains{roots: x509.NewCertPool(), issuers: map[[sha256.Size]byte]*x509.CertPool{}}
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
	issuers := c.roots
	if len(key.Chain) > 1 {
		var err error
		if issuers, err = c.issuer(key.Chain[1:], at); err != nil {
			return err
		}
	}
	return verifyUnder(key.leaf, issuers, nil, at)
}

// issuer gives a pool with the first certificate of above, after it was found to
// lead to a root.
func (c *chains) issuer(above [][]byte, at time.Time) (*x509.CertPool, error) {
	h := sha256.New()
	for _, der := range above {
		sum := sha256.Sum256(der)
		_, _ = h.Write(sum[:]) // a hash never fails
	}
	name := [sha256.Size]byte(h.Sum(nil))
	c.mu.Lock()
	defer c.mu.Unlock()
	if pool, ok := c.issuers[name]; ok {
		return pool, nil
	}
	between := x509.NewCertPool()
	var issuer *x509.Certificate
	for i, der := range above {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: a certificate of it does not parse", ErrChain)
		}
		if i == 0 {
			issuer = cert
		} else {
			between.AddCert(cert)
		}
	}
	if err := verifyUnder(issuer, c.roots, between, at); err != nil {
		return nil, err
	}
	if len(c.issuers) == maxIssuers {
		clear(c.issuers)
	}
	pool := x509.NewCertPool()
	pool.AddCert(issuer)
	c.issuers[name] = pool
	return pool, nil
}

func verifyUnder(cert *x509.Certificate, roots, between *x509.CertPool, at time.Time) error {
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err == nil {
		return nil
	}
	if at.Before(cert.NotBefore) || at.After(cert.NotAfter) {
		return fmt.Errorf("%w: a certificate of it was not valid when the element was provisioned", ErrChain)
	}
	return ErrChain // the cause would repeat names of the certificate
}
