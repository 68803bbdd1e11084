package lwcrypto

import (
	"bytes"
	"testing"

	"joinery/lorawan"
)

func TestRekeyVectors(t *testing.T) {
	seen := 0
	for _, v := range vectorsOf(t, "rekey.json") {
		in, out := operands{t, v.Inputs}, operands{t, v.Expected}
		r := lorawan.Rekey{JoinEUI: in.eui("NewJoinEUI"), Cookie: lorawan.Cookie(in.bytes("Cookie"))}
		switch v.Op {
		case "encode_rekey":
			if got := r.CFList().Append(nil); !bytes.Equal(got, out.bytes("CFList_wire")) {
				t.Errorf("%s: %x", v.Name, got)
			}
		case "derive_rekey_s":
			if b := RekeyNwkKey(r); !bytes.Equal(b[:], out.bytes("Block21")) {
				t.Errorf("%s: block 21: %x", v.Name, b)
			}
			key := in.key("RK")
			for name, b := range map[string]Block{"NwkKey": RekeyNwkKey(r), "AppKey": RekeyAppKey(r), "NewRK": RekeyNextKey(r)} {
				if err := key.EncryptBlock(&b); err != nil || !bytes.Equal(b[:], out.bytes(name)) {
					t.Errorf("%s: %s: %x, %v", v.Name, name, b, err)
				}
			}
		case "derive_rekey_m":
			key, serial := [SlotKeyLen]byte(in.bytes("K13")), [SerialLen]byte(in.bytes("SN"))
			temp := TempKey(r, in.eui("DevEUI"))
			if !bytes.Equal(temp[:], out.bytes("TempKey")) {
				t.Errorf("%s: TempKey %x", v.Name, temp)
			}
			var roots [2 * BlockLen]byte
			DeriveKey(&roots, &key, &serial, &temp)
			if !bytes.Equal(roots[:BlockLen], out.bytes("AppKey")) || !bytes.Equal(roots[BlockLen:], out.bytes("NwkKey")) {
				t.Errorf("%s: roots %x", v.Name, roots)
			}
			if mac := AuthMAC(&key, &serial); !bytes.Equal(mac[:], out.bytes("AuthMAC")) {
				t.Errorf("%s: authorising MAC %x", v.Name, mac)
			}
		default:
			t.Errorf("%s: no such operation: %s", v.Name, v.Op)
		}
		seen++
	}
	if seen != 3 {
		t.Errorf("%d vectors, want 3", seen)
	}
}
