package manifest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The verifier below is our own, on crypto/ecdsa: it knows one algorithm, takes
// nothing that decides from the unprotected header, and looks a signer up by
// both of its names. A general JOSE library negotiates, and merges both headers
// before it looks at alg and kid. The tests hold go-jose against it.

// sizeES256 is the length of an ES256 signature, r ‖ s (RFC 7518 §3.4).
const sizeES256 = 64

// entry is a flattened JWS (RFC 7515 §7.2.2) as it stands in the file. Of the
// unprotected header, which is for searching, the serial number is compared with the
// signed one, and nothing else is looked at; see SignedPart.
type entry struct {
	Payload   string `json:"payload"`
	Protected string `json:"protected"`
	Header    struct {
		UniqueID string `json:"uniqueId"`
	} `json:"header"`
	Signature string `json:"signature"`
}

// protectedHeader is what the signature covers beside the payload. Its set of
// members is closed: an unknown one could change what the signature means
// ("crit", "b64"), so it is refused.
type protectedHeader struct {
	Typ     string `json:"typ,omitempty"`
	Alg     string `json:"alg"`
	KID     string `json:"kid"`
	X5TS256 string `json:"x5t#S256"`
}

// parseEntry reads an entry and its protected header; nothing is verified yet.
func parseEntry(raw []byte) (e entry, h protectedHeader, err error) {
	if len(raw) > MaxEntry {
		return e, h, fmt.Errorf("%w: at most %d bytes", ErrTooLarge, MaxEntry)
	}
	if err := unmarshal(raw, &e); err != nil {
		return e, h, fmt.Errorf("%w: want an object with payload, protected and signature, each once", ErrSyntax)
	}
	protected, err := decodeBase64URL(e.Protected)
	if err != nil {
		return e, h, fmt.Errorf("protected header: %w", err)
	}
	if err := unmarshal(protected, &h, json.RejectUnknownMembers(true)); err != nil {
		return e, h, fmt.Errorf("%w: protected header must have alg, kid and x5t#S256, each once, and may have typ", ErrSyntax)
	}
	return e, h, nil
}

// verify checks the ES256 signature over ASCII(protected "." payload), both as
// they stand in the entry (RFC 7515 §5.2).
func (e entry) verify(key *ecdsa.PublicKey) error {
	signature, err := decodeBase64URL(e.Signature)
	if err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	if len(signature) != sizeES256 {
		return fmt.Errorf("%w: want %d bytes, got %d", ErrSignature, sizeES256, len(signature))
	}
	if key == nil || key.Curve != elliptic.P256() {
		return fmt.Errorf("%w: the signer's key is not P-256", ErrSignature)
	}
	digest := sha256.Sum256(signingInput(e.Protected, e.Payload))
	r := new(big.Int).SetBytes(signature[:sizeES256/2])
	s := new(big.Int).SetBytes(signature[sizeES256/2:])
	if !ecdsa.Verify(key, digest[:], r, s) {
		return ErrSignature
	}
	return nil
}

func signingInput(protected, payload string) []byte {
	in := make([]byte, 0, len(protected)+1+len(payload))
	in = append(in, protected...)
	in = append(in, '.')
	return append(in, payload...)
}

// unmarshal reads JSON strictly: member names by exact case, each once, valid
// UTF-8. Unknown members pass unless an option refuses them.
func unmarshal(b []byte, into any, opts ...json.Options) error {
	opts = append(opts, jsontext.AllowDuplicateNames(false), jsontext.AllowInvalidUTF8(false), json.MatchCaseInsensitiveNames(false))
	return json.Unmarshal(b, into, opts...)
}

// decodeBase64URL reads base64url without padding, as RFC 7515 §2 has it, or
// with all of it, as early files have it; every text has one meaning only.
func decodeBase64URL(s string) ([]byte, error) {
	encoding := base64.RawURLEncoding
	if strings.HasSuffix(s, "=") {
		encoding = base64.URLEncoding
	}
	// encoding/base64 skips line ends; base64url has none.
	if strings.ContainsAny(s, "\r\n") {
		return nil, fmt.Errorf("%w: line end in base64url", ErrSyntax)
	}
	b, err := encoding.Strict().DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("%w: not base64url", ErrSyntax)
	}
	return b, nil
}

func encodeBase64URL(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
