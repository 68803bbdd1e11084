package load

import (
	"errors"
	"fmt"
	"slices"

	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/lorawan"
)

// Group is devices of a fleet that follow one another and speak one version.
type Group struct {
	Version      lorawan.MACVersion
	First, Count int
}

// Fleet is the devices of a run: their elements, what they remember, and which
// version each speaks. Safe for concurrent use, each device by one goroutine at
// a time.
type Fleet struct {
	Elements *element.Chest
	Memory   *Memory
	Groups   []Group
	// Used is what devices were left with by somebody else, by their place.
	Used map[int]device.State
}

// ErrOtherFleet says that the state is that of other devices.
var ErrOtherFleet = errors.New("the devices' state was kept for other devices: give the silicon files in the order in which they were, or another --state for a fleet that never joined")

// member is one device for the time of one join.
type member struct {
	*device.Device
	record record
	counts bool
}

// Save implements device.NVM.
func (m *member) Save(s device.State) error {
	if m.counts {
		m.record.setNext(s.NextDevNonce)
	}
	m.record.setJoinNonce(s.JoinNonce)
	return nil
}

// device makes the device at a place, in the state in which it was left.
func (f *Fleet) device(place int, version lorawan.MACVersion) (*member, error) {
	e := f.Elements.Take(place)
	m := &member{record: f.Memory.record(place), counts: version.CountsDevNonces()}
	if !m.record.claim(e.JoinEUI(), e.DevEUI()) {
		return nil, fmt.Errorf("device %v: %w", e.DevEUI(), ErrOtherFleet)
	}
	var used []lorawan.DevNonce
	if before, ok := f.Used[place]; ok {
		used = before.UsedDevNonces
		m.raise(before, version)
	}
	next := m.record.next()
	if next > uint32(lorawan.MaxDevNonce) {
		return nil, device.ErrExhausted
	}
	state := device.State{
		JoinEUI: e.JoinEUI(), DevEUI: e.DevEUI(), MACVersion: version, JoinNonce: m.record.joinNonce(),
	}
	options := device.Options{NVM: m}
	if m.counts {
		state.NextDevNonce = next
	} else {
		options.Draw = func() lorawan.DevNonce { return m.draw(e.DevEUI(), used) }
	}
	var err error
	m.Device, err = device.Restore(e, state, options)
	return m, err
}

// raise lifts the counters to where somebody else left the device.
func (m *member) raise(before device.State, version lorawan.MACVersion) {
	if version.CountsDevNonces() {
		next := before.NextDevNonce
		if n := len(before.UsedDevNonces); n > 0 {
			next = max(next, uint32(before.UsedDevNonces[n-1])+1)
		}
		m.record.setNext(max(m.record.next(), next))
	}
	m.record.setJoinNonce(max(m.record.joinNonce(), before.JoinNonce))
}

// draw takes the next DevNonce that nobody used. One is left, or the device was
// not made; two where others used the rest are not worth a check of their own.
func (m *member) draw(devEUI lorawan.EUI64, used []lorawan.DevNonce) lorawan.DevNonce {
	for {
		n := m.record.next()
		nonce := drawn(devEUI, uint16(n))
		m.record.setNext(n + 1)
		if _, taken := slices.BinarySearch(used, nonce); !taken || n >= uint32(lorawan.MaxDevNonce) {
			return nonce
		}
	}
}
