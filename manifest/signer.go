package manifest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
)

// SignerID is the two names of a signer, as in the protected header. The zero
// value is no signer.
type SignerID struct {
	// KID is the base64url of the SubjectKeyIdentifier's value, without padding.
	KID string
	// X5TS256 is the base64url of SHA-256 over the DER certificate, without
	// padding (RFC 7515 §4.1.8).
	X5TS256 string
}

// Lookup finds the public key of a pinned signer. It must answer nil unless
// both names are those of one pinned certificate.
type Lookup func(SignerID) *ecdsa.PublicKey

// ParseSigner reads the DER certificate of a signer: P-256, with a
// SubjectKeyIdentifier. Its validity period is not looked at: signers' own
// certificates run out long before their manifests do.
func ParseSigner(der []byte) (SignerID, *ecdsa.PublicKey, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return SignerID{}, nil, fmt.Errorf("%w: it does not parse", ErrCertificate)
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return SignerID{}, nil, fmt.Errorf("%w: its key is not P-256", ErrCertificate)
	}
	if len(cert.SubjectKeyId) == 0 {
		return SignerID{}, nil, fmt.Errorf("%w: it has no SubjectKeyIdentifier, from which kid is made", ErrCertificate)
	}
	thumbprint := sha256.Sum256(cert.Raw)
	return SignerID{KID: encodeBase64URL(cert.SubjectKeyId), X5TS256: encodeBase64URL(thumbprint[:])}, key, nil
}
