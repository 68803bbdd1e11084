package chip

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"
)

// Modes of SHA; bits 6 and 7 of an end say where the digest goes besides the answer.
const (
	shaStart        = 0
	shaUpdate       = 1
	shaEnd          = 2
	shaPublic       = 3
	shaHMACStart    = 4
	shaReadContext  = 6
	shaWriteContext = 7

	shaAnswerOnly = 0xC0
)

// shaPlain stands where a context has the slot of HMAC's key.
const shaPlain = 0xFFFE

// shaContext is a hash on its way.
type shaContext struct {
	h   hash.Hash
	key uint16 // a slot, tempKeyID, or shaPlain
	hk  [64]byte
}

// sha is SHA: a SHA-256 or HMAC-SHA256 over several commands. Updates bring 64 bytes,
// the end as many as p2 says, up to 63. A context can be taken out between two of them
// and put back.
func (c *Chip) sha(q request) ([]byte, Status) {
	switch mode := q.p1; {
	case mode == shaStart && len(q.data) == 0:
		c.ram.sha = &shaContext{h: sha256.New(), key: shaPlain}
		return nil, OK
	case mode == shaHMACStart && len(q.data) == 0:
		return nil, c.shaHMAC(q.p2)
	case mode == shaWriteContext:
		return nil, c.shaPutContext(q.data)
	case mode == shaUpdate, mode == shaPublic, mode == shaReadContext, mode&0x3F == shaEnd:
	default:
		return nil, BadParse
	}
	if c.ram.sha == nil {
		return nil, Refused
	}
	switch q.p1 {
	case shaUpdate:
		if len(q.data) != 64 || q.p2 != 64 {
			return nil, BadParse
		}
		c.ram.sha.h.Write(q.data)
		return nil, OK
	case shaPublic:
		return nil, c.shaKey(q)
	case shaReadContext:
		return c.shaContext(q)
	}
	return c.shaEnd(q)
}

// shaHMAC begins an HMAC under the first 32 bytes of a slot, or TempKey.
func (c *Chip) shaHMAC(id uint16) Status {
	ctx := &shaContext{h: sha256.New(), key: id}
	if s := c.shaPad(ctx); s != OK {
		return s
	}
	pad := ctx.hk
	for i := range pad {
		pad[i] ^= 0x36
	}
	ctx.h.Write(pad[:])
	c.ram.sha = ctx
	return OK
}

// shaPad gives a context the key that its id names: none that MAC may not use, for an
// HMAC under it shows the same.
func (c *Chip) shaPad(ctx *shaContext) Status {
	if ctx.key == tempKeyID {
		if !c.ram.temp.valid || c.ram.temp.noMac {
			return Refused
		}
		copy(ctx.hk[:], c.ram.temp.value[:32])
		return OK
	}
	if ctx.key >= Slots {
		return BadParse
	}
	if c.nv.slotConfig(int(ctx.key)).noMac() {
		return Refused
	}
	key, s := c.symmetric(int(ctx.key))
	copy(ctx.hk[:], key)
	return s
}

// shaKey hashes the 72 bytes of a slot with a public key, of which the last 8 end in
// the next block.
func (c *Chip) shaKey(q request) Status {
	slot, s := q.key()
	if s != OK {
		return s
	}
	if len(q.data) != 0 {
		return BadParse
	}
	public, s := c.public(slot)
	if s != OK {
		return s
	}
	c.ram.sha.h.Write(public)
	return OK
}

// shaEnd gives the digest.
func (c *Chip) shaEnd(q request) ([]byte, Status) {
	if len(q.data) != int(q.p2) || len(q.data) > 63 {
		return nil, BadParse
	}
	ctx := c.ram.sha
	ctx.h.Write(q.data)
	sum := ctx.h.Sum(nil)
	if ctx.key != shaPlain {
		for i := range ctx.hk {
			ctx.hk[i] ^= 0x5C
		}
		outer := c.digestOf(ctx.hk[:], sum)
		sum = outer[:]
	}
	c.ram.sha = nil
	switch q.p1 & targetMask {
	case targetTempKey:
		c.ram.temp = tempKey{valid: true, given: true}
		copy(c.ram.temp.value[:], sum)
	case targetDigest:
		c.ram.digest = [64]byte{}
		c.ram.digestLen = copy(c.ram.digest[:], sum)
	case shaAnswerOnly:
	default:
		return nil, BadParse
	}
	return sum, OK
}

// A context outside of the chip: the key's id 2 ‖ bytes hashed 8 ‖ state 32 ‖ the bytes
// that wait for a whole block. Package sha256 has them in another order, with its own
// mark in front.
const (
	contextHead = 2 + 8 + 32
	marshalMark = "sha\x03"
)

func (c *Chip) shaContext(q request) ([]byte, Status) {
	if len(q.data) != 0 {
		return nil, BadParse
	}
	m, ok := c.ram.sha.h.(encoding.BinaryMarshaler)
	if !ok {
		return nil, ECCFault
	}
	b, err := m.MarshalBinary() // mark 4 ‖ state 32 ‖ block 64 ‖ length 8
	if err != nil || len(b) != 4+32+64+8 {
		return nil, ECCFault
	}
	length := binary.BigEndian.Uint64(b[100:])
	out := binary.LittleEndian.AppendUint16(make([]byte, 0, contextHead+64), c.ram.sha.key)
	out = append(append(out, b[100:]...), b[4:36]...)
	return append(out, b[36:36+length%64]...), OK
}

func (c *Chip) shaPutContext(b []byte) Status {
	if len(b) < contextHead {
		return BadParse
	}
	length := binary.BigEndian.Uint64(b[2:])
	if uint64(len(b)-contextHead) != length%64 {
		return BadParse
	}
	ctx := &shaContext{h: sha256.New(), key: binary.LittleEndian.Uint16(b)}
	state := append([]byte(marshalMark), b[10:contextHead]...)
	state = append(append(state, b[contextHead:]...), zeros[:64-length%64]...)
	state = binary.BigEndian.AppendUint64(state, length)
	m, ok := ctx.h.(encoding.BinaryUnmarshaler)
	if !ok || m.UnmarshalBinary(state) != nil {
		return ECCFault
	}
	if ctx.key != shaPlain {
		if s := c.shaPad(ctx); s != OK {
			return s
		}
	}
	c.ram.sha = ctx
	return OK
}
