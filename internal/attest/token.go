package attest

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"joinery"
	"joinery/internal/firmware"
)

// token is an entity attestation token (RFC 9711), with software components as the
// PSA profile has them (RFC 9783): what of it is looked at. Other claims may be
// there.
type token struct {
	nonce      []byte
	ueid       []byte
	components []component
	// lifecycle is the security life cycle of RFC 9783 §4.3.1, debug the debug status of
	// RFC 9711 §4.2.9; -1: not there.
	lifecycle int
	debug     int
	expires   time.Time // zero: not said
	// verify tells whether a key signed it.
	verify func(key *ecdsa.PublicKey) bool
}

// component is one piece of software that was measured.
type component struct {
	Type  string // "ARoT" is the application
	Value []byte // SHA-256
}

// measuredApplication is the type of the component that counts as the firmware.
const measuredApplication = "ARoT"

var errToken = errors.New("not a token that can be read")

// jwtClaims are the claims of a JWT. Bytes are base64url (RFC 9711 §7.2).
type jwtClaims struct {
	Nonce      string   `json:"eat_nonce"`
	UEID       string   `json:"ueid"`
	Expires    *float64 `json:"exp"`
	Debug      string   `json:"dbgstat"`
	Lifecycle  *int     `json:"psa-security-lifecycle"`
	Components []struct {
		Type  string `json:"measurement-type"`
		Value string `json:"measurement-value"`
	} `json:"psa-software-components"`
}

// debugStates are the names of debug states, in the order of their numbers.
var debugStates = []string{"enabled", "disabled", "disabled-since-boot", "disabled-permanently", "disabled-fully-and-permanently"}

// readJWT reads a token in the compact form of a JWS, signed with ES256.
func readJWT(text []byte) (t token, err error) {
	signed, err := jose.ParseSignedCompact(string(text), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil || len(signed.Signatures) != 1 {
		return t, errToken
	}
	var c jwtClaims
	if err := json.Unmarshal(signed.UnsafePayloadWithoutVerification(), &c, jsontext.AllowDuplicateNames(false)); err != nil {
		return t, errToken
	}
	t = token{lifecycle: -1, debug: -1, verify: func(key *ecdsa.PublicKey) bool {
		_, err := signed.Verify(key)
		return err == nil
	}}
	if t.nonce, err = base64.RawURLEncoding.DecodeString(c.Nonce); err != nil {
		return t, errToken
	}
	if t.ueid, err = base64.RawURLEncoding.DecodeString(c.UEID); err != nil {
		return t, errToken
	}
	if c.Lifecycle != nil {
		t.lifecycle = *c.Lifecycle
	}
	if c.Debug != "" {
		t.debug = 0 // a state that nobody knows is as bad as the worst
		for i, name := range debugStates {
			if c.Debug == name {
				t.debug = i
			}
		}
	}
	if c.Expires != nil {
		t.expires = expiry(*c.Expires)
	}
	for _, s := range c.Components {
		value, err := base64.RawURLEncoding.DecodeString(s.Value)
		if err != nil {
			return t, errToken
		}
		t.components = append(t.components, component{s.Type, value})
	}
	return t, nil
}

// expiry reads a NumericDate. What is out of every range has expired.
func expiry(seconds float64) time.Time {
	const farthest = 253_402_300_799 // the end of the year 9999
	if !(seconds >= 0 && seconds <= farthest) {
		return time.Unix(0, 0)
	}
	return time.Unix(int64(seconds), 0)
}

// cborClaims are the claims of a CWT.
type cborClaims struct {
	Expires    cbor.RawMessage `cbor:"4,keyasint"`
	Nonce      []byte          `cbor:"10,keyasint"`
	UEID       []byte          `cbor:"256,keyasint"`
	Debug      *uint64         `cbor:"263,keyasint"`
	Lifecycle  *uint64         `cbor:"2395,keyasint"`
	Components []struct {
		Type  string `cbor:"1,keyasint"`
		Value []byte `cbor:"2,keyasint"`
	} `cbor:"2399,keyasint"`
}

// sign1 is COSE_Sign1 (RFC 9052 §4.2).
type sign1 struct {
	_           struct{} `cbor:",toarray"`
	Protected   []byte
	Unprotected map[any]cbor.RawMessage
	Payload     []byte
	Signature   []byte
}

// protected is the protected header that is taken: the algorithm, and nothing that
// has to be understood.
type protected struct {
	Algorithm int64           `cbor:"1,keyasint"`
	Critical  cbor.RawMessage `cbor:"2,keyasint"`
}

const (
	coseES256    = -7
	tagCOSESign1 = 18
)

var cborMode = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		MaxNestedLevels: 8, MaxArrayElements: 64, MaxMapPairs: 64,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// readCOSE reads a token as COSE_Sign1, tagged or not, signed with ES256.
//
// The library for COSE has stood still since 2024, and there is little of it that is
// needed here: one structure, and the bytes under its signature.
func readCOSE(b []byte) (t token, err error) {
	var tagged cbor.RawTag
	if cborMode.Unmarshal(b, &tagged) == nil {
		if tagged.Number != tagCOSESign1 {
			return t, errToken
		}
		b = tagged.Content
	}
	var s sign1
	var head protected
	var c cborClaims
	if cborMode.Unmarshal(b, &s) != nil || cborMode.Unmarshal(s.Protected, &head) != nil || cborMode.Unmarshal(s.Payload, &c) != nil {
		return t, errToken
	}
	if head.Algorithm != coseES256 || head.Critical != nil || len(s.Signature) != firmware.SignatureLen {
		return t, errToken
	}
	// Sig_structure (RFC 9052 §4.4).
	signed, err := cbor.Marshal([]any{"Signature1", s.Protected, []byte{}, s.Payload})
	if err != nil {
		return t, errToken
	}
	t = token{nonce: c.Nonce, ueid: c.UEID, lifecycle: -1, debug: -1, verify: func(key *ecdsa.PublicKey) bool {
		return firmware.VerifyRS(key, sha256.Sum256(signed), [firmware.SignatureLen]byte(s.Signature))
	}}
	if c.Lifecycle != nil {
		t.lifecycle = int(min(*c.Lifecycle, 1<<16))
	}
	if c.Debug != nil {
		t.debug = int(*c.Debug)
		if *c.Debug >= uint64(len(debugStates)) {
			t.debug = 0
		}
	}
	if c.Expires != nil {
		var seconds float64
		if cborMode.Unmarshal(c.Expires, &seconds) != nil {
			var whole int64
			if cborMode.Unmarshal(c.Expires, &whole) != nil {
				return t, errToken
			}
			seconds = float64(whole)
		}
		t.expires = expiry(seconds)
	}
	for _, m := range c.Components {
		t.components = append(t.components, component{m.Type, m.Value})
	}
	return t, nil
}

func readToken(kind joinery.EvidenceKind, b []byte) (token, error) {
	if kind == joinery.EvidenceEATJWT {
		return readJWT(b)
	}
	return readCOSE(b)
}

// secured tells whether the life cycle is RFC 9783's "secured".
func (t token) secured() bool { return t.lifecycle>>8 == 0x30 }

// application is which component is the firmware, -1 for none: the one that says so,
// or the only one.
func (t token) application() int {
	found := -1
	for i, c := range t.components {
		if c.Type != measuredApplication {
			continue
		}
		if found >= 0 {
			return -1 // two say so
		}
		found = i
	}
	if found < 0 && len(t.components) == 1 {
		return 0
	}
	return found
}
