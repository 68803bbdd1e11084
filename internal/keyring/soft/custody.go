package soft

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
	"joinery/internal/secret"
)

// CustodyKey is the private half of a custody key: what opens every imported root
// key. No server opens it; whoever rotates storage keys does, in a process of his
// own.
type CustodyKey struct {
	memory     *secret.Memory
	private    secret.Key
	generation uint32
}

// ErrOtherCustody says that a custody blob was sealed to another generation of the
// custody key, or to another key.
var ErrOtherCustody = errors.New("not sealed to this custody key")

// OpenCustody opens a custody file.
func OpenCustody(ctx context.Context, file string, u Unlock) (k *CustodyKey, err error) {
	defer scrub()
	secret.Do(func() { k, err = openCustody(ctx, file, u) })
	return k, err
}

func openCustody(ctx context.Context, file string, u Unlock) (*CustodyKey, error) {
	c, err := readContents(ctx, file, u, formatCustody)
	if err != nil {
		return nil, err
	}
	defer c.wipe()
	memory, err := secret.NewMemory()
	if err != nil {
		return nil, err
	}
	private, err := memory.Key(c.CustodyPrivate)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w: custody key", file, ErrDamaged), memory.Close())
	}
	return &CustodyKey{memory, private, max(c.CustodyGeneration, 1)}, nil
}

// Generation is which custody key it is, from 1.
func (k *CustodyKey) Generation() uint32 { return k.generation }

// Close wipes the key.
func (k *CustodyKey) Close() error { return k.memory.Close() }

// Reseal opens the custody blobs of key sets and seals their root keys to a
// server's transport key, as rows of a key list: the server takes them in as it
// takes in an import. ErrOtherCustody where a blob does not open with this key.
func (k *CustodyKey) Reseal(to seal.PublicKey, roots []joinery.StoredRoots) (h seal.Header, rows []seal.SealedRow, err error) {
	secret.Do(func() {
		err = k.private.Use(func(der []byte) error {
			h, rows, err = k.reseal(der, to, roots)
			return err
		})
	})
	return h, rows, err
}

func (k *CustodyKey) reseal(der []byte, to seal.PublicKey, roots []joinery.StoredRoots) (h seal.Header, rows []seal.SealedRow, err error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	private, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return h, nil, fmt.Errorf("%w: custody key", ErrDamaged)
	}
	defer wipeRSA(private)
	sealer, err := seal.NewSealer(to)
	if err != nil {
		return h, nil, err
	}
	defer sealer.Wipe()
	for _, r := range roots {
		row := seal.SealedRow{JoinEUI: r.JoinEUI, DevEUI: r.DevEUI, MACVersion: r.MACVersion, Root10: r.Root10.String()}
		if err := k.resealRow(sealer, private, &row, r); err != nil {
			return h, nil, fmt.Errorf("key set %s: %w", r.KeySet, err)
		}
		rows = append(rows, row)
	}
	return sealer.Header(), rows, nil
}

func (k *CustodyKey) resealRow(sealer *seal.Sealer, private *rsa.PrivateKey, row *seal.SealedRow, r joinery.StoredRoots) error {
	nwk, err := k.open(private, r.Nwk.Custody)
	defer clear(nwk)
	if err != nil {
		return err
	}
	app, err := k.open(private, r.App.Custody)
	defer clear(app)
	if err != nil {
		return err
	}
	return sealer.SealRow(row, nwk, app)
}

// open opens one custody blob; nil for none.
func (k *CustodyKey) open(private *rsa.PrivateKey, stored joinery.Sealed) ([]byte, error) {
	if len(stored) == 0 {
		return nil, nil
	}
	blob, err := keyring.CustodyBlob(stored)
	if err != nil {
		return nil, err
	}
	generation, blob, err := keyring.SplitGeneration(blob)
	if err != nil {
		return nil, err
	}
	if generation != k.generation {
		return nil, fmt.Errorf("%w: it is of generation %d, this key of %d", ErrOtherCustody, generation, k.generation)
	}
	encrypted, ok := bytes.CutPrefix(blob, []byte{keyring.FormatOAEP256})
	if !ok {
		return nil, keyring.ErrIntegrity
	}
	root, err := rsa.DecryptOAEP(sha256.New(), nil, private, encrypted, nil)
	if err != nil || len(root) != lwcrypto.BlockLen {
		clear(root)
		return nil, ErrOtherCustody
	}
	return root, nil
}
