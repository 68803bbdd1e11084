package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"
)

// Pair is a certificate and its private key, in files, under the name of the
// setting that holds them.
type Pair struct {
	Setting          string
	Certificate, Key string
}

// pair is the certificate of the interop listener.
func (i Interop) pair() Pair { return Pair{"interop", i.Certificate, i.Key} }

// Pairs are the certificates that the configuration names; the second is that of
// the API's TLS listener, or again the first.
func (c Config) Pairs() (interop, api Pair) {
	interop = c.Interop.pair()
	if c.API.TLS.Certificate == "" {
		return interop, interop
	}
	return interop, c.API.TLS.pair()
}

func (t APITLS) pair() Pair { return Pair{"api.tls", t.Certificate, t.Key} }

// check wants a whole pair or none.
func (t APITLS) check() error {
	switch {
	case (t.Certificate == "") != (t.Key == ""):
		return wrong("api.tls", "give certificate and key, or leave both empty to use those of the interop listener")
	case t.Address == "" && t.Certificate != "":
		return wrong("api.tls.address", "is missing: the certificate is for nobody")
	}
	return nil
}

func (t APITLS) checkPair(now time.Time) error {
	if t.Certificate == "" {
		return nil
	}
	return t.pair().Check(now)
}

// Check tells when the files are not there, do not go together, or are not valid at
// now.
func (p Pair) Check(now time.Time) error {
	if err := errors.Join(
		exists(p.Setting+".certificate", p.Certificate, "a PEM file with the server's certificate and its intermediates"),
		p.CheckKey(),
	); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(p.Certificate, p.Key)
	if err != nil {
		return wrong(p.Setting, "certificate and key do not go together: %w", err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return wrong(p.Setting+".certificate", "%w", err)
	}
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return wrong(p.Setting+".certificate", "is valid from %s to %s, not now: peers will refuse it",
			leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// CheckKey tells when the TLS key is not there, or when others than its owner can
// read it.
func (p Pair) CheckKey() error {
	return secretFile(p.Setting+".key", p.Key, "a PEM file with the private key of the certificate")
}
