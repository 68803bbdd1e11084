package api

import (
	"context"
	"crypto/sha256"
	"net/http"

	"joinery"
	"joinery/client"
	"joinery/internal/auth"
	"joinery/internal/claim"
	"joinery/internal/fleet"
	"joinery/internal/provisioning"
	"joinery/internal/refusal"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// Services is the rules behind the door. Each method decides itself what its
// caller may see and do; what is another organisation's it answers as absent.
// Errors carry a joinery.Code and a message for people outside.
type Services struct {
	System         System
	Keys           Keys
	People         People
	SignIn         SignIn
	Organisations  Organisations
	Ranges         Ranges
	Signers        Signers
	Peers          Peers
	KEKs           KEKs
	Devices        Devices
	Nonces         Nonces
	Ownership      Ownership
	Disputes       Disputes
	Imports        Imports
	Audit          Audit
	Refusals       Refusals
	Events         Events
	Rotation       Rotation
	Service        ActivationService
	Exports        Exports
	CustodyLog     CustodyLog
	Rekeying       Rekeying
	RekeyApprovals RekeyApprovals
	RekeyBatches   RekeyBatches
	RekeyFiles     RekeyFiles
	JoinServers    JoinServers
	Arrivals       Arrivals
	Attestations   Attestations
	// Attempts may be nil: then nobody is told of refused attempts.
	Attempts Attempts
	// Answers may be nil: then an Idempotency-Key has no effect.
	Answers Answers
	// V2 answers what lies under client.BasePathV2, in manners of its own; nil is
	// nobody.
	V2 http.Handler
	// Handover answers other Join Servers, whom their certificates name, under
	// /handover/; nil is nobody.
	Handover http.Handler
	// Unsealer opens the keys of a server that starts sealed.
	Unsealer Unsealer
}

// System tells about the server itself.
type System interface {
	// Ready is nil while joins can be served; else its message says why not.
	Ready(ctx context.Context) error
	// TransportKey is what key lists and KEKs are sealed to.
	TransportKey() seal.PublicKey
	// Masters names the master keys in the keyring.
	Masters() []client.MasterKey
	// Custody tells how keys are kept.
	Custody() []client.Custody
}

// Keys makes, checks and revokes API keys; see the package auth.
type Keys interface {
	// Authenticate also takes the text of a session. org is the organisation for
	// which the caller means to act; zero for its own.
	Authenticate(ctx context.Context, bearer string, org joinery.OrgID) (joinery.Caller, error)
	Make(ctx context.Context, caller joinery.Caller, n auth.NewKey) (text string, key joinery.APIKey, err error)
	List(ctx context.Context, caller joinery.Caller) ([]joinery.APIKey, error)
	Revoke(ctx context.Context, caller joinery.Caller, id joinery.APIKeyID) error
}

// Organisations is organisations and what belongs to them alone.
type Organisations interface {
	Orgs(ctx context.Context, caller joinery.Caller) ([]joinery.Organisation, error)
	// AddOrg with no kinds adds one of every kind.
	AddOrg(ctx context.Context, caller joinery.Caller, name string, kinds []joinery.OrgKind) (joinery.Organisation, error)
	// ChangeOrg with an empty name or no kinds leaves those as they are.
	ChangeOrg(ctx context.Context, caller joinery.Caller, id joinery.OrgID, name string, kinds []joinery.OrgKind) (joinery.Organisation, error)
	Roaming(ctx context.Context, caller joinery.Caller, org joinery.OrgID) ([]joinery.RoamingRule, error)
	// SetRoaming with nil NetIDs removes the rule.
	SetRoaming(ctx context.Context, caller joinery.Caller, r joinery.RoamingRule) error
}

// Ranges is the JoinEUIs that the server answers for.
type Ranges interface {
	Ranges(ctx context.Context, caller joinery.Caller) ([]joinery.JoinEUIRange, error)
	AssignRange(ctx context.Context, caller joinery.Caller, r joinery.JoinEUIRange) (joinery.JoinEUIRange, error)
	ReleaseRange(ctx context.Context, caller joinery.Caller, r joinery.EUIRange) error
}

// Signers is the pinned signers of manifests.
type Signers interface {
	Signers(ctx context.Context, caller joinery.Caller) ([]joinery.Signer, error)
	AddSigner(ctx context.Context, caller joinery.Caller, n joinery.Signer) (joinery.Signer, error)
	RemoveSigner(ctx context.Context, caller joinery.Caller, id joinery.SignerID) error
}

// Peers is Network Servers and Application Servers.
type Peers interface {
	Peers(ctx context.Context, caller joinery.Caller) ([]joinery.Peer, error)
	Peer(ctx context.Context, caller joinery.Caller, id joinery.PeerID) (joinery.Peer, error)
	AddPeer(ctx context.Context, caller joinery.Caller, p joinery.Peer, keks []fleet.NewKEK, confirm fleet.PeerConfirm) (joinery.Peer, error)
	ChangePeer(ctx context.Context, caller joinery.Caller, p joinery.Peer, confirm fleet.PeerConfirm) (joinery.Peer, error)
	RemovePeer(ctx context.Context, caller joinery.Caller, id joinery.PeerID) error
}

// KEKs is the key encryption keys of peers.
type KEKs interface {
	KEKs(ctx context.Context, caller joinery.Caller) ([]joinery.KEK, error)
	AddKEK(ctx context.Context, caller joinery.Caller, peer joinery.PeerID, n fleet.NewKEK) (joinery.KEK, error)
	RetireKEK(ctx context.Context, caller joinery.Caller, id joinery.KEKID) error
}

// Devices lists devices and changes them.
type Devices interface {
	Devices(ctx context.Context, caller joinery.Caller, q joinery.DeviceQuery) (joinery.DevicePage, error)
	Device(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (joinery.ActivationState, error)
	ManifestEntry(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (entry []byte, serial string, err error)
	Suspend(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, suspended bool) error
	Delete(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error
}

// Nonces is what devices did, and what they may do again.
type Nonces interface {
	// Activations is newest first, of those before one; zero: from the newest.
	Activations(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, before joinery.ActivationID, limit int) ([]joinery.Activation, error)
	OpenReset(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, joinNonceAtLeast lorawan.JoinNonce) error
}

// Ownership is who holds a device and which network may join it.
type Ownership interface {
	Claim(ctx context.Context, caller joinery.Caller, r claim.Request) (joinery.Device, error)
	Bind(ctx context.Context, caller joinery.Caller, device joinery.DeviceID, b joinery.Binding) error
	Unbind(ctx context.Context, caller joinery.Caller, device joinery.DeviceID) error
	OwnerToken(ctx context.Context, caller joinery.Caller, device joinery.DeviceID) (string, error)
	// LabelTokens gives one result for each of refs, in their order.
	LabelTokens(ctx context.Context, caller joinery.Caller, refs []joinery.DeviceRef) ([]joinery.LabelToken, error)
	HandOver
}

// Imports brings devices in.
type Imports interface {
	Begin(ctx context.Context, caller joinery.Caller, s provisioning.Spec) (joinery.Import, error)
	Rows(ctx context.Context, caller joinery.Caller, c provisioning.Chunk) ([]joinery.RowResult, joinery.Import, error)
	Status(ctx context.Context, caller joinery.Caller, id joinery.ImportID) (joinery.Import, error)
	// Errors gives failed rows from index from on, in order.
	Errors(ctx context.Context, caller joinery.Caller, id joinery.ImportID, from uint64, limit int) ([]joinery.RowResult, error)
	// Imported gives at most limit devices of rows from index from on, in order;
	// next is where the next page begins, 0 for none.
	Imported(ctx context.Context, caller joinery.Caller, id joinery.ImportID, from uint64, limit int) (devices []joinery.ImportedDevice, next uint64, err error)
}

// Answers remembers what requests were answered that name themselves.
type Answers interface {
	Answer(ctx context.Context, id [sha256.Size]byte) (a joinery.Answer, found bool, err error)
	// KeepAnswer is for a request whose mark came with its change.
	KeepAnswer(ctx context.Context, id [sha256.Size]byte, a joinery.Answer) error
}

// Refusals explains refused requests.
type Refusals interface {
	Device(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (refusal.Device, error)
	// Peer gives at most limit devices.
	Peer(ctx context.Context, caller joinery.Caller, id joinery.PeerID, limit int) (refusal.Peer, error)
}

// Audit reads the log of custody events.
type Audit interface {
	// Audit gives entries behind after, oldest first, and from where to go on;
	// that is after where there is nothing more to look at.
	Audit(ctx context.Context, caller joinery.Caller, after int64, limit int) ([]joinery.AuditEntry, int64, error)
}
