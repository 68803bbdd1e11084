package soft

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// script writes a program of the shell.
func script(t *testing.T, body string) string {
	t.Helper()
	return write(t, filepath.Join(t.TempDir(), "unlock"), "#!/bin/sh\n"+body+"\n", 0o700)
}

// A command gives a passphrase or an identity, as it would stand in a file.
func TestCommandUnlocks(t *testing.T) {
	f := newFiles(t)
	opens := func(name, keys string, u Unlock) {
		t.Helper()
		token, err := Open(t.Context(), Options{keys, u})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		if err := token.Close(); err != nil {
			t.Error(err)
		}
	}
	opens("passphrase", f.keys, Unlock{Command: script(t, "cat "+f.passphraseFile)})

	identity := filepath.Join(f.dir, "identity")
	if err := CreateIdentity(identity); err != nil {
		t.Fatal(err)
	}
	if err := Reseal(f.keys, f.unlock, Unlock{IdentityFile: identity}); err != nil {
		t.Fatal(err)
	}
	opens("identity", f.keys, Unlock{Command: script(t, "cat "+identity)})
}

// What can go wrong with a command is told, and never what it wrote.
func TestCommandFails(t *testing.T) {
	f := newFiles(t)
	const leaked = "correct-horse-battery"
	for name, c := range map[string]struct {
		body string
		want error
		say  string
	}{
		"fails":         {"echo " + leaked + "; exit 3", ErrUnlock, "exit status 3"},
		"says nothing":  {":", ErrUnlock, "wrote nothing"},
		"an empty line": {"echo", ErrUnlock, "empty"},
		"says too much": {"head -c 20000 /dev/zero", ErrUnlock, "no passphrase"},
		"is wrong":      {"echo " + leaked, ErrPassphrase, "does not open it"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(t.Context(), Options{f.keys, Unlock{Command: script(t, c.body)}})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.say) || strings.Contains(err.Error(), leaked) {
				t.Errorf("%v; want %v, saying %q", err, c.want, c.say)
			}
		})
	}
	if _, err := Open(t.Context(), Options{f.keys, Unlock{Command: filepath.Join(f.dir, "nothing")}}); !errors.Is(err, ErrUnlock) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such command: %v", err)
	}
	// Who stops waiting is not kept by a command that hangs, nor by its children.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, Options{f.keys, Unlock{Command: script(t, "sleep 60 & sleep 60")}}); !errors.Is(err, ErrUnlock) {
		t.Errorf("a command that hangs: %v", err)
	}
}

// A file is opened by what it was sealed for last, and by nothing else.
func TestReseal(t *testing.T) {
	f := newFiles(t)
	identity := filepath.Join(f.dir, "identity")
	if err := CreateIdentity(identity); err != nil {
		t.Fatal(err)
	}
	next := Unlock{IdentityFile: identity}
	for name, keys := range map[string]string{"key file": f.keys, "custody file": f.custody} {
		t.Run(name, func(t *testing.T) {
			old := f.unlock
			if keys == f.custody {
				old = f.apart
			}
			before, err := readContents(t.Context(), keys, old, formatServer, formatCustody)
			if err != nil {
				t.Fatal(err)
			}
			if err := Reseal(keys, old, next); err != nil {
				t.Fatal(err)
			}
			after, err := readContents(t.Context(), keys, next, formatServer, formatCustody)
			if err != nil {
				t.Fatal(err)
			}
			if string(before.encode()) != string(after.encode()) {
				t.Error("the keys are others")
			}
			if _, err := readContents(t.Context(), keys, old, formatServer, formatCustody); !errors.Is(err, ErrPassphrase) {
				t.Errorf("opened as before: %v", err)
			}
			if info, err := os.Stat(keys); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
		})
	}
}

// A change that fails leaves the file as it was.
func TestResealFails(t *testing.T) {
	f := newFiles(t)
	before, err := os.ReadFile(f.keys)
	if err != nil {
		t.Fatal(err)
	}
	short := write(t, filepath.Join(f.dir, "short"), "too short", 0o600)
	for name, c := range map[string]struct {
		from, to Unlock
		want     error
	}{
		"the same":         {f.unlock, f.unlock, ErrUnlock},
		"wrong passphrase": {f.apart, f.unlock, ErrPassphrase},
		"short passphrase": {f.unlock, Unlock{PassphraseFile: short}, ErrUnlock},
		"nothing to seal":  {f.unlock, Unlock{}, ErrUnlock},
		"command fails":    {f.unlock, Unlock{Command: script(t, "exit 1")}, ErrUnlock},
	} {
		if err := Reseal(f.keys, c.from, c.to); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if after, err := os.ReadFile(f.keys); err != nil || string(after) != string(before) {
		t.Errorf("the file changed: %v", err)
	}
}
