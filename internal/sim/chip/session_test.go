package chip

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

// dig is a GenDig that mixes what everybody knows.
type dig struct {
	zone byte
	p2   uint16
	data []byte
}

// otherDigs are those of all zones but the slots', so that TempKey names this slot where
// it can name one.
func otherDigs(slot uint16) []dig {
	return []dig{{digConfig, 0, nil}, {digOTP, 0, nil}, {digNonce, 0, randomBytes(32)}, {digCounter, 0, nil}, {digKeyConfig, slot, nil}}
}

// sealedWrite is a block and its MAC under what TempKey is.
func sealedWrite(c *Chip, slot byte, plain []byte) []byte {
	temp := c.ram.temp.value[:32]
	return append(xor(plain, temp), sum(temp, []byte{byte(OpWrite), 0xC2, slot << 3, 0}, sn3(c), zeros[:25], plain)...)
}

// sealedKey is a private key and its MAC under what TempKey is.
func sealedKey(c *Chip, slot byte, scalar []byte) []byte {
	temp, plain := c.ram.temp.value[:32], append(make([]byte, 4), scalar...)
	cipher := append(xor(plain[:32], temp), xor(plain[32:], sum(temp))...)
	return append(cipher, sum(temp, []byte{byte(OpPrivWrite), flagEncrypted, slot, 0}, sn3(c), zeros[:21], plain)...)
}

// Whoever knows no key has no session: of GenDig's zones only that of a slot's key makes
// one, whatever slot TempKey names. What is tried is right in all else.
func TestNoSessionWithoutTheKey(t *testing.T) {
	// On TNGLORA 2 is read under 14 and 13 is written under itself.
	lora := tnglora(t, Options{})
	withIOKey(t, lora)
	for _, d := range otherDigs(14) {
		randomNonce(t, lora)
		must(t, lora, OpGenDig, d.zone, d.p2, d.data...)
		refused(t, lora, Refused, OpRead, readSlot, 2<<3)
	}
	before := lora.nv
	scalar, _ := newKey(t)
	for _, d := range otherDigs(13) {
		randomNonce(t, lora)
		must(t, lora, OpGenDig, d.zone, d.p2, d.data...)
		refused(t, lora, Refused, OpWrite, 0xC2, 13<<3, sealedWrite(lora, 13, randomBytes(32))...)
		refused(t, lora, Refused, OpPrivWrite, flagEncrypted, 1, sealedKey(lora, 1, scalar)...)
	}
	if lora.nv != before {
		t.Error("a slot changed")
	}

	// On a chip configured for it 7 is read and written under the key, and 2 written. Key 0 is the
	// slot that TempKey names where no slot went into it.
	for _, slot := range []uint16{0, 4} {
		t.Run(fmt.Sprint("under ", slot), func(t *testing.T) {
			c := provision(t, func(m *Image) {
				for at, v := range map[uint16]uint16{slot: 0x0F8F, 7: 0x40C0 | slot<<8 | slot, 2: 0x40C7 | slot<<8} {
					binary.LittleEndian.PutUint16(m.config[atSlotConfig+2*at:], v)
				}
				binary.LittleEndian.PutUint16(m.config[atKeyConfig+2*slot:], 0x001C)
			})
			key := randomBytes(32)
			must(t, c, OpWrite, writeSlot, slot<<3, key...)
			must(t, c, OpWrite, writeSlot, 7<<3, randomBytes(32)...)
			must(t, c, OpPrivWrite, 0, 2, append(make([]byte, 4), scalar...)...)
			closeData(t, c)
			before := c.nv
			for _, d := range otherDigs(slot) {
				for _, had := range []bool{false, true} {
					temp := randomNonce(t, c)
					if had { // a session, which does not go on: its key went in before
						session(t, c, slot, key, temp)
					}
					must(t, c, OpGenDig, d.zone, d.p2, d.data...)
					refused(t, c, Refused, OpRead, readSlot, 7<<3)
					refused(t, c, Refused, OpWrite, 0xC2, 7<<3, sealedWrite(c, 7, randomBytes(32))...)
					refused(t, c, Refused, OpPrivWrite, flagEncrypted, 2, sealedKey(c, 2, scalar)...)
				}
			}
			if c.nv != before {
				t.Error("a slot changed")
			}
			// With the key all three go.
			next := randomBytes(32)
			other, public := newKey(t)
			session(t, c, slot, key, randomNonce(t, c))
			must(t, c, OpWrite, 0xC2, 7<<3, sealedWrite(c, 7, next)...)
			temp := session(t, c, slot, key, randomNonce(t, c))
			if got := must(t, c, OpRead, readSlot, 7<<3); !bytes.Equal(xor(got, temp), next) {
				t.Error("another block stands there")
			}
			session(t, c, slot, key, randomNonce(t, c))
			must(t, c, OpPrivWrite, flagEncrypted, 2, sealedKey(c, 2, other)...)
			if !bytes.Equal(must(t, c, OpGenKey, 0, 2), public) {
				t.Error("another private key stands there")
			}
		})
	}
}
