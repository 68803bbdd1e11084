package joinery

import (
	"time"

	"joinery/internal/exposure"
)

// ToldWay is how another Join Server told of a device.
type ToldWay string

// Ways.
const (
	ToldExport   ToldWay = "export"   // in the file of an export, to this server's transport key
	ToldHandover ToldWay = "handover" // as it handed the device over
)

// Told is what another Join Server said, signed, of who could read the root keys of a
// device, when it gave them. It is that server's word.
type Told struct {
	Way ToldWay
	// Server is who told: as it calls itself in an export, as it is pinned in a
	// hand-over. Signer is the thumbprint of the key that signed: of an export that
	// of RFC 7638, of a hand-over SHA-256 of the statement key (SubjectPublicKeyInfo),
	// both base64url.
	Server string
	Signer string
	AsOf   time.Time // when it said so; what it did later it did not tell
	exposure.Exposure
}

// Exposed is what is known of who could read the root keys of a device, in one word.
// The set is closed.
type Exposed string

// From the best to the worst.
const (
	// ExposedNone: they were made where nobody reads them, and no Join Server that
	// had the device told of a disclosure.
	ExposedNone Exposed = "none"
	// ExposedOutside: they came from elsewhere, and no Join Server told who could read
	// them there. Whoever made a key list could.
	ExposedOutside Exposed = "outside"
	// ExposedDisclosed: root keys of the device, of now or former ones, were disclosed.
	ExposedDisclosed Exposed = "disclosed"
)

// Exposed gives what is known of the root keys of a device. What another Join Server
// told has to be loaded with it.
func (s ActivationState) Exposed() Exposed {
	switch {
	case s.Device.Disclosed:
		return ExposedDisclosed
	case s.outside():
		return ExposedOutside
	}
	return ExposedNone
}

// outside tells whether root keys came from elsewhere. Those that a device derived
// inside its element did not, whatever came before them, unless what it derived them
// from did.
func (s ActivationState) outside() bool {
	return s.KeySet.Origin == OriginSealed && s.untold() || s.KeySet.Origin == OriginRekeyed && s.RekeyKeyOutside()
}

// RekeyKeyOutside tells whether the rekeying key came from elsewhere, without a word of
// who could read it there: new root keys that derive from it are no better than it is.
func (s ActivationState) RekeyKeyOutside() bool { return s.Device.RekeyKeyCame && s.untold() }

func (s ActivationState) untold() bool { return s.Device.Told == nil || s.Device.Told.Outside }

// Exposure is what this server tells the next one of a device with these disclosures.
func (s ActivationState) Exposure(known []Disclosure) exposure.Exposure {
	e := exposure.Exposure{Outside: s.outside(), Disclosed: s.Device.Disclosed, Times: []exposure.Time{}}
	for _, x := range known {
		t := exposure.Time{At: x.At.UTC(), Recipient: x.Recipient, Kind: string(x.Kind), By: x.By, Reference: x.Reference, Former: x.Former, Org: x.ToldOrg}
		if x.ToldBy == "" {
			t.Org = x.Org.String()
			t.Reference = x.Export.String()
			if x.Rekey != 0 {
				t.Reference = x.Rekey.String()
			}
		}
		e.Times = append(e.Times, t)
	}
	e.Disclosed = e.Disclosed || len(e.Times) > 0
	return e
}
