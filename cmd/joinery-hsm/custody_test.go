package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"joinery"
	"joinery/internal/exportfile"
	"joinery/internal/keyring"
	"joinery/internal/keyring/custody"
	"joinery/internal/keyring/hsm"
	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/internal/keyring/keyringtest"
	"joinery/lorawan"
	"joinery/test/leak"
)

// A custodian in a process of its own, with a server's token and one of the custody
// role, passes the contract of every custodian; a wrong PIN is said and not tried
// again; and of what it took out of custody nothing is in memory of ours.
func TestCustodyProcess(t *testing.T) {
	server, vault := hsmtest.SoftHSM(t), hsmtest.SoftHSM(t)
	public, err := hsm.NewCustodyKey(vault)
	if err != nil {
		t.Fatal(err)
	}
	made, err := hsm.Provision(t.Context(), server, hsm.Plan{Custody: public})
	if err != nil {
		t.Fatal(err)
	}
	var master [32]byte
	rand.Read(master[:])
	share, err := keyringtest.ShareOf(master, hsmtest.Master, made.Transport)
	if err == nil {
		_, err = hsm.AcceptMaster(server, bytes.NewReader(share))
	}
	if err != nil {
		t.Fatal(err)
	}
	f := hsmtest.Open(t, server, master)
	config := custody.Config{Server: tokenFor(t, server, hsmtest.PIN), Custody: tokenFor(t, vault, hsmtest.PIN)}
	c, err := custody.Start(t.Context(), os.Args[0], config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	if c.Generation() != 1 || !slices.Equal(f.Keyring.Generations().Exports, []exportfile.Signer{c.Signer()}) {
		t.Errorf("generation %d, signer %v", c.Generation(), c.Signer())
	}
	keyringtest.RunCustodian(t, f, c, true)
	t.Run("Memory", func(t *testing.T) { testCustodyMemory(t, f, c) })

	config.Custody = tokenFor(t, vault, "0000-0000")
	if _, err := custody.Start(t.Context(), os.Args[0], config); !errors.Is(err, keyring.ErrPIN) || strings.Contains(err.Error(), "0000") {
		t.Errorf("a wrong PIN: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := custody.Start(ended, os.Args[0], config); !errors.Is(err, context.Canceled) {
		t.Errorf("told to stop: %v", err)
	}
}

// tokenFor gives a token with a file that holds a PIN.
func tokenFor(t *testing.T, opt hsm.Options, pin string) *custody.Token {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(path, []byte(pin+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &custody.Token{Module: opt.Module, Token: opt.Token, PINFile: path}
}

func testCustodyMemory(t *testing.T, f keyringtest.Fixture, c keyring.Custodian) {
	if os.Geteuid() != 0 {
		t.Skip("only root may read the memory of others")
	}
	var secrets leak.Secrets
	secrets.PlantKey("master key", f.MasterKey[:])
	secrets.PlantText("PIN", hsmtest.PIN)
	to := keyringtest.Recipient(t).Recipient().WithSHA1()
	var in []keyring.ExportIn
	for n := range 10 {
		d := keyringtest.NewDevice(true)
		ks, nwk, app := f.DerivedKeySet(t, d.DevEUI, 1)
		sealed := f.SealedKeySet(t, d)
		for name, key := range map[string][16]byte{"derived NwkKey": nwk, "derived AppKey": app, "sealed NwkKey": d.Nwk, "sealed AppKey": d.App} {
			secrets.PlantKey(fmt.Sprintf("%s %d", name, n), key[:])
		}
		rekeyed, roots := f.RekeyedKeySet(t, joinery.RekeyS)
		for name, key := range roots {
			secrets.PlantKey(fmt.Sprintf("rekeyed %s %d", name, n), key[:])
		}
		for i, key := range f.RekeyingKeys(t, rekeyed) {
			secrets.PlantKey(fmt.Sprintf("rekeying key %d of %d", i, n), key[:])
		}
		for _, one := range []joinery.KeySet{ks, sealed, rekeyed} {
			in = append(in, keyring.ExportIn{KeySet: one, About: keyring.ExportMetadata(one, lorawan.EUI64{9}, lorawan.MAC1_1)})
		}
	}
	for _, w := range c.Wrappings() {
		out, err := c.Export(t.Context(), keyringtest.ExportHeader(c, to, w, len(in)), to, in)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range out {
			if o.Err != nil {
				t.Fatal(o.Err)
			}
			if line, err := exportfile.MarshalDevice(o.Device); err != nil || len(line) == 0 {
				t.Fatal(err)
			}
		}
	}
	pid := custodyProcess(t)
	census, err := secrets.InProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("of the token's library, which is a token of software, and not judged: %v", census.In(leak.Libraries()...))
	if hits := census.In(leak.Ours()...); len(hits) > 0 {
		t.Errorf("keys are in memory of ours: %v", hits)
	}
	places, err := leak.WithCanary(pid, f.MasterKey[:], func() { census, err = secrets.InProcess(pid) })
	if err != nil || len(places) == 0 {
		t.Fatal(places, err)
	}
	for _, p := range places {
		if census.Hits[p]["master key, raw"] == 0 {
			t.Errorf("a master key in %s is not found", p)
		}
	}
}

// custodyProcess finds the one child that is a custodian.
func custodyProcess(t *testing.T) int {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, pid := range strings.Fields(string(text)) {
			line, err := os.ReadFile("/proc/" + pid + "/cmdline")
			if err == nil && strings.HasSuffix(string(line), "\x00"+custody.Argument+"\x00") {
				n, err := strconv.Atoi(pid)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
	}
	t.Fatal("there is no custodian")
	return 0
}
