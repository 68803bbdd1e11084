package e2e

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery/client"
	"joinery/internal/sim"
	"joinery/test/rig"
)

// Two running Join Servers hand a device over by themselves: it is parked until its
// new owner accepts it, told to go then and not before, and the receipt comes back.
// Either is killed in between.
func TestServersHandOverThemselves(t *testing.T) {
	programs, err := rig.Build(t.Context(), t.TempDir())
	ok(t, err)
	a, b := sceneOf(t, programs), sceneOf(t, programs)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	url := b.listenTLS()
	for _, s := range []struct {
		*scene
		name string
	}{{a, "a"}, {b, "b"}} {
		s.ctl("rekey", "server", "keys", "--out", file(s.name))
	}
	const newJoinEUI = "EC656EFFFE000001"
	b.ctl("range", "assign", "EC656EFFFE000000/56")
	a.ctl("rekey", "server", "add", "b", "--transport-key", file("b.transport.pub"), "--statement-key", file("b.statement.pub"),
		"--url", url, "--cert", b.certificate(), "--join-euis", "EC656EFFFE000000/56")
	b.ctl("rekey", "server", "add", "a", "--transport-key", file("a.transport.pub"), "--statement-key", file("a.statement.pub"),
		"--cert", a.certificate(), "--accept-into", "EC656EFFFE000000/56")

	a.ctl("rekey", "profile", a.name, "--profile", "S")
	ok(t, b.server.Kill())
	a.ctl("rekey", "arm", a.name, "--join-eui", newJoinEUI, "--to", "b", "--rekeying-key")
	a.await("waiting: it cannot be reached")
	a.join(a.home, "") // and is not told to go
	ok(t, b.server.Start(t.Context()))
	a.ctl("rekey", "server", "change", "b", "--url", url) // has it asked at once, not only when its turn comes
	a.await("parked")
	b.ctl("rekey", "arrivals", "reject", "--from", "a") // its owner there does not want it
	a.await("refused: its owner there rejected it")
	a.join(a.home, "") // and stays
	if _, err := a.server.Ctl(t.Context(), "", "rekey", "status", a.name, "--until", "taken"); err == nil || !strings.Contains(err.Error(), "its hand-over is refused") {
		t.Errorf("it waits for what does not come: %v", err)
	}
	a.ctl("rekey", "cancel", a.name)
	if _, err := a.server.Ctl(t.Context(), "", "rekey", "status", a.name, "--until", "taken"); err == nil || !strings.Contains(err.Error(), "the order is cancelled") {
		t.Errorf("it waits for what was cancelled: %v", err)
	}
	expect := []string{"rekey", "expect", a.name, "--from", "a", "--bind-net-id", "000013", "--bind-as-id", "as.example.com"}
	b.ctl(expect...)
	expected := answer[[]client.Expectation](b, "rekey", "expectations")
	if len(expected) != 1 || expected[0].Devices.First != a.device.DevEUI() {
		t.Fatalf("%+v", expected)
	}
	b.ctl("rekey", "unexpect", expected[0].ID.String()) // nor what comes next
	if left := answer[[]client.Expectation](b, "rekey", "expectations"); len(left) != 0 {
		t.Errorf("%+v", left)
	}
	a.ctl("rekey", "arm", a.name, "--join-eui", newJoinEUI, "--to", "b", "--rekeying-key")
	a.await("parked")
	b.ctl(expect...)
	ok(t, a.server.Kill())
	ok(t, a.server.Start(t.Context()))
	a.ctl("rekey", "status", a.name, "--until", "taken")

	told, err := a.home.Join(t.Context(), a.device.Device, sim.JoinOptions{Rekey: true})
	ok(t, err)
	ok(t, told.Err())
	if got := a.device.JoinEUI().String(); got != newJoinEUI {
		t.Fatalf("the device asks for %s", got)
	}
	r, err := b.home.Join(t.Context(), a.device.Device, sim.JoinOptions{AS: b.as})
	ok(t, err)
	ok(t, r.Err())
	a.await("confirmed")
	if out := b.ctl("rekey", "arrivals"); !strings.Contains(out, "joined") {
		t.Errorf("there: %s", out)
	}
	b.ctl("rekey", "profile", newJoinEUI+"/"+a.name, "--profile", "S") // what it rekeys with came, too

	for _, s := range []*scene{a, b} {
		ok(t, s.server.Stop())
		_, err = s.server.Run(t.Context(), "", "joinery", "fsck", "--config", s.server.Path("joinery.yaml"))
		ok(t, err)
		ok(t, s.server.Start(t.Context()))
	}
}

// await waits until the rekeying of the device stands so.
func (s *scene) await(want string) {
	s.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		out := s.ctl("rekey", "status", s.name)
		if strings.Contains(out, want) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("it does not come to %q:\n%s\n%s", want, out, s.server.Log())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// certificate is the file of what the server shows others.
func (s *scene) certificate() string {
	s.t.Helper()
	c, err := s.server.Config()
	ok(s.t, err)
	if filepath.IsAbs(c.Interop.Certificate) {
		return c.Interop.Certificate
	}
	return s.server.Path(c.Interop.Certificate)
}

// listenTLS has the server answer others on a TLS listener of its API.
func (s *scene) listenTLS() string {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ok(s.t, err)
	address := l.Addr().String()
	ok(s.t, l.Close())
	path := s.server.Path("joinery.yaml")
	text, err := os.ReadFile(path)
	ok(s.t, err)
	lines := strings.Split(string(text), "\n")
	tls := slices.IndexFunc(lines, func(l string) bool { return strings.TrimSpace(l) == "tls:" })
	for i := tls + 1; tls >= 0 && i < len(lines); i++ {
		if name, _, found := strings.Cut(lines[i], "address:"); found && strings.TrimSpace(name) == "" {
			lines[i] = name + "address: " + address
			break
		}
	}
	ok(s.t, os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600))
	ok(s.t, s.server.Stop())
	ok(s.t, s.server.Start(s.t.Context()))
	return "https://" + address
}
