package attest

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

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
	nonce []byte
	ueid  []byte
	part
	begins  time.Time // zero: not said
	expires time.Time // zero: not said
	// submodules is what the token says of other parts of the device (RFC 9711 §4.2.18).
	submodules map[string]part
	// verify tells whether a key signed it.
	verify func(key *ecdsa.PublicKey) bool
}

// part is what a token says of the software of one part of a device.
type part struct {
	components []component
	// lifecycle is the security life cycle of RFC 9783 §4.3.1, debug the debug status of
	// RFC 9711 §4.2.9; -1: not there.
	lifecycle int
	debug     int
	// opaque: it is no claims but a token of its own, or a digest of one.
	opaque bool
}

// component is one piece of software that was measured.
type component struct {
	Type  string // "ARoT" is the application
	Value []byte // SHA-256
}

// Bounds of what a token measures.
const (
	maxComponents = 64
	maxSubmodules = 16
	maxTypeLen    = 64 // of a component, in bytes
)

// measuredApplication is the type of the component that counts as the firmware.
const measuredApplication = "ARoT"

var errToken = errors.New("not a token that can be read")

// jwtClaims are the claims of a JWT. Bytes are base64url (RFC 9711 §7.2).
type jwtClaims struct {
	Nonce   string   `json:"eat_nonce"`
	UEID    string   `json:"ueid"`
	Expires *float64 `json:"exp"`
	Begins  *float64 `json:"nbf"`
	jwtPart
	Submodules map[string]jsontext.Value `json:"submods"`
}

// jwtPart is a Claims-Set as far as it tells of software.
type jwtPart struct {
	Debug      *string `json:"dbgstat"`
	Lifecycle  *uint32 `json:"psa-security-lifecycle"`
	Components []struct {
		Type  string `json:"measurement-type"`
		Value string `json:"measurement-value"`
	} `json:"psa-software-components"`
}

func (c jwtPart) part() (p part, err error) {
	p = newPart()
	if c.Lifecycle != nil {
		p.lifecycle = lifecycle(uint64(*c.Lifecycle))
	}
	if c.Debug != nil {
		// A state that nobody knows is as bad as the worst.
		p.debug = max(0, slices.Index(debugStates, *c.Debug))
	}
	for _, s := range c.Components {
		value, err := base64.RawURLEncoding.DecodeString(s.Value)
		if err != nil {
			return p, errToken
		}
		p.components = append(p.components, component{s.Type, value})
	}
	return p, nil
}

func newPart() part { return part{lifecycle: -1, debug: -1} }

// lifecycle bounds a life cycle, so that none of those that are known comes of cutting
// a longer number.
func lifecycle(v uint64) int { return int(min(v, 1<<16)) }

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
	t = token{verify: func(key *ecdsa.PublicKey) bool {
		_, err := signed.Verify(key)
		return err == nil
	}}
	if t.nonce, err = base64.RawURLEncoding.DecodeString(c.Nonce); err != nil {
		return t, errToken
	}
	if t.ueid, err = base64.RawURLEncoding.DecodeString(c.UEID); err != nil {
		return t, errToken
	}
	if t.part, err = c.part(); err != nil {
		return t, err
	}
	if c.Expires != nil {
		t.expires = date(*c.Expires)
	}
	if c.Begins != nil {
		t.begins = begin(*c.Begins)
	}
	for name, raw := range c.Submodules {
		sub := part{opaque: true}
		if raw.Kind() == '{' {
			var c jwtPart
			if err := json.Unmarshal(raw, &c, jsontext.AllowDuplicateNames(false)); err != nil {
				return t, errToken
			}
			if sub, err = c.part(); err != nil {
				return t, err
			}
		}
		t.submodule(name, sub)
	}
	return t, t.check()
}

func (t *token) submodule(name string, p part) {
	if t.submodules == nil {
		t.submodules = map[string]part{}
	}
	t.submodules[name] = p
}

// check bounds what is kept of a token.
func (t *token) check() error {
	if len(t.submodules) > maxSubmodules || len(t.measured()) > maxComponents {
		return errToken
	}
	for _, c := range t.measured() {
		if len(c.Type) > maxTypeLen || !utf8.ValidString(c.Type) || strings.ContainsFunc(c.Type, unicode.IsControl) {
			return errToken
		}
	}
	return nil
}

// measured is everything that the token measured, the application and what stands
// beside it first. What is in a submodule has its name in front: two parts of a device
// may call their software the same.
func (t *token) measured() []component {
	list := slices.Clone(t.components)
	for _, name := range slices.Sorted(maps.Keys(t.submodules)) {
		for _, c := range t.submodules[name].components {
			list = append(list, component{name + "/" + c.Type, c.Value})
		}
	}
	return list
}

const farthest = 253_402_300_799 // the end of the year 9999

// date reads a NumericDate of an end. What is out of every range has ended.
func date(seconds float64) time.Time {
	if !(seconds >= 0 && seconds <= farthest) {
		return time.Unix(0, 0)
	}
	return time.Unix(int64(seconds), 0)
}

// begin is date of a beginning. What is out of every range does not begin.
func begin(seconds float64) time.Time {
	if !(seconds >= 0 && seconds <= farthest) {
		return time.Unix(farthest, 0)
	}
	return time.Unix(int64(seconds), 0)
}

// cborClaims are the claims of a CWT.
type cborClaims struct {
	Expires cbor.RawMessage `cbor:"4,keyasint"`
	Begins  cbor.RawMessage `cbor:"5,keyasint"`
	Nonce   []byte          `cbor:"10,keyasint"`
	UEID    []byte          `cbor:"256,keyasint"`
	cborPart
	Submodules map[string]cbor.RawMessage `cbor:"266,keyasint"`
}

// cborPart is a Claims-Set as far as it tells of software.
type cborPart struct {
	Debug      *uint64 `cbor:"263,keyasint"`
	Lifecycle  *uint64 `cbor:"2395,keyasint"`
	Components []struct {
		Type  string `cbor:"1,keyasint"`
		Value []byte `cbor:"2,keyasint"`
	} `cbor:"2399,keyasint"`
}

func (c cborPart) part() part {
	p := newPart()
	if c.Lifecycle != nil {
		p.lifecycle = lifecycle(*c.Lifecycle)
	}
	if c.Debug != nil {
		p.debug = 0 // as bad as the worst
		if *c.Debug < uint64(len(debugStates)) {
			p.debug = int(*c.Debug)
		}
	}
	for _, m := range c.Components {
		p.components = append(p.components, component{m.Type, m.Value})
	}
	return p
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

// isES256 tells whether the headers say so where they have to, and nothing that has to
// be understood.
func (s sign1) isES256() bool {
	var head protected
	if cborMode.Unmarshal(s.Protected, &head) != nil || head.Algorithm != coseES256 || head.Critical != nil || len(s.Signature) != firmware.SignatureLen {
		return false
	}
	// A label is in one of the headers (RFC 9052 §3), and these two in the protected one.
	for label := range s.Unprotected {
		if n, ok := label.(uint64); ok && (n == labelAlgorithm || n == labelCritical) {
			return false
		}
	}
	return true
}

const (
	labelAlgorithm = 1
	labelCritical  = 2
	coseES256      = -7
	tagCOSESign1   = 18
	tagCWT         = 61
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

// readCOSE reads a token as COSE_Sign1, tagged or not, also as a tagged CWT (RFC 8392
// §6), signed with ES256.
//
// The library for COSE (go-cose) has had no release since 1.3.0 of September 2024, as of
// November 2026, and there is little of it that is needed here: one structure, and the
// bytes under its signature.
func readCOSE(b []byte) (t token, err error) {
	for _, number := range []uint64{tagCWT, tagCOSESign1} {
		var tagged cbor.RawTag
		if cborMode.Unmarshal(b, &tagged) == nil && tagged.Number == number {
			b = tagged.Content
		}
	}
	var s sign1
	var c cborClaims
	if cborMode.Unmarshal(b, &s) != nil || !s.isES256() || cborMode.Unmarshal(s.Payload, &c) != nil {
		return t, errToken
	}
	// Sig_structure (RFC 9052 §4.4).
	signed, err := cbor.Marshal([]any{"Signature1", s.Protected, []byte{}, s.Payload})
	if err != nil {
		return t, errToken
	}
	t = token{nonce: c.Nonce, ueid: c.UEID, part: c.part(), verify: func(key *ecdsa.PublicKey) bool {
		return firmware.VerifyRS(key, sha256.Sum256(signed), [firmware.SignatureLen]byte(s.Signature))
	}}
	if c.Expires != nil {
		seconds, err := numericDate(c.Expires)
		if err != nil {
			return t, err
		}
		t.expires = date(seconds)
	}
	if c.Begins != nil {
		seconds, err := numericDate(c.Begins)
		if err != nil {
			return t, err
		}
		t.begins = begin(seconds)
	}
	for name, raw := range c.Submodules {
		sub := part{opaque: true}
		if len(raw) > 0 && raw[0]>>5 == majorMap {
			var c cborPart
			if cborMode.Unmarshal(raw, &c) != nil {
				return t, errToken
			}
			sub = c.part()
		}
		t.submodule(name, sub)
	}
	return t, t.check()
}

// majorMap is the major type of maps (RFC 8949 §3.1).
const majorMap = 5

// numericDate reads a time of RFC 8392 §2: an integer, or a number with a point.
func numericDate(raw cbor.RawMessage) (float64, error) {
	var seconds float64
	if cborMode.Unmarshal(raw, &seconds) == nil {
		return seconds, nil
	}
	var whole int64
	if cborMode.Unmarshal(raw, &whole) != nil {
		return 0, errToken
	}
	return float64(whole), nil
}

func readToken(kind joinery.EvidenceKind, b []byte) (token, error) {
	if kind == joinery.EvidenceEATJWT {
		return readJWT(b)
	}
	return readCOSE(b)
}

// secured tells whether the life cycle is RFC 9783's "secured".
func (p part) secured() bool { return p.lifecycle>>8 == 0x30 }

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
