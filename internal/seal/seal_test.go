package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	josecipher "github.com/go-jose/go-jose/v4/cipher"

	"joinery/internal/secret"
)

// recipient is one RSA key for the tests of this process: making one is slow.
var recipient = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, minRSABits)
	if err != nil {
		panic(err)
	}
	return k
})

func publicKey(t testing.TB, k *rsa.PrivateKey) PublicKey {
	t.Helper()
	p, err := NewPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func TestSealAndOpen(t *testing.T) {
	s, err := NewSealer(publicKey(t, recipient()))
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOpener(recipient(), s.Header())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{16, 24, 32} {
		key := randomBytes(n)
		wrapped, err := s.Seal(key)
		if err != nil {
			t.Fatal(err)
		}
		if len(wrapped) != n+WrapOverhead || bytes.Contains(wrapped, key[:8]) {
			t.Errorf("%d bytes: sealed badly", n)
		}
		item := MasterItem("name", "profile", wrapped)
		mac, err := s.MAC(item)
		if err != nil {
			t.Fatal(err)
		}
		var held []byte
		if err := o.Open(item, mac, func(got [][]byte) error {
			if len(got) != 1 || !bytes.Equal(got[0], key) {
				t.Errorf("%d bytes: opened another key", n)
			}
			held = got[0]
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(held, make([]byte, n)) {
			t.Errorf("%d bytes: the key was not cleared after use", n)
		}
		failure := errors.New("failed")
		if err := o.Open(item, mac, func([][]byte) error { return failure }); !errors.Is(err, failure) {
			t.Errorf("Open hides the error of use: %v", err)
		}
		for i := range wrapped {
			damaged := bytes.Clone(wrapped)
			damaged[i] ^= 0x40
			changed := MasterItem("name", "profile", damaged)
			if err := o.Open(changed, mac, nil); !errors.Is(err, ErrMAC) {
				t.Errorf("damaged at byte %d: %v", i, err)
			}
			if err := openSigned(t, s, o, changed); !errors.Is(err, ErrKeyWrap) {
				t.Errorf("damaged at byte %d before its MAC was made: %v", i, err)
			}
		}
	}
	for _, n := range []int{0, 8, 15, 17, 40} {
		if _, err := s.Seal(randomBytes(n)); err == nil {
			t.Errorf("sealed a key of %d bytes", n)
		}
		if err := openSigned(t, s, o, MasterItem("", "", randomBytes(n+8))); !errors.Is(err, ErrKeyWrap) {
			t.Errorf("opened %d bytes: %v", n+8, err)
		}
	}
	if s.Wipe(); true {
		if _, err := s.Seal(randomBytes(16)); !errors.Is(err, secret.ErrWiped) {
			t.Errorf("sealing after Wipe: %v", err)
		}
		if _, err := s.MAC(Item{}); !errors.Is(err, secret.ErrWiped) {
			t.Errorf("a MAC after Wipe: %v", err)
		}
	}
	o.Wipe()
	o.Wipe()
	if err := o.Open(Item{}, randomBytes(16), nil); !errors.Is(err, secret.ErrWiped) {
		t.Errorf("opening after Wipe: %v", err)
	}
}

// openSigned opens an item with a MAC of its own.
func openSigned(t testing.TB, s *Sealer, o *Opener, i Item) error {
	t.Helper()
	mac, err := s.MAC(i)
	if err != nil {
		t.Fatal(err)
	}
	return o.Open(i, mac, nil)
}

// Another implementation of RFC 3394 opens what we wrap, and the other way
// round; the file key is what OAEP with SHA-256 carries.
func TestOthersReadWhatWeSeal(t *testing.T) {
	key := randomBytes(16)
	h, kek, err := SealKEK(publicKey(t, recipient()), "ns", "label", key)
	if err != nil {
		t.Fatal(err)
	}
	fileKey, err := rsa.DecryptOAEP(sha256.New(), nil, recipient(), h.Key, nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(fileKey)
	if err != nil {
		t.Fatal(err)
	}
	got, err := josecipher.KeyUnwrap(block, kek.Wrapped)
	if err != nil || !bytes.Equal(got, key) {
		t.Errorf("go-jose opens something else: %v", err)
	}
	if len(fileKey) != 32 {
		t.Errorf("the file key has %d bytes", len(fileKey))
	}
}

func TestKeyWrapAgainstGoJose(t *testing.T) {
	for range 200 {
		for _, n := range []int{16, 24, 32} {
			block, err := aes.NewCipher(randomBytes(n))
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range []int{16, 24, 32} {
				key := randomBytes(k)
				want, err := josecipher.KeyWrap(block, key)
				if err != nil {
					t.Fatal(err)
				}
				got, err := WrapKey([]byte{7}, block, key)
				if err != nil || got[0] != 7 || !bytes.Equal(got[1:], want) {
					t.Fatalf("KEK %d, key %d: %X, want %X: %v", n, k, got, want, err)
				}
				back, err := UnwrapKey([]byte{7}, block, want)
				if err != nil || back[0] != 7 || !bytes.Equal(back[1:], key) {
					t.Fatalf("KEK %d, key %d does not unwrap: %v", n, k, err)
				}
			}
		}
	}
}

// A failed unwrap leaves nothing of the key in the destination.
func TestFailedUnwrapLeavesNothing(t *testing.T) {
	block, err := aes.NewCipher(randomBytes(16))
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := WrapKey(nil, block, randomBytes(16))
	if err != nil {
		t.Fatal(err)
	}
	wrapped[0] ^= 1
	dst := make([]byte, 0, 16)
	if _, err := UnwrapKey(dst, block, wrapped); !errors.Is(err, ErrKeyWrap) {
		t.Fatal(err)
	}
	if !bytes.Equal(dst[:16], make([]byte, 16)) {
		t.Error("half-opened bytes were left behind")
	}
}

func TestKeyWrapDoesNotAllocate(t *testing.T) {
	block, err := aes.NewCipher(randomBytes(16))
	if err != nil {
		t.Fatal(err)
	}
	key, wrapped, out := randomBytes(16), make([]byte, 0, 24), make([]byte, 0, 16)
	if n := testing.AllocsPerRun(100, func() {
		w, err := WrapKey(wrapped, block, key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := UnwrapKey(out, block, w); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestOpenerRefuses(t *testing.T) {
	other, err := rsa.GenerateKey(rand.Reader, minRSABits)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSealer(publicKey(t, recipient()))
	if err != nil {
		t.Fatal(err)
	}
	good := s.Header()
	if _, err := NewOpener(other, good); !errors.Is(err, ErrOtherKey) {
		t.Errorf("another recipient: %v", err)
	}
	forged := good
	forged.KID = publicKey(t, other).KID()
	if _, err := NewOpener(other, forged); !errors.Is(err, ErrOpen) {
		t.Errorf("another recipient, named: %v", err)
	}
	damaged := good
	damaged.Key = bytes.Clone(good.Key)
	damaged.Key[100] ^= 1
	if _, err := NewOpener(recipient(), damaged); !errors.Is(err, ErrOpen) {
		t.Errorf("damaged: %v", err)
	}
	short := good
	if short.Key, err = publicKey(t, recipient()).EncryptOAEP(randomBytes(16)); err != nil {
		t.Fatal(err)
	}
	if _, err := NewOpener(recipient(), short); !errors.Is(err, ErrOpen) {
		t.Errorf("a file key of 16 bytes: %v", err)
	}
	for _, change := range []func(*Header){
		func(h *Header) { h.Format = "joinery-seal/2" },
		func(h *Header) { h.Alg = "RSA1_5" },
		func(h *Header) { h.Wrap = "A128KW" },
		func(h *Header) { h.KID = "" },
		func(h *Header) { h.Key = h.Key[:100] },
	} {
		h := good
		change(&h)
		if _, err := NewOpener(recipient(), h); !errors.Is(err, ErrHeader) {
			t.Errorf("%s %s %s %q: %v", h.Format, h.Alg, h.Wrap, h.KID, err)
		}
	}
}

func TestHeaderJSON(t *testing.T) {
	s, err := NewSealer(publicKey(t, recipient()))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(s.Header())
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]string
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatal(err)
	}
	key, err := base64.StdEncoding.DecodeString(members["key"])
	if err != nil || !bytes.Equal(key, s.Header().Key) {
		t.Errorf("key is not base64 of the encrypted file key: %v", err)
	}
	if members["format"] != "joinery-seal/1" || members["alg"] != "RSA-OAEP-256" || members["wrap"] != "A256KW" || len(members) != 5 {
		t.Errorf("members %v", members)
	}
	h, err := ParseHeader(text)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewOpener(recipient(), h); err != nil {
		t.Error(err)
	}
	good := string(text)
	for name, bad := range map[string]string{
		"unknown member": strings.Replace(good, "{", `{"x":1,`, 1),
		"duplicate":      strings.Replace(good, "{", `{"alg":"none",`, 1),
		"null":           "null",
		"array":          "[]",
		"empty":          "",
		"two":            good + good,
		"other case":     strings.Replace(good, `"alg"`, `"ALG"`, 1),
	} {
		if _, err := ParseHeader([]byte(bad)); !errors.Is(err, ErrHeader) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Printing a sealer or opener shows nothing of the file key.
func TestNothingPrintsTheFileKey(t *testing.T) {
	s, err := NewSealer(publicKey(t, recipient()))
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOpener(recipient(), s.Header())
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if got := fmt.Sprintf(verb+verb, s, o); got != "[sealer][opener]" {
			t.Errorf("%s prints %d bytes", verb, len(got))
		}
	}
}

func TestParseHexKey(t *testing.T) {
	for _, n := range []int{16, 24, 32} {
		key := randomBytes(n)
		for _, text := range []string{
			hex.EncodeToString(key), strings.ToUpper(hex.EncodeToString(key)), fmt.Sprintf(" % x\n", key),
		} {
			if got, err := ParseHexKey([]byte(text)); err != nil || !bytes.Equal(got, key) {
				t.Errorf("%d bytes: %v", n, err)
			}
		}
	}
	for _, n := range []int{0, 8, 15, 33} {
		text := hex.EncodeToString(randomBytes(n))
		if _, err := ParseHexKey([]byte(text)); err == nil || n > 0 && strings.Contains(err.Error(), text) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, err := ParseHexKey([]byte(strings.Repeat("G", 32))); err == nil || strings.Contains(err.Error(), "G") {
		t.Error("not hexadecimal:", err)
	}
}

func FuzzParseHeader(f *testing.F) {
	s, err := NewSealer(publicKey(f, recipient()))
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(s.Header())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"format":"joinery-seal/1"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := ParseHeader(text)
		if err != nil {
			if !errors.Is(err, ErrHeader) {
				t.Errorf("unnamed error %v", err)
			}
			return
		}
		if err := h.Check(); err != nil {
			t.Errorf("parsed, and not well-formed: %v", err)
		}
	})
}
