package exportfile

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"filippo.io/age"
	"filippo.io/age/armor"

	"joinery/internal/secret"
)

// Unlock is what opens a private key that is protected. The zero Unlock opens none.
type Unlock struct {
	// Passphrase is asked where one is needed; what it gives is cleared. nil: there is
	// none.
	Passphrase func() ([]byte, error)
	// Identities are of age, as age-keygen writes them. They are cleared.
	Identities []byte
}

func (u Unlock) ask() ([]byte, error) {
	if u.Passphrase == nil {
		return nil, fmt.Errorf("%w: it is protected by a passphrase, and none was given", ErrPrivateKey)
	}
	return u.Passphrase()
}

// errPassphrase: which of the two it is nobody can tell.
var errPassphrase = fmt.Errorf("%w: it does not open with this passphrase, or is damaged", ErrPrivateKey)

// Object identifiers of PBES2 (RFC 8018 §A, §B, §C), and of what it is made of.
var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}

	prfs = []struct {
		oid  asn1.ObjectIdentifier
		hash func() hash.Hash
	}{
		{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}, sha1.New}, // the default
		{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}, sha256.New},
		{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 10}, sha512.New384},
		{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 11}, sha512.New},
	}
	ciphers = []struct {
		oid    asn1.ObjectIdentifier
		keyLen int // of AES in CBC mode, in bytes
	}{
		{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}, 16},
		{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 22}, 24},
		{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}, 32},
	}
)

// maxIterations bounds what a file may have us compute: some seconds.
const maxIterations = 20_000_000

// encryptedKey is EncryptedPrivateKeyInfo (RFC 5208 §6).
type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

type pbes2 struct{ KDF, Scheme pkix.AlgorithmIdentifier }

type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyLen     int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

// protection is how a passphrase protects a key: by PBKDF2, and AES in CBC mode.
type protection struct {
	hash       func() hash.Hash
	salt       []byte
	iterations int
	keyLen     int
	iv, data   []byte
}

// readPBES2 reads a PKCS #8 file that a passphrase protects.
func readPBES2(der []byte) (p protection, err error) {
	const wants = "those by PBKDF2 with SHA-1 or SHA-2 and AES-CBC are read, which openssl pkcs8 -topk8 -v2 aes-256-cbc writes"
	other := fmt.Errorf("%w: of encrypted keys %s", ErrPrivateKey, wants)
	var file encryptedKey
	var scheme pbes2
	var kdf pbkdf2Params
	if !unmarshal(der, &file) || !file.Algorithm.Algorithm.Equal(oidPBES2) || !unmarshal(file.Algorithm.Parameters.FullBytes, &scheme) ||
		!scheme.KDF.Algorithm.Equal(oidPBKDF2) || !unmarshal(scheme.KDF.Parameters.FullBytes, &kdf) || !unmarshal(scheme.Scheme.Parameters.FullBytes, &p.iv) {
		return p, other
	}
	p.salt, p.iterations, p.data = kdf.Salt, kdf.Iterations, file.Data
	if !p.known(kdf, scheme.Scheme.Algorithm) {
		return p, other
	}
	return p, nil
}

// known finds what is computed, and tells whether it is within bounds.
func (p *protection) known(kdf pbkdf2Params, scheme asn1.ObjectIdentifier) bool {
	for i, prf := range prfs {
		if kdf.PRF.Algorithm.Equal(prf.oid) || i == 0 && len(kdf.PRF.Algorithm) == 0 {
			p.hash = prf.hash
		}
	}
	for _, c := range ciphers {
		if scheme.Equal(c.oid) && (kdf.KeyLen == 0 || kdf.KeyLen == c.keyLen) {
			p.keyLen = c.keyLen
		}
	}
	return p.hash != nil && p.keyLen != 0 && p.iterations >= 1 && p.iterations <= maxIterations && len(p.iv) == aes.BlockSize &&
		len(p.data) > 0 && len(p.data)%aes.BlockSize == 0
}

// openPBES2 gives the key of such a file.
func openPBES2(der []byte, u Unlock) (any, error) {
	p, err := readPBES2(der)
	if err != nil {
		return nil, err
	}
	passphrase, err := u.ask()
	defer clear(passphrase)
	if err != nil {
		return nil, err
	}
	// The library takes a text, which nobody can clear: secret.Do, above, does.
	key, err := pbkdf2.Key(p.hash, string(passphrase), p.salt, p.iterations, p.keyLen)
	defer clear(key)
	if err != nil {
		return nil, errPassphrase
	}
	plain, err := decryptCBC(key, p.iv, p.data)
	defer clear(plain)
	if err != nil {
		return nil, errPassphrase
	}
	opened, err := x509.ParsePKCS8PrivateKey(plain[:len(plain)-padding(plain)])
	if err != nil {
		return nil, errPassphrase
	}
	return opened, nil
}

func unmarshal(der []byte, to any) bool {
	rest, err := asn1.Unmarshal(der, to)
	return err == nil && len(rest) == 0
}

func decryptCBC(key, iv, data []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	defer secret.WipeBlock(block)
	plain := slices.Clone(data)
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, plain)
	if padding(plain) == 0 {
		clear(plain)
		return nil, errPassphrase
	}
	return plain, nil
}

// padding is how many bytes at the end of plain are none of it (RFC 8018 §6.1.1); 0
// where that is not well-formed. Nobody is told how long it takes.
func padding(plain []byte) int {
	n := int(plain[len(plain)-1])
	if n < 1 || n > aes.BlockSize || n > len(plain) {
		return 0
	}
	for _, b := range plain[len(plain)-n:] {
		if int(b) != n {
			return 0
		}
	}
	return n
}

// Beginnings of files that age made.
var (
	ageBinary  = []byte("age-encryption.org/")
	ageArmored = []byte(armor.Header)
)

func isAge(text []byte) bool {
	return bytes.HasPrefix(text, ageBinary) || bytes.HasPrefix(text, ageArmored)
}

// openAge gives the text of a key file that age protects, by a passphrase or to an
// identity. Whoever gets it clears it.
func openAge(text []byte, u Unlock) ([]byte, error) {
	var in io.Reader = bytes.NewReader(text)
	if bytes.HasPrefix(text, ageArmored) {
		in = armor.NewReader(in)
	}
	var identities []age.Identity
	var err error
	if len(u.Identities) > 0 {
		if identities, err = age.ParseIdentities(bytes.NewReader(u.Identities)); err != nil {
			return nil, fmt.Errorf("%w: the identities of age cannot be read", ErrPrivateKey)
		}
	} else {
		passphrase, err := u.ask()
		defer clear(passphrase)
		if err != nil {
			return nil, err
		}
		identity, err := age.NewScryptIdentity(string(passphrase))
		if err != nil {
			return nil, errPassphrase
		}
		identities = []age.Identity{identity}
	}
	out, err := age.Decrypt(in, identities...)
	if err != nil {
		return nil, fmt.Errorf("%w: age does not open it with what was given", ErrPrivateKey)
	}
	plain := make([]byte, len(text)) // it is never longer
	n, err := io.ReadFull(out, plain)
	if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		clear(plain)
		return nil, fmt.Errorf("%w: what age protects is damaged", ErrPrivateKey)
	}
	return plain[:n], nil
}
