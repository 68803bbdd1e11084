package keyringtest

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"fmt"

	"joinery/lorawan"
)

// Device is the other side of a join: what an end-device computes with its root
// keys. Every block is written out by hand, and the CMAC is an implementation of
// its own, so that the keyring cannot agree with itself.
type Device struct {
	JoinEUI, DevEUI lorawan.EUI64
	// Root10 is the root of 1.0.x sessions and of join-requests; in a 1.1
	// device it is Nwk.
	Root10, Nwk, App [16]byte
}

// Session is the session keys of a device. NwkSKey is set for OptNeg 0, the
// three others for OptNeg 1.
type Session struct {
	NwkSKey, FNwkSIntKey, SNwkSIntKey, NwkSEncKey, AppSKey [16]byte
}

// JoinRequest gives a join-request frame.
func (d Device) JoinRequest(devNonce uint16) []byte {
	f := lorawan.JoinRequest{JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, DevNonce: lorawan.DevNonce(devNonce)}
	return sign(d.Root10, f.AppendUnsigned(nil))
}

// Rejoin02 gives a rejoin-request of type 0 or 2 from session s.
func (d Device) Rejoin02(typ lorawan.RejoinType, netID lorawan.NetID, rjCount uint16, s Session) []byte {
	f := lorawan.RejoinRequest{Type: typ, NetID: netID, DevEUI: d.DevEUI, RJCount: lorawan.RJCount(rjCount)}
	return sign(s.SNwkSIntKey, f.AppendUnsigned(nil))
}

// Rejoin1 gives a rejoin-request of type 1.
func (d Device) Rejoin1(rjCount uint16) []byte {
	f := lorawan.RejoinRequest{Type: lorawan.Rejoin1, JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, RJCount: lorawan.RJCount(rjCount)}
	return sign(d.jsKey(6), f.AppendUnsigned(nil))
}

func sign(key [16]byte, msg []byte) []byte {
	mac := cmac(key[:], msg)
	return append(msg, mac[:4]...)
}

// jsKey gives JSIntKey (6) or JSEncKey (5).
func (d Device) jsKey(kind byte) [16]byte {
	e := d.DevEUI
	return encrypt(d.Nwk, [16]byte{kind, e[7], e[6], e[5], e[4], e[3], e[2], e[1], e[0]})
}

// Open opens an accept as the answer to a request of type typ (0xFF for a
// join-request) with DevNonce or RJcount count, checks its MIC and derives the
// session.
func (d Device) Open(typ byte, count uint16, phy []byte) (a lorawan.JoinAccept, s Session, err error) {
	key := d.Root10
	if typ != 0xFF {
		key = d.jsKey(5)
	}
	c, err := aes.NewCipher(key[:])
	if err != nil {
		return a, s, err
	}
	plain := bytes.Clone(phy)
	if len(plain) != 17 && len(plain) != 33 {
		return a, s, fmt.Errorf("an accept of %d bytes", len(plain))
	}
	for b := plain[1:]; len(b) > 0; b = b[16:] {
		c.Encrypt(b[:16], b[:16])
	}
	body, mic := plain[:len(plain)-4], plain[len(plain)-4:]
	if a, err = lorawan.ParseJoinAccept(body); err != nil {
		return a, s, err
	}
	micKey, covered := d.Root10, body
	if a.DLSettings.OptNeg() {
		micKey = d.jsKey(6)
		e := d.JoinEUI
		covered = append([]byte{typ, e[7], e[6], e[5], e[4], e[3], e[2], e[1], e[0], byte(count), byte(count >> 8)}, body...)
	}
	if mac := cmac(micKey[:], covered); !bytes.Equal(mac[:4], mic) {
		return a, s, fmt.Errorf("the MIC of the accept is wrong")
	}
	return a, d.session(a, count), nil
}

// session derives the session keys.
func (d Device) session(a lorawan.JoinAccept, count uint16) (s Session) {
	n, e := a.JoinNonce, d.JoinEUI
	block := func(kind byte) [16]byte {
		b := [16]byte{kind, byte(n), byte(n >> 8), byte(n >> 16)}
		if a.DLSettings.OptNeg() {
			copy(b[4:], []byte{e[7], e[6], e[5], e[4], e[3], e[2], e[1], e[0], byte(count), byte(count >> 8)})
		} else {
			copy(b[4:], []byte{a.NetID[2], a.NetID[1], a.NetID[0], byte(count), byte(count >> 8)})
		}
		return b
	}
	if !a.DLSettings.OptNeg() {
		s.NwkSKey, s.AppSKey = encrypt(d.Root10, block(1)), encrypt(d.Root10, block(2))
		return s
	}
	s.FNwkSIntKey, s.SNwkSIntKey = encrypt(d.Nwk, block(1)), encrypt(d.Nwk, block(3))
	s.NwkSEncKey, s.AppSKey = encrypt(d.Nwk, block(4)), encrypt(d.App, block(2))
	return s
}

func encrypt(key, block [16]byte) (out [16]byte) {
	c, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // a key of 16 bytes always works
	}
	c.Encrypt(out[:], block[:])
	return out
}

// cmac is AES-CMAC over 128-bit integers in two halves.
func cmac(key, msg []byte) (mac [16]byte) {
	c, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // keys of this package have 16 or 32 bytes
	}
	c.Encrypt(mac[:], mac[:])
	subkey := mac
	rounds := 1 // K1 for a full last block, K2 for any other
	if len(msg) == 0 || len(msg)%16 != 0 {
		rounds = 2
		msg = append(bytes.Clone(msg), 0x80)
		msg = append(msg, make([]byte, (16-len(msg)%16)%16)...)
	}
	for range rounds {
		hi, lo := binary.BigEndian.Uint64(subkey[:]), binary.BigEndian.Uint64(subkey[8:])
		out := hi >> 63 * 0x87
		binary.BigEndian.PutUint64(subkey[:], hi<<1|lo>>63)
		binary.BigEndian.PutUint64(subkey[8:], lo<<1^out)
	}
	mac = [16]byte{}
	for i, b := range msg {
		mac[i%16] ^= b
		if i == len(msg)-1 {
			for j := range subkey {
				mac[j] ^= subkey[j]
			}
		}
		if i%16 == 15 {
			c.Encrypt(mac[:], mac[:])
		}
	}
	return mac
}

// Unwrap opens a wrapped session key of 24 bytes under a KEK, as a peer does
// (RFC 3394 §2.2.2).
func Unwrap(kek, wrapped []byte) (key [16]byte, err error) {
	c, err := aes.NewCipher(kek)
	if err != nil {
		return key, err
	}
	if len(wrapped) != 24 {
		return key, fmt.Errorf("a wrapped key of %d bytes", len(wrapped))
	}
	a, r := wrapped[:8], [2][]byte{bytes.Clone(wrapped[8:16]), bytes.Clone(wrapped[16:])}
	for t := 12; t > 0; t-- {
		b := append(bytes.Clone(a), r[(t-1)%2]...)
		b[7] ^= byte(t)
		c.Decrypt(b, b)
		a, r[(t-1)%2] = b[:8], b[8:]
	}
	if !bytes.Equal(a, bytes.Repeat([]byte{0xA6}, 8)) {
		return key, fmt.Errorf("the wrapped key does not open under this KEK")
	}
	return [16]byte(append(r[0], r[1]...)), nil
}
