package element

import (
	"bytes"
	"crypto/aes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"joinery/lorawan"
)

// Lengths, in bytes, of what an element needs for rekeying.
const (
	// SlotKeySize is that of the key in slot 13 of an element of profile M.
	SlotKeySize = 32
	// SerialSize is that of its serial number.
	SerialSize = 9
	// AuthMACSize is that of the MAC which it wants before it derives.
	AuthMACSize = 32
)

// rekeying is what an element of either profile keeps for it. Profile S has a
// rekeying key that every rekeying replaces; profile M has the key of slot 13,
// which stays.
type rekeying struct {
	s   slot // profile S
	m   bool // profile M
	key [SlotKeySize]byte
	sn  [SerialSize]byte
}

// SetRekeyKey makes an element of rekeying profile S, as a factory does. The
// caller keeps, and should wipe, what it gave.
func (e *Element) SetRekeyKey(key []byte) error {
	if len(key) != KeySize {
		return fmt.Errorf("element %v: rekeying key: %w: want %d bytes", e.devEUI, ErrLength, KeySize)
	}
	e.rekey = rekeying{s: slot{filled: true, key: [KeySize]byte(key)}}
	return nil
}

// SetSlotKey makes an element of rekeying profile M: with the key of slot 13 and
// the serial number that go into each derivation.
func (e *Element) SetSlotKey(key, serial []byte) error {
	if len(key) != SlotKeySize || len(serial) != SerialSize {
		return fmt.Errorf("element %v: slot 13: %w: want %d bytes and a serial number of %d", e.devEUI, ErrLength, SlotKeySize, SerialSize)
	}
	e.rekey = rekeying{m: true, key: [SlotKeySize]byte(key), sn: [SerialSize]byte(serial)}
	return nil
}

// Rekeys tells whether the element can derive new root keys.
func (e *Element) Rekeys() bool { return e.rekey.m || e.rekey.s.filled }

// NeedsAuthMAC tells whether it wants a MAC first that no join-accept has room for.
func (e *Element) NeedsAuthMAC() bool { return e.rekey.m }

// Rekey replaces both root keys, inside, by those that follow from the cookie and
// the JoinEUI of the new Join Server. The old ones are gone. In profile S the
// rekeying key is replaced, too, so the same instruction twice gives other keys:
// whoever calls remembers which ones were obeyed. authMAC is for profile M, and
// nil in profile S; ErrMIC where it is wrong.
//
// Every other key goes with the old roots.
func (e *Element) Rekey(joinEUI lorawan.EUI64, cookie lorawan.Cookie, authMAC []byte) error {
	if e.chip != nil {
		return e.rekeyOnChip(joinEUI, cookie, authMAC)
	}
	var next [3][KeySize]byte // NwkKey, AppKey, rekeying key
	defer clear(next[:])
	switch {
	case e.rekey.m:
		if err := e.rekeyM(&next, joinEUI, cookie, authMAC); err != nil {
			return err
		}
	case e.rekey.s.filled:
		block, err := aes.NewCipher(e.rekey.s.key[:])
		if err != nil {
			return fmt.Errorf("element: %w", err)
		}
		for i, purpose := range [3]byte{0x21, 0x22, 0x23} {
			// purpose ‖ cookie ‖ JoinEUI, little-endian
			next[i][0] = purpose
			copy(next[i][1:8], cookie[:])
			binary.LittleEndian.PutUint64(next[i][8:], joinEUI.Uint64())
			block.Encrypt(next[i][:], next[i][:])
		}
		e.rekey.s = slot{filled: true, key: next[2]}
	default:
		return fmt.Errorf("element %v: rekeying: %w", e.devEUI, ErrNoKey)
	}
	e.slots = [slots]slot{}
	e.slots[NwkKey], e.slots[AppKey] = slot{filled: true, key: next[0]}, slot{filled: true, key: next[1]}
	e.root10 = NwkKey
	return nil
}

// rekeyM is the chip's DeriveKey from slot 13 into slot 0, behind a Nonce command
// in fixed mode. AppKey is the first block of slot 0, NwkKey the second.
func (e *Element) rekeyM(next *[3][KeySize]byte, joinEUI lorawan.EUI64, cookie lorawan.Cookie, authMAC []byte) error {
	r := &e.rekey
	command := r.command()
	h := sha256.New()
	sum := func(parts ...[]byte) []byte {
		h.Reset()
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	if err := e.authorises(authMAC); err != nil {
		return err
	}
	temp := rekeyNonce(joinEUI, e.devEUI, cookie)
	roots := sum(r.key[:], command, make([]byte, 25), temp[:])
	copy(next[1][:], roots[:KeySize])
	copy(next[0][:], roots[KeySize:])
	clear(roots)
	return nil
}

// command is what DeriveKey and its authorising MAC both hash behind the key:
// opcode ‖ mode ‖ target slot 2 ‖ SN[8] ‖ SN[0:2].
func (r *rekeying) command() []byte { return []byte{0x1C, 0x04, 0, 0, r.sn[8], r.sn[0], r.sn[1]} }

// authorises tells whether the element derives with this MAC: ErrMIC if not.
func (e *Element) authorises(authMAC []byte) error {
	want := sha256.Sum256(append(bytes.Clone(e.rekey.key[:]), e.rekey.command()...))
	if subtle.ConstantTimeCompare(want[:], authMAC) != 1 {
		return fmt.Errorf("element %v: authorising MAC: %w", e.devEUI, ErrMIC)
	}
	return nil
}
