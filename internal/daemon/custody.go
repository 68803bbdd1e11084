package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"joinery/internal/config"
	"joinery/internal/keyring"
	"joinery/internal/keyring/custody"
	"joinery/internal/keyring/soft"
)

// CustodyUse is what a custodian is opened for.
type CustodyUse int

// Uses of custodians.
const (
	// ToReseal opens the custody key alone: the server checks what is handed in.
	ToReseal CustodyUse = iota + 1
	// ToExport opens the server's keys as well: the row MAC key, master keys, the key
	// that signs. Where no custody key is named it exports derived key sets only.
	ToExport
)

// OpenCustodian opens the custody key that is named, or else the configured one, in
// this process where keys are in files, and in a joinery-hsm of its own where they are
// in tokens. The caller is never the server itself, which opens no custody key.
func OpenCustodian(ctx context.Context, c config.Config, named config.Custody, use CustodyUse) (keyring.Custodian, error) {
	if named.IsZero() {
		named = c.Export.Custody
	}
	if named.IsZero() && use == ToReseal {
		return nil, errors.New("say where the custody key is: with --custody-file or --custody-token, or with export.custody in the configuration")
	}
	if err := named.Check(c.Keys.Backend); err != nil {
		return nil, err
	}
	if c.Keys.Backend == config.BackendPKCS11 {
		return custodianInToken(ctx, c, named, use)
	}
	o := soft.CustodianOptions{
		CustodyFile: named.File, CustodyUnlock: soft.Unlock{PassphraseFile: named.PassphraseFile, IdentityFile: named.IdentityFile},
	}
	if use == ToExport {
		if c.Keys.Manual {
			return nil, errors.New("the key file is opened by hand on the running server (keys.manual), and an export needs it: " +
				"name what opens it in a configuration for this program")
		}
		o.KeyFile, o.Unlock = c.Keys.File, Unlock(c.Keys)
	}
	return soft.OpenCustodian(ctx, o)
}

func custodianInToken(ctx context.Context, c config.Config, named config.Custody, use CustodyUse) (keyring.Custodian, error) {
	program, err := hsmProgram(c)
	if err != nil {
		return nil, err
	}
	p := c.Keys.PKCS11
	var told custody.Config
	if use == ToExport {
		told.Server = &custody.Token{Module: p.Module, InitArgs: p.InitArgs, Token: p.Token, PINFile: p.PINFile, PINCredential: p.PINCredential}
	}
	if !named.IsZero() {
		t := custody.Token{Module: named.Module, InitArgs: named.InitArgs, Token: named.Token, PINFile: named.PINFile}
		if t.Module == "" {
			t.Module, t.InitArgs = p.Module, p.InitArgs
		}
		if t.Module == p.Module && t.Token == p.Token {
			return nil, errors.New("the custody key is in a token of another role than the server's: name that one")
		}
		told.Custody = &t
	}
	for _, t := range []*custody.Token{told.Server, told.Custody} {
		if t != nil && t.PINFile != "" { // it starts in another directory
			if t.PINFile, err = filepath.Abs(t.PINFile); err != nil {
				return nil, err
			}
		}
	}
	return custody.Start(ctx, program, told)
}

// hsmProgram finds the program that opens hardware tokens.
func hsmProgram(c config.Config) (string, error) {
	program := c.Keys.PKCS11.Worker
	if program == "" {
		here, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find %s: %w; say where it is with keys.pkcs11.worker", workerProgram, err)
		}
		program = filepath.Join(filepath.Dir(here), workerProgram)
	}
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("the program that opens hardware tokens: %w; say where it is with keys.pkcs11.worker", err)
	}
	return program, nil
}
