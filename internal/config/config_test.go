package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// complete is a configuration with every check passed, as text.
const complete = `
keys:
  passphrase_file: keys/server.passphrase
interop:
  certificate: pki/server.crt
  key: pki/server.key
`

func TestParseTakesDefaultsForWhatIsLeftOut(t *testing.T) {
	for _, text := range []string{"", "# nothing but a comment\n", "---\n"} {
		got, err := Parse([]byte(text))
		if err != nil {
			t.Fatalf("Parse(%q): %v", text, err)
		}
		if diff := cmp.Diff(Default(), got); diff != "" {
			t.Errorf("Parse(%q) differs from the defaults (-want +got):\n%s", text, diff)
		}
	}
	got, err := Parse([]byte("limits:\n  connections: 7\n  request_timeout: 1500ms\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Limits.Connections = 7
	want.Limits.RequestTimeout = 1500 * time.Millisecond
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("one section set (-want +got):\n%s", diff)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string // all must be in the error
	}{
		{"unknown section", "databse:\n  path: a\n", []string{"line 1", "unknown key databse", "did you mean database?"}},
		{"unknown key", "interop:\n  adress: :1\n", []string{"line 2", "unknown key interop.adress", "did you mean interop.address?"}},
		{"unlike any key", "log:\n  colour: red\n", []string{"line 2", "unknown key log.colour", "known here are level, format"}},
		{"case of a key", "Log:\n  level: info\n", []string{"line 1", "unknown key Log", "did you mean log?"}},
		{"two faults at once", "log:\n  levle: info\nops:\n  adress: x\n", []string{"line 2", "line 4"}},
		{"duplicate key", "log:\n  level: info\n  level: warn\n", []string{"line 3", "a key given twice"}},
		{"duplicate section", "log:\n  level: info\nlog:\n  format: text\n", []string{"line 3", "a key given twice"}},
		{"scalar for a section", "database: joinery.db\n", []string{"line 1", "database: want settings"}},
		{"list for a section", "limits: [1, 2]\n", []string{"line 1", "limits: want settings"}},
		{"list for the document", "- database\n", []string{"line 1", "want settings"}},
		{"empty section", "database:\nlog:\n  level: info\n", []string{"line 1", "database has no value"}},
		{"null", "log:\n  level: null\n", []string{"line 2", "log.level has no value"}},
		{"number for text", "log:\n  level: 5\n", []string{"line 2", "log.level: want text"}},
		{"text for a number", "limits:\n  connections: many\n", []string{"line 2", "limits.connections: want a whole number"}},
		{"fraction for a number", "limits:\n  connections: 1.5\n", []string{"line 2", "want a whole number"}},
		{"number too large", "limits:\n  body_bytes: 99999999999999999999\n", []string{"line 2", "want a whole number"}},
		{"time without unit", "limits:\n  request_timeout: 5\n", []string{"line 2", "want a time with its unit"}},
		{"no time", "limits:\n  request_timeout: soon\n", []string{"line 2", "want a time with its unit"}},
		{"anchor", "database: &a\n  path: x\n", []string{"line 1", "anchors"}},
		{"alias", "log:\n  level: &l info\n  format: *l\n", []string{"line 2", "anchors", "line 3"}},
		{"tag", "log:\n  level: !!str info\n", []string{"line 2", "tags"}},
		{"two documents", "log:\n  level: info\n---\nlog:\n  level: warn\n", []string{"second YAML document"}},
		{"tab", "log:\n\tlevel: info\n", []string{"line 2"}},
		{"not YAML", "log: {level: info\n", []string{"line "}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse([]byte(tc.text))
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q:\n%v", want, err)
				}
			}
		})
	}
}

// A passphrase may have been typed where it does not belong; it must not come
// back in an error, which ends in a log.
func TestParseErrorsNeverRepeatValues(t *testing.T) {
	const secret = "correct-horse-battery"
	for _, text := range []string{
		"keys:\n  passphrase: " + secret + "\n",
		"keys:\n  passphrase: \"" + secret + "\n",
		"keys: " + secret + "\n",
		"keys:\n  passphrase_file: [" + secret + "]\n",
		"keys:\n  passphrase_file: {x: " + secret + "}\n",
		"limits:\n  request_timeout: " + secret + "\n",
		"limits:\n  connections: " + secret + "\n",
		"keys:\n  passphrase_file: a: " + secret + "\n",
		"keys:\n  passphrase_file: x\n" + secret + "\n  identity_file: y\n",
		"keys: {passphrase: " + secret + "\n",
		"keys:\n  passphrase: *" + secret + "\n",
		"keys:\n  passphrase: %" + secret + "\n",
		"keys:\n  passphrase: |" + secret + "\n    x\n",
		"keys:\n  passphrase: x\n  ? " + secret + "\n",
		secret + ": 1\n" + secret + ": 2\n",
		"log:\n  level: " + secret + "\n",
		secret,
	} {
		c, err := Parse([]byte(text))
		if err == nil {
			err = c.Check()
		}
		if err == nil {
			t.Errorf("accepted %q", text)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("the error for %q repeats the value:\n%v", text, err)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(*Config)
		want string
	}{
		{"no way to unlock", func(c *Config) { c.Keys.PassphraseFile = "" }, "set one of passphrase_file"},
		{"two ways to unlock", func(c *Config) { c.Keys.IdentityFile = "id" }, "passphrase_file and identity_file are set"},
		{"three ways to unlock", func(c *Config) { c.Keys.IdentityFile, c.Keys.Credential = "id", "x" }, "keep one way"},
		{"a command beside a file", func(c *Config) { c.Keys.Command = "unlock" }, "passphrase_file and command are set"},
		{"credential is a path", func(c *Config) { c.Keys.PassphraseFile, c.Keys.Credential = "", "../x" }, "not a path"},
		{"unknown backend", func(c *Config) { c.Keys.Backend = "hsm" }, "keys.backend: want one of soft, pkcs11"},
		{"token without its backend", func(c *Config) { c.Keys.PKCS11.Module = "/lib/p11.so" }, "keys.pkcs11.module: is set, and keys.backend is soft"},
		{"backend without its token", func(c *Config) { c.Keys = inToken(); c.Keys.PKCS11.Module = "" }, "keys.pkcs11.module: is missing"},
		{"token without label", func(c *Config) { c.Keys = inToken(); c.Keys.PKCS11.Token = "" }, "keys.pkcs11.token: is missing"},
		{"token without PIN", func(c *Config) { c.Keys = inToken(); c.Keys.PKCS11.PINFile = "" }, "set one of pin_file and pin_credential"},
		{"token with two PINs", func(c *Config) { c.Keys = inToken(); c.Keys.PKCS11.PINCredential = "pin" }, "pin_file and pin_credential are set"},
		{"PIN in a path", func(c *Config) {
			c.Keys = inToken()
			c.Keys.PKCS11.PINFile, c.Keys.PKCS11.PINCredential = "", "/x"
		}, "keys.pkcs11.pin_credential: want the name"},
		{"token with a passphrase", func(c *Config) { c.Keys = inToken(); c.Keys.PassphraseFile = "x" }, "keys.passphrase_file: is set, and keys.backend is pkcs11"},
		{"too many sessions", func(c *Config) { c.Keys = inToken(); c.Keys.PKCS11.Sessions = 257 }, "keys.pkcs11.sessions: is 257: want 0 to 256"},
		{"unknown level of custody", func(c *Config) { c.Keys = inToken(); c.Keys.PKCS11.MinimumLevel = "high" }, "keys.pkcs11.minimum_level: want one of in-token"},
		{"negative answers", func(c *Config) { c.Keys = inToken(); c.Keys.PKCS11.DevicePerMinute = -1 }, "keys.pkcs11.device_per_minute: is -1"},
		{"negative memory", func(c *Config) { c.Keys = inToken(); c.Keys.PKCS11.RecycleRSS = -1 }, "keys.pkcs11.recycle_rss: is -1"},
		{"no database", func(c *Config) { c.Database.Path = "" }, "database.path: is missing"},
		{"no key file", func(c *Config) { c.Keys.File = "" }, "keys.file: is missing"},
		{"no certificate", func(c *Config) { c.Interop.Certificate = "" }, "interop.certificate: is missing"},
		{"no key", func(c *Config) { c.Interop.Key = "" }, "interop.key: is missing"},
		{"no socket", func(c *Config) { c.API.Socket = "" }, "api.socket: is missing"},
		{"address without port", func(c *Config) { c.Interop.Address = "127.0.0.1" }, "interop.address: want host:port"},
		{"port out of range", func(c *Config) { c.Interop.Address = ":70000" }, "interop.address: want host:port"},
		{"API open to others", func(c *Config) { c.API.Address = "0.0.0.0:8444" }, "api.address: want a loopback address"},
		{"API on all addresses", func(c *Config) { c.API.Address = ":8444" }, "api.address: want a loopback address"},
		{"API over TLS without port", func(c *Config) { c.API.TLS.Address = "127.0.0.1" }, "api.tls.address: want host:port"},
		{"API over TLS at another's port", func(c *Config) { c.API.TLS.Address = c.Ops.Address }, "is the same as api.tls.address"},
		{"certificate without key", func(c *Config) { c.API.TLS = APITLS{Address: ":8446", Certificate: "api.crt"} }, "api.tls: give certificate and key"},
		{"certificate without address", func(c *Config) { c.API.TLS = APITLS{Certificate: "api.crt", Key: "api.key"} }, "api.tls.address: is missing"},
		{"proxies that are no networks", func(c *Config) { c.API.TrustedProxies = "127.0.0.1" }, "api.trusted_proxies: want networks"},
		{"proxies with bits behind", func(c *Config) { c.API.TrustedProxies = "10.0.0.1/32 10.20.0.1/16" }, "10.20.0.0/16 is the network"},
		{"everybody a proxy", func(c *Config) { c.API.TrustedProxies = "::/0" }, "is everybody"},
		{"two listeners on one port", func(c *Config) { c.Ops.Address = c.API.Address }, "ops.address: is the same as api.address"},
		{"body limit too small", func(c *Config) { c.Limits.BodyBytes = 10 }, "limits.body_bytes: is 10: want 2048 to"},
		{"no connections", func(c *Config) { c.Limits.Connections = 0 }, "limits.connections: is 0"},
		{"negative time", func(c *Config) { c.Limits.DrainTimeout = -1 }, "limits.drain_timeout: is -1ns: want 0s to 10m"},
		{"provider without an address", func(c *Config) { c.SignIn.OIDC.Issuer = "https://id.example.com" }, "sign_in.url: is missing"},
		{"provider without a client", func(c *Config) {
			c.SignIn.URL, c.SignIn.OIDC.Issuer = "https://js.example.com", "https://id.example.com"
		}, "sign_in.oidc.client_id: is missing"},
		{"provider over http", func(c *Config) {
			c.SignIn.URL, c.SignIn.OIDC = "https://js.example.com", OIDC{Issuer: "http://id.example.com", ClientID: "x"}
		}, "sign_in.oidc.issuer: want https://"},
		{"sign-in over http", func(c *Config) { c.SignIn.URL = "http://js.example.com" }, "sign_in.url: want https://"},
		{"sign-in at an address", func(c *Config) { c.SignIn.URL = "https://192.0.2.1" }, "want a host name"},
		{"sign-in under a path", func(c *Config) { c.SignIn.URL = "https://js.example.com/joinery" }, "without a path"},
		{"endless session", func(c *Config) { c.SignIn.URL, c.SignIn.Session = "https://js.example.com", 8760*time.Hour }, "sign_in.session: is"},
		{"unknown level", func(c *Config) { c.Log.Level = "loud" }, "log.level: want one of debug, info, warn, error"},
		{"unknown format", func(c *Config) { c.Log.Format = "xml" }, "log.format: want one of text, json"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := Parse([]byte(complete))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Check(); err != nil {
				t.Fatalf("before the change: %v", err)
			}
			tc.set(&c)
			err = c.Check()
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("want %q in the error, got: %v", tc.want, err)
			}
		})
	}
}

// inToken is keys in a hardware token, as they should be configured.
func inToken() Keys {
	k := Default().Keys
	k.Backend = BackendPKCS11
	k.PKCS11.Module, k.PKCS11.Token, k.PKCS11.PINFile = "/lib/p11.so", "joinery", "pin"
	return k
}

func TestTokenIsAccepted(t *testing.T) {
	c, err := Parse([]byte(complete))
	if err != nil {
		t.Fatal(err)
	}
	c.Keys = inToken()
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	c = c.Resolve("/etc/joinery")
	if p := c.Keys.PKCS11; p.PINFile != "/etc/joinery/pin" || p.Worker != "" {
		t.Errorf("%+v", p)
	}
	// A missing library and PIN are told, and nothing about a key file.
	err = c.Keys.checkFiles()
	for _, want := range []string{"keys.pkcs11.module: /lib/p11.so does not exist", "keys.pkcs11.pin_file: /etc/joinery/pin does not exist"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in: %v", want, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "keys.file") {
		t.Error(err)
	}
}

func TestLoadResolvesPathsAgainstTheFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "joinery.yaml")
	text := complete + "database:\n  path: /var/lib/joinery/state.db\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]struct{ got, want string }{
		"database.path":        {c.Database.Path, "/var/lib/joinery/state.db"},
		"keys.file":            {c.Keys.File, filepath.Join(dir, "keys/server.age")},
		"keys.passphrase_file": {c.Keys.PassphraseFile, filepath.Join(dir, "keys/server.passphrase")},
		"keys.identity_file":   {c.Keys.IdentityFile, ""},
		"interop.certificate":  {c.Interop.Certificate, filepath.Join(dir, "pki/server.crt")},
		"interop.key":          {c.Interop.Key, filepath.Join(dir, "pki/server.key")},
		"api.socket":           {c.API.Socket, filepath.Join(dir, "joinery.sock")},
		"api.tls.certificate":  {c.API.TLS.Certificate, ""},
	} {
		if got.got != got.want {
			t.Errorf("%s = %q, want %q", name, got.got, got.want)
		}
	}
}

func TestLoadOfMissingFileSaysWhatToDo(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"))
	if err == nil || !strings.Contains(err.Error(), "does not exist") || !strings.Contains(err.Error(), "--config") {
		t.Errorf("got: %v", err)
	}
}

// Every key is printed under its own documentation, and what is printed reads
// back as what it was printed from, whatever the values.
func TestPrintReadsBack(t *testing.T) {
	odd := Default()
	n := 0
	fill(reflect.ValueOf(&odd).Elem(), &n)
	odd.Database.URL = "postgres://it's@db/a%20%23b?search_path=%22so%22&sslmode=require" // others are not printed
	for name, c := range map[string]Config{"defaults": Default(), "odd values": odd} {
		var out bytes.Buffer
		if err := Print(&out, c); err != nil {
			t.Fatal(err)
		}
		got, err := Parse(out.Bytes())
		if err != nil {
			t.Fatalf("%s: what was printed does not read: %v\n%s", name, err, out.String())
		}
		if diff := cmp.Diff(c, got); diff != "" {
			t.Errorf("%s: read back differs (-printed +read):\n%s", name, diff)
		}
	}
}

// fill gives every field of v a value of its own, with characters that YAML
// must quote.
func fill(v reflect.Value, n *int) {
	for i := range v.NumField() {
		*n++
		switch f := v.Field(i); f.Interface().(type) {
		case string:
			f.SetString([]string{"a: b #", "5", "null", "*x", " padded ", "it's \"so\"", "né\u2028"}[*n%7])
		case int:
			f.SetInt(int64(*n) * 1001)
		case time.Duration:
			f.SetInt(int64(*n) * int64(61*time.Second))
		case bool:
			f.SetBool(true)
		default:
			fill(f, n)
		}
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	docs, err := fieldComments(source)
	if err != nil {
		t.Fatal(err)
	}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for f := range typ.Fields() {
			if len(strings.Fields(docs[typ.Name()+"."+f.Name])) < 6 {
				t.Errorf("%s.%s has no documentation", typ.Name(), f.Name)
			}
			if key(f) == "" {
				t.Errorf("%s.%s has no yaml key", typ.Name(), f.Name)
			}
			if f.Type.Kind() == reflect.Struct {
				walk(f.Type)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
}

func TestShortDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", 2 * time.Minute: "2m", 90 * time.Second: "1m30s",
		10 * time.Minute: "10m", time.Hour: "1h", 20 * time.Hour: "20h", 61 * time.Minute: "1h1m",
	} {
		if got := shortDuration(d); got != want {
			t.Errorf("%d: got %s, want %s", d, got, want)
		}
	}
}
