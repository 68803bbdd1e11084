package config

import (
	"crypto/x509"
	"errors"
	"net/netip"
	"os"
	"strings"
)

// Networks gives AllowNetworks; Check says whether they can be read.
func (w Webhooks) Networks() (list []netip.Prefix) {
	for text := range strings.FieldsSeq(w.AllowNetworks) {
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

func (w Webhooks) check() error {
	var found []error
	for text := range strings.FieldsSeq(w.AllowNetworks) {
		n, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			found = append(found, wrong("webhooks.allow_networks", "want networks such as 10.20.0.0/16 or 127.0.0.1/32"))
		case n != n.Masked():
			found = append(found, wrong("webhooks.allow_networks", "%s has bits set behind its length: %s is the network", n, n.Masked()))
		case n.Addr().Is4In6():
			found = append(found, wrong("webhooks.allow_networks", "want an IPv4 network in its own form, as 10.20.0.0/16"))
		}
	}
	return errors.Join(found...)
}
