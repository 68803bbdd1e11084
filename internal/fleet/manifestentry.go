package fleet

import (
	"context"

	"joinery"
)

// ManifestEntry gives the signed entry and the serial number with which a device
// of caller's was imported; CodeNotFound where it came by a key list.
func (s *Service) ManifestEntry(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (entry []byte, serial string, err error) {
	if _, err := s.device(ctx, caller, id); err != nil {
		return nil, "", err
	}
	entry, serial, err = s.store.ManifestEntry(ctx, id)
	if err == nil && entry == nil {
		return nil, "", notFound("manifest entry: the device came by a key list")
	}
	return entry, serial, err
}
