package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"time"

	"joinery"
	"joinery/internal/config"
)

// serverName is what this server calls itself in files of exports.
func serverName(c config.Config) string {
	if c.SignIn.URL != "" {
		return c.SignIn.URL
	}
	name, err := os.Hostname()
	if err != nil {
		return "joinery"
	}
	return name
}

// custodyEvery is how often exports are looked for that wait, beside when one is
// approved; custodyGrace is how long the custody process has to end.
const (
	custodyEvery = time.Minute
	custodyGrace = 5 * time.Second
)

// socketCaller is the server as it looks for the custody process's work.
var socketCaller = joinery.Caller{Name: "server", Operator: true, Socket: true}

// runExports ends exports that are over, and where the configuration says so
// starts the custody process for those that were approved, until ctx ends. One
// process at a time; it takes what there is and ends.
func (k *core) runExports(ctx context.Context, command []string) {
	if len(command) > 0 {
		go func() {
			for k.awaitExports(ctx) {
				k.startCustody(ctx, command)
			}
		}()
	}
	k.export.Run(ctx)
}

// awaitExports waits until exports wait, which another may have left; it is false
// once ctx ends.
func (k *core) awaitExports(ctx context.Context) bool {
	for {
		jobs, err := k.export.Jobs(ctx, socketCaller)
		switch {
		case ctx.Err() != nil:
			return false
		case joinery.CodeOf(err) == joinery.CodeUnavailable: // fenced, which is told elsewhere
		case err != nil:
			k.log.Warn("exports that wait for the custody process cannot be looked for now", "error", err)
		case len(jobs) > 0:
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-k.export.Approved():
		case <-time.After(custodyEvery):
		}
	}
}

// startCustody runs the custody process once. What it writes goes into the log; a
// run that left something undone is tried again after a while, and not at once.
func (k *core) startCustody(ctx context.Context, command []string) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = custodyGrace
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	k.log.Info("custody process started for an export")
	err := cmd.Run()
	if ctx.Err() != nil {
		return
	}
	attrs := []any{slog.String("said", said.String())}
	if err == nil {
		k.log.Info("custody process ended", attrs...)
		return
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() < 0 {
		attrs = append(attrs, slog.Any("error", err))
	}
	k.log.Warn("custody process ended with exports left; it is tried again in a minute", attrs...)
	select {
	case <-ctx.Done():
	case <-time.After(custodyEvery):
	}
}

// tail keeps the last of what a process writes, which holds no secret: it is the
// custody process's progress and its error.
type tail struct{ b []byte }

const tailLen = 2000

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - tailLen; over > 0 {
		t.b = t.b[over:]
	}
	return len(p), nil
}

func (t *tail) String() string { return string(bytes.TrimSpace(t.b)) }
