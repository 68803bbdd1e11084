package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/mac/subtle"

	"joinery/lorawan"
)

// The MAC's input of each kind of item, written out.
func TestItemEncoding(t *testing.T) {
	joinEUI, devEUI := lorawan.EUI64{1, 2, 3, 4, 5, 6, 7, 8}, lorawan.EUI64{9, 8, 7, 6, 5, 4, 3, 2}
	euis := "00000008" + "0102030405060708" + "00000008" + "0908070605040302"
	text := func(s string) string {
		return "000000" + hex.EncodeToString([]byte{byte(len(s))}) + hex.EncodeToString([]byte(s))
	}
	for name, c := range map[string]struct {
		item Item
		want string
	}{
		"root": {
			SealedRow{
				Line: 9, JoinEUI: joinEUI, DevEUI: devEUI, MACVersion: lorawan.MAC1_0_3, Root10: "AppKey", AppKey: []byte{0xAA, 0xBB},
				UsedDevNonces: []lorawan.DevNonce{1, 0x203}, JoinNonceFloor: 0x040506, MAC: []byte{1},
			}.Item(),
			text("joinery-seal/1 root") + euis + text("1.0.3") + text("AppKey") + "0000000400010203" + "0000000400040506" + "00000000" + "00000002aabb",
		},
		"kek":     {SealedKEK{"ns", "label", []byte{0xAA}, nil}.Item(), text("joinery-seal/1 kek") + text("ns") + text("label") + "00000001aa"},
		"master":  {MasterItem("m", "ecb-v1", []byte{0xAA}), text("joinery-seal/1 master") + text("m") + text("ecb-v1") + "00000001aa"},
		"element": {ElementItem("id", joinEUI, devEUI, [][]byte{{1, 2}, {3}}, []byte{0xAA}, nil, []byte{0xBB}, nil), text("joinery-seal/1 silicon") + text("id") + euis + "00000003010203" + "00000001aa" + "00000000" + "00000001bb" + "00000000"},
		"boot element": {
			BootElementItem("id", joinEUI, devEUI, [][]byte{{1, 2}, {3}}, []byte{4}, []byte{0xAA}, nil, []byte{0xBB}, nil, []byte{0xCC}, []byte{0xDD}),
			text("joinery-seal/1 silicon with secure boot") + text("id") + euis + "00000003010203" + "0000000104" + "00000001aa" + "00000000" + "00000001bb" + "00000000" + "00000001cc" + "00000001dd",
		},
	} {
		if got := hex.EncodeToString(c.item.encoded); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// Moving bytes between fields makes another item.
func TestItemsNeverEncodeAlike(t *testing.T) {
	var seen [][]byte
	for _, i := range []Item{
		SealedKEK{"n", "sx", []byte{1}, nil}.Item(), SealedKEK{"ns", "x", []byte{1}, nil}.Item(), SealedKEK{"", "nsx", []byte{1}, nil}.Item(),
		MasterItem("n", "sx", []byte{1}), SealedKEK{"ns", "x", nil, nil}.Item(),
		SealedRow{NwkKey: []byte{1}}.Item(), SealedRow{AppKey: []byte{1}}.Item(), SealedRow{}.Item(),
		ElementItem("", lorawan.EUI64{}, lorawan.EUI64{}, nil, []byte{1}, nil, nil, nil), ElementItem("", lorawan.EUI64{}, lorawan.EUI64{}, nil, nil, []byte{1}, nil, nil),
		ElementItem("", lorawan.EUI64{}, lorawan.EUI64{}, nil, nil, nil, []byte{1}, nil), ElementItem("", lorawan.EUI64{}, lorawan.EUI64{}, nil, nil, nil, nil, []byte{1}),
		ElementItem("", lorawan.EUI64{}, lorawan.EUI64{}, [][]byte{{1}}, nil, nil, nil, nil),
		BootElementItem("", lorawan.EUI64{}, lorawan.EUI64{}, nil, []byte{1}, nil, nil, nil, nil, nil, nil),
		BootElementItem("", lorawan.EUI64{}, lorawan.EUI64{}, nil, nil, nil, nil, nil, nil, []byte{1}, nil),
		BootElementItem("", lorawan.EUI64{}, lorawan.EUI64{}, nil, nil, nil, nil, nil, nil, nil, []byte{1}),
	} {
		if slices.ContainsFunc(seen, func(s []byte) bool { return bytes.HasPrefix(s, i.encoded) || bytes.HasPrefix(i.encoded, s) }) {
			t.Errorf("two items encode alike: %x", i.encoded)
		}
		seen = append(seen, i.encoded)
	}
}

// The MAC by another implementation of CMAC, from the file key: its key is the
// AES-256-ECB encryption of two constant blocks.
func TestOthersMakeTheSameMAC(t *testing.T) {
	h, kek, err := SealKEK(publicKey(t, recipient()), "as", strings.Repeat("l", 64), randomBytes(24))
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
	macKey := []byte("joinery-seal/1 key of item MACs.")
	block.Encrypt(macKey[:16], macKey[:16])
	block.Encrypt(macKey[16:], macKey[16:])
	c, err := subtle.NewAESCMAC(macKey, MACLen)
	if err != nil {
		t.Fatal(err)
	}
	want, err := c.ComputeMAC(kek.Item().encoded)
	if err != nil || !bytes.Equal(kek.MAC, want) {
		t.Errorf("another MAC than tink's (%v)", err)
	}
}
