package fleet

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"net/url"
	"strings"
	"time"

	"joinery"
)

// credential is one credential with its CA parsed.
type credential struct {
	joinery.Credential
	ca *x509.Certificate // nil for a pin
}

// parseCredential checks one credential by itself.
func parseCredential(c joinery.Credential) (credential, error) {
	invalid := func(text string) (credential, error) {
		return credential{}, joinery.Errorf(joinery.CodeInvalid, "credential: %s", text)
	}
	switch c.Kind {
	case joinery.CredentialSPKI:
		switch {
		case c.SPKI == [sha256.Size]byte{}:
			return invalid("a pin needs the SHA-256 of the SubjectPublicKeyInfo")
		case len(c.CA) > 0 || c.SAN != "":
			return invalid("a pin takes neither a CA nor a subject alternative name")
		}
		return credential{Credential: c}, nil
	case joinery.CredentialCA, joinery.CredentialCASAN:
	default:
		return invalid("the kind is spki, ca or ca+san")
	}
	if c.SPKI != [sha256.Size]byte{} {
		return invalid("a CA takes no SPKI pin")
	}
	if (c.Kind == joinery.CredentialCASAN) != (c.SAN != "") {
		return invalid("a subject alternative name belongs to kind ca+san, and to no other")
	}
	if c.SAN != "" && !isExactSAN(c.SAN) {
		return invalid("the subject alternative name is one DNS name or one URI, without wildcards")
	}
	ca, err := x509.ParseCertificate(c.CA)
	if err != nil {
		return invalid("the CA is not a certificate in DER")
	}
	if !ca.BasicConstraintsValid || !ca.IsCA {
		return invalid("the certificate is not a CA (basicConstraints); to trust one client certificate, pin its public key")
	}
	if ca.KeyUsage != 0 && ca.KeyUsage&x509.KeyUsageCertSign == 0 {
		return invalid("the certificate may not sign certificates (keyUsage)")
	}
	return credential{Credential: c, ca: ca}, nil
}

// same tells whether two credentials of one peer are one.
func (c credential) same(o credential) bool {
	return c.Kind == o.Kind && c.SPKI == o.SPKI && c.SAN == o.SAN && bytes.Equal(c.CA, o.CA)
}

// isExactSAN tells whether s is one DNS name or an absolute URI.
func isExactSAN(s string) bool {
	if len(s) > 253 || strings.ContainsAny(s, "* \t\r\n") {
		return false
	}
	if strings.Contains(s, ":") {
		u, err := url.Parse(s)
		return err == nil && u.IsAbs() && u.String() == s
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// overlap says how some certificate could belong to both credentials, and so to
// two peers; "" if none can. What only shows in a certificate (a pinned key
// under another peer's CA, a leaf with the names of two peers) is refused when
// it is presented.
func (c credential) overlap(o credential) string {
	if c.Kind == joinery.CredentialSPKI || o.Kind == joinery.CredentialSPKI {
		if c.Kind == o.Kind && c.SPKI == o.SPKI {
			return "the same public key is pinned"
		}
		return ""
	}
	if !related(c.ca, o.ca) {
		return ""
	}
	switch {
	case c.Kind == joinery.CredentialCASAN && o.Kind == joinery.CredentialCASAN:
		if c.SAN == o.SAN || !strings.Contains(c.SAN, ":") && strings.EqualFold(c.SAN, o.SAN) {
			return "the same subject alternative name under the same CA"
		}
		return ""
	case c.Kind == joinery.CredentialCA && o.Kind == joinery.CredentialCA:
		return "the same CA is dedicated to both"
	default:
		return "a CA dedicated to one peer cannot be shared with another"
	}
}

// related tells whether two CA certificates trust the same leaves: they are one
// CA (by its key, since a CA may renew its certificate), or one issued the
// other.
func related(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo) ||
		a.CheckSignatureFrom(b) == nil || b.CheckSignatureFrom(a) == nil
}

// CredentialWarnings says what about a peer's credentials an operator should
// know, though it is no error: CA certificates that are not valid now, or not
// for much longer.
func CredentialWarnings(p joinery.Peer, now time.Time) []string {
	const soon = 30 * 24 * time.Hour
	var warnings []string
	for _, c := range p.Credentials {
		cert, err := parseCredential(c)
		switch {
		case err != nil || cert.ca == nil:
		case now.Before(cert.ca.NotBefore):
			warnings = append(warnings, "the CA certificate is valid only from "+cert.ca.NotBefore.UTC().Format(time.RFC3339)+" on")
		case now.After(cert.ca.NotAfter):
			warnings = append(warnings, "the CA certificate expired at "+cert.ca.NotAfter.UTC().Format(time.RFC3339)+": the peer cannot connect by it")
		case now.Add(soon).After(cert.ca.NotAfter):
			warnings = append(warnings, "the CA certificate expires at "+cert.ca.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return warnings
}

// describeCredential names a credential for the audit log by its kind, the
// SHA-256 of the pinned key or of the CA certificate, and the name.
func describeCredential(c joinery.Credential) string {
	if c.Kind == joinery.CredentialSPKI {
		return string(c.Kind) + ":" + hex.EncodeToString(c.SPKI[:])
	}
	sum := sha256.Sum256(c.CA)
	text := string(c.Kind) + ":" + hex.EncodeToString(sum[:])
	if c.SAN != "" {
		text += ":" + c.SAN
	}
	return text
}
