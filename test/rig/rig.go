// Package rig builds the real programs and runs them as people do: a server of
// its own in a directory, the operator's client and the simulator against it.
// The demonstration and the tests that kill servers share it.
package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"joinery/internal/config"
)

// Programs are the built programs in a directory.
type Programs struct{ dir string }

// Build builds the three programs into dir, as they ship: without cgo.
func Build(ctx context.Context, dir string) (Programs, error) {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator),
		"joinery/cmd/joinery", "joinery/cmd/joinctl", "joinery/cmd/joinsim")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
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
	Launch  func(*exec.Cmd) error
	process *exec.Cmd
	log     *os.File
	readyz  string
	done    chan error
}

// Quickstart makes a server in dir, which must not exist, and leaves it stopped.
func (p Programs) Quickstart(ctx context.Context, dir string, args ...string) (*Server, error) {
	args = append([]string{"quickstart", "--dir", dir, "--prepare-only"}, args...)
	if _, err := p.Run(ctx, "", "joinery", args...); err != nil {
		return nil, err
	}
	s := &Server{Programs: p, Dir: dir}
	c, err := config.Read(s.Path("joinery.yaml"))
	if err != nil {
		return nil, err
	}
	s.readyz = "http://" + c.Ops.Address + "/readyz"
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
func (s *Server) Start(ctx context.Context, args ...string) (err error) {
	if s.log, err = os.OpenFile(s.Path("server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	s.process = exec.Command(s.Binary("joinery"), append([]string{"serve", "--config", s.Path("joinery.yaml")}, args...)...)
	s.process.Stdout, s.process.Stderr = s.log, s.log
	launch := s.Launch
	if launch == nil {
		launch = (*exec.Cmd).Start
	}
	if err := launch(s.process); err != nil {
		return err
	}
	s.done = make(chan error, 1)
	go func() { s.done <- s.process.Wait() }()
	return s.waitReady(ctx)
}

func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if status, err := s.Ready(ctx); err == nil && status == http.StatusOK {
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
func (s *Server) Ready(ctx context.Context) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.readyz, nil)
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

// PID gives the process id of the running server.
func (s *Server) PID() int { return s.process.Process.Pid }

// Log gives what the server has logged.
func (s *Server) Log() string {
	b, err := os.ReadFile(s.Path("server.log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Kill kills the server as kill -9 does and waits for its end.
func (s *Server) Kill() error { return s.end(os.Kill) }

// Stop asks the server to end, as systemd does, and waits for it.
func (s *Server) Stop() error { return s.end(os.Interrupt) }

// Signal sends the server a signal that ends it, waits, and gives how it ended.
func (s *Server) Signal(signal os.Signal) (*os.ProcessState, error) {
	process := s.process
	if err := process.Process.Signal(signal); err != nil {
		return nil, err
	}
	<-s.done
	s.process = nil
	return process.ProcessState, s.log.Close()
}

func (s *Server) end(signal os.Signal) error {
	if s.process == nil {
		return nil
	}
	err := s.process.Process.Signal(signal)
	exit := <-s.done
	s.process = nil
	if signal == os.Kill {
		exit = nil // it had no say
	}
	return errors.Join(ignoreFinished(err), exit, s.log.Close())
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
