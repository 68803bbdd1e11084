package soft

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/internal/secret"
	"joinery/manifest"
)

// How long the certificates above elements, and theirs, say that they are valid:
// as those of known makers do, longer than any device lives.
const (
	rootYears   = 40
	issuerYears = 31
	deviceYears = 28
)

// newIssuer makes an issuer of device certificates under a root of its own. The
// root signs nothing else: its private half is gone when this returns, so nobody
// makes another issuer under it.
func newIssuer(opt FactoryOptions, now time.Time) (private, certificate, root []byte, err error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	defer wipeKey(rootKey)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	defer wipeKey(key)
	from := now.Add(-time.Hour).Truncate(time.Hour)
	template := func(name string, years, pathLen int) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: newSerialNumber(), Subject: opt.subject(name),
			NotBefore: from, NotAfter: from.AddDate(years, 0, 0),
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true,
			IsCA: true, MaxPathLen: pathLen, MaxPathLenZero: pathLen == 0,
		}
	}
	above := template(opt.CommonName+" root", rootYears, 1)
	if root, err = certify(above, above, &rootKey.PublicKey, rootKey); err != nil {
		return nil, nil, nil, err
	}
	if above, err = x509.ParseCertificate(root); err != nil {
		return nil, nil, nil, err
	}
	if certificate, err = certify(template(opt.CommonName+" elements", issuerYears, 0), above, &key.PublicKey, rootKey); err != nil {
		return nil, nil, nil, err
	}
	private, err = x509.MarshalPKCS8PrivateKey(key)
	return private, certificate, root, err
}

// certify signs a certificate for a key; its SubjectKeyIdentifier is made of it
// (RFC 7093 §2, method 1).
func certify(template, parent *x509.Certificate, public *ecdsa.PublicKey, by *ecdsa.PrivateKey) ([]byte, error) {
	point, err := public.Bytes()
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(point)
	template.SubjectKeyId = id[:20]
	return x509.CreateCertificate(rand.Reader, template, parent, public, by)
}

func (o FactoryOptions) subject(name string) pkix.Name {
	subject := pkix.Name{CommonName: name}
	if o.Organisation != "" {
		subject.Organization = []string{o.Organisation}
	}
	return subject
}

// newSerialNumber draws 15 bytes, so that the number is positive.
func newSerialNumber() *big.Int {
	serial := make([]byte, 15)
	rand.Read(serial) // never fails
	return new(big.Int).SetBytes(serial)
}

func wipeKey(key *ecdsa.PrivateKey) {
	clear(key.D.Bits()) //nolint:staticcheck // the number itself is what has to go
}

// issuer certifies the device keys of elements.
type issuer struct {
	key         secret.Key // PKCS #8
	certificate *x509.Certificate
	root        []byte
}

var errNoIssuer = errors.New("this factory was made by a version without device keys, and has nothing to certify them with: make a new one with `joinery factory init`, and share the master key with it")

func (t *factoryToken) loadIssuer(c *contents) (err error) {
	if len(c.Issuer) == 0 {
		return nil
	}
	// A copy: a parsed certificate holds on to its bytes, and those of c are wiped.
	if t.issuer.certificate, err = x509.ParseCertificate(bytes.Clone(c.IssuerCertificate)); err != nil {
		return fmt.Errorf("%w: certificate of the issuer", ErrDamaged)
	}
	if _, err := x509.ParseCertificate(c.RootCertificate); err != nil {
		return fmt.Errorf("%w: certificate of the root", ErrDamaged)
	}
	t.issuer.root = bytes.Clone(c.RootCertificate)
	t.issuer.key, err = t.memory.Key(c.Issuer)
	return err
}

// Root implements keyring.FactoryToken.
func (t *factoryToken) Root() []byte { return t.issuer.root }

// DeviceKey implements keyring.FactoryToken.
func (t *factoryToken) DeviceKey(_ context.Context, n keyring.DeviceName, to *seal.Sealer) (sealed []byte, chain [][]byte, err error) {
	if t.issuer.certificate == nil {
		return nil, nil, errNoIssuer
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	defer wipeKey(key)
	scalar, err := key.Bytes()
	if err != nil {
		return nil, nil, err
	}
	defer clear(scalar)
	if sealed, err = to.Seal(scalar); err != nil {
		return nil, nil, err
	}
	chain, err = t.chain(n, "", &key.PublicKey)
	return sealed, chain, err
}

// chain certifies a key of an element, and gives its certificate and the issuer's. slot
// is which key it is, "" for the device key.
func (t *factoryToken) chain(n keyring.DeviceName, slot string, public *ecdsa.PublicKey) (chain [][]byte, err error) {
	template, err := deviceTemplate(n)
	if err != nil {
		return nil, err
	}
	if slot != "" {
		template.Subject.OrganizationalUnit = []string{manifest.SlotUnit(slot)}
		template.KeyUsage = x509.KeyUsageDigitalSignature
	}
	err = useP256(t.issuer.key, func(by *ecdsa.PrivateKey) error {
		der, err := certify(template, t.issuer.certificate, public, by)
		chain = [][]byte{der, t.issuer.certificate.Raw}
		return err
	})
	return chain, err
}

// BootKeys implements keyring.FactoryToken.
func (t *factoryToken) BootKeys(_ context.Context, n keyring.DeviceName, slot string, to *seal.Sealer) (key, io []byte, chain [][]byte, err error) {
	if t.issuer.certificate == nil {
		return nil, nil, nil, errNoIssuer
	}
	drawn, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	defer wipeKey(drawn)
	scalar, err := drawn.Bytes()
	if err != nil {
		return nil, nil, nil, err
	}
	defer clear(scalar)
	if key, err = to.Seal(scalar); err != nil {
		return nil, nil, nil, err
	}
	bus := make([]byte, 32)
	defer clear(bus)
	rand.Read(bus) // never fails (crypto/rand)
	if io, err = to.Seal(bus); err != nil {
		return nil, nil, nil, err
	}
	chain, err = t.chain(n, slot, &drawn.PublicKey)
	return key, io, chain, err
}

// Object identifiers: subjectAltName (RFC 5280 §4.2.1.6), serialNumber (X.520).
var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidSerialNumber   = asn1.ObjectIdentifier{2, 5, 4, 5}
)

// deviceTemplate is a device certificate as parts of the third generation have
// it: the serial number in the common name, the DevEUI as a serialNumber of a
// directoryName in subjectAltName, here in characters that a PrintableString may
// hold.
func deviceTemplate(n keyring.DeviceName) (*x509.Certificate, error) {
	directory, err := asn1.Marshal(pkix.RDNSequence{{{Type: oidSerialNumber, Value: "eui64-" + n.DevEUI.String()}}})
	if err != nil {
		return nil, err
	}
	const directoryName = 4
	names, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: directoryName, IsCompound: true, Bytes: directory}})
	if err != nil {
		return nil, err
	}
	from := n.At.UTC().Truncate(time.Hour)
	return &x509.Certificate{
		SerialNumber: newSerialNumber(),
		Subject:      pkix.Name{CommonName: "sn" + strings.ToUpper(n.UniqueID)},
		NotBefore:    from, NotAfter: from.AddDate(deviceYears, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement,
		BasicConstraintsValid: true,
		ExtraExtensions:       []pkix.Extension{{Id: oidSubjectAltName, Value: names}},
	}, nil
}

// useP256 calls use with a private key of PKCS #8.
func useP256(k secret.Key, use func(*ecdsa.PrivateKey) error) error {
	return k.Use(func(der []byte) error {
		parsed, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return fmt.Errorf("%w: private key", ErrDamaged)
		}
		key, ok := parsed.(*ecdsa.PrivateKey)
		if !ok || key.Curve != elliptic.P256() {
			return fmt.Errorf("%w: private key is not P-256", ErrDamaged)
		}
		return use(key)
	})
}
