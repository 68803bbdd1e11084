// Package manifesttest makes manifests in the shapes of real makers, for tests:
// every part generation, signed with keys that are made when the test runs. It
// shares no code with the package that reads them.
package manifesttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // SubjectKeyIdentifier of real certificates (RFC 5280 §4.2.1.2, method 1)
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// Maker is a maker of chips: the root of its device certificates, the signer
// under it that certifies chips, and the log signer of its manifests.
type Maker struct {
	t testing.TB

	Root   []byte // DER
	Signer []byte // DER; x5c holds it behind the device certificate
	Log    []byte // DER; Join Servers pin it

	LogKey    *ecdsa.PrivateKey
	rootKey   *ecdsa.PrivateKey
	signerKey *ecdsa.PrivateKey
	signer    *x509.Certificate
}

// The times of real certificates.
var (
	rootFrom   = time.Date(2018, 11, 8, 19, 12, 19, 0, time.UTC)
	signerFrom = time.Date(2018, 12, 14, 19, 0, 0, 0, time.UTC)
	// LogFrom and LogTo are how long the log signer says that it is valid.
	LogFrom = time.Date(2019, 8, 15, 19, 47, 59, 0, time.UTC)
	LogTo   = time.Date(2020, 8, 15, 19, 47, 59, 0, time.UTC)
)

const organisation = "Microchip Technology Inc"

// NewMaker makes the keys and certificates of a maker.
func NewMaker(t testing.TB) *Maker {
	t.Helper()
	m := &Maker{t: t, rootKey: NewKey(t), signerKey: NewKey(t), LogKey: NewKey(t)}
	root := authority("Crypto Authentication Root CA 002", rootFrom, 40, 1, false)
	m.Root = m.certify(root, root, m.rootKey, m.rootKey)
	m.Signer = m.certify(authority("Crypto Authentication Signer F601", signerFrom, 31, 0, true), m.parse(m.Root), m.signerKey, m.rootKey)
	m.signer = m.parse(m.Signer)
	log := &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{organisation}, CommonName: "Log Signer 002"},
		NotBefore: LogFrom, NotAfter: LogTo, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, AuthorityKeyId: keyID(m.LogKey),
	}
	m.Log = m.certify(log, log, m.LogKey, m.LogKey)
	return m
}

// NewKey draws a P-256 key.
func NewKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func authority(name string, from time.Time, years, pathLen int, zero bool) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{organisation}, CommonName: name},
		NotBefore: from, NotAfter: from.AddDate(years, 0, 0), BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature, MaxPathLen: pathLen, MaxPathLenZero: zero,
	}
}

func keyID(key *ecdsa.PrivateKey) []byte {
	point, _ := key.PublicKey.Bytes() // P-256 has this form always
	id := sha1.Sum(point)             //nolint:gosec // see the import
	return id[:]
}

func (m *Maker) certify(template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) []byte {
	m.t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.SubjectKeyId = keyID(key)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		m.t.Fatal(err)
	}
	return der
}

func (m *Maker) parse(der []byte) *x509.Certificate {
	m.t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		m.t.Fatal(err)
	}
	return cert
}

// Generation is one of the ways in which device certificates name their chip.
type Generation int

// The generations.
const (
	// First: CN "01237A005B08BCC527 ATECC".
	First Generation = iota + 1
	// Second: CN "01238EBE20080BD527 0004A310001FF9DA ATECC".
	Second
	// Third: CN "sn0123114E171B98B427", and "eui64_0004A310001AA90A" as a
	// serialNumber in subjectAltName, in a PrintableString although "_" is no
	// character of it.
	Third
)

// Part is one chip.
type Part struct {
	Generation Generation
	Serial     [9]byte
	JoinEUI    uint64
	DevEUI     uint64
	At         time.Time
	Key        *ecdsa.PrivateKey // slot 1; nil: one is made
}

// NewPart makes chip number n of a programme: serial 0123…27, DevEUI of the
// maker's.
func NewPart(g Generation, joinEUI uint64, n int) Part {
	p := Part{
		Generation: g, JoinEUI: joinEUI, DevEUI: 0x0004A310001A0000 + uint64(n),
		At: time.Date(2020, 1, 2, 3, 4, 5, 678e6, time.UTC),
	}
	copy(p.Serial[:], []byte{0x01, 0x23, 0x11, 0x4E, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), 0x27})
	return p
}

// UniqueID is the serial number as manifests have it.
func (p Part) UniqueID() string { return hex.EncodeToString(p.Serial[:]) }

// Certificate certifies a chip's key.
func (m *Maker) Certificate(p Part) []byte {
	m.t.Helper()
	if p.Generation == Third {
		return m.CertificateWith(p, AlternativeName(fmt.Sprintf("eui64_%016X", p.DevEUI), asn1.TagPrintableString))
	}
	return m.CertificateWith(p)
}

// CertificateWith certifies a chip's key with other extensions than the usual.
func (m *Maker) CertificateWith(p Part, extensions ...pkix.Extension) []byte {
	m.t.Helper()
	serial, devEUI := strings.ToUpper(p.UniqueID()), fmt.Sprintf("%016X", p.DevEUI)
	template := &x509.Certificate{
		NotBefore: p.At.Truncate(time.Hour), NotAfter: p.At.Truncate(time.Hour).AddDate(28, 0, 0), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement,
		Subject:  pkix.Name{Organization: []string{organisation}}, ExtraExtensions: extensions,
	}
	switch p.Generation {
	case First:
		template.Subject.CommonName = serial + " ATECC"
	case Second:
		template.Subject.CommonName = serial + " " + devEUI + " ATECC"
	default:
		template.Subject.CommonName = "sn" + serial
	}
	return m.certify(template, m.signer, p.Key, m.signerKey)
}

// AlternativeName makes a subjectAltName (2.5.29.17) that is a directoryName with
// one serialNumber (2.5.4.5), of whatever characters.
func AlternativeName(serialNumber string, tag int) pkix.Extension {
	type attribute struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	type attributeSET []attribute
	must := func(v any) []byte {
		der, err := asn1.Marshal(v)
		if err != nil {
			panic(err)
		}
		return der
	}
	directory := must([]attributeSET{{{asn1.ObjectIdentifier{2, 5, 4, 5}, asn1.RawValue{Tag: tag, Bytes: []byte(serialNumber)}}}})
	return pkix.Extension{
		Id:    asn1.ObjectIdentifier{2, 5, 29, 17},
		Value: must([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: directory}}),
	}
}

// Payload is the signed content of a chip's entry, as JSON in the order of real
// files. edits are pairs of texts: the second stands for the first.
func (m *Maker) Payload(p Part, edits ...string) string {
	m.t.Helper()
	if p.Key == nil {
		p.Key = NewKey(m.t)
	}
	return m.PayloadWith(p, m.Certificate(p), edits...)
}

// PayloadWith is Payload with another device certificate.
func (m *Maker) PayloadWith(p Part, certificate []byte, edits ...string) string {
	m.t.Helper()
	point, err := p.Key.PublicKey.Bytes()
	if err != nil {
		m.t.Fatal(err)
	}
	party := func(unit string) string {
		return `{"organizationName":"` + organisation + `","organizationalUnitName":"` + unit + `"}`
	}
	text := `{"version":1,"model":"ATECC608A","partNumber":"ATECC608A-MAHT3",` +
		`"manufacturer":` + party("Secure Products Group") + `,"provisioner":` + party("Secure Products Group") +
		`,"distributor":` + party("Microchip Direct") + `,"groupId":"679MGFC8HZBSD7BG",` +
		`"provisioningTimestamp":"` + p.At.Format("2006-01-02T15:04:05.000Z") + `","uniqueId":"` + p.UniqueID() + `",` +
		`"publicKeySet":{"keys":[{"kid":"1","kty":"EC","crv":"P-256","x":"` + URL(point[1:33]) + `","y":"` + URL(point[33:]) + `",` +
		`"x5c":["` + base64.StdEncoding.EncodeToString(certificate) + `","` + base64.StdEncoding.EncodeToString(m.Signer) + `"]}]},` +
		`"modelInfo":{"deviceRevision":"00006002","publicData":[{"zone":"data","slot":9,"offset":0,"data":"` + URL(slot9(p.JoinEUI)) + `"}]}}`
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(text, edits[i]) {
			m.t.Fatalf("no %q in the payload", edits[i])
		}
		text = strings.Replace(text, edits[i], edits[i+1], 1)
	}
	return text
}

// slot9 is JoinEUI, 8 zero bytes, and the filler of real parts: 99 08 99 09 … 99 23.
func slot9(joinEUI uint64) []byte {
	data := make([]byte, 16, 72)
	new(big.Int).SetUint64(joinEUI).FillBytes(data[:8])
	for b := byte(0x08); len(data) < 72; b++ {
		data = append(data, 0x99, b)
	}
	return data
}

// URL is base64url without padding.
func URL(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Protected is the protected header of the maker's entries.
func (m *Maker) Protected() string {
	thumbprint := sha256.Sum256(m.Log)
	return `{"typ":"JWT","alg":"ES256","kid":"` + URL(keyID(m.LogKey)) + `","x5t#S256":"` + URL(thumbprint[:]) + `"}`
}

// Entry signs the entry of a chip.
func (m *Maker) Entry(p Part, edits ...string) []byte {
	m.t.Helper()
	return m.Sign(m.Payload(p, edits...), p.UniqueID())
}

// Sign signs a payload. uniqueID goes into the unprotected header; "" leaves that
// out, as early files do.
func (m *Maker) Sign(payload, uniqueID string) []byte {
	m.t.Helper()
	input := URL([]byte(m.Protected())) + "." + URL([]byte(payload))
	digest := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, m.LogKey, digest[:])
	if err != nil {
		m.t.Fatal(err)
	}
	var signature [64]byte
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	protected, encoded, _ := strings.Cut(input, ".")
	header := ""
	if uniqueID != "" {
		header = `"header":{"uniqueId":"` + uniqueID + `"},`
	}
	return []byte(`{"payload":"` + encoded + `","protected":"` + protected + `",` + header + `"signature":"` + URL(signature[:]) + `"}`)
}
