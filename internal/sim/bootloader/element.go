package bootloader

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"

	"joinery/internal/sim/chip"
)

// Chip is a chip that answers command packets.
type Chip interface{ Execute(packet []byte) []byte }

// Element is the bootloader's driver of its chip: commands, and nothing else. What
// decides about a boot is authenticated by the key that both have, so that nobody on
// the bus can say yes in the chip's place.
type Element struct {
	chip   Chip
	io     [32]byte
	serial [chip.SerialSize]byte
}

// Errors of an element.
var (
	// ErrRefused: the element does not verify the image.
	ErrRefused = errors.New("the element does not verify it: it was changed, or another key signed it")
	// ErrBus: what came over the bus is not from the element.
	ErrBus = errors.New("an answer is not the element's: somebody else is on the bus")
)

// Modes of the commands that a bootloader sends.
const (
	readConfig     = 0x80 // 32 bytes
	nonceRandom    = 0x00 // from numIn, updating the seed
	nonceGiven     = 0x03
	digCounter     = 0x04
	macTempKey     = 0x01 // of the slot's key and TempKey
	counterRead    = 0x00
	counterUp      = 0x01
	verifyStored   = 0x00
	bootStored     = 0x06
	bootCopy       = 0x07
	bootClose      = 0x40 // no SecureBoot any more before the next power cycle
	bootEncrypted  = 0x80
	slotIO         = 14
	nonceHashMode  = 0x16 // opcode of Nonce in its own hash
	genDigHash     = 0x15
	macHash        = 0x08
	secureBootHash = 0x80
)

// NewElement finds the element and learns its serial number.
func NewElement(c Chip, ioKey [32]byte) (*Element, error) {
	e := &Element{chip: c, io: ioKey}
	b, err := e.do(chip.OpRead, readConfig, 0)
	if err != nil {
		return nil, err
	}
	if len(b) != 32 {
		return nil, ErrBus
	}
	copy(e.serial[:4], b[:4])
	copy(e.serial[4:], b[8:13])
	return e, nil
}

func (e *Element) do(op chip.Opcode, p1 byte, p2 uint16, data ...byte) ([]byte, error) {
	out, err := chip.Answer(e.chip.Execute(chip.Command(op, p1, p2, data...)))
	if err != nil {
		return nil, fmt.Errorf("%v: %w", op, err)
	}
	return out, nil
}

// nonce has the chip draw a nonce, and gives what its TempKey is then:
// SHA-256(drawn 32 ‖ numIn 20 ‖ 16 ‖ mode ‖ 00).
func (e *Element) nonce() (temp [32]byte, err error) {
	var in [20]byte
	rand.Read(in[:])
	drawn, err := e.do(chip.OpNonce, nonceRandom, 0, in[:]...)
	if err != nil {
		return temp, err
	}
	if len(drawn) != 32 {
		return temp, ErrBus
	}
	return sum(drawn, in[:], []byte{nonceHashMode, nonceRandom, 0}), nil
}

// Counter reads the monotonic counter so that nobody else can have said it: GenDig puts
// it into TempKey, MAC answers for that under the key of slot 14.
func (e *Element) Counter() (uint32, error) {
	said, err := e.do(chip.OpCounter, counterRead, chip.BootCounter)
	if err != nil {
		return 0, err
	}
	if len(said) != 4 {
		return 0, ErrBus
	}
	temp, err := e.nonce()
	if err != nil {
		return 0, err
	}
	if _, err := e.do(chip.OpGenDig, digCounter, chip.BootCounter); err != nil {
		return 0, err
	}
	mac, err := e.do(chip.OpMAC, macTempKey, slotIO)
	if err != nil {
		return 0, err
	}
	var zeros [32]byte
	sn := e.serial
	temp = sum(zeros[:], []byte{genDigHash, digCounter, chip.BootCounter, 0, sn[8], sn[0], sn[1], 0}, said, zeros[:20], temp[:])
	want := sum(e.io[:], temp[:], []byte{macHash, macTempKey, slotIO, 0}, zeros[:11], sn[8:], zeros[:4], sn[:2], zeros[:2])
	if subtle.ConstantTimeCompare(mac, want[:]) != 1 {
		return 0, fmt.Errorf("counter: %w", ErrBus)
	}
	return binary.LittleEndian.Uint32(said), nil
}

// CountUp counts the monotonic counter up by one.
func (e *Element) CountUp() error {
	_, err := e.do(chip.OpCounter, counterUp, chip.BootCounter)
	return err
}

// Accept has the element verify the signature of a digest and keep the digest, unless
// it keeps that already. The keys that wait for a verified boot are open then.
// ErrRefused.
func (e *Element) Accept(digest [32]byte, signature [64]byte) error {
	err := e.secureBoot(bootStored, digest, nil)
	if errors.Is(err, ErrRefused) {
		err = e.secureBoot(bootCopy, digest, signature[:])
	}
	return err
}

// Close has the element verify once more that it keeps the digest of what is started,
// and then no image any more until its power was off. ErrRefused.
func (e *Element) Close(digest [32]byte) error {
	return e.secureBoot(bootStored|bootClose, digest, nil)
}

// secureBoot is the command SecureBoot with its digest encrypted and its success
// authenticated: K = SHA-256(IO key ‖ TempKey), the digest goes XOR K, success is
// SHA-256(K ‖ digest ‖ signature ‖ 80 ‖ mode ‖ 0000).
func (e *Element) secureBoot(mode byte, digest [32]byte, signature []byte) error {
	mode |= bootEncrypted
	temp, err := e.nonce()
	if err != nil {
		return err
	}
	key := sum(e.io[:], temp[:])
	data := make([]byte, 32, 96)
	subtle.XORBytes(data, digest[:], key[:])
	answer, err := e.do(chip.OpSecureBoot, mode, 0, append(data, signature...)...)
	switch {
	case errors.Is(err, chip.Miscompare):
		return ErrRefused
	case err != nil:
		return err
	}
	want := sum(key[:], digest[:], signature, []byte{secureBootHash, mode, 0, 0})
	if subtle.ConstantTimeCompare(answer, want[:]) != 1 {
		return fmt.Errorf("secure boot: %w", ErrBus)
	}
	return nil
}

// Verify has the element verify a signature and keep nothing, as it does at any time,
// also when SecureBoot was closed. ErrRefused.
func (e *Element) Verify(digest [32]byte, signature [64]byte) error {
	if _, err := e.do(chip.OpNonce, nonceGiven, 0, digest[:]...); err != nil {
		return err
	}
	_, err := e.do(chip.OpVerify, verifyStored, chip.SlotReleaseKey, signature[:]...)
	if errors.Is(err, chip.Miscompare) {
		return ErrRefused
	}
	return err
}

func sum(parts ...[]byte) [32]byte { return sha256.Sum256(bytes.Join(parts, nil)) }
