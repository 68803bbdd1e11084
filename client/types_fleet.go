package client

import (
	"time"

	"joinery"
	"joinery/lorawan"
)

// Organisation holds devices, peers, KEKs, manifests and API keys.
type Organisation struct {
	ID        joinery.OrgID     `json:"id" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Identifier"`
	Name      string            `json:"name" example:"Acme Metering" doc:"Name"`
	Kinds     []joinery.OrgKind `json:"kinds" nullable:"false" enum:"element-maker,device-maker,distributor,owner,network-operator,server-operator" doc:"What parts it plays, which bound what its people and keys may do"`
	CreatedAt time.Time         `json:"createdAt" doc:"When it was added"`
}

// NewOrganisation asks for an organisation.
type NewOrganisation struct {
	Name  string            `json:"name" minLength:"1" maxLength:"128" example:"Acme Metering" doc:"Name; unique on this server"`
	Kinds []joinery.OrgKind `json:"kinds,omitzero" nullable:"false" maxItems:"5" enum:"element-maker,device-maker,distributor,owner,network-operator" doc:"What parts it plays; without any, all of them"`
}

// JoinEUIRange is a range of JoinEUIs that the server answers for.
type JoinEUIRange struct {
	EUIRange
	Organisation joinery.OrgID `json:"organisation" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Who may import devices into it"`
	Elements     bool          `json:"elements" doc:"Whether only signed manifests may be imported into it, no key lists"`
}

// NewJoinEUIRange asks to assign a range.
type NewJoinEUIRange struct {
	EUIRange
	Organisation joinery.OrgID `json:"organisation,omitzero" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Who may import devices into it; without it the organisation for which the caller acts"`
	Elements     bool          `json:"elements,omitzero" doc:"Allow signed manifests only, no key lists"`
}

// Signer is a pinned signer of manifests.
type Signer struct {
	ID           joinery.SignerID `json:"id" pattern:"^sgn_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"sgn_ and 13 characters" doc:"Identifier"`
	Organisation joinery.OrgID    `json:"organisation" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Whose manifests it signs"`
	Name         string           `json:"name" example:"acme line 1" doc:"Name"`
	KID          string           `json:"kid" doc:"'kid' of the manifests' protected header"`
	X5TS256      string           `json:"x5t#S256" doc:"'x5t#S256' of the manifests' protected header"`
	Certificate  []byte           `json:"certificate" doc:"The signer's certificate, DER in base64"`
	JoinEUIs     EUIRange         `json:"joinEUIs" doc:"JoinEUIs that it may provision"`
	DevEUIs      EUIRange         `json:"devEUIs" doc:"DevEUIs that it may provision"`
	Master       string           `json:"master" example:"acme-2026" doc:"Master key from which its elements' root keys derive"`
	Generation   uint32           `json:"generation" doc:"Generation in the derivation"`
	Family       string           `json:"family" enum:"joinery,microchip" doc:"Where entries have their identifiers: our own factory's shape, or Microchip's"`
	Roots        []byte           `json:"roots,omitzero" doc:"Root certificates to one of which the device certificate of each entry must lead, DER one after the other, in base64"`
	SerialSuffix string           `json:"serialSuffix,omitzero" example:"27" doc:"How serial numbers end that it may provision; absent: any"`
	Shared       bool             `json:"shared" doc:"Whether every organisation may import what it signed"`
	CreatedAt    time.Time        `json:"createdAt" doc:"When it was pinned"`
}

// NewSigner asks to pin a signer.
type NewSigner struct {
	Organisation joinery.OrgID `json:"organisation,omitzero" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Whose manifests it signs; without it the organisation for which the caller acts"`
	Name         string        `json:"name" minLength:"1" maxLength:"128" example:"acme line 1" doc:"Name"`
	Certificate  []byte        `json:"certificate" minLength:"4" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" maxLength:"16384" doc:"The signer's certificate (P-256), DER in base64"`
	JoinEUIs     EUIRange      `json:"joinEUIs" doc:"JoinEUIs that it may provision"`
	DevEUIs      EUIRange      `json:"devEUIs" doc:"DevEUIs that it may provision"`
	Master       string        `json:"master" minLength:"1" maxLength:"64" example:"acme-2026" doc:"Master key from which its elements' root keys derive"`
	Generation   uint32        `json:"generation" minimum:"0" maximum:"4294967295" example:"1" doc:"Generation in the derivation"`
	Family       string        `json:"family,omitzero" enum:"joinery,microchip" default:"joinery" doc:"Where entries have their identifiers: our own factory's shape, or Microchip's"`
	Roots        []byte        `json:"roots,omitzero" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" maxLength:"65536" doc:"Root certificates to one of which the device certificate of each entry must lead, DER one after the other, in base64. Family microchip needs one"`
	SerialSuffix string        `json:"serialSuffix,omitzero" pattern:"^[0-9a-f]{0,18}$" patternDescription:"lower-case hexadecimal digits" example:"27" doc:"How serial numbers end that it may provision; absent: any"`
	Shared       bool          `json:"shared,omitzero" doc:"Let every organisation import what it signed, into the range of this organisation: whoever has the entry of a chip is taken for its owner, once"`
}

// RoamingRule says which networks that are not a device's home may learn, by
// HomeNSReq, which one is.
type RoamingRule struct {
	Organisation joinery.OrgID    `json:"organisation,omitzero" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Whose devices; in a change, without it the organisation for which the caller acts"`
	Device       joinery.DeviceID `json:"device,omitzero" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"One device, for which the rule overrides the organisation's; absent: every device of the organisation"`
	NetIDs       []lorawan.NetID  `json:"netIDs,omitzero" nullable:"false" maxItems:"1000" pattern:"^[0-9A-Fa-f]{6}$" patternDescription:"6 hexadecimal digits" example:"000013,60002A" doc:"The networks; empty: none may. A change without this member removes the rule"`
}

// APIKey is a credential of this API, without its secret.
type APIKey struct {
	ID           joinery.APIKeyID `json:"id" pattern:"^key_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"key_ and 13 characters" doc:"Identifier"`
	Organisation joinery.OrgID    `json:"organisation,omitzero" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"For which organisation it acts; absent for an operator's key that acts for none"`
	Operator     bool             `json:"operator" doc:"Whether it acts as the server's operator"`
	Name         string           `json:"name" example:"billing script" doc:"Name"`
	Scopes       []joinery.Right  `json:"scopes" nullable:"false" enum:"devices:read,devices:write,devices:import,devices:own,devices:bind,tokens:read,peers:read,peers:write,org:read,people:read,people:write,keys:read,keys:write,events:read,events:write,audit:read,service:extend,export:request,export:approve,server:write" doc:"The most that it may do; what its organisation, and who made it, may do at present bounds it further"`
	Person       joinery.PersonID `json:"person,omitzero" pattern:"^per_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"per_ and 13 characters" doc:"Who made it; absent: no person did"`
	MadeBy       joinery.APIKeyID `json:"madeBy,omitzero" pattern:"^key_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"key_ and 13 characters" doc:"The key that made it; absent: none did"`
	LastUsedAt   time.Time        `json:"lastUsedAt,omitzero" doc:"When it was used last, ten minutes behind at most; absent: not yet"`
	CreatedAt    time.Time        `json:"createdAt" doc:"When it was made"`
	ExpiresAt    time.Time        `json:"expiresAt,omitzero" doc:"From when on it is refused; absent: never"`
	RevokedAt    time.Time        `json:"revokedAt,omitzero" doc:"When it was revoked; absent: it was not"`
}

// NewAPIKey asks for an API key.
type NewAPIKey struct {
	Organisation joinery.OrgID   `json:"organisation,omitzero" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"For which organisation it acts; without it the caller's"`
	Operator     bool            `json:"operator,omitzero" doc:"Make an operator's key; only an operator can"`
	Name         string          `json:"name" minLength:"1" maxLength:"128" example:"billing script" doc:"Name, to know it by later"`
	ExpiresAt    time.Time       `json:"expiresAt,omitzero" doc:"From when on it is refused; absent: never. A key that ends, unless it is an operator's, makes none that ends later"`
	Scopes       []joinery.Right `json:"scopes,omitzero" nullable:"false" maxItems:"32" enum:"devices:read,devices:write,devices:import,devices:own,devices:bind,tokens:read,peers:read,peers:write,org:read,people:read,people:write,keys:read,keys:write,events:read,events:write,audit:read,service:extend,export:request,export:approve,server:write" doc:"The most that it may do; without any, all that its maker may"`
}

// MadeAPIKey is a new API key with its text, which is shown this once.
type MadeAPIKey struct {
	Key  APIKey `json:"key" doc:"The key's record"`
	Text string `json:"text" doc:"The credential, for 'Authorization: Bearer'. It is not stored and cannot be shown again"`
}

// AuditEntry is one custody event.
type AuditEntry struct {
	ID           int64             `json:"id" doc:"Place in the log; rises, with gaps"`
	At           time.Time         `json:"at" doc:"When"`
	Event        string            `json:"event" example:"device.claimed" doc:"What happened"`
	Actor        string            `json:"actor" example:"socket uid 0" doc:"Who did it"`
	Organisation joinery.OrgID     `json:"organisation,omitzero" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Whose thing it was done to"`
	Device       joinery.DeviceID  `json:"device,omitzero" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device, if it is about one"`
	Peer         joinery.PeerID    `json:"peer,omitzero" pattern:"^peer_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"peer_ and 13 characters" doc:"The peer, if it is about one"`
	Detail       map[string]string `json:"detail,omitzero" doc:"Identifiers and settings; never a secret"`
}
