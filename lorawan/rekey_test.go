package lorawan_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	"joinery/lorawan"
)

func TestRekeyCFList(t *testing.T) {
	r := lorawan.Rekey{
		JoinEUI: lorawan.EUI64{0xEC, 0x65, 0x6E, 0xFF, 0xFE, 0, 0, 1},
		Cookie:  lorawan.Cookie{0xA1, 0xB2, 0xC3, 0xD4, 0xE5, 0xF6, 0x07},
	}
	wire := r.CFList().Append(nil)
	if got := hex.EncodeToString(wire); got != "010000feff6e65eca1b2c3d4e5f607f1" {
		t.Errorf("got %s", got)
	}
	list, err := lorawan.ParseCFList(wire)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := list.Rekey(); !ok || got != r {
		t.Errorf("got %v, %v", got, ok)
	}
	for name, wire := range map[string][]byte{"none": nil, "channels": bytes.Repeat([]byte{0}, 16), "mask": append(make([]byte, 15), 1)} {
		list, err := lorawan.ParseCFList(wire)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := list.Rekey(); ok || list.IsRekey() {
			t.Errorf("%s is taken for an instruction", name)
		}
	}
}

func TestCookieText(t *testing.T) {
	var c lorawan.Cookie
	if err := c.UnmarshalText([]byte("a1B2c3d4e5f607")); err != nil || c.String() != "A1B2C3D4E5F607" {
		t.Errorf("got %v, %v", c, err)
	}
	for _, bad := range []string{"", "a1b2c3d4e5f6", "a1b2c3d4e5f60708", "g1b2c3d4e5f607"} {
		if err := c.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
