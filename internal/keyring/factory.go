package keyring

import (
	"bytes"
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"joinery"
	"joinery/internal/seal"
	"joinery/internal/secret"
	"joinery/lorawan"
)

// FactoryToken is what holds the keys of a Factory: a backend. It is safe for
// concurrent use.
type FactoryToken interface {
	// SealRoot derives a root key of a device by the profile of the master key
	// of that name and seals it to a recipient. ErrUnknownMaster where there is
	// no such master.
	SealRoot(ctx context.Context, master string, d Derivation, to *seal.Sealer) ([]byte, error)
	// SealSlotKey is SealRoot for the slot key of rekeying profile M.
	SealSlotKey(ctx context.Context, master string, d Derivation, to *seal.Sealer) ([]byte, error)
	// Sign makes an ES256 signature of a SHA-256 hash: r ‖ s.
	Sign(hash [sha256.Size]byte) ([64]byte, error)
	// DeviceKey draws a P-256 key for an element, seals its private half to a
	// recipient and certifies the public one.
	DeviceKey(ctx context.Context, n DeviceName, to *seal.Sealer) (sealed []byte, chain [][]byte, err error)
	// BootKeys draws what an element has that verifies firmware, sealed: see
	// Factory.BootKeys.
	BootKeys(ctx context.Context, n DeviceName, slot string, to *seal.Sealer) (key, io []byte, chain [][]byte, err error)
	// Certificate gives the signer's certificate, DER.
	Certificate() []byte
	// Root gives the certificate to which all device certificates lead, DER.
	Root() []byte
	// Masters lists the master keys in order of their names.
	Masters() []Master
	Close() error
}

// DeviceName is what a device certificate says of its element.
type DeviceName struct {
	UniqueID string // the serial number, in hexadecimal digits
	DevEUI   lorawan.EUI64
	At       time.Time // when the element is provisioned
}

// Factory makes elements: it gives out their root keys, sealed to whoever puts
// them into silicon, and signs the manifest. It is a type of its own, over keys
// of its own, so that a Keyring, which serves joins, has no such verb.
type Factory struct {
	token FactoryToken

	gate   sync.RWMutex
	closed bool
}

// NewFactory gives a Factory over t, which it closes when it is closed.
func NewFactory(t FactoryToken) *Factory { return &Factory{token: t} }

// Provision gives the two root keys of an element, sealed by to: those that a
// Keyring with the same master key derives for this generation and DevEUI. The
// triple (master, generation, DevEUI) must never be used for two elements.
func (f *Factory) Provision(ctx context.Context, master string, generation uint32, devEUI lorawan.EUI64, to *seal.Sealer) (nwk, app []byte, err error) {
	err = f.run(ctx, func() error {
		if nwk, err = f.token.SealRoot(ctx, master, Derivation{Root: joinery.NwkKey, Generation: generation, DevEUI: devEUI}, to); err != nil {
			return err
		}
		app, err = f.token.SealRoot(ctx, master, Derivation{Root: joinery.AppKey, Generation: generation, DevEUI: devEUI}, to)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return nwk, app, nil
}

// ProvisionRekey gives what an element of a rekeying profile has besides: the
// rekeying key, of 16 bytes (S), or the key of slot 13, of 32 (M).
func (f *Factory) ProvisionRekey(ctx context.Context, profile joinery.RekeyProfile, master string, generation uint32, devEUI lorawan.EUI64, to *seal.Sealer) (sealed []byte, err error) {
	err = f.run(ctx, func() error {
		d := Derivation{Rekey: true, Generation: generation, DevEUI: devEUI}
		switch profile {
		case joinery.RekeyS:
			sealed, err = f.token.SealRoot(ctx, master, d, to)
		case joinery.RekeyM:
			sealed, err = f.token.SealSlotKey(ctx, master, d, to)
		default:
			err = mismatch("no rekeying profile is named")
		}
		return err
	})
	return sealed, err
}

// DeviceKey draws the P-256 key by which an element can prove to be itself, and
// certifies it for a serial number (hexadecimal digits) and DevEUI, from the time
// on when the element is provisioned. sealed is the private half, 32 bytes
// big-endian, sealed by to: it is in no other place. chain is DER certificates, the
// element's own, then its issuer's, which the factory's root signed. Each call
// draws another key.
func (f *Factory) DeviceKey(ctx context.Context, uniqueID string, devEUI lorawan.EUI64, at time.Time, to *seal.Sealer) (sealed []byte, chain [][]byte, err error) {
	err = f.run(ctx, func() error {
		sealed, chain, err = f.token.DeviceKey(ctx, DeviceName{uniqueID, devEUI, at}, to)
		return err
	})
	return sealed, chain, err
}

// BootKeys draws what an element that verifies firmware has beside its maker's public
// key, sealed by to, so that it is in no other place: key, a private key on P-256, 32
// bytes big-endian, which the element uses after a verified boot alone, and for its own
// messages, and io, 32 bytes, which protect the bus between it and its microcontroller.
// chain is as DeviceKey's, of key; the first certificate says in which slot it is. Each
// call draws others.
func (f *Factory) BootKeys(ctx context.Context, uniqueID string, devEUI lorawan.EUI64, at time.Time, slot string, to *seal.Sealer) (key, io []byte, chain [][]byte, err error) {
	err = f.run(ctx, func() error {
		key, io, chain, err = f.token.BootKeys(ctx, DeviceName{uniqueID, devEUI, at}, slot, to)
		return err
	})
	return key, io, chain, err
}

// Sign makes an ES256 signature (RFC 7518 §3.4): ECDSA on P-256 over SHA-256 of
// input, as r ‖ s, 64 bytes.
func (f *Factory) Sign(input []byte) (signature []byte, err error) {
	err = f.run(context.Background(), func() error {
		s, err := f.token.Sign(sha256.Sum256(input))
		signature = s[:]
		return err
	})
	if err != nil {
		return nil, err
	}
	return signature, nil
}

// Certificate gives the signer's certificate, DER: what a Join Server pins.
func (f *Factory) Certificate() []byte { return bytes.Clone(f.token.Certificate()) }

// Root gives the certificate to which all device certificates lead, DER: what a
// Join Server pins beside the signer.
func (f *Factory) Root() []byte { return bytes.Clone(f.token.Root()) }

// Masters lists the master keys in order of their names.
func (f *Factory) Masters() []Master { return f.token.Masters() }

// Close waits for what runs and closes the token. Everything later fails with
// ErrClosed.
func (f *Factory) Close() error {
	f.gate.Lock()
	defer f.gate.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	return f.token.Close()
}

func (f *Factory) run(ctx context.Context, do func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.gate.RLock()
	defer f.gate.RUnlock()
	if f.closed {
		return ErrClosed
	}
	var err error
	secret.Do(func() { err = do() })
	return err
}
