package bootloader

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/binary"

	"joinery/internal/evidence"
	"joinery/internal/sim/chip"
)

// Modes of the commands that evidence is made of.
const (
	readSlot     = 0x82 // 32 bytes of the data zone
	genKeyPublic = 0x00
	digConfig    = 0x00
	digData      = 0x02
	digKeyConfig = 0x05
	signInternal = 0x40 // with the serial number
)

// BootKey asks the element for the public half of the key that signs its state.
func (e *Element) BootKey() (*ecdsa.PublicKey, error) {
	point, err := e.do(chip.OpGenKey, genKeyPublic, chip.SlotBootKey)
	if err != nil {
		return nil, err
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, point...))
}

// Evidence has the element say what it verified as the device booted: evidence of level
// L2, by the commands that package evidence lists. The element refuses to sign before a
// verified boot.
func (e *Element) Evidence(about evidence.About) (b evidence.Boot, err error) {
	b.Tag, b.Serial = about.Tag(), e.serial
	b.KeySlot, b.DigestSlot, b.CounterID = chip.SlotBootKey, chip.SlotBootDigest, chip.BootCounter
	// The configuration zone, 128 bytes.
	var zone []byte
	for block := range uint16(4) {
		part, err := e.do(chip.OpRead, readConfig, block<<3)
		if err != nil {
			return b, err
		}
		zone = append(zone, part...)
	}
	digest, err := e.do(chip.OpRead, readSlot, chip.SlotBootDigest<<3)
	if err != nil {
		return b, err
	}
	if len(zone) != 128 || len(digest) != 32 {
		return b, ErrBus
	}
	slotConfig := func(slot int) uint16 { return binary.LittleEndian.Uint16(zone[20+2*slot:]) }
	keyConfig := func(slot int) uint16 { return binary.LittleEndian.Uint16(zone[96+2*slot:]) }
	b.KeySlotConfig, b.KeyKeyConfig = slotConfig(chip.SlotBootKey), keyConfig(chip.SlotBootKey)
	b.DigestSlotConfig, b.DigestKeyConfig = slotConfig(chip.SlotBootDigest), keyConfig(chip.SlotBootDigest)
	copy(b.Config[:], zone[64:96])
	copy(b.Digest[:], digest)
	if b.Counter, err = e.Counter(); err != nil {
		return b, err
	}
	numIn := evidence.NumIn(about)
	drawn, err := e.do(chip.OpNonce, nonceRandom, 0, numIn[:]...)
	if err != nil {
		return b, err
	}
	if len(drawn) != len(b.Random) {
		return b, ErrBus
	}
	copy(b.Random[:], drawn)
	for _, c := range []struct {
		zone byte
		id   uint16
	}{
		{digConfig, 2}, {digKeyConfig, chip.SlotBootKey}, {digCounter, chip.BootCounter}, {digData, chip.SlotBootDigest},
	} {
		if _, err := e.do(chip.OpGenDig, c.zone, c.id); err != nil {
			return b, err
		}
	}
	signature, err := e.do(chip.OpSign, signInternal, chip.SlotBootKey)
	if err == nil && len(signature) != len(b.Signature) {
		err = ErrBus
	}
	copy(b.Signature[:], signature)
	return b, err
}
