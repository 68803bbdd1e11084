package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/keyring/soft"
	"joinery/internal/seal"
)

// errToken is what a recorder fails with when told to.
var errToken = errors.New("the token failed")

// recorder is a token that notes every operation, counts handles that are open,
// and can fail at the n-th operation.
type recorder struct {
	keyring.Token
	mu     sync.Mutex
	ops    []string
	failAt int // counted from 1; 0: never
	open   map[string]int
	bad    []string // handles used after or destroyed twice
}

// record notes an operation and tells whether it fails.
func (r *recorder) record(op string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, op)
	if len(r.ops) == r.failAt {
		return errToken
	}
	return nil
}

func (r *recorder) reset(failAt int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops, r.failAt = nil, failAt
}

func (r *recorder) count(kind string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[kind] += n
}

func (r *recorder) handles(kind string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[kind]
}

func (r *recorder) DeriveRoot(ctx context.Context, master string, d keyring.Derivation) (keyring.Key, error) {
	return r.key("derive root", func() (keyring.Key, error) { return r.Token.DeriveRoot(ctx, master, d) })
}

func (r *recorder) OpenRoot(ctx context.Context, blob []byte) (keyring.Key, error) {
	return r.key("open root", func() (keyring.Key, error) { return r.Token.OpenRoot(ctx, blob) })
}

// key makes a recorded handle.
func (r *recorder) key(op string, open func() (keyring.Key, error)) (keyring.Key, error) {
	if err := r.record(op); err != nil {
		return nil, err
	}
	k, err := open()
	if err != nil {
		return nil, err
	}
	r.count("key", 1)
	return &recordedKey{k, r, false}, nil
}

func (r *recorder) OpenKEK(ctx context.Context, blob []byte) (keyring.WrappingKey, error) {
	if err := r.record("open KEK"); err != nil {
		return nil, err
	}
	k, err := r.Token.OpenKEK(ctx, blob)
	if err != nil {
		return nil, err
	}
	r.count("KEK", 1)
	return &recordedKEK{k, r, false}, nil
}

func (r *recorder) MAC(ctx context.Context, key keyring.MACKey, msg []byte) ([32]byte, error) {
	if err := r.record(fmt.Sprintf("MAC %d", key)); err != nil {
		return [32]byte{}, err
	}
	return r.Token.MAC(ctx, key, msg)
}

func (r *recorder) OpenBatch(ctx context.Context, h seal.Header) (keyring.Batch, error) {
	if err := r.record("open batch"); err != nil {
		return nil, err
	}
	b, err := r.Token.OpenBatch(ctx, h)
	if err != nil {
		return nil, err
	}
	r.count("batch", 1)
	return &recordedBatch{b, r}, nil
}

type recordedKey struct {
	keyring.Key
	r    *recorder
	gone bool
}

func (k *recordedKey) use(op string) error {
	if k.gone {
		k.r.bad = append(k.r.bad, op+" with a destroyed key")
	}
	return k.r.record(op)
}

func (k *recordedKey) DecryptECB(blocks []byte) error {
	if err := k.use("decrypt"); err != nil {
		return err
	}
	return k.Key.DecryptECB(blocks)
}

func (k *recordedKey) CMAC(msg []byte) ([16]byte, error) {
	if err := k.use("CMAC"); err != nil {
		return [16]byte{}, err
	}
	return k.Key.CMAC(msg)
}

func (k *recordedKey) Derive(block lwcrypto.Block, use keyring.Use) (keyring.Key, error) {
	names := map[keyring.Use]string{keyring.UseSession: "derive session", keyring.UseMIC: "derive for MIC", keyring.UseAccept: "derive for accept",
		keyring.UseRekey: "derive rekeying key", keyring.UseRoot: "derive root", keyring.UseHandover: "derive for handover"}
	if k.gone {
		k.r.bad = append(k.r.bad, "derive from a destroyed key")
	}
	return k.r.key(names[use], func() (keyring.Key, error) { return k.Key.Derive(block, use) })
}

func (k *recordedKey) Reveal(block lwcrypto.Block) ([16]byte, error) {
	if err := k.use("reveal"); err != nil {
		return [16]byte{}, err
	}
	return k.Key.Reveal(block)
}

func (k *recordedKey) Destroy() {
	if k.gone {
		k.r.bad = append(k.r.bad, "a key was destroyed twice")
	}
	k.gone = true
	k.r.count("key", -1)
	k.Key.Destroy()
}

type recordedKEK struct {
	keyring.WrappingKey
	r    *recorder
	gone bool
}

func (k *recordedKEK) Wrap(dst []byte, key keyring.Key) ([]byte, error) {
	if k.gone {
		k.r.bad = append(k.r.bad, "wrap under a destroyed KEK")
	}
	if err := k.r.record("wrap"); err != nil {
		return nil, err
	}
	return k.WrappingKey.Wrap(dst, key.(*recordedKey).Key)
}

func (k *recordedKEK) Destroy() {
	if k.gone {
		k.r.bad = append(k.r.bad, "a KEK was destroyed twice")
	}
	k.gone = true
	k.r.count("KEK", -1)
	k.WrappingKey.Destroy()
}

type recordedBatch struct {
	keyring.Batch
	r *recorder
}

func (b *recordedBatch) Roots(row seal.SealedRow) (nwk, app joinery.SealedRoot, err error) {
	if err := b.r.record("seal roots"); err != nil {
		return nwk, app, err
	}
	return b.Batch.Roots(row)
}

func (b *recordedBatch) KEK(in seal.SealedKEK) ([]byte, error) {
	if err := b.r.record("seal KEK"); err != nil {
		return nil, err
	}
	return b.Batch.KEK(in)
}

func (b *recordedBatch) Close() {
	b.r.count("batch", -1)
	b.Batch.Close()
}

// newRecorder gives a fixture whose keyring works over a recorder.
func newRecorder(t *testing.T) (keyringtest.Fixture, *recorder) {
	t.Helper()
	dir := t.TempDir()
	master, err := keyringtest.NewSoftFile(dir, "maker")
	if err != nil {
		t.Fatal(err)
	}
	token, err := soft.Open(context.Background(), soft.Options{
		KeyFile: filepath.Join(dir, "keys"), Unlock: soft.Unlock{IdentityFile: filepath.Join(dir, "identity")},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{Token: token, open: map[string]int{}}
	k := keyring.New(r)
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
		for kind, n := range r.open {
			if n != 0 {
				t.Errorf("%d handles of kind %s are open after Close", n, kind)
			}
		}
		for _, b := range r.bad {
			t.Error(b)
		}
	})
	return keyringtest.Fixture{Keyring: k, Master: "maker", MasterKey: master}, r
}
