package tr005

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"joinery/lorawan"
)

// ErrSyntax is wrapped by the error of a text that is no label, and of a Label
// that its form cannot hold.
var ErrSyntax = errors.New("invalid syntax")

// ErrChecksum is wrapped by the error of a label whose checksum is not that of
// its text: it was misread, mistyped or altered.
var ErrChecksum = errors.New("the checksum does not fit the text")

// MaxLen is the longest text that is read or written, in bytes. Network Servers
// that take the text of a label take no more.
const MaxLen = 1024

// Format is one of the forms in which labels are in use.
type Format uint8

// The forms, by the drafts of TR005 that brought them.
const (
	Final      Format = iota // LW:D0:…
	Draft2                   // URN:LW:DP:…
	Draft3                   // URN:DEV:LW:…
	BareDevEUI               // nothing but the DevEUI
)

var formatText = [...]string{Final: "TR005", Draft2: "TR005 draft 2", Draft3: "TR005 draft 3", BareDevEUI: "DevEUI"}

func (f Format) String() string {
	if int(f) < len(formatText) {
		return formatText[f]
	}
	return "unknown"
}

// ProfileID names a product: who made it, and which of theirs it is.
type ProfileID struct {
	// Vendor is the VendorID that the LoRa Alliance gave; zero where there is none.
	Vendor uint16
	// Profile is the vendor's own number of the product ("VendorProfileID").
	Profile uint16
}

// ParseProfileID reads 8 hexadecimal digits of either case.
func ParseProfileID(s string) (p ProfileID, err error) {
	var b [4]byte
	if len(s) != 2*len(b) {
		return p, fmt.Errorf("ProfileID: %w: want 8 hexadecimal digits, got %d characters", ErrSyntax, len(s))
	}
	if _, err := hex.Decode(b[:], []byte(s)); err != nil {
		return p, fmt.Errorf("ProfileID: %w: want 8 hexadecimal digits", ErrSyntax)
	}
	return ProfileID{Vendor: binary.BigEndian.Uint16(b[:]), Profile: binary.BigEndian.Uint16(b[2:])}, nil
}

// String gives the one text form: 8 hexadecimal digits in upper case.
func (p ProfileID) String() string { return fmt.Sprintf("%04X%04X", p.Vendor, p.Profile) }

// IsZero tells whether p names no product.
func (p ProfileID) IsZero() bool { return p == ProfileID{} }

// MarshalText implements encoding.TextMarshaler with the one text form.
func (p ProfileID) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; it accepts either case.
func (p *ProfileID) UnmarshalText(b []byte) (err error) {
	*p, err = ParseProfileID(string(b))
	return err
}

// Label is what a QR code says of a device.
type Label struct {
	Format    Format
	JoinEUI   lorawan.EUI64 // zero for BareDevEUI, as all that follows but DevEUI
	DevEUI    lorawan.EUI64
	ProfileID ProfileID
	// OwnerToken lets its holder claim the device; "" for none.
	OwnerToken string
	Serial     string // "" for none
	// Proprietary is what the vendor wants; "" for none.
	Proprietary string
	// Checksum is the one that was read; "" for none. A text is written with the
	// checksum that it has to have, whatever stands here.
	Checksum string
	// Unchecked is the tags of the elements that stood behind the checksum, "OS" for
	// owner token and serial number: a checksum covers what stands before it, and
	// tells nothing of these. Some write it first. "" where it covers all, and where
	// there is none. It is not written.
	Unchecked string
}

// String names the device, and nothing that is secret.
func (l Label) String() string {
	if l.Format == BareDevEUI {
		return "label of " + l.DevEUI.String()
	}
	return "label of " + l.JoinEUI.String() + "/" + l.DevEUI.String()
}

// GoString is String, for %#v.
func (l Label) GoString() string { return l.String() }

// LogValue implements slog.LogValuer with String.
func (l Label) LogValue() slog.Value { return slog.StringValue(l.String()) }

// checksum is CRC-16/MODBUS, as TR005 wants it: polynomial 0x8005 reflected,
// beginning with FFFF, over the bytes before the element C; four hexadecimal
// digits in upper case.
func checksum(text string) string {
	crc := uint16(0xFFFF)
	for i := range len(text) {
		crc ^= uint16(text[i])
		for range 8 {
			low := crc & 1
			crc >>= 1
			if low != 0 {
				crc ^= 0xA001
			}
		}
	}
	return fmt.Sprintf("%04X", crc)
}

// Characters of a value. Those of the final form are what a QR code's
// alphanumeric mode has, without the colon, which ends a value.
const (
	upperCase   = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	draft2Chars = upperCase + "$*+-./"
	finalChars  = draft2Chars + " %"
)

func only(s, chars string) bool { return strings.Trim(s, chars) == "" }
