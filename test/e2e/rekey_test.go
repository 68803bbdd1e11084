package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"joinery/client"
	"joinery/internal/sim"
	"joinery/internal/sim/lab"
	"joinery/lorawan"
	"joinery/test/rig"
)

// A device leaves one running Join Server for another: told in a join-accept, it
// derives new root keys inside its element and joins there. Another is told at the
// bench. What goes between the two is files.
func TestRekeysToAnotherServer(t *testing.T) {
	const there = "joins.example.com"
	programs, err := rig.Build(t.Context(), t.TempDir())
	ok(t, err)
	a, b := sceneWith(t, programs, "2"), sceneOf(t, programs)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	a.ctl("rekey", "server", "keys", "--out", file("a"))
	b.ctl("rekey", "server", "keys", "--out", file("b"))
	a.ctl("rekey", "server", "add", there, "--transport-key", file("b.transport.pub"), "--statement-key", file("b.statement.pub"))
	a.join(a.home, "")
	// Its owner has devices refused that have not shown what it wants; whoever is told to
	// leave leaves all the same.
	a.ctl("attest", "policy", "--level", "L2", "--activate", "refuse", "--claim", "refuse")
	a.join(a.home, "ActivationDisallowed")

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
	a.signsIn() // from now on
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

	t.Run("at the bench", func(t *testing.T) {
		a.t, b.t = t, t
		rekeysAtTheBench(a, b, there, file)
	})
	a.t, b.t = t, t

	for _, s := range []*scene{a, b} {
		ok(t, s.server.Stop())
		_, err = s.server.Run(t.Context(), "", "joinery", "fsck", "--config", s.server.Path("joinery.yaml"))
		ok(t, err)
		ok(t, s.server.Start(t.Context()))
	}
}

// rekeysAtTheBench has the second element of a, which is of profile S, and a chip of
// profile M go to b without a join here: one admin of their owner orders it, another
// approves, and a ticket tells the elements.
func rekeysAtTheBench(a, b *scene, there string, file func(string) string) {
	t := a.t
	const newJoinEUI = "EC656EFFFE000002"
	d, err := a.lab.Device(lab.Selector{Index: 1}, lorawan.MAC1_0_4)
	ok(t, err)
	name := d.DevEUI().String()
	names := []string{name, a.makeChip(d.JoinEUI(), file)}
	owner := a.organisation("Fleet")
	for _, name := range names {
		a.ctl("transfer", "offer", name, "--to", owner)
		a.ctl("transfer", "accept", name, "--org", owner, "--net-id", "000013", "--as-id", "as.example.com")
	}
	r, err := a.home.Join(t.Context(), d.Device, sim.JoinOptions{})
	ok(t, err)
	ok(t, r.Err())
	ann, ben := a.admin(owner, "ann"), a.admin(owner, "ben")
	exportsWithAnother(ann, ben, name, file)
	goesToRecipient(ann, ben, name, file)

	// Alone it is ordered and rejected; then approved and cancelled.
	order := []string{"--join-eui", newJoinEUI, "--to", there}
	ann.does(append([]string{"rekey", "arm", name}, order...)...)
	ben.does("rekey", "reject", name)
	if o := answerOf[client.Rekeying](ann, "rekey", "status", name).Orders[0]; o.State != "rejected" {
		t.Errorf("%+v", o)
	}
	ann.fails("arm it", "rekey", "ticket", name, "--out", file("rejected.json"))
	ann.does(append([]string{"rekey", "arm", name}, order...)...)
	requests := answerOf[[]client.RekeyRequest](ben, "rekey", "requests")
	if len(requests) != 1 || requests[0].DevEUI != d.DevEUI() || requests[0].Order.State != "requested" {
		t.Fatalf("%+v", requests)
	}
	approve := []string{"rekey", "approve", name, "--join-eui", newJoinEUI, "--thumbprint", requests[0].Order.Thumbprint}
	ann.fails("you asked for it yourself", approve...)
	ann.fails("arm it", "rekey", "ticket", name, "--out", file("early.json"))
	ben.does(approve...)
	ann.does("rekey", "cancel", name)
	ann.fails("arm it", "rekey", "ticket", name, "--out", file("late.json"))

	// In a batch both.
	ok(t, os.WriteFile(file("devices"), []byte(strings.Join(names, "\n")), 0o600))
	batch := batchOf{ann, ben, append([]string{"rekey", "arm", "--file", file("devices")}, order...), requests[0].Order.Thumbprint}
	batch.notWanted(name)
	taken := batch.armed(len(names))
	ann.does("rekey", "cancel", "--batch", taken)
	ann.does(append([]string{"rekey", "arm", name}, order...)...)
	ann.fails("a later order", "rekey", "cancel", "--batch", taken)
	ann.does("rekey", "cancel", name)
	id := batch.armed(len(names))
	ann.does("rekey", "ticket", "--batch", id, "--out", file("ticket.json"))
	ann.does("rekey", "handover", "--batch", id, "--to", there, "--out", file("bench.json"))

	// The bench has the simulated parties for itself.
	ok(t, a.lab.Close())
	_, err = a.server.Run(t.Context(), "", "joinsim", "element", "rekey", file("ticket.json"), "--config", a.server.Path("sim", "sim.json"),
		"--key", file("a.statement.pub"), "--results", file("results.json"))
	a.openLab()
	ok(t, err)
	ann.does("rekey", "results", file("results.json"))
	b.ctl("rekey", "unpack", file("bench.json"), "--key", file("a.statement.pub"), "--out", file("bench.sealed"))
	b.ctl("import", "sealed", file("bench.sealed"), "--bind-net-id", "000013", "--bind-as-id", "as.example.com")
	for i, name := range names {
		if said := answerOf[client.Rekeying](ann, "rekey", "status", name); said.Profile != []string{"S", "M"}[i] || said.Orders[0].State != "confirmed" {
			t.Errorf("%+v", said)
		}
		d, err := a.lab.Device(lab.Selector{Index: i + 1}, 0)
		ok(t, err)
		if d.DevEUI().String() != name || d.JoinEUI().String() != newJoinEUI {
			t.Fatalf("the device asks for %s/%s", d.JoinEUI(), d.DevEUI())
		}
		r, err := b.home.Join(t.Context(), d.Device, sim.JoinOptions{AS: b.as})
		ok(t, err)
		ok(t, r.Err())
	}
}

// makeChip has the factory make one element of profile M, which the simulated parties
// have once they are opened again, imports it and gives its name.
func (s *scene) makeChip(joinEUI lorawan.EUI64, file func(string) string) (name string) {
	s.t.Helper()
	name = lorawan.EUI64FromUint64(s.device.DevEUI().Uint64() + 0x100).String()
	_, err := s.server.Run(s.t.Context(), "", "joinery", "factory", "provision", "--key-file", s.server.Path("keys", "factory.age"),
		"--passphrase-file", s.server.Path("keys", "factory.passphrase"), "--master", "quickstart", "--join-eui", joinEUI.String(), "--dev-eui-first", name,
		"--recipient", s.server.Path("sim", "recipient.pub"), "--manifest", file("chip.json"), "--silicon", s.server.Path("sim", "chip.silicon"), "--rekey", "M")
	ok(s.t, err)
	ok(s.t, s.server.EditSim(func(c map[string]any) { c["silicon"] = append(c["silicon"].([]any), "chip.silicon") }))
	s.ctl("import", "manifest", file("chip.json"), "--mac-version", "1.0.4")
	return name
}
