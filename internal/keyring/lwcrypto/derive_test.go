package lwcrypto

import (
	"encoding/hex"
	"testing"

	"joinery/lorawan"
)

// The layout of ecb-v1, written out by hand.
func TestRootKeyBlock(t *testing.T) {
	devEUI, err := lorawan.ParseEUI64("0004A310001AA90A")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		purpose    Purpose
		generation uint32
		want       string
	}{
		{PurposeAppKey, 0, "010100000000" + "0000" + "0004a310001aa90a"},
		{PurposeNwkKey, 0x01020304, "020101020304" + "0000" + "0004a310001aa90a"},
	} {
		if got := RootKey(c.purpose, c.generation, devEUI); hex.EncodeToString(got[:]) != c.want {
			t.Errorf("%x, want %s", got, c.want)
		}
	}
}

func TestEqualMIC(t *testing.T) {
	a := lorawan.MIC{1, 2, 3, 4}
	for i := range a {
		b := a
		b[i] ^= 0x80
		if EqualMIC(a, b) {
			t.Errorf("a difference in byte %d is not seen", i)
		}
	}
	if !EqualMIC(a, a) {
		t.Error("a MIC differs from itself")
	}
}
