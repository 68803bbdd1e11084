package daemon

import (
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"joinery"
	"joinery/client"
	"joinery/internal/keyring/soft"
)

// TestSealedStart: a server whose keys are opened by hand serves everything that
// needs none, says in /readyz and status what to do, stays sealed for what does not
// open its file, and is ready once it is unsealed. Nothing of that is in its log.
func TestSealedStart(t *testing.T) {
	c := installation(t)
	identity, err := os.ReadFile(c.Keys.IdentityFile)
	must(t, err)
	must(t, os.Remove(c.Keys.IdentityFile))
	c.Keys.IdentityFile, c.Keys.Manual = "", true
	must(t, c.Check())
	var log syncBuffer
	p := start(t, c, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	operator, err := client.New(client.Options{Socket: c.API.Socket})
	must(t, err)
	defer operator.Close()

	readyz := "http://" + p.OpsAddr().String() + "/readyz"
	if status, text := get(t, readyz); status != http.StatusServiceUnavailable || !strings.Contains(text, "joinctl unseal") {
		t.Errorf("%d %s", status, text)
	}
	if s, err := operator.Status(t.Context()); err != nil || s.Ready || !strings.Contains(s.Reason, "joinctl unseal") {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := operator.AddOrganisation(t.Context(), client.NewOrganisation{Name: "needs no key"}); err != nil {
		t.Error(err)
	}
	if !p.works(t.Context()) {
		t.Error("the watchdog would restart a server that waits for its operator")
	}
	if _, err := Open(t.Context(), c, Options{Successor: true}); err == nil || !strings.Contains(err.Error(), "keys.manual") {
		t.Errorf("a successor: %v", err)
	}

	const wrong = "correct horse battery staple"
	code := func(err error) joinery.Code {
		if p, ok := errors.AsType[*client.Problem](err); ok {
			return p.Code
		}
		return ""
	}
	if err := operator.Unseal(t.Context(), []byte(wrong)); code(err) != joinery.CodeInvalid {
		t.Errorf("a wrong passphrase: %v", err)
	}
	if err := operator.Unseal(t.Context(), nil); code(err) != joinery.CodeInvalid {
		t.Errorf("nothing: %v", err)
	}
	if err := operator.Unseal(t.Context(), make([]byte, client.MaxUnseal+1)); code(err) != joinery.CodeTooLarge {
		t.Errorf("too much: %v", err)
	}
	elsewhere, err := client.New(client.Options{Server: "http://" + p.APIAddr().String(), APIKey: "any"})
	must(t, err)
	defer elsewhere.Close()
	if err := elsewhere.Unseal(t.Context(), identity); code(err) != joinery.CodeForbidden {
		t.Errorf("not by the socket: %v", err)
	}
	must(t, operator.Unseal(t.Context(), identity))
	if status, text := get(t, readyz); status != http.StatusOK {
		t.Errorf("%d %s", status, text)
	}
	if _, err := operator.TransportKey(t.Context()); err != nil {
		t.Error(err)
	}
	// Once more, it reads its key file anew.
	identityFile := filepath.Join(t.TempDir(), "identity")
	must(t, os.WriteFile(identityFile, identity, 0o600))
	_, err = soft.NewJoinKEK(c.Keys.File, soft.Unlock{IdentityFile: identityFile})
	must(t, err)
	must(t, operator.Unseal(t.Context(), identity))
	if s, err := operator.Rotation(t.Context()); err != nil || len(s.JoinKEKs) != 2 {
		t.Errorf("unsealed again: %+v, %v", s.JoinKEKs, err)
	}
	if err := operator.Unseal(t.Context(), []byte(wrong)); code(err) != joinery.CodeInvalid {
		t.Errorf("unsealed again, wrongly: %v", err)
	}
	if status, text := get(t, readyz); status != http.StatusOK {
		t.Errorf("%d %s", status, text)
	}
	must(t, p.stop())
	for _, secret := range []string{wrong, "AGE-SECRET-KEY-1"} {
		if strings.Contains(log.String(), secret) {
			t.Error("the log has what opens the keys")
		}
	}
}
