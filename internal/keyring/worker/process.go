package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"joinery/internal/keyring/remote"
)

// Times of a worker's life.
const (
	openTimeout  = 30 * time.Second // a token far away takes its time to log in
	drainTimeout = 30 * time.Second // for verbs in flight, when it is replaced
	endTimeout   = 5 * time.Second  // for closing its token
)

// process is a worker that runs.
type process struct {
	*remote.Client
	cmd     *exec.Cmd
	started time.Time
	done    chan struct{} // closed when it has ended
}

// start starts a worker and waits until it has opened its keyring. The error is
// the worker's own where it could not.
func start(ctx context.Context, o *Options) (*process, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	conn, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		return nil, errors.Join(err, theirs.Close())
	}
	cmd := exec.Command(o.Program, o.Args...)
	cmd.Env = environment(append(os.Environ(), o.Env...))
	cmd.Dir = string(filepath.Separator)
	cmd.Stdin = bytes.NewReader(o.Config)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr // libraries print where they like
	cmd.ExtraFiles = []*os.File{theirs}           // its descriptor 3, see socketFD
	began := time.Now()
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the keyring's process: %w", err), conn.Close())
	}
	p := &process{cmd: cmd, started: began, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended the state tells
		close(p.done)
	}()
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if p.Client, err = remote.Dial(ctx, conn); err != nil {
		p.await(endTimeout)
		return nil, err
	}
	return p, nil
}

// end ends a worker whose verbs are done with, or given up.
func (p *process) end() {
	_ = p.Close()
	p.await(endTimeout)
}

// await waits for the end of a process that has no connection any more, and
// helps it along.
func (p *process) await(patience time.Duration) {
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// kill ends a worker at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// retire ends a worker once its verbs are done.
func (p *process) retire() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	_ = p.Retire(ctx) // what takes longer is cut off
	p.end()
}

// pid names the process in the log.
func (p *process) pid() int { return p.cmd.Process.Pid }

// socketPair gives the two ends of a stream. Neither is left to other processes.
func socketPair() (ours, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket for the keyring's process: %w", err)
	}
	if err := errors.Join(syscall.SetNonblock(fds[0], true), syscall.SetNonblock(fds[1], true)); err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "server"), nil
}

// environment leaves out what a service manager says to the server alone.
func environment(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == "NOTIFY_SOCKET" || strings.HasPrefix(name, "WATCHDOG_") || strings.HasPrefix(name, "LISTEN_")
	})
}
