package ttjs_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"joinery"
	"joinery/internal/ttjs"
)

func newServer(t testing.TB) *ttjs.Server {
	t.Helper()
	s, err := ttjs.New(ttjs.Options{TransportKey: keys.TransportKey})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

const (
	tokenSecret = "TOKENSECRETOFTHELABEL"
	keySecret   = "8C17F4A2DD903B5E6E01C2B7A9554D30"
)

// What is wrong with a body is said without what was sent (promise P13).
func TestBodiesAreNotEchoed(t *testing.T) {
	s := newServer(t)
	for _, body := range []string{
		`{"ownerToken":["TOKENSECRETOFTHELABEL"],"homeNetID":"000013"}`,
		`{"ownerToken":{"TOKENSECRETOFTHELABEL":1},"homeNetID":"000013"}`,
		`{"ownerToken":"TOKENSECRETOFTHELABEL`,
		`{"ownerToken":"TOKENSECRETOFTHELABEL\x"}`,
		`{"TOKENSECRETOFTHELABEL":1,"TOKENSECRETOFTHELABEL":1}`,
		`{"ownerToken":"x","homeNetID":"TOKENSECRETOFTHELABEL"}`,
		`{"ownerToken":"x","homeNetID":"000013","homeNSID":"TOKENSECRETOFTHELABEL"}`,
		`{"ownerToken":"x","homeNetID":"000013","asID":"TOKENSECRETOFTHELABEL \u0001"}`,
		`{"ownerToken":"x","homeNetID":"000013","kek":"8C17F4A2DD903B5E6E01C2B7A9554D30"}`,
		`{"ownerToken":"x","homeNetID":"000013","kek":{"label":"l","key":{"8C17F4A2DD903B5E6E01C2B7A9554D30":1}}}`,
		`{"ownerToken":"x","homeNetID":"000013","kek":{"label":"l","key":"8C17F4A2DD903B5E6E01C2B7A9554D30zz"}}`,
		`{"ownerToken":"x","homeNetID":"000013","kek":{"label":"8C17F4A2DD903B5E6E01C2B7A9554D30"}}`,
		`{"ownerToken":"x","homeNetID":"000013","kek":{"label":["8C17F4A2DD903B5E6E01C2B7A9554D30"],"key":"00"}}`,
		`TOKENSECRETOFTHELABEL`,
	} {
		_, err := s.ReadClaim(httptest.NewRequest(http.MethodPut, "/", strings.NewReader(body)))
		if joinery.CodeOf(err) != joinery.CodeInvalid {
			t.Errorf("%s: %v", body, err)
			continue
		}
		// Not only what is answered: what is logged has the cause, too.
		for _, text := range []string{joinery.MessageOf(err), err.Error()} {
			if strings.Contains(text, tokenSecret) || strings.Contains(text, keySecret) {
				t.Errorf("%s comes back in %s", body, text)
			}
		}
	}
}

// Of a body that was read, nothing stays: the text is cleared, and the protected
// memory is empty.
func TestBodiesAreCleared(t *testing.T) {
	for name, body := range map[string]string{
		"taken":   `{"ownerToken":"` + tokenSecret + `","homeNetID":"000013","kek":{"label":"l","key":"` + keySecret + `"}}`,
		"refused": `{"ownerToken":"` + tokenSecret + `","homeNetID":"x","kek":{"label":"l","key":"` + keySecret + `"}}`,
		"broken":  `{"ownerToken":"` + tokenSecret + `","kek":{"label":"l","key":"` + keySecret + `"},"kek":1}`,
		"no KEK":  `{"ownerToken":"` + tokenSecret + `","homeNetID":"000013","kek":{"label":"l"}}`,
	} {
		s := newServer(t)
		text := []byte(body)
		c, err := s.ParseClaim(text)
		if (err == nil) != (name == "taken") {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (c.KEK == nil || bytes.Contains(c.KEK.Sealed.Wrapped, []byte(keySecret)) || c.OwnerToken != tokenSecret) {
			t.Errorf("%s: %+v", name, c)
		}
		if n := s.HeldKeys(); n != 0 {
			t.Errorf("%s: %d keys stay in memory", name, n)
		}
	}
}

// Whatever is sent as a body, it is read or refused; nothing else happens.
func FuzzReadClaim(f *testing.F) {
	f.Add([]byte(`{"ownerToken":"A","homeNetID":"000013","homeNSID":"EC656E0000000101","asID":"as","lock":true,"regenerateOwnerToken":false,"kek":{"label":"l","key":"` + keySecret + `"}}`))
	f.Add([]byte(`{"kek":{"key":"\u0030"}}`))
	f.Add([]byte(`{"kek":null,"lock":null,"homeNSID":null}`))
	s := newServer(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := s.ReadClaim(httptest.NewRequest(http.MethodPut, "/", bytes.NewReader(body)))
		if err != nil && joinery.CodeOf(err) != joinery.CodeInvalid && joinery.CodeOf(err) != joinery.CodeTooLarge {
			t.Errorf("%v", err)
		}
		if n := s.HeldKeys(); n != 0 || err != nil && c.KEK != nil {
			t.Errorf("%d keys stay, %+v", n, c.KEK)
		}
	})
}
