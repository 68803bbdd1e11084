package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"joinery/internal/firmware"
	"joinery/internal/harden"
	"joinery/internal/signkey"

	"github.com/spf13/cobra"
)

// firmwareKeyFlags say where a new key is kept.
type firmwareKeyFlags struct {
	out, public, passphraseFile, newPassphraseFile, worker string
	token                                                  firmware.TokenKey
}

func (a *app) firmwareKeyNewCommand() *cobra.Command {
	var f firmwareKeyFlags
	c := &cobra.Command{
		Use:   "new --out FILE --public-key FILE",
		Short: "Make a key that signs firmware",
		Long: `Make a key pair on P-256. Whoever has the private half decides what runs on every
device with the public one, and an element keeps that for its life: make it on a machine
that is offline, or in a hardware token, and keep a copy in a safe.

Without --token the private half is in --out, encrypted under a passphrase, in the
format of age: 'age --decrypt' opens it. With --token, --module and --pin-file the key
is made in a PKCS #11 token and never leaves it; joinery-hsm, started for this, alone
reads the PIN, and --out says which token and key it is, without a secret.`,
		Example: `  joinctl firmware key new --out meter.key --public-key meter.pub
  joinctl firmware key new --out meter.key --public-key meter.pub --new-passphrase-file meter.pass
  joinctl firmware key new --out meter.key --public-key meter.pub --token releases --name meter-3 \
    --module /usr/lib/softhsm/libsofthsm2.so --pin-file releases.pin`,
		Args: cobra.NoArgs,
	}
	fl := c.Flags()
	fl.StringVar(&f.out, "out", "", "new file for the key")
	fl.StringVar(&f.public, "public-key", "", "new file for its public half, PEM")
	fl.StringVar(&f.passphraseFile, "passphrase-file", "", "file with the passphrase; - for standard input (default: you are asked)")
	fl.StringVar(&f.newPassphraseFile, "new-passphrase-file", "", "draw the passphrase, into this new file that only you can read")
	fl.StringVar(&f.token.Token, "token", "", "label of the PKCS #11 token that is to have the key, in place of a file")
	fl.StringVar(&f.token.Name, "name", "firmware", "name of the key in the token")
	fl.StringVar(&f.token.Module, "module", "", "path of the token's library")
	fl.StringVar(&f.token.InitArgs, "init-args", "", "what that library wants to be told when it starts")
	fl.StringVar(&f.token.PINFile, "pin-file", "", "file with the token's PIN, which joinery-hsm alone reads")
	fl.StringVar(&f.worker, "worker", "", "path of joinery-hsm (default: beside this program)")
	require(c, "out")
	require(c, "public-key")
	c.MarkFlagsMutuallyExclusive("token", "passphrase-file", "new-passphrase-file")
	c.MarkFlagsRequiredTogether("token", "module", "pin-file")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, path := range []string{f.out, f.public, f.newPassphraseFile} {
			if path == "" {
				continue
			}
			if err := checkFree(path); err != nil {
				return err
			}
		}
		if err := harden.Process(); err != nil {
			return err
		}
		public, err := a.newFirmwareKey(cmd.Context(), f)
		if err != nil {
			return err
		}
		text, err := signkey.MarshalPublic(public)
		if err == nil {
			err = writeNew(f.public, func(w io.Writer) error { _, err := w.Write(text); return err })
		}
		if err != nil {
			return fmt.Errorf("the key is made, but its public half could not be written: %w", err)
		}
		what := "the key is %s (keep it, and a copy in a safe), its public half %s: elements get that"
		if f.token.Token != "" {
			what = "the key is in the token; %s says where and holds no secret. Its public half is %s: elements get that"
		}
		return a.doneThen(map[string]any{"key": f.out, "publicKey": string(text)},
			fmt.Sprintf("joinctl firmware sign IMAGE --key %s --product NAME --hardware ID --version-text 1.0.0 --counter 1 --out FILE", f.out), what, f.out, f.public)
	}
	return c
}

func (a *app) newFirmwareKey(ctx context.Context, f firmwareKeyFlags) (*ecdsa.PublicKey, error) {
	if f.token.Token != "" {
		return newTokenKey(ctx, f)
	}
	passphrase := ""
	var err error
	switch {
	case f.newPassphraseFile != "":
		passphrase = signkey.Drawn()
		err = writeSecret(f.newPassphraseFile, func(w io.Writer) error {
			_, err := io.WriteString(w, passphrase+"\n")
			return err
		})
	default:
		passphrase, err = a.firmwarePassphrase(ctx, f.passphraseFile, true)
	}
	if err != nil {
		return nil, err
	}
	var key *signkey.Key
	err = writeSecret(f.out, func(w io.Writer) error {
		key, err = signkey.New(w, passphrase)
		return err
	})
	if err != nil {
		return nil, err
	}
	return key.Public(), nil
}

// firmwarePassphrase reads a passphrase, or asks for it, twice where it is new.
func (a *app) firmwarePassphrase(ctx context.Context, path string, isNew bool) (string, error) {
	const what = "passphrase of the key"
	if path != "" {
		return a.readSecretLine(path, what)
	}
	f, ok := a.in.(*os.File)
	if !ok || !isTerminal(f) {
		return "", usagef("want --passphrase-file: there is nobody to ask")
	}
	first := ""
	for _, again := range []string{"", ", again"} {
		a.sayf("%s%s (it is not shown): ", what, again)
		text, err := readHidden(ctx, f)
		a.sayf("\n")
		switch {
		case err != nil:
			return "", err
		case again == "":
			first = text
		case text != first:
			return "", errors.New("the two differ; nothing was done")
		}
		if !isNew {
			break
		}
	}
	return first, nil
}

// newTokenKey has the key made in a token, and writes the file that stands for it.
func newTokenKey(ctx context.Context, f firmwareKeyFlags) (*ecdsa.PublicKey, error) {
	key := f.token
	key.Format = firmware.FormatTokenKey
	var err error
	// The file is used from elsewhere, too.
	if key.PINFile, err = filepath.Abs(key.PINFile); err != nil {
		return nil, err
	}
	if err := key.Check(); err != nil {
		return nil, err
	}
	answer, err := askTokenKey(ctx, f.worker, firmware.TokenJob{Key: key, Make: true})
	if err != nil {
		return nil, err
	}
	key.PublicKey = answer.PublicKey
	public, err := signkey.ParsePublic([]byte(key.PublicKey))
	if err != nil {
		return nil, err
	}
	return public, writeSecret(f.out, func(w io.Writer) error { return writeJSON(w, key) })
}

// releaseSigner is a key that is open for signing.
type releaseSigner struct {
	Public *ecdsa.PublicKey
	Sign   firmware.Signer
}

// openSigner opens the file of a key.
func (a *app) openSigner(ctx context.Context, path, passphraseFile, worker string) (s releaseSigner, err error) {
	text, err := readSmall(path, signkey.MaxFile)
	if err != nil {
		return s, err
	}
	if !signkey.Is(text) {
		return tokenSigner(ctx, path, text, worker)
	}
	if f, err := os.Open(path); err == nil {
		a.warnIfOpen(f, "key")
		_ = f.Close()
	}
	passphrase, err := a.firmwarePassphrase(ctx, passphraseFile, false)
	if err != nil {
		return s, err
	}
	key, err := signkey.Open(text, passphrase)
	if err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return releaseSigner{key.Public(), key.Sign}, nil
}

// tokenSigner signs by a key in a token, of which the file says which it is.
func tokenSigner(ctx context.Context, path string, text []byte, worker string) (s releaseSigner, err error) {
	key, err := firmware.ParseTokenKey(text)
	if err != nil {
		return s, fmt.Errorf("%s: %w, and no encrypted one: want what 'joinctl firmware key new' wrote", path, err)
	}
	public, err := signkey.ParsePublic([]byte(key.PublicKey))
	if err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	sign := func(digest [32]byte) (signature [64]byte, err error) {
		answer, err := askTokenKey(ctx, worker, firmware.TokenJob{Key: key, Digests: [][]byte{digest[:]}})
		if err != nil {
			return signature, err
		}
		if answer.PublicKey != key.PublicKey || len(answer.Signatures) != 1 || len(answer.Signatures[0]) != len(signature) {
			return signature, fmt.Errorf("the token has another key of that name than %s says", path)
		}
		return [64]byte(answer.Signatures[0]), nil
	}
	return releaseSigner{public, sign}, nil
}

// askTokenKey has joinery-hsm do a job.
func askTokenKey(ctx context.Context, worker string, job firmware.TokenJob) (answer firmware.TokenAnswer, err error) {
	if worker == "" {
		here, err := os.Executable()
		if err != nil {
			return answer, err
		}
		worker = filepath.Join(filepath.Dir(here), "joinery-hsm")
	}
	told, err := json.Marshal(job)
	if err != nil {
		return answer, err
	}
	heard, theirs, err := os.Pipe()
	if err != nil {
		return answer, err
	}
	defer func() { _ = heard.Close() }()
	child := exec.CommandContext(ctx, worker, firmware.TokenArgument)
	child.Stdin, child.Stdout, child.Stderr = bytes.NewReader(told), os.Stderr, os.Stderr
	child.ExtraFiles = []*os.File{theirs} // firmware.TokenAnswerFD there
	err = child.Start()
	_ = theirs.Close()
	if err != nil {
		return answer, fmt.Errorf("start the program that opens hardware tokens: %w; say where it is with --worker", err)
	}
	const most = 64 << 10
	err = json.NewDecoder(io.LimitReader(heard, most)).Decode(&answer)
	switch ended := child.Wait(); {
	case answer.Error != "":
		return answer, errors.New(answer.Error)
	case ended != nil:
		return answer, fmt.Errorf("joinery-hsm: %w", ended)
	case err != nil:
		return answer, fmt.Errorf("joinery-hsm ended before it was done: %w", err)
	}
	return answer, nil
}
