package lwcrypto

import (
	"crypto/aes"
	"encoding/hex"
	"testing"

	"joinery/internal/cmac"
)

// software is an Encrypter of package cmac and a BlockDecrypter, over a cipher
// of this process.
type software struct{ cmac.Cipher }

func (s software) DecryptECB(b []byte) error {
	for ; len(b) > 0; b = b[BlockLen:] {
		s.Decrypt(b[:BlockLen], b[:BlockLen])
	}
	return nil
}

func newSoftware(t testing.TB, key []byte) software {
	t.Helper()
	b, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return software{cmac.Cipher{Block: b}}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
