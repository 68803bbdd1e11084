package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"joinery/test/rig"
)

// fleet is elements that speak one version, and follow one another in the
// simulator's files.
type fleet struct {
	mac   string
	count int
}

// stage is a server with fleets, in a directory of its own, and the bare echo to
// compare with.
type stage struct {
	machine
	dir    string
	keep   bool
	also   []int // processes that count as the server's
	tell   func(format string, args ...any)
	server *rig.Server
	fleets []fleet

	echo        *exec.Cmd
	echoAddress string
	sizes       []exchange // of a join, by fleet
}

// programs are the built programs, in a directory of their own.
type programs struct {
	rig.Programs
	dir  string
	keep bool // the directory, and the fleets in it, stay
	// database is a URL, or empty for SQLite; also are its processes.
	database string
	also     []int
	// token is where the server's keys are; nil for its key file.
	token *vault
}

// build builds the programs, in a new directory below that of the options or in
// the one to keep.
func build(ctx context.Context, o options) (p programs, err error) {
	p.dir, p.keep = o.keep, o.keep != ""
	p.database, p.also = o.database, o.also
	if p.keep {
		err = os.MkdirAll(p.dir, 0o700)
	} else {
		p.dir, err = os.MkdirTemp(o.dir, "joinery-bench-")
	}
	if err != nil {
		return p, err
	}
	if p.Programs, err = rig.Build(ctx, p.dir); err != nil {
		err = errors.Join(err, p.remove())
	}
	return p, err
}

// remove removes the directory, unless it is to be kept.
func (p programs) remove() error {
	if p.keep {
		return nil
	}
	return os.RemoveAll(p.dir)
}

// Identifiers as quickstart hands them out.
const (
	joinEUI     = "0200000000000000"
	firstDevEUI = 0x0200_00FF_FE00_0001
)

// newStage gives a stopped server and its fleets, imported: those that an earlier
// run kept, or new ones in a new directory beside the programs.
func newStage(ctx context.Context, p programs, tell func(string, ...any), fleets ...fleet) (*stage, error) {
	s := &stage{machine: newMachine(), tell: tell, fleets: fleets, keep: p.keep, also: p.also}
	s.dir = filepath.Join(p.dir, fmt.Sprintf("fleet-%d", s.devices()))
	if p.token != nil {
		s.dir += "-token"
	}
	if _, err := os.Stat(s.dir); err == nil {
		tell("%s: used again", s.dir)
		var err error
		if s.server, err = p.Open(s.dir); err != nil {
			return nil, err
		}
		s.server.Launch = s.onServer
		return s, nil
	}
	// Under its name lies a whole stage, or none.
	made := s.dir
	s.dir += ".new"
	if err := os.RemoveAll(s.dir); err != nil {
		return nil, err
	}
	if err := s.make(ctx, p); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	if err := os.Rename(s.dir, made); err != nil {
		return nil, err
	}
	s.dir, s.server.Dir = made, made
	return s, nil
}

// make makes the server and its fleets.
func (s *stage) make(ctx context.Context, p programs) (err error) {
	began := time.Now()
	args := []string{"--elements", strconv.Itoa(s.fleets[0].count)}
	if p.database != "" {
		args = append(args, "--database", p.database)
	}
	if s.server, err = p.Quickstart(ctx, s.dir, args...); err != nil {
		return err
	}
	s.server.Launch = s.onServer
	if err := s.makeFurther(ctx); err != nil {
		return err
	}
	s.tell("factory: %d elements in %.1f s", s.devices(), time.Since(began).Seconds())
	if p.token != nil {
		if err := s.moveToToken(ctx, p.token); err != nil {
			return err
		}
	}
	if err := s.server.Start(ctx); err != nil {
		return err
	}
	if p.token != nil {
		err = s.renewKEKs(ctx)
	}
	if err == nil {
		err = s.importFleets(ctx)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%w\nthe server's log:\n%s", err, s.server.Log()), s.server.Stop())
	}
	return errors.Join(s.server.Stop(), s.removeManifests())
}

func (s *stage) devices() (n int) {
	for _, f := range s.fleets {
		n += f.count
	}
	return n
}

// close ends all that runs and removes the directory, unless it is to be kept.
func (s *stage) close() error {
	var err error
	if s.echo != nil {
		err = errors.Join(s.echo.Process.Signal(os.Interrupt), s.echo.Wait())
	}
	err = errors.Join(err, s.server.Stop())
	if s.keep {
		return err
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

func (s *stage) manifest(i int) string {
	if i == 0 {
		return s.server.Path("sim", "manifest.json")
	}
	return s.server.Path("sim", fmt.Sprintf("manifest-%d.json", i))
}

// makeFurther has the factory make the fleets after the first, which quickstart
// made, and tells the simulator of their silicon files.
func (s *stage) makeFurther(ctx context.Context) error {
	silicon := []string{"elements.silicon"}
	next := uint64(firstDevEUI + s.fleets[0].count)
	for i, f := range s.fleets[1:] {
		name := fmt.Sprintf("elements-%d.silicon", i+1)
		if _, err := s.server.Run(ctx, "", "joinery", "factory", "provision",
			"--key-file", s.server.Path("keys", "factory.age"),
			"--passphrase-file", s.server.Path("keys", "factory.passphrase"),
			"--master", "quickstart", "--join-eui", joinEUI,
			"--dev-eui-first", fmt.Sprintf("%016X", next), "--count", strconv.Itoa(f.count),
			"--recipient", s.server.Path("sim", "recipient.pub"),
			"--manifest", s.manifest(i+1), "--silicon", s.server.Path("sim", name)); err != nil {
			return err
		}
		silicon = append(silicon, name)
		next += uint64(f.count)
	}
	return s.server.EditSim(func(c map[string]any) { c["silicon"] = silicon })
}

// importFleets imports all elements, bound to the home network, their keys
// wrapped for Network Server and Application Server.
func (s *stage) importFleets(ctx context.Context) error {
	for i, f := range s.fleets {
		began := time.Now()
		if _, err := s.server.Ctl(ctx, "", "import", "manifest", s.manifest(i), "--mac-version", f.mac,
			"--bind-net-id", "000013", "--bind-as-id", "as.example.com", "--app-s-key", "wrapped"); err != nil {
			return err
		}
		seconds := time.Since(began).Seconds()
		s.tell("import: %d devices of LoRaWAN %s in %.1f s, %.0f/s", f.count, f.mac, seconds, float64(f.count)/seconds)
	}
	return nil
}

// removeManifests removes what only the import needed: a kilobyte a device.
func (s *stage) removeManifests() (err error) {
	for i := range s.fleets {
		err = errors.Join(err, os.Remove(s.manifest(i)))
	}
	return err
}

// measureSizes has a device of each fleet join, to see how large requests and
// answers are.
func (s *stage) measureSizes(ctx context.Context) error {
	for _, f := range s.fleets {
		r, err := s.runJoins(ctx, timing{duration: time.Minute}, "--joins", "1", "--connections", "1", "--mix", f.mac+"=1")
		if err != nil {
			return err
		}
		s.sizes = append(s.sizes, exchange{r.RequestBytes, r.AnswerBytes})
	}
	return nil
}

// startEcho starts the echo server on the server's processor.
func (s *stage) startEcho(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	order, err := json.Marshal(echoOrder{
		Certificate: s.server.Path("pki", "server.crt"), Key: s.server.Path("pki", "server.key"),
		CA: s.server.Path("pki", "ns-ca.crt"), Sizes: s.sizes,
	})
	if err != nil {
		return err
	}
	s.echo = exec.CommandContext(ctx, self)
	s.echo.Env = append(os.Environ(), childEnv+"=echo-server")
	s.echo.Stdin, s.echo.Stderr = bytes.NewReader(order), os.Stderr
	out, err := s.echo.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.onServer(s.echo); err != nil {
		s.echo = nil
		return err
	}
	var address [64]byte
	n, err := out.Read(address[:])
	if err != nil {
		return fmt.Errorf("echo server: %w", err)
	}
	s.echoAddress = strings.TrimSpace(string(address[:n]))
	return nil
}

// runEcho measures the echo of a fleet's sizes over a number of connections.
func (s *stage) runEcho(ctx context.Context, fleet, connections int, t timing) (r echoResult, err error) {
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	order, err := json.Marshal(echoOrder{
		Certificate: s.server.Path("pki", "ns.crt"), Key: s.server.Path("pki", "ns.key"),
		CA: s.server.Path("pki", "ca.crt"), Address: s.echoAddress, Sizes: s.sizes, Fleet: fleet,
		Connections: connections, Warmup: t.warmup, Duration: t.duration, PID: s.echo.Process.Pid,
	})
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), childEnv+"=echo-load")
	cmd.Stdin = bytes.NewReader(order)
	out, err := s.client(cmd)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(out, &r)
}

// runJoins measures joins; args are flags of `joinsim load`.
func (s *stage) runJoins(ctx context.Context, t timing, args ...string) (r loadReport, err error) {
	devices := make([]string, len(s.fleets))
	for i, f := range s.fleets {
		devices[i] = fmt.Sprintf("%s=%d", f.mac, f.count)
	}
	args = append([]string{
		"load", "--config", s.server.Path("sim", "sim.json"), "--devices", strings.Join(devices, ","),
		"--pid", strconv.Itoa(s.server.PID()), "--appskey", "wrapped", "--json", "--quiet",
		"--warmup", t.warmup.String(), "--duration", t.duration.String(),
	}, args...)
	for _, pid := range s.also {
		args = append(args, "--pid", strconv.Itoa(pid))
	}
	out, err := s.client(exec.CommandContext(ctx, s.server.Binary("joinsim"), args...))
	if err != nil && len(out) == 0 {
		return r, err
	}
	if e := json.Unmarshal(out, &r); e != nil {
		return r, fmt.Errorf("joinsim load: %w", errors.Join(err, e))
	}
	if !r.OK {
		return r, fmt.Errorf("joinsim load: not every answer was right:\n%s", out)
	}
	if r.ServerUnknown != "" {
		return r, fmt.Errorf("joinsim load: %s", r.ServerUnknown)
	}
	return r, nil
}

// client runs a process on the client's processor and gives what it printed.
func (s *stage) client(cmd *exec.Cmd) ([]byte, error) {
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := s.onClient(cmd); err != nil {
		return nil, err
	}
	if err := cmd.Wait(); err != nil {
		return out.Bytes(), fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, problem.String())
	}
	return out.Bytes(), nil
}

// loadReport is what is read of joinsim load --json.
type loadReport struct {
	OK             bool    `json:"ok"`
	Joins          uint64  `json:"joins"`
	Seconds        float64 `json:"seconds"`
	JoinsPerSecond float64 `json:"joinsPerSecond"`
	Latency        struct {
		P50 float64 `json:"p50ms"`
		P99 float64 `json:"p99ms"`
	} `json:"joinLatency"`
	Server struct {
		CPU               float64 `json:"cpu"`
		JoinsPerCPUSecond float64 `json:"joinsPerCPUSecond"`
		RSS               int64   `json:"rss"`
		PeakRSS           int64   `json:"peakRSS"`
	} `json:"server"`
	ServerUnknown string  `json:"serverUnknown"`
	ClientCPU     float64 `json:"clientCPU"`
	RequestBytes  int     `json:"requestBytes"`
	AnswerBytes   int     `json:"answerBytes"`
}

// timing is how long one measurement takes.
type timing struct{ warmup, duration time.Duration }

// newTell gives a function that tells what happens, to people.
func newTell(out io.Writer) func(string, ...any) {
	return func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
}
