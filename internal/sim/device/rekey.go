package device

import (
	"errors"
	"fmt"
	"slices"

	"joinery/internal/sim/element"
	"joinery/lorawan"
)

// SetAuthMAC brings the device the MAC that its element, of rekeying profile M,
// wants before it derives.
func (d *Device) SetAuthMAC(mac []byte) error {
	next := d.state
	next.AuthMAC = slices.Clone(mac)
	return d.save(next)
}

// canRekey tells whether an instruction in an accept can be obeyed.
func (d *Device) canRekey() bool {
	return d.element.Rekeys() && (!d.element.NeedsAuthMAC() || len(d.state.AuthMAC) > 0)
}

// Rekey obeys an instruction that came otherwise than in an accept: from a ticket
// at the bench.
func (d *Device) Rekey(r lorawan.Rekey) error {
	if !d.canRekey() {
		return fmt.Errorf("device %v: its element cannot rekey, or lacks the authorising MAC: %w", d.state.DevEUI, element.ErrNoKey)
	}
	return d.rekey(r, d.state.JoinNonce)
}

// rekey obeys an instruction in two steps, each of which a power cut may keep from
// happening:
//
//  1. new root keys are derived inside the element, which remembers by which
//     instruction; the session ends with the old ones
//  2. the JoinEUI is stored
//
// Between the two the device asks the old Join Server, with new keys. That one
// knows them, and gives it the same instruction again; then nothing is derived
// and step 2 is done.
func (d *Device) rekey(r lorawan.Rekey, joinNonce lorawan.JoinNonce) error {
	next := d.state
	next.JoinNonce, next.Session, next.NextRJCount0 = joinNonce, nil, 0
	if !slices.Contains(next.Rekeyed, Rekeyed(r)) {
		next.Rekeyed = append(slices.Clip(next.Rekeyed), Rekeyed(r))
		before := d.state
		if err := d.save(next); err != nil {
			return err
		}
		if err := d.derive1(Rekeyed(r)); err != nil {
			// The element refused, and has the keys that it had.
			return errors.Join(err, d.save(before))
		}
	}
	clear(d.waiting[:])
	next.JoinEUI = r.JoinEUI
	if err := d.save(next); err != nil {
		return err
	}
	return d.element.SetJoinEUI(r.JoinEUI)
}

// derive1 has the element derive by one instruction, and what hangs on root keys.
func (d *Device) derive1(r Rekeyed) error {
	if err := d.element.Rekey(r.JoinEUI, r.Cookie, d.state.AuthMAC); err != nil {
		return err
	}
	if d.state.MACVersion.HasTwoRootKeys() {
		return d.deriveLifetimeKeys()
	}
	return nil
}

// rekeyAgain brings an element that is as the factory made it to where its device
// had it.
func (d *Device) rekeyAgain() error {
	moved := d.element.JoinEUI() == d.state.JoinEUI
	for i, r := range d.state.Rekeyed {
		err := d.element.Rekey(r.JoinEUI, r.Cookie, d.state.AuthMAC)
		if errors.Is(err, element.ErrMIC) && i == len(d.state.Rekeyed)-1 && r.JoinEUI != d.state.JoinEUI {
			// It was cut off between writing down that it would derive and being refused.
			d.state.Rekeyed = d.state.Rekeyed[:i]
			break
		}
		if err != nil {
			return err
		}
		moved = moved || r.JoinEUI == d.state.JoinEUI
	}
	if !moved {
		return nil
	}
	return d.element.SetJoinEUI(d.state.JoinEUI)
}
