package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// installation lays out the files of a complete configuration and returns it,
// resolved. The certificate is valid for one hour around now.
func installation(t *testing.T, now time.Time) Config {
	t.Helper()
	dir := t.TempDir()
	c, err := Parse([]byte(complete))
	if err != nil {
		t.Fatal(err)
	}
	c = c.Resolve(dir)
	for _, path := range []string{c.Database.Path, c.Keys.File, c.Keys.PassphraseFile} {
		write(t, path, []byte("x"))
	}
	cert, key := selfSigned(t, now)
	write(t, c.Interop.Certificate, cert)
	write(t, c.Interop.Key, key)
	return c
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func selfSigned(t *testing.T, now time.Time) (cert, key []byte) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"js.example.org"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, priv.Public(), priv)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func TestCheckFiles(t *testing.T) {
	now := time.Now()
	if err := installation(t, now).CheckFiles(now); err != nil {
		t.Fatalf("a sound installation: %v", err)
	}
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, c *Config)
		want   string
	}{
		{"no database", func(t *testing.T, c *Config) { remove(t, c.Database.Path) }, "joinery migrate --create"},
		{"no key file", func(t *testing.T, c *Config) { remove(t, c.Keys.File) }, "joinery ceremony soft"},
		{"no passphrase file", func(t *testing.T, c *Config) { remove(t, c.Keys.PassphraseFile) }, "keys.passphrase_file"},
		{"database is a directory", func(_ *testing.T, c *Config) { c.Database.Path = filepath.Dir(c.Database.Path) }, "not a regular file"},
		{"passphrase open to others", func(t *testing.T, c *Config) { chmod(t, c.Keys.PassphraseFile, 0o644) }, "chmod 600"},
		{"key file open to the group", func(t *testing.T, c *Config) { chmod(t, c.Keys.File, 0o640) }, "mode 0640"},
		{"TLS key open to others", func(t *testing.T, c *Config) { chmod(t, c.Interop.Key, 0o604) }, "interop.key"},
		{"no certificate", func(t *testing.T, c *Config) { remove(t, c.Interop.Certificate) }, "interop.certificate"},
		{"another key", func(t *testing.T, c *Config) { _, key := selfSigned(t, now); write(t, c.Interop.Key, key) }, "do not go together"},
		{"certificate is no PEM", func(t *testing.T, c *Config) { write(t, c.Interop.Certificate, []byte("x")) }, "do not go together"},
		{"expired certificate", func(t *testing.T, c *Config) {
			cert, key := selfSigned(t, now.Add(-48*time.Hour))
			write(t, c.Interop.Certificate, cert)
			write(t, c.Interop.Key, key)
		}, "peers will refuse it"},
		{"no certificate for the API", func(_ *testing.T, c *Config) {
			c.API.TLS = APITLS{Address: ":8446", Certificate: c.Interop.Certificate + "x", Key: c.Interop.Key}
		}, "api.tls.certificate"},
		{"API's key open to others", func(t *testing.T, c *Config) {
			cert, key := selfSigned(t, now)
			c.API.TLS = APITLS{Address: ":8446", Certificate: c.Interop.Certificate + "x", Key: c.Interop.Key + "x"}
			write(t, c.API.TLS.Certificate, cert)
			write(t, c.API.TLS.Key, key)
			chmod(t, c.API.TLS.Key, 0o644)
		}, "api.tls.key"},
		{"credential outside systemd", func(_ *testing.T, c *Config) { c.Keys.PassphraseFile, c.Keys.Credential = "", "joinery" }, "LoadCredential=joinery"},
		{"a command that others can change", func(t *testing.T, c *Config) {
			c.Keys.PassphraseFile, c.Keys.Command = "", c.Keys.PassphraseFile
			chmod(t, c.Keys.Command, 0o770)
		}, "chmod go-w"},
		{"a command that cannot run", func(_ *testing.T, c *Config) {
			c.Keys.PassphraseFile, c.Keys.Command = "", c.Keys.PassphraseFile
		}, "is no program"},
		{"socket path too long", func(_ *testing.T, c *Config) { c.API.Socket = "/" + strings.Repeat("s", 107) }, "choose a shorter one"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("CREDENTIALS_DIRECTORY", "")
			c := installation(t, now)
			tc.change(t, &c)
			err := c.CheckFiles(now)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("want %q in the error, got: %v", tc.want, err)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(complete))
	f.Add([]byte("log: {level: [info"))
	f.Add([]byte("database: &a\n  path: *a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(text)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a word")
			}
			return
		}
		_ = c.Check() // must not panic either
	})
}

// The API's TLS listener has the interop listener's certificate unless it has one
// of its own.
func TestPairs(t *testing.T) {
	c := Default()
	c.Interop.Certificate, c.Interop.Key = "interop.crt", "interop.key"
	if interop, api := c.Pairs(); api != interop || api.Setting != "interop" {
		t.Errorf("%+v, %+v", interop, api)
	}
	c.API.TLS = APITLS{Certificate: "api.crt", Key: "api.key"}
	if _, api := c.Pairs(); api != (Pair{"api.tls", "api.crt", "api.key"}) {
		t.Errorf("%+v", api)
	}
	c = c.Resolve("/etc/joinery")
	if _, api := c.Pairs(); api.Certificate != "/etc/joinery/api.crt" || api.Key != "/etc/joinery/api.key" {
		t.Errorf("%+v", api)
	}
}
