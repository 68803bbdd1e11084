package hsm

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/miekg/pkcs11"

	"joinery/internal/ceremony"
)

// Inventory describes every object of that label, and of the generations that come
// after it, as the token itself does. A report has no other source.
func (o *Officer) Inventory(label string) (list []ceremony.Object, err error) {
	for _, class := range []uint{pkcs11.CKO_SECRET_KEY, pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY} {
		found, err := o.a.shelf(class, label)
		if err != nil {
			return nil, err
		}
		for _, number := range slices.Sorted(maps.Keys(found)) {
			for _, h := range found[number] {
				object, err := o.a.inspect(class, h, generationLabel(label, number))
				if err != nil {
					return nil, failed("looking at "+generationLabel(label, number), err)
				}
				list = append(list, object)
			}
		}
	}
	return list, nil
}

// shelf lists the objects of a key by generations: one only, of a key that has none.
// The names of master keys may look like generations of others.
func (a *admin) shelf(class uint, label string) (map[uint32][]handle, error) {
	if classesOf[label] != nil {
		return a.s.labelled(class, label)
	}
	list, err := a.s.find(class, label)
	return map[uint32][]handle{1: list}, err
}

// MasterLabel is the label of a master key.
func MasterLabel(name string) string { return labelMaster + name }

// CustodyLabel is the label of both halves of the custody key's first generation.
func CustodyLabel() string { return labelCustody }

// TransportLabel is that of the transport key.
func TransportLabel() string { return labelTransport }

// JoinKEKLabel is that of the join KEK.
func JoinKEKLabel() string { return labelJoinKEK }

// ExportLabel is the label of the key that signs exports.
func ExportLabel() string { return labelExport }

func (a *admin) inspect(class uint, h handle, label string) (o ceremony.Object, err error) {
	o = ceremony.Object{Label: label, Class: className[class], Type: a.typeOf(h)}
	id, err := a.s.attribute(h, pkcs11.CKA_ID)
	if err != nil {
		return o, err
	}
	o.ID, o.Rights = string(id), a.rightsOf(h)
	if class == pkcs11.CKO_PUBLIC_KEY {
		return o, a.inspectPublic(h, &o)
	}
	for typ, to := range map[uint]**bool{
		pkcs11.CKA_SENSITIVE: &o.Sensitive, pkcs11.CKA_EXTRACTABLE: &o.Extractable, pkcs11.CKA_LOCAL: &o.Local,
		pkcs11.CKA_ALWAYS_SENSITIVE: &o.AlwaysSensitive, pkcs11.CKA_NEVER_EXTRACTABLE: &o.NeverExtractable,
	} {
		if is, err := a.s.is(h, typ); err == nil {
			*to = &is // else the token does not say
		}
	}
	o.UnwrapTemplate = a.templateOf(h, class, label)
	if class == pkcs11.CKO_SECRET_KEY {
		if kcv, err := a.s.attribute(h, pkcs11.CKA_CHECK_VALUE); err == nil && len(kcv) == 3 {
			o.CheckValue = fmt.Sprintf("%X", kcv)
		}
	}
	return o, nil
}

var className = map[uint]string{
	pkcs11.CKO_SECRET_KEY: "secret key", pkcs11.CKO_PRIVATE_KEY: "private key", pkcs11.CKO_PUBLIC_KEY: "public key",
}

// typeOf names what kind of key it is, and how long.
func (a *admin) typeOf(h handle) string {
	kind, err := a.s.attribute(h, pkcs11.CKA_KEY_TYPE)
	if err != nil {
		return "unknown"
	}
	switch {
	case bytes.Equal(kind, ulong(pkcs11.CKK_AES)):
		return a.aesType(h)
	case bytes.Equal(kind, ulong(pkcs11.CKK_RSA)):
		n, _ := a.s.attribute(h, pkcs11.CKA_MODULUS) // a private key may not tell
		return fmt.Sprintf("RSA-%d", max(len(n)*8, rsaBits))
	case bytes.Equal(kind, ulong(pkcs11.CKK_EC)):
		return "EC P-256"
	case bytes.Equal(kind, ulong(pkcs11.CKK_GENERIC_SECRET)):
		return "HMAC-SHA-256"
	}
	return fmt.Sprintf("CKK %x", kind)
}

// aesType adds the length, where the token tells (SoftHSM does not, of keys that
// were unwrapped).
func (a *admin) aesType(h handle) string {
	n, err := a.s.attribute(h, pkcs11.CKA_VALUE_LEN)
	for _, length := range []int{16, 24, 32} {
		if err == nil && bytes.Equal(n, ulong(uint(length))) {
			return fmt.Sprintf("AES-%d", length*8)
		}
	}
	return "AES"
}

// rightsOf lists what a key may be used for.
func (a *admin) rightsOf(h handle) []string {
	list := []string{}
	for _, r := range []struct {
		typ  uint
		name string
	}{
		{pkcs11.CKA_ENCRYPT, "encrypt"}, {pkcs11.CKA_DECRYPT, "decrypt"}, {pkcs11.CKA_SIGN, "sign"}, {pkcs11.CKA_VERIFY, "verify"},
		{pkcs11.CKA_WRAP, "wrap"}, {pkcs11.CKA_UNWRAP, "unwrap"}, {pkcs11.CKA_DERIVE, "derive"},
	} {
		if may, err := a.s.is(h, r.typ); err == nil && may {
			list = append(list, r.name)
		}
	}
	return list
}

func (a *admin) inspectPublic(h handle, o *ceremony.Object) error {
	if number, err := generationOf(labelExport, o.Label); ceremony.IsAudit(o.Label) || err == nil && number > 0 {
		key, err := readEC(a.s, h)
		o.PublicKey, o.KID = key, ceremony.Fingerprint(key)
		return err
	}
	key, err := readPublic(a.s, h)
	if err != nil {
		return err
	}
	o.PublicKey, o.KID = string(key.MarshalPEM()), key.KID()
	return nil
}

// What a report says of unwrap templates.
const (
	templateHolds  = "sensitive, not extractable: tried, and enforced"
	templateLeaves = "sensitive, extractable: what comes in can be wrapped, and not read: tried, and enforced"
	templateStored = "sensitive, not extractable: stored; the token does not enforce it"
	templateNone   = "none: a key came in readable when it was tried"
)

// templateOf tells what becomes of keys that come in under h, for it was tried: an
// attribute says only what was asked for.
func (a *admin) templateOf(h handle, class uint, label string) string {
	if may, err := a.s.is(h, pkcs11.CKA_UNWRAP); err != nil || !may {
		return ""
	}
	var leaves bool
	switch {
	case class == pkcs11.CKO_SECRET_KEY:
		leaves = a.unwrapsReadable(h)
	case isCustody(label):
		if leaves = a.opensReadable(h, label, readable); !leaves {
			return templateLeaves
		}
	default:
		leaves = a.opensReadable(h, label, sessionKey(true), readable)
	}
	switch {
	case !leaves:
		return templateHolds
	case !a.can.enforced:
		return templateStored
	}
	return templateNone
}

// opensReadable tries whether a key that was encrypted to a pair comes in readable.
// templates are those of keys that must not come in.
func (a *admin) opensReadable(private handle, label string, templates ...template) bool {
	public, err := findOne(a.s, pkcs11.CKO_PUBLIC_KEY, label)
	if err != nil {
		return true
	}
	key, err := readPublic(a.s, public)
	if err != nil {
		return true
	}
	k := newKnown(masterLen)
	defer k.wipe()
	wrapped, err := key.EncryptOAEP(k.value)
	if err != nil {
		return true
	}
	for _, t := range templates {
		h, err := a.s.api.UnwrapKey(a.s.handle, oaep(key.Alg()), private, wrapped, t.without(pkcs11.CKA_VALUE_LEN))
		if err != nil {
			continue // refused, as it must be
		}
		leaves, err := (&prober{s: a.s}).leaves(h)
		if destroyErr := a.s.destroy(h); leaves || err != nil || destroyErr != nil {
			return true
		}
	}
	return false
}
