package exportfile_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"joinery/internal/exportfile"
	"joinery/internal/seal"
)

func pemOf(t *testing.T, kind string, der []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func publicPEM(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	return pemOf(t, "PUBLIC KEY", der, err)
}

// Both ways to give a key mean the same recipient, whose thumbprint others compute
// alike.
func TestRecipients(t *testing.T) {
	for kind, key := range map[string]any{"RSA-3072": &rsaKey().PublicKey, "P-256": &ecKey.PublicKey} {
		theirs := jose.JSONWebKey{Key: key, Use: "enc", KeyID: "mine"}
		want := base64.RawURLEncoding.EncodeToString(must[[]byte](t)(theirs.Thumbprint(crypto.SHA256)))
		for _, text := range [][]byte{publicPEM(t, key), must[[]byte](t)(json.Marshal(theirs)), append([]byte("\n "), publicPEM(t, key)...)} {
			r, err := exportfile.ParseRecipient(text)
			if err != nil || r.Thumbprint() != want || r.Kind() != kind || r.SHA1() {
				t.Errorf("%s: %s %s, %v", kind, r.Kind(), r.Thumbprint(), err)
			}
			for _, again := range [][]byte{r.MarshalJWK(), r.MarshalPEM()} {
				if r, err = exportfile.ParseRecipient(again); err != nil || r.Thumbprint() != want {
					t.Errorf("%s, written by us: %v", kind, err)
				}
			}
			if sha1 := r.WithSHA1(); sha1.SHA1() != (kind != "P-256") || sha1.Thumbprint() != want {
				t.Errorf("%s that opted in to SHA-1", kind)
			} else if back, err := exportfile.ParseRecipientDER(sha1.MarshalDER()); err != nil || back.SHA1() != sha1.SHA1() || back.Thumbprint() != want {
				t.Errorf("%s that opted in, as DER: %v", kind, err)
			}
		}
	}
	transport := must[seal.PublicKey](t)(seal.NewPublicKeyFor(&rsaKey().PublicKey, seal.AlgRSAOAEP))
	r := must[exportfile.Recipient](t)(exportfile.ParseRecipient(transport.MarshalPEM()))
	if back := must[seal.PublicKey](t)(r.TransportKey()); !r.SHA1() || back.KID() != transport.KID() {
		t.Error("the transport key of another server is not itself any more")
	}
}

func TestRecipientsRefused(t *testing.T) {
	short := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	curve := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	pkcs8, err := x509.MarshalPKCS8PrivateKey(ecKey)
	point := must[[]byte](t)(ecKey.PublicKey.Bytes())
	x, other := base64.RawURLEncoding.EncodeToString(point[1:33]), base64.RawURLEncoding.EncodeToString(point[2:34])
	for name, text := range map[string]string{
		"RSA of 2048 bits": string(publicPEM(t, &short.PublicKey)),
		"P-384":            string(publicPEM(t, &curve.PublicKey)),
		"a private key":    string(pemOf(t, "PRIVATE KEY", pkcs8, err)),
		"a private JWK":    string(must[[]byte](t)(json.Marshal(jose.JSONWebKey{Key: ecKey}))),
		"a shared key":     `{"kty":"oct","k":"AAAA"}`,
		"for signatures":   string(must[[]byte](t)(json.Marshal(jose.JSONWebKey{Key: &ecKey.PublicKey, Use: "sig"}))),
		"PKCS #1":          string(pemOf(t, "RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey), nil)),
		"a certificate":    string(pemOf(t, "CERTIFICATE", []byte{1}, nil)),
		"two keys":         string(publicPEM(t, &ecKey.PublicKey)) + string(publicPEM(t, &ecKey.PublicKey)),
		"off the curve":    `{"kty":"EC","crv":"P-256","x":"` + x + `","y":"` + other + `"}`,
		"no y":             `{"kty":"EC","crv":"P-256","x":"` + x + `"}`,
		"exponent one":     `{"kty":"RSA","n":"` + base64.RawURLEncoding.EncodeToString(rsaKey().N.Bytes()) + `","e":"AQ"}`,
		"no exponent":      `{"kty":"RSA","n":"AQAB"}`,
		"OKP":              `{"kty":"OKP","crv":"X25519","x":"AAAA"}`,
		"nothing":          "",
		"a list":           `[1]`,
		"far too long":     strings.Repeat("x", 1<<20),
	} {
		if _, err := exportfile.ParseRecipient([]byte(text)); !errors.Is(err, exportfile.ErrRecipient) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestChoose(t *testing.T) {
	ec := must[exportfile.Recipient](t)(exportfile.NewRecipient(&ecKey.PublicKey))
	plain := must[exportfile.Recipient](t)(exportfile.NewRecipient(&rsaKey().PublicKey))
	all, old := exportfile.AllWrappings(), []exportfile.Wrapping{exportfile.RawOAEP1, exportfile.SealOAEP1}
	for _, tc := range []struct {
		name string
		to   exportfile.Recipient
		can  []exportfile.Wrapping
		form exportfile.Form
		want exportfile.Wrapping // zero: refused
	}{
		{"RSA", plain, all, "", exportfile.RawOAEP256},
		{"RSA as JWE", plain, all, exportfile.FormJWE, exportfile.JWEOAEP256},
		{"RSA in two steps", plain, all, exportfile.FormSeal, exportfile.SealOAEP256},
		{"RSA that takes SHA-1, from who has better", plain.WithSHA1(), all, "", exportfile.RawOAEP256},
		{"another server's with SHA-1", plain.WithSHA1(), all, exportfile.FormSeal, exportfile.SealOAEP1},
		{"P-256", ec, all, "", exportfile.JWEECDHES},
		{"P-256 in two steps", ec, all, exportfile.FormSeal, exportfile.Wrapping{}},
		{"P-256 from a token", ec, old, "", exportfile.Wrapping{}},
		{"SHA-1 without opting in", plain, old, "", exportfile.Wrapping{}},
		{"SHA-1, opted in", plain.WithSHA1(), old, "", exportfile.RawOAEP1},
		{"nobody", exportfile.Recipient{}, all, "", exportfile.Wrapping{}},
	} {
		got, err := exportfile.Choose(tc.to, tc.can, tc.form)
		if got != tc.want || (err == nil) != (tc.want != exportfile.Wrapping{}) || err != nil && !errors.Is(err, exportfile.ErrWrapping) {
			t.Errorf("%s: %v, %v", tc.name, got, err)
		}
	}
	if _, err := exportfile.NewWrapper(plain, exportfile.RawOAEP1); !errors.Is(err, exportfile.ErrWrapping) {
		t.Errorf("SHA-1 without opting in: %v", err)
	}
	if _, err := exportfile.NewWrapper(plain, exportfile.Wrapping{}); !errors.Is(err, exportfile.ErrWrapping) {
		t.Errorf("no wrapping: %v", err)
	}
}

// Private keys come in all their usual forms; what is no such key is not repeated.
func TestPrivateKeys(t *testing.T) {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(rsaKey())
	sec1, ecErr := x509.MarshalECPrivateKey(ecKey)
	for name, text := range map[string][]byte{
		"PKCS #8": pemOf(t, "PRIVATE KEY", pkcs8, err),
		"PKCS #1": pemOf(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey()), nil),
		"SEC 1":   append(pemOf(t, "EC PARAMETERS", []byte{6, 1, 1}, nil), pemOf(t, "EC PRIVATE KEY", sec1, ecErr)...),
		"RSA JWK": must[[]byte](t)(json.Marshal(jose.JSONWebKey{Key: rsaKey()})),
		"EC JWK":  must[[]byte](t)(json.Marshal(jose.JSONWebKey{Key: ecKey})),
	} {
		k, err := exportfile.ParsePrivateKey(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var public any = &rsaKey().PublicKey
		if k.Recipient().Kind() == "P-256" {
			public = &ecKey.PublicKey
		}
		if want := must[exportfile.Recipient](t)(exportfile.NewRecipient(public)); k.Recipient().Thumbprint() != want.Thumbprint() {
			t.Errorf("%s is another key", name)
		}
		if strings.Trim(string(text), "\x00") != "" {
			t.Errorf("%s was left in memory", name)
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
	swapped := must[[]byte](t)(json.Marshal(jose.JSONWebKey{Key: ecKey}))
	var members map[string]string
	if err := json.Unmarshal(swapped, &members); err != nil {
		t.Fatal(err)
	}
	members["d"] = base64.RawURLEncoding.EncodeToString(must[[]byte](t)(newEC().Bytes()))
	for name, text := range map[string][]byte{
		"a public key":   publicPEM(t, &ecKey.PublicKey),
		"a public JWK":   must[[]byte](t)(json.Marshal(jose.JSONWebKey{Key: &ecKey.PublicKey})),
		"encrypted":      pemOf(t, "ENCRYPTED PRIVATE KEY", []byte{1}, nil),
		"damaged":        pemOf(t, "PRIVATE KEY", []byte{1}, nil),
		"halves of two":  must[[]byte](t)(json.Marshal(members)),
		"a password":     []byte("hunter2 hunter2"),
		"an RSA JWK cut": []byte(`{"kty":"RSA","n":"AQAB","e":"AQAB","d":"aHVudGVyMg"}`),
	} {
		_, err := exportfile.ParsePrivateKey(text)
		if !errors.Is(err, exportfile.ErrPrivateKey) || strings.Contains(err.Error(), "hunter") || strings.Contains(err.Error(), "aHVud") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
