package simtest

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"

	"joinery/internal/sim/aesmode"
	"joinery/lorawan"
)

// Roots are root keys in the open, with which a test plays Join Server. A
// device of 1.0.x with one root key has it in NwkKey here.
type Roots struct {
	NwkKey [16]byte
	AppKey [16]byte
}

// Session says which activation to answer. Type is FF for a join; Count is the
// DevNonce or RJcount.
type Session struct {
	Type    byte
	JoinEUI lorawan.EUI64
	DevEUI  lorawan.EUI64
	Count   uint16
	Accept  lorawan.JoinAccept
}

// Keys are a session's keys; in a 1.0.x session the first three are NwkSKey.
type Keys struct {
	FNwkSIntKey, SNwkSIntKey, NwkSEncKey, AppSKey [16]byte
}

func newAES(key [16]byte) cipher.Block {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // 16 bytes are a key
	}
	return block
}

func encrypt(key, block [16]byte) (out [16]byte) {
	newAES(key).Encrypt(out[:], block[:])
	return out
}

// CMAC4 gives the first four bytes of AES-CMAC(key, message).
func CMAC4(key [16]byte, message []byte) lorawan.MIC {
	var sum [16]byte
	aesmode.NewCMAC(newAES(key)).Sum(&sum, nil, message)
	return lorawan.MIC(sum[:4])
}

// JSKeys gives JSIntKey and JSEncKey: AES(NwkKey, 06 or 05 ‖ DevEUI ‖ 0*7)
// (TS001-1.1 §6.1.1.3).
func (r Roots) JSKeys(devEUI lorawan.EUI64) (jsIntKey, jsEncKey [16]byte) {
	var block [16]byte
	binary.LittleEndian.PutUint64(block[1:], devEUI.Uint64())
	block[0] = 0x06
	jsIntKey = encrypt(r.NwkKey, block)
	block[0] = 0x05
	return jsIntKey, encrypt(r.NwkKey, block)
}

// AcceptFrame gives the encrypted accept, MHDR first (TS001-1.0.4 §6.2.6,
// TS001-1.1 §6.2.3).
func (r Roots) AcceptFrame(s Session) []byte {
	plain := s.Accept.Append(nil)
	jsIntKey, encKey := r.JSKeys(s.DevEUI)
	if s.Type == 0xFF {
		encKey = r.NwkKey
	}
	mic := CMAC4(r.NwkKey, plain)
	if s.Accept.DLSettings.OptNeg() {
		prefix := binary.LittleEndian.AppendUint64([]byte{s.Type}, s.JoinEUI.Uint64())
		prefix = binary.LittleEndian.AppendUint16(prefix, s.Count)
		mic = CMAC4(jsIntKey, append(prefix, plain...))
	}
	return encryptAccept(encKey, append(plain, mic[:]...))
}

// Encrypt encrypts, in place, an accept that answers a join, MIC and all.
func (r Roots) Encrypt(frame []byte) []byte { return encryptAccept(r.NwkKey, frame) }

// encryptAccept is AES decryption of all but MHDR (TS001-1.0.4 §6.2.6).
func encryptAccept(key [16]byte, frame []byte) []byte {
	block := newAES(key)
	for i := 1; i < len(frame); i += 16 {
		block.Decrypt(frame[i:i+16], frame[i:i+16])
	}
	return frame
}

// SessionKeys gives the session's keys (TS001-1.0.4 §6.2.6, TS001-1.1 §6.2.3).
func (r Roots) SessionKeys(s Session) Keys {
	n := s.Accept.JoinNonce
	head := []byte{0, byte(n), byte(n >> 8), byte(n >> 16)}
	appRoot := r.AppKey
	if s.Accept.DLSettings.OptNeg() {
		head = binary.LittleEndian.AppendUint64(head, s.JoinEUI.Uint64())
	} else {
		appRoot = r.NwkKey
		head = append(head, s.Accept.NetID[2], s.Accept.NetID[1], s.Accept.NetID[0])
	}
	head = binary.LittleEndian.AppendUint16(head, s.Count)
	derive := func(purpose byte, root [16]byte) [16]byte {
		var block [16]byte
		copy(block[:], head)
		block[0] = purpose
		return encrypt(root, block)
	}
	k := Keys{FNwkSIntKey: derive(1, r.NwkKey), AppSKey: derive(2, appRoot)}
	k.SNwkSIntKey, k.NwkSEncKey = k.FNwkSIntKey, k.FNwkSIntKey
	if s.Accept.DLSettings.OptNeg() {
		k.SNwkSIntKey, k.NwkSEncKey = derive(3, r.NwkKey), derive(4, r.NwkKey)
	}
	return k
}
