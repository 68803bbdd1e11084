// Package device simulates an end-device of LoRaWAN 1.0.0 to 1.0.4 or 1.1 as
// far as activation goes: join-requests, rejoin-requests and what a device
// accepts as their answer. Like the stacks in the field it leaves every key to
// an element, and saves every counter before the frame that used it leaves.
package device

import (
	"errors"
	"fmt"

	"joinery/internal/sim/element"
	"joinery/lorawan"
)

// Errors of a device.
var (
	// ErrExhausted: the counter of that request has no value left.
	ErrExhausted = errors.New("device: no number left for that request")
	// ErrNoRejoin: the device speaks 1.0.x, or has no 1.1 session to rejoin from.
	ErrNoRejoin = errors.New("device: cannot rejoin")
	// ErrUnsolicited: no request waits for an answer.
	ErrUnsolicited = errors.New("device: no request waits for an accept")
	// ErrFrame: not a join-accept, by length or MHDR.
	ErrFrame = errors.New("device: not a join-accept")
	// ErrMIC: the accept answers no request of this device that waits.
	ErrMIC = errors.New("device: accept's MIC does not match any request that waits")
	// ErrVersion: a 1.1 accept for a 1.0.x device.
	ErrVersion = errors.New("device: accept sets OptNeg, the device speaks 1.0.x")
	// ErrJoinNonce: the accept's JoinNonce was seen before.
	ErrJoinNonce = errors.New("device: JoinNonce is not new")
)

// Device is one simulated end-device. One goroutine at a time.
type Device struct {
	element *element.Element
	nvm     NVM
	state   State
	// waiting tells by index of acceptOrder which requests went out since the
	// last accept. It does not survive a restart, as receive windows do not.
	waiting [len(acceptOrder)]bool
	draw    func() lorawan.DevNonce
	accept  [lorawan.JoinAcceptCFListLen]byte
	block   [16]byte
}

// Options of New.
type Options struct {
	// NVM keeps the device's state; nil keeps it in memory only.
	NVM NVM
	// FirstDevNonce is the first of a device that counts: 0 by the
	// specification, 1 in stacks that count before they send.
	FirstDevNonce lorawan.DevNonce
	// Draw gives the next DevNonce of a device that does not count; its State
	// then keeps none of them. Nil draws at random and remembers what was used.
	Draw func() lorawan.DevNonce
}

// New makes a device that never joined.
func New(e *element.Element, version lorawan.MACVersion, o Options) (*Device, error) {
	return Restore(e, State{
		JoinEUI:      e.JoinEUI(),
		DevEUI:       e.DevEUI(),
		MACVersion:   version,
		NextDevNonce: uint32(o.FirstDevNonce),
	}, o)
}

// Restore makes the device that had saved state, with its element as the factory
// made it. Keys of a session are derived again, and so are root keys that took
// the place of the factory's.
func Restore(e *element.Element, state State, o Options) (*Device, error) {
	if err := state.check(); err != nil {
		return nil, err
	}
	d := &Device{element: e, nvm: o.NVM, draw: o.Draw, state: state.Clone()}
	if err := d.rekeyAgain(); err != nil {
		return nil, err
	}
	if e.JoinEUI() != state.JoinEUI || e.DevEUI() != state.DevEUI {
		return nil, fmt.Errorf("device %v: its state is of device %v at JoinEUI %v", e.DevEUI(), state.DevEUI, state.JoinEUI)
	}
	if state.MACVersion.HasTwoRootKeys() {
		if !e.Has(element.NwkKey) || !e.Has(element.AppKey) {
			return nil, fmt.Errorf("device %v: LoRaWAN %v needs NwkKey and AppKey, its element has one root key", state.DevEUI, state.MACVersion)
		}
		if err := d.deriveLifetimeKeys(); err != nil {
			return nil, err
		}
	}
	if state.Session != nil {
		if err := d.deriveSessionKeys(*state.Session); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// DevEUI gives the device's identifier.
func (d *Device) DevEUI() lorawan.EUI64 { return d.state.DevEUI }

// JoinEUI gives the Join Server that the device asks for.
func (d *Device) JoinEUI() lorawan.EUI64 { return d.state.JoinEUI }

// MACVersion gives the version of the device's firmware.
func (d *Device) MACVersion() lorawan.MACVersion { return d.state.MACVersion }

// State gives a copy of what the device has saved.
func (d *Device) State() State { return d.state.Clone() }

// JoinNonce gives that of the last accept taken; 0 before the first.
func (d *Device) JoinNonce() lorawan.JoinNonce { return d.state.JoinNonce }

// Session gives the session in force, and whether there is one.
func (d *Device) Session() (Session, bool) {
	if d.state.Session == nil {
		return Session{}, false
	}
	return *d.state.Session, true
}

// HoldsSessionKey tells whether key is the device's session key of that name.
func (d *Device) HoldsSessionKey(id element.KeyID, key []byte) bool {
	return d.state.Session != nil && d.element.Holds(id, key)
}

// save writes next to the device's memory; the device is in state next only if
// that worked.
func (d *Device) save(next State) error {
	if d.nvm != nil {
		if err := d.nvm.Save(next); err != nil {
			return fmt.Errorf("device %v: state not saved, nothing sent: %w", d.state.DevEUI, err)
		}
	}
	d.state = next
	return nil
}
