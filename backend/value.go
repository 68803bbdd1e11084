package backend

import (
	"bytes"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"joinery/lorawan"
)

// What was wanted, as people read it.
const (
	wantPresent    = "missing"
	wantString     = "want a string"
	wantHex        = "want hexadecimal digits"
	wantASCII      = "want 1 to 255 printable ASCII characters"
	wantNetID      = "want a NetID of 6 hexadecimal digits"
	wantEUI        = "want an EUI-64 of 16 hexadecimal digits"
	wantDevAddr    = "want 8 hexadecimal digits"
	wantDLSettings = "want 2 hexadecimal digits"
	wantCFList     = "want 32 hexadecimal digits"
	wantPHYPayload = "want a frame of 1 to 255 bytes in hexadecimal digits"
	wantKeyID      = "want 1 to 64 bytes in hexadecimal digits"
	wantToken      = "want an even number of hexadecimal digits"
	wantUint32     = "want a number from 0 to 4294967295"
	wantRxDelay    = "want a number from 0 to 15"
	wantObject     = "want an object"
	wantVersion    = "want LoRaWAN version 1.0.0 to 1.0.4 or 1.1.0"
	wantProtocol   = "want 1.0 or 1.1"
)

// reader reads the members of an object; the first that is wrong stays as err,
// and every read after it gives zero.
type reader struct {
	members *object
	err     *Error
}

func (r *reader) fail(m member, want string) {
	if r.err == nil {
		r.err = &Error{Kind: Malformed, Field: memberText[m], Want: want}
	}
}

// has tells whether m is present, neither null nor the empty string, which some
// write for "none".
func (r *reader) has(m member) bool {
	v := r.members[m]
	return v != nil && string(v) != `""`
}

// text gives the characters of a string. Only a string with escapes is copied.
func (r *reader) text(m member) (s []byte, ok bool) {
	v := r.members[m]
	switch {
	case v == nil:
		r.fail(m, wantPresent)
		return nil, false
	case v[0] != '"':
		r.fail(m, wantString)
		return nil, false
	}
	s = v[1 : len(v)-1]
	if bytes.IndexByte(s, '\\') >= 0 {
		s, _ = jsontext.AppendUnquote(nil, v) // the scanner checked it
	}
	return s, true
}

// ascii gives the string of an identifier without form: 1 to 255 printable
// ASCII characters.
func (r *reader) ascii(m member) string {
	s, ok := r.text(m)
	if !ok {
		return ""
	}
	if len(s) == 0 || len(s) > 255 || !isPrintable(s) {
		r.fail(m, wantASCII)
		return ""
	}
	return string(s)
}

func isPrintable(s []byte) bool {
	for _, c := range s {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// fixed reads exactly len(dst) bytes in hexadecimal digits of either case, with
// or without 0x in front, and gives the string as it came.
func (r *reader) fixed(m member, dst []byte, want string) []byte {
	s, ok := r.text(m)
	if !ok {
		return nil
	}
	digits := withoutPrefix(s)
	if len(digits) != 2*len(dst) || !decodeHex(dst, digits) {
		clear(dst)
		r.fail(m, want)
		return nil
	}
	return s
}

// variable appends from lo to hi bytes in hexadecimal digits to dst.
func (r *reader) variable(m member, dst []byte, lo, hi int, want string) []byte {
	s, ok := r.text(m)
	if !ok {
		return dst
	}
	digits := withoutPrefix(s)
	n := len(digits) / 2
	if len(digits)%2 != 0 || n < lo || n > hi {
		r.fail(m, want)
		return dst
	}
	at := len(dst)
	dst = append(dst, digits[:n]...) // only to grow it
	if !decodeHex(dst[at:], digits) {
		clear(dst[at:])
		r.fail(m, want)
		return dst[:at]
	}
	return dst
}

// token gives an optional opaque hexadecimal string as it came.
func (r *reader) token(m member) string {
	if !r.has(m) {
		return ""
	}
	s, ok := r.text(m)
	if !ok {
		return ""
	}
	digits := withoutPrefix(s)
	if len(digits)%2 != 0 {
		r.fail(m, wantToken)
		return ""
	}
	for _, c := range digits {
		if hexValue[c] > 15 {
			r.fail(m, wantToken)
			return ""
		}
	}
	return string(s)
}

func (r *reader) eui(m member) (e lorawan.EUI64) {
	r.fixed(m, e[:], wantEUI)
	return e
}

// uint reads a number without sign, fraction or exponent, at most limit.
func (r *reader) uint(m member, limit uint64, want string) uint64 {
	v := r.members[m]
	if v == nil {
		r.fail(m, wantPresent)
		return 0
	}
	var n uint64
	for _, c := range v {
		// JSON allows no leading zero, so ten digits are enough for 32 bits.
		if c < '0' || c > '9' || len(v) > 10 {
			r.fail(m, want)
			return 0
		}
		n = 10*n + uint64(c-'0')
	}
	if n > limit {
		r.fail(m, want)
		return 0
	}
	return n
}

func (r *reader) macVersion() lorawan.MACVersion {
	s, ok := r.text(memberMACVersion)
	if !ok {
		return 0
	}
	v, err := lorawan.ParseMACVersion(string(s))
	if err != nil {
		r.fail(memberMACVersion, wantVersion)
	}
	return v
}

// object checks that an optional member is an object.
func (r *reader) object(m member) {
	if v := r.members[m]; v != nil && v[0] != '{' {
		r.fail(m, wantObject)
	}
}

// withoutPrefix takes one 0x or 0X off.
func withoutPrefix(s []byte) []byte {
	if len(s) >= 2 && s[0] == '0' && s[1]|0x20 == 'x' {
		return s[2:]
	}
	return s
}

const (
	upperHex = "0123456789ABCDEF"
	lowerHex = "0123456789abcdef"
)

// hexValue gives the value of a hexadecimal digit, 0xFF for what is none.
var hexValue = func() (t [256]byte) {
	for c := range t {
		t[c] = byte(max(strings.IndexByte(upperHex, byte(c)), strings.IndexByte(lowerHex, byte(c)))) // -1 is 0xFF
	}
	return t
}()

// decodeHex fills dst from 2·len(dst) digits.
func decodeHex(dst, digits []byte) bool {
	var bad byte
	for i := range dst {
		hi, lo := hexValue[digits[2*i]], hexValue[digits[2*i+1]]
		bad |= hi | lo
		dst[i] = hi<<4 | lo
	}
	return bad <= 15
}
