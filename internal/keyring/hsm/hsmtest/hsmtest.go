// Package hsmtest gives tests tokens of their own: SoftHSM2's and NSS's, two
// implementations that have nothing in common. It is linked by tests only.
package hsmtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"joinery/internal/keyring"
	"joinery/internal/keyring/hsm"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/seal"
)

// PIN is the PIN of every token of tests.
const PIN = "1234-5678"

const soPIN = "8765-4321"

// Main runs the tests of a package with a place for SoftHSM's tokens, which its
// library learns from the environment when it starts. TestMain exits with what Main
// gives.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "joinery-hsm")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := Place(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Place makes dir the place of SoftHSM's tokens for this process and its children.
func Place(dir string) error {
	tokens := filepath.Join(dir, "tokens")
	if err := os.MkdirAll(tokens, 0o700); err != nil {
		return err
	}
	conf := filepath.Join(dir, "softhsm2.conf")
	text := "directories.tokendir = " + tokens + "\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Setenv("SOFTHSM2_CONF", conf)
}

// softHSM is where the library may be.
var softHSM = []string{
	"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so",
}

var softokn = []string{
	"/usr/lib/x86_64-linux-gnu/libsoftokn3.so", "/usr/lib/x86_64-linux-gnu/nss/libsoftokn3.so",
	"/usr/lib/aarch64-linux-gnu/libsoftokn3.so", "/usr/lib64/libsoftokn3.so",
}

// SoftHSMModule gives the path of SoftHSM's library. Without it the test fails and
// says what to install, as `make test` does.
func SoftHSMModule(tb testing.TB) string {
	tb.Helper()
	return library(tb, softHSM, "SoftHSM2 (libsofthsm2.so)", "softhsm2")
}

// SoftoknModule gives the path of NSS's softokn.
func SoftoknModule(tb testing.TB) string {
	tb.Helper()
	return library(tb, softokn, "NSS (libsoftokn3.so)", "libnss3")
}

func library(tb testing.TB, paths []string, what, pkg string) string {
	tb.Helper()
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	text := what + " is not here, without which custody in a hardware token is not tested: sudo apt-get install " + pkg
	tb.Fatal(text)
	return ""
}

// SoftHSM makes an empty SoftHSM token and says how to open it.
func SoftHSM(tb testing.TB) hsm.Options {
	tb.Helper()
	opt := hsm.Options{Module: SoftHSMModule(tb), Token: label(), PIN: []byte(PIN)}
	if err := hsm.Initialise(opt, []byte(soPIN)); err != nil {
		tb.Fatal(err)
	}
	return opt
}

// Softokn makes two empty tokens of NSS and says how to open them: its library
// learns of all that a process has when it starts.
func Softokn(tb testing.TB) [2]hsm.Options {
	tb.Helper()
	module := SoftoknModule(tb)
	var list [2]hsm.Options
	var specs []string
	for i := range list {
		dir := filepath.Join(tb.TempDir(), "nss")
		if err := os.Mkdir(dir, 0o700); err != nil {
			tb.Fatal(err)
		}
		list[i] = hsm.Options{Module: module, Token: label(), PIN: []byte(PIN)}
		specs = append(specs, fmt.Sprintf("0x%x=[configDir='sql:%s' tokenDescription='%s']", 4+i, dir, list[i].Token))
	}
	for i := range list {
		list[i].InitArgs = "tokens=<" + strings.Join(specs, " ") + ">"
		if err := hsm.Initialise(list[i], nil); err != nil {
			tb.Fatal(err)
		}
	}
	return list
}

func label() string {
	var b [8]byte
	rand.Read(b[:])
	return "joinery " + hex.EncodeToString(b[:])
}

// custodyKey is a custody key whose private half is in memory, so that tests can
// open what is wrapped to it. Making one takes a second.
var custodyKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 3072) })

// CustodyKey gives a custody key of tests, for an algorithm of package seal.
func CustodyKey(tb testing.TB, alg string) (*rsa.PrivateKey, seal.PublicKey) {
	tb.Helper()
	private, err := custodyKey()
	if err != nil {
		tb.Fatal(err)
	}
	public, err := seal.NewPublicKeyFor(&private.PublicKey, alg)
	if err != nil {
		tb.Fatal(err)
	}
	return private, public
}

// NextCustodyKey gives the public half of another custody key.
func NextCustodyKey(tb testing.TB, alg string) seal.PublicKey {
	tb.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		tb.Fatal(err)
	}
	public, err := seal.NewPublicKeyFor(&private.PublicKey, alg)
	if err != nil {
		tb.Fatal(err)
	}
	return public
}

// Rotating lets a test replace the storage keys of an open token. Each keyring of f
// is over a token of opt.
func Rotating(f keyringtest.Fixture, opt hsm.Options, custodyAlg string) keyringtest.Rotating {
	reopen := func(tb testing.TB) {
		tb.Helper()
		token, err := hsm.Open(context.Background(), opt)
		if err != nil {
			tb.Fatal(err)
		}
		k, is := f.Keyring.(*keyring.Keyring)
		if !is {
			tb.Fatal("the keyring is not over a token")
		}
		if err := k.Renew(context.Background(), token); err != nil {
			tb.Fatal(err)
		}
	}
	conduct := func(tb testing.TB, step func(o *hsm.Officer) error) {
		tb.Helper()
		if err := hsm.Conduct(opt, step); err != nil {
			tb.Fatal(err)
		}
		reopen(tb)
	}
	return keyringtest.Rotating{
		Fixture: f,
		Next: func(tb testing.TB) {
			tb.Helper()
			custody := NextCustodyKey(tb, custodyAlg)
			conduct(tb, func(o *hsm.Officer) error {
				_, _, err := o.EnsureCustody(hsm.CustodyKey{Public: custody}, true, true)
				return errors.Join(err, makeNext(o, hsm.JoinKEKLabel()), makeNext(o, hsm.TransportLabel()))
			})
		},
		Retire: func(tb testing.TB) {
			tb.Helper()
			conduct(tb, func(o *hsm.Officer) error {
				return errors.Join(o.Retire(hsm.JoinKEKLabel()), o.Retire(hsm.TransportLabel()), o.Retire(hsm.CustodyLabel()))
			})
		},
	}
}

func makeNext(o *hsm.Officer, label string) error {
	next, err := o.FollowingInServer(label)
	if err != nil {
		return err
	}
	_, err = o.MakeGeneration(label, next, true)
	return err
}

// Provision makes a Join Server's keys in an empty token, and brings in a master
// key that the test knows, as one shared by a maker.
func Provision(tb testing.TB, opt hsm.Options, custodyAlg string) (made hsm.Provisioned, masterKey [32]byte) {
	tb.Helper()
	_, custody := CustodyKey(tb, custodyAlg)
	made, err := hsm.Provision(context.Background(), opt, hsm.Plan{Custody: custody})
	if err != nil {
		tb.Fatal(err)
	}
	rand.Read(masterKey[:])
	share, err := keyringtest.ShareOf(masterKey, Master, made.Transport)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := hsm.AcceptMaster(opt, bytes.NewReader(share)); err != nil {
		tb.Fatal(err)
	}
	return made, masterKey
}

// Master is the name of the master key that Provision brings in.
const Master = "maker-1"

// Open opens a provisioned token as a keyring, which is closed when the test ends.
func Open(tb testing.TB, opt hsm.Options, masterKey [32]byte) keyringtest.Fixture {
	tb.Helper()
	token, err := hsm.Open(context.Background(), opt)
	if err != nil {
		tb.Fatal(err)
	}
	k := keyring.New(token)
	tb.Cleanup(func() {
		if err := k.Close(); err != nil {
			tb.Error(err)
		}
	})
	return keyringtest.Fixture{Keyring: k, Master: Master, MasterKey: masterKey}
}

// Fixture gives a keyring over a new SoftHSM token, and how to open that token.
func Fixture(tb testing.TB) (keyringtest.Fixture, hsm.Options) {
	tb.Helper()
	opt := SoftHSM(tb)
	_, key := Provision(tb, opt, seal.AlgRSAOAEP)
	return Open(tb, opt, key), opt
}
