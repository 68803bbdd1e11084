package fault

import (
	"os"
	"slices"
	"strings"
	"testing"

	"joinery/client"
	"joinery/test/leak"
	"joinery/test/rig"
)

// P21 in a hardware token: a new join KEK and a new transport key come into it under
// load, and the old ones go. The process that opens the custody key is killed, the one
// that has the token as well, the server once; no join fails but while there is no
// server, what was done is not lost, and in the end nothing is under the old key.
func TestTokenRotationUnderLoad(t *testing.T) {
	devices, batch := 120, "8"
	if long() {
		devices, batch = 3000, "100"
	}
	var keys leak.Secrets
	f := newFleetIn(t, dose{devices: devices, claims: 1}, t.TempDir(), func(s *rig.Server) { withToken(t, s, &keys) })
	r := &rotating{f: f, batch: batch} // the configuration names the custody token

	l := f.load()
	r.refuse("join-kek", "--retire") // there is only one
	r.run("join-kek", "--new")
	r.reload(func(s client.Rotation) bool { return slices.Equal(s.JoinKEKs, []uint32{1, 2}) })
	left := r.state().Behind
	if left < int64(devices) {
		t.Fatalf("%d key sets are under the old join KEK; want %d", left, devices)
	}
	r.killMidway()
	now := r.state().Behind
	if now >= left || now == 0 {
		t.Errorf("%d key sets are left after a killed rotation, %d before", now, left)
	}
	r.refuse("join-kek", "--retire", "--yes") // some are under the old one
	pids := workers(t, f.server)
	process, err := os.FindProcess(pids[len(pids)-1])
	ok(t, err)
	ok(t, process.Kill())
	l.stop()

	p := r.start()
	p.waitForProgress(t)
	ok(t, f.server.Kill())
	ok(t, f.server.Start(t.Context()))
	ok(t, p.cmd.Wait())
	if s := r.state(); s.Behind != 0 || len(s.Under) != 2 || s.Under[0].Generation != 2 {
		t.Fatalf("%d key sets are left of %d: %+v", s.Behind, s.KeySets, s.Under)
	}

	l = f.load()
	r.run("join-kek", "--retire") // only says that it may
	r.run("transport-key", "--new")
	r.run("join-kek", "--retire", "--yes")
	r.reload(func(s client.Rotation) bool {
		return slices.Equal(s.JoinKEKs, []uint32{2}) && len(s.TransportKIDs) == 2
	})
	r.run("transport-key", "--retire", "--yes")
	r.reload(func(s client.Rotation) bool { return len(s.TransportKIDs) == 1 })
	r.refuse("custody-key", "--new") // in which token?
	l.stop()

	f.mustJoin(t)
	ok(t, f.server.Stop())
	// Every key set opens. The KEKs that were there before the token do not.
	out, err := f.server.Run(t.Context(), "", "joinery", "fsck", "--keys", "--config", f.server.Path("joinery.yaml"))
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "kek ") && !strings.HasSuffix(line, " violations\n") {
			t.Errorf("%v: %s", err, line)
		}
	}
	ok(t, f.server.Start(t.Context())) // with no more than the new keys
	f.mustJoin(t)
}
