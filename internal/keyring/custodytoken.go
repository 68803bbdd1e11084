package keyring

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"joinery"
	"joinery/internal/exportfile"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
	"joinery/internal/secret"
	"joinery/lorawan"
)

// CustodyToken is what a custodian opens keys with: a backend. It is used by one
// goroutine.
type CustodyToken interface {
	// Generations are those of the custody keys at hand, in rising order; none where
	// there is no custody key.
	Generations() []uint32
	// Signers are the keys that can sign exports, the newest last.
	Signers() []exportfile.Signer
	Wrappings() []exportfile.Wrapping
	// Checks tells whether the server's keys are at hand: master keys, and the row
	// MAC key. Without them it can do no more than seal anew, for a server that
	// checks by itself.
	Checks() bool
	// MAC computes HMAC-SHA-256 of msg under the server's row MAC key.
	MAC(ctx context.Context, msg []byte) ([sha256.Size]byte, error)
	// Sign makes an ES256 signature of a hash with one of Signers: r ‖ s.
	Sign(ctx context.Context, by exportfile.Signer, hash [sha256.Size]byte) ([exportfile.SignatureLen]byte, error)
	// OpenExport begins to wrap root keys to a recipient. exportfile.ErrWrapping.
	OpenExport(ctx context.Context, to exportfile.Recipient, w exportfile.Wrapping) (CustodyBatch, error)
	Close() error
}

// CustodyBatch wraps root keys to one recipient, in form seal under one file key. It
// is used by one goroutine.
type CustodyBatch interface {
	// Wrap makes a device of an export, without signature, from root keys that are
	// in order of its Roots. ErrIntegrity, ErrOtherCustody, ErrUnknownMaster,
	// ErrNotServed.
	Wrap(ctx context.Context, about exportfile.Metadata, roots []RootSource) (exportfile.Device, error)
	Close()
}

// RootSource says where one root key is.
type RootSource struct {
	// Master is the name of the master key from which Derivation derives it.
	Master     string
	Derivation Derivation
	// Steps lead from what Derivation gives to the root, each the encryption of a block
	// under the key before it: of a device rekeyed by profile S. None for others.
	Steps []lwcrypto.Block
	// Chip is set for a device rekeyed by profile M: then Derivation is of its slot key,
	// and names the root.
	Chip *ChipRoot
	// Blob is a custody blob that belongs to its key set, without head and MAC: format
	// ‖ ciphertext. It is empty for a derived root. Generation is one of the custody
	// keys that are at hand.
	Blob       []byte
	Generation uint32
}

// ChipRoot says how a chip of rekeying profile M derived its root keys from its slot
// key.
type ChipRoot struct {
	Serial [lwcrypto.SerialLen]byte
	Step   lorawan.Rekey
}

// NewCustodian gives a Custodian over t, which it closes when it is closed.
func NewCustodian(t CustodyToken) Custodian { return &custodian{t} }

type custodian struct{ token CustodyToken }

// Generation implements Custodian.
func (c *custodian) Generation() uint32 {
	list := c.token.Generations()
	if len(list) == 0 {
		return 0
	}
	return list[len(list)-1]
}

// Signer implements Custodian.
func (c *custodian) Signer() exportfile.Signer {
	list := c.token.Signers()
	if len(list) == 0 {
		return exportfile.Signer{}
	}
	return list[len(list)-1]
}

// Wrappings implements Custodian.
func (c *custodian) Wrappings() []exportfile.Wrapping { return c.token.Wrappings() }

// Close implements Custodian.
func (c *custodian) Close() error { return c.token.Close() }

// Reseal implements Custodian.
func (c *custodian) Reseal(ctx context.Context, to seal.PublicKey, roots []joinery.StoredRoots) (h seal.Header, out []Resealed, err error) {
	recipient, err := exportfile.ParseRecipientDER(to.MarshalDER())
	if err != nil {
		return h, nil, err
	}
	w := exportfile.SealOAEP256
	if recipient.SHA1() {
		w = exportfile.SealOAEP1
	}
	err = c.batch(ctx, recipient, w, func(b CustodyBatch) error {
		out = make([]Resealed, len(roots))
		for i, r := range roots {
			if err := ctx.Err(); err != nil {
				return err
			}
			d, err := c.reseal(ctx, b, r)
			switch {
			case errors.Is(err, ErrToken):
				return err // no key set is at fault
			case err != nil:
				out[i].Err = err
			default:
				h, out[i].Row = *d.Seal, d.Row()
			}
		}
		return nil
	})
	if err != nil {
		return seal.Header{}, nil, err
	}
	return h, out, nil
}

func (c *custodian) reseal(ctx context.Context, b CustodyBatch, r joinery.StoredRoots) (d exportfile.Device, err error) {
	about := exportfile.Metadata{JoinEUI: r.JoinEUI, DevEUI: r.DevEUI, MACVersion: r.MACVersion, Root10: r.Root10.String()}
	if r.Root10 == joinery.RekeyKey { // one key or two, whatever its device has
		about.MACVersion = lorawan.MAC1_0_4
		if len(r.App.Custody) > 0 {
			about.MACVersion = lorawan.MAC1_1
		}
	}
	sources, err := c.sealed(ctx, about, r.KeySet, r.Nwk, r.App)
	if err != nil {
		return d, err
	}
	if d, err = b.Wrap(ctx, about, sources); err != nil {
		return d, err
	}
	if d.Seal == nil {
		return d, mismatch("a backend sealed nothing")
	}
	return d, nil
}

// batch calls f with what wraps to a recipient, in secret.Do.
func (c *custodian) batch(ctx context.Context, to exportfile.Recipient, w exportfile.Wrapping, f func(CustodyBatch) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := to.Allows(w); err != nil {
		return err
	}
	if !slices.Contains(c.token.Wrappings(), w) {
		return fmt.Errorf("%w: this keyring cannot make form %s by %s", exportfile.ErrWrapping, w.Form, w.Alg)
	}
	secret.Do(func() {
		var b CustodyBatch
		if b, err = c.token.OpenExport(ctx, to, w); err != nil {
			return
		}
		defer b.Close()
		err = f(b)
	})
	return err
}

// Export implements Custodian. Its steps for each device:
//
//  1. what is to be signed is checked against the key set
//  2. the MAC of each custody blob, or the master key's name, says that the root is
//     this key set's own
//  3. the token opens or derives the root, tells its key check value and wraps it
//  4. the device is signed
func (c *custodian) Export(ctx context.Context, h exportfile.Header, to exportfile.Recipient, in []ExportIn) (out []ExportOut, err error) {
	digests, err := exportfile.NewDigests(h)
	switch {
	case err != nil:
		return nil, err
	case !c.token.Checks():
		return nil, mismatch("an export needs the keys of the server, beside the custody key")
	case h.Recipient != to.Thumbprint():
		return nil, fmt.Errorf("%w: its header names another recipient", exportfile.ErrFormat)
	case !slices.Contains(c.token.Signers(), h.Signer):
		return nil, fmt.Errorf("%w: its header names a signer that this server does not have, or has no more", exportfile.ErrFormat)
	}
	err = c.batch(ctx, to, h.Wrapping, func(b CustodyBatch) error {
		out = make([]ExportOut, len(in))
		for i, one := range in {
			if err := ctx.Err(); err != nil {
				return err
			}
			d, err := c.export(ctx, b, h, digests, one)
			switch {
			case errors.Is(err, ErrToken):
				return err // no device is at fault
			case err != nil:
				out[i].Err = err
			default:
				out[i].Device = d
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (c *custodian) export(ctx context.Context, b CustodyBatch, h exportfile.Header, digests *exportfile.Digests, in ExportIn) (exportfile.Device, error) {
	sources, err := c.sources(ctx, in)
	if err != nil {
		return exportfile.Device{}, err
	}
	d, err := b.Wrap(ctx, in.About, sources)
	if err != nil {
		return exportfile.Device{}, err
	}
	if err := d.Check(h); err != nil {
		return exportfile.Device{}, err
	}
	err = digests.Sign(&d, func(hash [sha256.Size]byte) ([exportfile.SignatureLen]byte, error) {
		return c.token.Sign(ctx, h.Signer, hash)
	})
	return d, err
}

// sources is steps 1 and 2.
func (c *custodian) sources(ctx context.Context, in ExportIn) ([]RootSource, error) {
	ks, about := &in.KeySet, &in.About
	switch err := about.Check(); {
	case err != nil:
		return nil, err
	case about.DevEUI != ks.DevEUI:
		return nil, mismatch("the key set is of another DevEUI than is to be signed")
	case about.Root10 != ks.Root10.String():
		return nil, mismatch("the key set joins with another root key than is to be signed")
	}
	switch ks.Origin {
	case joinery.OriginSealed:
		return c.sealed(ctx, *about, ks.ID, ks.Nwk, ks.App)
	case joinery.OriginDerived:
		var list []RootSource
		for _, name := range about.Roots() {
			list = append(list, RootSource{Master: ks.Master, Derivation: Derivation{Root: rootNamed(name), Generation: ks.Generation, DevEUI: ks.DevEUI}})
		}
		return list, nil
	case joinery.OriginRekeyed:
		return rekeyed(ks, about.Roots())
	}
	return nil, fmt.Errorf("%w: its origin is unknown", ErrNoRoot)
}

// rekeyed says how the root keys of a rekeyed key set follow from a master key.
func rekeyed(ks *joinery.KeySet, roots []string) (list []RootSource, err error) {
	if ks.Master == "" || len(ks.Steps) == 0 {
		return nil, ErrNoRekey
	}
	last := len(ks.Steps) - 1
	for _, name := range roots {
		s := RootSource{Master: ks.Master, Derivation: Derivation{Generation: ks.Generation, DevEUI: ks.DevEUI}}
		switch ks.Rekey {
		case joinery.RekeyS:
			s.Derivation.Rekey = true
			for _, step := range ks.Steps[:last] {
				s.Steps = append(s.Steps, lwcrypto.RekeyNextKey(step))
			}
			block := lwcrypto.RekeyNwkKey(ks.Steps[last])
			if rootNamed(name) == joinery.AppKey {
				block = lwcrypto.RekeyAppKey(ks.Steps[last])
			}
			s.Steps = append(s.Steps, block)
		case joinery.RekeyM:
			s.Derivation.Root, s.Chip = rootNamed(name), &ChipRoot{ks.Serial, ks.Steps[last]}
		default:
			return nil, ErrNoRekey
		}
		list = append(list, s)
	}
	return list, nil
}

func rootNamed(name string) joinery.RootKey {
	if name == exportfile.NwkKey {
		return joinery.NwkKey
	}
	return joinery.AppKey
}

// sealed gives the custody blobs of the roots that a device uses. Their MACs are
// checked first wherever that can be done here.
func (c *custodian) sealed(ctx context.Context, about exportfile.Metadata, id joinery.KeySetID, nwk, app joinery.SealedRoot) (list []RootSource, err error) {
	for _, name := range about.Roots() {
		root, stored := rootNamed(name), nwk.Custody
		if root == joinery.AppKey {
			stored = app.Custody
		}
		if len(stored) == 0 {
			return nil, ErrNoRoot
		}
		source, err := c.custodyBlob(ctx, rowBinding(about.Root10)(kindCustody, id, root), stored)
		if err != nil {
			return nil, err
		}
		list = append(list, source)
	}
	return list, nil
}

// custodyBlob takes MAC and generation off a stored custody blob.
func (c *custodian) custodyBlob(ctx context.Context, b binding, stored joinery.Sealed) (source RootSource, err error) {
	blob, err := CustodyBlob(stored)
	if err != nil {
		return source, err
	}
	if c.token.Checks() {
		if blob, err = unbindBy(b, stored, func(msg []byte) ([macLen]byte, error) { return c.token.MAC(ctx, msg) }); err != nil {
			return source, err
		}
	}
	if source.Generation, source.Blob, err = SplitGeneration(blob); err != nil {
		return source, err
	}
	switch have := c.token.Generations(); {
	case len(have) == 0:
		return source, fmt.Errorf("%w: imported root keys open with the custody key of generation %d, which is not at hand", ErrOtherCustody, source.Generation)
	case !slices.Contains(have, source.Generation):
		return source, fmt.Errorf("%w: it is of generation %d, and at hand is %d", ErrOtherCustody, source.Generation, have)
	}
	return source, nil
}
