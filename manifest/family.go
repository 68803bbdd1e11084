package manifest

import (
	"fmt"
	"strings"

	"joinery/lorawan"
)

// Family is a kind of elements: it says where their entries have the identifiers.
type Family string

// The families. Both have the JoinEUI in slot 9.
const (
	// FamilyJoinery is elements of our own factory, and of other makers who follow
	// it: the DevEUI is in slot 10. Device keys may be left out where no root is
	// pinned; with one, the device certificate must name the same element.
	FamilyJoinery Family = "joinery"
	// FamilyMicrochip is Trust Platform parts for LoRaWAN: serial numbers begin
	// with 0123, and the DevEUI is in the device certificate.
	FamilyMicrochip Family = "microchip"
)

// serialMicrochip is how serial numbers of chips of Microchip begin.
const serialMicrochip = "0123"

func (r Rules) check() error {
	switch {
	case r.Family != "" && r.Family != FamilyJoinery && r.Family != FamilyMicrochip:
		return fmt.Errorf("%w: the family is %s or %s", ErrRules, FamilyJoinery, FamilyMicrochip)
	case r.Family == FamilyMicrochip && len(r.Roots) == 0:
		return fmt.Errorf("%w: family %s needs the root certificate of its device certificates", ErrRules, FamilyMicrochip)
	case len(r.SerialSuffix) > lenUniqueID || strings.Trim(r.SerialSuffix, "0123456789abcdef") != "":
		return fmt.Errorf("%w: the end of serial numbers is lower-case hexadecimal digits", ErrRules)
	}
	return nil
}

// checkSerial checks a well-formed serial number against the signer's rules.
func (s *Signer) checkSerial(uniqueID string) error {
	switch {
	case s.rules.Family == FamilyMicrochip && !strings.HasPrefix(uniqueID, serialMicrochip):
		return fmt.Errorf("%w: serial numbers of this maker begin with %s", ErrUniqueID, serialMicrochip)
	case !strings.HasSuffix(uniqueID, s.rules.SerialSuffix):
		return fmt.Errorf("%w: its signer provisions serial numbers that end in %s", ErrUniqueID, s.rules.SerialSuffix)
	}
	return nil
}

// devEUI finds the DevEUI where the family has it. named is what the device
// certificate says, nothing where it was not asked for.
func (s *Signer) devEUI(p payload, named subject) (lorawan.EUI64, error) {
	if s.rules.Family == FamilyMicrochip {
		if named.first {
			return lorawan.EUI64{}, ErrGeneration
		}
		return named.devEUI, nil
	}
	devEUI, err := p.devEUI()
	if err == nil && s.chains != nil && named.devEUI != devEUI {
		err = fmt.Errorf("%w: its DevEUI is not that of slot 10", ErrSubject)
	}
	return devEUI, err
}
