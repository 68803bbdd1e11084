package fault

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"joinery/client"
	"joinery/test/leak"
	"joinery/test/rig"
)

// How many imported devices a rotation goes through, and how many of them at once.
func rotated() (devices int, batch string) {
	if long() {
		return 10_000, "100"
	}
	return 300, "10"
}

// P21: the storage keys are rotated under load. The process that seals root keys
// anew is killed again and again, the server once; no join fails but while there is
// no server, and what was done is not lost. In the end nothing is under the old
// keys, they are retired, every device joins, and no root key is to be found.
func TestRotationUnderLoad(t *testing.T) {
	devices, batch := rotated()
	f := newFleetIn(t, dose{devices: devices, claims: 1}, t.TempDir(), func(*rig.Server) {})
	var roots leak.Secrets
	plantRoots(t, &roots, f.server.Path("devices.csv"))
	r := &rotating{f, f.server.Path("keys", "custody.age"), f.server.Path("keys", "custody.passphrase"), batch}

	l := f.load()
	r.refuse("join-kek", "--retire") // there is only one
	r.run("join-kek", "--new")
	r.reload(func(s client.Rotation) bool { return len(s.JoinKEKs) == 2 })
	left := r.state().Behind
	if left < int64(devices) {
		t.Fatalf("%d key sets are under the old join KEK; want %d", left, devices)
	}
	for range 3 {
		r.killMidway()
		now := r.state().Behind
		if now >= left {
			t.Errorf("%d key sets are left after a killed rotation, %d before", now, left)
		}
		left = now
	}
	r.refuse("join-kek", "--retire", "--yes") // some are under the old one
	l.stop()

	running := r.start()
	running.waitForProgress(t)
	ok(t, f.server.Kill())
	ok(t, f.server.Start(t.Context()))
	ok(t, running.cmd.Wait())
	if s := r.state(); s.Behind != 0 {
		t.Fatalf("%d key sets are left of %d", s.Behind, s.KeySets)
	}

	l = f.load()
	r.run("join-kek", "--retire") // only says that it may
	if n := len(r.state().JoinKEKs); n != 2 {
		t.Errorf("%d join KEKs after asking only", n)
	}
	r.run("join-kek", "--retire", "--yes")
	r.reload(func(s client.Rotation) bool { return len(s.JoinKEKs) == 1 })
	r.newCustody()
	_, err := f.server.Run(t.Context(), "", "joinery", "ceremony", "master", "new", "second", "--config", f.server.Path("joinery.yaml"))
	ok(t, err)
	r.run("transport-key", "--new")
	r.reload(func(s client.Rotation) bool { return len(s.TransportKIDs) == 2 && s.Custody == 2 })
	ok(t, r.start().cmd.Wait())
	if s := r.state(); s.Behind != 0 || s.JoinKEKs[0] != 2 {
		t.Errorf("%+v", s)
	}
	if s, err := f.api.Status(t.Context()); err != nil || !slices.ContainsFunc(s.Masters, func(m client.MasterKey) bool { return m.Name == "second" }) {
		t.Errorf("the server does not have the new master key: %+v, %v", s.Masters, err)
	}
	r.run("transport-key", "--retire", "--yes")
	r.reload(func(s client.Rotation) bool { return len(s.TransportKIDs) == 1 })
	l.stop()

	f.mustJoin(t)
	noRootsAnywhere(t, f, &roots)
	ok(t, f.server.Stop())
	out, err := f.server.Run(t.Context(), "", "joinery", "fsck", "--keys", "--config", f.server.Path("joinery.yaml"))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ok(t, f.server.Start(t.Context())) // with no more than the new keys
	f.mustJoin(t)
}

// rotating is what an operator does.
type rotating struct {
	f                   *fleet
	custody, passphrase string
	batch               string
}

func (r *rotating) state() client.Rotation {
	r.f.t.Helper()
	s, err := r.f.api.Rotation(r.f.t.Context())
	ok(r.f.t, err)
	return s
}

func (r *rotating) joinery(args ...string) (string, error) {
	args = append([]string{"rotate"}, args...)
	return r.f.server.Run(r.f.t.Context(), "", "joinery", append(args, "--config", r.f.server.Path("joinery.yaml"))...)
}

func (r *rotating) run(args ...string) {
	r.f.t.Helper()
	if out, err := r.joinery(args...); err != nil {
		r.f.t.Fatalf("rotate %v: %v\n%s", args, err, out)
	}
}

func (r *rotating) refuse(args ...string) {
	r.f.t.Helper()
	if out, err := r.joinery(args...); err == nil {
		r.f.t.Errorf("rotate %v was not refused:\n%s", args, out)
	}
}

// reload has the server read its key file anew, and waits until it did.
func (r *rotating) reload(done func(client.Rotation) bool) {
	r.f.t.Helper()
	ok(r.f.t, syscall.Kill(r.f.server.PID(), syscall.SIGHUP))
	for until := time.Now().Add(20 * time.Second); !done(r.state()); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			r.f.t.Fatalf("the server did not read its keys anew:\n%s", r.f.server.Log())
		}
	}
}

// newCustody makes a new custody key; the next run of rotate roots opens the old one.
func (r *rotating) newCustody() {
	r.f.t.Helper()
	passphrase := r.f.server.Path("keys", "custody-2.passphrase")
	ok(r.f.t, os.WriteFile(passphrase, []byte("another long passphrase\n"), 0o600))
	r.run("custody-key", "--new-custody-file", r.f.server.Path("keys", "custody-2.age"), "--new-custody-passphrase-file", passphrase)
}

// rotation is a process that seals root keys anew, and the file to which it tells
// how far it is.
type rotation struct {
	cmd      *exec.Cmd
	progress string
}

func (r *rotating) start() *rotation {
	r.f.t.Helper()
	args := []string{"rotate", "roots", "--config", r.f.server.Path("joinery.yaml"), "--batch", r.batch}
	if r.custody != "" {
		args = append(args, "--custody-file", r.custody, "--custody-passphrase-file", r.passphrase)
	}
	cmd := exec.Command(r.f.server.Binary("joinery"), args...)
	cmd.Stdout = os.Stderr
	progress, err := os.Create(filepath.Join(r.f.t.TempDir(), "progress"))
	ok(r.f.t, err)
	cmd.Stderr = progress
	ok(r.f.t, cmd.Start())
	r.f.t.Cleanup(func() { _ = progress.Close() })
	return &rotation{cmd, progress.Name()}
}

// waitForProgress waits until it stored something.
func (p *rotation) waitForProgress(t *testing.T) {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		text, err := os.ReadFile(p.progress)
		ok(t, err)
		if strings.Count(string(text), "\n") >= 3 {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("the rotation does nothing: %s", text)
		}
	}
}

// killMidway starts a rotation and kills it once it stored something.
func (r *rotating) killMidway() {
	r.f.t.Helper()
	p := r.start()
	p.waitForProgress(r.f.t)
	ok(r.f.t, p.cmd.Process.Kill())
	if p.cmd.Wait() == nil {
		r.f.t.Log("it was done before it was killed")
	}
}

// noRootsAnywhere searches the server's memory, log and files.
func noRootsAnywhere(t *testing.T, f *fleet, roots *leak.Secrets) {
	t.Helper()
	hits := leak.Found{}
	if os.Geteuid() == 0 {
		census, err := roots.InProcess(f.server.PID())
		ok(t, err)
		t.Logf("memory searched: %v", census)
		if in := census.In(leak.Dumped()...); len(in) > 0 {
			t.Errorf("root keys are in memory: %v", in)
		}
	}
	roots.In([]byte(f.server.Log()), hits)
	ok(t, filepath.WalkDir(f.server.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || ofOthers(path) {
			return err
		}
		content, err := os.ReadFile(path)
		roots.In(content, hits)
		return err
	}))
	if len(hits) > 0 {
		t.Errorf("root keys are where they must not be: %v", hits)
	}
	if !bytes.Contains([]byte(f.server.Log()), []byte("key file read anew")) {
		t.Error("the log does not say that the key file was read anew")
	}
}
