package tnglora

import (
	"errors"
	"fmt"

	"joinery/internal/sim/chip"
	"joinery/lorawan"
)

// Chip is a chip that answers command packets: *chip.Chip, or one behind a bus.
type Chip interface {
	Execute(packet []byte) []byte
}

// Driver is a device's driver of its chip. It has no other way to it than commands.
// One goroutine at a time.
type Driver struct{ chip Chip }

// NewDriver makes a driver.
func NewDriver(c Chip) *Driver { return &Driver{c} }

// Modes of the commands that a driver sends.
const (
	readBlock   = 0x82 // of the data zone, 32 bytes
	writeBlock  = 0x82
	nonceGiven  = 0x03
	nonceBuffer = 0x43
	kdfSlotAES  = 0x2A // AES, from a slot into a slot
	deriveGiven = 0x04
	signBuffer  = 0xA0 // what the message digest buffer holds
	genPublic   = 0x00
)

// do sends a command and gives its data.
func (d *Driver) do(op chip.Opcode, p1 byte, p2 uint16, data ...byte) ([]byte, error) {
	out, err := chip.Answer(d.chip.Execute(chip.Command(op, p1, p2, data...)))
	if err != nil {
		return nil, fmt.Errorf("%v: %w", op, err)
	}
	return out, nil
}

// Encrypt encrypts one block under the 16 bytes at a place of a slot. dst may be src.
func (d *Driver) Encrypt(slot uint16, place byte, dst, src []byte) error {
	out, err := d.do(chip.OpAES, place<<6, slot, src[:16]...)
	if err != nil {
		return err
	}
	if len(out) != 16 {
		return errShort
	}
	copy(dst, out)
	return nil
}

var errShort = errors.New("chip: its answer has another length than the command's")

// Derive fills a slot with AES-ECB(root, input) and zeros; the root is at a place of
// slot 0.
func (d *Driver) Derive(target uint16, place byte, input *[16]byte) error {
	_, err := d.do(chip.OpKDF, kdfSlotAES, target<<8|SlotRoots, append([]byte{place, 0, 0, 0}, input[:]...)...)
	return err
}

// Sign signs a SHA-256 digest with the device key, r ‖ s.
func (d *Driver) Sign(digest [32]byte) (signature [64]byte, err error) {
	if _, err := d.do(chip.OpNonce, nonceBuffer, 0, digest[:]...); err != nil {
		return signature, err
	}
	out, err := d.do(chip.OpSign, signBuffer, SlotDeviceKey)
	if err == nil && copy(signature[:], out) != len(signature) {
		err = errShort
	}
	return signature, err
}

// PublicKey gives the device key's public half, X ‖ Y.
func (d *Driver) PublicKey() ([]byte, error) { return d.do(chip.OpGenKey, genPublic, SlotDeviceKey) }

// DeriveRoots has the chip replace both root keys by SHA-256 over the key of slot 13
// and temp. authMAC is what shows the chip that it may.
func (d *Driver) DeriveRoots(temp [32]byte, authMAC []byte) error {
	if _, err := d.do(chip.OpNonce, nonceGiven, 0, temp[:]...); err != nil {
		return err
	}
	_, err := d.do(chip.OpDeriveKey, deriveGiven, SlotRoots, authMAC...)
	return err
}

// JoinEUI reads slot 9.
func (d *Driver) JoinEUI() (lorawan.EUI64, error) {
	b, err := d.do(chip.OpRead, readBlock, SlotJoinEUI<<3)
	if err != nil {
		return lorawan.EUI64{}, err
	}
	if len(b) != 32 {
		return lorawan.EUI64{}, errShort
	}
	return lorawan.EUI64(b[:8]), nil
}

// SetJoinEUI writes slot 9.
func (d *Driver) SetJoinEUI(v lorawan.EUI64) error {
	_, err := d.do(chip.OpWrite, writeBlock, SlotJoinEUI<<3, append(v[:], make([]byte, 24)...)...)
	return err
}

// DevEUI reads slot 10: 16 upper-case hexadecimal digits, as drivers want them.
func (d *Driver) DevEUI() (lorawan.EUI64, error) {
	b, err := d.do(chip.OpRead, readBlock, SlotDevEUI<<3)
	if err != nil {
		return lorawan.EUI64{}, err
	}
	if len(b) != 32 {
		return lorawan.EUI64{}, errShort
	}
	v, err := lorawan.ParseEUI64(string(b[:16]))
	if err != nil || fmt.Sprintf("%X", v[:]) != string(b[:16]) {
		return lorawan.EUI64{}, fmt.Errorf("slot %d holds no DevEUI of 16 upper-case hexadecimal digits", SlotDevEUI)
	}
	return v, nil
}
