package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"joinery/internal/keyring"
	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/keyring/worker"
	"joinery/internal/seal"
)

// asProgram, in the environment, makes this program joinery-hsm itself.
const asProgram = "JOINERY_TEST_HSM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run(nil, os.Stderr))
	}
	os.Exit(hsmtest.Main(m))
}

// token makes a token with a Join Server's keys, and gives how a server has its
// worker open it.
func token(tb testing.TB, minimum string) (o worker.Options, pinFile string, masterKey [32]byte) {
	tb.Helper()
	opt := hsmtest.SoftHSM(tb)
	_, masterKey = hsmtest.Provision(tb, opt, seal.AlgRSAOAEP)
	pinFile = filepath.Join(tb.TempDir(), "pin")
	if err := os.WriteFile(pinFile, append(opt.PIN, '\n'), 0o600); err != nil {
		tb.Fatal(err)
	}
	config, err := json.Marshal(worker.TokenConfig{Module: opt.Module, Token: opt.Token, PINFile: pinFile, MinimumLevel: minimum, LogLevel: "debug"})
	if err != nil {
		tb.Fatal(err)
	}
	return worker.Options{
		Program: os.Args[0], Args: []string{"-test.run=^$"}, Env: []string{asProgram + "=1"}, Config: config,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}, pinFile, masterKey
}

func start(tb testing.TB, o worker.Options) *worker.Keys {
	tb.Helper()
	keys, err := worker.Start(context.Background(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := keys.Close(); err != nil {
			tb.Error(err)
		}
	})
	return keys
}

// A hardware token in a process of its own passes the contract of every keyring.
func TestContract(t *testing.T) {
	keyringtest.Run(t, func(tb testing.TB) keyringtest.Fixture {
		o, _, masterKey := token(tb, "in-token")
		keys := start(tb, o)
		for _, c := range keys.Custody() {
			if !c.Served || c.Level != keyring.LevelInToken {
				tb.Errorf("%s", c)
			}
		}
		return keyringtest.Fixture{Keyring: keys, Master: hsmtest.Master, MasterKey: masterKey}
	})
}

// A PIN that the token refuses is told as that, and what it was is in no error.
func TestRefusedPIN(t *testing.T) {
	o, pinFile, _ := token(t, "in-token")
	right, err := os.ReadFile(pinFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pinFile, []byte("9999-9999"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Locked = true
	keys := start(t, o)
	err = keys.Ready(t.Context())
	if !errors.Is(err, keyring.ErrPIN) || strings.Contains(err.Error(), "9999") {
		t.Errorf("ready: %v", err)
	}
	time.Sleep(3 * time.Second) // it is not tried again: the token's count says so
	if err := os.WriteFile(pinFile, right, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := keys.Retry(t.Context()); err != nil {
		t.Errorf("with the right PIN: %v", err)
	}
	if err := keys.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if err := keys.Replace(t.Context()); err != nil {
		t.Errorf("two processes have the token for a moment: %v", err)
	}
}
