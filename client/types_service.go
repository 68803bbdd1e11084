package client

import (
	"time"

	"joinery"
	"joinery/lorawan"
)

// MaxServiceDevices is the most devices of one extension.
const MaxServiceDevices = 10_000

// Plan is on what terms the activation service is given.
type Plan struct {
	Name            string          `json:"name" minLength:"1" maxLength:"32" pattern:"^[a-z0-9][a-z0-9-]{0,31}$" patternDescription:"small letters, digits and dashes" example:"standard" doc:"Its name. The plan 'standard' is built in; making one of that name replaces it"`
	IncludedMonths  int             `json:"includedMonths" minimum:"1" maximum:"1200" example:"12" doc:"Months that begin with the first activation of a device"`
	GraceDays       int             `json:"graceDays" minimum:"0" maximum:"3650" example:"30" doc:"Days after the end of a term in which joins are still answered"`
	Currency        string          `json:"currency,omitzero" maxLength:"3" pattern:"^([A-Z]{3})?$" patternDescription:"three capital letters" example:"EUR" doc:"Currency of the prices; absent: there are none"`
	ActivationPrice joinery.Decimal `json:"activationPrice,omitzero" pattern:"^[0-9]{1,10}([.][0-9]{1,4})?$" patternDescription:"a decimal number" example:"1.25" doc:"Price of a first activation, for reports"`
	MonthPrice      joinery.Decimal `json:"monthPrice,omitzero" pattern:"^[0-9]{1,10}([.][0-9]{1,4})?$" patternDescription:"a decimal number" example:"0.3" doc:"Price of each month of an extension, for reports"`
	SharePercent    joinery.Decimal `json:"sharePercent,omitzero" pattern:"^[0-9]{1,10}([.][0-9]{1,4})?$" patternDescription:"a decimal number" example:"20" doc:"The maker's part of both, in percent"`
	Default         bool            `json:"default,omitzero" doc:"Whether it is that of devices to which no other is assigned. One plan is: making another the default ends this one's being it"`
	Makers          []joinery.OrgID `json:"makers,omitzero" nullable:"false" maxItems:"1000" doc:"Organisations to whose devices, as their maker, it is assigned"`
	JoinEUIs        []EUIRange      `json:"joinEUIs,omitzero" nullable:"false" maxItems:"1000" doc:"Ranges of JoinEUIs to whose devices it is assigned, before what their maker's plan is"`
}

// DeviceService is how a device stands with the activation service.
type DeviceService struct {
	Device         joinery.DeviceID `json:"device" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device"`
	JoinEUI        lorawan.EUI64    `json:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"JoinEUI"`
	DevEUI         lorawan.EUI64    `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"DevEUI"`
	State          string           `json:"state" enum:"not-begun,active,grace,lapsed" doc:"not-begun: its term begins with its first activation; grace: the term is over, and joins are still answered; lapsed: joins are refused"`
	Held           bool             `json:"held,omitzero" doc:"The server's clock is in doubt: nothing lapses, whatever the state says"`
	EndsAt         time.Time        `json:"endsAt,omitzero" doc:"When the term ends; absent: it has not begun"`
	JoinsUntil     time.Time        `json:"joinsUntil,omitzero" doc:"Until when joins are answered: the end and the days of grace"`
	PrepaidMonths  int              `json:"prepaidMonths,omitzero" doc:"Months that were bought before the first activation"`
	GrantedUnder   string           `json:"grantedUnder,omitzero" example:"standard" doc:"Plan of the first activation, or of the last extension"`
	Plan           string           `json:"plan" example:"standard" doc:"Plan under which an extension would be made now"`
	Currency       string           `json:"currency,omitzero" example:"EUR" doc:"Currency of that plan"`
	MonthPrice     joinery.Decimal  `json:"monthPrice,omitzero" example:"0.3" doc:"What that plan says of a month"`
	IncludedMonths int              `json:"includedMonths" example:"12" doc:"Months that begin with the first activation under that plan"`
}

// ServiceExtension extends the service of devices.
type ServiceExtension struct {
	Devices   []joinery.DeviceID `json:"devices" nullable:"false" minItems:"1" maxItems:"10000" doc:"Which devices"`
	Months    int                `json:"months" minimum:"1" maximum:"1200" doc:"By how many months, each of them"`
	Reference string             `json:"reference" minLength:"1" maxLength:"64" example:"PO-2027-17" doc:"A name of the order: the same one extends no device twice, so that a request may be sent again"`
}

// ServiceResults is what became of the devices of an extension.
type ServiceResults struct {
	Extended  int             `json:"extended" doc:"Devices that were extended"`
	Unchanged int             `json:"unchanged" doc:"Devices that had been, under this reference"`
	Failed    int             `json:"failed" doc:"Devices that were not"`
	Results   []ServiceResult `json:"results" nullable:"false" doc:"One result for each, in their order"`
}

// ServiceResult is what became of one device.
type ServiceResult struct {
	Device        joinery.DeviceID `json:"device" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device"`
	Status        string           `json:"status" enum:"extended,unchanged,failed" doc:"What became of it"`
	EndsAt        time.Time        `json:"endsAt,omitzero" doc:"When its term ends now; absent: it has not begun, or it failed"`
	PrepaidMonths int              `json:"prepaidMonths,omitzero" doc:"Months that are kept for its first activation"`
	Code          joinery.Code     `json:"code,omitzero" doc:"Why it failed, in a word"`
	Reason        string           `json:"reason,omitzero" doc:"Why it failed"`
}

// ServiceCredit is what an organisation may still give its devices.
type ServiceCredit struct {
	Organisation joinery.OrgID `json:"organisation" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Whose it is"`
	Months       int64         `json:"months" doc:"Months, of all devices together"`
}

// ServiceGrant adds to a credit.
type ServiceGrant struct {
	Organisation joinery.OrgID `json:"organisation" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"To whose"`
	Months       int           `json:"months" minimum:"1" maximum:"100000000" doc:"By how many months, of all devices together"`
	Reference    string        `json:"reference" minLength:"1" maxLength:"64" example:"INV-2027-3" doc:"A name of the order: the same one never adds twice"`
}

// Usage is what happened in a month to the devices of one maker under one plan.
type Usage struct {
	Month            string          `json:"month" example:"2026-10" doc:"The month, in UTC"`
	Maker            joinery.OrgID   `json:"maker" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Who made the devices"`
	Plan             string          `json:"plan" example:"standard" doc:"Under which plan; empty: before any"`
	Currency         string          `json:"currency" example:"EUR" doc:"Currency of the amounts; empty: the plan had no prices"`
	FirstActivations int64           `json:"firstActivations" doc:"Devices that joined for the first time"`
	ActiveDevices    int64           `json:"activeDevices" doc:"Devices that joined"`
	Extensions       int64           `json:"extensions" doc:"Extensions of devices"`
	ExtensionMonths  int64           `json:"extensionMonths" doc:"Months of these, together"`
	Lapsed           int64           `json:"lapsed" doc:"Devices whose joins began to be refused"`
	Amount           joinery.Decimal `json:"amount" example:"12.5" doc:"First activations and extensions at the prices of their time"`
	SharePercent     joinery.Decimal `json:"sharePercent" example:"20" doc:"The maker's part, in percent"`
	ShareAmount      joinery.Decimal `json:"shareAmount" example:"2.5" doc:"The maker's part of the amount"`
}

// Clock is what servers know of the clock by which service terms end.
type Clock struct {
	Now       time.Time `json:"now" doc:"The server's clock"`
	SeenAt    time.Time `json:"seenAt,omitzero" doc:"The last time that was written down"`
	DoubtedAt time.Time `json:"doubtedAt,omitzero" doc:"Since when the clock is in doubt; absent: it is not"`
	Why       string    `json:"why,omitzero" doc:"Why it is"`
	Lapsed    int64     `json:"lapsed" doc:"Devices whose joins are refused by this clock, or would be once it is confirmed"`
}
