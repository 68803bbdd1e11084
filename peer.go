package joinery

import (
	"crypto/sha256"
	"time"

	"joinery/lorawan"
)

// Peer is a party on the Backend Interfaces: a Network Server, an Application
// Server, or both in one. A certificate leads to exactly one peer.
type Peer struct {
	ID   PeerID
	Org  OrgID
	Name string

	// NetIDs, NSIDs and ASIDs are the names under which the peer may speak. An
	// AS-ID belongs to one peer only; a NetID may be shared by peers that their
	// NSIDs tell apart.
	NetIDs []lorawan.NetID
	NSIDs  []lorawan.EUI64
	ASIDs  []string

	Credentials []Credential

	// ClearKeys is the operator's consent that session keys travel to this peer
	// unwrapped (inside mTLS only). The owner of the device must consent, too:
	// see Binding.
	ClearKeys bool
	// OmitSessionKeyID leaves SessionKeyID out where AppSKey is given:
	// ChirpStack takes its presence for end-to-end encryption.
	OmitSessionKeyID bool
	// AppSKeyAtLeast is the weakest AppSKey policy that this peer is served
	// with; a binding may be stricter, never weaker.
	AppSKeyAtLeast AppSKeyPolicy
	// DiscloseDevices answers ActivationDisallowed instead of UnknownDevEUI for
	// a device that exists but is not bound to this peer.
	DiscloseDevices bool
	// IgnoreNSID accepts any SenderNSID.
	IgnoreNSID bool
	// HideExistence answers every claim and question of this peer's about a
	// device that it does not hold as if the device were another's, known or not.
	HideExistence bool
	// ClaimKEKs lets this peer bring the KEK of a device's AppSKey with its claim;
	// see Binding.KEK.
	ClaimKEKs bool
	// Suspended refuses the peer without forgetting it.
	Suspended bool

	CreatedAt time.Time
}

// CredentialKind tells how a certificate is recognised.
type CredentialKind string

// Credential kinds.
const (
	// CredentialSPKI pins the leaf's SubjectPublicKeyInfo; the chain is not
	// looked at, the validity period is.
	CredentialSPKI CredentialKind = "spki"
	// CredentialCA trusts every leaf under a CA that belongs to this peer alone.
	CredentialCA CredentialKind = "ca"
	// CredentialCASAN trusts leaves under a CA, shared with others, that carry
	// one subject alternative name (DNS name or URI).
	CredentialCASAN CredentialKind = "ca+san"
)

// Credential is one way in which a peer proves who it is. It holds public
// material only.
type Credential struct {
	Kind CredentialKind
	SPKI [sha256.Size]byte // SHA-256 of the DER SubjectPublicKeyInfo
	CA   []byte            // DER of one CA certificate
	SAN  string
}

// KEKRole says for which side of a peer a KEK wraps: an NS KEK never wraps an
// AppSKey, an AS KEK never a network session key.
type KEKRole string

// KEK roles.
const (
	KEKForNS KEKRole = "ns"
	KEKForAS KEKRole = "as"
)

// KEK is one version of a key encryption key shared with a peer, sealed. The
// newest version of (peer, role) that is not retired wraps; older ones stay so
// that a repeated answer can be made again.
type KEK struct {
	ID        KEKID
	Peer      PeerID
	Role      KEKRole
	Label     string // KEKLabel on the wire; unique, but see Claimed
	Version   uint32 // from 1, by (peer, role)
	Sealed    Sealed
	CreatedAt time.Time
	Retired   bool
	// Claimed is set where the peer brought the KEK with a claim. Such a KEK wraps
	// for the bindings that name it and never becomes the current one of its peer;
	// its label is unique among the peer's own only.
	Claimed bool
}

// IsZero tells whether k is no KEK.
func (k KEK) IsZero() bool { return k.ID == 0 }
