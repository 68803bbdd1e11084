package firmware

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func signer(key *ecdsa.PrivateKey) func([32]byte) ([64]byte, error) {
	return func(digest [32]byte) (out [64]byte, err error) {
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		if err == nil {
			r.FillBytes(out[:32])
			s.FillBytes(out[32:])
		}
		return out, err
	}
}

var release = Release{Product: "meter-3", Hardware: "rev-c", Version: "3.1.0", Digest: sha256.Sum256([]byte("image")), Counter: 7}

func TestStatement(t *testing.T) {
	key := newKey(t)
	s, err := Sign(release, signer(key))
	if err != nil {
		t.Fatal(err)
	}
	file, err := s.Text()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(file)
	if err != nil || got != s {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := got.Verify(&key.PublicKey); err != nil {
		t.Error(err)
	}
	if err := got.Verify(&newKey(t).PublicKey); !errors.Is(err, ErrSignature) {
		t.Errorf("another key: %v", err)
	}
	// Whatever is changed of it, the signature does not fit any more.
	for old, changed := range map[string]string{
		"meter-3": "meter-4", "rev-c": "rev-d", "3.1.0": "3.1.1", `"counter": 7`: `"counter": 8`, hex.EncodeToString(release.Digest[:4]): "00000000",
	} {
		other, err := Parse([]byte(strings.Replace(string(file), old, changed, 1)))
		if err != nil || other == s {
			t.Fatalf("%s: %v", changed, err)
		}
		if err := other.Verify(&key.PublicKey); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", changed, err)
		}
	}
}

// TestSigningDigest: what is signed does not change by accident.
func TestSigningDigest(t *testing.T) {
	message := "joinery-firmware/1\x00\x07meter-3\x05rev-c\x053.1.0" + string(release.Digest[:]) + "\x00\x00\x00\x07"
	if release.SigningDigest() != sha256.Sum256([]byte(message)) {
		t.Error("the message is another")
	}
}

func TestBadStatements(t *testing.T) {
	for name, r := range map[string]Release{
		"no product": {Hardware: "a", Version: "1"}, "space": {Product: "a b", Hardware: "a", Version: "1"},
		"long":    {Product: "a", Hardware: strings.Repeat("a", 65), Version: "1"},
		"counter": {Product: "a", Hardware: "a", Version: "1", Counter: MaxCounter + 1},
	} {
		if _, err := Sign(r, signer(newKey(t))); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, err := Sign(release, signer(newKey(t)))
	if err != nil {
		t.Fatal(err)
	}
	good, _ := s.Text()
	for name, file := range map[string][]byte{
		"empty": nil, "no JSON": []byte("image"), "format": bytes.Replace(good, []byte("firmware/1"), []byte("firmware/2"), 1),
		"unknown member": bytes.Replace(good, []byte("{"), []byte(`{"x": 1,`), 1), "twice": bytes.Replace(good, []byte("{"), []byte(`{"counter": 9,`), 1),
		"short digest": bytes.Replace(good, []byte(hex.EncodeToString(release.Digest[:4])), nil, 1), "negative": bytes.Replace(good, []byte(": 7"), []byte(": -7"), 1),
		"huge": append(bytes.Repeat([]byte(" "), MaxStatement), good...),
	} {
		if _, err := Parse(file); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"format":"joinery-firmware/1","product":"a","hardware":"b","version":"1","sha256":"","counter":1,"signature":""}`))
	f.Fuzz(func(t *testing.T, file []byte) {
		s, err := Parse(file)
		if err != nil {
			return
		}
		text, err := s.Text()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Parse(text); err != nil || again != s {
			t.Fatalf("%+v, %v", again, err)
		}
	})
}
