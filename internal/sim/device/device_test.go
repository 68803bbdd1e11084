package device

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"joinery/internal/sim/element"
	"joinery/internal/sim/simtest"
	"joinery/lorawan"
)

var (
	joinEUI = lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 0}
	devEUI  = lorawan.EUI64{0, 4, 0xA3, 0x10, 0, 0x1F, 0xF9, 0xDA}
	netID   = lorawan.NetID{0, 0, 0x13}
)

// newDevice makes a device and the roots with which a test plays Join Server.
func newDevice(t testing.TB, version lorawan.MACVersion, o Options) (*Device, simtest.Roots) {
	t.Helper()
	var roots simtest.Roots
	rand.Read(roots.NwkKey[:])
	rand.Read(roots.AppKey[:])
	e, err := element.Provision(joinEUI, devEUI, roots.NwkKey[:], roots.AppKey[:])
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(e, version, o)
	if err != nil {
		t.Fatal(err)
	}
	return d, roots
}

// answer makes the accept that a Join Server gives for the device's last
// request.
func answer(roots simtest.Roots, joinType byte, count uint16, nonce lorawan.JoinNonce, optNeg bool) (simtest.Session, []byte) {
	s := simtest.Session{Type: joinType, JoinEUI: joinEUI, DevEUI: devEUI, Count: count, Accept: lorawan.JoinAccept{
		JoinNonce: nonce, NetID: netID, DevAddr: lorawan.DevAddr{0x26, 1, 2, 3}, RxDelay: 1,
	}}
	if optNeg {
		s.Accept.DLSettings = 0x80
	}
	return s, roots.AcceptFrame(s)
}

func mustJoin(t testing.TB, d *Device) lorawan.JoinRequest {
	t.Helper()
	frame, err := d.JoinRequest()
	if err != nil {
		t.Fatal(err)
	}
	f, err := lorawan.ParseJoinRequest(frame)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustAccept(t testing.TB, d *Device, frame []byte) Accepted {
	t.Helper()
	a, err := d.HandleAccept(frame)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func holdsAll(d *Device, k simtest.Keys) bool {
	return d.HoldsSessionKey(element.FNwkSIntKey, k.FNwkSIntKey[:]) && d.HoldsSessionKey(element.SNwkSIntKey, k.SNwkSIntKey[:]) &&
		d.HoldsSessionKey(element.NwkSEncKey, k.NwkSEncKey[:]) && d.HoldsSessionKey(element.AppSKey, k.AppSKey[:])
}

// joined makes a device that joined once, with JoinNonce 1.
func joined(t testing.TB, version lorawan.MACVersion) (*Device, simtest.Roots) {
	t.Helper()
	d, roots := newDevice(t, version, Options{})
	f := mustJoin(t, d)
	_, frame := answer(roots, 0xFF, uint16(f.DevNonce), 1, version.NegotiatesOptions())
	mustAccept(t, d, frame)
	return d, roots
}

func TestJoinEveryVersion(t *testing.T) {
	for v := lorawan.MAC1_0_0; v <= lorawan.MAC1_1; v++ {
		for _, network11 := range []bool{false, true} {
			optNeg := network11 && v.NegotiatesOptions()
			d, roots := newDevice(t, v, Options{})
			if _, ok := d.Session(); ok || d.JoinNonce() != 0 {
				t.Fatalf("%v: a new device has a session", v)
			}
			for i := range 3 {
				f := mustJoin(t, d)
				if f.JoinEUI != joinEUI || f.DevEUI != devEUI {
					t.Fatalf("%v: request of %v at %v", v, f.DevEUI, f.JoinEUI)
				}
				s, frame := answer(roots, 0xFF, uint16(f.DevNonce), lorawan.JoinNonce(i+1), optNeg)
				a := mustAccept(t, d, frame)
				if a.OptNeg != optNeg || a.JoinAccept != s.Accept || a.Type != element.Join {
					t.Errorf("%v: got %+v", v, a)
				}
				if !holdsAll(d, roots.SessionKeys(s)) {
					t.Errorf("%v, OptNeg %t: session keys differ", v, optNeg)
				}
			}
		}
	}
}

func TestDevNonceCounts(t *testing.T) {
	for _, first := range []lorawan.DevNonce{0, 1} {
		d, _ := newDevice(t, lorawan.MAC1_0_4, Options{FirstDevNonce: first})
		for i := range 5 {
			if f := mustJoin(t, d); f.DevNonce != first+lorawan.DevNonce(i) {
				t.Errorf("request %d: DevNonce %d, first %d", i, f.DevNonce, first)
			}
		}
	}
	d, _ := newDevice(t, lorawan.MAC1_1, Options{FirstDevNonce: 65535})
	if f := mustJoin(t, d); f.DevNonce != 65535 {
		t.Errorf("last DevNonce: got %d", f.DevNonce)
	}
	if _, err := d.JoinRequest(); !errors.Is(err, ErrExhausted) {
		t.Errorf("after the last DevNonce: got %v, want ErrExhausted", err)
	}
}

func TestDevNonceIsDrawnOnceEach(t *testing.T) {
	d, _ := newDevice(t, lorawan.MAC1_0_3, Options{})
	seen := map[lorawan.DevNonce]bool{}
	rises := 0
	last := lorawan.DevNonce(0)
	for range 2000 {
		f := mustJoin(t, d)
		if seen[f.DevNonce] {
			t.Fatalf("DevNonce %d twice", f.DevNonce)
		}
		if f.DevNonce == last+1 {
			rises++
		}
		seen[f.DevNonce], last = true, f.DevNonce
	}
	if rises > 100 {
		t.Errorf("%d of 2,000 DevNonces are one above the one before: not drawn at random", rises)
	}
	if s := d.State(); len(s.UsedDevNonces) != len(seen) || !slices.IsSorted(s.UsedDevNonces) {
		t.Errorf("device remembers %d of %d", len(s.UsedDevNonces), len(seen))
	}
}

// The last free DevNonce is found from wherever the draw begins.
func TestDevNonceFindsTheLastFree(t *testing.T) {
	for _, free := range []lorawan.DevNonce{0, 1, 30000, 65535} {
		state := State{JoinEUI: joinEUI, DevEUI: devEUI, MACVersion: lorawan.MAC1_0_2}
		for n := range 1 << 16 {
			if lorawan.DevNonce(n) != free {
				state.UsedDevNonces = append(state.UsedDevNonces, lorawan.DevNonce(n))
			}
		}
		e, err := element.NewFactory(nil).Make(joinEUI, devEUI, lorawan.MAC1_0_2)
		if err != nil {
			t.Fatal(err)
		}
		d, err := Restore(e, state, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if f := mustJoin(t, d); f.DevNonce != free {
			t.Errorf("got %d, want %d", f.DevNonce, free)
		}
		if _, err := d.JoinRequest(); !errors.Is(err, ErrExhausted) {
			t.Errorf("with none left: got %v, want ErrExhausted", err)
		}
	}
}

func TestRejoins(t *testing.T) {
	d, roots := joined(t, lorawan.MAC1_1)
	nonce := lorawan.JoinNonce(1)
	s := simtest.Session{Type: 0xFF, JoinEUI: joinEUI, DevEUI: devEUI, Accept: lorawan.JoinAccept{JoinNonce: 1, NetID: netID, DLSettings: 0x80}}
	wantCount1 := lorawan.RJCount(0)
	for _, rejoinType := range []lorawan.RejoinType{0, 2, 1, 0, 1, 2, 2} {
		// Every other request is lost: counters go on, keys stay.
		for lost := range 2 {
			frame, err := d.RejoinRequest(rejoinType)
			if err != nil {
				t.Fatal(err)
			}
			f, err := lorawan.ParseRejoinRequest(frame)
			if err != nil {
				t.Fatal(err)
			}
			key, want := roots.SessionKeys(s).SNwkSIntKey, lorawan.RejoinRequest{Type: rejoinType, NetID: netID, DevEUI: devEUI, RJCount: lorawan.RJCount(lost)}
			if rejoinType == lorawan.Rejoin1 {
				key, _ = roots.JSKeys(devEUI)
				want.NetID, want.JoinEUI, want.RJCount = lorawan.NetID{}, joinEUI, wantCount1
				wantCount1++
			}
			want.MIC = simtest.CMAC4(key, frame[:len(frame)-4])
			if f != want {
				t.Fatalf("type %d: got %+v, want %+v", rejoinType, f, want)
			}
			if lost == 0 {
				continue
			}
			nonce++
			var accept []byte
			s, accept = answer(roots, byte(rejoinType), uint16(f.RJCount), nonce, true)
			if a := mustAccept(t, d, accept); a.Type != element.JoinType(rejoinType) {
				t.Errorf("type %d was taken for %v", rejoinType, a.Type)
			}
			if !holdsAll(d, roots.SessionKeys(s)) {
				t.Errorf("type %d: session keys differ", rejoinType)
			}
		}
	}
}

func TestRejoinRefusals(t *testing.T) {
	old, _ := joined(t, lorawan.MAC1_0_4)
	unjoined, _ := newDevice(t, lorawan.MAC1_1, Options{})
	fallen, roots := newDevice(t, lorawan.MAC1_1, Options{})
	f := mustJoin(t, fallen)
	_, frame := answer(roots, 0xFF, uint16(f.DevNonce), 1, false)
	mustAccept(t, fallen, frame)
	for _, c := range []struct {
		name string
		d    *Device
		t    lorawan.RejoinType
		want error
	}{
		{"1.0.4 device", old, 0, ErrNoRejoin}, {"1.0.4 device", old, 1, ErrNoRejoin},
		{"before the first join", unjoined, 0, ErrNoRejoin}, {"before the first join", unjoined, 2, ErrNoRejoin},
		{"on a 1.0 network", fallen, 0, ErrNoRejoin}, {"on a 1.0 network", fallen, 2, ErrNoRejoin},
		{"no such type", unjoined, 3, ErrNoRejoin},
		// Type 1 is how a device without a session asks for one.
		{"before the first join", unjoined, 1, nil}, {"on a 1.0 network", fallen, 1, nil},
	} {
		if _, err := c.d.RejoinRequest(c.t); !errors.Is(err, c.want) {
			t.Errorf("type %d, %s: got %v, want %v", c.t, c.name, err, c.want)
		}
	}
}

func TestRJCountsDoNotWrap(t *testing.T) {
	d, _ := joined(t, lorawan.MAC1_1)
	d.state.NextRJCount0, d.state.NextRJCount1 = 65535, 65535
	for _, rejoinType := range []lorawan.RejoinType{lorawan.Rejoin2, lorawan.Rejoin1} {
		if _, err := d.RejoinRequest(rejoinType); err != nil {
			t.Fatal(err)
		}
		if _, err := d.RejoinRequest(rejoinType); !errors.Is(err, ErrExhausted) {
			t.Errorf("type %d: got %v, want ErrExhausted", rejoinType, err)
		}
	}
}

func TestAcceptRefusals(t *testing.T) {
	for _, c := range []struct {
		name    string
		version lorawan.MACVersion
		// frame makes the accept; the device joined with JoinNonce 1 and has
		// sent a further join-request.
		frame func(r simtest.Roots, f lorawan.JoinRequest) []byte
		want  error
	}{
		{"1.1: JoinNonce again", lorawan.MAC1_1, func(r simtest.Roots, f lorawan.JoinRequest) []byte {
			_, b := answer(r, 0xFF, uint16(f.DevNonce), 1, true)
			return b
		}, ErrJoinNonce},
		{"1.1: JoinNonce below", lorawan.MAC1_1, func(r simtest.Roots, f lorawan.JoinRequest) []byte {
			_, b := answer(r, 0xFF, uint16(f.DevNonce), 0, true)
			return b
		}, ErrJoinNonce},
		{"1.0.x: JoinNonce again", lorawan.MAC1_0_3, func(r simtest.Roots, f lorawan.JoinRequest) []byte {
			_, b := answer(r, 0xFF, uint16(f.DevNonce), 1, false)
			return b
		}, ErrJoinNonce},
		// Before 1.1 a device takes any other number, also a lower one.
		{"1.0.x: JoinNonce below", lorawan.MAC1_0_3, func(r simtest.Roots, f lorawan.JoinRequest) []byte {
			_, b := answer(r, 0xFF, uint16(f.DevNonce), 0, false)
			return b
		}, nil},
		{"1.1: answers an earlier DevNonce", lorawan.MAC1_1, func(r simtest.Roots, f lorawan.JoinRequest) []byte {
			_, b := answer(r, 0xFF, uint16(f.DevNonce)-1, 2, true)
			return b
		}, ErrMIC},
		{"1.1: answers a rejoin that was not sent", lorawan.MAC1_1, func(r simtest.Roots, f lorawan.JoinRequest) []byte {
			_, b := answer(r, 0, uint16(f.DevNonce), 2, true)
			return b
		}, ErrMIC},
		{"1.0.x: OptNeg", lorawan.MAC1_0_4, func(r simtest.Roots, f lorawan.JoinRequest) []byte {
			// As a server would that takes the bit for the network's business:
			// 1.0.x MIC over a DLSettings with bit 7.
			a := lorawan.JoinAccept{JoinNonce: 2, DLSettings: 0x80}
			return accept10(r, a)
		}, ErrVersion},
		{"1.0.x: 1.1 MIC", lorawan.MAC1_0_4, func(r simtest.Roots, f lorawan.JoinRequest) []byte {
			_, b := answer(r, 0xFF, uint16(f.DevNonce), 2, true)
			return b
		}, ErrMIC},
		{"other roots", lorawan.MAC1_1, func(_ simtest.Roots, f lorawan.JoinRequest) []byte {
			_, b := answer(simtest.Roots{}, 0xFF, uint16(f.DevNonce), 2, true)
			return b
		}, ErrMIC},
		{"other MHDR", lorawan.MAC1_1, func(r simtest.Roots, f lorawan.JoinRequest) []byte {
			_, b := answer(r, 0xFF, uint16(f.DevNonce), 2, true)
			b[0] = 0x60
			return b
		}, ErrFrame},
		{"cut short", lorawan.MAC1_1, func(r simtest.Roots, f lorawan.JoinRequest) []byte {
			_, b := answer(r, 0xFF, uint16(f.DevNonce), 2, true)
			return b[:16]
		}, ErrFrame},
		{"nothing", lorawan.MAC1_1, func(simtest.Roots, lorawan.JoinRequest) []byte { return nil }, ErrFrame},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, roots := joined(t, c.version)
			frame := c.frame(roots, mustJoin(t, d))
			before := d.State()
			if _, err := d.HandleAccept(frame); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if c.want == nil {
				return
			}
			if !slices.Equal(encoded(t, before), encoded(t, d.State())) {
				t.Error("a refused accept changed the state")
			}
			// The request still waits: the right accept is taken.
			_, good := answer(roots, 0xFF, uint16(before.LastDevNonce), 2, c.version.NegotiatesOptions())
			mustAccept(t, d, good)
			if _, err := d.HandleAccept(good); !errors.Is(err, ErrUnsolicited) {
				t.Errorf("the same accept again: got %v, want ErrUnsolicited", err)
			}
		})
	}
}

// accept10 makes an accept by the 1.0.x rule, whatever its DLSettings say.
func accept10(r simtest.Roots, a lorawan.JoinAccept) []byte {
	plain := a.Append(nil)
	mic := simtest.CMAC4(r.NwkKey, plain)
	return r.Encrypt(append(plain, mic[:]...))
}

func encoded(t testing.TB, s State) []byte {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
