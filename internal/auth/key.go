package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"hash/crc32"
	"strings"

	"joinery"
)

// The text of an API key, all in Crockford's base32 alphabet in lower case:
//
//	jk_ ‖ id, 13 characters ‖ _ ‖ secret, 52 characters ‖ checksum, 6 characters
//
// The id is that of the key's record. The secret is 32 random bytes. The
// checksum is the low 30 bits of the CRC-32 (IEEE) of all characters before it:
// it tells a mistyped or cut key from a wrong one without asking the store, and
// a secret scanner that it found a key. It protects nothing.
const (
	textPrefix  = "jk_"
	idPrefix    = "key_"
	idLen       = 13
	secretBytes = 32
	secretLen   = 52
	sumLen      = 6
	textLen     = len(textPrefix) + idLen + 1 + secretLen + sumLen
	alphabet    = "0123456789abcdefghjkmnpqrstvwxyz"
)

var base32Text = base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)

// credential is an API key as its holder has it.
type credential struct {
	id     joinery.APIKeyID
	secret [secretBytes]byte
}

func newCredential(id joinery.APIKeyID) credential {
	c := credential{id: id}
	rand.Read(c.secret[:]) // never fails (crypto/rand)
	return c
}

// text gives the form in which people and programs hold the key.
func (c credential) text() string {
	s := textPrefix + strings.TrimPrefix(c.id.String(), idPrefix) + "_" + base32Text.EncodeToString(c.secret[:])
	return s + checksum(s)
}

// hash gives what is stored of the secret.
func (c credential) hash() [sha256.Size]byte { return sha256.Sum256(c.secret[:]) }

// String keeps a credential out of logs.
func (c credential) String() string { return "credential of " + c.id.String() }

// GoString is String, for %#v.
func (c credential) GoString() string { return c.String() }

// parseCredential reads the text of an API key. It tells a text that is no key
// from one that may be; whether it is valid only the store knows.
func parseCredential(s string) (credential, bool) {
	if len(s) != textLen || !strings.HasPrefix(s, textPrefix) || s[len(textPrefix)+idLen] != '_' {
		return credential{}, false
	}
	body, sum := s[:textLen-sumLen], s[textLen-sumLen:]
	if checksum(body) != sum {
		return credential{}, false
	}
	idText := body[len(textPrefix) : len(textPrefix)+idLen]
	id, err := parseID(idText)
	if err != nil {
		return credential{}, false
	}
	c := credential{id: id}
	secret, err := base32Text.DecodeString(body[len(textPrefix)+idLen+1:])
	if err != nil || len(secret) != secretBytes {
		return credential{}, false
	}
	copy(c.secret[:], secret)
	// The last character has bits to spare; only one text is the key's.
	return c, c.text() == s
}

func parseID(text string) (id joinery.APIKeyID, err error) {
	err = id.UnmarshalText([]byte(idPrefix + text))
	return id, err
}

// checksum gives the low 30 bits of the CRC-32 of s in 6 characters.
func checksum(s string) string {
	sum := crc32.ChecksumIEEE([]byte(s))
	var out [sumLen]byte
	for i := range out {
		out[i] = alphabet[sum>>(5*(sumLen-1-i))&31]
	}
	return string(out[:])
}
