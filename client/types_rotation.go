package client

import (
	"joinery"
	"joinery/lorawan"
)

// MaxRotationRows is the most key sets of one RewrapRoots.
const MaxRotationRows = 500

// Rotation is how far imported root keys are sealed under the newest storage keys.
type Rotation struct {
	JoinKEKs      []uint32        `json:"joinKEKs" nullable:"false" doc:"Generations of the join KEK that the server opens; the last one seals"`
	Custody       uint32          `json:"custody" doc:"Generation of the custody key to which the server seals"`
	TransportKIDs []string        `json:"transportKIDs" nullable:"false" doc:"Transport keys that the server opens; to the last one others are to seal"`
	ExportSigners []string        `json:"exportSigners" nullable:"false" doc:"Thumbprints of the keys that sign exports or once did; the last one signs"`
	KeySets       int64           `json:"keySets" doc:"Key sets with imported root keys"`
	Behind        int64           `json:"behind" doc:"Of them, those that are not under the newest generations"`
	Under         []RotationCount `json:"under" nullable:"false" doc:"Key sets by the oldest generations that their keys are under"`
}

// RotationCount counts key sets under one generation of one storage key.
type RotationCount struct {
	Key        string `json:"key" enum:"join-kek,custody" doc:"Which storage key"`
	Generation uint32 `json:"generation" doc:"Its generation"`
	KeySets    int64  `json:"keySets" doc:"How many"`
}

// CustodyRoots is the imported root keys of one key set, sealed to the custody key:
// nobody but its holder opens them.
type CustodyRoots struct {
	KeySet     joinery.KeySetID   `json:"keySet" pattern:"^kst_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"kst_ and 13 characters" doc:"The key set"`
	JoinEUI    lorawan.EUI64      `json:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"JoinEUI of its device"`
	DevEUI     lorawan.EUI64      `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"DevEUI of its device"`
	MACVersion lorawan.MACVersion `json:"macVersion" enum:"1.0.0,1.0.1,1.0.2,1.0.3,1.0.4,1.1.0" doc:"Provisioned LoRaWAN version"`
	Root10     string             `json:"root10" enum:"NwkKey,AppKey" doc:"The root key that serves LoRaWAN 1.0.x"`
	Nwk        []byte             `json:"nwk,omitzero" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" doc:"NwkKey, sealed to the custody key"`
	App        []byte             `json:"app,omitzero" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" doc:"AppKey, sealed to the custody key"`
}

// RewrapRow is the root keys of one key set, which the holder of the custody key
// sealed to the server's transport key.
type RewrapRow struct {
	KeySet joinery.KeySetID `json:"keySet" pattern:"^kst_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"kst_ and 13 characters" doc:"The key set"`
	Keys   SealedKeyRow     `json:"keys" doc:"Its keys, as in a key list"`
}

// RewrapRoots is a run of key sets to be sealed anew.
type RewrapRoots struct {
	Seal SealHeader  `json:"seal" doc:"How the keys of these rows are sealed"`
	Rows []RewrapRow `json:"rows" nullable:"false" maxItems:"500" doc:"Key sets"`
}

// Rewrapped tells what became of a run.
type Rewrapped struct {
	Changed int                `json:"changed" doc:"Key sets that were sealed anew"`
	Skipped int                `json:"skipped" doc:"Key sets that are gone, done already or were changed meanwhile"`
	Failed  []joinery.KeySetID `json:"failed" nullable:"false" doc:"Key sets whose keys do not open or are not those that are stored; they stay as they were"`
}
