package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"joinery/internal/keyring/soft"
)

// A drawn passphrase is taken back where there is no key file, or one that it was
// not drawn for; never where it may be all that opens the key file.
func TestAbandonedPassphrase(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after bool // whether there is a key file
		kept          bool
	}{
		{"nothing was written", false, false, false},
		{"the key file was written", false, true, true},
		{"somebody's key file was there", true, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write := func() {
				if err := os.WriteFile(filepath.Join(dir, "server.age"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if c.before {
				write()
			}
			k, err := prepareKeyFile(dir, "server", soft.Unlock{})
			if err != nil {
				t.Fatal(err)
			}
			if c.after {
				write()
			}
			k.abandon()
			_, err = os.Stat(k.unlock.PassphraseFile)
			if kept := err == nil; kept != c.kept || !kept && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("kept %t (%v), want %t", kept, err, c.kept)
			}
		})
	}
}
