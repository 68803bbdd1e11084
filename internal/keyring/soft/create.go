package soft

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/internal/secret"
)

// rsaBits is the size of transport and custody keys: what a hardware token holds
// as well.
const rsaBits = 3072

// InitOptions say where the key file and the custody file of a new server go,
// and how each is sealed: differently, since who runs the server must not be
// able to open the custody file.
type InitOptions struct {
	KeyFile string
	Unlock  Unlock

	CustodyFile   string
	CustodyUnlock Unlock
}

// Init makes the keys of a new server. Its steps:
//
//  1. both names are checked to be free
//  2. the custody file is written; a crash here leaves a custody key that nothing
//     uses, and the error of the next try says so
//  3. the key file is written; if that fails the custody file is removed, unless
//     there is a key file all the same
//
// It never overwrites: ErrExists.
func Init(opt InitOptions) (err error) {
	defer scrub()
	secret.Do(func() { err = initServer(opt) })
	return err
}

func initServer(opt InitOptions) error {
	if opt.Unlock == opt.CustodyUnlock {
		return fmt.Errorf("%w: key file and custody file are to be sealed under the same secret; keep them apart", ErrUnlock)
	}
	if filepath.Clean(opt.KeyFile) == filepath.Clean(opt.CustodyFile) {
		return fmt.Errorf("key file and custody file are to have one path: %w", exists(opt.CustodyFile))
	}
	keyLock, err := newFileLock(opt.KeyFile, opt.Unlock)
	if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	custodyLock, err := newFileLock(opt.CustodyFile, opt.CustodyUnlock)
	if err != nil {
		return fmt.Errorf("custody file: %w", err)
	}
	server, custody, err := newServerContents()
	if err != nil {
		return err
	}
	defer server.wipe()
	defer custody.wipe()

	if err := createKeyFile(opt.CustodyFile, custodyLock, custody); err != nil {
		return fmt.Errorf("custody file: %w", err)
	}
	if err := createKeyFile(opt.KeyFile, keyLock, server); err != nil {
		return opt.takeBack(fmt.Errorf("key file: %w", err))
	}
	return nil
}

// takeBack removes the custody file after the key file failed with cause. Where
// the key file has its name nonetheless (its directory may not have reached the
// disk) it may be in use, and the custody file holds its only custody key.
func (opt InitOptions) takeBack(cause error) error {
	if _, err := os.Lstat(opt.KeyFile); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; %s and %s are kept: use them together, or move both away and begin anew", cause, opt.KeyFile, opt.CustodyFile)
	}
	return errors.Join(cause, os.Remove(opt.CustodyFile))
}

// newFileLock reads how a new file is to be sealed, and checks that its name is
// free, before anything slow happens.
func newFileLock(path string, u Unlock) (*lock, error) {
	switch _, err := os.Lstat(path); {
	case err == nil:
		return nil, exists(path)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	l, err := u.read(context.Background())
	if err != nil {
		return nil, err
	}
	return l, l.forNewFile()
}

func createKeyFile(path string, l *lock, c *contents) error {
	sealed, err := l.seal(c)
	if err != nil {
		return err
	}
	return createFile(path, sealed)
}

// newServerContents draws all keys of a server, and its custody key.
func newServerContents() (server, custody *contents, err error) {
	server = &contents{Format: formatServer}
	for _, k := range []*[]byte{&server.JoinKEK, &server.StorageKEK, &server.RowMAC, &server.OwnerTokens} {
		*k = randomKey()
	}
	if server.Transport, server.TransportPublic, err = newRSA(); err != nil {
		return nil, nil, err
	}
	if server.Export, server.ExportPublic, err = newExportKey(); err != nil {
		server.wipe()
		return nil, nil, err
	}
	custody = &contents{Format: formatCustody}
	if custody.CustodyPrivate, server.Custody, err = newRSA(); err != nil {
		server.wipe()
		return nil, nil, err
	}
	return server, custody, nil
}

func randomKey() []byte {
	k := make([]byte, masterLen)
	rand.Read(k) // never fails
	return k
}

// newRSA draws an RSA key: PKCS #8 and SubjectPublicKeyInfo.
func newRSA() (private, public []byte, err error) {
	k, err := rsa.GenerateKey(rand.Reader, rsaBits)
	if err != nil {
		return nil, nil, err
	}
	defer wipeRSA(k)
	p, err := seal.NewPublicKey(&k.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	private, err = x509.MarshalPKCS8PrivateKey(k)
	return private, p.MarshalDER(), err
}

// newMaster draws a master key.
func newMaster(name string) (storedMaster, error) {
	if !masterName.MatchString(name) {
		return storedMaster{}, ErrMasterName
	}
	return storedMaster{Name: name, Profile: keyring.ProfileECBv1, Key: randomKey()}, nil
}
