package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"joinery/internal/ceremony"
	"joinery/internal/config"
	"joinery/internal/daemon"
	"joinery/internal/exportfile"
	"joinery/internal/keyring"
)

// inToken is the hardware token of a server. joinery-hsm does all that is done with
// it, and reads its PIN.
type inToken struct {
	worker string
	change ceremony.Change
	// What joinery-hsm says.
	stderr io.Writer
}

// tokenFlag is what the flags of a command say of tokens.
type tokenFlag struct {
	pinFile, worker string
	custody         ceremony.Token
}

// tokenFlags adds the flags of a command that works on a server's token. Which one
// that is stands in the server's configuration.
func tokenFlags(cmd *cobra.Command) *tokenFlag {
	t := &tokenFlag{}
	cmd.Flags().StringVar(&t.pinFile, "pin-file", "", "file with the PIN of the server's token (default: the configured one)")
	cmd.Flags().StringVar(&t.worker, "worker", "", "path of joinery-hsm (default: the configured one, or the one beside this program)")
	return t
}

// custodyFlags adds those that name the token of the custody key.
func (t *tokenFlag) custodyFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.custody.Module, "custody-module", "", "PKCS #11 library of the custody key's token (default: that of the server's)")
	cmd.Flags().StringVar(&t.custody.Label, "custody-token", "", "label of the custody key's token")
	cmd.Flags().StringVar(&t.custody.PINFile, "custody-pin-file", "", "file with its PIN")
	cmd.MarkFlagsRequiredTogether("custody-token", "custody-pin-file")
}

// open gives the token that the configuration of file names; nil where the keys are
// in a key file.
func (t *tokenFlag) open(file *keyFile, stderr io.Writer) (storage, error) {
	if file.path != "" {
		return nil, nil //nolint:nilnil // a key file was named
	}
	c, err := config.Load(*file.config)
	if err != nil || c.Keys.Backend != config.BackendPKCS11 {
		return nil, nil //nolint:nilerr,nilnil // whoever wants the key file says what is wrong
	}
	p := c.Keys.PKCS11
	in := inToken{worker: p.Worker, stderr: stderr, change: ceremony.Change{
		Token:         ceremony.Token{Module: p.Module, InitArgs: p.InitArgs, Label: p.Token, PINFile: p.PINFile},
		PINCredential: p.PINCredential,
	}}
	if t.pinFile != "" {
		in.change.Token.PINFile, in.change.PINCredential = t.pinFile, ""
	}
	if t.worker != "" {
		in.worker = t.worker
	}
	if t.custody.Label != "" {
		custody := t.custody
		if custody.Module == "" {
			custody.Module, custody.InitArgs = p.Module, p.InitArgs
		}
		if custody.Module == p.Module && custody.Label == p.Token {
			return nil, errors.New("--custody-token: want a token of another role: the server must not be able to open it")
		}
		if custody.PINFile, err = absolute(custody.PINFile); err != nil {
			return nil, err
		}
		in.change.Custody = &custody
	}
	for _, path := range []*string{&in.change.Token.PINFile, &in.worker} {
		if *path, err = absolute(*path); err != nil {
			return nil, err
		}
	}
	return in, nil
}

func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return filepath.Abs(path)
}

func (t inToken) look(ctx context.Context) (keyring.Generations, error) {
	return t.ask(ctx, ceremony.JoinKEK, ceremony.ToLook)
}

func (t inToken) next(ctx context.Context, key string) (keyring.Generations, error) {
	return t.ask(ctx, key, ceremony.ToMake)
}

func (t inToken) retire(ctx context.Context, key string) (keyring.Generations, error) {
	return t.ask(ctx, key, ceremony.ToRetire)
}

func (t inToken) ask(ctx context.Context, key string, what ceremony.What) (g keyring.Generations, err error) {
	change := t.change
	change.Key, change.What = key, what
	if key == ceremony.CustodyKey && change.Custody == nil {
		return g, errors.New("name the token of the custody key: --custody-token and --custody-pin-file")
	}
	last, err := askToken(ctx, t.worker, ceremony.Job{Program: "joinery " + daemon.Version(), Change: &change}, io.Discard, t.stderr)
	if err != nil {
		return g, err
	}
	if last.Generations == nil {
		return g, errors.New("joinery-hsm says nothing of generations: it is of another version than this program")
	}
	g = keyring.Generations{JoinKEK: last.Generations.JoinKEK, Custody: last.Generations.Custody, Transport: last.Generations.Transport}
	for _, der := range last.Generations.Exports {
		s, err := exportfile.ParseSignerDER(der)
		if err != nil {
			return g, err
		}
		g.Exports = append(g.Exports, s)
	}
	return g, nil
}
