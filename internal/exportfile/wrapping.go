package exportfile

import (
	"errors"
	"fmt"
	"slices"

	"joinery/internal/seal"
)

// Form is how a wrapped key is laid out; see the package.
type Form string

// Forms.
const (
	FormRaw  Form = "raw"
	FormJWE  Form = "jwe"
	FormSeal Form = "seal"
)

// Names of algorithms, as RFC 7518 §4.1 has them.
const (
	AlgRSAOAEP256 = seal.AlgRSAOAEP256 // with SHA-256, MGF1 with SHA-256, no label
	AlgRSAOAEP    = seal.AlgRSAOAEP    // with SHA-1, MGF1 with SHA-1, no label
	AlgECDHES     = "ECDH-ES+A256KW"
)

// Wrapping is a form and the algorithm that encrypts to the recipient.
type Wrapping struct {
	Form Form   `json:"form"`
	Alg  string `json:"alg"`
	// Hash is that of OAEP, or of the key derivation: "SHA-256" or "SHA-1".
	Hash string `json:"hash"`
}

// All wrappings that there are.
var (
	RawOAEP256  = Wrapping{FormRaw, AlgRSAOAEP256, "SHA-256"}
	RawOAEP1    = Wrapping{FormRaw, AlgRSAOAEP, "SHA-1"}
	JWEOAEP256  = Wrapping{FormJWE, AlgRSAOAEP256, "SHA-256"}
	JWEOAEP1    = Wrapping{FormJWE, AlgRSAOAEP, "SHA-1"}
	JWEECDHES   = Wrapping{FormJWE, AlgECDHES, "SHA-256"}
	SealOAEP256 = Wrapping{FormSeal, AlgRSAOAEP256, "SHA-256"}
	SealOAEP1   = Wrapping{FormSeal, AlgRSAOAEP, "SHA-1"}
)

// AllWrappings gives all that there are, what to take first in front.
func AllWrappings() []Wrapping {
	return []Wrapping{RawOAEP256, SealOAEP256, JWEOAEP256, JWEECDHES, RawOAEP1, SealOAEP1, JWEOAEP1}
}

// ErrWrapping says that no wrapping suits both the recipient and who wraps.
var ErrWrapping = errors.New("root keys cannot be wrapped to this recipient so")

// Check tells whether w is one that there is.
func (w Wrapping) Check() error {
	if !slices.Contains(AllWrappings(), w) {
		return fmt.Errorf("%w: form, alg and hash are none that this version knows", ErrWrapping)
	}
	return nil
}

// Allows tells whether keys may be wrapped to r so. SHA-1 needs that r opted in. ErrWrapping.
func (r Recipient) Allows(w Wrapping) error {
	switch {
	case w.Check() != nil:
		return w.Check()
	case r.IsZero():
		return fmt.Errorf("%w: there is no recipient", ErrWrapping)
	case (w.Alg == AlgECDHES) != (r.ec != nil):
		return fmt.Errorf("%w: the recipient's key is %s", ErrWrapping, r.Kind())
	case w.Alg == AlgRSAOAEP && !r.sha1:
		return fmt.Errorf("%w: OAEP with SHA-1 is used only where the recipient opted in to it", ErrWrapping)
	case w.Form == FormSeal && (w.Alg == AlgRSAOAEP) != r.sha1:
		return fmt.Errorf("%w: in two steps this recipient's key is used with %s", ErrWrapping, r.transport().Alg())
	}
	return nil
}

// Choose gives the best wrapping of what a keyring can do that suits r. A form of ""
// leaves the choice: raw before two steps before JWE, SHA-256 before SHA-1.
// ErrWrapping where there is none, and what would help.
func Choose(r Recipient, can []Wrapping, form Form) (Wrapping, error) {
	for _, w := range AllWrappings() {
		if slices.Contains(can, w) && (form == "" || w.Form == form) && r.Allows(w) == nil {
			return w, nil
		}
	}
	if r.rsa != nil && !r.sha1 {
		for _, w := range can {
			if w.Alg == AlgRSAOAEP && (form == "" || w.Form == form) {
				return Wrapping{}, fmt.Errorf("%w: this token knows OAEP with SHA-1 only; the recipient has to opt in to that", ErrWrapping)
			}
		}
	}
	if r.ec != nil {
		return Wrapping{}, fmt.Errorf("%w: to P-256 only keys that are not confined to a token are wrapped, as JWE; register an RSA key", ErrWrapping)
	}
	return Wrapping{}, fmt.Errorf("%w: the keyring has no form %q for %s", ErrWrapping, form, r.Kind())
}
