package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"joinery/client"
	"joinery/internal/config"
	"joinery/internal/sim/load"
	"joinery/test/rig"
)

// What is asked of a server whose keys are in a token, and what is promised of it.
const (
	tokenRate        = 200
	tokenConnections = 16
	tokenDevices     = 2000
	maxTokenP99      = 50.0 // milliseconds, at tokenRate
)

// softHSM is where the library may be.
var softHSM = []string{
	"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so",
}

// inToken is what was found of a server whose keys are in a token: one of each
// measurement a repetition.
type inToken struct {
	Devices int              `json:"devices"`
	Pinned  bool             `json:"pinned"`
	Levels  []client.Custody `json:"custody"`
	Open    tokenRun         `json:"open"`
	Closed  tokenRun         `json:"closed"`
	// RSS is the memory of server and worker after all of it, in bytes.
	RSS int64 `json:"rss"`
}

// tokenRun is one kind of load. The server's processor time is that of the worker,
// too, which WorkerCPU says by itself.
type tokenRun struct {
	JoinsASec   []float64 `json:"joinsPerSecond"`
	P50         []float64 `json:"p50ms"`
	P99         []float64 `json:"p99ms"`
	JoinsPerCPU []float64 `json:"joinsPerCPUSecond"`
	WorkerCPU   []float64 `json:"workerCPUPerJoinUs"` // microseconds
}

// runInToken makes a server whose keys are in a SoftHSM token, by a ceremony, and
// measures it.
func runInToken(ctx context.Context, o options, p programs, out io.Writer, tell func(string, ...any)) (err error) {
	devices := o.devices
	if devices == 0 {
		devices = tokenDevices
	}
	if p.token, err = newVault(ctx, p); err != nil {
		return err
	}
	half := devices / len(versions)
	s, err := newStage(ctx, p, tell, fleet{versions[0], devices - half}, fleet{versions[1], half})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	s.tellMachine()
	if err := s.server.Start(ctx); err != nil {
		return err
	}
	f := &inToken{Devices: s.devices(), Pinned: s.pinned()}
	api, err := client.New(client.Options{Socket: s.server.Path("joinery.sock")})
	if err != nil {
		return err
	}
	defer api.Close()
	status, err := api.Status(ctx)
	if err != nil {
		return err
	}
	f.Levels = status.Custody
	for i := range o.repeats {
		tell("repetition %d of %d", i+1, o.repeats)
		if err := s.measureToken(ctx, o.timing, f); err != nil {
			return fmt.Errorf("%w\nthe server's log:\n%s", err, s.server.Log())
		}
	}
	if o.json {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(f)
	}
	return f.print(out)
}

// measureToken makes each measurement once.
func (s *stage) measureToken(ctx context.Context, t timing, f *inToken) error {
	for _, m := range []struct {
		run  *tokenRun
		args []string
	}{
		{&f.Open, []string{"--rate", strconv.Itoa(tokenRate)}},
		{&f.Closed, []string{"--connections", strconv.Itoa(tokenConnections)}},
	} {
		if t.warmup > 0 { // apart, so that the worker's time below is of what is measured
			if _, err := s.runJoins(ctx, timing{duration: t.warmup}, m.args...); err != nil {
				return err
			}
		}
		worker, err := s.worker()
		if err != nil {
			return err
		}
		before, err := worker.Usage()
		if err != nil {
			return err
		}
		joins, err := s.runJoins(ctx, timing{duration: t.duration}, m.args...)
		if err != nil {
			return err
		}
		after, err := worker.Usage()
		if err != nil {
			return err
		}
		m.run.add(joins, after.CPU-before.CPU)
		f.RSS = joins.Server.RSS
		s.tell("  %s: %.0f joins/s, p50 %.2f ms, p99 %.2f ms", strings.TrimPrefix(strings.Join(m.args, " "), "--"), joins.JoinsPerSecond, joins.Latency.P50, joins.Latency.P99)
	}
	return nil
}

func (r *tokenRun) add(joins loadReport, worker time.Duration) {
	r.JoinsASec = append(r.JoinsASec, joins.JoinsPerSecond)
	r.P50 = append(r.P50, joins.Latency.P50)
	r.P99 = append(r.P99, joins.Latency.P99)
	r.JoinsPerCPU = append(r.JoinsPerCPU, joins.Server.JoinsPerCPUSecond)
	r.WorkerCPU = append(r.WorkerCPU, float64(worker.Microseconds())/float64(max(joins.Joins, 1)))
}

var opened = regexp.MustCompile(`msg="keyring opened".* process=(\d+)`)

// worker is the process that has the token now.
func (s *stage) worker() (load.Processes, error) {
	all := opened.FindAllStringSubmatch(s.server.Log(), -1)
	if len(all) == 0 {
		return nil, errors.New("the server's log names no process that has the token")
	}
	pid, err := strconv.Atoi(all[len(all)-1][1])
	return load.Processes{pid}, err
}

// print prints the medians.
func (f *inToken) print(out io.Writer) error {
	fmt.Fprintf(out, "\n%d devices of derived keys, half of them LoRaWAN %s and %s; SoftHSM; medians of %d\n", f.Devices, versions[0], versions[1], len(f.Open.P99))
	for _, l := range f.Levels {
		fmt.Fprintf(out, "custody level of %s %s: %s\n", l.Origin, l.Profile, l.Level)
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "load\tjoins/s\tp50 ms\tp99 ms\tjoins/CPU-s\tworker's CPU µs/join\t")
	for _, r := range []struct {
		name string
		tokenRun
	}{{fmt.Sprintf("open, %d/s", tokenRate), f.Open}, {fmt.Sprintf("closed, %d connections", tokenConnections), f.Closed}} {
		fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%.2f\t%.0f\t%.0f\t\n", r.name, median(r.JoinsASec), median(r.P50), median(r.P99), median(r.JoinsPerCPU), median(r.WorkerCPU))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	p99 := median(f.Open.P99)
	_, err := fmt.Fprintf(out, "\np99 at %d joins/s: %.2f ms, promised %.0f ms: %s\nmemory of server and worker: RSS %.1f MiB\n",
		tokenRate, p99, maxTokenP99, map[bool]string{true: "ok", false: "ABOVE"}[p99 <= maxTokenP99], mib(f.RSS))
	return err
}

// vault is the place of the two tokens, of SoftHSM, beside the programs.
type vault struct {
	dir, module string
	run         func(ctx context.Context, program string, args ...string) (string, error)
}

// tokenPIN is that of both: they hold keys of this bench and of nobody else.
const tokenPIN = "1234-5678"

// newVault builds the program that opens tokens, and finds the library or the tokens
// of an earlier run.
func newVault(ctx context.Context, p programs) (*vault, error) {
	v := &vault{dir: filepath.Join(p.dir, "tokens")}
	v.run = func(ctx context.Context, program string, args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%s %s: %w\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
		}
		return string(out), err
	}
	for _, path := range softHSM {
		if _, err := os.Stat(path); err == nil {
			v.module = path
		}
	}
	if v.module == "" {
		return nil, errors.New("SoftHSM2 (libsofthsm2.so) is not here: sudo apt-get install softhsm2")
	}
	if _, err := rig.BuildHSM(ctx, p.dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(v.dir, "store"), 0o700); err != nil {
		return nil, err
	}
	conf := v.path("softhsm2.conf")
	text := "directories.tokendir = " + v.path("store") + "\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"
	return v, errors.Join(os.WriteFile(conf, []byte(text), 0o600), os.Setenv("SOFTHSM2_CONF", conf))
}

func (v *vault) path(elem ...string) string {
	return filepath.Join(append([]string{v.dir}, elem...)...)
}

// moveToToken has a ceremony make the server's keys in a token, with the master key
// that its factory shares, and gives it the token in place of its key file.
func (s *stage) moveToToken(ctx context.Context, v *vault) error {
	began := time.Now()
	for _, label := range []string{"keys", "custody"} {
		if _, err := v.run(ctx, "softhsm2-util", "--init-token", "--free", "--label", label, "--pin", tokenPIN, "--so-pin", "8765-4321"); err != nil {
			return err
		}
		if err := os.WriteFile(v.path(label+".pin"), []byte(tokenPIN+"\n"), 0o600); err != nil {
			return err
		}
	}
	if err := s.ceremony(ctx, v, "first", ""); err != nil {
		return err
	}
	said, err := s.server.Run(ctx, "", "joinery", "ceremony", "master", "share", "quickstart",
		"--key-file", s.server.Path("keys", "factory.age"), "--passphrase-file", s.server.Path("keys", "factory.passphrase"),
		"--to", v.path("out", "transport.pub"), "--out", v.path("quickstart.master"))
	if err != nil {
		return err
	}
	kcv := regexp.MustCompile(`check value (\w{6})`).FindStringSubmatch(said)
	if kcv == nil {
		return fmt.Errorf("the factory names no key check value: %s", said)
	}
	if err := s.ceremony(ctx, v, "second", fmt.Sprintf("masters:\n  - {name: quickstart, accept: quickstart.master, kcv: %q}\n", kcv[1])); err != nil {
		return err
	}
	c, err := config.Read(s.server.Path("joinery.yaml"))
	if err != nil {
		return err
	}
	c.Keys.Backend, c.Keys.PassphraseFile = config.BackendPKCS11, ""
	t := &c.Keys.PKCS11
	t.Module, t.Token, t.PINFile, t.Worker, t.MinimumLevel = v.module, "keys", v.path("keys.pin"), s.server.Binary("joinery-hsm"), "in-token"
	var text bytes.Buffer
	if err := config.Print(&text, c); err != nil {
		return err
	}
	s.tell("ceremonies: two tokens and a shared master key in %.1f s", time.Since(began).Seconds())
	return os.WriteFile(s.server.Path("joinery.yaml"), text.Bytes(), 0o600)
}

// ceremony carries out a plan with these master keys, YAML.
func (s *stage) ceremony(ctx context.Context, v *vault, name, masters string) error {
	text := fmt.Sprintf(`ceremony: %[1]s
participants:
  - {name: nobody, role: bench}
directory: out
minimum_level: in-token
token: {module: %[2]s, label: keys, pin_file: keys.pin}
custody: {module: %[2]s, label: custody, pin_file: custody.pin}
%[3]s`, name, v.module, masters)
	plan := v.path(name + ".yaml")
	if err := os.WriteFile(plan, []byte(text), 0o600); err != nil {
		return err
	}
	_, err := s.server.Run(ctx, "", "joinery", "ceremony", "run", plan, "--yes")
	return err
}

// renewKEKs gives the peers KEKs in place of those that only the key file opens: the
// server as the newest versions, the simulated peers as the only ones.
func (s *stage) renewKEKs(ctx context.Context) (err error) {
	editErr := s.server.EditSim(func(c map[string]any) {
		for role, list := range map[string]any{"ns": c["ns"], "as": c["as"]} {
			peers, _ := list.([]any)
			for _, one := range peers {
				peer, _ := one.(map[string]any)
				keks, _ := peer["keks"].(map[string]any)
				fresh := map[string]any{}
				for old := range keks {
					label, key := old+"-token", hex.EncodeToString(randomKey())
					fresh[label] = key
					err = errors.Join(err, s.addKEK(ctx, fmt.Sprint(peer["name"]), role, label, key))
				}
				peer["keks"] = fresh
			}
		}
	})
	return errors.Join(err, editErr)
}

func (s *stage) addKEK(ctx context.Context, peer, role, label, key string) error {
	file := s.server.Path("kek")
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		return err
	}
	_, err := s.server.Ctl(ctx, "", "kek", "add", peer, "--role", role, label+"="+file)
	return errors.Join(err, os.Remove(file))
}

func randomKey() []byte {
	key := make([]byte, 16)
	rand.Read(key)
	return key
}
