package lwcrypto

import (
	"crypto/sha256"
	"encoding/binary"

	"joinery/lorawan"
)

// Blocks of rekeying profile S: what one AES-ECB encryption under the rekeying
// key of a device turns into a root key of its next generation, or into the
// rekeying key of that generation:
//
//	purpose 1 ‖ cookie 7 ‖ JoinEUI of the new Join Server 8, little-endian
const (
	rekeyNwkKey  = 0x21
	rekeyAppKey  = 0x22
	rekeyNextKey = 0x23
)

// RekeyNwkKey gives the block of the new NwkKey.
func RekeyNwkKey(r lorawan.Rekey) Block { return rekeyBlock(rekeyNwkKey, r) }

// RekeyAppKey gives the block of the new AppKey.
func RekeyAppKey(r lorawan.Rekey) Block { return rekeyBlock(rekeyAppKey, r) }

// RekeyNextKey gives the block of the rekeying key that follows.
func RekeyNextKey(r lorawan.Rekey) Block { return rekeyBlock(rekeyNextKey, r) }

func rekeyBlock(purpose byte, r lorawan.Rekey) (b Block) {
	b[0] = purpose
	copy(b[1:], r.Cookie[:])
	binary.LittleEndian.PutUint64(b[8:], r.JoinEUI.Uint64())
	return b
}

// SlotKeyLen is the length of the key in slot 13 of an element of profile M, in
// bytes. It never changes with a rekeying.
const SlotKeyLen = 32

// SerialLen is the length of the serial number of such an element, in bytes.
const SerialLen = 9

// Rekeying profile M is the chip family's command DeriveKey, from slot 13 into
// slot 0, with TempKey from a Nonce command in fixed mode.
const (
	opDeriveKey   = 0x1C
	modeDeriveKey = 0x04
	tempKeyLabel  = "LWJS-REKEY-v1"
)

// TempKey gives what the element loads before it derives: SHA-256 over label ‖
// JoinEUI of the new Join Server 8 ‖ DevEUI 8 ‖ cookie 7, EUIs big-endian. It is
// no secret.
func TempKey(r lorawan.Rekey, devEUI lorawan.EUI64) [sha256.Size]byte {
	b := append(make([]byte, 0, 64), tempKeyLabel...)
	b = append(append(append(b, r.JoinEUI[:]...), devEUI[:]...), r.Cookie[:]...)
	return sha256.Sum256(b)
}

// deriveKeyHead is what DeriveKey and its authorising MAC both hash behind the
// slot's key: opcode ‖ mode ‖ target slot 2 ‖ SN[8] ‖ SN[0:2].
func deriveKeyHead(b []byte, serial *[SerialLen]byte) []byte {
	return append(b, opDeriveKey, modeDeriveKey, 0, 0, serial[8], serial[0], serial[1])
}

// DeriveKey computes what the element puts into slot 0: AppKey in the first
// half of roots, NwkKey in the second.
func DeriveKey(roots *[2 * BlockLen]byte, key *[SlotKeyLen]byte, serial *[SerialLen]byte, temp *[sha256.Size]byte) {
	var buf [96]byte
	defer clear(buf[:])
	b := deriveKeyHead(append(buf[:0], key[:]...), serial)
	b = append(b[:len(b)+25], temp[:]...) // 25 zero bytes
	*roots = sha256.Sum256(b)
}

// AuthMAC computes the MAC without which the element does not derive: over key
// and head alone, so that it is the same for every rekeying of an element. Who
// has it and reaches the element can make it derive, and learns nothing.
func AuthMAC(key *[SlotKeyLen]byte, serial *[SerialLen]byte) [sha256.Size]byte {
	var buf [SlotKeyLen + 7]byte
	defer clear(buf[:])
	return sha256.Sum256(deriveKeyHead(append(buf[:0], key[:]...), serial))
}
