package factory

import (
	"context"
	"crypto/ecdsa"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"joinery"
	"joinery/internal/seal"
	"joinery/lorawan"
	"joinery/manifest"
)

// Keys are the verbs of custody that making elements needs; see
// keyring.Factory.
type Keys interface {
	// Provision gives an element's root keys, sealed by to.
	Provision(ctx context.Context, master string, generation uint32, devEUI lorawan.EUI64, to *seal.Sealer) (nwk, app []byte, err error)
	// DeviceKey draws an element's device key, its private half sealed by to, and
	// certifies it: DER certificates, the element's own first.
	DeviceKey(ctx context.Context, uniqueID string, devEUI lorawan.EUI64, at time.Time, to *seal.Sealer) (sealed []byte, chain [][]byte, err error)
	// ProvisionRekey gives what an element of a rekeying profile has besides.
	ProvisionRekey(ctx context.Context, profile joinery.RekeyProfile, master string, generation uint32, devEUI lorawan.EUI64, to *seal.Sealer) ([]byte, error)
	// BootKeys draws what an element has that verifies firmware, and certifies the key that
	// it has in a slot.
	BootKeys(ctx context.Context, uniqueID string, devEUI lorawan.EUI64, at time.Time, slot string, to *seal.Sealer) (key, io []byte, chain [][]byte, err error)
	// Sign makes an ES256 signature of input, r ‖ s.
	Sign(input []byte) ([]byte, error)
	// Certificate is the signer's, DER.
	Certificate() []byte
}

// Order says which elements to make. A master key, generation and DevEUI must
// never be used for two elements: they have the same root keys.
type Order struct {
	Master     string
	Generation uint32
	JoinEUI    lorawan.EUI64
	DevEUI     lorawan.EUI64 // of the first element; the others follow it
	Count      uint64
	// Recipient is who puts the keys into silicon.
	Recipient seal.PublicKey
	// Rekey is how the elements rekey; zero: they cannot.
	Rekey joinery.RekeyProfile
	// ReleaseKey is the public key, on P-256, under which the elements verify firmware for
	// their whole life; nil: they verify none.
	ReleaseKey *ecdsa.PublicKey
	// Maker, Part and Group go into the manifest as they are; any may be empty.
	Maker string
	Part  string
	Group string
	// At is when the elements were provisioned.
	At time.Time
}

// Check tells whether the order can be carried out.
func (o Order) Check() error {
	switch {
	case o.Master == "":
		return errors.New("master: say from which master key the root keys derive")
	case o.JoinEUI.IsZero():
		return errors.New("JoinEUI: want the JoinEUI that the elements join through, 16 hexadecimal digits")
	case o.DevEUI.IsZero():
		return errors.New("DevEUI: want the DevEUI of the first element, 16 hexadecimal digits")
	case o.Count == 0:
		return errors.New("count: want at least one element")
	case o.Count-1 > math.MaxUint64-o.DevEUI.Uint64():
		return errors.New("count: the range runs over the end of the DevEUIs")
	case o.Recipient.IsZero():
		return errors.New("recipient: want the public key of whoever puts the keys into silicon")
	case o.ReleaseKey != nil && o.Rekey == joinery.RekeyS:
		return errors.New("release key: elements of rekeying profile S are no chips, and verify no firmware; take M or none")
	}
	return nil
}

// Where an element that verifies firmware has what a verifier of its boots asks for:
// the slot of the key that signs its state, which the manifest names, that of the
// digest of the image that it verified, and its counter.
const (
	BootKeySlot    = 11
	BootDigestSlot = 12
	BootCounter    = 1
)

// Make writes the manifest and the silicon file of an order. It calls done with
// the number of elements made after each. When it fails, what was written is not
// whole and must not be used.
func Make(ctx context.Context, keys Keys, o Order, manifestTo, siliconTo io.Writer, done func(uint64)) error {
	if err := o.Check(); err != nil {
		return err
	}
	signer, _, err := manifest.ParseSigner(keys.Certificate())
	if err != nil {
		return fmt.Errorf("the factory's certificate: %w", err)
	}
	signed, err := manifest.NewWriter(manifestTo, signer, keys.Sign)
	if err != nil {
		return err
	}
	sealer, err := seal.NewSealer(o.Recipient)
	if err != nil {
		return err
	}
	defer sealer.Wipe()
	silicon, err := newSiliconWriter(siliconTo, sealer.Header())
	if err != nil {
		return fmt.Errorf("silicon file: %w", err)
	}
	for i := range o.Count {
		if err := ctx.Err(); err != nil {
			return err
		}
		e := o.element(i)
		row, err := provision(ctx, keys, o, &e, sealer)
		if err != nil {
			return fmt.Errorf("element %v: %w", e.DevEUI, err)
		}
		if err := silicon.line(row); err != nil {
			return fmt.Errorf("silicon file: %w", err)
		}
		if err := signed.Write(e); err != nil {
			return fmt.Errorf("manifest: %w", err)
		}
		done(i + 1)
	}
	if err := silicon.flush(); err != nil {
		return fmt.Errorf("silicon file: %w", err)
	}
	return signed.Close()
}

// provision makes the keys of an element: what goes into its silicon, and the public
// halves of its keys, which e gets for the manifest.
func provision(ctx context.Context, keys Keys, o Order, e *manifest.Element, sealer *seal.Sealer) (siliconRow, error) {
	row := siliconRow{UniqueID: e.UniqueID, JoinEUI: e.JoinEUI, DevEUI: e.DevEUI}
	var err error
	if row.NwkKey, row.AppKey, err = keys.Provision(ctx, o.Master, o.Generation, e.DevEUI, sealer); err != nil {
		return row, err
	}
	if row.DeviceKey, row.Certificates, err = keys.DeviceKey(ctx, e.UniqueID, e.DevEUI, o.At, sealer); err != nil {
		return row, err
	}
	key, err := manifest.CertifiedKey(row.Certificates)
	if err != nil {
		return row, err
	}
	e.Keys = []manifest.DeviceKey{key}
	if o.Rekey != 0 {
		if row.RekeyKey, err = keys.ProvisionRekey(ctx, o.Rekey, o.Master, o.Generation, e.DevEUI, sealer); err != nil {
			return row, err
		}
	}
	if o.ReleaseKey == nil {
		row.MAC, err = sealer.MAC(seal.ElementItem(e.UniqueID, e.JoinEUI, e.DevEUI, row.Certificates, row.NwkKey, row.AppKey, row.DeviceKey, row.RekeyKey))
		return row, err
	}
	point, err := o.ReleaseKey.Bytes() // 04 ‖ X ‖ Y
	if err != nil || len(point) != 65 {
		return row, errors.New("release key: want one on P-256")
	}
	b := &siliconBoot{ReleaseKey: point[1:]}
	slot := strconv.Itoa(BootKeySlot)
	var chain [][]byte
	if b.BootKey, b.IOKey, chain, err = keys.BootKeys(ctx, e.UniqueID, e.DevEUI, o.At, slot, sealer); err != nil {
		return row, err
	}
	row.SecureBoot = b
	if key, err = manifest.CertifiedKey(chain); err != nil {
		return row, err
	}
	key.Slot = slot
	e.Keys = append(e.Keys, key)
	row.MAC, err = sealer.MAC(seal.BootElementItem(e.UniqueID, e.JoinEUI, e.DevEUI, row.Certificates, b.ReleaseKey,
		row.NwkKey, row.AppKey, row.DeviceKey, row.RekeyKey, b.BootKey, b.IOKey))
	return row, err
}

// serialPrefix makes serial numbers of ours unlike those of chip makers, which
// begin with 01: an element of ours has no number of its own but its DevEUI.
const serialPrefix = 0x4A

func (o Order) devEUI(i uint64) lorawan.EUI64 { return lorawan.EUI64FromUint64(o.DevEUI.Uint64() + i) }

// Last is the DevEUI of the last element.
func (o Order) Last() lorawan.EUI64 { return o.devEUI(o.Count - 1) }

// element is what the manifest says of element i of the order.
func (o Order) element(i uint64) manifest.Element {
	devEUI := o.devEUI(i)
	maker := manifest.Party{Organisation: o.Maker}
	e := manifest.Element{
		Version:       1,
		UniqueID:      hex.EncodeToString(append([]byte{serialPrefix}, devEUI[:]...)),
		JoinEUI:       o.JoinEUI,
		DevEUI:        devEUI,
		ProvisionedAt: o.At,
		Model:         "Joinery element",
		PartNumber:    o.Part,
		GroupID:       o.Group,
		Manufacturer:  maker,
		Provisioner:   maker,
	}
	if o.Rekey != 0 {
		e.Rekey = o.Rekey.String()
	}
	if o.ReleaseKey != nil {
		e.Model = "Joinery element with SecureBoot"
	}
	return e
}
