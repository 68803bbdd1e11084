package store

import (
	"context"
	"crypto/ecdsa"

	"joinery"
	"joinery/manifest"
)

// DeviceKey gives the public half of the P-256 key whose private half is in a
// device's element and nowhere else, from the manifest entry that was verified
// when the device was imported: whoever makes a signature with it has the
// element at hand. nil for a device that has none: it came by a key list, or its
// maker's manifest names no key. CodeNotFound for an absent device.
func (d *DB) DeviceKey(ctx context.Context, id joinery.DeviceID) (*ecdsa.PublicKey, error) {
	entry, _, err := d.ManifestEntry(ctx, id)
	if err != nil || entry == nil {
		return nil, err
	}
	return manifest.DeviceKeyOf(entry)
}
