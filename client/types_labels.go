package client

import (
	"joinery"
	"joinery/lorawan"
)

// MaxLabels is the most devices of one OwnerTokensRequest.
const MaxLabels = joinery.MaxLabels

// DeviceRef names a device by its id, by JoinEUI and DevEUI, or by all of them,
// which then have to agree.
type DeviceRef struct {
	Device  joinery.DeviceID `json:"device,omitzero" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device's id"`
	JoinEUI lorawan.EUI64    `json:"joinEUI,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" example:"70B3D57ED0000000" doc:"Its JoinEUI, together with devEUI"`
	DevEUI  lorawan.EUI64    `json:"devEUI,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" example:"0004A310001AA90A" doc:"Its DevEUI, together with joinEUI"`
}

// OwnerTokensRequest asks for the owner tokens of many devices.
type OwnerTokensRequest struct {
	Devices []DeviceRef `json:"devices" nullable:"false" minItems:"1" maxItems:"2000" doc:"Which devices"`
}

// ImportedDevice is the device of one row of an import.
type ImportedDevice struct {
	Index  uint64           `json:"index" doc:"Index of the row in the file, from 0"`
	Device joinery.DeviceID `json:"device" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device"`
}

// LabelToken is what stands on the label of one device, or why there is none.
type LabelToken struct {
	Index      int              `json:"index" doc:"Which device of the request, from 0"`
	Device     joinery.DeviceID `json:"device,omitzero" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"Its id"`
	JoinEUI    lorawan.EUI64    `json:"joinEUI,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"Its JoinEUI"`
	DevEUI     lorawan.EUI64    `json:"devEUI,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"Its DevEUI"`
	Serial     string           `json:"serial,omitzero" doc:"Serial number of its element, if it has one"`
	OwnerToken string           `json:"ownerToken,omitzero" doc:"The token. Reading it is recorded in the audit log"`
	Code       joinery.Code     `json:"code,omitzero" example:"not_found" doc:"Why there is no token, in a word of the closed set of problems; the other members are then absent"`
	Detail     string           `json:"detail,omitzero" doc:"The same for people"`
}

// OwnerTokens answers OwnerTokensRequest.
type OwnerTokens struct {
	Results []LabelToken `json:"results" nullable:"false" doc:"One for each device, in order"`
}
