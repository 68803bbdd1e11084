package fleet

import (
	"context"

	"joinery"
)

// ManifestEntry gives the signed entry and the serial number with which a device
// of caller's was imported; nil and "" where it came by a key list.
func (s *Service) ManifestEntry(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (entry []byte, serial string, err error) {
	if _, err := s.device(ctx, caller, id); err != nil {
		return nil, "", err
	}
	return s.store.ManifestEntry(ctx, id)
}
