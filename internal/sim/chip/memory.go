package chip

import (
	"crypto/subtle"
	"encoding/binary"
)

// Zones, the two lowest bits of p1 of Read and Write.
const (
	zoneConfig = 0
	zoneOTP    = 1
	zoneData   = 2
)

const (
	flag32        = 0x80 // 32 bytes, not 4
	flagEncrypted = 0x40
)

// place is where in a zone a Read or Write works.
type place struct {
	zone, slot, at, size int
}

// place reads the address: words in bits 0 to 2, then blocks of 32 bytes in bits 3
// and 4; in the data zone slots in bits 3 to 6 and blocks from bit 8 on.
func (c *Chip) place(q request) (p place, s Status) {
	p = place{zone: int(q.p1 & 3), size: 4}
	word, block := int(q.p2&7), int(q.p2>>3)
	if q.p1&flag32 != 0 {
		p.size, word = 32, 0
	}
	length := 0
	switch p.zone {
	case zoneConfig:
		length = ConfigSize
	case zoneOTP:
		length = OTPSize
	case zoneData:
		if q.p2&0x80 != 0 || q.p2 >= 1<<12 {
			return p, BadParse
		}
		p.slot, block = int(q.p2>>3)&15, int(q.p2>>8)
		length = SlotSize(p.slot)
	default:
		return p, BadParse
	}
	if p.at = 32*block + 4*word; p.at >= length {
		return p, BadParse
	}
	return p, OK
}

// zone gives the bytes of a place: what is there of them, where a slot ends before.
func (c *Chip) zone(p place) []byte {
	z := c.nv.config[:]
	switch p.zone {
	case zoneOTP:
		z = c.nv.otp[:]
	case zoneData:
		z = c.nv.slot(p.slot)
	}
	return z[p.at:min(p.at+p.size, len(z))]
}

// read is Read: p1 says zone and size, p2 the address. A block that a slot's end cuts
// is filled with zeros.
func (c *Chip) read(q request) ([]byte, Status) {
	p, s := c.place(q)
	switch {
	case s != OK:
		return nil, s
	case q.p1&^(flag32|3) != 0 || len(q.data) != 0:
		return nil, BadParse
	case p.zone != zoneConfig && !c.nv.dataLocked():
		return nil, Refused
	case p.zone == zoneData:
		return c.readSlot(p)
	}
	return append(make([]byte, 0, p.size), c.zone(p)...), OK
}

func (c *Chip) readSlot(p place) ([]byte, Status) {
	conf := c.nv.slotConfig(p.slot)
	out := make([]byte, p.size)
	copy(out, c.zone(p))
	switch {
	case c.nv.keyConfig(p.slot).private():
		return nil, Refused
	case !conf.secret():
		if conf.encryptRead() {
			return nil, Refused
		}
		return out, OK
	case !conf.encryptRead() || p.size != 32 || p.at+32 > SlotSize(p.slot):
		return nil, Refused
	case !c.authorisedBy(conf.readKey()):
		return nil, Refused
	}
	subtle.XORBytes(out, out, c.ram.temp.value[:32])
	c.ram.temp = tempKey{}
	return out, OK
}

// write is Write: p1 says zone, size and whether the data is encrypted, p2 the
// address. Data is 4 or 32 bytes, and behind encrypted ones a MAC of 32.
func (c *Chip) write(q request) ([]byte, Status) {
	p, s := c.place(q)
	switch {
	case s != OK:
		return nil, s
	case q.p1&^(flag32|flagEncrypted|3) != 0 || len(q.data) != p.size && len(q.data) != p.size+32:
		return nil, BadParse
	case p.zone == zoneConfig:
		return nil, c.writeConfig(p, q)
	case !c.nv.configLocked():
		return nil, Refused
	case !c.nv.dataLocked():
		return nil, c.writeOpen(p, q)
	case p.zone == zoneOTP:
		return nil, Refused
	}
	return nil, c.writeSlot(p, q)
}

// writeConfig writes configuration before it is locked: all but the serial number and
// revision, and the word with the locks.
func (c *Chip) writeConfig(p place, q request) Status {
	switch {
	case len(q.data) != p.size:
		return BadParse
	case c.nv.configLocked(), p.at < atAddress, p.at <= atUserExtra && p.at+p.size > atUserExtra:
		return Refused
	}
	copy(c.zone(p), q.data)
	return OK
}

// writeOpen writes slots and one-time programmable bytes before they are locked:
// whole blocks, in the clear.
func (c *Chip) writeOpen(p place, q request) Status {
	switch {
	case len(q.data) != p.size:
		return BadParse
	case p.size != 32, p.zone == zoneData && (c.nv.keyConfig(p.slot).private() || c.nv.slotLocked(p.slot)):
		return Refused
	}
	copy(c.zone(p), q.data)
	return OK
}

func (c *Chip) writeSlot(p place, q request) Status {
	conf, k := c.nv.slotConfig(p.slot), c.nv.keyConfig(p.slot)
	public := k.kind() == typeP256 && !k.private() && k.pubInfo()
	switch {
	case k.private(), c.nv.slotLocked(p.slot):
		return Refused
	case conf.writeEncrypted():
		return c.writeSealed(p, q, conf.writeKey())
	case conf.writeInvalid():
		if public && validated(c.nv.slot(p.slot)) {
			return Refused
		}
	case !conf.writeAlways():
		return Refused
	}
	switch {
	case len(q.data) != p.size:
		return BadParse
	case p.size == 4 && conf.secret():
		return Refused
	}
	copy(c.zone(p), q.data)
	if public && p.at == 0 {
		// Whoever writes a public key has not validated it.
		c.nv.slot(p.slot)[0] = notValidated
	}
	return OK
}

// writeSealed writes a block that came encrypted under a session of TempKey, with the
// MAC that goes with it:
// SHA-256(TempKey ‖ 12 ‖ p1 ‖ p2 ‖ SN[8] ‖ SN[0:2] ‖ 25 zeros ‖ plaintext).
func (c *Chip) writeSealed(p place, q request, key int) Status {
	switch {
	case p.size != 32 || len(q.data) != 64 || p.at+32 > SlotSize(p.slot):
		return Refused
	case !c.authorisedBy(key):
		return Refused
	}
	temp := c.ram.temp.value[:32]
	plain := make([]byte, 32)
	subtle.XORBytes(plain, q.data[:32], temp)
	mac := c.digestOf(temp, q.header(), c.serial3(), zeros[:25], plain)
	c.ram.temp = tempKey{}
	if subtle.ConstantTimeCompare(mac[:], q.data[32:]) != 1 {
		return Miscompare
	}
	copy(c.zone(p), plain)
	clear(plain)
	return OK
}

// Modes of Lock.
const (
	lockConfig = 0
	lockData   = 1
	lockSlot   = 2
	lockNoCRC  = 0x80
)

// lock is Lock: p1 says what, and whether p2 is the CRC of what is to be locked. The
// CRC of the data zone goes over all slots and then the one-time programmable bytes.
//
// A configuration with the transport lock, which is not emulated, is not locked: whoever
// asks for it hears of that here, and takes no chip that is open for one that is not.
func (c *Chip) lock(q request) ([]byte, Status) {
	if len(q.data) != 0 || q.p1&0x40 != 0 || q.p1&3 != lockSlot && q.p1&0x3C != 0 {
		return nil, BadParse
	}
	summary := func(b []byte) bool { return q.p1&lockNoCRC != 0 || CRC(b) == q.p2 }
	switch q.p1 & 3 {
	case lockConfig:
		if c.nv.configLocked() || c.nv.transportLock() || !summary(c.nv.config[:]) {
			return nil, Refused
		}
		c.nv.config[atLockConfig] = 0
	case lockData:
		all := append(append([]byte{}, c.nv.data[:]...), c.nv.otp[:]...)
		if !c.nv.configLocked() || c.nv.dataLocked() || !summary(all) {
			return nil, Refused
		}
		c.nv.config[atLockValue] = 0
	case lockSlot:
		slot := int(q.p1>>2) & 15
		if !c.nv.configLocked() || !c.nv.keyConfig(slot).lockable() || c.nv.slotLocked(slot) {
			return nil, Refused
		}
		c.nv.config[atSlotLocked+slot/8] &^= 1 << (slot % 8)
	default:
		return nil, BadParse
	}
	return nil, OK
}

// counter is Counter: p1 0 reads counter p2, 1 counts it up by one. The answer is its
// value, little-endian.
func (c *Chip) counter(q request) ([]byte, Status) {
	if q.p1 > 1 || q.p2 > 1 || len(q.data) != 0 {
		return nil, BadParse
	}
	n := int(q.p2)
	v := c.nv.getCounter(n)
	if q.p1 == 1 {
		limit := uint32(maxCount)
		if n == 0 {
			limit = c.nv.useLimit()
		}
		if v >= limit {
			return nil, Refused
		}
		v++
		c.nv.setCounter(n, v)
	}
	return binary.LittleEndian.AppendUint32(nil, v), OK
}

// updateExtra is UpdateExtra: p1 0 writes a byte of the configuration for the user, 1
// the I²C address that holds from the next sleep on, shifted left by one, where ChipMode
// lets it; which stays once it is not 0 and the zone is locked.
func (c *Chip) updateExtra(q request) ([]byte, Status) {
	if q.p1 > 1 || len(q.data) != 0 {
		return nil, BadParse
	}
	b := &c.nv.config[atUserExtra+int(q.p1)]
	if c.nv.configLocked() && *b != 0 {
		return nil, Refused
	}
	*b = byte(q.p2)
	return nil, OK
}

// selfTest is SelfTest: p1 says which of random numbers, signatures, agreement, AES
// and SHA; the answer has a bit for each that failed. None does.
func (c *Chip) selfTest(q request) ([]byte, Status) {
	if q.p1&^0x3F != 0 || len(q.data) != 0 {
		return nil, BadParse
	}
	return nil, OK
}
