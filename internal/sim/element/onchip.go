package element

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"

	"joinery/internal/sim/chip"
	"joinery/internal/sim/chip/tnglora"
	"joinery/lorawan"
)

// OnChip makes an element of a chip: each of its verbs is chip commands, so it can do
// what a device can that has such a chip, and nothing else. rekeys says whether the
// factory gave it the key of slot 13, which no command tells.
//
// The chip's NwkKey serves LoRaWAN 1.0.x.
func OnChip(c tnglora.Chip, rekeys bool) (*Element, error) {
	d := tnglora.NewDriver(c)
	e := &Element{chip: d, root10: NwkKey, rekey: rekeying{m: rekeys}}
	var err error
	if e.devEUI, err = d.DevEUI(); err != nil {
		return nil, fmt.Errorf("element: DevEUI: %w", err)
	}
	if e.joinEUI, err = d.JoinEUI(); err != nil {
		return nil, fmt.Errorf("element %v: JoinEUI: %w", e.devEUI, err)
	}
	e.slots[NwkKey].filled, e.slots[AppKey].filled = true, true
	return e, nil
}

// onChip says where a chip has the key of a slot.
var onChip = [slots]struct {
	slot  uint16
	place byte
}{
	NwkKey: {tnglora.SlotRoots, tnglora.PlaceNwkKey}, AppKey: {tnglora.SlotRoots, tnglora.PlaceAppKey},
	JSIntKey: {slot: tnglora.SlotJSIntKey}, JSEncKey: {slot: tnglora.SlotJSEncKey},
	FNwkSIntKey: {slot: tnglora.SlotFNwkSIntKey}, SNwkSIntKey: {slot: tnglora.SlotSNwkSIntKey},
	NwkSEncKey: {slot: tnglora.SlotNwkSEncKey}, AppSKey: {slot: tnglora.SlotAppSKey},
}

// errChip: a verb of this package met a chip that does not answer.
var errChip = errors.New("element: the chip does not answer as it should")

// chipBlock is the AES of a key in the chip. A block that the chip refuses comes out as
// zeros, and the error is kept: who used it asks for that.
type chipBlock struct {
	chip *tnglora.Driver
	id   KeyID
	err  error
}

// BlockSize implements cipher.Block.
func (*chipBlock) BlockSize() int { return aes.BlockSize }

// Encrypt implements cipher.Block.
func (b *chipBlock) Encrypt(dst, src []byte) {
	at := onChip[b.id]
	if err := b.chip.Encrypt(at.slot, at.place, dst, src); err != nil {
		clear(dst[:aes.BlockSize])
		b.err = errors.Join(b.err, err)
	}
}

// Decrypt implements cipher.Block. LoRaWAN's devices never decrypt.
func (b *chipBlock) Decrypt(dst, _ []byte) {
	clear(dst[:aes.BlockSize])
	b.err = ErrUse
}

// failed gives what went wrong in the chip since the last call.
func failed(b cipher.Block) error {
	c, ok := b.(*chipBlock)
	if !ok || c.err == nil {
		return nil
	}
	err := c.err
	c.err = nil
	return fmt.Errorf("%w: %w", errChip, err)
}

// deriveOnChip is DeriveAndStore by the chip's KDF.
func (e *Element) deriveOnChip(target, root KeyID, input *[aes.BlockSize]byte) error {
	if err := e.chip.Derive(onChip[target].slot, onChip[root].place, input); err != nil {
		return fmt.Errorf("element %v: %v: %w", e.devEUI, target, err)
	}
	e.slots[target] = slot{filled: true}
	return nil
}

// holdsOnChip compares a key with one that cannot be read: both encrypt a number that
// nobody knew before.
func (e *Element) holdsOnChip(id KeyID, key []byte) bool {
	var number, there, here [aes.BlockSize]byte
	rand.Read(number[:]) // never fails (crypto/rand)
	at := onChip[id]
	block, err := aes.NewCipher(key)
	if err != nil || len(key) != KeySize || e.chip.Encrypt(at.slot, at.place, there[:], number[:]) != nil {
		return false
	}
	block.Encrypt(here[:], number[:])
	return subtle.ConstantTimeCompare(there[:], here[:]) == 1
}

// rekeyOnChip is Rekey by the chip's DeriveKey, behind a Nonce command in fixed mode.
func (e *Element) rekeyOnChip(joinEUI lorawan.EUI64, cookie lorawan.Cookie, authMAC []byte) error {
	if !e.rekey.m {
		return fmt.Errorf("element %v: rekeying: %w", e.devEUI, ErrNoKey)
	}
	err := e.chip.DeriveRoots(rekeyNonce(joinEUI, e.devEUI, cookie), authMAC)
	// Without a MAC at all, the chip refuses.
	if errors.Is(err, chip.Miscompare) || errors.Is(err, chip.Refused) && len(authMAC) != AuthMACSize {
		return fmt.Errorf("element %v: authorising MAC: %w", e.devEUI, ErrMIC)
	}
	if err != nil {
		return fmt.Errorf("element %v: rekeying: %w", e.devEUI, err)
	}
	e.slots = [slots]slot{}
	e.slots[NwkKey].filled, e.slots[AppKey].filled = true, true
	return nil
}

// rekeyNonce is what DeriveKey works on in a rekeying: SHA-256("LWJS-REKEY-v1" ‖ new
// JoinEUI 8 ‖ DevEUI 8 ‖ cookie 7).
func rekeyNonce(joinEUI, devEUI lorawan.EUI64, cookie lorawan.Cookie) [sha256.Size]byte {
	b := append([]byte("LWJS-REKEY-v1"), joinEUI[:]...)
	return sha256.Sum256(append(append(b, devEUI[:]...), cookie[:]...))
}
