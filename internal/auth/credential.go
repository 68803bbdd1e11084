package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"hash/crc32"
	"strings"
)

// The text of a credential, behind its prefix all in Crockford's base32 alphabet
// in lower case:
//
//	joinery_ ‖ kind ‖ _ ‖ id, 13 characters ‖ _ ‖ secret, 52 characters ‖ checksum, 6 characters
//
// The id is that of the credential's record. The secret is 32 random bytes. The
// checksum is the low 30 bits of the CRC-32 (IEEE) of all characters before it:
// it tells a mistyped or cut text from a wrong one without asking the store, and
// a secret scanner that it found a credential. It protects nothing. Scanners
// find all kinds by
//
//	joinery_[a-z]+_[0-9a-hjkmnp-tv-z]{13}_[0-9a-hjkmnp-tv-z]{58}
type credentialKind string

const (
	keyText        credentialKind = "joinery_key_"        // an API key
	sessionText    credentialKind = "joinery_session_"    // somebody who signed in
	invitationText credentialKind = "joinery_invitation_" // leave to join an organisation
	programText    credentialKind = "joinery_login_"      // a program that waits for its person
)

const (
	idLen       = 13
	secretBytes = 32
	secretLen   = 52
	sumLen      = 6
	restLen     = idLen + 1 + secretLen + sumLen
	alphabet    = "0123456789abcdefghjkmnpqrstvwxyz"
)

var base32Text = base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)

// credential is a secret as its holder has it.
type credential struct {
	kind   credentialKind
	id     int64 // of its record; positive
	secret [secretBytes]byte
}

func newCredential(kind credentialKind, id int64) credential {
	c := credential{kind: kind, id: id}
	rand.Read(c.secret[:]) // never fails (crypto/rand)
	return c
}

// text gives the form in which people and programs hold it.
func (c credential) text() string {
	s := string(c.kind) + idText(c.id) + "_" + base32Text.EncodeToString(c.secret[:])
	return s + checksum(s)
}

func idText(id int64) string {
	return base32Text.EncodeToString(binary.BigEndian.AppendUint64(nil, uint64(id)))
}

// hash gives what is stored of the secret.
func (c credential) hash() [sha256.Size]byte { return sha256.Sum256(c.secret[:]) }

// matches compares with what is stored, in constant time.
func (c credential) matches(stored [sha256.Size]byte) bool {
	presented := c.hash()
	return subtle.ConstantTimeCompare(presented[:], stored[:]) == 1
}

// String keeps a credential out of logs.
func (c credential) String() string { return "credential " + string(c.kind) + idText(c.id) }

// GoString is String, for %#v.
func (c credential) GoString() string { return c.String() }

// parseCredential reads a text of one kind. It tells a text that is none from one
// that may be; whether it is valid only the store knows.
func parseCredential(kind credentialKind, s string) (credential, bool) {
	rest, ok := strings.CutPrefix(s, string(kind))
	if !ok || len(rest) != restLen || rest[idLen] != '_' {
		return credential{}, false
	}
	body, sum := s[:len(s)-sumLen], s[len(s)-sumLen:]
	if checksum(body) != sum {
		return credential{}, false
	}
	id, err := base32Text.DecodeString(rest[:idLen])
	if err != nil || len(id) != 8 {
		return credential{}, false
	}
	secret, err := base32Text.DecodeString(rest[idLen+1 : idLen+1+secretLen])
	if err != nil || len(secret) != secretBytes {
		return credential{}, false
	}
	c := credential{kind: kind, id: int64(binary.BigEndian.Uint64(id)), secret: [secretBytes]byte(secret)}
	// Last characters have bits to spare; only one text is the credential's.
	return c, c.id > 0 && c.text() == s
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
