// Package rig builds the real programs and runs them as people do: a server of
// its own in a directory, the operator's client and the simulator against it.
// The demonstration and the tests that kill servers share it.
package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"joinery/internal/config"
)

// Programs are the built programs in a directory.
type Programs struct{ dir string }

// Built names, in the environment, a directory that has all programs already, as
// they ship: `make test` builds them once, where each test would link its own.
const Built = "JOINERY_PROGRAMS"

// Build builds the three programs into dir, as they ship: without cgo. Where Built
// has them, it builds nothing.
func Build(ctx context.Context, dir string) (Programs, error) {
	return build(ctx, dir, false, "joinery", "joinctl", "joinsim")
}

// BuildHSM is Build with joinery-hsm beside the three, as it ships: with cgo.
func BuildHSM(ctx context.Context, dir string) (Programs, error) {
	p, err := Build(ctx, dir)
	if err != nil {
		return p, err
	}
	return build(ctx, dir, true, "joinery-hsm")
}

func build(ctx context.Context, dir string, cgo bool, programs ...string) (Programs, error) {
	if built := os.Getenv(Built); built != "" {
		p := Programs{built}
		for _, program := range programs {
			if _, err := os.Stat(p.Binary(program)); err != nil {
				return Programs{}, fmt.Errorf("%s has not all programs (make build build-hsm): %w", Built, err)
			}
		}
		return p, nil
	}
	args, env := []string{"build", "-o", dir + string(filepath.Separator)}, "CGO_ENABLED=0"
	if cgo {
		env = "CGO_ENABLED=1"
	}
	for _, program := range programs {
		args = append(args, "joinery/cmd/"+program)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), env)
	if out, err := cmd.CombinedOutput(); err != nil {
		return Programs{}, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return Programs{dir}, nil
}

// Binary gives the path of a program.
func (p Programs) Binary(program string) string { return filepath.Join(p.dir, program) }

// Run runs one program to its end and gives what it printed to standard output.
// The error of one that fails carries what it printed to standard error.
func (p Programs) Run(ctx context.Context, stdin, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, p.Binary(program), args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w\n%s%s", program, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// Server is a Join Server in a directory, running or not.
type Server struct {
	Programs
	Dir string
	// Launch starts the server's process, for who wants it on a processor of its
	// own; nil just starts it.
	Launch func(*exec.Cmd) error
	*Process
	leaving []*Process // have handed over
	readyz  string
	livez   string
}

// Process is a program that was started, and logs to a file.
type Process struct {
	cmd  *exec.Cmd
	log  *os.File
	done chan error // takes how it ended
}

// Quickstart makes a server in dir, which must not exist, and leaves it stopped.
func (p Programs) Quickstart(ctx context.Context, dir string, args ...string) (*Server, error) {
	args = append([]string{"quickstart", "--dir", dir, "--prepare-only"}, args...)
	if _, err := p.Run(ctx, "", "joinery", args...); err != nil {
		return nil, err
	}
	return p.Open(dir)
}

// Open gives the stopped server that lies in dir.
func (p Programs) Open(dir string) (*Server, error) {
	s := &Server{Programs: p, Dir: dir}
	c, err := config.Read(s.Path("joinery.yaml"))
	if err != nil {
		return nil, err
	}
	s.readyz, s.livez = "http://"+c.Ops.Address+"/readyz", "http://"+c.Ops.Address+"/livez"
	return s, nil
}

// Path gives a path in the server's directory.
func (s *Server) Path(elem ...string) string {
	return filepath.Join(append([]string{s.Dir}, elem...)...)
}

// startTimeout is how long a server may take to become ready: unsealing by
// passphrase takes about a second on purpose.
const startTimeout = 30 * time.Second

// Start starts the server and waits until it is ready. Its log goes to
// server.log in its directory.
func (s *Server) Start(ctx context.Context, args ...string) error {
	return s.StartWith(ctx, s.Command(args...))
}

// StartFenced starts a server that cannot become ready, because joins are fenced
// off, and waits until it serves.
func (s *Server) StartFenced(ctx context.Context, args ...string) (err error) {
	if s.Process, err = s.Spawn(s.Command(args...)); err != nil {
		return err
	}
	if err := s.waitFor(ctx, s.livez); err != nil {
		return err
	}
	if status, err := s.Ready(ctx); err == nil && status == http.StatusOK {
		return errors.New("the server is ready, and should be fenced")
	}
	return nil
}

// Command is how the server is started.
func (s *Server) Command(args ...string) *exec.Cmd {
	return exec.Command(s.Binary("joinery"), append([]string{"serve", "--config", s.Path("joinery.yaml")}, args...)...)
}

// Spawn starts cmd, which logs to server.log as well, and leaves the server that
// is known as running as it is.
func (s *Server) Spawn(cmd *exec.Cmd) (*Process, error) {
	log, err := os.OpenFile(s.Path("server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	start := s.Launch
	if start == nil {
		start = (*exec.Cmd).Start
	}
	if err := start(cmd); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	p := &Process{cmd: cmd, log: log, done: make(chan error, 1)}
	go func() { p.done <- cmd.Wait() }()
	return p, nil
}

// Succeed starts a successor and waits until it serves. The server that ran
// before lives on as long as somebody keeps a connection to it open.
func (s *Server) Succeed(ctx context.Context, args ...string) error {
	next, err := s.Spawn(s.Command(append(args, "--successor")...))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for s.Holder() != next.PID() {
		select {
		case err := <-next.done:
			return errors.Join(fmt.Errorf("the successor ended: %w\n%s", err, s.Log()), next.log.Close())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the server did not hand over: %w\n%s", ctx.Err(), s.Log()), next.KillAndWait())
		case <-time.After(5 * time.Millisecond):
		}
	}
	s.leaving = append(s.leaving, s.Process)
	s.Process = next
	return s.waitReady(ctx)
}

// Holder gives the process that last took the database's lock; 0 is nobody.
func (s *Server) Holder() (pid int) {
	text, err := os.ReadFile(s.Path("joinery.db.lock"))
	if err != nil {
		return 0
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

func (s *Server) waitReady(ctx context.Context) error { return s.waitFor(ctx, s.readyz) }

func (s *Server) waitFor(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if status, err := get(ctx, url); err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case err := <-s.done:
			s.done <- err
			return fmt.Errorf("the server ended before it was ready: %w\n%s", err, s.Log())
		case <-ctx.Done():
			return fmt.Errorf("the server did not become ready: %w\n%s", ctx.Err(), s.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Ready gives the status of /readyz.
func (s *Server) Ready(ctx context.Context) (status int, err error) { return get(ctx, s.readyz) }

func get(ctx context.Context, url string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	_ = resp.Body.Close()
	return resp.StatusCode, nil
}

// PID gives the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Wait waits for the end of a process that nobody else waits for.
func (p *Process) Wait() error {
	return errors.Join(<-p.done, p.log.Close())
}

// EditSim changes the simulator's configuration.
func (s *Server) EditSim(change func(map[string]any)) error {
	path := s.Path("sim", "sim.json")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var c map[string]any
	if err := json.Unmarshal(b, &c); err != nil {
		return err
	}
	change(c)
	if b, err = json.MarshalIndent(c, "", "  "); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// KillAndWait ends a process as kill -9 does.
func (p *Process) KillAndWait() error {
	err := p.cmd.Process.Kill()
	ended := <-p.done
	if _, killed := errors.AsType[*exec.ExitError](ended); killed {
		ended = nil
	}
	return errors.Join(ignoreFinished(err), ended, p.log.Close())
}

// Log gives what the server has logged.
func (s *Server) Log() string {
	b, err := os.ReadFile(s.Path("server.log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// StartWith is Start with a command of the caller's.
func (s *Server) StartWith(ctx context.Context, cmd *exec.Cmd) (err error) {
	if s.Process, err = s.Spawn(cmd); err != nil {
		return err
	}
	return s.waitReady(ctx)
}

// Config reads the server's configuration.
func (s *Server) Config() (config.Config, error) { return config.Load(s.Path("joinery.yaml")) }

// Kill kills the server as kill -9 does and waits for its end.
func (s *Server) Kill() error { return s.end(os.Kill) }

// Stop asks the server to end, as systemd does, and waits for it.
func (s *Server) Stop() error { return s.end(os.Interrupt) }

// Signal sends the server a signal that ends it, waits, and gives how it ended.
func (s *Server) Signal(signal os.Signal) (*os.ProcessState, error) {
	p := s.Process
	if err := p.cmd.Process.Signal(signal); err != nil {
		return nil, err
	}
	exit := <-p.done
	s.Process = nil
	if _, signalled := errors.AsType[*exec.ExitError](exit); !signalled {
		return nil, fmt.Errorf("the server did not end by %v: %w", signal, errors.Join(exit, p.log.Close()))
	}
	return p.cmd.ProcessState, p.log.Close()
}

func (s *Server) end(signal os.Signal) error {
	p := s.Process
	if p == nil {
		return nil
	}
	all := append(s.leaving, p)
	s.Process, s.leaving = nil, nil
	var errs []error
	for _, p := range all {
		if signal == os.Kill {
			errs = append(errs, p.KillAndWait())
			continue
		}
		errs = append(errs, ignoreFinished(p.cmd.Process.Signal(signal)), p.Wait())
	}
	return errors.Join(errs...)
}

func ignoreFinished(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Ctl runs joinctl on the operator socket.
func (s *Server) Ctl(ctx context.Context, stdin string, args ...string) (string, error) {
	return s.Run(ctx, stdin, "joinctl", append([]string{"--socket", s.Path("joinery.sock")}, args...)...)
}

// Sim runs joinsim with the directory's simulated parties.
func (s *Server) Sim(ctx context.Context, command string, args ...string) (string, error) {
	return s.Run(ctx, "", "joinsim", append([]string{command, "--config", s.Path("sim", "sim.json")}, args...)...)
}
