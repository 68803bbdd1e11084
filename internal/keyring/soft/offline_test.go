package soft

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/lorawan"
	"joinery/manifest"
)

func TestNewMaster(t *testing.T) {
	f := newFiles(t)
	made, err := NewMaster(f.keys, f.unlock, "maker-1.2026_A")
	if err != nil {
		t.Fatal(err)
	}
	if made.Profile != "ecb-v1" || len(made.KCV) != 6 {
		t.Errorf("%+v", made)
	}
	token := f.open(t)
	if list := token.Masters(); len(list) != 1 || list[0] != made {
		t.Errorf("masters %+v", list)
	}
	before, err := os.ReadFile(f.keys)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewMaster(f.keys, f.unlock, made.Name); !errors.Is(err, ErrMasterExists) {
		t.Errorf("the same name again: %v", err)
	}
	for _, name := range []string{"", " ", ".a", "a b", `a"`, "ä", strings.Repeat("a", 65), "a/b"} {
		if _, err := NewMaster(f.keys, f.unlock, name); !errors.Is(err, ErrMasterName) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	if after, err := os.ReadFile(f.keys); err != nil || !bytes.Equal(before, after) {
		t.Errorf("a refused change wrote the file: %v", err)
	}
	if _, err := NewMaster(f.custody, f.apart, "x"); !errors.Is(err, ErrFormat) {
		t.Errorf("into the custody file: %v", err)
	}
	if _, err := NewMaster(f.keys, f.apart, "x"); !errors.Is(err, ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if info, err := os.Stat(f.keys); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v after a change, %v", info.Mode(), err)
	}
}

// Changes at once lose nothing.
func TestConcurrentChanges(t *testing.T) {
	f := newFiles(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, err := NewMaster(f.keys, f.unlock, "m"+string(rune('a'+i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list := f.open(t).Masters()
	if len(list) != 8 {
		t.Fatalf("%d master keys of 8", len(list))
	}
	for i, m := range list {
		if m.Name != "m"+string(rune('a'+i)) {
			t.Errorf("%d is %s: not in order", i, m.Name)
		}
	}
}

// A master key goes from one key file to another; both derive the same roots.
func TestShareMaster(t *testing.T) {
	from, to := newFiles(t), initFiles(t)
	made, err := NewMaster(from.keys, from.unlock, "shared")
	if err != nil {
		t.Fatal(err)
	}
	transport, err := TransportKey(to.keys, to.unlock)
	if err != nil {
		t.Fatal(err)
	}
	var doc bytes.Buffer
	if shared, err := ShareMaster(from.keys, from.unlock, "shared", transport, &doc); err != nil || shared != made {
		t.Fatal(shared, err)
	}
	master := from.contents(t).Masters[0].Key
	if bytes.Contains(doc.Bytes(), master) {
		t.Error("the document holds the key")
	}
	if _, err := ShareMaster(from.keys, from.unlock, "other", transport, &doc); !errors.Is(err, keyring.ErrUnknownMaster) {
		t.Errorf("no such master: %v", err)
	}
	if _, err := AcceptMaster(from.keys, from.unlock, bytes.NewReader(doc.Bytes())); !errors.Is(err, ErrShare) || !strings.Contains(err.Error(), "transport key") {
		t.Errorf("accepted by another file than it is for: %v", err)
	}
	for range 2 { // the second time changes nothing
		got, err := AcceptMaster(to.keys, to.unlock, bytes.NewReader(doc.Bytes()))
		if err != nil || got != made {
			t.Fatal(got, err)
		}
	}
	a, b := from.open(t), to.open(t)
	d := keyring.Derivation{Root: 1, Generation: 3, DevEUI: lorawan.EUI64{9}}
	if derive(t, a, "shared", d) != derive(t, b, "shared", d) {
		t.Error("the two derive different roots")
	}

	var s seal.Master
	if err := json.Unmarshal(doc.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*seal.Master)
		want   error
	}{
		"KCV":     {func(s *seal.Master) { s.KCV = "000000" }, ErrShare},
		"name":    {func(s *seal.Master) { s.Name = "a b" }, ErrShare},
		"profile": {func(s *seal.Master) { s.Profile = "none" }, ErrShare},
		"format":  {func(s *seal.Master) { s.Format = "joinery-master/2" }, ErrShare},
		"key":     {func(s *seal.Master) { s.Key[3] ^= 1 }, ErrShare},
		"MAC":     {func(s *seal.Master) { s.MAC[3] ^= 1 }, ErrShare},
		"no MAC":  {func(s *seal.Master) { s.MAC = nil }, ErrShare},
		"renamed": {func(s *seal.Master) { s.Name = "other" }, ErrShare},
		"KEK":     {func(s *seal.Master) { sealAsKEK(t, s, transport) }, ErrShare},
		"header":  {func(s *seal.Master) { s.Seal.Key[3] ^= 1 }, ErrShare},
		"length": {func(s *seal.Master) {
			s.Seal, s.Key, s.MAC, _ = seal.SealMaster(transport, s.Name, s.Profile, make([]byte, 16))
		}, ErrShare},
		"another": {func(s *seal.Master) { reseal(t, s, transport) }, ErrMasterExists},
	} {
		var changed seal.Master
		if err := json.Unmarshal(doc.Bytes(), &changed); err != nil {
			t.Fatal(err)
		}
		c.change(&changed)
		text, err := json.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := AcceptMaster(to.keys, to.unlock, bytes.NewReader(text)); !errors.Is(err, c.want) {
			t.Errorf("%s changed: %v", name, err)
		}
	}
	for _, text := range []string{"", "{}", "garbage"} {
		if _, err := AcceptMaster(to.keys, to.unlock, strings.NewReader(text)); !errors.Is(err, ErrShare) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// reseal puts another key under the same name.
func reseal(t *testing.T, s *seal.Master, to seal.PublicKey) {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	kcv, err := keyCheckValue(key)
	if err != nil {
		t.Fatal(err)
	}
	s.KCV = kcv
	if s.Seal, s.Key, s.MAC, err = seal.SealMaster(to, s.Name, s.Profile, key); err != nil {
		t.Fatal(err)
	}
}

// sealAsKEK puts another key, sealed as a KEK, in its place.
func sealAsKEK(t *testing.T, s *seal.Master, to seal.PublicKey) {
	t.Helper()
	reseal(t, s, to)
	key := make([]byte, 32)
	rand.Read(key)
	h, kek, err := seal.SealKEK(to, s.Name, s.Profile, key)
	if err != nil {
		t.Fatal(err)
	}
	if s.KCV, err = keyCheckValue(key); err != nil {
		t.Fatal(err)
	}
	s.Seal, s.Key, s.MAC = h, kek.Wrapped, kek.MAC
}

func derive(t *testing.T, token *Token, master string, d keyring.Derivation) [16]byte {
	t.Helper()
	k, err := token.DeriveRoot(context.Background(), master, d)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Destroy()
	return k.(*key).raw
}

// factoryOptions names a new file and makes its passphrase.
func factoryOptions(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	return Options{
		KeyFile: filepath.Join(dir, "factory.age"),
		Unlock:  Unlock{PassphraseFile: write(t, filepath.Join(dir, "factory.passphrase"), rand.Text(), 0o600), workFactor: 4},
	}
}

// newFactory makes a factory with one master key, and gives that. Its transport
// key is that of the template.
func newFactory(t *testing.T) (Options, []byte) {
	t.Helper()
	opt := factoryOptions(t)
	made, err := template()
	if err != nil {
		t.Fatal(err)
	}
	factory := contents{Format: formatFactory, Transport: made[0].Transport, TransportPublic: made[0].TransportPublic}
	if factory.Signer, factory.Certificate, err = newSigner(FactoryOptions{CommonName: "Test Signer 001", Organisation: "Test"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	l, err := opt.Unlock.read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := createKeyFile(opt.KeyFile, l, &factory); err != nil {
		t.Fatal(err)
	}
	if _, err := NewMaster(opt.KeyFile, opt.Unlock, "maker"); err != nil {
		t.Fatal(err)
	}
	c, err := readContents(context.Background(), opt.KeyFile, opt.Unlock, formatFactory)
	if err != nil {
		t.Fatal(err)
	}
	return opt, c.Masters[0].Key
}

// Elements of a factory carry the roots that a server with the same master key
// derives, sealed to whoever makes the silicon.
func TestFactoryProvisions(t *testing.T) {
	opt, master := newFactory(t)
	factory, err := OpenFactory(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = factory.Close() }()
	recipient, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	public, err := seal.NewPublicKey(&recipient.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.NewSealer(public)
	if err != nil {
		t.Fatal(err)
	}
	devEUI, err := lorawan.ParseEUI64("0004A310001AA90A")
	if err != nil {
		t.Fatal(err)
	}
	nwk, app, err := factory.Provision(context.Background(), "maker", 0x0A0B0C0D, devEUI, sealer)
	if err != nil {
		t.Fatal(err)
	}
	opener, err := seal.NewOpener(recipient, sealer.Header())
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(master)
	if err != nil {
		t.Fatal(err)
	}
	item := seal.ElementItem("id", lorawan.EUI64{1}, devEUI, nil, nwk, app, nil, nil)
	mac, err := sealer.MAC(item)
	if err != nil {
		t.Fatal(err)
	}
	if err := opener.Open(item, mac, func(got [][]byte) error {
		for i, purpose := range []byte{2, 1} {
			want := make([]byte, 16)
			block.Encrypt(want, []byte{purpose, 1, 0x0A, 0x0B, 0x0C, 0x0D, 0, 0, 0x00, 0x04, 0xA3, 0x10, 0x00, 0x1A, 0xA9, 0x0A})
			if !bytes.Equal(got[i], want) {
				t.Errorf("purpose %d: another key", purpose)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if _, _, err := factory.Provision(context.Background(), "nobody", 1, devEUI, sealer); !errors.Is(err, keyring.ErrUnknownMaster) {
		t.Errorf("no such master: %v", err)
	}

	// The server of the story: it takes the master key over.
	server := newFiles(t)
	transport, err := TransportKey(server.keys, server.unlock)
	if err != nil {
		t.Fatal(err)
	}
	var doc bytes.Buffer
	if _, err := ShareMaster(opt.KeyFile, opt.Unlock, "maker", transport, &doc); err != nil {
		t.Fatal(err)
	}
	if _, err := AcceptMaster(server.keys, server.unlock, &doc); err != nil {
		t.Fatal(err)
	}
	d := keyring.Derivation{Root: 1 /* NwkKey */, Generation: 0x0A0B0C0D, DevEUI: devEUI}
	derived := derive(t, server.open(t), "maker", d)
	if err := opener.Open(item, mac, func(got [][]byte) error {
		if !bytes.Equal(got[0], derived[:]) {
			t.Error("factory and server derive different roots")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// The signature is ES256, and the certificate has the shape of a log signer's.
func TestFactorySigns(t *testing.T) {
	opt, _ := newFactory(t)
	factory, err := OpenFactory(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(factory.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	if cert.IsCA || len(cert.SubjectKeyId) != 20 || !bytes.Equal(cert.SubjectKeyId, cert.AuthorityKeyId) || cert.Subject.CommonName != "Test Signer 001" ||
		cert.NotAfter.Sub(cert.NotBefore) < 9*365*24*time.Hour || cert.CheckSignatureFrom(cert) == nil && cert.IsCA {
		t.Errorf("certificate %+v", cert.Subject)
	}
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		t.Errorf("not self-signed: %v", err)
	}
	if cert.SerialNumber.Sign() != 1 {
		t.Errorf("serial number %v", cert.SerialNumber)
	}
	id, public, err := manifest.ParseSigner(factory.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	if len(id.KID) != 27 || len(id.X5TS256) != 43 {
		t.Errorf("signer %+v", id)
	}
	input := []byte("protected.payload")
	for range 200 { // r or s begins with a zero byte once in 128 times
		signature, err := factory.Sign(input)
		if err != nil || len(signature) != 64 {
			t.Fatalf("%d bytes, %v", len(signature), err)
		}
		hash := sha256.Sum256(input)
		if !ecdsa.Verify(public, hash[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
			t.Fatal("the signature does not verify")
		}
	}
	if err := factory.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := factory.Sign(input); !errors.Is(err, keyring.ErrClosed) {
		t.Errorf("sign after Close: %v", err)
	}
	if _, _, err := factory.Provision(context.Background(), "maker", 1, lorawan.EUI64{}, nil); !errors.Is(err, keyring.ErrClosed) {
		t.Errorf("provision after Close: %v", err)
	}
	if err := factory.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestInitFactory(t *testing.T) {
	opt := factoryOptions(t)
	again := FactoryOptions{KeyFile: opt.KeyFile, Unlock: opt.Unlock, CommonName: "x"}
	if err := InitFactory(again); err != nil {
		t.Fatal(err)
	}
	factory, err := OpenFactory(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	if list := factory.Masters(); len(list) != 0 {
		t.Errorf("a new factory has %d master keys", len(list))
	}
	if err := factory.Close(); err != nil {
		t.Error(err)
	}
	if err := InitFactory(again); !errors.Is(err, ErrExists) {
		t.Errorf("over a file: %v", err)
	}
	again.CommonName = ""
	if err := InitFactory(again); err == nil {
		t.Error("a signer without name")
	}
	server := newFiles(t)
	if _, err := OpenFactory(context.Background(), Options{server.keys, server.unlock}); !errors.Is(err, ErrFormat) {
		t.Errorf("a server's file as a factory: %v", err)
	}
	if _, err := Open(context.Background(), opt); !errors.Is(err, ErrFormat) {
		t.Errorf("a factory's file as a server: %v", err)
	}
}
