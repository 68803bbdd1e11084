package hsm_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/miekg/pkcs11"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/hsm"
	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/internal/keyring/keyringtest"
)

// hostile is somebody who has the process: the PIN, a session, and every handle.
// docs/custody.md tells of each attempt below, which ones fail and which do not.
type hostile struct {
	t testing.TB
	p *pkcs11.Ctx
	s pkcs11.SessionHandle
}

// mech gives a mechanism without parameters.
func mech(m uint) []*pkcs11.Mechanism { return []*pkcs11.Mechanism{pkcs11.NewMechanism(m, nil)} }

func (h hostile) find(class uint, label string) pkcs11.ObjectHandle {
	h.t.Helper()
	o, err := hsm.Find(h.p, h.s, class, label)
	if err != nil {
		h.t.Fatal(err)
	}
	return o
}

// refused fails unless the token refused.
func (h hostile) refused(what string, err error) {
	h.t.Helper()
	var rv pkcs11.Error
	if !errors.As(err, &rv) {
		h.t.Errorf("%s was not refused: %v", what, err)
	}
}

// generate draws a key of the hostile caller's own, which he can read.
func (h hostile) generate(rights ...uint) pkcs11.ObjectHandle {
	h.t.Helper()
	t := append(hsm.SessionKey(true, rights...), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32))
	for _, a := range t {
		if a.Type == pkcs11.CKA_SENSITIVE {
			a.Value = []byte{0}
		}
	}
	o, err := h.p.GenerateKey(h.s, mech(pkcs11.CKM_AES_KEY_GEN), t)
	if err != nil {
		h.t.Fatal(err)
	}
	return o
}

func (h hostile) value(o pkcs11.ObjectHandle) ([]byte, error) {
	list, err := h.p.GetAttributeValue(h.s, o, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
	if err != nil {
		return nil, err
	}
	return list[0].Value, nil
}

// scene is a token in use, with a device of each origin.
func scene(t *testing.T) (opt hsm.Options, f keyringtest.Fixture, sealedKeys joinery.KeySet, d keyringtest.Device) {
	t.Helper()
	opt = sharedOptions(t)
	f = another(t)
	d = keyringtest.NewDevice(true)
	return opt, f, f.SealedKeySet(t, d), d
}

// No key that stays can be read, changed, copied as readable, or wrapped.
func TestHostileReadsStoredKeys(t *testing.T) {
	opt, _, _, _ := scene(t)
	raw(t, opt, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) {
		h := hostile{t, p, s}
		own := h.generate(pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT)
		for _, label := range []string{hsm.LabelMaster + hsmtest.Master, hsm.LabelJoinKEK, "joinery.storage-kek", hsm.LabelRowMAC, "joinery.owner-tokens"} {
			o := h.find(pkcs11.CKO_SECRET_KEY, label)
			_, err := h.value(o)
			h.refused("reading "+label, err)
			for typ, v := range map[uint]bool{pkcs11.CKA_SENSITIVE: false, pkcs11.CKA_EXTRACTABLE: true} {
				weaker := []*pkcs11.Attribute{pkcs11.NewAttribute(typ, v)}
				h.refused("weakening "+label, p.SetAttributeValue(s, o, weaker))
				_, err := p.CopyObject(s, o, append(weaker, pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false)))
				h.refused("copying "+label+" as readable", err)
			}
			_, err = p.WrapKey(s, mech(pkcs11.CKM_AES_KEY_WRAP), own, o)
			h.refused("wrapping "+label, err)
			// As a cipher: an RFC 3394 unwrap by hand needs no more.
			err = p.DecryptInit(s, mech(pkcs11.CKM_AES_ECB), o)
			h.refused("decrypting under "+label, err)
			err = p.EncryptInit(s, mech(pkcs11.CKM_AES_ECB), o)
			h.refused("encrypting under "+label, err)
		}
		private := h.find(pkcs11.CKO_PRIVATE_KEY, hsm.LabelTransport)
		for _, typ := range []uint{pkcs11.CKA_PRIVATE_EXPONENT, pkcs11.CKA_PRIME_1} {
			_, err := p.GetAttributeValue(s, private, []*pkcs11.Attribute{pkcs11.NewAttribute(typ, nil)})
			h.refused("reading the transport key", err)
		}
		h.refused("decrypting by the transport key", p.DecryptInit(s, mech(pkcs11.CKM_RSA_X_509), private))
		h.refused("signing by the transport key", p.SignInit(s, mech(pkcs11.CKM_RSA_PKCS), private))
	})
}

// An imported root key cannot be unwrapped as readable, nor as one that could be
// wrapped again; the handle that a join has of it cannot either.
func TestHostileReadsSealedRoots(t *testing.T) {
	opt, _, ks, _ := scene(t)
	blob := ks.App.Use[1:25]
	raw(t, opt, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) {
		h := hostile{t, p, s}
		kek := h.find(pkcs11.CKO_SECRET_KEY, hsm.LabelJoinKEK)
		own := h.generate(pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP)
		unwrap := func(t []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
			return p.UnwrapKey(s, mech(pkcs11.CKM_AES_KEY_WRAP), kek, blob, t)
		}
		readable := hsm.Readable()
		_, err := unwrap(readable[:len(readable)-1])
		h.refused("unwrapping a root as readable", err)
		_, err = unwrap(hsm.SessionKey(true, pkcs11.CKA_DERIVE))
		h.refused("unwrapping a root as extractable", err)
		generic := append(hsm.SessionKey(true), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET))
		_, err = unwrap(generic)
		h.refused("unwrapping a root as something else", err)

		root, err := unwrap(hsm.SessionKey(false, pkcs11.CKA_DERIVE, pkcs11.CKA_SIGN, pkcs11.CKA_DECRYPT))
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.value(root)
		h.refused("reading a root in use", err)
		for name, under := range map[string]pkcs11.ObjectHandle{"a key of his own": own, "the join KEK": kek} {
			_, err = p.WrapKey(s, mech(pkcs11.CKM_AES_KEY_WRAP), under, root)
			h.refused("wrapping a root again under "+name, err)
		}
		_, err = p.WrapKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP,
			pkcs11.NewOAEPParams(pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1, pkcs11.CKZ_DATA_SPECIFIED, nil))},
			h.find(pkcs11.CKO_PUBLIC_KEY, hsm.LabelTransport), root)
		h.refused("wrapping a root again to a public key", err)
		_, err = p.CopyObject(s, root, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true)})
		h.refused("copying a root as extractable", err)
	})
}

// A writer of the database who has no PIN: blobs of other devices, roles and peers
// do not open. (Whoever has the PIN can make row MACs himself.)
func TestHostileSwapsBlobs(t *testing.T) {
	_, f, one, _ := scene(t)
	ctx := context.Background()
	two := f.SealedKeySet(t, keyringtest.NewDevice(true))
	swapped := one
	swapped.Nwk, swapped.App = two.Nwk, two.App
	if err := f.Keyring.CheckKeySet(ctx, swapped); !errors.Is(err, keyring.ErrIntegrity) {
		t.Errorf("another device's roots: %v", err)
	}
	swapped = one
	swapped.Nwk, swapped.App = one.App, one.Nwk
	if err := f.Keyring.CheckKeySet(ctx, swapped); !errors.Is(err, keyring.ErrIntegrity) {
		t.Errorf("NwkKey and AppKey exchanged: %v", err)
	}
	key := make([]byte, 16)
	ns, as := f.KEK(t, key, joinery.KEKForNS, "ns"), f.KEK(t, key, joinery.KEKForAS, "as")
	ns.Sealed = as.Sealed
	if err := f.Keyring.CheckKEK(ctx, ns); !errors.Is(err, keyring.ErrIntegrity) {
		t.Errorf("the AS's KEK as the NS's: %v", err)
	}
}

// What the PIN can do, and is written down in docs/custody.md as what it can do. A
// token that refuses one of these is better than the document says: change both.
func TestHostileLimits(t *testing.T) {
	opt, f, ks, d := scene(t)
	block := make([]byte, 16)
	rand.Read(block)
	c, err := aes.NewCipher(d.App[:])
	if err != nil {
		t.Fatal(err)
	}
	sessionKey := make([]byte, 16)
	c.Encrypt(sessionKey, block)
	raw(t, opt, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) {
		h := hostile{t, p, s}
		root, err := p.UnwrapKey(s, mech(pkcs11.CKM_AES_KEY_WRAP), h.find(pkcs11.CKO_SECRET_KEY, hsm.LabelJoinKEK),
			ks.App.Use[1:25], hsm.SessionKey(false, pkcs11.CKA_DERIVE, pkcs11.CKA_SIGN, pkcs11.CKA_DECRYPT))
		if err != nil {
			t.Fatal(err)
		}
		// 1. Derivation cannot be pinned: children can be readable.
		child, err := p.DeriveKey(s, []*pkcs11.Mechanism{hsm.DerivationBlock(block)}, root, hsm.Readable())
		if err != nil {
			t.Fatalf("a readable child of a root is refused (%v): docs/custody.md can promise more", err)
		}
		if have, err := h.value(child); err != nil || !bytes.Equal(have, sessionKey) {
			t.Errorf("a readable session key: %v", err)
		}
		master := h.find(pkcs11.CKO_SECRET_KEY, hsm.LabelMaster+hsmtest.Master)
		rootBlock, err := keyring.Derivation{Root: joinery.AppKey, Generation: 1, DevEUI: d.DevEUI}.Block()
		if err != nil {
			t.Fatal(err)
		}
		child, err = p.DeriveKey(s, []*pkcs11.Mechanism{hsm.DerivationBlock(rootBlock[:])}, master, hsm.Readable())
		if err != nil {
			t.Fatalf("a readable child of a master key is refused (%v): docs/custody.md can promise more", err)
		}
		_, _, want := f.DerivedKeySet(t, d.DevEUI, 1)
		if have, err := h.value(child); err != nil || !bytes.Equal(have, want[:]) {
			t.Errorf("a derived root key: %v", err)
		}
		// 2. A root that makes MICs and accepts is an encryption oracle, even
		// without the right to derive: K1 is what CMAC adds to a whole last block.
		if have := h.oracle(root, block); !bytes.Equal(have, sessionKey) {
			t.Error("CMAC and decryption are no encryption oracle: docs/custody.md can promise more")
		}
	})
}

// oracle encrypts a block by CMAC and decryption: CMAC of one whole block is
// E(block xor K1), so that the decryption of that of zeros is K1.
func (h hostile) oracle(root pkcs11.ObjectHandle, block []byte) []byte {
	cmac := func(msg []byte) []byte {
		if err := h.p.SignInit(h.s, mech(pkcs11.CKM_AES_CMAC), root); err != nil {
			h.t.Fatal(err)
		}
		mac, err := h.p.Sign(h.s, msg)
		if err != nil {
			h.t.Fatal(err)
		}
		return mac
	}
	ofZero := cmac(make([]byte, 16))
	if err := h.p.DecryptInit(h.s, mech(pkcs11.CKM_AES_ECB), root); err != nil {
		h.t.Fatal(err)
	}
	k1, err := h.p.Decrypt(h.s, ofZero)
	if err != nil {
		h.t.Fatal(err)
	}
	x := make([]byte, 16)
	for i := range x {
		x[i] = block[i] ^ k1[i]
	}
	return cmac(x)
}

// The keys of an import: the file key opens only as hidden; what it wraps can be
// unwrapped as readable by whoever has the file, the PIN and the process, which is
// written down.
func TestHostileReadsImports(t *testing.T) {
	opt, f, _, d := scene(t)
	header, rows := f.Rows(t, d, 1)
	raw(t, opt, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) {
		h := hostile{t, p, s}
		private := h.find(pkcs11.CKO_PRIVATE_KEY, hsm.LabelTransport)
		oaep := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP,
			pkcs11.NewOAEPParams(pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1, pkcs11.CKZ_DATA_SPECIFIED, nil))}
		readable := hsm.Readable()
		for _, template := range [][]*pkcs11.Attribute{readable[:len(readable)-1], hsm.SessionKey(true, pkcs11.CKA_UNWRAP)} {
			_, err := p.UnwrapKey(s, oaep, private, header.Key, template)
			h.refused("opening a file key as one that can leave", err)
		}
		h.refused("decrypting a file key", p.DecryptInit(s, oaep, private))
		fileKey, err := p.UnwrapKey(s, oaep, private, header.Key, hsm.SessionKey(false, pkcs11.CKA_UNWRAP))
		if err != nil {
			t.Fatal(err)
		}
		root, err := p.UnwrapKey(s, mech(pkcs11.CKM_AES_KEY_WRAP), fileKey, rows[0].Row.AppKey, readable[:len(readable)-1])
		if err != nil {
			t.Fatalf("a row of a kept file is refused as readable (%v): docs/custody.md can promise more", err)
		}
		if have, err := h.value(root); err != nil || !bytes.Equal(have, d.App[:]) {
			t.Errorf("a row of a kept file: %v", err)
		}
	})
}
