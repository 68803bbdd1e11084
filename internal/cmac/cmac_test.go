package cmac

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/tink-crypto/tink-go/v2/mac/subtle"
)

func newCipher(t testing.TB, key []byte) Cipher {
	t.Helper()
	b, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return Cipher{b}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sum(t testing.TB, key, msg []byte) [BlockLen]byte {
	t.Helper()
	mac, err := new(CMAC).Sum(newCipher(t, key), msg)
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

// Known answers: RFC 4493 §4 (which are also NIST SP 800-38B D.1), and for
// AES-192 and AES-256 NIST SP 800-38B D.2 and D.3.
func TestCMACKnownAnswers(t *testing.T) {
	msg := unhex(t, "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
	for key, macs := range map[string]map[int]string{
		"2b7e151628aed2a6abf7158809cf4f3c": {
			0:  "bb1d6929e95937287fa37d129b756746",
			16: "070a16b46b4d4144f79bdd9dd04a287c",
			40: "dfa66747de9ae63030ca32611497c827",
			64: "51f0bebf7e3b9d92fc49741779363cfe",
		},
		"8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b": {
			0:  "d17ddf46adaacde531cac483de7a9367",
			16: "9e99a7bf31e710900662f65e617c5184",
			40: "8a1de5be2eb31aad089a82e6ee908b0e",
			64: "a1d5df0eed790f794d77589659f39a11",
		},
		"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4": {
			0:  "028962f61b7bf89efc6b551f4667d983",
			16: "28a7023f452e8f82bd4bf28d8c37c35c",
			40: "aaf3d8f1de5640c232f5b169b9c911e6",
			64: "e1992190549f6ed5696a2c056c315410",
		},
	} {
		for n, want := range macs {
			got := sum(t, unhex(t, key), msg[:n])
			if hex.EncodeToString(got[:]) != want {
				t.Errorf("AES-%d, %d bytes: %x, want %s", 4*len(key), n, got, want)
			}
		}
	}
}

// tinkCMAC is another implementation, for comparison; it takes keys of 16 and
// 32 bytes.
func tinkCMAC(t testing.TB, key, msg []byte) []byte {
	t.Helper()
	c, err := subtle.NewAESCMAC(key, BlockLen)
	if err != nil {
		t.Fatal(err)
	}
	mac, err := c.ComputeMAC(msg)
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

func TestCMACAgainstTink(t *testing.T) {
	for n := range 200 {
		for _, keyLen := range []int{16, 32} {
			key, msg := make([]byte, keyLen), make([]byte, n)
			rand.Read(key)
			rand.Read(msg)
			if got := sum(t, key, msg); !bytes.Equal(got[:], tinkCMAC(t, key, msg)) {
				t.Errorf("%d bytes under a key of %d: another MAC than tink's", n, keyLen)
			}
		}
	}
}

func FuzzCMAC(f *testing.F) {
	f.Add(make([]byte, 16), []byte("join-request"))
	f.Add(make([]byte, 16), make([]byte, 16))
	f.Fuzz(func(t *testing.T, key, msg []byte) {
		if len(key) != 16 {
			return
		}
		if got := sum(t, key, msg); !bytes.Equal(got[:], tinkCMAC(t, key, msg)) {
			t.Errorf("another MAC than tink's")
		}
	})
}

// A CMAC can be used again, and keeps nothing of what it summed.
func TestCMACWorkingMemory(t *testing.T) {
	e := newCipher(t, make([]byte, 16))
	var c CMAC
	first, err := c.Sum(e, []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	if c != (CMAC{}) {
		t.Error("working memory was not cleared")
	}
	if _, err := c.Sum(e, make([]byte, 33)); err != nil {
		t.Fatal(err)
	}
	if again, err := c.Sum(e, []byte("one")); err != nil || again != first {
		t.Error("the second use gives another MAC")
	}
}

var errToken = errors.New("token")

// failing is a token that fails at its n-th operation.
type failing struct{ n int }

func (f *failing) EncryptBlock(*[BlockLen]byte) error {
	if f.n--; f.n == 0 {
		return errToken
	}
	return nil
}

func TestCMACReportsTheTokensError(t *testing.T) {
	for n := 1; n <= 3; n++ {
		if _, err := new(CMAC).Sum(&failing{n}, make([]byte, 20)); !errors.Is(err, errToken) {
			t.Errorf("failure at operation %d: %v", n, err)
		}
	}
}

func BenchmarkCMAC19(b *testing.B) {
	e := newCipher(b, make([]byte, 16))
	msg := make([]byte, 19)
	var c CMAC
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Sum(e, msg); err != nil {
			b.Fatal(err)
		}
	}
}
