package hsm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"

	"github.com/miekg/pkcs11"

	"joinery/internal/exportfile"
)

// The audit key: ECDSA on P-256.
var (
	mechNewEC = mechanism(pkcs11.CKM_EC_KEY_PAIR_GEN)
	mechECDSA = mechanism(pkcs11.CKM_ECDSA)
	// p256 is the curve's object identifier, 1.2.840.10045.3.1.7, in DER.
	p256 = []byte{0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07}
)

// scalarLen is the length of each of the two numbers of a signature on P-256.
const scalarLen = 32

// newAuditKey makes a pair that signs, reports or exports, and does nothing else.
func (a *admin) newAuditKey(label string) error {
	common := template{
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), kindOf("ecdsa-p256", label),
	}
	public := append(common[:len(common):len(common)],
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, p256),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true),
	)
	private := append(common[:len(common):len(common)],
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, false),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false),
		pkcs11.NewAttribute(pkcs11.CKA_DERIVE, false),
		pkcs11.NewAttribute(pkcs11.CKA_ALLOWED_MECHANISMS, ulong(pkcs11.CKM_ECDSA)),
	)
	one, other, err := a.s.api.GenerateKeyPair(a.s.handle, mechNewEC, public, private)
	if err != nil {
		one, other, err = a.s.api.GenerateKeyPair(a.s.handle, mechNewEC, public, private.without(pkcs11.CKA_ALLOWED_MECHANISMS))
	}
	if err != nil {
		return failed("making "+label, err)
	}
	a.made = append(a.made, one, other)
	return nil
}

// Auditor is a generation of the audit key.
type Auditor struct {
	Generation uint32
	// Key is its public half, PEM.
	Key string

	o       *Officer
	private handle
}

// Auditor gives that generation of the audit key, or the newest for 0.
func (o *Officer) Auditor(number uint32) (a Auditor, err error) {
	list, err := o.a.s.someGenerations(labelAudit, classesOf[labelAudit]...)
	if err != nil {
		return a, err
	}
	i := len(list) - 1
	if number != 0 {
		i = slices.IndexFunc(list, func(g generation) bool { return g.number == number })
	}
	if i < 0 {
		return a, fmt.Errorf("%w: there is no %s", ErrObject, generationLabel(labelAudit, number))
	}
	key, err := readEC(o.a.s, list[i].handles[0])
	return Auditor{list[i].number, key, o, list[i].handles[1]}, err
}

// Sign signs a SHA-256 digest with the audit key: ECDSA in ASN.1.
func (a Auditor) Sign(digest []byte) ([]byte, error) {
	var raw [2 * scalarLen]byte
	if err := a.o.a.s.sign(mechECDSA, a.private, digest, raw[:]); err != nil {
		return nil, failed("signing with "+labelAudit, err)
	}
	return asn1.Marshal(struct{ R, S *big.Int }{
		new(big.Int).SetBytes(raw[:scalarLen]), new(big.Int).SetBytes(raw[scalarLen:]),
	})
}

// findSigners gives the public halves of all keys that sign exports or once did, the
// newest last; none where the token has none, from before there were exports. What was
// never made whole behind the newest is left out.
func findSigners(s *session) (list []exportfile.Signer, err error) {
	whole, err := s.generations(labelExport, classesOf[labelExport]...)
	if err != nil || len(whole) == 0 {
		return nil, err
	}
	all, err := s.everyGeneration(labelExport, pkcs11.CKO_PUBLIC_KEY)
	if err != nil {
		return nil, err
	}
	for _, g := range all {
		if g.number > whole[len(whole)-1].number {
			break
		}
		signer, err := readSigner(s, g)
		if err != nil {
			return nil, err
		}
		list = append(list, signer)
	}
	return list, nil
}

func readSigner(s *session, g generation) (exportfile.Signer, error) {
	text, err := readEC(s, g.handles[0])
	if err != nil {
		return exportfile.Signer{}, failed(g.label, err)
	}
	block, _ := pem.Decode([]byte(text))
	return exportfile.ParseSignerDER(block.Bytes)
}

// readEC reads a public key on P-256. Most tokens give its point as an octet string
// in DER, some as it is.
func readEC(s *session, h handle) (string, error) {
	point, err := s.attribute(h, pkcs11.CKA_EC_POINT)
	if err != nil {
		return "", err
	}
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 {
		point = inner
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return "", fmt.Errorf("%w: a public key is none on P-256", ErrObject)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}
