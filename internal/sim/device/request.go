package device

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"

	"joinery/internal/sim/element"
	"joinery/lorawan"
)

// JoinRequest makes the next join-request, 23 bytes. Its DevNonce is saved
// before the frame is returned.
func (d *Device) JoinRequest() ([]byte, error) {
	next, err := d.takeDevNonce()
	if err != nil {
		return nil, err
	}
	f := lorawan.JoinRequest{JoinEUI: next.JoinEUI, DevEUI: next.DevEUI, DevNonce: next.LastDevNonce}
	frame := f.AppendUnsigned(make([]byte, 0, lorawan.JoinRequestLen))
	// NwkKey on 1.1 devices, also towards a 1.0 network, which the device cannot
	// know yet (TS001-1.1 §6.2.2).
	if frame, err = d.sign(d.element.Root10(), frame); err != nil {
		return nil, err
	}
	if err := d.save(next); err != nil {
		return nil, err
	}
	d.waiting[waitJoin] = true
	return frame, nil
}

// RejoinRequest makes the next rejoin-request of a type, 19 or 24 bytes. Types
// 0 and 2 are signed with the SNwkSIntKey of the session in force and carry its
// NetID; type 1 is signed with JSIntKey and needs no session (TS001-1.1
// §6.2.4). The counter is saved before the frame is returned.
func (d *Device) RejoinRequest(t lorawan.RejoinType) ([]byte, error) {
	f, key, next, err := d.takeRJCount(t)
	if err != nil {
		return nil, err
	}
	frame := f.AppendUnsigned(make([]byte, 0, lorawan.RejoinRequest1Len))
	if frame, err = d.sign(key, frame); err != nil {
		return nil, err
	}
	if err := d.save(next); err != nil {
		return nil, err
	}
	d.waiting[waitRejoin0+int(t)] = true
	return frame, nil
}

func (d *Device) sign(key element.KeyID, frame []byte) ([]byte, error) {
	mic, err := d.element.ComputeCMAC(key, nil, frame)
	if err != nil {
		return nil, fmt.Errorf("device %v: %w", d.state.DevEUI, err)
	}
	return append(frame, mic[:]...), nil
}

// takeDevNonce gives the state in which the next DevNonce is used.
func (d *Device) takeDevNonce() (State, error) {
	next := d.state
	if !next.MACVersion.CountsDevNonces() {
		return d.drawDevNonce()
	}
	// A counter that starts at 0 and never wraps (TS001-1.0.4 §6.2.5).
	if next.NextDevNonce >= afterLast {
		return State{}, fmt.Errorf("device %v: DevNonce: %w", next.DevEUI, ErrExhausted)
	}
	next.LastDevNonce = lorawan.DevNonce(next.NextDevNonce)
	next.NextDevNonce++
	return next, nil
}

// drawDevNonce draws a random DevNonce (TS001-1.0.3 §6.2.4). Devices differ in
// whether they remember what they used; this one does, so that a run of many
// joins does not fail by chance: from the number drawn it goes up to the next
// one that is free.
func (d *Device) drawDevNonce() (State, error) {
	next := d.state
	if d.draw != nil {
		next.LastDevNonce = d.draw()
		return next, nil
	}
	if len(next.UsedDevNonces) >= afterLast {
		return State{}, fmt.Errorf("device %v: DevNonce: %w", next.DevEUI, ErrExhausted)
	}
	var b [2]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	nonce := lorawan.DevNonce(binary.LittleEndian.Uint16(b[:]))
	i, used := slices.BinarySearch(next.UsedDevNonces, nonce)
	for used {
		nonce++ // wraps from 65,535 to 0
		i++
		if nonce == 0 {
			i = 0
		}
		used = i < len(next.UsedDevNonces) && next.UsedDevNonces[i] == nonce
	}
	next.LastDevNonce = nonce
	next.UsedDevNonces = slices.Insert(slices.Clip(next.UsedDevNonces), i, nonce)
	return next, nil
}

// takeRJCount gives a rejoin-request without its MIC, the key that signs it and
// the state in which its RJcount is used.
func (d *Device) takeRJCount(t lorawan.RejoinType) (f lorawan.RejoinRequest, key element.KeyID, next State, err error) {
	next = d.state
	f = lorawan.RejoinRequest{Type: t, DevEUI: next.DevEUI}
	if !next.MACVersion.Rejoins() {
		return f, 0, next, fmt.Errorf("device %v: %w: it speaks %v", next.DevEUI, ErrNoRejoin, next.MACVersion)
	}
	counter := &next.NextRJCount0
	switch t {
	case lorawan.Rejoin0, lorawan.Rejoin2:
		if next.Session == nil || !next.Session.OptNeg {
			return f, 0, next, fmt.Errorf("device %v: %w: type %d needs a 1.1 session", next.DevEUI, ErrNoRejoin, t)
		}
		f.NetID, key = next.Session.NetID, element.SNwkSIntKey
	case lorawan.Rejoin1:
		f.JoinEUI, key, counter = next.JoinEUI, element.JSIntKey, &next.NextRJCount1
	default:
		return f, 0, next, fmt.Errorf("device %v: %w: type %d does not exist", next.DevEUI, ErrNoRejoin, t)
	}
	if *counter >= afterLast {
		return f, 0, next, fmt.Errorf("device %v: RJcount of type %d: %w", next.DevEUI, t, ErrExhausted)
	}
	f.RJCount = lorawan.RJCount(*counter)
	*counter++
	return f, key, next, nil
}
