// Package firmware has what a maker signs of a release of its firmware: the image,
// which devices get and their elements verify, and the statement about it: of which
// product and hardware it is, its version, the digest of its image and the counter
// below which a device may not go back. Whoever signs images writes both; the server
// holds evidence of devices against the statement.
package firmware

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"regexp"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Format names the format of a statement.
const Format = "joinery-firmware/1"

// MaxCounter is the highest anti-rollback counter: that of the chip family's
// monotonic counters.
const MaxCounter = 2_097_151

// MaxStatement bounds the text of a statement, in bytes.
const MaxStatement = 4096

// SignatureLen is the length of a signature: r ‖ s of ECDSA over P-256, 32 bytes
// each, big-endian.
const SignatureLen = 64

// Errors.
var (
	// ErrFormat: not a statement about a release, or one with a bad value.
	ErrFormat = errors.New("not a statement about firmware")
	// ErrSignature: not signed by the key that was expected, or changed after.
	ErrSignature = errors.New("the statement's signature does not verify: it was changed, or another key signed it")
)

// Release is what a statement says.
type Release struct {
	Product  string // the maker's name of what it runs on, such as "meter-3"
	Hardware string // the hardware's id
	Version  string // for people, such as "3.1.0"
	// Digest is SHA-256 of the image, as devices measure it.
	Digest [sha256.Size]byte
	// Counter never goes down from one release to the next.
	Counter uint32
}

// word is what product, hardware and version look like.
var word = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._+-]{0,63}$`)

// ValidName tells whether a text can be a product, a hardware id or a version:
// letters, digits, dots, dashes, underscores and plus signs, at most 64.
func ValidName(s string) bool { return word.MatchString(s) }

// Check finds what a statement cannot say.
func (r Release) Check() error {
	for _, f := range []struct{ name, value string }{{"product", r.Product}, {"hardware", r.Hardware}, {"version", r.Version}} {
		if !ValidName(f.value) {
			return fmt.Errorf("%w: %s: want letters, digits, dots, dashes, underscores and plus signs, 1 to 64", ErrFormat, f.name)
		}
	}
	if r.Counter > MaxCounter {
		return fmt.Errorf("%w: counter: want at most %d", ErrFormat, MaxCounter)
	}
	return nil
}

// SigningDigest is what is signed: SHA-256 over Format ‖ 00 ‖ product ‖ hardware ‖
// version, each after its length in one byte, ‖ digest 32 ‖ counter 4, big-endian.
func (r Release) SigningDigest() [sha256.Size]byte {
	b := append([]byte(Format), 0)
	for _, s := range []string{r.Product, r.Hardware, r.Version} {
		b = append(append(b, byte(len(s))), s...)
	}
	b = append(b, r.Digest[:]...)
	return sha256.Sum256(binary.BigEndian.AppendUint32(b, r.Counter))
}

// Statement is a release and its signature.
type Statement struct {
	Release
	Signature [SignatureLen]byte
}

// text is a statement as JSON: digest in hexadecimal, signature in base64.
type text struct {
	Format    string `json:"format"`
	Product   string `json:"product"`
	Hardware  string `json:"hardware"`
	Version   string `json:"version"`
	SHA256    string `json:"sha256"`
	Counter   uint32 `json:"counter"`
	Signature []byte `json:"signature"`
}

// Sign makes the statement of a release. sign signs a digest: r ‖ s.
func Sign(r Release, sign Signer) (s Statement, err error) {
	if err := r.Check(); err != nil {
		return s, err
	}
	s.Release = r
	s.Signature, err = sign(r.SigningDigest())
	return s, err
}

// Text gives the file of a statement.
func (s Statement) Text() ([]byte, error) {
	b, err := json.Marshal(text{
		Format: Format, Product: s.Product, Hardware: s.Hardware, Version: s.Version, SHA256: hex.EncodeToString(s.Digest[:]),
		Counter: s.Counter, Signature: s.Signature[:],
	}, jsontext.WithIndent("  "))
	return append(b, '\n'), err
}

// Parse reads the file of a statement, strictly. Its signature is not checked: see
// Verify. ErrFormat.
func Parse(file []byte) (s Statement, err error) {
	if len(file) > MaxStatement {
		return s, fmt.Errorf("%w: longer than %d bytes", ErrFormat, MaxStatement)
	}
	var t text
	if err := json.Unmarshal(file, &t, json.RejectUnknownMembers(true)); err != nil || t.Format != Format {
		return s, fmt.Errorf("%w: want JSON of the format %s", ErrFormat, Format)
	}
	digest, err := hex.DecodeString(t.SHA256)
	if err != nil || len(digest) != sha256.Size {
		return s, fmt.Errorf("%w: sha256: want 64 hexadecimal digits", ErrFormat)
	}
	if len(t.Signature) != SignatureLen {
		return s, fmt.Errorf("%w: signature: want %d bytes in base64, r and s", ErrFormat, SignatureLen)
	}
	s.Release = Release{Product: t.Product, Hardware: t.Hardware, Version: t.Version, Digest: [sha256.Size]byte(digest), Counter: t.Counter}
	copy(s.Signature[:], t.Signature)
	return s, s.Check()
}

// Verify checks the signature. ErrSignature.
func (s Statement) Verify(key *ecdsa.PublicKey) error {
	if !VerifyRS(key, s.SigningDigest(), s.Signature) {
		return ErrSignature
	}
	return nil
}

// VerifyRS checks a signature in the form of elements: r ‖ s.
func VerifyRS(key *ecdsa.PublicKey, digest [sha256.Size]byte, signature [SignatureLen]byte) bool {
	r, s := new(big.Int).SetBytes(signature[:SignatureLen/2]), new(big.Int).SetBytes(signature[SignatureLen/2:])
	return ecdsa.Verify(key, digest[:], r, s)
}
