package device

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"joinery/internal/sim/element"
	"joinery/lorawan"
)

// memory is an NVM that may fail.
type memory struct {
	saved State
	saves int
	err   error
}

func (m *memory) Save(s State) error {
	m.saves++
	if m.err != nil {
		return m.err
	}
	m.saved = s.Clone()
	return nil
}

// The counter is saved when a frame leaves, and no frame leaves that was not
// saved; an unsaved number may be used again.
func TestSavesBeforeSending(t *testing.T) {
	for _, version := range []lorawan.MACVersion{lorawan.MAC1_0_2, lorawan.MAC1_1} {
		m := &memory{}
		d, roots := newDevice(t, version, Options{NVM: m})
		f := mustJoin(t, d)
		if m.saves != 1 || m.saved.LastDevNonce != f.DevNonce || m.saved.NextDevNonce+uint32(len(m.saved.UsedDevNonces)) != 1 {
			t.Fatalf("%v: sent DevNonce %d, saved %+v", version, f.DevNonce, m.saved)
		}
		m.err = errors.New("flash is worn out")
		before := d.State()
		if _, err := d.JoinRequest(); !errors.Is(err, m.err) {
			t.Fatalf("%v: got %v, want the error of the memory", version, err)
		}
		_, accept := answer(roots, 0xFF, uint16(f.DevNonce), 1, version.NegotiatesOptions())
		if _, err := d.HandleAccept(accept); !errors.Is(err, m.err) {
			t.Fatalf("%v: accept: got %v, want the error of the memory", version, err)
		}
		if string(encoded(t, before)) != string(encoded(t, d.State())) {
			t.Errorf("%v: the state changed without being saved", version)
		}
		m.err = nil
		mustAccept(t, d, accept)
		if m.saved.Session == nil || m.saved.JoinNonce != 1 {
			t.Errorf("%v: the session was not saved: %+v", version, m.saved)
		}
	}
}

// A device that comes back from its saved state has the same keys and goes on
// counting.
func TestRestore(t *testing.T) {
	for version := lorawan.MAC1_0_0; version <= lorawan.MAC1_1; version++ {
		m := &memory{}
		d, roots := newDevice(t, version, Options{NVM: m})
		f := mustJoin(t, d)
		s, accept := answer(roots, 0xFF, uint16(f.DevNonce), 5, version.NegotiatesOptions())
		mustAccept(t, d, accept)
		if version.Rejoins() {
			if _, err := d.RejoinRequest(lorawan.Rejoin0); err != nil {
				t.Fatal(err)
			}
		}
		var read State
		if err := json.Unmarshal(encoded(t, m.saved), &read); err != nil {
			t.Fatal(err)
		}
		e, err := element.Provision(joinEUI, devEUI, roots.NwkKey[:], roots.AppKey[:])
		if err != nil {
			t.Fatal(err)
		}
		back, err := Restore(e, read, Options{NVM: m})
		if err != nil {
			t.Fatal(err)
		}
		if !holdsAll(back, roots.SessionKeys(s)) {
			t.Errorf("%v: session keys differ after a restart", version)
		}
		if string(encoded(t, back.State())) != string(encoded(t, d.State())) {
			t.Errorf("%v: state differs after a restart", version)
		}
		if _, err := back.HandleAccept(accept); !errors.Is(err, ErrUnsolicited) {
			t.Errorf("%v: accept after a restart: got %v, want ErrUnsolicited", version, err)
		}
		if g := mustJoin(t, back); version.CountsDevNonces() && g.DevNonce != f.DevNonce+1 || g.DevNonce == f.DevNonce {
			t.Errorf("%v: DevNonce %d after %d", version, g.DevNonce, f.DevNonce)
		}
	}
}

// No state holds a key.
func TestStateHoldsNoKey(t *testing.T) {
	d, roots := joined(t, lorawan.MAC1_1)
	text := strings.ToLower(string(encoded(t, d.State())))
	s, _ := answer(roots, 0xFF, 0, 1, true)
	keys := roots.SessionKeys(s)
	for _, key := range [][16]byte{roots.NwkKey, roots.AppKey, keys.AppSKey, keys.FNwkSIntKey, keys.SNwkSIntKey, keys.NwkSEncKey} {
		if strings.Contains(text, lorawan.EUI64(key[:8]).String()) || strings.Contains(text, strings.ToLower(lorawan.EUI64(key[8:]).String())) {
			t.Error("a key is in the state")
		}
	}
}

func TestRestoreRefuses(t *testing.T) {
	good := State{JoinEUI: joinEUI, DevEUI: devEUI, MACVersion: lorawan.MAC1_0_4}
	for name, change := range map[string]func(*State){
		"no version":             func(s *State) { s.MACVersion = 0 },
		"another device":         func(s *State) { s.DevEUI = joinEUI },
		"another JoinEUI":        func(s *State) { s.JoinEUI = devEUI },
		"DevNonce too high":      func(s *State) { s.NextDevNonce = 65537 },
		"RJcount0 too high":      func(s *State) { s.NextRJCount0 = 65537 },
		"RJcount1 too high":      func(s *State) { s.NextRJCount1 = 65537 },
		"JoinNonce too high":     func(s *State) { s.JoinNonce = 1 << 24 },
		"DevNonces out of order": func(s *State) { s.UsedDevNonces = []lorawan.DevNonce{2, 1} },
		"1.1 session":            func(s *State) { s.Session = &Session{OptNeg: true} },
		"1.1 with one root key":  func(s *State) { s.MACVersion = lorawan.MAC1_1 },
	} {
		e, err := element.NewFactory(nil).Make(joinEUI, devEUI, lorawan.MAC1_0_4)
		if err != nil {
			t.Fatal(err)
		}
		s := good
		change(&s)
		if _, err := Restore(e, s, Options{}); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
}

// Whatever arrives as an accept: no panic, and the device changes only if it
// takes it, which it does for what its Join Server made and nothing else.
func FuzzHandleAccept(f *testing.F) {
	version := lorawan.MAC1_1
	d, roots := newDevice(f, version, Options{})
	request := mustJoin(f, d)
	_, good := answer(roots, 0xFF, uint16(request.DevNonce), 1, true)
	_, fallback := answer(roots, 0xFF, uint16(request.DevNonce), 1, false)
	f.Add(good)
	f.Add(fallback)
	f.Add(good[:16])
	f.Add(append(append([]byte{}, good...), fallback[1:]...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		waiting, before := d.waiting, d.state.Clone()
		a, err := d.HandleAccept(frame)
		known := string(frame) == string(good) || string(frame) == string(fallback)
		if (err == nil) != known {
			t.Fatalf("%x: %v", frame, err)
		}
		if err != nil {
			if string(encoded(t, before)) != string(encoded(t, d.state)) {
				t.Fatal("a refused accept changed the state")
			}
			return
		}
		if a.JoinNonce != 1 || a.NetID != netID {
			t.Fatalf("took %+v", a)
		}
		d.waiting, d.state = waiting, before
	})
}
