package aesmode_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"joinery/internal/sim/aesmode"
	"joinery/internal/sim/simtest"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newAES(t testing.TB, key []byte) cipher.Block {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// The examples of RFC 4493 §4, whole and cut into two parts at each place.
func TestCMAC(t *testing.T) {
	c := aesmode.NewCMAC(newAES(t, unhex(t, "2b7e151628aed2a6abf7158809cf4f3c")))
	message := unhex(t, "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"+
		"30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
	for _, v := range []struct {
		length int
		mac    string
	}{
		{0, "bb1d6929e95937287fa37d129b756746"},
		{16, "070a16b46b4d4144f79bdd9dd04a287c"},
		{40, "dfa66747de9ae63030ca32611497c827"},
		{64, "51f0bebf7e3b9d92fc49741779363cfe"},
	} {
		for cut := range v.length + 1 {
			var mac [16]byte
			c.Sum(&mac, message[:cut], message[cut:v.length])
			if want := unhex(t, v.mac); !bytes.Equal(mac[:], want) {
				t.Fatalf("%d bytes cut at %d: got %x, want %x", v.length, cut, mac, want)
			}
		}
	}
}

func TestCMACDoesNotAllocate(t *testing.T) {
	c := aesmode.NewCMAC(newAES(t, make([]byte, 16)))
	out, message := new([16]byte), make([]byte, 40)
	if n := testing.AllocsPerRun(100, func() { c.Sum(out, message[:3], message) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestWrapVectors(t *testing.T) {
	for _, v := range simtest.Vectors(t, "aes_key_wrap") {
		t.Run(v.Name, func(t *testing.T) {
			kek, plain, want := newAES(t, v.In(t, "KEK")), v.In(t, "Plain"), v.Out(t, "Wrapped")
			wrapped, err := aesmode.Wrap(nil, kek, plain)
			if err != nil || !bytes.Equal(wrapped, want) {
				t.Fatalf("Wrap: got %x, %v, want %x", wrapped, err, want)
			}
			key, err := aesmode.Unwrap(nil, kek, wrapped)
			if err != nil || !bytes.Equal(key, plain) {
				t.Fatalf("Unwrap: %v, or another key", err)
			}
		})
	}
	for _, v := range simtest.Vectors(t, "aes_key_unwrap") {
		t.Run(v.Name, func(t *testing.T) {
			key, err := aesmode.Unwrap(nil, newAES(t, v.In(t, "KEK")), v.In(t, "Wrapped"))
			if !errors.Is(err, aesmode.ErrUnwrap) || key != nil {
				t.Fatalf("got %d bytes and %v, want none and ErrUnwrap", len(key), err)
			}
		})
	}
}

func TestWrapRefusesLengths(t *testing.T) {
	kek := newAES(t, make([]byte, 16))
	for _, n := range []int{0, 8, 15, 17, 20} {
		if _, err := aesmode.Wrap(nil, kek, make([]byte, n)); !errors.Is(err, aesmode.ErrWrapLength) {
			t.Errorf("Wrap of %d bytes: got %v, want ErrWrapLength", n, err)
		}
	}
	for _, n := range []int{0, 8, 16, 23, 25} {
		if _, err := aesmode.Unwrap(nil, kek, make([]byte, n)); !errors.Is(err, aesmode.ErrWrapLength) {
			t.Errorf("Unwrap of %d bytes: got %v, want ErrWrapLength", n, err)
		}
	}
}

// What was wrapped unwraps, behind what dst held; one flipped bit does not.
func TestWrapRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kekBytes := make([]byte, rapid.SampledFrom([]int{16, 24, 32}).Draw(t, "KEK size"))
		key := make([]byte, 8*rapid.IntRange(2, 5).Draw(t, "blocks"))
		rand.Read(kekBytes)
		rand.Read(key)
		kek, err := aes.NewCipher(kekBytes)
		if err != nil {
			t.Fatal(err)
		}
		wrapped, err := aesmode.Wrap([]byte("head"), kek, key)
		if err != nil || !bytes.HasPrefix(wrapped, []byte("head")) || len(wrapped) != 4+len(key)+aesmode.WrapOverhead {
			t.Fatalf("Wrap: %d bytes, %v", len(wrapped), err)
		}
		wrapped = wrapped[4:]
		got, err := aesmode.Unwrap([]byte("head"), kek, wrapped)
		if err != nil || !bytes.Equal(got[4:], key) {
			t.Fatalf("Unwrap: %v, or another key", err)
		}
		bit := rapid.IntRange(0, 8*len(wrapped)-1).Draw(t, "bit")
		wrapped[bit/8] ^= 1 << (bit % 8)
		if _, err := aesmode.Unwrap(nil, kek, wrapped); !errors.Is(err, aesmode.ErrUnwrap) {
			t.Fatalf("Unwrap of a damaged one: got %v, want ErrUnwrap", err)
		}
	})
}
