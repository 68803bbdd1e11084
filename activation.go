package joinery

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"joinery/lorawan"
)

// JoinType is what an activation answered: 0xFF a join-request, else the type
// of the rejoin-request. It is the first byte of the MIC input of a 1.1 accept
// (TS001-1.1 §6.2.3, JoinReqType).
type JoinType uint8

// Join types.
const (
	JoinTypeJoin    JoinType = 0xFF
	JoinTypeRejoin0 JoinType = 0x00
	JoinTypeRejoin1 JoinType = 0x01
	JoinTypeRejoin2 JoinType = 0x02
)

// SessionKeyID names a session towards Application Servers: the activation's
// id, big-endian, and 8 random bytes.
type SessionKeyID [16]byte

// ActivationID gives the activation that s names.
func (s SessionKeyID) ActivationID() ActivationID {
	return ActivationID(binary.BigEndian.Uint64(s[:8]) & (1<<63 - 1))
}

// Activation is one accepted join or rejoin, for ever: session, idempotency
// record, audit leaf and log entry in one. It freezes what is needed to make
// the answer and the session keys again, and holds neither.
type Activation struct {
	ID     ActivationID
	At     time.Time // to the millisecond, UTC
	Device DeviceID
	KeySet KeySetID
	Owner  OrgID
	Peer   PeerID

	// FrameHash is SHA-256 over the request's frame, its parameters and the
	// peer: two requests with the same one are the same request.
	FrameHash [32]byte

	Type    JoinType
	JoinEUI lorawan.EUI64
	DevEUI  lorawan.EUI64
	// OptNeg is the key layout: false 1.0.x, true 1.1.
	OptNeg bool
	// Root is the root key that served (OptNeg false: both session keys).
	Root RootKey
	// Count is the DevNonce of a join, the RJcount of a rejoin.
	Count uint16

	JoinNonce  lorawan.JoinNonce
	NetID      lorawan.NetID
	NSID       lorawan.EUI64 // of the requester, if it said one
	DevAddr    lorawan.DevAddr
	DLSettings lorawan.DLSettings
	RxDelay    uint8
	CFList     lorawan.CFList

	// NSKEK and ASKEK wrapped the keys; zero where keys travelled in the clear
	// or not at all.
	NSKEK KEKID
	ASKEK KEKID
	// Policy is how AppSKey travelled, and SendSessionKeyID whether its id did.
	Policy           AppSKeyPolicy
	SendSessionKeyID bool
	SessionKeyID     SessionKeyID
	ASID             string
	BindingEpoch     uint32
}

// Accept gives the plaintext of the join-accept.
func (a Activation) Accept() lorawan.JoinAccept {
	return lorawan.JoinAccept{
		JoinNonce: a.JoinNonce, NetID: a.NetID, DevAddr: a.DevAddr,
		DLSettings: a.DLSettings, RxDelay: a.RxDelay, CFList: a.CFList,
	}
}

// The payload of an activation, what its audit leaf covers; all integers
// big-endian, times in milliseconds since 1970:
//
//	format 1 ‖ ID 8 ‖ At 8 ‖ Device 8 ‖ KeySet 8 ‖ Owner 8 ‖ Peer 8 ‖
//	FrameHash 32 ‖ Type 1 ‖ JoinEUI 8 ‖ DevEUI 8 ‖ flags 1 ‖ Root 1 ‖ Count 2 ‖
//	JoinNonce 3 ‖ NetID 3 ‖ NSID 8 ‖ DevAddr 4 ‖ DLSettings 1 ‖ RxDelay 1 ‖
//	NSKEK 8 ‖ ASKEK 8 ‖ Policy 1 ‖ SessionKeyID 16 ‖ BindingEpoch 4 ‖
//	CFList 16, if flags say so ‖ ASID, to the end
const (
	activationFormat = 1
	activationFixed  = 159

	flagOptNeg       = 1 << 0
	flagCFList       = 1 << 1
	flagSessionKeyID = 1 << 2
)

// ErrActivation says that a stored payload is damaged.
var ErrActivation = errors.New("stored activation is damaged")

// AppendPayload appends the stored form of a.
func (a Activation) AppendPayload(b []byte) []byte {
	b = slices.Grow(b, activationFixed+lorawan.CFListLen+len(a.ASID))
	u64, u32, u16 := binary.BigEndian.AppendUint64, binary.BigEndian.AppendUint32, binary.BigEndian.AppendUint16
	b = append(b, activationFormat)
	b = u64(b, uint64(a.ID))
	b = u64(b, uint64(a.At.UnixMilli()))
	b = u64(b, uint64(a.Device))
	b = u64(b, uint64(a.KeySet))
	b = u64(b, uint64(a.Owner))
	b = u64(b, uint64(a.Peer))
	b = append(b, a.FrameHash[:]...)
	b = append(b, byte(a.Type))
	b = append(b, a.JoinEUI[:]...)
	b = append(b, a.DevEUI[:]...)
	b = append(b, a.flags(), byte(a.Root))
	b = u16(b, a.Count)
	b = append(b, byte(a.JoinNonce>>16), byte(a.JoinNonce>>8), byte(a.JoinNonce))
	b = append(b, a.NetID[:]...)
	b = append(b, a.NSID[:]...)
	b = append(b, a.DevAddr[:]...)
	b = append(b, byte(a.DLSettings), a.RxDelay)
	b = u64(b, uint64(a.NSKEK))
	b = u64(b, uint64(a.ASKEK))
	b = append(b, byte(a.Policy))
	b = append(b, a.SessionKeyID[:]...)
	b = u32(b, a.BindingEpoch)
	b = a.CFList.Append(b)
	return append(b, a.ASID...)
}

func (a Activation) flags() (f byte) {
	if a.OptNeg {
		f |= flagOptNeg
	}
	if a.CFList.IsPresent() {
		f |= flagCFList
	}
	if a.SendSessionKeyID {
		f |= flagSessionKeyID
	}
	return f
}

// ParseActivation reads the stored form. The result does not keep b.
func ParseActivation(b []byte) (a Activation, err error) {
	if len(b) < activationFixed || b[0] != activationFormat {
		return Activation{}, fmt.Errorf("%w: unknown format or cut short", ErrActivation)
	}
	r := reader{b[1:]}
	a.ID = ActivationID(r.uint(8))
	a.At = time.UnixMilli(int64(r.uint(8))).UTC()
	a.Device = DeviceID(r.uint(8))
	a.KeySet = KeySetID(r.uint(8))
	a.Owner = OrgID(r.uint(8))
	a.Peer = PeerID(r.uint(8))
	a.FrameHash = [32]byte(r.bytes(32))
	a.Type = JoinType(r.uint(1))
	a.JoinEUI = lorawan.EUI64(r.bytes(8))
	a.DevEUI = lorawan.EUI64(r.bytes(8))
	flags := byte(r.uint(1))
	a.OptNeg = flags&flagOptNeg != 0
	a.SendSessionKeyID = flags&flagSessionKeyID != 0
	a.Root = RootKey(r.uint(1))
	a.Count = uint16(r.uint(2))
	a.JoinNonce = lorawan.JoinNonce(r.uint(3))
	a.NetID = lorawan.NetID(r.bytes(3))
	a.NSID = lorawan.EUI64(r.bytes(8))
	a.DevAddr = lorawan.DevAddr(r.bytes(4))
	a.DLSettings = lorawan.DLSettings(r.uint(1))
	a.RxDelay = uint8(r.uint(1))
	a.NSKEK = KEKID(r.uint(8))
	a.ASKEK = KEKID(r.uint(8))
	a.Policy = AppSKeyPolicy(r.uint(1))
	a.SessionKeyID = SessionKeyID(r.bytes(16))
	a.BindingEpoch = uint32(r.uint(4))
	if flags&flagCFList != 0 {
		if len(r.rest) < lorawan.CFListLen {
			return Activation{}, fmt.Errorf("%w: CFList is cut short", ErrActivation)
		}
		if a.CFList, err = lorawan.ParseCFList(r.bytes(lorawan.CFListLen)); err != nil {
			return Activation{}, fmt.Errorf("%w: %w", ErrActivation, err)
		}
	}
	a.ASID = string(r.rest)
	return a, nil
}

// reader takes fixed-length fields off bytes whose length was checked.
type reader struct{ rest []byte }

func (r *reader) bytes(n int) []byte {
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint(n int) (v uint64) {
	for _, c := range r.bytes(n) {
		v = v<<8 | uint64(c)
	}
	return v
}

// ActivationCommit is one accepted join on its way into the store: the nonces
// of its key set move from Version to Version+1 and the activation appears,
// both or neither.
type ActivationCommit struct {
	KeySet     KeySetID
	Version    uint64
	Nonces     Nonces
	Activation Activation
	// Begin is set where the device's service begins with this activation: then
	// its term appears with the rest, unless it has begun already.
	Begin *ServiceBegin
}
