package main

import (
	"context"
	"fmt"
	"io"

	"joinery/internal/harden"
	"joinery/internal/keyring"
	"joinery/internal/keyring/custody"
	"joinery/internal/keyring/hsm"
	"joinery/internal/keyring/worker"
)

// runCustody is the program where it opens the custody key, for one rotation or one
// export.
func runCustody(stdin io.Reader, answers io.Writer, stderr io.Writer) int {
	err := harden.Process()
	if err == nil {
		harden.LockMemory()
		err = custody.Serve(context.Background(), stdin, answers, openCustodian)
	}
	if err != nil {
		fmt.Fprintf(stderr, "joinery-hsm: %v\n", err)
		return 1
	}
	return 0
}

// openCustodian reads the PINs and opens the tokens, each by one try.
func openCustodian(ctx context.Context, c custody.Config) (keyring.Custodian, error) {
	var opt hsm.CustodianOptions
	for _, t := range []struct {
		from *custody.Token
		to   *hsm.Options
	}{{c.Server, &opt.Server}, {c.Custody, &opt.Custody}} {
		if t.from == nil {
			continue
		}
		pin, err := readPIN(worker.TokenConfig{PINFile: t.from.PINFile, PINCredential: t.from.PINCredential})
		if err != nil {
			return nil, fmt.Errorf("token %q: %w", t.from.Token, err)
		}
		defer clear(pin)
		*t.to = hsm.Options{Module: t.from.Module, InitArgs: t.from.InitArgs, Token: t.from.Token, PIN: pin}
	}
	return hsm.OpenCustodian(ctx, opt)
}
