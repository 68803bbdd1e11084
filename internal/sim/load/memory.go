package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"joinery/internal/sim/device"
	"joinery/lorawan"
)

// Memory is the non-volatile memory of a fleet, mapped from a file so that a
// counter is saved when it is written: it outlives the program, however that
// ends, but not the power of the machine. Safe for concurrent use, each record
// by one goroutine at a time.
//
// The file is a head of 64 bytes, the format's name and zeros, then a record of
// 20 bytes for each device, in the order of the fleet, all integers
// little-endian:
//
//	check 4 ‖ next 4 ‖ JoinNonce 4 ‖ session 8
//
// check is FNV-1a over JoinEUI and DevEUI, so that another fleet is noticed; next
// is how many DevNonces the device has used; session is FNV-1a over the last
// SessionKeyID. A record of zeros is that of a device that was never used.
type Memory struct {
	file   *os.File
	mapped []byte
}

const (
	memoryFormat = "joinery-sim-load/1\n"
	memoryHead   = 64
	recordLen    = 20
)

// OpenMemory opens the memory of n devices in path, which is made or grown as
// needed. One program has it at a time.
func OpenMemory(path string, n int) (*Memory, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("devices' state: %w", err)
	}
	m := &Memory{file: f}
	if err := m.open(path, n); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *Memory) open(path string, n int) error {
	if err := syscall.Flock(int(m.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("devices' state %s is in use by another program: wait for it, or name another file with --state", path)
	}
	info, err := m.file.Stat()
	if err != nil {
		return fmt.Errorf("devices' state: %w", err)
	}
	if want := int64(memoryHead + n*recordLen); info.Size() < want {
		if err := m.file.Truncate(want); err != nil {
			return fmt.Errorf("devices' state: %w", err)
		}
	}
	size := memoryHead + n*recordLen
	if m.mapped, err = syscall.Mmap(int(m.file.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED); err != nil {
		return fmt.Errorf("devices' state %s: mmap: %w", path, err)
	}
	var head [memoryHead]byte
	copy(head[:], memoryFormat)
	switch {
	case info.Size() == 0:
		copy(m.mapped, head[:])
	case !bytes.Equal(m.mapped[:memoryHead], head[:]):
		return fmt.Errorf("devices' state %s: not a file of this kind: name another one with --state", path)
	}
	return nil
}

// Close gives the file back.
func (m *Memory) Close() (err error) {
	if m.mapped != nil {
		err = syscall.Munmap(m.mapped)
	}
	return errors.Join(err, m.file.Close())
}

// record is one device's part of the memory.
type record []byte

func (m *Memory) record(i int) record { return m.mapped[memoryHead+i*recordLen:][:recordLen] }

// claim notes whose record it is; false if it is another device's.
func (r record) claim(joinEUI, devEUI lorawan.EUI64) bool {
	check := checkOf(joinEUI, devEUI)
	if r.check() == 0 {
		binary.LittleEndian.PutUint32(r, check)
	}
	return r.check() == check
}

func (r record) check() uint32 { return binary.LittleEndian.Uint32(r) }

// checkOf is never 0.
func checkOf(joinEUI, devEUI lorawan.EUI64) uint32 {
	h := fnv.New32a()
	_, _ = h.Write(joinEUI[:]) // a hash never fails
	_, _ = h.Write(devEUI[:])
	return max(h.Sum32(), 1)
}

// next is how many DevNonces were used: the counter of a device that counts.
func (r record) next() uint32     { return binary.LittleEndian.Uint32(r[4:]) }
func (r record) setNext(n uint32) { binary.LittleEndian.PutUint32(r[4:], n) }

// joinNonce is that of the last accept that the device took.
func (r record) joinNonce() lorawan.JoinNonce {
	return lorawan.JoinNonce(binary.LittleEndian.Uint32(r[8:]))
}
func (r record) setJoinNonce(n lorawan.JoinNonce) {
	binary.LittleEndian.PutUint32(r[8:], uint32(n))
}

// takeSession notes a SessionKeyID; false if it is the last one again.
func (r record) takeSession(id []byte) bool {
	h := fnv.New64a()
	_, _ = h.Write(id)
	sum := h.Sum64()
	if binary.LittleEndian.Uint64(r[12:]) == sum {
		return false
	}
	binary.LittleEndian.PutUint64(r[12:], sum)
	return true
}

// CatchUp raises the counters of a device to where load left it, by the memory in
// path and the device's place in it. Without such a memory, or where another
// device is in that place, nothing is to be done.
func CatchUp(path string, place int, s *device.State) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("state of load: %w", err)
	}
	defer func() { _ = f.Close() }()
	r := make(record, recordLen)
	if _, err := f.ReadAt(r, int64(memoryHead+place*recordLen)); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return fmt.Errorf("state of load: %w", err)
	}
	if r.check() != checkOf(s.JoinEUI, s.DevEUI) {
		return nil
	}
	s.JoinNonce = max(s.JoinNonce, r.joinNonce())
	if s.MACVersion.CountsDevNonces() {
		s.NextDevNonce = max(s.NextDevNonce, r.next())
		return nil
	}
	used := slices.Clone(s.UsedDevNonces)
	for n := range r.next() {
		used = append(used, drawn(s.DevEUI, uint16(n)))
	}
	slices.Sort(used)
	s.UsedDevNonces = slices.Compact(used)
	return nil
}
