package chip

import (
	"encoding/binary"
	"math/bits"
)

// use tells whether the key of a slot may be used now, and counts the use where the
// slot's uses are counted. Each command asks once per key, after all else that it
// asks.
func (c *Chip) use(slot int) Status {
	k, s := c.nv.keyConfig(slot), c.nv.slotConfig(slot)
	switch {
	case !c.nv.configLocked():
		return Refused
	case k.latched() && !c.latch:
		return Refused
	case k.reqAuth() && c.ram.authorised != k.authKey()+1:
		return Refused
	case s.limited():
		return c.countUse()
	}
	return OK
}

// countUse counts one use of a key whose uses are limited: in counter 0, up to what
// CountMatch allows.
func (c *Chip) countUse() Status {
	n := c.nv.getCounter(0)
	if n >= c.nv.useLimit() {
		return Refused
	}
	c.nv.setCounter(0, n+1)
	return OK
}

// symmetric gives the first 32 bytes of a slot, a key for the commands that hash: not
// of a private key, nor of one for AES.
func (c *Chip) symmetric(slot int) ([]byte, Status) {
	k := c.nv.keyConfig(slot)
	if k.private() || k.kind() == typeAES {
		return nil, Refused
	}
	if s := c.use(slot); s != OK {
		return nil, s
	}
	return c.nv.slot(slot)[:32], OK
}

// ioKey gives the key that protects what goes over the bus.
func (c *Chip) ioKey() ([]byte, Status) {
	slot, enabled := c.nv.options().ioKey()
	if !enabled || !c.nv.configLocked() {
		return nil, Refused
	}
	return c.nv.slot(slot)[:32], OK
}

// authorisedBy tells whether TempKey is a session under a slot's key: GenDig put that
// key into it last.
func (c *Chip) authorisedBy(slot int) bool {
	return c.ram.temp.valid && c.ram.temp.session && c.ram.temp.slot == slot
}

// maxCount is the highest value of a counter.
const maxCount = 1<<21 - 1

// useLimit gives how far counter 0 may go: to the value in the slot that CountMatch
// names, which stands there twice; where the two differ, nowhere.
func (m *Image) useLimit() uint32 {
	match := m.config[atCountMatch]
	if match&1 == 0 {
		return maxCount
	}
	value := m.slot(int(match >> 4))
	limit := binary.LittleEndian.Uint32(value)
	if limit != binary.LittleEndian.Uint32(value[4:]) {
		return 0
	}
	return min(limit, maxCount)
}

// A counter stands in the configuration zone as two pairs of a linear part (ones that
// are shifted out) and a binary one, of which one pair is behind by 16, so that a
// write that is cut off never loses a count.
func (m *Image) setCounter(n int, v uint32) {
	at := m.config[atCounters+8*n:]
	linear := func(v uint32) uint16 {
		if v%32 >= 16 {
			return 0
		}
		return 0xFFFF >> (v % 32)
	}
	binary.BigEndian.PutUint16(at, linear(v))
	binary.BigEndian.PutUint16(at[4:], uint16(v/32))
	if v < 16 {
		binary.BigEndian.PutUint16(at[2:], 0xFFFF)
		binary.BigEndian.PutUint16(at[6:], 0)
		return
	}
	binary.BigEndian.PutUint16(at[2:], linear(v-16))
	binary.BigEndian.PutUint16(at[6:], uint16((v-16)/32))
}

func (m *Image) getCounter(n int) uint32 {
	at := m.config[atCounters+8*n:]
	shifted := func(linear uint16) uint32 { return uint32(bits.LeadingZeros16(linear)) }
	if a := binary.BigEndian.Uint16(at); a != 0 {
		return 32*uint32(binary.BigEndian.Uint16(at[4:])) + shifted(a)
	}
	return 32*uint32(binary.BigEndian.Uint16(at[6:])) + 16 + shifted(binary.BigEndian.Uint16(at[2:]))
}
