package lorawan

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
)

// CFListTypeRekey is the CFListType of an instruction to rekey. RP002-1.0.5 §2
// assigns 0 and 1 and reserves the rest; stacks that do not know a type ignore
// such a list. A Join Server alone makes lists of it; one that a network
// supplies is refused.
const CFListTypeRekey = 0xF1

// CookieLen is the length of a Cookie, in bytes.
const CookieLen = 7

// Cookie is what makes one rekeying of a device different from any other. It is
// drawn at random and no secret. Bytes as they travel; text is hexadecimal.
type Cookie [CookieLen]byte

// String gives 14 upper-case hexadecimal digits.
func (c Cookie) String() string { b, _ := c.MarshalText(); return string(b) }

// MarshalText implements encoding.TextMarshaler.
func (c Cookie) MarshalText() ([]byte, error) {
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, 2*CookieLen)
	for _, v := range c {
		b = append(b, digits[v>>4], digits[v&15])
	}
	return b, nil
}

// UnmarshalText implements encoding.TextUnmarshaler: 14 hexadecimal digits in
// either case.
func (c *Cookie) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != CookieLen {
		return errors.New("cookie: want 14 hexadecimal digits")
	}
	copy(c[:], b)
	return nil
}

// Rekey is the instruction to a device to derive new root keys inside its
// element and to join at another Join Server. It travels as a CFList:
//
//	JoinEUI 8, little-endian as on air ‖ cookie 7 ‖ CFListTypeRekey 1
type Rekey struct {
	JoinEUI EUI64 // of the new Join Server
	Cookie  Cookie
}

// CFList gives the list that carries r.
func (r Rekey) CFList() CFList {
	c := CFList{present: true}
	binary.LittleEndian.PutUint64(c.bytes[:], r.JoinEUI.Uint64())
	copy(c.bytes[8:], r.Cookie[:])
	c.bytes[CFListLen-1] = CFListTypeRekey
	return c
}

// Rekey reads the instruction that c carries; false for any other list, and for
// none.
func (c CFList) Rekey() (r Rekey, ok bool) {
	if !c.IsRekey() {
		return Rekey{}, false
	}
	r.JoinEUI = readEUI(c.bytes[:8])
	copy(r.Cookie[:], c.bytes[8:])
	return r, true
}

// IsRekey tells whether c is of the type of instructions to rekey.
func (c CFList) IsRekey() bool { return c.present && c.bytes[CFListLen-1] == CFListTypeRekey }
