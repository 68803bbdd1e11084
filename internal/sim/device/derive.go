package device

import (
	"encoding/binary"

	"joinery/internal/sim/element"
)

// The first byte of each derivation block (TS001-1.1 §6.1.1.3, §6.2.3;
// TS001-1.0.4 §6.2.6). In a 1.0.x session the one of FNwkSIntKey makes NwkSKey.
const (
	purposeFNwkSIntKey = 0x01
	purposeAppSKey     = 0x02
	purposeSNwkSIntKey = 0x03
	purposeNwkSEncKey  = 0x04
	purposeJSEncKey    = 0x05
	purposeJSIntKey    = 0x06
)

// deriveLifetimeKeys makes JSIntKey and JSEncKey of purpose ‖ DevEUI ‖ 0*7
// (TS001-1.1 §6.1.1.3), little-endian as everything in a block.
func (d *Device) deriveLifetimeKeys() error {
	clear(d.block[:])
	binary.LittleEndian.PutUint64(d.block[1:], d.state.DevEUI.Uint64())
	if err := d.derive(element.JSIntKey, element.NwkKey, purposeJSIntKey); err != nil {
		return err
	}
	return d.derive(element.JSEncKey, element.NwkKey, purposeJSEncKey)
}

// deriveSessionKeys fills the session slots for s.
func (d *Device) deriveSessionKeys(s Session) error {
	if s.OptNeg {
		return d.derive11(s)
	}
	return d.derive10(s)
}

// derive11 makes the keys of a 1.1 session of
// purpose ‖ JoinNonce 3 ‖ JoinEUI 8 ‖ DevNonce or RJcount 2 ‖ 0*2
// (TS001-1.1 §6.2.3): AppSKey from AppKey, the others from NwkKey.
func (d *Device) derive11(s Session) error {
	d.putJoinNonce(s)
	binary.LittleEndian.PutUint64(d.block[4:], s.JoinEUI.Uint64())
	binary.LittleEndian.PutUint16(d.block[12:], s.Count)
	for _, k := range [...]struct {
		target, root element.KeyID
		purpose      byte
	}{
		{element.FNwkSIntKey, element.NwkKey, purposeFNwkSIntKey},
		{element.SNwkSIntKey, element.NwkKey, purposeSNwkSIntKey},
		{element.NwkSEncKey, element.NwkKey, purposeNwkSEncKey},
		{element.AppSKey, element.AppKey, purposeAppSKey},
	} {
		if err := d.derive(k.target, k.root, k.purpose); err != nil {
			return err
		}
	}
	return nil
}

// derive10 makes NwkSKey and AppSKey of
// purpose ‖ JoinNonce 3 ‖ NetID 3 ‖ DevNonce 2 ‖ 0*7 (TS001-1.0.4 §6.2.6), both
// from the one root that serves 1.0.x: NwkKey on a 1.1 device that fell back
// (TS001-1.1 §6.1.1.3). NwkSKey stands in for all three network keys.
func (d *Device) derive10(s Session) error {
	d.putJoinNonce(s)
	d.block[4], d.block[5], d.block[6] = s.NetID[2], s.NetID[1], s.NetID[0]
	binary.LittleEndian.PutUint16(d.block[7:], s.Count)
	root := d.element.Root10()
	for _, target := range [...]element.KeyID{element.FNwkSIntKey, element.SNwkSIntKey, element.NwkSEncKey} {
		if err := d.derive(target, root, purposeFNwkSIntKey); err != nil {
			return err
		}
	}
	return d.derive(element.AppSKey, root, purposeAppSKey)
}

// putJoinNonce begins a block of a session.
func (d *Device) putJoinNonce(s Session) {
	clear(d.block[:])
	d.block[1], d.block[2], d.block[3] = byte(s.JoinNonce), byte(s.JoinNonce>>8), byte(s.JoinNonce>>16)
}

func (d *Device) derive(target, root element.KeyID, purpose byte) error {
	d.block[0] = purpose
	return d.element.DeriveAndStore(target, root, &d.block)
}
