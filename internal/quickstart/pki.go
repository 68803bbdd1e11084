package quickstart

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// The certificates are for playing and for tests: they live long enough not to
// surprise anybody, and none of them is trusted by anything but this directory.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 2 * 365 * 24 * time.Hour
)

// authority is a small certificate authority with a P-256 key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// pkiFiles writes certificates and keys below one directory.
type pkiFiles struct {
	dir string
	now time.Time
}

// authority makes a CA and writes NAME.crt and NAME.key.
func (p pkiFiles) authority(name, commonName string) (authority, error) {
	template := &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"Joinery quickstart"}, CommonName: commonName},
		NotBefore: p.now.Add(-time.Hour), NotAfter: p.now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, key, err := p.issue(name, template, nil)
	return authority{cert: cert, key: key}, err
}

// server makes the certificate of a listener on this machine.
func (p pkiFiles) server(name string, ca authority) error {
	_, _, err := p.issue(name, &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"Joinery quickstart"}, CommonName: "Join Server"},
		DNSNames:  []string{"localhost"},
		NotBefore: p.now.Add(-time.Hour), NotAfter: p.now.Add(leafLife),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, &ca)
	return err
}

// client makes the certificate with which a peer presents itself.
func (p pkiFiles) client(name, commonName string, ca authority) error {
	_, _, err := p.issue(name, &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"Joinery quickstart"}, CommonName: commonName},
		NotBefore: p.now.Add(-time.Hour), NotAfter: p.now.Add(leafLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, &ca)
	return err
}

// issue signs template with a new key, by itself where ca is nil, and writes
// NAME.crt (PEM) and NAME.key (PEM PKCS#8, 0600).
func (p pkiFiles) issue(name string, template *x509.Certificate, ca *authority) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate %s: %w", name, err)
	}
	signer := authority{cert: template, key: key}
	if ca != nil {
		signer = *ca
	}
	// Without a serial number CreateCertificate draws one at random.
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, key.Public(), signer.key)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate %s: %w", name, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate %s: %w", name, err)
	}
	if err := p.write(name+".crt", "CERTIFICATE", der, 0o644); err != nil {
		return nil, nil, err
	}
	return cert, key, p.write(name+".key", "PRIVATE KEY", pkcs8, 0o600)
}

func (p pkiFiles) write(name, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(filepath.Join(p.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}
