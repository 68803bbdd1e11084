package hsm_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/pkcs11"

	"joinery"
	"joinery/internal/exportfile"
	"joinery/internal/keyring"
	"joinery/internal/keyring/hsm"
	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/seal"
)

func TestMain(m *testing.M) { os.Exit(hsmtest.Main(m)) }

// The backend passes the contract of every backend on SoftHSM2, that of generations
// as well.
func TestContractOnSoftHSM(t *testing.T) {
	var first keyringtest.Rotating
	var opt hsm.Options
	keyringtest.Run(t, func(tb testing.TB) keyringtest.Fixture {
		f, of := hsmtest.Fixture(tb)
		expectLevels(tb, f.Keyring, "derived ecb-v1: in-token", "sealed: in-token")
		if first.Next == nil {
			first, opt = hsmtest.Rotating(f, of, seal.AlgRSAOAEP), of
		}
		return f
	})
	t.Run("Generations", func(t *testing.T) { keyringtest.RunGenerations(t, first) })
	t.Run("GenerationsRefused", func(t *testing.T) { refusesGenerations(t, opt) })
	t.Run("OpenedAgain", func(t *testing.T) { opensTheSameAgain(t, opt, first.MasterKey) })
}

// levels gives the table of a token as lines.
func levels(k keyring.Verbs) (lines []string) {
	for _, c := range k.Custody() {
		lines = append(lines, c.String())
	}
	return lines
}

// Rekeying by profile S is as good as derivation is; profile M is never served.
func expectLevels(tb testing.TB, k keyring.Verbs, want ...string) {
	tb.Helper()
	want = append(slices.Clone(want), strings.Replace(want[0], "derived ecb-v1", "rekeyed S", 1),
		"rekeyed M: in-memory, not served (SHA-256 over a slot key is nothing that a token derives)")
	if diff := cmp.Diff(want, levels(k)); diff != "" {
		tb.Errorf("levels of custody (-want +got):\n%s", diff)
	}
}

// NSS's token passes the whole contract as well, with its one known gap set aside:
// it stores unwrap templates and does not enforce them.
func TestContractOnSoftokn(t *testing.T) {
	if testing.Short() {
		t.Skip("long under the race detector; it runs without, too")
	}
	tokens := hsmtest.Softokn(t)
	next := 0
	var first keyringtest.Rotating
	keyringtest.Run(t, func(tb testing.TB) keyringtest.Fixture {
		opt := hsm.TrustingStorage(tokens[next])
		_, key := hsmtest.Provision(tb, opt, seal.AlgRSAOAEP256)
		f := hsmtest.Open(tb, opt, key)
		expectLevels(tb, f.Keyring, "derived ecb-v1: in-token", "sealed: in-token")
		if next == 0 {
			first = hsmtest.Rotating(f, opt, seal.AlgRSAOAEP256)
		}
		next++
		return f
	})
	t.Run("Generations", func(t *testing.T) { keyringtest.RunGenerations(t, first) })
}

// As it is served, NSS's token refuses imported key sets and says so; derived ones
// join.
func TestSoftoknRefusesImportedKeySets(t *testing.T) {
	if testing.Short() {
		t.Skip("long under the race detector; it runs without, too")
	}
	opt := hsmtest.Softokn(t)[0]
	_, key := hsmtest.Provision(t, opt, seal.AlgRSAOAEP256)
	f := hsmtest.Open(t, opt, key)
	expectLevels(t, f.Keyring, "derived ecb-v1: in-token",
		"sealed: in-memory, not served (the token lacks enforcement of unwrap templates)")
	if err := keyring.CheckCustody(f.Keyring.Custody(), keyring.LevelInToken); err != nil {
		t.Errorf("what is not served is below the minimum: %v", err)
	}
	join(t, f)
	d := keyringtest.NewDevice(true)
	h, rows := f.Rows(t, d, 1)
	if _, err := f.Keyring.SealRoots(context.Background(), h, rows); !errors.Is(err, keyring.ErrNotServed) {
		t.Errorf("an import: %v", err)
	}
	ks := joinery.KeySet{Origin: joinery.OriginSealed, DevEUI: d.DevEUI, Root10: joinery.AppKey}
	// What is derived leaves for its owner, by OAEP with SHA-256.
	c := openCustodian(t, hsm.CustodianOptions{Server: opt})
	if !slices.Contains(c.Wrappings(), exportfile.RawOAEP256) {
		t.Errorf("it wraps by %v", c.Wrappings())
	}
	keyringtest.RunCustodian(t, f, c, false)
	ks.App.Use = make([]byte, 57)
	if err := f.Keyring.CheckKeySet(context.Background(), ks); err == nil {
		t.Error("a sealed key set is served")
	}
}

// join lets a device of the fixture's master key join by 1.0.x and 1.1 networks.
func join(tb testing.TB, f keyringtest.Fixture) {
	tb.Helper()
	for _, optNeg := range []bool{false, true} {
		d := keyringtest.NewDevice(true)
		ks, nwk, app := f.DerivedKeySet(tb, d.DevEUI, 1)
		d.Root10, d.Nwk, d.App = nwk, nwk, app
		r := request(tb, f, ks, d, optNeg)
		answer, err := f.Keyring.Accept(context.Background(), r)
		if err != nil {
			tb.Fatal(err)
		}
		if _, _, err := d.Open(0xFF, 1, answer.PHYPayload); err != nil {
			tb.Error(err)
		}
	}
}

// request asks for an answer to a join of d.
func request(tb testing.TB, f keyringtest.Fixture, ks joinery.KeySet, d keyringtest.Device, optNeg bool) keyring.AcceptRequest {
	tb.Helper()
	key := make([]byte, 16)
	a := joinery.Activation{
		ID: 1, KeySet: ks.ID, Type: joinery.JoinTypeJoin, JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, OptNeg: optNeg,
		Root: ks.Root10, Count: 1, JoinNonce: 1, Policy: joinery.AppSKeyWrapped,
	}
	if optNeg {
		a.DLSettings = 0x80
	}
	return keyring.AcceptRequest{
		KeySet: ks, Frame: d.JoinRequest(1), Activation: a,
		NSKEK: f.KEK(tb, key, joinery.KEKForNS, "ns"), ASKEK: f.KEK(tb, key, joinery.KEKForAS, "as"),
	}
}

var shared struct {
	once sync.Once
	opt  hsm.Options
	key  [32]byte
}

// another opens a token that several tests share, since making its RSA keys takes
// seconds.
func another(tb testing.TB) keyringtest.Fixture {
	tb.Helper()
	shared.once.Do(func() {
		shared.opt = hsmtest.SoftHSM(tb)
		_, shared.key = hsmtest.Provision(tb, shared.opt, seal.AlgRSAOAEP)
	})
	return hsmtest.Open(tb, shared.opt, shared.key)
}

// sharedOptions says how to open it.
func sharedOptions(tb testing.TB) hsm.Options {
	tb.Helper()
	another(tb)
	return shared.opt
}

// What a token lacks costs it levels, and the table says what it is; the whole
// contract passes at each of them, where the pair is served at all.
func TestLevels(t *testing.T) {
	const derive, mac, ecb = pkcs11.CKM_AES_ECB_ENCRYPT_DATA, pkcs11.CKM_AES_CMAC, pkcs11.CKM_AES_ECB
	for _, c := range []struct {
		name    string
		without []uint
		served  bool
		want    []string
	}{
		{"no CMAC", []uint{mac}, true, []string{
			"derived ecb-v1: in-token", "sealed: in-token",
		}},
		{"no derivation", []uint{derive}, true, []string{
			"derived ecb-v1: in-memory (the token lacks derivation by AES-ECB)",
			"sealed: ecb-oracle (the token lacks derivation by AES-ECB)",
		}},
		{"only AES-ECB and key wrap", []uint{derive, mac}, true, []string{
			"derived ecb-v1: in-memory (the token lacks derivation by AES-ECB)",
			"sealed: ecb-oracle (the token lacks derivation by AES-ECB, AES-CMAC)",
		}},
		{"no AES-ECB", []uint{derive, ecb}, false, []string{
			"derived ecb-v1: in-memory, not served (the token lacks derivation by AES-ECB, AES-ECB)",
			"sealed: in-memory, not served (the token lacks AES-ECB and CMAC, derivation by AES-ECB, and creation of session keys)",
		}},
		{"no OAEP", []uint{pkcs11.CKM_RSA_PKCS_OAEP}, false, []string{
			"derived ecb-v1: in-token",
			"sealed: in-memory, not served (the token lacks RSA-OAEP)",
		}},
		{"no key wrap", []uint{pkcs11.CKM_AES_KEY_WRAP}, false, []string{
			"derived ecb-v1: in-memory, not served (the token lacks AES key wrap)",
			"sealed: in-memory, not served (the token lacks enforcement of unwrap templates, AES key wrap, RSA-OAEP)",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() && c.served && len(c.without) == 1 {
				t.Skip("the lowest level that is served runs in every case")
			}
			var opt hsm.Options
			provision := func(tb testing.TB) keyringtest.Fixture {
				if !c.served {
					// Its keys come from a better day.
					opt := sharedOptions(tb)
					return hsmtest.Open(tb, hsm.Without(opt, c.without...), shared.key)
				}
				opt = hsm.Without(hsmtest.SoftHSM(tb), c.without...)
				_, key := hsmtest.Provision(tb, opt, seal.AlgRSAOAEP)
				return hsmtest.Open(tb, opt, key)
			}
			if !c.served {
				expectLevels(t, provision(t).Keyring, c.want...)
				return
			}
			first := true
			var whole keyringtest.Fixture
			keyringtest.Run(t, func(tb testing.TB) keyringtest.Fixture {
				if !first {
					return another(tb)
				}
				first = false
				f := provision(tb)
				expectLevels(tb, f.Keyring, c.want...)
				whole = f
				return f
			})
			t.Run("Custodian", func(t *testing.T) {
				keyringtest.RunCustodian(t, whole, openCustodian(t, hsm.CustodianOptions{Server: opt}), false)
			})
		})
	}
}

// A configured minimum refuses what is served below it.
func TestMinimum(t *testing.T) {
	opt := hsm.Without(hsmtest.SoftHSM(t), pkcs11.CKM_AES_ECB_ENCRYPT_DATA)
	_, key := hsmtest.Provision(t, opt, seal.AlgRSAOAEP)
	list := hsmtest.Open(t, opt, key).Keyring.Custody()
	if err := keyring.CheckCustody(list, keyring.LevelInMemory); err != nil {
		t.Error(err)
	}
	err := keyring.CheckCustody(list, keyring.LevelECBOracle)
	if !errors.Is(err, keyring.ErrLevel) || !strings.Contains(err.Error(), "ecb-oracle: derived ecb-v1: in-memory") {
		t.Error(err)
	}
	for _, l := range []keyring.Level{keyring.LevelInMemory, keyring.LevelECBOracle, keyring.LevelInToken} {
		if parsed, err := keyring.ParseLevel(l.String()); err != nil || parsed != l {
			t.Errorf("%s: %v", l, err)
		}
	}
	if _, err := keyring.ParseLevel("best"); err == nil {
		t.Error("a level that is none")
	}
}
