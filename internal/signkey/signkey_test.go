package signkey

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

func TestKey(t *testing.T) {
	var file bytes.Buffer
	passphrase := Drawn()
	made, err := New(&file, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(file.String(), "PRIVATE KEY") || !Is(file.Bytes()) {
		t.Error("the file is not encrypted")
	}
	k, err := Open(file.Bytes(), passphrase)
	if err != nil || !k.Public().Equal(made.Public()) {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("image"))
	s, err := k.Sign(digest)
	if err != nil || !ecdsa.Verify(made.Public(), digest[:], new(big.Int).SetBytes(s[:32]), new(big.Int).SetBytes(s[32:])) {
		t.Errorf("its signature does not verify: %v", err)
	}
	if text := fmt.Sprintf("%v %+v %#v %s %d", k, k, k, k, k); strings.Count(text, "a key that signs firmware") != 5 {
		t.Error(text)
	}
	for name, wrong := range map[string]string{"another": Drawn(), "none": ""} {
		if _, err := Open(file.Bytes(), wrong); !errors.Is(err, ErrPassphrase) {
			t.Errorf("%s: %v", name, err)
		}
	}
	text, err := MarshalPublic(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	if public, err := ParsePublic(text); err != nil || !public.Equal(k.Public()) {
		t.Errorf("%v", err)
	}
	for name, text := range map[string]string{
		"nothing": "", "no PEM": "key", "another curve": "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n",
	} {
		if _, err := ParsePublic([]byte(text)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, file := range map[string][]byte{"nothing": nil, "cut off": file.Bytes()[:100], "else": []byte("-----BEGIN PRIVATE KEY-----")} {
		if _, err := Open(file, passphrase); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(&file, "short"); err == nil {
		t.Error("a short passphrase was taken")
	}
}

// TestWorkFactor: what people type is slow to try out.
func TestWorkFactor(t *testing.T) {
	if workFactor(Drawn()) != 11 || workFactor("correct horse battery") != 18 || workFactor("joinery-") != 18 {
		t.Error("wrong work factors")
	}
}
