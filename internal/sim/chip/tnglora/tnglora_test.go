package tnglora

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"
	"time"

	"joinery/internal/sim/chip"
	"joinery/lorawan"
)

const head = "JoinEUI,DevEUI,MACVersion,NwkKey,AppKey,Serial\n"

func TestReadKeyList(t *testing.T) {
	list, err := ReadKeyList(strings.NewReader(head +
		"70B3D57ED0000000,0004A310001FF9DA,1.1,2B7E151628AED2A6ABF7158809CF4F3C,000102030405060708090A0B0C0D0E0F,01238ebe20080bd527\n" +
		"70b3d57ed0000000,0004a310001ff9db,1.0.4,,000102030405060708090A0B0C0D0E0F,\n"))
	if err != nil || len(list) != 2 {
		t.Fatalf("got %d, %v", len(list), err)
	}
	if s := hex.EncodeToString(list[0].Serial[:]); s != "01238ebe20080bd527" {
		t.Errorf("serial %s", s)
	}
	if s := hex.EncodeToString(list[1].Serial[:]); s != "4a0004a310001ff9db" || list[1].NwkKey != nil || list[1].DeviceKey == nil {
		t.Errorf("serial %s", s)
	}
	const key = "000102030405060708090A0B0C0D0E0F"
	for text, want := range map[string]string{
		"": "head", "JoinEUI,NwkKey\n": "DevEUI is missing", head + "x": "line 2",
		head + "zz,0004A310001FF9DA,,," + key + ",\n":                 "line 2: JoinEUI",
		head + "70B3D57ED0000000,zz,,," + key + ",\n":                 "line 2: DevEUI",
		head + "70B3D57ED0000000,0004A310001FF9DA,,,,\n":              "want one at least",
		head + "70B3D57ED0000000,0004A310001FF9DA,,,00010203,\n":      "AppKey: want 32",
		head + "70B3D57ED0000000,0004A310001FF9DA,,," + key + ",12\n": "want 18",
	} {
		if _, err := ReadKeyList(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "0001020") {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func FuzzReadKeyList(f *testing.F) {
	f.Add(head + "70B3D57ED0000000,0004A310001FF9DA,1.1,2B7E151628AED2A6ABF7158809CF4F3C,000102030405060708090A0B0C0D0E0F,01238ebe20080bd527\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ReadKeyList(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, c := range list {
			m, err := Image(c)
			if err != nil {
				continue // a device key of zeros, such
			}
			d := NewDriver(chip.New(m, chip.Options{}))
			if got, err := d.DevEUI(); err != nil || got != c.DevEUI {
				t.Fatalf("DevEUI %v, %v", got, err)
			}
		}
	})
}

// certificate makes one, signed by a key.
func certificate(t *testing.T, template, parent *x509.Certificate, public *ecdsa.PublicKey, by *ecdsa.PrivateKey) (*x509.Certificate, []byte) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, der
}

// Slot 8 begins with the signer's key, and what there is of two certificates.
func TestCertificates(t *testing.T) {
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	root, signer, device := key(), key(), key()
	from := time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "signer"}, NotBefore: from, NotAfter: from.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, SubjectKeyId: []byte{0xAB, 0xCD, 1, 2},
	}
	signerCert, signerDER := certificate(t, ca, ca, &signer.PublicKey, root)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "element"}, NotBefore: from, NotAfter: from.AddDate(100, 0, 0)}
	_, deviceDER := certificate(t, leaf, signerCert, &device.PublicKey, signer)

	m, err := Image(Content{
		JoinEUI: lorawan.EUI64{1}, DevEUI: lorawan.EUI64{2}, AppKey: make([]byte, 16),
		DeviceKey: device.D.FillBytes(make([]byte, 32)), Chain: [][]byte{deviceDER, signerDER}, //nolint:staticcheck // the scalar, as a factory has it
	})
	if err != nil {
		t.Fatal(err)
	}
	d := NewDriver(chip.New(m, chip.Options{}))
	var slot []byte
	for block := range uint16(7) {
		b, err := d.do(chip.OpRead, readBlock, block<<8|SlotCerts<<3)
		if err != nil {
			t.Fatal(err)
		}
		slot = append(slot, b...)
	}
	point, err := signer.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(slot[4:36], point[1:33]) || !bytes.Equal(slot[40:72], point[33:]) {
		t.Error("the signer's key is not there")
	}
	if got := hex.EncodeToString(slot[72+64 : 72+69]); got != "d5dce0abcd" {
		t.Errorf("dates and signer of the device's certificate: %s", got)
	}
	if got := hex.EncodeToString(slot[144+64 : 144+69]); got != "d5dceaabcd" {
		t.Errorf("dates and signer of the signer's certificate: %s", got)
	}
	if public, err := d.PublicKey(); err != nil || len(public) != 64 {
		t.Errorf("the device key: %v", err)
	}
	if _, err := Image(Content{AppKey: make([]byte, 16), Chain: [][]byte{deviceDER}}); err == nil {
		t.Error("a chain without a signer was taken")
	}
}
