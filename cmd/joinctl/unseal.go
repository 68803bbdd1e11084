package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"joinery/client"

	"github.com/spf13/cobra"
)

func (a *app) unsealCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "unseal [FILE]",
		Short: "Open the keys of a server that starts sealed",
		Long: `Give a server with keys.manual what opens its key file: the passphrase, or an age
identity. It is read from FILE, from standard input, or from you at a prompt that does
not show it, and goes through the operator socket of this machine alone. Until then
the server is not ready and refuses joins; it needs this after each start, and again
after joinery rotate and joinery ceremony master, so that it reads its key file anew.`,
		Example: `  sudo joinctl unseal
  age --decrypt passphrase.age | sudo joinctl unseal
  sudo joinctl unseal /media/stick/server.passphrase`,
		Args: cobra.MaximumNArgs(1),
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		text, err := a.readUnsealing(cmd.Context(), args)
		defer clear(text)
		if err != nil {
			return err
		}
		early := *a
		early.anyOrg = true // nothing is asked of the server before
		api, err := early.connect(cmd.Context())
		if err != nil {
			return err
		}
		defer api.Close()
		if err := api.Unseal(cmd.Context(), text); err != nil {
			return err
		}
		return a.done(map[string]bool{"unsealed": true}, "the keys are open, and the server answers joins")
	}
	return c
}

// readUnsealing reads what opens the keys. The caller clears it.
func (a *app) readUnsealing(ctx context.Context, args []string) ([]byte, error) {
	in := a.in
	if len(args) > 0 && args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		a.warnIfOpen(f, "passphrase or identity")
		in = f
	} else if f, ok := a.in.(*os.File); ok && isTerminal(f) {
		a.sayf("passphrase of the key file (it is not shown): ")
		text, err := readHidden(ctx, f)
		a.sayf("\n")
		if err == nil && text == "" {
			err = errors.New("nothing was typed; nothing was done")
		}
		return []byte(text), err
	}
	text := make([]byte, client.MaxUnseal+1)
	n, err := io.ReadFull(in, text)
	switch {
	case err == nil:
		return text, fmt.Errorf("want at most %d bytes: a passphrase, or age identities", client.MaxUnseal)
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return text, err
	case len(bytes.TrimSpace(text[:n])) == 0:
		return text, usagef("want a passphrase or an age identity in %s", sourceName(append(args, "-")[0]))
	}
	return text[:n], nil
}
