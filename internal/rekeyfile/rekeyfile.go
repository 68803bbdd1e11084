// Package rekeyfile has the files of rekeying: tickets for the bench and what came
// of them, hand-overs of new root keys to another Join Server, and that one's
// receipts. Each is one JSON object, or several one behind the other where it is of
// many devices; what a Join Server says is signed by it, object by object. The formats are documented in docs/handover.md, for other implementations.
package rekeyfile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/big"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"joinery/internal/seal"
	"joinery/lorawan"
)

// Formats of what is signed.
const (
	FormatTicket   = "joinery-rekey-ticket/1"
	FormatHandover = "joinery-rekey-handover/2"
	FormatReceipt  = "joinery-rekey-receipt/2"
	// FormatResults is that of results, which nobody signs.
	FormatResults = "joinery-rekey-results/1"
)

// Errors of reading.
var (
	// ErrFormat: not a file of that format.
	ErrFormat = errors.New("not a file of that format")
	// ErrSignature: not signed by the key that was expected, or changed after.
	ErrSignature = errors.New("the signature does not verify: the file was changed, or is another Join Server's")
	// ErrTooMany: more than one file has.
	ErrTooMany = errors.New("it has more devices, key sets or entries than one file may")
)

// Signed is what a Join Server says, signed. Bytes are base64 in JSON.
type Signed struct {
	Format string `json:"format"`
	// Payload is a JSON object, as it was signed.
	Payload []byte `json:"payload"`
	// Key verifies Signature (SubjectPublicKeyInfo, P-256): whether to believe it is
	// the reader's business.
	Key []byte `json:"key"`
	// Signature is ECDSA with SHA-256 over SigningInput: r ‖ s, 32 bytes each,
	// big-endian.
	Signature []byte `json:"signature"`
}

// SigningInput gives what is signed: format ‖ 00 ‖ payload.
func SigningInput(format string, payload []byte) []byte {
	return append(append([]byte(format), 0), payload...)
}

// Sign makes the file of a payload. sign makes the signature of its content, and
// gives the key that verifies it.
func Sign(format string, payload any, sign func(content []byte) (signature, public []byte, err error)) ([]byte, error) {
	s := Signed{Format: format}
	var err error
	if s.Payload, err = json.Marshal(payload); err != nil {
		return nil, err
	}
	if s.Signature, s.Key, err = sign(SigningInput(format, s.Payload)); err != nil {
		return nil, err
	}
	file, err := json.Marshal(s, jsontext.WithIndent("  "))
	return append(file, '\n'), err
}

// Open reads a file of a format into payload, strictly, and gives the key that
// signed it. trusted is the key that must have; nil is any, for who has other
// grounds to believe the file. ErrFormat, ErrSignature.
// What it counts is bounded while it is read: ErrTooMany.
func Open(file []byte, format string, trusted []byte, payload any) (key []byte, err error) {
	content, key, err := Verify(file, format, trusted)
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(content, payload, json.RejectUnknownMembers(true), json.WithUnmarshalers(bounded()))
	switch {
	case errors.Is(err, ErrTooMany):
		return nil, ErrTooMany
	case err != nil:
		return nil, fmt.Errorf("%w: its payload is none of %s", ErrFormat, format)
	}
	return key, nil
}

// Verify is Open without reading what was signed, for who has to know first whose it
// is.
func Verify(file []byte, format string, trusted []byte) (payload, key []byte, err error) {
	var s Signed
	if err := json.Unmarshal(file, &s, json.RejectUnknownMembers(true)); err != nil || s.Format != format {
		return nil, nil, fmt.Errorf("%w: want %s", ErrFormat, format)
	}
	if trusted != nil && !bytes.Equal(trusted, s.Key) {
		return nil, nil, ErrSignature
	}
	parsed, err := x509.ParsePKIXPublicKey(s.Key)
	public, ok := parsed.(*ecdsa.PublicKey)
	if err != nil || !ok || public.Curve.Params().BitSize != 256 || len(s.Signature) != 64 {
		return nil, nil, ErrSignature
	}
	sum := sha256.Sum256(SigningInput(format, s.Payload))
	r, t := new(big.Int).SetBytes(s.Signature[:32]), new(big.Int).SetBytes(s.Signature[32:])
	if !ecdsa.Verify(public, sum[:], r, t) {
		return nil, nil, ErrSignature
	}
	return s.Payload, s.Key, nil
}

// Parts reads the objects of a file one by one: one of many devices has several. Each
// stands for itself, so that no reader needs room for all. io.EOF is the end of what
// has at least one; anything else that is no JSON is ErrFormat.
func Parts(r io.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		d := jsontext.NewDecoder(r)
		for n := 0; ; n++ {
			part, err := d.ReadValue()
			switch {
			case errors.Is(err, io.EOF) && n > 0:
				return
			case errors.Is(err, io.EOF):
				yield(nil, fmt.Errorf("%w: it is empty", ErrFormat))
				return
			case err != nil:
				if _, syntax := errors.AsType[*jsontext.SyntacticError](err); syntax {
					err = fmt.Errorf("%w: part %d is no JSON, or not whole", ErrFormat, n+1)
				}
				yield(nil, err)
				return
			}
			if !yield(slices.Clone(part), nil) {
				return
			}
		}
	}
}

// Ticket is instructions to rekey for a batch of devices at the bench.
type Ticket struct {
	At        time.Time `json:"at"`
	ExpiresAt time.Time `json:"expiresAt"`
	Devices   []Order   `json:"devices"`
}

// Order is the instruction for one device.
type Order struct {
	// Order names it at the Join Server that wrote it.
	Order   string        `json:"order"`
	JoinEUI lorawan.EUI64 `json:"joinEUI"` // the present one
	DevEUI  lorawan.EUI64 `json:"devEUI"`
	// Profile is S or M.
	Profile    string         `json:"profile"`
	NewJoinEUI lorawan.EUI64  `json:"newJoinEUI"`
	Cookie     lorawan.Cookie `json:"cookie"`
	// After is the cookie that the element must have obeyed last, nil where it must
	// have obeyed none: from any other root keys this order leads to ones that nobody
	// knows.
	After *lorawan.Cookie `json:"after,omitzero"`
	// JoinNonceFloor is below every JoinNonce that the new Join Server issues.
	JoinNonceFloor lorawan.JoinNonce `json:"joinNonceFloor"`
	// AuthMAC is of profile M: what the chip's DeriveKey wants, 32 bytes. What its
	// Nonce command takes before is SHA-256 over "LWJS-REKEY-v1" ‖ NewJoinEUI 8 ‖
	// DevEUI 8 ‖ Cookie 7.
	AuthMAC []byte `json:"authMAC,omitempty"`
}

// Rekey gives the instruction as elements take it.
func (o Order) Rekey() lorawan.Rekey { return lorawan.Rekey{JoinEUI: o.NewJoinEUI, Cookie: o.Cookie} }

// ErrMovedOn is what a bench refuses an order with whose element has other root keys
// than those from which it leads, or asks elsewhere.
var ErrMovedOn = errors.New("the element was rekeyed otherwise than the ticket knows: derive nothing; its newest order, or a ticket made since, has what fits")

// Fits tells whether an element may be given the order: it obeyed this one last, and
// will only store the JoinEUI, or it asks for joinEUI and obeyed last what the order
// comes after. last is nil for one that obeyed none. ErrMovedOn.
func (o Order) Fits(joinEUI lorawan.EUI64, last *lorawan.Rekey) error {
	switch {
	case last != nil && *last == o.Rekey():
		return nil
	case joinEUI != o.JoinEUI, (last == nil) != (o.After == nil), last != nil && last.Cookie != *o.After:
		return ErrMovedOn
	}
	return nil
}

// Results are what a bench made of a ticket.
type Results struct {
	Format  string   `json:"format"`
	Results []Result `json:"results"`
}

// ReadResults reads a file of results, strictly. ErrFormat.
func ReadResults(text []byte) (r Results, err error) {
	if err := json.Unmarshal(text, &r, json.RejectUnknownMembers(true)); err != nil || r.Format != FormatResults {
		return Results{}, fmt.Errorf("%w: want %s", ErrFormat, FormatResults)
	}
	return r, nil
}

// Result is what became of one order.
type Result struct {
	Order  string        `json:"order"`
	DevEUI lorawan.EUI64 `json:"devEUI"`
	// Rekeyed: the element derived, and its JoinEUI is the new one. Else Error says
	// why not.
	Rekeyed bool   `json:"rekeyed"`
	Error   string `json:"error,omitempty"`
}

// Handover is new root keys for another Join Server, sealed to its transport key,
// with all that it needs to serve their devices.
type Handover struct {
	At      time.Time    `json:"at"`
	To      string       `json:"to"` // how the sender calls the receiver
	Seal    seal.Header  `json:"seal"`
	Devices []HandedOver `json:"devices"`
}
