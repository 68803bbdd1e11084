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

// openPBES2 gives the key of a PKCS #8 file that a passphrase protects, as openssl
// makes them: PBKDF2, and AES in CBC mode.
func openPBES2(der []byte, u Unlock) (any, error) {
	var file encryptedKey
	var scheme pbes2
	var kdf pbkdf2Params
	var iv []byte
	switch {
	case !unmarshal(der, &file) || !file.Algorithm.Algorithm.Equal(oidPBES2) || !unmarshal(file.Algorithm.Parameters.FullBytes, &scheme):
		return nil, fmt.Errorf("%w: it is encrypted in an old way; have openssl pkcs8 -topk8 -v2 aes-256-cbc write it anew", ErrPrivateKey)
	case !scheme.KDF.Algorithm.Equal(oidPBKDF2) || !unmarshal(scheme.KDF.Parameters.FullBytes, &kdf) || !unmarshal(scheme.Scheme.Parameters.FullBytes, &iv):
		return nil, fmt.Errorf("%w: of encrypted keys those by PBKDF2 and AES-CBC are read, which openssl pkcs8 -topk8 -v2 aes-256-cbc writes", ErrPrivateKey)
	}
	prf := 0
	if len(kdf.PRF.Algorithm) > 0 {
		for prf < len(prfs) && !kdf.PRF.Algorithm.Equal(prfs[prf].oid) {
			prf++
		}
	}
	c := 0
	for c < len(ciphers) && !scheme.Scheme.Algorithm.Equal(ciphers[c].oid) {
		c++
	}
	if prf == len(prfs) || c == len(ciphers) || kdf.Iterations < 1 || kdf.Iterations > maxIterations || len(iv) != aes.BlockSize ||
		len(file.Data) == 0 || len(file.Data)%aes.BlockSize != 0 || kdf.KeyLen != 0 && kdf.KeyLen != ciphers[c].keyLen {
		return nil, fmt.Errorf("%w: of encrypted keys those by PBKDF2 with SHA-1 or SHA-2, and AES-CBC, are read", ErrPrivateKey)
	}
	passphrase, err := u.ask()
	defer clear(passphrase)
	if err != nil {
		return nil, err
	}
	// The library takes a text, which nobody can clear: secret.Do, above, does.
	key, err := pbkdf2.Key(prfs[prf].hash, string(passphrase), kdf.Salt, kdf.Iterations, ciphers[c].keyLen)
	defer clear(key)
	if err != nil {
		return nil, errPassphrase
	}
	plain, err := decryptCBC(key, iv, file.Data)
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
