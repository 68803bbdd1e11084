package exportfile_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"joinery/internal/exportfile"
)

// passphrase of the keys in these tests.
const passphrase = "correct horse"

func with(text string) exportfile.Unlock {
	return exportfile.Unlock{Passphrase: func() ([]byte, error) { return []byte(text), nil }}
}

// openssl protects a key by the passphrase.
func openssl(t *testing.T, key []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", append([]string{"pkcs8", "-topk8", "-passout", "pass:" + passphrase}, args...)...)
	cmd.Stdin = bytes.NewReader(key)
	return must[[]byte](t)(cmd.Output())
}

// Keys that openssl and age protect open by the passphrase or the identity, and by no
// other; nothing of either is repeated.
func TestProtectedKeys(t *testing.T) {
	der, err := x509.MarshalPKCS8PrivateKey(ecKey)
	plain := pemOf(t, "PRIVATE KEY", der, err)
	scrypt := must[*age.ScryptRecipient](t)(age.NewScryptRecipient(passphrase))
	scrypt.SetWorkFactor(10)
	identity, other := must[*age.X25519Identity](t)(age.GenerateX25519Identity()), must[*age.X25519Identity](t)(age.GenerateX25519Identity())
	byPassphrase := map[string][]byte{
		"openssl's own":  openssl(t, plain),
		"AES-128, SHA-1": openssl(t, plain, "-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA1", "-iter", "1000"),
		"AES-192":        openssl(t, plain, "-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA384", "-iter", "1000"),
		"SHA-512":        openssl(t, plain, "-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512", "-iter", "1000"),
		"age":            sealed(t, plain, scrypt, false),
	}
	want := must[exportfile.Recipient](t)(exportfile.NewRecipient(&ecKey.PublicKey)).Thumbprint()
	opens := func(name string, text []byte, u exportfile.Unlock) {
		t.Helper()
		k, err := exportfile.OpenPrivateKey(bytes.Clone(text), u)
		if err != nil || k.Recipient().Thumbprint() != want {
			t.Errorf("%s: %v", name, err)
			return
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
	refused := func(name string, text []byte, u exportfile.Unlock) {
		t.Helper()
		_, err := exportfile.OpenPrivateKey(bytes.Clone(text), u)
		if !errors.Is(err, exportfile.ErrPrivateKey) || strings.Contains(err.Error(), "horse") || strings.Contains(err.Error(), "AGE-SECRET") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range byPassphrase {
		opens(name, text, with(passphrase))
		refused(name+", another passphrase", text, with("battery horse"))
		refused(name+", none", text, exportfile.Unlock{})
	}
	toIdentity := sealed(t, plain, identity.Recipient(), true)
	opens("to an identity", toIdentity, exportfile.Unlock{Identities: []byte(identity.String() + "\n")})
	refused("to another", toIdentity, exportfile.Unlock{Identities: []byte(other.String())})
	refused("no identity", toIdentity, exportfile.Unlock{Identities: []byte("AGE-SECRET-KEY-1")})
	refused("by scrypt", openssl(t, plain, "-scrypt", "-scrypt_N", "1024"), with(passphrase))
	refused("in an old way", openssl(t, plain, "-v1", "PBE-SHA1-3DES"), with(passphrase))
	asked := errors.New("nobody is there")
	if _, err := exportfile.OpenPrivateKey(bytes.Clone(byPassphrase["AES-192"]), exportfile.Unlock{Passphrase: func() ([]byte, error) { return nil, asked }}); !errors.Is(err, asked) {
		t.Error(err)
	}
}

func sealed(t *testing.T, text []byte, to age.Recipient, armored bool) []byte {
	t.Helper()
	var file bytes.Buffer
	var out io.Writer = &file
	end := func() error { return nil }
	if armored {
		a := armor.NewWriter(&file)
		out, end = a, a.Close
	}
	w := must[io.WriteCloser](t)(age.Encrypt(out, to))
	_, err := w.Write(text)
	if err := errors.Join(err, w.Close(), end()); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// Whatever stands in a protected file, it is an error and no more.
func FuzzProtectedKey(f *testing.F) {
	for range 3 {
		text := make([]byte, 64)
		rand.Read(text)
		f.Add(text)
	}
	f.Add([]byte("age-encryption.org/v1\n-> scrypt AAAA 10\n"))
	f.Add([]byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIA=\n-----END ENCRYPTED PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 4096 {
			return
		}
		k, err := exportfile.OpenPrivateKey(text, exportfile.Unlock{})
		if err == nil {
			_ = k.Close()
		} else if !errors.Is(err, exportfile.ErrPrivateKey) {
			t.Error(err)
		}
	})
}
