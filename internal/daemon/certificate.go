package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync/atomic"
	"time"
)

// certificate is the TLS certificate of the interop listener. It can be read
// anew while connections live; what does not read leaves the old one in force.
type certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
}

func newCertificate(certFile, keyFile string) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile}
	return c, c.reload(time.Now())
}

// reload reads both files and puts the pair in force if it is valid at now.
func (c *certificate) reload(now time.Time) error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("certificate of the interop listener: %w", err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return fmt.Errorf("certificate of the interop listener: %w", err)
	}
	if now.After(leaf.NotAfter) {
		return fmt.Errorf("certificate of the interop listener expired on %s: replace %s", leaf.NotAfter.UTC().Format(time.RFC3339), c.certFile)
	}
	pair.Leaf = leaf
	c.current.Store(&pair)
	return nil
}

// get is tls.Config.GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}
