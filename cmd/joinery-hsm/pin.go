package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"joinery/internal/keyring/worker"
)

// maxPIN bounds the length of a PIN: PKCS #11 knows none, tokens take less.
const maxPIN = 255

// Who else may read the file of a PIN: nobody. A credential of systemd's has an
// access control list, which shows as permissions of the group.
const (
	othersMask = 0o077
	worldMask  = 0o007
)

// readPIN reads the PIN from the file or the credential that c names. The caller
// clears it.
func readPIN(c worker.TokenConfig) ([]byte, error) {
	if c.PINFile != "" {
		return pinFrom(c.PINFile, othersMask)
	}
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return nil, fmt.Errorf("keys.pkcs11.pin_credential: $CREDENTIALS_DIRECTORY is not set: start the server by systemd with LoadCredential=%s:…, or name a file", c.PINCredential)
	}
	if c.PINCredential == "" || filepath.Base(c.PINCredential) != c.PINCredential {
		return nil, errors.New("keys.pkcs11.pin_credential: want a name without a path")
	}
	return pinFrom(filepath.Join(dir, c.PINCredential), worldMask)
}

// pinFrom reads the first line of a file that others must not be able to read.
func pinFrom(path string, mask os.FileMode) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the token's PIN: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("the token's PIN: %w", err)
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&mask != 0 {
		return nil, fmt.Errorf("the token's PIN: %s has mode %04o: it must be a file that others cannot read: chmod 600 %s", path, mode.Perm(), path)
	}
	text := make([]byte, maxPIN+2) // in one piece, so that there is one copy to clear
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		clear(text)
		return nil, fmt.Errorf("the token's PIN: %w", err)
	}
	end := bytes.IndexAny(text[:n], "\r\n")
	if end < 0 {
		end = n
	}
	if end == 0 || end > maxPIN {
		clear(text)
		return nil, fmt.Errorf("the token's PIN: the first line of %s has not 1 to %d characters", path, maxPIN)
	}
	clear(text[end:])
	return text[:end], nil
}
