package hsm_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"testing"

	"github.com/miekg/pkcs11"

	"joinery/internal/exportfile"
	"joinery/internal/keyring"
	"joinery/internal/keyring/hsm"
	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/seal"
)

// custodyTokens makes a server's token and one of the custody role.
func custodyTokens(t *testing.T, server, custody hsm.Options) keyringtest.Fixture {
	t.Helper()
	public, err := hsm.NewCustodyKey(custody)
	if err != nil {
		t.Fatal(err)
	}
	made, err := hsm.Provision(context.Background(), server, hsm.Plan{Custody: public})
	if err != nil {
		t.Fatal(err)
	}
	var master [32]byte
	rand.Read(master[:])
	share, err := keyringtest.ShareOf(master, hsmtest.Master, made.Transport)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hsm.AcceptMaster(server, bytes.NewReader(share)); err != nil {
		t.Fatal(err)
	}
	return hsmtest.Open(t, server, master)
}

func openCustodian(t *testing.T, opt hsm.CustodianOptions) keyring.Custodian {
	t.Helper()
	c, err := hsm.OpenCustodian(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Two SoftHSM tokens, each with its own role, pass the contract of every custodian.
// This token knows OAEP with SHA-1 only, and says so.
func TestCustodianOnSoftHSM(t *testing.T) {
	server, custody := hsmtest.SoftHSM(t), hsmtest.SoftHSM(t)
	f := custodyTokens(t, server, custody)
	c := openCustodian(t, hsm.CustodianOptions{Server: server, Custody: custody})
	if want := []exportfile.Wrapping{exportfile.RawOAEP1, exportfile.SealOAEP1}; !slices.Equal(c.Wrappings(), want) {
		t.Errorf("it wraps by %v, want %v", c.Wrappings(), want)
	}
	if _, err := exportfile.Choose(keyringtest.Recipient(t).Recipient(), c.Wrappings(), ""); !errors.Is(err, exportfile.ErrWrapping) {
		t.Errorf("a recipient that did not opt in to SHA-1: %v", err)
	}
	keyringtest.RunCustodian(t, f, c, true)

	derivedOnly := openCustodian(t, hsm.CustodianOptions{Server: server})
	keyringtest.RunCustodian(t, f, derivedOnly, false)
	keyringtest.RefusesSealed(t, f, derivedOnly)
	// What a rotation needs of the custody role is its own token alone.
	keyringtest.RunResealOnly(t, f, openCustodian(t, hsm.CustodianOptions{Custody: custody}))

	t.Run("Hostile", func(t *testing.T) { testHostileCustodyPIN(t, custody) })
	t.Run("Early", func(t *testing.T) { testEarlyCustodyKey(t, custody) })
}

// What the PIN of the custody role is worth: nothing that its key opens can be read, and
// the key itself neither leaves nor decrypts. What it opens can be wrapped to anybody,
// which no template of PKCS #11 forbids (docs/custody.md).
func testHostileCustodyPIN(t *testing.T, opt hsm.Options) {
	root := make([]byte, 16)
	rand.Read(root)
	raw(t, opt, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) {
		h := hostile{t, p, s}
		private, m := h.find(pkcs11.CKO_PRIVATE_KEY, hsm.CustodyLabel()), hsm.OAEP(seal.AlgRSAOAEP)
		wrapped, err := hsm.EncryptTo(p, s, h.find(pkcs11.CKO_PUBLIC_KEY, hsm.CustodyLabel()), root)
		if err != nil {
			t.Fatal(err)
		}
		opened := hsm.SessionKey(true)
		for _, a := range opened {
			if a.Type == pkcs11.CKA_SENSITIVE {
				a.Value = []byte{0}
			}
		}
		_, err = p.UnwrapKey(s, m, private, wrapped, opened)
		h.refused("opening a root key as readable", err)
		own := h.generate(pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP)
		o, err := p.UnwrapKey(s, m, private, wrapped, hsm.SessionKey(true))
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.value(o)
		h.refused("reading a root key", err)
		h.refused("making it readable", p.SetAttributeValue(s, o, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false)}))
		for _, typ := range []uint{pkcs11.CKA_PRIVATE_EXPONENT, pkcs11.CKA_PRIME_1} {
			_, err := p.GetAttributeValue(s, private, []*pkcs11.Attribute{pkcs11.NewAttribute(typ, nil)})
			h.refused("reading the custody key", err)
		}
		h.refused("decrypting by the custody key", p.DecryptInit(s, m, private))
		h.refused("decrypting by the bare custody key", p.DecryptInit(s, mech(pkcs11.CKM_RSA_X_509), private))
		for typ, v := range map[uint]bool{pkcs11.CKA_SENSITIVE: false, pkcs11.CKA_EXTRACTABLE: true} {
			h.refused("weakening the custody key", p.SetAttributeValue(s, private, []*pkcs11.Attribute{pkcs11.NewAttribute(typ, v)}))
		}
		_, err = p.WrapKey(s, mech(pkcs11.CKM_AES_KEY_WRAP), own, private)
		h.refused("wrapping the custody key", err)
		// The limit, written down: he wraps what it opens under a key that he can read.
		if _, err := p.WrapKey(s, mech(pkcs11.CKM_AES_KEY_WRAP), own, o); err != nil {
			t.Errorf("docs/custody.md says that this succeeds: %v", err)
		}
	})
}

// Custody keys of early ceremonies let nothing out: that is said, and no such key
// passes a ceremony.
func testEarlyCustodyKey(t *testing.T, opt hsm.Options) {
	err := hsm.Conduct(opt, func(o *hsm.Officer) error {
		if err := o.EarlyCustodyKey(2); err != nil {
			t.Fatal(err)
		}
		_, _, err := o.EnsureCustodyPair(true)
		return err
	})
	if !errors.Is(err, hsm.ErrCustodyTemplate) {
		t.Errorf("a ceremony: %v", err)
	}
	if _, err := hsm.OpenCustodian(context.Background(), hsm.CustodianOptions{Custody: opt}); !errors.Is(err, hsm.ErrCustodyTemplate) {
		t.Errorf("a custodian: %v", err)
	}
}
