package seal

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"testing"
)

// A key that knows OAEP with SHA-1 only says so itself: whoever seals to it uses
// that and names it, and whoever does not know of it refuses.
func TestKeysOfOAEPWithSHA1(t *testing.T) {
	private := recipient()
	p, err := NewPublicKeyFor(&private.PublicKey, AlgRSAOAEP)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ParsePublicKey(p.MarshalPEM())
	if err != nil || parsed.Alg() != AlgRSAOAEP || parsed.KID() != p.KID() || !parsed.RSA().Equal(&private.PublicKey) {
		t.Fatalf("PEM gives %q: %v", parsed.Alg(), err)
	}
	usual := publicKey(t, private)
	if usual.Alg() != AlgRSAOAEP256 || usual.KID() == p.KID() {
		t.Error("the same key for another algorithm has the same name")
	}
	if _, err := x509.ParsePKIXPublicKey(p.MarshalDER()); err == nil {
		t.Error("a program that does not know the algorithm takes the key")
	}

	h, kek, err := SealKEK(parsed, "ns", "label", make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	if h.Alg != AlgRSAOAEP || h.Check() != nil {
		t.Errorf("header says %q: %v", h.Alg, h.Check())
	}
	if key, err := rsa.DecryptOAEP(sha1.New(), nil, private, h.Key, nil); err != nil || len(key) != 32 {
		t.Errorf("the file key does not open by OAEP with SHA-1: %v", err)
	}
	opener, err := NewOpener(private, h)
	if err != nil {
		t.Fatal(err)
	}
	if err := opener.Open(kek.Item(), kek.MAC, func([][]byte) error { return nil }); err != nil {
		t.Error(err)
	}
	// What was sealed in one way does not open in the other.
	h.Alg = AlgRSAOAEP256
	if _, err := NewOpener(private, h); !errors.Is(err, ErrOtherKey) {
		t.Errorf("opened by another algorithm: %v", err)
	}
	h.Alg = "RSA1_5"
	if err := h.Check(); !errors.Is(err, ErrHeader) {
		t.Errorf("an algorithm that nobody does: %v", err)
	}
	if _, err := NewPublicKeyFor(&private.PublicKey, "RSA1_5"); !errors.Is(err, ErrPublicKey) {
		t.Errorf("a key for it: %v", err)
	}
}

// Only the one form of such a key is read: default parameters, and nothing more.
func TestOAEPKeysOfAnotherForm(t *testing.T) {
	p, err := NewPublicKeyFor(&recipient().PublicKey, AlgRSAOAEP)
	if err != nil {
		t.Fatal(err)
	}
	der := p.MarshalDER()
	null := bytes.Replace(der, []byte{0x01, 0x07, 0x30, 0x00}, []byte{0x01, 0x07, 0x05, 0x00}, 1)
	if bytes.Equal(null, der) {
		t.Fatal("the parameters are not where they should be")
	}
	for name, changed := range map[string][]byte{"other parameters": null, "more": append(der, 0), "less": der[:len(der)-1]} {
		if _, err := ParsePublicKeyDER(changed); !errors.Is(err, ErrPublicKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A key may be pinned for SHA-1 by who knows no other: the same key, under another name,
// and its holder knows what was sealed so as his.
func TestWithSHA1(t *testing.T) {
	private := recipient()
	usual := publicKey(t, private)
	pinned := usual.WithSHA1()
	if !pinned.SHA1() || usual.SHA1() || pinned.KID() == usual.KID() || !pinned.RSA().Equal(usual.RSA()) || pinned.WithSHA1().KID() != pinned.KID() {
		t.Fatalf("%q, named %s and %s", pinned.Alg(), usual.KID(), pinned.KID())
	}
	if parsed, err := ParsePublicKeyDER(pinned.MarshalDER()); err != nil || parsed.KID() != pinned.KID() {
		t.Errorf("it is not read as it was written: %v", err)
	}
	if (PublicKey{}).WithSHA1().SHA1() || (PublicKey{}).Named(Header{}) {
		t.Error("no key is one for SHA-1")
	}
	for _, c := range []struct {
		to            PublicKey
		usual, pinned bool
	}{{usual, true, false}, {pinned, true, true}} {
		s, err := NewSealer(c.to)
		if err != nil {
			t.Fatal(err)
		}
		h := s.Header()
		if usual.Named(h) != c.usual || pinned.Named(h) != c.pinned {
			t.Errorf("%s: known as %t by the key, %t by that for SHA-1", h.Alg, usual.Named(h), pinned.Named(h))
		}
		h.KID = h.KID[1:] + "A"
		if usual.Named(h) || pinned.Named(h) {
			t.Errorf("%s: known by another name", h.Alg)
		}
	}
}
