package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/custody"
	"joinery/internal/keyring/hsm"
	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/keyring/worker"
	"joinery/internal/seal"
)

// asProgram, in the environment, makes this program joinery-hsm itself.
const asProgram = "JOINERY_TEST_HSM"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == custody.Argument {
		os.Exit(run(os.Args[1:], os.Stderr))
	}
	if os.Getenv(asProgram) != "" {
		os.Exit(run(nil, os.Stderr))
	}
	os.Exit(hsmtest.Main(m))
}

// token makes a token with a Join Server's keys, and gives how a server has its
// worker open it.
func token(tb testing.TB, minimum string) (o worker.Options, pinFile string, masterKey [32]byte) {
	tb.Helper()
	return provisioned(tb, hsmtest.SoftHSM(tb), minimum)
}

// provisioned is token on an empty token.
func provisioned(tb testing.TB, opt hsm.Options, minimum string) (o worker.Options, pinFile string, masterKey [32]byte) {
	tb.Helper()
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
			serves := c.Origin != joinery.OriginRekeyed || c.Profile != "M" // no token derives as that chip does
			if c.Served != serves || serves && c.Level != keyring.LevelInToken {
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
	if err := keys.Reopen(t.Context()); err != nil {
		t.Errorf("with the right PIN: %v", err)
	}
	if err := keys.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if err := keys.Replace(t.Context()); err != nil {
		t.Errorf("two processes have the token for a moment: %v", err)
	}
}

// P7: however many joins there are, the process that has the token stays small, and
// none fails.
func TestMemoryStaysSmall(t *testing.T) {
	joins := 2000
	if os.Getenv("JOINERY_LONG") != "" {
		joins = 100_000
	}
	const most = 256 << 20
	o, _, masterKey := token(t, "in-token")
	o.MaxResident = 192 << 20 // what is configured by default
	keys := start(t, o)
	f := keyringtest.Fixture{Keyring: keys, Master: hsmtest.Master, MasterKey: masterKey}
	kek := make([]byte, 16)
	d := keyringtest.NewDevice(false)
	ks := f.SealedKeySet(t, d)
	r := keyring.AcceptRequest{
		KeySet: ks, Frame: d.JoinRequest(1), NSKEK: f.KEK(t, kek, joinery.KEKForNS, "ns"), ASKEK: f.KEK(t, kek, joinery.KEKForAS, "as"),
		Activation: joinery.Activation{
			KeySet: ks.ID, Type: joinery.JoinTypeJoin, JoinEUI: d.JoinEUI, DevEUI: d.DevEUI,
			Root: ks.Root10, Count: 1, JoinNonce: 1, Policy: joinery.AppSKeyWrapped,
		},
	}
	var left, highest atomic.Int64
	left.Store(int64(joins))
	var busy sync.WaitGroup
	for range 4 {
		busy.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := keys.Accept(t.Context(), r); err != nil {
					t.Errorf("a join failed: %v", err)
					return
				}
				if now := keys.Stats().Resident; now > highest.Load() {
					highest.Store(now)
				}
			}
		})
	}
	busy.Wait()
	time.Sleep(5 * time.Second) // for a last look at it
	s := keys.Stats()
	highest.Store(max(highest.Load(), s.Resident))
	t.Logf("%d joins, at most %d MiB, replaced %d times for its memory", joins, highest.Load()>>20, s.Replaced["memory"])
	if highest.Load() == 0 || highest.Load() > most || s.Restarts > 0 {
		t.Errorf("at most %d bytes, %d restarts", highest.Load(), s.Restarts)
	}
}

// The process with the token counts and records by itself what it gives out.
func TestLimitAndRecord(t *testing.T) {
	o, _, masterKey := token(t, "in-token")
	var c worker.TokenConfig
	err := json.Unmarshal(o.Config, &c)
	c.PerMinute, c.AuditFile = 3, filepath.Join(t.TempDir(), "audit")
	if err == nil {
		o.Config, err = json.Marshal(c)
	}
	if err != nil {
		t.Fatal(err)
	}
	keys := start(t, o)
	f := keyringtest.Fixture{Keyring: keys, Master: hsmtest.Master, MasterKey: masterKey}
	ks, _, _ := f.DerivedKeySet(t, keyringtest.NewDevice(true).DevEUI, 1)
	as := f.KEK(t, make([]byte, 16), joinery.KEKForAS, "as")
	a := joinery.Activation{KeySet: ks.ID, DevEUI: ks.DevEUI, Root: joinery.NwkKey, OptNeg: true, Count: 1, JoinNonce: 1}
	ask := func() error {
		_, err := keys.AppSKey(t.Context(), ks, a, as)
		return err
	}
	for range c.PerMinute {
		if err := ask(); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask(); !errors.Is(err, keyring.ErrLimit) {
		t.Errorf("one more: %v", err)
	}
	if n := keys.Stats().Verbs["appskey"].Limited; n != 1 {
		t.Errorf("%d were counted", n)
	}
	text, err := os.ReadFile(c.AuditFile)
	if err != nil || strings.Count(string(text), ks.DevEUI.String()) != c.PerMinute {
		t.Errorf("recorded: %s, %v", text, err)
	}
}
