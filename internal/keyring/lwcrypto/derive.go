package lwcrypto

import (
	"encoding/binary"

	"joinery/lorawan"
)

// Block is what one AES-ECB encryption under a root key turns into a key.
type Block = [BlockLen]byte

// JSIntKey gives the block of the key that makes the MICs of rejoin-requests of
// type 1 and of accepts, from NwkKey (TS001-1.1 §6.1.1.4).
func JSIntKey(devEUI lorawan.EUI64) Block { return deviceBlock(0x06, devEUI) }

// JSEncKey gives the block of the key that encrypts answers to rejoin-requests,
// from NwkKey (TS001-1.1 §6.1.1.4).
func JSEncKey(devEUI lorawan.EUI64) Block { return deviceBlock(0x05, devEUI) }

func deviceBlock(kind byte, devEUI lorawan.EUI64) (b Block) {
	b[0] = kind
	binary.LittleEndian.PutUint64(b[1:], devEUI.Uint64())
	return b
}

// Session10 is what the session keys of a 1.0.x session are derived from
// (TS001-1.0.4 §6.2.6; TS001-1.1 §6.1.1.3 for OptNeg = 0). Both come from one
// root key.
type Session10 struct {
	JoinNonce lorawan.JoinNonce
	NetID     lorawan.NetID
	DevNonce  uint16
}

// NwkSKey gives the block of the network session key.
func (s Session10) NwkSKey() Block { return s.block(0x01) }

// AppSKey gives the block of the application session key.
func (s Session10) AppSKey() Block { return s.block(0x02) }

func (s Session10) block(kind byte) (b Block) {
	b[0] = kind
	putJoinNonce(b[1:], s.JoinNonce)
	b[4], b[5], b[6] = s.NetID[2], s.NetID[1], s.NetID[0]
	binary.LittleEndian.PutUint16(b[7:], s.DevNonce)
	return b
}

// Session11 is what the session keys of a 1.1 session are derived from
// (TS001-1.1 §6.2.3). After a rejoin-request DevNonce is its RJcount0 or
// RJcount1.
type Session11 struct {
	JoinNonce lorawan.JoinNonce
	JoinEUI   lorawan.EUI64
	DevNonce  uint16
}

// FNwkSIntKey gives the block of that key, from NwkKey.
func (s Session11) FNwkSIntKey() Block { return s.block(0x01) }

// AppSKey gives the block of that key, from AppKey.
func (s Session11) AppSKey() Block { return s.block(0x02) }

// SNwkSIntKey gives the block of that key, from NwkKey.
func (s Session11) SNwkSIntKey() Block { return s.block(0x03) }

// NwkSEncKey gives the block of that key, from NwkKey.
func (s Session11) NwkSEncKey() Block { return s.block(0x04) }

func (s Session11) block(kind byte) (b Block) {
	b[0] = kind
	putJoinNonce(b[1:], s.JoinNonce)
	binary.LittleEndian.PutUint64(b[4:], s.JoinEUI.Uint64())
	binary.LittleEndian.PutUint16(b[12:], s.DevNonce)
	return b
}

func putJoinNonce(b []byte, n lorawan.JoinNonce) {
	b[0], b[1], b[2] = byte(n), byte(n>>8), byte(n>>16)
}

// Purpose is the first byte of a derivation block of profile ecb-v1.
type Purpose byte

// Purposes of ecb-v1.
const (
	PurposeAppKey Purpose = 0x01
	PurposeNwkKey Purpose = 0x02
	// PurposeRekey: the rekeying key of profile S.
	PurposeRekey Purpose = 0x03
	// PurposeSlotFirst and PurposeSlotSecond: the halves of the slot key of
	// rekeying profile M.
	PurposeSlotFirst  Purpose = 0x04
	PurposeSlotSecond Purpose = 0x05
)

// RootKey gives the block of profile ecb-v1: the root key of a device is
// AES-256-ECB(master, block). The triple (master, generation, DevEUI) is used
// for one device only. All integers big-endian:
//
//	purpose 1 ‖ 01 ‖ generation 4 ‖ 00 00 ‖ DevEUI 8
func RootKey(purpose Purpose, generation uint32, devEUI lorawan.EUI64) (b Block) {
	b[0], b[1] = byte(purpose), 0x01
	binary.BigEndian.PutUint32(b[2:], generation)
	copy(b[8:], devEUI[:])
	return b
}
