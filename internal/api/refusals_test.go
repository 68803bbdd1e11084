package api_test

import (
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/lorawan"
)

// The owner reads what happened to the device, the operator and the peer's
// organisation what the peer was refused, each as much as is theirs.
func TestRefusals(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	peer, err := joinery.ParsePeerID(w.ids["peer"])
	ok(t, err)
	at := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	known := joinery.Refusal{
		At: at, Peer: peer, Device: w.device.ID, Owner: f.orgA, Reason: joinery.RefusedOtherNetwork,
		Received: joinery.Received{Message: "JoinReq", ProtocolVersion: "1.0", SenderID: "000042", NetID: lorawan.NetID{0, 0, 0x42},
			JoinEUI: w.device.JoinEUI, DevEUI: w.device.DevEUI, MACVersion: lorawan.MAC1_0_3, Frame: "join", Count: 9},
		Decided: joinery.Decided{Bound: true, NetID: lorawan.NetID{0, 0, 0x13}, MACVersion: lorawan.MAC1_0_4, Root10: joinery.NwkKey},
	}
	unknown := known
	unknown.Device, unknown.Owner, unknown.Decided, unknown.Reason = 0, 0, joinery.Decided{}, joinery.RefusedUnknownDevice
	unknown.Received.DevEUI[7]++
	for _, x := range []joinery.Refusal{known, known, unknown} {
		f.refusals.Record(&x)
	}

	e, err := f.as(t, f.keyA).ExplainDevice(t.Context(), w.device.ID)
	ok(t, err)
	if len(e.Refusals) != 1 || e.Device.ID != w.device.ID || len(e.Summary) == 0 || e.NotKept != 0 {
		t.Fatalf("%+v", e)
	}
	r := e.Refusals[0]
	if r.What != "Network 000042 tried to join your device; you allowed 000013 only." || r.Remedy == "" {
		t.Errorf("%+v", r)
	}
	r.What, r.Remedy = "", ""
	decided := *r.Decided
	r.Decided = nil
	if want := (client.Refusal{Reason: "other-network", Count: 2, First: at, Last: at, Peer: peer, Device: w.device.ID, Received: client.Received{
		Message: "JoinReq", ProtocolVersion: "1.0", SenderID: "000042", NetID: lorawan.NetID{0, 0, 0x42}, JoinEUI: w.device.JoinEUI,
		DevEUI: w.device.DevEUI, MACVersion: "1.0.3", Frame: "join", Count: 9,
	}}); r != want {
		t.Errorf("got  %+v\nwant %+v", r, want)
	}
	if want := (client.Decided{Bound: true, NetID: lorawan.NetID{0, 0, 0x13}, MACVersion: "1.0.4", Root10: "NwkKey"}); decided != want {
		t.Errorf("got  %+v\nwant %+v", decided, want)
	}

	all, err := f.operator.PeerRefusals(t.Context(), peer, 10)
	ok(t, err)
	if len(all.Totals) != 2 || len(all.Devices) != 1 || len(all.Unknown) != 1 || !strings.Contains(all.Devices[0].What, "its owner allowed 000013 only") {
		t.Errorf("operator: %+v", all)
	}
	own, err := f.as(t, f.keyA).PeerRefusals(t.Context(), peer, 0) // of orgA, too
	ok(t, err)
	if len(own.Totals) != 1 || own.Totals[0].Reason != "unknown-device" || own.Totals[0].Count != 3 || own.Totals[0].Decided != nil || len(own.Devices)+len(own.Unknown) != 0 {
		t.Errorf("the peer's organisation: %+v", own)
	}
	_, err = f.as(t, f.keyB).PeerRefusals(t.Context(), peer, 0)
	if code(err) != "not_found" {
		t.Errorf("another organisation: %v", err)
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
