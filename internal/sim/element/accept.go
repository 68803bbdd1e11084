package element

import (
	"encoding/binary"
	"fmt"

	"joinery/lorawan"
)

// JoinType says what an accept answers: a join-request or a rejoin-request. It
// is the first byte of the MIC input of a 1.1 accept (TS001-1.1 §6.2.3,
// JoinReqType).
type JoinType uint8

// The join types.
const (
	Join    JoinType = 0xFF
	Rejoin0 JoinType = 0x00
	Rejoin1 JoinType = 0x01
	Rejoin2 JoinType = 0x02
)

// String names the type as people say it.
func (t JoinType) String() string {
	if t == Join {
		return "join"
	}
	return fmt.Sprintf("rejoin type %d", uint8(t))
}

// optNegAt is where DLSettings stands in an accept's plaintext, MHDR first.
const optNegAt = 11

// ProcessJoinAccept opens an encrypted join-accept of 17 or 33 bytes and
// verifies its MIC. t, joinEUI and count (DevNonce or RJcount) are those of the
// request that it is thought to answer. It appends the plaintext, 13 or 29
// bytes without the MIC, to dst and tells whether OptNeg is set.
//
// The accept was "encrypted" by AES decryption, so that an element needs
// encryption only (TS001-1.1 §6.2.3): NwkKey or the 1.0.x root opens what
// answers a join, JSEncKey what answers a rejoin. OptNeg decides the MIC.
func (e *Element) ProcessJoinAccept(dst []byte, t JoinType, joinEUI lorawan.EUI64, count uint16, phy []byte) ([]byte, bool, error) {
	if len(phy) != lorawan.JoinAcceptLen && len(phy) != lorawan.JoinAcceptCFListLen {
		return nil, false, fmt.Errorf("join-accept: %w: %d bytes", ErrLength, len(phy))
	}
	encKey := e.root10
	if t != Join {
		encKey = JSEncKey
	}
	start := len(dst)
	dst = append(dst, phy...)
	plain := dst[start:]
	if err := e.ecb(encKey, plain[1:], phy[1:]); err != nil {
		return nil, false, err
	}
	end := len(plain) - lorawan.MICLen
	optNeg := plain[optNegAt]&0x80 != 0
	if err := e.verifyAccept(t, joinEUI, count, optNeg, plain[:end], lorawan.MIC(plain[end:])); err != nil {
		return nil, optNeg, err
	}
	return dst[:start+end], optNeg, nil
}

// verifyAccept checks the MIC of an accept: over the plaintext alone under the
// 1.0.x root (TS001-1.0.4 §6.2.6), or with JoinReqType ‖ JoinEUI ‖ DevNonce in
// front under JSIntKey (TS001-1.1 §6.2.3). A rejoin exists in 1.1 only, so its
// answer must set OptNeg.
func (e *Element) verifyAccept(t JoinType, joinEUI lorawan.EUI64, count uint16, optNeg bool, plain []byte, mic lorawan.MIC) error {
	if !optNeg {
		if t != Join {
			return ErrMIC
		}
		return e.VerifyCMAC(e.root10, nil, plain, mic)
	}
	if !e.Has(JSIntKey) {
		// Bit 7 is reserved before 1.1; an opened frame that was not ours sets
		// it half of the time. Only a right 1.0.x MIC makes it a fault of the
		// server's.
		if err := e.VerifyCMAC(e.root10, nil, plain, mic); err != nil {
			return err
		}
		return ErrVersion
	}
	e.header[0] = byte(t)
	binary.LittleEndian.PutUint64(e.header[1:], joinEUI.Uint64())
	binary.LittleEndian.PutUint16(e.header[9:], count)
	return e.VerifyCMAC(JSIntKey, e.header[:], plain, mic)
}
