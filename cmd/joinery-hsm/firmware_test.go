package main

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"joinery/internal/firmware"
	"joinery/internal/keyring/hsm/hsmtest"
)

// TestFirmware: a key is made once, signs what SecureBoot verifies, and needs no keys
// of a Join Server beside it.
func TestFirmware(t *testing.T) {
	opt := hsmtest.SoftHSM(t)
	pin := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(pin, []byte(hsmtest.PIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := firmware.TokenKey{Module: opt.Module, Token: opt.Token, PINFile: pin, Name: "meter-3"}
	if _, err := doFirmware(firmware.TokenJob{Key: key}); err == nil || !strings.Contains(err.Error(), "joinery.firmware.meter-3") {
		t.Errorf("before it is made: %v", err)
	}
	made, err := doFirmware(firmware.TokenJob{Key: key, Make: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := doFirmware(firmware.TokenJob{Key: key, Make: true}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("made twice: %v", err)
	}
	digest := sha256.Sum256([]byte("image"))
	answer, err := doFirmware(firmware.TokenJob{Key: key, Digests: [][]byte{digest[:], digest[:]}})
	if err != nil || len(answer.Signatures) != 2 || answer.PublicKey != made.PublicKey {
		t.Fatalf("%+v, %v", answer, err)
	}
	block, _ := pem.Decode([]byte(made.PublicKey))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range answer.Signatures {
		if !firmware.VerifyRS(public.(*ecdsa.PublicKey), digest, [64]byte(s)) {
			t.Error("the signature does not verify")
		}
	}
	for name, job := range map[string]firmware.TokenJob{
		"a short digest": {Key: key, Digests: [][]byte{{1}}}, "no key": {}, "another PIN": {Key: func() firmware.TokenKey { k := key; k.PINFile = os.DevNull; return k }()},
	} {
		if _, err := doFirmware(job); err == nil || strings.Contains(err.Error(), hsmtest.PIN) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
