// Package flash keeps the non-volatile memory of emulated chips in a file, so that
// what a chip answered is never lost: not when the process is killed at any command,
// and with Sync not when the machine loses its power either.
//
// Each chip has two places in the file, which are written in turn, each with its
// number and a digest. A write that is cut off leaves a place whose digest is wrong,
// and the other one as it was: the memory before the command, which was not answered.
//
// The file holds keys in the clear, as a chip does, and is for simulated ones.
package flash

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"joinery/internal/sim/chip"
)

// The file: a page with mark and number of chips, then a page for each with two
// places. A place is its number 8, the image, and SHA-256 over both. None crosses a
// page, so that the system writes it whole or not at all.
const (
	mark      = "joinery-element/1\n"
	pageSize  = 4096
	placeSize = pageSize / 2
	filled    = 8 + chip.ImageSize + sha256.Size
)

// ErrFormat says that a file holds no elements, or is damaged beyond what a kill does.
var ErrFormat = errors.New("not a file of elements")

// File is an open file. Only one process has it open. Its methods are safe for
// concurrent use, those of one chip one at a time.
type File struct {
	f    *os.File
	sync bool
	// next is the number of each chip's next write.
	next []uint64
}

// Create makes a file, mode 0600, with these images. It never replaces one.
func Create(path string, images []*chip.Image) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("elements: %s exists already: name another file", path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("elements: %w", err)
	}
	// Whole or not there: a name that exists is a file that is finished.
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("elements: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	head := append(make([]byte, 0, pageSize), mark...)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(images)))
	_, err = f.Write(head[:pageSize])
	for _, m := range images {
		page := make([]byte, pageSize)
		if err == nil {
			err = place(page[:placeSize], 1, m)
		}
		if err == nil {
			_, err = f.Write(page)
		}
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("elements: %w", err)
	}
	if err = os.Link(f.Name(), path); err != nil {
		return fmt.Errorf("elements: %w", err)
	}
	return os.Remove(f.Name())
}

// place fills a place, or a part of one.
func place(b []byte, number uint64, m *chip.Image) error {
	binary.LittleEndian.PutUint64(b, number)
	image, err := m.AppendBinary(b[8:8])
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b[:8+len(image)])
	copy(b[8+len(image):], sum[:])
	return nil
}

// Open opens a file for its chips. With sync, each change is on the disk before it is
// answered. A file that others may read, or another process has open, is refused.
func Open(path string, sync bool) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("elements: %w", err)
	}
	file := &File{f: f, sync: sync}
	if err := file.open(path); err != nil {
		return nil, errors.Join(fmt.Errorf("elements: %w", err), f.Close())
	}
	return file, nil
}

func (f *File) open(path string) error {
	info, err := f.f.Stat()
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s holds secrets and has mode %04o: run chmod 600 %s", path, mode, path)
	}
	if err := syscall.Flock(int(f.f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("%s is in use by another process: end that, or name another file", path)
	}
	head := make([]byte, len(mark)+4)
	if _, err := io.ReadFull(f.f, head); err != nil || !bytes.HasPrefix(head, []byte(mark)) {
		return fmt.Errorf("%s: %w", path, ErrFormat)
	}
	n := binary.LittleEndian.Uint32(head[len(mark):])
	if info.Size() != pageSize*(int64(n)+1) {
		return fmt.Errorf("%s: %w: it is not as long as its elements", path, ErrFormat)
	}
	f.next = make([]uint64, n)
	return nil
}

// Len gives how many chips there are.
func (f *File) Len() int { return len(f.next) }

// Image gives a chip's memory as it was left. Call it once, before Saver.
func (f *File) Image(i int) (*chip.Image, error) {
	page := make([]byte, pageSize)
	if _, err := f.f.ReadAt(page, pageSize*int64(i+1)); err != nil {
		return nil, fmt.Errorf("elements: %w", err)
	}
	var found *chip.Image
	for _, b := range [][]byte{page[:placeSize], page[placeSize:]} {
		number := binary.LittleEndian.Uint64(b)
		sum := sha256.Sum256(b[:8+chip.ImageSize])
		if number == 0 || number < f.next[i] || !bytes.Equal(sum[:], b[8+chip.ImageSize:filled]) {
			continue
		}
		found = &chip.Image{}
		if err := found.UnmarshalBinary(b[8 : 8+chip.ImageSize]); err != nil {
			return nil, fmt.Errorf("elements: %w", err)
		}
		f.next[i] = number + 1
	}
	if found == nil {
		return nil, fmt.Errorf("elements: number %d: %w", i, ErrFormat)
	}
	return found, nil
}

// Saver gives what keeps a chip's memory: chip.Options.Save.
func (f *File) Saver(i int) func(*chip.Image) error {
	return func(m *chip.Image) error {
		b := make([]byte, filled)
		if err := place(b, f.next[i], m); err != nil {
			return err
		}
		// Odd numbers stand first.
		at := pageSize*int64(i+1) + placeSize*int64((f.next[i]+1)%2)
		if _, err := f.f.WriteAt(b, at); err != nil {
			return err
		}
		f.next[i]++
		if f.sync {
			return f.f.Sync()
		}
		return nil
	}
}

// Close gives the file back.
func (f *File) Close() error { return f.f.Close() }
