package bootloader

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"

	"joinery/internal/evidence"
)

// Token is evidence of level L3: what a root of trust in the microcontroller measured as
// the device booted, as an entity attestation token (RFC 9711) with the claims of the PSA
// profile (RFC 9783) that say what runs. It is written out here byte by byte, so that
// server and simulator check each other.
type Token struct {
	About   evidence.About
	Digest  [sha256.Size]byte // of the image that was started
	Version string
}

// Claims that are the same in every token of a device that is in its owner's hands.
const (
	lifecycleSecured  = 0x3000 // RFC 9783 §4.3.1
	debugSinceBoot    = 2      // RFC 9711 §4.2.9: disabled since boot
	debugSinceBootStr = "disabled-since-boot"
	application       = "ARoT"
	ueidEUI           = 0x02
)

func (t Token) ueid() []byte { return append([]byte{ueidEUI}, t.About.DevEUI[:]...) }

// sign signs with the root of trust: ES256, r ‖ s.
func sign(key *ecdsa.PrivateKey, message []byte) ([]byte, error) {
	digest := sha256.Sum256(message)
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		return nil, err
	}
	out := make([]byte, 64)
	r.FillBytes(out[:32])
	s.FillBytes(out[32:])
	return out, nil
}

// JWT gives the token as a JWS in compact form, signed by the device's root of trust.
func (b *Bench) JWT(t Token) ([]byte, error) {
	key, err := b.trust()
	if err != nil {
		return nil, err
	}
	bytes := base64.RawURLEncoding.EncodeToString
	claims, err := json.Marshal(map[string]any{
		"eat_nonce": bytes(t.About.Challenge[:]), "ueid": bytes(t.ueid()), "dbgstat": debugSinceBootStr, "psa-security-lifecycle": lifecycleSecured,
		"psa-software-components": []map[string]string{{"measurement-type": application, "measurement-value": bytes(t.Digest[:]), "version": t.Version}},
	})
	if err != nil {
		return nil, err
	}
	text := bytes([]byte(`{"alg":"ES256"}`)) + "." + bytes(claims)
	signature, err := sign(key, []byte(text))
	return []byte(text + "." + bytes(signature)), err
}

// Major types of CBOR (RFC 8949 §3.1).
const (
	cborUint  = 0 << 5
	cborBytes = 2 << 5
	cborText  = 3 << 5
	cborArray = 4 << 5
	cborMap   = 5 << 5
	cborTag   = 6 << 5
)

// head appends the head of an item: its type and a number, in the shortest form.
func head(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	default: // nothing here is longer than 65,535
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	}
}

func byteString(b, s []byte) []byte { return append(head(b, cborBytes, uint64(len(s))), s...) }
func textString(b []byte, s string) []byte {
	return append(head(b, cborText, uint64(len(s))), s...)
}

// COSE gives the token as COSE_Sign1 (RFC 9052), tagged, signed by the device's root of
// trust.
func (b *Bench) COSE(t Token) ([]byte, error) {
	key, err := b.trust()
	if err != nil {
		return nil, err
	}
	claims := head(nil, cborMap, 5)
	claims = byteString(head(claims, cborUint, 10), t.About.Challenge[:])
	claims = byteString(head(claims, cborUint, 256), t.ueid())
	claims = head(head(claims, cborUint, 263), cborUint, debugSinceBoot)
	claims = head(head(claims, cborUint, 2395), cborUint, lifecycleSecured)
	claims = head(head(head(claims, cborUint, 2399), cborArray, 1), cborMap, 3)
	claims = textString(head(claims, cborUint, 1), application)
	claims = byteString(head(claims, cborUint, 2), t.Digest[:])
	claims = textString(head(claims, cborUint, 4), t.Version)

	protected := []byte{cborMap | 1, 0x01, 0x26} // {1: -7}: ES256
	message := textString(head(nil, cborArray, 4), "Signature1")
	message = byteString(byteString(byteString(message, protected), nil), claims)
	signature, err := sign(key, message)
	if err != nil {
		return nil, err
	}
	out := byteString(head(head(nil, cborTag, 18), cborArray, 4), protected)
	out = byteString(head(out, cborMap, 0), claims)
	return byteString(out, signature), nil
}
