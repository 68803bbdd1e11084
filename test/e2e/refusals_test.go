package e2e

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"joinery/client"
	"joinery/internal/sim"
)

// Why a device does not join, as its owner reads it: another network tries, the
// device loses its counter, the owner suspends it; and as the operator sees the
// networks.
func TestRefusalsAreExplained(t *testing.T) {
	s := newScene(t)
	explain := func(want ...string) {
		t.Helper()
		out := unwrapped(s.ctl("device", "explain", s.name, "--org", "operator"))
		for _, text := range want {
			if !strings.Contains(out, text) {
				t.Errorf("it does not say %q:\n%s", text, out)
			}
		}
	}
	explain("Your device may join through network 000013 only", "nobody ever asked for it", "DevEUI "+s.name+" arrived here")

	s.join(s.other, sim.ResultUnknownDevEUI)
	s.join(s.other, sim.ResultUnknownDevEUI)
	explain("[other-network]", "2 times since", "Network 000042 tried to join your device; you allowed 000013 only.",
		"received: JoinReq, from 000042", "decided by: bound to network 000013, AS-ID as.example.com", "to do: ")

	first := s.join(s.home, "")
	for range 2 {
		s.join(s.home, "")
	}
	again, err := s.home.Join(t.Context(), s.device.Device, sim.JoinOptions{Frame: first.Sent.PHYPayload, Expect: replayed})
	ok(t, err)
	ok(t, again.Err())
	explain("[dev-nonce-low]", "the lowest that is accepted is 5", "joinctl device reset-nonces", "A join was accepted since.", "Accepted, the newest first:", "through network 000013")

	s.ctl("device", "suspend", s.name)
	s.join(s.home, disallowed)
	explain("[suspended]", "It is suspended", "joinctl device resume")
	s.ctl("device", "resume", s.name)
	explain("The device was resumed since.")

	var e client.DeviceExplanation
	ok(t, json.Unmarshal([]byte(s.ctl("device", "explain", s.name, "--json")), &e))
	if len(e.Refusals) != 3 || e.Refusals[2].Count != 2 || e.Refusals[2].Decided.NetID.String() != "000013" || !strings.Contains(e.Refusals[2].What, "its owner allowed 000013 only") {
		t.Errorf("%+v", e)
	}

	operator := s.ctl("peer", "refusals", "other-ns")
	for _, text := range []string{"[other-network]", "Devices that are here:", s.name} {
		if !strings.Contains(operator, text) {
			t.Errorf("the operator does not see %q:\n%s", text, operator)
		}
	}

	// What fails before anybody looks for the device is told to its owner, too.
	body := bytes.Replace(s.home.JoinBody(s.device.Device, first.Sent.PHYPayload, sim.JoinOptions{}), []byte(`"1.0.4"`), []byte(`"4.0.1"`), 1)
	reply, err := s.home.Send(t.Context(), body)
	ok(t, err)
	if !bytes.Contains(reply.Body, []byte("MalformedRequest")) {
		t.Errorf("answered with %s", reply.Body)
	}
	explain("[malformed]", "Network 000013 sent a malformed JoinReq for your device: MACVersion: want")

	// It is on disk, and the server's own check finds nothing wrong with it.
	ok(t, s.server.Stop())
	_, err = s.server.Run(t.Context(), "", "joinery", "fsck", "--config", s.server.Path("joinery.yaml"))
	ok(t, err)
	ok(t, s.server.Start(t.Context()))
	explain("[other-network]", "[dev-nonce-low]", "[suspended]")
}

// unwrapped joins the lines of paragraphs again.
func unwrapped(text string) string { return strings.Join(strings.Fields(text), " ") }
