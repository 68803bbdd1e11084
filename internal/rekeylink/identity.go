package rekeylink

import (
	"crypto/sha256"
	"crypto/x509"
	"strings"
	"time"

	"joinery"
)

// maxChain bounds the certificates that one may present.
const maxChain = 4

// proves tells whether a chain, leaf first, is that of who is known by c. TLS has
// proved that he holds the leaf's key. A pin looks at the leaf's key and its time
// alone; under a CA the leaf must be for that use, and carry the name that c says or,
// where it says none and host is not empty, that of the host.
func proves(c joinery.Credential, chain []*x509.Certificate, use x509.ExtKeyUsage, host string, now time.Time) bool {
	if len(chain) == 0 || len(chain) > maxChain {
		return false
	}
	leaf := chain[0]
	if c.Kind == joinery.CredentialSPKI {
		return sha256.Sum256(leaf.RawSubjectPublicKeyInfo) == c.SPKI && !now.Before(leaf.NotBefore) && !now.After(leaf.NotAfter)
	}
	if c.Kind != joinery.CredentialCA && c.Kind != joinery.CredentialCASAN {
		return false
	}
	ca, err := x509.ParseCertificate(c.CA)
	if err != nil {
		return false
	}
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}}
	o.Roots.AddCert(ca)
	for _, between := range chain[1:] {
		o.Intermediates.AddCert(between)
	}
	if _, err := leaf.Verify(o); err != nil {
		return false
	}
	switch {
	case c.SAN != "":
		return hasSAN(leaf, c.SAN)
	case host != "":
		return leaf.VerifyHostname(host) == nil
	}
	return true
}

// hasSAN tells whether a leaf carries exactly this DNS name or URI.
func hasSAN(leaf *x509.Certificate, san string) bool {
	for _, name := range leaf.DNSNames {
		if strings.EqualFold(name, san) {
			return true
		}
	}
	for _, uri := range leaf.URIs {
		if uri.String() == san {
			return true
		}
	}
	return false
}

// resolve finds the one pinned Join Server to which a client's chain belongs.
// CodeUnauthenticated where there is none, or more than one.
func resolve(list []joinery.JoinServer, chain []*x509.Certificate, now time.Time) (found joinery.JoinServer, err error) {
	n := 0
	for _, j := range list {
		if proves(j.Identity, chain, x509.ExtKeyUsageClientAuth, "", now) {
			found = j
			n++
		}
	}
	if n != 1 {
		return joinery.JoinServer{}, joinery.Errorf(joinery.CodeUnauthenticated, "the client certificate belongs to no Join Server that is pinned here, or not to one alone")
	}
	return found, nil
}
