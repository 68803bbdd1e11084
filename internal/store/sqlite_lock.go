package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fileLock is an exclusive flock on PATH.lock. The kernel drops it when the
// process ends, however it ends; the file stays and holds the process id of its
// last holder, for people.
type fileLock struct{ f *os.File }

// lockPoll is how often a declared successor looks whether the lock is free.
const lockPoll = 10 * time.Millisecond

// lockFile takes the lock of the database at path. Without wait a held lock is
// ErrLocked at once; with wait only ctx ends the waiting.
func lockFile(ctx context.Context, path string, wait bool) (*fileLock, error) {
	name := path + ".lock"
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, lockError(path, err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil && !stands(f, name):
			// Between open and lock it was moved away, with the database that it was of.
			_ = f.Close()
			if f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
				return nil, lockError(path, err)
			}
			continue
		case err == nil:
			l := &fileLock{f}
			return l, l.sign()
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", name, err)
		case !wait:
			holder := readHolder(f)
			_ = f.Close()
			return nil, fmt.Errorf("%w: %s is held by %s; stop that joinery first, "+
				"use its API for what you want to do, or start this server as its successor", ErrLocked, path, holder)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("%w: waiting for the lock of %s: %w", ErrLocked, path, ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

// stands tells whether f is the file at name.
func stands(f *os.File, name string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(name)
	return err == nil && os.SameFile(open, there)
}

func lockError(path string, err error) error {
	dir := filepath.Dir(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: there is no directory %s; make it, or correct the configured path", ErrMissing, dir)
	case errors.Is(err, os.ErrPermission), errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: directory %s does not let this user write; "+
			"give it to the user that runs joinery", ErrUnwritable, dir)
	default:
		return err
	}
}

// sign leaves this process's id in the lock file.
func (l *fileLock) sign() error {
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err := l.f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

func readHolder(f *os.File) string {
	var b [32]byte
	n, _ := f.ReadAt(b[:], 0)
	if pid := strings.TrimSpace(string(b[:n])); pid != "" {
		return "process " + pid
	}
	return "another process"
}

func (l *fileLock) release() error { return l.f.Close() }
