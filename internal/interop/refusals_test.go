package interop

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/internal/activation"
	"joinery/lorawan"
)

// notebook is a Recorder that keeps everything.
type notebook struct {
	mu  sync.Mutex
	all []joinery.Refusal
}

func (n *notebook) Record(x *joinery.Refusal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, *x)
}

// last gives the newest, and forgets all.
func (n *notebook) last(t *testing.T) joinery.Refusal {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.all) != 1 {
		t.Fatalf("%d refusals were recorded, want 1: %+v", len(n.all), n.all)
	}
	x := n.all[0]
	n.all = nil
	return x
}

// Whatever a known peer is refused is recorded once, with what it said and why;
// what it is told does not change by it.
func TestRefusalsAreRecorded(t *testing.T) {
	var kept notebook
	h := openHouse(t, func(o *Options) { o.Refusals = &kept })
	ns, as := h.client(t, h.tlsConfig(h.ns)), h.client(t, h.tlsConfig(h.as))
	decided := joinery.Decided{Bound: true, NetID: lorawan.NetID{0, 0, 0x42}, MACVersion: lorawan.MAC1_0_4, Next: 9}
	h.joins.join = func(context.Context, activation.JoinRequest) (activation.JoinAnswer, error) {
		return activation.JoinAnswer{}, &joinery.Refused{
			Reason: joinery.RefusedOtherNetwork, Device: 11, Owner: 12, Decided: decided,
			Err: joinery.Errorf(joinery.CodeUnknownDevice, "no such device for this network"),
		}
	}
	if a := h.mustPost(t, ns, joinReq10); a.Result.Code != "UnknownDevEUI" || a.Result.Description != "no such device for this network" {
		t.Errorf("the network is told %+v", a.Result)
	}
	x := kept.last(t)
	if x.At.IsZero() || time.Since(x.At) > time.Minute {
		t.Errorf("at %v", x.At)
	}
	x.At = time.Time{}
	eui := lorawan.EUI64{1, 2, 3, 4, 5, 6, 7, 8}
	want := joinery.Refusal{
		Peer: 1, Device: 11, Owner: 12, Reason: joinery.RefusedOtherNetwork, Decided: decided,
		Received: joinery.Received{
			Message: "JoinReq", ProtocolVersion: "1.0", TransactionID: 7, SenderID: "000013", ReceiverID: "70b3d57ed0000000", NetID: lorawan.NetID{0, 0, 0x13},
			JoinEUI: lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0}, DevEUI: eui, MACVersion: lorawan.MAC1_0_3, Frame: "join",
		},
	}
	if x != want {
		t.Errorf("got  %+v\nwant %+v", x, want)
	}

	h.mustPost(t, ns, rejoinReq10)
	if x := kept.last(t); x.Received.Frame != "rejoin-0" || !x.Received.OptNeg {
		t.Errorf("rejoin: %+v", x.Received)
	}
	h.mustPost(t, ns, strings.Replace(joinReq10, `"1.0.3"`, `"9.9"`, 1))
	if x := kept.last(t); x.Reason != joinery.RefusedMalformed || !strings.HasPrefix(x.Received.Problem, "MACVersion: ") || strings.Contains(x.Received.Problem, "9.9") {
		t.Errorf("malformed: %+v", x)
	}
	h.mustPost(t, ns, strings.Replace(joinReq10, `"1.0"`, `"2.0"`, 1))
	if x := kept.last(t); x.Reason != joinery.RefusedProtocolVersion {
		t.Errorf("version: %+v", x)
	}
	for reason, body := range map[joinery.RefusalReason]string{
		joinery.RefusedSenderNetID: strings.Replace(joinReq10, "000013", "000014", 1),
		joinery.RefusedSenderNSID:  strings.Replace(joinReq11, `"SenderNSID":"70B3D57ED0000001"`, `"SenderNSID":"70B3D57ED0000009"`, 1),
	} {
		h.mustPost(t, ns, body)
		if x := kept.last(t); x.Reason != reason {
			t.Errorf("%s: %+v", reason, x)
		}
	}
	h.mustPost(t, as, strings.Replace(appSKeyReq10, "as.example.com", strings.Repeat("x", 64), 1))
	if x := kept.last(t); x.Reason != joinery.RefusedSenderASID || x.Peer != 2 || len(x.Received.SenderID) != 64 {
		t.Errorf("AS: %+v", x)
	}
	for _, body := range []string{"", "no JSON", `{"MessageType":"Nothing"}`, strings.Repeat("x", 40_000)} {
		status, _, err := h.post(ns, body)
		if err != nil || status == http.StatusOK {
			t.Fatalf("%.20q: %d, %v", body, status, err)
		}
		if x := kept.last(t); x.Reason != joinery.RefusedUnreadable || x.Peer != 1 || x.Received.Problem == "" {
			t.Errorf("%.20q: %+v", body, x)
		}
	}
	h.joins.join = nil
	h.mustPost(t, ns, joinReq10)
	if len(kept.all) != 0 {
		t.Errorf("a success was recorded: %+v", kept.all)
	}
}

// A peer that is refused for ever does not fill the log.
func TestFloodOfRefusalsIsNotAFloodOfLines(t *testing.T) {
	now := time.Now()
	h := openHouse(t, func(o *Options) { o.Now = func() time.Time { return now } })
	ns := h.client(t, h.tlsConfig(h.ns))
	code := joinery.CodeReplay
	h.joins.join = func(context.Context, activation.JoinRequest) (activation.JoinAnswer, error) {
		return activation.JoinAnswer{}, joinery.Errorf(code, "no")
	}
	for range 5 * maxLines {
		h.mustPost(t, ns, joinReq10)
	}
	if lines := strings.Count(h.log.String(), "request refused"); lines != maxLines {
		t.Errorf("%d lines, want %d", lines, maxLines)
	}
	code = joinery.CodeMIC // another matter, which must not go under
	h.mustPost(t, ns, joinReq10)
	now = now.Add(time.Second)
	h.mustPost(t, ns, joinReq10)
	var unsaid []int
	for line := range strings.Lines(h.log.String()) {
		var l struct {
			Msg   string
			Count int
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(l.Msg, "requests refused without") {
			unsaid = append(unsaid, l.Count)
		}
	}
	if lines := strings.Count(h.log.String(), "request refused"); lines != maxLines+2 || len(unsaid) != 1 || unsaid[0] != 4*maxLines {
		t.Errorf("%d lines, %v unsaid", lines, unsaid)
	}
}
