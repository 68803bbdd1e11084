package soft

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
	"joinery/internal/secret"
)

// FactoryOptions say where the key file of a new factory goes, how it is sealed,
// and whose it is.
type FactoryOptions struct {
	KeyFile string
	Unlock  Unlock

	// CommonName and Organisation name the signer in its certificate.
	CommonName   string
	Organisation string
	// Validity is how long the certificate says that it is valid; 0 is ten
	// years. Join Servers pin it and judge manifests, not the present day, by it.
	Validity time.Duration
}

const defaultValidity = 10 * 365 * 24 * time.Hour

// InitFactory makes the keys of a new factory: a signer of manifests, and a
// transport key by which master keys are shared with it. It has no master key
// yet: see NewMaster and AcceptMaster. It never overwrites: ErrExists.
func InitFactory(opt FactoryOptions) (err error) {
	defer scrub()
	secret.Do(func() { err = initFactory(opt) })
	return err
}

func initFactory(opt FactoryOptions) error {
	if opt.CommonName == "" {
		return errors.New("factory: the signer needs a common name")
	}
	l, err := newFileLock(opt.KeyFile, opt.Unlock)
	if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	c := &contents{Format: formatFactory}
	defer c.wipe()
	if c.Transport, c.TransportPublic, err = newRSA(); err != nil {
		return err
	}
	if c.Signer, c.Certificate, err = newSigner(opt, time.Now()); err != nil {
		return err
	}
	if c.Issuer, c.IssuerCertificate, c.RootCertificate, err = newIssuer(opt, time.Now()); err != nil {
		return err
	}
	if err := createKeyFile(opt.KeyFile, l, c); err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	return nil
}

// newSigner draws a P-256 key and makes a self-signed certificate of it, in the
// shape of the known log signers: no CA, SubjectKeyIdentifier equal to
// AuthorityKeyIdentifier. A manifest names it by "kid", the base64url of the
// SubjectKeyIdentifier, and "x5t#S256".
func newSigner(opt FactoryOptions, now time.Time) (private, certificate []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	defer wipeKey(key)
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, nil, err
	}
	id := sha256.Sum256(point) // RFC 7093 §2, method 1
	validity := opt.Validity
	if validity == 0 {
		validity = defaultValidity
	}
	template := &x509.Certificate{
		SerialNumber: newSerialNumber(),
		Subject:      opt.subject(opt.CommonName),
		NotBefore:    now.Add(-time.Minute), NotAfter: now.Add(validity),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		SubjectKeyId:          id[:20], AuthorityKeyId: id[:20],
	}
	if certificate, err = x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key); err != nil {
		return nil, nil, err
	}
	private, err = x509.MarshalPKCS8PrivateKey(key)
	return private, certificate, err
}

// OpenFactory opens the key file of a factory. The errors are those of Open.
func OpenFactory(ctx context.Context, opt Options) (f *keyring.Factory, err error) {
	defer scrub()
	secret.Do(func() { f, err = openFactory(ctx, opt) })
	return f, err
}

func openFactory(ctx context.Context, opt Options) (*keyring.Factory, error) {
	c, err := readContents(ctx, opt.KeyFile, opt.Unlock, formatFactory)
	if err != nil {
		return nil, err
	}
	defer c.wipe()
	memory, err := secret.NewMemory()
	if err != nil {
		return nil, err
	}
	t := &factoryToken{memory: memory}
	if err := t.load(c); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", opt.KeyFile, err), memory.Close())
	}
	return keyring.NewFactory(t), nil
}

// factoryToken is a keyring.FactoryToken.
type factoryToken struct {
	memory      *secret.Memory
	masters     masters
	signer      secret.Key // PKCS #8
	certificate []byte
	issuer      issuer
}

func (t *factoryToken) load(c *contents) (err error) {
	if _, err := x509.ParseCertificate(c.Certificate); err != nil {
		return fmt.Errorf("%w: certificate of the signer", ErrDamaged)
	}
	t.certificate = append([]byte(nil), c.Certificate...)
	if t.signer, err = t.memory.Key(c.Signer); err != nil {
		return err
	}
	if err := t.loadIssuer(c); err != nil {
		return err
	}
	t.masters, err = loadMasters(t.memory, c.Masters)
	return err
}

// SealRoot implements keyring.FactoryToken.
func (t *factoryToken) SealRoot(_ context.Context, name string, d keyring.Derivation, to *seal.Sealer) ([]byte, error) {
	root := new([lwcrypto.BlockLen]byte)
	defer clear(root[:])
	if err := t.masters.derive(root, name, d); err != nil {
		return nil, err
	}
	return to.Seal(root[:])
}

// SealSlotKey implements keyring.FactoryToken.
func (t *factoryToken) SealSlotKey(_ context.Context, name string, d keyring.Derivation, to *seal.Sealer) ([]byte, error) {
	key := new([lwcrypto.SlotKeyLen]byte)
	defer clear(key[:])
	if err := t.masters.slotKey(key, name, d); err != nil {
		return nil, err
	}
	return to.Seal(key[:])
}

// Sign implements keyring.FactoryToken.
func (t *factoryToken) Sign(hash [sha256.Size]byte) (signature [64]byte, err error) {
	err = useP256(t.signer, func(key *ecdsa.PrivateKey) error {
		r, s, err := ecdsa.Sign(rand.Reader, key, hash[:])
		if err != nil {
			return err
		}
		r.FillBytes(signature[:32])
		s.FillBytes(signature[32:])
		return nil
	})
	return signature, err
}

// Certificate implements keyring.FactoryToken.
func (t *factoryToken) Certificate() []byte { return t.certificate }

// Masters implements keyring.FactoryToken.
func (t *factoryToken) Masters() []keyring.Master { return t.masters.list() }

// Close implements keyring.FactoryToken: it wipes every key.
func (t *factoryToken) Close() error { return t.memory.Close() }
