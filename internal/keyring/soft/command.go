package soft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Bounds of a command that unlocks: a service that is far away may take its time,
// and what it gives is a line or a few.
const (
	commandTimeout = 30 * time.Second
	maxCommandText = 16 << 10
)

// runCommand runs a program without arguments and gives what it wrote to its
// standard output; the caller clears that. Of what it writes to standard error
// nothing is kept: that goes where this program's own goes, as it comes. It runs
// without a shell, with this program's environment.
func runCommand(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path)
	cmd.Stderr = os.Stderr
	// Its children end with it: one that lives on would keep the pipe open.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot be run: %w", explainRun(err))
	}
	defer context.AfterFunc(ctx, func() { _ = out.Close() })() // a child that left the group
	// Read into one buffer, so that no copy is left behind in others.
	text := make([]byte, maxCommandText+1)
	n, readErr := readToEnd(out, text)
	if readErr != nil {
		_ = out.Close() // so that it does not wait to be read
	}
	switch err := cmd.Wait(); {
	case errors.Is(readErr, io.ErrShortBuffer) || n > maxCommandText:
		clear(text)
		return nil, fmt.Errorf("wrote more than %d bytes: that is no passphrase", maxCommandText)
	case ctx.Err() != nil:
		clear(text)
		return nil, fmt.Errorf("did not end within %v", commandTimeout)
	case err != nil:
		clear(text)
		return nil, fmt.Errorf("failed (%w); what it says of it is on standard error", err)
	case readErr != nil:
		clear(text)
		return nil, readErr
	case n == 0:
		return nil, errors.New("wrote nothing; it must write the passphrase or an age identity to standard output")
	}
	return text[:n], nil
}

// explainRun leaves the path out, which the caller names.
func explainRun(err error) error {
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
