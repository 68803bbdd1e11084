package chip

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
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

// No key is the message of HKDF: one byte of it under the key of zeros would tell that
// byte to whoever tries all 256.
func TestNoKeyIsTheMessageOfHKDF(t *testing.T) {
	lora := tnglora(t, Options{})
	withIOKey(t, lora)
	c := closeData(t, provision(t, func(m *Image) {
		binary.LittleEndian.PutUint16(m.config[atSlotConfig+2*13:], 0x0F1F) // NoMac
		binary.LittleEndian.PutUint16(m.config[atKeyConfig+2*13:], 0x003C)
		binary.LittleEndian.PutUint16(m.config[atKeyConfig+2*10:], 0x0038) // AES, and nothing else that keeps it
	}))
	for _, of := range []struct {
		c     *Chip
		out   byte
		key   uint16
		slots []byte
	}{
		{lora, kdfOutEncrypted, 14, []byte{0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 14, 15}},
		{c, kdfOut, 4, []byte{0, 1, 3, 7, 10, 13}}, // private, secret, AES, NoMac
	} {
		must(t, of.c, OpKDF, kdfHKDF|kdfFromSlot|of.out, of.key, messageInInput, 0, 0, 1, 0)
		for _, slot := range of.slots {
			for _, length := range []byte{1, 32} {
				for _, key := range []byte{0, keyIsZeros} {
					details := []byte{messageInSlot | key, slot, 0, length}
					refused(t, of.c, Refused, OpKDF, kdfHKDF|kdfFromSlot|of.out, of.key, details...)
					refused(t, of.c, Refused, OpKDF, kdfHKDF|kdfFromSlot|kdfToTemp, of.key, details...)
				}
			}
		}
	}
	// What everybody may read is one.
	for _, slot := range []byte{8, 9, 10} {
		h := hmac.New(sha256.New, zeros[:32])
		h.Write(must(t, lora, OpRead, readSlot, uint16(slot)<<3))
		must(t, lora, OpKDF, kdfHKDF|kdfFromSlot|kdfToTemp, 0, messageInSlot|keyIsZeros, slot, 0, 32)
		if !bytes.Equal(lora.ram.temp.value[:32], h.Sum(nil)) {
			t.Errorf("HKDF of slot %d", slot)
		}
	}
}

// NoMac holds for MACs of every kind, and for what the key went into: slot 13 serves to
// check and to write, and the chip shows nothing that its holder could show.
func TestNoMacIsNoHMAC(t *testing.T) {
	c := tnglora(t, Options{})
	io, k13 := withIOKey(t, c), randomBytes(32)
	if err := c.nv.SetSlot(13, k13); err != nil {
		t.Fatal(err)
	}
	under := func(key uint16) []byte { // a context of a plain hash that says that it is an HMAC
		must(t, c, OpSHA, shaStart, 0)
		must(t, c, OpSHA, shaUpdate, 64, randomBytes(64)...)
		ctx := must(t, c, OpSHA, shaReadContext, 0)
		binary.LittleEndian.PutUint16(ctx, key)
		return ctx
	}
	refused(t, c, Refused, OpSHA, shaWriteContext, 0, under(13)...)
	must(t, c, OpSHA, shaWriteContext, 0, under(14)...)
	c.Sleep()
	refused(t, c, Refused, OpSHA, shaHMACStart, 13)
	refused(t, c, Refused, OpSHA, shaEnd, 0) // nothing was begun
	refused(t, c, Refused, OpKDF, kdfHKDF|kdfFromSlot|kdfOutEncrypted, 13, messageInInput, 0, 0, 1, 0)
	refused(t, c, Refused, OpKDF, kdfPRF|kdfFromSlot|kdfOutEncrypted, 13, 1, 0, 0, 1, 0)

	other, given := []byte{0x15, 2, 13, 0}, randomBytes(20)
	mixed := func() []byte {
		temp := randomNonce(t, c)
		must(t, c, OpGenDig, digSlot, 13, other...)
		return sum(k13, other, sn3(c), zeros[:25], temp)
	}
	steps := map[string]func(){
		"nothing":    func() {},
		"a nonce":    func() { must(t, c, OpNonce, 0, nonceCalculate, given...) },
		"two slots":  func() { session(t, c, 14, io, nil); session(t, c, 14, io, nil) },
		"public key": func() { must(t, c, OpGenKey, genDigest, 1) },
	}
	for _, d := range otherDigs(14) {
		steps["zone "+string('0'+rune(d.zone))] = func() { must(t, c, OpGenDig, d.zone, d.p2, d.data...) }
	}
	deviceKey(t, c)
	for name, step := range steps {
		mixed()
		step()
		if got := must(t, c, OpInfo, infoState, 0); got[0]&0x80 == 0 {
			t.Errorf("after %s: the flag is gone: %x", name, got)
		}
		refused(t, c, Refused, OpMAC, macTempFirst|macTempSecond, 14)
		refused(t, c, Refused, OpMAC, macTempSecond, 14)
		refused(t, c, Refused, OpMAC, macTempFirst, 14, randomBytes(32)...)
		refused(t, c, Refused, OpSHA, shaHMACStart, tempKeyID)
	}
	randomNonce(t, c) // begins anew
	must(t, c, OpSHA, shaHMACStart, tempKeyID)
	must(t, c, OpMAC, macTempFirst|macTempSecond, 14)

	// What 13 is for goes: to check a MAC, and to write under itself.
	challenge, sn, rest := randomBytes(32), c.Serial(), make([]byte, 13)
	answer := sum(k13, challenge, rest[:4], zeros[:8], rest[:3], sn[8:], rest[:4], sn[:2], rest[:2])
	must(t, c, OpCheckMac, 0, 13, bytes.Join([][]byte{challenge, answer, rest}, nil)...)
	next, temp := randomBytes(32), mixed()
	if !bytes.Equal(temp, c.ram.temp.value[:32]) {
		t.Fatal("another TempKey")
	}
	must(t, c, OpWrite, 0xC2, 13<<3, sealedWrite(c, 13, next)...)
	if !bytes.Equal(c.nv.slot(13)[:32], next) {
		t.Error("another key stands there")
	}
}
