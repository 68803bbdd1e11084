package lwcrypto

import (
	"crypto/subtle"
	"encoding/binary"

	"joinery/lorawan"
)

// MIC gives the part of a CMAC that travels (TS001-1.0.4 §6.2.5).
func MIC(mac [BlockLen]byte) lorawan.MIC { return lorawan.MIC(mac[:lorawan.MICLen]) }

// EqualMIC compares in constant time.
func EqualMIC(a, b lorawan.MIC) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }

// AcceptMICInput appends what the MIC of a 1.1 accept covers to dst (TS001-1.1
// §6.2.3): JoinReqType (0xFF for a join-request, else the type of the
// rejoin-request), JoinEUI and DevNonce or RJcount, both least significant byte
// first, and the accept's plaintext, MHDR first. The MIC of a 1.0.x accept
// covers the plaintext alone (TS001-1.0.4 §6.2.6).
func AcceptMICInput(dst []byte, joinReqType byte, joinEUI lorawan.EUI64, devNonce uint16, plain []byte) []byte {
	dst = append(dst, joinReqType)
	dst = binary.LittleEndian.AppendUint64(dst, joinEUI.Uint64())
	dst = binary.LittleEndian.AppendUint16(dst, devNonce)
	return append(dst, plain...)
}

// BlockDecrypter decrypts whole blocks under one AES key.
type BlockDecrypter interface {
	// DecryptECB replaces blocks, whose length is a multiple of 16, by their
	// AES-ECB decryption.
	DecryptECB(blocks []byte) error
}

// EncryptAccept makes the PHYPayload of a join-accept in place: phy is MHDR,
// payload and MIC, 17 or 33 bytes. What follows MHDR is encrypted by an AES-ECB
// *decrypt* operation, so that a device needs only the other one (TS001-1.0.4
// §6.2.6, TS001-1.1 §6.2.3).
func EncryptAccept(d BlockDecrypter, phy []byte) error { return d.DecryptECB(phy[1:]) }
