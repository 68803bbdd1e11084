package lorawan

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrFrame is wrapped by every error of the frame parsers: a PHYPayload that is
// not the frame it should be, by length, by message type or by version.
var ErrFrame = errors.New("not a valid frame")

// Lengths of whole PHYPayloads and of their parts, in bytes.
const (
	JoinRequestLen      = 23 // MHDR 1, JoinEUI 8, DevEUI 8, DevNonce 2, MIC 4
	JoinAcceptLen       = 17 // MHDR 1, then 16 encrypted
	JoinAcceptCFListLen = 33 // MHDR 1, then 32 encrypted
	RejoinRequest02Len  = 19 // MHDR 1, type 1, NetID 3, DevEUI 8, RJcount0 2, MIC 4
	RejoinRequest1Len   = 24 // MHDR 1, type 1, JoinEUI 8, DevEUI 8, RJcount1 2, MIC 4
	CFListLen           = 16
	MICLen              = 4
)

// MHDR values of the activation frames: message type in bits 7..5, Major 0
// (TS001-1.1 §4.2).
const (
	MHDRJoinRequest   = 0x00
	MHDRJoinAccept    = 0x20
	MHDRRejoinRequest = 0xC0
)

// JoinRequest is a join-request frame (TS001-1.0.4 §6.2.5).
type JoinRequest struct {
	JoinEUI  EUI64
	DevEUI   EUI64
	DevNonce DevNonce
	MIC      MIC
}

// ParseJoinRequest reads a PHYPayload of exactly 23 bytes.
func ParseJoinRequest(phy []byte) (f JoinRequest, err error) {
	if err := checkFrame(phy, "join-request", MHDRJoinRequest, JoinRequestLen); err != nil {
		return f, err
	}
	f.JoinEUI = readEUI(phy[1:])
	f.DevEUI = readEUI(phy[9:])
	f.DevNonce = DevNonce(binary.LittleEndian.Uint16(phy[17:]))
	f.MIC = MIC(phy[19:])
	return f, nil
}

// Append appends the 23 bytes of f to dst.
func (f JoinRequest) Append(dst []byte) []byte {
	return append(f.AppendUnsigned(dst), f.MIC[:]...)
}

// AppendUnsigned appends the 19 bytes that the MIC covers.
func (f JoinRequest) AppendUnsigned(dst []byte) []byte {
	dst = append(dst, MHDRJoinRequest)
	dst = appendEUI(dst, f.JoinEUI)
	dst = appendEUI(dst, f.DevEUI)
	return binary.LittleEndian.AppendUint16(dst, uint16(f.DevNonce))
}

// RejoinType is the second byte of a rejoin-request.
type RejoinType uint8

// The three rejoin-requests (TS001-1.1 §6.2.4): type 0 resets radio and
// session, type 1 restores a lost session, type 2 only changes keys.
const (
	Rejoin0 RejoinType = iota
	Rejoin1
	Rejoin2
)

// RejoinRequest is a rejoin-request frame (TS001-1.1 §6.2.4). Types 0 and 2
// carry the NetID of their session, type 1 a JoinEUI; the other field is zero.
type RejoinRequest struct {
	Type    RejoinType
	NetID   NetID
	JoinEUI EUI64
	DevEUI  EUI64
	RJCount RJCount
	MIC     MIC
}

// ParseRejoinRequest reads a PHYPayload of 19 bytes (types 0 and 2) or 24
// bytes (type 1).
func ParseRejoinRequest(phy []byte) (f RejoinRequest, err error) {
	if len(phy) < 2 {
		return f, fmt.Errorf("rejoin-request: %w: %d bytes", ErrFrame, len(phy))
	}
	f.Type = RejoinType(phy[1])
	want := RejoinRequest02Len
	switch f.Type {
	case Rejoin0, Rejoin2:
	case Rejoin1:
		want = RejoinRequest1Len
	default:
		return RejoinRequest{}, fmt.Errorf("rejoin-request: %w: type %d does not exist", ErrFrame, phy[1])
	}
	if err := checkFrame(phy, "rejoin-request", MHDRRejoinRequest, want); err != nil {
		return RejoinRequest{}, err
	}
	rest := phy[2:]
	if f.Type == Rejoin1 {
		f.JoinEUI, rest = readEUI(rest), rest[8:]
	} else {
		f.NetID, rest = NetID{rest[2], rest[1], rest[0]}, rest[3:]
	}
	f.DevEUI = readEUI(rest)
	f.RJCount = RJCount(binary.LittleEndian.Uint16(rest[8:]))
	f.MIC = MIC(rest[10:])
	return f, nil
}

// Append appends the 19 or 24 bytes of f to dst.
func (f RejoinRequest) Append(dst []byte) []byte {
	return append(f.AppendUnsigned(dst), f.MIC[:]...)
}

// AppendUnsigned appends the 15 or 20 bytes that the MIC covers.
func (f RejoinRequest) AppendUnsigned(dst []byte) []byte {
	dst = append(dst, MHDRRejoinRequest, byte(f.Type))
	if f.Type == Rejoin1 {
		dst = appendEUI(dst, f.JoinEUI)
	} else {
		dst = append(dst, f.NetID[2], f.NetID[1], f.NetID[0])
	}
	dst = appendEUI(dst, f.DevEUI)
	return binary.LittleEndian.AppendUint16(dst, uint16(f.RJCount))
}

// DLSettings is the byte of a join-accept with the downlink parameters
// (TS001-1.1 §6.2.3): bit 7 OptNeg, bits 6..4 RX1DROffset, bits 3..0 RX2 data
// rate.
type DLSettings uint8

// OptNeg tells whether the accept announces a 1.1 network.
func (d DLSettings) OptNeg() bool { return d&0x80 != 0 }

// CFList is the optional list of channels of a join-accept: 15 bytes and a type
// byte, opaque to a Join Server. It is comparable; the zero value is no list.
type CFList struct {
	present bool
	bytes   [CFListLen]byte
}

// ParseCFList takes 16 bytes as they travel; none at all is the absent list.
func ParseCFList(wire []byte) (CFList, error) {
	switch len(wire) {
	case 0:
		return CFList{}, nil
	case CFListLen:
		return CFList{present: true, bytes: [CFListLen]byte(wire)}, nil
	}
	return CFList{}, fmt.Errorf("CFList: %w: want %d bytes, got %d", ErrFrame, CFListLen, len(wire))
}

// IsPresent tells whether there is a list.
func (c CFList) IsPresent() bool { return c.present }

// Append appends the 16 bytes of a present list, and nothing of an absent one.
func (c CFList) Append(dst []byte) []byte {
	if !c.present {
		return dst
	}
	return append(dst, c.bytes[:]...)
}

// JoinAccept is the plaintext of a join-accept without its MIC.
type JoinAccept struct {
	JoinNonce  JoinNonce
	NetID      NetID
	DevAddr    DevAddr
	DLSettings DLSettings
	RxDelay    uint8 // seconds, 0..15 (0 means 1)
	CFList     CFList
}

// Append appends MHDR, JoinNonce, NetID, DevAddr, DLSettings, RxDelay and, where
// present, CFList: 13 or 29 bytes, what the MIC of a 1.0.x accept covers
// (TS001-1.0.4 §6.2.6). JoinNonce must not exceed MaxJoinNonce.
func (f JoinAccept) Append(dst []byte) []byte {
	dst = append(dst, MHDRJoinAccept,
		byte(f.JoinNonce), byte(f.JoinNonce>>8), byte(f.JoinNonce>>16),
		f.NetID[2], f.NetID[1], f.NetID[0],
		f.DevAddr[3], f.DevAddr[2], f.DevAddr[1], f.DevAddr[0],
		byte(f.DLSettings), f.RxDelay)
	return f.CFList.Append(dst)
}

// ParseJoinAccept reads what Append wrote: 13 or 29 bytes of plaintext, MHDR
// first, without MIC.
func ParseJoinAccept(plain []byte) (f JoinAccept, err error) {
	short, long := JoinAcceptLen-MICLen, JoinAcceptCFListLen-MICLen
	want := short
	if len(plain) == long {
		want = long
	}
	if err := checkFrame(plain, "join-accept", MHDRJoinAccept, want); err != nil {
		return f, err
	}
	f.JoinNonce = JoinNonce(plain[1]) | JoinNonce(plain[2])<<8 | JoinNonce(plain[3])<<16
	f.NetID = NetID{plain[6], plain[5], plain[4]}
	f.DevAddr = DevAddr{plain[10], plain[9], plain[8], plain[7]}
	f.DLSettings = DLSettings(plain[11])
	f.RxDelay = plain[12]
	f.CFList, err = ParseCFList(plain[short:])
	return f, err
}

func checkFrame(b []byte, what string, mhdr byte, length int) error {
	if len(b) != length {
		return fmt.Errorf("%s: %w: want %d bytes, got %d", what, ErrFrame, length, len(b))
	}
	if b[0] != mhdr {
		return fmt.Errorf("%s: %w: MHDR is %02X, want %02X", what, ErrFrame, b[0], mhdr)
	}
	return nil
}

func readEUI(wire []byte) (e EUI64) {
	binary.BigEndian.PutUint64(e[:], binary.LittleEndian.Uint64(wire))
	return e
}

func appendEUI(dst []byte, e EUI64) []byte {
	return binary.LittleEndian.AppendUint64(dst, e.Uint64())
}
