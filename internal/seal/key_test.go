package seal

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
)

func TestPublicKey(t *testing.T) {
	p := publicKey(t, recipient())
	parsed, err := ParsePublicKey(p.MarshalPEM())
	if err != nil {
		t.Fatal(err)
	}
	if parsed.KID() != p.KID() || parsed.IsZero() {
		t.Error("PEM gives another key")
	}
	der, err := x509.MarshalPKIXPublicKey(&recipient().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	if want := base64.RawURLEncoding.EncodeToString(sum[:]); p.KID() != want {
		t.Errorf("KID %s, want %s", p.KID(), want)
	}
	if _, err := NewSealer(PublicKey{}); !errors.Is(err, ErrPublicKey) {
		t.Errorf("sealing to no key: %v", err)
	}
}

func TestPublicKeysThatAreNone(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	smallDER, err := x509.MarshalPKIXPublicKey(&small.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKIXPublicKey(&ec.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(recipient())
	if err != nil {
		t.Fatal(err)
	}
	good := publicKey(t, recipient()).MarshalPEM()
	block := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	for name, c := range map[string]struct {
		text []byte
		say  string
	}{
		"empty":       {nil, "not a PEM file"},
		"2048 bits":   {block("PUBLIC KEY", smallDER), "3072"},
		"EC":          {block("PUBLIC KEY", ecDER), "not an RSA key"},
		"private":     {block("PRIVATE KEY", private), "private key"},
		"two":         {append(bytes.Clone(good), good...), "one PEM block"},
		"certificate": {block("CERTIFICATE", smallDER), "one PEM block"},
		"garbage":     {block("PUBLIC KEY", []byte("garbage")), "SubjectPublicKeyInfo"},
	} {
		_, err := ParsePublicKey(c.text)
		if !errors.Is(err, ErrPublicKey) || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
