package lab

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/renameio/v2"

	"joinery/internal/sim/device"
	"joinery/lorawan"
)

const formatState = "joinery-sim-devices/1"

// stateFile is devices.json. It holds no key.
type stateFile struct {
	Format  string    `json:"format"`
	Devices []*Record `json:"devices"`
}

// Record is all that is remembered of one device.
type Record struct {
	Device device.State `json:"device"`
	// Silicon is the JoinEUI in the silicon file, of a device that was rekeyed.
	Silicon lorawan.EUI64 `json:"siliconJoinEUI,omitzero"`
	// LastJoinRequest is the device's last join-request, as whoever listens on
	// the air could have recorded it.
	LastJoinRequest Hex `json:"lastJoinRequest,omitempty"`
	// NS is the network of the session in force, SessionKeyID its name towards
	// Application Servers, if it got one.
	NS           string `json:"ns,omitempty"`
	SessionKeyID Hex    `json:"sessionKeyID,omitempty"`
}

// Hex is bytes that are hexadecimal in JSON.
type Hex []byte

// MarshalText implements encoding.TextMarshaler.
func (h Hex) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hex) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil {
		return errors.New("want hexadecimal digits")
	}
	*h = b
	return nil
}

// deviceKey names a device: DevEUI alone does not.
type deviceKey struct{ joinEUI, devEUI lorawan.EUI64 }

// state is devices.json while it is open; nobody else has it open.
type state struct {
	path    string
	lock    *os.File
	file    stateFile
	records map[deviceKey]*Record
}

// openState takes the lock and reads the file, which may be missing.
func openState(path string) (*state, error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	s := &state{path: path, lock: lock, file: stateFile{Format: formatState}, records: map[deviceKey]*Record{}}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("state: lock of %s: %w", path, err), lock.Close())
	}
	if err := s.read(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *state) read() error {
	b, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if err := json.Unmarshal(b, &s.file, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("state %s: damaged: %w: restore it, or remove it and have the devices' nonces reset at the server", s.path, reason(err))
	}
	if s.file.Format != formatState {
		return fmt.Errorf("state %s: want format %s", s.path, formatState)
	}
	for _, r := range s.file.Devices {
		k := deviceKey{r.Device.JoinEUI, r.Device.DevEUI}
		if !r.Silicon.IsZero() {
			k.joinEUI = r.Silicon
		}
		s.records[k] = r
	}
	return nil
}

// record finds or makes the record of a device.
func (s *state) record(k deviceKey) (r *Record, isNew bool) {
	if r = s.records[k]; r != nil {
		return r, false
	}
	r = &Record{Device: device.State{JoinEUI: k.joinEUI, DevEUI: k.devEUI}}
	s.records[k] = r
	s.file.Devices = append(s.file.Devices, r)
	return r, true
}

// write replaces the file, whole or not at all, durably.
func (s *state) write() error {
	b, err := json.Marshal(s.file, jsontext.WithIndent("  "))
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if err := renameio.WriteFile(s.path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return nil
}

// close gives the lock back.
func (s *state) close() error { return s.lock.Close() }

// nvm is the non-volatile memory of one device: its part of devices.json.
type nvm struct {
	state  *state
	record *Record
}

// Save implements device.NVM.
func (n nvm) Save(d device.State) error {
	before := n.record.Device
	n.record.Device = d.Clone()
	if len(d.Rekeyed) > 0 && n.record.Silicon.IsZero() {
		n.record.Silicon = before.JoinEUI
	}
	if err := n.state.write(); err != nil {
		n.record.Device = before
		return err
	}
	return nil
}
