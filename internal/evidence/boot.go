package evidence

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// Boot is evidence of level L2, from an element of the ATECC608 family that
// verifies firmware: a private key signed that the chip lets nobody use before its
// SecureBoot command succeeded since it was powered, and the chip itself made the
// message, from its own state.
//
// The commands are, in this order, TempKey going from one to the next:
//
//	Nonce 00      NumIn(about), 20 bytes: the chip draws 32 more, and says them
//	GenDig 00 2   bytes 64 to 95 of the configuration: how SecureBoot is configured
//	GenDig 05 key how the slot of the private key is configured
//	GenDig 04 n   monotonic counter n
//	GenDig 02 dig the slot that SecureBoot keeps the verified image's digest in
//	Sign 40 key   internal message, serial number included
//
// The nonce is a random one so that nobody on the bus can put a TempKey of his own
// under the signature: each GenDig is a hash that anybody can compute, and one over a
// made-up counter would be signed as well. The chip has in its message whether TempKey
// began with a number that it drew (SourceFlag).
//
// Its form is 13 ‖ tag 4 ‖ random 32 ‖ digest 32 ‖ counter 4, big-endian ‖ serial 9 ‖
// KeySlot 1 ‖ DigestSlot 1 ‖ CounterID 1 ‖ SlotConfig and KeyConfig of the key's slot,
// then of the digest's, 2 each as in the chip's memory ‖ configuration 32 ‖ signature
// 64: 189 bytes.
type Boot struct {
	Tag     [TagLen]byte
	Random  [RandomLen]byte   // what the chip drew and answered to Nonce (RandOut)
	Digest  [sha256.Size]byte // what the digest slot holds
	Counter uint32            // what the chip's counter says
	Serial  [SerialLen]byte
	KeySlot uint8
	DigestSlot,
	CounterID uint8
	// Slot configurations, little-endian in the chip's memory.
	KeySlotConfig, KeyKeyConfig       uint16
	DigestSlotConfig, DigestKeyConfig uint16
	// Config is bytes 64 to 95 of the configuration zone.
	Config    [configLen]byte
	Signature [SignatureLen]byte
}

// NumIn is what Nonce is given: the first 20 bytes of SHA-256 over domain ‖ challenge
// 32 ‖ JoinEUI 8 ‖ DevEUI 8.
func NumIn(a About) [NumInLen]byte {
	sum := sha256.Sum256(a.message(bootDomain))
	return [NumInLen]byte(sum[:])
}

// Opcodes, zones and modes of the chip.
const (
	opGenDig = 0x15
	opNonce  = 0x16
	opSign   = 0x41

	zoneConfig    = 0
	zoneData      = 2
	zoneCounter   = 4
	zoneKeyConfig = 5

	configBlock = 2
	nonceMode   = 0x00 // random, the chip's seed updated
	signMode    = 0x40 // internal message from TempKey, serial number included
)

// SigningDigest is what the chip signs: SHA-256 over the 55 bytes of its internal
// message.
func (b Boot) SigningDigest(a About) [sha256.Size]byte {
	key := b.tempKey(a)
	key = b.genDig(key, zoneConfig, configBlock, b.Config, nil)
	key = b.genDig(key, zoneKeyConfig, b.KeySlot, [32]byte{}, b.keyTail())
	key = b.genDig(key, zoneCounter, b.CounterID, [32]byte{}, binary.LittleEndian.AppendUint32([]byte{0}, b.Counter))
	key = b.genDig(key, zoneData, b.DigestSlot, b.Digest, nil)

	m := make([]byte, 0, 55)
	m = append(m, key[:]...)
	m = append(m, opSign, signMode, b.KeySlot, 0)
	m = binary.LittleEndian.AppendUint16(m, b.DigestSlotConfig)
	m = binary.LittleEndian.AppendUint16(m, b.DigestKeyConfig)
	// SourceFlag, 1 << 4, is not set: TempKey began with a number that the chip drew.
	const genDigData = 1 << 5
	m = append(m, b.DigestSlot&0x0F|genDigData, 0, 0)
	sn := b.Serial
	m = append(m, sn[8], sn[4], sn[5], sn[6], sn[7], sn[0], sn[1], sn[2], sn[3])
	m = append(m, b.unlocked(b.DigestSlot), 0, 0)
	return sha256.Sum256(m)
}

// tempKey is what the chip's Nonce leaves: SHA-256 over random 32 ‖ NumIn 20 ‖ 16 ‖
// mode ‖ 00.
func (b Boot) tempKey(a About) [32]byte {
	in := NumIn(a)
	m := append(make([]byte, 0, RandomLen+NumInLen+3), b.Random[:]...)
	m = append(append(m, in[:]...), opNonce, nonceMode, 0)
	return sha256.Sum256(m)
}

// genDig is the chip's GenDig: SHA-256 over value 32 ‖ 15 ‖ zone ‖ id 2, little-endian
// ‖ SN[8] ‖ SN[0:2] ‖ tail, filled up to 25 bytes ‖ TempKey 32.
func (b Boot) genDig(tempKey [32]byte, zone, id uint8, value [32]byte, tail []byte) [32]byte {
	m := make([]byte, 0, 96)
	m = append(m, value[:]...)
	m = append(m, opGenDig, zone, id, 0, b.Serial[8], b.Serial[0], b.Serial[1])
	m = append(m, tail...)
	m = append(m, make([]byte, 25-len(tail))...)
	return sha256.Sum256(append(m, tempKey[:]...))
}

// keyTail is 00 ‖ SlotConfig 2 ‖ KeyConfig 2 ‖ 01 where the slot is not locked.
func (b Boot) keyTail() []byte {
	t := binary.LittleEndian.AppendUint16([]byte{0}, b.KeySlotConfig)
	t = binary.LittleEndian.AppendUint16(t, b.KeyKeyConfig)
	return append(t, b.unlocked(b.KeySlot))
}

// unlocked is 1 where a slot is not locked by itself.
func (b Boot) unlocked(slot uint8) byte {
	locks := binary.LittleEndian.Uint16(b.Config[configSlotLocked:])
	return byte(locks >> (slot & 0x0F) & 1)
}

// Places in Config.
const (
	configVolatileKey = 69 - 64
	configSecureBoot  = 70 - 64
	configLockValue   = 86 - 64
	configLockConfig  = 87 - 64
	configSlotLocked  = 88 - 64
)

// ErrConfig says that an element is configured so that its signature proves nothing
// of what it booted.
var ErrConfig = errors.New("the element's configuration")

// CheckConfig tells whether an element that is configured so lets nobody sign
// before it has verified an image, and nobody write the digest. The signature covers
// all that it looks at; but a key that signs messages from outside signs evidence that
// says otherwise, too: of that slot this finds the maker's mistakes, not his lies.
// ErrConfig.
func (b Boot) CheckConfig() error {
	secureBoot := binary.LittleEndian.Uint16(b.Config[configSecureBoot:])
	for _, c := range []struct {
		ok   bool
		what string
	}{
		{b.KeySlot < 16 && b.DigestSlot < 16 && b.CounterID < 2, "there are 16 slots and two counters"},
		{b.Config[configLockConfig] == 0 && b.Config[configLockValue] == 0, "it is not locked"},
		{secureBoot&0x0003 == 3, "SecureBoot does not keep the digest of what it verified (FullDig)"},
		{secureBoot&0x0008 != 0, "a verified boot opens no key (SecureBootPersist)"},
		{uint8(secureBoot>>8&0x0F) == b.DigestSlot, "SecureBoot keeps its digest in another slot"},
		{b.Config[configVolatileKey]&0x80 == 0, "keys are opened by something else than a verified boot (VolatileKeyPermission)"},
		{b.KeyKeyConfig&0x0001 != 0 && b.KeyKeyConfig>>2&7 == 4, "the signing slot holds no private key over P-256"},
		{b.KeyKeyConfig&0x1000 != 0, "the signing key may be used without a verified boot (PersistentDisable)"},
		{b.KeySlotConfig&0x0001 == 0, "the signing key signs messages from outside"},
		{b.KeySlotConfig&0x0002 != 0, "the signing key signs no messages of the chip's own"},
		{b.DigestSlotConfig>>12 == 8, "the digest can be written from outside"},
		{b.DigestSlotConfig&0x0010 == 0, "the digest's slot is one that MACs leave out (NoMac)"},
	} {
		if !c.ok {
			return fmt.Errorf("%w: %s", ErrConfig, c.what)
		}
	}
	return nil
}

// Bytes gives the compact form.
func (b Boot) Bytes() []byte {
	out := append(make([]byte, 0, bootLen), formBoot)
	out = append(append(append(out, b.Tag[:]...), b.Random[:]...), b.Digest[:]...)
	out = binary.BigEndian.AppendUint32(out, b.Counter)
	out = append(out, b.Serial[:]...)
	out = append(out, b.KeySlot, b.DigestSlot, b.CounterID)
	for _, v := range []uint16{b.KeySlotConfig, b.KeyKeyConfig, b.DigestSlotConfig, b.DigestKeyConfig} {
		out = binary.LittleEndian.AppendUint16(out, v)
	}
	return append(append(out, b.Config[:]...), b.Signature[:]...)
}

// ParseBoot reads the compact form. ErrForm.
func ParseBoot(in []byte) (b Boot, err error) {
	if len(in) > 0 && in[0] == formBootFixed {
		return b, fmt.Errorf("%w: it begins with %x, a form whose counter and configuration anybody on the element's bus can make up; have the device's software begin with a random nonce, and answer in the form %x",
			ErrForm, formBootFixed, formBoot)
	}
	if len(in) != bootLen || in[0] != formBoot {
		return b, fmt.Errorf("%w: want %d bytes that begin with %x", ErrForm, bootLen, formBoot)
	}
	in = in[1:]
	in = in[copy(b.Tag[:], in):]
	in = in[copy(b.Random[:], in):]
	in = in[copy(b.Digest[:], in):]
	b.Counter = binary.BigEndian.Uint32(in)
	in = in[4:]
	in = in[copy(b.Serial[:], in):]
	b.KeySlot, b.DigestSlot, b.CounterID = in[0], in[1], in[2]
	in = in[3:]
	for _, v := range []*uint16{&b.KeySlotConfig, &b.KeyKeyConfig, &b.DigestSlotConfig, &b.DigestKeyConfig} {
		*v = binary.LittleEndian.Uint16(in)
		in = in[2:]
	}
	in = in[copy(b.Config[:], in):]
	copy(b.Signature[:], in)
	return b, nil
}
