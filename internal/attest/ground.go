package attest

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"slices"

	"joinery"
	"joinery/manifest"
)

// deviceKeySlot is the slot of the device key, as manifests have it.
const deviceKeySlot = "1"

// ground is who stands by a key.
type ground struct {
	basis joinery.AttestBasis
	joinery.AttestGround
}

// registered is of a key that the maker registered: it stands by it until it removes it.
// That it is in a root of trust or an element no certificate says that is looked at.
func registered(key joinery.ProductKeyID) ground {
	return ground{joinery.AttestVouched, joinery.AttestGround{Key: key}}
}

// manifestKey is the key that the manifest of a device names for a slot, and who stands
// by that now.
func manifestKey(a joinery.Appraisal, slot string, pins []joinery.Signer) (key *ecdsa.PublicKey, on ground, err error) {
	if a.Manifest != nil {
		if slot == deviceKeySlot {
			key, err = manifest.DeviceKeyOf(a.Manifest)
		} else {
			key, err = manifest.KeyInSlotOf(a.Manifest, slot)
		}
	}
	if err != nil {
		return nil, on, err
	}
	if key == nil {
		return nil, on, no("key", "no key to verify this with: the device came without a signed manifest, or its manifest names none")
	}
	on, err = groundOf(a, slot, pins)
	return key, on, err
}

// groundOf holds the manifest entry of a device against its signer as that is pinned
// now. An entry counted when it was imported; since then the pin may have gone, or come
// back with other roots. Where the signer is pinned more than once, the pin that says
// most counts.
func groundOf(a joinery.Appraisal, slot string, pins []joinery.Signer) (best ground, err error) {
	id, err := manifest.SignerOfKept(a.Manifest)
	if err != nil {
		return best, err
	}
	best.SignerX5TS256 = id.X5TS256
	for _, pin := range pins {
		d := a.State.Device
		if pin.KID != id.KID || pin.X5TS256 != id.X5TS256 || pin.Org != d.Maker && !pin.Shared ||
			!pin.JoinEUIs.Contains(d.JoinEUI) || !pin.DevEUIs.Contains(d.DevEUI) {
			continue
		}
		signer, err := pin.Pinned()
		if err != nil {
			return best, err
		}
		e, chain, err := signer.CheckKept(a.Manifest, slot)
		if errors.Is(err, manifest.ErrSignature) {
			return best, no("manifest", "the manifest entry that is kept of this device is not what its signer signed: it was changed in the database; have the operator run joinery fsck")
		}
		basis := joinery.AttestAny
		if err == nil && e.JoinEUI == d.JoinEUI && e.DevEUI == d.DevEUI && chain != manifest.ChainFailed {
			basis = joinery.AttestVouched
			if chain == manifest.ChainChecked {
				basis = joinery.AttestChain
			}
		}
		if best.Signer == 0 || basis > best.basis {
			best = ground{basis, joinery.AttestGround{Chain: chain, Signer: pin.ID, SignerName: commonName(pin.DER), SignerX5TS256: id.X5TS256}}
		}
	}
	return best, nil
}

// commonName is what a signer's certificate calls it, without what would spoil a line.
func commonName(der []byte) string {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return "" // it was parsed when it was pinned
	}
	name := []rune(cert.Subject.CommonName)
	name = slices.DeleteFunc(name, func(r rune) bool { return r < ' ' || r == 0x7F })
	return string(name[:min(len(name), maxSignerName)])
}

const maxSignerName = 64
