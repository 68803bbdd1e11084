package simtest_test

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"joinery/internal/sim/command"
	"joinery/internal/sim/load"
	"joinery/internal/sim/simtest"
	"joinery/lorawan"
)

// load runs joinsim load and gives its report and error.
func (b *bench) load(args ...string) (r load.Report, err error) {
	b.t.Helper()
	args = append([]string{"load", "--json", "--quiet", "--warmup", "0s", "--duration", "0s"}, args...)
	out, err := b.run(args...)
	if err != nil && !errors.Is(err, command.ErrFailed) {
		b.t.Fatalf("%v: %v", args, err)
	}
	if e := json.Unmarshal([]byte(out), &r); e != nil {
		b.t.Fatalf("%v: %v\n%s", args, e, out)
	}
	return r, err
}

// goodLoad wants every answer to be right.
func (b *bench) goodLoad(args ...string) load.Report {
	b.t.Helper()
	r, err := b.load(args...)
	if err != nil || !r.OK || r.Errors != 0 {
		b.t.Fatalf("%v: %v, %+v", args, err, r)
	}
	return r
}

// badLoad wants errors of a kind, and the report and exit status to say so.
func (b *bench) badLoad(kind string, args ...string) {
	b.t.Helper()
	// A short run on a busy machine may have sent nothing that errs that way.
	for range 10 {
		if b.badLoadOnce(kind, args...) {
			return
		}
	}
	b.t.Errorf("%v: no run had an error %q", args, kind)
}

// badLoadOnce tells whether a run had an error of kind, and failed for it.
func (b *bench) badLoadOnce(kind string, args ...string) (found bool) {
	b.t.Helper()
	r, err := b.load(args...)
	if err == nil && r.Errors == 0 {
		return false
	}
	if !errors.Is(err, command.ErrFailed) || r.OK || r.Errors == 0 {
		b.t.Errorf("%v: %v, ok %t, %d errors", args, err, r.OK, r.Errors)
	}
	var counted uint64
	for _, f := range r.Failures {
		counted += f.Count
		found = found || strings.HasPrefix(f.Kind, kind)
	}
	if counted != r.Errors {
		b.t.Errorf("%v: %d errors, counted by kind %d", args, r.Errors, counted)
	}
	return found
}

func TestLoad(t *testing.T) {
	b := newBench(t)
	r := b.goodLoad("--connections", "3", "--joins", "200", "--replays", "0.2", "--wrong-mics", "0.1", "--pid", strconv.Itoa(os.Getpid()))
	if r.Joins < 200 || r.Replays == 0 || r.WrongMICs == 0 || r.Devices != 3 || r.Connections != 3 || r.Handshakes != 3 {
		t.Errorf("%+v", r)
	}
	if r.Latency.P50 <= 0 || r.Latency.P999 < r.Latency.P99 || r.Latency.Max < r.Latency.P999 || r.RefusalLatency == nil || r.Late != nil {
		t.Errorf("latency %+v, of refusals %+v", r.Latency, r.RefusalLatency)
	}
	if r.Server == nil || r.Server.RSS == 0 {
		t.Errorf("server %+v", r.Server)
	}
	// Further runs, and a person, go on where it stood: each DevNonce once.
	b.goodLoad("--connections", "1", "--joins", "20")
	b.good([]string{"join", "--silicon-index", "1", "--then", "join,repeat,replay"})
	b.goodLoad("--connections", "3", "--joins", "20")
	b.good([]string{"join", "--silicon-index", "1"})
	if info, err := os.Stat(b.path("sim/devices.json.load")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the devices' state: %v, %v", info, err)
	}
}

func TestLoadOfEveryVersion(t *testing.T) {
	b := newBench(t)
	for _, protocol := range []string{"1.0", "1.1"} {
		nsid := []string{"--protocol", protocol, "--connections", "1", "--joins", "60", "--replays", "0.3", "--wrong-mics", "0.2"}
		b.goodLoad(append(nsid, "--devices", "1.0.3=1,1.0.4=1,1.1", "--mix", "1.0.3=2,1.0.4=1,1.1=1")...)
		b.js.byID = true
		r := b.goodLoad(append(nsid, "--devices", "1.0.3=1,1.0.4=1,1.1")...)
		if r.Fetches < r.Joins || r.FetchLatency == nil {
			t.Errorf("%d AppSKeys of %d joins were fetched", r.Fetches, r.Joins)
		}
		b.js.byID = false
	}
}

// Devices from a seed need no silicon; the server gets their key list.
func TestLoadFromSeed(t *testing.T) {
	b := newBench(t)
	c := b.config()
	delete(c, "silicon")
	delete(c, "recipientKey")
	b.writeConfig(c)
	keys := b.path("keys.csv")
	prepare := []string{"load", "prepare", "--seed", "s", "--devices", "1.0.3=4,1.1=4", "--out", keys}
	cmd := command.New()
	cmd.SetOut(io.Discard)
	cmd.SetArgs(prepare)
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(keys); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key list: %v, %v", info, err)
	}
	if err := cmd.Execute(); err == nil {
		t.Error("a key list was replaced")
	}
	for _, row := range readCSV(t, keys)[1:] {
		devEUI, err := lorawan.ParseEUI64(row[1])
		if err != nil {
			t.Fatal(err)
		}
		// The server of this test has the one root key of a 1.0.x device as NwkKey.
		roots := simtest.Roots{AppKey: [16]byte(unhex(row[4])), NwkKey: [16]byte(unhex(row[4]))}
		if row[3] != "" {
			roots.NwkKey = [16]byte(unhex(row[3]))
		}
		b.js.add(devEUI, roots)
	}
	b.goodLoad("--seed", "s", "--devices", "1.0.3=4,1.1=4", "--connections", "4", "--joins", "100")
	b.goodLoad("--seed", "s", "--devices", "1.0.3=4,1.1=4", "--connections", "4", "--joins", "100")
	b.badLoad("join: NS: ResultCode is the expected one (want Success, got \"MICFailed\")",
		"--seed", "other", "--devices", "1.0.3=4,1.1=4", "--connections", "1", "--duration", "50ms")
	b.bad([]string{"load", "--devices", "1.0.3", "--seed", "s"}, "say how many")
	b.bad([]string{"load", "--devices", "1.0.3"}, "no silicon")
	b.bad([]string{"join"}, "no silicon")
}

func readCSV(t *testing.T, path string) [][]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// A server that errs is found out, each error by its kind.
func TestLoadFindsErrors(t *testing.T) {
	b := newBench(t)
	short := []string{"--connections", "1", "--duration", "100ms", "--replays", "0.3", "--wrong-mics", "0.2"}
	for _, d := range []struct {
		kind string
		do   func(*message)
	}{
		{"join: AS: AppSKey equals the element's", func(m *message) {
			if m.get("NwkSKey") != "" {
				m.set("AppSKey", b.js.envelope(b.js.asLabel, b.js.asKEK, [16]byte{1}))
			}
		}},
		{"join: NS: session key equals the element's", func(m *message) {
			if m.get("NwkSKey") != "" {
				m.set("NwkSKey", b.js.envelope(b.js.nsLabel, b.js.nsKEK, [16]byte{1}))
			}
		}},
		{"join: device: device opens the accept and its MIC is right", flip("PHYPayload")},
		{"join: device: JoinNonce is above the last", func(*message) {
			for _, d := range b.js.devices {
				d.joinNonce = 0
			}
		}},
		{"join: NS: SessionKeyID is new", func(m *message) {
			if m.get("SessionKeyID") != "" {
				m.set("SessionKeyID", `"000102030405060708090a0b0c0d0e0f"`)
			}
		}},
		{"wrong MIC: NS: ResultCode is the expected one (want MICFailed", func(m *message) {
			if strings.Contains(m.get("Result"), "MICFailed") {
				m.set("Result", `{"ResultCode":"Success"}`)
			}
		}},
		{"replay: NS: ResultCode is the expected one (want JoinReqFailed, got \"Success\")", func(*message) {
			for _, d := range b.js.devices {
				clear(d.used)
				d.lastRequest = ""
			}
		}},
		{"join: NS: HTTP status is 200", func(m *message) { m.status = 503 }},
	} {
		b.js.setTamper(d.do)
		b.badLoad(d.kind, short...)
		b.js.setTamper(nil)
		// Nothing of it sticks to the devices, but for a JoinNonce that was lost.
		if strings.Contains(d.kind, "JoinNonce") {
			for _, device := range b.js.devices {
				device.joinNonce = 1 << 20
			}
		}
		b.goodLoad("--connections", "1", "--joins", "10")
	}
}

// A repeat must be answered the same only as long as the window is open.
func TestLoadAfterTheRepeatWindow(t *testing.T) {
	b := newBench(t)
	// No window: the server must refuse what it would have to repeat.
	b.goodLoad("--connections", "1", "--duration", "700ms", "--rate", "100", "--replays", "0.5", "--repeat-window", "30s")
	b.badLoad("replay: NS: ResultCode is the expected one (want JoinReqFailed, got \"Success\")",
		"--connections", "1", "--duration", "1500ms", "--rate", "20", "--replays", "0.9", "--repeat-window", "0s")
}

// In an open loop a request is due whatever became of those before it: one that
// has to wait for a connection has its waiting counted.
func TestOpenLoopCountsWaiting(t *testing.T) {
	b := newBench(t)
	stalled := false
	b.js.setTamper(func(*message) {
		if !stalled {
			stalled = true
			time.Sleep(400 * time.Millisecond)
		}
	})
	r := b.goodLoad("--connections", "1", "--rate", "100", "--joins", "30")
	// All 30 are due while the first is stalled; half of them wait 250 ms at least.
	if r.Latency.P50 < 200 || r.Late == nil || r.Late.P50 < 200 {
		t.Errorf("latency %+v, late %+v", r.Latency, r.Late)
	}
}

// A server that stalls towards the end does not hide what it kept waiting: what
// was due by then and found no connection counts, too.
func TestOpenLoopCountsWhatWasNotSent(t *testing.T) {
	b := newBench(t)
	stall := time.NewTimer(300 * time.Millisecond)
	stalled := false
	b.js.setTamper(func(*message) {
		select {
		case <-stall.C:
			stalled = true
		default:
		}
		if stalled {
			time.Sleep(900 * time.Millisecond)
		}
	})
	r := b.goodLoad("--connections", "1", "--rate", "100", "--duration", "1s")
	// Some 70 of the 100 find no connection; half of those waited for a third of a
	// second, and so a quarter of all.
	if r.Offered < 95 || r.Sent > r.Offered/2 || r.Latency.P90 < 300 || r.Late.P90 < 300 {
		t.Errorf("offered %d, sent %d, latency %+v, late %+v", r.Offered, r.Sent, r.Latency, r.Late)
	}
}

// A repeat whose answer comes so late that the window may have closed may be
// answered either way, and counts like every other.
func TestLateRepeatsCount(t *testing.T) {
	b := newBench(t)
	seen := map[string]bool{}
	messages, late := uint64(0), 0
	b.js.setTamper(func(m *message) {
		messages++
		accept := m.get("PHYPayload")
		if accept == "" || !seen[accept] {
			seen[accept] = true
			return
		}
		time.Sleep(400 * time.Millisecond)
		if late++; late%2 == 0 {
			for _, name := range []string{"PHYPayload", "Lifetime", "NwkSKey", "AppSKey", "SessionKeyID"} {
				m.remove(name)
			}
			m.set("Result", `{"ResultCode":"JoinReqFailed"}`)
		}
	})
	// Which frames are replayed is drawn; a short run may draw none that is young.
	for try := 0; try < 20 && late == 0; try++ {
		messages = 0
		r := b.goodLoad("--connections", "1", "--joins", "10", "--replays", "0.5", "--repeat-window", "620ms")
		if r.Joins+r.Replays != messages {
			t.Errorf("%d joins and %d replays of %d messages", r.Joins, r.Replays, messages)
		}
	}
	if late == 0 {
		t.Error("no run had a late answer to a repeat")
	}
}

// A server that ends while it is measured takes its processor time with it, not
// the report.
func TestLoadOfAProcessThatEnds(t *testing.T) {
	b := newBench(t)
	server := exec.Command("cat") // ends with its input
	in, err := server.StdinPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	first := true
	b.js.setTamper(func(*message) {
		if first {
			first = false
			_ = in.Close()
			_ = server.Wait()
		}
	})
	r := b.goodLoad("--connections", "1", "--joins", "20", "--pid", strconv.Itoa(server.Process.Pid))
	if r.Joins < 20 || r.Server != nil || !strings.Contains(r.ServerUnknown, "no process") {
		t.Errorf("%+v", r)
	}
}

// A connection that the server closes between two requests is no error; a server
// that is gone is.
func TestLoadReconnects(t *testing.T) {
	b := newBench(t)
	n := 0
	b.js.setTamper(func(m *message) {
		if n++; n%5 == 0 {
			m.closes = true
		}
	})
	r := b.goodLoad("--connections", "1", "--joins", "30")
	if r.Handshakes < 5 {
		t.Errorf("%d handshakes", r.Handshakes)
	}
	b.js.setTamper(func(*message) { panic(http.ErrAbortHandler) })
	b.badLoad("join: no answer", "--connections", "1", "--duration", "300ms")
	// Without a duration it gives up in the end.
	b.js.setTamper(func(m *message) { m.status = 503 })
	b.badLoad("join: NS: HTTP status is 200", "--connections", "1", "--joins", "1")
}

func TestLoadText(t *testing.T) {
	b := newBench(t)
	b.good([]string{"load", "--connections", "2", "--joins", "40", "--duration", "0s", "--warmup", "0s", "--replays", "0.2"},
		"2 connections, closed loop, 3 devices", "joins 4", "latency of joins p50", "p99.9", "replays", "errors 0")
	b.bad([]string{"load", "--devices", "1.0.3=4"}, "silicon files hold 3")
	b.bad([]string{"load", "--devices", "1.0.3,1.1"}, "only the last")
	b.bad([]string{"load", "--devices", "1.0.9"}, "--devices")
	b.bad([]string{"load", "--mix", "1.1=1", "--connections", "1"}, "no device of LoRaWAN 1.1")
	b.bad([]string{"load", "--mix", "x", "--connections", "1"}, "--mix")
	b.bad([]string{"load", "--connections", "4"}, "3 devices of LoRaWAN 1.0.4 cannot keep 4 connections busy")
	b.bad([]string{"load", "--connections", "1", "--duration", "0s"}, "how long")
	b.bad([]string{"load", "--connections", "1", "--replays", "2"}, "shares")
	b.bad([]string{"load", "--connections", "1", "--joins", "1", "--pid", "999999999"}, "no process 999999999")
}
