package client

import (
	"joinery"
	"joinery/lorawan"
)

// Page is one page of a listing. A page may hold fewer items than were asked
// for, or none, and yet have a next: what the server looked at for it was not
// what was asked for.
type Page[T any] struct {
	Items []T `json:"items" nullable:"false" doc:"What was asked for, in the listing's order"`
	// Next is empty on the last page.
	Next string `json:"next,omitzero" maxLength:"256" pattern:"^[A-Za-z0-9_-]+$" patternDescription:"the 'next' of a page" doc:"Give this as 'after' to get the next page; absent on the last one"`
}

// List is one page of a listing of things of which there are few: the client
// reads all pages at once.
type List[T any] struct {
	Items []T `json:"items" nullable:"false" doc:"What was asked for, in the listing's order"`
	// Next is empty on the last page.
	Next string `json:"next,omitzero" maxLength:"256" pattern:"^[A-Za-z0-9_-]+$" patternDescription:"the 'next' of a page" doc:"Give this as 'after' to get the next page; absent on the last one"`
}

// EUIRange is a closed range of EUI-64s.
type EUIRange struct {
	First lorawan.EUI64 `json:"first" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" example:"70B3D57ED0000000" doc:"First EUI-64 of the range"`
	Last  lorawan.EUI64 `json:"last" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" example:"70B3D57ED00000FF" doc:"Last EUI-64 of the range"`
}

// SealHeader tells how ciphertext beside it was sealed to a server's transport
// key: one AES-256 key for the file, under RSA-OAEP; each secret under that key
// by AES key wrap.
type SealHeader struct {
	Format string `json:"format" maxLength:"32" example:"joinery-seal/1" doc:"Format of the sealing"`
	KID    string `json:"kid" maxLength:"64" doc:"Which transport key: base64url of SHA-256 of its SubjectPublicKeyInfo"`
	Alg    string `json:"alg" maxLength:"32" example:"RSA-OAEP-256" doc:"How the file key is encrypted"`
	Wrap   string `json:"wrap" maxLength:"32" example:"A256KW" doc:"How each secret is wrapped under the file key"`
	Key    []byte `json:"key" minLength:"4" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" maxLength:"2048" doc:"The file key, encrypted to the transport key"`
}

// Status is what a server says of itself.
type Status struct {
	Version      string      `json:"version" example:"0.1.0" doc:"Version of the server"`
	Ready        bool        `json:"ready" doc:"Whether joins can be served now"`
	Reason       string      `json:"reason,omitzero" doc:"Why not, if not"`
	TransportKID string      `json:"transportKID" doc:"Key id of the transport key"`
	Masters      []MasterKey `json:"masterKeys,omitzero" nullable:"false" doc:"Master keys in the keyring; shown to the operator"`
	Custody      []Custody   `json:"custody,omitzero" nullable:"false" doc:"How keys are kept, by where they come from; shown to the operator"`
	ClockDoubted string      `json:"clockDoubted,omitzero" doc:"Why the clock is in doubt, so that no service lapses until it is confirmed; shown to the operator"`
	Caller       Caller      `json:"caller" doc:"Who is asking, as the server sees it"`
}

// Custody says how well keys of one origin and derivation profile are kept.
type Custody struct {
	Origin  string `json:"origin" enum:"derived,sealed,rekeyed" doc:"Where root keys come from: derived from a master key, or imported (sealed)"`
	Profile string `json:"profile,omitzero" example:"ecb-v1" doc:"How derived ones are made"`
	Level   string `json:"level" enum:"in-token,ecb-oracle,in-memory" doc:"in-token: root and session keys never are in the server's or its worker's memory; ecb-oracle: session keys briefly are; in-memory: root keys are for one join"`
	Served  bool   `json:"served" doc:"Whether such keys are served at all"`
	Why     string `json:"why,omitzero" doc:"Why not, or why at no higher level"`
}

// MasterKey names a master key without showing it.
type MasterKey struct {
	Name    string `json:"name" example:"acme-2026" doc:"Name by which signers refer to it"`
	Profile string `json:"profile" example:"ecb-v1" doc:"How root keys derive from it"`
	KCV     string `json:"kcv" example:"8A2F01" doc:"Key check value: the first 3 bytes of AES-CMAC over 16 zero bytes"`
}

// Caller is who the server takes the client for.
type Caller struct {
	Name         string           `json:"name" example:"socket uid 0" doc:"As in the audit log"`
	Operator     bool             `json:"operator" doc:"Whether this is the server's operator"`
	Organisation joinery.OrgID    `json:"organisation,omitzero" example:"org_0005m2q8g3c0y" doc:"For which organisation it acts; absent for the operator acting for none"`
	Person       joinery.PersonID `json:"person,omitzero" doc:"Who signed in, or made the API key; absent: no person did"`
	Scopes       []joinery.Right  `json:"scopes,omitzero" nullable:"false" doc:"What it may do there; absent: nothing yet"`
}

// TransportKey is the public key to which key lists and KEKs are sealed.
type TransportKey struct {
	KID string `json:"kid" doc:"base64url of SHA-256 of the SubjectPublicKeyInfo"`
	PEM string `json:"pem" doc:"The public key in PEM (SubjectPublicKeyInfo)"`
}
