package ceremony

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// Format names the layout of a signed report.
const Format = "joinery-ceremony-report/1"

// Algorithm is how reports are signed: by the audit key of the token that they are
// about.
const Algorithm = "ECDSA-P256-SHA256"

// Report is what a ceremony found and made.
type Report struct {
	Format       string        `json:"format"`
	Ceremony     string        `json:"ceremony"`
	Purpose      string        `json:"purpose,omitempty"`
	Participants []Participant `json:"participants"`
	// Plan is the SHA-256 of the YAML file that was carried out.
	Plan     string    `json:"planSHA256"`
	Program  string    `json:"program"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	Steps    []Step    `json:"steps"`
	Tokens   []Device  `json:"tokens"`
	Objects  []Object  `json:"objects"`
	Masters  []Made    `json:"masters"`
	Levels   []Level   `json:"levels"`
}

// Outcome is what became of a step.
type Outcome string

// Outcomes of steps.
const (
	WasMade  Outcome = "made"
	WasThere Outcome = "was there"
	Checked  Outcome = "checked"
	Planned  Outcome = "to be made" // of a dry run
)

// Step is one thing that a ceremony did, or would do.
type Step struct {
	What    string  `json:"what"`
	Outcome Outcome `json:"outcome"`
	Detail  string  `json:"detail,omitempty"`
}

// Device is a hardware token as it describes itself.
type Device struct {
	Role         string `json:"role"` // "keys" or "custody"
	Label        string `json:"label"`
	Serial       string `json:"serial"`
	Model        string `json:"model"`
	Manufacturer string `json:"manufacturer"`
	Firmware     string `json:"firmware"`
}

// Object is an object of a token, with what the token says of it.
type Object struct {
	Token string `json:"token"` // its label
	Label string `json:"label"`
	Class string `json:"class"`
	Type  string `json:"type"`
	ID    string `json:"id"` // CKA_ID: of what kind it is
	Found bool   `json:"wasThere"`
	// The rest but PublicKey and KID is of keys that are secret.
	Sensitive        *bool    `json:"sensitive,omitempty"`
	Extractable      *bool    `json:"extractable,omitempty"`
	AlwaysSensitive  *bool    `json:"alwaysSensitive,omitempty"`
	NeverExtractable *bool    `json:"neverExtractable,omitempty"`
	Local            *bool    `json:"madeInToken,omitempty"`
	Rights           []string `json:"rights"`
	// UnwrapTemplate says what a key under which others come in makes of them, as
	// it was tried.
	UnwrapTemplate string `json:"unwrapTemplate,omitempty"`
	CheckValue     string `json:"checkValue,omitempty"` // CKA_CHECK_VALUE, where the token has one
	PublicKey      string `json:"publicKey,omitempty"`  // PEM
	KID            string `json:"fingerprint,omitempty"`
}

// Made is a master key and how it came.
type Made struct {
	Name       string      `json:"name"`
	Profile    string      `json:"profile"`
	KCV        string      `json:"kcv"`
	Origin     string      `json:"origin"`
	Found      bool        `json:"wasThere"`
	Components []Component `json:"components,omitempty"`
	Shares     []Share     `json:"shares,omitempty"`
}

// Level is how the token keeps keys of one origin, as it was tried.
type Level struct {
	Origin  string `json:"origin"`
	Profile string `json:"profile,omitempty"`
	Level   string `json:"level"`
	Served  bool   `json:"served"`
	Why     string `json:"why,omitempty"`
}

// Signed is a report in its envelope. The signature covers the report without
// white space between its parts, after a line with the format.
type Signed struct {
	Report    json.RawMessage `json:"report"`
	Algorithm string          `json:"algorithm"`
	Key       string          `json:"key"` // PEM
	Signature []byte          `json:"signature"`
}

// ErrReport says that a report is not as it was signed.
var ErrReport = errors.New("the report is not as it was signed")

// Sign puts a report into its envelope. sign is given a SHA-256 digest and makes an
// ECDSA signature of it, ASN.1.
func Sign(r Report, key string, sign func(digest []byte) ([]byte, error)) ([]byte, error) {
	r.Format = Format
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	digest, err := digestOf(text)
	if err != nil {
		return nil, err
	}
	signature, err := sign(digest)
	if err != nil {
		return nil, err
	}
	out, err := json.MarshalIndent(Signed{Report: text, Algorithm: Algorithm, Key: key, Signature: signature}, "", "  ")
	return append(out, '\n'), err
}

// signedText is what a signature covers.
func signedText(report []byte) ([]byte, error) {
	text := bytes.NewBufferString(Format + "\n")
	err := json.Compact(text, report)
	return text.Bytes(), err
}

func digestOf(report []byte) ([]byte, error) {
	text, err := signedText(report)
	sum := sha256.Sum256(text)
	return sum[:], err
}

// Verify checks a signed report, and gives it with the fingerprint of the key that
// signed it. Whether that key is the token's its reader learns over another way.
func Verify(text []byte) (r Report, fingerprint string, err error) {
	var s Signed
	if err := strictly(text, &s); err != nil {
		return r, "", err
	}
	if s.Algorithm != Algorithm {
		return r, "", fmt.Errorf("%w: want algorithm %s", ErrReport, Algorithm)
	}
	signer, err := certificateOf(s.Key)
	if err != nil {
		return r, "", err
	}
	covered, err := signedText(s.Report)
	if err != nil {
		return r, "", fmt.Errorf("%w: %w", ErrReport, err)
	}
	if err := signer.CheckSignature(x509.ECDSAWithSHA256, covered, s.Signature); err != nil {
		return r, "", fmt.Errorf("%w: the signature does not fit", ErrReport)
	}
	if err := strictly(s.Report, &r); err != nil {
		return r, "", err
	}
	if r.Format != Format {
		return r, "", fmt.Errorf("%w: want format %s", ErrReport, Format)
	}
	return r, Fingerprint(s.Key), r.names(s.Key)
}

// names makes sure that the report itself lists the key that signed it.
func (r Report) names(key string) error {
	for _, o := range r.Objects {
		if o.Label == AuditLabel && o.PublicKey == key {
			return nil
		}
	}
	return fmt.Errorf("%w: the key that signed it is no object of the report", ErrReport)
}

// AuditLabel is the label of the key that signs reports.
const AuditLabel = "joinery.audit"

// strictly reads JSON with known names only.
func strictly(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrReport, err)
	}
	if d.More() {
		return fmt.Errorf("%w: something follows it", ErrReport)
	}
	return nil
}

// certificateOf gives a certificate with that key and nothing else, since those
// know how to check signatures.
func certificateOf(key string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(key))
	if block == nil {
		return nil, fmt.Errorf("%w: it names no key", ErrReport)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: its key cannot be read", ErrReport)
	}
	return &x509.Certificate{PublicKey: public, PublicKeyAlgorithm: x509.ECDSA}, nil
}

// Fingerprint gives the SHA-256 of a public key in PEM, for people to compare.
func Fingerprint(key string) string {
	block, _ := pem.Decode([]byte(key))
	if block == nil {
		return ""
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:])
}

// Job is what joinery-hsm is asked to do.
type Job struct {
	Plan    Plan   `json:"plan"`
	SHA256  string `json:"planSHA256"`
	Program string `json:"program"`
	Apply   bool   `json:"apply"`
}

// Message is a line of what joinery-hsm answers: a step, then the signed report of
// one that was carried out, or why not.
type Message struct {
	Step   *Step  `json:"step,omitempty"`
	Report []byte `json:"report,omitempty"`
	Error  string `json:"error,omitempty"`
}
