package hsm

import (
	"crypto/rsa"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"joinery/internal/ceremony"
	"joinery/internal/exportfile"
	"joinery/internal/seal"
)

// Labels of objects in a token.
const (
	labelMaster      = "joinery.master."
	labelJoinKEK     = "joinery.join-kek"
	labelStorageKEK  = "joinery.storage-kek"
	labelRowMAC      = "joinery.row-mac"
	labelOwnerTokens = "joinery.owner-tokens"
	labelTransport   = "joinery.transport"
	labelCustody     = "joinery.custody"
	labelAudit       = ceremony.AuditLabel // signs reports; no server uses it
	labelExport      = "joinery.export"    // signs exports; no server uses it
)

// masterName is the form of a master key's name, as in the software backend.
var masterName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// objects are the handles of a token's objects; of those with generations, in
// rising order, the last of which seals.
type objects struct {
	masters     map[string]master
	joinKEKs    []generation
	storageKEK  handle
	rowMAC      handle
	ownerTokens handle
	transports  []pair
	custodies   []pair              // public halves: the private ones are not here
	signers     []exportfile.Signer // those that were retired as well
}

type master struct {
	handle  handle
	profile string
}

// findObjects finds every object once, and refuses a token in which one is
// missing, is there twice or could be read.
func findObjects(s *session) (o objects, err error) {
	if o.joinKEKs, err = s.someGenerations(labelJoinKEK, pkcs11.CKO_SECRET_KEY); err != nil {
		return o, err
	}
	for _, want := range []struct {
		to    *handle
		label string
	}{
		{&o.storageKEK, labelStorageKEK},
		{&o.rowMAC, labelRowMAC},
		{&o.ownerTokens, labelOwnerTokens},
	} {
		if *want.to, err = findOne(s, pkcs11.CKO_SECRET_KEY, want.label); err != nil {
			return o, err
		}
	}
	if o.transports, err = bothHalves(s, labelTransport); err != nil {
		return o, err
	}
	if err := noPrivateHalf(s); err != nil {
		return o, err
	}
	if o.custodies, err = publicHalves(s, labelCustody); err != nil {
		return o, err
	}
	if o.signers, err = findSigners(s); err != nil {
		return o, err
	}
	o.masters, err = findMasters(s)
	return o, err
}

// findOne finds the only object of a label; one that holds a secret must be such
// that nobody can read it.
func findOne(s *session, class uint, label string) (handle, error) {
	list, err := s.find(class, label)
	if err != nil {
		return 0, err
	}
	if len(list) != 1 {
		return 0, fmt.Errorf("%w: there are %d objects %s; want 1", ErrObject, len(list), label)
	}
	if class == pkcs11.CKO_PUBLIC_KEY {
		return list[0], nil
	}
	return list[0], checkHidden(s, list[0], label)
}

// checkHidden refuses a key whose value could leave the token.
func checkHidden(s *session, h handle, label string) error {
	for typ, want := range map[uint]bool{pkcs11.CKA_SENSITIVE: true, pkcs11.CKA_EXTRACTABLE: false} {
		have, err := s.is(h, typ)
		if err != nil {
			return failed(label, err)
		}
		if have != want {
			return fmt.Errorf("%w: %s must be sensitive and not extractable", ErrObject, label)
		}
	}
	return nil
}

// findMasters finds all master keys by the beginning of their labels.
func findMasters(s *session) (map[string]master, error) {
	list, err := s.find(pkcs11.CKO_SECRET_KEY, "")
	if err != nil {
		return nil, err
	}
	masters := map[string]master{}
	for _, h := range list {
		label, err := s.attribute(h, pkcs11.CKA_LABEL)
		if err != nil {
			return nil, failed("reading labels", err)
		}
		name, ok := strings.CutPrefix(string(label), labelMaster)
		if !ok {
			continue
		}
		if _, twice := masters[name]; twice {
			return nil, fmt.Errorf("%w: there are two objects %s", ErrObject, label)
		}
		if !masterName.MatchString(name) {
			return nil, fmt.Errorf("%w: a master key's name is 1 to 64 letters, digits, hyphens, dots and underscores", ErrObject)
		}
		if err := checkHidden(s, h, string(label)); err != nil {
			return nil, err
		}
		profile, err := s.kind(h)
		if err != nil {
			return nil, failed(string(label), err)
		}
		masters[name] = master{h, profile}
	}
	return masters, nil
}

// kindOf is the CKA_ID of an object: what kind of key it is (the profile of a
// master key, the algorithm of a public key), and its label, since some tokens (NSS)
// take two objects of one CKA_ID for the same key.
func kindOf(kind, label string) *pkcs11.Attribute {
	return pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(kind+" "+label))
}

// kind reads the first word of an object's CKA_ID.
func (s *session) kind(h handle) (string, error) {
	id, err := s.attribute(h, pkcs11.CKA_ID)
	kind, _, _ := strings.Cut(string(id), " ")
	return kind, err
}

// readPublic reads an RSA public key and the algorithm that it is for.
func readPublic(s *session, h handle) (seal.PublicKey, error) {
	key, err := readRSA(s, h)
	if err != nil {
		return seal.PublicKey{}, err
	}
	alg, err := s.kind(h)
	if err != nil {
		return seal.PublicKey{}, err
	}
	return seal.NewPublicKeyFor(key, alg)
}

func readRSA(s *session, h handle) (*rsa.PublicKey, error) {
	n, err := s.attribute(h, pkcs11.CKA_MODULUS)
	if err != nil {
		return nil, err
	}
	exponent, err := s.attribute(h, pkcs11.CKA_PUBLIC_EXPONENT)
	if err != nil {
		return nil, err
	}
	e := new(big.Int).SetBytes(exponent)
	if !e.IsInt64() || e.Int64() > 1<<31-1 {
		return nil, fmt.Errorf("%w: the public exponent is too large", ErrObject)
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(e.Int64())}, nil
}

// Rights of keys. What is not named is denied: tokens differ in what they give by
// default.
type right uint

const (
	mayDerive  right = pkcs11.CKA_DERIVE
	maySign    right = pkcs11.CKA_SIGN
	mayEncrypt right = pkcs11.CKA_ENCRYPT
	mayDecrypt right = pkcs11.CKA_DECRYPT
	mayWrap    right = pkcs11.CKA_WRAP
	mayUnwrap  right = pkcs11.CKA_UNWRAP
)

// rightsOf gives attributes that allow these and nothing else.
func rightsOf(rights []right) (t template) {
	for _, r := range []right{mayDerive, maySign, mayEncrypt, mayDecrypt, mayWrap, mayUnwrap} {
		t = append(t, pkcs11.NewAttribute(uint(r), slices.Contains(rights, r)))
	}
	return append(t, pkcs11.NewAttribute(pkcs11.CKA_VERIFY, slices.Contains(rights, maySign)))
}

// secretKey begins the template of a hidden key: its kind, how long it lives and
// whether it may leave wrapped.
func secretKey(keyType uint, token, extractable bool) template {
	return template{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, token),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, extractable),
	}
}

// sessionKey is the template of a session object that is an AES key. Derived and
// generated ones need their length, unwrapped ones must not have it.
func sessionKey(extractable bool, rights ...right) template {
	return append(secretKey(pkcs11.CKK_AES, false, extractable), rightsOf(rights)...)
}

// ofLen adds a length to a template.
func ofLen(t template, n int) template {
	return append(slices.Clip(t), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, n))
}

// hiddenOnly is the template that whatever a KEK unwraps must fit: sensitive and
// not extractable.
var hiddenOnly = boolTemplate(map[uint]bool{pkcs11.CKA_SENSITIVE: true, pkcs11.CKA_EXTRACTABLE: false})

// sensitiveOnly is the template that whatever a custody key opens must fit: nobody
// reads it, and it can be wrapped for its owner. PKCS #11 has no way to say for whom.
var sensitiveOnly = boolTemplate(map[uint]bool{pkcs11.CKA_SENSITIVE: true, pkcs11.CKA_EXTRACTABLE: true})

// unwrapsHiddenOnly is the attribute that says so.
func unwrapsHiddenOnly() *pkcs11.Attribute {
	return pkcs11.NewAttribute(pkcs11.CKA_UNWRAP_TEMPLATE, hiddenOnly)
}
