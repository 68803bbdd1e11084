package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"joinery/internal/sim"
	"joinery/internal/sim/chip"
	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/internal/sim/silicon"
	"joinery/lorawan"
)

// DefaultMACVersion is that of a device used for the first time, unless told.
const DefaultMACVersion = lorawan.MAC1_0_4

// Selector says which device is meant. The zero value is the first element of
// the first silicon file.
type Selector struct {
	// DevEUI selects by identifier, unless zero; JoinEUI, unless zero, tells
	// two devices with one DevEUI apart.
	DevEUI  lorawan.EUI64
	JoinEUI lorawan.EUI64
	// Index counts elements over all silicon files, from 0; used if DevEUI is
	// zero.
	Index int
}

// Device is one device of the lab: its element, its state, and what the lab
// remembers of it.
type Device struct {
	*device.Device
	lab    *Lab
	record *Record
}

// LastJoinRequest gives the last join-request, nil before the first.
func (d *Device) LastJoinRequest() []byte { return d.record.LastJoinRequest }

// SessionKeyID gives the name of the session in force towards Application
// Servers, nil if it has none.
func (d *Device) SessionKeyID() []byte { return d.record.SessionKeyID }

// Remember notes what an activation left: the frame that anybody could record,
// and if the device took the accept, the session's network and SessionKeyID.
func (d *Device) Remember(ns *sim.NS, r *sim.Result) error {
	if len(r.Sent.PHYPayload) == lorawan.JoinRequestLen {
		d.record.LastJoinRequest = slices.Clone(r.Sent.PHYPayload)
	}
	if r.Taken {
		d.record.NS, d.record.SessionKeyID = ns.Name(), slices.Clone(r.SessionKeyID)
	}
	return d.lab.state.write()
}

// Device finds an element in the silicon files and gives the device around it,
// in the state in which it was left. version, if not zero, is the firmware from
// now on; a device keeps its counters when it gets another.
func (l *Lab) Device(sel Selector, version lorawan.MACVersion) (*Device, error) {
	e, place, err := l.element(sel)
	if err != nil {
		return nil, err
	}
	r, isNew := l.state.record(deviceKey{e.JoinEUI(), e.DevEUI()})
	switch {
	case version.Valid() && version != r.Device.MACVersion:
		reflash(&r.Device, version)
	case isNew:
		r.Device.MACVersion = DefaultMACVersion
	}
	if l.Elsewhere != nil {
		if err := l.Elsewhere(place, &r.Device); err != nil {
			return nil, err
		}
	}
	d, err := device.Restore(e, r.Device, device.Options{NVM: nvm{l.state, r}})
	if err != nil {
		return nil, err
	}
	return &Device{Device: d, lab: l, record: r}, nil
}

// reflash changes the firmware of a device. DevNonces that were used stay used:
// a counter goes on above the highest one drawn.
func reflash(s *device.State, version lorawan.MACVersion) {
	s.MACVersion = version
	if n := len(s.UsedDevNonces); n > 0 {
		s.NextDevNonce = max(s.NextDevNonce, uint32(s.UsedDevNonces[n-1])+1)
	}
	if s.Session != nil && s.Session.OptNeg && !version.NegotiatesOptions() {
		s.Session = nil
	}
}

// element finds and opens one element, and gives its place over all files.
func (l *Lab) element(sel Selector) (found *element.Element, place int, err error) {
	index := -1
	err = l.rows(func(s *silicon.Reader, row silicon.Row) (more bool, err error) {
		index++
		if sel.DevEUI.IsZero() {
			if index < sel.Index {
				return true, nil
			}
			found, err = s.Element(row)
			place = index
			return false, err
		}
		if row.DevEUI != sel.DevEUI || !sel.JoinEUI.IsZero() && row.JoinEUI != sel.JoinEUI {
			return true, nil
		}
		if found != nil {
			return false, fmt.Errorf("DevEUI %v is there more than once: say which with --join-eui", sel.DevEUI)
		}
		found, err = s.Element(row)
		place = index
		return true, err
	})
	switch {
	case err != nil:
		return nil, 0, err
	case found != nil:
		return found, place, nil
	case sel.DevEUI.IsZero():
		return nil, 0, fmt.Errorf("no element has index %d: the silicon files hold %d", sel.Index, index+1)
	}
	return nil, 0, fmt.Errorf("DevEUI %v is in no silicon file: `joinsim devices` lists them", sel.DevEUI)
}

// rows calls visit for each element of all silicon files until it wants no
// more.
func (l *Lab) rows(visit func(*silicon.Reader, silicon.Row) (more bool, err error)) error {
	if l.recipient == nil {
		return errors.New("sim.json names no silicon, so there is no element")
	}
	for _, name := range l.config.Silicon {
		more, err := l.fileRows(name, visit)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if !more {
			return nil
		}
	}
	return nil
}

func (l *Lab) fileRows(name string, visit func(*silicon.Reader, silicon.Row) (bool, error)) (more bool, err error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	s, err := silicon.NewReader(f, l.recipient)
	if err != nil {
		return false, err
	}
	for {
		row, err := s.Next()
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if more, err := visit(s, row); err != nil || !more {
			return false, err
		}
	}
}

// Listed is one element as `joinsim devices` shows it.
type Listed struct {
	Index    int           `json:"index"`
	UniqueID string        `json:"uniqueId"`
	JoinEUI  lorawan.EUI64 `json:"joinEUI"`
	DevEUI   lorawan.EUI64 `json:"devEUI"`
	// Record is nil for an element that was never used.
	Record *Record `json:"state,omitempty"`
}

// List gives up to limit elements from index on, 0 for all, and how many there
// are in all.
func (l *Lab) List(from, limit int) (list []Listed, total int, err error) {
	err = l.rows(func(_ *silicon.Reader, row silicon.Row) (bool, error) {
		if total >= from && (limit == 0 || len(list) < limit) {
			list = append(list, Listed{
				Index: total, UniqueID: row.UniqueID, JoinEUI: row.JoinEUI, DevEUI: row.DevEUI,
				Record: l.state.records[deviceKey{row.JoinEUI, row.DevEUI}],
			})
		}
		total++
		return true, nil
	})
	return list, total, err
}

// BootImage opens one element that verifies firmware as the image of a chip, with the key
// of its bus.
func (l *Lab) BootImage(sel Selector) (m *chip.Image, ioKey [32]byte, err error) {
	err = l.rows(func(s *silicon.Reader, row silicon.Row) (bool, error) {
		if row.DevEUI != sel.DevEUI || !sel.JoinEUI.IsZero() && row.JoinEUI != sel.JoinEUI {
			return true, nil
		}
		m, ioKey, err = s.BootImage(row)
		return false, err
	})
	if err == nil && m == nil {
		err = fmt.Errorf("DevEUI %v is in no silicon file: `joinsim devices` lists them", sel.DevEUI)
	}
	return m, ioKey, err
}

// Images opens the elements of all silicon files as images of chips, in order.
func (l *Lab) Images(visit func(*chip.Image)) error {
	return l.rows(func(s *silicon.Reader, row silicon.Row) (bool, error) {
		m, err := s.Image(row)
		if err != nil {
			return false, err
		}
		visit(m)
		return true, nil
	})
}

// Elements opens the elements of all silicon files as elements of software, in order,
// until visit wants no more: many devices at once need no chip each.
func (l *Lab) Elements(visit func(*element.Element) (more bool)) error {
	return l.rows(func(s *silicon.Reader, row silicon.Row) (bool, error) {
		e, err := s.Direct(row)
		if err != nil {
			return false, err
		}
		return visit(e), nil
	})
}

// Used gives what devices.json remembers of a device, nil if nothing.
func (l *Lab) Used(joinEUI, devEUI lorawan.EUI64) *device.State {
	r := l.state.records[deviceKey{joinEUI, devEUI}]
	if r == nil {
		return nil
	}
	return &r.Device
}

// StatePath gives the path of devices.json.
func (l *Lab) StatePath() string { return l.config.State }
