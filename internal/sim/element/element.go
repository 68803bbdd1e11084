// Package element simulates the secure element of an end-device. Its verbs are
// those through which LoRaWAN stacks speak to an element: compute and verify a
// CMAC, encrypt, derive a key into a slot, process a join-accept. Keys go in at
// the factory or are derived inside, and only results come out: no method
// returns a key, and printing an element shows its identifiers.
package element

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/subtle"
	"errors"
	"fmt"

	"joinery/internal/sim/aesmode"
	"joinery/internal/sim/chip/tnglora"
	"joinery/lorawan"
)

// KeySize is the length of every key in an element, in bytes.
const KeySize = 16

// KeyID names a slot.
type KeyID uint8

// The slots: root keys, the two Join Server keys of a 1.1 device, session keys
// (TS001-1.1 §6.1.1.3, §6.1.2). After a 1.0.x activation FNwkSIntKey,
// SNwkSIntKey and NwkSEncKey all hold NwkSKey.
const (
	NwkKey KeyID = iota + 1
	AppKey
	JSIntKey
	JSEncKey
	FNwkSIntKey
	SNwkSIntKey
	NwkSEncKey
	AppSKey
	slots
)

var keyText = [slots]string{
	NwkKey: "NwkKey", AppKey: "AppKey", JSIntKey: "JSIntKey", JSEncKey: "JSEncKey",
	FNwkSIntKey: "FNwkSIntKey", SNwkSIntKey: "SNwkSIntKey", NwkSEncKey: "NwkSEncKey", AppSKey: "AppSKey",
}

// String gives the name that TS001 has for the key.
func (id KeyID) String() string {
	if id == 0 || id >= slots {
		return "unknown key"
	}
	return keyText[id]
}

func (id KeyID) isRoot() bool { return id == NwkKey || id == AppKey }

func (id KeyID) isSession() bool { return id >= FNwkSIntKey && id < slots }

// Errors of the verbs. They never say anything about a key.
var (
	// ErrNoKey: the slot is empty.
	ErrNoKey = errors.New("element: no key in that slot")
	// ErrUse: the element does not do that with this key.
	ErrUse = errors.New("element: key is not for that use")
	// ErrMIC: the MIC is not one made with the key.
	ErrMIC = errors.New("element: MIC does not match")
	// ErrLength: not a whole number of AES blocks, or not a frame's length.
	ErrLength = errors.New("element: wrong length")
	// ErrVersion: the accept is ours and sets OptNeg, but this element has no
	// Join Server keys: its firmware speaks LoRaWAN 1.0.x.
	ErrVersion = errors.New("element: accept of LoRaWAN 1.1 on a 1.0.x device")
)

// Element is one secure element. It keeps scratch space, so that its verbs do
// not allocate: one goroutine at a time.
type Element struct {
	joinEUI lorawan.EUI64
	devEUI  lorawan.EUI64
	root10  KeyID
	slots   [slots]slot
	device  *ecdsa.PrivateKey // nil: none
	chip    *tnglora.Driver   // where the keys are; nil: here
	rekey   rekeying
	sum     [aes.BlockSize]byte
	header  [11]byte
}

// slot is a key and, once used, its key schedule.
type slot struct {
	filled bool
	key    [KeySize]byte
	block  cipher.Block
	cmac   *aesmode.CMAC
}

// Provision makes an element as a factory does: identifiers and root keys go
// in. Either root may be nil, not both. NwkKey, where there is one, also serves
// LoRaWAN 1.0.x; an element with AppKey alone is that of an ordinary 1.0.x
// device. The caller keeps, and should wipe, what it gave.
func Provision(joinEUI, devEUI lorawan.EUI64, nwkKey, appKey []byte) (*Element, error) {
	if nwkKey == nil && appKey == nil {
		return nil, fmt.Errorf("element %v: no root key given", devEUI)
	}
	e := &Element{joinEUI: joinEUI, devEUI: devEUI, root10: AppKey}
	for id, key := range map[KeyID][]byte{NwkKey: nwkKey, AppKey: appKey} {
		if key == nil {
			continue
		}
		if len(key) != KeySize {
			return nil, fmt.Errorf("element %v: %v: %w: want %d bytes, got %d", devEUI, id, ErrLength, KeySize, len(key))
		}
		e.slots[id].filled = true
		copy(e.slots[id].key[:], key)
	}
	if nwkKey != nil {
		e.root10 = NwkKey
	}
	return e, nil
}

// DevEUI gives the device's identifier.
func (e *Element) DevEUI() lorawan.EUI64 { return e.devEUI }

// JoinEUI gives the identifier of the Join Server that the device asks for.
func (e *Element) JoinEUI() lorawan.EUI64 { return e.joinEUI }

// SetDevEUI changes the device's identifier.
func (e *Element) SetDevEUI(v lorawan.EUI64) { e.devEUI = v }

// SetJoinEUI changes the Join Server that the device asks for.
func (e *Element) SetJoinEUI(v lorawan.EUI64) error {
	if e.chip != nil {
		if err := e.chip.SetJoinEUI(v); err != nil {
			return fmt.Errorf("element %v: JoinEUI: %w", e.devEUI, err)
		}
	}
	e.joinEUI = v
	return nil
}

// Root10 gives the slot whose key serves LoRaWAN 1.0.x.
func (e *Element) Root10() KeyID { return e.root10 }

// Has tells whether a slot holds a key.
func (e *Element) Has(id KeyID) bool { return id < slots && e.slots[id].filled }

// String keeps keys out of logs.
func (e *Element) String() string { return "element " + e.devEUI.String() }

// Format is String for every verb of package fmt.
func (e *Element) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(e.String())) }

// ComputeCMAC gives the first four bytes of the AES-CMAC of prefix ‖ message
// under a key (TS001-1.0.4 §4.4). prefix may be nil.
func (e *Element) ComputeCMAC(id KeyID, prefix, message []byte) (lorawan.MIC, error) {
	c, err := e.cmac(id)
	if err != nil {
		return lorawan.MIC{}, err
	}
	c.Sum(&e.sum, prefix, message)
	if err := failed(e.slots[id].block); err != nil {
		return lorawan.MIC{}, err
	}
	return lorawan.MIC(e.sum[:lorawan.MICLen]), nil
}

// VerifyCMAC compares mic with the one that ComputeCMAC gives, in constant
// time; ErrMIC where they differ.
func (e *Element) VerifyCMAC(id KeyID, prefix, message []byte, mic lorawan.MIC) error {
	want, err := e.ComputeCMAC(id, prefix, message)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(want[:], mic[:]) != 1 {
		return ErrMIC
	}
	return nil
}

// Encrypt encrypts src, whole AES blocks one by one, to dst, which may be src.
// Only session keys do that: under a root key, the right block would give a
// session key away.
func (e *Element) Encrypt(id KeyID, dst, src []byte) error {
	if !id.isSession() {
		return fmt.Errorf("%v: %w", id, ErrUse)
	}
	return e.ecb(id, dst, src)
}

// DeriveAndStore fills the slot target with AES-ECB(root, input): the form of
// every derivation in LoRaWAN. Root keys cannot be overwritten so.
func (e *Element) DeriveAndStore(target, root KeyID, input *[aes.BlockSize]byte) error {
	if target.isRoot() || !root.isRoot() || target == 0 || target >= slots {
		return fmt.Errorf("%v from %v: %w", target, root, ErrUse)
	}
	if e.chip != nil {
		return e.deriveOnChip(target, root, input)
	}
	block, err := e.cipher(root)
	if err != nil {
		return err
	}
	s := &e.slots[target]
	*s = slot{filled: true}
	block.Encrypt(s.key[:], input[:])
	return nil
}

// Holds tells, in constant time, whether key is the key in a slot other than a
// root's. It is how a test, or a simulated network, compares its key with the
// device's without the element handing out one.
func (e *Element) Holds(id KeyID, key []byte) bool {
	if id.isRoot() || !e.Has(id) {
		return false
	}
	if e.chip != nil {
		return e.holdsOnChip(id, key)
	}
	return subtle.ConstantTimeCompare(e.slots[id].key[:], key) == 1
}

// ecb works for Encrypt and for the processing of accepts, which needs a root.
func (e *Element) ecb(id KeyID, dst, src []byte) error {
	if len(src)%aes.BlockSize != 0 || len(dst) < len(src) {
		return ErrLength
	}
	block, err := e.cipher(id)
	if err != nil {
		return err
	}
	for i := 0; i < len(src); i += aes.BlockSize {
		block.Encrypt(dst[i:i+aes.BlockSize], src[i:i+aes.BlockSize])
	}
	return failed(block)
}

func (e *Element) cipher(id KeyID) (cipher.Block, error) {
	if !e.Has(id) {
		return nil, fmt.Errorf("%v: %w", id, ErrNoKey)
	}
	s := &e.slots[id]
	if s.block == nil && e.chip != nil {
		s.block = &chipBlock{chip: e.chip, id: id}
	}
	if s.block == nil {
		block, err := aes.NewCipher(s.key[:])
		if err != nil {
			return nil, fmt.Errorf("element: %w", err)
		}
		s.block = block
	}
	return s.block, nil
}

func (e *Element) cmac(id KeyID) (*aesmode.CMAC, error) {
	block, err := e.cipher(id)
	if err != nil {
		return nil, err
	}
	if e.slots[id].cmac == nil {
		c := aesmode.NewCMAC(block)
		if err := failed(block); err != nil {
			return nil, err
		}
		e.slots[id].cmac = c
	}
	return e.slots[id].cmac, nil
}
