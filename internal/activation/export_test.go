package activation

import (
	"context"
	"time"

	"joinery"
	"joinery/lorawan"
)

// Hold takes the lock of a device, as a request under way does, until release
// is called.
func (s *Service) Hold(joinEUI, devEUI lorawan.EUI64) (release func()) {
	release, _ = s.devices.lock(context.Background(), deviceKey{joinEUI, devEUI}, func(context.Context) error { return nil })
	return release
}

// KeyringError gives an error of custody its code.
func KeyringError(err error) error { return keyringError(err) }

// IsLetGo tells whether a device may join though its service has lapsed.
func IsLetGo(state joinery.ActivationState, now time.Time) bool { return isLetGo(state, now) }
