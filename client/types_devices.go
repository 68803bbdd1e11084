package client

import (
	"time"

	"joinery"
	"joinery/lorawan"
)

// Device is an end-device with its key set and binding.
type Device struct {
	ID             joinery.DeviceID   `json:"id" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"Identifier"`
	JoinEUI        lorawan.EUI64      `json:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"JoinEUI"`
	DevEUI         lorawan.EUI64      `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"DevEUI"`
	MACVersion     lorawan.MACVersion `json:"macVersion" enum:"1.0.0,1.0.1,1.0.2,1.0.3,1.0.4,1.1.0" doc:"Provisioned LoRaWAN version: it decides the nonce rules"`
	Maker          joinery.OrgID      `json:"maker,omitzero" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Who imported it"`
	Owner          joinery.OrgID      `json:"owner,omitzero" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Who holds it"`
	OwnershipEpoch uint32             `json:"ownershipEpoch" doc:"How often it changed hands; 0: not claimed yet"`
	Released       bool               `json:"released,omitzero" doc:"Whether its owner let it go: nobody holds it until somebody claims it"`
	OwnedSince     time.Time          `json:"ownedSince,omitzero" doc:"Since when"`
	Suspended      bool               `json:"suspended" doc:"Whether joins are refused"`
	Disclosed      bool               `json:"disclosed" doc:"Whether a root key of it was ever disclosed to anybody: by this server, or by one that had the device before and told of it"`
	Exposed        string             `json:"exposed" enum:"none,outside,disclosed" doc:"Who could read its root keys, as far as is known here. none: they were made where nobody reads them, and no disclosure is known; outside: they came from elsewhere, such as in a list, whose maker could read them, and no Join Server told who else; disclosed: as 'disclosed' says, root keys of now or former ones"`
	Told           *Told              `json:"told,omitempty" doc:"The word of the Join Server from which the device came; absent: it came from none, or that one said nothing"`
	RekeyProfile   string             `json:"rekeyProfile,omitzero" enum:"S,M" doc:"How it derives new root keys, where it can; absent: nobody said that it can"`
	RekeyWord      string             `json:"rekeyWord,omitzero" enum:"owner,importer,manifest,device" doc:"By whose word: its owner's alone, who imported it, its signed manifest, or its own, which did it here"`
	Attestation    string             `json:"attestation,omitzero" enum:"L0,L1,L2,L3" doc:"What was shown of its element and firmware, and stands now: L0 nothing, L1 possession of its element, L2 a boot that its element verified, L3 a token of a root of trust"`
	AttestedBasis  string             `json:"attestedBasis,omitzero" enum:"any,vouched,chain" doc:"What that level rests on, see AttestationResult; absent at L0"`
	AttestedUntil  time.Time          `json:"attestedUntil,omitzero" doc:"Until when that level stands; a lower one may be left then"`
	CreatedAt      time.Time          `json:"createdAt" doc:"When it was imported"`
	LastJoinAt     time.Time          `json:"lastJoinAt,omitzero" doc:"When it joined last; absent: never"`
	KeySet         KeySet             `json:"keySet" doc:"Where its root keys come from; never the keys"`
	Binding        *Binding           `json:"binding,omitempty" doc:"Which network may join it; absent: none"`
}

// Told is what another Join Server said, signed, when it gave a device away.
type Told struct {
	Way     string    `json:"way" enum:"export,handover" doc:"In an export to this server, or a hand-over"`
	Server  string    `json:"server" doc:"Who said it: as it calls itself in an export, as it is pinned in a hand-over"`
	Signer  string    `json:"signer" doc:"Thumbprint of the key that signed: of an export that of RFC 7638, of a hand-over SHA-256 of the statement key; compare it with what that server publishes"`
	AsOf    time.Time `json:"asOf" doc:"When. What that server disclosed later is not known here"`
	Outside bool      `json:"outside" doc:"Whether the root keys came to it from elsewhere, without a word of who could read them"`
}

// KeySet tells where root keys come from.
type KeySet struct {
	ID               joinery.KeySetID  `json:"id" pattern:"^kst_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"kst_ and 13 characters" doc:"Identifier"`
	Origin           string            `json:"origin" enum:"derived,sealed,rekeyed" doc:"derived from a master key, imported sealed, or rekeyed"`
	Master           string            `json:"master,omitzero" doc:"Which master key, if derived"`
	Generation       uint32            `json:"generation" doc:"Generation in the derivation"`
	Root10           string            `json:"root10" enum:"NwkKey,AppKey" doc:"The root key that serves LoRaWAN 1.0.x"`
	JoinNonce        lorawan.JoinNonce `json:"joinNonce" maximum:"16777215" doc:"Last JoinNonce issued; 0: none yet"`
	NoncesResetSince time.Time         `json:"noncesResetSince,omitzero" doc:"When a reset of the DevNonces was opened; absent: none is open"`
}

// Binding says which network may join a device, and which Application Server
// may have its AppSKey.
type Binding struct {
	Epoch        uint32        `json:"epoch" doc:"Rises with each change"`
	NetID        lorawan.NetID `json:"netID" pattern:"^[0-9A-Fa-f]{6}$" patternDescription:"6 hexadecimal digits" example:"000013" doc:"NetID of the home network"`
	NSID         lorawan.EUI64 `json:"nsid,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"NSID of the home Network Server; absent: any of the network's"`
	ASID         string        `json:"asID,omitzero" example:"as.example.com" doc:"AS-ID that may have AppSKey; absent: none"`
	AppSKey      string        `json:"appSKey" enum:"clear,wrapped,session-key-id" doc:"How AppSKey may travel"`
	ClearNwkKeys bool          `json:"clearNwkKeys" doc:"The owner's consent that network session keys travel unwrapped"`
	Source       string        `json:"source" enum:"owner,network" doc:"Who made it"`
	Locked       bool          `json:"locked" doc:"A network's: whether it stands until that network lets go. An owner's: whether the claim of a network leaves it alone"`
	KEK          joinery.KEKID `json:"kek,omitzero" pattern:"^kek_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"kek_ and 13 characters" doc:"The KEK of this device's AppSKey that came with its network's claim; without it the Application Server's current one"`
	Since        time.Time     `json:"since,omitzero" doc:"Since when"`
}

// NewBinding asks to bind a device.
type NewBinding struct {
	NetID        lorawan.NetID `json:"netID" pattern:"^[0-9A-Fa-f]{6}$" patternDescription:"6 hexadecimal digits" example:"000013" doc:"NetID of the home network"`
	NSID         lorawan.EUI64 `json:"nsid,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"NSID of the home Network Server; absent: any of the network's"`
	ASID         string        `json:"asID,omitzero" pattern:"^[!-~]{1,64}$" patternDescription:"1 to 64 printable ASCII characters without spaces" example:"as.example.com" doc:"AS-ID that may have AppSKey; absent: none"`
	AppSKey      string        `json:"appSKey" enum:"clear,wrapped,session-key-id" doc:"How AppSKey may travel: clear lets the network read the application's data (ChirpStack decrypting itself needs it); wrapped for the Application Server; session-key-id lets it fetch the key"`
	ClearNwkKeys bool          `json:"clearNwkKeys,omitzero" doc:"Consent that network session keys travel unwrapped to a peer without a KEK, where the operator consented, too"`
	Locked       bool          `json:"locked,omitzero" doc:"Whether the claim of a network leaves this binding alone; its owner can change it all the same"`
}

// NoncesReset asks to open a reset of DevNonces.
type NoncesReset struct {
	JoinNonceAtLeast lorawan.JoinNonce `json:"joinNonceAtLeast,omitzero" minimum:"0" maximum:"16777215" doc:"Raise JoinNonce to this, if it is lower; it is never lowered"`
}

// OwnerToken is what a device's first owner claims it with.
type OwnerToken struct {
	Device     joinery.DeviceID `json:"device" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device"`
	OwnerToken string           `json:"ownerToken" doc:"The token. Reading it is recorded in the audit log"`
}

// Activation is one accepted join or rejoin. It holds no key.
type Activation struct {
	ID           joinery.ActivationID `json:"id" pattern:"^act_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"act_ and 13 characters" doc:"Identifier"`
	At           time.Time            `json:"at" doc:"When"`
	Type         string               `json:"type" enum:"join,rejoin-0,rejoin-1,rejoin-2" doc:"What was answered"`
	JoinEUI      lorawan.EUI64        `json:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"JoinEUI"`
	DevEUI       lorawan.EUI64        `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"DevEUI"`
	KeyLayout    string               `json:"keyLayout" enum:"1.0,1.1" doc:"Key layout that was negotiated (OptNeg)"`
	Count        uint16               `json:"count" maximum:"65535" doc:"DevNonce of a join, RJcount of a rejoin"`
	JoinNonce    lorawan.JoinNonce    `json:"joinNonce" maximum:"16777215" doc:"JoinNonce of the answer"`
	Peer         joinery.PeerID       `json:"peer" pattern:"^peer_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"peer_ and 13 characters" doc:"Which peer asked"`
	NetID        lorawan.NetID        `json:"netID" pattern:"^[0-9A-Fa-f]{6}$" patternDescription:"6 hexadecimal digits" doc:"NetID of the network"`
	NSID         lorawan.EUI64        `json:"nsid,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"NSID, if one was said"`
	DevAddr      lorawan.DevAddr      `json:"devAddr" pattern:"^[0-9A-Fa-f]{8}$" patternDescription:"8 hexadecimal digits" doc:"DevAddr that the network gave"`
	ASID         string               `json:"asID,omitzero" doc:"AS-ID that may have AppSKey; absent: none"`
	AppSKey      string               `json:"appSKey" enum:"clear,wrapped,session-key-id" doc:"How AppSKey travelled"`
	SessionKeyID string               `json:"sessionKeyID,omitzero" pattern:"^[0-9A-F]{32}$" doc:"SessionKeyID, if it was sent"`
	NSKEK        joinery.KEKID        `json:"nsKEK,omitzero" pattern:"^kek_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"kek_ and 13 characters" doc:"KEK that wrapped the network session keys; absent: none"`
	ASKEK        joinery.KEKID        `json:"asKEK,omitzero" pattern:"^kek_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"kek_ and 13 characters" doc:"KEK that wrapped AppSKey; absent: none"`
	BindingEpoch uint32               `json:"bindingEpoch" doc:"Epoch of the binding under which it was made"`
}

// NewClaim asks to become the owner of a device.
type NewClaim struct {
	JoinEUI    lorawan.EUI64 `json:"joinEUI,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" example:"70B3D57ED0000000" doc:"JoinEUI, from the label; absent: of the devices with this DevEUI the one that has the owner token"`
	DevEUI     lorawan.EUI64 `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" example:"0004A310001AA90A" doc:"DevEUI, from the label"`
	OwnerToken string        `json:"ownerToken" minLength:"1" maxLength:"64" doc:"Owner token, from the label"`
	Binding    *NewBinding   `json:"binding,omitempty" doc:"Which network may join it; absent: none yet"`
}
