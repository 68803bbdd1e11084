package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"joinery/internal/sim"
	"joinery/internal/sim/lab"
	"joinery/lorawan"
	"joinery/test/rig"
)

// scene is a server that knows two networks and an Application Server, and one
// element of LoRaWAN 1.0.4 that is bound to the first network.
type scene struct {
	t      *testing.T
	server *rig.Server
	lab    *lab.Lab
	home   *sim.NS
	other  *sim.NS
	as     *sim.AS
	device *lab.Device
	name   string // of the device, for joinctl
}

func newScene(t *testing.T) *scene {
	t.Helper()
	programs, err := rig.Build(t.Context(), t.TempDir())
	ok(t, err)
	return sceneOf(t, programs)
}

// sceneOf is newScene with the programs at hand.
func sceneOf(t *testing.T, programs rig.Programs) *scene { return sceneWith(t, programs, "1") }

// sceneWith is sceneOf with so many elements, of which device is the first.
func sceneWith(t *testing.T, programs rig.Programs, elements string) *scene {
	t.Helper()
	var err error
	s := &scene{t: t}
	s.server, err = programs.Quickstart(t.Context(), filepath.Join(t.TempDir(), "server"), "--elements", elements)
	ok(t, err)
	ok(t, s.server.Start(t.Context()))
	t.Cleanup(func() { ok(t, s.server.Stop()) })
	s.importElement()

	s.openLab()
	t.Cleanup(func() { ok(t, s.lab.Close()) })
	return s
}

// openLab takes the simulated parties, which one program at a time has.
func (s *scene) openLab() {
	t := s.t
	t.Helper()
	var err error
	s.lab, err = lab.Open(s.server.Path("sim", "sim.json"))
	ok(t, err)
	s.home, err = s.lab.NS("ns", lab.PeerOptions{})
	ok(t, err)
	s.other, err = s.lab.NS("other-ns", lab.PeerOptions{})
	ok(t, err)
	s.as, err = s.lab.AS("as", lab.PeerOptions{})
	ok(t, err)
	s.device, err = s.lab.Device(lab.Selector{}, lorawan.MAC1_0_4)
	ok(t, err)
	s.name = s.device.DevEUI().String()
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *scene) importElement() {
	s.t.Helper()
	s.ctl("import", "manifest", s.server.Path("sim", "manifest.json"),
		"--mac-version", "1.0.4", "--bind-net-id", "000013", "--bind-as-id", "as.example.com")
}

func (s *scene) ctl(args ...string) string {
	s.t.Helper()
	out, err := s.server.Ctl(s.t.Context(), "", args...)
	ok(s.t, err)
	return out
}

// join joins through ns and wants that result; every check must hold.
func (s *scene) join(ns *sim.NS, want string) *sim.Result {
	s.t.Helper()
	r, err := ns.Join(s.t.Context(), s.device.Device, sim.JoinOptions{Expect: want})
	ok(s.t, err)
	ok(s.t, r.Err())
	return r
}

// fetch fetches the AppSKey of the session of r and wants that result.
func (s *scene) fetch(r *sim.Result, want string) {
	s.t.Helper()
	f, err := s.as.FetchAppSKey(s.t.Context(), sim.FetchOptions{
		JoinEUI: s.device.JoinEUI(), DevEUI: s.device.DevEUI(), SessionKeyID: r.SessionKeyID, Expect: want,
	})
	ok(s.t, err)
	ok(s.t, f.Checks.Err())
}

const disallowed, replayed = "ActivationDisallowed", "JoinReqFailed"

// Whatever is changed over the API holds for the next request, on connections
// that were open before.
func TestChangesWhileServing(t *testing.T) {
	s := newScene(t)
	session := s.join(s.home, "")
	s.fetch(session, "")

	t.Run("suspended and resumed", func(t *testing.T) {
		s.t = t
		s.ctl("device", "suspend", s.name)
		s.join(s.home, disallowed)
		s.fetch(session, disallowed)
		s.ctl("device", "resume", s.name)
		session = s.join(s.home, "")
	})
	t.Run("bound to another network", func(t *testing.T) {
		s.t = t
		s.ctl("bind", s.name, "--net-id", "000042", "--as-id", "as.example.com")
		s.join(s.home, sim.ResultUnknownDevEUI)
		s.join(s.other, "")
		s.fetch(session, sim.ResultUnknownDevEUI) // made under the binding before
		s.ctl("unbind", s.name)
		s.join(s.other, sim.ResultUnknownDevEUI)
		s.ctl("bind", s.name, "--net-id", "000013", "--as-id", "as.example.com")
		s.join(s.home, "")
	})
	t.Run("deleted and imported again", func(t *testing.T) {
		s.t = t
		recorded := s.join(s.home, "")
		s.ctl("device", "delete", s.name, "--yes")
		s.join(s.home, sim.ResultUnknownDevEUI)
		s.importElement()
		r, err := s.home.Join(t.Context(), s.device.Device, sim.JoinOptions{Frame: recorded.Sent.PHYPayload, Expect: replayed})
		ok(t, err)
		ok(t, r.Err())
		s.join(s.home, "") // JoinNonce goes on rising, or the device would refuse
	})
	t.Run("nonces reset for one join", func(t *testing.T) {
		s.t = t
		recorded := s.join(s.home, "").Sent.PHYPayload
		s.ctl("device", "reset-nonces", s.name, "--join-nonce-at-least", "1000")
		r, err := s.home.Join(t.Context(), s.device.Device, sim.JoinOptions{Frame: recorded, Lose: true})
		ok(t, err)
		ok(t, r.Err())
		again, err := s.home.Join(t.Context(), s.device.Device, sim.JoinOptions{Frame: recorded, Expect: replayed})
		ok(t, err)
		ok(t, again.Err())
		if got := s.join(s.home, "").Accepted.JoinNonce; got < 1002 {
			t.Errorf("JoinNonce %d, want at least 1002", got)
		}
	})
	t.Run("a new version of the KEK", func(t *testing.T) {
		s.t = t
		s.ctl("kek", "add", "ns", "--role", "ns", "ns-000013-2="+s.newKEK("ns-000013-2"))
		fresh, err := lab.Open(s.copyOfSim())
		ok(t, err)
		defer func() { ok(t, fresh.Close()) }()
		ns, err := fresh.NS("ns", lab.PeerOptions{})
		ok(t, err)
		if got := s.join(ns, "").NetworkKEK; got != "ns-000013-2" {
			t.Errorf("session keys came under %q", got)
		}
	})
	t.Run("a peer removed", func(t *testing.T) {
		s.t = t
		s.ctl("peer", "remove", "ns", "--yes")
		r, err := s.home.Join(t.Context(), s.device.Device, sim.JoinOptions{})
		if err == nil && r.OK() {
			t.Error("a removed peer joined a device over its living connection")
		}
		if err == nil && r.Reply.Status != 403 {
			t.Errorf("a removed peer is answered with HTTP %d", r.Reply.Status)
		}
		// The connection is closed by now; a new one does not come about.
		if r, err := s.home.Join(t.Context(), s.device.Device, sim.JoinOptions{}); err == nil {
			t.Errorf("a removed peer connects again: HTTP %d", r.Reply.Status)
		}
	})
	if strings.Contains(s.server.Log(), "panic") {
		t.Error("the server's log tells of a panic")
	}
}

// newKEK writes a KEK for joinctl and gives its path.
func (s *scene) newKEK(label string) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), label)
	ok(s.t, os.WriteFile(path, []byte(secondKEK), 0o600))
	return path
}

// secondKEK is a KEK of this test alone.
const secondKEK = "0F0E0D0C0B0A09080706050403020100"

// copyOfSim gives a copy of sim.json in which the first network has the second
// KEK, too.
func (s *scene) copyOfSim() string {
	s.t.Helper()
	b, err := os.ReadFile(s.server.Path("sim", "sim.json"))
	ok(s.t, err)
	var c map[string]any
	ok(s.t, json.Unmarshal(b, &c))
	ns := c["ns"].([]any)[0].(map[string]any)
	ns["keks"].(map[string]any)["ns-000013-2"] = secondKEK
	c["state"] = "devices-2.json"
	b, err = json.Marshal(c)
	ok(s.t, err)
	path := s.server.Path("sim", "sim-2.json")
	ok(s.t, os.WriteFile(path, b, 0o600))
	return path
}
