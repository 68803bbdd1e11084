package store

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"joinery"
)

// A server must not answer joins from a database that is older than the joins
// which were answered before, or that has a twin elsewhere. So beside the file,
// where a copy of the file does not reach, stands a mark of what was open here
// last; and in the file stands by what the file itself is recognised.

// mark is what PATH.mark says of the database that was open here last. Each
// part of it is written after the database has the same on disk, so the
// database is never behind its mark in honest life, not even after a crash.
type mark struct {
	instance   [16]byte
	epoch      int64
	activation joinery.ActivationID // the last one committed that was noted; zero for none
}

// markLen is the length of a written mark: every one overwrites the one before,
// within one sector of the disk.
const markLen = 100

func (m mark) encode() []byte {
	b := fmt.Appendf(make([]byte, 0, markLen), "database %x epoch %020d join %016x ", m.instance, m.epoch, uint64(m.activation))
	return fmt.Appendf(b, "%08x\n", crc32.ChecksumIEEE(b))
}

// markFile is the open PATH.mark. Only who has the lock opens it.
type markFile struct{ f *os.File }

func openMark(path string) (*markFile, error) {
	f, err := os.OpenFile(path+".mark", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &markFile{f}, nil
}

// read gives the mark; false where there is none, or a damaged one.
func (l *markFile) read() (m mark, ok bool) {
	b := make([]byte, markLen)
	if n, _ := l.f.ReadAt(b, 0); n != markLen {
		return mark{}, false
	}
	var instance []byte
	var activation uint64
	if _, err := fmt.Sscanf(string(b), "database %x epoch %d join %x ", &instance, &m.epoch, &activation); err != nil || len(instance) != len(m.instance) {
		return mark{}, false
	}
	m.instance, m.activation = [16]byte(instance), joinery.ActivationID(activation)
	return m, bytes.Equal(b, m.encode())
}

func (l *markFile) write(m mark) error {
	_, err := l.f.WriteAt(m.encode(), 0)
	return err
}

// begin writes the first mark of a database, and the name of the file, to disk.
func (l *markFile) begin(path string, m mark) error {
	return inOrder(
		func() error { return l.write(m) },
		l.f.Sync,
		func() error { return syncDir(filepath.Dir(path)) },
	)
}

// place is where a database file is, seen from outside of it.
type place struct {
	home   string
	mark   mark
	marked bool
}

func findPlace(path string, l *markFile) (p place, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return place{}, err
	}
	p.home = fileIdentity(path, info)
	p.mark, p.marked = l.read()
	return p, nil
}

// strangeness says by what the database with row s, which was opened before, is
// not known to be the one that was open here last; "" where it is.
func (p place) strangeness(c conn, s storeRow) (string, error) {
	switch {
	case !sameFile(s.home, p.home):
		return "the file is a copy of the one that was open last, or was moved here", nil
	case !p.marked:
		return "its mark file (.mark) is missing or damaged, which tells the original from a copy", nil
	case p.mark.instance != s.instance:
		return "another database was open here last", nil
	case p.mark.epoch > s.epoch:
		return fmt.Sprintf("an older copy took its place: it was opened %d times, and now knows of %d", p.mark.epoch, s.epoch), nil
	case p.mark.activation == 0:
		return "", nil
	}
	there, err := c.integer("SELECT count(*) FROM activation WHERE id = ?", p.mark.activation)
	if err == nil && there == 0 {
		return fmt.Sprintf("an older copy took its place: it lacks join %s, which was answered from here", p.mark.activation), nil
	}
	return "", err
}

func newInstance() (id [16]byte) {
	rand.Read(id[:]) // never fails (crypto/rand)
	return id
}
