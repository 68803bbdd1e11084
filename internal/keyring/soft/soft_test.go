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
		l, err := []Unlock{f.unlock, f.apart}[i].read(context.Background())
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

// A key file may have its name although writing it failed; then the custody file
// holds its only custody key.
func TestInitKeepsTheCustodyFileOfAKeyFile(t *testing.T) {
	f := newFiles(t)
	opt := InitOptions{f.keys, f.unlock, f.custody, f.apart}
	cause := errors.New("the directory does not reach the disk")
	if err := opt.takeBack(cause); !errors.Is(err, cause) || !strings.Contains(err.Error(), f.custody+" are kept") {
		t.Errorf("with a key file: %v", err)
	}
	if _, err := os.Stat(f.custody); err != nil {
		t.Errorf("the custody file of a key file is gone: %v", err)
	}
	if err := os.Remove(f.keys); err != nil {
		t.Fatal(err)
	}
	if err := opt.takeBack(cause); !errors.Is(err, cause) {
		t.Errorf("without a key file: %v", err)
	}
	if _, err := os.Stat(f.custody); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half of a pair was left: %v", err)
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
	sealer, err := seal.NewSealer(token.TransportKey())
	if err != nil {
		t.Fatal(err)
	}
	var row seal.SealedRow
	if err := sealer.SealRow(&row, root, nil); err != nil {
		t.Fatal(err)
	}
	out, err := k.SealRoots(context.Background(), sealer.Header(), []keyring.RootsIn{{KeySet: joinery.KeySetID(7), Row: row}})
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
