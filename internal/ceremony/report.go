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
	"slices"
	"strings"
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
	Rotated  []Rotated `json:"rotated,omitempty"`
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

// Rotated is the generation of a key that a ceremony was to make beside the old ones.
type Rotated struct {
	Key        string `json:"key"`   // as the plan names it
	Label      string `json:"label"` // of its objects
	Generation uint32 `json:"generation"`
	// KID is the fingerprint of a key that has a public half. That of an audit key is
	// signed by the one before, so that who trusts that one trusts it.
	KID string `json:"fingerprint,omitempty"`
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

// Follow gives the fingerprint of the audit key that who trusts the one of that
// fingerprint may trust, after these reports of its replacement, in their order:
// each is signed by the key before, and names the next. ErrReport where one is not.
func Follow(fingerprint string, replaced ...[]byte) (string, error) {
	for _, text := range replaced {
		r, by, err := Verify(text)
		if err != nil {
			return "", err
		}
		if !strings.EqualFold(by, fingerprint) {
			return "", fmt.Errorf("%w: the report of %s is signed by %s, not by %s", ErrReport, r.Ceremony, by, fingerprint)
		}
		i := slices.IndexFunc(r.Rotated, func(k Rotated) bool { return k.Key == AuditKey })
		if i < 0 {
			return "", fmt.Errorf("%w: in %s no audit key was replaced", ErrReport, r.Ceremony)
		}
		fingerprint = r.Rotated[i].KID
	}
	return fingerprint, nil
}

// names makes sure that the report itself lists the key that signed it.
func (r Report) names(key string) error {
	for _, o := range r.Objects {
		if IsAudit(o.Label) && o.PublicKey == key {
			return nil
		}
	}
	return fmt.Errorf("%w: the key that signed it is no object of the report", ErrReport)
}

// AuditLabel is the label of the key that signs reports; its later generations have
// their number behind it.
const AuditLabel = "joinery.audit"

// IsAudit tells whether a label is that of an audit key, of whatever generation.
func IsAudit(label string) bool {
	return label == AuditLabel || strings.HasPrefix(label, AuditLabel+".")
}

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

// Job is what joinery-hsm is asked to do: to carry out a plan or, where it is there,
// a change.
type Job struct {
	Plan    Plan    `json:"plan"`
	SHA256  string  `json:"planSHA256"`
	Program string  `json:"program"`
	Apply   bool    `json:"apply"`
	Change  *Change `json:"change,omitempty"`
}

// Change is one step of the rotation of one key, in a server's token.
type Change struct {
	Key   string `json:"key"` // as a plan names it: all but AuditKey
	What  What   `json:"what"`
	Token Token  `json:"token"`
	// PINCredential names a systemd credential, in place of Token.PINFile.
	PINCredential string `json:"pinCredential,omitempty"`
	// Custody is the token of the custody key, where that is changed.
	Custody *Token `json:"custody,omitempty"`
}

// What is to be done.
type What string

// Kinds of changes. Each is answered with the generations that there are afterwards.
const (
	ToLook   What = "look"   // nothing
	ToMake   What = "make"   // the next generation
	ToRetire What = "retire" // the old ones
)

// Generations are those of the keys in a server's token, as keyring.Generations.
type Generations struct {
	JoinKEK   []uint32 `json:"joinKEK"`
	Custody   uint32   `json:"custody"`
	Transport []string `json:"transport"`
	// Exports are the public halves of the keys that sign exports or once did,
	// SubjectPublicKeyInfo, the newest last.
	Exports [][]byte `json:"exports,omitempty"`
}

// Message is a line of what joinery-hsm answers: a step, then the signed report of
// a ceremony that was carried out or what came of a change, or why not.
type Message struct {
	Step        *Step        `json:"step,omitempty"`
	Report      []byte       `json:"report,omitempty"`
	Generations *Generations `json:"generations,omitempty"`
	Error       string       `json:"error,omitempty"`
}
