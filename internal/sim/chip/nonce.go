package chip

import (
	"bytes"
	"crypto/sha256"
	"io"
)

// zeros is what hashes are filled up with.
var zeros [64]byte

// digestOf is SHA-256 over all parts.
func (c *Chip) digestOf(parts ...[]byte) (sum [32]byte) {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(sum[:0])
	return sum
}

// serial3 gives the bytes of the serial number that most hashes have: SN[8] ‖
// SN[0:2].
func (c *Chip) serial3() []byte {
	sn := c.nv.Serial()
	return []byte{sn[8], sn[0], sn[1]}
}

// header gives what a command's hash begins with: opcode ‖ p1 ‖ p2, low byte first.
func (q request) header() []byte { return []byte{byte(q.op), q.p1, byte(q.p2), byte(q.p2 >> 8)} }

// Modes of Info.
const (
	infoRevision = 0
	infoKeyValid = 1
	infoState    = 2
	infoGPIO     = 3
	infoLatch    = 4
)

// info is Info. Every answer has 4 bytes: the revision; whether a slot's private key
// is one; the state of TempKey; the latch, which p2 may set (3) or clear (2).
func (c *Chip) info(q request) ([]byte, Status) {
	if len(q.data) != 0 {
		return nil, BadParse
	}
	switch q.p1 {
	case infoRevision:
		return bytes.Clone(c.nv.config[atRevision : atRevision+4]), OK
	case infoKeyValid:
		slot, s := q.key()
		if s != OK {
			return nil, s
		}
		out := make([]byte, 4)
		if _, s := c.private(slot); s == OK {
			out[0] = 1
		}
		return out, OK
	case infoState:
		return c.state(), OK
	case infoLatch:
		return c.setLatch(q.p2)
	case infoGPIO:
		return nil, Refused
	}
	return nil, BadParse
}

// state gives the flags of TempKey: slot, SourceFlag, GenDig, GenKey, NoMac in the
// first byte; in the second whether and by which slot the host is authorised, and
// whether TempKey is valid.
func (c *Chip) state() []byte {
	out := []byte{c.ram.temp.flags(), 0, 0, 0}
	if a := c.ram.authorised; a > 0 {
		out[1] = 1<<2 | byte(a-1)<<3
	}
	if c.ram.temp.valid {
		out[1] |= 1 << 7
	}
	return out
}

func (t *tempKey) flags() byte {
	f := byte(t.slot & 15)
	for i, set := range []bool{t.given, t.genDig, t.genKey, t.noMac} {
		if set {
			f |= 1 << (4 + i)
		}
	}
	return f
}

// setLatch reads, sets or clears the latch that slots with PersistentDisable wait for.
// To set it, the host must have been authorised by the slot that the configuration
// names.
func (c *Chip) setLatch(p2 uint16) ([]byte, Status) {
	const change, set = 2, 1
	permit := c.nv.config[atVolatileKey]
	switch {
	case p2&^(change|set) != 0:
		return nil, BadParse
	case p2&change == 0:
	case p2&set == 0:
		c.latch = false
	case permit&0x80 == 0, c.ram.authorised != int(permit&15)+1:
		return nil, Refused
	default:
		c.latch = true
	}
	out := make([]byte, 4)
	if c.latch {
		out[0] = 1
	}
	return out, OK
}

// draw gives random bytes. Before its configuration is locked a chip gives a fixed
// pattern, so that nobody takes its numbers for random.
func (c *Chip) draw(b []byte) Status {
	if !c.nv.configLocked() {
		for i := range b {
			b[i] = byte(0xFF * (1 - i/2%2))
		}
		return OK
	}
	if _, err := io.ReadFull(c.rand, b); err != nil {
		return Health
	}
	return OK
}

// random is Random: 32 bytes.
func (c *Chip) random(q request) ([]byte, Status) {
	if q.p1 > 1 || q.p2 != 0 || len(q.data) != 0 {
		return nil, BadParse
	}
	out := make([]byte, 32)
	return out, c.draw(out)
}

// Modes of Nonce.
const (
	nonceRandom      = 0
	nonceRandomFixed = 1 // does not update the seed, of which there is none here
	nonceGiven       = 3
	nonceWide        = 0x20 // 64 bytes are given
	targetMask       = 0xC0
	targetTempKey    = 0x00
	targetDigest     = 0x40
	targetAltKey     = 0x80
	nonceCalculate   = 0x8000 // of p2: TempKey stands in for the random number
)

// nonce is Nonce. In the random modes the host gives 20 bytes and TempKey becomes
// SHA-256(random 32 ‖ given 20 ‖ 16 ‖ p1 ‖ 00); the answer is the random number. With
// bit 15 of p2, TempKey itself stands in its place, and the answer is what comes out.
// In the other mode the host gives 32 or 64 bytes, to TempKey, the message digest
// buffer or, 32 only, the alternate key buffer.
func (c *Chip) nonce(q request) ([]byte, Status) {
	switch q.p1 & 3 {
	case nonceRandom, nonceRandomFixed:
		return c.nonceRandom(q)
	case nonceGiven:
		return nil, c.nonceGiven(q)
	}
	return nil, BadParse
}

func (c *Chip) nonceRandom(q request) ([]byte, Status) {
	if q.p1 > nonceRandomFixed || len(q.data) != 20 || q.p2&^nonceCalculate != 0 {
		return nil, BadParse
	}
	source := make([]byte, 32)
	calculate := q.p2 == nonceCalculate
	if calculate {
		if !c.ram.temp.valid {
			return nil, Refused
		}
		copy(source, c.ram.temp.value[:])
	} else if s := c.draw(source); s != OK {
		return nil, s
	}
	sum := c.digestOf(source, q.data, []byte{byte(OpNonce), q.p1, 0})
	c.ram.temp = tempKey{valid: true, given: calculate && c.ram.temp.given, noMac: calculate && c.ram.temp.noMac}
	copy(c.ram.temp.value[:], sum[:])
	if calculate {
		return sum[:], OK
	}
	return source, OK
}

func (c *Chip) nonceGiven(q request) Status {
	length := 32
	if q.p1&nonceWide != 0 {
		length = 64
	}
	if q.p1&^(nonceGiven|nonceWide|targetMask) != 0 || len(q.data) != length || q.p2 != 0 {
		return BadParse
	}
	switch q.p1 & targetMask {
	case targetTempKey:
		c.ram.temp = tempKey{valid: true, given: true, wide: length == 64}
		copy(c.ram.temp.value[:], q.data)
	case targetDigest:
		c.ram.digest = [64]byte{}
		c.ram.digestLen = copy(c.ram.digest[:], q.data)
	case targetAltKey:
		if length != 32 {
			return BadParse
		}
		c.ram.altValid = true
		copy(c.ram.alt[:], q.data)
	default:
		return BadParse
	}
	return OK
}
