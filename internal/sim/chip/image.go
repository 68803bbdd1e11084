package chip

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes of the zones, in bytes.
const (
	ConfigSize = 128
	OTPSize    = 64
	dataSize   = 8*36 + 416 + 7*72
	// ImageSize is that of an image in binary form.
	ImageSize = ConfigSize + OTPSize + dataSize
	// Slots is how many slots the data zone has.
	Slots = 16
	// SerialSize is the length of a serial number.
	SerialSize = 9
)

// Where things stand in the configuration zone.
const (
	atRevision     = 4
	atAESEnable    = 13
	atAddress      = 16
	atCountMatch   = 18
	atChipMode     = 19
	atSlotConfig   = 20
	atCounters     = 52
	atUseLock      = 68
	atVolatileKey  = 69
	atSecureBoot   = 70
	atKdfIvLoc     = 72
	atKdfIvStr     = 73
	atUserExtra    = 84
	atOtherAddress = 85
	atLockValue    = 86
	atLockConfig   = 87
	atSlotLocked   = 88
	atChipOptions  = 90
	atKeyConfig    = 96

	unlocked = 0x55 // of LockValue and LockConfig
)

// Image is all that a chip keeps without power: configuration, one-time
// programmable bytes, and sixteen slots of data. It holds keys: nothing prints it,
// and slots can be put in and not taken out.
type Image struct {
	config [ConfigSize]byte
	otp    [OTPSize]byte
	data   [dataSize]byte
}

// SlotSize gives how many bytes a slot has: 36 in 0 to 7, 416 in 8, 72 above.
func SlotSize(slot int) int {
	switch {
	case slot < 8:
		return 36
	case slot == 8:
		return 416
	}
	return 72
}

// slot gives a slot's bytes, those of the image itself.
func (m *Image) slot(n int) []byte {
	at := n * 36
	if n > 8 {
		at = 8*36 + 416 + (n-9)*72
	}
	return m.data[at : at+SlotSize(n) : at+SlotSize(n)]
}

// SetSlot puts bytes at the start of a slot, as a factory does: no policy is asked.
func (m *Image) SetSlot(slot int, data []byte) error {
	if slot < 0 || slot >= Slots || len(data) > SlotSize(slot) {
		return fmt.Errorf("chip: slot %d: %d bytes do not fit there", slot, len(data))
	}
	copy(m.slot(slot), data)
	return nil
}

// SetPrivateKey puts a P-256 key into a slot for private keys, 32 bytes big-endian.
func (m *Image) SetPrivateKey(slot int, scalar []byte) error {
	if len(scalar) != 32 {
		return errors.New("chip: a private key has 32 bytes")
	}
	return m.SetSlot(slot, append(make([]byte, 4, 36), scalar...))
}

// Serial gives the serial number.
func (m *Image) Serial() (sn [SerialSize]byte) {
	copy(sn[:4], m.config[:4])
	copy(sn[4:], m.config[8:13])
	return sn
}

// SetSerial puts the serial number in.
func (m *Image) SetSerial(sn [SerialSize]byte) {
	copy(m.config[:4], sn[:4])
	copy(m.config[8:13], sn[4:])
}

// Config gives a copy of the configuration zone, which holds no secret.
func (m *Image) Config() [ConfigSize]byte { return m.config }

// SetConfig puts bytes into the configuration zone, as a factory does that orders
// chips of a configuration of its own: no lock is asked.
func (m *Image) SetConfig(at int, b []byte) error {
	if at < 0 || at+len(b) > ConfigSize {
		return fmt.Errorf("chip: %d bytes of configuration do not fit at %d", len(b), at)
	}
	copy(m.config[at:], b)
	return nil
}

// SetOTP puts bytes at the start of the one-time programmable zone.
func (m *Image) SetOTP(b []byte) { copy(m.otp[:], b) }

// Address gives the chip's I²C address, of 7 bits: that of the configuration, or, where
// bit 0 of ChipMode lets it, the one that UpdateExtra put in its place.
func (m *Image) Address() byte {
	if other := m.config[atOtherAddress]; other != 0 && m.config[atChipMode]&1 != 0 {
		return other >> 1
	}
	return m.config[atAddress] >> 1
}

// String keeps keys out of logs.
func (m *Image) String() string { return fmt.Sprintf("chip %X", m.Serial()) }

// Format is String for every verb of package fmt.
func (m *Image) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(m.String())) }

// AppendBinary appends the image: configuration, one-time programmable zone, slots.
// It is for the file that is the chip's memory, and implements
// encoding.BinaryAppender.
func (m *Image) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, m.config[:]...)
	b = append(b, m.otp[:]...)
	return append(b, m.data[:]...), nil
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler.
func (m *Image) UnmarshalBinary(b []byte) error {
	if len(b) != ImageSize {
		return fmt.Errorf("chip: an image has %d bytes, not %d", ImageSize, len(b))
	}
	n := copy(m.config[:], b)
	n += copy(m.otp[:], b[n:])
	copy(m.data[:], b[n:])
	return nil
}

// slotConfig is the 16 bits that say how a slot may be read and written; which key
// reading and writing want; what a private key may do.
type slotConfig uint16

func (m *Image) slotConfig(n int) slotConfig {
	return slotConfig(binary.LittleEndian.Uint16(m.config[atSlotConfig+2*n:]))
}

func (c slotConfig) readKey() int      { return int(c & 15) }
func (c slotConfig) noMac() bool       { return c&(1<<4) != 0 }
func (c slotConfig) limited() bool     { return c&(1<<5) != 0 }
func (c slotConfig) encryptRead() bool { return c&(1<<6) != 0 }
func (c slotConfig) secret() bool      { return c&(1<<7) != 0 }
func (c slotConfig) writeKey() int     { return int(c>>8) & 15 }

// Of a private key: what its ReadKey field allows.
func (c slotConfig) signsExternal() bool { return c&1 != 0 }
func (c slotConfig) signsInternal() bool { return c&2 != 0 }
func (c slotConfig) agrees() bool        { return c&4 != 0 } // ECDH
func (c slotConfig) agreesInside() bool  { return c&8 != 0 } // its result goes to the next slot

// WriteConfig, for Write: always; only while a public key is invalid; under the key
// of writeKey; else never.
func (c slotConfig) writeAlways() bool    { return c>>12 == 0 }
func (c slotConfig) writeInvalid() bool   { return c>>12 == 1 }
func (c slotConfig) writeEncrypted() bool { return c>>12&4 != 0 }

// WriteConfig, for GenKey and DeriveKey.
func (c slotConfig) generates() bool  { return c>>12&2 != 0 }
func (c slotConfig) derives() bool    { return c>>12&2 != 0 }
func (c slotConfig) creates() bool    { return c>>12&1 != 0 } // from the key of writeKey, else from itself
func (c slotConfig) authorises() bool { return c>>12&8 != 0 } // DeriveKey wants a MAC

// keyConfig is the 16 bits that say what a slot's content is.
type keyConfig uint16

func (m *Image) keyConfig(n int) keyConfig {
	return keyConfig(binary.LittleEndian.Uint16(m.config[atKeyConfig+2*n:]))
}

// Types of keys.
const (
	typeP256 = 4
	typeAES  = 6
)

func (k keyConfig) private() bool { return k&1 != 0 }

// pubInfo: of a private key, its public one may be asked for; of a public key, it
// must be validated before it verifies; of others, KDF may write the slot.
func (k keyConfig) pubInfo() bool   { return k&2 != 0 }
func (k keyConfig) kind() int       { return int(k>>2) & 7 }
func (k keyConfig) lockable() bool  { return k&(1<<5) != 0 }
func (k keyConfig) reqRandom() bool { return k&(1<<6) != 0 }
func (k keyConfig) reqAuth() bool   { return k&(1<<7) != 0 }
func (k keyConfig) authKey() int    { return int(k>>8) & 15 }
func (k keyConfig) latched() bool   { return k&(1<<12) != 0 } // PersistentDisable

func (m *Image) configLocked() bool { return m.config[atLockConfig] != unlocked }
func (m *Image) dataLocked() bool   { return m.config[atLockValue] != unlocked }

// transportLock tells whether the configuration switches the transport lock on (A in the
// low half of UseLock; the high half names its key's slot). What is public of it ends
// there: not what such a chip refuses, nor how its key opens it.
func (m *Image) transportLock() bool { return m.config[atUseLock]&0x0F == 0x0A }

// slotLocked: a slot's bit in SlotLocked is 0 once it is locked.
func (m *Image) slotLocked(n int) bool {
	return m.config[atSlotLocked+n/8]&(1<<(n%8)) == 0
}

// chipOptions is the 16 bits for the chip as a whole.
type chipOptions uint16

func (m *Image) options() chipOptions {
	return chipOptions(binary.LittleEndian.Uint16(m.config[atChipOptions:]))
}

func (o chipOptions) ioKey() (slot int, enabled bool) { return int(o >> 12), o&2 != 0 }
func (o chipOptions) kdfAES() bool                    { return o&4 != 0 }

// protection is what may leave of a secret that ECDH or KDF made.
type protection uint16

const (
	outClear     protection = 0
	outEncrypted protection = 1
)

func (o chipOptions) ecdh() protection { return protection(o >> 8 & 3) }
func (o chipOptions) kdf() protection  { return protection(o >> 10 & 3) }
