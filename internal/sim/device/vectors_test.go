package device

import (
	"bytes"
	"fmt"
	"testing"

	"joinery/internal/sim/element"
	"joinery/internal/sim/simtest"
	"joinery/lorawan"
)

// restore makes a device of a vector's keys in a given state.
func restore(t *testing.T, nwkKey, appKey []byte, s State) *Device {
	t.Helper()
	e, err := element.Provision(s.JoinEUI, s.DevEUI, nwkKey, appKey)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Restore(e, s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// holds compares the device's session keys with those of a vector.
func holds(t *testing.T, d *Device, members map[string]any, want bool) {
	t.Helper()
	for name, id := range map[string]element.KeyID{
		"NwkSKey": element.FNwkSIntKey, "FNwkSIntKey": element.FNwkSIntKey, "SNwkSIntKey": element.SNwkSIntKey,
		"NwkSEncKey": element.NwkSEncKey, "AppSKey": element.AppSKey, "JSIntKey": element.JSIntKey, "JSEncKey": element.JSEncKey,
	} {
		if _, there := members[name]; !there {
			continue
		}
		if got := d.element.Holds(id, simtest.Bytes(t, members, name)); got != want {
			t.Errorf("%s: equal is %t, want %t", name, got, want)
		}
	}
}

func TestSessionKey11Vectors(t *testing.T) {
	wrong := 0
	for _, v := range simtest.Vectors(t, "derive_session_keys_1_1") {
		t.Run(v.Name, func(t *testing.T) {
			d := restore(t, v.In(t, "NwkKey"), v.In(t, "AppKey"), State{JoinEUI: v.EUI(t, "JoinEUI"), MACVersion: lorawan.MAC1_1, Session: &Session{
				OptNeg: true, JoinEUI: v.EUI(t, "JoinEUI"), Count: uint16(v.Number(t, "DevNonce")),
				JoinNonce: lorawan.JoinNonce(v.Number(t, "JoinNonce")),
			}})
			if v.Status == "published-but-wrong" {
				wrong++
				holds(t, d, v.Expected, false)
				holds(t, d, v.ComputedPerSpec, true)
				return
			}
			holds(t, d, v.Expected, true)
		})
	}
	if wrong != 1 {
		t.Errorf("%d vectors are marked wrong, want the one that is known", wrong)
	}
}

func TestSessionKey10Vectors(t *testing.T) {
	for _, v := range simtest.Vectors(t, "derive_session_keys_1_0") {
		t.Run(v.Name, func(t *testing.T) {
			d := restore(t, nil, v.In(t, "AppKey"), State{MACVersion: lorawan.MAC1_0_3, Session: &Session{
				Type: element.Join, NetID: lorawan.NetID(v.In(t, "NetID")), Count: uint16(v.Number(t, "DevNonce")),
				JoinNonce: lorawan.JoinNonce(v.Number(t, "JoinNonce")),
			}})
			holds(t, d, v.Expected, true)
		})
	}
	// Two roots asked separately: each makes its key in a session of its own.
	for _, v := range simtest.Vectors(t, "derive_session_keys_1_0_two_roots") {
		for root, name := range map[string]string{"NwkSKeyRoot": "NwkSKey", "AppSKeyRoot": "AppSKey"} {
			d := restore(t, v.In(t, root), nil, State{MACVersion: lorawan.MAC1_0_3, Session: &Session{
				Type: element.Join, NetID: lorawan.NetID(v.In(t, "NetID")), Count: uint16(v.Number(t, "DevNonce")),
				JoinNonce: lorawan.JoinNonce(v.Number(t, "JoinNonce")),
			}})
			holds(t, d, map[string]any{name: v.Expected[name]}, true)
		}
	}
}

// The computed end-to-end vectors: the frame that the device sends, what it
// makes of the published accept, and its keys.
func TestJoinVectors(t *testing.T) {
	for _, v := range simtest.Vectors(t, "join") {
		t.Run(v.Name, func(t *testing.T) {
			version, err := lorawan.ParseMACVersion(fmt.Sprint(v.Inputs["MACVersion"]))
			if err != nil {
				t.Fatal(err)
			}
			var nwkKey []byte
			if v.Has("NwkKey") {
				nwkKey = v.In(t, "NwkKey")
			}
			d := restore(t, nwkKey, v.In(t, "AppKey"), State{
				JoinEUI: v.EUI(t, "JoinEUI"), DevEUI: v.EUI(t, "DevEUI"), MACVersion: version, NextDevNonce: v.Number(t, "DevNonce"),
			})
			frame, err := d.JoinRequest()
			if want := v.Out(t, "JoinReq_PHYPayload"); err != nil || !bytes.Equal(frame, want) {
				t.Fatalf("join-request: got %x, %v, want %x", frame, err, want)
			}
			a, err := d.HandleAccept(v.Out(t, "JoinAns_PHYPayload"))
			if err != nil || a.JoinAccept != v.Accept(t) || a.Type != element.Join || a.OptNeg != version.NegotiatesOptions() {
				t.Fatalf("accept: got %+v, %v", a, err)
			}
			holds(t, d, v.Expected, true)
		})
	}
}

func TestRejoinVectors(t *testing.T) {
	for _, v := range simtest.Vectors(t, "rejoin") {
		t.Run(v.Name, func(t *testing.T) {
			d := rejoiner(t, v)
			rejoinType := lorawan.RejoinType(v.Number(t, "RejoinType"))
			frame, err := d.RejoinRequest(rejoinType)
			want := v.Out(t, "RejoinReq_PHYPayload")
			if err != nil || len(frame) != len(want) {
				t.Fatalf("rejoin-request: %d bytes, %v", len(frame), err)
			}
			// The vectors give the MIC key without what it derives from; the
			// device has no such session, so only the rest must agree.
			unsigned := len(want) - lorawan.MICLen
			if !bytes.Equal(frame[:unsigned], want[:unsigned]) {
				t.Errorf("rejoin-request: got %x, want %x", frame[:unsigned], want[:unsigned])
			}
			a, err := d.HandleAccept(v.Out(t, "JoinAccept_PHYPayload"))
			if err != nil || a.JoinAccept != v.Accept(t) || a.Type != element.JoinType(rejoinType) || !a.OptNeg {
				t.Fatalf("accept: got %+v, %v", a, err)
			}
			holds(t, d, v.Expected, true)
			if s := d.State(); s.NextRJCount0 != 0 || s.JoinNonce != a.JoinNonce {
				t.Errorf("after the accept: RJcount0 %d, JoinNonce %d", s.NextRJCount0, s.JoinNonce)
			}
		})
	}
}

func rejoiner(t *testing.T, v simtest.Vector) *Device {
	t.Helper()
	return restore(t, v.In(t, "NwkKey"), v.In(t, "AppKey"), State{
		JoinEUI: v.EUI(t, "JoinEUI"), DevEUI: v.EUI(t, "DevEUI"), MACVersion: lorawan.MAC1_1,
		JoinNonce: lorawan.JoinNonce(v.Number(t, "JoinNonce") - 1), NextRJCount0: v.Number(t, "RJcount"),
		Session: &Session{Type: element.Join, OptNeg: true, JoinEUI: v.EUI(t, "JoinEUI"), NetID: lorawan.NetID(v.In(t, "NetID")), JoinNonce: 1},
	})
}

// In the first rejoin vector the session is the one of the 1.1 join vector
// (DevNonce 0, JoinNonce 1): there the MIC has to agree as well.
func TestRejoinVectorMIC(t *testing.T) {
	for _, v := range simtest.Vectors(t, "rejoin") {
		if v.Name != "e2e-rejoin-0" {
			continue
		}
		frame, err := rejoiner(t, v).RejoinRequest(lorawan.Rejoin0)
		if want := v.Out(t, "RejoinReq_PHYPayload"); err != nil || !bytes.Equal(frame, want) {
			t.Errorf("got %x, %v, want %x", frame, err, want)
		}
		return
	}
	t.Error("vector e2e-rejoin-0 is missing")
}
