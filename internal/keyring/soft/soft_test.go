package soft

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
)

// files are the key file and custody file of a test, and what opens them.
type files struct {
	dir            string
	keys, custody  string
	unlock, apart  Unlock // of keys, of custody
	passphraseFile string
}

func write(t testing.TB, path, content string, mode fs.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// template is the keys of one server, which most tests share: RSA keys are slow
// to make.
var template = sync.OnceValues(func() (made [2]contents, err error) {
	server, custody, err := newServerContents()
	if err != nil {
		return made, err
	}
	return [2]contents{*server, *custody}, nil
})

// newFiles makes key files under passphrases of their own, with the keys of the
// template.
func newFiles(t testing.TB) files {
	t.Helper()
	f := newPassphrases(t)
	made, err := template()
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range []string{f.keys, f.custody} {
		l, err := []Unlock{f.unlock, f.apart}[i].read()
		if err != nil {
			t.Fatal(err)
		}
		if err := createKeyFile(path, l, &made[i]); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// initFiles makes key files as people do.
func initFiles(t testing.TB) files {
	t.Helper()
	f := newPassphrases(t)
	if err := Init(InitOptions{KeyFile: f.keys, Unlock: f.unlock, CustodyFile: f.custody, CustodyUnlock: f.apart}); err != nil {
		t.Fatal(err)
	}
	return f
}

// newPassphrases makes passphrases, with a work factor that is quick.
func newPassphrases(t testing.TB) files {
	t.Helper()
	dir := t.TempDir()
	f := files{dir: dir, keys: filepath.Join(dir, "server.age"), custody: filepath.Join(dir, "custody.age")}
	f.passphraseFile = write(t, filepath.Join(dir, "server.passphrase"), rand.Text()+"\n", 0o600)
	f.unlock = Unlock{PassphraseFile: f.passphraseFile, workFactor: 4}
	f.apart = Unlock{PassphraseFile: write(t, filepath.Join(dir, "custody.passphrase"), rand.Text(), 0o400), workFactor: 4}
	return f
}

func (f files) open(t testing.TB) *Token {
	t.Helper()
	token, err := Open(context.Background(), Options{KeyFile: f.keys, Unlock: f.unlock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := token.Close(); err != nil {
			t.Error(err)
		}
	})
	return token
}

func (f files) contents(t testing.TB) *contents {
	t.Helper()
	c, err := readContents(context.Background(), f.keys, f.unlock, formatServer)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestInitMakesTwoPrivateFiles(t *testing.T) {
	f := initFiles(t)
	for _, path := range []string{f.keys, f.custody} {
		info, err := os.Stat(path)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
		content, err := os.ReadFile(path)
		if err != nil || !bytes.HasPrefix(content, []byte("age-encryption.org/v1\n")) {
			t.Errorf("%s is no age file: %v", path, err)
		}
	}
	c := f.contents(t)
	if len(c.CustodyPrivate) != 0 {
		t.Error("the custody key's private half is in the key file")
	}
	seen := map[string]bool{}
	for _, k := range [][]byte{c.JoinKEK, c.StorageKEK, c.RowMAC, c.OwnerTokens} {
		if len(k) != 32 || seen[string(k)] || bytes.Equal(k, make([]byte, 32)) {
			t.Error("a storage key is not 32 bytes of its own")
		}
		seen[string(k)] = true
	}
	// Nothing else was left behind.
	entries, err := os.ReadDir(f.dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("%d files in the directory: %v", len(entries), err)
	}
	if p := f.open(t).Protection(); p.String() == "" {
		t.Error("no protection")
	}
}

func TestInitOverwritesNothing(t *testing.T) {
	f := newFiles(t)
	keys, err := os.ReadFile(f.keys)
	if err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(f.dir, "new.age")
	for name, opt := range map[string]InitOptions{
		"key file":     {f.keys, f.unlock, fresh, f.apart},
		"custody file": {fresh, f.unlock, f.custody, f.apart},
		"both":         {f.keys, f.unlock, f.custody, f.apart},
		"same path":    {fresh, f.unlock, fresh, f.apart},
	} {
		err := Init(opt)
		if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "never overwritten") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(fresh); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: half of a pair was left: %v", name, err)
		}
	}
	if now, err := os.ReadFile(f.keys); err != nil || !bytes.Equal(now, keys) {
		t.Errorf("the key file changed: %v", err)
	}
	if err := Init(InitOptions{fresh, f.unlock, fresh + "2", f.unlock}); !errors.Is(err, ErrUnlock) {
		t.Errorf("both under one passphrase: %v", err)
	}
	short := Unlock{PassphraseFile: write(t, filepath.Join(f.dir, "short"), "short", 0o600)}
	if err := Init(InitOptions{fresh, short, fresh + "2", f.apart}); !errors.Is(err, ErrUnlock) || strings.Contains(err.Error(), `"short"`) {
		t.Errorf("a short passphrase: %v", err)
	}
	if err := Init(InitOptions{filepath.Join(f.dir, "no", "such"), f.unlock, fresh, f.apart}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
	if _, err := os.Stat(fresh); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half of a pair was left: %v", err)
	}
}

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
	for name, c := range map[string]struct {
		opt  Options
		want error
		say  string
	}{
		"no key file":              {Options{path("nothing"), f.unlock}, fs.ErrNotExist, "check the path"},
		"directory":                {Options{f.dir, f.unlock}, ErrDamaged, "not a regular file"},
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
	l, err := f.unlock.read()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*contents)
		want   error
	}{
		"newer format":   {func(c *contents) { c.Format = "joinery-keys/2" }, ErrFormat},
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
	dir := t.TempDir()
	u := Unlock{PassphraseFile: write(t, filepath.Join(dir, "passphrase"), rand.Text(), 0o600)}
	l, err := u.read()
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

func TestContentsRoundTrip(t *testing.T) {
	key := func() []byte { b := make([]byte, 32); rand.Read(b); return b }
	c := &contents{
		Format: formatFactory, JoinKEK: key(), Transport: key(), Certificate: key(),
		Masters: []storedMaster{{"a", "ecb-v1", key()}, {"b.B_2-x", "ecb-v1", key()}},
	}
	text := c.encode()
	back, err := decodeContents(text, formatFactory)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(back.encode(), text) || len(back.Masters) != 2 || !bytes.Equal(back.Masters[1].Key, c.Masters[1].Key) {
		t.Error("read back, it is something else")
	}
	if cap(text) != cap(c.encode()) || len(text) > cap(text) {
		t.Error("the size was guessed too low, so that a copy was left behind")
	}
	c.wipe()
	for _, b := range [][]byte{c.JoinKEK, c.Transport, c.Masters[0].Key, c.Masters[1].Key} {
		if !bytes.Equal(b, make([]byte, 32)) {
			t.Error("wiped, and still there")
		}
	}
}

// The encoder never grows its buffer: what it left behind could not be cleared.
func TestEncodeFitsItsBuffer(t *testing.T) {
	for n := range 40 {
		c := &contents{Format: formatServer, Transport: make([]byte, 1800+n)}
		for range n {
			c.Masters = append(c.Masters, storedMaster{strings.Repeat("n", 64), "ecb-v1", make([]byte, 32)})
		}
		want := 256 + 256*n
		for _, b := range c.binaries() {
			want += 32 + (len(*b.value)+2)/3*4
		}
		if text := c.encode(); len(text) > want {
			t.Errorf("%d masters: %d bytes, and room was made for %d", n, len(text), want)
		}
	}
}

// HMAC-SHA-256 against the standard library's, and RFC 4231 §4.2 and §4.3.
func TestHMAC(t *testing.T) {
	for n := range 100 {
		key, msg := make([]byte, n%65), make([]byte, 3*n)
		rand.Read(key)
		rand.Read(msg)
		h := hmac.New(sha256.New, key)
		h.Write(msg)
		if got := hmacSHA256(key, msg); !bytes.Equal(got[:], h.Sum(nil)) {
			t.Errorf("key of %d, message of %d bytes: another MAC", len(key), len(msg))
		}
	}
	for _, c := range []struct{ key, msg, want string }{
		{strings.Repeat("\x0b", 20), "Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		{"Jefe", "what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
	} {
		if got := hmacSHA256([]byte(c.key), []byte(c.msg)); hex.EncodeToString(got[:]) != c.want {
			t.Errorf("%x, want %s", got, c.want)
		}
	}
}

// The custody form of an imported root opens with the private half in the
// custody file, and with nothing in the key file.
func TestCustodyFormOpensWithTheCustodyFile(t *testing.T) {
	f := newFiles(t)
	token := f.open(t)
	k := keyring.New(token)
	root := make([]byte, 16)
	rand.Read(root)
	h, wrapped, err := seal.SealKey(token.TransportKey(), root)
	if err != nil {
		t.Fatal(err)
	}
	out, err := k.SealRoots(context.Background(), h, []keyring.RootsIn{{KeySet: joinery.KeySetID(7), Nwk: wrapped}})
	if err != nil || out[0].Err != nil {
		t.Fatal(err, out[0].Err)
	}
	blob := out[0].Nwk.Custody
	if blob[0] != keyring.FormatOAEP256 || len(blob) != 1+384+32 || out[0].Nwk.Use[0] != keyring.FormatKeyWrap || len(out[0].Nwk.Use) != 1+24+32 {
		t.Errorf("blobs of %d and %d bytes", len(blob), len(out[0].Nwk.Use))
	}
	c, err := readContents(context.Background(), f.custody, f.apart, formatCustody)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(c.CustodyPrivate)
	if err != nil {
		t.Fatal(err)
	}
	got, err := rsa.DecryptOAEP(sha256.New(), nil, parsed.(*rsa.PrivateKey), blob[1:385], nil)
	if err != nil || !bytes.Equal(got, root) {
		t.Errorf("the custody key opens something else: %v", err)
	}
	// The transport key is another one.
	if parsed, err = x509.ParsePKCS8PrivateKey(f.contents(t).Transport); err != nil {
		t.Fatal(err)
	}
	if _, err := rsa.DecryptOAEP(sha256.New(), nil, parsed.(*rsa.PrivateKey), blob[1:385], nil); err == nil {
		t.Error("the transport key opens the custody form")
	}
}

// Handles of another kind of token are refused, and calls that make no sense.
func TestTokenRefuses(t *testing.T) {
	token := newFiles(t).open(t)
	ctx := context.Background()
	if _, err := token.MAC(ctx, 0, nil); !errors.Is(err, keyring.ErrRequest) {
		t.Errorf("no MAC key: %v", err)
	}
	for _, blob := range [][]byte{nil, {1}, {2, 3}, make([]byte, 25), bytes.Repeat([]byte{1}, 25)} {
		if _, err := token.OpenRoot(ctx, blob); !errors.Is(err, keyring.ErrIntegrity) {
			t.Errorf("root blob of %d bytes: %v", len(blob), err)
		}
		if _, err := token.OpenKEK(ctx, blob); !errors.Is(err, keyring.ErrIntegrity) {
			t.Errorf("KEK blob of %d bytes: %v", len(blob), err)
		}
	}
	kek, err := token.memory.Cipher(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (wrappingKey{kek}).Wrap(nil, foreignKey{}); !errors.Is(err, keyring.ErrRequest) {
		t.Errorf("a handle of another token: %v", err)
	}
	if err := token.Check(ctx); err != nil {
		t.Errorf("check: %v", err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	if err := token.Check(ctx); err == nil {
		t.Error("closed, and ready")
	}
	if _, err := token.MAC(ctx, keyring.RowMAC, nil); err == nil {
		t.Error("closed, and a MAC was made")
	}
}

type foreignKey struct{ keyring.Key }
