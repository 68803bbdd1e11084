package hsm_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"joinery/internal/ceremony"
	"joinery/internal/keyring/hsm"
	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/internal/seal"
)

// ensureAll makes what every Join Server's token has, and signs with it.
func ensureAll(t *testing.T, opt hsm.Options, custody seal.PublicKey, want ceremony.Outcome) (objects []ceremony.Object) {
	t.Helper()
	err := hsm.Conduct(opt, func(o *hsm.Officer) error {
		for _, label := range hsm.Labels() {
			if outcome, err := o.Ensure(label, true); err != nil || outcome != want {
				t.Errorf("%s: %s, %v", label, outcome, err)
			}
			list, err := o.Inventory(label)
			if err != nil {
				return err
			}
			objects = append(objects, list...)
		}
		if _, outcome, err := o.EnsureCustody(hsm.CustodyKey{Public: custody}, false, true); err != nil || outcome != want {
			t.Errorf("custody: %s, %v", outcome, err)
		}
		levels, err := o.Levels(t.Context())
		if err != nil || len(levels) != len(o.Expected(custody.Alg())) || levels[1].Served != o.Expected(custody.Alg())[1].Served {
			t.Errorf("levels %v, expected %v: %v", levels, o.Expected(custody.Alg()), err)
		}
		return checkSignature(o)
	})
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func checkSignature(o *hsm.Officer) error {
	auditor, err := o.Auditor(0)
	if err != nil {
		return err
	}
	block, _ := pem.Decode([]byte(auditor.Key))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return err
	}
	digest := sha256.Sum256([]byte("a report"))
	signature, err := auditor.Sign(digest[:])
	if err != nil {
		return err
	}
	if public, ok := key.(*ecdsa.PublicKey); !ok || !ecdsa.VerifyASN1(public, digest[:], signature) {
		return errors.New("the signature does not fit")
	}
	return nil
}

// A ceremony makes the same keys in two kinds of token, finds them again, and says
// of each whether its unwrap templates hold.
func TestOfficer(t *testing.T) {
	softokn := hsmtest.Softokn(t)
	for name, token := range map[string]struct {
		opt      hsm.Options
		alg      string
		template string
	}{
		"SoftHSM": {hsmtest.SoftHSM(t), seal.AlgRSAOAEP, "enforced"},
		"softokn": {softokn[0], seal.AlgRSAOAEP256, "does not enforce it"},
	} {
		t.Run(name, func(t *testing.T) {
			_, custody := hsmtest.CustodyKey(t, token.alg)
			ensureAll(t, token.opt, custody, ceremony.WasMade)
			for _, o := range ensureAll(t, token.opt, custody, ceremony.WasThere) {
				if o.Label == hsm.LabelJoinKEK && !strings.HasSuffix(o.UnwrapTemplate, token.template) {
					t.Errorf("%s: template %q", o.Label, o.UnwrapTemplate)
				}
			}
		})
	}
}

// A key that is there and not as it must be is no key of a ceremony's.
func TestOfficerRefuses(t *testing.T) {
	opt := hsmtest.SoftHSM(t)
	raw(t, opt, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) {
		if _, err := p.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, hsm.UntemplatedKEK()); err != nil {
			t.Fatal(err)
		}
	})
	err := hsm.Conduct(opt, func(o *hsm.Officer) error {
		if _, err := o.Ensure(hsm.LabelJoinKEK, true); !errors.Is(err, hsm.ErrTemplate) {
			t.Errorf("a join KEK without template: %v", err)
		}
		if _, err := o.Ensure("joinery.other", true); !errors.Is(err, hsm.ErrObject) {
			t.Errorf("another key: %v", err)
		}
		if _, err := o.NewMaster("not good"); !errors.Is(err, hsm.ErrObject) {
			t.Errorf("a bad name: %v", err)
		}
		if public, outcome, err := o.EnsureCustodyPair(false); err != nil || outcome != ceremony.Planned || !public.Public.IsZero() {
			t.Errorf("a custody key, dry: %v %v", outcome, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
