package activation

import (
	"context"
	"encoding/binary"

	"joinery"
	"joinery/internal/keyring"
	"joinery/lorawan"
)

// Requester is the authenticated network that asks. The door has checked that
// NetID and NSID belong to the peer.
type Requester struct {
	Peer  joinery.Peer
	NetID lorawan.NetID
	NSID  lorawan.EUI64 // zero: the request named none
}

// JoinRequest is a JoinReq or a RejoinReq (TS002-1.0 §8, §9), its fields decoded
// and the frame as it came.
type JoinRequest struct {
	Requester
	JoinEUI    lorawan.EUI64 // ReceiverID
	DevEUI     lorawan.EUI64 // of the body; must be the frame's
	MACVersion lorawan.MACVersion
	PHYPayload []byte
	DevAddr    lorawan.DevAddr
	DLSettings lorawan.DLSettings
	RxDelay    uint8 // 0..15
	CFList     lorawan.CFList
}

// Envelope is a session key on its way to its recipient; see keyring.Envelope.
type Envelope = keyring.Envelope

// JoinAnswer is the material of a JoinAns or RejoinAns.
type JoinAnswer struct {
	// PHYPayload is the encrypted join-accept, 17 or 33 bytes.
	PHYPayload []byte
	// NwkSKey is set for a 1.0.x session, the three below it for a 1.1 session.
	NwkSKey     Envelope
	FNwkSIntKey Envelope
	SNwkSIntKey Envelope
	NwkSEncKey  Envelope
	AppSKey     Envelope
	// SessionKeyID is nil where this peer must not see one.
	SessionKeyID []byte
	// Lifetime is in seconds; 0 is no limit.
	Lifetime uint32
}

// AppSKeyRequest is an AppSKeyReq of an authenticated Application Server.
type AppSKeyRequest struct {
	Peer         joinery.Peer
	ASID         string
	JoinEUI      lorawan.EUI64
	DevEUI       lorawan.EUI64
	SessionKeyID []byte
}

// HomeNSRequest is a HomeNSReq of an authenticated network.
type HomeNSRequest struct {
	Requester
	JoinEUI lorawan.EUI64
	DevEUI  lorawan.EUI64
}

// HomeNSAnswer names the home network of a device; HNSID is zero where the
// owner named none.
type HomeNSAnswer struct {
	HNetID lorawan.NetID
	HNSID  lorawan.EUI64
}

// Store is the state that activations need. LoadActivation is one read and
// fails with joinery.CodeUnknownDevice; CommitActivation returns nil only after
// the commit is durable, and joinery.ErrSwapLost where the key set moved since
// it was loaded, in which case it wrote nothing.
type Store interface {
	LoadActivation(ctx context.Context, joinEUI, devEUI lorawan.EUI64) (joinery.ActivationState, error)
	CommitActivation(ctx context.Context, c joinery.ActivationCommit) error
	// Activation fails with joinery.CodeNotFound for one that never was, or
	// that was erased.
	Activation(ctx context.Context, id joinery.ActivationID) (joinery.Activation, error)
	// RoamingAllowed tells whether netID may learn the home network of device.
	RoamingAllowed(ctx context.Context, org joinery.OrgID, device joinery.DeviceID, netID lorawan.NetID) (bool, error)
}

// Keys are the verbs of custody that activations use; see keyring.Keyring.
type Keys interface {
	VerifyJoin(ctx context.Context, ks joinery.KeySet, frame []byte) error
	VerifyRejoin(ctx context.Context, ks joinery.KeySet, frame []byte, sessions []joinery.Activation) (int, error)
	Accept(ctx context.Context, r keyring.AcceptRequest) (keyring.Answer, error)
	AppSKey(ctx context.Context, ks joinery.KeySet, a joinery.Activation, as joinery.KEK) (keyring.Envelope, error)
}

// Directory is what the server knows of its peers, at this moment and without
// reading the store.
type Directory interface {
	// ServesJoinEUI tells whether this server answers for joinEUI.
	ServesJoinEUI(joinEUI lorawan.EUI64) bool
	// Peer finds a peer as it is now, suspended or not.
	Peer(id joinery.PeerID) (joinery.Peer, bool)
	// PeerByASID finds the peer to which an AS-ID belongs.
	PeerByASID(asid string) (joinery.Peer, bool)
	// CurrentKEK is the KEK that wraps for (peer, role) now.
	CurrentKEK(peer joinery.PeerID, role joinery.KEKRole) (joinery.KEK, bool)
	// KEK finds a KEK of any version that is not retired.
	KEK(id joinery.KEKID) (joinery.KEK, bool)
}

// Terms is the activation service as joins see it, at this moment and without
// reading the store.
type Terms interface {
	// Begins gives the plan under which the service of a device begins with an
	// activation; false where none begins now, as the clock is in doubt.
	Begins(maker joinery.OrgID, joinEUI lorawan.EUI64) (joinery.Plan, bool)
	// Lapses tells whether a term that is over by the clock is over.
	Lapses() bool
}

// Attested is what owners want of the element and firmware of their devices, at
// this moment and without reading the store.
type Attested interface {
	PolicyOf(org joinery.OrgID) joinery.AttestPolicy
}

// newSessionKeyID names the session of activation id: the id, big-endian, and 8
// random bytes.
func newSessionKeyID(id joinery.ActivationID, random [8]byte) (s joinery.SessionKeyID) {
	binary.BigEndian.PutUint64(s[:], uint64(id))
	copy(s[8:], random[:])
	return s
}
