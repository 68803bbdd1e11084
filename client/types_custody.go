package client

import (
	"joinery"
	"joinery/lorawan"
)

// CustodyPage is a part of what was done with a device's keys, or its chain of
// owners. joinctl makes bundles of it, which the package auditlog checks.
type CustodyPage struct {
	Kind        string           `json:"kind" enum:"custody,provenance" doc:"What it is a part of"`
	Device      joinery.DeviceID `json:"device" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device"`
	JoinEUI     lorawan.EUI64    `json:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"Its JoinEUI"`
	DevEUI      lorawan.EUI64    `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"Its DevEUI"`
	Key         string           `json:"key" doc:"The log's public key, NAME+HASH+BASE64 (c2sp.org/signed-note). Do not take it from here to check this with: keep the one that you got before"`
	Checkpoint  string           `json:"checkpoint" doc:"Newest signed checkpoint of the log (c2sp.org/tlog-checkpoint)"`
	Size        int64            `json:"size" doc:"Entries of the log to which the proofs of this part belong; ask for further parts with it"`
	Consistency []LogConsistency `json:"consistency,omitzero" doc:"Proof that the log continues the state that was asked for"`
	Entries     []CustodyEntry   `json:"entries" nullable:"false" doc:"Events about the device and orders for it and others, oldest first, then joins, newest first, then entries about the log"`
	Manifest    []byte           `json:"manifest,omitzero" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" doc:"Signed entry with which the device was imported"`
	Import      *CustodyImport   `json:"import,omitzero" doc:"Where the device's history begins: its place among the devices to which the entry of its import commits. Absent where it was imported before the log told, and from later parts"`
	Sets        []CustodySet     `json:"sets,omitzero" nullable:"false" doc:"Orders for many devices that 'entries' of this part are about, each with what shows that the device is one of those"`
	Parties     []CustodyParty   `json:"parties,omitzero" doc:"Provenance: names of owners that the caller may tell"`
	Next        string           `json:"next,omitzero" doc:"'after' of the next part; absent from the last"`
}

// CustodyImport shows that a device is one of those to which an entry commits.
type CustodyImport struct {
	Entry    string   `json:"entry" example:"audit_17" doc:"The entry, which is among 'entries'"`
	Row      int64    `json:"row" doc:"Place of the device, from 0"`
	JoinEUI  string   `json:"joinEUI" pattern:"^[0-9A-F]{16}$" patternDescription:"16 hexadecimal digits" doc:"JoinEUI that it was imported with"`
	Manifest string   `json:"manifest" pattern:"^([0-9a-f]{64})?$" patternDescription:"64 hexadecimal digits" doc:"SHA-256 of the manifest entry that it was imported with; empty for none"`
	Nonce    []byte   `json:"nonce" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" doc:"16 bytes that hide the device from the others"`
	Proof    [][]byte `json:"proof" nullable:"false" doc:"Inclusion proof (RFC 6962 section 2.1.1), base64"`
}

// CustodySet shows that a device is one of those of an order.
type CustodySet struct {
	Of      string   `json:"of" example:"exp_0c3kd5vqmr2hx" doc:"The export, or the batch of orders to rekey"`
	Row     int64    `json:"row" doc:"Place of the device, from 0"`
	JoinEUI string   `json:"joinEUI" pattern:"^[0-9A-F]{16}$" patternDescription:"16 hexadecimal digits" doc:"JoinEUI that it had when it came into the set"`
	Nonce   []byte   `json:"nonce" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" doc:"16 bytes that hide the device from who is shown another"`
	Proof   [][]byte `json:"proof" nullable:"false" doc:"Inclusion proof (RFC 6962 section 2.1.1), base64"`
}

// CustodyEntry is an entry of the custody log with its proof.
type CustodyEntry struct {
	ID       string   `json:"id" example:"audit_17" doc:"Its name: audit_ and a number, or the id of an activation"`
	Kind     string   `json:"kind" enum:"event,join,log,import,related" doc:"An event about the device, a join, about the log itself, the import of the device and others, or about an order for it and others, its arrival, or who imported it"`
	Leaf     int64    `json:"leaf" doc:"Its number in the log; -1 while it waits to come there, or behind the checkpoint"`
	Record   []byte   `json:"record" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" doc:"What the log holds: 33 bytes"`
	Payload  []byte   `json:"payload,omitzero" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" doc:"What the record covers; absent where it is another owner's, or erased"`
	Salt     []byte   `json:"salt,omitzero" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" doc:"With the payload: 32 bytes"`
	Withheld bool     `json:"withheld,omitzero" doc:"Payload and salt are another owner's"`
	ErasedBy string   `json:"erasedBy,omitzero" doc:"The entry that records its erasure"`
	Proof    [][]byte `json:"proof,omitzero" doc:"Inclusion proof (RFC 6962 section 2.1.1), base64"`
}

// LogConsistency is a consistency proof.
type LogConsistency struct {
	From  int64    `json:"from" doc:"Entries of the older state"`
	Proof [][]byte `json:"proof,omitzero" doc:"Consistency proof (RFC 6962 section 2.1.2), base64"`
}

// CustodyParty opens a commitment to an owner's name.
type CustodyParty struct {
	Epoch uint32 `json:"epoch" doc:"Epoch of ownership; 0 is the maker"`
	Name  string `json:"name" doc:"The owner's name"`
	Nonce []byte `json:"nonce" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" doc:"What hid it: 16 bytes"`
}

// LogErasure asks for the erasure of an entry's content.
type LogErasure struct {
	Entry  string `json:"entry" minLength:"1" maxLength:"40" example:"audit_17" doc:"The entry's name"`
	Reason string `json:"reason" minLength:"1" maxLength:"200" doc:"Why; it stays in the log, so name no person"`
}

// CeremonyReport asks that the report of a ceremony be entered into the log.
type CeremonyReport struct {
	Report []byte `json:"report" maxLength:"1400000" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" doc:"The signed report, as 'joinery ceremony run' wrote it"`
	Key    string `json:"key" pattern:"^[0-9A-Fa-f]{64}$" patternDescription:"64 hexadecimal digits" doc:"Fingerprint of the audit key that signed it, as the participants wrote it down"`
}

// EnteredCeremony is a report that is in the log.
type EnteredCeremony struct {
	Name   string `json:"name" doc:"Name of the ceremony"`
	SHA256 string `json:"sha256" pattern:"^[0-9a-f]{64}$" patternDescription:"64 hexadecimal digits" doc:"Of the report"`
	Signer string `json:"signer" pattern:"^[0-9a-f]{64}$" patternDescription:"64 hexadecimal digits" doc:"Fingerprint of the audit key that signed it"`
}
