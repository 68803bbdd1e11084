// Package chip emulates the ATECC608, the secure element of many LoRaWAN devices, as
// its host sees it: command packets go in, response packets come out, and what may be
// done with a slot is decided by the chip's configuration alone. How packets travel
// (I²C and its bridges) is package bus; where the memory of a chip that outlives the
// process is kept is package flash.
//
// It computes by itself what the chip computes; what it does not have is the chip's
// resistance: keys are in the process's memory.
//
// What is not emulated: the transport lock (byte 68 of the configuration, UseLock), the
// deprecated modes of older chips, tamper detection. A chip on I²C has no GPIO pin: Info
// 03 is refused.
package chip

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
)

// Options of New. The zero value is a chip whose memory ends with the process.
type Options struct {
	// Save is called with the image whenever a command changed it, before the command
	// is answered. Where it fails, the change is undone and the command answers
	// Health.
	Save func(*Image) error
	// Rand is where random numbers come from; nil is crypto/rand. Keys that the chip
	// draws for itself (GenKey) come from crypto/rand always.
	Rand io.Reader
}

// Chip is one chip under power. One goroutine at a time.
type Chip struct {
	nv   Image
	save func(*Image) error
	rand io.Reader
	ram  ram
	// address is the I²C address, of 7 bits: what the configuration said when the chip
	// slept last.
	address byte
	// latch and bootDone keep through sleep, until the power goes.
	latch    bool // PersistentLatch
	bootDone bool // SecureBoot was closed until the next power cycle
}

// ram is what a chip loses when it sleeps.
type ram struct {
	temp   tempKey
	digest [64]byte // MsgDigBuf
	// digestLen is how much of it is filled: 0, 32 or 64.
	digestLen int
	alt       [32]byte // AltKeyBuf
	altValid  bool
	sha       *shaContext
	// authorised is the slot whose key CheckMac saw last, by number plus one; 0: none.
	authorised int
}

// tempKey is the register that most commands work on, and where its value is from.
type tempKey struct {
	value  [64]byte
	valid  bool
	wide   bool // 64 bytes, not 32
	given  bool // SourceFlag: the host gave it, so it may not be fresh
	genDig bool
	genKey bool
	// session: the last to go into it was the key of slot, by GenDig of that slot. The
	// other zones of GenDig name a slot too, but what they mix everybody knows.
	session bool
	noMac   bool // a key that MAC may not use went into it, or into what it is a digest of
	slot    int  // of the last key that went into it
}

// New makes a chip around a copy of an image, with power on.
func New(image *Image, o Options) *Chip {
	c := &Chip{nv: *image, save: o.Save, rand: o.Rand}
	if c.rand == nil {
		c.rand = rand.Reader
	}
	c.address = c.nv.Address()
	return c
}

// Serial gives the serial number.
func (c *Chip) Serial() [SerialSize]byte { return c.nv.Serial() }

// Address gives the I²C address, of 7 bits. One that was changed holds when the chip
// has slept.
func (c *Chip) Address() byte { return c.address }

// Sleep has the chip lose all that is volatile, as it does at the end of its
// watchdog, too. To let it idle is to leave it alone.
func (c *Chip) Sleep() { c.ram, c.address = ram{}, c.nv.Address() }

// PowerCycle takes the power away and gives it back.
func (c *Chip) PowerCycle() {
	c.Sleep()
	c.latch, c.bootDone = false, false
}

// String keeps keys out of logs.
func (c *Chip) String() string { return c.nv.String() }

// Format is String for every verb of package fmt.
func (c *Chip) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(c.String())) }

// request is a command without its frame.
type request struct {
	op   Opcode
	p1   byte
	p2   uint16
	data []byte
}

// key gives p2 as the number of a slot.
func (q request) key() (slot int, s Status) {
	if q.p2 >= Slots {
		return 0, BadParse
	}
	return int(q.p2), OK
}

// command is one command of a chip. It gives data, or a status; neither means
// success.
type command func(*Chip, request) ([]byte, Status)

var commands = map[Opcode]command{
	OpRead: (*Chip).read, OpWrite: (*Chip).write, OpLock: (*Chip).lock, OpCounter: (*Chip).counter,
	OpUpdateExtra: (*Chip).updateExtra, OpSelfTest: (*Chip).selfTest,
	OpInfo: (*Chip).info, OpRandom: (*Chip).random, OpNonce: (*Chip).nonce,
	OpAES: (*Chip).aes, OpKDF: (*Chip).kdf,
	OpGenDig: (*Chip).genDig, OpMAC: (*Chip).mac, OpCheckMac: (*Chip).checkMac, OpDeriveKey: (*Chip).deriveKey,
	OpGenKey: (*Chip).genKey, OpSign: (*Chip).sign, OpVerify: (*Chip).verify, OpECDH: (*Chip).ecdh,
	OpPrivWrite: (*Chip).privWrite, OpSHA: (*Chip).sha, OpSecureBoot: (*Chip).secureBoot,
}

// Execute carries out one command packet and gives the response packet. Bytes behind
// the packet's count are ignored. What the command changed in the image is saved when
// it returns, all of it or nothing.
func (c *Chip) Execute(packet []byte) []byte {
	if len(packet) < MinCommand || int(packet[0]) < MinCommand || int(packet[0]) > len(packet) {
		return BadCRC.Packet()
	}
	packet = packet[:packet[0]]
	end := len(packet) - 2
	if CRC(packet[:end]) != binary.LittleEndian.Uint16(packet[end:]) {
		return BadCRC.Packet()
	}
	do, known := commands[Opcode(packet[1])]
	if !known {
		return BadParse.Packet()
	}
	before := c.nv
	data, status := do(c, request{
		op: Opcode(packet[1]), p1: packet[2], p2: binary.LittleEndian.Uint16(packet[3:]), data: packet[5:end],
	})
	if c.nv != before && c.save != nil {
		if err := c.save(&c.nv); err != nil {
			c.nv = before
			return Health.Packet()
		}
	}
	if status != OK || data == nil {
		return status.Packet()
	}
	return response(data)
}
