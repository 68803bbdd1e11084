package chip

import (
	"encoding/binary"
	"encoding/hex"
)

// OTPTheThings is the programme code of parts that The Things Industries serves.
const OTPTheThings = "jsMu7iYO"

// TNGLORA gives the image of an ATECC608-TNGLORA with this serial number as it
// leaves the factory, but for what is each device's own: roots, device key,
// certificates, identifiers and the keys of slots 13 and 14, which stand as erased
// memory does, FF. Its configuration is locked.
func TNGLORA(serial [SerialSize]byte) *Image {
	m := erased(serial)
	m.settings("00006002", "011100"+"b2000001", "0000"+"0000"+"00"+"6976")
	// 15 is reserved: never read, never written.
	m.slots([Slots]uint16{
		0xBD8F, 0x8F85, 0x0FCE, 0x0FCE, 0x0FCE, 0x0FCE, 0x0FCE, 0x0FCE,
		0x0F0F, 0x0F0F, 0x0F0F, 0x0FCE, 0x0FCE, 0x4D9F, 0x0F8F, 0x8F8F,
	}, [Slots]uint16{
		0x0018, 0x0013, 0x001A, 0x001A, 0x001A, 0x001A, 0x001A, 0x001A,
		0x0030, 0x001C, 0x003C, 0x001A, 0x001A, 0x001C, 0x007C, 0x001C,
	})
	// IO key in slot 14, output of KDF and ECDH encrypted, KDF of
	// AES enabled.
	binary.LittleEndian.PutUint16(m.config[atChipOptions:], 0xE50E)
	m.config[atLockValue], m.config[atLockConfig] = 0, 0
	m.otp = [OTPSize]byte{}
	m.SetOTP([]byte(OTPTheThings))
	return m
}

// Blank gives the image of an ATECC608 that nobody configured, both zones open.
func Blank(serial [SerialSize]byte) *Image {
	m := erased(serial)
	m.settings("00006002", "010100"+"c0000000", "0000"+"0000"+"00"+"0000")
	m.slots([Slots]uint16{
		0x2083, 0x2087, 0x208F, 0x8FC4, 0x8F8F, 0x8F8F, 0x8F9F, 0x8FAF,
		0, 0, 0, 0, 0, 0, 0, 0x8FAF,
	}, [Slots]uint16{
		0x0033, 0x0033, 0x0033, 0x001C, 0x001C, 0x001C, 0x001C, 0x001C,
		0x003C, 0x003C, 0x003C, 0x003C, 0x003C, 0x003C, 0x003C, 0x001C,
	})
	return m
}

// erased gives a chip with a serial number and nothing else: memory that was never
// written reads FF, and counters are at 0.
func erased(serial [SerialSize]byte) *Image {
	m := &Image{}
	for i := range m.data {
		m.data[i] = 0xFF
	}
	for i := range m.otp {
		m.otp[i] = 0xFF
	}
	m.SetSerial(serial)
	m.setCounter(0, 0)
	m.setCounter(1, 0)
	m.config[atLockValue], m.config[atLockConfig] = unlocked, unlocked
	m.config[atSlotLocked], m.config[atSlotLocked+1] = 0xFF, 0xFF
	return m
}

// settings fills what profiles have in hexadecimal: bytes 4 to 7, 13 to 19 and 68 to
// 74.
func (m *Image) settings(revision, from13, from68 string) {
	for at, digits := range map[int]string{atRevision: revision, atAESEnable: from13, atUseLock: from68} {
		b, err := hex.DecodeString(digits)
		if err != nil {
			panic(err) // a constant of this file
		}
		copy(m.config[at:], b)
	}
}

func (m *Image) slots(slot, key [Slots]uint16) {
	for i := range Slots {
		binary.LittleEndian.PutUint16(m.config[atSlotConfig+2*i:], slot[i])
		binary.LittleEndian.PutUint16(m.config[atKeyConfig+2*i:], key[i])
	}
}
