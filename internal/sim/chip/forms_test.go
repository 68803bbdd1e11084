package chip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
)

// What no command is: modes that do not exist, slots that do not, too much or too little
// data. Each is answered so before policy is asked, and changes nothing.
func TestNoSuchForm(t *testing.T) {
	c := closeData(t, provision(t, nil))
	must(t, c, OpNonce, nonceGiven|nonceWide, 0, randomBytes(64)...)
	must(t, c, OpNonce, nonceGiven|nonceWide|targetDigest, 0, randomBytes(64)...)
	must(t, c, OpSHA, shaStart, 0)
	before, ram := c.nv, c.ram.temp
	for _, f := range []struct {
		op   Opcode
		p1   byte
		p2   uint16
		data int
	}{
		{OpRead, 0x40, 0, 0}, {OpRead, 0x80, 0, 1}, {OpRead, 0x03, 0, 0}, {OpRead, 0x80, 4 << 3, 0}, {OpRead, 0x81, 2 << 3, 0},
		{OpRead, 0x82, 0x80, 0}, {OpRead, 0x82, 1 << 12, 0}, {OpRead, 0x82, 2 << 8, 0},
		{OpWrite, 0x92, 5 << 3, 32}, {OpWrite, 0x82, 5 << 3, 31}, {OpWrite, 0x02, 5 << 3, 32}, {OpWrite, 0x03, 0, 4}, {OpWrite, 0x82, 5 << 3, 64},
		{OpWrite, 0x80, 1 << 3, 64},
		{OpLock, 0x80, 0, 1}, {OpLock, 0xC0, 0, 0}, {OpLock, 0x84, 0, 0}, {OpLock, 0x83, 0, 0},
		{OpCounter, 2, 0, 0}, {OpCounter, 0, 2, 0}, {OpCounter, 0, 0, 1}, {OpUpdateExtra, 2, 0, 0}, {OpUpdateExtra, 0, 0, 1},
		{OpSelfTest, 0x80, 0, 0}, {OpSelfTest, 0x3B, 0, 1}, {OpInfo, 0, 0, 1}, {OpInfo, 1, 16, 0}, {OpInfo, 5, 0, 0}, {OpInfo, 4, 4, 0},
		{OpRandom, 2, 0, 0}, {OpRandom, 0, 1, 0}, {OpRandom, 0, 0, 20},
		{OpNonce, 2, 0, 20}, {OpNonce, 0, 0, 32}, {OpNonce, 0, 1, 20}, {OpNonce, 3, 1, 32}, {OpNonce, 3, 0, 64}, {OpNonce, 0xC3, 0, 32}, {OpNonce, 0xA3, 0, 64},
		{OpAES, 0x08, tempKeyID, 16}, {OpAES, 2, tempKeyID, 16}, {OpAES, 0, tempKeyID, 15}, {OpAES, 0, 16, 16}, {OpAES, 0x43, 0, 32}, {OpAES, 3, 0, 31},
		{OpKDF, 0x80, 0, 20}, {OpKDF, 0x20, 0, 3}, {OpKDF, 0x20, 0, 19}, {OpKDF, 0x60, 0, 20}, {OpKDF, 0x38, 0, 20}, {OpKDF, 0x22, 16, 20}, {OpKDF, 0x28, 16 << 8, 20},
		{OpGenDig, 6, 0, 0}, {OpGenDig, 0, 4, 0}, {OpGenDig, 1, 2, 0}, {OpGenDig, 2, 16, 0}, {OpGenDig, 2, 4, 3}, {OpGenDig, 3, 0, 31}, {OpGenDig, 4, 2, 0},
		{OpGenDig, 5, 16, 0}, {OpGenDig, 5, 0, 1},
		{OpMAC, 0x80, 4, 32}, {OpMAC, 0x08, 4, 32}, {OpMAC, 0, 4, 31}, {OpMAC, 5, 4, 32}, {OpMAC, 0, 16, 32},
		{OpCheckMac, 0x40, 4, 77}, {OpCheckMac, 0, 4, 76}, {OpCheckMac, 0, 16, 77},
		{OpDeriveKey, 1, 3, 0}, {OpDeriveKey, 4, 3, 31}, {OpDeriveKey, 4, 16, 0},
		{OpGenKey, 1, 0, 0}, {OpGenKey, 4, 16, 0}, {OpGenKey, 4, 0, 1}, {OpGenKey, 0, tempKeyID, 0}, {OpGenKey, 0x10, 14, 0}, {OpGenKey, 0x10, 16, 3},
		{OpSign, 0x82, 2, 0}, {OpSign, 0x80, 16, 0}, {OpSign, 0x80, 2, 1},
		{OpVerify, 1, 11, 64}, {OpVerify, 4, 11, 64}, {OpVerify, 0x08, 11, 64}, {OpVerify, 0, 11, 63}, {OpVerify, 0, 11, 65}, {OpVerify, 0, 16, 64},
		{OpVerify, 2, 4, 64}, {OpVerify, 2, 0, 128}, {OpVerify, 3, 14, 64}, {OpVerify, 0x23, 14, 83}, {OpVerify, 3, 16, 83},
		{OpECDH, 0x10, 2, 64}, {OpECDH, 0x0C, 2, 63}, {OpECDH, 0x0C, 16, 64}, {OpECDH, 0x01, 0, 64}, {OpECDH, 0x05, 0, 64},
		{OpPrivWrite, 0x80, 2, 36}, {OpPrivWrite, 0, 2, 35}, {OpPrivWrite, 0, 16, 36},
		{OpSHA, 5, 0, 0}, {OpSHA, 0, 0, 1}, {OpSHA, 1, 63, 63}, {OpSHA, 1, 0, 64}, {OpSHA, 2, 1, 2}, {OpSHA, 2, 64, 64}, {OpSHA, 3, 16, 0}, {OpSHA, 3, 11, 1},
		{OpSHA, 4, 16, 0}, {OpSHA, 6, 0, 1}, {OpSHA, 7, 0, 41}, {OpSHA, 7, 43, 43},
		{OpSecureBoot, 4, 0, 96}, {OpSecureBoot, 5, 1, 96}, {OpSecureBoot, 5, 0, 32}, {OpSecureBoot, 6, 0, 96}, {OpSecureBoot, 0x0D, 0, 96},
		{Opcode(0x11), 0, 0, 0}, {Opcode(0), 0, 0, 0},
	} {
		refused(t, c, BadParse, f.op, f.p1, f.p2, make([]byte, f.data)...)
	}
	if c.nv != before || c.ram.temp != ram || c.ram.authorised != 0 {
		t.Error("something was changed")
	}
	// A count that is not that of a packet is a damaged one.
	for _, p := range [][]byte{{}, {7}, {6, 0x30, 0, 0, 0, 0}, {8, 0x30, 0, 0, 0, 0x03, 0x5D}} {
		if got := c.Execute(p); !bytes.Equal(got, BadCRC.Packet()) {
			t.Errorf("%x: got %x", p, got)
		}
	}
}

// More of KDF than TLS and LoRaWAN take: the other halves and registers.
func TestKDFPlaces(t *testing.T) {
	c := provision(t, func(m *Image) { m.config[atKdfIvLoc] = 1 }) // its two bytes are zeros
	secret := randomBytes(32)
	must(t, c, OpWrite, writeSlot, 4<<3, secret...)
	closeData(t, c)
	wide, message := randomBytes(64), []byte{9, 0, 0, 8, 7, 6}
	hkdf := append([]byte{messageInInput, 0, 0, byte(len(message))}, message...)
	must(t, c, OpNonce, nonceGiven, 0, wide[:32]...)
	refused(t, c, Refused, OpKDF, kdfHKDF|kdfFromTempUpper|kdfToAlt, 0, hkdf...) // TempKey has no second half
	must(t, c, OpNonce, nonceGiven|nonceWide, 0, wide...)
	must(t, c, OpKDF, kdfHKDF|kdfFromTempUpper|kdfToAlt, 0, hkdf...)
	if want := hmacOf(wide[32:], message); !c.ram.altValid || !bytes.Equal(c.ram.alt[:], want) {
		t.Error("from the second half of TempKey to the alternate key")
	}
	must(t, c, OpNonce, nonceGiven, 0, wide[:32]...)
	must(t, c, OpKDF, kdfHKDF|kdfFromSlot|kdfToTempUpper, 4, hkdf...)
	if want := append(bytes.Clone(wide[:32]), hmacOf(secret, message)...); !c.ram.temp.wide || !bytes.Equal(c.ram.temp.value[:], want) {
		t.Error("to the second half of TempKey")
	}
	// 64 bytes of PRF fit neither.
	prf := append([]byte{1, 1, 0, byte(len(message))}, message...)
	refused(t, c, Refused, OpKDF, kdfPRF|kdfToAlt, 0, prf...)
	refused(t, c, Refused, OpKDF, kdfPRF|kdfToTempUpper, 0, prf...)
	// An IV stands where the configuration says, or the key is not used.
	withIV := append([]byte{messageWithIV, 0, 0, byte(len(message))}, message...)
	must(t, c, OpKDF, kdfHKDF|kdfFromSlot|kdfToTemp, 4, withIV...)
	if !bytes.Equal(c.ram.temp.value[:32], hmacOf(secret, message)) {
		t.Error("with its IV")
	}
	for _, wrong := range [][]byte{{9, 0, 1, 8, 7, 6}, {9, 0}} {
		data := append([]byte{messageWithIV, 0, 0, byte(len(wrong))}, wrong...)
		refused(t, c, Refused, OpKDF, kdfHKDF|kdfFromSlot|kdfToTemp, 4, data...)
	}
	// A message is no secret, and a key of another kind no key.
	refused(t, c, Refused, OpKDF, kdfHKDF|kdfFromSlot|kdfToTemp, 4, messageInSlot, 4, 0, 16)
	refused(t, c, BadParse, OpKDF, kdfHKDF|kdfFromSlot|kdfToTemp, 4, messageInSlot, 5, 0, 40)
	refused(t, c, Refused, OpKDF, kdfAES|kdfFromSlot|kdfToTemp, 4, make([]byte, 20)...)
	refused(t, c, Refused, OpKDF, kdfHKDF|kdfFromSlot|kdfToTemp, 0, hkdf...)
	refused(t, c, Refused, OpKDF, kdfHKDF|kdfFromSlot|kdfToSlot, 0x0904, hkdf...) // 9 is no target
}

// MAC and CheckMac take one-time programmable bytes where they are asked to; SHA takes
// the public key of a slot.
func TestHashedMemory(t *testing.T) {
	c := provision(t, nil)
	key, otp, challenge := randomBytes(32), randomBytes(32), randomBytes(32)
	must(t, c, OpWrite, writeSlot, 4<<3, key...)
	must(t, c, OpWrite, 0x81, 0, otp...)
	_, public := newKey(t)
	writePublic(t, c, 11, public)
	closeData(t, c)
	sn, zero := c.Serial(), make([]byte, 11)
	for mode, bytesOfOTP := range map[byte][]byte{
		0x20: append(bytes.Clone(otp[:8]), 0, 0, 0), 0x10: otp[:11], 0x30: otp[:11], 0x00: zero,
	} {
		want := sum(key, challenge, []byte{byte(OpMAC), mode, 4, 0}, bytesOfOTP, sn[8:], zero[:4], sn[:2], zero[:2])
		if got := must(t, c, OpMAC, mode, 4, challenge...); !bytes.Equal(got, want) {
			t.Errorf("MAC %02x", mode)
		}
	}
	other := randomBytes(13)
	response := sum(key, challenge, other[:4], otp[:8], other[4:7], sn[8:], other[7:11], sn[:2], other[11:])
	refused(t, c, Miscompare, OpCheckMac, 0, 4, bytes.Join([][]byte{challenge, response, other}, nil)...)
	must(t, c, OpCheckMac, 0x20, 4, bytes.Join([][]byte{challenge, response, other}, nil)...)
	if got := must(t, c, OpInfo, infoState, 0); got[1] != 1<<2|4<<3 {
		t.Errorf("authorised by slot 4: the state is %x", got)
	}
	must(t, c, OpSHA, shaStart, 0)
	must(t, c, OpSHA, shaPublic, 11)
	if got := must(t, c, OpSHA, shaEnd|shaAnswerOnly, 0); !bytes.Equal(got, sum(public)) {
		t.Error("SHA of a public key")
	}
	must(t, c, OpSHA, shaStart, 0)
	refused(t, c, Refused, OpSHA, shaPublic, 4) // no public key
}

// What the configuration asks of a key is asked of every command that uses it.
func TestAskedOfKeys(t *testing.T) {
	c := provision(t, func(m *Image) {
		m.configure(1, 0x448F, 0x005C)      // wants a random nonce
		m.configure(3, 0xB18F, 0x001C)      // derived from 1, with its MAC
		m.configure(6, 0x208F, 0x0490)      // no private key; wants the host authorised by 4
		m.configure(0, 0x2083, 0x04B3)      // private, signs; wants the host authorised by 4
		m.configure(5, 0x0FA0, 0x001C)      // its uses are counted
		m.config[atCountMatch] = 0xA<<4 | 1 // up to what slot 10 says
	})
	key, parent := randomBytes(32), randomBytes(32)
	must(t, c, OpWrite, writeSlot, 4<<3, key...)
	must(t, c, OpWrite, writeSlot, 1<<3, parent...)
	limit := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 9), 8)
	must(t, c, OpWrite, writeSlot, 10<<3, append(limit, make([]byte, 24)...)...)
	closeData(t, c)
	// DeriveKey mixes a key that wants a random nonce with none that the host gave.
	mac := func(mode byte) []byte { return sum(parent, []byte{byte(OpDeriveKey), mode, 3, 0}, sn3(c)) }
	must(t, c, OpNonce, nonceGiven, 0, randomBytes(32)...)
	refused(t, c, Refused, OpDeriveKey, deriveGiven, 3, mac(deriveGiven)...)
	randomNonce(t, c)
	must(t, c, OpDeriveKey, 0, 3, mac(0)...)
	// A private key is drawn and used by who is authorised.
	refused(t, c, Refused, OpGenKey, genPrivate, 0)
	sn, rest := c.Serial(), make([]byte, 13)
	authorise := func() {
		challenge := randomBytes(32)
		response := sum(key, challenge, rest[:4], zeros[:8], rest[:3], sn[8:], rest[:4], sn[:2], rest[:2])
		must(t, c, OpCheckMac, 0, 4, bytes.Join([][]byte{challenge, response, rest}, nil)...)
	}
	authorise()
	must(t, c, OpGenKey, genPrivate, 0)
	must(t, c, OpNonce, nonceGiven, 0, randomBytes(32)...)
	must(t, c, OpSign, signExternal, 0)
	c.Sleep()
	must(t, c, OpNonce, nonceGiven, 0, randomBytes(32)...)
	refused(t, c, Refused, OpSign, signExternal, 0)
	// A limit that does not stand there twice is none: the key is of no use.
	refused(t, c, Refused, OpMAC, 0, 5, randomBytes(32)...)
	// No key agrees that is not to.
	_, theirs := newKey(t)
	authorise()
	refused(t, c, Refused, OpECDH, ecdhOut, 0, theirs...)
}

// A chip whose random numbers are ill says so, and what it was to make of them is not
// there.
func TestIllRandomNumbers(t *testing.T) {
	c := provision(t, nil)
	must(t, c, OpWrite, writeSlot, 4<<3, randomBytes(32)...)
	closeData(t, c)
	c.rand = bytes.NewReader(nil)
	refused(t, c, Health, OpRandom, 0, 0)
	refused(t, c, Health, OpNonce, nonceRandom, 0, make([]byte, 20)...)
	if c.ram.temp.valid {
		t.Error("TempKey holds a nonce")
	}
	must(t, c, OpNonce, nonceGiven, 0, randomBytes(32)...)
	refused(t, c, Health, OpKDF, kdfAES|kdfOutEncrypted, 0, make([]byte, 20)...)
}

// Names and errors of what travels; nothing prints a chip's memory.
func TestTexts(t *testing.T) {
	for op, name := range opcodeText {
		if got, known := ParseOpcode(name); !known || got != op || op.String() != name {
			t.Errorf("%s is %v", name, got)
		}
	}
	if _, known := ParseOpcode("Explode"); known || Opcode(1).String() != "no command" {
		t.Error("a command that is none")
	}
	seen := map[string]bool{}
	for _, s := range []Status{OK, Miscompare, BadParse, ECCFault, SelfTested, Health, Refused, Awake, Watchdog, BadCRC, 0x42} {
		seen[s.Error()] = true
	}
	if len(seen) != 11 {
		t.Errorf("statuses have %d texts", len(seen))
	}
	c := tnglora(t, Options{})
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %x %s", c, c, c, c, c), fmt.Sprintf("%v %+v %#v %x %s", &c.nv, &c.nv, &c.nv, &c.nv, &c.nv)} {
		if text != "chip 01238EBE20080BD527 chip 01238EBE20080BD527 chip 01238EBE20080BD527 chip 01238EBE20080BD527 chip 01238EBE20080BD527" {
			t.Errorf("it prints %s", text)
		}
	}
	var m Image
	b, err := c.nv.AppendBinary(nil)
	if err = errors.Join(err, m.UnmarshalBinary(b)); err != nil || m != c.nv || m.UnmarshalBinary(b[1:]) == nil || m.SetConfig(127, b[:2]) == nil {
		t.Errorf("binary form: %v", err)
	}
}
