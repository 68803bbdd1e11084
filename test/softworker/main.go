// Command softworker stands in for joinery-hsm in tests of how a server keeps its
// worker: a process like that one, over a key file in place of a token. It is
// never installed.
//
// Its module is a key file, and what the library wants to be told is the file of
// its age identity. The PIN is right when it is "1234"; each try is a line in a
// file beside the PIN's.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"joinery/internal/harden"
	"joinery/internal/keyring"
	"joinery/internal/keyring/soft"
	"joinery/internal/keyring/worker"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	err := harden.Process()
	if err == nil {
		err = worker.Serve(log, open)
	}
	if err != nil {
		log.Error("softworker", "error", err)
		os.Exit(1)
	}
}

func open(ctx context.Context, config []byte) (worker.Opened, error) {
	var c worker.TokenConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return worker.Opened{}, err
	}
	if err := login(c); err != nil {
		return worker.Opened{}, err
	}
	token, err := soft.Open(ctx, soft.Options{KeyFile: c.Module, Unlock: soft.Unlock{IdentityFile: c.InitArgs}})
	if err != nil {
		return worker.Opened{}, err
	}
	return worker.Opened{Keys: keyring.New(token), Backend: "pkcs11", Token: c.Token}, nil
}

func login(c worker.TokenConfig) error {
	tries, err := os.OpenFile(c.PINFile+".tries", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = tries.Close() }()
	if _, err := tries.WriteString("try\n"); err != nil {
		return err
	}
	pin, err := os.ReadFile(c.PINFile)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(pin)) != "1234" {
		return fmt.Errorf("%w: user PIN of token %q", keyring.ErrPIN, c.Token)
	}
	return nil
}
