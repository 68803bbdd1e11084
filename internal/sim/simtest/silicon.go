package simtest

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"testing"

	"joinery/internal/sim/aesmode"
	"joinery/lorawan"
)

// Element is one element that a test factory provisions.
type Element struct {
	UniqueID string
	JoinEUI  lorawan.EUI64
	DevEUI   lorawan.EUI64
	Roots    Roots
	// DeviceKey is the private half, 32 bytes big-endian; nil: none.
	DeviceKey []byte
	// RekeyKey is what it rekeys with: 16 bytes in profile S, 32 in profile M; nil:
	// nothing.
	RekeyKey []byte
}

// Silicon makes a silicon file, sealed to the public key in a PEM file.
func Silicon(t testing.TB, pubFile string, elements []Element) []byte {
	t.Helper()
	b, err := os.ReadFile(pubFile)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		t.Fatal("no PEM in " + pubFile)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok {
		t.Fatal("not an RSA key in " + pubFile)
	}
	fileKey := make([]byte, 32)
	rand.Read(fileKey)
	sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, fileKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	kid := sha256.Sum256(block.Bytes)
	kek, err := aes.NewCipher(fileKey)
	if err != nil {
		t.Fatal(err)
	}
	wrap := func(key []byte) []byte {
		if key == nil {
			return nil
		}
		wrapped, err := aesmode.Wrap(nil, kek, key)
		if err != nil {
			t.Fatal(err)
		}
		return wrapped
	}
	macKey := []byte("joinery-seal/1 key of item MACs.")
	kek.Encrypt(macKey[:16], macKey[:16])
	kek.Encrypt(macKey[16:], macKey[16:])
	macCipher, err := aes.NewCipher(macKey)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	enc := json.NewEncoder(&file)
	lines := []any{map[string]any{"format": "joinery-silicon/2", "seal": map[string]any{
		"format": "joinery-seal/1", "kid": base64.RawURLEncoding.EncodeToString(kid[:]), "alg": "RSA-OAEP-256", "wrap": "A256KW", "key": sealed,
	}}}
	for _, e := range elements {
		nwkKey, appKey, deviceKey := wrap(e.Roots.NwkKey[:]), wrap(e.Roots.AppKey[:]), wrap(e.DeviceKey)
		message := lengthPrefixed("joinery-seal/1 element", e.UniqueID, string(e.JoinEUI[:]), string(e.DevEUI[:]), string(nwkKey), string(appKey), string(deviceKey))
		line := map[string]any{
			"uniqueId": e.UniqueID, "joinEUI": e.JoinEUI, "devEUI": e.DevEUI, "nwkKey": nwkKey, "appKey": appKey, "deviceKey": deviceKey,
		}
		if rekeyKey := wrap(e.RekeyKey); rekeyKey != nil {
			line["rekeyKey"] = rekeyKey
			message = lengthPrefixed("joinery-seal/1 rekeying element", e.UniqueID, string(e.JoinEUI[:]), string(e.DevEUI[:]),
				string(nwkKey), string(appKey), string(deviceKey), string(rekeyKey))
		}
		var mac [16]byte
		aesmode.NewCMAC(macCipher).Sum(&mac, nil, message)
		line["mac"] = mac[:]
		lines = append(lines, line)
	}
	for _, line := range lines {
		if err := enc.Encode(line); err != nil {
			t.Fatal(err)
		}
	}
	return file.Bytes()
}

// lengthPrefixed puts before each field its length in four bytes, big-endian.
func lengthPrefixed(fields ...string) (message []byte) {
	for _, field := range fields {
		message = append(message, 0, 0, byte(len(field)>>8), byte(len(field)))
		message = append(message, field...)
	}
	return message
}
