package chip

import (
	"crypto/subtle"
	"encoding/binary"
)

// Zones of GenDig.
const (
	digConfig    = 0
	digOTP       = 1
	digSlot      = 2
	digNonce     = 3 // a nonce that both sides have
	digCounter   = 4
	digKeyConfig = 5

	nonceFirst = 0x8000 // of p2 with digNonce: TempKey goes first
)

// genDig is GenDig: it puts a value that both sides know into TempKey, which becomes
// SHA-256(value 32 ‖ 15 ‖ p1 ‖ p2 ‖ SN[8] ‖ SN[0:2] ‖ 25 zeros ‖ TempKey 32). With a
// slot that MAC may not use, four bytes that the host gives stand in place of opcode
// and parameters.
func (c *Chip) genDig(q request) ([]byte, Status) {
	if !c.ram.temp.valid {
		return nil, Refused
	}
	header, tail := q.header(), zeros[:25]
	first, last := []byte(nil), c.ram.temp.value[:32]
	next := tempKey{valid: true, given: c.ram.temp.given, genDig: true}
	length := 0
	switch q.p1 {
	case digConfig, digOTP:
		block, s := c.digBlock(q)
		if s != OK {
			return nil, s
		}
		first = block
	case digSlot:
		key, s := c.digKey(q, &next)
		if s != OK {
			return nil, s
		}
		first, next.session = key, true
		if length = len(q.data); next.noMac {
			header = q.data
		}
	case digNonce:
		if first, length = q.data, 32; len(q.data) != length {
			return nil, BadParse
		}
		if q.p2&nonceFirst != 0 {
			first, last = last, first
		}
		header[3] = 0
	case digCounter, digKeyConfig:
		configured, s := c.digTail(q)
		if s != OK {
			return nil, s
		}
		first, tail = zeros[:32], configured
		if q.p1 == digKeyConfig {
			next.slot = int(q.p2)
		}
	default:
		return nil, BadParse
	}
	if len(q.data) != length {
		return nil, BadParse
	}
	sum := c.digestOf(first, header, c.serial3(), tail, last)
	next.noMac = next.noMac || c.ram.temp.noMac
	c.ram.temp = next
	copy(c.ram.temp.value[:], sum[:])
	return nil, OK
}

// digBlock gives 32 bytes of configuration, or of the one-time programmable zone.
func (c *Chip) digBlock(q request) ([]byte, Status) {
	zone, locked := c.nv.config[:], c.nv.configLocked()
	if q.p1 == digOTP {
		zone, locked = c.nv.otp[:], c.nv.dataLocked()
	}
	at := 32 * int(q.p2)
	switch {
	case at+32 > len(zone):
		return nil, BadParse
	case !locked:
		return nil, Refused
	}
	return zone[at : at+32], OK
}

// digKey gives the key of a slot for GenDig. A key that wants a random nonce is not
// mixed with one that the host gave.
func (c *Chip) digKey(q request, next *tempKey) ([]byte, Status) {
	slot, s := q.key()
	if s != OK {
		return nil, s
	}
	next.slot, next.noMac = slot, c.nv.slotConfig(slot).noMac()
	switch {
	case len(q.data) != 0 && len(q.data) != 4, next.noMac && len(q.data) != 4:
		return nil, BadParse
	case c.nv.keyConfig(slot).reqRandom() && c.ram.temp.given:
		return nil, Refused
	}
	return c.symmetric(slot)
}

// digTail gives what stands in place of the 25 zeros: a counter's value, or what is
// configured of a slot and whether it is open.
func (c *Chip) digTail(q request) ([]byte, Status) {
	tail := make([]byte, 25)
	if !c.nv.configLocked() {
		return nil, Refused
	}
	if q.p1 == digCounter {
		if q.p2 > 1 {
			return nil, BadParse
		}
		binary.LittleEndian.PutUint32(tail[1:], c.nv.getCounter(int(q.p2)))
		return tail, OK
	}
	slot, s := q.key()
	if s != OK {
		return nil, s
	}
	binary.LittleEndian.PutUint16(tail[1:], uint16(c.nv.slotConfig(slot)))
	binary.LittleEndian.PutUint16(tail[3:], uint16(c.nv.keyConfig(slot)))
	tail[5] = c.openBit(slot)
	return tail, OK
}

// openBit is 1 for a slot that is not locked.
func (c *Chip) openBit(slot int) byte {
	if c.nv.slotLocked(slot) {
		return 0
	}
	return 1
}

// Modes of MAC and CheckMac.
const (
	macTempSecond = 0x01 // the second block is TempKey, else the challenge
	macTempFirst  = 0x02 // the first is TempKey, else the slot's key
	macGiven      = 0x04 // TempKey's SourceFlag, which must be so
	macOTP88      = 0x10
	macOTP64      = 0x20
	macSerial     = 0x40
)

// mac is MAC: SHA-256(key 32 ‖ challenge 32 ‖ 08 ‖ p1 ‖ p2 ‖ OTP[0:8] ‖ OTP[8:11] ‖
// SN[8] ‖ SN[4:8] ‖ SN[0:2] ‖ SN[2:4]); what p1 does not ask for is zeros.
func (c *Chip) mac(q request) ([]byte, Status) {
	challenge := 0
	if q.p1&macTempSecond == 0 {
		challenge = 32
	}
	if q.p1&0x88 != 0 || len(q.data) != challenge {
		return nil, BadParse
	}
	if s := c.tempForMAC(q.p1); s != OK {
		return nil, s
	}
	if c.ram.temp.noMac && q.p1&(macTempFirst|macTempSecond) != 0 {
		return nil, Refused
	}
	first, second := c.ram.temp.value[:32], c.ram.temp.value[:32]
	if challenge > 0 {
		second = q.data
	}
	if q.p1&macTempFirst == 0 {
		slot, s := q.key()
		if s != OK {
			return nil, s
		}
		if c.nv.slotConfig(slot).noMac() {
			return nil, Refused
		}
		if first, s = c.symmetric(slot); s != OK {
			return nil, s
		}
	}
	otp, sn := make([]byte, 11), c.nv.Serial()
	switch {
	case q.p1&macOTP88 != 0:
		copy(otp, c.nv.otp[:11])
	case q.p1&macOTP64 != 0:
		copy(otp, c.nv.otp[:8])
	}
	middle, end := zeros[:4], zeros[:2]
	if q.p1&macSerial != 0 {
		middle, end = sn[4:8], sn[2:4]
	}
	sum := c.digestOf(first, second, q.header(), otp, sn[8:], middle, sn[:2], end)
	return sum[:], OK
}

// tempForMAC tells whether TempKey is as a mode that uses it says.
func (c *Chip) tempForMAC(mode byte) Status {
	if mode&(macTempFirst|macTempSecond) == 0 {
		return OK
	}
	if !c.ram.temp.valid || c.ram.temp.given != (mode&macGiven != 0) {
		return Refused
	}
	return OK
}

// checkMac is CheckMac: data is the host's challenge 32, its response 32, and 13 bytes
// that it hashed in place of parameters and serial number. The response must be
// SHA-256(key 32 ‖ challenge 32 ‖ other[0:4] ‖ OTP[0:8] or zeros ‖ other[4:7] ‖ SN[8] ‖
// other[7:11] ‖ SN[0:2] ‖ other[11:13]). Whoever shows that is authorised by the slot.
// In modes 01 and 05 a key may be copied to TempKey then: see copyKey.
func (c *Chip) checkMac(q request) ([]byte, Status) {
	if q.p1&^(macTempFirst|macTempSecond|macGiven|macOTP64) != 0 || len(q.data) != 77 {
		return nil, BadParse
	}
	if s := c.tempForMAC(q.p1); s != OK {
		return nil, s
	}
	challenge, answer, other := q.data[:32], q.data[32:64], q.data[64:]
	if q.p1&macTempSecond != 0 {
		challenge = c.ram.temp.value[:32]
	}
	authorised, key := 0, c.ram.temp.value[:32]
	if q.p1&macTempFirst == 0 {
		slot, s := q.key()
		if s != OK {
			return nil, s
		}
		if key, s = c.symmetric(slot); s != OK {
			return nil, s
		}
		authorised = slot + 1
	}
	otp := zeros[:8]
	if q.p1&macOTP64 != 0 {
		otp = c.nv.otp[:8]
	}
	sn := c.nv.Serial()
	sum := c.digestOf(key, challenge, other[:4], otp, other[4:7], sn[8:], other[7:11], sn[:2], other[11:13])
	c.ram.temp, c.ram.authorised = tempKey{}, 0
	if subtle.ConstantTimeCompare(sum[:], answer) != 1 {
		return nil, Miscompare
	}
	c.ram.authorised = authorised
	if q.p1&^macGiven == macTempSecond {
		c.copyKey(int(q.p2) | 1)
	}
	return nil, OK
}

// copyKey has TempKey become the key of a slot, as after a password that was checked:
// the slot behind that of the password, or that itself where its number is odd. Only
// one whose ReadKey is 0 is copied (data sheet of the ATSHA204A, §8.5.5; this chip has
// no CheckMacSource); else nothing happens.
func (c *Chip) copyKey(slot int) {
	if c.nv.slotConfig(slot).readKey() != 0 || c.nv.keyConfig(slot).private() || c.use(slot) != OK {
		return
	}
	c.ram.temp = tempKey{valid: true, given: true, noMac: c.nv.slotConfig(slot).noMac(), slot: slot}
	copy(c.ram.temp.value[:], c.nv.slot(slot)[:32])
}

// deriveGiven is bit 2 of p1 of DeriveKey: TempKey's SourceFlag, which must be so.
const deriveGiven = 0x04

// deriveKey is DeriveKey: slot p2 becomes SHA-256(parent 32 ‖ 1C ‖ p1 ‖ p2 ‖ SN[8] ‖
// SN[0:2] ‖ 25 zeros ‖ TempKey 32). The parent is the slot itself or the one that its
// configuration names; where that asks for it, data is SHA-256(parent ‖ 1C ‖ p1 ‖ p2 ‖
// SN[8] ‖ SN[0:2]).
func (c *Chip) deriveKey(q request) ([]byte, Status) {
	target, s := q.key()
	if s != OK {
		return nil, s
	}
	if q.p1&^deriveGiven != 0 || len(q.data) != 0 && len(q.data) != 32 {
		return nil, BadParse
	}
	conf, k := c.nv.slotConfig(target), c.nv.keyConfig(target)
	temp := &c.ram.temp
	switch {
	case !temp.valid, temp.given != (q.p1&deriveGiven != 0):
		return nil, Refused
	case k.private(), !conf.derives(), c.nv.slotLocked(target), conf.authorises() != (len(q.data) == 32):
		return nil, Refused
	}
	parent := target
	if conf.creates() {
		parent = conf.writeKey()
	}
	if pk := c.nv.keyConfig(parent); pk.private() || pk.reqRandom() && temp.given {
		return nil, Refused
	}
	if s := c.use(parent); s != OK {
		return nil, s
	}
	key, sn := c.nv.slot(parent)[:32], c.serial3()
	mac := c.digestOf(key, q.header(), sn)
	if conf.authorises() && subtle.ConstantTimeCompare(mac[:], q.data) != 1 {
		return nil, Miscompare
	}
	derived := c.digestOf(key, q.header(), sn, zeros[:25], temp.value[:32])
	copy(c.nv.slot(target), derived[:])
	clear(derived[:])
	*temp = tempKey{}
	return nil, OK
}
