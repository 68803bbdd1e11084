package soft_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/keyring/soft"
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
	if c.Signer().IsZero() || k.Generations().Export != c.Signer() {
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
