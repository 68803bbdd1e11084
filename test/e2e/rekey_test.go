package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"joinery/internal/sim"
	"joinery/lorawan"
	"joinery/test/rig"
)

// A device leaves one running Join Server for another: told in a join-accept, it
// derives new root keys inside its element and joins there. What goes between the
// two is files.
func TestRekeysToAnotherServer(t *testing.T) {
	const there = "joins.example.com"
	programs, err := rig.Build(t.Context(), t.TempDir())
	ok(t, err)
	a, b := sceneOf(t, programs), sceneOf(t, programs)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	a.ctl("rekey", "server", "keys", "--out", file("a"))
	b.ctl("rekey", "server", "keys", "--out", file("b"))
	a.ctl("rekey", "server", "add", there, "--transport-key", file("b.transport.pub"), "--statement-key", file("b.statement.pub"))
	a.join(a.home, "")

	const newJoinEUI = "EC656EFFFE000001"
	b.ctl("range", "assign", "EC656EFFFE000000/56")
	many := func(args ...string) {
		a.ctl(append(append([]string{"rekey"}, args...), "--all", "--dev-eui", a.name)...)
	}
	many("profile", "--profile", "S")
	many("arm", "--join-eui", newJoinEUI, "--to", there) // a batch of one
	many("handover", "--to", there, "--out", file("handover.json"))
	b.ctl("rekey", "unpack", file("handover.json"), "--key", file("a.statement.pub"), "--out", file("handover.sealed"))
	b.ctl("import", "sealed", file("handover.sealed"), "--bind-net-id", "000013", "--bind-as-id", "as.example.com")

	// The first accept is lost; the server goes down and comes back; the second is
	// heard.
	told := func(lose bool) {
		t.Helper()
		r, err := a.home.Join(t.Context(), a.device.Device, sim.JoinOptions{Rekey: true, Lose: lose})
		ok(t, err)
		ok(t, r.Err())
	}
	told(true)
	ok(t, a.server.Kill())
	ok(t, a.server.Start(t.Context()))
	told(false)
	if got := a.device.JoinEUI().String(); got != newJoinEUI {
		t.Fatalf("the device asks for %s", got)
	}
	r, err := b.home.Join(t.Context(), a.device.Device, sim.JoinOptions{AS: b.as})
	ok(t, err)
	ok(t, r.Err())
	if r.Accepted.JoinNonce <= 1<<16 {
		t.Errorf("JoinNonce %d does not go on above the old Join Server's", r.Accepted.JoinNonce)
	}

	status := func(want string) {
		t.Helper()
		if out := a.ctl("rekey", "status", a.name); !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	status("sent")
	b.ctl("rekey", "receipt", file("handover.json"), "--key", file("a.statement.pub"), "--out", file("receipt.json"))
	a.ctl("rekey", "accept", file("receipt.json"))
	a.ctl("rekey", "accept", file("receipt.json"))
	status("confirmed")

	// A network's own list of that type is refused.
	refused, err := b.home.Join(t.Context(), a.device.Device, sim.JoinOptions{CFList: lorawan.Rekey{}.CFList(), Expect: "MalformedRequest"})
	ok(t, err)
	ok(t, refused.Err())

	for _, s := range []*scene{a, b} {
		ok(t, s.server.Stop())
		_, err = s.server.Run(t.Context(), "", "joinery", "fsck", "--config", s.server.Path("joinery.yaml"))
		ok(t, err)
		ok(t, s.server.Start(t.Context()))
	}
}
