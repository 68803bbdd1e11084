package keyringtest

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/soft"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// Fixture is a keyring with keys of its own, and one master key that the test
// knows.
type Fixture struct {
	Keyring   keyring.Verbs
	Master    string
	MasterKey [32]byte
}

// Soft opens a software keyring for tests of other packages. All of one process
// have the same keys, since making them is slow; the keyring is closed when the
// test ends.
func Soft(tb testing.TB) Fixture {
	tb.Helper()
	return SoftNumber(tb, 0)
}

// maxSoft is how many different servers SoftNumber has.
const maxSoft = 3

// SoftNumber is Soft for tests of several servers, each with keys of its own: the
// same number is the same keys. Each number costs a second, once.
func SoftNumber(tb testing.TB, n int) Fixture {
	tb.Helper()
	made, err := softFiles[n]()
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	for name, content := range map[string][]byte{"keys": made.keys, "identity": made.identity} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	token, err := soft.Open(context.Background(), soft.Options{
		KeyFile: filepath.Join(dir, "keys"), Unlock: soft.Unlock{IdentityFile: filepath.Join(dir, "identity")},
	})
	if err != nil {
		tb.Fatal(err)
	}
	k := keyring.New(token)
	tb.Cleanup(func() {
		if err := k.Close(); err != nil {
			tb.Error(err)
		}
	})
	return Fixture{k, "test", made.master}
}

// SoftCustodian opens what a custody process of Soft has: key file and custody file.
func SoftCustodian(tb testing.TB) keyring.Custodian {
	tb.Helper()
	made, err := softFiles[0]()
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string][]byte{"keys": made.keys, "identity": made.identity, "custody": made.custody, "custody-identity": made.custodyIdentity} {
		if err := os.WriteFile(in(name), content, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	c, err := soft.OpenCustodian(context.Background(), soft.CustodianOptions{
		KeyFile: in("keys"), Unlock: soft.Unlock{IdentityFile: in("identity")},
		CustodyFile: in("custody"), CustodyUnlock: soft.Unlock{IdentityFile: in("custody-identity")},
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

type softKeys struct {
	keys, identity, custody, custodyIdentity []byte
	master                                   [32]byte
}

// softFiles make the key files of SoftNumber, each once.
var softFiles = func() (list [maxSoft]func() (softKeys, error)) {
	for i := range list {
		list[i] = sync.OnceValues(makeSoftFile)
	}
	return list
}()

func makeSoftFile() (made softKeys, err error) {
	dir, err := os.MkdirTemp("", "keyringtest")
	if err != nil {
		return made, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	made.master, err = NewSoftFile(dir, "test")
	if err != nil {
		return made, err
	}
	for name, content := range map[string]*[]byte{
		"keys": &made.keys, "identity": &made.identity, "custody": &made.custody, "custody-identity": &made.custodyIdentity,
	} {
		if *content, err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return made, err
		}
	}
	return made, nil
}

// NewSoftFile makes in dir a key file "keys" with one master key, which it
// returns, under the age identity in "identity", and a custody file "custody"
// under the one in "custody-identity". Identities open at once, where a
// passphrase takes a second.
func NewSoftFile(dir, master string) (key [32]byte, err error) {
	for _, name := range []string{"identity", "custody-identity"} {
		if err := soft.CreateIdentity(filepath.Join(dir, name)); err != nil {
			return key, err
		}
	}
	u := soft.Unlock{IdentityFile: filepath.Join(dir, "identity")}
	keys := filepath.Join(dir, "keys")
	if err := soft.Init(soft.InitOptions{
		KeyFile: keys, Unlock: u,
		CustodyFile:   filepath.Join(dir, "custody"),
		CustodyUnlock: soft.Unlock{IdentityFile: filepath.Join(dir, "custody-identity")},
	}); err != nil {
		return key, err
	}
	transport, err := soft.TransportKey(keys, u)
	if err != nil {
		return key, err
	}
	rand.Read(key[:])
	share, err := ShareOf(key, master, transport)
	if err != nil {
		return key, err
	}
	_, err = soft.AcceptMaster(keys, u, bytes.NewReader(share))
	return key, err
}

// ShareOf seals a master key that the test knows to a transport key, in the form
// in which master keys are shared.
func ShareOf(key [32]byte, name string, to seal.PublicKey) ([]byte, error) {
	header, wrapped, mac, err := seal.SealMaster(to, name, keyring.ProfileECBv1, key[:])
	if err != nil {
		return nil, err
	}
	kcv := cmac(key[:], make([]byte, 16))
	return json.Marshal(map[string]any{
		"format": "joinery-master/1", "name": name, "profile": keyring.ProfileECBv1,
		"kcv": fmt.Sprintf("%X", kcv[:3]), "seal": header, "key": wrapped, "mac": mac,
	})
}

// DerivedKeySet gives a new key set of the fixture's master key, and its roots.
func (f Fixture) DerivedKeySet(tb testing.TB, devEUI lorawan.EUI64, generation uint32) (ks joinery.KeySet, nwk, app [16]byte) {
	tb.Helper()
	ks = joinery.KeySet{
		ID: joinery.NewKeySetID(), DeviceID: 1, DevEUI: devEUI, Origin: joinery.OriginDerived,
		Master: f.Master, Generation: generation, Root10: joinery.NwkKey, Version: 1,
	}
	return ks, f.root(tb, 2, generation, devEUI), f.root(tb, 1, generation, devEUI)
}

// root derives a root key by profile ecb-v1, written out: purpose ‖ 01 ‖
// generation ‖ 00 00 ‖ DevEUI, all big-endian, encrypted by AES-256.
func (f Fixture) root(tb testing.TB, purpose byte, g uint32, e lorawan.EUI64) (root [16]byte) {
	tb.Helper()
	block := []byte{purpose, 1, byte(g >> 24), byte(g >> 16), byte(g >> 8), byte(g), 0, 0, e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7]}
	c, err := aes.NewCipher(f.MasterKey[:])
	if err != nil {
		tb.Fatal(err)
	}
	c.Encrypt(root[:], block)
	return root
}

// Main runs the tests of a package with one software keyring for all of them,
// since making its RSA keys takes a second. It has one master key, of that name.
// TestMain exits with what Main gives.
func Main(m *testing.M, master string, keys **keyring.Keyring) int {
	dir, err := os.MkdirTemp("", "keyringtest")
	if err != nil {
		return failed(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if _, err := NewSoftFile(dir, master); err != nil {
		return failed(err)
	}
	token, err := soft.Open(context.Background(), soft.Options{
		KeyFile: filepath.Join(dir, "keys"), Unlock: soft.Unlock{IdentityFile: filepath.Join(dir, "identity")},
	})
	if err != nil {
		return failed(err)
	}
	*keys = keyring.New(token)
	defer func() { _ = (*keys).Close() }()
	return m.Run()
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}
