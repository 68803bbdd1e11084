package hsm_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"errors"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"joinery/internal/keyring"
	"joinery/internal/keyring/hsm"
	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/seal"
)

// raw gives a login of the test's own to a token.
func raw(tb testing.TB, opt hsm.Options, f func(p *pkcs11.Ctx, s pkcs11.SessionHandle)) {
	tb.Helper()
	if err := hsm.RawSession(opt, f); err != nil {
		tb.Fatal(err)
	}
}

// A token is made once, and what a Join Server finds in it is what was planned.
func TestProvision(t *testing.T) {
	ctx := context.Background()
	custody := hsmtest.SoftHSM(t)
	custodyKey, err := hsm.NewCustodyKey(custody)
	if err != nil {
		t.Fatal(err)
	}
	if custodyKey.Alg() != seal.AlgRSAOAEP {
		t.Errorf("SoftHSM's custody key is for %s", custodyKey.Alg())
	}
	if _, err := hsm.NewCustodyKey(custody); !errors.Is(err, hsm.ErrExists) {
		t.Errorf("a second custody key: %v", err)
	}
	opt := hsmtest.SoftHSM(t)
	if _, err := hsm.Open(ctx, opt); !errors.Is(err, hsm.ErrObject) || !strings.Contains(err.Error(), hsm.LabelJoinKEK) {
		t.Errorf("an empty token: %v", err)
	}
	if _, err := hsm.Provision(ctx, opt, hsm.Plan{}); !errors.Is(err, hsm.ErrObject) {
		t.Errorf("no custody key: %v", err)
	}
	// A plan that fails in the middle leaves nothing.
	if _, err := hsm.Provision(ctx, opt, hsm.Plan{Custody: custodyKey, Masters: []string{"good", "not good"}}); !errors.Is(err, hsm.ErrObject) {
		t.Errorf("a bad name: %v", err)
	}
	made, err := hsm.Provision(ctx, opt, hsm.Plan{Custody: custodyKey, Masters: []string{"b", "a"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(made.Masters) != 2 || made.Masters[0].Name != "a" || made.Masters[0].KCV == made.Masters[1].KCV || made.Masters[0].Profile != keyring.ProfileECBv1 {
		t.Errorf("master keys %+v", made.Masters)
	}
	if _, err := hsm.Provision(ctx, opt, hsm.Plan{Custody: custodyKey}); !errors.Is(err, hsm.ErrExists) {
		t.Errorf("made twice: %v", err)
	}
	if _, err := hsm.NewMaster(opt, "a"); !errors.Is(err, hsm.ErrExists) {
		t.Errorf("a master key twice: %v", err)
	}
	if m, err := hsm.NewMaster(opt, "c"); err != nil || m.Name != "c" {
		t.Errorf("a master key more: %v", err)
	}
	token, err := hsm.Open(ctx, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := token.Close(); err != nil {
			t.Error(err)
		}
	})
	if n := len(token.Masters()); n != 3 {
		t.Errorf("%d master keys", n)
	}

	// The token of a Join Server does not hold the custody key's private half.
	if _, err := hsm.NewCustodyKey(opt); !errors.Is(err, hsm.ErrExists) {
		t.Errorf("a custody key in the Join Server's token: %v", err)
	}
}

// Objects that are not as they must be are refused when a token is opened.
func TestOpenRefuses(t *testing.T) {
	opt := hsmtest.SoftHSM(t)
	hsmtest.Provision(t, opt, seal.AlgRSAOAEP)
	refuse := func(name string, want error) {
		t.Helper()
		token, err := hsm.Open(context.Background(), opt)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			_ = token.Close()
		}
	}
	label := pkcs11.NewAttribute(pkcs11.CKA_LABEL, hsm.LabelMaster+"open")
	raw(t, opt, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) {
		add := func(template []*pkcs11.Attribute) func() {
			h, err := p.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, template)
			if err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := p.DestroyObject(s, h); err != nil {
					t.Fatal(err)
				}
			}
		}
		undo := add(hsm.UntemplatedKEK())
		refuse("two join KEKs", hsm.ErrObject)
		undo()
		extractable := append(hsm.SessionKey(true, pkcs11.CKA_DERIVE), label, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32))
		for _, a := range extractable {
			if a.Type == pkcs11.CKA_TOKEN {
				a.Value = []byte{1}
			}
		}
		undo = add(extractable)
		refuse("a master key that can leave", hsm.ErrObject)
		undo()

		refuse("whole", nil)
		kek, err := hsm.Find(p, s, pkcs11.CKO_SECRET_KEY, hsm.LabelJoinKEK)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.DestroyObject(s, kek); err != nil {
			t.Fatal(err)
		}
		refuse("no join KEK", hsm.ErrObject)
		add(hsm.UntemplatedKEK())
		refuse("a join KEK without template", hsm.ErrTemplate)
	})
	for name, change := range map[string]func(*hsm.Options){
		"no module":   func(o *hsm.Options) { o.Module = "/nowhere.so" },
		"none named":  func(o *hsm.Options) { o.Module = "" },
		"not a token": func(o *hsm.Options) { o.Token = "another" },
	} {
		changed := opt
		change(&changed)
		if _, err := hsm.Open(context.Background(), changed); !errors.Is(err, hsm.ErrModule) && !errors.Is(err, hsm.ErrNoToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Two organisations exchange a master key between their tokens: what travels is
// ciphertext, and no process ever had the key. Both derive the same root keys.
func TestExchangeOfAMasterKey(t *testing.T) {
	joinServer, factory := sharedOptions(t), hsmtest.SoftHSM(t)
	_, custody := hsmtest.CustodyKey(t, seal.AlgRSAOAEP)
	if _, err := hsm.Provision(context.Background(), factory, hsm.Plan{Custody: custody}); err != nil {
		t.Fatal(err)
	}
	to := another(t).Keyring.TransportKey()
	made, shares, err := hsm.NewSharedMaster(factory, "exchanged", to)
	if err != nil {
		t.Fatal(err)
	}
	text, err := shares[0].Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the same again changes nothing
		got, err := hsm.AcceptMaster(joinServer, bytes.NewReader(text))
		if err != nil || got != made {
			t.Fatalf("accepted %+v, made %+v: %v", got, made, err)
		}
	}
	if err := sameRoots(t, factory, joinServer, "exchanged"); err != nil {
		t.Error(err)
	}
	// The factory's own copy cannot leave any more.
	raw(t, factory, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) {
		if _, err := hsm.Find(p, s, pkcs11.CKO_SECRET_KEY, hsm.LabelMaster+"exchanged"); err != nil {
			t.Error(err)
		}
	})
	refusals := map[string]func(*seal.Master){
		"another name":    func(m *seal.Master) { m.Name = "other" },
		"another profile": func(m *seal.Master) { m.Profile = "ecb-v2" },
		"another KCV":     func(m *seal.Master) { m.KCV = "000000" },
		"another key":     func(m *seal.Master) { m.Key[5] ^= 1 },
		"cut":             func(m *seal.Master) { m.Key = m.Key[:24] },
		"another MAC":     func(m *seal.Master) { m.MAC[5] ^= 1 },
		"another header":  func(m *seal.Master) { m.Seal.Key[5] ^= 1 },
		"another alg":     func(m *seal.Master) { m.Seal.Alg = seal.AlgRSAOAEP256 },
		"no header":       func(m *seal.Master) { m.Seal = seal.Header{} },
	}
	for name, change := range refusals {
		m, err := seal.ParseMaster(text)
		if err != nil {
			t.Fatal(err)
		}
		change(&m)
		changed, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hsm.AcceptMaster(joinServer, bytes.NewReader(changed)); !errors.Is(err, hsm.ErrShare) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := hsm.AcceptMaster(joinServer, strings.NewReader("{}")); !errors.Is(err, hsm.ErrShare) {
		t.Errorf("no share: %v", err)
	}
	var other [32]byte
	rand.Read(other[:])
	share, err := keyringtest.ShareOf(other, "exchanged", to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hsm.AcceptMaster(joinServer, bytes.NewReader(share)); !errors.Is(err, hsm.ErrExists) {
		t.Errorf("another key of that name: %v", err)
	}
	usual, err := seal.NewPublicKey(to.RSA())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := hsm.NewSharedMaster(factory, "for-others", usual); !errors.Is(err, hsm.ErrShare) {
		t.Errorf("sealed by an algorithm that the token does not have: %v", err)
	}
}

// sameRoots compares what two tokens derive, by a MAC.
func sameRoots(tb testing.TB, one, other hsm.Options, master string) error {
	var macs [2][16]byte
	for i, opt := range []hsm.Options{one, other} {
		token, err := hsm.Open(context.Background(), opt)
		if err != nil {
			return err
		}
		defer func() { _ = token.Close() }()
		k, err := token.DeriveRoot(context.Background(), master, keyring.Derivation{Root: 1, Generation: 7})
		if err != nil {
			return err
		}
		defer k.Destroy()
		if macs[i], err = k.CMAC([]byte("who are you")); err != nil {
			return err
		}
	}
	if macs[0] != macs[1] {
		tb.Error("the two tokens derive other root keys")
	}
	return nil
}

// The custody form of an imported root key opens with the custody key's private
// half, by the algorithm that its format names.
func TestCustodyForm(t *testing.T) {
	f := another(t)
	d := keyringtest.NewDevice(true)
	ks := f.SealedKeySet(t, d)
	private, _ := hsmtest.CustodyKey(t, seal.AlgRSAOAEP)
	blob := ks.App.Custody
	if blob[0] != keyring.FormatOAEP1 {
		t.Fatalf("format %d", blob[0])
	}
	root, err := rsa.DecryptOAEP(sha1.New(), nil, private, blob[1:1+384], nil)
	if err != nil || !bytes.Equal(root, d.App[:]) {
		t.Errorf("the custody form does not open as the root key: %v", err)
	}
}
