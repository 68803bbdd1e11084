package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync/atomic"
	"time"

	"joinery/internal/config"
)

// certificate is the TLS certificate of the interop listener. It can be read
// anew while connections live; what does not read leaves the old one in force.
type certificate struct {
	files   config.Interop
	current atomic.Pointer[tls.Certificate]
}

func newCertificate(files config.Interop, now time.Time) (*certificate, error) {
	c := &certificate{files: files}
	return c, c.reload(now)
}

// reload reads both files and puts the pair in force if it is valid at now. A key
// that others can read is refused: they may have it already.
func (c *certificate) reload(now time.Time) error {
	if err := c.files.CheckKey(); err != nil {
		return fmt.Errorf("certificate of the interop listener:\n%w", err)
	}
	pair, err := tls.LoadX509KeyPair(c.files.Certificate, c.files.Key)
	if err != nil {
		return fmt.Errorf("certificate of the interop listener: %w", err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return fmt.Errorf("certificate of the interop listener: %w", err)
	}
	if now.After(leaf.NotAfter) {
		return fmt.Errorf("certificate of the interop listener expired on %s: replace %s", leaf.NotAfter.UTC().Format(time.RFC3339), c.files.Certificate)
	}
	pair.Leaf = leaf
	c.current.Store(&pair)
	return nil
}

// get is tls.Config.GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}
