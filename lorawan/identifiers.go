package lorawan

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// ErrSyntax is wrapped by every parse error of this package.
var ErrSyntax = errors.New("invalid syntax")

// EUI64 is an IEEE EUI-64, big-endian: a JoinEUI, a DevEUI or an NSID
// (TS001-1.0.4 §6.1.1, TS002 "NSID").
type EUI64 [8]byte

// NetID is the 24-bit identifier of a network, big-endian (TS001-1.0.4 §6.1.1).
type NetID [3]byte

// DevAddr is the 32-bit address of a device in its network, big-endian.
type DevAddr [4]byte

// MIC is a message integrity code: the first four bytes of an AES-CMAC, in the
// order in which they travel.
type MIC [4]byte

// DevNonce is the 16-bit number of a join-request.
type DevNonce uint16

// RJCount is the 16-bit counter of a rejoin-request (RJcount0 or RJcount1).
type RJCount uint16

// JoinNonce is the 24-bit number of a join-accept ("AppNonce" before 1.0.4).
type JoinNonce uint32

// MaxJoinNonce is the last JoinNonce that fits on air.
const MaxJoinNonce JoinNonce = 1<<24 - 1

// MaxDevNonce is the last DevNonce that fits on air.
const MaxDevNonce DevNonce = 1<<16 - 1

// MaxRJCount is the last RJcount that fits on air.
const MaxRJCount RJCount = 1<<16 - 1

// ParseEUI64 reads 16 hexadecimal digits of either case.
func ParseEUI64(s string) (e EUI64, err error) {
	err = parseHex(e[:], "EUI-64", s)
	return e, err
}

// ParseNetID reads 6 hexadecimal digits of either case.
func ParseNetID(s string) (n NetID, err error) {
	err = parseHex(n[:], "NetID", s)
	return n, err
}

// ParseDevAddr reads 8 hexadecimal digits of either case.
func ParseDevAddr(s string) (a DevAddr, err error) {
	err = parseHex(a[:], "DevAddr", s)
	return a, err
}

// EUI64FromUint64 makes an EUI64 of its numeric value.
func EUI64FromUint64(v uint64) (e EUI64) {
	binary.BigEndian.PutUint64(e[:], v)
	return e
}

// Uint64 gives the numeric value, for ranges.
func (e EUI64) Uint64() uint64 { return binary.BigEndian.Uint64(e[:]) }

// IsZero tells whether e is unset.
func (e EUI64) IsZero() bool { return e == EUI64{} }

// Uint32 gives the numeric value of the address.
func (a DevAddr) Uint32() uint32 { return binary.BigEndian.Uint32(a[:]) }

// String gives the one text form: upper-case hexadecimal.
func (e EUI64) String() string   { return upperHex(e[:]) }
func (n NetID) String() string   { return upperHex(n[:]) }
func (a DevAddr) String() string { return upperHex(a[:]) }
func (m MIC) String() string     { return upperHex(m[:]) }

// MarshalText implements encoding.TextMarshaler with the one text form.
func (e EUI64) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// MarshalText implements encoding.TextMarshaler with the one text form.
func (n NetID) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// MarshalText implements encoding.TextMarshaler with the one text form.
func (a DevAddr) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; it accepts either case.
func (e *EUI64) UnmarshalText(b []byte) (err error) { *e, err = ParseEUI64(string(b)); return err }

// UnmarshalText implements encoding.TextUnmarshaler; it accepts either case.
func (n *NetID) UnmarshalText(b []byte) (err error) { *n, err = ParseNetID(string(b)); return err }

// UnmarshalText implements encoding.TextUnmarshaler; it accepts either case.
func (a *DevAddr) UnmarshalText(b []byte) (err error) { *a, err = ParseDevAddr(string(b)); return err }

func upperHex(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }

// parseHex fills dst from exactly 2·len(dst) hexadecimal digits. The error
// names what was expected and never repeats the input: a caller may have put a
// key where an identifier belongs.
func parseHex(dst []byte, what, s string) error {
	if len(s) != 2*len(dst) {
		return fmt.Errorf("%s: %w: want %d hexadecimal digits, got %d characters", what, ErrSyntax, 2*len(dst), len(s))
	}
	var buf [8]byte
	if _, err := hex.Decode(buf[:len(dst)], []byte(s)); err != nil {
		return fmt.Errorf("%s: %w: want %d hexadecimal digits", what, ErrSyntax, 2*len(dst))
	}
	copy(dst, buf[:len(dst)])
	return nil
}
