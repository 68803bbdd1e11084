// Package evidence has what devices show of themselves: the messages that elements
// sign, their compact form, which fits into a few uplinks, its fragments, and the
// file in which evidence comes from the bench. docs/attestation.md says what each
// proves, for other implementations.
package evidence

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"joinery/lorawan"
)

// Domains stand in front of what elements sign, so that a signature means nothing
// anywhere else.
const (
	possessionDomain = "joinery attestation possession 1\x00"
	bootDomain       = "joinery attestation boot 2\x00"
)

// Lengths, in bytes.
const (
	ChallengeLen = 32
	TagLen       = 4 // the beginning of a challenge, which stands for it in compact evidence
	SerialLen    = 9
	RandomLen    = 32 // what an element of the ATECC608 family draws for a nonce
	NumInLen     = 20 // what it is given for one
	SignatureLen = 64 // r ‖ s of ECDSA over P-256, 32 bytes each, big-endian

	// MaxLen bounds evidence of whatever form.
	MaxLen = 8 << 10
)

// The first byte of compact evidence.
const (
	formPossession = 0x11
	formBootFixed  = 0x12 // once of L2, over a fixed nonce; taken no more
	formBoot       = 0x13
)

const (
	possessionLen = 1 + TagLen + sha256.Size + 4 + SignatureLen
	bootLen       = 1 + TagLen + RandomLen + sha256.Size + 4 + SerialLen + 3 + 4*2 + configLen + SignatureLen

	configLen = 32 // a block of the configuration zone
)

// ErrForm says that bytes are no evidence of the form that they should have.
var ErrForm = errors.New("not compact evidence of this kind")

// About is which device evidence is about, and what it answers.
type About struct {
	Challenge [ChallengeLen]byte
	JoinEUI   lorawan.EUI64
	DevEUI    lorawan.EUI64
}

// Tag stands for the challenge in compact evidence.
func (a About) Tag() [TagLen]byte { return [TagLen]byte(a.Challenge[:TagLen]) }

func (a About) message(domain string) []byte {
	b := append(make([]byte, 0, 160), domain...)
	b = append(b, a.Challenge[:]...)
	b = append(b, a.JoinEUI[:]...)
	return append(b, a.DevEUI[:]...)
}

// Possession is evidence of level L1: the device key of the element signed. Digest
// and Counter are what the software says that it is.
//
// Its form is 11 ‖ tag 4 ‖ digest 32 ‖ counter 4, big-endian ‖ signature 64: 105
// bytes.
type Possession struct {
	Tag       [TagLen]byte
	Digest    [sha256.Size]byte
	Counter   uint32
	Signature [SignatureLen]byte
}

// SigningDigest is what the element signs as an external message: SHA-256 over
// domain ‖ challenge 32 ‖ JoinEUI 8 ‖ DevEUI 8 ‖ digest 32 ‖ counter 4, big-endian.
func (p Possession) SigningDigest(a About) [sha256.Size]byte {
	b := append(a.message(possessionDomain), p.Digest[:]...)
	return sha256.Sum256(binary.BigEndian.AppendUint32(b, p.Counter))
}

// Bytes gives the compact form.
func (p Possession) Bytes() []byte {
	b := append(make([]byte, 0, possessionLen), formPossession)
	b = append(append(b, p.Tag[:]...), p.Digest[:]...)
	b = binary.BigEndian.AppendUint32(b, p.Counter)
	return append(b, p.Signature[:]...)
}

// ParsePossession reads the compact form. ErrForm.
func ParsePossession(b []byte) (p Possession, err error) {
	if len(b) != possessionLen || b[0] != formPossession {
		return p, fmt.Errorf("%w: want %d bytes that begin with %x", ErrForm, possessionLen, formPossession)
	}
	b = b[1:]
	b = b[copy(p.Tag[:], b):]
	b = b[copy(p.Digest[:], b):]
	p.Counter = binary.BigEndian.Uint32(b)
	copy(p.Signature[:], b[4:])
	return p, nil
}

// IsBoot tells whether bytes begin as compact evidence of level L2 does, or did:
// ParseBoot says why the old form is not taken.
func IsBoot(b []byte) bool { return len(b) > 0 && (b[0] == formBoot || b[0] == formBootFixed) }

// IsPossession tells the same of level L1.
func IsPossession(b []byte) bool { return len(b) > 0 && b[0] == formPossession }
