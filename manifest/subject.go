package manifest

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"

	"joinery/lorawan"
)

// subject is what a device certificate says of its element.
type subject struct {
	serial string // lower-case hexadecimal digits
	devEUI lorawan.EUI64
	first  bool // first generation: no DevEUI
}

// Object identifiers: subjectAltName (RFC 5280 §4.2.1.6), serialNumber (X.520).
var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidSerialNumber   = asn1.ObjectIdentifier{2, 5, 4, 5}
)

// What stands before and behind the values in device certificates.
const (
	subjectMaker   = "ATECC"
	subjectSerial  = "sn"
	subjectDevEUI  = "eui64"
	tagDirectory   = 4 // directoryName in a GeneralName
	maxDirectories = 4
)

// subjectOf reads the subject of a device certificate, by the generation of the
// part:
//
//	CN "01237A005B08BCC527 ATECC"                     first: no DevEUI
//	CN "01238EBE20080BD527 0004A310001FF9DA ATECC"    second
//	CN "sn0123114E171B98B427", in subjectAltName a directoryName with
//	serialNumber "eui64_0004A310001AA90A"             third, and our own
func subjectOf(cert *x509.Certificate) (subject, error) {
	name := cert.Subject.CommonName
	if serial, ok := strings.CutPrefix(name, subjectSerial); ok {
		devEUI, err := alternativeDevEUI(cert)
		return subject{serial: strings.ToLower(serial), devEUI: devEUI}, err
	}
	words := strings.Split(name, " ")
	last := len(words) - 1
	switch {
	case last < 1 || last > 2 || words[last] != subjectMaker:
		return subject{}, fmt.Errorf("%w: its common name is of no known form", ErrSubject)
	case last == 1:
		return subject{serial: strings.ToLower(words[0]), first: true}, nil
	}
	devEUI, err := lorawan.ParseEUI64(words[1])
	if err != nil {
		return subject{}, fmt.Errorf("%w: the second word of the certificate's common name is none", ErrDevEUI)
	}
	return subject{serial: strings.ToLower(words[0]), devEUI: devEUI}, nil
}

// SlotUnit is what the certificate of a key in another slot than the device key's says
// of it, as an organizationalUnitName of its subject. Without that, whoever signs
// manifests could put the device key, which signs what it is told, and its certificate
// in the place of a key that signs the chip's own words.
func SlotUnit(slot string) string { return "slot " + slot }

// isFor tells whether a certificate is of a key in that slot.
func isFor(cert *x509.Certificate, slot string) bool {
	return slices.Contains(cert.Subject.OrganizationalUnit, SlotUnit(slot)) || slot == slotDevice && !slices.ContainsFunc(cert.Subject.OrganizationalUnit, isSlotUnit)
}

func isSlotUnit(unit string) bool { return strings.HasPrefix(unit, SlotUnit("")) }

// attribute is an AttributeTypeAndValue (RFC 5280 §4.1.2.4). Its value is read as
// bytes, because real parts break the rules of its type: "_" is no character of
// PrintableString.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type attributeSET []attribute

// alternativeDevEUI reads the DevEUI of the one serialNumber in the
// subjectAltName that has it. "eui64-" is the same in lawful characters.
func alternativeDevEUI(cert *x509.Certificate) (found lorawan.EUI64, err error) {
	bad := fmt.Errorf("%w: subjectAltName of the device certificate names none", ErrDevEUI)
	var names []asn1.RawValue
	for _, e := range cert.Extensions {
		if e.Id.Equal(oidSubjectAltName) {
			if rest, err := asn1.Unmarshal(e.Value, &names); err != nil || len(rest) > 0 || len(names) > maxDirectories {
				return found, bad
			}
		}
	}
	count := 0
	for _, name := range names {
		if name.Class != asn1.ClassContextSpecific || name.Tag != tagDirectory {
			continue
		}
		var directory []attributeSET
		if rest, err := asn1.Unmarshal(name.Bytes, &directory); err != nil || len(rest) > 0 {
			return found, bad
		}
		for _, set := range directory {
			for _, a := range set {
				text, ok := strings.CutPrefix(string(a.Value.Bytes), subjectDevEUI)
				if !a.Type.Equal(oidSerialNumber) || !ok || text == "" || text[0] != '_' && text[0] != '-' {
					continue
				}
				if found, err = lorawan.ParseEUI64(text[1:]); err != nil {
					return found, bad
				}
				count++
			}
		}
	}
	if count != 1 {
		return lorawan.EUI64{}, bad
	}
	return found, nil
}
