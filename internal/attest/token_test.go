package attest

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"

	"joinery"
	"joinery/internal/evidence"
)

// claims are a token before it is signed.
type claims struct {
	nonce, ueid []byte
	components  []component
	lifecycle   *uint64
	debug       *uint64
	expires     *int64
	begins      *int64
	submodules  map[string]any // []component, or anything else as it is
}

func (c *chip) claims(a evidence.About, img string) claims {
	digest := image(img)
	secured := uint64(0x3000)
	return claims{
		nonce: a.Challenge[:], ueid: append([]byte{2}, c.DevEUI[:]...), lifecycle: &secured,
		components: []component{{Type: "ARoT", Value: digest[:]}},
	}
}

func (f *fixture) cose(t testing.TB, key *ecdsa.PrivateKey, c claims) []byte {
	t.Helper()
	return coseWith(t, key, c, map[int64]any{1: -7})
}

func coseWith(t testing.TB, key *ecdsa.PrivateKey, c claims, head map[int64]any) []byte {
	t.Helper()
	m := map[int64]any{10: c.nonce, 256: c.ueid, 2396: make([]byte, 32)}
	if list := coseComponents(c.components); list != nil {
		m[2399] = list
	}
	if c.submodules != nil {
		subs := map[string]any{}
		for name, sub := range c.submodules {
			if list, ok := sub.([]component); ok {
				sub = map[int64]any{2399: coseComponents(list)}
			}
			subs[name] = sub
		}
		m[266] = subs
	}
	if c.begins != nil {
		m[5] = *c.begins
	}
	if c.lifecycle != nil {
		m[2395] = *c.lifecycle
	}
	if c.debug != nil {
		m[263] = *c.debug
	}
	if c.expires != nil {
		m[4] = *c.expires
	}
	payload, protected := encode(t, m), encode(t, head)
	signature := rs(t, key, sha256.Sum256(encode(t, []any{"Signature1", protected, []byte{}, payload})))
	return encode(t, cbor.Tag{Number: 18, Content: []any{protected, map[int64]any{}, payload, signature[:]}})
}

func coseComponents(components []component) (list []map[int64]any) {
	for _, s := range components {
		list = append(list, map[int64]any{1: s.Type, 2: s.Value, 5: make([]byte, 32)})
	}
	return list
}

func jwtComponents(components []component) (list []map[string]any) {
	text := base64.RawURLEncoding.EncodeToString
	for _, s := range components {
		list = append(list, map[string]any{"measurement-type": s.Type, "measurement-value": text(s.Value), "signer-id": text(make([]byte, 32))})
	}
	return list
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := cbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (f *fixture) jwt(t testing.TB, key *ecdsa.PrivateKey, c claims) []byte {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString
	m := map[string]any{"eat_nonce": text(c.nonce), "ueid": text(c.ueid), "psa-implementation-id": text(make([]byte, 32))}
	if list := jwtComponents(c.components); list != nil {
		m["psa-software-components"] = list
	}
	if c.submodules != nil {
		subs := map[string]any{}
		for name, sub := range c.submodules {
			switch v := sub.(type) {
			case []component:
				sub = map[string]any{"psa-software-components": jwtComponents(v)}
			case []byte:
				sub = string(v)
			}
			subs[name] = sub
		}
		m["submods"] = subs
	}
	if c.begins != nil {
		m["nbf"] = *c.begins
	}
	if c.lifecycle != nil {
		m["psa-security-lifecycle"] = *c.lifecycle
	}
	if c.debug != nil {
		m["dbgstat"] = debugStates[*c.debug]
	}
	if c.expires != nil {
		m["exp"] = *c.expires
	}
	payload, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return []byte(compact)
}

func ptr[T any](v T) *T { return &v }

// TestTokens: both forms, and everything that a token can say that proves nothing.
func TestTokens(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	boot := image("boot loader")
	f.release(t, f.product, "loader-1", "boot loader", 0)
	foreign := image("somebody's")
	one := image("one")
	forms := map[joinery.EvidenceKind]func(testing.TB, *ecdsa.PrivateKey, claims) []byte{joinery.EvidenceEATCOSE: f.cose, joinery.EvidenceEATJWT: f.jwt}
	for kind, sign := range forms {
		for name, x := range map[string]struct {
			change func(*claims)
			want   string // why it is refused; "" it is not
		}{
			"as it should be":     {func(*claims) {}, ""},
			"one of any type":     {func(s *claims) { s.components[0].Type = "app" }, ""},
			"with its loader":     {func(s *claims) { s.components = append(s.components, component{"BL", boot[:]}) }, ""},
			"no life cycle":       {func(s *claims) { s.lifecycle = nil }, ""},
			"debug off":           {func(s *claims) { s.debug = ptr(uint64(3)) }, ""},
			"not expired":         {func(s *claims) { s.expires = ptr(f.clock.now().Add(time.Hour).Unix()) }, ""},
			"expired":             {func(s *claims) { s.expires = ptr(f.clock.now().Unix()) }, "stale"},
			"from before time":    {func(s *claims) { s.expires = ptr(int64(-1)) }, "stale"},
			"debug on":            {func(s *claims) { s.debug = ptr(uint64(0)) }, "debug"},
			"not secured":         {func(s *claims) { s.lifecycle = ptr(uint64(0x4000)) }, "debug"},
			"assembly":            {func(s *claims) { s.lifecycle = ptr(uint64(0x1000)) }, "debug"},
			"nothing measured":    {func(s *claims) { s.components = nil }, "measurements"},
			"two applications":    {func(s *claims) { s.components = append(s.components, component{"ARoT", boot[:]}) }, "measurements"},
			"no application":      {func(s *claims) { s.components = []component{{"BL", boot[:]}, {"PRoT", one[:]}} }, "measurements"},
			"half a digest":       {func(s *claims) { s.components[0].Value = one[:16] }, "measurements"},
			"a loader from where": {func(s *claims) { s.components = append(s.components, component{"BL", foreign[:]}) }, "unknown-firmware"},
			"no ueid":             {func(s *claims) { s.ueid = nil }, "foreign"},
			"a random ueid":       {func(s *claims) { s.ueid = append([]byte{1}, make([]byte, 32)...) }, "foreign"},
		} {
			s := c.claims(f.asked(t, c), "one")
			x.change(&s)
			b := sign(t, f.tokenKey, s)
			if x.want != "" {
				f.refuses(t, c, kind, b, x.want)
				continue
			}
			st := f.shows(t, c, kind, b)
			if st.Level != joinery.AttestToken || st.Results[0].Version != "1.0.0" || st.Results[0].Digest != one {
				t.Errorf("%s, %s: %+v", kind, name, st)
			}
			if s.expires != nil && st.Until.Unix() != *s.expires {
				t.Errorf("%s stands until %s", name, st.Until)
			}
		}
	}
}

// TestTokenKeyOfDevice: a key of one device names it, whatever its ueid, and leaves
// the product's keys nothing to say of it.
func TestTokenKeyOfDevice(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	own := newKey(t)
	f.addKey(t, joinery.ProductKey{Product: f.product.ID, Device: c.ID, Use: joinery.KeyForTokens, Public: spki(t, own)})
	f.refuses(t, c, l3, f.cose(t, f.tokenKey, c.claims(f.asked(t, c), "one")), "signature")
	s := c.claims(f.asked(t, c), "one")
	s.ueid = append([]byte{1}, make([]byte, 32)...)
	f.shows(t, c, l3, f.cose(t, own, s))
	s = c.claims(f.asked(t, c), "one")
	s.ueid = append([]byte{2}, f.chips[1].DevEUI[:]...)
	f.refuses(t, c, l3, f.cose(t, own, s), "foreign")
	s = f.chips[1].claims(f.asked(t, f.chips[1]), "one")
	f.refuses(t, f.chips[1], l3, f.cose(t, own, s), "signature")
}

// TestUnreadableTokens: what is no token of the two forms is not judged, and costs no
// challenge.
func TestUnreadableTokens(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	a := f.asked(t, c)
	good := c.claims(a, "one")
	short := good
	short.nonce = a.Challenge[:8]
	none := []byte(`eyJhbGciOiJub25lIn0.` + base64.RawURLEncoding.EncodeToString([]byte(`{"eat_nonce":"AA"}`)) + `.`)
	for name, x := range map[string]struct {
		kind joinery.EvidenceKind
		b    []byte
	}{
		"empty": {l3, nil}, "text": {l3, []byte("token")}, "JWT as COSE": {l3, f.jwt(t, f.tokenKey, good)},
		"COSE as JWT": {joinery.EvidenceEATJWT, f.cose(t, f.tokenKey, good)}, "alg none": {joinery.EvidenceEATJWT, none},
		"another algorithm": {l3, coseWith(t, f.tokenKey, good, map[int64]any{1: -8})},
		"no algorithm":      {l3, coseWith(t, f.tokenKey, good, map[int64]any{})},
		"critical":          {l3, coseWith(t, f.tokenKey, good, map[int64]any{1: -7, 2: []int{99}})},
		"another tag":       {l3, encode(t, cbor.Tag{Number: 17, Content: []any{[]byte{}, map[int64]any{}, []byte{}, []byte{}}})},
		"short nonce":       {l3, f.cose(t, f.tokenKey, short)}, "huge": {l3, make([]byte, evidence.MaxLen+1)},
		"no kind": {"", f.cose(t, f.tokenKey, good)}, "possession as boot": {l2, c.possession(t, a, "one", 1)},
	} {
		if _, err := f.Evidence(t.Context(), f.maker, c.ID, x.kind, x.b); joinery.CodeOf(err) != joinery.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.shows(t, c, l3, f.cose(t, f.tokenKey, good))
}

func FuzzTokens(f *testing.F) {
	f.Add([]byte("eyJhbGciOiJFUzI1NiJ9.e30.AA"))
	f.Add([]byte{0xD2, 0x84, 0x43, 0xA1, 1, 0x26, 0xA0, 0x41, 0xA0, 0x41, 0})
	f.Fuzz(func(_ *testing.T, b []byte) {
		for _, kind := range []joinery.EvidenceKind{joinery.EvidencePossession, joinery.EvidenceBoot, joinery.EvidenceEATJWT, joinery.EvidenceEATCOSE} {
			if p, err := read(kind, b); err == nil {
				p.digests()
				p.token.application()
			}
		}
	})
}
