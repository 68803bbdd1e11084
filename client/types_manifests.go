package client

// ManifestEntry is the entry of a manifest with which a device came in.
type ManifestEntry struct {
	Serial string `json:"serial" example:"0123aabbccddeeff27" doc:"Serial number of the element"`
	Entry  []byte `json:"entry" doc:"The entry, a JWS in flattened JSON form, byte for byte, in base64"`
}
