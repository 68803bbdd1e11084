package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"joinery/internal/config"
	"joinery/internal/keyring"
	"joinery/internal/keyring/soft"
	"joinery/internal/keyring/worker"
)

// asWorker, in the environment, makes this program a worker over a key file.
const asWorker = "JOINERY_TEST_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(asWorker) != "" {
		if err := worker.Serve(slog.New(slog.NewTextHandler(os.Stderr, nil)), openSoftly); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// openSoftly takes a key file for a token, and its identity for a PIN: none is
// the wrong one.
func openSoftly(ctx context.Context, told []byte) (worker.Opened, error) {
	var c worker.TokenConfig
	if err := json.Unmarshal(told, &c); err != nil {
		return worker.Opened{}, err
	}
	token, err := soft.Open(ctx, soft.Options{KeyFile: c.Module, Unlock: soft.Unlock{IdentityFile: c.PINFile}})
	if errors.Is(err, soft.ErrUnlock) {
		err = fmt.Errorf("%w: %w", keyring.ErrPIN, err)
	}
	if err != nil {
		return worker.Opened{}, err
	}
	return worker.Opened{Keys: keyring.New(token), Backend: "pkcs11", Token: c.Token}, nil
}

// inToken is an installation whose keys are in a worker.
func inToken(t *testing.T) config.Config {
	t.Helper()
	t.Setenv(asWorker, "1")
	c := installation(t)
	p := &c.Keys.PKCS11
	p.Module, p.Token, p.PINFile, p.Worker = c.Keys.File, "test", c.Keys.IdentityFile, os.Args[0]
	c.Keys.Backend, c.Keys.IdentityFile = config.BackendPKCS11, ""
	must(t, c.Check())
	return c
}

// A server has its keys in a worker, tells how that does, and replaces it when it
// is asked to.
func TestKeysInWorker(t *testing.T) {
	c := inToken(t)
	var log syncBuffer
	p := start(t, c, slog.New(slog.NewTextHandler(&log, nil)))
	ops := "http://" + p.OpsAddr().String()
	if status, body := get(t, ops+"/readyz"); status != http.StatusOK {
		t.Errorf("/readyz: %d %s", status, body)
	}
	_, metrics := get(t, ops+"/metrics")
	for _, want := range []string{
		`joinery_custody_level{origin="derived",profile="ecb-v1"} 1`, "joinery_hsm_up 1", "joinery_hsm_pin_refused 0",
		`joinery_hsm_limited_total{verb="ready"} 0`, "joinery_hsm_restarts_total 0", `joinery_hsm_replaced_total{why="memory"} 0`,
		`joinery_hsm_duration_seconds_count{verb="ready"}`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
	waitFor(t, func() bool { return strings.Contains(log.String(), "msg=serving") })
	must(t, syscall.Kill(os.Getpid(), syscall.SIGUSR1))
	waitFor(t, func() bool { return inWorker(p.keys).Stats().Replaced["ordered"] == 1 })
	// SIGHUP has the token opened anew: what came into it is there.
	hangUp(t)
	waitFor(t, func() bool { return strings.Contains(log.String(), "token opened anew") })
	if n := inWorker(p.keys).Stats().Replaced["ordered"]; n != 2 {
		t.Errorf("replaced %d times", n)
	}
	must(t, p.stop())
	if err := p.keys.Ready(t.Context()); !errors.Is(err, keyring.ErrClosed) {
		t.Errorf("the keys of a server that stopped: %v", err)
	}
}

// A server whose token refuses the PIN is up, says why it is not ready, and is not
// restarted by its watchdog, which would try the PIN again.
func TestRefusedPIN(t *testing.T) {
	c := inToken(t)
	identity, err := os.ReadFile(c.Keys.PKCS11.PINFile)
	must(t, err)
	must(t, os.WriteFile(c.Keys.PKCS11.PINFile, []byte("not it"), 0o600))
	if _, err := OpenKeyring(t.Context(), c, slog.New(slog.DiscardHandler)); !errors.Is(err, keyring.ErrPIN) {
		t.Errorf("a command that needs the keys: %v", err)
	}
	p := start(t, c, nil)
	ops := "http://" + p.OpsAddr().String()
	waitFor(t, func() bool { return p.health.Load() != nil })
	if status, body := get(t, ops+"/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "refused the PIN") {
		t.Errorf("/readyz: %d %s", status, body)
	}
	if !p.works(t.Context()) {
		t.Error("the watchdog would end the server")
	}
	if _, metrics := get(t, ops+"/metrics"); !strings.Contains(metrics, "joinery_hsm_pin_refused 1") {
		t.Error("the metrics do not tell")
	}
	must(t, os.WriteFile(c.Keys.PKCS11.PINFile, identity, 0o600))
	hangUp(t)
	waitFor(t, func() bool {
		status, _ := get(t, ops+"/readyz")
		return status == http.StatusOK
	})
	must(t, p.stop())
}

func TestWorkerIsFound(t *testing.T) {
	c := installation(t)
	c.Keys.Backend = config.BackendPKCS11
	c.Keys.PKCS11.Module = "/lib/p11.so"
	if _, err := workerOptions(c, nil); err == nil || !strings.Contains(err.Error(), "keys.pkcs11.worker") {
		t.Errorf("no joinery-hsm beside the tests: %v", err)
	}
	c.Keys.PKCS11.Worker = filepath.Join("/", "bin", "true")
	o, err := workerOptions(c, nil)
	must(t, err)
	if o.Program != "/bin/true" || o.MaxResident != 192<<20 || !bytes.Contains(o.Config, []byte(`"module":"/lib/p11.so"`)) {
		t.Errorf("%+v %s", o, o.Config)
	}
}
