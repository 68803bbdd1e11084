package joinery

import (
	"fmt"
	"time"

	"joinery/lorawan"
)

// Organisation holds devices, peers, KEKs, manifests and API keys.
type Organisation struct {
	ID        OrgID
	Name      string
	Kinds     OrgKinds // what it may do; see OrgKind
	CreatedAt time.Time
}

// Device is one end-device: (JoinEUI, DevEUI) names it, DevEUI alone does not.
type Device struct {
	ID      DeviceID
	JoinEUI lorawan.EUI64
	DevEUI  lorawan.EUI64
	// MACVersion is the provisioned version: it decides the nonce rules,
	// whatever a network says.
	MACVersion lorawan.MACVersion
	// Maker is the organisation that imported the device; it may read the owner
	// token until the first claim.
	Maker     OrgID
	Ownership Ownership
	Suspended bool
	// Rekey is how the device rekeys, by RekeyWord; Rekeying is set while joins have
	// to look at ActivationState.Rekeying.
	Rekey     RekeyProfile
	RekeyWord RekeyWord
	Rekeying  bool
	// Disclosed is set for ever once a root key of any key set was disclosed.
	Disclosed bool
	// Told is what the Join Server said that the device came from, without its times;
	// nil: it came from none, or was read by a join, which has no use for it.
	Told *Told
	// RekeyKeyCame: another Join Server gave its rekeying key with it, and may have it
	// still. It is read where Told is.
	RekeyKeyCame bool
	CreatedAt    time.Time
	// LastJoinAt is the time of the newest activation; zero before the first.
	LastJoinAt time.Time
	// Service is until when joins are answered. Nothing else looks at it.
	Service ServiceTerm
	// Attested is what was shown of its element and firmware.
	Attested Attested
}

// Ownership is who holds a device. Epoch 0 is the maker before the first claim.
type Ownership struct {
	Org   OrgID
	Epoch uint32
	// TokenGeneration is the generation of the owner token that is valid.
	TokenGeneration uint32
	Since           time.Time
	// Released is set from a release to the next claim: nobody holds the device,
	// and the operator's organisation keeps it.
	Released bool
}

// Claimed tells whether somebody claimed the device and has not released it.
func (o Ownership) Claimed() bool { return o.Epoch > 0 && !o.Released }

// AppSKeyPolicy says how AppSKey may travel. The order is from weak to strict.
type AppSKeyPolicy uint8

// AppSKey policies.
const (
	// AppSKeyClear: AppSKey in the JoinAns, unwrapped: the network reads the
	// application's data. ChirpStack needs it to decrypt payloads itself.
	AppSKeyClear AppSKeyPolicy = iota
	// AppSKeyWrapped: AppSKey in the JoinAns, wrapped for the Application Server.
	AppSKeyWrapped
	// AppSKeyByID: SessionKeyID only; the Application Server asks with AppSKeyReq.
	AppSKeyByID
)

var appSKeyText = [...]string{AppSKeyClear: "clear", AppSKeyWrapped: "wrapped", AppSKeyByID: "session-key-id"}

func (p AppSKeyPolicy) String() string {
	if int(p) < len(appSKeyText) {
		return appSKeyText[p]
	}
	return "unknown"
}

// ParseAppSKeyPolicy reads "clear", "wrapped" or "session-key-id".
func ParseAppSKeyPolicy(s string) (AppSKeyPolicy, error) {
	for p, text := range appSKeyText {
		if s == text {
			return AppSKeyPolicy(p), nil
		}
	}
	return 0, fmt.Errorf("AppSKey policy: want clear, wrapped or session-key-id")
}

// Stricter gives the stricter of two policies.
func (p AppSKeyPolicy) Stricter(other AppSKeyPolicy) AppSKeyPolicy { return max(p, other) }

// Binding says which network may join a device, and which Application Server
// may have its AppSKey.
type Binding struct {
	// Epoch rises with each change; an activation remembers the epoch under
	// which it was made.
	Epoch  uint32
	NetID  lorawan.NetID
	NSID   lorawan.EUI64 // zero: any
	ASID   string        // "" : none
	Policy AppSKeyPolicy
	// ClearNwkKeys is the owner's consent that network session keys travel
	// unwrapped to a peer without a KEK for which the operator consented, too.
	// The consent for AppSKey is Policy = AppSKeyClear.
	ClearNwkKeys bool
	// Source is "owner" or "network". Locked keeps a network's binding until that
	// network lets go, and an owner's from being replaced by a network's claim.
	Source string
	Locked bool
	Since  time.Time
	// KEK wraps the AppSKey of this binding, for the Application Server that
	// brought it with its claim; zero for the current KEK of that server.
	KEK KEKID
}

// ActivationState is all that a join needs to know of a device, from one read.
type ActivationState struct {
	Device Device
	KeySet KeySet
	// Binding is nil while the device is bound to no network.
	Binding *Binding
	// Rekeying is nil unless Device.Rekeying is set.
	Rekeying *Rekeying
}
