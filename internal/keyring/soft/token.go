package soft

import (
	"bytes"
	"context"
	"crypto/cipher"
	"errors"
	"fmt"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
	"joinery/internal/secret"
)

// Options say which key file to open, and how.
type Options struct {
	KeyFile string
	Unlock  Unlock
}

// Token holds the keys of a key file. It implements keyring.Token.
type Token struct {
	memory  *secret.Memory
	masters masters

	generations keyring.Generations
	joinKEKs    map[uint32]secret.Cipher // root keys, by generation
	storageKEK  secret.Cipher            // peers' KEKs
	rowMAC      secret.Key
	ownerTokens secret.Key
	transports  transportKeys
	custody     seal.PublicKey
}

var _ keyring.Token = (*Token)(nil)

// Open reads a key file into memory. The errors are those of this package, and
// fs.ErrNotExist for a missing file.
func Open(ctx context.Context, opt Options) (t *Token, err error) {
	return openBy(ctx, opt.KeyFile, opt.Unlock.read)
}

// OpenWith is Open with what opens the file at hand: a passphrase, or age
// identities. text is the caller's to clear.
func OpenWith(ctx context.Context, keyFile string, text []byte) (*Token, error) {
	return openBy(ctx, keyFile, func(context.Context) (*lock, error) { return Unlock{}.textLock("what was given", text) })
}

func openBy(ctx context.Context, keyFile string, read func(context.Context) (*lock, error)) (t *Token, err error) {
	defer scrub()
	secret.Do(func() { t, err = open(ctx, keyFile, read) })
	return t, err
}

func open(ctx context.Context, keyFile string, read func(context.Context) (*lock, error)) (*Token, error) {
	c, err := readContentsBy(ctx, keyFile, read, formatServer, formatRotated)
	if err != nil {
		return nil, err
	}
	defer c.wipe()
	memory, err := secret.NewMemory()
	if err != nil {
		return nil, err
	}
	t := &Token{memory: memory}
	if err := t.load(c); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", keyFile, err), memory.Close())
	}
	return t, nil
}

// load moves what c holds into t's memory.
func (t *Token) load(c *contents) (err error) {
	if err := t.loadJoinKEKs(c); err != nil {
		return err
	}
	if t.storageKEK, err = t.memory.Cipher(c.StorageKEK); err != nil {
		return err
	}
	if t.rowMAC, err = t.memory.Key(c.RowMAC); err != nil {
		return err
	}
	if t.ownerTokens, err = t.memory.Key(c.OwnerTokens); err != nil {
		return err
	}
	if t.transports, err = loadTransports(t.memory, c); err != nil {
		return err
	}
	for _, k := range t.transports {
		t.generations.Transport = append(t.generations.Transport, k.public.KID())
	}
	if t.custody, err = seal.ParsePublicKeyDER(c.Custody); err != nil {
		return fmt.Errorf("%w: custody key", ErrDamaged)
	}
	t.generations.Custody = max(c.CustodyGeneration, 1)
	if t.generations.Exports, err = c.signers(); err != nil { // the private halves stay in the file: no server signs
		return err
	}
	t.masters, err = loadMasters(t.memory, c.Masters)
	return err
}

// loadJoinKEKs moves every generation of the join KEK into t's memory.
func (t *Token) loadJoinKEKs(c *contents) (err error) {
	t.joinKEKs = map[uint32]secret.Cipher{}
	for _, k := range c.generationsOfJoinKEK() {
		if k.Generation == 0 || k.Generation <= t.generations.Newest() {
			return fmt.Errorf("%w: generations of the join KEK", ErrDamaged)
		}
		if t.joinKEKs[k.Generation], err = t.memory.Cipher(k.Key); err != nil {
			return err
		}
		t.generations.JoinKEK = append(t.generations.JoinKEK, k.Generation)
	}
	return nil
}

// Generations implements keyring.Token.
func (t *Token) Generations() keyring.Generations { return t.generations }

// Protection tells how well the keys that stay are kept from leaving the
// process.
func (t *Token) Protection() secret.Protection { return t.memory.Protection() }

// Masters implements keyring.Token.
func (t *Token) Masters() []keyring.Master { return t.masters.list() }

// Custody implements keyring.Token: keys of every origin are in memory.
func (t *Token) Custody() []keyring.Custody {
	const why = "the software backend"
	return []keyring.Custody{
		{Origin: joinery.OriginDerived, Profile: keyring.ProfileECBv1, Level: keyring.LevelInMemory, Served: true, Why: why},
		{Origin: joinery.OriginSealed, Level: keyring.LevelInMemory, Served: true, Why: why},
		{Origin: joinery.OriginRekeyed, Profile: joinery.RekeyS.String(), Level: keyring.LevelInMemory, Served: true, Why: why},
		{Origin: joinery.OriginRekeyed, Profile: joinery.RekeyM.String(), Level: keyring.LevelInMemory, Served: true, Why: why},
	}
}

// Check implements keyring.Token: the keys are in memory.
func (t *Token) Check(context.Context) error {
	return t.joinKEKs[t.generations.Newest()].Use(func(cipher.Block) error { return nil })
}

// Close implements keyring.Token: it wipes every key.
func (t *Token) Close() error { return t.memory.Close() }

// DeriveRoot implements keyring.Vault.
func (t *Token) DeriveRoot(_ context.Context, name string, d keyring.Derivation) (keyring.Key, error) {
	k := &key{}
	if err := t.masters.derive(&k.raw, name, d); err != nil {
		return nil, err
	}
	return k, nil
}

// OpenRoot implements keyring.Vault.
func (t *Token) OpenRoot(_ context.Context, blob []byte) (keyring.Key, error) {
	k, err := t.openRoot(blob)
	if err != nil {
		return nil, err
	}
	return k, nil
}

func (t *Token) openRoot(blob []byte) (*key, error) {
	generation, blob, err := keyring.SplitGeneration(blob)
	if err != nil {
		return nil, err
	}
	wrapped, ok := bytes.CutPrefix(blob, []byte{keyring.FormatKeyWrap})
	kek, known := t.joinKEKs[generation]
	if !ok || !known {
		return nil, keyring.ErrIntegrity
	}
	k := &key{}
	err = kek.Use(func(b cipher.Block) error { return lwcrypto.UnwrapKey(&k.raw, b, wrapped) })
	if err != nil {
		return nil, integrity(err)
	}
	return k, nil
}

// OpenKEK implements keyring.Vault.
func (t *Token) OpenKEK(_ context.Context, blob []byte) (keyring.WrappingKey, error) {
	wrapped, ok := bytes.CutPrefix(blob, []byte{keyring.FormatKeyWrap})
	if !ok {
		return nil, keyring.ErrIntegrity
	}
	raw := make([]byte, 0, 32)
	defer func() { clear(raw[:cap(raw)]) }()
	err := t.storageKEK.Use(func(b cipher.Block) (err error) {
		raw, err = seal.UnwrapKey(raw, b, wrapped)
		return err
	})
	if err != nil {
		return nil, integrity(err)
	}
	c, err := t.memory.Cipher(raw)
	if err != nil {
		return nil, err
	}
	return wrappingKey{c}, nil
}

// MAC implements keyring.Vault.
func (t *Token) MAC(_ context.Context, which keyring.MACKey, msg []byte) (mac [32]byte, err error) {
	k := t.rowMAC
	switch which {
	case keyring.RowMAC:
	case keyring.OwnerTokens:
		k = t.ownerTokens
	default:
		return mac, keyring.ErrRequest
	}
	err = k.Use(func(key []byte) error {
		mac = hmacSHA256(key, msg)
		return nil
	})
	return mac, err
}

// integrity names the failure of an unwrap; whatever else goes wrong keeps its
// name.
func integrity(err error) error {
	if errors.Is(err, seal.ErrKeyWrap) {
		return keyring.ErrIntegrity
	}
	return err
}
