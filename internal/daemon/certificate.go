package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"joinery/internal/config"
)

// certificate is the TLS certificate of a listener. It can be read anew while
// connections live; what does not read leaves the old one in force.
type certificate struct {
	listener string
	files    config.Pair
	current  atomic.Pointer[tls.Certificate]
}

func newCertificate(listener string, files config.Pair, now time.Time) (*certificate, error) {
	c := &certificate{listener: listener, files: files}
	return c, c.reload(now)
}

// certificates are those of the two listeners that speak TLS, often one.
type certificates struct{ interop, api *certificate }

func newCertificates(c config.Config, now time.Time) (both certificates, err error) {
	interop, api := c.Pairs()
	if both.interop, err = newCertificate("interop listener", interop, now); err != nil {
		return both, err
	}
	if both.api = both.interop; api != interop {
		both.api, err = newCertificate("API's TLS listener", api, now)
	}
	return both, err
}

// reload reads all files anew; what one pair's lacks does not keep the other back.
func (c certificates) reload(now time.Time) error {
	err := c.interop.reload(now)
	if c.api != c.interop {
		err = errors.Join(err, c.api.reload(now))
	}
	return err
}

// reload reads both files and puts the pair in force if it is valid at now. A key
// that others can read is refused: they may have it already.
func (c *certificate) reload(now time.Time) error {
	if err := c.files.CheckKey(); err != nil {
		return fmt.Errorf("certificate of the %s:\n%w", c.listener, err)
	}
	pair, err := tls.LoadX509KeyPair(c.files.Certificate, c.files.Key)
	if err != nil {
		return fmt.Errorf("certificate of the %s: %w", c.listener, err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return fmt.Errorf("certificate of the %s: %w", c.listener, err)
	}
	if now.After(leaf.NotAfter) {
		return fmt.Errorf("certificate of the %s expired on %s: replace %s", c.listener, leaf.NotAfter.UTC().Format(time.RFC3339), c.files.Certificate)
	}
	pair.Leaf = leaf
	c.current.Store(&pair)
	return nil
}

// get is tls.Config.GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}
