package soft

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"joinery/internal/exportfile"
	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/secret"
)

// CustodianOptions say which files to open for an export or a rotation.
type CustodianOptions struct {
	// CustodyFile holds the private half of the custody key: what opens every
	// imported root key. Without it ("") only derived key sets are exported.
	CustodyFile   string
	CustodyUnlock Unlock
	// KeyFile is the server's: master keys, the row MAC key, the key that signs
	// exports. Without it ("") root keys can only be sealed anew, for a server that
	// checks by itself. A file that has no key for exports yet is ErrNoExportKey.
	KeyFile string
	Unlock  Unlock
}

// OpenCustodian opens them, in a process that is not the server.
func OpenCustodian(ctx context.Context, opt CustodianOptions) (c keyring.Custodian, err error) {
	if opt.KeyFile == "" && opt.CustodyFile == "" {
		return nil, fmt.Errorf("%w: name the custody file, the server's key file, or both", ErrUnlock)
	}
	defer scrub()
	secret.Do(func() { c, err = openCustodian(ctx, opt) })
	return c, err
}

func openCustodian(ctx context.Context, opt CustodianOptions) (keyring.Custodian, error) {
	memory, err := secret.NewMemory()
	if err != nil {
		return nil, err
	}
	t := &custodyToken{memory: memory}
	if opt.CustodyFile != "" {
		err = t.openCustody(ctx, opt)
	}
	if opt.KeyFile != "" && err == nil {
		err = t.openServer(ctx, opt)
	}
	if err != nil {
		return nil, errors.Join(err, memory.Close())
	}
	return keyring.NewCustodian(t), nil
}

// custodyToken is a keyring.CustodyToken: custody file and key file in memory.
type custodyToken struct {
	memory     *secret.Memory
	private    secret.Key // PKCS #8
	generation uint32     // 0: there is no private

	server  bool // the rest is there
	rowMAC  secret.Key
	masters masters
	signing []signing // the newest last
}

// signing is a key that signs exports.
type signing struct {
	private secret.Key // PKCS #8
	public  exportfile.Signer
}

// ErrNoExportKey says that the key file is from a version without exports.
var ErrNoExportKey = errors.New("this key file has no key that signs exports yet; joinery rotate export-key --new draws one, and then reload the server")

func (t *custodyToken) openCustody(ctx context.Context, opt CustodianOptions) error {
	c, err := readContents(ctx, opt.CustodyFile, opt.CustodyUnlock, formatCustody)
	if err != nil {
		return err
	}
	defer c.wipe()
	if t.private, err = t.memory.Key(c.CustodyPrivate); err != nil {
		return fmt.Errorf("%s: %w: custody key", opt.CustodyFile, ErrDamaged)
	}
	t.generation = max(c.CustodyGeneration, 1)
	return nil
}

func (t *custodyToken) openServer(ctx context.Context, opt CustodianOptions) error {
	c, err := readContents(ctx, opt.KeyFile, opt.Unlock, formatServer, formatRotated)
	if err != nil {
		return err
	}
	defer c.wipe()
	if len(c.ExportPublic) == 0 {
		return fmt.Errorf("%s: %w", opt.KeyFile, ErrNoExportKey)
	}
	if err := t.loadServer(c); err != nil {
		return fmt.Errorf("%s: %w", opt.KeyFile, err)
	}
	t.server = true
	return nil
}

func (t *custodyToken) loadServer(c *contents) (err error) {
	if t.rowMAC, err = t.memory.Key(c.RowMAC); err != nil {
		return err
	}
	if t.masters, err = loadMasters(t.memory, c.Masters); err != nil {
		return err
	}
	for _, k := range c.exportKeys() {
		if len(k.Private) == 0 {
			continue // it was retired
		}
		s := signing{}
		if s.public, err = exportfile.ParseSignerDER(k.Public); err != nil {
			return fmt.Errorf("%w: key of exports", ErrDamaged)
		}
		if s.private, err = t.memory.Key(k.Private); err != nil {
			return err
		}
		t.signing = append(t.signing, s)
	}
	return nil
}

// Generations implements keyring.CustodyToken.
func (t *custodyToken) Generations() []uint32 {
	if t.generation == 0 {
		return nil
	}
	return []uint32{t.generation}
}

// Signers implements keyring.CustodyToken.
func (t *custodyToken) Signers() (list []exportfile.Signer) {
	for _, s := range t.signing {
		list = append(list, s.public)
	}
	return list
}

// Wrappings implements keyring.CustodyToken: software can make all of them.
func (t *custodyToken) Wrappings() []exportfile.Wrapping { return exportfile.AllWrappings() }

// Checks implements keyring.CustodyToken.
func (t *custodyToken) Checks() bool { return t.server }

// MAC implements keyring.CustodyToken.
func (t *custodyToken) MAC(_ context.Context, msg []byte) (mac [sha256.Size]byte, err error) {
	err = t.rowMAC.Use(func(key []byte) error {
		mac = hmacSHA256(key, msg)
		return nil
	})
	return mac, err
}

// Sign implements keyring.CustodyToken.
func (t *custodyToken) Sign(_ context.Context, by exportfile.Signer, hash [sha256.Size]byte) (signature [exportfile.SignatureLen]byte, err error) {
	i := slices.IndexFunc(t.signing, func(s signing) bool { return s.public == by })
	if i < 0 {
		return signature, keyring.ErrRequest
	}
	err = useP256(t.signing[i].private, func(key *ecdsa.PrivateKey) error {
		defer wipeKey(key)
		der, err := ecdsa.SignASN1(rand.Reader, key, hash[:])
		if err != nil {
			return err
		}
		signature, err = exportfile.RawSignature(der)
		return err
	})
	return signature, err
}

// Close implements keyring.CustodyToken: it wipes every key.
func (t *custodyToken) Close() error { return t.memory.Close() }

// OpenExport implements keyring.CustodyToken. The custody key is readable in memory
// until the batch is closed: an RSA key is slow to make ready.
func (t *custodyToken) OpenExport(_ context.Context, to exportfile.Recipient, w exportfile.Wrapping) (keyring.CustodyBatch, error) {
	wrapper, err := exportfile.NewWrapper(to, w)
	if err != nil {
		return nil, err
	}
	b := &custodyBatch{token: t, wrapper: wrapper}
	if t.generation == 0 {
		return b, nil
	}
	err = t.private.Use(func(der []byte) error {
		parsed, err := x509.ParsePKCS8PrivateKey(der)
		private, ok := parsed.(*rsa.PrivateKey)
		if err != nil || !ok {
			return fmt.Errorf("%w: custody key", ErrDamaged)
		}
		b.private = private
		return nil
	})
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// custodyBatch is a keyring.CustodyBatch.
type custodyBatch struct {
	token   *custodyToken
	wrapper *exportfile.Wrapper
	private *rsa.PrivateKey
}

// Close implements keyring.CustodyBatch.
func (b *custodyBatch) Close() {
	b.wrapper.Wipe()
	if b.private != nil {
		wipeRSA(b.private)
	}
}

// Wrap implements keyring.CustodyBatch.
func (b *custodyBatch) Wrap(_ context.Context, about exportfile.Metadata, sources []keyring.RootSource) (d exportfile.Device, err error) {
	roots := make([][lwcrypto.BlockLen]byte, len(sources))
	defer clear(roots)
	var nwk, app []byte
	names := about.Roots()
	if len(names) != len(sources) {
		return d, keyring.ErrRequest
	}
	for i, source := range sources {
		if err := b.open(&roots[i], source); err != nil {
			return d, err
		}
		if names[i] == exportfile.NwkKey {
			nwk = roots[i][:]
		} else {
			app = roots[i][:]
		}
	}
	return b.wrapper.Wrap(about, nwk, app)
}

// open derives a root key or opens its custody blob.
func (b *custodyBatch) open(root *[lwcrypto.BlockLen]byte, source keyring.RootSource) error {
	switch {
	case source.Chip != nil:
		return b.token.masters.chipRoot(root, source.Master, source.Derivation, source.Chip.Serial, source.Chip.Step)
	case len(source.Blob) == 0:
		if err := b.token.masters.derive(root, source.Master, source.Derivation); err != nil {
			return err
		}
		return follow(root, source.Steps)
	}
	encrypted, ok := bytes.CutPrefix(source.Blob, []byte{keyring.FormatOAEP256})
	if !ok || b.private == nil {
		return keyring.ErrIntegrity
	}
	opened, err := rsa.DecryptOAEP(sha256.New(), nil, b.private, encrypted, nil)
	defer clear(opened)
	if err != nil || len(opened) != lwcrypto.BlockLen {
		return keyring.ErrOtherCustody
	}
	copy(root[:], opened)
	return nil
}

// follow replaces a key by the encryption of each block under the one before it.
func follow(k *[lwcrypto.BlockLen]byte, steps []lwcrypto.Block) error {
	for _, block := range steps {
		c, err := aes.NewCipher(k[:])
		if err != nil {
			return err
		}
		c.Encrypt(k[:], block[:])
		secret.WipeBlock(c)
	}
	return nil
}

// newExportKey draws a key that signs exports: PKCS #8 and SubjectPublicKeyInfo.
func newExportKey() (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	defer wipeKey(key)
	if public, err = x509.MarshalPKIXPublicKey(&key.PublicKey); err != nil {
		return nil, nil, err
	}
	private, err = x509.MarshalPKCS8PrivateKey(key)
	return private, public, err
}
