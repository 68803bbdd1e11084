package client

import (
	"time"

	"joinery"
	"joinery/lorawan"
)

// Credential is one way in which a peer proves who it is. It holds public
// material only.
type Credential struct {
	Kind string `json:"kind" enum:"spki,ca,ca+san" doc:"spki: this one public key; ca: any certificate under a CA that serves this peer alone; ca+san: certificates under a shared CA that carry one name"`
	SPKI string `json:"spki,omitzero" pattern:"^[0-9a-fA-F]{64}$" patternDescription:"64 hexadecimal digits" doc:"For spki: SHA-256 of the DER SubjectPublicKeyInfo, in hexadecimal"`
	CA   []byte `json:"ca,omitzero" minLength:"4" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" maxLength:"16384" doc:"For ca and ca+san: the CA certificate, DER in base64"`
	SAN  string `json:"san,omitzero" maxLength:"512" example:"ns.example.com" doc:"For ca+san: the DNS name or URI that the certificate must carry"`
}

// PeerSettings is what an operator says of a peer.
type PeerSettings struct {
	Name             string          `json:"name" minLength:"1" maxLength:"128" example:"Example Networks" doc:"Name; unique"`
	NetIDs           []lorawan.NetID `json:"netIDs,omitzero" nullable:"false" maxItems:"64" pattern:"^[0-9A-Fa-f]{6}$" patternDescription:"6 hexadecimal digits" example:"000013" doc:"NetIDs under which it speaks as a Network Server"`
	NSIDs            []lorawan.EUI64 `json:"nsids,omitzero" nullable:"false" maxItems:"64" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"NSIDs under which it speaks, if it says one"`
	ASIDs            []string        `json:"asIDs,omitzero" nullable:"false" maxItems:"64" pattern:"^[!-~]{1,64}$" patternDescription:"1 to 64 printable ASCII characters without spaces" example:"as.example.com" doc:"AS-IDs under which it speaks as an Application Server"`
	Credentials      []Credential    `json:"credentials" nullable:"false" minItems:"1" maxItems:"16" doc:"How its certificate is recognised; any one is enough"`
	ClearKeys        bool            `json:"clearKeys,omitzero" doc:"Consent that session keys travel to this peer unwrapped, inside mutual TLS; needs confirmClearKeys, and each device's owner must consent, too"`
	OmitSessionKeyID bool            `json:"omitSessionKeyID,omitzero" doc:"Leave SessionKeyID out of answers that carry AppSKey (ChirpStack needs it)"`
	AppSKeyAtLeast   string          `json:"appSKeyAtLeast,omitzero" enum:"clear,wrapped,session-key-id" doc:"The weakest way in which AppSKey travels to this peer; clear without it"`
	DiscloseDevices  bool            `json:"discloseDevices,omitzero" doc:"Tell this peer 'activation disallowed' instead of 'unknown DevEUI' for devices that exist and are not bound to it"`
	IgnoreNSID       bool            `json:"ignoreNSID,omitzero" doc:"Accept any SenderNSID from it"`
	HideExistence    bool            `json:"hideExistence,omitzero" doc:"Answer its claims of devices that are unknown or another's as claims with a wrong token"`
	ClaimKEKs        bool            `json:"claimKEKs,omitzero" doc:"Take the KEK of a device's AppSKey with its claim"`
	Suspended        bool            `json:"suspended,omitzero" doc:"Refuse it without forgetting it"`
}

// Peer is a party on the Backend Interfaces: a Network Server, an Application
// Server, or both.
type Peer struct {
	ID           joinery.PeerID `json:"id" pattern:"^peer_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"peer_ and 13 characters" doc:"Identifier"`
	Organisation joinery.OrgID  `json:"organisation" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Who holds it"`
	PeerSettings
	CreatedAt time.Time `json:"createdAt" doc:"When it was added"`
}

// NewPeer asks to add a peer, with its first KEKs: a peer that can act as a
// Network Server needs one for the role ns, or the consent to clear keys.
type NewPeer struct {
	Organisation joinery.OrgID `json:"organisation,omitzero" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Who holds it; without it the organisation for which the caller acts"`
	PeerSettings
	KEKs             []NewKEK `json:"keks,omitzero" nullable:"false" maxItems:"8" doc:"Its first key encryption keys, sealed"`
	ConfirmClearKeys string   `json:"confirmClearKeys,omitzero" maxLength:"128" doc:"Must repeat the peer's name where clearKeys is set"`
}

// PeerChange replaces a peer's settings.
type PeerChange struct {
	PeerSettings
	ConfirmClearKeys string `json:"confirmClearKeys,omitzero" maxLength:"128" doc:"Must repeat the peer's name where clearKeys becomes set"`
}

// KEK is a key encryption key shared with a peer; its value is never shown.
type KEK struct {
	ID        joinery.KEKID  `json:"id" pattern:"^kek_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"kek_ and 13 characters" doc:"Identifier"`
	Peer      joinery.PeerID `json:"peer" pattern:"^peer_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"peer_ and 13 characters" doc:"With which peer it is shared"`
	Role      string         `json:"role" enum:"ns,as" doc:"ns wraps network session keys, as wraps AppSKey; never the other way"`
	Label     string         `json:"label" example:"ns-000013-v1" doc:"KEKLabel on the wire"`
	Version   uint32         `json:"version" doc:"From 1, by peer and role; the newest that is not retired wraps"`
	CreatedAt time.Time      `json:"createdAt" doc:"When it was added"`
	Retired   bool           `json:"retired" doc:"Retired: it wraps nothing new"`
	Claimed   bool           `json:"claimed,omitzero" doc:"The peer brought it with claims: it wraps AppSKey for their bindings alone, and its label is unique among this peer's"`
}

// NewKEK asks to add a KEK, sealed to the server's transport key.
type NewKEK struct {
	Role    string     `json:"role" enum:"ns,as" doc:"What it wraps: ns network session keys, as AppSKey"`
	Label   string     `json:"label" minLength:"1" maxLength:"64" example:"ns-000013-v1" doc:"KEKLabel on the wire; unique"`
	Seal    SealHeader `json:"seal" doc:"How it is sealed"`
	Wrapped []byte     `json:"wrapped" minLength:"4" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" maxLength:"64" doc:"The KEK (16, 24 or 32 bytes; ChirpStack takes 16 only), wrapped under the file key of 'seal'"`
	MAC     []byte     `json:"mac" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" minLength:"24" maxLength:"24" doc:"AES-CMAC over role, label and wrapped key, made when the KEK was sealed"`
}
