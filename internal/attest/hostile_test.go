package attest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-jose/go-jose/v4"

	"joinery"
	"joinery/internal/evidence"
)

// TestComponentFloors: what a token measures beside the application goes no more below
// what the device has shown than the application does, each by itself and by its name.
func TestComponentFloors(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	f.release(t, f.product, "loader-1", "loader 1", 1)
	f.release(t, f.product, "loader-2", "loader 2", 2)
	shows := func(sub bool, components ...component) []byte {
		s := c.claims(f.asked(t, c), "one")
		if sub {
			s.submodules = map[string]any{"radio": components}
		} else {
			s.components = append(s.components, components...)
		}
		return f.cose(t, f.tokenKey, s)
	}
	of := func(kind, img string) component { d := image(img); return component{kind, d[:]} }
	f.shows(t, c, l3, shows(false, of("BL", "loader 2"), of("PRoT", "loader 1")))
	f.refuses(t, c, l3, shows(false, of("BL", "loader 1"), of("PRoT", "loader 1")), "downgraded")
	f.shows(t, c, l3, shows(false, of("BL", "loader 2"), of("PRoT", "loader 2")))
	f.refuses(t, c, l3, shows(false, of("BL", "loader 2"), of("PRoT", "loader 1")), "downgraded")
	f.refuses(t, c, l3, shows(false, of("BL", "loader 2"), of("BL", "loader 1")), "downgraded") // beside a new one
	f.shows(t, c, l3, shows(true, of("BL", "loader 1")))                                        // another part's
	f.shows(t, c, l3, shows(true, of("BL", "loader 2")))
	f.refuses(t, c, l3, shows(true, of("BL", "loader 1")), "downgraded")
	// The application is held by what was shown of it, not by what stands beside it.
	s := c.claims(f.asked(t, c), "two")
	f.shows(t, c, l3, f.cose(t, f.tokenKey, s))
	f.refuses(t, c, l3, shows(false), "downgraded")
	// Another device of the product has floors of its own.
	c = f.chips[1]
	f.shows(t, c, l3, shows(false, of("BL", "loader 1")))
}

// TestSubmodules: other parts of the device are held against releases as the first is;
// what cannot be looked into is refused and not left out.
func TestSubmodules(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	one, foreign := image("one"), image("somebody's")
	nested := []byte("eyJhbGciOiJFUzI1NiJ9.e30.AA")
	for name, x := range map[string]struct {
		sub  any
		want string
	}{
		"measured":        {[]component{{"ARoT", one[:]}}, ""},
		"nothing":         {[]component{}, ""},
		"not of ours":     {[]component{{"ARoT", foreign[:]}}, "unknown-firmware"},
		"half a digest":   {[]component{{"ARoT", one[:5]}}, "measurements"},
		"debugged":        {map[int64]any{263: 0}, "debug"},
		"being made":      {map[int64]any{2395: 0x1000}, "debug"},
		"a token":         {nested, "submodule"},
		"a COSE message":  {cbor.Tag{Number: 18, Content: []any{}}, "submodule"},
		"a digest of one": {[]any{-16, one[:]}, "submodule"},
	} {
		t.Log(name)
		s := c.claims(f.asked(t, c), "one")
		s.submodules = map[string]any{"radio": x.sub}
		if b := f.cose(t, f.tokenKey, s); x.want != "" {
			f.refuses(t, c, l3, b, x.want)
		} else {
			f.shows(t, c, l3, b)
		}
		if _, cborOnly := x.sub.(cbor.Tag); cborOnly {
			continue
		}
		if m, ok := x.sub.(map[int64]any); ok {
			if _, ok := m[263]; ok {
				s.submodules["radio"] = map[string]any{"dbgstat": "enabled"}
			} else {
				s.submodules["radio"] = map[string]any{"psa-security-lifecycle": 0x1000}
			}
		}
		a := f.asked(t, c)
		s.nonce = a.Challenge[:]
		if b := f.jwt(t, f.tokenKey, s); x.want != "" {
			f.refuses(t, c, joinery.EvidenceEATJWT, b, x.want)
		} else {
			f.shows(t, c, joinery.EvidenceEATJWT, b)
		}
	}
}

// TestTokensInTime: the edges of a token's time, and clocks that jump between challenge
// and answer.
func TestTokensInTime(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	at := func(d time.Duration) *int64 { return ptr(f.clock.now().Add(d).Unix()) }
	for name, x := range map[string]struct {
		begins, expires *int64
		want            string
	}{
		"now":                  {at(0), at(time.Second), ""},
		"within servers' skew": {at(time.Minute), nil, ""},
		"not yet":              {at(time.Minute + time.Second), nil, "stale"},
		"never":                {ptr(int64(-1)), nil, "stale"},
		"far":                  {ptr(int64(1) << 62), nil, "stale"},
		"over":                 {nil, at(0), "stale"},
		"for ever":             {nil, ptr(int64(1) << 62), "stale"},
	} {
		for kind, sign := range map[joinery.EvidenceKind]func(testing.TB, *ecdsa.PrivateKey, claims) []byte{l3: f.cose, joinery.EvidenceEATJWT: f.jwt} {
			s := c.claims(f.asked(t, c), "one")
			s.begins, s.expires = x.begins, x.expires
			t.Log(name)
			if b := sign(t, f.tokenKey, s); x.want != "" {
				f.refuses(t, c, kind, b, x.want)
			} else if st := f.shows(t, c, kind, b); st.Level != joinery.AttestToken {
				t.Errorf("%s: %+v", name, st)
			}
		}
	}
	// What ends this second has ended; and a result stands for no one whose clock went back.
	s := c.claims(f.asked(t, c), "one")
	s.expires = at(10 * time.Second)
	st := f.shows(t, c, l3, f.cose(t, f.tokenKey, s))
	level := func() joinery.AttestLevel { return st.Device.Attested.Level(f.clock.now()) }
	f.clock.add(10*time.Second - time.Millisecond)
	if level() != joinery.AttestToken {
		t.Error("it ended early")
	}
	f.clock.add(time.Millisecond)
	if level() != joinery.AttestNone {
		t.Error("it did not end")
	}
	f.clock.add(-2 * time.Minute)
	if level() != joinery.AttestNone {
		t.Error("a clock that was set back brings it back")
	}
}

// TestMalleable: the other half of an ECDSA signature's two forms is as good, and as
// used up as the challenge that both answer.
func TestMalleable(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	other := func(b []byte) []byte {
		b = append([]byte(nil), b...)
		s := b[len(b)-32:]
		new(big.Int).Sub(elliptic.P256().Params().N, new(big.Int).SetBytes(s)).FillBytes(s)
		return b
	}
	b := c.possession(t, f.asked(t, c), "one", 1)
	f.shows(t, c, l1, b)
	_, err := f.Evidence(t.Context(), f.maker, c.ID, l1, other(b))
	wantCode(t, err, joinery.CodeConflict)
	tok := f.cose(t, f.tokenKey, c.claims(f.asked(t, c), "one"))
	f.shows(t, c, l3, tok)
	_, err = f.Evidence(t.Context(), f.maker, c.ID, l3, other(tok))
	wantCode(t, err, joinery.CodeConflict)

	// Numbers that are none of a signature.
	n := elliptic.P256().Params().N.FillBytes(make([]byte, 32))
	for name, half := range map[string][]byte{"zero": make([]byte, 32), "the order": n, "above it": []byte(strings.Repeat("\xff", 32))} {
		for _, from := range []int{64, 32} {
			bad := c.possession(t, f.asked(t, c), "one", 1)
			copy(bad[len(bad)-from:], half)
			f.refuses(t, c, l1, bad, "signature")
		}
		t.Log(name)
	}
}

// TestFlooded: whoever asks for challenges without end gets four, and takes nothing from
// another device.
func TestFlooded(t *testing.T) {
	f := newFixture(t)
	c, other := f.chips[0], f.chips[1]
	first, kept := f.asked(t, c), f.asked(t, other)
	var last evidence.About
	for range 20 {
		f.clock.add(time.Millisecond)
		last = f.asked(t, c)
	}
	_, err := f.Evidence(t.Context(), f.maker, c.ID, l1, c.possession(t, first, "one", 1))
	wantCode(t, err, joinery.CodeConflict)
	f.shows(t, c, l1, c.possession(t, last, "one", 1))
	f.shows(t, other, l1, other.possession(t, kept, "one", 1))
}

// TestTokenHeaders: nothing in a token chooses how it is verified, and nothing that is
// said twice is taken. What cannot be read is no token, and leaves the challenge.
func TestTokenHeaders(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	a := f.asked(t, c)
	good := c.claims(a, "one")
	text := base64.RawURLEncoding.EncodeToString
	public, err := f.tokenKey.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	whole := f.jwt(t, f.tokenKey, good)
	payload := strings.Split(string(whole), ".")[1]
	// es256 signs a header of the forger's, and a body, well.
	es256 := func(header, body string) []byte {
		in := text([]byte(header)) + "." + body
		sig := rs(t, f.tokenKey, sha256.Sum256([]byte(in)))
		return []byte(in + "." + text(sig[:]))
	}
	hs256 := func(key []byte) []byte {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: key}, nil)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := base64.RawURLEncoding.DecodeString(payload)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign(raw)
		if err != nil {
			t.Fatal(err)
		}
		compact, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return []byte(compact)
	}
	body := func(json string) string { return text([]byte(json)) }
	// cose puts headers and claims together as they are, and signs well.
	cose := func(protected []byte, unprotected map[any]any, payload []byte) []byte {
		sig := rs(t, f.tokenKey, sha256.Sum256(encode(t, []any{"Signature1", protected, []byte{}, payload})))
		return encode(t, cbor.Tag{Number: 18, Content: []any{protected, unprotected, payload, sig[:]}})
	}
	var parts struct {
		_           struct{} `cbor:",toarray"`
		Protected   []byte
		Unprotected map[any]any
		Payload     []byte
		Signature   []byte
	}
	var tag cbor.RawTag
	if err := cbor.Unmarshal(f.cose(t, f.tokenKey, good), &tag); err != nil {
		t.Fatal(err)
	}
	if err := cbor.Unmarshal(tag.Content, &parts); err != nil {
		t.Fatal(err)
	}
	alg := []byte{0xA1, 1, 0x26}
	twice := append([]byte{parts.Payload[0] + 1}, append(append([]byte{0x0A}, encode(t, good.nonce)...), parts.Payload[1:]...)...) // 10, and 10 again
	unknown := append([]byte{parts.Payload[0] + 2}, append([]byte{0x18, 99, 1, 0x18, 99, 2}, parts.Payload[1:]...)...)
	deepCBOR := append([]byte{parts.Payload[0] + 1, 0x18, 99}, append([]byte(strings.Repeat("\x81", 2000)+"\x00"), parts.Payload[1:]...)...)
	deepJSON := `{"x":` + strings.Repeat("[", 3000) + strings.Repeat("]", 3000) + `,"eat_nonce":"AA"}`
	for name, x := range map[string]struct {
		kind joinery.EvidenceKind
		b    []byte
	}{
		"HMAC under the public key":    {joinery.EvidenceEATJWT, hs256(public)},
		"HMAC under its encoding":      {joinery.EvidenceEATJWT, hs256(spki(t, f.tokenKey))},
		"none":                         {joinery.EvidenceEATJWT, []byte(body(`{"alg":"none"}`) + "." + payload + ".")},
		"None":                         {joinery.EvidenceEATJWT, es256(`{"alg":"None"}`, payload)},
		"no alg":                       {joinery.EvidenceEATJWT, es256(`{}`, payload)},
		"ES384":                        {joinery.EvidenceEATJWT, es256(`{"alg":"ES384"}`, payload)},
		"alg twice":                    {joinery.EvidenceEATJWT, es256(`{"alg":"none","alg":"ES256"}`, payload)},
		"a claim twice":                {joinery.EvidenceEATJWT, es256(`{"alg":"ES256"}`, body(`{"eat_nonce":"`+text(good.nonce)+`","eat_nonce":"`+text(good.nonce)+`"}`))},
		"a claim twice, below":         {joinery.EvidenceEATJWT, es256(`{"alg":"ES256"}`, body(`{"eat_nonce":"`+text(good.nonce)+`","submods":{"a":{"dbgstat":"disabled","dbgstat":"enabled"}}}`))},
		"no object":                    {joinery.EvidenceEATJWT, es256(`{"alg":"ES256"}`, body(`[]`))},
		"a negative life cycle":        {joinery.EvidenceEATJWT, es256(`{"alg":"ES256"}`, body(`{"eat_nonce":"`+text(good.nonce)+`","psa-security-lifecycle":-5}`))},
		"two tokens":                   {joinery.EvidenceEATJWT, append(append([]byte(nil), whole...), append([]byte("."), whole...)...)},
		"nested deeply":                {joinery.EvidenceEATJWT, es256(`{"alg":"ES256"}`, body(deepJSON))},
		"alg beside the signature":     {l3, cose(encode(t, map[int]int{}), map[any]any{1: -7}, parts.Payload)},
		"an empty protected header":    {l3, cose(nil, map[any]any{1: -7}, parts.Payload)},
		"alg in both headers":          {l3, cose(alg, map[any]any{1: -7}, parts.Payload)},
		"crit beside the signature":    {l3, cose(alg, map[any]any{2: []int{99}}, parts.Payload)},
		"alg twice, CBOR":              {l3, cose([]byte{0xA2, 1, 0x27, 1, 0x26}, nil, parts.Payload)},
		"a claim twice, CBOR":          {l3, cose(alg, nil, twice)},
		"an unknown claim twice, CBOR": {l3, cose(alg, nil, unknown)},
		"nested deeply, CBOR":          {l3, cose(alg, nil, deepCBOR)},
		"something behind":             {l3, append(cose(alg, nil, parts.Payload), 0)},
		"of indefinite length":         {l3, append([]byte{0x9F}, append(tag.Content[1:], 0xFF)...)},
		"a name that spoils a line":    {l3, f.cose(t, f.tokenKey, with(good, component{"B\nL", good.components[0].Value}))},
		"a name without end":           {l3, f.cose(t, f.tokenKey, with(good, component{strings.Repeat("B", 65), good.components[0].Value}))},
	} {
		if _, err := f.Evidence(t.Context(), f.maker, c.ID, x.kind, x.b); joinery.CodeOf(err) != joinery.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	// As a CWT with its tag (RFC 8392 §6); and what the headers say for people.
	f.shows(t, c, l3, encode(t, cbor.Tag{Number: 61, Content: cbor.RawMessage(cose(alg, map[any]any{4: []byte("kid")}, parts.Payload))}))
}

func with(c claims, more ...component) claims {
	c.components = append(append([]component(nil), c.components...), more...)
	return c
}
