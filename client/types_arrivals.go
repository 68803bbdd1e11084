package client

import (
	"time"

	"joinery"
	"joinery/lorawan"
)

// Passage is how far the hand-over of an order has come.
type Passage struct {
	State     string    `json:"state" enum:"waiting,parked,taken,refused,joined,file" doc:"waiting: to be offered; parked: nobody accepted it there yet; taken: the device may be told; file: its owner carries it"`
	Said      string    `json:"said,omitzero" doc:"Why, or what was last said of it"`
	Tries     uint32    `json:"tries,omitzero" doc:"How often it was tried since it last went on"`
	NextAt    time.Time `json:"nextAt,omitzero" doc:"When it is tried again"`
	ChangedAt time.Time `json:"changedAt" doc:"Since when it is in this state"`
}

// Arrival is a device that another Join Server handed over.
type Arrival struct {
	ID        joinery.ArrivalID    `json:"id" pattern:"^arr_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"arr_ and 13 characters" doc:"Identifier"`
	From      joinery.JoinServerID `json:"from" pattern:"^jsv_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"jsv_ and 13 characters" doc:"Whence"`
	Server    string               `json:"server" doc:"Name of that Join Server"`
	Order     string               `json:"order" doc:"The order there"`
	JoinEUI   lorawan.EUI64        `json:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"Under which it is to join here"`
	DevEUI    lorawan.EUI64        `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"DevEUI"`
	State     string               `json:"state" enum:"parked,taken,refused,joined" doc:"parked: nobody accepted it yet; taken: it is a device here"`
	Reason    string               `json:"reason,omitzero" doc:"Of a refusal: range, malformed, conflict, seal, full, exhausted, not-served, rejected or expired"`
	Device    joinery.DeviceID     `json:"device,omitzero" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device that it became"`
	At        time.Time            `json:"at" doc:"When it came"`
	ChangedAt time.Time            `json:"changedAt" doc:"Since when it is in this state"`
}

// Expectation is devices of another Join Server that an organisation accepts.
type Expectation struct {
	ID        joinery.ExpectationID `json:"id" pattern:"^xpc_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"xpc_ and 13 characters" doc:"Identifier"`
	From      joinery.JoinServerID  `json:"from" pattern:"^jsv_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"jsv_ and 13 characters" doc:"Whence"`
	Server    string                `json:"server" doc:"Name of that Join Server"`
	Devices   EUIRange              `json:"devices" doc:"DevEUIs"`
	Bind      *Binding              `json:"bind,omitzero" doc:"How they are bound"`
	By        string                `json:"by" doc:"Who said so"`
	At        time.Time             `json:"at" doc:"When"`
	ExpiresAt time.Time             `json:"expiresAt" doc:"From when on nothing more is accepted by it"`
}

// NewExpectation accepts devices of another Join Server.
type NewExpectation struct {
	From    joinery.JoinServerID `json:"from" pattern:"^jsv_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"jsv_ and 13 characters" doc:"The pinned Join Server that hands them over"`
	Devices EUIRange             `json:"devices" doc:"DevEUIs"`
	Bind    *NewBinding          `json:"bind,omitzero" doc:"How they are bound; absent: to no network yet"`
	Days    uint32               `json:"days,omitzero" maximum:"366" doc:"For how long; without it 90 days"`
}

// NewHandoverFile is a hand-over that came as a file, and is accepted.
type NewHandoverFile struct {
	File []byte      `json:"file" maxLength:"4194304" doc:"The file, in base64"`
	Bind *NewBinding `json:"bind,omitzero" doc:"How its devices are bound; absent: to no network yet"`
}

// RejectedArrivals names devices that were handed over and are not wanted.
type RejectedArrivals struct {
	Arrivals []joinery.ArrivalID `json:"arrivals" nullable:"false" minItems:"1" maxItems:"200" pattern:"^arr_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"arr_ and 13 characters" doc:"Parked devices of the organisation"`
}

// HandoverResults is what became of the devices of a hand-over.
type HandoverResults struct {
	Results []HandoverResult `json:"results" nullable:"false" doc:"By order"`
}

// HandoverResult is one of them.
type HandoverResult struct {
	Order  string `json:"order" doc:"The order at the Join Server that handed it over"`
	State  string `json:"state" enum:"parked,taken,refused,joined" doc:"What became of it"`
	Reason string `json:"reason,omitzero" doc:"Of a refusal"`
}
