package soft

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Every way in which a file or its secret can be wrong: its own error, which
// says what to do and repeats nothing.
func TestOpenErrors(t *testing.T) {
	f := newFiles(t)
	sealed, err := os.ReadFile(f.keys)
	if err != nil {
		t.Fatal(err)
	}
	path := func(name string) string { return filepath.Join(f.dir, name) }
	damaged := bytes.Clone(sealed)
	damaged[len(damaged)-40] ^= 1
	header := bytes.Replace(sealed, []byte("-> scrypt"), []byte("-> scrxpt"), 1)
	identity := path("identity")
	if err := CreateIdentity(identity); err != nil {
		t.Fatal(err)
	}
	costly := bytes.Replace(sealed, []byte(" 4\n"), []byte(" 25\n"), 1)
	secretText := "AGE-SECRET-KEY-1" + strings.Repeat("Q", 20)
	withKeys := func(content []byte, mode fs.FileMode) Options {
		return Options{write(t, path(rand.Text()), string(content), mode), f.unlock}
	}
	withUnlock := func(u Unlock) Options { return Options{f.keys, u} }
	pipe := path("pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		opt  Options
		want error
		say  string
	}{
		"no key file":              {Options{path("nothing"), f.unlock}, fs.ErrNotExist, "check the path"},
		"directory":                {Options{f.dir, f.unlock}, ErrDamaged, "not a regular file"},
		"pipe":                     {Options{pipe, f.unlock}, ErrDamaged, "not a regular file"},
		"pipe for passphrase":      {withUnlock(Unlock{PassphraseFile: pipe}), ErrDamaged, "not a regular file"},
		"pipe for identity":        {withUnlock(Unlock{IdentityFile: pipe}), ErrDamaged, "not a regular file"},
		"group may read":           {withKeys(sealed, 0o640), ErrPermissions, "chmod 600"},
		"world may read":           {withKeys(sealed, 0o604), ErrPermissions, "chmod 600"},
		"empty":                    {withKeys(nil, 0o600), ErrDamaged, "backup"},
		"no age file":              {withKeys([]byte("hello"), 0o600), ErrDamaged, "backup"},
		"cut short":                {withKeys(sealed[:len(sealed)-5], 0o600), ErrDamaged, "backup"},
		"cut in the header":        {withKeys(sealed[:60], 0o600), ErrDamaged, "backup"},
		"payload cut off":          {withKeys(sealed[:bytes.LastIndex(sealed[:400], []byte("\n"))+17], 0o600), ErrDamaged, "backup"},
		"a bit changed":            {withKeys(damaged, 0o600), ErrDamaged, "backup"},
		"appended":                 {withKeys(append(bytes.Clone(sealed), 0), 0o600), ErrDamaged, "backup"},
		"another header":           {withKeys(header, 0o600), ErrPassphrase, "another way"},
		"costly passphrase":        {withKeys(costly, 0o600), ErrDamaged, "backup"},
		"too big":                  {withKeys(make([]byte, maxSecretFile+1), 0o600), ErrDamaged, "bytes"},
		"the custody file":         {Options{f.custody, f.apart}, ErrFormat, "joinery-custody/1"},
		"wrong passphrase":         {withUnlock(f.apart), ErrPassphrase, "does not open it"},
		"identity for passphrase":  {withUnlock(Unlock{IdentityFile: identity}), ErrPassphrase, "another way"},
		"no unlock":                {withUnlock(Unlock{}), ErrUnlock, "one of"},
		"two":                      {withUnlock(Unlock{PassphraseFile: f.passphraseFile, IdentityFile: identity}), ErrUnlock, "one of"},
		"no passphrase file":       {withUnlock(Unlock{PassphraseFile: path("nothing")}), fs.ErrNotExist, "passphrase file"},
		"passphrase for all":       {withUnlock(Unlock{PassphraseFile: write(t, path("open"), "x", 0o644)}), ErrPermissions, "chmod 600"},
		"empty passphrase":         {withUnlock(Unlock{PassphraseFile: write(t, path("empty"), "\r\n", 0o600)}), ErrUnlock, "empty"},
		"no identity":              {withUnlock(Unlock{IdentityFile: write(t, path("bad"), secretText, 0o600)}), ErrUnlock, "age-keygen"},
		"identity for all":         {withUnlock(Unlock{IdentityFile: write(t, path("open2"), secretText, 0o666)}), ErrPermissions, "chmod 600"},
		"no credentials directory": {withUnlock(Unlock{Credential: "keys"}), ErrUnlock, "CREDENTIALS_DIRECTORY"},
	} {
		_, err := Open(context.Background(), c.opt)
		if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v; want %v, saying %q", name, err, c.want, c.say)
		}
		if err != nil && strings.Contains(err.Error(), secretText[:20]) {
			t.Errorf("%s: the error repeats a secret", name)
		}
	}
	if _, err := NewMaster(pipe, f.unlock, "m"); !errors.Is(err, ErrDamaged) {
		t.Errorf("change of a pipe: %v", err)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(cancelled, Options{f.keys, f.unlock}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// What is inside the age file may be damaged, too: by a program of ours, or an
// older or newer one.
func TestContentsErrors(t *testing.T) {
	f := newFiles(t)
	l, err := f.unlock.read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*contents)
		want   error
	}{
		"newer format":   {func(c *contents) { c.Format = "joinery-keys/3" }, ErrFormat},
		"factory":        {func(c *contents) { c.Format = formatFactory }, ErrFormat},
		"short KEK":      {func(c *contents) { c.JoinKEK = c.JoinKEK[:5] }, nil},
		"no storage KEK": {func(c *contents) { c.StorageKEK = nil }, nil},
		"no MAC key":     {func(c *contents) { c.RowMAC = nil }, nil},
		"no token key":   {func(c *contents) { c.OwnerTokens = nil }, nil},
		"no custody":     {func(c *contents) { c.Custody = c.Custody[:50] }, ErrDamaged},
		"no transport":   {func(c *contents) { c.Transport = nil }, nil},
		"no public":      {func(c *contents) { c.TransportPublic = nil }, ErrDamaged},
		"short master":   {func(c *contents) { c.Masters = []storedMaster{{"m", "ecb-v1", make([]byte, 16)}} }, ErrDamaged},
		"new profile":    {func(c *contents) { c.Masters = []storedMaster{{"m", "cmac-v9", make([]byte, 32)}} }, ErrFormat},
	} {
		made := f.contents(t)
		c.change(made)
		sealed, err := l.seal(made)
		if err != nil {
			t.Fatal(err)
		}
		token, err := Open(context.Background(), Options{write(t, filepath.Join(f.dir, rand.Text()), string(sealed), 0o600), f.unlock})
		if err == nil {
			t.Errorf("%s: opened", name)
			_ = token.Close()
			continue
		}
		if c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v; want %v", name, err, c.want)
		}
	}
}

func TestIdentityAndCredential(t *testing.T) {
	dir := t.TempDir()
	identity, apart := filepath.Join(dir, "server"), filepath.Join(dir, "custody")
	for _, path := range []string{identity, apart} {
		if err := CreateIdentity(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := CreateIdentity(identity); !errors.Is(err, ErrExists) {
		t.Errorf("a second identity at one path: %v", err)
	}
	if info, err := os.Stat(identity); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	keys := filepath.Join(dir, "keys")
	if err := Init(InitOptions{keys, Unlock{IdentityFile: identity}, keys + ".custody", Unlock{IdentityFile: apart}}); err != nil {
		t.Fatal(err)
	}
	open := func(u Unlock) error {
		token, err := Open(context.Background(), Options{keys, u})
		if err != nil {
			return err
		}
		return token.Close()
	}
	if err := open(Unlock{IdentityFile: identity}); err != nil {
		t.Error(err)
	}
	if err := open(Unlock{IdentityFile: apart}); !errors.Is(err, ErrPassphrase) {
		t.Errorf("another identity: %v", err)
	}
	// A credential of systemd: a directory named by the environment, and files
	// that an access control list opens, which shows as group permissions.
	t.Setenv(credentialsDirectory, dir)
	if err := os.Chmod(identity, 0o440); err != nil {
		t.Fatal(err)
	}
	if err := open(Unlock{Credential: "server"}); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(identity, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := open(Unlock{Credential: "server"}); !errors.Is(err, ErrPermissions) {
		t.Errorf("a credential for all: %v", err)
	}
	for _, name := range []string{"../server", "a/b", ".", ".."} {
		if err := open(Unlock{Credential: name}); !errors.Is(err, ErrUnlock) {
			t.Errorf("credential %q: %v", name, err)
		}
	}
	if err := open(Unlock{Credential: "nothing"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such credential: %v", err)
	}
}

// A credential may be a passphrase as well.
func TestPassphraseCredential(t *testing.T) {
	f := newFiles(t)
	t.Setenv(credentialsDirectory, f.dir)
	token, err := Open(context.Background(), Options{f.keys, Unlock{Credential: filepath.Base(f.passphraseFile)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		t.Error(err)
	}
}

// Without a test's lower one, the work factor of files is the default.
func TestDefaultWorkFactor(t *testing.T) {
	if testing.Short() {
		t.Skip("slow on purpose, and slower under the race detector; it runs without, too")
	}
	dir := t.TempDir()
	u := Unlock{PassphraseFile: write(t, filepath.Join(dir, "passphrase"), rand.Text(), 0o600)}
	l, err := u.read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	c := &contents{Format: formatServer}
	sealed, err := l.seal(c)
	if err != nil {
		t.Fatal(err)
	}
	if line, _, _ := strings.Cut(string(sealed[len("age-encryption.org/v1\n"):]), "\n"); !strings.HasSuffix(line, " 18") {
		t.Errorf("stanza %q", line)
	}
}
