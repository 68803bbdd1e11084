// Package tnglora is the ATECC608-TNGLORA as LoRaWAN devices have it: what a factory
// puts into its slots, and a driver that does what a device's firmware does, by chip
// commands alone.
//
//	slot  0  root keys: AppKey in the first 16 bytes, NwkKey in the others
//	      1  the device key, P-256
//	      2  AppSKey; 3 NwkSEncKey, 4 SNwkSIntKey, 5 FNwkSIntKey
//	      6  JSIntKey, 7 JSEncKey
//	      8  the device key's certificates, compressed
//	      9  JoinEUI, 8 bytes, and zeros
//	     10  DevEUI, as 16 upper-case hexadecimal digits, and zeros
//	     13  the key under which root keys are derived anew, and its own successor
//	         is written
//	     14  the key that protects what goes over the bus
package tnglora

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"joinery/internal/sim/chip"
	"joinery/lorawan"
)

// The slots.
const (
	SlotRoots       = 0
	SlotDeviceKey   = 1
	SlotAppSKey     = 2
	SlotNwkSEncKey  = 3
	SlotSNwkSIntKey = 4
	SlotFNwkSIntKey = 5
	SlotJSIntKey    = 6
	SlotJSEncKey    = 7
	SlotCerts       = 8
	SlotJoinEUI     = 9
	SlotDevEUI      = 10
	SlotRekey       = 13
	SlotIO          = 14
)

// The places of the root keys in their slot. LoRaWAN 1.0.x works with NwkKey.
const (
	PlaceAppKey = 0
	PlaceNwkKey = 1
)

// Content is what is put into one chip. Lengths are in bytes. The key of slot 14 is
// drawn.
type Content struct {
	Serial  [chip.SerialSize]byte
	JoinEUI lorawan.EUI64
	DevEUI  lorawan.EUI64
	// NwkKey and AppKey have 16. An element of a device with AppKey alone has it where
	// drivers look for the root of 1.0.x, in place of NwkKey.
	NwkKey, AppKey []byte
	DeviceKey      []byte // 32, big-endian; nil: none
	RekeyKey       []byte // 32; nil: drawn, so that nobody knows it
	// Chain is the device key's certificates, DER, its own first, then its issuer's.
	Chain [][]byte
}

// Image makes the image of a chip with this content. The caller keeps, and should
// wipe, the keys.
func Image(c Content) (*chip.Image, error) {
	m := chip.TNGLORA(c.Serial)
	roots := bytes.Repeat([]byte{0xFF}, 32)
	defer clear(roots)
	app, nwk := c.AppKey, c.NwkKey
	if nwk == nil {
		app, nwk = nil, c.AppKey
	}
	for place, key := range [2][]byte{PlaceAppKey: app, PlaceNwkKey: nwk} {
		if len(key) != 16 && (key != nil || place == PlaceNwkKey) {
			return nil, fmt.Errorf("element %v: want root keys of 16 bytes", c.DevEUI)
		}
		copy(roots[16*place:], key)
	}
	io := drawn(32)
	defer clear(io)
	errs := []error{
		m.SetSlot(SlotRoots, roots), m.SetSlot(SlotIO, io),
		m.SetSlot(SlotJoinEUI, filled(c.JoinEUI[:])), m.SetSlot(SlotDevEUI, filled([]byte(strings.ToUpper(c.DevEUI.String())))),
	}
	if c.DeviceKey != nil {
		errs = append(errs, m.SetPrivateKey(SlotDeviceKey, c.DeviceKey))
	}
	rekey := c.RekeyKey
	if rekey == nil {
		rekey = drawn(32)
		defer clear(rekey)
	}
	if len(rekey) != 32 {
		return nil, fmt.Errorf("element %v: want a key of 32 bytes for slot %d", c.DevEUI, SlotRekey)
	}
	errs = append(errs, m.SetSlot(SlotRekey, rekey))
	if len(c.Chain) > 0 {
		certs, err := compressed(c.Chain)
		errs = append(errs, err, m.SetSlot(SlotCerts, certs))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("element %v: %w", c.DevEUI, err)
	}
	return m, nil
}

func drawn(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return b
}

// filled gives the 72 bytes of a slot that begins with b.
func filled(b []byte) []byte {
	return append(make([]byte, 0, 72), append(b, make([]byte, 72-len(b))...)...)
}

// compressed gives the first 216 bytes of slot 8: the signer's public key 72 (each half
// behind four zeros), the device's certificate 72, the signer's 72. Of a certificate
// the chip keeps what no template of its maker has: the signature r ‖ s 64, its dates 3,
// two bytes of the signer's key identifier, and zeros.
func compressed(chain [][]byte) ([]byte, error) {
	if len(chain) < 2 {
		return nil, errors.New("the chain lacks the certificate of the signer")
	}
	device, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, errors.New("its certificate is damaged")
	}
	signer, err := x509.ParseCertificate(chain[1])
	if err != nil {
		return nil, errors.New("its signer's certificate is damaged")
	}
	key, ok := signer.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, errors.New("its signer has no key on P-256")
	}
	point, err := key.Bytes() // 04 ‖ X ‖ Y
	if err != nil || len(point) != 65 {
		return nil, errors.New("its signer has no key on P-256")
	}
	out := append(make([]byte, 4, 216), point[1:33]...)
	out = append(append(out, 0, 0, 0, 0), point[33:]...)
	for _, c := range []*x509.Certificate{device, signer} {
		var sig struct{ R, S *big.Int }
		if rest, err := asn1.Unmarshal(c.Signature, &sig); err != nil || len(rest) > 0 || sig.R.BitLen() > 256 || sig.S.BitLen() > 256 {
			return nil, errors.New("a certificate is not signed by a key on P-256")
		}
		part := make([]byte, 72)
		sig.R.FillBytes(part[:32])
		sig.S.FillBytes(part[32:64])
		copy(part[64:], dates(c))
		copy(part[67:69], signer.SubjectKeyId)
		out = append(out, part...)
	}
	return out, nil
}

// dates packs when a certificate begins and for how long it holds: year since 2000 in
// 5 bits, month 4, day 5, hour 5, years that it holds 5, where 0 is no end.
func dates(c *x509.Certificate) []byte {
	from := c.NotBefore.UTC()
	years := c.NotAfter.UTC().Year() - from.Year()
	if years < 0 || years > 31 {
		years = 0
	}
	v := uint32(from.Year()-2000)&31<<19 | uint32(from.Month())<<15 | uint32(from.Day())<<10 | uint32(from.Hour())<<5 | uint32(years)
	return []byte{byte(v >> 16), byte(v >> 8), byte(v)}
}
