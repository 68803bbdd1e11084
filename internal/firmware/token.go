package firmware

import (
	"errors"
	"fmt"
	"github.com/go-json-experiment/json"
)

// TokenArgument makes joinery-hsm carry out a TokenJob, which comes on standard input;
// the TokenAnswer goes to file descriptor TokenAnswerFD, since libraries print where
// they like.
const (
	TokenArgument = "firmware"
	TokenAnswerFD = 3
)

// TokenKey says which key in a hardware token signs, and is the file that stands for
// it. It holds no secret: the PIN is in a file that joinery-hsm alone reads.
type TokenKey struct {
	Format   string `json:"format"`
	Module   string `json:"module"` // path of the PKCS #11 library
	InitArgs string `json:"initArgs,omitempty"`
	Token    string `json:"token"` // its label
	PINFile  string `json:"pinFile"`
	Name     string `json:"name"` // of the key, in the token
	// PublicKey is its public half, PEM; "" before it is made.
	PublicKey string `json:"publicKey,omitempty"`
}

// FormatTokenKey names the format of a TokenKey's file.
const FormatTokenKey = "joinery-firmware-token/1"

// ErrTokenKey says that a file stands for no key in a token.
var ErrTokenKey = errors.New("not the file of a key in a hardware token")

// ParseTokenKey reads the file of a key in a token. ErrTokenKey.
func ParseTokenKey(file []byte) (k TokenKey, err error) {
	if err := json.Unmarshal(file, &k); err != nil || k.Format != FormatTokenKey {
		return k, fmt.Errorf("%w: want JSON of the format %s", ErrTokenKey, FormatTokenKey)
	}
	return k, k.Check()
}

// Check finds what is missing.
func (k TokenKey) Check() error {
	switch {
	case k.Module == "", k.Token == "", k.PINFile == "":
		return fmt.Errorf("%w: want the library's path, the token's label and the PIN's file", ErrTokenKey)
	case !ValidName(k.Name):
		return fmt.Errorf("%w: name of the key: want letters, digits, dots, dashes, underscores and plus signs, 1 to 64", ErrTokenKey)
	}
	return nil
}

// TokenJob is what joinery-hsm is asked: to make the key, which must not be there, or
// to sign digests with it.
type TokenJob struct {
	Key     TokenKey `json:"key"`
	Make    bool     `json:"make,omitempty"`
	Digests [][]byte `json:"digests,omitempty"` // 32 bytes each
}

// MaxDigests bounds a job.
const MaxDigests = 16

// TokenAnswer is what came of a job: an error, or the public key, PEM, and a signature
// for each digest, r ‖ s.
type TokenAnswer struct {
	PublicKey  string   `json:"publicKey,omitempty"`
	Signatures [][]byte `json:"signatures,omitempty"`
	Error      string   `json:"error,omitempty"`
}
