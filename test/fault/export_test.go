package fault

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"joinery/client"
	"joinery/test/rig"
)

// scaled is an export at its largest: what ran, for how long, and in what memory.
type scaled struct {
	t *testing.T
	s *rig.Server
	n int
}

// An export of 100,000 devices from its request to the opened file, while other devices
// join: a download that is killed goes on, every device is there once, no join fails,
// and neither server nor custody process nor joinctl grows with the number of devices.
func TestExportAtScale(t *testing.T) {
	const elements = 50
	x := &scaled{t: t, n: 600}
	if long() {
		x.n = 100_000
	}
	x.s = newLoaded(t, elements)
	list, private, public := x.s.Path("fleet.csv"), x.s.Path("owner.pem"), x.s.Path("owner.pub")
	_, err := x.s.Run(t.Context(), "", "joinsim", "load", "prepare", "--seed", "scale", "--join-eui", "0200000000000100", "--devices", "1.0.3="+strconv.Itoa(x.n), "--out", list)
	ok(t, err)
	writePair(t, private, public)
	x.ran("import", "joinctl", "import", "keys", list)
	before := residentKiB(t, x.s.PID())

	joining := x.joinMeanwhile(elements)
	x.ctl("export", "recipient", "add", "owner", public)
	x.ran("request", "joinctl", "export", "request", "--all", "--join-eui", "0200000000000100", "--to", "owner")
	var exports []client.Export
	ok(t, json.Unmarshal([]byte(x.ctl("export", "list", "--json")), &exports))
	e := exports[0].ID.String()
	custody := x.ran("custody process", "joinery", "export", "run", "--config", x.s.Path("joinery.yaml"),
		"--custody-file", x.s.Path("keys", "custody.age"), "--custody-passphrase-file", x.s.Path("keys", "custody.passphrase"))
	file, plain := x.s.Path("export.jsonl"), x.s.Path("plain.jsonl")
	x.cutOff(file, "export", "download", e, "--out", file)
	x.ran("download, acknowledge", "joinctl", "export", "download", e, "--out", file)
	opening := x.ran("open", "joinctl", "export", "open", file, "--key", private, "--format", "json", "--out", plain)
	joining()

	if got := distinct(t, plain); got != x.n {
		t.Errorf("%d of %d devices came out", got, x.n)
	}
	var after client.Export
	ok(t, json.Unmarshal([]byte(x.ctl("export", "show", e, "--json")), &after))
	if after.State != "delivered" || int(after.Wrapped) != x.n || after.Dropped != 0 {
		t.Errorf("%+v", after)
	}
	const room = 96 << 10
	if custody.server > before+room || custody.process > room || opening.process > room {
		t.Errorf("memory grows: server %d KiB before and %d KiB meanwhile, custody process %d KiB, joinctl %d KiB", before, custody.server, custody.process, opening.process)
	}
}

// memory is what two processes had at most, in KiB.
type memory struct{ server, process int }

func (x *scaled) ctl(args ...string) string {
	x.t.Helper()
	out, err := x.s.Ctl(x.t.Context(), "", args...)
	ok(x.t, err)
	return out
}

// ran runs a program and says how long it took, and in what memory.
func (x *scaled) ran(what, program string, args ...string) (m memory) {
	x.t.Helper()
	began := time.Now()
	cmd, ended := x.start(program, args...)
	for done := false; !done; {
		select {
		case err := <-ended:
			ok(x.t, err)
			done = true
		case <-time.After(20 * time.Millisecond):
		}
		m.server, m.process = max(m.server, residentKiB(x.t, x.s.PID())), max(m.process, peakKiB(cmd.Process.Pid))
	}
	x.t.Logf("%s of %d devices: %v; server at most %d MiB, %s %d MiB", what, x.n, time.Since(began).Round(time.Millisecond), m.server>>10, program, m.process>>10)
	return m
}

func (x *scaled) start(program string, args ...string) (*exec.Cmd, <-chan error) {
	x.t.Helper()
	c, err := x.s.Config()
	ok(x.t, err)
	cmd := exec.CommandContext(x.t.Context(), x.s.Binary(program), args...)
	cmd.Env = append(os.Environ(), "JOINCTL_SOCKET="+c.API.Socket, "JOINCTL_ORG=operator", "XDG_CONFIG_HOME="+x.s.Path("config"))
	var said strings.Builder
	cmd.Stderr = &said
	ok(x.t, cmd.Start())
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		if err != nil {
			x.t.Log(said.String())
		}
		ended <- err
	}()
	return cmd, ended
}

// cutOff kills a download once something of it is on the disk.
func (x *scaled) cutOff(file string, args ...string) {
	x.t.Helper()
	cmd, ended := x.start("joinctl", args...)
	for {
		select {
		case err := <-ended:
			x.t.Log("the download was through before it could be killed", err)
			return
		case <-time.After(time.Millisecond):
		}
		if info, err := os.Stat(file + ".part"); err == nil && info.Size() > 0 {
			ok(x.t, cmd.Process.Kill())
			if err := <-ended; err == nil {
				x.t.Log("the download was through when it was killed")
			}
			return
		}
	}
}

// joinMeanwhile has elements join until the function that it gives is called, which
// wants every join to have been answered as it must.
func (x *scaled) joinMeanwhile(elements int) (stop func()) {
	ctx, cancel := context.WithCancel(x.t.Context())
	type result struct {
		joins uint64
		p99   float64
		err   error
	}
	ended := make(chan result, 1)
	go func() {
		var r result
		for ctx.Err() == nil && r.err == nil {
			one, err := runLoad(x.t.Context(), x.s, elements, 20, 3*time.Second)
			r.joins, r.p99, r.err = r.joins+one.Joins, max(r.p99, one.Latency.P99), err
		}
		ended <- r
	}()
	return func() {
		cancel()
		r := <-ended
		ok(x.t, r.err)
		if r.joins == 0 {
			x.t.Error("nobody joined meanwhile")
		}
		x.t.Logf("%d joins meanwhile, none failed; the worst p99 of 3 s was %.1f ms", r.joins, r.p99)
	}
}

// writePair writes both halves of an RSA key.
func writePair(t *testing.T, private, public string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	ok(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	ok(t, err)
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	ok(t, err)
	ok(t, os.WriteFile(private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	ok(t, os.WriteFile(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}), 0o600))
}

// distinct counts the devices of an opened export.
func distinct(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	ok(t, err)
	defer func() { _ = f.Close() }()
	seen := map[string]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var d struct{ DevEUI string }
		ok(t, json.Unmarshal(lines.Bytes(), &d))
		seen[d.DevEUI] = true
	}
	return len(seen)
}
