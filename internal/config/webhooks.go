package config

import (
	"crypto/x509"
	"errors"
	"net/netip"
	"os"
	"strings"
)

// Networks gives AllowNetworks; Check says whether they can be read.
func (w Webhooks) Networks() []netip.Prefix { return networks(w.AllowNetworks) }

// Proxies gives TrustedProxies; Check says whether they can be read.
func (a API) Proxies() []netip.Prefix { return networks(a.TrustedProxies) }

// networks reads networks with spaces between.
func networks(texts string) (list []netip.Prefix) {
	for text := range strings.FieldsSeq(texts) {
		if n, err := netip.ParsePrefix(text); err == nil {
			list = append(list, n.Masked())
		}
	}
	return list
}

// Roots reads CAFile; nil is the system's.
func (w Webhooks) Roots() (*x509.CertPool, error) {
	if w.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(w.CAFile)
	if err != nil {
		return nil, wrong("webhooks.ca_file", "%w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, wrong("webhooks.ca_file", "holds no PEM certificate")
	}
	return roots, nil
}

func (w Webhooks) check() error { return checkNetworks("webhooks.allow_networks", w.AllowNetworks) }

// checkProxies refuses the whole Internet, too: then everybody could name whatever
// address they like.
func (a API) checkProxies() error {
	const name = "api.trusted_proxies"
	err := checkNetworks(name, a.TrustedProxies)
	for _, n := range a.Proxies() {
		if n.Bits() == 0 {
			err = errors.Join(err, wrong(name, "%s is everybody; name the proxies alone", n))
		}
	}
	return err
}

func checkNetworks(name, texts string) error {
	var found []error
	for text := range strings.FieldsSeq(texts) {
		n, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			found = append(found, wrong(name, "want networks such as 10.20.0.0/16 or 127.0.0.1/32"))
		case n != n.Masked():
			found = append(found, wrong(name, "%s has bits set behind its length: %s is the network", n, n.Masked()))
		case n.Addr().Is4In6():
			found = append(found, wrong(name, "want an IPv4 network in its own form, as 10.20.0.0/16"))
		}
	}
	return errors.Join(found...)
}
