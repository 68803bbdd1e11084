package sim

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// keyName is a member that holds a KeyEnvelope.
type keyName uint8

const (
	nwkSKey keyName = iota
	fNwkSIntKey
	sNwkSIntKey
	nwkSEncKey
	appSKey
	keyNames
)

var keyMembers = [keyNames]string{"NwkSKey", "FNwkSIntKey", "SNwkSIntKey", "NwkSEncKey", "AppSKey"}

func (k keyName) String() string { return keyMembers[k] }

// Envelope is a session key as it travelled: wrapped under the KEK that
// KEKLabel names, or in the clear where there is no label.
type Envelope struct {
	KEKLabel string
	AESKey   []byte
}

// String keeps a key that travelled in the clear out of logs.
func (e Envelope) String() string { return "envelope(" + e.KEKLabel + ")" }

// Format is String for every verb of package fmt.
func (e Envelope) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, e.String()) }

// answer is any answer of a Join Server, members as they stand. A pointer or
// slice that is nil was absent.
type answer struct {
	ProtocolVersion string
	TransactionID   *uint32
	MessageType     string
	SenderID        string
	ReceiverID      string
	SenderNSID      *string
	ReceiverNSID    *string
	HasResult       bool
	ResultCode      string
	Description     string
	PHYPayload      []byte
	Lifetime        *uint32
	Keys            [keyNames]*Envelope
	SessionKeyID    []byte
	DevEUI          string
	HNetID          string
	HNSID           string
}

// errShape is wrapped by what is wrong with an answer that is good JSON.
var errShape = errors.New("not as an answer should be")

// parseAnswer reads one JSON object, strictly: no duplicate member (RFC 8259
// §4 leaves their meaning open), no member unknown to TS002, none spelt in
// another case, none null, no escape in a binary value (one client in the field
// cannot read it), nothing behind the object.
func parseAnswer(body []byte) (*answer, error) {
	a := &answer{}
	err := json.Unmarshal(body, a) // duplicate names and bad UTF-8 are errors by default
	if semantic, ok := errors.AsType[*json.SemanticError](err); ok && semantic.Err != nil {
		err = semantic.Err
	}
	if err != nil {
		return nil, jsonReason(err)
	}
	return a, nil
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (a *answer) UnmarshalJSONFrom(d *jsontext.Decoder) error { return readObject(d, a.member) }

// members are all that an answer, its Result and its envelopes may have.
func members() [25]string {
	return [...]string{
		"ProtocolVersion", "TransactionID", "MessageType", "SenderID", "ReceiverID", "SenderNSID", "ReceiverNSID",
		"Result", "ResultCode", "Description", "PHYPayload", "Lifetime", "SessionKeyID", "KEKLabel", "AESKey",
		"NwkSKey", "FNwkSIntKey", "SNwkSIntKey", "NwkSEncKey", "AppSKey",
		"DevEUI", "HNetID", "HNSID", "VSExtension", "Token",
	}
}

// memberName gives the constant for a member's name, so that reading one does
// not allocate; "" for a name that no answer has. SenderToken and ReceiverToken
// are both "Token".
func memberName(quoted []byte) string {
	name := quoted[1 : len(quoted)-1]
	switch string(name) {
	case "SenderToken", "ReceiverToken":
		return "Token"
	case "Token":
		return ""
	}
	for _, known := range members() {
		if string(name) == known {
			return known
		}
	}
	return ""
}

// readObject calls member for each member of the object that comes next.
func readObject(d *jsontext.Decoder, member func(name string, d *jsontext.Decoder) error) error {
	if k := d.PeekKind(); k != '{' {
		if _, err := d.ReadToken(); err != nil {
			return err
		}
		return fmt.Errorf("%w: want an object, got %v", errShape, k)
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != '}' {
		quoted, err := d.ReadValue()
		if err != nil {
			return err
		}
		name := memberName(quoted)
		if name == "" {
			return fmt.Errorf("%s: %w: unknown member", quoted, errShape)
		}
		if err := member(name, d); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	_, err := d.ReadToken()
	return err
}

// jsonReason gives the kind of a syntax error without the text around it, which
// could be a key.
func jsonReason(err error) error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return errors.New("not strict JSON: a member appears twice")
	}
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return fmt.Errorf("not JSON: syntax error at byte %d", syntax.ByteOffset)
	}
	return err
}

// member reads one member of the answer.
func (a *answer) member(name string, d *jsontext.Decoder) (err error) {
	switch name {
	case "ProtocolVersion":
		a.ProtocolVersion, err = readText(d)
	case "TransactionID":
		a.TransactionID, err = readUint32(d)
	case "MessageType":
		a.MessageType, err = readText(d)
	case "SenderID":
		a.SenderID, err = readText(d)
	case "ReceiverID":
		a.ReceiverID, err = readText(d)
	case "SenderNSID":
		a.SenderNSID, err = readOptional(d)
	case "ReceiverNSID":
		a.ReceiverNSID, err = readOptional(d)
	case "Result":
		a.HasResult = true
		err = readObject(d, a.resultMember)
	default:
		err = a.bodyMember(name, d)
	}
	return err
}

func (a *answer) resultMember(name string, d *jsontext.Decoder) (err error) {
	switch name {
	case "ResultCode":
		a.ResultCode, err = readText(d)
	case "Description":
		a.Description, err = readText(d)
	default:
		err = fmt.Errorf("%w: unknown member", errShape)
	}
	return err
}

// bodyMember reads a member that only some answers have.
func (a *answer) bodyMember(name string, d *jsontext.Decoder) (err error) {
	switch name {
	case "PHYPayload":
		a.PHYPayload, err = readBinary(d)
	case "Lifetime":
		a.Lifetime, err = readUint32(d)
	case "SessionKeyID":
		a.SessionKeyID, err = readBinary(d)
	case "DevEUI":
		a.DevEUI, err = readText(d)
	case "HNetID":
		a.HNetID, err = readText(d)
	case "HNSID":
		a.HNSID, err = readText(d)
	case "Token":
		_, err = readBinary(d)
	case "VSExtension":
		if d.PeekKind() != '{' {
			return fmt.Errorf("%w: want an object", errShape)
		}
		err = d.SkipValue()
	default:
		for k, member := range keyMembers {
			if name == member {
				a.Keys[k], err = readEnvelope(d)
				return err
			}
		}
		err = fmt.Errorf("%w: unknown member", errShape)
	}
	return err
}

func readEnvelope(d *jsontext.Decoder) (*Envelope, error) {
	e := &Envelope{}
	return e, readObject(d, func(name string, d *jsontext.Decoder) (err error) {
		switch name {
		case "KEKLabel":
			e.KEKLabel, err = readText(d)
		case "AESKey":
			e.AESKey, err = readBinary(d)
		default:
			err = fmt.Errorf("%w: unknown member", errShape)
		}
		return err
	})
}

// readText reads a string.
func readText(d *jsontext.Decoder) (string, error) {
	if d.PeekKind() != '"' {
		return "", fmt.Errorf("%w: want a string", errShape)
	}
	raw, err := d.ReadValue()
	if err != nil {
		return "", err
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	text, err := jsontext.AppendUnquote(nil, raw)
	return string(text), err
}

func readOptional(d *jsontext.Decoder) (*string, error) {
	s, err := readText(d)
	return &s, err
}

// readBinary reads hexadecimal of either case, without prefix and without
// escapes. The empty string is an empty slice, not nil.
func readBinary(d *jsontext.Decoder) ([]byte, error) {
	if d.PeekKind() != '"' {
		return nil, fmt.Errorf("%w: want a string", errShape)
	}
	raw, err := d.ReadValue()
	if err != nil {
		return nil, err
	}
	digits := raw[1 : len(raw)-1]
	b := make([]byte, hex.DecodedLen(len(digits)))
	if _, err := hex.Decode(b, digits); err != nil {
		return nil, fmt.Errorf("%w: want hexadecimal digits, in pairs, and nothing else", errShape)
	}
	return b, nil
}

// readUint32 reads a number without fraction or exponent, as clients with
// integer fields do.
func readUint32(d *jsontext.Decoder) (*uint32, error) {
	if d.PeekKind() != '0' {
		return nil, fmt.Errorf("%w: want a number", errShape)
	}
	raw, err := d.ReadValue()
	if err != nil {
		return nil, err
	}
	v, err := strconv.ParseUint(string(raw), 10, 32)
	if err != nil {
		return nil, fmt.Errorf("%w: want a whole number below 2^32", errShape)
	}
	n := uint32(v)
	return &n, nil
}

// sameBinary tells whether s is the hexadecimal form of want: either case, at
// most one 0x in front, as every client reads it.
func sameBinary(s string, want []byte) bool {
	if len(s) >= 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		s = s[2:]
	}
	if len(s) != 2*len(want) {
		return false
	}
	var buf [2 * 16]byte
	return len(want) <= 16 && strings.EqualFold(s, string(hex.AppendEncode(buf[:0], want)))
}
