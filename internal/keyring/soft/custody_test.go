package soft_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"joinery"
	"joinery/internal/exportfile"
	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/keyring/soft"
	"joinery/lorawan"
)

// The software custodian passes the contract of every custodian.
func TestCustodian(t *testing.T) {
	dir := t.TempDir()
	master, err := keyringtest.NewSoftFile(dir, "maker-1")
	if err != nil {
		t.Fatal(err)
	}
	keys, unlock := filepath.Join(dir, "keys"), soft.Unlock{IdentityFile: filepath.Join(dir, "identity")}
	token, err := soft.Open(context.Background(), soft.Options{KeyFile: keys, Unlock: unlock})
	if err != nil {
		t.Fatal(err)
	}
	k := keyring.New(token)
	defer func() { _ = k.Close() }()
	c, err := soft.OpenCustodian(context.Background(), soft.CustodianOptions{
		KeyFile: keys, Unlock: unlock,
		CustodyFile: filepath.Join(dir, "custody"), CustodyUnlock: soft.Unlock{IdentityFile: filepath.Join(dir, "custody-identity")},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if c.Signer().IsZero() || !slices.Equal(k.Generations().Exports, []exportfile.Signer{c.Signer()}) {
		t.Error("the server tells another signer of exports")
	}
	f := keyringtest.Fixture{Keyring: k, Master: "maker-1", MasterKey: master}
	keyringtest.RunCustodian(t, f, c, true)

	// Without the custody key derived key sets leave, and no others.
	derivedOnly, err := soft.OpenCustodian(context.Background(), soft.CustodianOptions{KeyFile: keys, Unlock: unlock})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = derivedOnly.Close() }()
	if derivedOnly.Generation() != 0 {
		t.Error("a custody key is there")
	}
	keyringtest.RunCustodian(t, f, derivedOnly, false)
	keyringtest.RefusesSealed(t, f, derivedOnly)
	if _, err := os.Stat(filepath.Join(dir, "custody")); err != nil {
		t.Error(err)
	}
}

// The key that signs exports has generations: the newest signs, an older one ends what
// it began until it is retired, and the public halves of all stay. A file of a version
// without exports gets its first one by the same step, and by no other.
func TestExportKeyGenerations(t *testing.T) {
	dir := t.TempDir()
	if _, err := keyringtest.NewSoftFile(dir, "maker-1"); err != nil {
		t.Fatal(err)
	}
	keys, unlock := filepath.Join(dir, "keys"), soft.Unlock{IdentityFile: filepath.Join(dir, "identity")}
	open := func() (keyring.Custodian, error) {
		return soft.OpenCustodian(context.Background(), soft.CustodianOptions{KeyFile: keys, Unlock: unlock})
	}
	if _, err := soft.RetireExportKeys(keys, unlock); !errors.Is(err, soft.ErrInUse) {
		t.Errorf("the only one: %v", err)
	}
	before, err := open()
	if err != nil {
		t.Fatal(err)
	}
	old := before.Signer()
	if err := before.Close(); err != nil {
		t.Error(err)
	}
	g, err := soft.NewExportKey(keys, unlock)
	if err != nil || len(g.Exports) != 2 || g.Exports[0] != old {
		t.Fatalf("%v, %v", g.Exports, err)
	}
	to := keyringtest.Recipient(t).Recipient()
	signs := func(by exportfile.Signer, want error) {
		t.Helper()
		c, err := open()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if c.Signer() != g.Exports[1] {
			t.Errorf("%s signs", c.Signer().Thumbprint())
		}
		h := keyringtest.ExportHeader(c, to, exportfile.RawOAEP256, 1)
		h.Signer = by
		about := exportfile.Metadata{DevEUI: [8]byte{1}, MACVersion: lorawan.MAC1_0_3, Root10: exportfile.NwkKey}
		out, err := c.Export(t.Context(), h, to, []keyring.ExportIn{{
			KeySet: joinery.KeySet{DevEUI: about.DevEUI, Origin: joinery.OriginDerived, Master: "maker-1", Root10: joinery.NwkKey}, About: about,
		}})
		if !errors.Is(err, want) {
			t.Fatalf("%v, want %v", err, want)
		}
		if want != nil {
			return
		}
		v, err := exportfile.NewVerifier(h, by.Thumbprint())
		if err != nil || out[0].Err != nil || v.Verify(out[0].Device) != nil {
			t.Errorf("%v, %v", err, out[0].Err)
		}
	}
	signs(old, nil)
	signs(g.Exports[1], nil)
	if g, err = soft.RetireExportKeys(keys, unlock); err != nil || len(g.Exports) != 2 {
		t.Fatalf("%v, %v", g.Exports, err)
	}
	signs(old, exportfile.ErrFormat)
	signs(g.Exports[1], nil)
	if _, err := soft.RetireExportKeys(keys, unlock); !errors.Is(err, soft.ErrInUse) {
		t.Errorf("once more: %v", err)
	}

	soft.ForgetExportKeys(t, keys, unlock)
	if _, err := open(); !errors.Is(err, soft.ErrNoExportKey) {
		t.Errorf("a file of an old version: %v", err)
	}
	if g, err = soft.NewExportKey(keys, unlock); err != nil || len(g.Exports) != 1 {
		t.Fatalf("%v, %v", g.Exports, err)
	}
	c, err := open()
	if err != nil || c.Signer() != g.Exports[0] {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
