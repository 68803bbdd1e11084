package client

// ManifestEntry is the entry of a manifest with which a device came in; empty where
// it came by a key list.
type ManifestEntry struct {
	Serial string `json:"serial,omitzero" example:"0123aabbccddeeff27" doc:"Serial number of the element"`
	Entry  []byte `json:"entry,omitzero" doc:"The entry, a JWS in flattened JSON form, in base64: payload, protected and signature as its maker signed them, and nothing that was not signed"`
}
