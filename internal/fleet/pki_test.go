package fleet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"

	"joinery"
)

// authority is a certification authority of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = serial
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(24 * time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotAfter: time.Now().Add(365 * 24 * time.Hour),
	}
}

func newCA(t testing.TB, name string, edit ...func(*x509.Certificate)) authority {
	t.Helper()
	key, template := newKey(t), caTemplate(name)
	for _, e := range edit {
		e(template)
	}
	return authority{sign(t, template, template, key, key), key}
}

// sub makes an intermediate CA.
func (a authority) sub(t testing.TB, name string) authority {
	t.Helper()
	key := newKey(t)
	return authority{sign(t, caTemplate(name), a.cert, key, a.key), key}
}

// renewed makes another certificate of the same CA.
func (a authority) renewed(t testing.TB) authority {
	t.Helper()
	template := caTemplate(a.cert.Subject.CommonName)
	template.NotAfter = time.Now().Add(730 * 24 * time.Hour)
	return authority{sign(t, template, template, a.key, a.key), a.key}
}

// leaf makes a client certificate.
func (a authority) leaf(t testing.TB, edit ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "client"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, e := range edit {
		e(template)
	}
	return sign(t, template, a.cert, newKey(t), a.key)
}

func withDNS(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = names }
}

func withURI(t testing.TB, text string) func(*x509.Certificate) {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *x509.Certificate) { c.URIs = []*url.URL{u} }
}

func expired(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
}

func notYet(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }

func withEKU(usage ...x509.ExtKeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtKeyUsage = usage }
}

// selfSigned makes a certificate that nobody vouches for.
func selfSigned(t testing.TB, edit ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "self"}}
	for _, e := range edit {
		e(template)
	}
	return sign(t, template, template, key, key)
}

func byCA(a authority) joinery.Credential {
	return joinery.Credential{Kind: joinery.CredentialCA, CA: a.cert.Raw}
}

func bySAN(a authority, san string) joinery.Credential {
	return joinery.Credential{Kind: joinery.CredentialCASAN, CA: a.cert.Raw, SAN: san}
}

func byPin(c *x509.Certificate) joinery.Credential {
	return joinery.Credential{Kind: joinery.CredentialSPKI, SPKI: sha256.Sum256(c.RawSubjectPublicKeyInfo)}
}

func withSKI(c *x509.Certificate) {
	c.SubjectKeyId = make([]byte, 20)
	rand.Read(c.SubjectKeyId)
}
