package fleet

import (
	"context"

	"joinery"
	"joinery/manifest"
)

// ManifestEntry gives what was signed of the entry and the serial number with which a device
// of caller's was imported; nil and "" where it came by a key list.
func (s *Service) ManifestEntry(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (entry []byte, serial string, err error) {
	if _, err := s.device(ctx, caller, id); err != nil {
		return nil, "", err
	}
	entry, serial, err = s.store.ManifestEntry(ctx, id)
	if err != nil || entry == nil {
		return nil, serial, err
	}
	// Entries that were kept before imports left out what nobody signed have it still.
	entry, err = manifest.SignedPart(entry)
	return entry, serial, err
}
