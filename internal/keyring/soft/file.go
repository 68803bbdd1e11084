package soft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"filippo.io/age"
	"github.com/google/renameio/v2"
)

// maxSecretFile bounds a file of secrets, in bytes.
const maxSecretFile = 1 << 20

// Permissions that a file of secrets must not give.
const (
	othersMask fs.FileMode = 0o077
	worldMask  fs.FileMode = 0o007
)

// readSecretFile reads a file that only its owner may read. The caller clears
// what it gets.
func readSecretFile(path string, forbidden fs.FileMode) ([]byte, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return readOpenFile(f, forbidden)
}

// openRegular opens a file for reading. O_NONBLOCK is for what is no file: a
// pipe that nobody writes to would hold the program for ever.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, explainOpen(path, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w: it is not a regular file", path, ErrDamaged)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func explainOpen(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w; check the path", path, fs.ErrNotExist)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w; the user that runs this program must own it", path, fs.ErrPermission)
	}
	return err
}

// readOpenFile reads a file from openRegular.
func readOpenFile(f *os.File, forbidden fs.FileMode) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch mode := info.Mode(); {
	case mode.Perm()&forbidden != 0:
		return nil, fmt.Errorf("%s: %w (mode %04o); run: chmod 600 %s", f.Name(), ErrPermissions, mode.Perm(), f.Name())
	case info.Size() > maxSecretFile:
		return nil, fmt.Errorf("%s: %w: it has more than %d bytes", f.Name(), ErrDamaged, maxSecretFile)
	}
	content := make([]byte, info.Size())
	if _, err := io.ReadFull(f, content); err != nil {
		return nil, fmt.Errorf("%s: %w: it cannot be read to its end", f.Name(), ErrDamaged)
	}
	return content, nil
}

// readContents opens a key file of one of the formats. The caller wipes what it
// gets.
func readContents(ctx context.Context, path string, u Unlock, formats ...string) (*contents, error) {
	return readContentsBy(ctx, path, u.read, formats...)
}

func readContentsBy(ctx context.Context, path string, read func(context.Context) (*lock, error), formats ...string) (*contents, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sealed, err := readSecretFile(path, othersMask)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	l, err := read(ctx)
	if err != nil {
		return nil, err
	}
	c, err := l.open(sealed, formats...)
	if err != nil {
		return nil, fmt.Errorf("key file: %s: %w", path, err)
	}
	return c, nil
}

// open opens the bytes of a key file.
func (l *lock) open(sealed []byte, formats ...string) (*contents, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), l.identities...)
	if err != nil {
		return nil, l.explain(err)
	}
	// The plaintext is shorter than the file, so that this never grows.
	plain := make([]byte, len(sealed))
	defer clear(plain)
	n, err := readToEnd(r, plain)
	if err != nil {
		return nil, fmt.Errorf("%w; restore it from a backup", ErrDamaged)
	}
	return decodeContents(plain[:n], formats...)
}

// readToEnd reads all of r into buf, which must have room for a byte more.
func readToEnd(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) {
		k, err := r.Read(buf[n:])
		n += k
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, io.ErrShortBuffer
}

// seal gives the bytes of a key file.
func (l *lock) seal(c *contents) ([]byte, error) {
	plain := c.encode()
	defer clear(plain)
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, l.recipients...)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return sealed.Bytes(), nil
}

// createFile writes a new file of mode 0600 in one step: after a crash there is
// the whole file or none. ErrExists if something has that name.
func createFile(path string, content []byte) error {
	return writeFile(path, content, func(f *renameio.PendingFile) error {
		if err := f.Sync(); err != nil {
			return err
		}
		// A link, other than a rename, fails where the name is taken.
		err := os.Link(f.Name(), path)
		if errors.Is(err, fs.ErrExist) {
			return exists(path)
		}
		return err
	})
}

// replaceFile writes a file of mode 0600 in place of another, in one step: after
// a crash there is the whole old one or the whole new one.
func replaceFile(path string, content []byte) error {
	return writeFile(path, content, (*renameio.PendingFile).CloseAtomicallyReplace)
}

func writeFile(path string, content []byte, publish func(*renameio.PendingFile) error) (err error) {
	dir := filepath.Dir(path)
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Cleanup()) }()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := publish(f); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a new name in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func exists(path string) error {
	return fmt.Errorf("%s: %w; keys are never overwritten: name another path, or move that file away", path, ErrExists)
}
