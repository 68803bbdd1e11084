package chip

import (
	"encoding/binary"
	"math/bits"
)

// Lengths of packets, in bytes, count and CRC included.
const (
	MinCommand  = 7
	MaxCommand  = 155
	MinResponse = 4
	MaxResponse = 155
	// TextCommand and TextResponse are what stands around the data: count, opcode,
	// p1, p2 and CRC; count and CRC.
	TextCommand  = 7
	TextResponse = 3
)

// Status is the one byte by which a chip answers a command that gives no data.
type Status byte

// The statuses.
const (
	OK         Status = 0x00
	Miscompare Status = 0x01 // a MAC, signature or digest is not the one that was asked for
	BadParse   Status = 0x03 // the command's length, mode or address does not exist
	ECCFault   Status = 0x05
	SelfTested Status = 0x07 // a self-test failed
	Health     Status = 0x08 // the random number generator is ill
	Refused    Status = 0x0F // the policy of the zone or slot, or the chip's state, forbids it
	Awake      Status = 0x11 // the answer to a wake
	Watchdog   Status = 0xEE // too little time is left before the watchdog
	BadCRC     Status = 0xFF // the command's CRC or length is wrong
)

// Error implements error, for whoever sends commands.
func (s Status) Error() string {
	switch s {
	case OK:
		return "chip: success"
	case Miscompare:
		return "chip: 01, a MAC, signature or digest does not match"
	case BadParse:
		return "chip: 03, no such mode, address or length"
	case ECCFault:
		return "chip: 05, fault in a computation on the curve"
	case SelfTested:
		return "chip: 07, self-test failed"
	case Health:
		return "chip: 08, the random number generator failed"
	case Refused:
		return "chip: 0F, the slot's policy or the chip's state forbids it"
	case Awake:
		return "chip: 11, it has just woken"
	case Watchdog:
		return "chip: EE, the watchdog is about to expire"
	case BadCRC:
		return "chip: FF, the command's CRC is wrong"
	}
	return "chip: an unknown status"
}

// Packet gives the status as a response packet, 4 bytes.
func (s Status) Packet() []byte { return response([]byte{byte(s)}) }

// crcTable is the CRC of each byte by itself.
var crcTable = func() (t [256]uint16) {
	for i := range t {
		c := uint16(i) << 8
		for range 8 {
			carry := c >> 15
			c = c<<1 ^ 0x8005*carry
		}
		t[i] = c
	}
	return t
}()

// CRC gives the CRC-16 of a packet without its last two bytes: polynomial 8005,
// from 0, the bits of each byte from the lowest on. A packet ends with it, low byte
// first.
func CRC(b []byte) uint16 {
	var c uint16
	for _, v := range b {
		c = c<<8 ^ crcTable[byte(c>>8)^bits.Reverse8(v)]
	}
	return c
}

// Command makes a command packet: count ‖ opcode ‖ p1 ‖ p2, low byte first ‖ data ‖
// CRC. data has 148 bytes at most.
func Command(op Opcode, p1 byte, p2 uint16, data ...byte) []byte {
	b := make([]byte, 0, TextCommand+len(data))
	b = append(b, byte(TextCommand+len(data)), byte(op), p1, byte(p2), byte(p2>>8))
	b = append(b, data...)
	return binary.LittleEndian.AppendUint16(b, CRC(b))
}

// response makes a response packet: count ‖ data ‖ CRC.
func response(data []byte) []byte {
	b := make([]byte, 0, TextResponse+len(data))
	b = append(append(b, byte(TextResponse+len(data))), data...)
	return binary.LittleEndian.AppendUint16(b, CRC(b))
}

// Answer opens a response packet. A response of one byte is a status: data is nil
// then, and the error says which unless it is success. BadCRC where the packet
// itself is damaged.
func Answer(packet []byte) (data []byte, err error) {
	n := len(packet)
	if n < MinResponse || int(packet[0]) != n || CRC(packet[:n-2]) != binary.LittleEndian.Uint16(packet[n-2:]) {
		return nil, BadCRC
	}
	data = packet[1 : n-2]
	if len(data) > 1 {
		return data, nil
	}
	if s := Status(data[0]); s != OK {
		return nil, s
	}
	return nil, nil
}

// Opcode names a command.
type Opcode byte

// The commands.
const (
	OpRead        Opcode = 0x02
	OpMAC         Opcode = 0x08
	OpWrite       Opcode = 0x12
	OpGenDig      Opcode = 0x15
	OpNonce       Opcode = 0x16
	OpLock        Opcode = 0x17
	OpRandom      Opcode = 0x1B
	OpDeriveKey   Opcode = 0x1C
	OpUpdateExtra Opcode = 0x20
	OpCounter     Opcode = 0x24
	OpCheckMac    Opcode = 0x28
	OpInfo        Opcode = 0x30
	OpGenKey      Opcode = 0x40
	OpSign        Opcode = 0x41
	OpECDH        Opcode = 0x43
	OpVerify      Opcode = 0x45
	OpPrivWrite   Opcode = 0x46
	OpSHA         Opcode = 0x47
	OpAES         Opcode = 0x51
	OpKDF         Opcode = 0x56
	OpSelfTest    Opcode = 0x77
	OpSecureBoot  Opcode = 0x80
)

var opcodeText = map[Opcode]string{
	OpRead: "Read", OpMAC: "MAC", OpWrite: "Write", OpGenDig: "GenDig", OpNonce: "Nonce", OpLock: "Lock",
	OpRandom: "Random", OpDeriveKey: "DeriveKey", OpUpdateExtra: "UpdateExtra", OpCounter: "Counter",
	OpCheckMac: "CheckMac", OpInfo: "Info", OpGenKey: "GenKey", OpSign: "Sign", OpECDH: "ECDH", OpVerify: "Verify",
	OpPrivWrite: "PrivWrite", OpSHA: "SHA", OpAES: "AES", OpKDF: "KDF", OpSelfTest: "SelfTest", OpSecureBoot: "SecureBoot",
}

// String gives the command's name.
func (o Opcode) String() string {
	if name, ok := opcodeText[o]; ok {
		return name
	}
	return "no command"
}

// ParseOpcode finds a command by its name.
func ParseOpcode(name string) (Opcode, bool) {
	for o, text := range opcodeText {
		if text == name {
			return o, true
		}
	}
	return 0, false
}
